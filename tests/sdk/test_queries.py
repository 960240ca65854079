"""Queries through the SDKs: azure-iot-hub asks, azure-iot-device has reported."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient

from emulator import Emulator
from tests.support import Service

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties
from msrest.exceptions import HttpOperationError

pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
    # paho forgets the socket pair that woke its thread, each time that it connects again.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def collect_sockets() -> Iterator[None]:
    """Have what paho forgot collected while the filter above holds."""
    yield
    gc.collect()


@pytest.fixture
def site() -> str:
    """A tag that the devices of one test have, and no others."""
    return f"site-{uuid.uuid4().hex}"


@pytest.fixture
def devices(registry: Any, site: str) -> Iterator[list[str]]:
    """The ids of five devices that have the tag `site`, and a number."""
    names = [f"{site}-{number}" for number in range(5)]
    for number, name in enumerate(names):
        registry.create_device_with_sas(name, "", "", "enabled")
        patch = Twin(
            tags={"site": site, "number": number},
            properties=TwinProperties(desired={"interval": 60 * number}),
        )
        registry.update_twin(name, patch)
    yield names
    for name in names:
        registry.delete_device(name)


def ask(registry: Any, text: str, *paging: Any) -> Any:
    return registry.query_iot_hub(QuerySpecification(query=text), *paging)


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


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pages(registry: Any, site: str, devices: list[str], size: int) -> None:
    text = f"SELECT * FROM devices WHERE tags.site = '{site}'"
    found: list[list[str]] = []
    token = None
    while token is not None or not found:
        result = ask(registry, text, token, size)
        found.append([twin.device_id for twin in result.items])
        token = result.continuation_token
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


def test_modules_are_asked_for_by_their_own_name(
    registry: Any, site: str, devices: list[str]
) -> None:
    registry.create_module_with_sas(devices[0], "camera", "", "", "")
    registry.update_module_twin(devices[0], "camera", Twin(tags={"site": site}))
    result = ask(registry, f"SELECT * FROM devices.modules WHERE tags.site = '{site}'")
    assert result.type == "Twin"
    assert [(twin.device_id, twin.module_id) for twin in result.items] == [(devices[0], "camera")]


def test_what_is_no_query_is_an_error_of_the_service(registry: Any) -> None:
    for text, paging in [
        ("SELECT * FORM devices", ()),
        ("SELECT * FROM devices", ("nonsense",)),
        ("SELECT * FROM devices", (None, 0)),
    ]:
        with pytest.raises(HttpOperationError) as caught:
            ask(registry, text, *paging)
        response = caught.value.response
        assert response.status_code == 400
        assert response.headers["iothub-errorcode"] == "ArgumentInvalid"


def test_which_devices_have_rebooted_and_when(
    emulator: Emulator, registry: Any, site: str, devices: list[str]
) -> None:
    """What the tutorial promises: the service asks for the devices, and when each last rebooted."""
    text = (
        "SELECT deviceId, properties.reported.rebootTime AS lastReboot FROM devices "
        f"WHERE is_defined(properties.reported.rebootTime) AND tags.site = '{site}'"
    )
    assert ask(registry, text).items == []
    moments = {}
    with ExitStack() as stack:
        for name in (devices[3], devices[1]):
            moments[name] = datetime.now(UTC).isoformat()
            client = IoTHubDeviceClient.create_from_connection_string(
                emulator.device_connection_string(name)
            )
            stack.callback(client.shutdown)
            client.connect()
            client.patch_twin_reported_properties({"rebootTime": moments[name]})
        # Connected, but not rebooted.
        other = IoTHubDeviceClient.create_from_connection_string(
            emulator.device_connection_string(devices[0])
        )
        stack.callback(other.shutdown)
        other.connect()
        other.patch_twin_reported_properties({"firmware": "1.0"})
    assert [row.device_id for row in ask(registry, text).items] == [devices[1], devices[3]]
    # azure-iot-hub makes twins of all rows, and loses what a twin has not: so once without it.
    service = Service(emulator)
    rows = service.request("POST", "/devices/query", json={"query": text}).json()
    service.close()
    assert rows == [
        {"deviceId": name, "lastReboot": moments[name]} for name in (devices[1], devices[3])
    ]
