"""Queries over REST: those of the documentation, their headers, pages and errors."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.devices import connect_device
from tests.http.support import check_error, put_device, read, trust
from tests.messages import greet_module, put_module
from tests.mqtt.raw import Wire, connack, publish, suback, subscribe
from tests.support import Service, second_hub, wait_until

ANSWERS = "$iothub/twin/res/#"

# What each device and module has: tags, desired and reported properties.
TWINS: dict[str, dict[str, Any]] = {
    "wired": {
        "tags": {"location": {"region": "US", "floor": 1}},
        "desired": {"interval": 60},
        "reported": {
            "connectivity": "wired",
            "telemetryConfig": {"sendFrequencyInSecs": 60, "status": "ok"},
        },
    },
    "wifi": {
        "tags": {"location": {"region": "US", "floor": 2}, "group": "g"},
        "reported": {
            "connectivity": "wifi",
            "telemetryConfig": {"sendFrequencyInSecs": 30, "status": "failed"},
            "c": 1,
        },
    },
    "edge": {"tags": {"location": {"region": "EU"}}, "reported": {"connectivity": "cellular"}},
    "off": {"tags": {}, "status": "disabled"},
}
MODULES = {"wired": "scanning", "wifi": "idle", "edge": "scanning"}


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A hub with the devices of this file alone, so that a test can count them."""
    with second_hub(emulator) as running:
        yield running


@pytest.fixture(scope="module")
def service(hub: Emulator) -> Iterator[Service]:
    """A service, after it and the devices have filled the twins; `wifi` stays connected."""
    client = Service(hub)
    address = (hub.host_name, hub.mqtt_port)
    for device_id, twin in TWINS.items():
        put_device(
            client,
            device_id,
            status=twin.get("status", "enabled"),
            capabilities={"iotEdge": device_id == "edge"},
        )
        patch = {"tags": twin["tags"], "properties": {"desired": twin.get("desired", {})}}
        assert client.request("PATCH", f"/twins/{device_id}", json=patch).status_code == 200
        if "reported" in twin:
            string = hub.device_connection_string(device_id)
            with connect_device(string, address[1], trust(hub), ANSWERS) as wire:
                report(wire, twin["reported"])
    for device_id, status in MODULES.items():
        module = put_module(client, device_id, "scanner")
        with Wire(address, trust(hub)) as wire:
            wire.send(greet_module(hub, module), subscribe(1, ANSWERS))
            wire.expect(connack(0), suback(1, 0))
            report(wire, {"status": status})
    wait_until(lambda: read(client, "/statistics/service") == {"connectedDeviceCount": 0})
    with connect_device(hub.device_connection_string("wifi"), address[1], trust(hub)):
        yield client
    client.close()


def report(wire: Wire, properties: dict[str, Any]) -> None:
    body = json.dumps(properties).encode()
    wire.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=1", body))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")


def send(service: Service, text: str, **headers: str | None) -> requests.Response:
    """Send a query; underscores in a header's name stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.request("POST", "/devices/query", json={"query": text}, headers=named)


def ask(service: Service, text: str, kind: str) -> requests.Response:
    """Send a query which the hub answers in one page; `kind` is that of its items."""
    response = send(service, text)
    assert response.status_code == 200, response.text
    assert response.headers["x-ms-item-type"] == kind
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "x-ms-continuation" not in response.headers
    return response


def refused(service: Service, text: str, **headers: str | None) -> str:
    return check_error(send(service, text, **headers), 400, "ArgumentInvalid")


# --- the queries of the documentation, and of the SDKs' own samples


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("", ["wired", "wifi", "edge", "off"]),
        ("WHERE tags.location.region = 'US'", ["wired", "wifi"]),
        (
            "WHERE tags.location.region = 'US' "
            "AND properties.reported.telemetryConfig.sendFrequencyInSecs >= 60",
            ["wired"],
        ),
        ("WHERE properties.reported.connectivity NIN ['wired', 'wifi']", ["edge"]),
        ("WHERE is_defined(properties.reported.c)", ["wifi"]),
        ("WHERE capabilities.iotEdge = true", ["edge"]),
        ("WHERE connectionState = 'Connected'", ["wifi"]),
        ("WHERE status = 'enabled' AND connectionState = 'Disconnected'", ["wired", "edge"]),
        ("WHERE configurations.[[cfg]].status = 'Applied'", []),
        ("WHERE tags.[[group]] = 'g'", ["wifi"]),
        ("WHERE properties.desired.$version = 2", ["wired", "wifi", "edge", "off"]),
        ("WHERE properties.desired.$metadata.interval.$lastUpdatedVersion = 2", ["wired"]),
        ("WHERE lastActivityTime > '2020'", ["wired", "wifi", "edge"]),
    ],
)
def test_whole_twins(service: Service, where: str, found: list[str]) -> None:
    response = ask(service, f"SELECT * FROM devices {where}", "Twin")
    twins = [service.request("GET", f"/twins/{device_id}") for device_id in found]
    assert response.text == f"[{','.join(twin.text for twin in twins)}]"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (
            "SELECT DeviceId, ConnectionState FROM devices "
            "WHERE status = 'enabled' AND connectionState = 'Connected'",
            [{"deviceId": "wifi", "connectionState": "Connected"}],
        ),
        (
            "SELECT deviceId, tags.location.floor AS floor FROM devices "
            "WHERE is_defined(tags.location)",
            [
                {"deviceId": "wired", "floor": 1},
                {"deviceId": "wifi", "floor": 2},
                {"deviceId": "edge"},
            ],
        ),
        ("SELECT TOP 2 deviceId FROM devices", [{"deviceId": "wired"}, {"deviceId": "wifi"}]),
        ("SELECT COUNT() AS totalNumberOfDevices FROM devices", [{"totalNumberOfDevices": 4}]),
        (
            "SELECT properties.reported.telemetryConfig.status AS status, "
            "COUNT() AS numberOfDevices FROM devices "
            "GROUP BY properties.reported.telemetryConfig.status",
            [
                {"status": "ok", "numberOfDevices": 1},
                {"status": "failed", "numberOfDevices": 1},
                {"numberOfDevices": 2},
            ],
        ),
        (
            "SELECT AVG(properties.reported.telemetryConfig.sendFrequencyInSecs) AS mean, "
            "MIN(tags.location.floor) AS least, MAX(tags.location.floor) AS most, "
            "SUM(tags.location.floor) AS sum FROM devices",
            [{"mean": 45, "least": 1, "most": 2, "sum": 3}],
        ),
        (
            "SELECT deviceId, moduleId FROM devices.modules WHERE moduleId = 'scanner' "
            "AND properties.reported.status = 'scanning' AND deviceId IN ['wired', 'wifi']",
            [{"deviceId": "wired", "moduleId": "scanner"}],
        ),
    ],
)
def test_projections_and_aggregates(service: Service, text: str, rows: list[Any]) -> None:
    found = ask(service, text, "Raw").json()
    assert found == rows
    assert [list(row) for row in found] == [list(row) for row in rows]


def test_whole_twins_of_modules(service: Service) -> None:
    text = (
        "SELECT * FROM devices.modules WHERE properties.reported.status = 'scanning' "
        "AND deviceId IN ['wired', 'wifi']"
    )
    assert ask(service, text, "Twin").json() == [read(service, "/twins/wired/modules/scanner")]


def test_the_results_of_jobs(service: Service) -> None:
    def jobs(condition: str) -> Any:
        return ask(service, f"SELECT * FROM devices.jobs WHERE {condition}", "DeviceJob").json()

    condition = "devices.jobs.jobId = 'j'"
    assert jobs(condition) == []
    job = {
        "jobId": "j",
        "type": "scheduleUpdateTwin",
        "updateTwin": {"tags": {"job": "j"}, "etag": "*"},
        "queryCondition": "deviceId IN ['off']",
    }
    assert service.request("PUT", "/jobs/v2/j", json=job).status_code == 200
    wait_until(lambda: jobs(f"{condition} AND devices.jobs.status = 'completed'"))
    (row,) = jobs(condition)
    assert (row["jobId"], row["deviceId"], row["status"]) == ("j", "off", "completed")
    assert jobs("createdTimeUtc > '2016-09-01'") == [row]
    assert jobs(f"{condition} AND devices.jobs.deviceId != 'off'") == []


def test_numbers_are_returned_as_they_were_written(service: Service) -> None:
    body = '{"tags":{"n":[1.0,1e5,-0]}}'
    assert service.request("PATCH", "/twins/off", data=body).status_code == 200
    response = ask(service, "SELECT tags.n FROM devices WHERE deviceId = 'off'", "Raw")
    assert response.text == '[{"n":[1.0,1e5,-0]}]'
    assert service.request("PATCH", "/twins/off", json={"tags": {"n": None}}).status_code == 200


# --- pages


@pytest.mark.parametrize("size", [1, 3, 4, 101, 10**30])
@pytest.mark.parametrize(
    "text", ["SELECT * FROM devices", "SELECT deviceId, COUNT() FROM devices GROUP BY deviceId"]
)
def test_pages(service: Service, text: str, size: int) -> None:
    found: list[list[str]] = []
    token: str | None = ""  # an empty token is that of the first page
    while token is not None:
        headers: dict[str, str | None] = {"x_ms_max_item_count": str(size)}
        response = send(service, text, x_ms_continuation=token, **headers)
        assert response.status_code == 200, response.text
        found.append([row["deviceId"] for row in response.json()])
        assert len(found) <= len(TWINS)
        token = response.headers.get("x-ms-continuation")
    names = list(TWINS)
    assert found == [names[start : start + size] for start in range(0, len(names), size)]


@pytest.mark.parametrize("size", ["1", "0000000001", "0" * 40 + "1"])
def test_a_size_can_have_leading_zeros(service: Service, size: str) -> None:
    response = send(service, "SELECT * FROM devices", x_ms_max_item_count=size)
    assert len(response.json()) == 1


@pytest.mark.parametrize("size", ["0", "-1", "x", "", "0" * 40])
def test_a_page_has_one_row_at_least(service: Service, size: str) -> None:
    text = refused(service, "SELECT * FROM devices", x_ms_max_item_count=size)
    assert "x-ms-max-item-count" in text


def test_a_wrong_token_is_refused(service: Service) -> None:
    text = "SELECT * FROM devices"
    first = send(service, text, x_ms_max_item_count="1")
    token = first.headers["x-ms-continuation"]
    for other, wrong in [(text, "nonsense"), (f"{text} WHERE true", token)]:
        assert "continuation" in refused(service, other, x_ms_continuation=wrong)


# --- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "BadRequest: line 1, column 1: the query ends too early"),
        ("SELECT * FORM devices", "BadRequest: line 1, column 10: 'FORM' is unexpected"),
        ("SELECT *\nFROM devices\nWHERE", "BadRequest: line 3, column 6: the query ends too early"),
        ("SELECT * FROM devices;", "BadRequest: line 1, column 22: a semicolon is unexpected"),
        (
            "SELECT * FROM devices WHERE " + "(" * 3000 + "true" + ")" * 3000,
            "BadRequest: line 1, column 130: the query nests deeper than 100 levels",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_an_invalid_query_is_refused(service: Service, text: str, message: str) -> None:
    assert refused(service, text) == message


@pytest.mark.parametrize(("length", "status"), [(8192, 200), (8193, 412), (100_000, 412)])
def test_the_text_of_a_query_has_a_limit(service: Service, length: int, status: int) -> None:
    body = {"query": "SELECT TOP 1 deviceId FROM devices".ljust(length)}
    answer = service.request("POST", "/devices/query", json=body)
    assert answer.status_code == status
    if status != 200:
        check_error(answer, 412, "PreconditionFailed")
    members = {"type": "scheduleUpdateTwin", "updateTwin": {"etag": "*"}}
    job = {**members, "queryCondition": "deviceId = 'none'".ljust(length), "jobId": f"l{length}"}
    assert service.request("PUT", f"/jobs/v2/l{length}", json=job).status_code == status


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"[]", "DeserializationError"),
        (b"{}", "ArgumentInvalid"),
        (b'{"query":["SELECT * FROM devices"]}', "ArgumentInvalid"),
        (b'{"queries":"SELECT * FROM devices"}', "ArgumentInvalid"),
    ],
)
def test_a_body_must_have_a_query(service: Service, body: bytes, name: str) -> None:
    check_error(service.request("POST", "/devices/query", data=body), 400, name)
