"""`clock` and `fault`: the words of the emulator's own, on a hub of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from emulator import Emulator
from emulator.cli.az.faults import KINDS
from emulator.hub.faults import fault
from tests.cli.az.conftest import Run
from tests.support import second_hub

DAY = 24 * 3600


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    with second_hub(emulator, devices=("kitchen",)) as running:
        yield running


@pytest.fixture
def own(run_command: Run, hub: Emulator) -> Iterator[Run]:
    """Runs a command on this hub, whose faults are off at the end."""
    login = ("--login", hub.service_connection_string)
    yield lambda *arguments: run_command(*arguments, *login)
    hub.faults.clear()


# --- clock


def ahead_of(hub: Emulator) -> float:
    return hub.clock.advanced_by.total_seconds()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("15m", 900),
        ("12h", DAY / 2),
        ("7d", 7 * DAY),
        ("PT1H", 3600),
        ("P1DT12H", 1.5 * DAY),
    ],
)
def test_the_clock_is_advanced(text: str, seconds: float, own: Run, hub: Emulator) -> None:
    before = ahead_of(hub)
    shown = own("clock", "advance", text).document
    assert shown["advancedBy"] == ahead_of(hub) == before + seconds


@pytest.mark.parametrize("words", [("clock",), ("clock", "show")])
def test_the_clock_is_shown(words: tuple[str, ...], own: Run, hub: Emulator) -> None:
    ahead = ahead_of(hub)
    shown = own(*words).document
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", shown["now"])
    assert shown["advancedBy"] == ahead
    assert own(*words, "--query", "advancedBy", "-o", "tsv").output == f"{ahead}\n"
    head, _, row = own(*words, "-o", "table").output.splitlines()
    assert (head.split(), row.split()[1]) == (["Now", "AdvancedBy"], str(ahead))


@pytest.mark.parametrize("text", ["0", "-5", "0s", "nan", "inf", "1y", "P1Y", "soon", "", "PT0S"])
def test_a_time_that_is_not_one_is_wrong_use(text: str, own: Run, hub: Emulator) -> None:
    ahead = ahead_of(hub)
    assert own("clock", "advance", text) == (
        2,
        "",
        [
            f"emulator: argument DURATION: Invalid time {text!r}: use seconds above 0, or a number "
            "and a unit, such as 90s, 12h or 7d. --help shows the options."
        ],
    )
    assert ahead_of(hub) == ahead


def test_an_advance_that_the_hub_refuses_is_one_line(own: Run) -> None:
    status, output, errors = own("clock", "advance", "4000d")
    assert (status, output, len(errors)) == (1, "", 1)
    assert " answers 400 ArgumentInvalid: Invalid advance: 3.456e+08 s. The clock is " in errors[0]
    assert errors[0].endswith(" 315360000 s (3650 days) are allowed.")


# --- fault


def test_a_fault_is_added_listed_and_removed(own: Run, hub: Emulator) -> None:
    options = ("-d", "kitchen", "--status", "429", "--count", "2")
    added = own("fault", "add", "twin-status", *options).document
    assert added.pop("id") > 0
    assert added == {"kind": "twin-status", "device": "kitchen", "status": 429, "count": 2}
    (listed,) = own("fault", "list").document
    assert (listed, listed["hits"]) == (hub.faults.list()[0], 0)
    number = str(listed["id"])
    head, _, row = own("fault", "list", "-o", "table").output.splitlines()
    assert head.split() == ["Id", "Kind", "Device", "Status", "Count", "Hits"]
    assert row.split() == [number, "twin-status", "kitchen", "429", "2", "0"]
    assert own("fault", "remove", number) == (0, "", [])
    assert own("fault", "list").document == hub.faults.list() == []


def test_every_member_of_a_fault_has_an_option(own: Run, hub: Emulator) -> None:
    every = {
        "drop-connection": "-d a -m b --operation send-event --how cut --count 3 --duration 15m",
        "throttle": "--probability 0.5 --seed 7 --delay 2s",
        "slow-link": "-d a --rate 1000",
        "drop-link": "-d a --link telemetry",
    }
    for kind, options in every.items():
        assert own("fault", "add", kind, *options.split()).status == 0
    found = [{**each, "id": 0, "hits": 0} for each in hub.faults.list()]
    ids = {"id": 0, "hits": 0}
    drop = {"device": "a", "module": "b", "operation": "send-event", "how": "cut"}
    assert found == [
        {**ids, "kind": "drop-connection", **drop, "count": 3, "duration": 900},
        {**ids, "kind": "throttle", "probability": 0.5, "seed": 7, "delay": 2},
        {**ids, "kind": "slow-link", "device": "a", "rate": 1000},
        {**ids, "kind": "drop-link", "device": "a", "link": "telemetry", "count": 1},
    ]
    assert own("fault", "clear") == (0, "", [])
    assert hub.faults.list() == []


def test_a_fault_happens(own: Run, hub: Emulator) -> None:
    options = ("-d", "kitchen", "--operation", "read-twin", "--count", "1")
    number = own("fault", "add", "server-error", *options, "--query", "id", "-o", "tsv").output
    refused = own("device-twin", "show", "-d", "kitchen")
    assert (refused.status, len(refused.errors)) == (1, 1)
    assert " answers 500 ServerError" in refused.errors[0]
    assert own("device-twin", "show", "-d", "kitchen").status == 0
    # It has ended.
    status, output, errors = own("fault", "remove", number.strip())
    assert (status, output, len(errors)) == (3, "", 1)
    assert f" Unknown fault: {number.strip()}. The ids of the faults: there are no" in errors[0]


WRONG = {
    "no kind": ((), "KIND is missing"),
    "a misspelt kind": (
        ("twin-statsu",),
        "argument KIND: Unknown kind of fault 'twin-statsu'. Use twin-status",
    ),
    "a kind like no other": (
        ("x",),
        f"argument KIND: Unknown kind of fault 'x'. Use {', '.join(KINDS)}",
    ),
    "a status that is missing": (
        ("twin-status",),
        "The fault twin-status needs status. Use one of 400, 403, 412, 429, 500, 503",
    ),
    "a member of another kind": (
        ("lose-method", "--delay", "1"),
        "Unknown member of the fault lose-method: 'delay'. "
        "Use kind, device, module, duration, probability, seed, count",
    ),
    "a count that is not a number": (
        ("throttle", "--count", "x"),
        "Invalid count of a fault: 'x'. Use a whole number from 1 up",
    ),
    "half a count": (
        ("throttle", "--count", "1.5"),
        "Invalid count of a fault: 1.5. Use a whole number from 1 up",
    ),
    "too likely": (
        ("throttle", "--probability", "2"),
        "Invalid probability of a fault: 2. Use a number above 0, at most 1",
    ),
    "a module alone": (
        ("throttle", "-m", "x"),
        "The fault has a module and no device. Add the device's id",
    ),
    "an empty device": (
        ("throttle", "-d", ""),
        "argument --device-id/-d: The value is empty",
    ),
    "no time": (
        ("throttle", "--duration", "0"),
        "argument --duration: Invalid time '0': use seconds above 0, or a number and a unit, "
        "such as 90s, 12h or 7d",
    ),
    "a negative delay": (
        ("throttle", "--delay", "-1"),
        "argument --delay: Invalid time '-1': use seconds from 0 up, or a number and a unit, "
        "such as 90s, 12h or 7d",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_that_is_wrong_is_not_sent(name: str, own: Run, hub: Emulator) -> None:
    arguments, said = WRONG[name]
    errors = [f"emulator: {said}. --help shows the options."]
    assert own("fault", "add", *arguments) == (2, "", errors)
    assert hub.faults.list() == []


def test_the_help_has_every_kind(own: Run) -> None:
    assert set(KINDS) == set(fault.KINDS)
    status, output, errors = own("fault", "add", "--help")
    assert (status, errors) == (0, [])
    assert [kind for kind in KINDS if f"\n  {kind} " not in output] == []


def test_half_a_command_lists_the_words(own: Run) -> None:
    words = "add, list, remove, clear"
    said = f"emulator: The command fault is incomplete. Use {words}. --help shows the commands."
    assert own("fault").errors == [said]
    assert "\n  advance " in own("clock", "--help").output


def test_a_hub_that_is_away_is_one_line(run_command: Run, hub: Emulator) -> None:
    with second_hub(hub) as gone:
        login = gone.service_connection_string
    for words in (("clock",), ("fault", "list"), ("fault", "clear")):
        status, output, errors = run_command(*words, "--login", login)
        assert (status, output, len(errors)) == (1, "", 1)
        assert errors[0].startswith("emulator: Can't reach the hub at ")


def test_texts_of_a_fault_do_not_write_to_the_terminal(own: Run, hub: Emulator) -> None:
    hub.faults.add("throttle", device="\x1b[31m")
    shown = own("fault", "list")
    assert json.loads(shown.output)[0]["device"] == "\x1b[31m"
    assert "\x1b" not in shown.output + own("fault", "list", "-o", "table").output
