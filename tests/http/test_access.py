"""Which token opens which route."""

import base64

import pytest
import requests

from emulator import Emulator
from emulator.http.routes import ROUTES
from tests.http import support
from tests.http.route_table import DEVICE, READ, SERVICE, TABLE, WRITE, row_of
from tests.messages import put_module
from tests.support import Device, Service, jwt, sas_token, second_hub

PRIMARY = base64.b64encode(b"a device's own primary key, no 1").decode()
SECONDARY = base64.b64encode(b"a device's own secondary key, #2").decode()
KEYS = {"primaryKey": PRIMARY, "secondaryKey": SECONDARY}

RIGHTS = {
    "iothubowner": READ | WRITE | SERVICE | DEVICE,
    "service": SERVICE,
    "device": DEVICE,
    "registryRead": READ,
    "registryReadWrite": READ | WRITE,
}
OF_DEVICES = [route for route, (rights, _) in TABLE.items() if rights == DEVICE]
OF_SERVICES = [route for route, (rights, _) in TABLE.items() if rights & SERVICE]
NAMES = ("verb", "path")


def register(service: Service) -> Device:
    """Create a device with a module `m`, and with keys that no policy has."""
    device_id = support.new_id()
    support.put_device(service, device_id, authentication={"type": "sas", "symmetricKey": KEYS})
    put_module(service, device_id, "m")
    return Device(device_id, PRIMARY, "")


@pytest.fixture
def device(service: Service) -> Device:
    """A device that the test may change."""
    return register(service)


@pytest.fixture(scope="module")
def untouched(service: Service) -> Device:
    """A device that no test may change."""
    return register(service)


def check_untouched(service: Service, device: Device) -> None:
    modules = support.read(service, f"/devices/{device.id}/modules")
    assert [module["moduleId"] for module in modules] == ["m"]
    for path in (f"/twins/{device.id}", f"/twins/{device.id}/modules/m"):
        twin = support.read(service, path)
        assert ("tags" in twin, twin["cloudToDeviceMessageCount"]) == (False, 0)
        assert twin["properties"]["desired"]["$version"] == 1


def fill(path: str, device_id: str) -> str:
    """Put ids into a path: the device's, its module's, and otherwise one that is made up."""
    segments = path.split("/")
    for place, segment in enumerate(segments):
        if segment == "*":
            of_device = segments[place - 1] in ("devices", "twins", "digitaltwins")
            other = "m" if segments[place - 1] == "modules" else "made-up"
            segments[place] = device_id if of_device else other
    return "/".join(segments)


def body_of(path: str, device_id: str) -> object:
    """Make a body that changes the device, where the route can change it."""
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
    """Send a request that only its token can make fail with 401."""
    return service.request(
        verb,
        fill(path, device_id),
        json=None if verb in ("GET", "DELETE") else body_of(path, device_id),
        headers={"Authorization": token, "If-Match": "*"},
    )


def check_refused(response: requests.Response) -> None:
    # 401 also where a right is missing, never 403. The usual form also where a family of routes has
    # its own. The reason is in the log only: it would help an attacker.
    assert support.check_error(response, 401, "IotHubUnauthorizedAccess") == "Unauthorized"


def check_passed(response: requests.Response) -> None:
    """Check that the hub carried the request out, with or without success."""
    assert response.status_code != 401, response.text
    assert response.ok or response.headers["iothub-errorcode"]


def test_the_table_names_every_route() -> None:
    assert sorted(map(row_of, ROUTES)) == sorted(TABLE)


@pytest.mark.parametrize(NAMES, TABLE)
def test_a_route_is_open_to_each_policy_with_its_right_and_to_no_other(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str
) -> None:
    needed, _ = TABLE[verb, path]
    allowed = [policy for policy, rights in RIGHTS.items() if rights & needed]
    for policy in RIGHTS.keys() - allowed:
        check_refused(send(service, verb, path, device.id, support.policy_token(emulator, policy)))
    if verb != "GET":
        check_untouched(service, device)
    for policy in allowed:
        check_passed(send(service, verb, path, device.id, support.policy_token(emulator, policy)))


@pytest.mark.parametrize(NAMES, TABLE)
def test_a_route_refuses_a_request_without_a_valid_token(
    service: Service, emulator: Emulator, untouched: Device, verb: str, path: str
) -> None:
    host, good = emulator.https_host, support.policy_token(emulator, "iothubowner")
    own_key = [sas_token(each, PRIMARY) for each in (host, f"{host}/devices/{untouched.id}")]
    for token in (
        None,
        good.replace("&sig=", "&sig=A"),
        support.policy_token(emulator, "iothubowner", lifetime=-1),
        support.policy_token(emulator, "iothubowner", resource="other.example"),
        *(sas_token(host, PRIMARY, policy=policy) for policy in ("iothubowner", untouched.id)),
        *([] if (verb, path) in OF_DEVICES else own_key),
    ):
        check_refused(send(service, verb, path, untouched.id, token))
    if verb != "GET":
        check_untouched(service, untouched)


@pytest.mark.parametrize(NAMES, OF_DEVICES)
def test_a_devices_own_key_opens_the_devices_own_routes_until_it_is_disabled(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str
) -> None:
    host, other = emulator.https_host, support.new_id("other")
    support.put_device(service, other)
    for resource in (host, f"{host}/devices", f"{host}/devices/{device.id}"):
        token = sas_token(resource, device.key)
        for device_id in (other, f"{device.id}-unknown"):
            check_refused(send(service, verb, path, device_id, token))
        check_passed(send(service, verb, path, device.id, token))
    authentication = {"symmetricKey": KEYS}
    support.update_device(service, device.id, status="disabled", authentication=authentication)
    check_refused(send(service, verb, path, device.id, token))


def test_both_keys_of_a_policy_sign(service: Service, emulator: Emulator, device: Device) -> None:
    for key in emulator.settings.key_pair("registryRead"):
        token = sas_token(emulator.https_host, key, policy="registryRead")
        assert send(service, "GET", "/devices", device.id, token).status_code == 200


def test_a_token_can_be_for_a_part_of_the_hub(
    service: Service, emulator: Emulator, untouched: Device
) -> None:
    # Its audience is a prefix, by segments, of what it opens (IoT Hub docs: SAS token structure).
    own = f"devices/{untouched.id}"
    for verb, path, scope, check in (
        ("GET", "/devices/*", own, check_passed),
        ("GET", "/devices/*", "devices", check_passed),
        ("POST", "/twins/*/methods", f"twins/{untouched.id}", check_passed),
        ("GET", "/devices/*", own.upper(), check_passed),
        ("POST", "/twins/*/methods", f"TWINS/{untouched.id.upper()}", check_passed),
        ("GET", "/devices/*", f"{own}x", check_refused),
        ("GET", "/devices", own, check_refused),
        ("GET", "/twins/*", own, check_refused),
    ):
        resource = f"{emulator.https_host}/{scope}"
        token = support.policy_token(emulator, "iothubowner", resource=resource)
        check(send(service, verb, path, untouched.id, token))


def test_a_token_may_carry_any_name_of_this_machine(
    service: Service, emulator: Emulator, untouched: Device
) -> None:
    names = [emulator.host_name, emulator.https_host, emulator.https_host.upper(), "localhost:1"]
    for resource in names:
        token = support.policy_token(emulator, "registryRead", resource=resource)
        assert send(service, "GET", "/devices", untouched.id, token).status_code == 200


# --- bearer tokens of Entra ID


def test_a_bearer_token_is_refused_as_by_a_hub_where_the_principal_has_no_role(
    service: Service, untouched: Device
) -> None:
    for verb, path in TABLE:
        response = send(service, verb, path, untouched.id, f"Bearer {jwt(upn='ann@example.com')}")
        if (verb, path) in OF_DEVICES:
            check_refused(response)
            continue
        at = fill(path, untouched.id)
        assert support.check_error(response, 401, "IotHubUnauthorized") == (
            f"Principal ann@example.com is not authorized for {verb} on {at} "
            "due to no assigned permissions"
        )
    check_refused(send(service, "GET", "/devices", untouched.id, "Bearer abc"))
    check_untouched(service, untouched)


def test_with_the_setting_a_bearer_token_opens_the_routes_of_services_alone(
    emulator: Emulator,
) -> None:
    with second_hub(emulator, entra="accept") as hub:
        client = Service(hub)
        for verb, path in TABLE:
            device = register(client)
            response = send(client, verb, path, device.id, f"Bearer {jwt(oid='1')}")
            if (verb, path) in OF_DEVICES:
                check_refused(response)
            elif path.startswith("/digitaltwins") and "/commands/" in path:
                support.check_error(response, 401, "IotHubUnauthorized")
            else:
                check_passed(response)
        check_refused(send(client, "GET", "/devices", device.id, "Bearer abc"))
        client.close()


# --- keys stay secret


def check_no_key(response: requests.Response) -> None:
    answer = f"{response.text} {response.headers}"
    assert PRIMARY not in answer, response.request.url
    assert SECONDARY not in answer, response.request.url


def test_only_a_devices_own_document_contains_its_keys(
    service: Service, emulator: Emulator, device: Device
) -> None:
    path, twin_path = f"/devices/{device.id}", f"/twins/{device.id}"
    body = support.read(service, path)
    assert body["authentication"]["symmetricKey"] == KEYS
    reader = support.policy_token(emulator, "registryRead")
    assert PRIMARY in send(service, "GET", "/devices", device.id, reader).text

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
        service.request("DELETE", path, headers=support.ANY),
    ]
    for authentication in (
        {"symmetricKey": {"primaryKey": PRIMARY}},
        {"symmetricKey": {"primaryKey": PRIMARY, "secondaryKey": f"{SECONDARY}!"}},
        {"symmetricKey": PRIMARY, "x509Thumbprint": SECONDARY},
        {"x509Thumbprint": {"primaryThumbprint": PRIMARY}},
    ):
        mistaken = {"deviceId": device.id, "authentication": authentication}
        responses.append(service.request("PUT", path, json=mistaken))
    for response in responses:
        check_no_key(response)
    statuses = {response.status_code for response in responses}
    assert sorted(statuses) == [200, 204, 400, 401, 404, 405, 409, 412]


QUERIES = [
    "SELECT * FROM devices",
    "SELECT authentication FROM devices",
    "SELECT authentication.symmetricKey.primaryKey AS k FROM devices",
    "SELECT symmetricKey, primaryKey FROM devices",
    "SELECT * FROM devices.modules",
    "SELECT * FROM devices.jobs",
]


@pytest.mark.parametrize(NAMES, OF_SERVICES)
def test_a_service_without_a_registry_right_never_receives_a_key(
    service: Service, emulator: Emulator, device: Device, verb: str, path: str
) -> None:
    token = support.policy_token(emulator, "service")
    responses = [send(service, verb, path, device.id, token)]
    if path == "/devices/query":
        responses += [
            service.request(verb, path, json={"query": query}, headers={"Authorization": token})
            for query in QUERIES
        ]
    for response in responses:
        check_passed(response)
        check_no_key(response)
        assert "symmetricKey" not in f"{response.text} {response.headers}"
