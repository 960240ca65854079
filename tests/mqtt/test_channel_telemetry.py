"""Telemetry and wills: what of a message the event log holds, and what the hub adds to it."""

from __future__ import annotations

import json
import tracemalloc
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from emulator.hub.messages.telemetry import Sender
from tests.mqtt.playbook import HOST, POLICY_KEY, Client, Lab
from tests.mqtt.raw import DISCONNECT, connack, connect, puback, publish

_LIMIT = 262_144  # IoT Hub docs: quotas and throttling, 256 KB
_MODEL = "dtmi:com:example:Thermostat;1"
_EVENTS = "devices/d1/messages/events/"


def _send(client: Client, bag: str = "", body: bytes = b"21.5", **flags: Any) -> None:
    client.send(publish(_EVENTS + bag, body, packet_id=1, **flags))
    client.expect(puback(1))


# --- what the hub adds


def test_the_hub_stamps_a_message(lab: Lab) -> None:
    client = lab.connect()
    lab.clock.advance(1.5)
    _send(client)
    (event,) = lab.events()
    assert (event["deviceId"], event["moduleId"]) == ("d1", None)
    assert event["enqueuedTime"] == "2026-01-31T14:46:10.5Z"
    stamps = event["annotations"]
    auth_method = json.loads(stamps.pop("iothub-connection-auth-method"))
    assert list(auth_method.items()) == [
        ("scope", "device"),
        ("type", "sas"),
        ("issuer", "iothub"),
        ("acceptingIpFilterRule", None),
    ]
    assert stamps == {
        "iothub-connection-device-id": "d1",
        "iothub-connection-auth-generation-id": lab.identity()["generationId"],
        "iothub-enqueuedtime": 1769870770500,
        "iothub-message-source": "Telemetry",
    }


def test_a_policy_that_connects_a_device_shows_in_the_scope(lab: Lab) -> None:
    token = lab.token(HOST, POLICY_KEY, policy="device")
    client = lab.dial(connect("d1", f"{HOST}/d1/?api-version=2021-04-12", token))
    client.expect(connack(0))
    _send(client)
    method = json.loads(lab.events()[0]["annotations"]["iothub-connection-auth-method"])
    assert (method["scope"], method["type"], method["issuer"]) == ("hub", "sas", "iothub")


def test_events_are_numbered_over_all_devices_in_the_order_of_arrival(lab: Lab) -> None:
    clients = [lab.connect("d1"), lab.connect("d2")]
    for number in range(6):
        topic = f"devices/d{number % 2 + 1}/messages/events/"
        # Both qualities of service, in one piece
        clients[number % 2].send(publish(topic, b"%d" % number), publish(topic, b"q", packet_id=1))
        clients[number % 2].expect(puback(1))
    assert lab.bodies("d1") == ["0", "q", "2", "q", "4", "q"]
    assert lab.bodies("d2") == ["1", "q", "3", "q", "5", "q"]
    events = sorted(lab.events("d1") + lab.events("d2"), key=lambda each: each["sequenceNumber"])
    assert [each["sequenceNumber"] for each in events] == list(range(12))
    assert [each["body"] for each in events] == list("0q1q2q3q4q5q")


def test_telemetry_of_one_read_reaches_the_hub_in_one_batch(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    ingest = Sender.ingest_soon

    def count(sender: Sender, messages: Any, done: Any) -> None:
        batches.append(len(messages))
        ingest(sender, messages, done)

    monkeypatch.setattr(Sender, "ingest_soon", count)
    client = lab.connect()
    client.send(publish(_EVENTS, b"x") * 100)
    client.send(publish(_EVENTS, b"x") * 2, b"\xc0\x00", publish(f"{_EVENTS}a=1", b"x"))
    assert batches == [100, 3]


def test_sending_moves_the_last_activity_and_nothing_else(lab: Lab) -> None:
    client = lab.connect()
    connected = lab.identity()
    for packet in (
        publish(_EVENTS),
        publish("$iothub/twin/GET/?$rid=1"),
        publish("$iothub/methods/res/200/?$rid=1"),
    ):
        before = lab.identity()
        lab.clock.advance(1)
        client.send(packet)
        sent = lab.identity()
        assert sent["lastActivityTime"] > before["lastActivityTime"]
        assert sent["connectionStateUpdatedTime"] == connected["connectionStateUpdatedTime"]


def test_the_last_activity_of_a_busy_device_is_correct_to_a_second(lab: Lab) -> None:
    client = lab.connect()
    for _ in range(10):
        lab.clock.advance(0.3)
        client.send(publish(_EVENTS))
        last = datetime.fromisoformat(lab.identity()["lastActivityTime"])
        assert lab.clock.now() - last < timedelta(seconds=1)


# --- properties


@pytest.mark.parametrize(
    ("bag", "properties"),
    [
        ("b=2&a=1&b=3", {"a": "1", "b": "3"}),
        ("empty=&null", {"empty": "", "null": ""}),
        ("%C3%BC%20%E2%82%AC=%F0%9F%9A%80", {"ü €": "🚀"}),
        ("iothub-connection-device-id=other", {"iothub-connection-device-id": "other"}),
        # A device can't pass for another.
        ("$.cdid=other&%24.cmid=camera&a=1", {"a": "1"}),
        ("a=" + "x" * 1000, {"a": "x" * 1000}),  # a topic that is not remembered
    ],
)
def test_the_log_holds_the_properties_of_the_bag(
    lab: Lab, bag: str, properties: dict[str, str | None]
) -> None:
    client = lab.connect()
    _send(client, bag)
    _send(client, bag)  # a topic that was seen before
    for event in lab.events():
        assert event["properties"] == properties
        assert event["systemProperties"] == {}
        assert event["annotations"]["iothub-connection-device-id"] == "d1"
        assert "iothub-connection-module-id" not in event["annotations"]


@pytest.mark.parametrize("bag", ["k==", "k=a=b", "==v", "=", "&", "a=1&", "&a=1", "a&&b", "a=1&/"])
def test_a_malformed_bag_ends_the_connection_and_nothing_is_stored(lab: Lab, bag: str) -> None:
    lab.connect().play(f"""
        >> PUBLISH 1 {_EVENTS}a=1 before
        << PUBACK 1
        >> PUBLISH 2 {_EVENTS}{bag} x
        << CLOSED
    """)
    assert lab.bodies() == ["before"]


def test_system_properties_have_short_names(lab: Lab) -> None:
    _send(lab.connect(), "$.mid=1&%24.ct=a%20b&a=1")
    (event,) = lab.events()
    assert event["systemProperties"] == {"message-id": "1", "content-type": "a b"}
    assert event["properties"] == {"a": "1"}


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
    lab: Lab, flags: dict[str, bool], properties: dict[str, str]
) -> None:
    client = lab.connect()
    _send(client, "a=1", **flags)
    _send(client, "a=1")
    assert [each["properties"] for each in lab.events()] == [properties, {"a": "1"}]


# --- the size limit


@pytest.mark.parametrize(
    ("bag", "counted"),
    [
        ("", 0),
        ("name=value", 9),
        ("%C3%BC=%E2%82%AC", 5),
        ("flag", 4),
        ("$.mid=0123456789", 10),  # of a system property only its value
    ],
)
def test_a_message_may_have_256_kb_with_its_properties_and_no_more(
    lab: Lab, bag: str, counted: int
) -> None:
    client = lab.connect()
    _send(client, bag, bytes(_LIMIT - counted))
    _send(client, bag, bytes(_LIMIT - counted), retain=True, dup=True)  # flags do not count
    client.send(publish(_EVENTS + bag, bytes(_LIMIT - counted + 1), packet_id=2))
    client.expect_closed()
    assert [len(body) for body in lab.bodies()] == [_LIMIT - counted] * 2


# --- the model id


def test_the_model_that_a_device_names_shows_in_its_twin_and_on_its_messages(lab: Lab) -> None:
    assert lab.twin()["modelId"] == ""
    client = lab.connect(tail=f"/?api-version=2021-04-12&model-id={quote(_MODEL)}")
    assert lab.twin()["modelId"] == _MODEL
    _send(client, "$.sub=thermostat1")
    annotations = lab.events()[0]["annotations"]
    assert (annotations["dt-dataschema"], annotations["dt-subject"]) == (_MODEL, "thermostat1")


def test_the_last_model_that_a_device_named_is_its_model(lab: Lab) -> None:
    etag = lab.identity()["etag"]
    for model in (_MODEL, "dtmi:com:example:Thermostat;2"):
        lab.connect(tail=f"/?api-version=2021-04-12&model-id={quote(model)}")
        assert lab.twin()["modelId"] == model
    _send(lab.connect())
    assert lab.twin()["modelId"] == "dtmi:com:example:Thermostat;2"
    assert "dt-dataschema" not in lab.events()[0]["annotations"]
    assert lab.identity()["etag"] == etag


# --- wills

_USUAL_FLAGS = 0xC0 | 0x02 | 0x04  # user name, password, clean session, will


def test_a_will_is_a_message_like_any_other(lab: Lab) -> None:
    bag = "a=1&null&%24.mid=m1&$.ct=application%2Fjson"
    client = lab.connect(will=(_EVENTS + bag, b"[1]"))
    _send(client, body=b"alive")
    client.lose()
    alive, will = lab.events()
    assert will["body"] == [1]
    assert will["properties"] == {"a": "1", "null": "", "iothub-MessageType": "Will"}
    assert will["systemProperties"] == {"message-id": "m1", "content-type": "application/json"}
    assert will["annotations"] == alive["annotations"]


def test_a_will_of_many_properties_takes_no_memory_before_it_is_sent(lab: Lab) -> None:
    names = "&".join(f"{n:x}" for n in range(4_000))
    tracemalloc.start()
    try:
        client = lab.connect(will=(_EVENTS + names, b"gone"))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The packet has 20 KB; the message takes 900 KB.
    assert taken < 200_000
    client.lose()
    (will,) = lab.events()
    assert len(will["properties"]) == 4_001


@pytest.mark.parametrize(
    ("flags", "retained"), [(0, False), (0x08, False), (0x20, True), (0x28, True)]
)
def test_the_flags_of_a_will(lab: Lab, flags: int, retained: bool) -> None:
    topic = _EVENTS.removesuffix("/")  # it may lack its slash
    lab.connect(will=(topic, b"gone"), flags=_USUAL_FLAGS | flags).lose()
    properties = {"iothub-MessageType": "Will", **({"mqtt-retain": "true"} if retained else {})}
    assert lab.events()[0]["properties"] == properties


def _expire(client: Client, _: Lab) -> None:
    client.channel.expire()


def _break_a_rule(client: Client, _: Lab) -> None:
    client.send(b"\xf0\x00")


def _take_over(_: Client, lab: Lab) -> None:
    lab.connect()


def _disable(_: Client, lab: Lab) -> None:
    lab.register("d1", status="disabled")


def _delete(_: Client, lab: Lab) -> None:
    lab.delete("d1")


def _token_expires(_: Client, lab: Lab) -> None:
    lab.clock.advance(3601)


@pytest.mark.parametrize(
    "end", [_expire, _break_a_rule, _take_over, _disable, _delete, _token_expires]
)
def test_any_end_without_a_disconnect_leaves_the_will_once(lab: Lab, end: Any) -> None:
    client = lab.connect(will=(_EVENTS, b"gone"))
    end(client, lab)
    client.expect_closed()
    assert lab.bodies() == ["gone"]


def test_a_disconnect_removes_the_will_of_its_own_connection(lab: Lab) -> None:
    polite = lab.connect(will=(_EVENTS, b"polite"))
    polite.send(DISCONNECT)
    polite.expect_closed()
    lab.connect(will=(_EVENTS, b"rude")).lose()
    assert lab.bodies() == ["rude"]


@pytest.mark.parametrize("name", ["d1", "d1/camera"])
@pytest.mark.parametrize(
    "topic",
    [
        "devices/d2/messages/events/",
        "devices/d1/messages/devicebound/",
        "devices/d1/modules/microphone/messages/events/",
        "devices/d1/messages/events/a=b=c",
        "devices/d1/messages/events/a=1&",
        "devices/d1/messages/events/+",
        "devices/d1/messages/events/a=1+1",
        "devices/d1/messages/events/a=1/#",
        "$iothub/twin/GET/?$rid=1",
        "gone",
        "",
    ],
)
def test_a_will_for_any_other_topic_is_refused_and_disturbs_nothing(
    lab: Lab, name: str, topic: str
) -> None:
    live = lab.connect(name)
    lab.refuse(lab.greeting(name, will=(topic, b"gone")))
    live.expect_nothing()
    assert lab.events() == []


def test_a_refused_connect_leaves_no_will(lab: Lab) -> None:
    lab.refuse(lab.greeting(lifetime=-10, will=(_EVENTS, b"gone")))
    assert lab.events() == []


def test_a_module_has_a_will_of_its_own(lab: Lab) -> None:
    lab.connect("d1/camera", will=("devices/d1/modules/camera/messages/events/", b"gone")).lose()
    (event,) = lab.events()
    assert (event["body"], event["deviceId"], event["moduleId"]) == ("gone", "d1", "camera")
    lab.refuse(lab.greeting("d1/camera", will=(_EVENTS, b"gone")))
