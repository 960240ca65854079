"""The device console of the tutorial "Get started with Azure IoT Hub device management".

It waits for the direct method rebootDevice, simulates a reboot, and reports its time in the twin.
"""

import sys

try:
    import datetime
    import logging
    import os
    import textwrap
    import threading
    import time

    from azure.iot.device import IoTHubDeviceClient, MethodResponse
except ImportError as error:
    sys.exit(f"Cannot import azure-iot-device: {error}. Run: pip install azure-iot-device")
except KeyboardInterrupt:
    sys.exit("IoTHubDeviceClient sample stopped")

CONNECTION_STRING = os.environ.get("IOTHUB_DEVICE_CONNECTION_STRING") or "{deviceConnectionString}"

# Which error, and what to check.
HINTS = {
    "ConnectionError": "that the hub is running, and that port 8883 is open",
    "KeyError": "that the connection string is the device's, not the hub's",
    "SSLCertVerificationError": "HostName, and the hub's CA certificate in SSL_CERT_FILE",
    "TimeoutError": "that the hub is running, and that no firewall blocks port 8883",
    "UnauthorizedError": "DeviceId and SharedAccessKey, and that the device is enabled",
    "ValueError": "the connection string: HostName=...;DeviceId=...;SharedAccessKey=...",
    "gaierror": "HostName in the connection string",
}


def iothub_client_init():
    return IoTHubDeviceClient.create_from_connection_string(CONNECTION_STRING)


def reboot_listener(client):
    while True:
        # Receive the request: wait until a service calls the method.
        method_request = client.receive_method_request("rebootDevice")

        # Act on it: simulate a physical reboot.
        print("Rebooting device")
        time.sleep(20)
        print("Device rebooted")

        # Report: a service that has the answer must find the new time in the twin.
        current_time = str(datetime.datetime.now())
        reported_props = {"rebootTime": current_time}
        client.patch_twin_reported_properties(reported_props)
        print("Device twins updated with latest rebootTime")

        # Respond: send the answer to the service.
        resp_status = 200
        resp_payload = {"Response": "This is the response from the device"}
        method_response = MethodResponse(method_request.request_id, resp_status, resp_payload)
        client.send_method_response(method_response)


def iothub_client_sample_run():
    try:
        client = iothub_client_init()
        client.on_background_exception = stop_if_refused

        # Start the listener. A daemon thread ends with the program.
        reboot_listener_thread = threading.Thread(
            target=connect_and_listen, args=[client], daemon=True
        )
        reboot_listener_thread.start()

        # Python can notice Ctrl-C late, at the end of a wait. So this thread waits only briefly.
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        print("IoTHubDeviceClient sample stopped")
    except Exception as error:
        stop(error)


def connect_and_listen(client):
    try:
        client.connect()
    except Exception as error:
        stop(error)
    keep_listening(client)


def keep_listening(client):
    # An error, such as a lost connection, ends the listener. The SDK connects again by itself.
    while True:
        try:
            reboot_listener(client)
        except Exception as error:
            print(f"Listening again after an error: {explain(error)}")
            time.sleep(5)


def stop_if_refused(error):
    # The SDK does not connect again if the hub refuses the device.
    if type(error).__name__ == "UnauthorizedError":
        stop(error)


def stop(error):
    print(f"Unexpected error {explain(error)}")
    os._exit(1)


def explain(error):
    """Return one line: what went wrong, and what to check."""
    while error.__cause__:  # the SDK wraps the error that says most
        error = error.__cause__
    names = [kind.__name__ for kind in type(error).__mro__]
    text = textwrap.shorten(f"{names[0]}: {error}", 300, placeholder=" ...").rstrip(": ")
    hint = next((HINTS[name] for name in names if name in HINTS), None)
    return f"{text} (check {hint})" if hint else text


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # show each line at once, also through a pipe
    logging.getLogger("azure").addHandler(logging.NullHandler())  # explain() says it in one line
    if CONNECTION_STRING.startswith("{"):
        print(f"Set IOTHUB_DEVICE_CONNECTION_STRING, or replace {CONNECTION_STRING} in this file.")
        sys.exit(2)
    print("Starting the IoT Hub Python sample...")
    print("IoTHubDeviceClient waiting for commands, press Ctrl-C to exit")
    iothub_client_sample_run()
    os._exit(0)  # at once: a thread of the SDK may still wait for the hub
