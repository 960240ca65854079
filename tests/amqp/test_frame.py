"""Frames: cut from a stream, parsed and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.amqp import frame
from emulator.amqp.composite import Composite
from emulator.amqp.decoder import decode
from emulator.amqp.encoder import encode
from emulator.amqp.errors import AmqpError, DecodeError
from emulator.amqp.performatives import (
    ACCEPTED,
    Attach,
    Begin,
    Close,
    Coordinator,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Modified,
    Open,
    Rejected,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
    Source,
    Target,
    Transfer,
)
from emulator.amqp.types import Described, Symbol, UInt
from tests.amqp import raw

LIMIT = 64 * 1024

_FRAMES: dict[str, tuple[Composite, str]] = {
    "open": (
        Open("me", "host", 65536, 255, 240000),
        "005310 {0a a1026d65 a104686f7374 7000010000 6000ff 700003a980 4040404040}",
    ),
    "begin": (
        Begin(3, 1, 2048, 100),
        "005311 {08 600003 5201 7000000800 5264 70ffffffff 404040}",
    ),
    "attach": (
        Attach("l", 0, False, 0, 1, Source("s"), Target("t"), initial_delivery_count=0),
        "005312 {0e a1016c 43 42 5000 5001"
        " 005328 {0b a10173 43 a30b73657373696f6e2d656e64 43 42 404040404040}"
        " 005329 {07 a10174 43 a30b73657373696f6e2d656e64 43 42 4040}"
        " 40 42 43 40404040}",
    ),
    "flow": (
        Flow(None, 10, 1, 20, 5, 6, 7, drain=True),
        "005313 {0b 40 520a 5201 5214 5205 5206 5207 40 41 42 40}",
    ),
    "transfer": (
        Transfer(1, 2, b"t", 0, False),
        "005314 {0b 5201 5202 a00174 43 42 42 4040 42 42 42}",
    ),
    "disposition": (
        Disposition(True, 1, 3, True, ACCEPTED),
        "005315 {06 41 5201 5203 41 00532445 42}",
    ),
    "disposition, rejected": (
        Disposition(True, 1, None, True, Rejected(Error("amqp:not-found", "x"))),
        "005315 {06 41 5201 40 41"
        " 005325 {01 00531d {03 a30e616d71703a6e6f742d666f756e64 a10178 40}} 42}",
    ),
    "detach": (Detach(1, True), "005316 {03 5201 41 40}"),
    "end": (End(), "005317 {01 40}"),
    "close": (
        Close(Error("c", None, {Symbol("k"): "v"})),
        "005318 {01 00531d {03 a30163 40 {m 02 a3016b a10176}}}",
    ),
}


def cut(data: bytes, kind: int = frame.AMQP, limit: int = LIMIT) -> list[frame.Frame]:
    buffer = frame.FrameBuffer()
    buffer.append(data)
    frames = []
    while (found := buffer.frame(kind, limit)) is not None:
        frames.append(found)
    return frames


@pytest.mark.parametrize(("performative", "data"), _FRAMES.values(), ids=_FRAMES)
def test_each_frame(performative: Composite, data: str) -> None:
    expected = raw.frame("02000003" + data)
    assert frame.write(3, performative).hex() == expected.hex()
    assert cut(expected) == [(3, performative, b"")]


@pytest.mark.parametrize(
    ("performative", "count"),
    [(Open("c"), 10), (Begin(None, 0, 0, 0), 8), (Attach("n", 0, True), 14), (Transfer(0), 11)],
)
def test_all_fields_are_written(performative: Composite, count: int) -> None:
    described, _ = decode(performative.to_bytes())
    assert len(described.value) == count


@pytest.mark.parametrize(
    ("performative", "data"),
    [
        (SaslMechanisms(("A", "B")), "005340 {01 e00c02b3 0000000141 0000000142}"),
        (SaslMechanisms(("A",)), "005340 {01 a30141}"),
        (SaslInit("PLAIN", b"\0u\0p"), "005341 {02 a305504c41494e a00400750070}"),
        (SaslChallenge(b"\x80a"), "005342 {01 a0028061}"),
        (SaslResponse(b"\0"), "005343 {01 a00100}"),
        (SaslOutcome(0), "005344 {01 5000}"),
    ],
)
def test_frames_of_sasl_are_parsed(performative: Composite, data: str) -> None:
    assert cut(raw.frame("02010000" + data), frame.SASL) == [(0, performative, b"")]


def test_the_mechanisms_are_written_as_an_array() -> None:
    written = frame.write(0, SaslMechanisms(("A", "B")), frame.SASL)
    assert written == raw.frame("02010000 005340 {01 e00c02b3 0000000141 0000000142}")


@pytest.mark.parametrize(
    ("data", "performative"),
    [
        ("02000000 00800000000000000018 45", Close()),  # a long ulong
        ("02000000 00a30f616d71703a636c6f73653a6c697374 45", Close()),  # a symbol
        ("03000000 ffffffff 00531845", Close()),  # an extended header
        ("02000000 005310 {01 a10163}", Open("c")),  # fields that are left out have defaults
        ("02000000 005316 {01 43}", Detach(0)),
        (
            "02000000 005312 {07 a1016c 43 41 40 40 40 005330 {01 40}}",
            Attach("l", 0, True, target=Coordinator()),
        ),
        (
            "02000000 005315 {05 41 43 43 42 005327 {03 41 4040}}",
            Disposition(True, 0, 0, False, Modified(True)),
        ),
    ],
)
def test_other_forms_of_frames(data: str, performative: Composite) -> None:
    assert cut(raw.frame(data)) == [(0, performative, b"")]


def test_an_empty_frame() -> None:
    assert cut(frame.EMPTY + frame.write(1, End())) == [(0, None, b""), (1, End(), b"")]


_FRAMING = {
    "a size of 7": "00000007 02000000",
    "a size of 0": "00000000 02000000",
    "a size of 4 GB": "ffffffff 02000000",
    "a size above the limit": "00010001 02000000",
    "a body that begins in the header": "00000008 01000000",
    "a body behind the end": "00000008 03000000",
    "a frame of SASL": "00000008 02010000",
    "HTTP": b"GET / HTTP/1.1\r\n".hex(),
}


@pytest.mark.parametrize("data", _FRAMING.values(), ids=_FRAMING)
def test_malformed_headers_are_refused_at_once(data: str) -> None:
    with pytest.raises(AmqpError) as caught:
        cut(bytes.fromhex(data))
    assert caught.value.condition == "amqp:connection:framing-error"


_BODIES = {
    "a body that is not described": "45",
    "a body that is truncated": "0053",
    "a descriptor that is a list": "004545",
    "an unknown descriptor": "00539945",
    "a performative of SASL": "005344 {01 5000}",
    "a map": "005318 {m 00}",
    "a value": "005318 40",
    "more fields than there are": "005317 {02 4040}",
    "a close with a payload": "00531845 ff",
    "an open without a container": "00531045",
    "an open with a null container": "005310 {01 40}",
    "an open whose container is a number": "005310 {01 43}",
    "a begin without windows": "005311 {02 40 43}",
    "a begin without fields": "00531145",
    "a flow without fields": "00531345",
    "a begin with a null window": "005311 {04 40 43 40 43}",
    "a begin with a negative window": "005311 {04 40 43 54ff 43}",
    "a begin with a channel of 32 bits": "005311 {04 7000010000 43 43 43}",
    "an attach whose role is null": "005312 {03 a1016c 43 40}",
    "an attach whose source is a target": "005312 {06 a1016c 43 41 40 40 00532945}",
    "an attach whose source is a list": "005312 {06 a1016c 43 41 40 40 45}",
    "an attach whose capabilities have a number": (
        "005312 {0c a1016c 43 41 4040 4040 4040 4040 e003015001}"
    ),
    "a transfer with a tag that is a string": "005314 {03 43 43 a10174}",
    "a transfer with more that is a number": "005314 {06 43 40 40 40 40 43}",
    "a disposition with an unknown state": "005315 {05 41 43 40 42 00533445}",
    "a disposition with an error as a state": "005315 {05 41 43 40 42 00531d45}",
    "a rejected with an error without a condition": (
        "005315 {05 41 43 40 42 005325 {01 00531d45}}"
    ),
    "a detach whose handle is a boolean": "005316 {01 41}",
}


@pytest.mark.parametrize("data", _BODIES.values(), ids=_BODIES)
def test_malformed_bodies_are_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        cut(raw.frame("02000000" + data))


def test_a_value_does_not_reach_into_the_next_frame() -> None:
    with pytest.raises(DecodeError):
        cut(raw.frame("02000000 005316 c00601 7000") + frame.write(0, Close()))


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("handle", [0, 1, 255, 2**32 - 1])
def test_transfers_are_written_in_one_step(settled: bool, more: bool, handle: int) -> None:
    delivery = b"\x70\x00\x00\x00\x05\xa0\x20" + b"t" * 32 + encode(UInt(0x80013700))
    payload = b"p" * 1000
    data = frame.write_transfer(9, encode(UInt(handle)), delivery, settled, more, payload)
    expected = Transfer(handle, 5, b"t" * 32, 0x80013700, settled, more)
    assert cut(data) == [(9, expected, payload)]
    assert len(data) <= len(payload) + frame.TRANSFER_OVERHEAD
    continued = frame.write_transfer(9, encode(UInt(handle)), None, settled, more, payload)
    assert cut(continued) == [(9, Transfer(handle, settled=settled, more=more), payload)]
    described, _ = decode(data, 8)
    assert isinstance(described, Described)
    assert len(described.value) == 11


def test_the_payload_is_all_that_is_behind_a_transfer() -> None:
    [(_, _, payload)] = cut(raw.frame("02000000 005314 {01 43} 00005375"))
    assert payload == bytes.fromhex("00005375")


_ALL = [frame.write(each, performative) for each, (performative, _) in enumerate(_FRAMES.values())]


@given(st.lists(st.integers(0, len(b"".join(_ALL))), max_size=40).map(sorted))
def test_frames_in_pieces(ends: list[int]) -> None:
    data = b"".join(_ALL)
    buffer, frames = frame.FrameBuffer(), []
    for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
        buffer.append(data[start:end])
        while (found := buffer.frame(frame.AMQP, LIMIT)) is not None:
            frames.append(found)
    assert frames == cut(data)
    assert len(frames) == len(_ALL)


def test_a_header_in_pieces_and_what_is_behind_it() -> None:
    buffer = frame.FrameBuffer()
    data = frame.AMQP_HEADER + frame.write(0, Open("c"))
    for each in data[:7]:
        buffer.append(bytes([each]))
        assert buffer.header() is None
    buffer.append(data[7:])
    assert buffer.header() == frame.AMQP_HEADER
    assert buffer.frame(frame.AMQP, LIMIT) == (0, Open("c"), b"")


def test_a_large_frame_in_bytes_costs_little() -> None:
    data = frame.write_transfer(0, b"\x43", None, False, False, bytes(60_000))
    buffer = frame.FrameBuffer()
    for each in data[:-1]:
        buffer.append(bytes([each]))
        assert buffer.frame(frame.AMQP, LIMIT) is None
    buffer.append(data[-1:])
    found = buffer.frame(frame.AMQP, LIMIT)
    assert found is not None
    assert len(found[2]) == 60_000
