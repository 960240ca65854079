"""Module identities, their twins and their methods over REST."""

import base64
from typing import Any

import pytest
import requests

from tests.http import support
from tests.messages import put_module
from tests.support import Device, Service

KEYS = {
    f"{name}Key": base64.b64encode(name[:1].encode() * 32).decode()
    for name in ("primary", "secondary")
}
STALE = '"c3RhbGU="'


def path_of(device: Device, module_id: str = "camera") -> str:
    return f"/devices/{device.id}/modules/{module_id}"


def put(
    service: Service,
    device: Device,
    module_id: str = "camera",
    if_match: str | None = None,
    **members: Any,
) -> requests.Response:
    body = {"deviceId": device.id, "moduleId": module_id, **members}
    headers = {"If-Match": if_match}
    return service.request("PUT", path_of(device, module_id), json=body, headers=headers)


def delete(service: Service, device: Device, if_match: str | None) -> requests.Response:
    return service.request("DELETE", path_of(device), headers={"If-Match": if_match})


def as_read(created: dict[str, Any]) -> dict[str, Any]:
    """Return what a later request reads of a created module: its times end with a Z."""
    times = [name for name in created if name.endswith("Time")]
    assert times == ["connectionStateUpdatedTime", "lastActivityTime"]
    for name in times:
        assert created[name] == support.NEVER[:-1]
    return {**created, **dict.fromkeys(times, support.NEVER)}


# --- identities


def test_a_module_is_created_with_the_members_of_a_real_hub(
    service: Service, device: Device
) -> None:
    authentication = {"type": "sas", "symmetricKey": KEYS}
    answer = put(service, device, managedBy="me", authentication=authentication)
    assert answer.status_code == 200
    assert "ETag" not in answer.headers
    module = answer.json()
    assert list(module) == [
        *("moduleId", "managedBy", "deviceId", "generationId", "etag", "connectionState"),
        *("connectionStateUpdatedTime", "lastActivityTime", "cloudToDeviceMessageCount"),
        "authentication",
    ]
    names = [module[name] for name in ("deviceId", "moduleId", "managedBy")]
    assert names == [device.id, "camera", "me"]
    assert (module["connectionState"], module["cloudToDeviceMessageCount"]) == ("Disconnected", 0)
    assert module["authentication"] == {
        "symmetricKey": KEYS,
        "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        "type": "sas",
    }
    found = service.request("GET", path_of(device))
    assert (found.status_code, found.json()) == (200, as_read(module))
    assert "ETag" not in found.headers


def test_a_module_is_updated_under_its_etag(service: Service, device: Device) -> None:
    first = put(service, device).json()
    etag = first["etag"]
    for if_match in (f'"{etag}"', "*"):
        updated = put(service, device, if_match=if_match, **first | {"managedBy": "me"})
        assert updated.status_code == 200
        assert (updated.json()["managedBy"], updated.json()["etag"] != etag) == ("me", True)
        assert updated.json()["authentication"] == first["authentication"]
    stale = put(service, device, if_match=f'"{etag}"')
    support.check_flat_error(stale, 412001, "PreconditionFailed")


def test_the_modules_of_a_device_are_listed(
    service: Service, device: Device, other: Device
) -> None:
    put_module(service, other.id, "elsewhere")
    listed = f"/devices/{device.id}/modules"
    assert support.read(service, listed) == []
    modules = [as_read(put(service, device, name).json()) for name in ("b", "a")]
    assert support.read(service, listed) == modules


def test_a_module_is_deleted(service: Service, device: Device) -> None:
    etag = put(service, device).json()["etag"]
    for if_match in (None, STALE):
        refused = delete(service, device, if_match)
        support.check_flat_error(refused, 412001, "PreconditionFailed")
    answer = delete(service, device, f'"{etag}"')
    assert (answer.status_code, answer.content) == (204, b"")
    for answer in (
        service.request("GET", path_of(device)),
        delete(service, device, "*"),
        put(service, device, if_match="*"),
    ):
        support.check_flat_error(answer, 404010, "ModuleNotFound")
    support.check_error(
        service.request("GET", f"/twins/{device.id}/modules/camera"), 404, "DeviceNotFound"
    )


def test_a_module_is_created_once(service: Service, device: Device) -> None:
    module = as_read(put(service, device).json())
    text = support.check_flat_error(put(service, device), 409301, "ModuleAlreadyExistsOnDevice")
    assert device.id in text
    assert support.read(service, path_of(device)) == module


@pytest.mark.parametrize(
    ("module_id", "members"), [("$edgeAgent", {}), ("a%20b", {}), ("camera", {"moduleId": "other"})]
)
def test_an_invalid_module_is_refused(
    service: Service, device: Device, module_id: str, members: dict[str, Any]
) -> None:
    support.check_flat_error(put(service, device, module_id, **members), 400004, "ArgumentInvalid")
    assert support.read(service, f"/devices/{device.id}/modules") == []


def test_a_module_must_be_an_object(service: Service, device: Device) -> None:
    answer = service.request("PUT", path_of(device), data=b"[]")
    support.check_flat_error(answer, 400012, "DeserializationError")


@pytest.mark.parametrize("state", ["disabled", "unknown"])
def test_modules_of_a_disabled_or_unknown_device_are_unauthorized(
    service: Service, device: Device, state: str
) -> None:
    put(service, device)
    if state == "disabled":
        assert support.update_device(service, device.id, status="disabled").ok
    else:
        device = device._replace(id=f"{device.id}-unknown")
    for answer in (
        service.request("GET", path_of(device)),
        service.request("GET", f"/devices/{device.id}/modules"),
        delete(service, device, "*"),
        put(service, device),
        put(service, device, if_match="*"),
    ):
        inner = support.check_nested_error(answer, 401002, "IotHubUnauthorizedAccess")
        assert inner["message"] == "Unauthorized access"


# --- twins and methods


def test_a_module_has_its_own_twin(service: Service, device: Device) -> None:
    module = put(service, device, managedBy="me").json()
    path = f"/twins/{device.id}/modules/camera"
    response = service.request("GET", path)
    assert "ETag" not in response.headers
    twin = response.json()
    assert list(twin) == [
        *("deviceId", "moduleId", "etag", "deviceEtag", "status", "statusUpdateTime"),
        *("connectionState", "lastActivityTime", "cloudToDeviceMessageCount"),
        *("authenticationType", "x509Thumbprint", "modelId", "version", "properties"),
    ]
    assert (twin["deviceId"], twin["moduleId"]) == (device.id, "camera")
    assert (twin["etag"], twin["deviceEtag"]) == ("AAAAAAAAAAE=", module["etag"])
    assert (twin["version"], twin["modelId"], twin["status"]) == (2, "", "enabled")
    section = {"$metadata": {"$lastUpdated": support.NEVER}, "$version": 1}
    assert twin["properties"] == {"desired": section, "reported": section}


def test_a_module_twin_is_patched_and_replaced_under_its_etag(
    service: Service, device: Device
) -> None:
    put(service, device)
    path = f"/twins/{device.id}/modules/camera"
    before = support.read(service, f"/twins/{device.id}")
    patch = {"tags": {"a": 1}, "properties": {"desired": {"zoom": 2}}}
    headers: dict[str, str | None] = {"If-Match": f'"{support.read(service, path)["etag"]}"'}
    patched = service.request("PATCH", path, json=patch, headers=headers)
    assert patched.status_code == 200
    assert patched.json()["tags"] == {"a": 1}
    assert support.own(patched.json()["properties"]["desired"]) == {"zoom": 2}
    stale = service.request("PATCH", path, json=patch, headers=headers)
    support.check_error(stale, 412, "PreconditionFailed")
    replacement = {"properties": {"desired": {"new": 1}}}
    replaced = service.request("PUT", path, json=replacement, headers=support.ANY)
    assert replaced.status_code == 200
    assert "tags" not in replaced.json()
    desired = replaced.json()["properties"]["desired"]
    assert (support.own(desired), desired["$version"]) == ({"new": 1}, 3)
    assert support.read(service, f"/twins/{device.id}") == before


@pytest.mark.parametrize("device_id", ["{}", "unknown"])
@pytest.mark.parametrize("verb", ["GET", "PATCH", "PUT"])
def test_the_twin_of_an_unknown_module_is_not_found_as_that_of_a_device(
    service: Service, device: Device, device_id: str, verb: str
) -> None:
    path = f"/twins/{device_id.format(device.id)}/modules/nothing"
    response = service.request(verb, path, json=None if verb == "GET" else {"tags": {}})
    support.check_error(response, 404, "DeviceNotFound")


def test_an_error_of_a_modules_method_names_what_is_missing(
    service: Service, device: Device
) -> None:
    def invoke(device_id: str) -> requests.Response:
        path = f"/twins/{device_id}/modules/camera/methods"
        return service.request("POST", path, json={"methodName": "zoom"})

    support.check_nested_error(invoke(device.id), 404010, "ModuleNotFound")
    put(service, device)
    support.check_nested_error(invoke(device.id), 404103, "DeviceNotOnline")
    support.check_nested_error(invoke(f"{device.id}-unknown"), 404001, "DeviceNotFound")
