"""Items of bulk calls and import files."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core import errors, limits
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Store
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import Identity, IdentityChanged, IdentityCreated, IdentityKey
from emulator.hub.registry.bulk import ImportMode
from emulator.hub.twins.twin import Twin, TwinChanged
from tests.hub import fakes
from tests.hub.fakes import ANY, DEVICE, MODULE, HubStore, done, put, stored

NEVER, NOW = "0001-01-01T00:00:00Z", "2026-01-31T14:46:08Z"
IDS = {DEVICE: {"id": "d"}, MODULE: {"id": "d", "moduleId": "m"}}
NEW, NEW_MODULE = IdentityKey("new"), IdentityKey("d", "new")
NEW_IDS = {NEW: {"id": "new"}, NEW_MODULE: {"id": "d", "moduleId": "new"}}
STALE = "c3RhbGU="
TWIN = {"tags": {"a": 1}, "properties": {"desired": {"b": {"c": 2}}}}


@pytest.fixture
def hub(hub: IotHub) -> IotHub:
    return fill(hub)


def fill(hub: IotHub) -> IotHub:
    """Register the device `d` with its module `m`, and the IoT Edge device `edge`."""
    put(hub, DEVICE)
    put(hub, MODULE)
    put(hub, IdentityKey("edge"), capabilities={"iotEdge": True})
    return hub


def everything(store: Store) -> list[object]:
    return [*store.scan(Identity), *store.scan(Twin)]


def etags(store: Store, key: IdentityKey) -> dict[str, str]:
    return {"eTag": stored(store, Identity, key).etag, "twinETag": stored(store, Twin, key).etag}


# --- creating


@pytest.mark.parametrize("mode", ["create", "CREATE", "Create", "createOrUpdate", None])
@pytest.mark.parametrize("key", NEW_IDS)
def test_a_new_identity_is_created(hub: IotHub, key: IdentityKey, mode: str | None) -> None:
    hub.bulk.apply(NEW_IDS[key] | {"importMode": mode}, default_mode="createOrUpdate")
    twin = hub.twins.get(key)
    assert (twin["authenticationType"], twin["version"]) == ("sas", 2)


# What was seen on a real hub: a device's desired properties have no date, a module's reported ones
# have a version as well.
@pytest.mark.parametrize(
    ("key", "date", "reported"),
    [
        (NEW, NEVER, {"$lastUpdated": NOW}),
        (NEW_MODULE, NOW, {"$lastUpdated": NOW, "$lastUpdatedVersion": 1}),
    ],
)
def test_a_new_identity_has_its_tags_and_desired_properties_from_the_start(
    hub: IotHub, key: IdentityKey, date: str, reported: JsonObject
) -> None:
    hub.bulk.apply(NEW_IDS[key] | {"importMode": "create", **TWIN})
    twin = hub.twins.get(key)
    mark = {"$lastUpdated": date, "$lastUpdatedVersion": 1}
    metadata = {**mark, "b": {**mark, "c": mark}}
    assert (twin["etag"], twin["version"], twin["tags"]) == ("AAAAAAAAAAE=", 2, {"a": 1})
    assert twin["properties"] == {
        "desired": {"b": {"c": 2}, "$metadata": metadata, "$version": 1},
        "reported": {"$metadata": reported, "$version": 1},
    }


def properties(desired: Any, reported: Any = None) -> JsonObject:
    return {"properties": {"desired": desired, "reported": reported}}


# What an export adds to a section.
EXPORTED = {"$metadata": {"$lastUpdated": NEVER}, "$version": 7}


@pytest.mark.parametrize(
    ("twin", "tags", "desired"),
    [
        ({"tags": {"a": 1}}, {"a": 1}, {}),
        (properties({"b": 2}), None, {"b": 2}),
        ({"tags": None, "properties": None}, None, {}),
        ({"tags": {}, **properties({}, {})}, None, {}),
        (properties(None), None, {}),
        ({"tags": {"gone": None}, **properties({"b": {"gone": None}})}, None, {"b": {}}),
        (properties({"b": 2, **EXPORTED}, {"c": 3, **EXPORTED}), None, {"b": 2}),
    ],
)
@pytest.mark.parametrize("key", NEW_IDS)
def test_a_new_twin_has_the_parts_that_are_given(
    hub: IotHub, key: IdentityKey, twin: Any, tags: Any, desired: Any
) -> None:
    hub.bulk.apply(NEW_IDS[key] | {"importMode": "create", **twin})
    document = hub.twins.get(key)
    assert (document.get("tags"), document["version"]) == (tags, 2)
    assert document["etag"] == "AAAAAAAAAAE="
    for name, values in (("desired", desired), ("reported", {})):
        section = document["properties"][name]
        assert {key: section[key] for key in section if not key.startswith("$")} == values
        assert section["$version"] == 1
        assert "$lastUpdated" in section["$metadata"]


@pytest.mark.parametrize(
    "item",
    [
        {"id": "new", "importMode": "create", "capabilities": {"iotEdge": True}, **TWIN},
        {"id": "d", "moduleId": "n", "importMode": "create", **TWIN},
        {"id": "d", "importMode": "update", **TWIN},
        {"id": "d", "importMode": "updateTwin", **TWIN},
        {"id": "edge", "importMode": "delete"},
    ],
)
def test_an_item_is_one_commit(hub: IotHub, store: fakes.CountingStore, item: JsonObject) -> None:
    before = store.commits
    hub.bulk.apply(item)
    assert store.commits == before + 1


def test_a_child_is_created_below_its_parent(hub: IotHub) -> None:
    scope = hub.identities.get(IdentityKey("edge"))["deviceScope"]
    hub.bulk.apply({"id": "leaf", "importMode": "create", "deviceScope": scope})
    item = {"id": "below", "capabilities": {"iotEdge": True}, "parentScopes": [scope]}
    hub.bulk.apply(item, default_mode="create")
    assert hub.identities.get(IdentityKey("leaf"))["deviceScope"] == scope
    for device_id in ("leaf", "below"):
        assert hub.identities.get(IdentityKey(device_id))["parentScopes"] == [scope]
    hub.bulk.apply({"id": "edge", "importMode": "delete"})  # its children keep its scope
    hub.bulk.apply({"id": "leaf", "importMode": "update", "deviceScope": scope})
    with pytest.raises(errors.InvalidDeviceScope):
        hub.bulk.apply({"id": "x", "importMode": "create", "deviceScope": "nowhere"})


def test_a_bulk_call_counts_against_the_limit_of_modules(hub: IotHub) -> None:
    names = [f"n{number}" for number in range(limits.MODULES_PER_DEVICE)]
    body = [{"id": "d", "moduleId": name, "importMode": "create"} for name in names]
    result = done(hub.bulk.run(body))
    assert [error["errorCode"] for error in result["errors"]] == [413003]
    assert len(hub.identities.list_modules("d")) == limits.MODULES_PER_DEVICE


# --- updating


@pytest.mark.parametrize("mode", ["update", "createOrUpdate"])
@pytest.mark.parametrize("key", IDS)
def test_an_update_replaces_the_identity_and_merges_into_the_twin(
    hub: IotHub, store: Store, key: IdentityKey, mode: str
) -> None:
    hub.twins.patch(key, {"tags": {"old": 1}, "properties": {"desired": {"old": 1}}}, ANY)
    before = stored(store, Identity, key)
    item = {"importMode": mode, "eTag": STALE, "twinETag": STALE, "status": "disabled", **TWIN}
    hub.bulk.apply(IDS[key] | item)
    after, twin = stored(store, Identity, key), stored(store, Twin, key)
    assert after.authentication != before.authentication  # as PUT has it
    assert after.generation_id == before.generation_id
    assert after.revision == before.revision + 1
    assert after.enabled == (key is MODULE)
    assert twin.tags == {"old": 1, "a": 1}
    assert twin.desired.values == {"old": 1, "b": {"c": 2}}
    assert twin.desired.version == 3


def test_an_item_writes_and_publishes_its_parts(hub: IotHub, store: Store) -> None:
    changes, before = fakes.record_changes(hub.feed), stored(store, Twin, DEVICE)
    hub.bulk.apply({"id": "d", "importMode": "update", "statusReason": "x"})
    assert stored(store, Identity, DEVICE).status_reason == "x"
    assert stored(store, Twin, DEVICE) == before
    link = fakes.connect(hub, fakes.FakeLink())
    del changes[1:]
    hub.bulk.apply({"id": "d", "importMode": "update", "tags": {"x": 1}, **properties({"y": 1})})
    assert link.desired == [changes[2].desired] == [{"y": 1, "$version": 2}]
    hub.bulk.apply({"id": "d", "importMode": "updateTwin", "tags": {"x": 2}})
    for mode in ("update", "updateTwin"):  # only the device writes reported properties
        hub.bulk.apply({"id": "d", "importMode": mode, "properties": {"reported": {"x": 1}}})
    hub.bulk.apply({"id": "new", "importMode": "create", "tags": {"x": 1}})
    assert [(type(change), change.key) for change in changes] == [
        *((IdentityChanged, DEVICE), (IdentityChanged, DEVICE), (TwinChanged, DEVICE)),
        *((TwinChanged, DEVICE), (IdentityChanged, DEVICE), (IdentityCreated, NEW)),
    ]
    assert [change.tags for change in changes[2:4]] == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize("key", IDS)
@pytest.mark.parametrize("mode", ["updateTwin", "UpdateTwinIfMatchETag"])
def test_an_item_can_update_only_a_twin(
    hub: IotHub, store: Store, key: IdentityKey, mode: str
) -> None:
    before = stored(store, Identity, key)
    item = {"importMode": mode, **TWIN, "status": "disabled", **etags(store, key)}
    hub.bulk.apply(IDS[key] | item)
    after = stored(store, Twin, key)
    assert stored(store, Identity, key) == before
    assert (after.tags, after.desired.values) == ({"a": 1}, {"b": {"c": 2}})


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
def test_an_identity_is_deleted(
    hub: IotHub, store: Store, key: IdentityKey, members: dict[str, Any]
) -> None:
    if members.get("eTag"):
        current = etags(store, key)["eTag"]
        members = {**members, "eTag": members["eTag"].replace("<current>", current)}
    hub.bulk.apply(IDS[key] | members)
    assert not hub.identities.has(key)
    assert hub.identities.has(DEVICE) == (key is MODULE)


# --- what is refused


@pytest.mark.parametrize("key", IDS)
@pytest.mark.parametrize(
    ("mode", "needs"),
    [
        *(("updateIfMatchETag", "eTag"), ("createOrUpdateIfMatchETag", "eTag")),
        *(("updateTwinIfMatchETag", "twinETag"), ("deleteIfMatchETag", "eTag")),
    ],
)
def test_a_mode_with_an_etag_needs_the_current_one(
    hub: IotHub, store: Store, key: IdentityKey, mode: str, needs: str
) -> None:
    before = everything(store)
    item = IDS[key] | {"importMode": mode, "tags": {"new": 1}}
    with pytest.raises(errors.PreconditionFailed):
        hub.bulk.apply({**item, needs: STALE})
    with pytest.raises(errors.ArgumentInvalid):
        hub.bulk.apply({**item, needs: 7})
    assert everything(store) == before
    hub.bulk.apply({**item, **etags(store, key)})
    assert everything(store) != before


@pytest.mark.parametrize("key", IDS)
@pytest.mark.parametrize(
    "mode", ["UpdateIfMatchETag", "createOrUpdateIfMatchETag", "deleteIfMatchEtag"]
)
@pytest.mark.parametrize("etag", [{}, {"eTag": None}, {"eTag": ""}, {"eTag": '""'}, {"etag": "*"}])
def test_a_missing_etag_passes(
    hub: IotHub, store: Store, key: IdentityKey, mode: str, etag: JsonObject
) -> None:
    before = everything(store)
    hub.bulk.apply({**IDS[key], "importMode": mode, "twinETag": STALE, **etag})
    assert everything(store) != before


@pytest.mark.parametrize("etag", [{}, {"twinETag": None}, {"twinETag": ""}, {"TWINETAG": "*"}])
def test_a_missing_etag_of_a_twin_passes(hub: IotHub, etag: JsonObject) -> None:
    item = {"id": "d", "importMode": "updateTwinIfMatchETag", "eTag": STALE, "tags": {"new": 1}}
    hub.bulk.apply({**item, **etag})
    assert hub.twins.get(DEVICE)["tags"]["new"] == 1


GONE, GONE_MODULE = {"id": "gone"}, {"id": "d", "moduleId": "gone"}
ORPHAN = {"id": "gone", "moduleId": "m"}
AGENT, EDGE_HUB = {"id": "d", "moduleId": "$edgeAgent"}, {"id": "edge", "moduleId": "$edgeHub"}
ALL_MODES = ("createOrUpdate", "update", "delete", "updateTwin")
IMPOSSIBLE = [
    (errors.DeviceAlreadyExists, IDS[DEVICE], ["create"]),
    (errors.ModuleAlreadyExistsOnDevice, IDS[MODULE], ["create"]),
    (errors.DeviceNotFound, ORPHAN, ["create", *ALL_MODES]),
    (errors.DeviceNotFound, GONE, ["update", "delete", "updateTwin"]),
    (errors.ModuleNotFound, GONE_MODULE, ["update", "delete"]),
    (errors.DeviceNotFound, GONE_MODULE, ["updateTwin"]),
    (errors.DeviceNotFound, AGENT, ["updateTwin"]),
    (errors.SystemModuleModifyUnauthorizedAccess, EDGE_HUB, ALL_MODES),
]
INVALID = [
    *((AGENT, "create"), ({"id": "a b"}, "create"), ({"id": ""}, "create"), ({}, "create")),
    *((IDS[DEVICE], "merge"), (IDS[DEVICE], ""), (IDS[DEVICE], 1), (IDS[DEVICE], None)),
    *(({"id": None}, "create"), ({"id": 7}, "create"), ({"id": "d", "moduleId": 7}, "create")),
    ({"id": "d", "moduleId": ["m"]}, "update"),
    ({"id": "new", "tags": {"a.b": 1}}, "create"),
    ({"id": "d", "status": "disabled", "tags": {"a.b": 1}}, "update"),
]


@pytest.mark.parametrize(
    ("error", "ids", "mode"),
    [
        *((error, ids, mode) for error, ids, modes in IMPOSSIBLE for mode in modes),
        *((errors.ArgumentInvalid, ids, mode) for ids, mode in INVALID),
    ],
)
def test_an_item_that_is_invalid_or_impossible_is_refused_whole(
    hub: IotHub, store: Store, error: type[errors.HubError], ids: JsonObject, mode: Any
) -> None:
    before = everything(store)
    with pytest.raises(error):
        hub.bulk.apply({"tags": {"new": 1}, **ids, "importMode": mode})
    assert everything(store) == before


@pytest.mark.parametrize("item", [None, [], "d", 1])
def test_an_item_is_an_object(hub: IotHub, item: object) -> None:
    with pytest.raises(errors.DeserializationError):
        hub.bulk.apply(item, default_mode="create")


# --- calls


def test_each_item_is_applied_or_refused_on_its_own(hub: IotHub) -> None:
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
    result = done(hub.bulk.run(body))
    assert list(result) == ["isSuccessful", "errors", "warnings"]
    assert (result["isSuccessful"], result["warnings"]) == (False, [])
    module = result["errors"].pop(1)
    assert (module["moduleId"], module["errorCode"]) == ("m", 409301)
    names = ("deviceId", "errorCode", "operation")
    texts = [error.pop("errorStatus") for error in result["errors"]]
    assert (all(texts), texts[1]) == (True, "gone")
    assert all(tuple(sorted(error)) == names for error in result["errors"])
    assert [tuple(error[name] for name in names) for error in [*result["errors"], module]] == [
        ("d", 409001, "create"),
        ("gone", 404001, "delete"),
        (None, 400004, "create"),
        ("x", 400004, 7),
        ("d", 409301, "Create"),
    ]
    devices = [device["deviceId"] for device in done(hub.identities.list_devices())]
    assert devices == ["d", "new", "other"]


def test_an_identity_that_a_call_names_twice_is_left_alone(hub: IotHub) -> None:
    body = [
        {"id": "twice", "importMode": "create"},
        {"id": "once", "importMode": "create"},
        {"id": "d", "moduleId": "twice", "importMode": "create"},
        {"id": "twice", "moduleId": "", "importMode": "delete"},
        {"id": "d", "moduleId": "twice", "importMode": "update"},
        {"id": "Twice", "importMode": "create"},
    ]
    result = done(hub.bulk.run(body))
    codes = [(error["deviceId"], error["errorCode"]) for error in result["errors"]]
    twice = 400011
    assert codes == [("twice", twice), ("d", twice), ("twice", twice), ("d", twice)]
    keys = [("once",), ("Twice",), ("twice",), ("d", "twice")]
    assert [hub.identities.has(IdentityKey(*key)) for key in keys] == [True, True, False, False]


@pytest.mark.parametrize("body", [None, {}, {"devices": []}, "x", 1, [1], [{"id": "new"}, None]])
def test_a_call_is_an_array_of_objects(hub: IotHub, body: object) -> None:
    with pytest.raises(errors.DeserializationError):
        done(hub.bulk.run(body))
    assert not hub.identities.has(NEW)


def test_a_call_has_a_hundred_items_at_most(hub: IotHub) -> None:
    assert done(hub.bulk.run([])) == {"isSuccessful": True, "errors": [], "warnings": []}
    body = [{"id": f"n{number}", "importMode": "create"} for number in range(101)]
    with pytest.raises(errors.TooManyDevices):
        done(hub.bulk.run(body))
    assert done(hub.identities.device_statistics())["totalDeviceCount"] == 2
    assert done(hub.bulk.run(body[:100]))["isSuccessful"] is True
    assert done(hub.identities.device_statistics())["totalDeviceCount"] == 102


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
        "importMode": st.sampled_from([mode.value for mode in ImportMode]) | JSON,
        "status": st.sampled_from(["enabled", "disabled"]) | JSON,
        "capabilities": st.builds(lambda edge: {"iotEdge": edge}, st.booleans()) | JSON,
        **dict.fromkeys(("eTag", "twinETag", "authentication", "tags", "properties"), JSON),
        **dict.fromkeys(("deviceScope", "parentScopes"), JSON),
    },
)


@given(st.lists(ITEMS, max_size=6))
def test_any_call_leaves_a_consistent_registry(body: list[Any]) -> None:
    store = HubStore()
    hub = fill(fakes.make_hub(store))
    result = done(hub.bulk.run(body))
    assert result["isSuccessful"] == (result["errors"] == [])
    assert len(result["errors"]) <= len(body)
    keys = {identity.key for identity in store.scan(Identity)}
    assert {twin.key for twin in store.scan(Twin)} == keys
    devices = [stored(store, Identity, key) for key in keys if key.module_id is None]
    assert done(hub.identities.device_statistics())["totalDeviceCount"] == len(devices)
    assert {key.device_id for key in keys} == {device.key.device_id for device in devices}
    for device in devices:
        family = [key for key in keys if key.device_id == device.key.device_id]
        system = sorted(key.module_id or "" for key in family if key.is_system_module)
        assert system == (["$edgeAgent", "$edgeHub"] if device.iot_edge else [])
        assert (device.scopes.device is not None) >= device.iot_edge
