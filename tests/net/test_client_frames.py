"""A client's frames before aiohttp's reader sees them: those without a mask, and large messages."""

from __future__ import annotations

import pytest

from emulator.net.client_frames import ClientFrames
from tests.mqtt.web_socket import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame

_LIMIT = 1000

# What the reader gets in place of a frame that is refused.
_INVALID = frame((1002).to_bytes(2, "big"), CLOSE)
_TOO_LARGE = frame((1009).to_bytes(2, "big"), CLOSE)


class _Reader:
    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        self.data += b"the end"


def _unmasked(payload: bytes, opcode: int = BINARY) -> bytes:
    masked = frame(payload, opcode)
    header = len(masked) - len(payload) - 4
    return bytes([masked[0], masked[1] & 0x7F]) + masked[2:header] + payload


_FINE = {
    "an empty frame": frame(b""),
    "short frames": frame(b"abc") + frame(b"d", TEXT) + frame(b"", PING),
    "a frame as large as may be": frame(bytes(_LIMIT)),
    "two of them": frame(bytes(_LIMIT)) * 2,
    "a message in fragments, as large as may be": frame(bytes(400), final=False)
    + frame(b"x" * 100, PING)
    + frame(bytes(300), CONTINUATION, final=False)
    + frame(bytes(300), CONTINUATION),
    "an incomplete header": frame(b"a") + frame(bytes(500))[:3],
    "an incomplete payload": frame(b"a") + frame(bytes(500))[:300],
}
_REFUSED = {
    "no mask": (_unmasked(b"abc"), _INVALID),
    "no mask, and empty": (_unmasked(b""), _INVALID),
    "no mask, and long": (_unmasked(bytes(300)), _INVALID),
    "no mask, and a control frame": (_unmasked(b"", PING), _INVALID),
    "a byte too much": (frame(bytes(_LIMIT + 1)), _TOO_LARGE),
    "a header that announces exabytes": (b"\x82\xff" + (2**62).to_bytes(8, "big"), _TOO_LARGE),
    "a fragment too much": (frame(bytes(_LIMIT), CONTINUATION), _TOO_LARGE),
}
_SIZES = [1, 2, 3, 7, 500, 10_000]


def _feed(data: bytes, size: int, limit: int = _LIMIT) -> bytes:
    reader = _Reader()
    frames = ClientFrames(reader, limit)
    for start in range(0, len(data), size):
        frames.feed_data(data[start : start + size])
    return reader.data


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("data", _FINE.values(), ids=_FINE)
def test_valid_frames_pass_unchanged(data: bytes, size: int) -> None:
    passed = _feed(data, size)
    # The header of a frame waits until it is complete.
    assert data.startswith(passed)
    assert len(data) - len(passed) <= 3
    assert _feed(data + frame(b"z"), size).startswith(passed)


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize(("data", "instead"), _REFUSED.values(), ids=_REFUSED)
def test_a_refused_frame_is_replaced_and_nothing_follows(
    data: bytes, instead: bytes, size: int
) -> None:
    before = frame(b"abc", final=False)
    assert _feed(before + data + frame(b"later"), size) == before + instead


def test_the_limit_can_be_raised_within_a_frame() -> None:
    reader = _Reader()
    frames = ClientFrames(reader, 10)
    frames.feed_data(frame(bytes(10))[:5])
    frames.limit = 100
    frames.feed_data(frame(bytes(10))[5:] + frame(bytes(100)))
    assert reader.data == frame(bytes(10)) + frame(bytes(100))
    assert frames.feed_data(frame(bytes(101))) == (False, b"")
    assert frames.feed_data(b"later") == (True, b"")
    frames.feed_eof()
    assert reader.data.endswith(_TOO_LARGE + b"the end")
