"""The lists with a name in AMQP: performatives, SASL frames, termini, outcomes, errors, sections.

Each is a record. `from_fields` makes one of a decoded list, and checks it; `to_bytes` writes it.
Section numbers are those of AMQP 1.0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from emulator.amqp.composite import Composite, Kind
from emulator.amqp.encoder import WRITERS, encode, encode_symbol
from emulator.amqp.errors import AmqpError, DecodeError
from emulator.amqp.types import (
    UINT_MAX,
    Array,
    Described,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)

# The values of `role` (section 2.8.1): of the sender, and of the receiver.
SENDER = False
RECEIVER = True

# snd-settle-mode (section 2.8.2), and rcv-settle-mode (section 2.8.3).
UNSETTLED, SETTLED, MIXED = 0, 1, 2
FIRST, SECOND = 0, 1


# --- the kinds of fields


def _number(cls: type[int], maximum: int) -> Kind:
    def read(value: Any) -> int:
        if not isinstance(value, int) or value is True or value is False:
            raise DecodeError(f"{type(value).__name__} in place of {cls.__name__}")
        if not 0 <= value <= maximum:
            raise DecodeError(f"{value} is not from 0 to {maximum}")
        return value

    return Kind(cls, read, WRITERS[cls])


def _plain(*classes: type, write: Callable[[Any], bytes] = encode) -> Kind:
    def read(value: Any) -> Any:
        if type(value) not in classes:
            raise DecodeError(f"{type(value).__name__} in place of {classes[0].__name__}")
        return value

    return Kind(classes[0], read, write)


def _read_symbols(value: Any) -> tuple[str, ...]:
    """Read a field that can have several values: one symbol, or an array (section 1.4)."""
    values = value if type(value) is Array else (value,)
    if not all(isinstance(each, str) for each in values):
        raise DecodeError("A list of symbols has another value")
    return tuple(values)


def _write_symbols(value: tuple[str, ...]) -> bytes:
    return encode(Array(Symbol, value)) if value else b"\x40"


def _read_composite(names: tuple[str, ...], value: Any) -> Composite:
    # A descriptor can be any value, also one that no table can look up.
    known = type(value) is Described and isinstance(value.descriptor, int | str)
    cls = _BY_DESCRIPTOR.get(value.descriptor) if known else None
    if cls is Accepted and value.value == [] and "Accepted" in names:  # the most common one
        return ACCEPTED
    if cls is None or cls.__name__ not in names:
        raise DecodeError(f"{type(value).__name__} in place of {' or '.join(names)}")
    return cls.from_fields(value.value)


def _composite(*names: str) -> Kind:
    return Kind(None, partial(_read_composite, names), lambda value: value.to_bytes())


_ANY = Kind(None, lambda value: value, encode)
_UINT = _number(UInt, UINT_MAX)
_USHORT = _number(UShort, 0xFFFF)
_UBYTE = _number(UByte, 0xFF)
_ULONG = _number(ULong, 0xFFFF_FFFF_FFFF_FFFF)
_BOOLEAN = _plain(bool)
_BINARY = _plain(bytes)
_STRING = _plain(str, Symbol)
_SYMBOL = _plain(Symbol, str, write=encode_symbol)
_SYMBOLS = Kind(None, _read_symbols, _write_symbols)
_MAP = _plain(dict)
_TIMESTAMP = _plain(Timestamp, write=WRITERS[Timestamp])
_MESSAGE_ID = _plain(str, ULong, UUID, bytes)
_ERROR = _composite("Error")
_STATE = _composite("Accepted", "Rejected", "Released", "Modified", "Received")
_NAMES = (_SYMBOLS, _SYMBOLS)


# --- what the standard defines


class Error(Composite, frozen=True):
    """An error (section 2.8.14)."""

    CODE, NAME, KINDS = 0x1D, "amqp:error:list", (_SYMBOL, _STRING, _MAP)
    condition: str
    description: str | None = None
    info: dict[Any, Any] | None = None

    @classmethod
    def of(cls, error: AmqpError) -> Error:
        """Write down what was raised; the keys of its info are symbols."""
        info = {Symbol(key): value for key, value in (error.info or {}).items()} or None
        return cls(error.condition, error.description or None, info)


class Received(Composite, frozen=True):
    """How much of a delivery has arrived: not an outcome (section 3.4.1)."""

    CODE, NAME, KINDS = 0x23, "amqp:received:list", (_UINT, _ULONG)
    section_number: int
    section_offset: int


class Accepted(Composite, frozen=True):
    """The message was processed (section 3.4.2)."""

    CODE, NAME, KINDS = 0x24, "amqp:accepted:list", ()


class Rejected(Composite, frozen=True):
    """The message is invalid (section 3.4.3)."""

    CODE, NAME, KINDS = 0x25, "amqp:rejected:list", (_ERROR,)
    error: Error | None = None


class Released(Composite, frozen=True):
    """The message was not processed, and can be sent again (section 3.4.4)."""

    CODE, NAME, KINDS = 0x26, "amqp:released:list", ()


class Modified(Composite, frozen=True):
    """As released, with changes (section 3.4.5)."""

    CODE, NAME, KINDS = 0x27, "amqp:modified:list", (_BOOLEAN, _BOOLEAN, _MAP)
    delivery_failed: bool = False
    undeliverable_here: bool = False
    message_annotations: dict[Any, Any] | None = None


Outcome = Accepted | Rejected | Released | Modified
State = Outcome | Received

ACCEPTED = Accepted()


class Source(Composite, frozen=True):
    """Where the messages of a link come from (section 3.5.3)."""

    CODE, NAME = 0x28, "amqp:source:list"
    KINDS = (
        *(_ANY, _UINT, _SYMBOL, _UINT, _BOOLEAN, _MAP, _SYMBOL, _MAP),
        *(_STATE, *_NAMES),
    )
    address: Any = None
    durable: int = 0
    expiry_policy: str = "session-end"
    timeout: int = 0
    dynamic: bool = False
    dynamic_node_properties: dict[Any, Any] | None = None
    distribution_mode: str | None = None
    filter: dict[Any, Any] | None = None
    default_outcome: State | None = None
    outcomes: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()


class Target(Composite, frozen=True):
    """Where the messages of a link go to (section 3.5.4)."""

    CODE, NAME = 0x29, "amqp:target:list"
    KINDS = (_ANY, _UINT, _SYMBOL, _UINT, _BOOLEAN, _MAP, _SYMBOLS)
    address: Any = None
    durable: int = 0
    expiry_policy: str = "session-end"
    timeout: int = 0
    dynamic: bool = False
    dynamic_node_properties: dict[Any, Any] | None = None
    capabilities: tuple[str, ...] = ()


class Coordinator(Composite, frozen=True):
    """The target of a link that controls transactions (section 4.5.1); refused here."""

    CODE, NAME, KINDS = 0x30, "amqp:coordinator:list", (_SYMBOLS,)
    capabilities: tuple[str, ...] = ()


class Open(Composite, frozen=True):
    """Begins a connection (section 2.7.1); the idle time-out is in milliseconds."""

    CODE, NAME = 0x10, "amqp:open:list"
    KINDS = (_STRING, _STRING, _UINT, _USHORT, _UINT, *_NAMES, *_NAMES, _MAP)
    container_id: str
    hostname: str | None = None
    max_frame_size: int = UINT_MAX
    channel_max: int = 0xFFFF
    idle_time_out: int | None = None
    outgoing_locales: tuple[str, ...] = ()
    incoming_locales: tuple[str, ...] = ()
    offered_capabilities: tuple[str, ...] = ()
    desired_capabilities: tuple[str, ...] = ()
    properties: dict[Any, Any] | None = None


class Begin(Composite, frozen=True):
    """Begins a session (section 2.7.2)."""

    CODE, NAME = 0x11, "amqp:begin:list"
    KINDS = (_USHORT, _UINT, _UINT, _UINT, _UINT, *_NAMES, _MAP)
    remote_channel: int | None
    next_outgoing_id: int
    incoming_window: int
    outgoing_window: int
    handle_max: int = UINT_MAX
    offered_capabilities: tuple[str, ...] = ()
    desired_capabilities: tuple[str, ...] = ()
    properties: dict[Any, Any] | None = None


class Attach(Composite, frozen=True):
    """Attaches a link to a session (section 2.7.3)."""

    CODE, NAME = 0x12, "amqp:attach:list"
    KINDS = (
        *(_STRING, _UINT, _BOOLEAN, _UBYTE, _UBYTE),
        *(_composite("Source"), _composite("Target", "Coordinator"), _MAP, _BOOLEAN),
        *(_UINT, _ULONG, *_NAMES, _MAP),
    )
    name: str
    handle: int
    role: bool
    snd_settle_mode: int = MIXED
    rcv_settle_mode: int = FIRST
    source: Source | None = None
    target: Target | Coordinator | None = None
    unsettled: dict[Any, Any] | None = None
    incomplete_unsettled: bool = False
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    offered_capabilities: tuple[str, ...] = ()
    desired_capabilities: tuple[str, ...] = ()
    properties: dict[Any, Any] | None = None


class Flow(Composite, frozen=True):
    """The state of a session's windows, and of a link's credit (section 2.7.4)."""

    CODE, NAME = 0x13, "amqp:flow:list"
    KINDS = (*(_UINT,) * 8, _BOOLEAN, _BOOLEAN, _MAP)
    next_incoming_id: int | None
    incoming_window: int
    next_outgoing_id: int
    outgoing_window: int
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    available: int | None = None
    drain: bool = False
    echo: bool = False
    properties: dict[Any, Any] | None = None


class Transfer(Composite, frozen=True):
    """A part of a message, or all of it (section 2.7.5)."""

    CODE, NAME = 0x14, "amqp:transfer:list"
    KINDS = (
        *(_UINT, _UINT, _BINARY, _UINT, _BOOLEAN, _BOOLEAN),
        *(_UBYTE, _STATE, _BOOLEAN, _BOOLEAN, _BOOLEAN),
    )
    handle: int
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool = False
    rcv_settle_mode: int | None = None
    state: State | None = None
    resume: bool = False
    aborted: bool = False
    batchable: bool = False


class Disposition(Composite, frozen=True):
    """The state of deliveries (section 2.7.6)."""

    CODE, NAME = 0x15, "amqp:disposition:list"
    KINDS = (_BOOLEAN, _UINT, _UINT, _BOOLEAN, _STATE, _BOOLEAN)
    role: bool
    first: int
    last: int | None = None
    settled: bool = False
    state: State | None = None
    batchable: bool = False


class Detach(Composite, frozen=True):
    """Detaches or closes a link (section 2.7.7)."""

    CODE, NAME, KINDS = 0x16, "amqp:detach:list", (_UINT, _BOOLEAN, _ERROR)
    handle: int
    closed: bool = False
    error: Error | None = None


class End(Composite, frozen=True):
    """Ends a session (section 2.7.8)."""

    CODE, NAME, KINDS = 0x17, "amqp:end:list", (_ERROR,)
    error: Error | None = None


class Close(Composite, frozen=True):
    """Ends a connection (section 2.7.9)."""

    CODE, NAME, KINDS = 0x18, "amqp:close:list", (_ERROR,)
    error: Error | None = None


class SaslMechanisms(Composite, frozen=True):
    """The mechanisms of the server (section 5.3.3.1)."""

    CODE, NAME, KINDS = 0x40, "amqp:sasl-mechanisms:list", (_SYMBOLS,)
    mechanisms: tuple[str, ...]


class SaslInit(Composite, frozen=True):
    """The mechanism of the client (section 5.3.3.2)."""

    CODE, NAME, KINDS = 0x41, "amqp:sasl-init:list", (_SYMBOL, _BINARY, _STRING)
    mechanism: str
    initial_response: bytes | None = None
    hostname: str | None = None


class SaslOutcome(Composite, frozen=True):
    """The end of SASL; 0 is success, 1 a refusal (section 5.3.3.6)."""

    CODE, NAME, KINDS = 0x44, "amqp:sasl-outcome:list", (_UBYTE, _BINARY)
    code: int
    additional_data: bytes | None = None


class Header(Composite, frozen=True):
    """How a message is transferred (section 3.2.1); the time to live is in milliseconds."""

    CODE, NAME, KINDS = 0x70, "amqp:header:list", (_BOOLEAN, _UBYTE, _UINT, _BOOLEAN, _UINT)
    durable: bool = False
    priority: int = 4
    ttl: int | None = None
    first_acquirer: bool = False
    delivery_count: int = 0


class Properties(Composite, frozen=True):
    """The properties of a message (section 3.2.4).

    Ids have the types of AMQP: ulong, uuid, binary or string. Times are milliseconds since 1970.
    """

    CODE, NAME = 0x73, "amqp:properties:list"
    KINDS = (
        *(_MESSAGE_ID, _BINARY, _STRING, _STRING, _STRING),
        *(_MESSAGE_ID, _SYMBOL, _SYMBOL, _TIMESTAMP, _TIMESTAMP, _STRING, _UINT, _STRING),
    )
    message_id: str | int | UUID | bytes | None = None
    user_id: bytes | None = None
    to: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    correlation_id: str | int | UUID | bytes | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    absolute_expiry_time: int | None = None
    creation_time: int | None = None
    group_id: str | None = None
    group_sequence: int | None = None
    reply_to_group_id: str | None = None


PERFORMATIVES = (Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close)
SASL_FRAMES = (SaslMechanisms, SaslInit, SaslOutcome)
_PARTS = (Error, Received, Accepted, Rejected, Released, Modified, Source, Target, Coordinator)

_ALL: tuple[type[Composite], ...] = (*PERFORMATIVES, *SASL_FRAMES, *_PARTS)
_BY_DESCRIPTOR: dict[Any, type[Composite]] = {
    **{cls.CODE: cls for cls in _ALL},
    **{cls.NAME: cls for cls in _ALL},
}
