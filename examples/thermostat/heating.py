"""The heating service: it controls thermostats."""

import os
import sys

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties


class Heating:
    """The service, with its connection to the hub."""

    def __init__(self, connection_string):
        self._hub = IoTHubRegistryManager(connection_string)

    def set_target(self, device_id, target):
        """Set the temperature that a thermostat keeps."""
        self._hub.update_twin(
            device_id, Twin(properties=TwinProperties(desired={"target": target})), "*"
        )

    def boost(self, device_id, minutes):
        """Heat for some minutes; return the thermostat's answer."""
        method = CloudToDeviceMethod(method_name="boost", payload={"minutes": minutes})
        return self._hub.invoke_device_method(device_id, method).payload

    def show(self, device_id, text):
        """Show a text on the display of a thermostat, also if it is not connected now."""
        self._hub.send_c2d_message(device_id, text)


def main():
    connection_string = os.environ.get("IOTHUB_CONNECTION_STRING")
    if not connection_string:
        sys.exit("Set IOTHUB_CONNECTION_STRING.")
    if len(sys.argv) != 3:
        sys.exit("Usage: heating.py DEVICE_ID TARGET")
    Heating(connection_string).set_target(sys.argv[1], float(sys.argv[2]))


if __name__ == "__main__":
    main()
