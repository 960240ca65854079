"""One client's connection: reads and writes for the pure `Connection`, and paces and times it.

A frame or two that arrive while the connection is idle are handled where they arrive. More take
turns with other connections, and wait while the peer does not read.
"""

from __future__ import annotations

import asyncio

from emulator.amqp.client import Client
from emulator.amqp.errors import AmqpError
from emulator.amqp.nodes.event_messages import EncodedEvents
from emulator.amqp.other_service import OtherService
from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.core.clock import Timer, TimeSource
from emulator.hub.hub import IotHub
from emulator.net.streams import Stream

# How many bytes are handled before the answers go out, and the peer must have read earlier ones.
_PIECE = 4 * 1024


class Driver:
    """Passes what a stream brings to a connection, and back.

    Args:
        stream: the stream.
        hub: the hub.
        certificate: the certificate of the peer; None if it sent none.
        tls_port: see `AmqpServer`.
        encoded: see `Client`.
        other: another service that shares the port.
    """

    def __init__(
        self,
        stream: Stream,
        hub: IotHub,
        certificate: ClientCertificate | None,
        tls_port: int,
        encoded: EncodedEvents,
        other: OtherService | None = None,
    ) -> None:
        self._stream = stream
        self._clock: TimeSource = hub.clock.machine
        self._turns = hub.turns
        client = Client(
            hub,
            tls_port,
            certificate,
            stream.peer,
            self._wake,
            stream.trust,
            encoded,
            lambda rate: stream.pace(rate, hub.clock.machine),
            stream.abort,
            (other, stream) if other is not None else None,
        )
        self._connection = client.connection
        self._loop = asyncio.get_running_loop()
        self._woken = False
        self._ended = False
        self._drainer: asyncio.Task[None] | None = None
        self._ender: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._due = float("inf")

    async def run(self) -> AmqpError | None:
        """Speak AMQP until the connection ends.

        Returns:
            why the hub closed the connection; None if the peer closed it.

        Raises:
            OSError: the connection broke.
        """
        stream, connection = self._stream, self._connection
        stream.at_once = self._receive_at_once
        try:
            self._time()
            while not connection.closed and (data := await stream.read()):
                if stream.paced is not None:
                    await stream.paced.wait(len(data))
                await self._receive(data)
        finally:
            connection.lost()
            self._forget()
            await self._end_links()
        return connection.error

    def close(self, error: AmqpError) -> None:
        """Close the connection."""
        self._connection.close(error)
        self._flush()

    def _receive_at_once(self, data: bytes) -> bool:
        if not self._connection.is_short(data):
            return False
        for _ in self._connection.receive(data, self._clock.monotonic()):
            pass
        self._flush()
        return True

    async def _receive(self, data: bytes) -> None:
        turns = self._turns
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            await turns.take()
            for _ in self._connection.receive(piece, self._clock.monotonic()):
                if turns.over:
                    await turns.take()
            self._flush()
            await self._stream.drain()
            if self._connection.closed:
                break

    def _wake(self) -> None:
        """Send what waits, in the next turn of the loop: the hub may be in the middle of a call."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what waits; let links send more, if the peer reads."""
        self._woken = False
        if self._ended:
            return
        connection, stream = self._connection, self._stream
        if data := connection.data_to_send():
            stream.write(data)
        if connection.closed:
            stream.close()  # which waits for the peer
            if connection.is_ending and self._ender is None:
                self._ender = self._loop.create_task(self._end_links())
            return
        self._time()
        if stream.is_full:
            if self._drainer is None:
                self._drainer = self._loop.create_task(self._drain())
        else:
            self._drained()

    async def _drain(self) -> None:
        await self._stream.drain()
        self._drainer = None
        self._drained()

    def _drained(self) -> None:
        if self._connection.congested:
            self._wake()  # there will be more to send, in a turn of its own
        self._connection.drained()

    async def _end_links(self) -> None:
        """End the links of a connection that has ended, in turns."""
        steps = self._connection.end_links()
        try:
            for _ in steps:
                if self._turns.over:
                    await self._turns.take()
        finally:
            for _ in steps:  # the task was cancelled
                pass

    # --- time

    def _time(self) -> None:
        """Set the timer, if the next deadline is earlier than the one it is set for."""
        due = self._connection.next_deadline()
        if due < self._due:
            self._due = due
            if self._timer is not None:
                self._timer.cancel()
            seconds = max(0.0, due - self._clock.monotonic())
            self._timer = self._clock.call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._timer, self._due = None, float("inf")
        self._connection.tick(self._clock.monotonic())
        self._flush()

    def _forget(self) -> None:
        self._ended = True
        # The stream and this object hold each other: both would wait for the garbage collector.
        self._stream.at_once = None
        if self._timer is not None:
            self._timer.cancel()
        if self._drainer is not None:
            self._drainer.cancel()
