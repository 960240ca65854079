"""A list without its beginning."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.tail import Tail


@given(st.lists(st.tuples(st.integers(0, 1_500), st.integers(0, 1_500)), max_size=12))
def test_it_is_a_deque_whose_items_keep_their_numbers(steps: list[tuple[int, int]]) -> None:
    tail, model, added = Tail[int](), deque[int](), 0
    for add, drop in steps:
        for number in range(added, added + add):
            tail.append(number)
        model.extend(range(added, added + add))
        added += add
        drop = min(drop, len(model))
        assert tail.drop(drop) == [model.popleft() for _ in range(drop)]
        assert (len(tail), tail.end) == (len(model), added)
        assert tail.begin == added - len(model)
        assert [tail[number] for number in range(tail.begin, tail.end)] == list(model)
        assert list(tail) == list(model)
        for value in range(tail.begin - 1, tail.end):
            assert tail.find(value, lambda item: item) == value
        if model:
            assert tail.first == model[0]


def test_what_was_dropped_is_not_held() -> None:
    tail = Tail[object]()
    for _ in range(10_000):
        tail.append(object())
        tail.drop()
    assert len(tail._items) <= 1_001
