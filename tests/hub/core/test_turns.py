"""Calls that share a turn of the event loop."""

import pytest

from emulator.hub.core.turns import SharedTurn
from tests.clock import ManualClock, TickingClock


def test_calls_share_the_time_of_a_turn() -> None:
    """Here each look at the time takes longer than that, so one call is made in each turn."""
    clock = TickingClock()
    turn, made = SharedTurn(clock), list[str]()
    for name in "abc":
        turn.call_soon(lambda name=name: made.append(name))  # type: ignore[misc]
        clock.call_later(0, made.append, "another timer")
    assert made == []
    clock.advance(0)
    assert made == ["a", "another timer", "another timer", "another timer", "b", "c"]


def test_calls_that_take_no_time_are_made_in_one_turn() -> None:
    clock = ManualClock()
    turn, made = SharedTurn(clock), list[str]()
    for name in "abc":
        turn.call_soon(lambda name=name: made.append(name))  # type: ignore[misc]
    clock.call_later(0, made.append, "another timer")
    clock.advance(0)
    assert made == ["a", "b", "c", "another timer"]


def test_the_time_of_a_turn_is_over_when_it_is_used_up() -> None:
    turn, seen = SharedTurn(clock := TickingClock()), list[bool]()
    assert [turn.over for _ in range(3)] == [False, True, True]
    turn.call_soon(lambda: seen.extend((turn.over, turn.over)))
    clock.advance(0)
    assert seen == [False, False]  # it has waited
    assert turn.over is False  # a new turn


def test_a_call_that_fails_does_not_stop_the_others() -> None:
    clock = ManualClock()
    turn, made = SharedTurn(clock), list[str]()
    turn.call_soon(lambda: 1 // 0)
    turn.call_soon(lambda: made.append("next"))
    with pytest.raises(ZeroDivisionError):
        clock.advance(0)
    clock.advance(0)
    assert made == ["next"]
