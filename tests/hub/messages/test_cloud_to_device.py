"""Cloud-to-device messages in the hub: what the time brings, and the links of devices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from emulator.hub.core.errors import DeviceMessageLockLost, HubError
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import MemoryStore
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.connections import Admission
from emulator.hub.messages.commands import Command
from emulator.hub.messages.message import Message

KEY = IdentityKey("d")


class Clock:
    """The time, as the test has it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(eq=False)
class Link:
    """A device's link that notes what it is given."""

    key: IdentityKey = KEY
    accepts_commands: bool = True
    delivered: list[Command] = field(default_factory=list)

    @property
    def bodies(self) -> list[bytes]:
        return [command.message.body for command in self.delivered]

    @property
    def unacknowledged(self) -> list[str]:
        return [command.lock.token for command in self.delivered if command.lock]

    def deliver(self, command: Command) -> None:
        self.delivered.append(command)

    def accepts_method(self, name: str) -> bool:
        return False

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        raise NotImplementedError

    def notify_desired(self, patch: bytes, version: int) -> None:
        raise NotImplementedError

    def close(self, reason: HubError) -> None:
        self.accepts_commands = False


@dataclass
class House:
    """A hub with the device `d`, and its clock."""

    hub: IotHub
    clock: Clock

    def send(self, body: bytes, *, ack: str = "full", expires_in: float | None = None) -> None:
        system = {"message-id": body.decode()}
        if expires_in is not None:
            system["absolute-expiry-time"] = iso(self.clock.now + timedelta(seconds=expires_in))
        self.hub.commands.send("d", Message(body, system, {"iothub-ack": ack}))

    def connect(self) -> Link:
        link = Link()
        self.hub.connect(link, Admission(KEY, self.clock().timestamp() + 86400, "1", "{}"))
        self.hub.listens(link)
        return link

    @property
    def count(self) -> int:
        registry = self.hub.registry
        counts = {
            document["cloudToDeviceMessageCount"]
            for document in (registry.get_device("d"), registry.get_twin(KEY))
        }
        (count,) = counts
        assert isinstance(count, int)
        return count

    def feedback(self) -> list[tuple[str, str, str]]:
        records = []
        while (batch := self.hub.commands.receive_feedback()) is not None:
            records += batch.records
            assert batch.lock is not None
            self.hub.commands.complete_feedback(batch.lock.token)
        return [(r["originalMessageId"], r["statusCode"], r["enqueuedTimeUtc"]) for r in records]


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    clock = Clock()
    hub = IotHub(store=MemoryStore(), policies=(), hosts=("hub",), clock=clock)
    hub.registry.put_device("d", {"deviceId": "d"}, IfMatch(None))
    yield House(hub, clock)
    hub.drop_all()


async def test_feedback_tells_when_a_message_expired_not_when_it_was_noticed(house: House) -> None:
    expiry = house.clock.now + timedelta(seconds=10)
    house.send(b"short", expires_in=10)
    house.send(b"usual")
    house.clock.advance(9)
    assert (house.count, house.feedback()) == (2, [])
    house.clock.advance(1)
    assert house.count == 1
    house.clock.advance(100)
    assert house.feedback() == [("short", "Expired", iso(expiry))]
    # A message that doesn't say when it expires does so after an hour.
    house.clock.advance(3600)
    assert house.count == 0
    assert [record[:2] for record in house.feedback()] == [("usual", "Expired")]


async def test_an_expired_message_is_not_pushed_and_makes_room(house: House) -> None:
    for number in range(50):
        house.send(str(number).encode(), expires_in=10 if number else 1000)
    house.clock.advance(10)
    house.send(b"next")
    assert house.connect().bodies == [b"0", b"next"]


async def test_a_lock_over_https_lapses_after_a_minute_and_the_count_stays(house: House) -> None:
    house.send(b"one")
    first = house.hub.commands.receive("d")
    assert first is not None
    assert first.lock is not None
    house.clock.advance(59)
    assert house.hub.commands.receive("d") is None
    assert house.count == 1
    house.clock.advance(1)
    second = house.hub.commands.receive("d")
    assert second is not None
    assert (second.message.body, second.delivery_count) == (b"one", 0)
    with pytest.raises(DeviceMessageLockLost):
        house.hub.commands.complete("d", first.lock.token)
    assert house.feedback() == []


async def test_what_was_pushed_stays_with_its_connection_for_as_long_as_that_lasts(
    house: House,
) -> None:
    house.send(b"one")
    link = house.connect()
    house.clock.advance(3000)
    house.send(b"two")
    assert link.bodies == [b"one", b"two"]
    assert house.hub.commands.receive("d") is None
    house.hub.disconnect(link)
    again = house.connect()
    assert again.bodies == [b"one", b"two"]
    assert all(command.handed_out for command in again.delivered)


async def test_what_was_pushed_and_expired_dies_with_its_connection(house: House) -> None:
    house.send(b"one", expires_in=10)
    link = house.connect()
    house.clock.advance(20)
    house.hub.disconnect(link)
    assert [record[:2] for record in house.feedback()] == [("one", "Expired")]
    assert house.connect().bodies == []


async def test_a_message_given_back_over_https_is_pushed_to_the_device(house: House) -> None:
    house.send(b"one")
    command = house.hub.commands.receive("d")
    assert command is not None
    assert command.lock is not None
    link = house.connect()
    assert link.bodies == []
    house.hub.commands.abandon("d", command.lock.token)
    assert link.bodies == [b"one"]
    assert link.delivered[0].delivery_count == 1


async def test_a_lock_over_https_outlives_the_end_of_an_mqtt_connection(house: House) -> None:
    """Only what a connection holds comes back when it ends (IoT Hub docs: life cycle)."""
    house.send(b"one")
    command = house.hub.commands.receive("d")
    assert command is not None
    assert command.lock is not None
    house.hub.disconnect(house.connect())
    house.hub.commands.complete("d", command.lock.token)
    assert [record[:2] for record in house.feedback()] == [("one", "Success")]


async def test_a_message_whose_lock_over_https_lapsed_is_pushed_to_a_device_that_listens(
    house: House,
) -> None:
    house.send(b"one")
    assert house.hub.commands.receive("d") is not None
    link = house.connect()
    house.clock.advance(61)
    house.send(b"two")
    assert link.bodies == [b"one", b"two"]
