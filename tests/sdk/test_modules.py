"""Modules: azure-iot-device's module clients, and azure-iot-hub's calls on their twins and methods.

`test_registry_manager.py` has the module identities.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, MethodResponse
from azure.iot.device.aio import IoTHubModuleClient as AioModuleClient
from azure.iot.device.exceptions import CredentialError

from tests.messages import read_events
from tests.sdk.service_sdk import method, refused, twin_of
from tests.sdk.support import KEYS, OTHER_KEYS, desired_patches, iothub_real, make_clients
from tests.support import PATIENCE, Device, Service, own, wait_until

MODULE = "camera"

MakeModuleClient = Callable[..., IoTHubModuleClient]


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
    yield from make_clients(IoTHubModuleClient, module)


@pytest.fixture
def module_client(make_module_client: MakeModuleClient) -> IoTHubModuleClient:
    """A connected client of the module."""
    client = make_module_client()
    client.connect()
    return client


# --- the registry manager


@iothub_real
def test_a_module_twin_is_updated_and_replaced(registry: Any, device: Device, module: str) -> None:
    twin = registry.get_module_twin(device.id, MODULE)
    assert (twin.device_id, twin.module_id, twin.tags) == (device.id, MODULE, None)
    assert own(twin.properties.desired) == {}
    patch = twin_of({"zoom": 2}, tags={"lens": "wide"})
    updated = registry.update_module_twin(device.id, MODULE, patch, twin.etag)
    assert (updated.tags, own(updated.properties.desired)) == ({"lens": "wide"}, {"zoom": 2})
    with refused(412, "PreconditionFailed"):
        registry.update_module_twin(device.id, MODULE, patch, twin.etag)
    replaced = registry.replace_module_twin(device.id, MODULE, twin_of({"iso": 100}))
    assert (replaced.tags, own(replaced.properties.desired)) == (None, {"iso": 100})
    assert registry.get_twin(device.id).tags is None


@iothub_real
def test_an_unknown_module_has_no_twin_and_no_methods(registry: Any, device: Device) -> None:
    with refused(404, "DeviceNotFound"):
        registry.get_module_twin(device.id, "unknown")
    with refused(404, "ModuleNotFound"):
        registry.invoke_device_module_method(device.id, "unknown", method("zoom"))


# --- the module client


def test_the_log_names_the_module_of_a_message(
    module_client: IoTHubModuleClient, service: Service, device: Device
) -> None:
    message = Message("from the module")
    message.custom_properties["a"] = "1"
    module_client.send_message(message)
    module_client.send_message_to_output("by an output", "alerts")
    first, second = read_events(service, device.id)
    assert (first["deviceId"], first["moduleId"]) == (device.id, MODULE)
    assert (first["body"], first["properties"]) == ("from the module", {"a": "1"})
    assert first["systemProperties"] == {}
    assert (second["body"], second["properties"]) == ("by an output", {})
    assert second["systemProperties"] == {"iothub-outputname": "alerts"}


@iothub_real
def test_a_module_reads_and_reports_its_twin_and_receives_patches(
    module_client: IoTHubModuleClient, registry: Any, device: Device
) -> None:
    patches = desired_patches(module_client)
    module_client.patch_twin_reported_properties({"zoom": 1})
    registry.update_module_twin(device.id, MODULE, twin_of({"zoom": 2}))
    assert patches.get(timeout=PATIENCE) == {"zoom": 2, "$version": 2}
    twin = module_client.get_twin()
    assert own(twin["desired"]) == {"zoom": 2}
    assert own(twin["reported"]) == {"zoom": 1}
    reported = registry.get_module_twin(device.id, MODULE).properties.reported
    assert own(reported) == {"zoom": 1}
    assert own(registry.get_twin(device.id).properties.reported) == {}


@iothub_real
def test_a_module_answers_methods(
    module_client: IoTHubModuleClient, registry: Any, device: Device
) -> None:
    def answer(request: Any) -> None:
        response = MethodResponse(request.request_id, 201, {request.name: request.payload})
        module_client.send_method_response(response)

    module_client.on_method_request_received = answer
    zoom = method("zoom", {"by": 2}, connect_timeout_in_seconds=20)
    result = registry.invoke_device_module_method(device.id, MODULE, zoom)
    assert (result.status, result.payload) == (201, {"zoom": {"by": 2}})
    with refused(404, "DeviceNotOnline"):  # the device itself is not connected
        registry.invoke_device_method(device.id, method("zoom"))


@iothub_real
def test_a_module_and_its_device_are_connected_at_the_same_time(
    module_client: IoTHubModuleClient, client: IoTHubDeviceClient
) -> None:
    client.send_message("x")
    module_client.send_message("y")
    assert client.connected
    assert module_client.connected
    client.disconnect()
    module_client.send_message("z")
    assert module_client.connected


@iothub_real
@pytest.mark.parametrize("key", [OTHER_KEYS[0], None], ids=["wrong", "the device's"])
def test_another_key_is_a_credential_error(
    make_module_client: MakeModuleClient, module: str, device: Device, key: str | None
) -> None:
    client = make_module_client(module.replace(KEYS[0], key or device.key))
    with pytest.raises(CredentialError):
        client.connect()


@iothub_real
def test_a_module_that_is_deleted_loses_its_connection(
    make_module_client: MakeModuleClient, registry: Any, device: Device
) -> None:
    client = make_module_client(connection_retry=False)
    client.connect()
    registry.delete_module(device.id, MODULE)
    wait_until(lambda: not client.connected)
    with pytest.raises(CredentialError):
        client.connect()


@iothub_real
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
