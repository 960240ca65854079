"""A fault as a value: what goes wrong, for which identity and operation, and how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Struct

from emulator.hub.access.operations import OF_THE_EMULATOR, Operation, Throttle
from emulator.hub.access.policies import Right
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject
from emulator.hub.identities.identity import IdentityKey

CLEAN, CUT = "clean", "cut"
LINKS = (
    *("connection", "session", "cbs-requests", "cbs-replies", "telemetry", "commands"),
    *("twin-requests", "twin-replies", "method-requests", "method-responses"),
)
"""What `drop-link` ends of a device that is connected over AMQP."""

_SHOWN = 100  # characters of an invalid value that an error repeats

_ALL = frozenset(Operation)
OF_DEVICES = frozenset(each for each in Operation if each.right is Right.DEVICE_CONNECT)
"""What devices do for themselves."""
_THROTTLED = frozenset(each for each in Operation if each.throttle is not None)
_SENDS = frozenset(
    each for each in Operation if each.throttle in (Throttle.D2C_SENDS, Throttle.C2D_SENDS)
)
_TWIN = frozenset((Operation.READ_OWN_TWIN, Operation.REPORT))
_PUBLISHED = _TWIN | {Operation.SEND_EVENT, Operation.RESPOND_TO_METHOD}

# No request passes the gate by the first two that a fault could affect.
_UNAFFECTED = {Operation.WORK_ON_DEVICE, Operation.READ_EVENTS, *OF_THE_EMULATOR}
OPERATIONS = {
    each.name.lower().replace("_", "-"): each for each in Operation if each not in _UNAFFECTED
}


class Kind(Struct, frozen=True):
    """What a kind of fault can have.

    Args:
        members: its members beside kind, device, module and duration.
        operations: what it affects, unless the fault names an operation.
        others: whether a fault can name another operation than these.
        count: how often it happens if the fault has neither count nor duration; None is always.
        needs: the member that it must have.
        statuses: its values of `status`.
    """

    members: tuple[str, ...]
    operations: frozenset[Operation] = frozenset()
    others: bool = False
    count: int | None = None
    needs: str = ""
    statuses: tuple[int, ...] = ()

    @property
    def operation_names(self) -> list[str]:
        """The operations that a fault can name."""
        return [n for n, each in OPERATIONS.items() if self.others or each in self.operations]


_CHANCE = "probability", "seed", "count"
_ANY = "operation", *_CHANCE
_ONE_MESSAGE = Kind(_CHANCE)
_ONE_DELAY = Kind(("delay", *_CHANCE))

KINDS = {
    # A connection that is not accepted yet can't be dropped, unless the fault names CONNECT.
    "drop-connection": Kind(("how", *_ANY), _ALL - {Operation.CONNECT}, others=True, count=1),
    "expire-token": Kind(_ANY, OF_DEVICES, count=1),
    "refuse-connection": Kind(_CHANCE, OF_DEVICES),
    "twin-status": Kind(
        ("status", *_ANY), _TWIN, needs="status", statuses=(400, 403, 412, 429, 500, 503)
    ),
    "throttle": Kind(("delay", *_ANY), _THROTTLED, others=True),
    "quota-exceeded": Kind(_ANY, _SENDS, others=True),
    "server-error": Kind(_ANY, _ALL, others=True),
    "service-unavailable": Kind(_ANY, _ALL, others=True),
    "delay-puback": Kind(("delay", *_ANY), _PUBLISHED),
    "drop-puback": Kind(_ANY, _PUBLISHED),
    "delay-method": _ONE_DELAY,
    "fail-method": Kind(
        ("status", *_CHANCE), needs="status", statuses=(400, 403, 404, 429, 500, 502, 503, 504)
    ),
    "lose-method": _ONE_MESSAGE,
    "delay-method-response": _ONE_DELAY,
    "lose-method-response": _ONE_MESSAGE,
    "duplicate-c2d": _ONE_MESSAGE,
    "reorder-c2d": _ONE_DELAY,
    "delay-registration": _ONE_DELAY,
    "fail-registration": _ONE_MESSAGE,
    "slow-link": Kind(("rate",), needs="rate"),
    "drop-link": Kind(("link",), count=1, needs="link"),
}


class Fault(Struct, frozen=True, kw_only=True):
    """A fault.

    Args:
        kind: one of `KINDS`.
        device: the id of the device that it affects; None is every caller.
        module: the id of a module of the device; None is the device itself.
        operation: the operation that it affects; None is what the kind affects. Of a fault with a
            device, these are the operations of the device itself.
        probability: how likely it happens, from 0 to 1.
        seed: the same seed has the same course.
        count: how often it happens; None is without an end.
        duration: after how many seconds it ends; None is never.
        delay: in seconds, where the kind delays something.
        status: the status with which it answers, where the kind has one.
        how: how a connection is dropped: with an orderly end, or cut.
        rate: the bytes in a second, each way, of a slow link.
        link: one of `LINKS`.
    """

    kind: str
    device: str | None = None
    module: str | None = None
    operation: Operation | None = None
    probability: float = 1
    seed: int = 0
    count: int | None = None
    duration: float | None = None
    delay: float = 1
    status: int = 0
    how: str = CLEAN
    rate: int = 0
    link: str = ""

    @classmethod
    def parse(cls, document: object) -> Fault:
        """Parse a fault: `{"kind": "throttle", "device": "x", "count": 3}`.

        Raises:
            ArgumentInvalid: it is not an object, or a member is unknown, missing or invalid.
        """
        name = document.get("kind") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(name, str) or name not in KINDS:
            raise ArgumentInvalid(
                f"Invalid kind of fault: {_shown(name)}. Use an object whose kind is one of "
                f"{', '.join(KINDS)}"
            )
        kind = KINDS[name]
        allowed = "kind", "device", "module", "duration", *kind.members
        given = {member: value for member, value in document.items() if value is not None}
        for member in given:
            if member not in allowed:
                raise ArgumentInvalid(
                    f"Unknown member of the fault {name}: {_shown(member)}. "
                    f"Use {', '.join(allowed)}"
                )
        values = {m: _read(kind, m, value) for m, value in given.items() if m != "kind"}
        if kind.needs and kind.needs not in values:
            raise ArgumentInvalid(
                f"The fault {name} needs {kind.needs}. Use {_use(kind, kind.needs)}"
            )
        if "module" in values and "device" not in values:
            raise ArgumentInvalid("The fault has a module and no device. Add the device's id")
        if "duration" not in values and kind.count is not None:
            values.setdefault("count", kind.count)
        return cls(kind=name, **values)

    def document(self) -> JsonObject:
        """Return the fault as `parse` takes it, without the members that it does not need."""
        values: JsonObject = {"kind": self.kind}
        for member in self.__struct_fields__:
            value = getattr(self, member)
            if value != _DEFAULTS[member] and value is not None:
                values[member] = operation_name(value) if isinstance(value, Operation) else value
        return values

    def selects(self, key: IdentityKey | None) -> bool:
        """Return whether the fault is for an identity; None is a caller that is not a device."""
        return self.device is None or key == IdentityKey(self.device, self.module)

    def affects(self, operation: Operation | None) -> bool:
        """Return whether the fault is for an operation; None is what needs no request."""
        if self.operation is not None or operation is None:
            return operation is self.operation
        is_own = self.device is None or operation in OF_DEVICES
        return is_own and operation in KINDS[self.kind].operations


_DEFAULTS = dict(zip(Fault.__struct_fields__[1:], Fault.__struct_defaults__, strict=True))
_DEFAULTS["kind"] = None


def operation_name(operation: Operation) -> str:
    """Return the name of an operation in a fault: `read-own-twin`."""
    return operation.name.lower().replace("_", "-")


# --- the members

_MOST_SECONDS = 31 * 24 * 3600


class _Member(NamedTuple):
    """A member of a fault: the types and the values that it can have, and the text for errors."""

    types: tuple[type, ...]
    is_valid: Callable[[Kind, Any], bool]
    use: str


_NUMBER = int, float
_MEMBERS = {
    "device": _Member((str,), lambda _, value: value != "", "the id of a device"),
    "module": _Member((str,), lambda _, value: value != "", "the id of a module"),
    "operation": _Member(
        (str,), lambda kind, value: value in kind.operation_names, "one of {operations}"
    ),
    "probability": _Member(_NUMBER, lambda _, value: 0 < value <= 1, "a number above 0, at most 1"),
    "seed": _Member((int,), lambda _, value: True, "a whole number"),
    "count": _Member((int,), lambda _, value: value >= 1, "a whole number from 1 up"),
    "duration": _Member(
        _NUMBER,
        lambda _, value: 0 < value <= _MOST_SECONDS,
        f"seconds above 0, at most {_MOST_SECONDS}",
    ),
    "delay": _Member(
        _NUMBER,
        lambda _, value: 0 <= value <= _MOST_SECONDS,
        f"seconds from 0 to {_MOST_SECONDS}",
    ),
    "status": _Member((int,), lambda kind, value: value in kind.statuses, "one of {statuses}"),
    "how": _Member((str,), lambda _, value: value in (CLEAN, CUT), f"{CLEAN} or {CUT}"),
    "rate": _Member((int,), lambda _, value: value >= 1, "a number of bytes in a second, from 1"),
    "link": _Member((str,), lambda _, value: value in LINKS, f"one of {', '.join(LINKS)}"),
}


def _read(kind: Kind, name: str, value: Any) -> Any:
    """Check the value of a member, and return it."""
    member = _MEMBERS[name]
    is_type = isinstance(value, member.types) and not isinstance(value, bool)
    if not is_type or not member.is_valid(kind, value):
        raise ArgumentInvalid(f"Invalid {name} of a fault: {_shown(value)}. Use {_use(kind, name)}")
    if isinstance(value, float):
        return float(value)  # without the text that JSON had
    return OPERATIONS[value] if name == "operation" else value


def _use(kind: Kind, name: str) -> str:
    return _MEMBERS[name].use.format(
        statuses=", ".join(map(str, kind.statuses)), operations=", ".join(kind.operation_names)
    )


def _shown(value: object) -> str:
    return repr(value)[:_SHOWN]
