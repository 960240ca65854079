"""Queries as services send them: those of the documentation, their headers, errors and rights."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import requests

from emulator import Emulator, Settings
from tests.devices import connect_device
from tests.http.support import check_error, put_device
from tests.messages import greet_module, put_module, wait_until
from tests.mqtt.raw import Wire, connack, publish, suback, subscribe
from tests.support import Service, free_loopback_address

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
CONNECTED = "/statistics/service"
MODULES = {"wired": "scanning", "wifi": "idle", "edge": "scanning"}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that knows the devices of this file alone, so that they can be counted."""
    settings = Settings(
        host=free_loopback_address(),
        https_port=0,
        mqtt_port=0,
        devices=(),
        cert_dir=tmp_path_factory.mktemp("certificates"),
    )
    with (
        Emulator(settings) as running,
        mock.patch.dict(os.environ, REQUESTS_CA_BUNDLE=str(running.ca_file)),
    ):
        yield running


@pytest.fixture(scope="module")
def service(emulator: Emulator) -> Iterator[Service]:
    """A service, after it and the devices have filled the twins; `wifi` stays connected."""
    client = Service(emulator)
    trust = ssl.create_default_context(cafile=str(emulator.ca_file))
    address = (emulator.host_name, emulator.mqtt_port)
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
            string = emulator.device_connection_string(device_id)
            with connect_device(string, address[1], trust, ANSWERS) as wire:
                report(wire, twin["reported"])
    for device_id, status in MODULES.items():
        module = put_module(client, device_id, "scanner")
        with Wire(address, trust) as wire:
            wire.send(greet_module(emulator, module))
            wire.expect(connack(0))
            wire.send(subscribe(1, ANSWERS))
            wire.expect(suback(1, 0))
            report(wire, {"status": status})
    wait_until(lambda: client.request("GET", CONNECTED).json() == {"connectedDeviceCount": 0})
    with connect_device(emulator.device_connection_string("wifi"), address[1], trust):
        yield client
    client.close()


def report(wire: Wire, properties: dict[str, Any]) -> None:
    body = json.dumps(properties).encode()
    wire.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=1", body))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")


def send(service: Service, text: str, **headers: str | None) -> requests.Response:
    """Send a query; a header's name is written with underscores."""
    return service.request(
        "POST",
        "/devices/query",
        json={"query": text},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def ask(service: Service, text: str) -> Any:
    response = send(service, text)
    assert response.status_code == 200, response.text
    return response.json()


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
        ("WHERE properties.reported.connectivity IN ['wired', 'wifi']", ["wired", "wifi"]),
        ("WHERE properties.reported.connectivity NIN ['wired', 'wifi']", ["edge"]),
        ("WHERE is_defined(properties.reported.c)", ["wifi"]),
        ("WHERE NOT is_defined(properties.reported.c)", ["wired", "edge", "off"]),
        ("WHERE properties.reported.telemetryConfig.status != 'ok'", ["wifi"]),
        ("WHERE capabilities.iotEdge = true", ["edge"]),
        ("WHERE connectionState = 'Connected'", ["wifi"]),
        ("WHERE status = 'enabled'", ["wired", "wifi", "edge"]),
        ("WHERE status = 'enabled' AND connectionState = 'Disconnected'", ["wired", "edge"]),
        ("WHERE configurations.[[cfg]].status = 'Applied'", []),
        ("WHERE deviceId IN ['wired', 'off', 'nobody']", ["wired", "off"]),
        ("where devices.tags.location.floor > 0", ["wired", "wifi"]),
        ("WHERE tags.[[group]] = 'g'", ["wifi"]),
        ("WHERE STARTSWITH(deviceId, 'wi') AND ENDSWITH(deviceId, 'd')", ["wired"]),
        ("WHERE properties.desired.$version = 2", ["wired", "wifi", "edge", "off"]),
        ("WHERE properties.desired.$metadata.interval.$lastUpdatedVersion = 2", ["wired"]),
        ("WHERE lastActivityTime > '2020'", ["wired", "wifi", "edge"]),
    ],
)
def test_whole_twins(service: Service, where: str, found: list[str]) -> None:
    response = send(service, f"SELECT * FROM devices {where}")
    assert response.status_code == 200, response.text
    assert response.headers["x-ms-item-type"] == "Twin"
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "x-ms-continuation" not in response.headers
    twins = [service.request("GET", f"/twins/{device_id}") for device_id in found]
    assert response.text == f"[{','.join(twin.text for twin in twins)}]"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("SELECT deviceId FROM devices", [{"deviceId": name} for name in TWINS]),
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
        (
            "SELECT tags.location FROM devices WHERE deviceId = 'wired'",
            [{"location": {"region": "US", "floor": 1}}],
        ),
        (
            "SELECT properties.desired.interval / 60 AS minutes FROM devices "
            "WHERE is_defined(properties.desired.interval)",
            [{"minutes": 1}],
        ),
        ("SELECT COUNT() AS totalNumberOfDevices FROM devices", [{"totalNumberOfDevices": 4}]),
        ("SELECT COUNT() AS n FROM devices WHERE tags.none = 1", [{"n": 0}]),
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
    response = send(service, text)
    assert response.status_code == 200, response.text
    assert response.headers["x-ms-item-type"] == "Raw"
    assert response.json() == rows
    assert [list(row) for row in response.json()] == [list(row) for row in rows]


def test_whole_twins_of_modules(service: Service) -> None:
    response = send(
        service,
        "SELECT * FROM devices.modules WHERE properties.reported.status = 'scanning' "
        "AND deviceId IN ['wired', 'wifi']",
    )
    assert response.headers["x-ms-item-type"] == "Twin"
    assert response.json() == [service.request("GET", "/twins/wired/modules/scanner").json()]


def test_what_jobs_did(service: Service) -> None:
    text = "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j'"
    response = send(service, text)
    assert response.headers["x-ms-item-type"] == "DeviceJob"
    assert response.json() == []
    job = {
        "jobId": "j",
        "type": "scheduleUpdateTwin",
        "updateTwin": {"tags": {"job": "j"}, "etag": "*"},
        "queryCondition": "deviceId IN ['off']",
    }
    assert service.request("PUT", "/jobs/v2/j", json=job).status_code == 200
    wait_until(lambda: ask(service, f"{text} AND devices.jobs.status = 'completed'"))
    (row,) = ask(service, text)
    assert (row["jobId"], row["deviceId"], row["status"]) == ("j", "off", "completed")
    assert ask(service, "SELECT * FROM devices.jobs WHERE createdTimeUtc > '2016-09-01'") == [row]
    assert ask(service, f"{text} AND devices.jobs.deviceId != 'off'") == []


def test_numbers_come_back_as_they_were_written(service: Service) -> None:
    body = '{"tags":{"n":[1.0,1e5,-0]}}'
    assert service.request("PATCH", "/twins/off", data=body).status_code == 200
    response = send(service, "SELECT tags.n FROM devices WHERE deviceId = 'off'")
    assert response.text == '[{"n":[1.0,1e5,-0]}]'
    assert service.request("PATCH", "/twins/off", json={"tags": {"n": None}}).status_code == 200


# --- pages


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100, 101, 10**30])
@pytest.mark.parametrize(
    "text", ["SELECT * FROM devices", "SELECT deviceId, COUNT() FROM devices GROUP BY deviceId"]
)
def test_pages(service: Service, text: str, size: int) -> None:
    found: list[list[str]] = []
    token: str | None = None
    while token is not None or not found:
        headers: dict[str, str | None] = {"x_ms_max_item_count": str(size)}
        response = send(service, text, x_ms_continuation=token, **headers)
        assert response.status_code == 200, response.text
        found.append([row["deviceId"] for row in response.json()])
        token = response.headers.get("x-ms-continuation")
    names = list(TWINS)
    assert found == [names[start : start + size] for start in range(0, len(names), size)]


def test_an_empty_token_asks_for_the_first_page(service: Service) -> None:
    response = send(service, "SELECT * FROM devices", x_ms_continuation="")
    assert len(response.json()) == 4


@pytest.mark.parametrize("size", ["0", "-1", "x", "1.5", ""])
def test_a_size_that_is_none_is_refused(service: Service, size: str) -> None:
    assert "x-ms-max-item-count" in refused(
        service, "SELECT * FROM devices", x_ms_max_item_count=size
    )


def test_a_wrong_token_is_refused(service: Service) -> None:
    text = "SELECT * FROM devices"
    first = send(service, text, x_ms_max_item_count="1")
    token = first.headers["x-ms-continuation"]
    for other, wrong in [(text, "nonsense"), (text, token[:-8]), (f"{text} WHERE true", token)]:
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
            "SELECT * FROM devices WHERE STARTS_WITH(deviceId, 'w')",
            "BadRequest: line 1, column 29: there is no function 'STARTS_WITH'",
        ),
        (
            "SELECT * FROM devices WHERE CONTAINS(deviceId, 'w')",
            "BadRequest: line 1, column 29: there is no function 'CONTAINS'",
        ),
        (
            "SELECT * FROM devices ORDER BY deviceId",
            "BadRequest: line 1, column 23: 'ORDER' is unexpected",
        ),
        ("SELECT tags.group FROM devices", "BadRequest: line 1, column 13: 'group' is unexpected"),
        (
            "SELECT jobId FROM devices.jobs",
            "BadRequest: line 1, column 8: from devices.jobs there is SELECT * only",
        ),
        ("SELECT tags.a, tags.b.a FROM devices", "BadRequest: two members have one name: 'a'"),
        (
            "SELECT * FROM devices" + " " * 8192,
            "BadRequest: the query has 8213 characters, more than the 8192 that are allowed",
        ),
        (
            "SELECT * FROM devices WHERE " + "(" * 3000 + "true" + ")" * 3000,
            "BadRequest: line 1, column 130: the query nests deeper than 100 levels",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_no_query(service: Service, text: str, message: str) -> None:
    assert refused(service, text) == message


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"", "DeserializationError"),
        (b"SELECT * FROM devices", "DeserializationError"),
        (b"[]", "DeserializationError"),
        (b'"SELECT * FROM devices"', "DeserializationError"),
        (b"null", "DeserializationError"),
        (b"{}", "ArgumentInvalid"),
        (b'{"query":null}', "ArgumentInvalid"),
        (b'{"query":1}', "ArgumentInvalid"),
        (b'{"query":["SELECT * FROM devices"]}', "ArgumentInvalid"),
        (b'{"Query":"SELECT * FROM devices"}', "ArgumentInvalid"),
    ],
)
def test_a_body_that_has_no_query(service: Service, body: bytes, name: str) -> None:
    check_error(service.request("POST", "/devices/query", data=body), 400, name)


@pytest.mark.parametrize("verb", ["PATCH"])
def test_a_query_is_a_post(service: Service, verb: str) -> None:
    response = service.request(verb, "/devices/query", json={"query": "SELECT * FROM devices"})
    check_error(response, 405, "GenericMethodNotAllowed")


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        ("iothubowner", 200),
        ("service", 200),
        ("device", 401),
        ("registryRead", 401),
        ("registryReadWrite", 401),
    ],
)
def test_a_query_needs_service_connect(emulator: Emulator, policy: str, status: int) -> None:
    client = Service(emulator, policy)
    response = send(client, "SELECT * FROM devices")
    client.close()
    assert response.status_code == status
    if status == 401:
        check_error(response, 401, "IotHubUnauthorizedAccess")


@pytest.mark.parametrize("params", [{}, {"api-version": "now"}])
def test_a_query_needs_an_api_version(service: Service, params: dict[str, str]) -> None:
    body = {"query": "SELECT * FROM devices"}
    response = service.request("POST", "/devices/query", json=body, params=params)
    check_error(response, 400, "InvalidProtocolVersion")


def test_the_path_is_written_in_any_case_and_with_a_slash(service: Service) -> None:
    for path in ("/Devices/Query", "/devices/query/"):
        response = service.request("POST", path, json={"query": "SELECT * FROM devices"})
        assert len(response.json()) == 4
