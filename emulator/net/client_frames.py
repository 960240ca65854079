"""The frames of a WebSocket's client, checked on their way to aiohttp's reader (RFC 6455).

aiohttp accepts frames without a mask, and has one limit for the size of a message. A hub has a
smaller one for a client that it does not know yet.
"""

from __future__ import annotations

from typing import Protocol

# In place of a frame that is refused, the reader gets a Close frame. Its code goes back to the
# client: protocol error, message too big (section 7.4.1).
_PROTOCOL_ERROR = b"\x88\x82" + bytes(4) + (1002).to_bytes(2, "big")
_TOO_BIG = b"\x88\x82" + bytes(4) + (1009).to_bytes(2, "big")

_MASKED = 0x80
_FIRST_CONTROL_OPCODE = 8


class Reader(Protocol):
    """What aiohttp's connection passes the bytes of a WebSocket to."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes; return whether the connection must end, and the bytes that are left."""

    def feed_eof(self) -> None:
        """Note the end of the connection."""


class ClientFrames:
    """A reader in front of aiohttp's reader: it refuses frames without a mask and large messages.

    Args:
        reader: aiohttp's reader.
        limit: the largest message that the client may send now, in bytes; it can be changed.
    """

    def __init__(self, reader: Reader, limit: int) -> None:
        self.limit = limit
        self._reader = reader
        self._header = b""  # the first part of an incomplete header
        self._payload = 0  # how much of a frame is still to come
        self._message = 0  # the size of a message so far, which can have many frames
        self._refused = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """See `Reader.feed_data`."""
        if self._refused:
            return True, b""
        data, self._header = self._header + data, b""
        position = min(self._payload, len(data))
        self._payload -= position
        while position < len(data):
            header = _parse_header(data, position)
            if header is None:
                data, self._header = data[:position], data[position:]
                break
            start, length, is_masked = header
            opcode = data[position] & 0x0F
            if opcode < _FIRST_CONTROL_OPCODE:
                self._message = length + (self._message if opcode == 0 else 0)
            if not is_masked or self._message > self.limit:
                self._refused = True
                last = _TOO_BIG if is_masked else _PROTOCOL_ERROR
                return self._reader.feed_data(data[:position] + last)
            end = start + length
            position = min(end, len(data))
            self._payload = end - position
        return self._reader.feed_data(data)

    def feed_eof(self) -> None:
        """See `Reader.feed_eof`."""
        self._reader.feed_eof()


def _parse_header(data: bytes, position: int) -> tuple[int, int, bool] | None:
    """Parse a frame's header (section 5.2).

    Returns:
        where its payload begins, how long it is, and whether it has a mask; None if bytes are
        missing.
    """
    if len(data) < position + 2:
        return None
    length, start = data[position + 1] & 0x7F, position + 2
    if length > 125:
        start += 2 if length == 126 else 8
        if len(data) < start:
            return None
        length = int.from_bytes(data[position + 2 : start], "big")
    is_masked = bool(data[position + 1] & _MASKED)
    return start + 4 * is_masked, length, is_masked
