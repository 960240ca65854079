"""A connection's pace and timers, on a stream without a socket and a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from emulator.hub.core import limits
from emulator.mqtt.channel import Channel
from emulator.mqtt.connection import Connection
from emulator.mqtt.frame import ProtocolError
from emulator.net.streams import Stream
from tests.clock import settle
from tests.mqtt.playbook import Lab
from tests.mqtt.raw import PINGREQ, PINGRESP, connack, connect, puback, publish, suback, subscribe

_EVENTS = "devices/d1/messages/events/"
_GET = publish("$iothub/twin/GET/?$rid=1")
_TWIN_ANSWERS = "$iothub/twin/res/#"


class FakeStream(Stream):
    """A stream whose peer is the test."""

    def __init__(self) -> None:
        super().__init__(None)
        self.sent: list[bytes] = []
        self.closed = self.trusted = False
        self.reading = asyncio.Event()
        """Whether the peer reads; while it does not, `drain` waits."""
        self.reading.set()
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()

    def arrive(self, *packets: bytes) -> None:
        """Bytes arrive in one piece."""
        self._incoming.put_nowait(b"".join(packets))

    def taken(self) -> bytes:
        """Return what was sent since the last call."""
        sent, self.sent = b"".join(self.sent), []
        return sent

    async def read(self) -> bytes:
        return await self._incoming.get()

    def trust(self) -> None:
        self.trusted = True

    def unsent(self) -> int:
        return self.held + (0 if self.reading.is_set() else sum(map(len, self.sent)))

    def _send(self, data: bytes) -> None:
        self.sent.append(data)

    async def _sent(self) -> None:
        await self.reading.wait()

    def _close(self) -> None:
        self.closed = True
        self.reading.set()
        self.arrive()

    async def wait_closed(self) -> None:
        pass


class Line:
    """A connection that runs in a task."""

    def __init__(self, lab: Lab) -> None:
        self.stream = FakeStream()
        self.channel = Channel(lab.hub, lab.sessions, self.stream)
        self.task = asyncio.ensure_future(Connection(self.stream, self.channel, lab.clock).run())

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


async def test_many_packets_take_turns_with_other_tasks(lab: Lab, open_line: Open) -> None:
    line = await open_line(lab.greeting())
    seen: list[int] = []

    async def other() -> None:
        while len(lab.events()) < 1000:
            seen.append(len(lab.events()))
            await asyncio.sleep(0)

    line.stream.arrive(publish(_EVENTS) * 1000)
    await asyncio.wait_for(other(), 5)
    assert set(seen) >= set(range(128, 1000, 128))


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


async def test_a_connect_may_be_handled_where_it_arrives(lab: Lab, open_line: Open) -> None:
    line = await open_line()
    assert line.stream.at_once
    line.stream.at_once(lab.greeting(keep_alive=10) + subscribe(1, _TWIN_ANSWERS))
    assert line.stream.sent == [connack(0) + suback(1, 0)]
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
