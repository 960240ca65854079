"""azure-iot-hub's IoTHubConfigurationManager, and devices that receive what it configures."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient

from tests.sdk.service_sdk import HttpOperationError, models, refused, sdk
from tests.sdk.support import KEYS, desired_patches, iothub_real
from tests.support import PATIENCE, Device, own

CHILLER = {"properties.desired.chiller": {"temperature": 66, "pressure": 28}}
MANIFEST = models.ConfigurationContent(
    modules_content={
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
        "sensor": {"properties.desired": {"interval": 5}},
    }
)
PENDING = "SELECT deviceId FROM devices WHERE properties.reported.chiller.status = 'pending'"


@pytest.fixture
def manager(hub: Any) -> Any:
    return sdk.IoTHubConfigurationManager.from_connection_string(hub.service_connection_string)


@pytest.fixture
def name(manager: Any) -> Iterator[str]:
    """The id of a configuration that does not exist; if the test creates it, it is deleted."""
    name = f"sdk-test-{uuid.uuid4().hex[:12]}"
    yield name
    with suppress(HttpOperationError):
        manager.delete_configuration(name)


@pytest.fixture
def edge_device_id(registry: Any, device_id: str) -> str:
    """The id of an IoT Edge device."""
    registry.create_device_with_sas(device_id, *KEYS, "enabled", iot_edge=True)
    return device_id


def configuration(name: str, **members: Any) -> Any:
    content = models.ConfigurationContent(device_content=CHILLER)
    return models.Configuration(**{"id": name, "content": content, **members})


@iothub_real
def test_a_configuration_is_created_and_read(manager: Any, name: str) -> None:
    created = manager.create_configuration(
        configuration(
            name,
            target_condition="tags.unused = 'has this'",
            priority=7,
            labels={"HostPlatform": "Linux"},
            metrics=models.ConfigurationMetrics(queries={"pending": PENDING}),
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


@iothub_real
def test_a_configuration_is_updated_and_deleted(manager: Any, name: str) -> None:
    created = manager.create_configuration(configuration(name))
    created.priority = 9
    updated = manager.update_configuration(created, f'"{created.etag}"')
    assert (updated.priority, updated.etag) == (9, "Mg==")
    assert manager.update_configuration(updated, "*").etag == "Mw=="
    with refused(412, "PreconditionFailed"):
        manager.update_configuration(updated, f'"{created.etag}"')
    # A trap of this SDK: the etag has no quotes as it is read.
    with refused(409, "ConfigurationAlreadyExists"):
        manager.update_configuration(updated, "Mw==")
    with refused(412, "PreconditionFailed"):
        manager.delete_configuration(name, '"Mg=="')
    manager.delete_configuration(name)
    with refused(404, "ConfigurationNotFound"):
        manager.get_configuration(name)
    with refused(404, "ConfigurationNotFound"):
        manager.delete_configuration(name)


@iothub_real
def test_an_invalid_configuration_is_refused(manager: Any, name: str) -> None:
    with refused(400, "InvalidConfigurationContent"):
        manager.create_configuration(configuration(name, content=None))
    with refused(400, "InvalidConfigurationTargetCondition"):
        manager.create_configuration(configuration(name, target_condition="connectionState = 'x'"))
    with refused(404, "ConfigurationNotFound"):
        manager.get_configuration(name)


@iothub_real
def test_queries_are_tested(manager: Any) -> None:
    def check(condition: str, **queries: str) -> Any:
        return manager.test_configuration_queries(
            models.ConfigurationQueriesTestInput(
                target_condition=condition, custom_metric_queries=queries
            )
        )

    valid = check("tags.x = 1", pending=PENDING)
    assert not valid.target_condition_error
    assert not valid.custom_metric_query_errors
    invalid = check("properties.desired.x = 1", bad="SELEC")
    assert invalid.target_condition_error
    assert list(invalid.custom_metric_query_errors) == ["bad"]


@iothub_real
def test_content_creates_the_modules_of_an_edge_device(
    manager: Any, registry: Any, edge_device_id: str
) -> None:
    manager.apply_configuration_on_edge_device(edge_device_id, MANIFEST)
    sensor, agent = (
        own(registry.get_module_twin(edge_device_id, name).properties.desired)
        for name in ("sensor", "$edgeAgent")
    )
    assert sensor == {"interval": 5}
    assert agent == {"schemaVersion": "1.1", "modules": {}}
    modules = registry.get_modules(edge_device_id)
    assert sorted(module.module_id for module in modules) == ["$edgeAgent", "$edgeHub", "sensor"]


@iothub_real
def test_content_is_for_edge_devices_only(manager: Any, device: Device) -> None:
    with pytest.raises(HttpOperationError) as caught:
        manager.apply_configuration_on_edge_device(device.id, MANIFEST)
    assert caught.value.response.status_code == 400
    assert "Not an Azure IoT Edge device" in caught.value.response.text


# A real hub evaluates configurations every five minutes; these tests would wait as long there.


def test_a_device_receives_a_configuration(
    manager: Any, name: str, device: Device, client: IoTHubDeviceClient
) -> None:
    patches = desired_patches(client)
    metrics = models.ConfigurationMetrics(queries={"pending": PENDING})
    manager.create_configuration(
        configuration(name, target_condition=f"deviceId = '{device.id}'", metrics=metrics)
    )
    received = patches.get(timeout=PATIENCE)
    assert received == {"chiller": {"temperature": 66, "pressure": 28}, "$version": 2}
    assert own(client.get_twin()["desired"]) == own(received)
    client.patch_twin_reported_properties({"chiller": {"status": "pending"}})
    read = manager.get_configuration(name)
    assert read.system_metrics.results == {"targetedCount": 1, "appliedCount": 1}
    assert read.metrics.results == {"pending": 1}


def test_a_device_receives_a_configuration_when_its_condition_becomes_true(
    manager: Any, name: str, client: IoTHubDeviceClient
) -> None:
    patches = desired_patches(client)
    condition = f"properties.reported.wants = '{name}'"
    manager.create_configuration(configuration(name, target_condition=condition))
    client.patch_twin_reported_properties({"wants": name})
    assert own(patches.get(timeout=PATIENCE)) == {"chiller": {"temperature": 66, "pressure": 28}}


def test_a_deployment_reaches_an_edge_device(
    manager: Any, registry: Any, name: str, edge_device_id: str
) -> None:
    condition = f"deviceId = '{edge_device_id}'"
    manager.create_configuration(configuration(name, content=MANIFEST, target_condition=condition))
    assert registry.get_module(edge_device_id, "sensor").managed_by == "iotEdge"
    results = manager.get_configuration(name).system_metrics.results
    assert (results["targetedCount"], results["appliedCount"]) == (1, 1)
