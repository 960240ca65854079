"""One device's connection: reads and writes for a channel, and paces and times it.

A few bytes that arrive while the connection is idle are handled where they arrive. More than a few
take turns with other connections, and wait while the device does not read. So do all bytes if the
hub limits telemetry: while a message waits for its turn, the hub reads no more of this device.
"""

from __future__ import annotations

import asyncio

from emulator.hub.access.operations import Operation
from emulator.hub.access.throttles import Throttles
from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.turns import Turns
from emulator.mqtt.channel import Channel, Wait
from emulator.mqtt.frame import ProtocolError
from emulator.mqtt.other_channel import OtherChannel
from emulator.net.pace import Pace
from emulator.net.streams import Stream


class Connection:
    """Passes what a stream brings to a channel, which writes to the stream itself."""

    def __init__(
        self,
        stream: Stream,
        channel: Channel,
        clock: Clock,
        turns: Turns,
        throttles: Throttles,
    ) -> None:
        self._stream = stream
        self._channel: Channel | OtherChannel = channel
        self._clock = clock
        self._turns = turns
        self._throttles = throttles
        self._connected = False  # as far as timers are concerned
        self._waits = False
        self._heard = 0.0

    async def run(self) -> None:
        """Handle packets until the connection ends.

        Raises:
            ProtocolError: the device broke a rule.
            OSError: the connection broke.
        """
        machine, seconds = self._clock.machine, limits.MQTT_CONNECT_TIMEOUT
        self._timer = machine.call_later(seconds, self._stream.close)
        try:
            while not self._channel.closed and (data := await self._stream.read()):
                self._heard = self._clock.monotonic()
                if self._stream.paced is not None:
                    await self._wait_for_link(self._stream.paced, len(data))
                await self._handle(data)
                if self._channel.successor is not None:
                    self._channel = self._channel.successor
                    self._time_keep_alive()
            if not (self._channel.connected or self._channel.closed):
                raise ProtocolError("No CONNECT, or not in time")
        finally:
            self._timer.cancel()
            self._channel.lost()
            # Stream and connection hold each other: both would wait for the garbage collector.
            self._stream.at_once = None

    def _handle_at_once(self, data: bytes) -> bool:
        """Handle a few packets, without waiting for anything."""
        self._heard = self._clock.monotonic()
        channel = self._channel
        if not channel.receive_one(data):
            try:
                for _ in channel.receive(data):
                    pass
            finally:
                channel.flush()
        return True

    async def _handle(self, data: bytes) -> None:
        """Handle packets in their order, and wait while the device does not read our answers.

        The answers of a turn go out together. One read can have 30,000 packets.
        """
        await self._turns.take()
        try:
            for wait in self._channel.receive(data):
                if wait is not None:
                    await self._send()
                    await self._wait(wait)
                elif self._turns.over or self._stream.is_full:
                    await self._send()
                    await self._turns.take()
        finally:
            await self._send()
        self._channel.resume()

    async def _wait_for_link(self, pace: Pace, size: int) -> None:
        self._waits = True
        try:
            await pace.wait(size)
        finally:
            self._waits = False
            self._heard = self._clock.monotonic()

    async def _wait(self, wait: Wait) -> None:
        """Wait for a delay or for a turn, unless the hub closes the connection meanwhile."""
        self._waits = True
        try:
            # Not in a task of its own: the turn must be used before another task runs.
            async with asyncio.timeout(None) as limit:
                self._stream.on_close = lambda: limit.reschedule(0)
                if isinstance(wait, Operation):
                    await self._throttles.wait(wait)
                else:
                    await self._clock.sleep(wait)
        except TimeoutError:
            pass
        finally:
            self._stream.on_close, self._waits = None, False
            self._heard = self._clock.monotonic()

    async def _send(self) -> None:
        self._channel.flush()
        self._time_keep_alive()
        await self._stream.drain()

    def _time_keep_alive(self) -> None:
        """From the CONNECT on, time the silence of the device in place of its CONNECT."""
        if self._channel.connected and not self._connected:
            self._connected = True
            self._stream.trust()
            self._timer.cancel()
            if not self._throttles.limits(Operation.SEND_EVENT):
                self._stream.at_once = self._handle_at_once
            self._check_keep_alive()

    def _check_keep_alive(self) -> None:
        silence = 0.0 if self._waits else self._clock.monotonic() - self._heard
        left = self._channel.silence - silence
        if left > 0:
            self._timer = self._clock.call_later(left, self._check_keep_alive)
        else:
            self._channel.expire()
