"""Clients of AMQP that send garbage, send without end, never read, or take what they can get.

The hub is a process of its own, and a device on MQTT is a bystander whose answers are timed.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import os
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest

from emulator.amqp import frame
from emulator.amqp.driver import Driver
from emulator.amqp.incoming import IncomingDelivery
from emulator.amqp.message import Message, Value
from emulator.amqp.nodes.device_telemetry import TelemetryLink
from emulator.amqp.nodes.event_messages import EncodedEvents
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Detach,
    End,
    Flow,
    Open,
    Properties,
    SaslInit,
    Source,
    Target,
    Transfer,
)
from emulator.hub.core import limits
from emulator.settings import WELL_KNOWN_PRIMARY_KEY
from emulator.testing.addresses import free_loopback_address
from tests.amqp.lab import HOST, Lab, device_token
from tests.amqp.playbook import Peer, write
from tests.amqp.wire import BEGIN, PUT_TOKEN, AmqpWire
from tests.clock import settle
from tests.floods import (
    ANSWER_SECONDS,
    MEGABYTES,
    SHARE_SECONDS,
    TWIN_ANSWERS,
    Flood,
    Hub,
    twin_seconds,
)
from tests.mqtt.raw import Wire
from tests.processes import EmulatorConsole
from tests.streams import FakeStream
from tests.support import sas_token, wait_until

PLAIN = 5672


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    host = free_loopback_address()
    options = ("--host", host, "--https-port", "0", "--verbose", "--device", "bystander")
    folder = tmp_path_factory.mktemp("data")
    with EmulatorConsole(*options, "--data-dir", folder) as console:
        running = Hub(console, host)
        yield running
        running.service.close()


@pytest.fixture(autouse=True)
def quiet_log(hub: Hub) -> Iterator[None]:
    """Nothing that clients do logs a warning, or more than one line about a connection."""
    hub.log_start += len(hub.new_log)
    yield
    assert [line for line in hub.new_log if not re.search(" (INFO|DEBUG) ", line)] == []
    closed = collections.Counter(re.findall(r"the connection of (.+?): ", "\n".join(hub.new_log)))
    assert set(closed.values()) <= {1}, closed


@pytest.fixture
def bystander(hub: Hub) -> Iterator[Wire]:
    with hub.connect("bystander", TWIN_ANSWERS) as wire:
        yield wire


def dial(hub: Hub, **options: int) -> AmqpWire:
    return AmqpWire((hub.host, PLAIN), **options)


def authorized(hub: Hub, **options: int) -> AmqpWire:
    """Connect a service, and attach a sender of messages on handle 2."""
    wire = dial(hub, **options).begin()
    wire.put_token(sas_token(hub.host, WELL_KNOWN_PRIMARY_KEY, policy="service"))
    wire.send(write(0, Attach("c2d", 2, SENDER, target=Target("/messages/devicebound"))))
    assert wire.take_until(Flow).handle == 2
    return wire


def attach(number: int, address: str = "$cbs") -> bytes:
    return write(0, Attach(f"l{number}", number, RECEIVER, source=Source(address)))


OPENING = frame.AMQP_HEADER + frame.write(0, Open("x")) + frame.write(0, BEGIN)
NOWHERE = write(0, Attach("l", 0, RECEIVER, source=Source("/nowhere"))) + write(0, Detach(0, True))

GARBAGE = {
    "nothing of AMQP": b"GET / HTTP/1.1\r\n\r\n",
    "zeros": bytes(1000),
    "random bytes": os.urandom(100_000),
    "a header of another version": b"AMQP\x00\x02\x00\x00",
    "a frame that is too large": frame.AMQP_HEADER + b"\x7f\xff\xff\xff\x02\x00\x00\x00",
    "a frame that is too small": frame.AMQP_HEADER + b"\x00\x00\x00\x02\x02\x00\x00\x00",
    "a list that claims 4 billion elements": (
        frame.AMQP_HEADER + b"\0\0\0\x14\2\0\0\0\0\x53\x10\xd0\0\0\0\4\xff\xff\xff\xff"
    ),
    "random bytes after an open": OPENING + os.urandom(100_000),
    "a transfer on no link": OPENING + write(0, Transfer(9, 0, b"t", 0), b"x"),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_ends_its_connection(hub: Hub, bystander: Wire, data: bytes) -> None:
    with dial(hub) as wire:
        wire.send_what_goes(data)
        wire.expect_end()
    assert twin_seconds(hub, bystander) < ANSWER_SECONDS


FLOODS: dict[str, tuple[Callable[[Hub], AmqpWire], bytes]] = {
    "links to unknown addresses": (lambda hub: dial(hub).begin(), NOWHERE),
    "sessions that begin and end": (
        lambda hub: dial(hub).begin(),
        frame.write(1, BEGIN) + frame.write(1, End()),
    ),
    "empty frames": (lambda hub: dial(hub).begin(), frame.EMPTY),
    "messages that are refused": (
        lambda hub: authorized(hub),
        write(0, Transfer(2, 0, b"t", 0, settled=True), Message(b"x" * 100).to_bytes()),
    ),
    "messages to an unknown device": (
        lambda hub: authorized(hub),
        write(
            0,
            Transfer(2, 0, b"t", 0, settled=True),
            Message(b"", Properties(to="/devices/unknown/messages/devicebound")).to_bytes(),
        ),
    ),
    "flows that ask for answers": (
        lambda hub: dial(hub).begin(),
        write(0, Flow(0, 1000, 0, 1000, echo=True)),
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_leaves_devices_their_share(hub: Hub, bystander: Wire, kind: str) -> None:
    make, one = FLOODS[kind]
    before = hub.megabytes
    with Flood(make(hub)._socket, one * (200_000 // len(one) + 1)) as flood:
        wait_until(lambda: flood.rounds)
        seconds = [twin_seconds(hub, bystander) for _ in range(8)]
        assert hub.megabytes < before + MEGABYTES
        assert flood.is_running
    assert statistics.mean(seconds) < SHARE_SECONDS, seconds


def test_a_flood_of_tokens_leaves_devices_their_share(hub: Hub, bystander: Wire) -> None:
    wire = dial(hub).begin()
    tokens = [sas_token(f"{hub.host}/devices/d{n}", WELL_KNOWN_PRIMARY_KEY) for n in range(100)]
    wire.put_token(tokens[0])
    before = hub.megabytes
    seconds = []
    with wire:
        for number in range(50):
            request = b"".join(wire.token_request(token) for token in tokens[:20])
            grant = Flow(
                0, 10_000, 0, 10_000, handle=1, delivery_count=number * 20 + 1, link_credit=100
            )
            wire.send(write(0, grant) + request)
            for _ in range(20):
                wire.take_until(Transfer)
            if number % 10 == 0:
                seconds.append(twin_seconds(hub, bystander))
    assert statistics.mean(seconds) < SHARE_SECONDS, seconds
    assert hub.megabytes < before + MEGABYTES


def test_replies_that_a_client_gives_no_credit_for_end_its_connection(
    hub: Hub, bystander: Wire
) -> None:
    message = Message(Value("x" * 1000), Properties(message_id="y" * 3000), PUT_TOKEN).to_bytes()
    with dial(hub).begin() as wire:
        wire.send(
            write(0, Attach("s", 0, SENDER, target=Target("$cbs")))
            + write(0, Attach("r", 1, RECEIVER, source=Source("$cbs")))
        )
        wire.take_until(Flow)
        wire.send_what_goes(
            b"".join(write(0, Transfer(0, n, b"t%d" % n, settled=True), message) for n in range(90))
        )
        close = wire.take_close()
        assert close.error
        assert close.error.condition == "amqp:resource-limit-exceeded"
    assert twin_seconds(hub, bystander) < ANSWER_SECONDS


@pytest.mark.parametrize("make", [lambda hub: dial(hub).begin(), authorized], ids=["new", "known"])
@pytest.mark.parametrize(
    "one",
    [lambda n: attach(n + 10), lambda n: frame.write(n + 1, Begin(None, 0, 100, 100))],
    ids=["links", "sessions"],
)
def test_ten_thousand_end_their_connection(
    hub: Hub, bystander: Wire, make: Callable[[Hub], AmqpWire], one: Callable[[int], bytes]
) -> None:
    before = hub.megabytes
    with make(hub) as wire:
        wire.send_what_goes(b"".join(one(number) for number in range(10_000)), seconds=20)
        close = wire.take_close()
        assert close.error
        assert close.error.condition == "amqp:resource-limit-exceeded"
        wire.expect_end()
    assert hub.megabytes < before + MEGABYTES
    assert twin_seconds(hub, bystander) < ANSWER_SECONDS


def test_a_client_that_never_reads_is_read_no_further(hub: Hub, bystander: Wire) -> None:
    before = hub.megabytes
    with dial(hub, receive_buffer=4096) as wire:
        wire.send(OPENING)
        wire.send_what_goes(NOWHERE * 200_000, seconds=5)
        assert hub.megabytes < before + MEGABYTES
        assert twin_seconds(hub, bystander) < ANSWER_SECONDS


def test_messages_beyond_the_credit_end_the_link_or_the_connection(
    hub: Hub, bystander: Wire
) -> None:
    message = Message(b"x", Properties(to="/devices/unknown/messages/devicebound")).to_bytes()
    with authorized(hub) as wire:
        many = b"".join(
            write(0, Transfer(2, n, b"t", more=n > 0), message[: 5 if n else None])
            for n in range(200)
        )
        wire.send_what_goes(many)
        wire.expect_end()
    assert twin_seconds(hub, bystander) < ANSWER_SECONDS


def test_a_crowd_of_idle_clients_leaves_room_for_a_device(hub: Hub) -> None:
    before = hub.megabytes
    with ExitStack() as crowd:
        for number in range(300):
            wire = crowd.enter_context(dial(hub))
            wire.send(b"" if number % 3 == 0 else OPENING[:20] if number % 3 == 1 else OPENING)
        with hub.connect("bystander", TWIN_ANSWERS) as device:
            assert twin_seconds(hub, device) < ANSWER_SECONDS
        assert hub.megabytes < before + MEGABYTES
    wait_until(lambda: hub.sockets(PLAIN) == 0)


# --- the shares of connections, without a process and its time


async def connected(lab: Lab, name: str, running: AsyncExitStack, *, links: int = 1) -> FakeStream:
    """Connect a device, and attach links that send telemetry."""
    lab.register(name)
    stream = FakeStream()
    task = asyncio.ensure_future(Driver(stream, lab.hub, None, 5671, EncodedEvents()).run())

    async def end() -> None:
        stream.arrive()
        await task

    running.push_async_callback(end)
    login = f"\0{name}@sas.{HOST}\0{device_token(lab, name)}".encode()
    target = Target(f"/devices/{name}/messages/events")
    stream.arrive(
        frame.SASL_HEADER,
        frame.write(0, SaslInit("PLAIN", login), frame.SASL),
        OPENING,
        *(write(0, Attach(f"t{n}", n, SENDER, target=target)) for n in range(links)),
    )
    await settle(20 + links)
    return stream


async def test_six_floods_together_have_one_turn_of_the_event_loop(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TURN_SECONDS", 0)  # so a turn is one frame
    names = [f"flood{number}" for number in range(6)]
    sent = dict.fromkeys(names, 0)
    differences = set()
    take = TelemetryLink.on_message

    def count(link: TelemetryLink, delivery: IncomingDelivery) -> None:
        sent[link.device.key.device_id] += 1
        differences.add(max(sent.values()) - min(sent.values()))
        take(link, delivery)

    monkeypatch.setattr(TelemetryLink, "on_message", count)
    async with AsyncExitStack() as running:
        streams = [await connected(lab, name, running) for name in names]
        for stream in streams:
            stream.arrive(*(write(0, Transfer(0, n, b"t"), b"") for n in range(50)))
        counts = [0]
        for _ in range(1_000):
            await asyncio.sleep(0)
            counts.append(sum(sent.values()))
    assert (counts[-1], lab.hub.events.end) == (300, 300)
    assert {after - before for before, after in itertools.pairwise(counts)} == {0, 1}
    assert max(differences) <= 2


@pytest.mark.parametrize("last", [write(0, Close()), write(0, End()), b""])
async def test_the_links_of_a_connection_end_in_turns(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, last: bytes
) -> None:
    monkeypatch.setattr(limits, "TURN_SECONDS", 0)  # so a turn is one link
    ended = 0
    end = TelemetryLink.end

    def count(link: TelemetryLink) -> None:
        nonlocal ended
        ended += 1
        end(link)

    monkeypatch.setattr(TelemetryLink, "end", count)
    async with AsyncExitStack() as running:
        stream = await connected(lab, "flood", running, links=300)
        stream.arrive(last)
        counts = [ended]
        for _ in range(1_000):
            await asyncio.sleep(0)
            counts.append(ended)
    steps = [after - before for before, after in itertools.pairwise(counts) if after > before]
    assert (counts[0], counts[-1]) == (0, 300)
    assert steps[0] <= 65
    assert set(steps[1:]) == {1}
    assert lab.state("flood") == "Disconnected"


async def test_links_end_before_the_peer_has_read_the_close(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as running:
        stream = await connected(lab, "flood", running, links=100)
        monkeypatch.setattr(stream, "_close", lambda: None)
        [link] = lab.hub.links.links()
        link.detach("connection")
        assert lab.state("flood") == "Connected"
        await settle()
        assert lab.state("flood") == "Disconnected"


def test_only_a_frame_or_two_are_handled_without_a_turn() -> None:
    client = Peer().begin()
    for data, is_short in (
        (frame.EMPTY, True),
        (frame.EMPTY * 2, True),
        (frame.EMPTY * 3, False),
        (NOWHERE[:-1], True),
        (b"\x00" * 100, False),
    ):
        assert client.connection.is_short(data) is is_short, data
    client.send(frame.EMPTY[:5])
    assert not client.connection.is_short(frame.EMPTY[5:] + frame.EMPTY)
