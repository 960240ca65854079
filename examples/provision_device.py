"""Enroll a device, provision it, connect it to its hub, and wait for a reboot. Ctrl-C stops it.

The first part is a program of the owner. It calls the REST API of the Device Provisioning Service,
because Azure has no current SDK in Python for that. The rest is the program of the device.
"""

import base64
import datetime
import hashlib
import hmac
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from azure.iot.device import IoTHubDeviceClient, MethodResponse, ProvisioningDeviceClient

CONNECTION_STRING = os.environ.get("PROVISIONING_CONNECTION_STRING")
HOST = os.environ.get("PROVISIONING_HOST")
ID_SCOPE = os.environ.get("PROVISIONING_IDSCOPE")
REGISTRATION_ID = os.environ.get("PROVISIONING_REGISTRATION_ID", "my-first-device")


def sign(host, policy, key):
    """Return a SAS token for an hour."""
    audience, expiry = urllib.parse.quote(host, safe=""), int(time.time()) + 3600
    text = f"{audience}\n{expiry}".encode()
    digest = hmac.new(base64.b64decode(key), text, hashlib.sha256).digest()
    signature = urllib.parse.quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={audience}&sig={signature}&se={expiry}&skn={policy}"


def call(verb, path, body=None):
    """Call the service API, and return the JSON of its answer."""
    fields = dict(part.split("=", 1) for part in CONNECTION_STRING.split(";"))
    token = sign(fields["HostName"], fields["SharedAccessKeyName"], fields["SharedAccessKey"])
    request = urllib.request.Request(
        f"https://{fields['HostName']}{path}?api-version=2021-10-01",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": token, "Content-Type": "application/json"},
        method=verb,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def enroll():
    """Enroll the device, unless it is enrolled, and return its key."""
    path = f"/enrollments/{REGISTRATION_ID}"
    try:
        attestation = call("POST", f"{path}/attestationmechanism")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        body = {
            "registrationId": REGISTRATION_ID,
            "attestation": {"type": "symmetricKey"},
            "initialTwin": {"properties": {"desired": {"telemetryInterval": 60}}},
        }
        attestation = call("PUT", path, body)["attestation"]
    print(f"Enrolled: {REGISTRATION_ID}")
    return attestation["symmetricKey"]["primaryKey"]


def provision(key):
    """Register the device, and return a client for the hub that it was assigned to."""
    client = ProvisioningDeviceClient.create_from_symmetric_key(
        HOST, REGISTRATION_ID, ID_SCOPE, key
    )
    result = client.register()
    if result.status != "assigned":
        sys.exit(f"The registration ended: {result.status}")
    state = result.registration_state
    print(f"Assigned to {state.assigned_hub} as {state.device_id}")
    return IoTHubDeviceClient.create_from_symmetric_key(key, state.assigned_hub, state.device_id)


def main():
    if not CONNECTION_STRING or not HOST or not ID_SCOPE:
        sys.exit("Set PROVISIONING_CONNECTION_STRING, PROVISIONING_HOST and PROVISIONING_IDSCOPE.")
    client = provision(enroll())

    def reboot(request):
        if request.name != "rebootDevice":
            response = MethodResponse.create_from_method_request(request, 404)
        else:
            print("Rebooting")
            now = datetime.datetime.now(datetime.UTC).isoformat()
            client.patch_twin_reported_properties({"rebootTime": now})
            response = MethodResponse.create_from_method_request(request, 200, {"rebooting": True})
        client.send_method_response(response)

    try:
        client.connect()
        interval = client.get_twin()["desired"].get("telemetryInterval")
        print(f"Connected; telemetryInterval is {interval}")
        client.on_method_request_received = reboot
        print("Waiting for rebootDevice. Ctrl-C stops it.")
        threading.Event().wait()
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        client.shutdown()


if __name__ == "__main__":
    main()
