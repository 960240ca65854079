"""A fault as a value: what it can have, what it is for, and what is wrong with it."""

from typing import Any

import pytest

from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import loads
from emulator.hub.faults.fault import KINDS, Fault
from emulator.hub.identities.identity import IdentityKey

NEEDS = {"status": 500, "rate": 1000, "link": "session"}

X, MODULE, OTHER = IdentityKey("x"), IdentityKey("x", "m"), IdentityKey("y")
OWN = Operation.READ_OWN_TWIN
OF_SERVICE = Operation.READ_TWIN


def of_kind(kind: str, **members: Any) -> dict[str, Any]:
    """Return the document of a fault, with what its kind needs."""
    needs = KINDS[kind].needs
    return {"kind": kind, **({needs: NEEDS[needs]} if needs else {}), **members}


def fault(kind: str, **members: Any) -> Fault:
    return Fault.parse(of_kind(kind, **members))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_written_as_it_was_read(kind: str) -> None:
    document = of_kind(kind, device="x", module="m", duration=2.5)
    for member, value in (("operation", "report"), ("probability", 0.5), ("seed", 7), ("count", 3)):
        if member in KINDS[kind].members:
            document[member] = value
    parsed = Fault.parse(document)
    assert parsed.document() == document
    assert Fault.parse(parsed.document()) == parsed


def test_members_that_are_null_are_missing() -> None:
    nulls = dict.fromkeys(("device", "module", "operation", "count", "duration", "seed"))
    assert fault("throttle", **nulls) == fault("throttle")


@pytest.mark.parametrize(
    ("kind", "members", "count"),
    [
        ("drop-connection", {}, 1),
        ("drop-connection", {"duration": 5}, None),
        ("drop-connection", {"duration": 5, "count": 2}, 2),
        ("expire-token", {}, 1),
        ("drop-link", {}, 1),
        ("throttle", {}, None),
        ("refuse-connection", {}, None),
    ],
)
def test_a_fault_that_ends_a_connection_happens_once_unless_it_says_more(
    kind: str, members: dict[str, Any], count: int | None
) -> None:
    assert fault(kind, **members).count == count


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (None, "Invalid kind of fault: None. Use an object whose kind is one of drop-connection, "),
        ([], "Invalid kind of fault: None."),
        ({}, "Invalid kind of fault: None."),
        ({"kind": "explode"}, "Invalid kind of fault: 'explode'."),
        ({"kind": ["throttle"]}, "Invalid kind of fault: ['throttle']."),
        (
            {"kind": "quota-exceeded", "delay": 3},
            "Unknown member of the fault quota-exceeded: 'delay'. Use kind, device, module, "
            "duration, operation, probability, seed, count",
        ),
        ({"kind": "slow-link", "rate": 5, "count": 1}, "Unknown member of the fault slow-link"),
        (
            {"kind": "twin-status", "device": "x"},
            "The fault twin-status needs status. Use one of 400, 403, 412, 429, 500, 503",
        ),
        ({"kind": "twin-status", "status": 418}, "Invalid status of a fault: 418. Use one of 400"),
        ({"kind": "slow-link"}, "The fault slow-link needs rate. Use a number of bytes"),
        (
            {"kind": "throttle", "module": "m"},
            "The fault has a module and no device. Add the device's id",
        ),
        (
            {"kind": "throttle", "operation": "fly"},
            "Invalid operation of a fault: 'fly'. Use one of connect, subscribe, send-event, ",
        ),
        ({"kind": "throttle", "operation": ["report"]}, "Invalid operation of a fault"),
        (
            {"kind": "twin-status", "status": 500, "operation": "send-event"},
            "Invalid operation of a fault: 'send-event'. Use one of read-own-twin, report",
        ),
        (
            {"kind": "throttle", "operation": "read-events"},
            "Invalid operation of a fault: 'read-events'. Use one of connect, subscribe, ",
        ),
        ({"kind": "throttle", "device": ""}, "Invalid device of a fault: ''. Use the id"),
        ({"kind": "throttle", "device": 5}, "Invalid device of a fault: 5. Use the id"),
        ({"kind": "throttle", "count": 0}, "Invalid count of a fault: 0. Use a whole number from"),
        ({"kind": "throttle", "count": 1.0}, "Invalid count of a fault: 1.0."),
        ({"kind": "throttle", "count": True}, "Invalid count of a fault: True."),
        ({"kind": "throttle", "probability": 0}, "Invalid probability of a fault: 0. Use a number"),
        ({"kind": "throttle", "probability": 1.1}, "Invalid probability of a fault: 1.1."),
        ({"kind": "throttle", "duration": 0}, "Invalid duration of a fault: 0. Use seconds above"),
        ({"kind": "throttle", "duration": float("nan")}, "Invalid duration of a fault: nan."),
        ({"kind": "throttle", "duration": float("inf")}, "Invalid duration of a fault: inf."),
        ({"kind": "throttle", "delay": -1}, "Invalid delay of a fault: -1. Use seconds from 0"),
        ({"kind": "drop-connection", "how": "hard"}, "Invalid how of a fault: 'hard'. Use clean"),
        ({"kind": "drop-link", "link": "all"}, "Invalid link of a fault: 'all'. Use one of conn"),
        ({"kind": "throttle", "device": ["x" * 1000]}, "Invalid device of a fault: ['xxx"),
    ],
)
def test_an_invalid_fault_says_what_is_wrong_and_what_is_allowed(
    document: object, text: str
) -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        Fault.parse(document)
    assert caught.value.text.startswith(text)
    assert len(caught.value.text) < 1000


def test_numbers_of_json_are_numbers() -> None:
    parsed = Fault.parse(loads(b'{"kind": "throttle", "duration": 1.50, "delay": 1e1, "count": 2}'))
    assert (parsed.duration, parsed.delay, parsed.count) == (1.5, 10, 2)
    with pytest.raises(ArgumentInvalid):
        Fault.parse(loads(b'{"kind": "throttle", "duration": 1e400}'))


@pytest.mark.parametrize(
    ("selectors", "selected"),
    [
        ({}, [None, X, MODULE, OTHER]),
        ({"device": "x"}, [X]),
        ({"device": "x", "module": "m"}, [MODULE]),
    ],
)
def test_a_fault_is_for_an_identity(
    selectors: dict[str, str], selected: list[IdentityKey | None]
) -> None:
    chosen = fault("throttle", **selectors)
    assert [key for key in (None, X, MODULE, OTHER) if chosen.selects(key)] == selected


@pytest.mark.parametrize(
    ("kind", "selectors", "operation", "affected"),
    [
        ("server-error", {}, OWN, True),
        ("server-error", {}, OF_SERVICE, True),
        # What a service does to the device is its own request.
        ("server-error", {"device": "x"}, OWN, True),
        ("server-error", {"device": "x"}, OF_SERVICE, False),
        ("server-error", {"device": "x", "operation": "read-twin"}, OF_SERVICE, True),
        ("server-error", {"operation": "read-twin"}, OWN, False),
        ("throttle", {}, Operation.SUBSCRIBE, False),  # it has no throttle
        ("throttle", {"operation": "subscribe"}, Operation.SUBSCRIBE, True),
        ("quota-exceeded", {}, Operation.SEND_EVENT, True),
        ("quota-exceeded", {}, Operation.SEND_COMMAND, True),
        ("quota-exceeded", {}, OWN, False),
        ("twin-status", {}, Operation.REPORT, True),
        ("twin-status", {}, Operation.SEND_EVENT, False),
        ("drop-connection", {}, Operation.CONNECT, False),
        ("drop-connection", {"operation": "connect"}, Operation.CONNECT, True),
        ("drop-connection", {}, None, True),  # at once
        ("drop-connection", {"operation": "report"}, None, False),
        ("lose-method", {}, None, True),
        ("lose-method", {}, Operation.REPORT, False),
    ],
)
def test_a_fault_is_for_operations(
    kind: str, selectors: dict[str, str], operation: Operation | None, affected: bool
) -> None:
    assert fault(kind, **selectors).affects(operation) == affected
