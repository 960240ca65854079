"""Events as messages of AMQP (IoT Hub docs: read device-to-cloud messages; Event Hubs docs).

Encoded events are kept for a while, as many readers can read the same ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from emulator.amqp.encoder import (
    WRITERS,
    encode,
    encode_annotations,
    encode_binary,
    encode_map,
    encode_symbol,
)
from emulator.amqp.nodes.messages import PROPERTIES, amqp_properties, in_ascii, timestamp
from emulator.amqp.performatives import Properties
from emulator.amqp.types import Timestamp
from emulator.hub.messages.event import Event, Origin
from emulator.hub.messages.event_log import Partition

# How many bytes of encoded events are kept.
_KEPT_BYTES = 4 * 1024 * 1024


class EncodedEvents:
    """The newest events of a hub that were encoded; its clients share them."""

    def __init__(self) -> None:
        self._encoded: OrderedDict[int, bytes] = OrderedDict()  # by their numbers
        self._size = 0

    def encode(self, event: Event) -> bytes:
        """Return an event as a message, without delivery annotations."""
        data = self._encoded.get(event.number)
        if data is None:
            data = self._encoded[event.number] = _encode(event)
            self._size += len(data)
            while self._size > _KEPT_BYTES:
                self._size -= len(self._encoded.popitem(last=False)[1])
        return data


def runtime_metrics(partition: Partition, now: datetime) -> bytes:
    """Return the delivery annotations with the newest event of a partition (azure-eventhub)."""
    metrics = {**last_enqueued(partition), "runtime_info_retrieval_time_utc": timestamp(now)}
    return b"\x00\x53\x71" + encode_annotations(metrics)


def last_enqueued(partition: Partition) -> dict[str, Any]:
    """Return what readers are told of the newest event of a partition."""
    last = partition.last
    return {
        "last_enqueued_sequence_number": last.sequence_number if last else -1,
        "last_enqueued_offset": last.offset if last else "-1",
        "last_enqueued_time_utc": Timestamp(last.enqueued_ms if last else 0),
    }


def _encode(event: Event) -> bytes:
    message = event.message
    system, properties = tuple(message.system.items()), message.properties
    try:
        return _encode_texts(event, system, properties)
    except ValueError:  # a text without an encoding must not stop the readers
        system = tuple((name, in_ascii(value)) for name, value in system)
        properties = {
            in_ascii(name): None if value is None else in_ascii(value)
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
_NO_PROPERTIES = Properties()
_LONG, _STRING, _TIMESTAMP = WRITERS[int], WRITERS[str], WRITERS[Timestamp]


@lru_cache(256)
def _encode_system(system: _System) -> tuple[bytes, int, bytes]:
    """Encode system properties: as annotations, with their number, and as properties of AMQP.

    Many events have the same ones: a content type.
    """
    annotations: list[bytes] = []
    for name, value in system:
        if name not in PROPERTIES:
            annotations += (encode_symbol(name), encode(value))
    properties = amqp_properties(dict(system))
    fields = b"" if properties == _NO_PROPERTIES else properties.to_bytes()
    return b"".join(annotations), len(annotations), fields


@lru_cache(1024)
def _encode_origin(origin: Origin) -> tuple[bytes, int]:
    """Encode what the events of one sender share, and count its keys and values."""
    parts: list[bytes] = []
    for name, value in origin.annotations().items():
        parts += (encode_symbol(name), encode(value))
    return b"".join(parts), len(parts)
