"""Messages: their sections, in bytes; and what uamqp reads and writes."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.amqp.encoder import encode
from emulator.amqp.errors import AmqpError, DecodeError
from emulator.amqp.message import (
    BATCH_FORMAT,
    Message,
    Value,
    decode_message,
    decode_messages,
)
from emulator.amqp.performatives import Properties
from emulator.amqp.types import Array, Described, Int, Symbol, Timestamp, UInt, ULong
from tests.amqp.raw import raw

# tests/interop/message.amqp of Apache Qpid Proton.
_INTEROP = (
    "005370d00000000b00000005 42 5004 40 42 5200"
    "005373d0000000220000000d 4040404040404040 830000000000000000 830000000000000000 405200 40"
    "005377a10568656c6c6f"
)


def test_the_vector_of_qpid_proton() -> None:
    message = decode_message(raw(_INTEROP))
    assert message.body == Value("hello")
    assert message.properties == Properties(
        absolute_expiry_time=0, creation_time=0, group_sequence=0
    )


_FULL = Message(
    b"body",
    Properties(
        message_id=ULong(7), user_id=b"u", to="/to", subject="s", reply_to="r",
        correlation_id=uuid.UUID(int=5), content_type="application/json",
        content_encoding="utf-8", absolute_expiry_time=1_700_000_000_000, creation_time=1,
        group_id="g", group_sequence=2, reply_to_group_id="rg",
    ),
    {"text": "a", "int": Int(5), "long": 2**40, "flag": True, "none": None},
    {"x-opt-sequence-number": 5, "iothub-enqueuedtime": Timestamp(9)},
)  # fmt: skip


def test_a_full_message_survives() -> None:
    assert decode_message(_FULL.to_bytes()) == _FULL


def test_a_full_message_as_bytes() -> None:
    assert Message(
        b"hi",
        Properties(message_id="m", content_type="t"),
        {"a": "b"},
        {"x": 1},
    ).to_bytes() == raw(
        "005372 {m 02 a30178 5501}"
        "005373 {0d a1016d 4040404040 a30174 404040404040}"
        "005374 {m 02 a10161 a10162}"
        "005375 a0026869"
    )


@pytest.mark.parametrize(
    "body", [b"", b"x" * 300, Value(None), Value({"a": [Int(1)]}), Value([1, "b"])], ids=repr
)
def test_each_body_survives(body: Any) -> None:
    assert decode_message(Message(body).to_bytes()).body == body


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ("", b""),  # without a body
        ("005375a00161 005375a00162 005375a000", b"ab"),
        ("005375b0000000016 1", b"a"),
        ("00800000000000000075 a00161", b"a"),
        ("00a310616d71703a646174613a62696e617279 a00161", b"a"),  # a symbol, amqp:data:binary
        (
            "005370 {05 42 5004 40 42 43} 005371 {m 00} 005375a00161 005378{m 00}",
            b"a",
        ),
        ("005376c003015501 005376c003015502", Value([1, 2])),
        ("00537740", Value(None)),
        ("005377 00a3016140", Value(Described(Symbol("a"), None))),
    ],
)
def test_other_forms_of_a_body(data: str, body: Any) -> None:
    assert decode_message(raw(data)).body == body


_MALFORMED = {
    "a value outside of a section": "40",
    "an unknown section": "00537940",
    "an unknown symbol": "00a3016140",
    "a descriptor that is a list": "004540",
    "a section that is truncated": "005375",
    "data that is a string": "005375a10161",
    "data that is null": "00537540",
    "properties behind the body": "005375a00161 00537345",
    "properties twice": "00537345 00537345",
    "properties that are a map": "005373 {m 00}",
    "properties with a list as an id": "005373 {01 45}",
    "properties of 14 fields": "005373 {0e 40404040404040 40404040404040}",
    "a time that is a string": "005373 {09 4040404040404040 a10131}",
    "two values": "00537740 00537740",
    "data and a value": "005375a00161 00537740",
    "annotations that are a list": "00537245",
    "application properties with a number as a name": "005374 {m 02 5501 5501}",
    "delivery annotations that are a list": "00537145",
    "a footer that is a list": "005375a00161 00537845",
    "a header that is a map": "005370 {m 00}",
    "a header with a priority of 300": "005370 {02 42 60012c}",
}


@pytest.mark.parametrize("data", _MALFORMED.values(), ids=_MALFORMED)
def test_malformed_messages_are_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        decode_message(raw(data))


# --- batches


def test_a_batch_has_a_message_in_each_section() -> None:
    messages = [Message(b"a", application_properties={"n": "1"}), Message(b"b"), Message(Value(3))]
    batch = b"".join(b"\x00\x53\x75" + encode(each.to_bytes()) for each in messages)
    assert decode_messages(b"\x00\x53\x72\xc1\x01\x00" + batch, BATCH_FORMAT) == messages
    assert decode_messages(b"", BATCH_FORMAT) == []


@pytest.mark.parametrize("data", ["00537740", "005375a00140", "005375a003005375"])
def test_a_malformed_batch_is_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        decode_messages(raw(data), BATCH_FORMAT)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(AmqpError, match="not-implemented: Unknown message format 0x1"):
        decode_messages(b"", 1)


# --- uamqp


@pytest.fixture
def uamqp() -> Any:
    return pytest.importorskip("uamqp")


def test_uamqp_reads_what_is_written(uamqp: Any) -> None:
    read = uamqp.Message.decode_from_bytes(_FULL.to_bytes())
    assert b"".join(read.get_data()) == b"body"
    properties = read.properties
    assert (properties.message_id, properties.user_id, properties.to) == (7, b"u", b"/to")
    assert properties.correlation_id == uuid.UUID(int=5)
    assert (properties.content_type, properties.group_sequence) == (b"application/json", 2)
    assert properties.absolute_expiry_time == 1_700_000_000_000
    assert read.application_properties == {
        b"text": b"a", b"int": 5, b"long": 2**40, b"flag": True, b"none": None
    }  # fmt: skip
    assert read.annotations == {b"x-opt-sequence-number": 5, b"iothub-enqueuedtime": 9}


def test_uamqp_reads_a_value(uamqp: Any) -> None:
    body = {"ids": Array(str, ["0", "1"]), "count": Int(2), "at": Timestamp(5), "empty": True}
    read = uamqp.Message.decode_from_bytes(Message(Value(body)).to_bytes())
    assert read.get_data() == {b"ids": [b"0", b"1"], b"count": 2, b"at": 5, b"empty": True}


def test_what_uamqp_writes_is_read(uamqp: Any) -> None:
    message = uamqp.Message(
        b"hello",
        properties=uamqp.message.MessageProperties(
            message_id="id", to="/devices/d1", correlation_id=uuid.UUID(int=1), content_type="t/u",
            absolute_expiry_time=1234,
        ),
        application_properties={"a": "b", "n": 5, "l": 2**40},
    )  # fmt: skip
    read = decode_message(bytes(message.encode_message()))
    assert read.body == b"hello"
    assert read.properties == Properties(
        message_id="id", to="/devices/d1", correlation_id=uuid.UUID(int=1), content_type="t/u",
        absolute_expiry_time=1234,
    )  # fmt: skip
    assert read.application_properties == {"a": "b", "n": 5, "l": 2**40}


# --- by chance

_TEXT = st.none() | st.text(max_size=20)
_SYMBOL = st.none() | st.text(st.characters(codec="ascii"), max_size=20)
_TIME = st.none() | st.integers(-(2**63), 2**63 - 1)
_IDS = st.one_of(_TEXT, st.integers(0, 2**64 - 1).map(ULong), st.uuids(), st.binary(max_size=20))
_PROPERTIES = st.builds(
    Properties, _IDS, st.none() | st.binary(max_size=9), _TEXT, _TEXT, _TEXT, _IDS, _SYMBOL,
    _SYMBOL, _TIME, _TIME, _TEXT, st.none() | st.integers(0, 2**32 - 1).map(UInt), _TEXT,
)  # fmt: skip
_MESSAGES = st.builds(
    Message,
    st.binary(max_size=300) | st.text().map(Value) | st.lists(st.integers(0, 9)).map(Value),
    _PROPERTIES,
    st.dictionaries(st.text(max_size=9), st.text(max_size=300), max_size=30),
    st.dictionaries(st.text(st.characters(codec="ascii")), st.text(), max_size=9),
)


@given(_MESSAGES)
def test_each_message_survives(message: Message) -> None:
    assert decode_message(message.to_bytes()) == message


@given(_MESSAGES, st.data())
def test_mutated_messages_are_read_or_refused(message: Message, data: st.DataObject) -> None:
    changed = bytearray(message.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    for message_format in (0, BATCH_FORMAT):
        with suppress(DecodeError):
            decode_messages(bytes(changed), message_format)
