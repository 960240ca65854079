"""azure-iot-hub's IoTHubConfigurationManager, and devices that are given what it configures."""

from __future__ import annotations

import base64
import queue
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient

from tests.support import Device

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub import IoTHubConfigurationManager
from azure.iot.hub.models import (
    Configuration,
    ConfigurationContent,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
)
from msrest.exceptions import HttpOperationError

from tests.sdk.refusals import refused

pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
]
real_hub = pytest.mark.real_hub

PATIENCE = 60
CHILLER = {"properties.desired.chiller": {"temperature": 66, "pressure": 28}}
MANIFEST = {
    "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {}}},
    "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
    "sensor": {"properties.desired": {"interval": 5}},
}
PENDING = "SELECT deviceId FROM devices WHERE properties.reported.chiller.status = 'pending'"


@pytest.fixture
def manager(hub: Any) -> IoTHubConfigurationManager:
    return IoTHubConfigurationManager.from_connection_string(hub.service_connection_string)


@pytest.fixture
def name(manager: IoTHubConfigurationManager) -> Iterator[str]:
    """The id of a configuration that isn't there; if the test creates it, it is deleted."""
    name = f"sdk-test-{uuid.uuid4().hex[:12]}"
    yield name
    with suppress(HttpOperationError):
        manager.delete_configuration(name)


@pytest.fixture
def edge_device_id(registry: Any, device_id: str) -> str:
    """The id of an IoT Edge device."""
    keys = [base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
    registry.create_device_with_sas(device_id, *keys, "enabled", iot_edge=True)
    return device_id


def configuration(name: str, **members: Any) -> Configuration:
    content = ConfigurationContent(device_content=CHILLER)
    return Configuration(**{"id": name, "content": content, **members})


def own(properties: dict[str, Any]) -> dict[str, Any]:
    """What a service has set, without what the hub adds."""
    return {name: value for name, value in properties.items() if not name.startswith("$")}


@real_hub
def test_a_configuration_is_created_and_read(
    manager: IoTHubConfigurationManager, name: str
) -> None:
    created = manager.create_configuration(
        configuration(
            name,
            target_condition="tags.nobody = 'has this'",
            priority=7,
            labels={"HostPlatform": "Linux"},
            metrics=ConfigurationMetrics(queries={"pending": PENDING}),
        )
    )
    assert (created.id, created.priority, created.etag) == (name, 7, "MQ==")
    assert created.content.device_content == CHILLER
    assert created.labels == {"HostPlatform": "Linux"}
    assert created.metrics.queries == {"pending": PENDING}
    assert created.created_time_utc == created.last_updated_time_utc
    read = manager.get_configuration(name)
    assert (read.etag, read.created_time_utc) == (created.etag, created.created_time_utc)
    assert name in [each.id for each in manager.get_configurations(1)]
    with refused(409, "ConfigurationAlreadyExists"):
        manager.create_configuration(configuration(name))


@real_hub
def test_a_configuration_is_updated(manager: IoTHubConfigurationManager, name: str) -> None:
    created = manager.create_configuration(configuration(name))
    created.priority = 9
    updated = manager.update_configuration(created, f'"{created.etag}"')
    assert (updated.priority, updated.etag) == (9, "Mg==")
    assert manager.update_configuration(updated, "*").etag == "Mw=="
    with refused(412, "PreconditionFailed"):
        manager.update_configuration(updated, f'"{created.etag}"')
    # What users of this SDK stumble over: the etag as it was read, which has no quotes.
    with refused(409, "ConfigurationAlreadyExists"):
        manager.update_configuration(updated, "Mw==")


@real_hub
def test_a_configuration_is_deleted(manager: IoTHubConfigurationManager, name: str) -> None:
    manager.create_configuration(configuration(name))
    with refused(412, "PreconditionFailed"):
        manager.delete_configuration(name, '"Mg=="')
    manager.delete_configuration(name)
    with refused(404, "ConfigurationNotFound"):
        manager.get_configuration(name)
    with refused(404, "ConfigurationNotFound"):
        manager.delete_configuration(name)


@real_hub
def test_what_is_wrong_is_refused(manager: IoTHubConfigurationManager, name: str) -> None:
    with refused(400, "InvalidConfigurationContent"):
        manager.create_configuration(configuration(name, content=None))
    with refused(400, "InvalidConfigurationTargetCondition"):
        manager.create_configuration(configuration(name, target_condition="connectionState = 'x'"))
    with refused(404, "ConfigurationNotFound"):
        manager.get_configuration(name)


@real_hub
def test_queries_are_tested(manager: IoTHubConfigurationManager) -> None:
    right = manager.test_configuration_queries(
        ConfigurationQueriesTestInput(
            target_condition="tags.x = 1", custom_metric_queries={"pending": PENDING}
        )
    )
    assert not right.target_condition_error
    assert not right.custom_metric_query_errors
    wrong = manager.test_configuration_queries(
        ConfigurationQueriesTestInput(
            target_condition="properties.desired.x = 1", custom_metric_queries={"bad": "SELEC"}
        )
    )
    assert wrong.target_condition_error
    assert list(wrong.custom_metric_query_errors) == ["bad"]


@real_hub
def test_modules_are_given_to_an_edge_device(
    manager: IoTHubConfigurationManager, registry: Any, edge_device_id: str
) -> None:
    content = ConfigurationContent(modules_content=MANIFEST)
    manager.apply_configuration_on_edge_device(edge_device_id, content)
    assert own(registry.get_module_twin(edge_device_id, "sensor").properties.desired) == {
        "interval": 5
    }
    agent = registry.get_module_twin(edge_device_id, "$edgeAgent").properties.desired
    assert own(agent) == {"schemaVersion": "1.1", "modules": {}}
    modules = registry.get_modules(edge_device_id)
    assert sorted(module.module_id for module in modules) == ["$edgeAgent", "$edgeHub", "sensor"]


@real_hub
def test_modules_are_given_to_edge_devices_only(
    manager: IoTHubConfigurationManager, device: Device
) -> None:
    content = ConfigurationContent(modules_content=MANIFEST)
    with pytest.raises(HttpOperationError) as caught:
        manager.apply_configuration_on_edge_device(device.id, content)
    assert caught.value.response.status_code == 400
    assert "Not an Azure IoT Edge device" in caught.value.response.text


# A real hub looks every five minutes; the rest would wait as long there.


def test_a_device_is_told_of_a_configuration(
    manager: IoTHubConfigurationManager,
    name: str,
    device: Device,
    client: IoTHubDeviceClient,
) -> None:
    patches: queue.Queue[dict[str, Any]] = queue.Queue()
    client.on_twin_desired_properties_patch_received = patches.put
    metrics = ConfigurationMetrics(queries={"pending": PENDING})
    manager.create_configuration(
        configuration(name, target_condition=f"deviceId = '{device.id}'", metrics=metrics)
    )
    told = patches.get(timeout=PATIENCE)
    assert told == {"chiller": {"temperature": 66, "pressure": 28}, "$version": 2}
    assert own(client.get_twin()["desired"]) == own(told)
    client.patch_twin_reported_properties({"chiller": {"status": "pending"}})
    read = manager.get_configuration(name)
    assert read.system_metrics.results == {"targetedCount": 1, "appliedCount": 1}
    assert read.metrics.results == {"pending": 1}


def test_a_device_is_told_when_it_comes_into_scope(
    manager: IoTHubConfigurationManager,
    name: str,
    client: IoTHubDeviceClient,
) -> None:
    patches: queue.Queue[dict[str, Any]] = queue.Queue()
    client.on_twin_desired_properties_patch_received = patches.put
    manager.create_configuration(
        configuration(name, target_condition=f"properties.reported.wants = '{name}'")
    )
    client.patch_twin_reported_properties({"wants": name})
    assert own(patches.get(timeout=PATIENCE)) == {"chiller": {"temperature": 66, "pressure": 28}}


def test_a_deployment_reaches_an_edge_device(
    manager: IoTHubConfigurationManager,
    registry: Any,
    name: str,
    edge_device_id: str,
) -> None:
    content = ConfigurationContent(modules_content=MANIFEST)
    condition = f"deviceId = '{edge_device_id}'"
    manager.create_configuration(configuration(name, content=content, target_condition=condition))
    assert registry.get_module(edge_device_id, "sensor").managed_by == "iotEdge"
    results = manager.get_configuration(name).system_metrics.results
    assert (results["targetedCount"], results["appliedCount"]) == (1, 1)
