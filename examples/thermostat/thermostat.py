"""A thermostat: it reports temperatures, and keeps the target that a service sets."""

import json
import os
import sys
import time

from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse

ALERT_ABOVE = 30.0  # degrees
SECONDS = 10


class Thermostat:
    """The device, over its connection."""

    def __init__(self, connection_string):
        self._client = IoTHubDeviceClient.create_from_connection_string(connection_string)

    def start(self):
        """Connect, and listen to the service."""
        self._client.connect()
        self._client.on_message_received = self._show
        self._client.on_twin_desired_properties_patch_received = self._set_target
        self._client.on_method_request_received = self._answer
        self._set_target(self._client.get_twin()["desired"])

    def stop(self):
        """Close the connection."""
        # First the handlers: the SDK waits for ever for one that waits for the hub meanwhile.
        self._client.on_message_received = None
        self._client.on_twin_desired_properties_patch_received = None
        self._client.on_method_request_received = None
        self._client.shutdown()

    def send(self, temperature):
        """Send a temperature."""
        message = Message(
            json.dumps({"temperature": temperature}),
            content_encoding="utf-8",
            content_type="application/json",
        )
        message.custom_properties["alert"] = "true" if temperature > ALERT_ABOVE else "false"
        self._client.send_message(message)

    def _set_target(self, desired):
        if "target" in desired:
            self._client.patch_twin_reported_properties({"target": desired["target"]})

    def _show(self, message):
        self._client.patch_twin_reported_properties({"display": message.data.decode()})

    def _answer(self, request):
        status, payload = 404, {"error": f"unknown method {request.name}"}
        if request.name == "boost":
            status, payload = 200, {"minutes": request.payload["minutes"]}
        response = MethodResponse.create_from_method_request(request, status, payload)
        self._client.send_method_response(response)


def main():
    connection_string = os.environ.get("IOTHUB_DEVICE_CONNECTION_STRING")
    if not connection_string:
        sys.exit("Set IOTHUB_DEVICE_CONNECTION_STRING.")
    thermostat = Thermostat(connection_string)
    thermostat.start()
    try:
        while True:
            thermostat.send(21.5)
            time.sleep(SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        thermostat.stop()


if __name__ == "__main__":
    main()
