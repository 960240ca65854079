"""The content of configurations: settings of paths, and the patches that they become."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.configurations.content import (
    Content,
    Kind,
    Setting,
    kept,
    missing,
    patch_of,
    replaced,
)
from emulator.hub.core.errors import InvalidConfigurationContent
from emulator.hub.core.json import loads
from tests.hub.configurations.contents import (
    LEAVES,
    NAMES,
    SETTINGS,
    Values,
    device_content,
    edge_content,
    trees,
)


def settings_of(paths: Iterable[tuple[str, Any]]) -> tuple[Setting, ...]:
    return tuple(Setting(tuple(path.split(".")) if path else (), value) for path, value in paths)


LONG = loads("0." + "1" * 140_000)


@pytest.mark.parametrize(
    "content",
    [
        *(None, [], "x", {}, {"deviceContent": None}, {"deviceContent": []}),
        *(
            {"deviceContent": {path: 1}}
            for path in ("tags.x", "properties.reported.x", "properties.desiredx")
        ),
        {"deviceContent": {"Properties.Desired.x": 1}},
        *(device_content({path: 1}) for path in (".", ".a..b", "", ".a b", ".$x")),
        *(device_content({path: None}) for path in ("",)),
        device_content({".x": [None]}),
        device_content({".x": "y" * 4097}),
        device_content({f".x{n}": "y" * 4096 for n in range(8)}),
        device_content({"." + ".".join("abcdefghijkl"): 1}),
        {"deviceContent": {}, "moduleContent": {}},
        {"deviceContent": {}, **edge_content()},
        {"modulesContent": {}},
        {"modulesContent": {"$edgeHub": {"properties.desired": {}}}},
        *(
            {"modulesContent": {"$edgeAgent": agent}}
            for agent in (None, {"properties.desired": 1}, {"modules": {}})
        ),
        # What a later path overwrites is stored, though no twin gets it.
        device_content({".x": [""] * 50_000, "": {}}),
        edge_content(
            m={"properties.desired.x": loads("0." + "1" * 140_000), "properties.desired": {}}
        ),
        edge_content(m=[]),
        edge_content(**{"$other": {}}),
        edge_content(**{"a b": {}}),
        edge_content(m={"properties.desired.x": "y" * 4097}),
        edge_content(**{f"m{n}": {} for n in range(21)}),
    ],
)
def test_invalid_content_is_refused(content: object) -> None:
    with pytest.raises(InvalidConfigurationContent) as caught:
        Content.parse(content)
    # The text of a real hub comes first.
    start = "The content provided for configuration is invalid. Please check and try again: "
    assert caught.value.text.startswith(start)
    assert len(caught.value.text) > len(start)


@pytest.mark.parametrize(
    "content",
    [
        {"deviceContent": {}},
        device_content({"": {"a": None}, ".b.c": None}),
        {"moduleContent": {"properties.desired.a": [1, {"b": 2}]}},
        edge_content(),
        edge_content(**{f"m{n}": {} for n in range(20)}, **{"$edgeHub": {}}),
    ],
)
def test_the_document_of_content_is_what_a_service_sent(content: Values) -> None:
    ignored = {"$schema": "http://json.schemastore.org/x", "modulesContent": None}
    assert Content.parse({**ignored, **content}).document() == content


def test_the_kinds_of_content() -> None:
    content = Content.parse(device_content({"": {"a": 1}, ".b.c": 2}))
    assert (content.kind, content.is_base) == (Kind.DEVICE, False)
    assert content.settings == {None: (Setting((), {"a": 1}), Setting(("b", "c"), 2))}
    edge = Content.parse(edge_content(m={"properties.desired.b": 2}))
    assert (edge.kind, edge.is_base) == (Kind.EDGE, False)
    assert edge.settings == {"$edgeAgent": (), "m": (Setting(("b",), 2),)}
    base = {"modulesContent": {"$edgeAgent": {"properties.desired": {"modules": {}}}}}
    assert Content.parse(base).is_base
    # A layer can give the whole of another module.
    assert not Content.parse(edge_content(m={"properties.desired": {}})).is_base


@pytest.mark.parametrize(
    ("contents", "patch"),
    [
        ([], {}),
        ([{"a": 1}, {"a": 2}], {"a": 2}),
        ([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        ([{"a.b": 1}, {"a.c": 2}], {"a": {"b": 1, "c": 2}}),
        # Of one path the last value counts.
        ([{"a": {"b": 1, "c": 1}}, {"a": {"c": 2}}], {"a": {"b": None, "c": 2}}),
        ([{"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}}], {"a": {"b": {"c": None, "d": 2}}}),
        # A path within another one is merged.
        ([{"a": {"b": 1, "c": 1}}, {"a.c": 2}], {"a": {"b": 1, "c": 2}}),
        ([{"a.c": 2}, {"a": {"b": 1}}], {"a": {"c": 2, "b": 1}}),
        ([{"a.c": 2}, {"a": 1}], {"a": 1}),
        ([{"a": {"c": 1}}, {"a.c": 2}, {"a": {"c": 3}}], {"a": {"c": 3}}),
        ([{"a": 1}, {"a.c": 2}], {"a": {"c": 2}}),
        ([{"a": None}, {"a.b": 1}], {"a": {"b": 1}}),
        ([{"a.b": 1}, {"a": None}], {"a": None}),
        ([{"a.b": None}, {"a": {"c": 1}}], {"a": {"b": None, "c": 1}}),
        ([{"": {"a": 1, "b": 1}}, {"a": 2}], {"a": 2, "b": 1}),
    ],
)
def test_contents_become_one_patch(contents: list[Values], patch: Values) -> None:
    assert patch_of([settings_of(each.items()) for each in contents]) == patch


@pytest.mark.parametrize(
    ("values", "patch", "expected"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 1}, {"a": 1}, {}),
        ({"a": {"b": 1, "c": 1}}, {"a": {"b": 1, "d": 1}}, {"a": {"d": 1}}),
        ({"a": 1}, {"a": None, "b": None}, {"a": None}),
        ({"a": {}}, {"a": {"b": None}}, {}),
        ({}, {"a": {}}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": {}}, {}),
        ({"a": 1}, {"a": {}}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 1}),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, {}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        # 1 and true are the same for Python, but not for JSON; 1 and 1.0 are the same for both.
        ({"a": 1, "b": [0]}, {"a": True, "b": [False]}, {"a": True, "b": [False]}),
        ({"a": 1}, {"a": 1.0}, {}),
    ],
)
def test_the_missing_part_of_a_patch(values: Values, patch: Values, expected: Values) -> None:
    found = missing(values, patch)
    assert (found, [type(each) for each in found.values()]) == (
        expected,
        [type(each) for each in expected.values()],
    )


@pytest.mark.parametrize(
    ("patch", "whole", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, {"a": 1}),
        ({"a": 1}, {"a": 2}, {}),
        ({"a": {"b": 1, "c": 1}}, {"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, {}),
        ({"a": {}}, {"a": {"b": 2}}, {"a": {}}),
        ({"a": None}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": 1}, {}),
    ],
)
def test_the_kept_part_of_a_patch(patch: Values, whole: Values, expected: Values) -> None:
    assert kept(patch, whole) == expected


@pytest.mark.parametrize(
    ("values", "path", "value", "expected"),
    [
        ({"a": 1, "b": 1}, "", {"a": 2}, {"a": 2}),
        ({"a": {"b": 1, "c": 1}}, "a", {"b": 2}, {"a": {"b": 2}}),
        ({"a": {"b": 1, "c": 1}}, "a.b", {"d": 2}, {"a": {"b": {"d": 2}, "c": 1}}),
        ({"a": 1}, "a.b", 2, {"a": {"b": 2}}),
        ({}, "a.b.c", 2, {"a": {"b": {"c": 2}}}),
        ({"a": {"b": 1, "c": 1}}, "a.b", None, {"a": {"c": 1}}),
        ({}, "", {"a": {"b": None, "c": 1}, "d": None}, {"a": {"c": 1}}),
        ({}, "a", {"b": None}, {"a": {}}),
    ],
)
def test_a_setting_replaces_the_values_of_its_path(
    values: Values, path: str, value: Any, expected: Values
) -> None:
    before = json.dumps(values)
    assert replaced(values, settings_of([(path, value)])) == expected
    assert json.dumps(values) == before


# --- any content

DOCUMENTS = st.dictionaries(NAMES, trees(LEAVES), max_size=3)
PATCHES = st.dictionaries(NAMES, trees(LEAVES | st.none()), max_size=3)


def merge(document: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def text(document: Any) -> str:
    return json.dumps(document, sort_keys=True)


@given(DOCUMENTS, PATCHES)
def test_the_missing_part_has_the_effect_of_the_whole_patch(values: Values, patch: Values) -> None:
    wanted = merge(values, patch)
    assert text(merge(values, missing(values, patch))) == text(wanted)
    assert missing(wanted, patch) == {}


@given(DOCUMENTS, DOCUMENTS)
def test_the_missing_part_of_a_whole_makes_its_values_only(values: Values, wanted: Values) -> None:
    patch = missing(values, wanted, whole=True)
    assert text(merge(values, patch)) == text(wanted)
    assert (patch == {}) == (text(values) == text(wanted))


@given(DOCUMENTS, st.lists(SETTINGS, max_size=3))
def test_to_replace_twice_is_to_replace_once(values: Values, contents: list[Values]) -> None:
    made = settings_of(item for each in contents for item in each.items())
    once = replaced(values, made)
    assert text(replaced(once, made)) == text(once)
