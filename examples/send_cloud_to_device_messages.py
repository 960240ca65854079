"""Send cloud-to-device messages as a service, and ask for feedback on each of them."""

import os
import sys

from azure.iot.hub import IoTHubRegistryManager

CONNECTION_STRING = os.environ.get("IOTHUB_CONNECTION_STRING")
DEVICE_ID = os.environ.get("IOTHUB_DEVICE_ID")
COUNT = 3


def main():
    if not CONNECTION_STRING or not DEVICE_ID:
        sys.exit("Set IOTHUB_CONNECTION_STRING and IOTHUB_DEVICE_ID.")
    registry_manager = IoTHubRegistryManager.from_connection_string(CONNECTION_STRING)
    for number in range(1, COUNT + 1):
        properties = {
            "messageId": f"message-{number}",
            "iothub-ack": "full",  # feedback on success and on failure
            "priority": "high" if number == COUNT else "normal",  # a property of our own
        }
        registry_manager.send_c2d_message(DEVICE_ID, f"Message {number}", properties)
        print(f"Sent to {DEVICE_ID}: Message {number}")


if __name__ == "__main__":
    main()
