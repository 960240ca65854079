"""A connection's pace and timers, on a stream without a socket and a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from emulator.disk.store import DiskStore
from emulator.hub.access.throttles import Throttles
from emulator.hub.core import limits
from emulator.hub.faults.fault import Fault
from emulator.mqtt.channel import Channel
from emulator.mqtt.connection import Connection
from emulator.mqtt.frame import ProtocolError
from tests.clock import settle
from tests.mqtt.playbook import Lab
from tests.mqtt.raw import PINGREQ, PINGRESP, connack, connect, puback, publish, suback, subscribe
from tests.streams import FakeStream

_EVENTS = "devices/d1/messages/events/"
_GET = publish("$iothub/twin/GET/?$rid=1")
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"


class Line:
    """A connection that runs in a task."""

    def __init__(self, lab: Lab) -> None:
        self.stream = FakeStream()
        self.channel = Channel(lab.hub, lab.sessions, self.stream)
        self._connection = Connection(
            self.stream, self.channel, lab.clock, lab.hub.turns, lab.hub.gate.throttles
        )
        self.task = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        """Serve the connection, and close it, as a server does."""
        try:
            await self._connection.run()
        finally:
            self.stream.close()

    async def exchange(self, *packets: bytes) -> bytes:
        """Let packets arrive in one piece, and return the answers."""
        self.stream.arrive(*packets)
        await settle()
        return self.stream.taken()


Open = Callable[..., Awaitable[Line]]


@pytest.fixture
async def open_line(lab: Lab) -> AsyncIterator[Open]:
    lines: list[Line] = []

    async def start(*packets: bytes) -> Line:
        """Open a connection; packets arrive in one piece, and their answers are read."""
        lines.append(Line(lab))
        await settle()
        if packets:
            await lines[-1].exchange(*packets)
        return lines[-1]

    yield start
    for line in lines:
        line.task.cancel()
        with contextlib.suppress(ProtocolError, asyncio.CancelledError):
            await line.task


# --- the connect time-out


async def test_a_client_without_a_connect_is_closed_in_time(lab: Lab, open_line: Open) -> None:
    line = await open_line()
    await lab.clock.pass_time(limits.MQTT_CONNECT_TIMEOUT - 1)
    assert not line.stream.closed
    await line.exchange(lab.greeting()[:-1])  # bytes alone win no time
    await lab.clock.pass_time(1)
    assert line.stream.closed
    with pytest.raises(ProtocolError, match="No CONNECT"):
        await line.task


async def test_a_refused_client_is_closed(lab: Lab, open_line: Open) -> None:
    line = await open_line(connect("d1", "hub.test/d1", "no token"))
    await line.task
    assert line.stream.closed


# --- the keep-alive


async def test_silence_longer_than_the_keep_alive_allows_ends_the_connection(
    lab: Lab, open_line: Open
) -> None:
    line = await open_line(lab.greeting(keep_alive=10, will=(_EVENTS, b"gone")))
    for packet in (PINGREQ, publish(_EVENTS), subscribe(1, _TWIN_ANSWERS), PINGREQ[:1]):
        await lab.clock.pass_time(14)
        await line.exchange(packet)  # any bytes count
    await lab.clock.pass_time(14.9)
    assert not line.stream.closed
    await lab.clock.pass_time(0.2)
    assert line.stream.closed
    await line.task
    assert lab.state() == "Disconnected"
    assert lab.bodies()[-1] == "gone"


async def test_a_slow_link_takes_its_time_both_ways_and_keeps_the_connection(
    lab: Lab, open_line: Open
) -> None:
    line = await open_line(lab.greeting(keep_alive=10))
    lab.hub.faults.add(Fault.parse({"kind": "slow-link", "rate": 1}))
    packet = publish(_EVENTS, b"x" * 60, packet_id=1)
    line.stream.arrive(packet)
    await lab.clock.pass_time(len(packet) - 1)
    assert lab.bodies() == []
    await lab.clock.pass_time(1)
    assert lab.bodies() == ["x" * 60]
    assert line.stream.taken() == b""
    for byte in puback(1):
        await lab.clock.pass_time(1)
        assert line.stream.taken() == bytes([byte])
    assert not line.stream.closed


@pytest.mark.parametrize("how", ["clean", "cut"])
async def test_a_connection_that_waits_for_a_slow_link_can_end(
    lab: Lab, open_line: Open, how: str
) -> None:
    line = await open_line(lab.greeting())
    lab.hub.faults.add(Fault.parse({"kind": "slow-link", "rate": 1}))
    line.stream.arrive(publish(_EVENTS, b"x" * 60, packet_id=1))
    await settle()
    lab.hub.faults.add(Fault.parse({"kind": "drop-connection", "how": how}))
    await asyncio.wait_for(line.task, 1)
    assert lab.bodies() == []


async def test_bytes_that_are_handled_at_once_count_for_the_keep_alive(
    lab: Lab, open_line: Open
) -> None:
    line = await open_line(lab.greeting(keep_alive=10))
    assert line.stream.at_once
    for _ in range(3):
        await lab.clock.pass_time(14)
        line.stream.at_once(PINGREQ)
    assert not line.stream.closed


async def test_the_keep_alive_begins_with_the_connect(lab: Lab, open_line: Open) -> None:
    """Not with the connection: 1.5 times 40 s are also the time-out of a CONNECT."""
    line = await open_line()
    await lab.clock.pass_time(30)
    await line.exchange(lab.greeting(keep_alive=40))
    await lab.clock.pass_time(59)
    assert not line.stream.closed
    await lab.clock.pass_time(2)
    assert line.stream.closed


async def test_a_device_that_never_reads_its_answers_is_silent_for_the_hub(
    lab: Lab, open_line: Open
) -> None:
    line = await open_line()
    line.stream.reading.clear()
    await line.exchange(lab.greeting(keep_alive=10), subscribe(1, _TWIN_ANSWERS), _GET * 1000)
    assert not line.stream.closed
    await lab.clock.pass_time(15.1)
    assert line.stream.closed
    await line.task


async def test_keep_alive_0_means_the_hubs_own_limit(lab: Lab, open_line: Open) -> None:
    line = await open_line(lab.greeting(keep_alive=0))
    await lab.clock.pass_time(limits.MQTT_KEEP_ALIVE_MAX - 1)
    assert not line.stream.closed
    await lab.clock.pass_time(2)
    assert line.stream.closed


# --- pace


async def test_many_packets_take_turns_with_other_tasks(
    lab: Lab, open_line: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TURN_SECONDS", 0.0)  # a turn is over as soon as it is looked at
    line = await open_line(lab.greeting())
    seen, acknowledged = [], []

    async def other() -> None:
        while lab.hub.events.end < 1001:
            seen.append(lab.hub.events.end)
            acknowledged.append(len(b"".join(line.stream.sent)) // len(puback(1)))
            await asyncio.sleep(0)

    line.stream.taken()
    line.stream.arrive(publish(_EVENTS, packet_id=1) * 1001)
    await asyncio.wait_for(other(), 5)
    # The first one, and then always eight: the answers of a turn do not wait for the next one.
    assert set(seen) == set(acknowledged) == {*range(1, 1001, 8)}


async def test_answers_to_one_read_go_out_together(lab: Lab, open_line: Open) -> None:
    line = await open_line(lab.greeting())
    line.stream.arrive(PINGREQ * 100)
    await settle()
    assert line.stream.sent == [PINGRESP * 100]


async def test_while_the_device_does_not_read_its_packets_wait(lab: Lab, open_line: Open) -> None:
    line = await open_line(lab.greeting(), subscribe(1, _TWIN_ANSWERS))
    report = {f"p{number}": "x" * 3900 for number in range(7)}
    lab.hub.twins.report(lab.register("d1"), report, None)
    line.stream.taken()
    line.stream.reading.clear()
    line.stream.arrive(_GET * 100)  # the answers have 28 KB each
    await settle()
    assert 64 * 1024 < line.stream.unsent() < 128 * 1024
    line.stream.reading.set()
    await settle(100)
    assert line.stream.taken().count(b"twin/res/200/") == 100


async def test_messages_that_waited_for_the_device_are_sent_when_it_reads(
    lab: Lab, open_line: Open
) -> None:
    line = await open_line(lab.greeting(), subscribe(1, "devices/d1/messages/devicebound/#"))
    line.stream.reading.clear()
    line.stream.write(bytes(limits.MQTT_WRITE_BUFFER_BYTES + 1))
    line.stream.arrive(PINGREQ)
    await settle()
    lab.send("waits")
    assert lab.pending() == 1
    line.stream.reading.set()
    await settle()
    assert lab.pending() == 0
    assert line.stream.taken().endswith(b"waits")


# --- packets at once


async def test_a_few_bytes_are_handled_where_they_arrive(lab: Lab, open_line: Open) -> None:
    line = await open_line(lab.greeting())
    assert line.stream.at_once
    line.stream.at_once(publish(_EVENTS, b"1", packet_id=1) + publish(_EVENTS, b"2") + PINGREQ)
    assert line.stream.sent == [puback(1) + PINGRESP]
    assert lab.bodies() == ["1", "2"]


async def test_a_connect_is_not_handled_where_it_arrives(lab: Lab, open_line: Open) -> None:
    line = await open_line()
    assert line.stream.at_once is None
    answer = await line.exchange(lab.greeting(keep_alive=10) + subscribe(1, _TWIN_ANSWERS))
    assert answer == connack(0) + suback(1, 0)
    await lab.clock.pass_time(15.1)
    assert line.stream.closed


async def test_a_disconnect_is_handled_where_it_arrives(lab: Lab, open_line: Open) -> None:
    line = await open_line(lab.greeting())
    assert line.stream.at_once
    line.stream.at_once(PINGREQ + b"\xe0\x00" + PINGREQ)
    assert line.stream.closed
    assert line.stream.sent == [PINGRESP]
    await line.task
    assert lab.state() == "Disconnected"


async def test_a_broken_rule_is_raised_after_the_earlier_answers_were_sent(
    lab: Lab, open_line: Open
) -> None:
    data = publish(_EVENTS, b"counts", packet_id=1) + b"\xf0\x00"
    line = await open_line(lab.greeting())
    assert line.stream.at_once
    with pytest.raises(ProtocolError):
        line.stream.at_once(data)
    assert line.stream.taken() == puback(1)
    again = await open_line(lab.greeting())
    assert await again.exchange(data) == puback(1)
    with pytest.raises(ProtocolError):
        await again.task
    assert lab.bodies() == ["counts", "counts"]
    assert lab.state() == "Disconnected"


async def test_what_came_before_a_broken_rule_is_acknowledged_by_a_hub_on_disk(
    tmp_path: Path,
) -> None:
    lab = Lab(store=DiskStore(tmp_path / "hub.sqlite"))
    line = Line(lab)
    await line.exchange(lab.greeting())
    line.stream.arrive(publish(_EVENTS, b"1", packet_id=1) + PINGREQ + b"\xf0\x00")
    with pytest.raises(ProtocolError):
        await line.task
    assert line.stream.taken() == puback(1) + PINGRESP
    assert lab.bodies() == ["1"]


async def test_a_connection_that_the_hub_ends_handles_no_more_packets(
    lab: Lab, open_line: Open
) -> None:
    line = await open_line(lab.greeting())
    lab.register("d1", status="disabled")
    assert line.stream.closed
    line.stream.arrive(publish(_EVENTS))
    await line.task
    assert lab.events() == []
    assert line.stream.at_once is None


# --- telemetry over its rate


class Limited(Lab):
    """A hub that takes one message in a second."""

    def __init__(self) -> None:
        super().__init__("d2c-sends=1/s")


@pytest.fixture
def limited_lab() -> Limited:
    return Limited()


async def _open(lab: Lab, name: str = "d1", **fields: Any) -> Line:
    line = Line(lab)
    assert await line.exchange(lab.greeting(name, **fields)) == connack(0)
    return line


async def test_a_message_over_the_rate_is_acknowledged_late(limited_lab: Limited) -> None:
    line = await _open(limited_lab)
    messages = [publish(_EVENTS, b"%d" % number, packet_id=number) for number in range(1, 6)]
    assert await line.exchange(*messages) == puback(1)
    for number in range(2, 6):
        await limited_lab.clock.pass_time(0.9)
        assert line.stream.taken() == b""
        await limited_lab.clock.pass_time(0.1)
        assert line.stream.taken() == puback(number)
        assert limited_lab.bodies() == [str(each) for each in range(1, number + 1)]
    limited_lab.hub.links.stop()
    await line.task


async def test_over_the_rate_the_hub_reads_no_more_of_the_device(limited_lab: Limited) -> None:
    line = await _open(limited_lab)
    await line.exchange(publish(_EVENTS, b"x") * 3)
    line.stream.arrive(publish(_EVENTS, b"y"))
    await settle()
    assert line.stream.unread == 1
    await limited_lab.clock.pass_time(1)
    await limited_lab.clock.pass_time(1)
    assert line.stream.unread == 0
    assert limited_lab.bodies() == ["x", "x", "x"]
    await limited_lab.clock.pass_time(1)
    assert limited_lab.bodies() == ["x", "x", "x", "y"]
    line.task.cancel()


async def test_devices_over_the_rate_have_their_turn_in_order(limited_lab: Limited) -> None:
    lines = [await _open(limited_lab, name) for name in ("d1", "d2")]
    await lines[0].exchange(publish(_EVENTS, b"x") * 10)
    assert await lines[1].exchange(PINGREQ) == PINGRESP
    await lines[1].exchange(publish("devices/d2/messages/events/", b"y") * 10)
    for _ in range(6):
        await limited_lab.clock.pass_time(1)
    assert (len(limited_lab.bodies("d1")), len(limited_lab.bodies("d2"))) == (4, 3)
    for line in lines:
        line.task.cancel()


async def test_while_a_message_waits_the_hub_sends_and_the_keep_alive_holds(
    limited_lab: Limited,
) -> None:
    limited_lab.hub.gate.throttles = Throttles.parse(["d2c-sends=1/min"], clock=limited_lab.clock)
    line = await _open(limited_lab, keep_alive=10)
    await line.exchange(subscribe(1, _DESIRED), publish(_EVENTS) * 2)
    await limited_lab.clock.pass_time(40)
    limited_lab.patch_desired(a=1)
    assert b"twin/PATCH/properties/desired" in line.stream.taken()
    await limited_lab.clock.pass_time(20)
    assert len(limited_lab.bodies()) == 2
    assert not line.stream.closed
    await limited_lab.clock.pass_time(15)
    assert line.stream.closed
    await line.task


async def test_a_message_that_waits_is_not_taken_after_the_connection_ends(
    limited_lab: Limited,
) -> None:
    line = await _open(limited_lab, will=(_EVENTS, b"will"))
    assert await line.exchange(*[publish(_EVENTS, b"x", packet_id=1)] * 2) == puback(1)
    again = await _open(limited_lab)
    await settle()
    assert line.task.done()
    assert limited_lab.bodies() == ["x", "will"]  # a will can't wait
    # The first connection has left the queue.
    await limited_lab.clock.pass_time(1)
    assert await again.exchange(publish(_EVENTS, b"y", packet_id=2)) == puback(2)
    again.task.cancel()


async def test_what_is_no_telemetry_does_not_wait(limited_lab: Limited) -> None:
    line = await _open(limited_lab)
    await line.exchange(publish(_EVENTS), subscribe(1, _TWIN_ANSWERS))
    assert b"res/200" in await line.exchange(_GET)
    line.task.cancel()


# --- two programs


async def test_a_takeover_is_delayed_only_when_takeovers_repeat(
    lab: Lab, open_line: Open, caplog: pytest.LogCaptureFixture
) -> None:
    await open_line(lab.greeting())
    for delay in (0, 0.25, 0.5, 1, 2, 4, 4):
        line = await open_line(lab.greeting())
        if delay:
            await lab.clock.pass_time(delay - 0.1)
            assert line.stream.taken() == b""
            await lab.clock.pass_time(0.1)
            assert line.stream.taken() == connack(0)
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == ["d1 is connected from two programs. Stop one of them."]


async def test_a_delayed_connect_is_checked_when_its_delay_has_passed(
    lab: Lab, open_line: Open
) -> None:
    for _ in range(2):
        await open_line(lab.greeting())
    line = await open_line(lab.greeting())
    lab.register("d1", status="disabled")
    await lab.clock.pass_time(1)
    assert line.stream.taken() == connack(5)


async def test_a_program_that_connects_after_the_other_has_left_is_not_delayed(
    lab: Lab, open_line: Open
) -> None:
    for _ in range(2):
        last = await open_line(lab.greeting())
    await last.exchange(b"\xe0\x00")
    line = await open_line()
    assert await line.exchange(lab.greeting()) == connack(0)
