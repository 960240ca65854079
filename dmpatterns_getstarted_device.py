"""The device console of the tutorial "Get started with Azure IoT Hub device management".

It waits for the direct method rebootDevice, simulates a reboot, and reports in the device's twin
when that was. Ctrl-C ends it.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time

from azure.iot.device import IoTHubDeviceClient, MethodResponse
from azure.iot.device.common.transport_exceptions import UnauthorizedError
from azure.iot.device.exceptions import ClientError

CONNECTION_STRING = os.environ.get("IOTHUB_DEVICE_CONNECTION_STRING") or "{deviceConnectionString}"


def iothub_client_init():
    return IoTHubDeviceClient.create_from_connection_string(CONNECTION_STRING)


def reboot_listener(client):
    while True:
        request = client.receive_method_request("rebootDevice")

        print("Rebooting device")
        time.sleep(20)
        print("Device rebooted")

        try:
            # The twin comes first: a service that has the answer also finds the new rebootTime.
            client.patch_twin_reported_properties({"rebootTime": str(datetime.datetime.now())})
            print("Device twins updated with latest rebootTime")

            payload = {"Response": "This is the response from the device"}
            client.send_method_response(MethodResponse(request.request_id, 200, payload))
        except Exception as error:
            # Most likely the connection is lost. The SDK restores it, so keep listening.
            print(f"The reboot could not be reported: {reason(error)}")


def iothub_client_sample_run():
    if CONNECTION_STRING.startswith("{"):
        print(
            "The placeholder {deviceConnectionString} is still there: set the environment variable "
            "IOTHUB_DEVICE_CONNECTION_STRING, or CONNECTION_STRING in this file, to the device's "
            "connection string."
        )
        return 2

    client = None
    failures = []  # the errors of other threads that end the program

    def listen():
        try:
            client.connect()
            reboot_listener(client)
        except Exception as error:
            failures.append(error)

    def on_background_exception(error):
        # The SDK restores a lost connection, but gives up when the hub refuses the device.
        if isinstance(error, UnauthorizedError):
            failures.append(error)

    try:
        print("Starting the IoT Hub Python sample...")
        print("IoTHubDeviceClient waiting for commands, press Ctrl-C to exit")

        client = iothub_client_init()
        client.on_background_exception = on_background_exception
        threading.Thread(target=listen, daemon=True).start()

        while not failures:
            time.sleep(0.2)
        raise failures[0]
    except KeyboardInterrupt:
        if client:
            stop(client)
        print("IoTHubDeviceClient sample stopped")
        return 0
    except Exception as error:
        print(f"Unexpected error {reason(error)}")
        return 1


def stop(client):
    """Disconnect from the hub, but don't wait long for one that no longer answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to stop

    def shut_down():
        with contextlib.suppress(ClientError):  # the connection was lost already
            client.shutdown()

    thread = threading.Thread(target=shut_down, daemon=True)
    thread.start()
    thread.join(timeout=3)


def reason(error):
    """Say in one line what went wrong, and what to do about it where that is known."""
    if isinstance(error, (KeyError, ValueError)):
        form = "HostName=...;DeviceId=...;SharedAccessKey=..."
        return f"in the connection string ({error}); its form is {form}"

    cause = error
    while cause.__cause__:  # the SDK wraps the error that tells most
        cause = cause.__cause__
    text = str(cause) or repr(cause)

    if isinstance(cause, ssl.SSLCertVerificationError) and "mismatch" not in text:
        text += " (to trust the authority that signed it, name its file in SSL_CERT_FILE)"
    elif isinstance(cause, socket.gaierror):
        text += " (check HostName in the connection string)"
    elif isinstance(cause, (ConnectionError, TimeoutError)):
        text += " (check that the hub is running, and that port 8883 is open)"
    elif isinstance(cause, UnauthorizedError):
        text += " (check DeviceId and SharedAccessKey, and that the device is enabled)"
    return " ".join(text.split())


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # show each line at once, through a pipe too
    # The functions above say in one line what failed. The SDK would add its own words on stderr.
    logging.getLogger("azure").addHandler(logging.NullHandler())
    # Leave at once: a thread of the SDK may still be waiting for the hub.
    os._exit(iothub_client_sample_run())
