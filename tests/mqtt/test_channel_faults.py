"""Faults on the wire of MQTT: what a device sees, and what its neighbour does not see."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from emulator.hub.core import errors
from emulator.hub.faults.fault import Fault
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.message import Message
from tests.clock import settle
from tests.mqtt import raw
from tests.mqtt.playbook import Client, Lab

_EVENTS = "devices/d1/messages/events/"
_COMMANDS = "devices/d1/messages/devicebound/#"
_TWIN = "$iothub/twin/res/#"
_METHODS = "$iothub/methods/POST/#"


def add(lab: Lab, kind: str, device: str | None = "d1", **members: Any) -> int:
    return lab.hub.faults.add(Fault.parse({"kind": kind, "device": device, **members}))


def works(client: Client, name: str = "d1") -> None:
    """Check that telemetry of a device is accepted at once."""
    client.play(f">> PUBLISH 9 devices/{name}/messages/events/ ok", "<< PUBACK 9")


# --- connections


@pytest.mark.parametrize("how", ["clean", "cut"])
def test_a_connection_is_dropped_at_once(lab: Lab, how: str) -> None:
    client, other = lab.connect(), lab.connect("d2")
    add(lab, "drop-connection", how=how)
    client.expect_closed()
    assert lab.state() == "Disconnected"
    works(other, "d2")
    works(lab.connect())


@pytest.mark.parametrize("how", ["clean", "cut"])
@pytest.mark.parametrize(
    ("packet", "operation"),
    [
        (f"PUBLISH 5 {_EVENTS} lost", "send-event"),
        (f"PUBLISH {_EVENTS} lost", "send-event"),
        ("PUBLISH 5 $iothub/twin/GET/?$rid=1", "read-own-twin"),
        ('PUBLISH 5 $iothub/twin/PATCH/properties/reported/?$rid=1 {"a": 1}', "report"),
        ("SUBSCRIBE 5 $iothub/methods/POST/#", "subscribe"),
    ],
)
def test_a_connection_is_dropped_at_a_request_without_an_answer(
    lab: Lab, how: str, packet: str, operation: str
) -> None:
    client = lab.connect("d1", _TWIN)
    add(lab, "drop-connection", operation=operation, how=how)
    client.play(f">> {packet}", "<< CLOSED")
    assert lab.bodies() == []
    works(lab.connect())


def test_a_connection_is_dropped_before_its_connack(lab: Lab) -> None:
    add(lab, "drop-connection", operation="connect")
    lab.dial(lab.greeting()).expect_closed()
    works(lab.connect())


def test_what_was_sent_before_the_drop_counts(lab: Lab) -> None:
    client = lab.connect()
    add(lab, "drop-connection", operation="send-event", probability=0.5, seed=2)
    packets = [raw.publish(_EVENTS, b"%d" % n, packet_id=n + 1) for n in range(20)]
    client.send(*packets)
    acknowledged = len(lab.bodies())
    assert 0 < acknowledged < 20
    client.expect(*map(raw.puback, range(1, acknowledged + 1)))
    client.expect_closed()


def test_a_will_is_left_by_a_connection_that_is_cut(lab: Lab) -> None:
    client = lab.connect(will=(_EVENTS, b"gone"))
    add(lab, "drop-connection", how="cut")
    client.expect_closed()
    assert lab.bodies() == ["gone"]


def test_connections_are_refused_for_a_while(lab: Lab) -> None:
    client, other = lab.connect(), lab.connect("d2")
    add(lab, "refuse-connection", duration=5)
    works(client)
    for _ in range(3):
        lab.refuse(lab.greeting(), code=3)
    works(client)
    works(other, "d2")
    lab.clock.advance(5)
    works(lab.connect())


def test_a_connection_is_refused_so_many_times(lab: Lab) -> None:
    add(lab, "refuse-connection", count=2)
    for _ in range(2):
        lab.refuse(lab.greeting(), code=3)
    works(lab.connect())


@pytest.mark.parametrize(
    ("kind", "code"),
    [("throttle", 3), ("server-error", 3), ("service-unavailable", 3), ("expire-token", 5)],
)
def test_a_connect_is_refused(lab: Lab, kind: str, code: int) -> None:
    add(lab, kind, operation="connect", count=1)
    lab.refuse(lab.greeting(), code=code)
    works(lab.connect())


def test_a_token_expires_now(lab: Lab) -> None:
    client = lab.connect()
    add(lab, "expire-token")
    client.expect_closed()
    works(lab.connect())


def test_a_token_expires_at_once_and_again_for_a_while(lab: Lab) -> None:
    client = lab.connect()
    add(lab, "expire-token", duration=5)
    client.expect_closed()
    lab.refuse(lab.greeting(), code=5)
    lab.clock.advance(5)
    works(lab.connect())


def test_a_slow_link_paces_the_connection(lab: Lab) -> None:
    client = lab.connect()
    number = add(lab, "slow-link", rate=100)
    assert client.rate == 100
    lab.hub.faults.remove(number)
    assert client.rate is None


def test_parts_of_a_connection_are_of_amqp(lab: Lab) -> None:
    client = lab.connect()
    add(lab, "drop-link", link="connection")
    works(client)


# --- acknowledgments


@pytest.mark.parametrize(
    ("topic", "operation"),
    [
        (_EVENTS, None),
        (_EVENTS, "send-event"),
        ("$iothub/twin/GET/?$rid=1", None),
        ("$iothub/methods/res/200/?$rid=1", "respond-to-method"),
    ],
)
def test_a_puback_is_delayed(lab: Lab, topic: str, operation: str | None) -> None:
    client, other = lab.connect(), lab.connect("d2")
    add(lab, "delay-puback", delay=2, count=1, operation=operation)
    client.play(f">> PUBLISH 5 {topic} x")
    works(client)
    works(other, "d2")
    lab.clock.advance(1.9)
    client.expect_nothing()
    lab.clock.advance(0.1)
    client.play("<< PUBACK 5")


def test_the_puback_of_a_connection_that_ended_is_not_sent(lab: Lab) -> None:
    client = lab.connect()
    add(lab, "delay-puback", delay=2)
    client.play(f">> PUBLISH 5 {_EVENTS} x", ">> LOST")
    lab.clock.advance(3)
    assert not client.has_packets


def test_a_puback_is_dropped_and_the_message_counts(lab: Lab) -> None:
    client = lab.connect("d1", _TWIN)
    add(lab, "drop-puback", operation="send-event", count=2)
    client.play(f">> PUBLISH 5 {_EVENTS} 1")
    client.play(f">> PUBLISH 6 {_EVENTS} 2")
    client.play(
        ">> PUBLISH 7 $iothub/twin/GET/?$rid=1", "<< PUBACK 7", "<< PUBLISH $iothub/twin/res/200/…"
    )
    assert lab.bodies() == ["1", "2"]


# --- refusals


@pytest.mark.parametrize(
    ("kind", "members", "code"),
    [
        ("twin-status", {"status": 400}, 400004),
        ("twin-status", {"status": 403}, 403100),
        ("twin-status", {"status": 412}, 412001),
        ("twin-status", {"status": 429}, 429001),
        ("twin-status", {"status": 500}, 500001),
        ("twin-status", {"status": 503}, 503001),
        ("throttle", {}, 429001),
        ("server-error", {}, 500001),
        ("service-unavailable", {}, 503001),
    ],
)
def test_a_twin_request_has_a_status(
    lab: Lab, kind: str, members: dict[str, Any], code: int
) -> None:
    client, other = lab.connect("d1", _TWIN), lab.connect("d2", _TWIN)
    add(lab, kind, **members)
    for topic in ("GET", "PATCH/properties/reported"):
        client.play(
            f'>> PUBLISH 5 $iothub/twin/{topic}/?$rid=7 {{"a": 1}}',
            "<< PUBACK 5",
            f'<< PUBLISH $iothub/twin/res/{code // 1000}/?$rid=7 {{"errorCode":{code},…}}',
        )
    other.play(
        '>> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=7 {"a": 1}',
        "<< PUBLISH $iothub/twin/res/204/?$rid=7&$version=2",
    )
    assert "a" not in lab.twin()["properties"]["reported"]


def test_throttled_telemetry_is_acknowledged_later(lab: Lab) -> None:
    client = lab.connect()
    add(lab, "throttle", delay=3, count=1)
    client.play(f">> PUBLISH 5 {_EVENTS} x")
    works(client)
    lab.clock.advance(3)
    client.play("<< PUBACK 5")
    assert lab.bodies() == ["x", "ok"]


@pytest.mark.parametrize("kind", ["quota-exceeded", "server-error", "service-unavailable"])
def test_refused_telemetry_ends_the_connection_without_a_puback(lab: Lab, kind: str) -> None:
    client = lab.connect()
    add(lab, kind, operation="send-event", count=1)
    client.play(f">> PUBLISH 5 {_EVENTS} x", "<< CLOSED")
    assert lab.bodies() == []
    works(lab.connect())


def test_a_will_can_be_refused(lab: Lab) -> None:
    client = lab.connect(will=(_EVENTS, b"gone"))
    add(lab, "quota-exceeded")
    client.play(">> LOST")
    assert lab.bodies() == []


# --- direct methods


async def call(lab: Lab, name: str = "d1") -> asyncio.Task[Any]:
    body = {"methodName": "m", "responseTimeoutInSeconds": 5}
    task = asyncio.ensure_future(lab.hub.methods.invoke(IdentityKey(name), body))
    await settle()
    return task


async def outcome(call: asyncio.Task[Any]) -> str:
    """Return the status of a call, or its error."""
    try:
        return str((await asyncio.wait_for(call, 1)).status)
    except errors.HubError as error:
        return error.name


def request(number: int) -> str:
    return f"<< PUBLISH $iothub/methods/POST/m/?$rid={number}"


def response(number: int) -> str:
    return f">> PUBLISH $iothub/methods/res/200/?$rid={number} {{}}"


async def test_a_method_is_delayed(lab: Lab) -> None:
    client, other = lab.connect("d1", _METHODS), lab.connect("d2", _METHODS)
    add(lab, "delay-method", delay=2, count=2)
    waiting, quick = await call(lab), await call(lab, "d2")
    client.expect_nothing()
    other.play(request(1), response(1))
    assert await outcome(quick) == "200"
    lab.clock.advance(2)
    client.play(request(1), response(1))
    assert await outcome(waiting) == "200"
    late = await call(lab)
    lab.hub.links.drop(IdentityKey("d1"), errors.DeviceDisabled())
    assert await outcome(late) == "DeviceNotOnline"
    client.expect_closed()
    lab.clock.advance(2)


async def test_a_method_is_lost(lab: Lab) -> None:
    client = lab.connect("d1", _METHODS)
    add(lab, "lose-method", count=1)
    lost, next_one = await call(lab), await call(lab)
    client.play(request(2), response(2))
    assert await outcome(next_one) == "200"
    lab.clock.advance(5)
    assert await outcome(lost) == "GatewayTimeout"


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "ArgumentInvalid"),
        (403, "DeviceMaximumInflightMethodExceeded"),
        (404, "DeviceNotOnline"),
        (429, "ThrottlingException"),
        (500, "ServerError"),
        (502, "InvalidResponseWhileProxying"),
        (503, "ServiceUnavailable"),
        (504, "GatewayTimeout"),
    ],
)
async def test_a_method_fails(lab: Lab, status: int, name: str) -> None:
    client, other = lab.connect("d1", _METHODS), lab.connect("d2", _METHODS)
    add(lab, "fail-method", status=status)
    assert await outcome(await call(lab)) == name
    client.expect_nothing()
    quick = await call(lab, "d2")
    other.play(request(1), response(1))
    assert await outcome(quick) == "200"


async def test_a_response_is_lost(lab: Lab) -> None:
    client = lab.connect("d1", _METHODS)
    add(lab, "lose-method-response", count=1)
    lost = await call(lab)
    client.play(request(1), response(1))
    lab.clock.advance(5)
    assert await outcome(lost) == "GatewayTimeout"


async def test_a_response_is_delayed(lab: Lab) -> None:
    client = lab.connect("d1", _METHODS)
    add(lab, "delay-method-response", delay=3)
    waiting = await call(lab)
    client.play(request(1), response(1))
    lab.clock.advance(2.9)
    await settle()
    assert not waiting.done()
    lab.clock.advance(0.1)
    assert await outcome(waiting) == "200"


# --- cloud-to-device messages


def send(lab: Lab, *texts: str) -> None:
    for text in texts:
        lab.hub.cloud_to_device.send("d1", Message(text.encode(), {"message-id": text}))


def test_a_message_arrives_twice(lab: Lab) -> None:
    client = lab.connect("d1", f"{_COMMANDS}:1")
    add(lab, "duplicate-c2d", count=1)
    send(lab, "x")
    first, body = client.take_message()
    client.send(raw.puback(first))
    second, again = client.take_message()
    assert (body, again) == ("x", "x")
    client.send(raw.puback(second))
    client.expect_nothing()
    assert lab.hub.cloud_to_device.pending("d1") == 0


def test_a_message_of_qos_0_arrives_twice(lab: Lab) -> None:
    client = lab.connect("d1", f"{_COMMANDS}:0")
    add(lab, "duplicate-c2d", count=1)
    send(lab, "x", "y")
    assert [client.take_publish()[1] for _ in range(3)] == [b"x", b"x", b"y"]
    client.expect_nothing()


def test_messages_change_places(lab: Lab) -> None:
    client = lab.connect("d1", f"{_COMMANDS}:1")
    add(lab, "reorder-c2d", count=1)
    send(lab, "1", "2", "3")
    assert [client.take_message()[1] for _ in range(3)] == ["2", "1", "3"]


# --- fault requests


def test_a_fault_request_ends_the_connection_before_its_puback() -> None:
    lab = Lab(takes_fault_requests=True)
    client = lab.connect()
    works(client)
    bag = "AzIoTHub_FaultOperationType=KillTcp&AzIoTHub_FaultOperationCloseReason=boom"
    client.play(f">> PUBLISH 5 {_EVENTS}{bag}&AzIoTHub_FaultOperationDelayInSecs=1 x")
    works(client)
    lab.clock.advance(1)
    client.expect_closed()
    assert lab.bodies() == ["ok", "ok"]
    works(lab.connect())


def test_without_a_fault_no_packet_asks_for_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("asked")

    hub: IotHub = lab.hub
    monkeypatch.setattr(hub.faults, "match", fail)
    works(lab.connect("d1", _COMMANDS, _METHODS, _TWIN))
    send(lab, "x")
