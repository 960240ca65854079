"""Faults on the wire of AMQP: what a device sees, and what its neighbour does not see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from emulator.amqp.message import Message
from emulator.amqp.performatives import ACCEPTED, Detach, Disposition, End, Error, Rejected
from emulator.hub.faults.fault import Fault
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.message import Message as Command
from tests.amqp.devices import MethodPair, TwinPair, commands, connect, telemetry
from tests.amqp.lab import AmqpClient, Lab, RemoteLink, code_of
from tests.amqp.playbook import write
from tests.clock import settle

KEY_2 = "M" * 43 + "="
FORCED = "amqp:connection:forced"


def add(lab: Lab, kind: str, device: str | None = "d1", **members: Any) -> int:
    return lab.hub.faults.add(Fault.parse({"kind": kind, "device": device, **members}))


def conditions(client: AmqpClient) -> list[str]:
    """Return the conditions of all links that the hub has detached."""
    found = []
    while frame := client.take_if_any():
        if isinstance(frame[1], Detach):
            assert frame[1].error is not None
            found.append(frame[1].error.condition)
        else:
            assert isinstance(frame[1], Disposition), frame
    return found


def works(lab: Lab, name: str = "d1") -> None:
    link = telemetry(connect(lab, name), name)
    assert link.error is None
    assert link.send(Message(b"ok")) == ACCEPTED


@pytest.mark.parametrize(
    ("kind", "condition"),
    [("drop-connection", FORCED), ("expire-token", "amqp:unauthorized-access")],
)
def test_a_device_is_detached_at_once(lab: Lab, kind: str, condition: str) -> None:
    client = connect(lab)
    telemetry(client)
    commands(client)
    other = telemetry(connect(lab, "d2", key=KEY_2), "d2")
    add(lab, kind)
    assert conditions(client) == [condition, condition]
    assert lab.state() == "Disconnected"
    assert other.send(Message(b"ok")) == ACCEPTED
    works(lab)


def test_a_connection_is_cut_without_a_close(lab: Lab) -> None:
    client = connect(lab)
    telemetry(client)
    add(lab, "drop-connection", how="cut")
    assert client.connection.closed
    client.expect_nothing()
    assert lab.state() == "Disconnected"
    works(lab)


@pytest.mark.parametrize("how", ["clean", "cut"])
def test_a_connection_is_dropped_at_a_message(lab: Lab, how: str) -> None:
    client = connect(lab)
    link = telemetry(client)
    add(lab, "drop-connection", operation="send-event", how=how)
    link.post(Message(b"lost"))
    assert conditions(client) == ([FORCED] if how == "clean" else [])
    assert lab.state() == "Disconnected"
    assert lab.bodies() == []
    works(lab)


@pytest.mark.parametrize(
    ("kind", "condition", "code"),
    [
        ("refuse-connection", FORCED, 503001),
        ("throttle", "com.microsoft:device-container-throttled", 429001),
        ("expire-token", "amqp:unauthorized-access", 401002),
        ("server-error", "amqp:internal-error", 500001),
    ],
)
def test_a_link_is_refused(lab: Lab, kind: str, condition: str, code: int) -> None:
    add(lab, kind, count=1)
    link = telemetry(connect(lab))
    assert link.client.refused(link) == (condition, code)
    works(lab)


@pytest.mark.parametrize(
    ("kind", "condition", "code"),
    [
        ("throttle", "com.microsoft:device-container-throttled", 429001),
        ("quota-exceeded", "com.microsoft:quota-exceeded", 403002),
        ("server-error", "amqp:internal-error", 500001),
        ("service-unavailable", FORCED, 503001),
    ],
)
def test_telemetry_is_rejected(lab: Lab, kind: str, condition: str, code: int) -> None:
    link = telemetry(connect(lab))
    other = telemetry(connect(lab, "d2", key=KEY_2), "d2")
    add(lab, kind, count=1)
    assert other.send(Message(b"ok")) == ACCEPTED
    outcome = link.send(Message(b"x"))
    assert isinstance(outcome, Rejected)
    assert outcome.error is not None
    assert (outcome.error.condition, code_of(outcome.error)) == (condition, code)
    assert link.send(Message(b"y")) == ACCEPTED
    assert lab.bodies() == ["y"]


async def test_telemetry_that_waits_for_its_turn_is_rejected() -> None:
    lab = Lab("d2c-sends=100/s")
    link = telemetry(connect(lab))
    add(lab, "quota-exceeded", count=1)
    link.post(Message(b"x"))
    await settle()
    outcome = link._take(Disposition).state
    assert isinstance(outcome, Rejected)
    assert code_of(outcome.error) == 403002


@pytest.mark.parametrize("status", [400, 403, 412, 429, 500, 503])
def test_a_twin_request_has_a_status(lab: Lab, status: int) -> None:
    twin, other = TwinPair(connect(lab)), TwinPair(connect(lab, "d2", key=KEY_2), "d2")
    add(lab, "twin-status", status=status)
    for reply in (twin.get(), twin.report(b'{"a": 1}')):
        assert reply.message_annotations["status"] == status
    assert other.get().message_annotations["status"] == 200


async def test_a_method_is_delayed(lab: Lab) -> None:
    methods = MethodPair(connect(lab))
    add(lab, "delay-method", delay=2)
    body = {"methodName": "m", "responseTimeoutInSeconds": 5}
    call = asyncio.ensure_future(lab.hub.methods.invoke(IdentityKey("d1"), body))
    await settle()
    methods.requests.client.expect_nothing()
    lab.clock.advance(2)
    methods.respond(methods.take()[2], 200)
    assert (await asyncio.wait_for(call, 1)).status == 200


def send(lab: Lab, *texts: str) -> None:
    for text in texts:
        lab.hub.cloud_to_device.send("d1", Command(text.encode(), {"message-id": text}))


def test_a_message_arrives_twice(lab: Lab) -> None:
    link = commands(connect(lab))
    add(lab, "duplicate-c2d", count=1)
    send(lab, "x")
    for _ in range(2):
        assert link.take().body == b"x"
        link.settle(ACCEPTED)
    link.client.expect_nothing()
    assert lab.hub.cloud_to_device.pending("d1") == 0


def test_messages_change_places(lab: Lab) -> None:
    link = commands(connect(lab))
    add(lab, "reorder-c2d", count=1)
    send(lab, "1", "2")
    assert [link.take().body for _ in range(2)] == [b"2", b"1"]


# --- parts of a connection

Links = dict[str, RemoteLink]


def all_links(client: AmqpClient) -> Links:
    """Attach every link that a device can have."""
    methods, twin = MethodPair(client), TwinPair(client)
    assert client._cbs is not None
    return {
        "telemetry": telemetry(client),
        "commands": commands(client),
        "method-requests": methods.requests,
        "method-responses": methods.responses,
        "twin-requests": twin.requests,
        "twin-replies": twin.replies,
        "cbs-requests": client._cbs[0],
        "cbs-replies": client._cbs[1],
    }


@pytest.mark.parametrize(
    "part",
    [
        *("telemetry", "commands", "method-requests", "method-responses"),
        *("twin-requests", "twin-replies", "cbs-requests", "cbs-replies"),
    ],
)
def test_one_link_ends(lab: Lab, part: str) -> None:
    client, other = connect(lab), connect(lab, "d2", key=KEY_2)
    links = all_links(client)
    add(lab, "drop-link", link=part)
    error = links[part].detached()
    assert isinstance(error, Error)
    assert error.condition == FORCED
    client.expect_nothing()
    other.expect_nothing()
    assert lab.state() == "Connected"
    assert lab.hub.faults.list() == []


def test_a_session_ends(lab: Lab) -> None:
    client = connect(lab)
    links = all_links(client)
    add(lab, "drop-link", link="session")
    end = client.take()[1]
    assert isinstance(end, End)
    assert end.error is not None
    assert end.error.condition == FORCED
    assert lab.state() == "Disconnected"
    # What was on its way is ignored, and the peer's end is not answered.
    links["telemetry"].post(Message(b"late"))
    client.send(write(0, End()))
    client.expect_nothing()
    assert not client.connection.closed
    assert lab.bodies() == []
    works(lab)


def test_a_connection_is_closed(lab: Lab) -> None:
    client = connect(lab)
    all_links(client)
    add(lab, "drop-link", link="connection")
    client.expect_closed(FORCED)
    assert lab.state() == "Disconnected"
    works(lab)


def test_a_fault_request_is_accepted_first() -> None:
    lab = Lab(takes_fault_requests=True)
    client = connect(lab)
    link = telemetry(client)
    request = {
        "AzIoTHub_FaultOperationType": "KillAmqpD2CLink",
        "AzIoTHub_FaultOperationCloseReason": "boom",
        "AzIoTHub_FaultOperationDelayInSecs": "1",
    }
    assert link.send(Message(b"", application_properties=request)) == ACCEPTED
    lab.clock.advance(1)
    error = link.detached()
    assert error is not None
    assert error.condition == FORCED
    assert lab.bodies() == []
    works(lab)


def test_a_slow_link_paces_the_connection(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    client, rates = connect(lab), list[int | None]()
    slow: Callable[[int | None], None] = rates.append
    client.client.slow = slow
    telemetry(client)
    number = add(lab, "slow-link", rate=100)
    lab.hub.faults.remove(number)
    assert rates == [100, None]
