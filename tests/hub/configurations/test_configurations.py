"""Configurations in the hub: what they write into twins, which of them win, and their metrics."""

import asyncio
import itertools
import json
import logging
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emulator.hub.core import errors, limits
from emulator.hub.core.etags import IfMatch
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.query.queries import Budget
from tests.clock import ManualClock, TickingClock, eventually
from tests.hub.configurations.contents import SETTINGS, Values, device_content, edge_content
from tests.hub.fakes import (
    ANY,
    CREATE,
    DEVICE,
    MODULE,
    FakeLink,
    HubStore,
    all_configurations,
    connect,
    done,
    make_hub,
    put,
)

EDGE, AGENT = IdentityKey("e"), IdentityKey("e", "$edgeAgent")
EDGE_MODULE = IdentityKey("e", "m")


@pytest.fixture(autouse=True)
def identities(hub: IotHub) -> None:
    """Create the device `d`, its module `m`, and the IoT Edge device `e`."""
    put(hub, DEVICE)
    put(hub, MODULE)
    put(hub, EDGE, capabilities={"iotEdge": True})


def content(**paths: Any) -> Values:
    """Return content for devices; in the name of a path `_` stands for a dot."""
    return device_content({f".{path.replace('_', '.')}": value for path, value in paths.items()})


def base(desired: Values | None = None, **modules: Any) -> Values:
    """Return the content of a base deployment."""
    agent = {"properties.desired": desired or {"modules": {}}}
    return edge_content(**{"$edgeAgent": agent}, **modules)


async def configure(
    hub: IotHub,
    name: str,
    content: Values,
    condition: str = "*",
    *,
    if_match: IfMatch = CREATE,
    **members: Any,
) -> Values:
    body = {"id": name, "content": content, "targetCondition": condition, **members}
    return await hub.configurations.put(name, body, if_match)


async def delete(hub: IotHub, name: str) -> None:
    await hub.configurations.delete(name, CREATE)


def desired(hub: IotHub, key: IdentityKey = DEVICE) -> Values:
    section = hub.twins.get(key)["properties"]["desired"]
    return {name: value for name, value in section.items() if not name.startswith("$")}


def modules(hub: IotHub, key: IdentityKey = AGENT) -> list[str]:
    """Return the names of the modules that an Edge agent is to run."""
    return [*desired(hub, key)["modules"]]


def version(hub: IotHub, key: IdentityKey = DEVICE) -> int:
    return int(hub.twins.get(key)["properties"]["desired"]["$version"])


def write(hub: IotHub, key: IdentityKey = DEVICE, **desired: Any) -> None:
    hub.twins.patch(key, {"properties": {"desired": desired}}, CREATE)


def tag(hub: IotHub, key: IdentityKey = DEVICE, **tags: Any) -> None:
    hub.twins.patch(key, {"tags": tags}, CREATE)


def report(hub: IotHub, key: IdentityKey = DEVICE, **reported: Any) -> None:
    hub.twins.report(key, reported, None)


def statuses(hub: IotHub, key: IdentityKey = DEVICE) -> dict[str, str]:
    return {name: each["status"] for name, each in hub.configurations.statuses(key).items()}


def results(hub: IotHub, name: str) -> dict[str, int]:
    found: dict[str, int] = done(hub.configurations.get(name))["systemMetrics"]["results"]
    return found


# --- one configuration


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("*", "def"),
        ("", ""),
        ("  ", ""),
        ("deviceId = 'd'", "d"),
        ("DEVICEID = 'd'", "d"),
        ("tags.x = 1", "d"),
        ("tags.x = 1 OR tags.x = 2", "de"),
        ("NOT tags.x = 1 AND is_defined(tags.x)", "e"),
        ("properties.reported.y > 4", "f"),
        ("devices.tags.x = 2", "e"),
    ],
)
async def test_a_condition_targets_devices(hub: IotHub, condition: str, found: str) -> None:
    other = IdentityKey("f")
    put(hub, other)
    report(hub, other, y=5)
    tag(hub, DEVICE, x=1)
    tag(hub, EDGE, x=2)
    await configure(hub, "c", content(z=1), condition)
    written = [key.device_id for key in (DEVICE, EDGE, other) if desired(hub, key) == {"z": 1}]
    assert written == [*found]
    assert results(hub, "c") == {"targetedCount": len(found), "appliedCount": len(found)}


async def test_an_update_sets_all_members_except_the_content(
    hub: IotHub, clock: ManualClock
) -> None:
    metrics = {"queries": {"m": "select * from devices"}}
    members = {"priority": 7, "labels": {"a": "b"}, "schemaVersion": "2.0"}
    created = await configure(hub, "c", content(x=1), metrics=metrics, **members)
    assert created.items() >= {**members, "etag": "MQ=="}.items()
    assert created["metrics"] == {"results": {}, **metrics}
    with pytest.raises(errors.ConfigurationAlreadyExists):
        await configure(hub, "c", content(x=1))
    clock.advance(1)
    # A missing member gets its default; other content is ignored (seen on a real hub).
    updated = await configure(hub, "c", content(x=2), if_match=IfMatch("MQ=="))
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
    with pytest.raises(errors.PreconditionFailed):
        await configure(hub, "c", content(x=1), if_match=IfMatch("MQ=="))
    with pytest.raises(errors.PreconditionFailed):
        await hub.configurations.delete("c", IfMatch("MQ=="))
    await hub.configurations.delete("c", IfMatch("Mg=="))
    with pytest.raises(errors.ConfigurationNotFound):
        done(hub.configurations.get("c"))


@pytest.mark.parametrize(
    "members",
    [
        {"labels": {"a": "x" * 65_536}},
        {"schemaVersion": "x" * 65_536},
        {"targetCondition": " " * 65_536 + "*"},
        {"metrics": {"queries": {"m" * 65_536: "SELECT deviceId FROM devices"}}},
        {"labels": {str(number): "" for number in range(10_000)}},
    ],
    ids=lambda members: next(iter(members)),
)
async def test_the_texts_of_a_configuration_are_bounded(hub: IotHub, members: Values) -> None:
    with pytest.raises(errors.ArgumentInvalid, match="65536 are allowed"):
        await configure(hub, "c", content(a=1), **members)
    assert all_configurations(hub) == []


async def test_a_hub_has_at_most_100_configurations(hub: IotHub) -> None:
    for number in range(limits.CONFIGURATIONS_PER_HUB):
        await configure(hub, f"c{number}", content(x=1), "tags.x = 1")
    with pytest.raises(errors.ConfigurationCountLimitExceeded):
        await configure(hub, "one-too-many", content(x=1))
    await configure(hub, "c7", content(x=1), if_match=ANY)  # an update
    await delete(hub, "c7")
    await configure(hub, "one-more", content(x=1))
    ids = [document["id"] for document in all_configurations(hub)]
    assert (len(ids), ids[0], ids[-1]) == (100, "c0", "one-more")


async def test_configurations_outlive_a_restart() -> None:
    store = HubStore()
    await configure(make_hub(store), "c", content(x=1))
    after = make_hub(store)
    put(after, DEVICE)
    assert desired(after) == {"x": 1}


# --- what they write


async def test_a_device_receives_only_what_is_new(hub: IotHub) -> None:
    write(hub, a={"b": 1, "z": 9})
    link = FakeLink()
    connect(hub, link)
    await configure(hub, "c", content(a={"b": 1, "c": 2}, gone=None))
    assert link.desired == [{"a": {"c": 2}, "$version": 3}]
    assert desired(hub) == {"a": {"b": 1, "z": 9, "c": 2}}
    # A twin that has all values gets no new version.
    await configure(hub, "same", content(a_b=1))
    await configure(hub, "c", content(x=1), if_match=ANY)
    hub.configurations.reconcile(DEVICE)
    assert len(link.desired) == 1


async def test_a_configuration_targets_devices_that_match_later(hub: IotHub) -> None:
    new = IdentityKey("new")
    await configure(hub, "c", content(x=1), "tags.a = 1 OR properties.reported.b = 2")
    await configure(hub, "all", content(y=1))
    assert desired(hub) == {"y": 1}
    tag(hub, a=1)
    assert desired(hub) == {"x": 1, "y": 1}
    put(hub, new)
    assert desired(hub, new) == {"y": 1}
    report(hub, new, b=2)
    assert desired(hub, new) == {"x": 1, "y": 1}


async def test_module_configurations_target_modules(hub: IotHub) -> None:
    for name, condition in (("c", "moduleId = 'm' AND deviceId = 'd'"), ("t", "tags.a = 1")):
        one = {"moduleContent": {f"properties.desired.{name}": 1}}
        await configure(hub, name, one, f"FROM devices.modules WHERE {condition}")
    assert [desired(hub, key) for key in (MODULE, DEVICE, AGENT)] == [{"c": 1}, {}, {}]
    tag(hub, MODULE, a=1)
    assert desired(hub, MODULE) == {"c": 1, "t": 1}
    assert (statuses(hub, MODULE), statuses(hub)) == ({"c": "Applied", "t": "Applied"}, {})
    assert results(hub, "t") == {"targetedCount": 1, "appliedCount": 1}


@pytest.mark.parametrize("order", [*itertools.permutations(("low", "high", "newer"))])
async def test_the_higher_priority_wins(hub: IotHub, order: tuple[str, ...]) -> None:
    contents = {
        "low": (content(a={"b": 1, "c": 1}, low=1), 1),
        "high": (content(a_b=2, tie=1), 2),
        "newer": (content(tie=2, low=1), 2),
    }
    for name in order:
        written, priority = contents[name]
        await configure(hub, name, written, priority=priority)
    tie = 2 if order.index("newer") > order.index("high") else 1
    assert desired(hub) == {"a": {"b": 2, "c": 1}, "low": 1, "tie": tie}
    # A configuration of which another one overrides a part is applied (IoT Hub docs).
    assert statuses(hub) == dict.fromkeys(order, "Applied")


async def test_a_wholly_overridden_configuration_is_only_targeted(hub: IotHub) -> None:
    await configure(hub, "low", content(x=1), priority=1)
    assert statuses(hub) == {"low": "Applied"}
    await configure(hub, "high", content(x=2), priority=2)
    assert desired(hub) == {"x": 2}
    for key in (DEVICE, EDGE):
        assert statuses(hub, key) == {"low": "Targeted", "high": "Applied"}
    assert results(hub, "low") == {"targetedCount": 2, "appliedCount": 0}
    assert results(hub, "high") == {"targetedCount": 2, "appliedCount": 2}
    # When the other one is deleted, it takes effect. The values of the last one stay.
    await delete(hub, "high")
    assert (desired(hub), statuses(hub)) == ({"x": 1}, {"low": "Applied"})
    await delete(hub, "low")
    assert (desired(hub), statuses(hub)) == ({"x": 1}, {})


@given(st.lists(SETTINGS, min_size=2, max_size=3), st.randoms())
@example([{"b.b": 0, "b": 0}, {"a": None, "b": {}}, {"a": {}, "b": 0, "b.a": {}}], Random(1)).via(
    "one content names a member, and another below it"
)
async def test_the_order_of_creation_makes_no_difference(
    contents: list[Values], random: Random
) -> None:
    numbered = list(enumerate(contents))
    found = []
    for order in (numbered, random.sample(numbered, len(numbered))):
        hub = make_hub()
        put(hub, DEVICE)
        for priority, paths in order:
            written = device_content({f".{path}": value for path, value in paths.items()})
            await configure(hub, f"c{priority}", written, priority=priority)
        found.append((json.dumps(desired(hub), sort_keys=True), statuses(hub)))
        # Another reconciliation writes nothing.
        before = version(hub)
        hub.configurations.reconcile(DEVICE)
        assert version(hub) == before
        # The one that wins is applied as a whole.
        assert statuses(hub)[f"c{len(contents) - 1}"] == "Applied"
    assert found[0] == found[1]


async def test_a_service_can_overwrite_a_configuration_until_the_twin_changes(hub: IotHub) -> None:
    await configure(hub, "c", content(x=1))
    write(hub, x=2)
    assert statuses(hub) == {"c": "Targeted"}
    report(hub, any="thing")
    assert (desired(hub), statuses(hub)) == ({"x": 1}, {"c": "Applied"})


async def test_a_configuration_too_large_for_a_twin_is_targeted(
    hub: IotHub, caplog: pytest.LogCaptureFixture
) -> None:
    write(hub, **{f"x{number}": "y" * 4000 for number in range(8)})
    with caplog.at_level(logging.WARNING):
        await configure(hub, "c", content(z="z" * 4000))
    assert "Cannot apply configurations to d:" in caplog.text
    assert (statuses(hub), statuses(hub, EDGE)) == ({"c": "Targeted"}, {"c": "Applied"})
    report(hub, still="works")
    assert results(hub, "c") == {"targetedCount": 2, "appliedCount": 1}


async def test_metrics_are_counted_when_they_are_read(hub: IotHub) -> None:
    queries = {
        "done": "SELECT deviceId FROM devices WHERE properties.reported.x = 1",
        "applied": "SELECT deviceId FROM devices WHERE configurations.[[c]].status = 'Applied'",
    }
    created = await configure(hub, "c", content(x=1), metrics={"queries": queries})
    assert created["metrics"]["results"] == created["systemMetrics"]["results"] == {}
    assert done(hub.configurations.get("c"))["metrics"]["results"] == {"done": 0, "applied": 2}
    report(hub, x=1)
    assert all_configurations(hub)[0]["metrics"]["results"] == {"done": 1, "applied": 2}


async def write_many(hub: IotHub) -> tuple[list[IdentityKey], asyncio.Future[Values]]:
    """Create devices, and begin to write a configuration into their twins."""
    keys = [IdentityKey(f"x{number:02}") for number in range(50)]
    for key in keys:
        put(hub, key)
    writing = asyncio.ensure_future(configure(hub, "c", content(x=1)))
    await eventually(lambda: desired(hub) == {"x": 1})
    return keys, writing


@pytest.mark.parametrize("clock", [TickingClock()], ids=["ticking"])
async def test_other_work_runs_while_many_twins_are_written(hub: IotHub) -> None:
    keys, writing = await write_many(hub)
    assert (desired(hub), desired(hub, keys[-1])) == ({"x": 1}, {})
    # The reconciliation sees what this work changes.
    hub.identities.remove(keys[-1], ANY)
    put(hub, IdentityKey("new"))
    await writing
    for key in (keys[0], keys[-2], IdentityKey("new")):
        assert desired(hub, key) == {"x": 1}


@pytest.mark.parametrize("clock", [TickingClock()], ids=["ticking"])
async def test_a_deleted_configuration_writes_no_more_twins(hub: IotHub) -> None:
    keys, writing = await write_many(hub)
    await delete(hub, "c")
    await writing
    assert (desired(hub), desired(hub, keys[-1])) == ({"x": 1}, {})


# --- deployments


async def test_a_deployment_creates_the_modules_of_an_edge_device(hub: IotHub) -> None:
    agent = {"modules": {"m": {"type": "docker"}}}
    await configure(hub, "base", base(agent, m={"properties.desired": {"x": 1}}))
    assert desired(hub, AGENT) == agent
    assert desired(hub, EDGE_MODULE) == {"x": 1}
    assert hub.identities.get(EDGE_MODULE)["managedBy"] == "iotEdge"
    assert desired(hub, IdentityKey("e", "$edgeHub")) == {}
    # Other devices get no modules.
    assert [module["moduleId"] for module in hub.identities.list_modules("d")] == ["m"]
    assert desired(hub, MODULE) == {}
    assert statuses(hub, AGENT) == {"base": "Applied"}
    assert (statuses(hub, EDGE_MODULE), statuses(hub, EDGE)) == ({}, {})
    reported = {"reportedSuccessfulCount": 0, "reportedFailedCount": 0}
    assert results(hub, "base") == {"targetedCount": 1, "appliedCount": 1, **reported}


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
async def test_the_reports_of_an_edge_agent_are_counted(
    hub: IotHub, reported: Values, success: int, failure: int
) -> None:
    await configure(hub, "base", base())
    report(hub, AGENT, **reported)
    counted = results(hub, "base")
    assert counted["reportedSuccessfulCount"] == success
    assert counted["reportedFailedCount"] == failure
    # The queries count the same.
    for name, query in done(hub.configurations.get("base"))["systemMetrics"]["queries"].items():
        work = await hub.slices.begin()
        assert await hub.queries.count(query, work, Budget()) == counted[name], name


async def test_the_base_of_the_highest_priority_wins(hub: IotHub) -> None:
    def named(name: str) -> Values:
        return base({"modules": {name: {}}})

    await configure(hub, "a", named("a"), priority=1)
    await configure(hub, "b", named("b"), priority=2)
    await configure(hub, "c", named("c"), "tags.x = 1", priority=3)
    await configure(hub, "empty", named("empty"), "", priority=4)
    assert modules(hub) == ["b"]
    assert statuses(hub, AGENT) == {"a": "Targeted", "b": "Applied"}
    tag(hub, EDGE, x=1)
    assert modules(hub) == ["c"]
    await configure(hub, "c", base(), "tags.x = 1", priority=2, if_match=ANY)
    assert modules(hub) == ["c"]  # of two with one priority, the newer one
    tag(hub, EDGE, x=None)
    assert modules(hub) == ["b"]
    await delete(hub, "b")
    assert modules(hub) == ["a"]
    await delete(hub, "a")
    assert modules(hub) == ["a"]  # the last one stays
    # Another deployment with a name that was used before is a new one.
    await configure(hub, "a", named("another"))
    assert modules(hub) == ["another"]


async def test_layers_change_a_base(hub: IotHub) -> None:
    def layer(**paths: Any) -> Values:
        return {f"properties.desired.{path}": value for path, value in paths.items()}

    one = {f"properties.desired.modules.{name}": {"v": 1, "w": 1} for name in ("one", "both")}
    two = {"properties.desired.modules.both": {"v": 2}}
    await configure(hub, "one", edge_content(**{"$edgeAgent": one}), priority=11)
    assert (desired(hub, AGENT), statuses(hub, AGENT)) == ({}, {"one": "Targeted"})
    await configure(hub, "base", base({"modules": {"base": {}}}), priority=10)
    assert modules(hub) == ["base", "one", "both"]
    content = edge_content(**{"$edgeAgent": two, "$edgeHub": layer(routes={"r": "x"})})
    await configure(hub, "two", content, priority=12)
    await configure(hub, "low", edge_content(m=layer(x=1)), priority=10)
    all_three = {"base": {}, "one": {"v": 1, "w": 1}, "both": {"v": 2}}
    assert desired(hub, AGENT) == {"modules": all_three}
    assert desired(hub, IdentityKey("e", "$edgeHub")) == {"routes": {"r": "x"}}
    applied = {"base": "Applied", "one": "Applied", "two": "Applied"}
    assert statuses(hub, AGENT) == {**applied, "low": "Targeted"}
    await delete(hub, "one")
    assert desired(hub, AGENT) == {"modules": {"base": {}, "both": {"v": 2}}}


async def test_a_layer_changes_a_part_or_the_whole_of_a_module(hub: IotHub) -> None:
    whole = {"properties.desired": {"x": {"y": 1}, "z": 1}}
    await configure(hub, "base", base(m=whole), priority=1)
    part = {"properties.desired.layer": {"w": 1}}
    await configure(hub, "more", edge_content(m=part), priority=2)
    assert desired(hub, EDGE_MODULE) == {"x": {"y": 1}, "z": 1, "layer": {"w": 1}}
    whole = {"properties.desired": {"only": 1}}
    await configure(hub, "whole", edge_content(m=whole), priority=3)
    assert desired(hub, EDGE_MODULE) == {"only": 1}


async def test_a_device_that_becomes_an_edge_device_gets_its_modules(hub: IotHub) -> None:
    await configure(hub, "base", base({"modules": {"a": {}}}))
    agent, new = IdentityKey("d", "$edgeAgent"), IdentityKey("new", "$edgeAgent")
    # Also where the device, or another one with its id, had its modules before.
    for _ in range(2):
        put(hub, DEVICE, ANY, capabilities={"iotEdge": True})
        put(hub, IdentityKey("new"), capabilities={"iotEdge": True})
        for key in (agent, new):
            assert modules(hub, key) == ["a"]
            assert version(hub, key) == 2
        put(hub, DEVICE, ANY)
        hub.identities.remove(IdentityKey("new"), ANY)


async def test_modules_that_were_applied_directly_stay_until_deployments_change(
    hub: IotHub,
) -> None:
    own = base({"modules": {"own": {}}}, own={"properties.desired.x": 1})
    done(hub.configurations.apply_content("e", own))
    assert modules(hub) == ["own"]
    await configure(hub, "base", base({"modules": {"a": {}}}))
    assert modules(hub) == ["a"]
    done(hub.configurations.apply_content("e", own))
    tag(hub, EDGE, any="thing")
    report(hub, AGENT, any="thing")
    assert (modules(hub), statuses(hub, AGENT)) == (["own"], {"base": "Targeted"})
    await configure(hub, "base", base(), if_match=ANY)
    assert (modules(hub), statuses(hub, AGENT)) == (["a"], {"base": "Applied"})
    # A path changes nothing else in a module that the deployment does not have.
    done(hub.configurations.apply_content("e", edge_content(own={"properties.desired.y": 2})))
    assert desired(hub, IdentityKey("e", "own")) == {"x": 1, "y": 2}


async def test_a_deployment_without_room_for_its_modules_is_targeted(
    hub: IotHub, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(limits.MODULES_PER_DEVICE):
        put(hub, IdentityKey("e", f"own{number}"))
    with caplog.at_level(logging.WARNING):
        await configure(hub, "base", base(m={"properties.desired": {"x": 1}}))
    assert "Cannot apply configurations to e/m:" in caplog.text
    assert statuses(hub, AGENT) == {"base": "Targeted"}
    hub.identities.remove(IdentityKey("e", "own7"), ANY)
    tag(hub, EDGE, now="there is room")
    assert desired(hub, EDGE_MODULE) == {"x": 1}
    assert statuses(hub, AGENT) == {"base": "Applied"}


@pytest.mark.parametrize(
    ("device_id", "invalid", "error"),
    [
        ("d", base(), errors.ArgumentInvalid),
        ("missing", base(), errors.DeviceNotFound),
        ("e", content(x=1), errors.InvalidConfigurationContent),
        ("e", None, errors.InvalidConfigurationContent),
    ],
)
def test_invalid_content_is_not_applied(
    hub: IotHub, device_id: str, invalid: object, error: type[errors.HubError]
) -> None:
    with pytest.raises(error) as caught:
        done(hub.configurations.apply_content(device_id, invalid))
    assert caught.type is error
    assert desired(hub, AGENT) == {}
