"""azure-iot-hub's IoTHubRegistryManager, against the hub that its users reach with it."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodResponse

from emulator import Emulator
from tests.support import Device

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

from tests.sdk.refusals import refused

pytestmark = [
    pytest.mark.real_hub,
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
]

KEYS = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
OTHER_KEYS = [base64.b64encode(bytes([n]) * 32).decode() for n in (3, 4)]


def keys_of(device: Any) -> list[str]:
    keys = device.authentication.symmetric_key
    return [keys.primary_key, keys.secondary_key]


# --- device identities


def test_a_device_is_created_with_the_keys_given(registry: Any, device_id: str) -> None:
    created = registry.create_device_with_sas(
        device_id, *KEYS, "enabled", status_reason="new in the field"
    )
    assert created.device_id == device_id
    assert keys_of(created) == KEYS
    assert created.authentication.type == "sas"
    assert (created.status, created.status_reason) == ("enabled", "new in the field")
    assert created.connection_state == "Disconnected"
    assert created.capabilities.iot_edge is False

    found = registry.get_device(device_id)
    assert keys_of(found) == KEYS
    assert (found.etag, found.generation_id) == (created.etag, created.generation_id)


def test_keys_left_empty_are_generated(registry: Any, device_id: str) -> None:
    registry.create_device_with_sas(device_id, "", "", "enabled")
    keys = keys_of(registry.get_device(device_id))
    assert [len(base64.b64decode(key)) for key in keys] == [32, 32]
    assert keys[0] != keys[1]


def test_a_device_is_created_once(registry: Any, device_id: str) -> None:
    registry.create_device_with_sas(device_id, *KEYS, "enabled")
    with refused(409, "DeviceAlreadyExists"):
        registry.create_device_with_sas(device_id, *OTHER_KEYS, "enabled")
    assert keys_of(registry.get_device(device_id)) == KEYS


def test_one_key_alone_is_refused(registry: Any, device_id: str) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.create_device_with_sas(device_id, KEYS[0], "", "enabled")


def test_devices_are_listed(registry: Any, device: Device) -> None:
    listed = {found.device_id: found for found in registry.get_devices()}
    assert listed[device.id].generation_id == registry.get_device(device.id).generation_id
    assert len(registry.get_devices(1)) == 1


def test_an_update_needs_the_current_etag(registry: Any, device_id: str) -> None:
    created = registry.create_device_with_sas(device_id, *KEYS, "enabled")
    updated = registry.update_device_with_sas(device_id, created.etag, *OTHER_KEYS, "disabled")
    assert (keys_of(updated), updated.status) == (OTHER_KEYS, "disabled")
    assert updated.etag != created.etag
    assert updated.generation_id == created.generation_id
    with refused(412, "PreconditionFailed"):
        registry.update_device_with_sas(device_id, created.etag, *KEYS, "enabled")
    found = registry.get_device(device_id)
    assert (keys_of(found), found.status) == (OTHER_KEYS, "disabled")


@pytest.mark.parametrize("etag", ["*", None])
def test_an_update_takes_the_wildcard_for_any_etag(
    registry: Any, device_id: str, etag: str | None
) -> None:
    registry.create_device_with_sas(device_id, *KEYS, "enabled")
    updated = registry.update_device_with_sas(device_id, etag, *OTHER_KEYS, "enabled")
    assert keys_of(updated) == OTHER_KEYS


def test_a_device_is_deleted_under_its_current_etag(registry: Any, device_id: str) -> None:
    created = registry.create_device_with_sas(device_id, *KEYS, "enabled")
    updated = registry.update_device_with_sas(device_id, created.etag, *KEYS, "disabled")
    with refused(412, "PreconditionFailed"):
        registry.delete_device(device_id, created.etag)
    registry.delete_device(device_id, updated.etag)
    with refused(404, "DeviceNotFound"):
        registry.get_device(device_id)


def test_a_device_is_deleted_under_any_etag(registry: Any, device: Device) -> None:
    registry.delete_device(device.id)
    with refused(404, "DeviceNotFound"):
        registry.get_device(device.id)


def test_what_is_not_registered_is_not_found(registry: Any, device_id: str) -> None:
    with refused(404, "DeviceNotFound"):
        registry.get_device(device_id)
    with refused(404, "DeviceNotFound"):
        registry.update_device_with_sas(device_id, "*", *KEYS, "enabled")
    with refused(404, "DeviceNotFound"):
        registry.delete_device(device_id)
    with refused(404, "DeviceNotFound"):
        registry.get_twin(device_id)
    with refused(404, "DeviceNotFound"):
        registry.update_twin(device_id, Twin(tags={"a": 1}))
    with refused(404, "DeviceNotFound"):
        registry.invoke_device_method(device_id, CloudToDeviceMethod(method_name="reboot"))


# --- certificates instead of keys

SHA1, SHA256 = "0123456789abcdefABCDEF0123456789abcdefAB", "F" * 64
OTHER_SHA256 = "0" * 64


def thumbprints_of(identity: Any) -> list[str | None]:
    thumbprints = identity.authentication.x509_thumbprint
    return [thumbprints.primary_thumbprint, thumbprints.secondary_thumbprint]


def test_a_device_with_thumbprints_is_created_and_updated(registry: Any, device_id: str) -> None:
    created = registry.create_device_with_x509(device_id, SHA1, SHA256, "enabled")
    assert created.authentication.type == "selfSigned"
    assert thumbprints_of(created) == [SHA1, SHA256]
    assert keys_of(created) == [None, None]
    updated = registry.update_device_with_x509(
        device_id, created.etag, SHA256, OTHER_SHA256, "disabled", status_reason="lost"
    )
    assert thumbprints_of(updated) == [SHA256, OTHER_SHA256]
    assert (updated.status, updated.status_reason) == ("disabled", "lost")
    with refused(412, "PreconditionFailed"):
        registry.update_device_with_x509(device_id, created.etag, SHA1, SHA1, "enabled")
    found = registry.get_device(device_id)
    assert (thumbprints_of(found), found.etag) == ([SHA256, OTHER_SHA256], updated.etag)
    assert registry.get_twin(device_id).authentication_type == "selfSigned"


def test_a_thumbprint_that_is_none_is_refused(registry: Any, device_id: str) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.create_device_with_x509(device_id, ":".join(["AB"] * 20), SHA256, "enabled")
    with refused(404, "DeviceNotFound"):
        registry.get_device(device_id)


def test_a_device_that_a_ca_vouches_for_is_created_and_updated(
    registry: Any, device_id: str
) -> None:
    created = registry.create_device_with_certificate_authority(device_id, "enabled")
    assert created.authentication.type == "certificateAuthority"
    assert (keys_of(created), thumbprints_of(created)) == ([None, None], [None, None])
    updated = registry.update_device_with_certificate_authority(device_id, None, "disabled")
    assert (updated.authentication.type, updated.status) == ("certificateAuthority", "disabled")
    with refused(412, "PreconditionFailed"):
        registry.update_device_with_certificate_authority(device_id, created.etag, "enabled")


def test_an_update_changes_the_kind_of_authentication(registry: Any, device_id: str) -> None:
    registry.create_device_with_sas(device_id, *KEYS, "enabled")
    updated = registry.update_device_with_x509(device_id, "*", SHA1, SHA1, "enabled")
    assert (updated.authentication.type, keys_of(updated)) == ("selfSigned", [None, None])
    back = registry.update_device_with_sas(device_id, "*", *KEYS, "enabled")
    assert (back.authentication.type, keys_of(back)) == ("sas", KEYS)
    assert thumbprints_of(back) == [None, None]


# --- IoT Edge devices


@pytest.fixture
def make_edge_device(hub: Any, registry: Any) -> Iterator[Callable[..., Any]]:
    """Makes IoT Edge devices."""
    made = []

    def make(**members: Any) -> Any:
        device_id = f"sdk-test-edge-{uuid.uuid4().hex[:12]}"
        device = registry.create_device_with_sas(
            device_id, *KEYS, "enabled", iot_edge=True, **members
        )
        made.append(device_id)
        return device

    yield make
    for device_id in made:
        registry.delete_device(device_id)


def test_an_edge_device_has_a_scope_and_the_modules_of_the_runtime(
    registry: Any, make_edge_device: Callable[..., Any]
) -> None:
    created = make_edge_device()
    assert created.capabilities.iot_edge is True
    prefix = f"ms-azure-iot-edge://{created.device_id}-"
    assert created.device_scope == prefix + created.generation_id
    found = registry.get_device(created.device_id)
    assert (found.device_scope, found.capabilities.iot_edge) == (created.device_scope, True)
    twin = registry.get_twin(created.device_id)
    assert twin.device_scope == created.device_scope
    modules = registry.get_modules(created.device_id)
    assert {module.module_id for module in modules} == {"$edgeAgent", "$edgeHub"}
    assert {module.managed_by for module in modules} == {"iotEdge"}
    assert {module.authentication.type for module in modules} == {"none"}
    assert registry.get_module_twin(created.device_id, "$edgeHub").module_id == "$edgeHub"


def test_an_edge_device_is_updated_with_its_own_scope(
    registry: Any, make_edge_device: Callable[..., Any]
) -> None:
    created = make_edge_device()
    with refused(400, "ArgumentInvalid"):
        registry.update_device_with_sas(created.device_id, "*", *KEYS, "disabled", iot_edge=True)
    updated = registry.update_device_with_sas(
        created.device_id,
        created.etag,
        *KEYS,
        "disabled",
        iot_edge=True,
        device_scope=created.device_scope,
    )
    assert (updated.status, updated.device_scope) == ("disabled", created.device_scope)


def test_devices_are_put_below_an_edge_device(
    registry: Any, device_id: str, make_edge_device: Callable[..., Any]
) -> None:
    parent = make_edge_device()
    scope = parent.device_scope
    leaf = registry.create_device_with_sas(device_id, *KEYS, "enabled", device_scope=scope)
    assert (leaf.device_scope, leaf.parent_scopes) == (scope, [scope])
    child = make_edge_device(parent_scopes=scope)
    assert (child.device_scope != scope, child.parent_scopes) == (True, [scope])
    for each in (leaf, child):
        assert registry.get_twin(each.device_id).parent_scopes == [scope]
    alone = registry.update_device_with_sas(device_id, leaf.etag, *KEYS, "enabled")
    assert (alone.device_scope, alone.parent_scopes) == (None, None)


# What a real hub says to a scope that is none is not known.
def test_a_scope_that_is_none_is_refused(emulator: Emulator) -> None:
    registry = IoTHubRegistryManager(emulator.service_connection_string)
    with refused(400, "InvalidDeviceScope"):
        registry.create_device_with_sas("scoped", *KEYS, "enabled", device_scope="nowhere")


# --- module identities


def test_a_module_with_keys_is_created_updated_and_deleted(registry: Any, device: Device) -> None:
    created = registry.create_module_with_sas(device.id, "camera", "me", *KEYS)
    assert (created.device_id, created.module_id) == (device.id, "camera")
    assert (created.managed_by, keys_of(created)) == ("me", KEYS)
    with refused(409, "ModuleAlreadyExistsOnDevice"):
        registry.create_module_with_sas(device.id, "camera", "me", *KEYS)
    updated = registry.update_module_with_sas(device.id, "camera", "you", created.etag, *OTHER_KEYS)
    assert (updated.managed_by, keys_of(updated)) == ("you", OTHER_KEYS)
    with refused(412, "PreconditionFailed"):
        registry.update_module_with_sas(device.id, "camera", "me", created.etag, *KEYS)
    found = registry.get_module(device.id, "camera")
    assert (found.etag, found.generation_id) == (updated.etag, created.generation_id)
    with refused(412, "PreconditionFailed"):
        registry.delete_module(device.id, "camera", created.etag)
    registry.delete_module(device.id, "camera", updated.etag)
    with refused(404, "ModuleNotFound"):
        registry.get_module(device.id, "camera")
    with refused(404, "ModuleNotFound"):
        registry.delete_module(device.id, "camera")
    with refused(404, "ModuleNotFound"):
        registry.update_module_with_sas(device.id, "camera", "me", None, *KEYS)


def test_a_module_with_thumbprints_is_created_and_updated(registry: Any, device: Device) -> None:
    created = registry.create_module_with_x509(device.id, "camera", "me", SHA1, SHA256)
    assert created.authentication.type == "selfSigned"
    assert thumbprints_of(created) == [SHA1, SHA256]
    updated = registry.update_module_with_x509(
        device.id, "camera", None, created.etag, SHA256, SHA256
    )
    assert (updated.managed_by, thumbprints_of(updated)) == (None, [SHA256, SHA256])
    assert registry.get_module_twin(device.id, "camera").authentication_type == "selfSigned"


def test_a_module_that_a_ca_vouches_for_is_created_and_updated(
    registry: Any, device: Device
) -> None:
    created = registry.create_module_with_certificate_authority(device.id, "camera", "me")
    assert created.authentication.type == "certificateAuthority"
    updated = registry.update_module_with_certificate_authority(device.id, "camera", "you", "*")
    assert (updated.managed_by, updated.etag != created.etag) == ("you", True)


def test_modules_are_listed(registry: Any, device: Device) -> None:
    assert registry.get_modules(device.id) == []
    for name in ("a", "b"):
        registry.create_module_with_sas(device.id, name, "", "", "")
    modules = {module.module_id: module for module in registry.get_modules(device.id)}
    assert set(modules) == {"a", "b"}
    assert keys_of(modules["a"]) == keys_of(registry.get_module(device.id, "a"))


def test_a_module_id_that_begins_with_a_dollar_is_refused(registry: Any, device: Device) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.create_module_with_sas(device.id, "$edgeAgent", "iotEdge", *KEYS)


# --- statistics


# Those of a real hub lag behind.
def test_devices_are_counted(emulator: Emulator) -> None:
    registry = IoTHubRegistryManager(emulator.service_connection_string)
    before = registry.get_device_registry_statistics()
    device_id = f"counted-{uuid.uuid4().hex[:12]}"
    registry.create_device_with_sas(device_id, *KEYS, "disabled")
    after = registry.get_device_registry_statistics()
    registry.delete_device(device_id)
    assert after.total_device_count - before.total_device_count == 1
    assert after.enabled_device_count - before.enabled_device_count == 0
    assert after.disabled_device_count - before.disabled_device_count == 1


def test_connected_devices_are_counted(registry: Any) -> None:
    # None, if the answer had it by another name.
    assert isinstance(registry.get_service_statistics().connected_device_count, int)


# --- access


def test_a_wrong_key_opens_nothing(hub: Any, device: Device) -> None:
    right = hub.service_connection_string
    wrong = right.rpartition("SharedAccessKey=")[0] + f"SharedAccessKey={KEYS[0]}"
    with refused(401, "IotHubUnauthorizedAccess"):
        IoTHubRegistryManager(wrong).get_device(device.id)


def registry_of(emulator: Emulator, policy: str) -> Any:
    return IoTHubRegistryManager(emulator.policy_connection_string(policy))


# Only the emulator tells the connection strings of all its policies.
def test_a_policy_allows_its_own_rights_and_no_others(emulator: Emulator) -> None:
    device_id = f"policies-{uuid.uuid4().hex[:12]}"
    emulator.register_device(device_id)
    method = CloudToDeviceMethod(method_name="reboot")
    reader, writer, caller, device_policy = (
        registry_of(emulator, policy)
        for policy in ("registryRead", "registryReadWrite", "service", "device")
    )
    assert reader.get_device(device_id).device_id == device_id
    assert writer.update_device_with_sas(device_id, "*", *KEYS, "enabled").device_id == device_id
    assert caller.get_twin(device_id).device_id == device_id
    with refused(401, "IotHubUnauthorizedAccess"):
        reader.delete_device(device_id)
    with refused(401, "IotHubUnauthorizedAccess"):
        writer.get_twin(device_id)
    with refused(401, "IotHubUnauthorizedAccess"):
        writer.invoke_device_method(device_id, method)
    with refused(401, "IotHubUnauthorizedAccess"):
        caller.get_device(device_id)
    with refused(401, "IotHubUnauthorizedAccess"):
        device_policy.get_twin(device_id)


# --- twins


def own(properties: dict[str, Any]) -> dict[str, Any]:
    """What users wrote into a section, without what the hub adds."""
    return {name: value for name, value in properties.items() if not name.startswith("$")}


def test_a_new_twin_is_empty(registry: Any, device: Device) -> None:
    twin = registry.get_twin(device.id)
    assert (twin.device_id, twin.tags, twin.version) == (device.id, None, 2)
    assert own(twin.properties.desired) == own(twin.properties.reported) == {}
    assert twin.properties.desired["$version"] == twin.properties.reported["$version"] == 1
    assert twin.device_etag == registry.get_device(device.id).etag


def test_an_update_of_the_twin_merges(registry: Any, device: Device) -> None:
    before = Twin(
        tags={"site": {"room": 1, "floor": 2}},
        properties=TwinProperties(desired={"interval": 30, "unit": "s"}),
    )
    registry.update_twin(device.id, before)
    patch = Twin(
        tags={"site": {"room": 7}}, properties=TwinProperties(desired={"unit": None, "new": [1]})
    )
    twin = registry.update_twin(device.id, patch)
    assert twin.tags == {"site": {"room": 7, "floor": 2}}
    assert own(twin.properties.desired) == {"interval": 30, "new": [1]}
    assert twin.properties.desired["$version"] == 3
    assert registry.get_twin(device.id).as_dict() == twin.as_dict()


def test_a_replaced_twin_has_what_was_given_and_nothing_else(registry: Any, device: Device) -> None:
    before = Twin(tags={"old": 1}, properties=TwinProperties(desired={"old": 1}))
    registry.update_twin(device.id, before)
    after = Twin(properties=TwinProperties(desired={"new": 2}))
    twin = registry.replace_twin(device.id, after)
    assert (twin.tags, own(twin.properties.desired)) == (None, {"new": 2})


@pytest.mark.parametrize("operation", ["update_twin", "replace_twin"])
def test_a_write_to_the_twin_needs_the_current_etag(
    registry: Any, device: Device, operation: str
) -> None:
    write = getattr(registry, operation)
    first = registry.get_twin(device.id).etag
    second = write(device.id, Twin(tags={"write": 1}), first).etag
    assert second != first
    with refused(412, "PreconditionFailed"):
        write(device.id, Twin(tags={"write": 2}), first)
    assert registry.get_twin(device.id).tags == {"write": 1}
    write(device.id, Twin(tags={"write": 3}), "*")
    assert registry.get_twin(device.id).tags == {"write": 3}


def test_a_name_that_a_twin_may_not_hold_is_refused(registry: Any, device: Device) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.update_twin(device.id, Twin(tags={"good": 1, "a.b": 2}))
    assert registry.get_twin(device.id).tags is None


# --- direct methods and their time-outs


def reboot(**time_outs: int) -> CloudToDeviceMethod:
    return CloudToDeviceMethod(method_name="reboot", payload={}, **time_outs)


def test_a_device_that_is_not_connected_is_not_online(registry: Any, device: Device) -> None:
    with refused(404, "DeviceNotOnline"):
        registry.invoke_device_method(device.id, reboot())


def test_a_device_that_does_not_listen_for_methods_is_not_online(
    registry: Any, device: Device, client: IoTHubDeviceClient
) -> None:
    client.get_twin()
    with refused(404, "DeviceNotOnline"):
        registry.invoke_device_method(device.id, reboot())


def test_a_device_that_does_not_come_within_the_connect_timeout_is_not_online(
    registry: Any, device: Device
) -> None:
    began = time.monotonic()
    with refused(404, "DeviceNotOnline"):
        registry.invoke_device_method(device.id, reboot(connect_timeout_in_seconds=1))
    assert time.monotonic() - began >= 1


def test_the_connect_timeout_waits_for_a_device_that_comes_later(
    registry: Any, device: Device, make_client: Callable[..., IoTHubDeviceClient]
) -> None:
    client = make_client()
    method = reboot(connect_timeout_in_seconds=60, response_timeout_in_seconds=60)
    with ThreadPoolExecutor() as background:
        call = background.submit(registry.invoke_device_method, device.id, method)
        assert not wait([call], timeout=1).done  # it waits
        client.on_method_request_received = lambda request: client.send_method_response(
            MethodResponse(request.request_id, 200, "at last")
        )
        result = call.result()
    assert (result.status, result.payload) == (200, "at last")


def test_a_device_that_does_not_answer_within_the_response_timeout_is_a_gateway_timeout(
    registry: Any, device: Device, client: IoTHubDeviceClient
) -> None:
    client.on_method_request_received = lambda _: None
    began = time.monotonic()
    with refused(504, "GatewayTimeout"):
        registry.invoke_device_method(device.id, reboot(response_timeout_in_seconds=5))
    assert time.monotonic() - began >= 5


@pytest.mark.parametrize(
    "time_outs",
    [
        {"response_timeout_in_seconds": 4},
        {"response_timeout_in_seconds": 301},
        {"response_timeout_in_seconds": 10, "connect_timeout_in_seconds": 11},
    ],
)
def test_a_timeout_out_of_range_is_refused(
    registry: Any, device: Device, time_outs: dict[str, int]
) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.invoke_device_method(device.id, reboot(**time_outs))
