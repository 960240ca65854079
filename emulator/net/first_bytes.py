"""Several protocols on one port: the first bytes of a client show which one it speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from emulator.hub.core import limits
from emulator.hub.core.clock import TimeSource

MakeProtocol = Callable[[], asyncio.BaseProtocol]

# How clients begin. Five bytes of a method are enough, which is what OpenSSL shows of them.
_HTTP = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"PATCH", b"DELET", b"OPTIO", b"CONNE", b"TRACE")
_BEGINNINGS = {
    **dict.fromkeys(_HTTP, "HTTP"),
    b"AMQP": "AMQP",  # AMQP 1.0, section 2.2
    b"\x10": "MQTT",  # MQTT 3.1.1, section 3.1.1
    b"\x16\x03": "TLS",  # RFC 8446, section 5.1
}


def protocol_of(data: bytes) -> str:
    """Return the name of the protocol that a client speaks, by its first bytes; "" if unknown."""
    return next((name for first, name in _BEGINNINGS.items() if data.startswith(first)), "")


def advice(data: bytes, served: str, places: Mapping[str, str]) -> str:
    """Return what to tell a user whose client speaks another protocol than a port has.

    Args:
        data: the first bytes of the client.
        served: the protocol of the port.
        places: where the hub serves others, by their names: `https://localhost:8443`, `port 5671`.

    Returns:
        one line; "" if the protocol is unknown.
    """
    name = protocol_of(data)
    if name == served or name not in places:
        return ""
    return f"{name} arrived at a port for {served}: use {places[name]}"


class Switch:
    """Makes the protocols of a listener.

    A client that sends nothing is disconnected after `limits.HTTP_REQUEST_TIMEOUT`.

    Args:
        clock: the time of the machine.
        default: makes the protocol of most connections.
        others: by first bytes, what makes another protocol.
    """

    def __init__(
        self, clock: TimeSource, default: MakeProtocol, others: Mapping[bytes, MakeProtocol]
    ) -> None:
        self.clock = clock
        self._default = default
        self._others = others
        self.waiting: set[asyncio.Transport] = set()
        """The connections on which nothing has arrived."""

    def __call__(self) -> asyncio.BaseProtocol:
        """Make the protocol of a connection that begins."""
        return _FirstBytes(self)

    def choose(self, data: bytes) -> MakeProtocol | None:
        """Return what makes the protocol; None if more bytes are needed."""
        for first, make in self._others.items():
            if data.startswith(first):
                return make
            if first.startswith(data):
                return None
        return self._default


class _FirstBytes(asyncio.Protocol):
    """Waits for the first bytes, and passes the connection on."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._switch.waiting.add(self._transport)
        self._timer = self._switch.clock.call_later(
            limits.HTTP_REQUEST_TIMEOUT, self._transport.abort
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._switch.waiting.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        make = self._switch.choose(self._data)
        if make is None:
            return
        self._switch.waiting.discard(self._transport)
        self._timer.cancel()
        protocol = make()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        _feed(protocol, self._data)


def _feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    if isinstance(protocol, asyncio.BufferedProtocol):
        while data:
            buffer = memoryview(protocol.get_buffer(len(data)))
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            protocol.buffer_updated(count)
            data = data[count:]
    elif isinstance(protocol, asyncio.Protocol):
        protocol.data_received(data)
