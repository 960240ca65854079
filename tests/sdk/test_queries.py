"""Queries through azure-iot-hub, on what azure-iot-device has reported."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient

from emulator import Emulator
from tests.sdk.service_sdk import models, refused, twin_of
from tests.support import Service


@pytest.fixture
def site() -> str:
    """A tag that only the devices of one test have."""
    return f"site-{uuid.uuid4().hex}"


@pytest.fixture
def devices(registry: Any, site: str) -> Iterator[list[str]]:
    """The ids of five devices that have the tag `site`, and a number."""
    names = [f"{site}-{number}" for number in range(5)]
    for number, name in enumerate(names):
        registry.create_device_with_sas(name, "", "", "enabled")
        tags = {"site": site, "number": number}
        registry.update_twin(name, twin_of({"interval": 60 * number}, tags=tags))
    yield names
    for name in names:
        registry.delete_device(name)


def ask(registry: Any, text: str, *paging: Any) -> Any:
    return registry.query_iot_hub(models.QuerySpecification(query=text), *paging)


def test_rows_are_twins(registry: Any, site: str, devices: list[str]) -> None:
    result = ask(registry, f"SELECT * FROM devices WHERE tags.site = '{site}'")
    assert (result.type, result.continuation_token) == ("Twin", None)
    assert [twin.device_id for twin in result.items] == devices
    twin = result.items[2]
    assert twin.as_dict() == registry.get_twin(devices[2]).as_dict()
    assert twin.tags == {"site": site, "number": 2}
    assert twin.properties.desired["interval"] == 120
    assert twin.properties.desired["$version"] == 2
    assert (twin.status, twin.connection_state) == ("enabled", "Disconnected")


@pytest.mark.parametrize("size", [2, 5, 100])
def test_pages(registry: Any, site: str, devices: list[str], size: int) -> None:
    text = f"SELECT * FROM devices WHERE tags.site = '{site}'"
    found: list[list[str]] = []
    token = None
    for _ in range(5):
        result = ask(registry, text, token, size)
        found.append([twin.device_id for twin in result.items])
        token = result.continuation_token
        if token is None:
            break
    assert found == [devices[start : start + size] for start in range(0, 5, size)]


def test_projections_are_raw(registry: Any, site: str, devices: list[str]) -> None:
    text = f"SELECT deviceId, tags FROM devices WHERE tags.site = '{site}' AND tags.number > 2"
    result = ask(registry, text)
    assert result.type == "Raw"
    assert [twin.device_id for twin in result.items] == devices[3:]
    assert result.items[0].tags == {"site": site, "number": 3}
    assert result.items[0].etag is None
    result = ask(registry, f"SELECT COUNT() AS version FROM devices WHERE tags.site = '{site}'")
    assert [row.version for row in result.items] == [5]


def test_modules_are_a_collection_of_their_own(
    registry: Any, site: str, devices: list[str]
) -> None:
    registry.create_module_with_sas(devices[0], "camera", "", "", "")
    registry.update_module_twin(devices[0], "camera", models.Twin(tags={"site": site}))
    result = ask(registry, f"SELECT * FROM devices.modules WHERE tags.site = '{site}'")
    assert result.type == "Twin"
    assert [(twin.device_id, twin.module_id) for twin in result.items] == [(devices[0], "camera")]


def test_an_invalid_query_is_refused(registry: Any) -> None:
    for text, paging in [
        ("SELECT * FORM devices", ()),
        ("SELECT * FROM devices", ("nonsense",)),
        ("SELECT * FROM devices", (None, 0)),
    ]:
        with refused(400, "ArgumentInvalid"):
            ask(registry, text, *paging)


def test_which_devices_have_rebooted_and_when(
    emulator: Emulator, service: Service, registry: Any, site: str, devices: list[str]
) -> None:
    """The tutorial promises it: a service can query the devices and their last reboots."""
    text = (
        "SELECT deviceId, properties.reported.rebootTime AS lastReboot FROM devices "
        f"WHERE is_defined(properties.reported.rebootTime) AND tags.site = '{site}'"
    )
    assert ask(registry, text).items == []
    moments = {name: datetime.now(UTC).isoformat() for name in (devices[3], devices[1])}
    with ExitStack() as stack:
        reports = {name: {"rebootTime": moment} for name, moment in moments.items()}
        # Connected, but not rebooted.
        reports[devices[0]] = {"firmware": "1.0"}
        for name, report in reports.items():
            string = emulator.device_connection_string(name)
            client = IoTHubDeviceClient.create_from_connection_string(string)
            stack.callback(client.shutdown)
            client.connect()
            client.patch_twin_reported_properties(report)
    assert [row.device_id for row in ask(registry, text).items] == [devices[1], devices[3]]
    # azure-iot-hub makes a twin of each row, and loses other members: so once without it.
    rows = service.request("POST", "/devices/query", json={"query": text}).json()
    assert rows == [
        {"deviceId": name, "lastReboot": moments[name]} for name in (devices[1], devices[3])
    ]
