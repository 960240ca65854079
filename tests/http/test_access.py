from __future__ import annotations

import base64
import re
import uuid

import pytest
import requests

from emulator import Emulator
from emulator.emulator import ROUTES
from tests.http.support import check_error, put_device
from tests.support import Device, Service, sas_token

PRIMARY = base64.b64encode(b"a device's own primary key, no 1").decode()
SECONDARY = base64.b64encode(b"a device's own secondary key, #2").decode()

# What of a path names one thing or another.
_ID = re.compile(r"\{[^}]+\}")

READ, WRITE = "RegistryRead", "RegistryWrite"
SERVICE, DEVICE = "ServiceConnect", "DeviceConnect"

_TWIN, _MODULE_TWIN = "/twins/*", "/twins/*/modules/*"
_FEEDBACK = "/messages/serviceBound/feedback"

# What each operation needs: one of these rights will do (IoT Hub docs: access control and
# permissions). Where the docs don't agree with each other, for configurations, or where it is not
# known whether a real hub takes ServiceConnect as well, for statistics, there are two. A star
# stands for an id.
NEEDED: dict[tuple[str, str], set[str]] = {
    ("GET", "/devices"): {READ},
    ("POST", "/devices"): {WRITE},
    ("GET", "/devices/*"): {READ},
    ("PUT", "/devices/*"): {WRITE},
    ("DELETE", "/devices/*"): {WRITE},
    ("GET", "/devices/*/modules"): {READ},
    ("GET", "/devices/*/modules/*"): {READ},
    ("PUT", "/devices/*/modules/*"): {WRITE},
    ("DELETE", "/devices/*/modules/*"): {WRITE},
    ("GET", "/statistics/devices"): {READ, SERVICE},
    ("GET", "/statistics/service"): {READ, SERVICE},
    ("GET", _TWIN): {SERVICE},
    ("PATCH", _TWIN): {SERVICE},
    ("PUT", _TWIN): {SERVICE},
    ("GET", _MODULE_TWIN): {SERVICE},
    ("PATCH", _MODULE_TWIN): {SERVICE},
    ("PUT", _MODULE_TWIN): {SERVICE},
    ("POST", "/devices/query"): {SERVICE},
    ("POST", f"{_TWIN}/methods"): {SERVICE},
    ("POST", f"{_MODULE_TWIN}/methods"): {SERVICE},
    ("GET", "/digitaltwins/*"): {SERVICE},
    ("PATCH", "/digitaltwins/*"): {SERVICE},
    ("POST", "/digitaltwins/*/commands/*"): {SERVICE},
    ("POST", "/digitaltwins/*/components/*/commands/*"): {SERVICE},
    ("GET", "/configurations"): {READ, SERVICE},
    ("GET", "/configurations/*"): {READ, SERVICE},
    ("PUT", "/configurations/*"): {WRITE, SERVICE},
    ("DELETE", "/configurations/*"): {WRITE, SERVICE},
    ("POST", "/configurations/testQueries"): {READ, SERVICE},
    ("POST", "/devices/*/applyConfigurationContent"): {WRITE, SERVICE},
    ("GET", "/jobs/v2/query"): {SERVICE},
    ("GET", "/jobs/v2/*"): {SERVICE},
    ("PUT", "/jobs/v2/*"): {SERVICE},
    ("POST", "/jobs/v2/*/cancel"): {SERVICE},
    ("POST", "/jobs/create"): {WRITE},
    ("GET", "/jobs"): {READ},
    ("GET", "/jobs/*"): {READ},
    ("DELETE", "/jobs/*"): {WRITE},
    ("DELETE", "/devices/*/commands"): {SERVICE},
    ("GET", _FEEDBACK): {SERVICE},
    ("DELETE", f"{_FEEDBACK}/*"): {SERVICE},
    ("POST", f"{_FEEDBACK}/*/abandon"): {SERVICE},
    ("GET", "/_emulator/events"): {SERVICE},
    ("POST", "/_emulator/devices/*/messages"): {SERVICE},
    ("POST", "/devices/*/messages/events"): {DEVICE},
    ("GET", "/devices/*/messages/deviceBound"): {DEVICE},
    ("DELETE", "/devices/*/messages/deviceBound/*"): {DEVICE},
    ("POST", "/devices/*/messages/deviceBound/*/abandon"): {DEVICE},
}
RIGHTS = {
    "iothubowner": {READ, WRITE, SERVICE, DEVICE},
    "service": {SERVICE},
    "device": {DEVICE},
    "registryRead": {READ},
    "registryReadWrite": {READ, WRITE},
}
# The routes that there are; one that the table lacks may be called by nobody.
ALL = [(route.verb, _ID.sub("*", route.path)) for route in ROUTES]
OF_DEVICES = [route for route in ALL if NEEDED.get(route) == {DEVICE}]
OF_SERVICES = [route for route in ALL if route not in OF_DEVICES]
ROUTE = pytest.mark.parametrize(("verb", "path"), ALL)


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
        assert twin["properties"]["desired"]["$version"] == 1


def fill(path: str, device_id: str) -> str:
    """Put ids into a path: the device's, its module's, and else one that is made up."""
    segments = path.split("/")
    for place, segment in enumerate(segments):
        if segment == "*":
            of_device = segments[place - 1] in ("devices", "twins", "digitaltwins")
            other = "m" if segments[place - 1] == "modules" else "made-up"
            segments[place] = device_id if of_device else other
    return "/".join(segments)


def body_of(path: str, device_id: str) -> object:
    """Make a body that does something to the device, if anything can be done to it there."""
    if path.startswith("/_emulator"):
        return {"body": "hello"}
    if path.startswith("/digitaltwins"):
        return [{"op": "add", "path": "/written", "value": True}]
    if path.endswith("/methods"):
        return {"methodName": "m", "payload": {}}
    if path.endswith("/query"):
        return {"query": "select * from devices"}
    tags = {"tags": {"written": True}}
    if path == "/devices":
        return [{"id": device_id, "importMode": "updateTwin", **tags}]
    return {"deviceId": device_id, **({"moduleId": "m"} if "/modules/" in path else {}), **tags}


def send(
    service: Service, verb: str, path: str, device_id: str, token: str | None
) -> requests.Response:
    """Send a request that passes if the token does."""
    return service.request(
        verb,
        fill(path, device_id),
        json=None if verb in ("GET", "DELETE") else body_of(path, device_id),
        headers={"Authorization": token, "If-Match": "*"},
    )


def policy_token(
    emulator: Emulator, policy: str, *, resource: str = "", lifetime: float = 3600
) -> str:
    key, _ = emulator.settings.key_pair(policy)
    return sas_token(resource or emulator.https_host, key, policy=policy, lifetime=lifetime)


def check_refused(response: requests.Response) -> None:
    # 401 also where a right is missing, never 403; and in the usual form, also where a family of
    # routes has another one for its own errors. Why is for the log: whoever guesses learns nothing.
    assert check_error(response, 401, "IotHubUnauthorizedAccess") == "Unauthorized"


def check_passed(response: requests.Response) -> None:
    """Check that the request came to be carried out, whatever became of it."""
    assert response.status_code != 401, response.text
    assert response.ok or response.headers["iothub-errorcode"]


def test_this_table_has_every_route() -> None:
    assert set(ALL) - set(NEEDED) == set()
    assert len(set(ALL)) == len(ALL)


def policies(may: bool) -> list[tuple[str, str, str]]:
    """List each operation with each policy that may do it, or that may not."""
    return [
        (verb, path, policy)
        for verb, path in ALL
        for policy, rights in RIGHTS.items()
        if bool(NEEDED.get((verb, path), set()) & rights) == may
    ]


@pytest.mark.parametrize(("verb", "path", "policy"), policies(may=True))
def test_a_policy_may_do_what_it_has_the_right_to(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str, policy: str
) -> None:
    check_passed(send(service, verb, path, device.id, policy_token(emulator, policy)))


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


@ROUTE
def test_a_token_that_is_not_good_opens_nothing(
    service: Service, emulator: Emulator, untouched: Device, verb: str, path: str
) -> None:
    good = policy_token(emulator, "iothubowner")
    for bad in (
        good.replace("&sig=", "&sig=A"),
        policy_token(emulator, "iothubowner", lifetime=-1),
        policy_token(emulator, "iothubowner", resource="other.example"),
    ):
        check_refused(send(service, verb, path, untouched.id, bad))
    if verb != "GET":
        check_untouched(service, untouched)


@ROUTE
def test_a_devices_own_token_opens_its_own_routes_alone(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str
) -> None:
    host = emulator.https_host
    own = sas_token(f"{host}/devices/{device.id}", device.key)
    wide = sas_token(host, device.key)
    for token in (own, wide):
        response = send(service, verb, path, device.id, token)
        if (verb, path) in OF_DEVICES:
            check_passed(response)
        else:
            check_refused(response)
    for policy in ("iothubowner", device.id):
        token = sas_token(host, device.key, policy=policy)
        check_refused(send(service, verb, path, device.id, token))


@pytest.mark.parametrize(("verb", "path"), OF_DEVICES)
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
    ("GET", "/devices/*", "devices/{device_id}", True),
    ("GET", "/devices/*", "devices", True),
    ("GET", "/twins/*", "twins/{device_id}", True),
    ("POST", "/twins/*/methods", "twins/{device_id}", True),
    ("GET", "/devices/*", "devices/{device_id}x", False),
    ("GET", "/devices/*", "devic", False),
    ("GET", "/devices", "devices/{device_id}", False),
    ("GET", "/twins/*", "devices/{device_id}", False),
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
        check_passed(response)
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
        response = send(service, "GET", "/devices/*", device.id, token)
        assert response.status_code == 401, name
        check_refused(response)
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


QUERIES = [
    "SELECT * FROM devices",
    "SELECT authentication FROM devices",
    "SELECT authentication.symmetricKey.primaryKey AS k FROM devices",
    "SELECT symmetricKey, primaryKey FROM devices",
    "SELECT * FROM devices.modules",
    "SELECT * FROM devices.jobs",
]


@pytest.mark.parametrize(
    ("verb", "path"), [route for route in OF_SERVICES if SERVICE in NEEDED.get(route, set())]
)
def test_a_service_that_may_not_read_the_registry_never_sees_a_key(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str
) -> None:
    token = policy_token(emulator, "service")
    responses = [send(service, verb, path, device.id, token)]
    if path == "/devices/query":
        responses += [
            service.request(verb, path, json={"query": query}, headers={"Authorization": token})
            for query in QUERIES
        ]
    for response in responses:
        check_passed(response)
        answer = f"{response.text} {response.headers}"
        assert PRIMARY not in answer
        assert SECONDARY not in answer
        assert "symmetricKey" not in answer
