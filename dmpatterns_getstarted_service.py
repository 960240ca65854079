"""The service console of the tutorial "Get started with Azure IoT Hub device management".

It reboots a device with a direct method, then reads from the device's twin when the device last
rebooted, again and again. Ctrl-C ends it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import sys
import textwrap
import time

try:
    from azure.iot.hub import IoTHubRegistryManager
    from azure.iot.hub.models import CloudToDeviceMethod
    from msrest.exceptions import DeserializationError, HttpOperationError
except ImportError as error:
    sys.exit(
        f"azure-iot-hub can't be imported: {error} (install it with pip; it needs uamqp, which "
        "is published for x86-64 processors only)"
    )

CONNECTION_STRING = os.environ.get("IOTHUB_CONNECTION_STRING") or "{IoTHubConnectionString}"
DEVICE_ID = os.environ.get("IOTHUB_DEVICE_ID") or "{deviceId}"

METHOD_NAME = "rebootDevice"
METHOD_PAYLOAD = '{"method_number":"42"}'
TIMEOUT = 60
WAIT_COUNT = 10

# What to do about an error, by the name that the hub gives it.
ADVICE = {
    "DeviceNotFound": "check the device id",
    "DeviceNotOnline": "check that the device console is running",
    "GatewayTimeout": "the device took the call but did not answer in time",
    "IotHubUnauthorizedAccess": "check the policy's name, key and permissions: it needs service "
    "connect and registry read",
}


def iothub_devicemethod_sample_run():
    if CONNECTION_STRING.startswith("{"):
        print(
            "The placeholder {IoTHubConnectionString} is still there: set the environment variable "
            "IOTHUB_CONNECTION_STRING, or CONNECTION_STRING in this file, to the hub's service "
            "connection string."
        )
        return 2
    if DEVICE_ID.startswith("{"):
        print(
            "The placeholder {deviceId} is still there: set the environment variable "
            "IOTHUB_DEVICE_ID, or DEVICE_ID in this file, to the id of the device to reboot."
        )
        return 2

    try:
        print("Starting the IoT Hub Service Client DeviceManagement Python sample...")
        print(f"    Connection string = {mask_key(CONNECTION_STRING)}")
        print(f"    Device ID         = {DEVICE_ID}")

        registry_manager = IoTHubRegistryManager(CONNECTION_STRING)

        print("\nInvoking device to reboot...")
        method = CloudToDeviceMethod(
            method_name=METHOD_NAME, payload=METHOD_PAYLOAD, response_timeout_in_seconds=TIMEOUT
        )
        response = registry_manager.invoke_device_method(DEVICE_ID, method)
        print("\nSuccessfully invoked the device to reboot.")
        print(f"\n{response.payload}")

        while True:
            print("\nIoTHubClient waiting for commands, press Ctrl-C to exit")
            for _ in range(WAIT_COUNT + 1):
                twin = registry_manager.get_twin(DEVICE_ID)
                reboot_time = twin.properties.reported.get("rebootTime")
                if reboot_time is None:
                    print("Waiting for device to report last reboot time...")
                else:
                    print(f"Last reboot time: {reboot_time}")
                time.sleep(5)
    except KeyboardInterrupt:
        print("\nIoTHubDeviceMethod sample stopped")
        return 0
    except Exception as error:
        print(f"\nUnexpected error {reason(error)}")
        return 1


def mask_key(connection_string):
    return re.sub(r"(SharedAccessKey\s*=)[^;]*", r"\1***", connection_string, flags=re.IGNORECASE)


def reason(error):
    """Say in one line what went wrong, and what to do about it where that is known."""
    if isinstance(error, HttpOperationError):
        return answer_of_hub(error.response)
    if isinstance(error, (KeyError, ValueError)) and not isinstance(error, DeserializationError):
        form = "HostName=...;SharedAccessKeyName=...;SharedAccessKey=..."
        return f"in the connection string ({error}); its form is {form}"

    cause = error
    while cause.__cause__ or cause.__context__:  # the SDK wraps the error that tells most
        cause = cause.__cause__ or cause.__context__
    text = str(cause) or repr(cause)

    if isinstance(cause, ssl.SSLCertVerificationError) and "mismatch" not in text:
        text += " (to trust the authority that signed it, name its file in REQUESTS_CA_BUNDLE)"
    elif isinstance(cause, socket.gaierror):
        text += " (check HostName in the connection string)"
    elif isinstance(cause, (ConnectionError, TimeoutError)):
        text += " (check that the hub is running)"
    return " ".join(text.split())


def answer_of_hub(response):
    """Say in one line what the hub answered: the HTTP status, and the message in the JSON body."""
    message = response.text
    for key in ("Message", "message"):  # direct methods put a second JSON text into the first
        try:
            message = json.loads(message)[key]
        except (KeyError, TypeError, ValueError):
            continue
    text = f"HTTP {response.status_code} {response.reason}"
    if message:
        text += f": {message}"

    advice = ADVICE.get(response.headers.get("iothub-errorcode"))
    if advice:
        text += f" ({advice})"
    return textwrap.shorten(text, 400, placeholder=" ...")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # show each line at once, through a pipe too
    sys.exit(iothub_devicemethod_sample_run())
