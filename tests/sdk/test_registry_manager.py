"""azure-iot-hub's IoTHubRegistryManager, against a hub."""

import base64
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodResponse

from emulator import Emulator
from tests.sdk.service_sdk import method, models, refused, sdk, twin_of
from tests.sdk.support import KEYS, OTHER_KEYS, iothub_real, keys_of
from tests.support import PATIENCE, Device, own

pytestmark = iothub_real


# --- device identities


def test_a_device_is_created_once_with_its_keys(registry: Any, device_id: str) -> None:
    created = registry.create_device_with_sas(
        device_id, *KEYS, "enabled", status_reason="new in the field"
    )
    assert created.device_id == device_id
    assert keys_of(created) == KEYS
    assert created.authentication.type == "sas"
    assert (created.status, created.status_reason) == ("enabled", "new in the field")
    assert created.connection_state == "Disconnected"
    assert created.capabilities.iot_edge is False
    with refused(409, "DeviceAlreadyExists"):
        registry.create_device_with_sas(device_id, *OTHER_KEYS, "enabled")
    found = registry.get_device(device_id)
    assert keys_of(found) == KEYS
    assert (found.etag, found.generation_id) == (created.etag, created.generation_id)


def test_empty_keys_are_generated_and_one_key_alone_is_refused(
    registry: Any, device_id: str
) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.create_device_with_sas(device_id, KEYS[0], "", "enabled")
    registry.create_device_with_sas(device_id, "", "", "enabled")
    keys = keys_of(registry.get_device(device_id))
    assert [len(base64.b64decode(key)) for key in keys] == [32, 32]
    assert keys[0] != keys[1]


def test_devices_are_listed(registry: Any, device: Device) -> None:
    listed = {found.device_id: found for found in registry.get_devices()}
    assert listed[device.id].generation_id == registry.get_device(device.id).generation_id
    assert len(registry.get_devices(1)) == 1


def test_a_device_is_updated_and_deleted_under_its_etag(registry: Any, device_id: str) -> None:
    created = registry.create_device_with_sas(device_id, *KEYS, "enabled")
    updated = registry.update_device_with_sas(device_id, created.etag, *OTHER_KEYS, "disabled")
    assert (keys_of(updated), updated.status) == (OTHER_KEYS, "disabled")
    assert updated.etag != created.etag
    assert updated.generation_id == created.generation_id
    with refused(412, "PreconditionFailed"):
        registry.update_device_with_sas(device_id, created.etag, *KEYS, "enabled")
    with refused(412, "PreconditionFailed"):
        registry.delete_device(device_id, created.etag)
    found = registry.get_device(device_id)
    assert (keys_of(found), found.status) == (OTHER_KEYS, "disabled")
    registry.delete_device(device_id, updated.etag)
    with refused(404, "DeviceNotFound"):
        registry.get_device(device_id)


@pytest.mark.parametrize("etag", ["*", None])
def test_a_device_is_updated_and_deleted_under_any_etag(
    registry: Any, device_id: str, etag: str | None
) -> None:
    registry.create_device_with_sas(device_id, *KEYS, "enabled")
    updated = registry.update_device_with_sas(device_id, etag, *OTHER_KEYS, "enabled")
    assert keys_of(updated) == OTHER_KEYS
    registry.delete_device(device_id, etag)
    with refused(404, "DeviceNotFound"):
        registry.get_device(device_id)


def test_an_unknown_device_is_not_found(registry: Any, device_id: str) -> None:
    for call in (
        lambda: registry.get_device(device_id),
        lambda: registry.update_device_with_sas(device_id, "*", *KEYS, "enabled"),
        lambda: registry.delete_device(device_id),
        lambda: registry.get_twin(device_id),
        lambda: registry.update_twin(device_id, models.Twin(tags={"a": 1})),
        lambda: registry.invoke_device_method(device_id, method("reboot")),
    ):
        with refused(404, "DeviceNotFound"):
            call()


# --- certificates instead of keys

SHA1, SHA256 = "0123456789abcdefABCDEF0123456789abcdefAB", "F" * 64
OTHER_SHA256 = "0" * 64


def thumbprints_of(identity: Any) -> list[str | None]:
    thumbprints = identity.authentication.x509_thumbprint
    return [thumbprints.primary_thumbprint, thumbprints.secondary_thumbprint]


def test_a_device_with_thumbprints_is_created_and_updated(registry: Any, device_id: str) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.create_device_with_x509(device_id, ":".join(["AB"] * 20), SHA256, "enabled")
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


def test_a_device_with_ca_signed_certificates_is_created_and_updated(
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
def make_edge_device(registry: Any) -> Iterator[Callable[..., Any]]:
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
    assert registry.get_twin(created.device_id).device_scope == created.device_scope
    modules = registry.get_modules(created.device_id)
    assert {module.module_id for module in modules} == {"$edgeAgent", "$edgeHub"}
    assert {module.managed_by for module in modules} == {"iotEdge"}
    assert {module.authentication.type for module in modules} == {"none"}
    assert registry.get_module_twin(created.device_id, "$edgeHub").module_id == "$edgeHub"


def test_an_edge_device_is_updated_with_its_own_scope(
    registry: Any, make_edge_device: Callable[..., Any]
) -> None:
    created = make_edge_device()
    arguments = (created.device_id, created.etag, *KEYS, "disabled")
    with refused(400, "ArgumentInvalid"):
        registry.update_device_with_sas(*arguments, iot_edge=True)
    scope = created.device_scope
    updated = registry.update_device_with_sas(*arguments, iot_edge=True, device_scope=scope)
    assert (updated.status, updated.device_scope) == ("disabled", scope)


def test_devices_are_put_below_an_edge_device(
    registry: Any, device_id: str, make_edge_device: Callable[..., Any]
) -> None:
    scope = make_edge_device().device_scope
    leaf = registry.create_device_with_sas(device_id, *KEYS, "enabled", device_scope=scope)
    assert (leaf.device_scope, leaf.parent_scopes) == (scope, [scope])
    child = make_edge_device(parent_scopes=scope)
    assert (child.device_scope != scope, child.parent_scopes) == (True, [scope])
    for each in (leaf, child):
        assert registry.get_twin(each.device_id).parent_scopes == [scope]
    alone = registry.update_device_with_sas(device_id, leaf.etag, *KEYS, "enabled")
    assert (alone.device_scope, alone.parent_scopes) == (None, None)


# What a real hub answers to an invalid scope is not known.
def test_an_invalid_scope_is_refused(emulator: Emulator) -> None:
    registry = sdk.IoTHubRegistryManager(emulator.service_connection_string)
    with refused(400, "InvalidDeviceScope"):
        registry.create_device_with_sas("scoped", *KEYS, "enabled", device_scope="nowhere")


# --- module identities


def test_a_module_with_keys_is_created_updated_and_deleted(registry: Any, device: Device) -> None:
    created = registry.create_module_with_sas(device.id, "camera", "me", *KEYS)
    assert (created.device_id, created.module_id) == (device.id, "camera")
    assert (created.managed_by, keys_of(created)) == ("me", KEYS)
    assert (created.connection_state, created.authentication.type) == ("Disconnected", "sas")
    assert registry.get_module(device.id, "camera").as_dict() == created.as_dict()
    with refused(409, "ModuleAlreadyExistsOnDevice"):
        registry.create_module_with_sas(device.id, "camera", "me", *OTHER_KEYS)
    updated = registry.update_module_with_sas(device.id, "camera", "you", created.etag, *OTHER_KEYS)
    assert (updated.managed_by, keys_of(updated)) == ("you", OTHER_KEYS)
    with refused(412, "PreconditionFailed"):
        registry.update_module_with_sas(device.id, "camera", "me", created.etag, *KEYS)
    found = registry.get_module(device.id, "camera")
    assert (found.etag, found.generation_id) == (updated.etag, created.generation_id)
    with refused(412, "PreconditionFailed"):
        registry.delete_module(device.id, "camera", created.etag)
    registry.delete_module(device.id, "camera", updated.etag)
    for call in (
        lambda: registry.get_module(device.id, "camera"),
        lambda: registry.delete_module(device.id, "camera"),
        lambda: registry.update_module_with_sas(device.id, "camera", "me", None, *KEYS),
    ):
        with refused(404, "ModuleNotFound"):
            call()


def test_a_module_with_thumbprints_is_created_and_updated(registry: Any, device: Device) -> None:
    created = registry.create_module_with_x509(device.id, "camera", "me", SHA1, SHA256)
    assert created.authentication.type == "selfSigned"
    assert thumbprints_of(created) == [SHA1, SHA256]
    updated = registry.update_module_with_x509(
        device.id, "camera", None, created.etag, SHA256, SHA256
    )
    assert (updated.managed_by, thumbprints_of(updated)) == (None, [SHA256, SHA256])
    assert registry.get_module_twin(device.id, "camera").authentication_type == "selfSigned"


def test_a_module_with_ca_signed_certificates_is_created_and_updated(
    registry: Any, device: Device
) -> None:
    created = registry.create_module_with_certificate_authority(device.id, "camera", "me")
    assert created.authentication.type == "certificateAuthority"
    updated = registry.update_module_with_certificate_authority(device.id, "camera", "you", "*")
    assert (updated.managed_by, updated.etag != created.etag) == ("you", True)


def test_the_modules_of_a_device_are_listed(registry: Any, device: Device) -> None:
    assert registry.get_modules(device.id) == []
    for name in ("a", "b"):
        registry.create_module_with_sas(device.id, name, "", "", "")
    modules = {module.module_id: module for module in registry.get_modules(device.id)}
    assert set(modules) == {"a", "b"}
    assert keys_of(modules["a"]) == keys_of(registry.get_module(device.id, "a"))
    assert len({key for module in modules.values() for key in keys_of(module)}) == 4
    registry.delete_module(device.id, "a")
    assert [module.module_id for module in registry.get_modules(device.id)] == ["b"]


def test_a_module_needs_a_device_and_an_id_without_a_dollar(registry: Any, device: Device) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.create_module_with_sas(device.id, "$edgeAgent", "iotEdge", *KEYS)
    with refused(401, "IotHubUnauthorizedAccess"):
        registry.create_module_with_sas(f"{device.id}-unknown", "camera", "", *KEYS)


# --- statistics


# The statistics of a real hub lag behind.
def test_devices_are_counted(emulator: Emulator) -> None:
    registry = sdk.IoTHubRegistryManager(emulator.service_connection_string)
    before = registry.get_device_registry_statistics()
    device_id = f"counted-{uuid.uuid4().hex[:12]}"
    registry.create_device_with_sas(device_id, *KEYS, "disabled")
    after = registry.get_device_registry_statistics()
    registry.delete_device(device_id)
    assert after.total_device_count - before.total_device_count == 1
    assert after.enabled_device_count - before.enabled_device_count == 0
    assert after.disabled_device_count - before.disabled_device_count == 1


def test_connected_devices_are_counted(registry: Any) -> None:
    # It would be None if the answer had another name for it.
    assert isinstance(registry.get_service_statistics().connected_device_count, int)


# --- access


def test_a_wrong_key_is_refused(hub: Any, device: Device) -> None:
    right = hub.service_connection_string
    wrong = right.rpartition("SharedAccessKey=")[0] + f"SharedAccessKey={KEYS[0]}"
    with refused(401, "IotHubUnauthorizedAccess"):
        sdk.IoTHubRegistryManager(wrong).get_device(device.id)


# Only the emulator offers the connection strings of all its policies.
def test_a_policy_has_its_own_rights_and_no_others(emulator: Emulator) -> None:
    device_id = f"policies-{uuid.uuid4().hex[:12]}"
    emulator.register_device(device_id)
    reader, writer, caller, device_policy = (
        sdk.IoTHubRegistryManager(emulator.policy_connection_string(policy))
        for policy in ("registryRead", "registryReadWrite", "service", "device")
    )
    assert reader.get_device(device_id).device_id == device_id
    assert writer.update_device_with_sas(device_id, "*", *KEYS, "enabled").device_id == device_id
    assert caller.get_twin(device_id).device_id == device_id
    for call in (
        lambda: reader.delete_device(device_id),
        lambda: writer.get_twin(device_id),
        lambda: writer.invoke_device_method(device_id, method("reboot")),
        lambda: caller.get_device(device_id),
        lambda: device_policy.get_twin(device_id),
    ):
        with refused(401, "IotHubUnauthorizedAccess"):
            call()


# --- twins


def test_a_new_twin_is_empty(registry: Any, device: Device) -> None:
    twin = registry.get_twin(device.id)
    assert (twin.device_id, twin.tags, twin.version) == (device.id, None, 2)
    assert own(twin.properties.desired) == own(twin.properties.reported) == {}
    assert twin.properties.desired["$version"] == twin.properties.reported["$version"] == 1
    assert twin.device_etag == registry.get_device(device.id).etag


def test_an_update_of_the_twin_merges_and_a_replacement_does_not(
    registry: Any, device: Device
) -> None:
    before = twin_of({"interval": 30, "unit": "s"}, tags={"site": {"room": 1, "floor": 2}})
    registry.update_twin(device.id, before)
    patch = twin_of({"unit": None, "new": [1]}, tags={"site": {"room": 7}})
    twin = registry.update_twin(device.id, patch)
    assert twin.tags == {"site": {"room": 7, "floor": 2}}
    assert own(twin.properties.desired) == {"interval": 30, "new": [1]}
    assert twin.properties.desired["$version"] == 3
    assert registry.get_twin(device.id).as_dict() == twin.as_dict()
    twin = registry.replace_twin(device.id, twin_of({"new": 2}))
    assert (twin.tags, own(twin.properties.desired)) == (None, {"new": 2})


@pytest.mark.parametrize("operation", ["update_twin", "replace_twin"])
def test_a_write_to_the_twin_needs_the_current_etag(
    registry: Any, device: Device, operation: str
) -> None:
    def write(number: int, etag: str) -> Any:
        twin = models.Twin(tags={"write": number})
        return getattr(registry, operation)(device.id, twin, etag)

    first = registry.get_twin(device.id).etag
    assert write(1, first).etag != first
    with refused(412, "PreconditionFailed"):
        write(2, first)
    assert registry.get_twin(device.id).tags == {"write": 1}
    write(3, "*")
    assert registry.get_twin(device.id).tags == {"write": 3}


def test_an_invalid_name_in_a_twin_is_refused(registry: Any, device: Device) -> None:
    with refused(400, "ArgumentInvalid"):
        registry.update_twin(device.id, models.Twin(tags={"good": 1, "a.b": 2}))
    assert registry.get_twin(device.id).tags is None


# --- direct methods and their time-outs


def test_a_device_that_is_not_connected_or_not_subscribed_is_not_online(
    registry: Any, device: Device, make_client: Callable[..., IoTHubDeviceClient]
) -> None:
    with refused(404, "DeviceNotOnline"):
        registry.invoke_device_method(device.id, method("reboot"))
    client = make_client()
    client.connect()
    client.get_twin()
    with refused(404, "DeviceNotOnline"):
        registry.invoke_device_method(device.id, method("reboot"))


def test_the_connect_timeout_waits_for_a_device_that_connects_later(
    registry: Any, device: Device, make_client: Callable[..., IoTHubDeviceClient]
) -> None:
    client = make_client()
    reboot = method("reboot", connect_timeout_in_seconds=60, response_timeout_in_seconds=60)
    with ThreadPoolExecutor() as background:
        call = background.submit(registry.invoke_device_method, device.id, reboot)
        assert not wait([call], timeout=0.3).done
        client.on_method_request_received = lambda request: client.send_method_response(
            MethodResponse(request.request_id, 200, "at last")
        )
        result = call.result(PATIENCE)
    assert (result.status, result.payload) == (200, "at last")


def test_the_timeouts_end_a_call(
    hub: Any,
    registry: Any,
    device: Device,
    client: IoTHubDeviceClient,
    make_edge_device: Callable[..., Any],
) -> None:
    if isinstance(hub, Emulator):
        pytest.skip("test_clock.py has it, and does not wait")

    def wait_for(status: int, code: str, device_id: str, **time_outs: int) -> float:
        began = time.monotonic()
        with refused(status, code):
            registry.invoke_device_method(device_id, method("reboot", **time_outs))
        return time.monotonic() - began

    absent = make_edge_device().device_id
    client.on_method_request_received = lambda _: None
    with ThreadPoolExecutor() as background:
        connecting = background.submit(
            wait_for, 404, "DeviceNotOnline", absent, connect_timeout_in_seconds=1
        )
        assert wait_for(504, "GatewayTimeout", device.id, response_timeout_in_seconds=5) >= 5
        assert connecting.result(PATIENCE) >= 1


def test_a_timeout_out_of_range_is_refused(registry: Any, device: Device) -> None:
    for name, seconds in (("response", 301), ("connect", 31)):
        time_outs = {f"{name}_timeout_in_seconds": seconds}
        with refused(400, "ArgumentInvalid"):
            registry.invoke_device_method(device.id, method("reboot", **time_outs))
