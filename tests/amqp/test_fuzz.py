"""Bytes by chance. Whatever comes, the connection answers it or closes with a condition.

A normal run tries a few; the environment variable FUZZ_EXAMPLES sets how many each test tries.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.amqp import frame
from emulator.amqp.composite import Composite
from emulator.amqp.encoder import encode
from emulator.amqp.limits import Limits
from emulator.amqp.performatives import (
    ACCEPTED,
    PERFORMATIVES,
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Modified,
    Open,
    Received,
    Rejected,
    Released,
    SaslInit,
    Source,
    Target,
    Transfer,
)
from emulator.amqp.types import Described, Symbol, ULong
from tests.amqp.playbook import Peer, write

_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
# The fixture is one for all examples: each of them clears the log.
_checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
on_a_connection = settings(max_examples=3 * _EXAMPLES, deadline=None, suppress_health_check=_checks)

_LIMITS = Limits(sessions=3, links=5, buffered_bytes=5_000, sent_bytes=2_000, seconds=60)

_SMALL = st.integers(0, 4)
_UINT = st.one_of(_SMALL, st.sampled_from([10, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))
_STATE = st.sampled_from([None, ACCEPTED, Released(), Modified(), Rejected(), Received(0, 0)])
_ADDRESS = st.sampled_from(["x", "later", "unknown", "", None])
_FLAG = st.booleans()
_FRAMES: st.SearchStrategy[Composite] = st.one_of(
    st.builds(Begin, st.none(), _UINT, _UINT, _UINT),
    st.builds(
        Attach, st.sampled_from("abc"), _SMALL, _FLAG, st.integers(0, 2), st.integers(0, 1),
        st.builds(Source, _ADDRESS), st.builds(Target, _ADDRESS), initial_delivery_count=_UINT,
    ),
    st.builds(
        Flow, st.none() | _UINT, _UINT, _UINT, _UINT, st.none() | _SMALL, st.none() | _UINT,
        st.none() | _UINT, st.none(), _FLAG, _FLAG,
    ),
    st.builds(
        Transfer, _SMALL, _UINT, st.binary(max_size=4), st.none(), st.none() | _FLAG, _FLAG,
        st.none(), _STATE, _FLAG, _FLAG,
    ),
    st.builds(Transfer, _SMALL, more=_FLAG),
    st.builds(Disposition, _FLAG, _UINT, st.none() | _UINT, _FLAG, _STATE),
    st.builds(Detach, _SMALL, _FLAG),
    st.just(End()),
    st.sampled_from([Open("again"), Close()]),
)  # fmt: skip
_PAYLOADS = st.sampled_from([b"", b"m", bytes(900)])


@st.composite
def _streams(draw: st.DrawFn) -> bytes:
    """Frames that are valid, each by itself, on a connection with two links."""
    parts = []
    for _ in range(draw(st.integers(0, 25))):
        performative = draw(_FRAMES)
        payload = draw(_PAYLOADS) if isinstance(performative, Transfer) else b""
        parts.append(write(draw(st.sampled_from([0, 0, 0, 1])), performative, payload))
    return b"".join(parts)


_START = (
    frame.AMQP_HEADER
    + write(0, Open("c", max_frame_size=512, idle_time_out=1000))
    + write(0, Begin(None, 0, 3, 9))
    + write(0, Attach("a", 0, SENDER, target=Target("x")))
    + write(0, Attach("b", 1, RECEIVER, source=Source("x", filter={Symbol("f"): "v"})))
    + write(0, Flow(1, 3, 0, 9, 1, 0, 9))
    + write(0, Transfer(0, 0, b"t", more=True), b"one")
    + write(0, Transfer(0), b"two")
)
_SASL = (
    frame.SASL_HEADER + frame.write(0, SaslInit("PLAIN", b"\0u\0p", "host"), frame.SASL) + _START
)


@st.composite
def _mutated(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> bytes:
    """Change, drop, repeat or insert a few bytes."""
    data = bytearray(draw(streams))
    for _ in range(draw(st.integers(1, 4))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        match draw(st.integers(0, 3)):
            case 0 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 1:
                del data[at : min(end, at + 20)]
            case 2:
                data[at:at] = data[at : min(end, at + 100)]
            case _:
                data[at:at] = draw(st.binary(max_size=10))
    return bytes(data)


class _Sink(Peer):
    """A peer whose answers must be frames, and whose connection must keep its promises."""

    def feed(self, data: bytes, pieces: int) -> None:
        start = time.process_time()
        size = max(1, len(data) // pieces)
        for at in range(0, len(data), size):
            self.send(data[at : at + size])
            self.node.to_send.append(bytes(700))
            self.connection.drained()
            self.now += 0.1
            self.connection.tick(self.now)
        for delivery in self.node.deliveries:
            delivery.settle()
        for link in self.links:
            if link.address == "later":
                self.accept(link)
        assert self.connection.links <= _LIMITS.links + 1
        self.check()
        self.connection.lost()
        self.check()
        assert self.connection.closed
        assert self.connection._buffered == 0
        assert self.connection.links == 0
        assert self.closes == 1
        assert time.process_time() - start < 1

    def check(self) -> None:
        """What was sent is a header or two, and frames that can be parsed; close is the last."""
        data = self.connection.data_to_send()
        kind, closed = frame.AMQP, False
        while data:
            assert not closed
            if data[:4] == b"AMQP":
                kind = frame.SASL if data[:8] == frame.SASL_HEADER else frame.AMQP
                data = data[8:]
                continue
            size = int.from_bytes(data[:4], "big")
            buffer = frame.FrameBuffer()
            buffer.append(data[:size])
            found = buffer.frame(kind, 64 * 1024)
            assert found is not None
            closed = isinstance(found[1], Close)
            data = data[size:]


def _run(data: bytes, pieces: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        _Sink(limits=_LIMITS).feed(data, pieces)
    assert not caplog.records, caplog.text


@on_a_connection
@given(st.binary(max_size=200), st.sampled_from([b"", frame.AMQP_HEADER, _START, _SASL]))
def test_any_bytes(caplog: pytest.LogCaptureFixture, data: bytes, start: bytes) -> None:
    _run(start + data, 3, caplog)


@on_a_connection
@given(_mutated(st.sampled_from([_START, _SASL])), st.integers(1, 50))
def test_a_mutated_start(caplog: pytest.LogCaptureFixture, data: bytes, pieces: int) -> None:
    _run(data, pieces, caplog)


@on_a_connection
@given(_streams(), st.integers(1, 50))
def test_frames_in_any_order(caplog: pytest.LogCaptureFixture, data: bytes, pieces: int) -> None:
    _run(_START + data, pieces, caplog)


@on_a_connection
@given(_mutated(_streams()), st.integers(1, 50))
def test_mutated_frames(caplog: pytest.LogCaptureFixture, data: bytes, pieces: int) -> None:
    _run(_START + data, pieces, caplog)


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=9)),
    lambda values: st.lists(values, max_size=6) | st.dictionaries(st.text(max_size=3), values),
    max_leaves=8,
)


@on_a_connection
@given(st.sampled_from(PERFORMATIVES), st.lists(_VALUES, max_size=15))
def test_fields_of_any_type(
    caplog: pytest.LogCaptureFixture, cls: type[Composite], values: list[Any]
) -> None:
    body = encode(Described(ULong(cls.CODE), values))
    data = (len(body) + 8).to_bytes(4, "big") + b"\2\0\0\0" + body
    _run(_START + data, 1, caplog)
    _run(frame.AMQP_HEADER + data, 1, caplog)
