"""azure-iot-hub's bulk calls on the registry."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.sdk.service_sdk import HttpOperationError, models, refused
from tests.sdk.support import KEYS, iothub_real, keys_of
from tests.support import Device

pytestmark = iothub_real


@pytest.fixture
def ids(registry: Any) -> Iterator[list[str]]:
    """The ids of two devices that are not registered; the fixture deletes them."""
    ids = [f"sdk-test-bulk-{uuid.uuid4().hex[:12]}" for _ in range(2)]
    yield ids
    for device_id in ids:
        with suppress(HttpOperationError):
            registry.delete_device(device_id)


def item(device_id: str, mode: str, **members: Any) -> Any:
    return models.ExportImportDevice(id=device_id, import_mode=mode, **members)


def sas() -> Any:
    keys = models.SymmetricKey(primary_key=KEYS[0], secondary_key=KEYS[1])
    return models.AuthenticationMechanism(type="sas", symmetric_key=keys)


def run(registry: Any, *items: Any) -> None:
    result = registry.bulk_create_or_update_devices(list(items))
    assert (result.is_successful, result.errors, result.warnings) == (True, [], [])


def refusals(registry: Any, *items: Any) -> list[tuple[str, str]]:
    """Send items of which the hub refuses some; return their devices and the symbolic codes.

    The SDK treats the answer's status, 400, as an expected one.
    """
    result = registry.bulk_create_or_update_devices(list(items))
    assert result.is_successful is False
    assert all(error.error_status for error in result.errors)
    return [(error.device_id, error.error_code) for error in result.errors]


def test_devices_are_created_with_their_twins_and_deleted(registry: Any, ids: list[str]) -> None:
    members = {
        "status": "enabled",
        "authentication": sas(),
        "tags": {"site": {"room": 1}},
        "properties": models.PropertyContainer(desired={"interval": 30}),
    }
    run(registry, *(item(device_id, "create", **members) for device_id in ids))
    for device_id in ids:
        assert keys_of(registry.get_device(device_id)) == KEYS
        twin = registry.get_twin(device_id)
        assert (twin.etag, twin.version) == ("AAAAAAAAAAE=", 2)
        assert twin.tags == {"site": {"room": 1}}
        desired = twin.properties.desired
        assert (desired["interval"], desired["$version"]) == (30, 1)
        assert desired["$metadata"]["interval"]["$lastUpdatedVersion"] == 1
    run(registry, *(item(device_id, "delete") for device_id in ids))
    for device_id in ids:
        with refused(404, "DeviceNotFound"):
            registry.get_device(device_id)


def test_devices_are_updated_under_their_etags(registry: Any, ids: list[str]) -> None:
    run(registry, *(item(each, "create") for each in ids))
    before = [registry.get_device(each) for each in ids]
    members = {"status": "disabled", "status_reason": "off season", "authentication": sas()}
    items = [
        item(device.device_id, "updateIfMatchETag", e_tag=device.etag, **members)
        for device in before
    ]
    run(registry, *items)
    for old in before:
        new = registry.get_device(old.device_id)
        assert (new.status, new.status_reason) == ("disabled", "off season")
        assert (new.generation_id, new.etag != old.etag) == (old.generation_id, True)
    assert refusals(registry, *items) == [(each, "412001") for each in ids]


def test_twins_are_updated_under_their_etags(registry: Any, device: Device) -> None:
    twin = registry.get_twin(device.id)
    update = item(
        device.id,
        "updateTwinIfMatchETag",
        twin_etag=twin.etag,
        status="enabled",
        tags={"a": 1},
        properties=models.PropertyContainer(desired={"b": 2}),
    )
    run(registry, update)
    after = registry.get_twin(device.id)
    assert (after.tags, after.properties.desired["b"]) == ({"a": 1}, 2)
    assert after.device_etag == twin.device_etag
    assert refusals(registry, update) == [(device.id, "412001")]


def test_modules_are_created_updated_and_deleted(registry: Any, device: Device) -> None:
    names = ["a", "b"]

    def items(mode: str, **members: Any) -> list[Any]:
        return [item(device.id, mode, module_id=name, **members) for name in names]

    run(registry, *items("create"))
    assert {each.module_id for each in registry.get_modules(device.id)} == set(names)
    run(registry, *items("update", authentication=sas()))
    for name in names:
        assert keys_of(registry.get_module(device.id, name)) == KEYS
    run(registry, *items("delete"))
    assert registry.get_modules(device.id) == []


def test_a_refused_item_does_not_stop_the_others(
    registry: Any, device: Device, ids: list[str]
) -> None:
    items = [item(each, "create") for each in (device.id, ids[0])]
    assert refusals(registry, *items) == [(device.id, "409001")]
    assert registry.get_device(ids[0]).device_id == ids[0]


def test_an_edge_device_and_its_child_are_created(registry: Any, ids: list[str]) -> None:
    parent, child = ids
    run(registry, item(parent, "create", capabilities=models.DeviceCapabilities(iot_edge=True)))
    scope = registry.get_device(parent).device_scope
    run(registry, item(child, "create", device_scope=scope))
    assert registry.get_device(child).parent_scopes == [scope]
