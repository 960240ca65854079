"""Items of bulk calls and import files, against the registry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hub.commits import CountingStore

from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeserializationError,
    DeviceAlreadyExists,
    DeviceNotFound,
    HubError,
    InvalidDeviceScope,
    ModuleAlreadyExistsOnDevice,
    ModuleNotFound,
    PreconditionFailed,
    SystemModuleModifyUnauthorizedAccess,
    TooManyDevices,
    TooManyModulesOnDevice,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry import bulk
from emulator.hub.registry.identities import Registry

NOW = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)
NEVER = "0001-01-01T00:00:00Z"
CREATE, ANY = IfMatch(None), IfMatch("*")
DEVICE, MODULE = IdentityKey("d"), IdentityKey("d", "m")
IDS = {DEVICE: {"id": "d"}, MODULE: {"id": "d", "moduleId": "m"}}
STALE = "c3RhbGU="
TWIN = {"tags": {"a": 1}, "properties": {"desired": {"b": {"c": 2}}}}


@pytest.fixture
def registry() -> Registry:
    """A registry with the device `d` and its module `m`, and the IoT Edge device `edge`."""
    return make_registry()


def make_registry(store: MemoryStore | None = None) -> Registry:
    hub = IotHub(store=store or MemoryStore(), policies=(), hosts=(), clock=lambda: NOW)
    registry = hub.registry
    registry.put_device("d", {"deviceId": "d"}, CREATE)
    registry.put_module(MODULE, {"deviceId": "d", "moduleId": "m"}, CREATE)
    registry.put_device("edge", {"deviceId": "edge", "capabilities": {"iotEdge": True}}, CREATE)
    return registry


def etags(registry: Registry, key: IdentityKey) -> dict[str, str]:
    row = registry.row(key)
    return {"eTag": row.identity.etag, "twinETag": row.twin.etag}


# --- creating


@pytest.mark.parametrize("mode", ["create", "CREATE", "Create", "createOrUpdate", None])
@pytest.mark.parametrize("module_id", [None, "n"])
def test_what_is_not_there_is_created(
    registry: Registry, mode: str | None, module_id: str | None
) -> None:
    key = IdentityKey("d" if module_id else "new", module_id)
    item = {"id": key.device_id, "moduleId": module_id, "importMode": mode}
    bulk.apply(registry, item, default_mode="createOrUpdate")
    assert registry.identity(key).authentication.type == "sas"
    assert registry.get_twin(key)["version"] == 2


def test_a_device_has_its_tags_and_desired_properties_from_the_start(registry: Registry) -> None:
    bulk.apply(registry, {"id": "new", "importMode": "create", "status": "disabled", **TWIN})
    twin = registry.get_twin(IdentityKey("new"))
    mark = {"$lastUpdated": NEVER, "$lastUpdatedVersion": 1}
    assert (twin["etag"], twin["version"], twin["status"]) == ("AAAAAAAAAAE=", 2, "disabled")
    assert twin["tags"] == {"a": 1}
    assert twin["properties"] == {
        "desired": {
            "b": {"c": 2},
            "$metadata": {**mark, "b": {**mark, "c": mark}},
            "$version": 1,
        },
        "reported": {"$metadata": {"$lastUpdated": "2026-01-31T14:46:08Z"}, "$version": 1},
    }


def test_so_has_a_module_and_its_are_dated(registry: Registry) -> None:
    bulk.apply(registry, {"id": "d", "moduleId": "new", "importMode": "create", **TWIN})
    twin = registry.get_twin(IdentityKey("d", "new"))
    mark = {"$lastUpdated": "2026-01-31T14:46:08Z", "$lastUpdatedVersion": 1}
    assert (twin["etag"], twin["version"], twin["tags"]) == ("AAAAAAAAAAE=", 2, {"a": 1})
    assert twin["properties"] == {
        "desired": {
            "b": {"c": 2},
            "$metadata": {**mark, "b": {**mark, "c": mark}},
            "$version": 1,
        },
        "reported": {"$metadata": mark, "$version": 1},
    }


@pytest.mark.parametrize(
    ("twin", "tags", "desired"),
    [
        ({"tags": {"a": 1}}, {"a": 1}, {}),
        ({"properties": {"desired": {"b": 2}}}, None, {"b": 2}),
        ({"tags": None, "properties": None}, None, {}),
        ({"tags": {}, "properties": {"desired": {}, "reported": {}}}, None, {}),
        ({"properties": {"desired": None}}, None, {}),
        (
            {"tags": {"gone": None}, "properties": {"desired": {"b": {"gone": None}}}},
            None,
            {"b": {}},
        ),
        # As an export writes it.
        (
            {
                "properties": {
                    "desired": {"b": 2, "$metadata": {"$lastUpdated": NEVER}, "$version": 7},
                    "reported": {"c": 3, "$metadata": {"$lastUpdated": NEVER}, "$version": 8},
                }
            },
            None,
            {"b": 2},
        ),
    ],
)
@pytest.mark.parametrize("module_id", [None, "new"])
def test_a_new_twin_has_what_is_given_of_it(
    registry: Registry, module_id: str | None, twin: Any, tags: Any, desired: Any
) -> None:
    key = IdentityKey("d" if module_id else "new", module_id)
    item = {"id": key.device_id, "moduleId": module_id, "importMode": "create", **twin}
    bulk.apply(registry, item)
    document = registry.get_twin(key)
    assert (document.get("tags"), document["version"]) == (tags, 2)
    assert document["etag"] == "AAAAAAAAAAE="
    for name, values in (("desired", desired), ("reported", {})):
        section = document["properties"][name]
        assert {key: section[key] for key in section if not key.startswith("$")} == values
        assert section["$version"] == 1
        assert "$lastUpdated" in section["$metadata"]


def test_an_item_is_one_commit() -> None:
    store = CountingStore()
    registry = make_registry(store)
    for item in (
        {"id": "new", "importMode": "create", "capabilities": {"iotEdge": True}, **TWIN},
        {"id": "new", "moduleId": "n", "importMode": "create", **TWIN},
        {"id": "new", "importMode": "update", **TWIN},
        {"id": "new", "importMode": "updateTwin", **TWIN},
    ):
        before = store.commits
        bulk.apply(registry, item)
        assert store.commits == before + 1, item


def test_nothing_is_created_of_an_item_with_a_twin_that_is_none(registry: Registry) -> None:
    with pytest.raises(ArgumentInvalid):
        bulk.apply(registry, {"id": "new", "importMode": "create", "tags": {"a.b": 1}})
    assert not registry.has(IdentityKey("new"))
    assert registry.device_statistics()["totalDeviceCount"] == 2


def test_a_child_is_created_below_its_parent(registry: Registry) -> None:
    scope = registry.get_device("edge")["deviceScope"]
    bulk.apply(registry, {"id": "leaf", "importMode": "create", "deviceScope": scope})
    item = {"id": "below", "capabilities": {"iotEdge": True}, "parentScopes": [scope]}
    bulk.apply(registry, item, default_mode="create")
    assert registry.get_device("leaf")["deviceScope"] == scope
    for device_id in ("leaf", "below"):
        assert registry.get_device(device_id)["parentScopes"] == [scope]
    with pytest.raises(InvalidDeviceScope):
        bulk.apply(registry, {"id": "x", "importMode": "create", "deviceScope": "nowhere"})


def test_a_bulk_call_counts_against_the_limit_of_modules(registry: Registry) -> None:
    names = [f"n{number}" for number in range(limits.MODULES_PER_DEVICE)]
    body = [{"id": "d", "moduleId": name, "importMode": "create"} for name in names]
    result = bulk.run(registry, body)
    assert [error["errorCode"] for error in result["errors"]] == [TooManyModulesOnDevice.__name__]
    assert len(registry.list_modules("d")) == limits.MODULES_PER_DEVICE


# --- updating


@pytest.mark.parametrize("mode", ["update", "createOrUpdate"])
@pytest.mark.parametrize("key", [DEVICE, MODULE])
def test_an_update_replaces_the_identity_and_merges_into_the_twin(
    registry: Registry, key: IdentityKey, mode: str
) -> None:
    registry.patch_twin(key, {"tags": {"old": 1}, "properties": {"desired": {"old": 1}}}, ANY)
    before = registry.row(key)
    item = {"importMode": mode, "eTag": STALE, "twinETag": STALE, "status": "disabled", **TWIN}
    bulk.apply(registry, IDS[key] | item)
    after = registry.row(key)
    assert after.identity.authentication != before.identity.authentication  # as PUT has it
    assert after.identity.generation_id == before.identity.generation_id
    assert after.identity.revision == before.identity.revision + 1
    assert after.identity.enabled == (key is MODULE)
    assert after.twin.tags == {"old": 1, "a": 1}
    assert after.twin.desired.values == {"old": 1, "b": {"c": 2}}
    assert after.twin.desired.version == before.twin.desired.version + 1


def test_an_update_without_a_twin_leaves_the_twin_alone(registry: Registry) -> None:
    before = registry.row(DEVICE)
    bulk.apply(registry, {"id": "d", "importMode": "update", "statusReason": "x"})
    after = registry.row(DEVICE)
    assert after.identity.status_reason == "x"
    assert after.twin is before.twin


def test_an_update_is_refused_whole(registry: Registry) -> None:
    before = registry.row(DEVICE)
    item = {"id": "d", "importMode": "update", "status": "disabled", "tags": {"a.b": 1}}
    with pytest.raises(ArgumentInvalid):
        bulk.apply(registry, item)
    assert registry.row(DEVICE) == before


def test_who_watches_is_told_of_new_tags_and_of_no_others(registry: Registry) -> None:
    told: list[IdentityKey] = []
    registry.when_changed(told.append)
    bulk.apply(registry, {"id": "d", "importMode": "update"})
    bulk.apply(registry, {"id": "d", "importMode": "update", "properties": {"desired": {"x": 1}}})
    assert told == []
    bulk.apply(registry, {"id": "d", "importMode": "update", "tags": {"x": 1}})
    bulk.apply(registry, {"id": "d", "importMode": "updateTwin", "tags": {"x": 2}})
    bulk.apply(registry, {"id": "new", "importMode": "create"})
    assert told == [DEVICE, DEVICE, IdentityKey("new")]


@pytest.mark.parametrize("key", [DEVICE, MODULE])
@pytest.mark.parametrize("mode", ["updateTwin", "UpdateTwinIfMatchETag"])
def test_a_twin_alone_is_updated(registry: Registry, key: IdentityKey, mode: str) -> None:
    before = registry.row(key)
    item = {"importMode": mode, **TWIN, "status": "disabled", **etags(registry, key)}
    bulk.apply(registry, IDS[key] | item)
    after = registry.row(key)
    assert after.identity is before.identity
    assert (after.twin.tags, after.twin.desired.values) == ({"a": 1}, {"b": {"c": 2}})


# --- deleting


@pytest.mark.parametrize("key", [DEVICE, MODULE])
@pytest.mark.parametrize(
    "members",
    [
        {"importMode": "delete"},
        {"importMode": "delete", "eTag": STALE},
        {"importMode": "deleteIfMatchETag"},  # seen on a real hub
        {"importMode": "deleteIfMatchETag", "eTag": None},
        {"importMode": "deleteIfMatchETag", "eTag": "<current>"},
        {"importMode": "deleteIfMatchETag", "eTag": '"<current>"'},
    ],
)
def test_what_is_there_is_deleted(
    registry: Registry, key: IdentityKey, members: dict[str, Any]
) -> None:
    current = etags(registry, key)["eTag"]
    if members.get("eTag"):
        members = {**members, "eTag": members["eTag"].replace("<current>", current)}
    bulk.apply(registry, IDS[key] | members)
    assert not registry.has(key)
    assert registry.has(DEVICE) == (key is MODULE)


# --- what is refused


@pytest.mark.parametrize("key", [DEVICE, MODULE])
@pytest.mark.parametrize(
    ("mode", "needs"),
    [
        ("updateIfMatchETag", "eTag"),
        ("createOrUpdateIfMatchETag", "eTag"),
        ("updateTwinIfMatchETag", "twinETag"),
        ("deleteIfMatchETag", "eTag"),
    ],
)
def test_a_mode_with_an_etag_needs_the_current_one(
    registry: Registry, key: IdentityKey, mode: str, needs: str
) -> None:
    before = registry.row(key)
    item = IDS[key] | {"importMode": mode, "tags": {"new": 1}}
    absent = [] if mode.startswith("delete") else [None, ""]
    for etag in [STALE, *absent]:
        with pytest.raises(PreconditionFailed):
            bulk.apply(registry, {**item, needs: etag})
    with pytest.raises(ArgumentInvalid):
        bulk.apply(registry, {**item, needs: 7})
    assert registry.row(key) == before
    bulk.apply(registry, {**item, **etags(registry, key)})


GONE, GONE_MODULE = {"id": "gone"}, {"id": "d", "moduleId": "gone"}
ORPHAN = {"id": "gone", "moduleId": "m"}


@pytest.mark.parametrize(
    ("ids", "mode", "error"),
    [
        ({"id": "d"}, "create", DeviceAlreadyExists),
        ({"id": "d", "moduleId": "m"}, "create", ModuleAlreadyExistsOnDevice),
        (ORPHAN, "create", DeviceNotFound),
        (ORPHAN, "createOrUpdate", DeviceNotFound),
        *((ids, "updateTwin", DeviceNotFound) for ids in (GONE, GONE_MODULE, ORPHAN)),
        *((GONE, mode, DeviceNotFound) for mode in ("update", "delete")),
        *((GONE_MODULE, mode, ModuleNotFound) for mode in ("update", "delete")),
        *((ORPHAN, mode, DeviceNotFound) for mode in ("update", "delete")),
        ({"id": "d", "moduleId": "$edgeAgent"}, "create", ArgumentInvalid),
        ({"id": "d", "moduleId": "$edgeAgent"}, "updateTwin", DeviceNotFound),
        *(
            ({"id": "edge", "moduleId": "$edgeHub"}, mode, SystemModuleModifyUnauthorizedAccess)
            for mode in ("createOrUpdate", "update", "delete", "updateTwin")
        ),
        ({"id": "a b"}, "create", ArgumentInvalid),
        ({"id": ""}, "create", ArgumentInvalid),
        ({"id": "d"}, "merge", ArgumentInvalid),
        ({"id": "d"}, "", ArgumentInvalid),
        ({"id": "d"}, 1, ArgumentInvalid),
        ({"id": "d"}, None, ArgumentInvalid),
        ({}, "create", ArgumentInvalid),
        ({"id": None}, "create", ArgumentInvalid),
        ({"id": 7}, "create", ArgumentInvalid),
        ({"id": "d", "moduleId": 7}, "create", ArgumentInvalid),
        ({"id": "d", "moduleId": ["m"]}, "update", ArgumentInvalid),
    ],
)
def test_what_cannot_be_done_is_refused(
    registry: Registry, ids: dict[str, Any], mode: Any, error: type[HubError]
) -> None:
    before = [*registry.device_rows(), *registry.module_rows()]
    with pytest.raises(error):
        bulk.apply(registry, {**ids, "importMode": mode, "tags": {"new": 1}})
    assert [*registry.device_rows(), *registry.module_rows()] == before


@pytest.mark.parametrize("item", [None, [], "d", 1])
def test_an_item_is_an_object(registry: Registry, item: object) -> None:
    with pytest.raises(DeserializationError):
        bulk.apply(registry, item, default_mode="create")


# --- calls


def test_each_item_is_applied_or_refused_on_its_own(registry: Registry) -> None:
    body = [
        {"id": "new", "importMode": "create"},
        {"id": "d", "importMode": "create"},
        {"id": "d", "moduleId": "m", "importMode": "Create"},
        {"id": "edge", "importMode": "delete"},
        {"id": "gone", "importMode": "delete"},
        {"id": "other"},
        {"importMode": "create"},
        {"id": "x", "importMode": 7},
    ]
    result = bulk.run(registry, body)
    assert list(result) == ["isSuccessful", "errors", "warnings"]
    assert (result["isSuccessful"], result["warnings"]) == (False, [])
    errors = [dict(error) for error in result["errors"]]
    texts = [error.pop("errorStatus") for error in errors]
    assert errors == [
        {"deviceId": "d", "errorCode": "DeviceAlreadyExists", "operation": "create"},
        {
            "deviceId": "d",
            "errorCode": "ModuleAlreadyExistsOnDevice",
            "moduleId": "m",
            "operation": "Create",
        },
        {"deviceId": "gone", "errorCode": "DeviceNotFound", "operation": "delete"},
        {"deviceId": None, "errorCode": "ArgumentInvalid", "operation": "create"},
        {"deviceId": "x", "errorCode": "ArgumentInvalid", "operation": 7},
    ]
    assert all(texts)
    assert texts[2] == "gone"
    devices = [device["deviceId"] for device in registry.list_devices()]
    assert devices == ["d", "new", "other"]


def test_an_identity_that_is_named_twice_is_left_alone(registry: Registry) -> None:
    body = [
        {"id": "twice", "importMode": "create"},
        {"id": "once", "importMode": "create"},
        {"id": "d", "moduleId": "twice", "importMode": "create"},
        {"id": "twice", "moduleId": "", "importMode": "delete"},
        {"id": "d", "moduleId": "twice", "importMode": "update"},
        {"id": "Twice", "importMode": "create"},
    ]
    result = bulk.run(registry, body)
    codes = [(error["deviceId"], error["errorCode"]) for error in result["errors"]]
    twice = "DeviceDefinedMultipleTimes"
    assert codes == [("twice", twice), ("d", twice), ("twice", twice), ("d", twice)]
    assert registry.has(IdentityKey("once"))
    assert registry.has(IdentityKey("Twice"))
    assert not registry.has(IdentityKey("twice"))
    assert not registry.has(IdentityKey("d", "twice"))


def test_a_call_may_do_nothing(registry: Registry) -> None:
    assert bulk.run(registry, []) == {"isSuccessful": True, "errors": [], "warnings": []}


@pytest.mark.parametrize("body", [None, {}, {"devices": []}, "x", 1, [1], [{"id": "new"}, None]])
def test_a_call_is_an_array_of_objects(registry: Registry, body: object) -> None:
    with pytest.raises(DeserializationError):
        bulk.run(registry, body)
    assert not registry.has(IdentityKey("new"))


def test_a_call_has_a_hundred_items_at_most(registry: Registry) -> None:
    body = [{"id": f"n{number}", "importMode": "create"} for number in range(101)]
    with pytest.raises(TooManyDevices):
        bulk.run(registry, body)
    assert registry.device_statistics()["totalDeviceCount"] == 2
    assert bulk.run(registry, body[:100])["isSuccessful"] is True
    assert registry.device_statistics()["totalDeviceCount"] == 102


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["d", "m", "edge", "", "*"]),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "desired", "iotEdge", "type"]), values, max_size=2)
    ),
    max_leaves=4,
)
ITEMS = st.fixed_dictionaries(
    {"id": st.sampled_from(["d", "edge", "new", "$x"]) | JSON},
    optional={
        "moduleId": st.sampled_from(["m", "n", "$edgeAgent"]) | JSON,
        "importMode": st.sampled_from([mode.value for mode in bulk.ImportMode]) | JSON,
        "eTag": JSON,
        "twinETag": JSON,
        "status": st.sampled_from(["enabled", "disabled"]) | JSON,
        "authentication": JSON,
        "capabilities": st.builds(lambda edge: {"iotEdge": edge}, st.booleans()) | JSON,
        "deviceScope": JSON,
        "parentScopes": JSON,
        "tags": JSON,
        "properties": JSON,
    },
)


@given(st.lists(ITEMS, max_size=6))
def test_no_call_leaves_the_registry_out_of_joint(body: list[Any]) -> None:
    registry = make_registry()
    result = bulk.run(registry, body)
    assert result["isSuccessful"] == (result["errors"] == [])
    assert len(result["errors"]) <= len(body)
    rows = list(registry.device_rows())
    assert registry.device_statistics()["totalDeviceCount"] == len(rows)
    own = {key.device_id for key in (row.identity.key for row in registry.module_rows())}
    assert own <= {row.identity.key.device_id for row in rows}
    for row in rows:
        device = row.identity
        modules = [
            module.identity.key.module_id
            for module in registry.module_rows()
            if module.identity.key.device_id == device.key.device_id
            and module.identity.key.is_system_module
        ]
        assert sorted(filter(None, modules)) == (
            ["$edgeAgent", "$edgeHub"] if device.iot_edge else []
        )
        assert (device.scopes.device is not None) >= device.iot_edge
