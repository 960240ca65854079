"""What a service must be that shares the port of a hub's devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from emulator.mqtt.frame import Connect, PacketBuffer
from emulator.mqtt.output import Output


class OtherChannel(Protocol):
    """The channel of another service, for a connection whose CONNECT is for it.

    It has accepted or refused the CONNECT when it is made. The members are those of `Channel`.
    """

    closed: bool
    connected: bool
    silence: float

    @property
    def successor(self) -> OtherChannel | None:
        """None: the connection stays with it."""

    def receive_one(self, data: bytes) -> bool:
        """Take the packet in some bytes, if it can be taken at once; else return False."""

    def receive(self, data: bytes) -> Iterator[None]:
        """Take the packets in some bytes, one at each step."""

    def take(self, first_byte: int, body: bytes) -> None:
        """Take one packet."""

    def flush(self) -> None:
        """Finish what `receive` has begun."""

    def resume(self) -> None:
        """Send what had to wait until the device read what was written before."""

    def expire(self) -> None:
        """End the connection of a device that was silent for too long."""

    def lost(self) -> None:
        """Note that the connection has ended."""


# Returns the channel of a connection, if its CONNECT is for the other service.
FindOther = Callable[[Connect, PacketBuffer, Output], OtherChannel | None]


def find_no_other(connect: Connect, packets: PacketBuffer, output: Output) -> None:
    """Return None: no other service shares the port."""
