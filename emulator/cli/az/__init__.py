"""The commands in the words and options of `az iot hub`.

Names, short forms and documents are those of azure-iot-cli-extension (its source, release 0.25).
"""
