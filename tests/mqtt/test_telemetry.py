"""Telemetry over MQTT: what of a message the event log holds, and what the hub adds to it."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest

from emulator import Emulator
from tests.messages import read_events
from tests.mqtt.raw import Dial, Online, Wire, connack, connect, puback, publish
from tests.support import API_VERSION, Device, Service, sas_token

_LIMIT = 262_144  # IoT Hub docs: quotas and throttling, 256 KB
_MODEL = "dtmi:com:example:Thermostat;1"


def _topic(device: Device, bag: str = "") -> str:
    return f"devices/{device.id}/messages/events/{bag}"


def _send(wire: Wire, device: Device, bag: str = "", body: bytes = b"21.5", **flags: Any) -> None:
    """Send with QoS 1: it is in the log when this ends."""
    wire.send(publish(_topic(device, bag), body, packet_id=1, **flags))
    wire.expect(puback(1))


# --- what the hub adds


def _moment(text: str) -> datetime:
    """Read a time as the hub writes it; Python 3.10 wants a fraction of three or six digits."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction:0<6}+00:00")


def test_the_hub_stamps_a_message(online: Online, service: Service, device: Device) -> None:
    wire = online(device)
    before = time.time_ns() // 1_000_000
    _send(wire, device)
    after = time.time_ns() // 1_000_000
    (event,) = read_events(service, device.id)
    assert (event["deviceId"], event["moduleId"]) == (device.id, None)
    stamps = event["annotations"]
    auth_method = json.loads(stamps.pop("iothub-connection-auth-method"))
    assert list(auth_method.items()) == [
        ("scope", "device"),
        ("type", "sas"),
        ("issuer", "iothub"),
        ("acceptingIpFilterRule", None),
    ]
    enqueued = stamps.pop("iothub-enqueuedtime")
    assert before <= enqueued <= after
    written = _moment(event["enqueuedTime"])
    assert int(written.timestamp() * 1000) == enqueued
    assert stamps == {
        "iothub-connection-device-id": device.id,
        "iothub-connection-auth-generation-id": service.request(
            "GET", f"/devices/{device.id}"
        ).json()["generationId"],
        "iothub-message-source": "Telemetry",
    }


def test_a_policy_that_connects_a_device_shows_in_the_scope(
    dial: Dial, emulator: Emulator, service: Service, device: Device
) -> None:
    host, (key, _) = emulator.host_name, emulator.settings.key_pair("device")
    wire = dial()
    user_name = f"{host}/{device.id}/?api-version={API_VERSION}"
    wire.send(connect(device.id, user_name, sas_token(host, key, policy="device")))
    wire.expect(connack(0))
    _send(wire, device)
    (event,) = read_events(service, device.id)
    method = json.loads(event["annotations"]["iothub-connection-auth-method"])
    assert (method["scope"], method["type"], method["issuer"]) == ("hub", "sas", "iothub")


def test_events_are_numbered_without_a_gap_over_all_devices(
    online: Online, service: Service, device: Device, other_device: Device
) -> None:
    wires = [(online(each), each) for each in (device, other_device)]
    for number in range(6):
        _send(*wires[number % 2], body=str(number).encode())
    one, other = (read_events(service, each.id) for each in (device, other_device))
    assert [event["body"] for event in one] == ["0", "2", "4"]
    assert [event["body"] for event in other] == ["1", "3", "5"]
    ours = sorted(one + other, key=lambda event: event["sequenceNumber"])
    assert [event["body"] for event in ours] == list("012345")
    first, last = ours[0]["sequenceNumber"], ours[-1]["sequenceNumber"]
    since = service.request("GET", "/_emulator/events", params={"from": str(first)}).json()
    numbers = [event["sequenceNumber"] for event in since]
    assert numbers == list(range(first, first + len(numbers)))
    assert last in numbers
    times = [event["enqueuedTime"] for event in ours]
    assert len(set(times)) > 1


def test_messages_of_both_qualities_are_logged_in_the_order_in_which_they_came(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device)
    wire.send(
        *(
            publish(_topic(device), str(number).encode(), packet_id=number if number % 3 else None)
            for number in range(30)
        )
    )
    wire.expect(*(puback(number) for number in range(30) if number % 3))
    assert [event["body"] for event in read_events(service, device.id)] == [
        str(number) for number in range(30)
    ]


def test_sending_moves_the_last_activity(online: Online, service: Service, device: Device) -> None:
    wire = online(device)
    connected = service.request("GET", f"/devices/{device.id}").json()
    _send(wire, device)
    sent = service.request("GET", f"/devices/{device.id}").json()
    assert sent["lastActivityTime"] > connected["lastActivityTime"]
    assert sent["connectionStateUpdatedTime"] == connected["connectionStateUpdatedTime"]


# --- properties

_SYSTEM = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.to": "to",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.on": "iothub-outputname",
    "$.ctime": "iothub-creation-time-utc",
    "$.sub": "dt-subject",
}


@pytest.mark.parametrize(
    ("bag", "properties"),
    [
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("b=2&a=1&b=3", {"a": "1", "b": "3"}),
        ("empty=&null", {"empty": "", "null": None}),
        ("%C3%BC%20%E2%82%AC=%F0%9F%9A%80", {"ü €": "🚀"}),
        ("ü=ß", {"ü": "ß"}),
        ("a=b=c", {"a": "b=c"}),
        ("a%26b%3Dc=%2F%23%2B%25", {"a&b=c": "/#+%"}),
        ("a=1&&b=2&", {"a": "1", "b": "2"}),
        ("Case=1&case=2", {"Case": "1", "case": "2"}),
        ("bad=%zz%4", {"bad": "%zz%4"}),
        ("not-utf-8=%FF", {"not-utf-8": "\ufffd"}),
        ("$.unknown=1&mid=2", {"$.unknown": "1", "mid": "2"}),
        ("iothub-connection-device-id=other", {"iothub-connection-device-id": "other"}),
    ],
)
def test_the_log_holds_the_properties_of_the_bag(
    online: Online, service: Service, device: Device, bag: str, properties: dict[str, str | None]
) -> None:
    _send(online(device), device, bag)
    (event,) = read_events(service, device.id)
    assert event["properties"] == properties
    assert event["systemProperties"] == {}
    assert event["annotations"]["iothub-connection-device-id"] == device.id


@pytest.mark.parametrize("dollar", ["$", "%24"])
def test_system_properties_have_short_names(
    online: Online, service: Service, device: Device, dollar: str
) -> None:
    bag = "&".join(
        f"{short.replace('$', dollar)}={quote(name)}%20%C3%A4" for short, name in _SYSTEM.items()
    )
    _send(online(device), device, f"{bag}&a=1")
    (event,) = read_events(service, device.id)
    assert event["systemProperties"] == {name: f"{name} ä" for name in _SYSTEM.values()}
    assert event["properties"] == {"a": "1"}


def test_a_device_cannot_pass_for_another(online: Online, service: Service, device: Device) -> None:
    _send(online(device), device, "$.cdid=other&%24.cmid=camera&a=1")
    (event,) = read_events(service, device.id)
    assert (event["properties"], event["systemProperties"]) == ({"a": "1"}, {})
    assert event["annotations"]["iothub-connection-device-id"] == device.id
    assert "iothub-connection-module-id" not in event["annotations"]


@pytest.mark.parametrize(
    ("flags", "properties"),
    [
        ({"retain": True}, {"a": "1", "mqtt-retain": "true"}),
        ({"dup": True}, {"a": "1", "mqtt-dup": "true"}),
        ({"retain": True, "dup": True}, {"a": "1", "mqtt-retain": "true", "mqtt-dup": "true"}),
        ({}, {"a": "1"}),
    ],
)
def test_the_flags_of_a_message_become_properties(
    online: Online,
    service: Service,
    device: Device,
    flags: dict[str, bool],
    properties: dict[str, str],
) -> None:
    _send(online(device), device, "a=1", **flags)
    assert read_events(service, device.id)[0]["properties"] == properties


# --- bodies


@pytest.mark.parametrize(
    ("bag", "body", "logged"),
    [
        ("$.ct=application%2Fjson", b'{"t": [21.5, null]}', {"body": {"t": [21.5, None]}}),
        ("$.ct=application%2Fjson", b'{"t": ', {"body": '{"t": '}),
        ("$.ct=application%2Fjson", b'"\\ud800"', {"body": '"\\ud800"'}),
        ("$.ct=application%2Fjson", b"\xff", {"bodyBase64": "/w=="}),
        ("", b'{"t": 21.5}', {"body": '{"t": 21.5}'}),
        ("$.ct=text%2Fplain", "ä\0".encode(), {"body": "ä\0"}),
        ("", b"\x00\xff", {"bodyBase64": "AP8="}),
        ("", b"", {"body": ""}),
    ],
)
def test_a_body_is_logged_as_json_if_it_says_so_else_as_text_else_as_base64(
    online: Online,
    service: Service,
    device: Device,
    bag: str,
    body: bytes,
    logged: dict[str, object],
) -> None:
    _send(online(device), device, bag, body)
    (event,) = read_events(service, device.id)
    assert {name: event[name] for name in event if name.startswith("body")} == logged


def test_numbers_are_logged_as_they_were_written(
    online: Online, service: Service, device: Device
) -> None:
    _send(online(device), device, "$.ct=application%2Fjson", b"[21.50,1e5]")
    answer = service.request("GET", "/_emulator/events", params={"device": device.id})
    assert '"body":[21.50,1e5]' in answer.text


# --- the size limit


@pytest.mark.parametrize(
    ("bag", "counted"),
    [
        ("", 0),
        ("name=value", 9),
        ("%C3%BC=%E2%82%AC", 5),
        ("flag", 4),
        ("$.mid=0123456789", 10),  # of a system property its value alone
    ],
)
def test_a_message_may_have_256_kb_with_its_properties_and_no_more(
    online: Online, service: Service, device: Device, bag: str, counted: int
) -> None:
    wire = online(device)
    _send(wire, device, bag, bytes(_LIMIT - counted))
    assert len(read_events(service, device.id)[0]["body"]) == _LIMIT - counted
    wire.send_what_goes(publish(_topic(device, bag), bytes(_LIMIT - counted + 1), packet_id=2))
    wire.expect_closed()
    assert len(read_events(service, device.id)) == 1


def test_what_the_hub_makes_of_the_flags_does_not_count(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device)
    _send(wire, device, body=bytes(_LIMIT), retain=True, dup=True)
    assert len(read_events(service, device.id)[0]["body"]) == _LIMIT


# --- the model id


def _connect_with_model(
    dial: Dial, emulator: Emulator, device: Device, model_id: str | None
) -> Wire:
    host = emulator.host_name
    tail = "" if model_id is None else f"&model-id={quote(model_id, safe='')}"
    wire = dial()
    wire.send(
        connect(
            device.id,
            f"{host}/{device.id}/?api-version={API_VERSION}{tail}",
            sas_token(f"{host}/devices/{device.id}", device.key),
        )
    )
    wire.expect(connack(0))
    return wire


def _model_of(service: Service, device: Device) -> str:
    model: str = service.request("GET", f"/twins/{device.id}").json()["modelId"]
    return model


def test_the_model_that_a_device_names_shows_in_its_twin_and_on_its_messages(
    dial: Dial, emulator: Emulator, service: Service, device: Device
) -> None:
    assert _model_of(service, device) == ""
    wire = _connect_with_model(dial, emulator, device, _MODEL)
    assert _model_of(service, device) == _MODEL
    _send(wire, device, "$.sub=thermostat1")
    (event,) = read_events(service, device.id)
    assert event["annotations"]["dt-dataschema"] == _MODEL
    assert event["annotations"]["dt-subject"] == "thermostat1"


def test_the_last_model_that_a_device_named_is_its_model(
    dial: Dial, emulator: Emulator, service: Service, device: Device
) -> None:
    with _connect_with_model(dial, emulator, device, _MODEL):
        etag = service.request("GET", f"/devices/{device.id}").json()["etag"]
    with _connect_with_model(dial, emulator, device, "dtmi:com:example:Thermostat;2"):
        assert _model_of(service, device) == "dtmi:com:example:Thermostat;2"
    with _connect_with_model(dial, emulator, device, None) as wire:
        assert _model_of(service, device) == "dtmi:com:example:Thermostat;2"
        _send(wire, device)
        assert "dt-dataschema" not in read_events(service, device.id)[0]["annotations"]
    service.request("PATCH", f"/twins/{device.id}", json={"tags": {"a": 1}})
    assert _model_of(service, device) == "dtmi:com:example:Thermostat;2"
    assert service.request("GET", f"/devices/{device.id}").json()["etag"] == etag
