"""What a patch, a replacement and a report make of a twin."""

import copy
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeviceModelMaxPropertiesExceeded,
    PreconditionFailed,
)
from emulator.hub.core.json import dumps, loads
from emulator.hub.core.times import iso
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry.documents import TWIN_MEMBERS
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes
from emulator.hub.twins.twin import Twin, TwinChanged

BORN = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
NOW = BORN + timedelta(hours=1)
BORN_TEXT, NOW_TEXT = "2026-01-31T14:46:08.12Z", "2026-01-31T15:46:08.12Z"

FRESH = twins.create(IdentityKey("device"), BORN)


def desired(members: object) -> dict[str, Any]:
    return {"properties": {"desired": members}}


FULL = writes.patch(FRESH, {"tags": {"t": 1}, **desired({"a": {"b": 1}, "c": 2})}, BORN).twin


def report(twin: Twin, members: object, now: datetime, expected_version: int | None = None) -> Twin:
    return writes.report(twin, members, now, expected_version).twin


def mark(version: int, **children: Any) -> dict[str, Any]:
    return {"$lastUpdated": NOW_TEXT, "$lastUpdatedVersion": version, **children}


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
        ({"a": {"b": 1}}, {"a": None}, {}),
        ({}, {"a": None}, {}),
        ({}, {"a": {"b": None}}, {"a": {}}),
        ({}, {"a": {"b": {"c": None, "d": 1}}}, {"a": {"b": {"d": 1}}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": {}}, {"a": {}}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": {"b": 2}}, {"a": False}, {"a": False}),
        ({"a": [1, 2, {"b": 3}]}, {"a": [[], 4]}, {"a": [[], 4]}),
        ({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"": 1}, {"": 2, "ключ": "значение"}, {"": 2, "ключ": "значение"}),
    ],
)
def test_tags_desired_and_reported_merge_alike(before: Any, changes: Any, after: Any) -> None:
    start = writes.replace(FRESH, {"tags": before, **desired(before)}, BORN).twin
    start = report(start, before, BORN)
    written = writes.patch(start, {"tags": changes, **desired(changes)}, NOW).twin
    written = report(written, changes, NOW)
    assert written.tags == written.desired.values == written.reported.values == after


def test_metadata_dates_the_touched_path_and_nothing_else() -> None:
    start = writes.patch(FRESH, desired({"a": {"b": 1, "c": [{"d": 1}]}, "e": 1}), BORN).twin
    twin = writes.patch(start, desired({"a": {"b": None, "f": "x"}}), NOW).twin
    born = {"$lastUpdated": BORN_TEXT, "$lastUpdatedVersion": 2}
    assert twin.desired.metadata == mark(3, a=mark(3, c=born, f=mark(3)), e=born)
    assert list(twin.desired.metadata) == ["$lastUpdated", "$lastUpdatedVersion", "a", "e"]
    assert twin.reported is start.reported


def test_replace_dates_everything_and_leaves_reported_alone() -> None:
    start = report(writes.patch(FRESH, desired({"a": 1, "b": 1}), BORN).twin, {"r": 1}, BORN)
    change = writes.replace(start, {"tags": {"u": 1}, **desired({"a": {}})}, NOW)
    assert change.twin.tags == {"u": 1}
    assert change.twin.desired.metadata == mark(3, a=mark(3))
    assert change.twin.reported == start.reported
    assert change.desired == {"a": {}, "b": None, "$version": 3}


@pytest.mark.parametrize(
    ("before", "after", "notice"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "c": 100}, {"a": 1, "b": None, "c": 100}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}, {"a": {"b": None, "c": 2}}),
        (
            {"a": {"b": {"c": 1, "d": [1]}}},
            {"a": {"b": {"d": [2]}}},
            {"a": {"b": {"c": None, "d": [2]}}},
        ),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 1}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}),
        ({"a": [{"b": 1}]}, {"a": {"c": 1}}, {"a": {"c": 1}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}),
        ({"a": {"b": 1}, "c": 1}, {}, {"a": None, "c": None}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": 1}, {"a": 1}),
    ],
)
def test_the_notice_of_a_replace_has_null_for_what_is_gone(
    before: Any, after: Any, notice: Any
) -> None:
    start = writes.patch(FRESH, desired(before), BORN).twin
    change = writes.replace(start, desired(after), NOW)
    assert change.desired == {**notice, "$version": 3}
    assert list(change.desired) == [*(before | after), "$version"]
    assert change.twin.desired.values == after


@pytest.mark.parametrize("null", [{"floor": None}, {"a": {"b": {"floor": None}}}])
def test_a_replace_with_a_null_is_refused(null: Any) -> None:
    text = "Value of Property or Tag cannot be null. Error in Property/Tag floor"
    for body in ({"tags": null}, desired(null), {"tags": {"a": 1}, **desired(null)}):
        with pytest.raises(ArgumentInvalid) as refusal:
            writes.replace(FULL, body, NOW)
        assert refusal.value.text == text


@pytest.mark.parametrize("body", [{}, {"tags": None, **desired(None)}, {"properties": None}])
def test_replace_empties_a_part_that_it_leaves_out(body: Any) -> None:
    change = writes.replace(FULL, body, NOW)
    assert (change.twin.tags, change.twin.desired.values) == ({}, {})
    notice = {"a": None, "c": None, "$version": 3}
    assert (change.tags, change.desired, change.replaced) == ({}, notice, True)


@pytest.mark.parametrize(
    ("body", "notice", "revision"),
    [
        ({"tags": {"t": 2}}, None, 3),
        ({"tags": None}, None, 3),
        ({"tags": {"t": 1}, "properties": None}, None, 3),
        (desired({"a": {"b": None}, "x": None}), {"a": {"b": None}, "x": None, "$version": 3}, 3),
        (desired({}), {"$version": 3}, 3),
        (desired(None), {"a": None, "c": None, "$version": 3}, 3),
        ({}, None, 2),
        ({"properties": {}}, None, 2),
        ({"etag": "x", "properties": {"reported": [1]}}, None, 2),
    ],
)
def test_a_patch_counts_what_it_writes_and_has_a_notice_for_the_device(
    body: Any, notice: Any, revision: int
) -> None:
    change = writes.patch(FULL, body, NOW)
    assert change.desired == notice
    assert change.twin.revision == revision
    assert change.twin.desired.version == (2 if notice is None else 3)
    assert change.twin.version == revision + 1
    assert (change.twin is FULL) == (revision == 2)


@pytest.mark.parametrize("name", sorted({*TWIN_MEMBERS} - {"tags", "properties"}))
@pytest.mark.parametrize("spell", [str, str.upper, str.lower])
def test_the_other_members_of_a_twin_are_ignored(name: str, spell: Callable[[str], str]) -> None:
    for value in (None, 1, {"x": 1}):
        assert writes.patch(FULL, {spell(name): value}, NOW).twin is FULL


def test_a_part_that_is_null_loses_all_its_members() -> None:
    change = writes.patch(FULL, {"tags": None, **desired(None)}, NOW)
    assert (change.twin.tags, change.twin.desired.values) == ({}, {})
    assert change.twin.desired.metadata == mark(3)
    assert (change.tags, change.desired) == ({"t": None}, {"a": None, "c": None, "$version": 3})


def test_a_whole_twin_can_be_sent_back() -> None:
    twin = report(writes.patch(FRESH, desired({"a": 1}), BORN).twin, {"r": 1}, BORN)
    views = {"desired": twin.desired.service_view(), "reported": twin.reported.service_view()}
    echo = {"deviceId": "device", "etag": twin.etag, "version": 9, "properties": views}
    for write in (writes.patch, writes.replace):
        change = write(twin, echo, NOW)
        assert change.twin.desired.values == {"a": 1}
        assert change.twin.reported == twin.reported
        assert change.desired == {"a": 1, "$version": 3}
    # A device cannot send its section back as a service reads it (seen on a real hub).
    for member in ("$version", "$metadata", "$other"):
        with pytest.raises(ArgumentInvalid, match=f"Error in Property/Tag \\{member}"):
            report(twin, {"a": 1, member: 1}, NOW)


def test_a_report_moves_the_reported_version_only() -> None:
    twin = report(FRESH, {"a": 1}, NOW, expected_version=1)
    date = {"$lastUpdated": NOW_TEXT}
    assert twin.reported.service_view() == {
        "a": 1,
        "$metadata": {**date, "a": date},
        "$version": 2,
    }
    assert (twin.desired, twin.etag, twin.version) == (FRESH.desired, FRESH.etag, 3)


@pytest.mark.parametrize("expected", [0, 2])
def test_a_report_for_another_version_is_refused(expected: int) -> None:
    with pytest.raises(PreconditionFailed, match=f"version 1, not {expected}"):
        report(FRESH, {"a": 1}, NOW, expected)


def test_numbers_stay_as_they_were_written() -> None:
    text = b'{"a":[1.50,{"b":1e5}],"c":-0,"d":1.0,"e":1E+20,"f":0.1234567890123456789012}'
    twin = report(writes.replace(FRESH, desired(loads(text)), NOW).twin, loads(text), NOW)
    assert dumps(twin.desired.values) == dumps(twin.reported.values) == text


def test_a_twin_shares_nothing_with_the_body_of_a_write() -> None:
    body = {"tags": {"a": {"b": [1, [2], {"c": [3]}]}}}
    twin = writes.patch(FRESH, body, NOW).twin
    body["tags"]["a"]["b"][2]["c"].append(4)  # type: ignore[index]
    assert twin.tags == {"a": {"b": [1, [2], {"c": [3]}]}}


# --- what is refused


@pytest.mark.parametrize("invalid", [{"a.b": 1}, [], "text", {"a": "v" * 4097}])
def test_each_part_of_each_write_is_checked(invalid: Any) -> None:
    for write in (writes.patch, writes.replace):
        for body in ({"tags": invalid}, {"tags": {"fine": 1}, **desired(invalid)}):
            with pytest.raises(ArgumentInvalid):
                write(FRESH, body, NOW)
    for members in (invalid, None):  # a device cannot clear its reported properties with null
        with pytest.raises(ArgumentInvalid):
            writes.report(FRESH, members, NOW, None)


@pytest.mark.parametrize(
    "body", [None, [], "text", 1, True, {"properties": []}, {"properties": [{"desired": {}}]}]
)
def test_a_body_that_is_not_an_object_is_refused(body: Any) -> None:
    for write in (writes.patch, writes.replace):
        with pytest.raises(ArgumentInvalid, match="Provided json is not a valid"):
            write(FRESH, body, NOW)


@pytest.mark.parametrize(
    ("part", "maximum"), [("tags", 8192), ("desired", 32768), ("reported", 32768)]
)
def test_a_part_can_be_as_large_as_its_limit(part: str, maximum: int) -> None:
    def write(twin: Twin, members: Any) -> Twin:
        if part == "reported":
            return report(twin, members, NOW)
        body = {"tags": members} if part == "tags" else desired(members)
        return writes.patch(twin, body, NOW).twin

    # 4 KB in each member: a key of two bytes, and its value.
    members = {f"{n:02}": "v" * 4094 for n in range(maximum // 4096)}
    full = write(FRESH, members)
    assert write(full, {"": "\x01\x85"})  # control characters measure nothing
    title = {"tags": "Tags"}.get(part, f"Properties.{part.title()}")
    with pytest.raises(DeviceModelMaxPropertiesExceeded) as refusal:
        write(full, {"x": ""})
    assert refusal.value.text == f"'{title}' size should be less than {maximum} bytes."
    assert write(full, {"00": None, "x": "y" * 4000})  # the result counts


# --- properties of any history

KEYS = st.sampled_from(["a", "b", "", "ключ"])
SCALARS = st.sampled_from(
    [True, False, 0, 1, "", "text", *(loads(text) for text in ("1.0", "1.50", "-0", "1E+20"))]
)
LEAVES: st.SearchStrategy[Any] = (
    SCALARS | st.just([]) | st.lists(SCALARS | st.just({"a": [1]}), max_size=2) | st.none()
)
SHALLOW = st.dictionaries(KEYS, LEAVES, max_size=2)
PATCHES = st.dictionaries(KEYS, st.dictionaries(KEYS, SHALLOW | LEAVES, max_size=2) | LEAVES)
ABSENT = "absent"
PARTS = PATCHES | st.sampled_from([ABSENT, None])
# A replacement has no nulls.
WHOLE_PARTS = PARTS.map(lambda part: merged({}, part) if isinstance(part, dict) else part)
WRITES = st.lists(
    st.tuples(st.just("patch"), PARTS, PARTS)
    | st.tuples(st.just("replace"), WHOLE_PARTS, WHOLE_PARTS)
    | st.tuples(st.just("report"), PATCHES, st.none()),
    max_size=5,
)
# No deadline: the machine can be busy.
HISTORIES = settings(max_examples=50, deadline=None)


def play(steps: list[Any]) -> Iterator[tuple[Twin, str, Any, Any, TwinChanged]]:
    """Apply one write after the other; yield the twin before, the write, and the change."""
    twin = FRESH
    for hours, (verb, first, second) in enumerate(steps, start=1):
        now = BORN + timedelta(hours=hours)
        if verb == "report":
            change = writes.report(twin, first, now, None)
        else:
            body = {} if first == ABSENT else {"tags": first}
            body |= {} if second == ABSENT else desired(second)
            change = (writes.patch if verb == "patch" else writes.replace)(twin, body, now)
        yield twin, verb, first, second, change
        twin = change.twin


def merged(document: Any, changes: Any) -> Any:
    """RFC 7386 as a list of steps, in place, on a copy."""
    result = copy.deepcopy(document)
    steps = [(result, key, value) for key, value in changes.items()]
    for target, key, value in steps:
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            steps += [(target[key], *member) for member in value.items()]
        else:
            target[key] = value
    return result


@HISTORIES
@given(WRITES)
def test_members_are_what_the_merge_patches_make_of_them_also_on_a_device(steps: list[Any]) -> None:
    model: dict[str, Any] = {"tags": {}, "desired": {}, "reported": {}}
    mirror = FRESH.device_view()["desired"]
    for _, verb, first, second, change in play(steps):
        parts = {"reported": first} if verb == "report" else {"tags": first, "desired": second}
        for name, part in parts.items():
            if verb == "replace" or part is None:
                model[name] = {}
            if part not in (None, ABSENT):
                model[name] = merged(model[name], part)
        twin = change.twin
        # As text, which tells 1 from 1.0 and from true, and one order from another.
        values = (twin.tags, twin.desired.values, twin.reported.values)
        assert dumps(values) == dumps(tuple(model.values()))
        # A device applies each notice. Nothing marks a replace (IoT Hub docs: device twins).
        if change.desired is not None:
            mirror = merged(mirror, change.desired)
        assert loads(dumps(mirror)) == loads(dumps(twin.device_view()["desired"]))


def shape(node: Any) -> Any:
    """The names in a document or in its metadata, in their order; a leaf has no names."""
    members = node.items() if isinstance(node, dict) else ()
    return [(key, shape(value)) for key, value in members if not key.startswith("$")]


def dates(node: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The version and the date at each path of a metadata tree."""
    found = {path: (node.get("$lastUpdatedVersion"), node["$lastUpdated"])}
    for key in (key for key in node if not key.startswith("$")):
        found |= dates(node[key], (*path, key))
    return found


def paths(changes: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    below = changes.items() if isinstance(changes, dict) else ()
    return {path}.union(*(paths(value, (*path, key)) for key, value in below))


@HISTORIES
@given(WRITES)
def test_metadata_mirrors_the_members_and_dates_what_was_written(steps: list[Any]) -> None:
    for before, verb, first, second, change in play(steps):
        after = change.twin
        for section in (after.desired, after.reported):
            assert shape(section.metadata) == shape(section.values)
        name, changes = ("reported", first) if verb == "report" else ("desired", second)
        old, new = getattr(before, name), getattr(after, name)
        dated = dates(new.metadata)
        if verb == "report":
            assert {version for version, _ in dated.values()} == {None}
        if verb == "replace" or changes is None:
            assert set(dated.values()) <= {(new.version, iso(change.time))}
        elif changes != ABSENT:
            touched = paths(changes)
            kept = dates(old.metadata)
            now = (None if verb == "report" else new.version, iso(change.time))
            assert all((dated[path] == now) == (path in touched) for path in dated)
            assert all(dated[path] == kept[path] for path in dated.keys() - touched)


@HISTORIES
@given(WRITES)
def test_counters_move_by_one_for_each_write_to_what_they_count(steps: list[Any]) -> None:
    for before, verb, first, second, change in play(steps):
        after, notice = change.twin, change.desired
        wrote_desired = verb == "replace" or (verb == "patch" and second != ABSENT)
        by_service = wrote_desired or (verb == "patch" and first != ABSENT)
        assert after.desired.version - before.desired.version == wrote_desired
        assert after.reported.version - before.reported.version == (verb == "report")
        assert after.revision - before.revision == by_service
        assert (after is before) == (not by_service and verb != "report")
        assert after.version == 2 + (after.revision - 1) + (after.reported.version - 1)
        assert (notice is not None) == wrote_desired
        assert notice is None or notice["$version"] == after.desired.version


@HISTORIES
@given(WRITES)
def test_no_write_alters_an_earlier_twin_or_its_own_body(steps: list[Any]) -> None:
    text = dumps(steps)
    history = [(twin, copy.deepcopy(twin)) for twin, *_ in play(steps)]
    assert all(twin == copied for twin, copied in history)
    assert dumps(steps) == text
