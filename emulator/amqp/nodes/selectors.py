"""The start of a reader, which its source names in a filter (Event Hubs; seen of all SDKs).

The SDKs of Azure Event Hubs write `amqp.annotation.x-opt-offset > '5'`; the Azure CLI writes
`amqp.annotation.x-opt-enqueuedtimeutc > 1732624387000`.
"""

from __future__ import annotations

import re
from typing import Any

from emulator.amqp.errors import AmqpError
from emulator.amqp.types import Described
from emulator.hub.messages.event_log import Partition

# The selector filter of Apache: its name, and the code that Node's SDK sends.
_FILTERS = ("apache.org:selector-filter:string", 0x468C_0000_0004)

_SELECTOR = re.compile(
    r"\s*amqp\.annotation\.x-opt-(?P<key>offset|sequence-number|enqueued-?time(?:-?utc)?)"
    r"\s*(?P<operator>>=?)\s*(?P<quote>'?)(?P<value>@latest|-?\d{1,20}(?:\.\d{1,20})?)(?P=quote)\s*",
    re.IGNORECASE | re.ASCII,
)


def start_of(filters: dict[Any, Any] | None, partition: Partition) -> int:
    """Return the sequence number at which a reader of a partition begins.

    Without a filter, that is the oldest event.

    Raises:
        AmqpError: the selector is unknown.
    """
    for name, value in (filters or {}).items():
        described = isinstance(value, Described)
        kind = value.descriptor if described else name
        if isinstance(kind, str | int) and kind in _FILTERS:
            return _parse(value.value if described else value, partition)
    return partition.begin


def _parse(selector: object, partition: Partition) -> int:
    found = _SELECTOR.fullmatch(selector) if isinstance(selector, str) else None
    if found is None:
        text = (
            f"Unknown selector {str(selector)[:200]!r}: use amqp.annotation.x-opt-offset, "
            "x-opt-sequence-number or x-opt-enqueued-time with > or >= and a number, or '@latest'."
        )
        raise AmqpError("com.microsoft:argument-error", text)
    key, value = found["key"].lower(), found["value"].lower()
    inclusive = found["operator"] == ">="
    if value == "@latest":  # inclusive: the newest event too
        return max(partition.end - inclusive, partition.begin)
    if key == "offset":
        return partition.after_offset(int(value.partition(".")[0]), inclusive=inclusive)
    if key == "sequence-number":
        return partition.after(int(value.partition(".")[0]), inclusive=inclusive)
    return partition.after_time(float(value), inclusive=inclusive)
