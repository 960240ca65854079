"""Send device-to-cloud messages as a device."""

import json
import os
import sys

from azure.iot.device import IoTHubDeviceClient, Message

CONNECTION_STRING = os.environ.get("IOTHUB_DEVICE_CONNECTION_STRING")
TEMPERATURES = (21.5, 24.0, 31.5)


def main():
    if not CONNECTION_STRING:
        sys.exit("Set IOTHUB_DEVICE_CONNECTION_STRING.")
    client = IoTHubDeviceClient.create_from_connection_string(CONNECTION_STRING)
    try:
        client.connect()
        for temperature in TEMPERATURES:
            message = Message(
                json.dumps({"temperature": temperature}),
                content_encoding="utf-8",
                content_type="application/json",
            )
            message.custom_properties["alert"] = "true" if temperature > 30 else "false"
            client.send_message(message)
            print(f"Sent: {message.data}")
    finally:
        client.shutdown()


if __name__ == "__main__":
    main()
