"""A device over MQTT 3.1.1, without an SDK: it publishes with QoS 1, and receives.

The packets that the hub reads and writes too are those of `emulator/mqtt/frame.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from urllib.parse import quote

from emulator.client import API_VERSION
from emulator.errors import ClientError
from emulator.mqtt.frame import PUBACK, PUBLISH, ProtocolError, Publish, parse_publish, puback
from emulator.mqtt.frame import publish as publish_packet

_KEEP_ALIVE_SECONDS = 60
_PING = b"\xc0\x00"
_DISCONNECT = b"\xe0\x00"
_CONNACK, _SUBACK, _REFUSED = 0x20, 0x90, 0x80
_TIMEOUT_SECONDS = 30.0
# Section 3.2.2.3 of MQTT 3.1.1.
_REASONS = {
    2: "the id is refused",
    3: "the hub is not available",
    4: "wrong key or certificate",
    5: "not authorized. Check that the device is enabled, and its key or certificate",
}


class MqttDevice:
    """A device, and its connection.

    Args:
        address: the host and the port of the hub.
        context: TLS; with a certificate if the device has one.
        host: the name of the hub.
        device_id: the device.
        token: its SAS token; None with a certificate.
        model_id: its IoT Plug and Play model.
        receive: is called with each message from the hub, in order.
    """

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        *,
        host: str,
        device_id: str,
        token: str | None,
        model_id: str | None,
        receive: Callable[[MqttDevice, Publish], None],
    ) -> None:
        self.device_id = device_id
        self._address, self._context = address, context
        model = f"&model-id={quote(model_id, safe='')}" if model_id else ""
        self._user_name = f"{host}/{device_id}/?api-version={API_VERSION}{model}"
        self._token = token
        self._receive = receive
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None

    async def connect(self) -> None:
        """Connect.

        Raises:
            ClientError: the hub can't be reached, or refuses the device.
        """
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                self._reader, self._writer = await asyncio.open_connection(
                    *self._address, ssl=self._context
                )
                self._writer.write(_connect(self.device_id, self._user_name, self._token))
                first, body = await self._packet()
        except (OSError, EOFError) as error:
            reason = str(error) or type(error).__name__
            raise ClientError(f"Can't connect {self.device_id} to the hub: {reason}.") from error
        if first != _CONNACK or body[1]:
            self._writer.close()
            reason = _REASONS.get(body[1], f"return code {body[1]}")
            raise ClientError(f"The hub refuses the connection of {self.device_id}: {reason}.")
        self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._ping())]

    async def close(self) -> None:
        """Disconnect."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(OSError):
            self._writer.write(_DISCONNECT)
            self._writer.close()
            await self._writer.wait_closed()

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe to filters with QoS 1.

        Raises:
            ClientError: the hub refuses one.
        """
        body = b"".join(_text(each) + b"\x01" for each in filters)
        granted = await self._ask(lambda number: _packet(0x82, number.to_bytes(2, "big") + body))
        if _REFUSED in granted[2:]:
            raise ClientError(f"The hub refuses a subscription of {self.device_id}.")

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 1, and wait until the hub has it.

        Raises:
            ClientError: the connection is lost.
        """
        await self._ask(lambda number: publish_packet(topic, payload, packet_id=number))

    def answer(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 0, as the answer to a message."""
        self._writer.write(publish_packet(topic, payload))

    async def _ask(self, write: Callable[[int], bytes]) -> bytes:
        self._last_id = self._last_id % 0xFFFF + 1
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[self._last_id] = answer
        if self._failure is not None:
            raise self._failure
        self._writer.write(write(self._last_id))
        return await answer

    async def _read(self) -> None:
        """Read packets until the connection ends; then each wait ends with an error."""
        try:
            while True:
                first, body = await self._packet()
                if first & 0xF0 == PUBLISH:
                    message = parse_publish(first, body)
                    self._receive(self, message)
                    if message.qos:
                        self._writer.write(puback(message.packet_id))
                elif first in (PUBACK, _SUBACK):
                    answer = self._waiting.pop(int.from_bytes(body[:2], "big"), None)
                    if answer is not None and not answer.done():
                        answer.set_result(body)
        except (OSError, EOFError, ProtocolError):
            self._failure = ClientError(f"The hub closed the connection of {self.device_id}.")
        except Exception as error:  # noqa: BLE001 - raised again where a publish waits
            self._failure = error
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._failure)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_ALIVE_SECONDS / 2)
            self._writer.write(_PING)

    async def _packet(self) -> tuple[int, bytes]:
        first = (await self._reader.readexactly(1))[0]
        length = shift = 0
        while True:
            digit = (await self._reader.readexactly(1))[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                return first, await self._reader.readexactly(length)


def _connect(client_id: str, user_name: str, token: str | None) -> bytes:
    """Write a CONNECT of a clean session (section 3.1)."""
    flags = 0x82 if token is None else 0xC2
    head = b"\x00\x04MQTT\x04" + bytes((flags,)) + _KEEP_ALIVE_SECONDS.to_bytes(2, "big")
    texts = (client_id, user_name, *(() if token is None else (token,)))
    return _packet(0x10, head + b"".join(map(_text, texts)))


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def _packet(first: int, body: bytes) -> bytes:
    digits, length = bytearray(), len(body)
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes((first,)) + bytes((*digits, length)) + body
