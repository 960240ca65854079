"""Module identities, their twins and their methods over REST."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.http.support import check_error, check_nested_error, put_device
from tests.messages import put_module
from tests.support import Device, Service

KEYS = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
ANY = {"If-Match": "*"}


def path_of(device: Device, module_id: str = "camera") -> str:
    return f"/devices/{device.id}/modules/{module_id}"


def put(
    service: Service,
    device: Device,
    module_id: str = "camera",
    headers: dict[str, str | None] | None = None,
    **members: Any,
) -> requests.Response:
    body = {"deviceId": device.id, "moduleId": module_id, **members}
    return service.request("PUT", path_of(device, module_id), json=body, headers=headers)


def as_read(created: dict[str, Any]) -> dict[str, Any]:
    """Make of the answer to a create what the module is read as: with a Z behind its times."""
    times = [name for name in created if name.endswith("Time")]
    assert times == ["connectionStateUpdatedTime", "lastActivityTime"]
    for name in times:
        assert created[name] == "0001-01-01T00:00:00"
    return {**created, **dict.fromkeys(times, "0001-01-01T00:00:00Z")}


def check_flat_error(response: requests.Response, code: int, name: str) -> None:
    """Check an error in the form of module identities."""
    assert response.status_code == code // 1000, response.text
    assert response.headers["iothub-errorcode"] == name
    body = response.json()
    assert set(body) == {"errorCode", "trackingId", "message", "timestampUtc", "info"}
    assert body["errorCode"] == code
    assert body["message"]


# --- identities


def test_a_module_is_created_with_the_members_of_a_real_hub(
    service: Service, device: Device
) -> None:
    answer = put(
        service,
        device,
        managedBy="me",
        authentication={
            "type": "sas",
            "symmetricKey": {"primaryKey": KEYS[0], "secondaryKey": KEYS[1]},
        },
    )
    assert answer.status_code == 200
    assert "ETag" not in answer.headers
    module = answer.json()
    assert list(module) == [
        "moduleId",
        "managedBy",
        "deviceId",
        "generationId",
        "etag",
        "connectionState",
        "connectionStateUpdatedTime",
        "lastActivityTime",
        "cloudToDeviceMessageCount",
        "authentication",
    ]
    assert (module["deviceId"], module["moduleId"], module["managedBy"]) == (
        device.id,
        "camera",
        "me",
    )
    assert (module["connectionState"], module["cloudToDeviceMessageCount"]) == ("Disconnected", 0)
    assert module["authentication"] == {
        "symmetricKey": {"primaryKey": KEYS[0], "secondaryKey": KEYS[1]},
        "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        "type": "sas",
    }
    found = service.request("GET", path_of(device))
    assert (found.status_code, found.json()) == (200, as_read(module))
    assert "ETag" not in found.headers


def test_what_is_left_out_has_a_default(service: Service, device: Device) -> None:
    module = put(service, device, authentication={"type": "none"}).json()
    assert module["managedBy"] is None
    assert module["authentication"]["type"] == "sas"
    keys = module["authentication"]["symmetricKey"]
    assert len(set(keys.values())) == 2
    assert all(len(base64.b64decode(key)) == 32 for key in keys.values())


def test_a_module_is_updated_under_its_etag(service: Service, device: Device) -> None:
    first = put(service, device).json()
    etag = first["etag"]
    for header in (f'"{etag}"', "*"):
        updated = put(service, device, headers={"If-Match": header}, **first | {"managedBy": "me"})
        assert updated.status_code == 200
        assert (updated.json()["managedBy"], updated.json()["etag"] != etag) == ("me", True)
        assert updated.json()["authentication"] == first["authentication"]
    stale = put(service, device, headers={"If-Match": f'"{etag}"'})
    check_flat_error(stale, 412001, "PreconditionFailed")


def test_modules_are_listed_without_those_of_other_devices(
    service: Service, device: Device
) -> None:
    put_device(service, f"{device.id}-2")
    put_module(service, f"{device.id}-2", "elsewhere")
    listed = f"/devices/{device.id}/modules"
    assert service.request("GET", listed).json() == []
    modules = [as_read(put(service, device, name).json()) for name in ("b", "a")]
    answer = service.request("GET", listed)
    assert (answer.status_code, answer.json()) == (200, modules)


def test_a_module_is_deleted(service: Service, device: Device) -> None:
    etag = put(service, device).json()["etag"]
    path = path_of(device)
    check_flat_error(service.request("DELETE", path), 412001, "PreconditionFailed")
    stale: dict[str, str | None] = {"If-Match": '"c3RhbGU="'}
    check_flat_error(service.request("DELETE", path, headers=stale), 412001, "PreconditionFailed")
    answer = service.request("DELETE", path, headers={"If-Match": f'"{etag}"'})
    assert (answer.status_code, answer.content) == (204, b"")
    for verb, headers in (("GET", None), ("DELETE", ANY)):
        check_flat_error(service.request(verb, path, headers=headers), 404010, "ModuleNotFound")
    check_flat_error(put(service, device, headers=ANY), 404010, "ModuleNotFound")
    check_error(service.request("GET", f"/twins/{device.id}/modules/camera"), 404, "DeviceNotFound")


def test_a_module_is_created_once(service: Service, device: Device) -> None:
    module = as_read(put(service, device).json())
    again = put(service, device)
    check_flat_error(again, 409301, "ModuleAlreadyExistsOnDevice")
    assert device.id in again.json()["message"]
    assert service.request("GET", path_of(device)).json() == module


def test_the_twenty_first_module_is_refused(service: Service, device: Device) -> None:
    for number in range(20):
        assert put(service, device, f"m{number}").status_code == 200
    check_flat_error(put(service, device, "m20"), 413003, "TooManyModulesOnDevice")
    assert len(service.request("GET", f"/devices/{device.id}/modules").json()) == 20


@pytest.mark.parametrize(
    ("module_id", "members"),
    [
        ("$edgeAgent", {}),
        ("$edgeHub", {}),
        ("a%20b", {}),
        ("x" * 129, {}),
        ("camera", {"moduleId": "other"}),
        ("camera", {"deviceId": "other"}),
        ("camera", {"managedBy": 5}),
        ("camera", {"authentication": {"type": "magic"}}),
        (
            "camera",
            {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": "short"}}},
        ),
    ],
)
def test_a_bad_module_is_refused(
    service: Service, device: Device, module_id: str, members: dict[str, Any]
) -> None:
    check_flat_error(put(service, device, module_id, **members), 400004, "ArgumentInvalid")
    assert service.request("GET", f"/devices/{device.id}/modules").json() == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]"])
def test_a_body_that_is_no_object_is_refused(service: Service, device: Device, data: bytes) -> None:
    answer = service.request("PUT", path_of(device), data=data)
    check_flat_error(answer, 400012, "DeserializationError")


@pytest.mark.parametrize("state", ["disabled", "unknown"])
def test_modules_of_a_device_that_is_disabled_or_unknown_are_unauthorized(
    service: Service, device: Device, state: str
) -> None:
    put(service, device)
    if state == "disabled":
        identity = service.request("GET", f"/devices/{device.id}").json()
        identity["status"] = "disabled"
        assert service.request("PUT", f"/devices/{device.id}", json=identity, headers=ANY).ok
    else:
        device = device._replace(id=f"{device.id}-unknown")
    for answer in (
        service.request("GET", path_of(device)),
        service.request("GET", f"/devices/{device.id}/modules"),
        service.request("DELETE", path_of(device), headers=ANY),
        put(service, device),
        put(service, device, headers=ANY),
    ):
        inner = check_nested_error(answer, 401002, "IotHubUnauthorizedAccess")
        assert inner["message"] == "Unauthorized access"


@pytest.mark.parametrize(
    ("policy", "reads", "writes"),
    [
        ("registryRead", True, False),
        ("registryReadWrite", True, True),
        ("service", False, False),
        ("device", False, False),
    ],
)
def test_module_identities_need_the_rights_of_the_registry(
    emulator: Emulator, service: Service, device: Device, policy: str, reads: bool, writes: bool
) -> None:
    put(service, device)
    caller = Service(emulator, policy)
    for answer, allowed in (
        (caller.request("GET", path_of(device)), reads),
        (caller.request("GET", f"/devices/{device.id}/modules"), reads),
        (put(caller, device, "new"), writes),
        (caller.request("DELETE", path_of(device), headers=ANY), writes),
    ):
        if allowed:
            assert answer.ok, answer.text
        else:
            check_error(answer, 401, "IotHubUnauthorizedAccess")
    caller.close()


# --- twins and methods


def test_a_new_module_twin_is_empty_and_its_own(service: Service, device: Device) -> None:
    module = put(service, device, managedBy="me").json()
    twin = service.request("GET", f"/twins/{device.id}/modules/camera").json()
    assert list(twin)[:4] == ["deviceId", "moduleId", "etag", "deviceEtag"]
    assert (twin["deviceId"], twin["moduleId"]) == (device.id, "camera")
    assert twin["deviceEtag"] == module["etag"]
    assert (twin["version"], twin["modelId"], twin["status"]) == (2, "", "enabled")
    for part in ("desired", "reported"):
        assert twin["properties"][part]["$version"] == 1
        updated = twin["properties"][part]["$metadata"]["$lastUpdated"]
        assert updated == "0001-01-01T00:00:00Z"
    assert "managedBy" not in twin
    assert "capabilities" not in twin
    assert "tags" not in twin


def test_a_module_twin_is_patched_and_replaced_under_its_etag(
    service: Service, device: Device
) -> None:
    put(service, device)
    path = f"/twins/{device.id}/modules/camera"
    before = service.request("GET", f"/twins/{device.id}").json()
    first = service.request("GET", path).json()["etag"]
    patch = {"tags": {"a": 1}, "properties": {"desired": {"zoom": 2}}}
    headers: dict[str, str | None] = {"If-Match": f'"{first}"'}
    patched = service.request("PATCH", path, json=patch, headers=headers)
    assert patched.status_code == 200
    assert (patched.json()["tags"], patched.json()["properties"]["desired"]["zoom"]) == (
        {"a": 1},
        2,
    )
    stale = service.request("PATCH", path, json=patch, headers=headers)
    check_error(stale, 412, "PreconditionFailed")
    replaced = service.request("PUT", path, json={"properties": {"desired": {"new": 1}}})
    assert replaced.status_code == 200
    assert "tags" not in replaced.json()
    desired = replaced.json()["properties"]["desired"]
    assert ("zoom" in desired, desired["new"], desired["$version"]) == (False, 1, 3)
    assert service.request("GET", f"/twins/{device.id}").json() == before


def test_a_method_of_a_module_names_what_is_missing(service: Service, device: Device) -> None:
    body = {"methodName": "zoom"}
    path = f"/twins/{device.id}/modules/camera/methods"
    check_nested_error(service.request("POST", path, json=body), 404010, "ModuleNotFound")
    put(service, device)
    check_nested_error(service.request("POST", path, json=body), 404103, "DeviceNotOnline")
    unknown = path.replace(device.id, f"{device.id}-unknown")
    check_nested_error(service.request("POST", unknown, json=body), 404001, "DeviceNotFound")
