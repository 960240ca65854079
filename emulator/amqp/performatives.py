"""The lists with a name in AMQP: performatives, SASL frames, termini, outcomes, errors, sections.

Each is a record. `from_fields` makes one of a decoded list, and checks it; `to_bytes` writes it.
The annotation of a field is its type in Python, with its kind in AMQP.
Section numbers are those of AMQP 1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any
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


def by_descriptor(classes: Iterable[type[Composite]]) -> dict[object, type[Composite]]:
    """Return classes by their descriptors: a number, or a name."""
    return {key: cls for cls in classes for key in (cls.CODE, cls.NAME)}


def _composite(*classes: type[Composite]) -> Kind:
    known = by_descriptor(classes)
    names = " or ".join(cls.__name__ for cls in classes)

    def read(value: Any) -> Composite:
        # A descriptor can be any value, also one that no table can look up.
        has_key = type(value) is Described and isinstance(value.descriptor, int | str)
        cls = known.get(value.descriptor) if has_key else None
        if cls is None:
            raise DecodeError(f"{type(value).__name__} in place of {names}")
        if cls is Accepted and value.value == []:  # the most common one
            return ACCEPTED
        return cls.from_fields(value.value)

    return Kind(None, read, lambda value: value.to_bytes())


_Any = Annotated[Any, Kind(None, lambda value: value, encode)]
_Uint = Annotated[int, _number(UInt, UINT_MAX)]
_Ushort = Annotated[int, _number(UShort, 0xFFFF)]
_Ubyte = Annotated[int, _number(UByte, 0xFF)]
_Ulong = Annotated[int, _number(ULong, 0xFFFF_FFFF_FFFF_FFFF)]
_Bool = Annotated[bool, _plain(bool)]
_Binary = Annotated[bytes, _plain(bytes)]
_String = Annotated[str, _plain(str, Symbol)]
_Symbol = Annotated[str, _plain(Symbol, str, write=encode_symbol)]
_Symbols = Annotated[tuple[str, ...], Kind(None, _read_symbols, _write_symbols)]
_Map = Annotated[dict[Any, Any], _plain(dict)]
_Time = Annotated[int, _plain(Timestamp, write=WRITERS[Timestamp])]
_Id = Annotated[str | int | UUID | bytes, _plain(str, ULong, UUID, bytes)]


# --- what the standard defines


class Error(Composite, frozen=True):
    """An error (section 2.8.14)."""

    CODE, NAME = 0x1D, "amqp:error:list"
    condition: _Symbol
    description: _String | None = None
    info: _Map | None = None

    @classmethod
    def of(cls, error: AmqpError | None) -> Error | None:
        """Write down what was raised, if anything was; the keys of its info are symbols."""
        if error is None:
            return None
        info = {Symbol(key): value for key, value in (error.info or {}).items()} or None
        return cls(error.condition, error.description or None, info)


_Error = Annotated[Error, _composite(Error)]


class Received(Composite, frozen=True):
    """How much of a delivery has arrived: not an outcome (section 3.4.1)."""

    CODE, NAME = 0x23, "amqp:received:list"
    section_number: _Uint
    section_offset: _Ulong


class Accepted(Composite, frozen=True):
    """The message was processed (section 3.4.2)."""

    CODE, NAME = 0x24, "amqp:accepted:list"


class Rejected(Composite, frozen=True):
    """The message is invalid (section 3.4.3)."""

    CODE, NAME = 0x25, "amqp:rejected:list"
    error: _Error | None = None


class Released(Composite, frozen=True):
    """The message was not processed, and can be sent again (section 3.4.4)."""

    CODE, NAME = 0x26, "amqp:released:list"


class Modified(Composite, frozen=True):
    """As released, with changes (section 3.4.5)."""

    CODE, NAME = 0x27, "amqp:modified:list"
    delivery_failed: _Bool = False
    undeliverable_here: _Bool = False
    message_annotations: _Map | None = None


Outcome = Accepted | Rejected | Released | Modified
State = Outcome | Received
_State = Annotated[State, _composite(Accepted, Rejected, Released, Modified, Received)]

ACCEPTED = Accepted()


class Source(Composite, frozen=True):
    """Where the messages of a link come from (section 3.5.3)."""

    CODE, NAME = 0x28, "amqp:source:list"
    address: _Any = None
    durable: _Uint = 0
    expiry_policy: _Symbol = "session-end"
    timeout: _Uint = 0
    dynamic: _Bool = False
    dynamic_node_properties: _Map | None = None
    distribution_mode: _Symbol | None = None
    filter: _Map | None = None
    default_outcome: _State | None = None
    outcomes: _Symbols = ()
    capabilities: _Symbols = ()


class Target(Composite, frozen=True):
    """Where the messages of a link go to (section 3.5.4)."""

    CODE, NAME = 0x29, "amqp:target:list"
    address: _Any = None
    durable: _Uint = 0
    expiry_policy: _Symbol = "session-end"
    timeout: _Uint = 0
    dynamic: _Bool = False
    dynamic_node_properties: _Map | None = None
    capabilities: _Symbols = ()


class Coordinator(Composite, frozen=True):
    """The target of a link that controls transactions (section 4.5.1); refused here."""

    CODE, NAME = 0x30, "amqp:coordinator:list"
    capabilities: _Symbols = ()


_Source = Annotated[Source, _composite(Source)]
_Target = Annotated[Target | Coordinator, _composite(Target, Coordinator)]


class Open(Composite, frozen=True):
    """Begins a connection (section 2.7.1); the idle time-out is in milliseconds."""

    CODE, NAME = 0x10, "amqp:open:list"
    container_id: _String
    hostname: _String | None = None
    max_frame_size: _Uint = UINT_MAX
    channel_max: _Ushort = 0xFFFF
    idle_time_out: _Uint | None = None
    outgoing_locales: _Symbols = ()
    incoming_locales: _Symbols = ()
    offered_capabilities: _Symbols = ()
    desired_capabilities: _Symbols = ()
    properties: _Map | None = None


class Begin(Composite, frozen=True):
    """Begins a session (section 2.7.2)."""

    CODE, NAME = 0x11, "amqp:begin:list"
    remote_channel: _Ushort | None
    next_outgoing_id: _Uint
    incoming_window: _Uint
    outgoing_window: _Uint
    handle_max: _Uint = UINT_MAX
    offered_capabilities: _Symbols = ()
    desired_capabilities: _Symbols = ()
    properties: _Map | None = None


class Attach(Composite, frozen=True):
    """Attaches a link to a session (section 2.7.3)."""

    CODE, NAME = 0x12, "amqp:attach:list"
    name: _String
    handle: _Uint
    role: _Bool
    snd_settle_mode: _Ubyte = MIXED
    rcv_settle_mode: _Ubyte = FIRST
    source: _Source | None = None
    target: _Target | None = None
    unsettled: _Map | None = None
    incomplete_unsettled: _Bool = False
    initial_delivery_count: _Uint | None = None
    max_message_size: _Ulong | None = None
    offered_capabilities: _Symbols = ()
    desired_capabilities: _Symbols = ()
    properties: _Map | None = None


class Flow(Composite, frozen=True):
    """The state of a session's windows, and of a link's credit (section 2.7.4)."""

    CODE, NAME = 0x13, "amqp:flow:list"
    next_incoming_id: _Uint | None
    incoming_window: _Uint
    next_outgoing_id: _Uint
    outgoing_window: _Uint
    handle: _Uint | None = None
    delivery_count: _Uint | None = None
    link_credit: _Uint | None = None
    available: _Uint | None = None
    drain: _Bool = False
    echo: _Bool = False
    properties: _Map | None = None


class Transfer(Composite, frozen=True):
    """A part of a message, or all of it (section 2.7.5)."""

    CODE, NAME = 0x14, "amqp:transfer:list"
    handle: _Uint
    delivery_id: _Uint | None = None
    delivery_tag: _Binary | None = None
    message_format: _Uint | None = None
    settled: _Bool | None = None
    more: _Bool = False
    rcv_settle_mode: _Ubyte | None = None
    state: _State | None = None
    resume: _Bool = False
    aborted: _Bool = False
    batchable: _Bool = False


class Disposition(Composite, frozen=True):
    """The state of deliveries (section 2.7.6)."""

    CODE, NAME = 0x15, "amqp:disposition:list"
    role: _Bool
    first: _Uint
    last: _Uint | None = None
    settled: _Bool = False
    state: _State | None = None
    batchable: _Bool = False


class Detach(Composite, frozen=True):
    """Detaches or closes a link (section 2.7.7)."""

    CODE, NAME = 0x16, "amqp:detach:list"
    handle: _Uint
    closed: _Bool = False
    error: _Error | None = None


class End(Composite, frozen=True):
    """Ends a session (section 2.7.8)."""

    CODE, NAME = 0x17, "amqp:end:list"
    error: _Error | None = None


class Close(Composite, frozen=True):
    """Ends a connection (section 2.7.9)."""

    CODE, NAME = 0x18, "amqp:close:list"
    error: _Error | None = None


class SaslMechanisms(Composite, frozen=True):
    """The mechanisms of the server (section 5.3.3.1)."""

    CODE, NAME = 0x40, "amqp:sasl-mechanisms:list"
    mechanisms: _Symbols


class SaslInit(Composite, frozen=True):
    """The mechanism of the client (section 5.3.3.2)."""

    CODE, NAME = 0x41, "amqp:sasl-init:list"
    mechanism: _Symbol
    initial_response: _Binary | None = None
    hostname: _String | None = None


class SaslChallenge(Composite, frozen=True):
    """What the server asks, in a mechanism of several steps (section 5.3.3.3)."""

    CODE, NAME = 0x42, "amqp:sasl-challenge:list"
    challenge: _Binary


class SaslResponse(Composite, frozen=True):
    """What the client answers to a challenge (section 5.3.3.4)."""

    CODE, NAME = 0x43, "amqp:sasl-response:list"
    response: _Binary


class SaslOutcome(Composite, frozen=True):
    """The end of SASL; 0 is success, 1 a refusal (section 5.3.3.6)."""

    CODE, NAME = 0x44, "amqp:sasl-outcome:list"
    code: _Ubyte
    additional_data: _Binary | None = None


class Header(Composite, frozen=True):
    """How a message is transferred (section 3.2.1); the time to live is in milliseconds."""

    CODE, NAME = 0x70, "amqp:header:list"
    durable: _Bool = False
    priority: _Ubyte = 4
    ttl: _Uint | None = None
    first_acquirer: _Bool = False
    delivery_count: _Uint = 0


class Properties(Composite, frozen=True):
    """The properties of a message (section 3.2.4).

    Ids have the types of AMQP: ulong, uuid, binary or string. Times are milliseconds since 1970.
    """

    CODE, NAME = 0x73, "amqp:properties:list"
    message_id: _Id | None = None
    user_id: _Binary | None = None
    to: _String | None = None
    subject: _String | None = None
    reply_to: _String | None = None
    correlation_id: _Id | None = None
    content_type: _Symbol | None = None
    content_encoding: _Symbol | None = None
    absolute_expiry_time: _Time | None = None
    creation_time: _Time | None = None
    group_id: _String | None = None
    group_sequence: _Uint | None = None
    reply_to_group_id: _String | None = None


PERFORMATIVES = (Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close)
SASL_FRAMES = (SaslMechanisms, SaslInit, SaslChallenge, SaslResponse, SaslOutcome)
