"""The service console of the tutorial "Get started with Azure IoT Hub device management".

It reboots a device with a direct method, then reads the time of the reboot in the twin, again and
again. Ctrl-C stops it.
"""

import sys

try:
    import contextlib
    import json
    import os
    import re
    import textwrap
    import time

    from azure.iot.hub import IoTHubRegistryManager
    from azure.iot.hub.models import CloudToDeviceMethod
    from msrest.exceptions import HttpOperationError
except ImportError as error:
    sys.exit(
        f"Cannot import azure-iot-hub: {error}. Run: pip install azure-iot-hub six (it needs "
        "uamqp, which has wheels for x86-64 and Python up to 3.13 only)"
    )
except KeyboardInterrupt:
    sys.exit("IoTHubDeviceMethod sample stopped")

CONNECTION_STRING = os.environ.get("IOTHUB_CONNECTION_STRING") or "{IoTHubConnectionString}"
DEVICE_ID = os.environ.get("IOTHUB_DEVICE_ID") or "{deviceId}"

METHOD_NAME = "rebootDevice"
METHOD_PAYLOAD = '{"method_number":"42"}'
TIMEOUT = 60
WAIT_COUNT = 10

# Which error, and what to check.
HINTS = {
    "ConnectionError": "that the hub is running",
    "DeviceNotFound": "the device id",
    "DeviceNotOnline": "that the device console is running",
    "GatewayTimeout": "the device console: it did not answer in time",
    "IotHubUnauthorizedAccess": "the policy's name, key and permissions: it needs service connect "
    "and registry read",
    "KeyError": "that the connection string is the hub's, not the device's",
    "SSLCertVerificationError": "HostName, and the hub's CA certificate in REQUESTS_CA_BUNDLE",
    "TimeoutError": "that the hub is running",
    "ValueError": "the connection string: HostName=...;SharedAccessKeyName=...;SharedAccessKey=...",
    "gaierror": "HostName in the connection string",
}


def iothub_devicemethod_sample_run():
    try:
        registry_manager = IoTHubRegistryManager(CONNECTION_STRING)

        # Call the direct method, and wait for the answer of the device.
        print("\nInvoking device to reboot...")
        deviceMethod = CloudToDeviceMethod(
            method_name=METHOD_NAME, payload=METHOD_PAYLOAD, response_timeout_in_seconds=TIMEOUT
        )
        response = registry_manager.invoke_device_method(DEVICE_ID, deviceMethod)
        print("\nSuccessfully invoked the device to reboot.")
        print(f"\n{response.payload}")

        # Read in the twin when the device last rebooted.
        while True:
            print("\nIoTHubClient waiting for commands, press Ctrl-C to exit")
            status_counter = 0
            while status_counter <= WAIT_COUNT:
                twin_info = registry_manager.get_twin(DEVICE_ID)
                if twin_info.properties.reported.get("rebootTime") is not None:
                    print(f"Last reboot time: {twin_info.properties.reported['rebootTime']}")
                else:
                    print("Waiting for device to report last reboot time...")
                time.sleep(5)
                status_counter += 1
    except KeyboardInterrupt:
        print("\nIoTHubDeviceMethod sample stopped")
    except Exception as error:
        print(f"\nUnexpected error {explain(error)}")
        sys.exit(1)


def explain(error):
    """Return one line: what went wrong, and what to check."""
    while error.__cause__ or error.__context__:  # the SDK wraps the error that says most
        error = error.__cause__ or error.__context__
    names = [kind.__name__ for kind in type(error).__mro__]
    text = f"{names[0]}: {error}"
    if isinstance(error, HttpOperationError):  # the hub answered with an error of its own
        names = [error.response.headers.get("iothub-errorcode")]
        message = error.response.text
        for key in ("Message", "message"):  # the answer to a method call is JSON inside JSON
            with contextlib.suppress(KeyError, TypeError, ValueError):
                message = json.loads(message)[key]
        text = f"HTTP {error.response.status_code} {error.response.reason}: {message}"
    text = textwrap.shorten(text, 300, placeholder=" ...").rstrip(": ")
    hint = next((HINTS[name] for name in names if name in HINTS), None)
    return f"{text} (check {hint})" if hint else text


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # show each line at once, also through a pipe
    for name, value in (("CONNECTION_STRING", CONNECTION_STRING), ("DEVICE_ID", DEVICE_ID)):
        if value.startswith("{"):
            print(f"Set IOTHUB_{name}, or replace {value} in this file.")
            sys.exit(2)
    shown = re.sub(r"(SharedAccessKey\s*=)[^;]*", r"\1***", CONNECTION_STRING, flags=re.IGNORECASE)
    print("Starting the IoT Hub Service Client DeviceManagement Python sample...")
    print(f"    Connection string = {shown}")
    print(f"    Device ID         = {DEVICE_ID}")
    iothub_devicemethod_sample_run()
