"""Which readers may read a partition."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from emulator.hub.core import limits
from emulator.hub.messages.consumer_groups import ConsumerGroups, ReaderRefused, Refusal


@dataclass(eq=False)
class FakeReader:
    level: int | None = None
    name: str = "nil"
    reason: str = ""

    def displaced(self, reason: str) -> None:
        assert not self.reason, "it is displaced once"
        self.reason = reason


@pytest.fixture
def groups() -> ConsumerGroups:
    return ConsumerGroups()


def join(groups: ConsumerGroups, level: int | None = None, *, partition: str = "0") -> FakeReader:
    reader = FakeReader(level)
    groups.join("$Default", partition, reader)
    return reader


def refusal(groups: ConsumerGroups, level: int | None = None) -> Refusal:
    with pytest.raises(ReaderRefused) as caught:
        join(groups, level)
    return caught.value.refusal


def test_five_readers_without_a_level_share_a_partition(groups: ConsumerGroups) -> None:
    readers = [join(groups) for _ in range(limits.EVENT_READERS)]
    assert refusal(groups) is Refusal.TOO_MANY
    join(groups, partition="1")
    groups.leave("$DEFAULT", "0", readers[0])
    join(groups)
    assert not any(each.reason for each in readers)


@pytest.mark.parametrize("level", [0, 7])
def test_a_reader_with_a_level_is_alone(groups: ConsumerGroups, level: int) -> None:
    others = [join(groups) for _ in range(3)]
    owner = join(groups, level)
    assert all(f"epoch of '{level}'" in each.reason for each in others)
    assert refusal(groups) is Refusal.OWNED
    for each in others:  # they end, which must not free the partition
        groups.leave("$Default", "0", each)
    assert refusal(groups) is Refusal.OWNED
    groups.leave("$Default", "0", owner)
    join(groups)


def test_the_highest_level_owns_a_partition_and_the_newest_of_equals(
    groups: ConsumerGroups,
) -> None:
    first, second, third = join(groups, 1), join(groups, 1), join(groups, 3)
    assert (bool(first.reason), bool(second.reason), third.reason) == (True, True, "")
    assert refusal(groups, 2) is Refusal.OWNED
    assert third.reason == ""


def test_groups_do_not_know_each_other(groups: ConsumerGroups) -> None:
    owner = join(groups, 9)
    groups.join("mine", "0", FakeReader())
    assert owner.reason == ""
