"""Configurations in the hub: what content means, who wins, and what becomes of the twins."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emulator.hub.configurations.conditions import metric_query, system_queries, targets
from emulator.hub.configurations.content import (
    Content,
    Kind,
    Setting,
    change,
    kept,
    missing,
    patch_of,
    replaced,
)
from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ConfigurationCountLimitExceeded,
    ConfigurationNotFound,
    HubError,
    InvalidConfigurationContent,
    InvalidConfigurationCustomMetricsQuery,
    InvalidConfigurationTargetCondition,
    PreconditionFailed,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.connections import Admission

NOW = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)
CREATE, ANY = IfMatch(None), IfMatch("*")
DEVICE, AGENT = IdentityKey("d"), IdentityKey("e", "$edgeAgent")


class Clock:
    """The time, as the test has it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass(eq=False)
class Link:
    """A device's link that notes which desired properties it is told of."""

    key: IdentityKey
    told: list[dict[str, Any]] = field(default_factory=list)
    accepts_commands: bool = False
    unacknowledged: tuple[str, ...] = ()

    def notify_desired(self, patch: bytes, version: int) -> None:
        self.told.append(json.loads(patch))

    def close(self, reason: HubError) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock: Clock) -> IotHub:
    """A hub with the device `d`, its module `m`, and the IoT Edge device `e`."""
    hub = IotHub(store=MemoryStore(), policies=(), hosts=(), clock=clock)
    hub.registry.put_device("d", {"deviceId": "d"}, CREATE)
    hub.registry.put_module(IdentityKey("d", "m"), {"deviceId": "d", "moduleId": "m"}, CREATE)
    hub.registry.put_device("e", {"deviceId": "e", "capabilities": {"iotEdge": True}}, CREATE)
    return hub


def device_content(**paths: Any) -> dict[str, Any]:
    """Content for devices; in the name of a path `_` stands for a dot."""
    return {
        "deviceContent": {
            f"properties.desired.{path.replace('_', '.')}": value for path, value in paths.items()
        }
    }


def manifest(desired: dict[str, Any] | None = None, **modules: Any) -> dict[str, Any]:
    """Content of a base deployment."""
    agent = {"properties.desired": {"modules": {}} if desired is None else desired}
    return {"modulesContent": {"$edgeAgent": agent, **modules}}


def layer(**modules: Any) -> dict[str, Any]:
    """Content of a layered deployment."""
    return {"modulesContent": {"$edgeAgent": {}, **modules}}


async def put(
    hub: IotHub,
    name: str,
    content: dict[str, Any],
    condition: str = "*",
    *,
    if_match: IfMatch = CREATE,
    **members: Any,
) -> dict[str, Any]:
    body = {"id": name, "content": content, "targetCondition": condition, **members}
    return await hub.configurations.put(name, body, if_match)


def desired(hub: IotHub, key: IdentityKey = DEVICE) -> dict[str, Any]:
    section = hub.registry.get_twin(key)["properties"]["desired"]
    return {name: value for name, value in section.items() if not name.startswith("$")}


def version(hub: IotHub, key: IdentityKey = DEVICE) -> int:
    return hub.registry.row(key).twin.desired.version


def tag(hub: IotHub, device_id: str, **tags: Any) -> None:
    hub.registry.patch_twin(IdentityKey(device_id), {"tags": tags}, CREATE)


def statuses(hub: IotHub, key: IdentityKey = DEVICE) -> dict[str, str]:
    return {name: each["status"] for name, each in hub.configurations.statuses(key).items()}


def results(hub: IotHub, name: str) -> dict[str, int]:
    found: dict[str, int] = hub.configurations.get(name)["systemMetrics"]["results"]
    return found


# --- content


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "x",
        {},
        {"deviceContent": None},
        {"deviceContent": []},
        {"deviceContent": {"tags.x": 1}},
        {"deviceContent": {"properties.reported.x": 1}},
        {"deviceContent": {"properties.desiredx": 1}},
        {"deviceContent": {"Properties.Desired.x": 1}},
        {"deviceContent": {"properties.desired.": 1}},
        {"deviceContent": {"properties.desired.a..b": 1}},
        {"deviceContent": {"properties.desired": 1}},
        {"deviceContent": {"properties.desired": None}},
        {"deviceContent": {"properties.desired.a b": 1}},
        {"deviceContent": {"properties.desired.$x": 1}},
        {"deviceContent": {"properties.desired.x": [None]}},
        {"deviceContent": {"properties.desired.x": "y" * 4097}},
        {"deviceContent": {f"properties.desired.x{n}": "y" * 4096 for n in range(8)}},
        {"deviceContent": {"properties.desired." + ".".join("abcdefghijkl"): 1}},
        {"deviceContent": {}, "moduleContent": {}},
        {"deviceContent": {}, "modulesContent": {"$edgeAgent": {}}},
        {"modulesContent": {}},
        {"modulesContent": {"$edgeHub": {"properties.desired": {}}}},
        {"modulesContent": {"$edgeAgent": None}},
        {"modulesContent": {"$edgeAgent": {"properties.desired": 1}}},
        {"modulesContent": {"$edgeAgent": {"modules": {}}}},
        {"modulesContent": {"$edgeAgent": {}, "m": []}},
        {"modulesContent": {"$edgeAgent": {}, "$other": {}}},
        {"modulesContent": {"$edgeAgent": {}, "a b": {}}},
        {"modulesContent": {"$edgeAgent": {}, "m": {"properties.desired.x": "y" * 4097}}},
        {"modulesContent": {"$edgeAgent": {}, **{f"m{n}": {} for n in range(21)}}},
    ],
)
def test_content_that_is_none_is_refused(content: object) -> None:
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
        {"deviceContent": {"properties.desired": {"a": None}, "properties.desired.b.c": None}},
        {"moduleContent": {"properties.desired.a": [1, {"b": 2}]}},
        {"modulesContent": {"$edgeAgent": {}}},
        {"modulesContent": {"$edgeAgent": {}, **{f"m{n}": {} for n in range(20)}, "$edgeHub": {}}},
    ],
)
def test_content_is_written_as_it_was_given(content: dict[str, Any]) -> None:
    ignored = {"$schema": "http://json.schemastore.org/x", "modulesContent": None}
    assert Content.parse({**ignored, **content}).document() == content


def test_the_kinds_of_content() -> None:
    content = Content.parse(
        {"deviceContent": {"properties.desired": {"a": 1}, "properties.desired.b.c": 2}}
    )
    assert content.kind is Kind.DEVICE
    assert content.settings == {None: (Setting((), {"a": 1}), Setting(("b", "c"), 2))}
    assert not content.is_base
    edge = Content.parse({"modulesContent": {"$edgeAgent": {}, "m": {"properties.desired.b": 2}}})
    assert (edge.kind, edge.is_base) == (Kind.EDGE, False)
    assert edge.settings == {"$edgeAgent": (), "m": (Setting(("b",), 2),)}
    assert Content.parse(manifest()).is_base
    # A layer may give the whole of another module.
    assert not Content.parse(layer(m={"properties.desired": {}})).is_base


@pytest.mark.parametrize(
    ("contents", "patch"),
    [
        ([], {}),
        ([{"a": 1}, {"a": 2}], {"a": 2}),
        ([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        ([{"a.b": 1}, {"a.c": 2}], {"a": {"b": 1, "c": 2}}),
        # Of the same path only the last counts.
        ([{"a": {"b": 1, "c": 1}}, {"a": {"c": 2}}], {"a": {"b": None, "c": 2}}),
        ([{"a": {"b": {"c": 1}}}, {"a": {"b": {"d": 2}}}], {"a": {"b": {"c": None, "d": 2}}}),
        # One within another is merged.
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
def test_contents_become_one_patch(contents: list[dict[str, Any]], patch: dict[str, Any]) -> None:
    parts = [
        tuple(
            Setting(tuple(path.split(".")) if path else (), value) for path, value in each.items()
        )
        for each in contents
    ]
    assert patch_of(parts) == patch


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
        # 1 and true are the same to Python, but not to JSON; 1 and 1.0 are, to both.
        ({"a": 1, "b": [0]}, {"a": True, "b": [False]}, {"a": True, "b": [False]}),
        ({"a": 1}, {"a": 1.0}, {}),
    ],
)
def test_what_is_missing(
    values: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]
) -> None:
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
def test_what_is_left_of_a_patch(
    patch: dict[str, Any], whole: dict[str, Any], expected: dict[str, Any]
) -> None:
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
def test_a_setting_takes_the_place_of_what_is_there(
    values: dict[str, Any], path: str, value: Any, expected: dict[str, Any]
) -> None:
    before = json.dumps(values)
    assert replaced(values, [Setting(tuple(path.split(".")) if path else (), value)]) == expected
    assert json.dumps(values) == before


# --- content, whatever it is

NAMES = st.sampled_from("abc")
LEAVES = st.sampled_from([0, 1, True, False, "x", [1], [{"a": 1}]])
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=6
)
DOCUMENTS = st.dictionaries(NAMES, TREES, max_size=3)
PATCHES = st.dictionaries(
    NAMES,
    st.recursive(
        LEAVES | st.none(), lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=6
    ),
    max_size=3,
)
SETTINGS = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map(".".join),
    st.recursive(LEAVES | st.none(), lambda below: st.dictionaries(NAMES, below), max_leaves=4),
    min_size=1,
    max_size=3,
)


def merge(document: Any, patch: Any) -> Any:
    """RFC 7386, word for word."""
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
def test_what_is_missing_is_as_good_as_the_whole_patch(
    values: dict[str, Any], patch: dict[str, Any]
) -> None:
    wanted = merge(values, patch)
    assert text(merge(values, missing(values, patch))) == text(wanted)
    assert missing(wanted, patch) == {}


@given(DOCUMENTS, DOCUMENTS)
def test_a_change_makes_what_is_wanted_and_no_more(
    values: dict[str, Any], wanted: dict[str, Any]
) -> None:
    patch = change(values, wanted)
    assert text(merge(values, patch)) == text(wanted)
    assert (patch == {}) == (text(values) == text(wanted))


@given(DOCUMENTS, st.lists(SETTINGS, max_size=3))
def test_to_replace_twice_is_to_replace_once(
    values: dict[str, Any], contents: list[dict[str, Any]]
) -> None:
    made = [Setting(tuple(path.split(".")), each[path]) for each in contents for path in each]
    once = replaced(values, made)
    assert text(replaced(once, made)) == text(once)


@given(st.lists(SETTINGS, min_size=2, max_size=3), st.randoms())
@example([{"b.b": 0, "b": 0}, {"a": None, "b": {}}, {"a": {}, "b": 0, "b.a": {}}], Random(1)).via(
    "one content names a member, and another below it"
)
@settings(max_examples=200, deadline=None)
def test_the_order_of_creation_makes_no_difference(
    contents: list[dict[str, Any]], random: Any
) -> None:
    numbered = list(enumerate(contents))
    found = []
    for order in (numbered, random.sample(numbered, len(numbered))):
        hub = IotHub(store=MemoryStore(), policies=(), hosts=(), clock=lambda: NOW)
        hub.registry.put_device("d", {"deviceId": "d"}, CREATE)

        async def create(hub: IotHub = hub, order: Any = order) -> None:
            for priority, paths in order:
                content = {f"properties.desired.{path}": value for path, value in paths.items()}
                await put(hub, f"c{priority}", {"deviceContent": content}, priority=priority)

        asyncio.run(create())
        found.append((text(desired(hub)), statuses(hub)))
        # What is right is left alone.
        before = version(hub)
        hub.configurations.reconcile(DEVICE)
        assert version(hub) == before
        # The one that wins stands there whole.
        assert statuses(hub)[f"c{len(contents) - 1}"] == "Applied"
    assert found[0] == found[1]


# --- target conditions and metrics


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("*", ["d", "e", "f"]),
        ("", []),
        ("  ", []),
        ("deviceId = 'd'", ["d"]),
        ("DEVICEID = 'd'", ["d"]),
        ("tags.x = 1", ["d"]),
        ("tags.x = 1 OR tags.x = 2", ["d", "e"]),
        ("NOT tags.x = 1 AND is_defined(tags.x)", ["e"]),
        ("properties.reported.y > 4", ["f"]),
        ("devices.tags.x = 2", ["e"]),
    ],
)
async def test_whom_a_condition_targets(hub: IotHub, condition: str, found: list[str]) -> None:
    hub.registry.put_device("f", {"deviceId": "f"}, CREATE)
    hub.registry.report(IdentityKey("f"), {"y": 5}, None)
    tag(hub, "d", x=1)
    tag(hub, "e", x=2)
    await put(hub, "c", device_content(z=1), condition)
    assert [each for each in "def" if desired(hub, IdentityKey(each)) == {"z": 1}] == found
    assert results(hub, "c") == {"targetedCount": len(found), "appliedCount": len(found)}


NOT_ALLOWED = (
    "Invalid targetCondition. It must be a filter condition based on 'deviceId', 'tags', or "
    "'properties.reported'. It contains: "
)


@pytest.mark.parametrize(
    ("kind", "condition", "text"),
    [
        (Kind.DEVICE, "tags.x = ", "BadRequest: "),
        (Kind.DEVICE, "* AND tags.x = 1", "BadRequest: "),
        (Kind.DEVICE, "x" * 8193, "BadRequest: "),
        (Kind.DEVICE, "properties.desired.x = 1", NOT_ALLOWED + "properties.desired.x"),
        (Kind.DEVICE, "properties = 1", NOT_ALLOWED + "properties"),
        (Kind.DEVICE, "deviceId = edgeDeviceVM", NOT_ALLOWED + "edgeDeviceVM"),
        (Kind.DEVICE, "tags.x = 1 AND connectionState = 'x'", NOT_ALLOWED + "connectionState"),
        (Kind.DEVICE, "configurations.[[c]].status = 'x'", NOT_ALLOWED + "configurations.c.status"),
        (Kind.DEVICE, "moduleId = 'm'", NOT_ALLOWED + "moduleId"),
        (Kind.DEVICE, "deviceId IN ['d']", "BadRequest: "),
        (Kind.DEVICE, "NOT (tags.x = 1 OR deviceId NIN ['d'])", "BadRequest: "),
        (Kind.DEVICE, "is_defined(tags.x) AND tags.y + (tags.x IN [1]) = 1", "BadRequest: "),
        (Kind.DEVICE, "FROM devices.modules WHERE tags.x = 1", "Invalid targetCondition. "),
        (Kind.DEVICE, " from devices WHERE tags.x = 1", "Invalid targetCondition. "),
        (Kind.EDGE, "FROM devices.modules WHERE tags.x = 1", "Invalid targetCondition. "),
        (Kind.MODULE, "*", "Invalid targetCondition. "),
        (Kind.MODULE, "tags.x = 1", "Invalid targetCondition. "),
        (Kind.MODULE, "FROM devices WHERE tags.x = 1", "Invalid targetCondition. "),
        (Kind.MODULE, "FROM devices.jobs", "BadRequest: "),
    ],
)
def test_a_condition_that_is_none_is_refused(kind: Kind, condition: str, text: str) -> None:
    with pytest.raises(InvalidConfigurationTargetCondition) as caught:
        targets(condition, kind)
    assert caught.value.text.startswith(text)
    if text.startswith(NOT_ALLOWED):
        assert caught.value.text == text


@pytest.mark.parametrize("query", ["", "SELEC nope", "select", "select * from", "select x.*"])
def test_a_metric_that_is_no_query_is_refused(query: str) -> None:
    with pytest.raises(InvalidConfigurationCustomMetricsQuery):
        metric_query(query)


def test_a_metric_needs_no_collection() -> None:
    assert metric_query("Select *") == "Select * from devices"
    whole = "select deviceId from devices.modules"
    assert metric_query(whole) == whole


@pytest.mark.parametrize(
    ("kind", "condition", "queries"),
    [
        (
            Kind.DEVICE,
            "*",
            [
                "select deviceId from devices",
                "select deviceId from devices where configurations.[[c]].status = 'Applied'",
            ],
        ),
        (
            Kind.DEVICE,
            "tags.x=1",
            [
                "select deviceId from devices where tags.x=1",
                "select deviceId from devices where configurations.[[c]].status = 'Applied'",
            ],
        ),
        (
            Kind.DEVICE,
            "",
            ["", "select deviceId from devices where configurations.[[c]].status = 'Applied'"],
        ),
        (
            Kind.MODULE,
            "FROM devices.modules WHERE tags.x=1",
            [
                "select deviceId, moduleId FROM devices.modules WHERE tags.x=1",
                "select deviceId, moduleId from devices.modules"
                " where configurations.[[c]].status = 'Applied'",
            ],
        ),
        (
            Kind.EDGE,
            "*",
            [
                "select deviceId from devices where capabilities.iotEdge = true",
                "select deviceId from devices.modules where moduleId = '$edgeAgent'"
                " and configurations.[[c]].status = 'Applied'",
                "select deviceId from devices.modules where moduleId = '$edgeAgent'"
                " and configurations.[[c]].status = 'Applied'"
                " and properties.desired.$version = properties.reported.lastDesiredVersion"
                " and properties.reported.lastDesiredStatus.code = 200",
                "select deviceId from devices.modules where moduleId = '$edgeAgent'"
                " and configurations.[[c]].status = 'Applied'"
                " and properties.desired.$version = properties.reported.lastDesiredVersion"
                " and properties.reported.lastDesiredStatus.code != 200",
            ],
        ),
        (
            Kind.EDGE,
            "tags.x=1",
            ["select deviceId from devices where capabilities.iotEdge = true and tags.x=1"],
        ),
    ],
)
def test_the_queries_of_system_metrics(kind: Kind, condition: str, queries: list[str]) -> None:
    found = system_queries("c", kind, condition)
    assert [*found.values()][: len(queries)] == queries
    names = ["targetedCount", "appliedCount", "reportedSuccessfulCount", "reportedFailedCount"]
    assert [*found] == names[: 4 if kind is Kind.EDGE else 2]


# --- one configuration


async def test_a_configuration_is_written_again(hub: IotHub, clock: Clock) -> None:
    labels, metrics = {"a": "b"}, {"queries": {"m": "select * from devices"}}
    created = await put(
        hub,
        "c",
        device_content(x=1),
        priority=7,
        labels=labels,
        schemaVersion="2.0",
        metrics=metrics,
    )
    assert [created[name] for name in ("priority", "labels", "schemaVersion", "etag")] == [
        7, labels, "2.0", "MQ==",
    ]  # fmt: skip
    assert created["metrics"] == {"results": {}, **metrics}
    clock.now += timedelta(seconds=1)
    # What is left out falls back; other content is ignored (seen on a real hub).
    updated = await put(hub, "c", device_content(x=2), if_match=IfMatch("MQ=="))
    assert updated == {
        **created,
        "schemaVersion": None,
        "labels": None,
        "priority": 0,
        "metrics": {"results": {}, "queries": {}},
        "lastUpdatedTimeUtc": "2026-01-31T14:46:09Z",
        "etag": "Mg==",
    }
    assert desired(hub) == {"x": 1}
    with pytest.raises(PreconditionFailed):
        await put(hub, "c", device_content(x=1), if_match=IfMatch("MQ=="))
    with pytest.raises(PreconditionFailed):
        await hub.configurations.delete("c", IfMatch("MQ=="))
    await hub.configurations.delete("c", IfMatch("Mg=="))
    with pytest.raises(ConfigurationNotFound):
        hub.configurations.get("c")


async def test_a_hub_has_a_hundred_configurations_at_most(hub: IotHub) -> None:
    for number in range(limits.CONFIGURATIONS_PER_HUB):
        await put(hub, f"c{number}", device_content(x=1), "tags.x = 1")
    with pytest.raises(ConfigurationCountLimitExceeded):
        await put(hub, "one-too-many", device_content(x=1))
    await put(hub, "c7", device_content(x=1), if_match=ANY)  # one that is there
    await hub.configurations.delete("c7", CREATE)
    await put(hub, "one-more", device_content(x=1))
    ids = [document["id"] for document in hub.configurations.list()]
    assert (len(ids), ids[0], ids[-1]) == (100, "c0", "one-more")


async def test_a_restart_forgets_no_configuration() -> None:
    store = MemoryStore()
    before = IotHub(store=store, policies=(), hosts=())
    await put(before, "c", device_content(x=1))
    after = IotHub(store=store, policies=(), hosts=())
    after.registry.put_device("d", {"deviceId": "d"}, CREATE)
    assert desired(after) == {"x": 1}


# --- what they do to twins


async def test_a_device_is_told_what_is_new_to_it(hub: IotHub) -> None:
    hub.registry.patch_twin(DEVICE, {"properties": {"desired": {"a": {"b": 1, "z": 9}}}}, CREATE)
    link = Link(DEVICE)
    hub.connect(link, Admission(DEVICE, NOW.timestamp() + 3600, "1", "{}"))  # type: ignore[arg-type]
    await put(hub, "c", device_content(a={"b": 1, "c": 2}, gone=None))
    assert link.told == [{"a": {"c": 2}, "$version": 3}]
    assert desired(hub) == {"a": {"b": 1, "z": 9, "c": 2}}
    # A twin that is right gets no new version.
    await put(hub, "same", device_content(a_b=1))
    await put(hub, "c", device_content(x=1), if_match=ANY)
    hub.configurations.reconcile(DEVICE)
    assert len(link.told) == 1
    hub.disconnect(link)  # type: ignore[arg-type]


async def test_a_configuration_finds_whom_it_targets_later(hub: IotHub) -> None:
    await put(hub, "c", device_content(x=1), "tags.a = 1 OR properties.reported.b = 2")
    await put(hub, "all", device_content(y=1))
    assert desired(hub) == {"y": 1}
    tag(hub, "d", a=1)
    assert desired(hub) == {"x": 1, "y": 1}
    hub.registry.put_device("new", {"deviceId": "new"}, CREATE)
    assert desired(hub, IdentityKey("new")) == {"y": 1}
    hub.registry.report(IdentityKey("new"), {"b": 2}, None)
    assert desired(hub, IdentityKey("new")) == {"x": 1, "y": 1}


async def test_modules_are_targeted_by_themselves(hub: IotHub) -> None:
    content = {"moduleContent": {"properties.desired.x": 1}}
    await put(hub, "c", content, "FROM devices.modules WHERE moduleId = 'm' AND deviceId = 'd'")
    await put(hub, "t", {"moduleContent": {"properties.desired.y": 1}},
              "from devices.modules where tags.a = 1")  # fmt: skip
    module = IdentityKey("d", "m")
    assert (desired(hub, module), desired(hub), desired(hub, AGENT)) == ({"x": 1}, {}, {})
    hub.registry.patch_twin(module, {"tags": {"a": 1}}, CREATE)
    assert desired(hub, module) == {"x": 1, "y": 1}
    assert statuses(hub, module) == {"c": "Applied", "t": "Applied"}
    assert statuses(hub) == {}
    assert results(hub, "t") == {"targetedCount": 1, "appliedCount": 1}


@pytest.mark.parametrize("order", [*itertools.permutations(("low", "high", "newer"))])
async def test_the_higher_priority_wins(hub: IotHub, order: tuple[str, ...]) -> None:
    contents = {
        "low": (device_content(a={"b": 1, "c": 1}, low=1), 1),
        "high": (device_content(a_b=2, tie=1), 2),
        "newer": (device_content(tie=2, low=1), 2),
    }
    for name in order:
        content, priority = contents[name]
        await put(hub, name, content, priority=priority)
    tie = 2 if order.index("newer") > order.index("high") else 1
    assert desired(hub) == {"a": {"b": 2, "c": 1}, "low": 1, "tie": tie}
    # One of which only a part was overridden is applied (IoT Hub docs).
    assert statuses(hub) == dict.fromkeys(order, "Applied")


async def test_one_of_which_nothing_is_left_is_only_targeted(hub: IotHub) -> None:
    await put(hub, "low", device_content(x=1), priority=1)
    assert statuses(hub) == {"low": "Applied"}
    await put(hub, "high", device_content(x=2), priority=2)
    assert desired(hub) == {"x": 2}
    assert statuses(hub) == {"low": "Targeted", "high": "Applied"}
    assert statuses(hub, IdentityKey("e")) == {"low": "Targeted", "high": "Applied"}
    assert results(hub, "low") == {"targetedCount": 2, "appliedCount": 0}
    assert results(hub, "high") == {"targetedCount": 2, "appliedCount": 2}
    # It takes over.
    await hub.configurations.delete("high", CREATE)
    assert (desired(hub), statuses(hub)) == ({"x": 1}, {"low": "Applied"})
    # What the last one has written stays.
    await hub.configurations.delete("low", CREATE)
    assert (desired(hub), statuses(hub)) == ({"x": 1}, {})


async def test_a_service_may_write_over_it(hub: IotHub) -> None:
    await put(hub, "c", device_content(x=1))
    hub.registry.patch_twin(DEVICE, {"properties": {"desired": {"x": 2}}}, CREATE)
    assert statuses(hub) == {"c": "Targeted"}
    hub.registry.report(DEVICE, {"any": "thing"}, None)
    assert (desired(hub), statuses(hub)) == ({"x": 1}, {"c": "Applied"})


async def test_what_a_twin_can_not_hold_stays_targeted(
    hub: IotHub, caplog: pytest.LogCaptureFixture
) -> None:
    full = {f"x{number}": "y" * 4000 for number in range(8)}
    hub.registry.patch_twin(DEVICE, {"properties": {"desired": full}}, CREATE)
    with caplog.at_level(logging.WARNING):
        await put(hub, "c", device_content(z="z" * 4000))
    assert "can't be applied to d:" in caplog.text
    assert statuses(hub) == {"c": "Targeted"}
    assert statuses(hub, IdentityKey("e")) == {"c": "Applied"}
    hub.registry.report(DEVICE, {"still": "works"}, None)
    assert results(hub, "c") == {"targetedCount": 2, "appliedCount": 1}


async def test_metrics_are_counted_when_they_are_read(hub: IotHub) -> None:
    queries = {
        "done": "SELECT deviceId FROM devices WHERE properties.reported.x = 1",
        "applied": "SELECT deviceId FROM devices WHERE configurations.[[c]].status = 'Applied'",
    }
    created = await put(hub, "c", device_content(x=1), metrics={"queries": queries})
    assert created["metrics"]["results"] == created["systemMetrics"]["results"] == {}
    assert hub.configurations.get("c")["metrics"]["results"] == {"done": 0, "applied": 2}
    hub.registry.report(DEVICE, {"x": 1}, None)
    assert hub.configurations.list()[0]["metrics"]["results"] == {"done": 1, "applied": 2}


async def test_others_have_their_turn_while_many_twins_are_written(hub: IotHub) -> None:
    for number in range(3 * limits.CONFIGURATION_SLICE):
        hub.registry.put_device(f"x{number}", {"deviceId": f"x{number}"}, CREATE)
    writing = asyncio.ensure_future(put(hub, "c", device_content(x=1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    last = IdentityKey(f"x{3 * limits.CONFIGURATION_SLICE - 1}")
    assert (desired(hub), desired(hub, last)) == ({"x": 1}, {})
    # What others do meanwhile counts.
    hub.registry.delete_device(last.device_id, ANY)
    hub.registry.put_device("new", {"deviceId": "new"}, CREATE)
    await writing
    for device_id in ("x0", "x148", "new"):
        assert desired(hub, IdentityKey(device_id)) == {"x": 1}


async def test_a_configuration_that_is_gone_writes_no_further(hub: IotHub) -> None:
    for number in range(2 * limits.CONFIGURATION_SLICE):
        hub.registry.put_device(f"x{number}", {"deviceId": f"x{number}"}, CREATE)
    writing = asyncio.ensure_future(put(hub, "c", device_content(x=1)))
    await asyncio.sleep(0)
    await hub.configurations.delete("c", CREATE)
    await writing
    last = IdentityKey(f"x{2 * limits.CONFIGURATION_SLICE - 1}")
    assert (desired(hub), desired(hub, last)) == ({"x": 1}, {})


# --- deployments


async def test_a_deployment_gives_a_device_its_modules(hub: IotHub) -> None:
    await put(hub, "base", manifest({"modules": {"m": {"type": "docker"}}},
                                    m={"properties.desired": {"x": 1}}))  # fmt: skip
    assert desired(hub, AGENT) == {"modules": {"m": {"type": "docker"}}}
    module = IdentityKey("e", "m")
    assert desired(hub, module) == {"x": 1}
    assert hub.registry.get_module(module)["managedBy"] == "iotEdge"
    assert desired(hub, IdentityKey("e", "$edgeHub")) == {}
    # None but IoT Edge devices.
    assert [module["moduleId"] for module in hub.registry.list_modules("d")] == ["m"]
    assert desired(hub, IdentityKey("d", "m")) == {}
    assert statuses(hub, AGENT) == {"base": "Applied"}
    assert (statuses(hub, module), statuses(hub, IdentityKey("e"))) == ({}, {})
    assert results(hub, "base") == {
        "targetedCount": 1,
        "appliedCount": 1,
        "reportedSuccessfulCount": 0,
        "reportedFailedCount": 0,
    }


@pytest.mark.parametrize(
    ("reported", "success", "failure"),
    [
        ({"lastDesiredVersion": 2, "lastDesiredStatus": {"code": 200}}, 1, 0),
        ({"lastDesiredVersion": 2, "lastDesiredStatus": {"code": 406}}, 0, 1),
        ({"lastDesiredVersion": 1, "lastDesiredStatus": {"code": 200}}, 0, 0),
        ({"lastDesiredVersion": 2, "lastDesiredStatus": {}}, 0, 0),
        ({"lastDesiredVersion": 2, "lastDesiredStatus": 200}, 0, 0),
        ({}, 0, 0),
    ],
)
async def test_what_an_edge_agent_reports_is_counted(
    hub: IotHub, reported: dict[str, Any], success: int, failure: int
) -> None:
    await put(hub, "base", manifest())
    hub.registry.report(AGENT, reported, None)
    counted = results(hub, "base")
    assert (counted["reportedSuccessfulCount"], counted["reportedFailedCount"]) == (
        success,
        failure,
    )
    # The queries find the same.
    for name, query in hub.configurations.get("base")["systemMetrics"]["queries"].items():
        assert hub.queries.count(query) == counted[name], name


async def test_of_bases_the_highest_wins(hub: IotHub) -> None:
    await put(hub, "a", manifest({"modules": {"a": {}}}), priority=1)
    await put(hub, "b", manifest({"modules": {"b": {}}}), priority=2)
    await put(hub, "c", manifest({"modules": {"c": {}}}), "tags.x = 1", priority=3)
    await put(hub, "empty", manifest({"modules": {"empty": {}}}), "", priority=4)
    assert desired(hub, AGENT) == {"modules": {"b": {}}}
    assert statuses(hub, AGENT) == {"a": "Targeted", "b": "Applied"}
    tag(hub, "e", x=1)
    assert desired(hub, AGENT) == {"modules": {"c": {}}}
    await put(hub, "c", manifest(), "tags.x = 1", priority=2, if_match=ANY)
    assert desired(hub, AGENT) == {"modules": {"c": {}}}  # the newer one
    tag(hub, "e", x=None)
    assert desired(hub, AGENT) == {"modules": {"b": {}}}
    await hub.configurations.delete("b", CREATE)
    assert desired(hub, AGENT) == {"modules": {"a": {}}}
    await hub.configurations.delete("a", CREATE)
    assert desired(hub, AGENT) == {"modules": {"a": {}}}  # the last one stays


async def test_layers_lie_on_a_base(hub: IotHub) -> None:
    path = "properties.desired.modules"
    one = {"$edgeAgent": {f"{path}.one": {"v": 1}, f"{path}.both": {"v": 1, "w": 1}}}
    two = {
        "$edgeAgent": {f"{path}.both": {"v": 2}},
        "$edgeHub": {"properties.desired.routes.r": "x"},
    }
    await put(hub, "one", {"modulesContent": one}, priority=11)
    assert (desired(hub, AGENT), statuses(hub, AGENT)) == ({}, {"one": "Targeted"})
    await put(hub, "base", manifest({"modules": {"base": {}}}), priority=10)
    assert [*desired(hub, AGENT)["modules"]] == ["base", "one", "both"]
    await put(hub, "two", {"modulesContent": two}, priority=12)
    await put(hub, "low", layer(m={"properties.desired.x": 1}), priority=10)
    assert desired(hub, AGENT) == {"modules": {"base": {}, "one": {"v": 1}, "both": {"v": 2}}}
    assert desired(hub, IdentityKey("e", "$edgeHub")) == {"routes": {"r": "x"}}
    applied = {"base": "Applied", "one": "Applied", "two": "Applied"}
    assert statuses(hub, AGENT) == {**applied, "low": "Targeted"}
    await hub.configurations.delete("one", CREATE)
    assert desired(hub, AGENT) == {"modules": {"base": {}, "both": {"v": 2}}}


async def test_a_layer_adds_to_a_module_or_takes_it_over(hub: IotHub) -> None:
    module = IdentityKey("e", "m")
    await put(hub, "base", manifest(m={"properties.desired": {"x": {"y": 1}, "z": 1}}), priority=1)
    await put(hub, "more", layer(m={"properties.desired.layer": {"w": 1}}), priority=2)
    assert desired(hub, module) == {"x": {"y": 1}, "z": 1, "layer": {"w": 1}}
    await put(hub, "whole", layer(m={"properties.desired": {"only": 1}}), priority=3)
    assert desired(hub, module) == {"only": 1}


async def test_a_device_that_becomes_an_edge_device_is_deployed_to(hub: IotHub) -> None:
    await put(hub, "base", manifest({"modules": {"a": {}}}))
    body = {"deviceId": "d", "capabilities": {"iotEdge": True}}
    hub.registry.put_device("d", body, ANY)
    assert desired(hub, IdentityKey("d", "$edgeAgent")) == {"modules": {"a": {}}}
    hub.registry.put_device("new", {**body, "deviceId": "new"}, CREATE)
    agent = IdentityKey("new", "$edgeAgent")
    assert (desired(hub, agent), version(hub, agent)) == ({"modules": {"a": {}}}, 2)
    # Again, though it had its modules before, or has the name of one that had.
    hub.registry.put_device("d", {"deviceId": "d"}, ANY)
    hub.registry.put_device("d", {"deviceId": "d", "capabilities": {"iotEdge": True}}, ANY)
    assert desired(hub, IdentityKey("d", "$edgeAgent")) == {"modules": {"a": {}}}
    hub.registry.delete_device("new", ANY)
    hub.registry.put_device("new", {**body, "deviceId": "new"}, CREATE)
    assert desired(hub, agent) == {"modules": {"a": {}}}


async def test_a_deployment_of_the_same_name_is_another_one(hub: IotHub) -> None:
    await put(hub, "base", manifest({"modules": {"a": {}}}))
    await hub.configurations.delete("base", CREATE)
    await put(hub, "base", manifest({"modules": {"b": {}}}))
    assert desired(hub, AGENT) == {"modules": {"b": {}}}


async def test_modules_given_directly_stay_until_deployments_change(hub: IotHub) -> None:
    content = manifest({"modules": {"own": {}}}, own={"properties.desired.x": 1})
    hub.configurations.apply_content("e", content)
    assert desired(hub, AGENT) == {"modules": {"own": {}}}
    await put(hub, "base", manifest({"modules": {"a": {}}}))
    assert desired(hub, AGENT) == {"modules": {"a": {}}}
    hub.configurations.apply_content("e", content)
    tag(hub, "e", any="thing")
    hub.registry.report(AGENT, {"any": "thing"}, None)
    assert desired(hub, AGENT) == {"modules": {"own": {}}}
    assert statuses(hub, AGENT) == {"base": "Targeted"}
    await put(hub, "base", manifest(), if_match=ANY)
    assert (desired(hub, AGENT), statuses(hub, AGENT)) == (
        {"modules": {"a": {}}},
        {"base": "Applied"},
    )
    # A path leaves the rest alone, where the deployment has nothing to say.
    hub.configurations.apply_content("e", layer(own={"properties.desired.y": 2}))
    assert desired(hub, IdentityKey("e", "own")) == {"x": 1, "y": 2}


async def test_a_deployment_that_finds_no_room_stays_targeted(
    hub: IotHub, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(limits.MODULES_PER_DEVICE):
        key = IdentityKey("e", f"own{number}")
        hub.registry.put_module(key, {"deviceId": "e", "moduleId": key.module_id}, CREATE)
    with caplog.at_level(logging.WARNING):
        await put(hub, "base", manifest(m={"properties.desired": {"x": 1}}))
    assert "can't be applied to e/m:" in caplog.text
    assert statuses(hub, AGENT) == {"base": "Targeted"}
    hub.registry.delete_module(IdentityKey("e", "own7"), ANY)
    tag(hub, "e", now="there is room")
    assert desired(hub, IdentityKey("e", "m")) == {"x": 1}
    assert statuses(hub, AGENT) == {"base": "Applied"}


def refused(what: Callable[[], object]) -> type[Exception]:
    with pytest.raises(HubError) as caught:
        what()
    return caught.type


def test_what_can_not_be_applied_to_a_device(hub: IotHub) -> None:
    def apply(device_id: str, content: object) -> type[Exception]:
        return refused(lambda: hub.configurations.apply_content(device_id, content))

    assert apply("d", manifest()) is ArgumentInvalid
    assert apply("nobody", manifest()).__name__ == "DeviceNotFound"
    assert apply("e", device_content(x=1)) is InvalidConfigurationContent
    assert apply("e", None) is InvalidConfigurationContent
    assert desired(hub, AGENT) == {}
