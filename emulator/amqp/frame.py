"""AMQP frames as bytes: cut from a stream, parsed and written. Section numbers: AMQP 1.0."""

from __future__ import annotations

import struct

from emulator.amqp.composite import Composite
from emulator.amqp.decoder import decode
from emulator.amqp.errors import AmqpError, Condition, DecodeError
from emulator.amqp.performatives import PERFORMATIVES, SASL_FRAMES, Transfer, by_descriptor

# Protocol headers (sections 2.2 and 5.3.1).
AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"

# The types of frames (sections 2.3.1 and 5.3.2).
AMQP = 0
SASL = 1

# The smallest limit of a frame's size that a peer may set (section 2.8.19).
MIN_MAX_FRAME_SIZE = 512

# A frame without a body, which resets the idle time-out of the peer (section 2.4.5).
EMPTY = b"\x00\x00\x00\x08\x02\x00\x00\x00"

# How many bytes of a transfer frame are not the message: header, fields, and a tag of 32 bytes.
TRANSFER_OVERHEAD = 80

_HEADER = struct.Struct(">IBBH")
_CLASSES: dict[int, dict[object, type[Composite]]] = {
    AMQP: by_descriptor(PERFORMATIVES),
    SASL: by_descriptor(SASL_FRAMES),
}

Frame = tuple[int, Composite | None, bytes]
"""A channel; a performative, or None in an empty frame; and the payload."""


class FrameBuffer:
    """Cuts the bytes of a stream into protocol headers and frames.

    Pieces of an incomplete frame are joined once, when the frame is complete.
    """

    def __init__(self) -> None:
        self._data = b""
        self._position = 0
        self._pieces: list[bytes] = []  # what has arrived behind the data
        self._pieces_size = 0
        self.size = 0
        """The size of the last frame, in bytes."""

    def append(self, data: bytes) -> None:
        """Add what has arrived."""
        self._pieces.append(data)
        self._pieces_size += len(data)

    def are_few(self, data: bytes, most: int) -> bool:
        """Return whether bytes that follow are so many frames at most, from their first byte on."""
        if self._pieces or self._position < len(self._data):
            return False
        end = 0
        for _ in range(most):
            end += int.from_bytes(data[end : end + 4], "big")
            if end >= len(data):
                return True
        return False

    def header(self) -> bytes | None:
        """Cut off 8 bytes, a protocol header; None if they have not arrived."""
        if not self._has(8):
            return None
        start = self._position
        self._position = start + 8
        return self._data[start : self._position]

    def frame(self, kind: int, limit: int) -> Frame | None:
        """Cut off a frame (section 2.3), and parse it; None if it has not arrived.

        Args:
            kind: AMQP or SASL.
            limit: the size of the largest frame.

        Raises:
            AmqpError: the frame is malformed; raised before a frame that is too large has arrived.
        """
        if not self._has(8):
            return None
        start = self._position
        size, offset, actual, channel = _HEADER.unpack_from(self._data, start)
        if not 8 <= size <= limit:
            raise _framing_error(f"A frame of {size} bytes: 8 to {limit} are allowed")
        if not 8 <= 4 * offset <= size:
            raise _framing_error(f"A frame of {size} bytes with its body at byte {4 * offset}")
        if actual != kind:
            raise _framing_error(f"A frame of type {actual} in place of {kind}")
        if not self._has(size):
            return None
        start, self.size = self._position, size
        end = self._position = start + size
        return channel, *_parse(self._data, start + 4 * offset, end, _CLASSES[kind])

    def _has(self, size: int) -> bool:
        rest = len(self._data) - self._position
        if rest >= size:
            return True
        if rest + self._pieces_size < size:
            if not rest:  # an idle connection holds no bytes
                self._data, self._position = b"", 0
            return False
        if rest:
            self._pieces.insert(0, self._data[self._position :])
        self._data = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
        self._position = self._pieces_size = 0
        self._pieces = []
        return True


def _framing_error(description: str) -> AmqpError:
    return AmqpError(Condition.FRAMING_ERROR, description)


def _parse(
    data: bytes, position: int, end: int, classes: dict[object, type[Composite]]
) -> tuple[Composite | None, bytes]:
    """Parse a frame's body: a performative, and the payload behind it."""
    if position == end:
        return None, b""
    if data[position] != 0:
        raise DecodeError("A frame without a performative")
    if data[position + 1 : position + 2] == b"\x53" and position + 3 <= end:  # as peers write it
        cls, position = classes.get(data[position + 2]), position + 3
    else:
        descriptor, position = decode(data, position + 1, end)
        cls = classes.get(descriptor) if isinstance(descriptor, int | str) else None
    if cls is None:
        raise DecodeError("A frame with an unknown performative")
    values, position = decode(data, position, end)
    if position < end and cls is not Transfer:
        raise DecodeError(f"{cls.NAME}: bytes behind the performative")
    return cls.from_fields(values), data[position:end]


def write(channel: int, performative: Composite, kind: int = AMQP) -> bytes:
    """Write a frame without a payload."""
    body = performative.to_bytes()
    return _HEADER.pack(8 + len(body), 2, kind, channel) + body


# Each combination of the fields `settled` and `more`, and the five fields behind them.
_TAILS = {
    (settled, more): (b"\x41" if settled else b"\x42")
    + (b"\x41" if more else b"\x42")
    + b"\x40" * 5
    for settled in (False, True)
    for more in (False, True)
}
_CONTINUED = b"\x40\x40\x40"
_TRANSFER = struct.Struct(">IBBH6B").pack


def write_transfer(
    channel: int, handle: bytes, delivery: bytes | None, settled: bool, more: bool, payload: bytes
) -> bytes:
    """Write a transfer with its payload (section 2.7.5): the frame of which there are most.

    Args:
        channel: the channel.
        handle: the handle, encoded.
        delivery: id, tag and format of the message, encoded; None behind its first frame.
        settled: whether the message is sent settled.
        more: whether more frames of this message follow.
        payload: the message, or a part.
    """
    fields = handle + (delivery or _CONTINUED) + _TAILS[settled, more]
    size = len(fields)
    header = _TRANSFER(
        14 + size + len(payload), 2, AMQP, channel, 0, 0x53, 0x14, 0xC0, size + 1, 11
    )
    return b"%b%b%b" % (header, fields, payload)
