"""Receive cloud-to-device messages as a device. Ctrl-C stops it."""

import os
import sys
import threading

from azure.iot.device import IoTHubDeviceClient

CONNECTION_STRING = os.environ.get("IOTHUB_DEVICE_CONNECTION_STRING")


def print_message(message):
    properties = [f"    {name}: {value}" for name, value in message.custom_properties.items()]
    # One call: each message has a thread of its own, and their lines must not mix.
    print("\n".join([f"Received: {message.data.decode()}", *properties]) + "\n", end="")


def main():
    if not CONNECTION_STRING:
        sys.exit("Set IOTHUB_DEVICE_CONNECTION_STRING.")
    client = IoTHubDeviceClient.create_from_connection_string(CONNECTION_STRING)
    try:
        client.connect()
        client.on_message_received = print_message
        print("Waiting for messages. Ctrl-C stops it.")
        threading.Event().wait()
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        client.shutdown()


if __name__ == "__main__":
    main()
