from __future__ import annotations

import base64
import uuid

import pytest
import requests

from emulator import Emulator
from emulator.server import ROUTES
from tests.http.support import check_error, put_device
from tests.support import Device, Service, sas_token

PRIMARY = base64.b64encode(b"a device's own primary key, no 1").decode()
SECONDARY = base64.b64encode(b"a device's own secondary key, #2").decode()

READ, WRITE = "RegistryRead", "RegistryWrite"
SERVICE, DEVICE = "ServiceConnect", "DeviceConnect"

_DEVICE, _MODULE = "/devices/{device_id}", "/devices/{device_id}/modules/{module_id}"
_TWIN, _MODULE_TWIN = "/twins/{device_id}", "/twins/{device_id}/modules/{module_id}"
_FEEDBACK = "/messages/serviceBound/feedback"

# What each operation needs (IoT Hub docs: access control and permissions).
NEEDED = {
    ("GET", "/devices"): READ,
    ("GET", _DEVICE): READ,
    ("PUT", _DEVICE): WRITE,
    ("DELETE", _DEVICE): WRITE,
    ("GET", f"{_DEVICE}/modules"): READ,
    ("GET", _MODULE): READ,
    ("PUT", _MODULE): WRITE,
    ("DELETE", _MODULE): WRITE,
    ("GET", _TWIN): SERVICE,
    ("PATCH", _TWIN): SERVICE,
    ("PUT", _TWIN): SERVICE,
    ("GET", _MODULE_TWIN): SERVICE,
    ("PATCH", _MODULE_TWIN): SERVICE,
    ("PUT", _MODULE_TWIN): SERVICE,
    ("POST", f"{_TWIN}/methods"): SERVICE,
    ("POST", f"{_MODULE_TWIN}/methods"): SERVICE,
    ("DELETE", f"{_DEVICE}/commands"): SERVICE,
    ("GET", _FEEDBACK): SERVICE,
    ("DELETE", f"{_FEEDBACK}/{{lock}}"): SERVICE,
    ("POST", f"{_FEEDBACK}/{{lock}}/abandon"): SERVICE,
    ("GET", "/_emulator/events"): SERVICE,
    ("POST", "/_emulator/devices/{device_id}/messages"): SERVICE,
    ("POST", f"{_DEVICE}/messages/events"): DEVICE,
    ("GET", f"{_DEVICE}/messages/deviceBound"): DEVICE,
    ("DELETE", f"{_DEVICE}/messages/deviceBound/{{lock}}"): DEVICE,
    ("POST", f"{_DEVICE}/messages/deviceBound/{{lock}}/abandon"): DEVICE,
}
RIGHTS = {
    "iothubowner": {READ, WRITE, SERVICE, DEVICE},
    "service": {SERVICE},
    "device": {DEVICE},
    "registryRead": {READ},
    "registryReadWrite": {READ, WRITE},
}
# What the right alone doesn't bring about: nobody is online, and the lock is made up.
NOT_HERE = {"DeviceNotOnline", "DeviceMessageLockLost"}
ROUTE = pytest.mark.parametrize(("verb", "path"), list(NEEDED))


def register(service: Service) -> Device:
    """Make a device with a module `m`; its keys are no policy's, as on a loopback hub the usual
    ones are.
    """
    device_id = f"device-{uuid.uuid4().hex}"
    keys = {"primaryKey": PRIMARY, "secondaryKey": SECONDARY}
    put_device(service, device_id, authentication={"type": "sas", "symmetricKey": keys})
    module = {"deviceId": device_id, "moduleId": "m"}
    assert service.request("PUT", f"/devices/{device_id}/modules/m", json=module).ok
    return Device(device_id, PRIMARY, "")


@pytest.fixture
def device(service: Service) -> Device:
    """A device that the test may change."""
    return register(service)


@pytest.fixture(scope="module")
def untouched(service: Service) -> Device:
    """A device that nobody may change, and many try to."""
    return register(service)


def check_untouched(service: Service, device: Device) -> None:
    modules = service.request("GET", f"/devices/{device.id}/modules").json()
    assert [module["moduleId"] for module in modules] == ["m"]
    for twin_path in (f"/twins/{device.id}", f"/twins/{device.id}/modules/m"):
        twin = service.request("GET", twin_path).json()
        assert ("tags" in twin, twin["cloudToDeviceMessageCount"]) == (False, 0)


def send(
    service: Service, verb: str, path: str, device_id: str, token: str | None
) -> requests.Response:
    """Send a request that passes if the token does."""
    body: dict[str, object] = {"deviceId": device_id, "tags": {"written": True}}
    if path.endswith("/modules/{module_id}"):
        body["moduleId"] = "m"
    if path.endswith("/methods"):
        body = {"methodName": "m", "payload": {}}
    if path.startswith("/_emulator"):
        body = {"body": "hello"}
    return service.request(
        verb,
        path.format(device_id=device_id, module_id="m", lock="made-up"),
        json=None if verb in ("GET", "DELETE") else body,
        headers={"Authorization": token, "If-Match": "*"},
    )


def policy_token(
    emulator: Emulator, policy: str, *, resource: str = "", lifetime: float = 3600
) -> str:
    key, _ = emulator.settings.key_pair(policy)
    return sas_token(resource or emulator.https_host, key, policy=policy, lifetime=lifetime)


def check_refused(response: requests.Response) -> None:
    # 401 also where a right is missing, never 403.
    assert response.status_code == 401
    assert response.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"


def test_this_table_has_every_route() -> None:
    assert {(route.verb, route.path) for route in ROUTES} == set(NEEDED)


def policies(may: bool) -> list[tuple[str, str, str]]:
    """List each operation with each policy that may do it, or that may not."""
    return [
        (verb, path, policy)
        for (verb, path), needed in NEEDED.items()
        for policy, rights in RIGHTS.items()
        if (needed in rights) == may
    ]


@pytest.mark.parametrize(("verb", "path", "policy"), policies(may=True))
def test_a_policy_may_do_what_it_has_the_right_to(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str, policy: str
) -> None:
    response = send(service, verb, path, device.id, policy_token(emulator, policy))
    assert response.ok or response.headers.get("iothub-errorcode") in NOT_HERE, response.text


@pytest.mark.parametrize(("verb", "path", "policy"), policies(may=False))
def test_a_policy_may_do_nothing_else(
    service: Service, emulator: Emulator, untouched: Device, verb: str, path: str, policy: str
) -> None:
    check_refused(send(service, verb, path, untouched.id, policy_token(emulator, policy)))
    if verb != "GET":
        check_untouched(service, untouched)


@ROUTE
def test_without_an_authorization_nothing_is_done(
    service: Service, untouched: Device, verb: str, path: str
) -> None:
    check_refused(send(service, verb, path, untouched.id, None))
    if verb != "GET":
        check_untouched(service, untouched)


@pytest.mark.parametrize(
    ("verb", "path"),
    [route for route in NEEDED if "/modules" not in route[1] or route[1].startswith("/twins")],
)
def test_a_refusal_is_written_in_the_usual_form(
    service: Service, untouched: Device, verb: str, path: str
) -> None:
    # Also where a family of routes has another form for its own errors; module identities, whose
    # errors are seen in the flat form alone, are left out.
    response = send(service, verb, path, untouched.id, None)
    assert check_error(response, 401, "IotHubUnauthorizedAccess") == "Unauthorized"


@ROUTE
def test_a_devices_own_token_opens_its_own_routes_alone(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str
) -> None:
    host = emulator.https_host
    own = sas_token(f"{host}/devices/{device.id}", device.key)
    wide = sas_token(host, device.key)
    for token in (own, wide):
        response = send(service, verb, path, device.id, token)
        if NEEDED[verb, path] == DEVICE:
            assert response.ok or response.headers["iothub-errorcode"] in NOT_HERE
        else:
            check_refused(response)
    for policy in ("iothubowner", device.id):
        token = sas_token(host, device.key, policy=policy)
        check_refused(send(service, verb, path, device.id, token))


@pytest.mark.parametrize(
    ("verb", "path"), [route for route, needed in NEEDED.items() if needed == DEVICE]
)
def test_a_devices_token_is_not_another_devices(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str
) -> None:
    other = f"other-{uuid.uuid4().hex}"
    put_device(service, other)
    host = emulator.https_host
    for resource in (host, f"{host}/devices", f"{host}/devices/{device.id}"):
        token = sas_token(resource, device.key)
        check_refused(send(service, verb, path, other, token))


def test_both_keys_of_a_policy_sign(service: Service, emulator: Emulator, device: Device) -> None:
    for key in emulator.settings.key_pair("registryRead"):
        token = sas_token(emulator.https_host, key, policy="registryRead")
        assert send(service, "GET", "/devices", device.id, token).status_code == 200


NARROW = [
    ("GET", "/devices/{device_id}", "devices/{device_id}", True),
    ("GET", "/devices/{device_id}", "devices", True),
    ("GET", "/twins/{device_id}", "twins/{device_id}", True),
    ("POST", "/twins/{device_id}/methods", "twins/{device_id}", True),
    ("GET", "/devices/{device_id}", "devices/{device_id}x", False),
    ("GET", "/devices/{device_id}", "devic", False),
    ("GET", "/devices", "devices/{device_id}", False),
    ("GET", "/twins/{device_id}", "devices/{device_id}", False),
]


@pytest.mark.parametrize(("verb", "path", "scope", "passes"), NARROW)
def test_a_token_may_be_for_a_part_of_the_hub(
    service: Service,
    emulator: Emulator,
    device: Device,
    verb: str,
    path: str,
    scope: str,
    passes: bool,
) -> None:
    # Its audience is a prefix, by segments, of what it opens (IoT Hub docs: SAS token structure).
    resource = f"{emulator.https_host}/{scope.format(device_id=device.id)}"
    token = policy_token(emulator, "iothubowner", resource=resource)
    response = send(service, verb, path, device.id, token)
    if passes:
        assert response.status_code != 401
    else:
        check_refused(response)


def test_a_token_passes_for_any_name_of_this_machine(
    service: Service, emulator: Emulator, device: Device
) -> None:
    names = [emulator.host_name, emulator.https_host, emulator.https_host.upper(), "localhost:1"]
    for resource in names:
        token = policy_token(emulator, "registryRead", resource=resource)
        assert send(service, "GET", "/devices", device.id, token).status_code == 200


def test_a_token_that_is_not_good_is_refused(
    service: Service, emulator: Emulator, device: Device
) -> None:
    good = policy_token(emulator, "iothubowner")
    other_key = base64.b64encode(b"k" * 32).decode()
    host = emulator.https_host
    tokens = {
        "empty": "",
        "another scheme": good.replace("SharedAccessSignature", "Basic"),
        "bearer": "Bearer eyJhbGciOiJub25lIn0.e30.",
        "no scheme": good.partition(" ")[2],
        "expired": policy_token(emulator, "iothubowner", lifetime=-1),
        "another host": policy_token(emulator, "iothubowner", resource="other.example"),
        "another key": sas_token(host, other_key, policy="iothubowner"),
        "unknown policy": sas_token(host, PRIMARY, policy="nobody"),
        "a policy's key without its name": good.rpartition("&skn=")[0],
        "the policy in another case": good.replace("iothubowner", "IoTHubOwner"),
        "later expiry": good.replace("&se=", "&se=9"),
        "other signature": good.replace("&sig=", "&sig=A"),
    }
    for name, token in tokens.items():
        response = send(service, "GET", "/devices/{device_id}", device.id, token)
        assert response.status_code == 401, name
        text = check_error(response, 401, "IotHubUnauthorizedAccess")
        # Why is for the log: whoever guesses learns nothing.
        assert text == "Unauthorized", name
    assert send(service, "GET", "/devices", device.id, good).status_code == 200


def test_a_key_shows_in_its_devices_own_document_alone(
    service: Service, emulator: Emulator, device: Device
) -> None:
    path, twin_path = f"/devices/{device.id}", f"/twins/{device.id}"
    body = service.request("GET", path).json()
    assert body["authentication"]["symmetricKey"] == {
        "primaryKey": PRIMARY,
        "secondaryKey": SECONDARY,
    }
    reader = policy_token(emulator, "registryRead")
    listed = send(service, "GET", "/devices", device.id, reader).text
    assert PRIMARY in listed  # it is the document, in an array

    one_key = {"symmetricKey": {"primaryKey": PRIMARY}}
    broken_keys = {"symmetricKey": {"primaryKey": PRIMARY, "secondaryKey": f"{SECONDARY}!"}}
    in_the_wrong_place = {"symmetricKey": PRIMARY, "x509Thumbprint": SECONDARY}
    thumbprint = {"x509Thumbprint": {"primaryThumbprint": PRIMARY}}
    stale: dict[str, str | None] = {"If-Match": '"MTIz"'}
    responses = [
        service.request("GET", twin_path),
        service.request("PATCH", twin_path, json={"tags": {"a": 1}}),
        service.request("PUT", twin_path, json=body),
        service.request("PUT", path, json=body),
        service.request("PUT", path, json=body, headers=stale),
        service.request("DELETE", path, headers=stale),
        service.request("DELETE", path),
        service.request("PUT", "/devices/another", json=body),
        service.request("PATCH", path, json=body),
        service.request("PUT", path, data=f'{{"primaryKey": "{PRIMARY}'),
        service.request("POST", f"{twin_path}/methods", json={"methodName": "m"}),
        service.request("GET", path, headers={"Authorization": f"Basic {PRIMARY}"}),
        service.request("DELETE", path, headers={"If-Match": "*"}),
    ]
    for authentication in (one_key, broken_keys, in_the_wrong_place, thumbprint):
        mistaken = {"deviceId": device.id, "authentication": authentication}
        responses.append(service.request("PUT", path, json=mistaken))
    for response in responses:
        answer = f"{response.text} {response.headers}"
        assert PRIMARY not in answer, response.request.url
        assert SECONDARY not in answer, response.request.url
    assert {response.status_code for response in responses} == {
        200,
        204,
        400,
        401,
        404,
        405,
        409,
        412,
    }
