"""Modules through the SDKs: azure-iot-device's module clients, and azure-iot-hub's operations."""

from __future__ import annotations

import base64
import gc
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse
from azure.iot.device.aio import IoTHubModuleClient as AioModuleClient
from azure.iot.device.exceptions import CredentialError

from emulator import Emulator
from tests.messages import read_events, wait_until
from tests.support import Device, Service

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

from tests.sdk.refusals import refused

pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
    # paho forgets the socket pair that woke its thread, each time that it connects again.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
real_hub = pytest.mark.real_hub

PATIENCE = 60
MODULE = "camera"
KEYS = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
OTHER_KEYS = [base64.b64encode(bytes([n]) * 32).decode() for n in (3, 4)]

MakeModuleClient = Callable[..., IoTHubModuleClient]


def keys_of(module: Any) -> list[str]:
    keys = module.authentication.symmetric_key
    return [keys.primary_key, keys.secondary_key]


def own(properties: dict[str, Any]) -> dict[str, Any]:
    """What a service or a device has set, without what the hub adds."""
    return {name: value for name, value in properties.items() if not name.startswith("$")}


@pytest.fixture(autouse=True)
def collect_sockets() -> Iterator[None]:
    """Have what paho forgot collected while the filter above holds."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def small_bundle(hub: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the emulator's CA alone: azure-iot-hub reads the bundle again for every request."""
    if isinstance(hub, Emulator):
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(name, str(hub.ca_file))


@pytest.fixture
def module(registry: Any, device: Device) -> str:
    """The connection string of a registered module."""
    registry.create_module_with_sas(device.id, MODULE, "", *KEYS)
    return device.connection_string.replace(
        f";SharedAccessKey={device.key}", f";ModuleId={MODULE};SharedAccessKey={KEYS[0]}"
    )


@pytest.fixture
def make_module_client(module: str) -> Iterator[MakeModuleClient]:
    """Makes clients of the module, which are not connected yet."""
    clients = []

    def make(connection_string: str = module, **options: Any) -> Any:
        client = IoTHubModuleClient.create_from_connection_string(
            connection_string, connection_retry_interval=1, **options
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.shutdown()


@pytest.fixture
def module_client(make_module_client: MakeModuleClient) -> IoTHubModuleClient:
    """A connected client of the module."""
    client = make_module_client()
    client.connect()
    return client


# --- the registry manager


@real_hub
def test_a_module_is_created_read_updated_and_deleted(registry: Any, device: Device) -> None:
    created = registry.create_module_with_sas(device.id, MODULE, "me", *KEYS)
    assert (created.device_id, created.module_id, created.managed_by) == (device.id, MODULE, "me")
    assert keys_of(created) == KEYS
    assert (created.connection_state, created.authentication.type) == ("Disconnected", "sas")
    found = registry.get_module(device.id, MODULE)
    assert found.as_dict() == created.as_dict()
    updated = registry.update_module_with_sas(device.id, MODULE, "you", created.etag, *OTHER_KEYS)
    assert (keys_of(updated), updated.managed_by) == (OTHER_KEYS, "you")
    assert updated.generation_id == created.generation_id
    with refused(412, "PreconditionFailed"):
        registry.update_module_with_sas(device.id, MODULE, "x", created.etag, *KEYS)
    with refused(412, "PreconditionFailed"):
        registry.delete_module(device.id, MODULE, created.etag)
    registry.delete_module(device.id, MODULE, updated.etag)
    with refused(404, "ModuleNotFound"):
        registry.get_module(device.id, MODULE)


@real_hub
def test_the_modules_of_a_device_are_listed(registry: Any, device: Device) -> None:
    assert registry.get_modules(device.id) == []
    for name in ("a", "b"):
        registry.create_module_with_sas(device.id, name, "", "", "")
    modules = registry.get_modules(device.id)
    assert sorted(module.module_id for module in modules) == ["a", "b"]
    assert len({key for module in modules for key in keys_of(module)}) == 4
    registry.delete_module(device.id, "a")
    assert [module.module_id for module in registry.get_modules(device.id)] == ["b"]


@real_hub
def test_a_module_is_created_once_on_a_device_that_is_there(registry: Any, device: Device) -> None:
    registry.create_module_with_sas(device.id, MODULE, "", *KEYS)
    with refused(409, "ModuleAlreadyExistsOnDevice"):
        registry.create_module_with_sas(device.id, MODULE, "", *OTHER_KEYS)
    assert keys_of(registry.get_module(device.id, MODULE)) == KEYS
    with refused(401, "IotHubUnauthorizedAccess"):
        registry.create_module_with_sas(f"{device.id}-unknown", MODULE, "", *KEYS)


@real_hub
def test_a_module_twin_is_updated_and_replaced(registry: Any, device: Device, module: str) -> None:
    twin = registry.get_module_twin(device.id, MODULE)
    assert (twin.device_id, twin.module_id, twin.tags) == (device.id, MODULE, None)
    assert own(twin.properties.desired) == {}
    patch = Twin(tags={"lens": "wide"}, properties=TwinProperties(desired={"zoom": 2}))
    updated = registry.update_module_twin(device.id, MODULE, patch, twin.etag)
    assert (updated.tags, own(updated.properties.desired)) == ({"lens": "wide"}, {"zoom": 2})
    with refused(412, "PreconditionFailed"):
        registry.update_module_twin(device.id, MODULE, patch, twin.etag)
    new = Twin(properties=TwinProperties(desired={"iso": 100}))
    replaced = registry.replace_module_twin(device.id, MODULE, new)
    assert (replaced.tags, own(replaced.properties.desired)) == (None, {"iso": 100})
    assert registry.get_twin(device.id).tags is None


@real_hub
def test_a_module_that_is_not_there_has_no_twin_and_no_methods(
    registry: Any, device: Device
) -> None:
    with refused(404, "DeviceNotFound"):
        registry.get_module_twin(device.id, "unknown")
    with refused(404, "ModuleNotFound"):
        registry.invoke_device_module_method(
            device.id, "unknown", CloudToDeviceMethod(method_name="zoom")
        )


# --- the module client


def test_a_modules_message_is_logged_as_its_own(
    module_client: IoTHubModuleClient, emulator: Emulator, device: Device
) -> None:
    message = Message("from the module")
    message.custom_properties["a"] = "1"
    module_client.send_message(message)
    module_client.send_message_to_output("by an output", "alerts")
    service = Service(emulator)
    first, second = read_events(service, device.id)
    service.close()
    assert (first["deviceId"], first["moduleId"], first["body"]) == (
        device.id,
        MODULE,
        "from the module",
    )
    assert (first["properties"], first["systemProperties"]) == ({"a": "1"}, {})
    assert (second["body"], second["properties"]) == ("by an output", {})
    assert second["systemProperties"] == {"iothub-outputname": "alerts"}


@real_hub
def test_a_module_reads_reports_and_hears_of_its_twin(
    module_client: IoTHubModuleClient, registry: Any, device: Device
) -> None:
    patches: queue.Queue[dict[str, Any]] = queue.Queue()
    module_client.on_twin_desired_properties_patch_received = patches.put
    module_client.patch_twin_reported_properties({"zoom": 1})
    registry.update_module_twin(
        device.id, MODULE, Twin(properties=TwinProperties(desired={"zoom": 2}))
    )
    assert patches.get(timeout=PATIENCE) == {"zoom": 2, "$version": 2}
    twin = module_client.get_twin()
    assert own(twin["desired"]) == {"zoom": 2}
    assert own(twin["reported"]) == {"zoom": 1}
    reported = registry.get_module_twin(device.id, MODULE).properties.reported
    assert own(reported) == {"zoom": 1}
    assert own(registry.get_twin(device.id).properties.reported) == {}


@real_hub
def test_a_module_answers_methods(
    module_client: IoTHubModuleClient, registry: Any, device: Device
) -> None:
    def answer(request: Any) -> None:
        response = MethodResponse(request.request_id, 201, {request.name: request.payload})
        module_client.send_method_response(response)

    module_client.on_method_request_received = answer
    method = CloudToDeviceMethod(
        method_name="zoom", payload={"by": 2}, connect_timeout_in_seconds=20
    )
    result = registry.invoke_device_module_method(device.id, MODULE, method)
    assert (result.status, result.payload) == (201, {"zoom": {"by": 2}})
    with refused(404, "DeviceNotOnline"):  # its device is another
        registry.invoke_device_method(device.id, CloudToDeviceMethod(method_name="zoom"))


@real_hub
def test_a_module_and_its_device_are_connected_at_the_same_time(
    module_client: IoTHubModuleClient, client: IoTHubDeviceClient, registry: Any, device: Device
) -> None:
    client.send_message("x")
    module_client.send_message("y")
    assert client.connected
    assert module_client.connected
    client.disconnect()
    module_client.send_message("z")
    assert module_client.connected


@real_hub
@pytest.mark.parametrize("key", [OTHER_KEYS[0], None], ids=["wrong", "the device's"])
def test_another_key_is_a_credential_error(
    make_module_client: MakeModuleClient, module: str, device: Device, key: str | None
) -> None:
    client = make_module_client(module.replace(KEYS[0], key or device.key))
    with pytest.raises(CredentialError):
        client.connect()


@real_hub
def test_a_module_that_is_deleted_loses_its_connection(
    make_module_client: MakeModuleClient, registry: Any, device: Device
) -> None:
    client = make_module_client(connection_retry=False)
    client.connect()
    registry.delete_module(device.id, MODULE)
    wait_until(lambda: not client.connected)
    with pytest.raises(CredentialError):
        client.connect()


@real_hub
async def test_a_module_works_with_the_asyncio_client(
    module: str, registry: Any, device: Device
) -> None:
    client = AioModuleClient.create_from_connection_string(module)
    try:
        await client.connect()
        await client.send_message("x")
        await client.patch_twin_reported_properties({"zoom": 3})
        assert own((await client.get_twin())["reported"]) == {"zoom": 3}
    finally:
        await client.shutdown()
    reported = registry.get_module_twin(device.id, MODULE).properties.reported
    assert own(reported) == {"zoom": 3}
