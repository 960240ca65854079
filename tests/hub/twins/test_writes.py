"""The twin document: merge, metadata, counters, views and validation."""

from __future__ import annotations

import copy
import math
import re
import string
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.hub.core.errors import ArgumentInvalid, PreconditionFailed
from emulator.hub.core.json import dumps, loads
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.twins import twin as twins
from emulator.hub.twins.twin import Twin

BORN = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
NOW = BORN + timedelta(hours=1)
BORN_TEXT, NOW_TEXT = "2026-01-31T14:46:08.12Z", "2026-01-31T15:46:08.12Z"

FRESH = twins.create(IdentityKey("device"), BORN)


def desired(members: object) -> dict[str, Any]:
    return {"properties": {"desired": members}}


def mark(version: int, **children: Any) -> dict[str, Any]:
    return {"$lastUpdated": NOW_TEXT, "$lastUpdatedVersion": version, **children}


# --- a new twin, and what is seen of it


def test_a_new_device_twin_is_dated_and_counts_from_one() -> None:
    section = {"$metadata": {"$lastUpdated": BORN_TEXT}, "$version": 1}
    assert FRESH.desired.service_view() == FRESH.reported.service_view() == section
    assert (FRESH.tags, FRESH.etag, FRESH.version) == ({}, "AAAAAAAAAAE=", 2)
    assert FRESH.device_view() == {"desired": {"$version": 1}, "reported": {"$version": 1}}


def test_a_new_module_twin_has_no_date() -> None:
    twin = twins.create(IdentityKey("device", "module"), BORN)
    assert twin.desired.metadata == {"$lastUpdated": "0001-01-01T00:00:00Z"}


def test_views_put_the_members_first() -> None:
    twin = twins.patch(FRESH, desired({"z": 1, "a": 2}), NOW).twin
    assert list(twin.desired.service_view()) == ["z", "a", "$metadata", "$version"]
    assert list(twin.device_view()["desired"]) == ["z", "a", "$version"]


# --- what a write does


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
    start = twins.replace(FRESH, {"tags": before, **desired(before)}, BORN).twin
    start = twins.report(start, before, BORN)
    written = twins.patch(start, {"tags": changes, **desired(changes)}, NOW).twin
    written = twins.report(written, changes, NOW)
    assert written.tags == written.desired.values == written.reported.values == after


def test_metadata_dates_the_touched_path_and_nothing_else() -> None:
    start = twins.patch(FRESH, desired({"a": {"b": 1, "c": [{"d": 1}]}, "e": 1}), BORN).twin
    twin = twins.patch(start, desired({"a": {"b": None, "f": "x"}}), NOW).twin
    born = {"$lastUpdated": BORN_TEXT, "$lastUpdatedVersion": 2}
    assert twin.desired.metadata == mark(3, a=mark(3, c=born, f=mark(3)), e=born)
    assert list(twin.desired.metadata) == ["$lastUpdated", "$lastUpdatedVersion", "a", "e"]
    assert twin.reported is start.reported


def test_replace_dates_everything_and_leaves_reported_alone() -> None:
    start = twins.report(twins.patch(FRESH, desired({"a": 1, "b": 1}), BORN).twin, {"r": 1}, BORN)
    change = twins.replace(start, {"tags": {"t": None, "u": 1}, **desired({"a": {"n": None}})}, NOW)
    assert change.twin.tags == {"u": 1}
    assert change.twin.desired.metadata == mark(3, a=mark(3))
    assert change.twin.reported == start.reported
    assert change.desired == {"a": {}, "$version": 3}


@pytest.mark.parametrize("body", [{}, {"tags": None, **desired(None)}, {"properties": None}])
def test_replace_empties_what_it_does_not_have(body: Any) -> None:
    start = twins.patch(FRESH, {"tags": {"t": 1}, **desired({"a": 1})}, BORN).twin
    change = twins.replace(start, body, NOW)
    assert (change.twin.tags, change.twin.desired.values) == ({}, {})
    assert change.desired == {"$version": 3}


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
        ({"desired": {"a": 1}, "etag": "x", "properties": {"reported": [1]}}, None, 2),
    ],
)
def test_a_patch_tells_the_device_and_counts_what_it_writes(
    body: Any, notice: Any, revision: int
) -> None:
    start = twins.patch(FRESH, {"tags": {"t": 1}, **desired({"a": {"b": 1}, "c": 2})}, BORN).twin
    change = twins.patch(start, body, NOW)
    assert change.desired == notice
    assert change.twin.revision == revision
    assert change.twin.desired.version == (2 if notice is None else 3)


def test_a_null_part_loses_all_its_members() -> None:
    start = twins.patch(FRESH, {"tags": {"t": 1}, **desired({"a": {"b": 1}})}, BORN).twin
    twin = twins.patch(start, {"tags": None, **desired(None)}, NOW).twin
    assert (twin.tags, twin.desired.values, twin.desired.metadata) == ({}, {}, mark(3))


def test_a_whole_twin_can_be_sent_back() -> None:
    twin = twins.report(twins.patch(FRESH, desired({"a": 1}), BORN).twin, {"r": 1}, BORN)
    views = {"desired": twin.desired.service_view(), "reported": twin.reported.service_view()}
    echo = {"deviceId": "device", "etag": twin.etag, "version": 9, "properties": views}
    for write in (twins.patch, twins.replace):
        change = write(twin, echo, NOW)
        assert change.twin.desired.values == {"a": 1}
        assert change.twin.reported == twin.reported
        assert change.desired == {"a": 1, "$version": 3}
    assert twins.report(twin, twin.reported.service_view(), NOW).reported.values == {"r": 1}


def test_a_report_moves_the_reported_version_only() -> None:
    twin = twins.report(FRESH, {"a": 1}, NOW, expected_version=1)
    assert twin.reported.service_view() == {"a": 1, "$metadata": mark(2, a=mark(2)), "$version": 2}
    assert (twin.desired, twin.etag, twin.version) == (FRESH.desired, FRESH.etag, 3)


@pytest.mark.parametrize("expected", [0, 2])
def test_a_report_for_another_version_is_refused(expected: int) -> None:
    with pytest.raises(PreconditionFailed, match=f"version 1, not {expected}"):
        twins.report(FRESH, {"a": 1}, NOW, expected)


def test_numbers_stay_as_they_were_written() -> None:
    text = b'{"a":[1.50,{"b":1e5}],"c":-0,"d":1.0,"e":1E+20,"f":0.1234567890123456789012}'
    twin = twins.report(twins.replace(FRESH, desired(loads(text)), NOW).twin, loads(text), NOW)
    assert dumps(twin.desired.values) == dumps(twin.reported.values) == text


def test_a_twin_does_not_hold_on_to_what_it_was_given() -> None:
    body = {"tags": {"a": {"b": [1, [2], {"c": [3]}]}}}
    twin = twins.patch(FRESH, body, NOW).twin
    body["tags"]["a"]["b"][2]["c"].append(4)  # type: ignore[index]
    assert twin.tags == {"a": {"b": [1, [2], {"c": [3]}]}}


# --- what is refused


def nested(levels: int, innermost: Any) -> Any:
    for _ in range(levels):
        innermost = {"level": innermost}
    return innermost


def arrays(levels: int, innermost: Any) -> Any:
    for _ in range(levels):
        innermost = [innermost]
    return innermost


@pytest.mark.parametrize(
    "members",
    [
        {"k" * 1024: "v" * 4096},
        {"é" * 512: "é" * 2048},
        {"": True, "key/with-other_chars;:\u00a0\u2003\U0001f600": "\x00\x85 .$#"},
        {"i": -4503599627370496, "j": 4503599627370495, "k": 4503599627370496.0},
        loads('{"d": 1e20, "e": -1e300, "f": 123456789012345678901234567890.0}'),
        nested(11, 1),
        nested(11, None),
        nested(10, {}),
        {"a": arrays(10, 1)},
        nested(8, [{"in": 1}]),
    ],
)
def test_what_is_within_the_limits_is_accepted(members: Any) -> None:
    assert twins.patch(FRESH, desired(members), NOW).twin.desired.version == 2
    assert twins.report(FRESH, members, NOW).reported.version == 2


BAD_KEYS = [".", "$", " ", "#", "\x00", "\x1f", "\x7f", "\x80", "\x9f", "\n"]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        *(({f"k{c}": 1}, f"Property name k{c} contains invalid character '{c}'") for c in BAD_KEYS),
        ({"a.b": None}, "Property name a.b contains invalid character '.'"),
        ({"ok": 1, "a": {"b": {"$version": None}}}, "Property name $version contains"),
        ({"a": [{"b c": 1}]}, "Property name b c contains invalid character ' '"),
        ({"$other": 1}, "Property name $other contains invalid character '$'"),
        ({"k" * 1025: 1}, "property name kkkkkkkkkk.. exceeds maximum length of 1024"),
        ({"é" * 513: None}, "property name éééééééééé.. exceeds maximum length of 1024"),
        ({"a": {"b": "v" * 4097}}, "maximum 4096 bytes. Error in Property/Tag b"),
        ({"a": ["é" * 2049]}, "maximum 4096 bytes. Error in Property/Tag a"),
        ({"a": -4503599627370497}, "Property a has an out of bound value. Valid values are"),
        ({"a": [4503599627370496]}, "Property a has an out of bound value. Valid values are"),
        (loads('{"a": 123456789012345678901234567890}'), "Property a has an out of bound value."),
        (loads('{"a": -1e999}'), "Property a has an out of bound value. It is beyond a double"),
        ({"a": [1, None]}, "Arrays cannot contain 'null' as value. Error in Property/Tag a"),
        ({"a": [[None]]}, "Arrays cannot contain 'null' as value"),
        ({"a": [{"b": {"c": None}}]}, "Property c of an object in an array cannot be 'null'"),
        (nested(11, {}), "Nested depth of twin property exceeds 10. Error in Property/Tag level"),
        (nested(12, None), "Nested depth of twin property exceeds 10"),
        ({"a": arrays(11, 1)}, "Nested depth of twin property exceeds 10"),
        (nested(9, [[{}]]), "Nested depth of twin property exceeds 10"),
        ([], "Provided json is not a valid 'tags' or 'properties' object"),
        ("text", "Provided json is not a valid 'tags' or 'properties' object"),
        (1, "Provided json is not a valid 'tags' or 'properties' object"),
    ],
)
def test_a_bad_member_is_refused_everywhere(members: Any, text: str) -> None:
    for write in (twins.patch, twins.replace):
        for body in ({"tags": members}, {"tags": {"fine": 1}, **desired(members)}):
            with pytest.raises(ArgumentInvalid) as caught:
                write(FRESH, body, NOW)
            assert text in caught.value.text
    with pytest.raises(ArgumentInvalid) as caught:
        twins.report(FRESH, members, NOW)
    assert text in caught.value.text


@pytest.mark.parametrize(
    "body", [None, [], "text", 1, True, {"properties": []}, {"properties": [{"desired": {}}]}]
)
def test_a_body_that_is_no_object_is_refused(body: Any) -> None:
    for write in (twins.patch, twins.replace):
        with pytest.raises(ArgumentInvalid, match="Provided json is not a valid"):
            write(FRESH, body, NOW)


def test_a_device_cannot_clear_its_reported_properties_with_null() -> None:
    with pytest.raises(ArgumentInvalid, match="'reported' is not an object"):
        twins.report(FRESH, None, NOW)


def test_tags_have_no_system_members() -> None:
    with pytest.raises(ArgumentInvalid, match=r"name \$version contains"):
        twins.patch(FRESH, {"tags": {"$version": 1}}, NOW)


def filled(to: int) -> dict[str, str]:
    """Members that measure `to` bytes: two-byte keys, values of at most 4,096."""
    members: dict[str, str] = {}
    while to:
        length = min(to, 4098)
        members[string.ascii_letters[len(members)] * 2] = "v" * (length - 2)
        to -= length
    return members


@pytest.mark.parametrize(
    ("part", "maximum"), [("tags", 8192), ("desired", 32768), ("reported", 32768)]
)
def test_a_part_may_be_as_large_as_its_limit(part: str, maximum: int) -> None:
    def write(twin: Twin, members: Any) -> Twin:
        if part == "reported":
            return twins.report(twin, members, NOW)
        body = {"tags": members} if part == "tags" else desired(members)
        return twins.patch(twin, body, NOW).twin

    full = write(FRESH, filled(maximum))
    assert write(full, {"": "\x01\x85"})  # control characters measure nothing
    too_large = f"Twin properties size {maximum + 1} exceeds maximum {maximum} in '{part}'"
    with pytest.raises(ArgumentInvalid, match=too_large):
        write(full, {"x": ""})
    assert write(full, {"aa": None, "x": "y" * 4000})  # what counts is the result


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
WRITES = st.lists(
    st.tuples(st.just("patch"), PARTS, PARTS)
    | st.tuples(st.just("replace"), PARTS, PARTS)
    | st.tuples(st.just("report"), PATCHES, st.none()),
    max_size=5,
)
# No deadline: a busy machine is no failure.
HISTORIES = settings(max_examples=50, deadline=None)


def play(writes: list[Any]) -> Iterator[tuple[Twin, str, Any, Any, twins.Change]]:
    """Apply one write after the other; gives the twin before, the write, and the change."""
    twin = FRESH
    for hours, (verb, first, second) in enumerate(writes, start=1):
        now = BORN + timedelta(hours=hours)
        if verb == "report":
            change = twins.Change(twins.report(twin, first, now), None)
        else:
            body = {} if first == ABSENT else {"tags": first}
            body |= {} if second == ABSENT else desired(second)
            change = (twins.patch if verb == "patch" else twins.replace)(twin, body, now)
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
def test_members_are_what_the_merge_patches_make_of_them(writes: list[Any]) -> None:
    model: dict[str, Any] = {"tags": {}, "desired": {}, "reported": {}}
    for _, verb, first, second, (twin, _) in play(writes):
        parts = {"reported": first} if verb == "report" else {"tags": first, "desired": second}
        for name, part in parts.items():
            if verb == "replace" or part is None:
                model[name] = {}
            if part not in (None, ABSENT):
                model[name] = merged(model[name], part)
        values = {
            "tags": twin.tags,
            "desired": twin.desired.values,
            "reported": twin.reported.values,
        }
        # As text, which tells 1 from 1.0 and from true, and one order from another.
        assert dumps(values) == dumps(model)


@HISTORIES
@given(WRITES)
def test_a_device_that_applies_what_it_is_told_stays_in_step(writes: list[Any]) -> None:
    mirror = FRESH.device_view()["desired"]
    for _, verb, _, _, (twin, notice) in play(writes):
        if notice is not None:
            # Nothing marks a replace (IoT Hub docs: device twins); this device happens to know.
            mirror = merged({} if verb == "replace" else mirror, notice)
        view = twin.device_view()["desired"]
        assert loads(dumps(mirror)) == loads(dumps(view))


def shape(values: Any) -> Any:
    """The names in a document, in their order; an array or a scalar has none."""
    return [(k, shape(v)) for k, v in values.items()] if isinstance(values, dict) else []


def children(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if not key.startswith("$")}


def dates(node: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The version at each path of a metadata tree."""
    found = {path: (node.get("$lastUpdatedVersion"), node["$lastUpdated"])}
    for key, child in children(node).items():
        found |= dates(child, (*path, key))
    return found


def paths(changes: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    below = changes.items() if isinstance(changes, dict) else ()
    return {path}.union(*(paths(value, (*path, key)) for key, value in below))


@HISTORIES
@given(WRITES)
def test_metadata_mirrors_the_members_and_dates_what_was_written(writes: list[Any]) -> None:
    def pruned(node: dict[str, Any]) -> dict[str, Any]:
        return {key: pruned(child) for key, child in children(node).items()}

    for before, verb, first, second, (after, _) in play(writes):
        for section in (after.desired, after.reported):
            assert shape(pruned(section.metadata)) == shape(section.values)
        name, changes = ("reported", first) if verb == "report" else ("desired", second)
        old, new = getattr(before, name), getattr(after, name)
        dated = dates(new.metadata)
        if verb == "replace" or changes is None:
            assert {version for version, _ in dated.values()} <= {new.version}
        elif changes != ABSENT:
            touched = paths(changes)
            kept = dates(old.metadata)
            assert all((dated[path][0] == new.version) == (path in touched) for path in dated)
            assert all(dated[path] == kept[path] for path in dated.keys() - touched)


@HISTORIES
@given(WRITES)
def test_counters_move_by_one_for_each_write_to_what_they_count(writes: list[Any]) -> None:
    for before, verb, first, second, (after, notice) in play(writes):
        wrote_desired = verb == "replace" or (verb == "patch" and second != ABSENT)
        by_service = wrote_desired or (verb == "patch" and first != ABSENT)
        assert after.desired.version - before.desired.version == wrote_desired
        assert after.reported.version - before.reported.version == (verb == "report")
        assert after.revision - before.revision == by_service
        assert (after.etag != before.etag) == by_service
        assert after.version == after.desired.version + after.reported.version
        assert (notice is not None) == wrote_desired
        assert notice is None or notice["$version"] == after.desired.version


def as_text(twin: Twin) -> bytes:
    sections = {"desired": twin.desired.service_view(), "reported": twin.reported.service_view()}
    return dumps({"tags": twin.tags, "etag": twin.etag, **sections})


@HISTORIES
@given(WRITES)
def test_no_write_alters_an_earlier_twin_or_its_own_body(writes: list[Any]) -> None:
    given_text = dumps(writes)
    history = [(twin, as_text(twin)) for twin, *_ in play(writes)]
    assert all(as_text(twin) == text for twin, text in history)
    assert dumps(writes) == given_text


TEXTS = st.text("\x00\x1f\x7f\x80\x9f a~é\u2028\U0001f600", max_size=6)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(TEXTS, below, max_size=2),
    max_leaves=4,
)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_size_is_the_sum_of_its_parts(one: Any, other: Any) -> None:
    def text_size(text: str) -> int:
        return sum(len(c.encode()) for c in text if unicodedata.category(c) != "Cc")

    assert twins.size({"é": one, "bc": other}) == 4 + twins.size(one) + twins.size(other)
    assert twins.size([one, other]) == twins.size(one) + twins.size(other)
    assert twins.size({}) == twins.size([]) == 0
    if isinstance(one, str):
        assert twins.size(one) == text_size(one)
    elif isinstance(one, dict):
        keys = sum(text_size(key) for key in one)
        assert twins.size(one) == keys + sum(twins.size(value) for value in one.values())
    elif not isinstance(one, list):
        assert twins.size(one) == (4 if one is True or one is False else 8)


ODD_KEYS = st.sampled_from(["a", "b", "é" * 512, "", "~"]) | st.sampled_from(
    ["k" * 1025, "é" * 513, "a.b", "$a", "a b", "#", "\x7f", "\x80", "\u00a0"]
)
ODD_SCALARS = st.sampled_from(
    [None, True, "", "x" * 4096, "é" * 2048, 1.5, 2**52 - 1, -(2**52), loads("-0"), loads("1e99")]
) | st.sampled_from(
    ["x" * 4097, "é" * 2049, 2**52, -(2**52) - 1, loads("9" * 30), loads("1e999"), loads("-1e999")]
)
ODD_VALUES = st.recursive(
    ODD_SCALARS,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(ODD_KEYS, below, max_size=2),
    max_leaves=3,
)


def wrapped(value: Any, wrappers: list[bool]) -> Any:
    for in_array in wrappers:
        value = [value] if in_array else {"w": value}
    return value


DEEP_VALUES = st.builds(
    wrapped, ODD_VALUES, st.lists(st.booleans(), max_size=11) | st.lists(st.just(False), min_size=8)
)


def allowed(document: Any) -> bool:
    """The documented rules, over a flat list of everything that is in the document."""
    everything = [(document, 0, False)]
    for value, depth, in_array in everything:
        if isinstance(value, dict):
            for key in value:
                if len(key.encode()) > 1024 or set(key) & set(".$ #"):
                    return False
                if "Cc" in map(unicodedata.category, key):
                    return False
            everything += [(below, depth + 1, in_array) for below in value.values()]
        elif isinstance(value, list):
            everything += [(below, depth + 1, True) for below in value]
    for value, depth, in_array in everything:
        if value is None and in_array:
            return False
        if isinstance(value, (dict, list)) and depth > 10:
            return False
        if isinstance(value, str) and len(value.encode()) > 4096:
            return False
        if isinstance(value, float) and math.isinf(value):
            return False
        written = dumps(value).decode()
        if re.fullmatch(r"-?\d+", written) and not -(2**52) <= int(written) < 2**52:
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(ODD_KEYS, DEEP_VALUES, max_size=2))
def test_a_patch_is_refused_just_when_it_breaks_a_rule(changes: dict[str, Any]) -> None:
    if allowed(changes):
        assert twins.report(FRESH, changes, NOW).reported.version == 2
    else:
        with pytest.raises(ArgumentInvalid):
            twins.report(FRESH, changes, NOW)
