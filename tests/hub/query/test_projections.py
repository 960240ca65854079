"""Projections and aggregates, over rows of any kind."""

from typing import Any

import pytest

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import loads
from emulator.hub.query import Members, parse
from emulator.hub.query.projections import Aggregation, compile_projection

TAGS: Members[Any] = {"tags": lambda row: row, "deviceId": lambda row: "device-1"}


def project(selection: str, row: Any) -> Any:
    items = parse(f"SELECT {selection} FROM devices").items
    assert items is not None
    return compile_projection(items, TAGS)(row)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("DEVICEID", {"deviceId": "device-1"}),
        ("devices.DeviceId", {"deviceId": "device-1"}),
        ("DeviceId AS DeviceId", {"DeviceId": "device-1"}),
        ("tags.a.b", {"b": 1}),
        ("tags.a.B", {}),
        ("tags.a.[[b]] c", {"c": 1}),
        ("tags.list[1]", {"list": 3}),
        ("tags.list[1], tags.a['b']", {"list": 3, "b": 1}),
        ("tags.nothing, tags.absent, tags.a", {"nothing": None, "a": {"b": 1}}),
        ("Tags", {"tags": {"a": {"b": 1}, "list": [2, 3], "nothing": None}}),
        ("tags.absent", {}),
        ("unknown.Member", {}),
        ("tags.a.b = 1 AS one, tags.x = 1 AS two", {"one": True}),
        ("tags.a.b AS value, deviceId AS distinct", {"value": 1, "distinct": "device-1"}),
    ],
)
def test_projections(selection: str, expected: dict[str, object]) -> None:
    projected = project(selection, {"a": {"b": 1}, "list": [2, 3], "nothing": None})
    assert projected == expected
    assert list(projected) == list(expected)


@pytest.mark.parametrize(
    "selection",
    [
        "tags.a, tags.b.a",
        "deviceId, tags.x AS deviceId",
        "DeviceID, deviceid",
        "tags.[[;]], deviceId AS [[;]]",
    ],
)
def test_two_members_with_one_name_are_refused(selection: str) -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        project(selection, {})
    assert caught.value.text.startswith("BadRequest: two members have one name: ")
    assert ";" not in caught.value.text


def aggregate(text: str, *rows: Any) -> list[Any]:
    query = parse(text)
    assert query.items is not None
    aggregation = Aggregation(query.items, query.group_by, TAGS)
    for number, row in enumerate(rows):
        aggregation.add((str(number),), row)
    return [row for _, row in aggregation.rows()]


MIXED = [{"n": n} for n in (loads("1.50"), 4, "9", True, None, [7], {"n": 8}, 0.5)] + [{}]


def test_aggregates_read_numbers_only() -> None:
    (row,) = aggregate(
        "SELECT COUNT() AS rows, SUM(tags.n), AVG(tags.n), MIN(tags.n) AS least, MAX(tags.n) "
        "FROM devices",
        *MIXED,
    )
    assert row == {"rows": 9, "$1": 6, "$2": 2, "least": 0.5, "$3": 4}
    assert list(row) == ["rows", "$1", "$2", "least", "$3"]
    assert type(row["$2"]) is int
    (row,) = aggregate("SELECT MIN(tags.n) FROM devices", *MIXED[:2])
    assert row["$1"].text == "1.50"  # the twin's own number


def test_aggregates_of_no_numbers() -> None:
    text = "SELECT COUNT(), SUM(tags.n), AVG(tags.n), MIN(tags.n), MAX(tags.n) FROM devices"
    assert aggregate(text) == [{"$1": 0, "$2": 0}]
    assert aggregate(text, {"n": "x"}) == [{"$1": 1, "$2": 0}]
    assert aggregate(f"{text} GROUP BY tags.g") == []


def test_a_sum_beyond_a_double_is_left_out() -> None:
    text = "SELECT SUM(tags.n), AVG(tags.n), COUNT() FROM devices"
    assert aggregate(text, *[{"n": 1.7e308}] * 2) == [{"$3": 2}]


def test_a_group_has_equal_values() -> None:
    values = [1, loads("1.0"), True, "1", None, "1", {"a": 1, "b": 2}, {"b": 2, "a": 1.0}, [1], [1]]
    rows = [*({"g": value} for value in values), {}, {}]
    found = aggregate("SELECT tags.g AS g, COUNT() AS n FROM devices GROUP BY tags.g", *rows)
    groups = [(1, 2), (True, 1), ("1", 2), (None, 1), ({"a": 1, "b": 2}, 2), ([1], 2)]
    assert found == [*({"g": value, "n": count} for value, count in groups), {"n": 2}]


def test_groups_by_two_paths() -> None:
    rows = [{"a": a, "b": b, "n": n} for n, (a, b) in enumerate(["xy", "xz", "xy", "yx"])]
    found = aggregate(
        "SELECT MAX(tags.n) AS most, tags.b, devices.tags.a FROM devices GROUP BY tags.a, tags.b",
        *rows,
    )
    expected = [(2, "y", "x"), (1, "z", "x"), (3, "x", "y")]
    assert found == [{"most": most, "b": b, "a": a} for most, b, a in expected]


def test_groups_without_aggregates() -> None:
    rows = [{"a": 1}, {"a": 2}, {"a": 1}]
    assert aggregate("SELECT tags.a FROM devices GROUP BY tags.a", *rows) == [{"a": 1}, {"a": 2}]
