"""azure-iot-hub's bulk calls on the registry."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.support import Device

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub.models import AuthenticationMechanism, SymmetricKey
from azure.iot.hub.protocol.models import (
    DeviceCapabilities,
    ExportImportDevice,
    PropertyContainer,
)
from msrest.exceptions import HttpOperationError

pytestmark = [
    pytest.mark.real_hub,
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
]

KEYS = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]


@pytest.fixture
def ids(registry: Any) -> Iterator[list[str]]:
    """The ids of two devices that are not registered; if the test registers them, they go."""
    ids = [f"sdk-test-bulk-{uuid.uuid4().hex[:12]}" for _ in range(2)]
    yield ids
    for device_id in ids:
        with suppress(HttpOperationError):
            registry.delete_device(device_id)


def sas(primary: str, secondary: str) -> AuthenticationMechanism:
    keys = SymmetricKey(primary_key=primary, secondary_key=secondary)
    return AuthenticationMechanism(type="sas", symmetric_key=keys)


def run(registry: Any, *items: ExportImportDevice) -> None:
    result = registry.bulk_create_or_update_devices(list(items))
    assert (result.is_successful, result.errors, result.warnings) == (True, [], [])


def refusals(registry: Any, *items: ExportImportDevice) -> list[tuple[str, str]]:
    """Send what the hub refuses in part; gives the devices, and the symbolic codes.

    The SDK takes the answer's status, 400, for one of two that are as they should be.
    """
    result = registry.bulk_create_or_update_devices(list(items))
    assert result.is_successful is False
    assert all(error.error_status for error in result.errors)
    return [(error.device_id, error.error_code) for error in result.errors]


def test_devices_are_created_with_their_twins(registry: Any, ids: list[str]) -> None:
    items = [
        ExportImportDevice(
            id=device_id,
            import_mode="create",
            status="enabled",
            authentication=sas(*KEYS),
            tags={"site": {"room": 1}},
            properties=PropertyContainer(desired={"interval": 30}),
        )
        for device_id in ids
    ]
    run(registry, *items)
    for device_id in ids:
        keys = registry.get_device(device_id).authentication.symmetric_key
        assert [keys.primary_key, keys.secondary_key] == KEYS
        twin = registry.get_twin(device_id)
        assert (twin.etag, twin.version) == ("AAAAAAAAAAE=", 2)
        assert twin.tags == {"site": {"room": 1}}
        desired = twin.properties.desired
        assert (desired["interval"], desired["$version"]) == (30, 1)
        assert desired["$metadata"]["interval"]["$lastUpdatedVersion"] == 1


def test_devices_are_updated_in_bulk(registry: Any, ids: list[str]) -> None:
    run(registry, *[ExportImportDevice(id=each, import_mode="create") for each in ids])
    before = [registry.get_device(each) for each in ids]
    items = [
        ExportImportDevice(
            id=device.device_id,
            e_tag=device.etag,
            import_mode="updateIfMatchETag",
            status="disabled",
            status_reason="off season",
            authentication=sas(*KEYS),
        )
        for device in before
    ]
    run(registry, *items)
    for old in before:
        new = registry.get_device(old.device_id)
        assert (new.status, new.status_reason) == ("disabled", "off season")
        assert (new.generation_id, new.etag != old.etag) == (old.generation_id, True)
    assert refusals(registry, *items) == [(each, "PreconditionFailed") for each in ids]


def test_twins_are_updated_in_bulk(registry: Any, device: Device) -> None:
    twin = registry.get_twin(device.id)
    item = ExportImportDevice(
        id=device.id,
        import_mode="updateTwinIfMatchETag",
        twin_etag=twin.etag,
        status="enabled",
        tags={"a": 1},
        properties=PropertyContainer(desired={"b": 2}),
    )
    run(registry, item)
    after = registry.get_twin(device.id)
    assert (after.tags, after.properties.desired["b"]) == ({"a": 1}, 2)
    assert after.device_etag == twin.device_etag
    assert refusals(registry, item) == [(device.id, "PreconditionFailed")]


def test_modules_are_created_updated_and_deleted_in_bulk(registry: Any, device: Device) -> None:
    names = ["a", "b"]

    def items(**members: Any) -> list[ExportImportDevice]:
        return [ExportImportDevice(id=device.id, module_id=name, **members) for name in names]

    run(registry, *items(import_mode="create"))
    assert {each.module_id for each in registry.get_modules(device.id)} == set(names)
    run(registry, *items(import_mode="update", authentication=sas(*KEYS)))
    for name in names:
        keys = registry.get_module(device.id, name).authentication.symmetric_key
        assert keys.primary_key == KEYS[0]
    run(registry, *items(import_mode="delete"))
    assert registry.get_modules(device.id) == []


def test_devices_are_deleted_in_bulk(registry: Any, ids: list[str]) -> None:
    run(registry, *[ExportImportDevice(id=each, import_mode="create") for each in ids])
    run(registry, *[ExportImportDevice(id=each, import_mode="delete") for each in ids])
    for device_id in ids:
        with pytest.raises(HttpOperationError) as caught:
            registry.get_device(device_id)
        assert caught.value.response.status_code == 404


def test_a_part_that_is_refused_holds_up_no_other(
    registry: Any, device: Device, ids: list[str]
) -> None:
    new, _ = ids
    items = [ExportImportDevice(id=each, import_mode="create") for each in (device.id, new)]
    assert refusals(registry, *items) == [(device.id, "DeviceAlreadyExists")]
    assert registry.get_device(new).device_id == new


def test_an_edge_device_and_its_child_are_created_in_bulk(registry: Any, ids: list[str]) -> None:
    parent, child = ids
    edge = DeviceCapabilities(iot_edge=True)
    run(registry, ExportImportDevice(id=parent, import_mode="create", capabilities=edge))
    scope = registry.get_device(parent).device_scope
    run(registry, ExportImportDevice(id=child, import_mode="create", device_scope=scope))
    assert registry.get_device(child).parent_scopes == [scope]
