"""Fixtures of the tests that use a hub through the unmodified SDKs alone.

The hub is the emulator. Where the environment variable IOTHUB_REAL_CONNECTION_STRING holds a
connection string of a real hub, for a policy with every right, the tests marked `iothub_real` run
on that hub as well: they register the devices that they need there, and delete them again.
"""

import base64
import gc
import os
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from azure.iot.device import IoTHubDeviceClient
from azure.iot.device.aio import IoTHubDeviceClient as AioDeviceClient

from emulator import Emulator
from tests.sdk.support import RETRY, keys_of, make_clients
from tests.support import Device, own

REAL_CONNECTION_STRING = os.environ.get("IOTHUB_REAL_CONNECTION_STRING")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker("iothub_real")
    if REAL_CONNECTION_STRING and marked and "hub" in metafunc.fixturenames:
        metafunc.parametrize("hub", ["emulator", "real"], indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    for warning in (
        "ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning",
        # paho forgets the socket pair that woke its thread, each time that it connects again.
        "unclosed <socket:ResourceWarning",
    ):
        item.add_marker(pytest.mark.filterwarnings(f"ignore:{warning}"))


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """Exclude everything that is older than the module from each later collection."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def collect_sockets(small_heap: None) -> Iterator[None]:
    """Collect the sockets that paho forgot while their warnings are ignored."""
    yield
    gc.collect()


def open_registry(connection_string: str) -> Any:
    """Make an IoTHubRegistryManager, or skip the test where azure-iot-hub is missing."""
    from tests.sdk.service_sdk import sdk

    return sdk.IoTHubRegistryManager(connection_string)


class RealHub:
    """A hub in the cloud, with as much of `Emulator` as these tests use."""

    def __init__(self, connection_string: str) -> None:
        self.service_connection_string = connection_string
        self._registry = open_registry(connection_string)

    def register_device(self, device_id: str) -> str:
        keys = [base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2)]
        self._registry.create_device_with_sas(device_id, *keys, "enabled")
        host = self.service_connection_string.partition(";")[0]
        return f"{host};DeviceId={device_id};SharedAccessKey={keys[0]}"

    def delete_device(self, device_id: str) -> None:
        from tests.sdk.service_sdk import HttpOperationError

        with suppress(HttpOperationError):  # the test can have deleted it
            self._registry.delete_device(device_id)


class BackEnd:
    """The calls of a service on one device, through azure-iot-hub."""

    def __init__(self, registry: Any, device_id: str) -> None:
        from tests.sdk import service_sdk

        self._registry = registry
        self._device_id = device_id
        self._sdk = service_sdk

    def invoke(self, name: str, payload: object, **time_outs: int) -> tuple[int, object]:
        """Invoke a direct method; return the device's status and payload."""
        method = self._sdk.method(name, payload, **time_outs)
        result = self._registry.invoke_device_method(self._device_id, method)
        return result.status, result.payload

    def desire(self, patch: dict[str, object]) -> int:
        """Patch the desired properties; return their new version."""
        twin = self._registry.update_twin(self._device_id, self._sdk.twin_of(patch))
        return twin.properties.desired["$version"]

    def reported(self) -> dict[str, object]:
        """Read the reported properties, without the members that the hub adds."""
        return own(self._registry.get_twin(self._device_id).properties.reported)

    def set_status(self, status: str) -> None:
        """Enable or disable the device; its keys stay."""
        keys = keys_of(self._registry.get_device(self._device_id))
        self._registry.update_device_with_sas(self._device_id, "*", *keys, status)

    def delete_device(self) -> None:
        """Delete the device."""
        self._registry.delete_device(self._device_id)


@pytest.fixture
def hub(request: pytest.FixtureRequest) -> Emulator | RealHub:
    """The hub under test."""
    if getattr(request, "param", "emulator") == "real":
        assert REAL_CONNECTION_STRING
        return RealHub(REAL_CONNECTION_STRING)
    return request.getfixturevalue("emulator")


@pytest.fixture
def registry(hub: Emulator | RealHub) -> Any:
    """An IoTHubRegistryManager with every right."""
    return open_registry(hub.service_connection_string)


@pytest.fixture
def device_id(hub: Emulator | RealHub) -> Iterator[str]:
    """The id of a device that is not registered; if the test registers it, it is deleted."""
    device_id = f"sdk-test-{uuid.uuid4().hex[:12]}"
    yield device_id
    if isinstance(hub, RealHub):
        hub.delete_device(device_id)


@pytest.fixture
def device(hub: Emulator | RealHub, device_id: str) -> Device:
    """A registered device."""
    return Device.of(hub.register_device(device_id))


@pytest.fixture
def back_end(registry: Any, device: Device) -> BackEnd:
    """The service's end of `device`."""
    return BackEnd(registry, device.id)


@pytest.fixture
def make_client(device: Device) -> Iterator[Callable[..., IoTHubDeviceClient]]:
    """Makes clients of `device`, which are not connected yet."""
    yield from make_clients(IoTHubDeviceClient, device.connection_string)


@pytest.fixture
def client(make_client: Callable[..., IoTHubDeviceClient]) -> IoTHubDeviceClient:
    """A connected client of `device`."""
    client = make_client()
    client.connect()
    return client


@pytest_asyncio.fixture
async def make_aio_client(device: Device) -> AsyncIterator[Callable[..., AioDeviceClient]]:
    """Makes asyncio clients of `device`, which are not connected yet."""
    clients = []

    def make(connection_string: str = device.connection_string, **options: Any) -> Any:
        client = AioDeviceClient.create_from_connection_string(connection_string, **RETRY | options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.shutdown()


@pytest_asyncio.fixture
async def aio_client(make_aio_client: Callable[..., AioDeviceClient]) -> AioDeviceClient:
    """A connected asyncio client of `device`."""
    client = make_aio_client()
    await client.connect()
    return client
