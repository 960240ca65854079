"""IoT Edge devices over REST: their scopes, their children, the modules that the hub creates."""

from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.devices import greeting
from tests.http.support import ANY, EDGE, check_error, check_flat_error, new_id, put_device, read
from tests.http.support import update_device as put
from tests.messages import put_module
from tests.mqtt.raw import Wire, connack
from tests.support import Device, Service, trust

SYSTEM_MODULES = ["$edgeAgent", "$edgeHub"]
READ_ONLY = "SystemModuleModifyUnauthorizedAccess"


def get(service: Service, device_id: str) -> Any:
    return read(service, f"/devices/{device_id}")


def create(service: Service, device_id: str, **members: Any) -> requests.Response:
    """Send a request to create a device."""
    body = {"deviceId": device_id, **members}
    return service.request("PUT", f"/devices/{device_id}", json=body)


def scopes_of(document: dict[str, Any]) -> tuple[Any, Any]:
    return document.get("deviceScope"), document.get("parentScopes")


def modules_of(service: Service, device_id: str) -> list[str]:
    return [module["moduleId"] for module in read(service, f"/devices/{device_id}/modules")]


@pytest.fixture
def parent(service: Service) -> str:
    """The scope of an IoT Edge device."""
    scope: str = put_device(service, new_id("edge"), **EDGE)["deviceScope"]
    return scope


@pytest.fixture
def edge(service: Service) -> str:
    """The id of an IoT Edge device."""
    device_id = new_id("edge")
    put_device(service, device_id, **EDGE)
    return device_id


# --- the device


def test_an_edge_device_is_created_with_its_own_scope(service: Service) -> None:
    device_id = new_id("edge")
    created = put_device(service, device_id, **EDGE, deviceScope="ms-azure-iot-edge://mine-1")
    scope = f"ms-azure-iot-edge://{device_id}-{created['generationId']}"
    assert list(created)[-3:] == ["capabilities", "deviceScope", "parentScopes"]
    assert created["capabilities"] == {"iotEdge": True}
    assert scopes_of(created) == (scope, [])
    listed = next(each for each in read(service, "/devices") if each["deviceId"] == device_id)
    for document in (get(service, device_id), read(service, f"/twins/{device_id}"), listed):
        assert list(document)[-2:] == ["capabilities", "deviceScope"]
        assert scopes_of(document) == (scope, None)


def test_an_edge_device_repeats_its_scope_in_every_update(service: Service, parent: str) -> None:
    device_id = new_id("edge")
    put_device(service, device_id, **EDGE, parentScopes=[parent])
    before = get(service, device_id)
    for wrong in (None, "", parent):
        members = {**EDGE, "parentScopes": [parent], "status": "disabled", "deviceScope": wrong}
        text = check_error(put(service, device_id, **members), 400, "ArgumentInvalid")
        assert text == "Device scope is immutable"
    assert get(service, device_id) == before
    # The document can be sent back as it was read.
    updated = put(service, device_id, **before | {"statusReason": "new"})
    assert updated.status_code == 200
    assert updated.json() == get(service, device_id)
    assert scopes_of(updated.json()) == scopes_of(before)


# --- its children


def test_a_leaf_with_the_scope_of_an_edge_device_is_its_child(
    service: Service, parent: str
) -> None:
    device_id = new_id("leaf")
    created = put_device(service, device_id, deviceScope=parent)
    assert scopes_of(created) == (parent, [parent])
    for document in (get(service, device_id), read(service, f"/twins/{device_id}")):
        assert list(document)[-3:] == ["capabilities", "deviceScope", "parentScopes"]
        assert scopes_of(document) == (parent, [parent])
    # The Azure CLI detaches it in this way.
    detached = put(service, device_id, **get(service, device_id) | {"deviceScope": ""})
    assert scopes_of(detached.json()) == (None, None)
    attached = put(service, device_id, **get(service, device_id) | {"deviceScope": parent})
    assert scopes_of(attached.json()) == (parent, [parent])
    assert scopes_of(put(service, device_id).json()) == (None, None)
    # For a leaf, a parent scope alone means nothing.
    assert scopes_of(put_device(service, new_id("leaf"), parentScopes=[parent])) == (None, [])


def test_an_edge_device_with_a_parent_scope_is_a_child(service: Service, parent: str) -> None:
    device_id = new_id("edge")
    created = put_device(service, device_id, **EDGE, parentScopes=[parent])
    own = created["deviceScope"]
    assert own != parent
    for document in (created, get(service, device_id), read(service, f"/twins/{device_id}")):
        assert scopes_of(document) == (own, [parent])
    grandchild = put_device(service, new_id("leaf"), deviceScope=own)
    assert scopes_of(grandchild) == (own, [own])
    for detaching in (dict[str, Any](parentScopes=[]), {}):
        members = {**EDGE, "deviceScope": own}
        attached = put(service, device_id, **members, parentScopes=[parent])
        assert scopes_of(attached.json()) == (own, [parent])
        assert scopes_of(put(service, device_id, **members, **detaching).json()) == (own, None)


def test_a_scope_must_be_that_of_an_edge_device(service: Service, parent: str) -> None:
    leaf, toggled, child = (new_id("edge") for _ in range(3))
    generation = put_device(service, leaf)["generationId"]
    gone: str = put_device(service, toggled, **EDGE)["deviceScope"]
    assert put(service, toggled).status_code == 200
    own = put_device(service, child, **EDGE)["deviceScope"]
    for scope in (
        "nonsense",
        "ms-azure-iot-edge://",
        "ms-azure-iot-edge://unknown-638316034265745064",
        f"ms-azure-iot-edge://{leaf}-{generation}",
        parent[:-1],
        parent.removeprefix("ms-azure-iot-edge://"),
        gone,
    ):
        for members in ({"deviceScope": scope}, {**EDGE, "parentScopes": [scope]}):
            device_id = new_id("edge")
            check_error(create(service, device_id, **members), 400, "InvalidDeviceScope")
            check_error(service.request("GET", f"/devices/{device_id}"), 404, "DeviceNotFound")
        for device_id, members in (
            (leaf, {"deviceScope": scope}),
            (child, {**EDGE, "deviceScope": own, "parentScopes": [scope]}),
        ):
            before = get(service, device_id)
            check_error(put(service, device_id, **members), 400, "InvalidDeviceScope")
            assert get(service, device_id) == before
    # A device can't be its own parent.
    itself = put(service, child, **EDGE, deviceScope=own, parentScopes=[own])
    check_error(itself, 400, "InvalidDeviceScope")


@pytest.mark.parametrize("members", [{"deviceScope": 1}, {"parentScopes": "x"}])
def test_a_scope_must_be_a_text(service: Service, members: dict[str, Any]) -> None:
    check_error(create(service, new_id("edge"), **EDGE, **members), 400, "ArgumentInvalid")


def test_a_child_outlives_its_parent(service: Service, edge: str) -> None:
    child_id, scope = new_id("leaf"), get(service, edge)["deviceScope"]
    put_device(service, child_id, deviceScope=scope)
    before = get(service, child_id)
    assert service.request("DELETE", f"/devices/{edge}", headers=ANY).status_code == 204
    assert get(service, child_id) == before
    # It can still be written back as it was read; but no other device can have that scope.
    updated = put(service, child_id, **before | {"statusReason": "alone"})
    assert scopes_of(updated.json()) == (scope, [scope])
    put_device(service, edge, **EDGE)  # again: another generation, another scope
    refused = create(service, new_id("leaf"), deviceScope=scope)
    check_error(refused, 400, "InvalidDeviceScope")
    assert scopes_of(put(service, child_id).json()) == (None, None)


# --- toggling


def test_a_device_becomes_an_edge_device_and_a_leaf_again(service: Service, parent: str) -> None:
    device_id = new_id("edge")
    put_device(service, device_id, deviceScope=parent)
    refused = put(service, device_id, **EDGE, deviceScope=parent)
    check_error(refused, 400, "InvalidDeviceScope")
    members = {**EDGE, "deviceScope": "", "parentScopes": [parent]}
    toggled = put(service, device_id, **members).json()
    # Without the generation that a device has which was an edge device from the start.
    assert scopes_of(toggled) == (f"ms-azure-iot-edge://{device_id}-", [parent])
    assert toggled["capabilities"] == {"iotEdge": True}
    assert modules_of(service, device_id) == SYSTEM_MODULES
    put_device(service, new_id("leaf"), deviceScope=toggled["deviceScope"])
    leaf = put(service, device_id, **toggled | {"capabilities": {"iotEdge": False}})
    assert leaf.status_code == 200
    assert scopes_of(leaf.json()) == (None, None)
    assert modules_of(service, device_id) == []
    for name in SYSTEM_MODULES:
        missing = service.request("GET", f"/twins/{device_id}/modules/{name}")
        check_error(missing, 404, "DeviceNotFound")
    again = put(service, device_id, **EDGE).json()
    assert scopes_of(again) == (f"ms-azure-iot-edge://{device_id}-", None)


def test_toggling_keeps_the_modules_of_clients(service: Service, device: Device) -> None:
    put_module(service, device.id, "mine")
    identity = get(service, device.id)
    for edge, modules in ((True, ["$edgeAgent", "$edgeHub", "mine"]), (False, ["mine"])):
        members = identity | {"capabilities": {"iotEdge": edge}}
        assert put(service, device.id, **members).status_code == 200
        assert sorted(modules_of(service, device.id)) == modules


# --- the hub's own modules


def test_an_edge_device_has_the_modules_of_the_runtime(service: Service, edge: str) -> None:
    modules = read(service, f"/devices/{edge}/modules")
    assert [module["moduleId"] for module in modules] == SYSTEM_MODULES
    for module in modules:
        path = f"{edge}/modules/{module['moduleId']}"
        assert read(service, f"/devices/{path}") == module
        assert (module["deviceId"], module["managedBy"]) == (edge, "iotEdge")
        assert module["connectionState"] == "Disconnected"
        assert module["authentication"] == {
            "symmetricKey": {"primaryKey": None, "secondaryKey": None},
            "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
            "type": "none",
        }
        twin = read(service, f"/twins/{path}")
        assert (twin["authenticationType"], twin["version"]) == ("none", 2)
        assert twin["deviceEtag"] == module["etag"]
        assert scopes_of(twin) == (None, None)
    assert service.request("DELETE", f"/devices/{edge}", headers=ANY).status_code == 204
    put_device(service, edge)
    assert modules_of(service, edge) == []


@pytest.mark.parametrize("name", SYSTEM_MODULES)
def test_a_module_of_the_runtime_is_read_only(service: Service, edge: str, name: str) -> None:
    path, twin_path = (f"/{part}/{edge}/modules/{name}" for part in ("devices", "twins"))
    before, twin = read(service, path), read(service, twin_path)
    check_flat_error(service.request("PUT", path, json=before), 400004, "ArgumentInvalid")
    for if_match in ("*", f'"{before["etag"]}"', '"c3RhbGU="'):
        headers: dict[str, str | None] = {"If-Match": if_match}
        for verb, body in (("PUT", before), ("DELETE", None)):
            refused = service.request(verb, path, json=body, headers=headers)
            text = check_flat_error(refused, 401100, READ_ONLY)
            assert text == "Unauthorized to modify reserved module."
    for verb in ("PATCH", "PUT"):
        refused = service.request(verb, twin_path, json={"tags": {"a": 1}}, headers=ANY)
        text = check_error(refused, 401, READ_ONLY)
        assert text == "Unauthorized to modify reserved module."
    assert (read(service, path), read(service, twin_path)) == (before, twin)


def test_an_edge_device_may_have_twenty_modules_of_clients(service: Service, edge: str) -> None:
    for number in range(20):
        put_module(service, edge, f"m{number}")
    body = {"deviceId": edge, "moduleId": "m20"}
    refused = service.request("PUT", f"/devices/{edge}/modules/m20", json=body)
    check_flat_error(refused, 413003, "TooManyModulesOnDevice")
    assert len(modules_of(service, edge)) == 22


@pytest.mark.parametrize("policy", ["iothubowner", "device"])
def test_a_module_of_the_runtime_cannot_connect(
    service: Service, emulator: Emulator, edge: str, policy: str
) -> None:
    put_module(service, edge, "mine")
    host = emulator.host_name
    key, _ = emulator.settings.key_pair(policy)
    for name, code in (("mine", 0), *((name, 5) for name in SYSTEM_MODULES)):
        with Wire((host, emulator.mqtt_port), trust(emulator)) as wire:
            wire.send(greeting(host, f"{edge}/{name}", key, policy=policy))
            wire.expect(connack(code))
