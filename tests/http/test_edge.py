"""IoT Edge devices over REST: their scopes, their children, the modules that the hub gives them."""

from __future__ import annotations

import ssl
import uuid
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.http.support import check_error, put_device
from tests.messages import put_module
from tests.mqtt.raw import Wire, connack, connect
from tests.support import API_VERSION, Device, Service, sas_token

ANY: dict[str, str | None] = {"If-Match": "*"}
EDGE = {"capabilities": {"iotEdge": True}}
SYSTEM_MODULES = ["$edgeAgent", "$edgeHub"]


def new_id() -> str:
    return f"edge-{uuid.uuid4().hex[:12]}"


def get(service: Service, device_id: str) -> dict[str, Any]:
    response = service.request("GET", f"/devices/{device_id}")
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def twin_of(service: Service, device_id: str) -> dict[str, Any]:
    document: dict[str, Any] = service.request("GET", f"/twins/{device_id}").json()
    return document


def put(service: Service, device_id: str, **members: Any) -> requests.Response:
    """Send an update."""
    body = {"deviceId": device_id, **members}
    return service.request("PUT", f"/devices/{device_id}", json=body, headers=ANY)


def scopes_of(document: dict[str, Any]) -> tuple[Any, Any]:
    return document.get("deviceScope"), document.get("parentScopes")


def modules_of(service: Service, device_id: str) -> list[str]:
    modules = service.request("GET", f"/devices/{device_id}/modules").json()
    return [module["moduleId"] for module in modules]


@pytest.fixture
def parent(service: Service) -> str:
    """The scope of an IoT Edge device."""
    scope: str = put_device(service, new_id(), **EDGE)["deviceScope"]
    return scope


# --- the device


def test_an_edge_device_is_created_with_a_scope_of_its_own(service: Service) -> None:
    device_id = new_id()
    created = put_device(service, device_id, **EDGE, deviceScope="ms-azure-iot-edge://mine-1")
    scope = f"ms-azure-iot-edge://{device_id}-{created['generationId']}"
    assert list(created)[-3:] == ["capabilities", "deviceScope", "parentScopes"]
    assert created["capabilities"] == {"iotEdge": True}
    assert scopes_of(created) == (scope, [])
    read = get(service, device_id)
    assert list(read)[-2:] == ["capabilities", "deviceScope"]
    assert scopes_of(read) == (scope, None)
    twin = twin_of(service, device_id)
    assert list(twin)[-3:] == ["properties", "capabilities", "deviceScope"]
    assert scopes_of(twin) == (scope, None)
    listed = service.request("GET", "/devices").json()
    assert scopes_of(next(each for each in listed if each["deviceId"] == device_id)) == (
        scope,
        None,
    )


def test_a_device_that_is_no_edge_device_has_no_scope(service: Service, device: Device) -> None:
    assert scopes_of(get(service, device.id)) == (None, None)
    assert scopes_of(twin_of(service, device.id)) == (None, None)
    assert modules_of(service, device.id) == []


def test_an_edge_device_repeats_its_scope_in_every_update(service: Service, parent: str) -> None:
    device_id = new_id()
    put_device(service, device_id, **EDGE, parentScopes=[parent])
    before = get(service, device_id)
    for wrong in ({}, {"deviceScope": None}, {"deviceScope": ""}, {"deviceScope": parent}):
        members = {**EDGE, "parentScopes": [parent], "status": "disabled", **wrong}
        text = check_error(put(service, device_id, **members), 400, "ArgumentInvalid")
        assert text == "Device scope is immutable"
    assert get(service, device_id) == before
    # The document as it was read will do.
    updated = put(service, device_id, **before | {"statusReason": "new"})
    assert updated.status_code == 200
    assert updated.json() == get(service, device_id)
    assert scopes_of(updated.json()) == scopes_of(before)


# --- its children


def test_a_leaf_is_the_child_of_the_edge_device_whose_scope_it_has(
    service: Service, parent: str
) -> None:
    device_id = new_id()
    created = put_device(service, device_id, deviceScope=parent)
    assert scopes_of(created) == (parent, [parent])
    for document in (get(service, device_id), twin_of(service, device_id)):
        assert list(document)[-3:] == ["capabilities", "deviceScope", "parentScopes"]
        assert scopes_of(document) == (parent, [parent])
    # As the Azure CLI takes it away.
    detached = put(service, device_id, **get(service, device_id) | {"deviceScope": ""})
    assert scopes_of(detached.json()) == (None, None)
    attached = put(service, device_id, **get(service, device_id) | {"deviceScope": parent})
    assert scopes_of(attached.json()) == (parent, [parent])
    assert scopes_of(put(service, device_id).json()) == (None, None)


def test_a_leaf_that_names_a_parent_scope_alone_has_no_parent(
    service: Service, parent: str
) -> None:
    assert scopes_of(put_device(service, new_id(), parentScopes=[parent])) == (None, [])


def test_an_edge_device_is_the_child_of_the_one_that_is_its_parent_scope(
    service: Service, parent: str
) -> None:
    device_id = new_id()
    created = put_device(service, device_id, **EDGE, parentScopes=[parent])
    own = created["deviceScope"]
    assert own != parent
    for document in (created, get(service, device_id), twin_of(service, device_id)):
        assert scopes_of(document) == (own, [parent])
    grandchild = put_device(service, new_id(), deviceScope=own)
    assert scopes_of(grandchild) == (own, [own])
    for detaching in ({"parentScopes": []}, {}):
        members = {**EDGE, "deviceScope": own}
        attached = put(service, device_id, **members, parentScopes=[parent])
        assert scopes_of(attached.json()) == (own, [parent])
        assert scopes_of(put(service, device_id, **members, **detaching).json()) == (own, None)


def test_a_scope_must_be_that_of_an_edge_device(service: Service, parent: str) -> None:
    leaf, toggled = new_id(), new_id()
    put_device(service, leaf)
    gone: str = put_device(service, toggled, **EDGE)["deviceScope"]
    assert put(service, toggled).status_code == 200
    child = new_id()
    own = put_device(service, child, **EDGE)["deviceScope"]
    wrong = [
        "nonsense",
        "ms-azure-iot-edge://",
        "ms-azure-iot-edge://nobody-638316034265745064",
        f"ms-azure-iot-edge://{leaf}-{get(service, leaf)['generationId']}",
        parent[:-1],
        parent + "0",
        parent.removeprefix("ms-azure-iot-edge://"),
        gone,
    ]
    for scope in wrong:
        for members in ({"deviceScope": scope}, {**EDGE, "parentScopes": [scope]}):
            device_id = new_id()
            body = {"deviceId": device_id, **members}
            response = service.request("PUT", f"/devices/{device_id}", json=body)
            check_error(response, 400, "InvalidDeviceScope")
            check_error(service.request("GET", f"/devices/{device_id}"), 404, "DeviceNotFound")
        for device_id, members in (
            (leaf, {"deviceScope": scope}),
            (child, {**EDGE, "deviceScope": own, "parentScopes": [scope]}),
        ):
            before = get(service, device_id)
            check_error(put(service, device_id, **members), 400, "InvalidDeviceScope")
            assert get(service, device_id) == before
    # Nor is a device its own parent.
    itself = put(service, child, **EDGE, deviceScope=own, parentScopes=[own])
    check_error(itself, 400, "InvalidDeviceScope")


@pytest.mark.parametrize(
    "members",
    [
        {"deviceScope": 1},
        {"deviceScope": ["x"]},
        {"parentScopes": "x"},
        {"parentScopes": [1]},
        {"parentScopes": ["ms-azure-iot-edge://a-1", "ms-azure-iot-edge://b-1"]},
    ],
)
def test_a_scope_that_is_none_is_refused(service: Service, members: dict[str, Any]) -> None:
    device_id = new_id()
    body = {"deviceId": device_id, **EDGE, **members}
    response = service.request("PUT", f"/devices/{device_id}", json=body)
    check_error(response, 400, "ArgumentInvalid")


def test_a_child_outlives_its_parent(service: Service) -> None:
    parent_id, child_id = new_id(), new_id()
    scope = put_device(service, parent_id, **EDGE)["deviceScope"]
    put_device(service, child_id, deviceScope=scope)
    before = get(service, child_id)
    assert service.request("DELETE", f"/devices/{parent_id}", headers=ANY).status_code == 204
    assert get(service, child_id) == before
    # It can still be written back as it was read; but nobody new comes under that scope.
    updated = put(service, child_id, **before | {"statusReason": "alone"})
    assert scopes_of(updated.json()) == (scope, [scope])
    put_device(service, parent_id, **EDGE)  # again: another generation, another scope
    other = new_id()
    body = {"deviceId": other, "deviceScope": scope}
    response = service.request("PUT", f"/devices/{other}", json=body)
    check_error(response, 400, "InvalidDeviceScope")
    assert scopes_of(put(service, child_id).json()) == (None, None)


# --- toggling


def test_a_device_becomes_an_edge_device_and_a_leaf_again(service: Service, parent: str) -> None:
    device_id = new_id()
    put_device(service, device_id, deviceScope=parent)
    refused = put(service, device_id, **EDGE, deviceScope=parent)
    check_error(refused, 400, "InvalidDeviceScope")
    members = {**EDGE, "deviceScope": "", "parentScopes": [parent]}
    toggled = put(service, device_id, **members).json()
    # Without the generation of one that was an edge device from the start.
    assert scopes_of(toggled) == (f"ms-azure-iot-edge://{device_id}-", [parent])
    assert toggled["capabilities"] == {"iotEdge": True}
    assert modules_of(service, device_id) == SYSTEM_MODULES
    child = new_id()
    put_device(service, child, deviceScope=toggled["deviceScope"])
    leaf = put(service, device_id, **toggled | {"capabilities": {"iotEdge": False}})
    assert leaf.status_code == 200
    assert scopes_of(leaf.json()) == (None, None)
    assert modules_of(service, device_id) == []
    for name in SYSTEM_MODULES:
        missing = service.request("GET", f"/twins/{device_id}/modules/{name}")
        check_error(missing, 404, "DeviceNotFound")
    again = put(service, device_id, **EDGE).json()
    assert scopes_of(again) == (f"ms-azure-iot-edge://{device_id}-", None)


def test_toggling_leaves_the_modules_of_clients_alone(service: Service, device: Device) -> None:
    path = f"/devices/{device.id}/modules/mine"
    body = {"deviceId": device.id, "moduleId": "mine"}
    assert service.request("PUT", path, json=body).status_code == 200
    identity = get(service, device.id)
    for edge in (True, False):
        members = identity | {"capabilities": {"iotEdge": edge}}
        assert put(service, device.id, **members).status_code == 200
        assert ("mine" in modules_of(service, device.id), len(modules_of(service, device.id))) == (
            True,
            3 if edge else 1,
        )


# --- the hub's own modules


def test_an_edge_device_has_the_modules_of_the_runtime(service: Service) -> None:
    device_id = new_id()
    put_device(service, device_id, **EDGE)
    modules = service.request("GET", f"/devices/{device_id}/modules").json()
    assert [module["moduleId"] for module in modules] == SYSTEM_MODULES
    for module in modules:
        path = f"{device_id}/modules/{module['moduleId']}"
        assert service.request("GET", f"/devices/{path}").json() == module
        assert (module["deviceId"], module["managedBy"]) == (device_id, "iotEdge")
        assert module["connectionState"] == "Disconnected"
        assert module["authentication"] == {
            "symmetricKey": {"primaryKey": None, "secondaryKey": None},
            "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
            "type": "none",
        }
        twin = service.request("GET", f"/twins/{path}").json()
        assert (twin["authenticationType"], twin["version"]) == ("none", 2)
        assert twin["deviceEtag"] == module["etag"]
        assert scopes_of(twin) == (None, None)
    assert service.request("DELETE", f"/devices/{device_id}", headers=ANY).status_code == 204
    put_device(service, device_id)
    assert modules_of(service, device_id) == []


def check_flat_error(response: requests.Response, code: int, name: str) -> str:
    assert response.status_code == code // 1000, response.text
    assert response.headers["iothub-errorcode"] == name
    assert response.json()["errorCode"] == code
    message: str = response.json()["message"]
    return message


@pytest.mark.parametrize("name", SYSTEM_MODULES)
def test_a_module_of_the_runtime_is_nobodys_to_change(service: Service, name: str) -> None:
    device_id = new_id()
    put_device(service, device_id, **EDGE)
    path = f"/devices/{device_id}/modules/{name}"
    before = service.request("GET", path).json()
    created = service.request("PUT", path, json=before)
    check_flat_error(created, 400004, "ArgumentInvalid")
    for if_match in ("*", f'"{before["etag"]}"', '"c3RhbGU="'):
        headers: dict[str, str | None] = {"If-Match": if_match}
        for verb, body in (("PUT", before), ("DELETE", None)):
            refused = service.request(verb, path, json=body, headers=headers)
            text = check_flat_error(refused, 401100, "SystemModuleModifyUnauthorizedAccess")
            assert text == "Unauthorized to modify reserved module."
    assert service.request("GET", path).json() == before


def test_an_edge_device_has_room_for_twenty_modules_of_clients(service: Service) -> None:
    device_id = new_id()
    put_device(service, device_id, **EDGE)

    def create(name: str) -> requests.Response:
        body = {"deviceId": device_id, "moduleId": name}
        return service.request("PUT", f"/devices/{device_id}/modules/{name}", json=body)

    assert {create(f"m{number}").status_code for number in range(20)} == {200}
    check_flat_error(create("m20"), 413003, "TooManyModulesOnDevice")
    assert len(modules_of(service, device_id)) == 22


def knock(emulator: Emulator, device_id: str, module_id: str, policy: str) -> bytes:
    """Connect as a module, with a policy's key; gives the hub's answer."""
    host, client_id = emulator.host_name, f"{device_id}/{module_id}"
    key, _ = emulator.settings.key_pair(policy)
    token = sas_token(f"{host}/devices/{device_id}/modules/{module_id}", key, policy=policy)
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    with Wire((host, emulator.mqtt_port), context) as wire:
        wire.send(connect(client_id, f"{host}/{client_id}/?api-version={API_VERSION}", token))
        return wire.receive()


@pytest.mark.parametrize("policy", ["iothubowner", "device"])
def test_a_module_of_the_runtime_cannot_connect(
    service: Service, emulator: Emulator, policy: str
) -> None:
    device_id = new_id()
    put_device(service, device_id, **EDGE)
    put_module(service, device_id, "mine")
    assert knock(emulator, device_id, "mine", policy) == connack(0)
    for name in SYSTEM_MODULES:
        assert knock(emulator, device_id, name, policy) == connack(5)


@pytest.mark.parametrize("module_id", SYSTEM_MODULES)
@pytest.mark.parametrize("verb", ["PATCH", "PUT"])
def test_the_twin_of_a_system_module_is_read_and_not_written(
    service: Service, module_id: str, verb: str
) -> None:
    device_id = new_id()
    put_device(service, device_id, **EDGE)
    path = f"/twins/{device_id}/modules/{module_id}"
    before = service.request("GET", path)
    assert before.status_code == 200
    refused = service.request(verb, path, json={"tags": {"a": 1}}, headers=ANY)
    text = check_error(refused, 401, "SystemModuleModifyUnauthorizedAccess")
    assert text == "Unauthorized to modify reserved module."
    assert service.request("GET", path).json() == before.json()
