"""Events as messages of AMQP (IoT Hub docs: read device-to-cloud messages; Event Hubs docs).

Encoded events are kept for a while, as many readers can read the same ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from emulator.amqp.encoder import (
    WRITERS,
    encode,
    encode_annotations,
    encode_binary,
    encode_map,
    encode_symbol,
)
from emulator.amqp.nodes.messages import timestamp
from emulator.amqp.performatives import Properties
from emulator.amqp.types import Timestamp
from emulator.hub.messages.event import Event, Origin
from emulator.hub.messages.event_log import EventLog, Partition

# How many bytes of encoded events are kept.
_KEPT_BYTES = 4 * 1024 * 1024

# System properties, and the properties of AMQP in which they stand. The others are annotations
# (IoT Hub docs: message format).
_PROPERTIES = {
    "message-id": "message_id",
    "user-id": "user_id",
    "to": "to",
    "correlation-id": "correlation_id",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
    "absolute-expiry-time": "absolute_expiry_time",
}


class EncodedEvents:
    """The newest events that were encoded."""

    def __init__(self) -> None:
        self._encoded: dict[int, bytes] = {}
        self._order: deque[int] = deque()
        self._size = 0

    def encode(self, event: Event) -> bytes:
        """Return an event as a message, without delivery annotations."""
        data = self._encoded.get(event.number)
        if data is None:
            data = self._encoded[event.number] = _encode(event)
            self._order.append(event.number)
            self._size += len(data)
            while self._size > _KEPT_BYTES:
                self._size -= len(self._encoded.pop(self._order.popleft()))
        return data


_BY_LOG: WeakKeyDictionary[EventLog, EncodedEvents] = WeakKeyDictionary()


def encoded_events(log: EventLog) -> EncodedEvents:
    """Return the encoded events of a log."""
    return _BY_LOG.setdefault(log, EncodedEvents())


def runtime_metrics(partition: Partition, now: datetime) -> bytes:
    """Return the delivery annotations with the newest event of a partition (azure-eventhub)."""
    last = partition.last
    return b"\x00\x53\x71" + encode_annotations(
        {
            "last_enqueued_sequence_number": last.sequence_number if last else -1,
            "last_enqueued_offset": last.offset if last else "-1",
            "last_enqueued_time_utc": Timestamp(last.enqueued_ms if last else 0),
            "runtime_info_retrieval_time_utc": timestamp(now),
        }
    )


def _encode(event: Event) -> bytes:
    message = event.message
    system, properties = tuple(message.system.items()), message.properties
    try:
        return _encode_texts(event, system, properties)
    except ValueError:  # a text without an encoding must not stop the readers
        system = tuple((name, _in_ascii(value)) for name, value in system)
        properties = {
            _in_ascii(name): None if value is None else _in_ascii(value)
            for name, value in properties.items()
        }
        return _encode_texts(event, system, properties)


def _encode_texts(event: Event, system: _System, properties: Mapping[str, str | None]) -> bytes:
    time = _TIMESTAMP(event.enqueued_ms)
    origin, origin_count = _encode_origin(event.origin)
    is_small = sum(len(value) for _, value in system) <= _CACHED_LENGTH
    encode_system = _encode_system if is_small else _encode_system.__wrapped__
    others, others_count, fields = encode_system(system)
    annotations = (
        *(_NUMBER, _LONG(event.sequence_number), _OFFSET, _STRING(event.offset)),
        *(_TIME, time, origin, _HUB_TIME, time, others),
    )
    return b"".join(
        (
            b"\x00\x53\x72",
            encode_map(annotations, 8 + origin_count + others_count),
            fields,
            b"\x00\x53\x74" + encode(dict(properties)) if properties else b"",
            b"\x00\x53\x75",
            encode_binary(event.message.body),
        )
    )


# The length of the system properties that are worth a place in a cache.
_CACHED_LENGTH = 500

_System = tuple[tuple[str, str], ...]

_NUMBER, _OFFSET, _TIME, _HUB_TIME = map(
    encode_symbol,
    ("x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time", "iothub-enqueuedtime"),
)
_LONG, _STRING, _TIMESTAMP = WRITERS[int], WRITERS[str], WRITERS[Timestamp]


@lru_cache(256)
def _encode_system(system: _System) -> tuple[bytes, int, bytes]:
    """Encode system properties: as annotations, with their number, and as properties of AMQP.

    Many events have the same ones: a content type.
    """
    fields: dict[str, Any] = {}
    annotations: list[bytes] = []
    for name, value in system:
        if (field := _PROPERTIES.get(name)) is not None:
            fields[field] = _property(field, value)
        else:
            annotations += (encode_symbol(name), encode(value))
    properties = Properties(**fields).to_bytes() if fields else b""
    return b"".join(annotations), len(annotations), properties


@lru_cache(1024)
def _encode_origin(origin: Origin) -> tuple[bytes, int]:
    """Encode what the events of one sender share, and count its keys and values."""
    parts: list[bytes] = []
    for name, value in origin.annotations().items():
        parts += (encode_symbol(name), encode(value))
    return b"".join(parts), len(parts)


def _in_ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _property(field: str, value: str) -> Any:
    if field == "user_id":
        return value.encode()
    if field == "absolute_expiry_time":
        return _timestamp(value)
    return value


def _timestamp(text: str) -> Timestamp | None:
    """Return a time of a property bag; None if it is not a time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return timestamp(time)
