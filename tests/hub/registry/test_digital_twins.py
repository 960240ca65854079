from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from emulator.hub.links.connections import Presence
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeviceNotFound,
    HubError,
    InvalidDigitalTwinJsonPatch,
    InvalidDigitalTwinPatch,
    InvalidDigitalTwinPatchPath,
    PreconditionFailed,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import dumps, loads
from emulator.hub.core.store import MemoryStore
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub
from emulator.hub.identities import identity as identities
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry import digital_twins
from emulator.hub.registry.documents import TwinRow
from emulator.hub.twins import twin as twins

NOW = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)
REPORTED = NOW + timedelta(seconds=1)
LATER = NOW + timedelta(seconds=2)
KEY = IdentityKey("sample-device")
UNCONDITIONAL = IfMatch(None)

JsonObject = dict[str, Any]


def make_row(desired: JsonObject, reported: JsonObject, model_id: str = "") -> TwinRow:
    """Make a device whose twin each side has written once, the device a second later."""
    identity = identities.create(KEY, {"deviceId": KEY.device_id}, NOW)
    twin = twins.patch(twins.create(KEY, NOW), {"properties": {"desired": desired}}, NOW).twin
    twin = twins.report(twin, reported, REPORTED)
    return TwinRow(replace(identity, model_id=model_id), twin, Presence(), 0)


def view(desired: JsonObject, reported: JsonObject) -> JsonObject:
    return digital_twins.document(make_row(desired, reported))


def write(row: TwinRow, patch: object) -> TwinRow:
    """Apply a JSON patch, as the hub does."""
    body = {"properties": {"desired": digital_twins.desired_changes(row, patch)}}
    return replace(row, twin=twins.patch(row.twin, body, LATER).twin)


def desired_after(desired: JsonObject, reported: JsonObject, *patch: object) -> JsonObject:
    return write(make_row(desired, reported), list(patch)).twin.desired.values


def add(path: str, value: object) -> JsonObject:
    return {"op": "add", "path": path, "value": value}


def put(path: str, value: object) -> JsonObject:
    return {"op": "replace", "path": path, "value": value}


def remove(path: str) -> JsonObject:
    return {"op": "remove", "path": path}


def check(path: str, value: object) -> JsonObject:
    return {"op": "test", "path": path, "value": value}


def component(**members: object) -> JsonObject:
    return {"__t": "c", **members}


def acknowledge(value: object, version: int, **more: object) -> JsonObject:
    return {"value": value, "ac": 200, "av": version, **more}


# --- the view


def test_a_device_without_properties_has_an_empty_digital_twin() -> None:
    # As seen on a real hub, for a device that names no model.
    assert dumps(view({}, {})) == b'{"$dtId":"sample-device","$metadata":{"$model":""}}'


def test_the_documentations_example() -> None:
    desired = {"thermostat1": component(targetTemperature=21.8)}
    acknowledged = acknowledge(21.8, 4, ad="Successfully executed patch")
    thermostat = {"maxTempSinceLastReboot": 25.3, "__t": "c", "targetTemperature": acknowledged}
    reported = {"serialNumber": "alwinexlepaho8329", "thermostat1": thermostat}
    model_id = "dtmi:com:example:TemperatureController;1"
    at = iso(REPORTED)
    assert digital_twins.document(make_row(desired, reported, model_id)) == {
        "$dtId": "sample-device",
        "serialNumber": "alwinexlepaho8329",
        "thermostat1": {
            "maxTempSinceLastReboot": 25.3,
            "targetTemperature": 21.8,
            "$metadata": {
                "maxTempSinceLastReboot": {"lastUpdateTime": at},
                "targetTemperature": {
                    "desiredValue": 21.8,
                    "desiredVersion": 2,
                    "ackVersion": 4,
                    "ackCode": 200,
                    "ackDescription": "Successfully executed patch",
                    "lastUpdateTime": at,
                },
            },
        },
        "$metadata": {"$model": model_id, "serialNumber": {"lastUpdateTime": at}},
    }


def test_members_stand_in_the_documentations_order() -> None:
    desired = {"fan": 2.0, "thermostat1": component(target=1)}
    reported = {
        "thermostat1": component(target=acknowledge(1, 2, ad="done")),
        "fan": acknowledge(3.0, 1, ad="done"),
    }
    document = view(desired, reported)
    assert list(document) == ["$dtId", "fan", "thermostat1", "$metadata"]
    assert list(document["thermostat1"]) == ["target", "$metadata"]
    assert list(document["$metadata"]) == ["$model", "fan"]
    for metadata in (document["$metadata"]["fan"], document["thermostat1"]["$metadata"]["target"]):
        assert list(metadata) == [
            "desiredValue",
            "desiredVersion",
            "ackVersion",
            "ackCode",
            "ackDescription",
            "lastUpdateTime",
        ]


PROPERTIES = [
    # desired, reported; the value in the view, and its metadata but for the time of a report
    (None, 3, 3, {}),
    (None, {"a": {"b": 1}}, {"a": {"b": 1}}, {}),
    (None, [1, 2], [1, 2], {}),
    (2, None, None, {"desiredValue": 2, "desiredVersion": 2}),
    (2, 3, 3, {"desiredValue": 2, "desiredVersion": 2}),
    (
        2,
        acknowledge(3, 1),
        3,
        {"desiredValue": 2, "desiredVersion": 2, "ackVersion": 1, "ackCode": 200},
    ),
    # The documentation's own examples leave the version out once.
    (None, {"value": 3, "ac": 404, "ad": "no"}, 3, {"ackCode": 404, "ackDescription": "no"}),
    ({"a": 1}, acknowledge({"a": 1}, 2), {"a": 1}, None),
    # An object that happens to have a member `value` is one all the same.
    (None, {"value": 3}, {"value": 3}, {}),
]


@pytest.mark.parametrize(("desired", "reported", "value", "metadata"), PROPERTIES)
@pytest.mark.parametrize("within", [None, "thermostat1"])
def test_a_property_shows_its_reported_value_and_what_is_desired_in_its_metadata(
    desired: Any, reported: Any, value: Any, metadata: JsonObject | None, within: str | None
) -> None:
    sides = [{} if given is None else {"p": given} for given in (desired, reported)]
    if within is not None:
        sides = [{within: component(**side)} for side in sides]
    document = view(*sides)
    shown = document if within is None else document[within]
    assert shown.get("p") == value
    if metadata is not None:
        reported_at = {} if reported is None else {"lastUpdateTime": iso(REPORTED)}
        assert shown["$metadata"]["p"] == metadata | reported_at
    assert ("p" in shown) == (reported is not None)


def test_a_component_is_one_whichever_side_marks_it() -> None:
    for desired, reported in (
        ({"t": component(a=1)}, {"t": {"b": 2}}),
        ({"t": {"a": 1}}, {"t": component(b=2)}),
    ):
        thermostat = view(desired, reported)["t"]
        assert thermostat["b"] == 2
        assert thermostat["$metadata"]["a"] == {"desiredValue": 1, "desiredVersion": 2}
        assert "__t" not in thermostat


def test_an_object_without_the_mark_is_a_property() -> None:
    document = view({}, {"p": {"__t": "d", "a": 1}})
    assert document["p"] == {"__t": "d", "a": 1}


def test_numbers_stay_as_they_are_written() -> None:
    document = view(loads('{"p": 1.50}'), loads('{"p": {"value": 1e2, "ac": 200, "av": 1}}'))
    assert b'"p":1e2' in dumps(document)
    assert b'"desiredValue":1.50' in dumps(document)


# --- what a patch writes

WRITES = [
    # desired, reported, the patch; desired after it
    ({}, {}, [add("/fan", 2)], {"fan": 2}),
    ({"fan": 1, "x": 1}, {}, [add("/fan", 2)], {"fan": 2, "x": 1}),
    ({"fan": 1}, {}, [put("/fan", 2)], {"fan": 2}),
    ({}, {"fan": 1}, [put("/fan", 2)], {"fan": 2}),
    ({"fan": 1, "x": 1}, {}, [remove("/fan")], {"x": 1}),
    ({"x": 1}, {"fan": 1}, [remove("/fan")], {"x": 1}),
    # An object is replaced, not merged.
    ({"p": {"a": 1, "b": {"c": 1}}}, {}, [add("/p", {"b": {"d": 2}})], {"p": {"b": {"d": 2}}}),
    ({"p": {"a": 1}}, {}, [add("/p", {})], {"p": {}}),
    ({"p": {"a": 1}}, {}, [add("/p", 5)], {"p": 5}),
    ({"p": 5}, {}, [add("/p", {"a": 1})], {"p": {"a": 1}}),
    # A property of a component.
    ({}, {}, [add("/t/x", 1)], {"t": component(x=1)}),
    ({}, {"t": component(x=3)}, [put("/t/x", 1)], {"t": component(x=1)}),
    ({"t": component(x=1, y=1)}, {}, [add("/t/x", 2)], {"t": component(x=2, y=1)}),
    ({"t": {"y": 1}}, {"t": component()}, [add("/t/x", 2)], {"t": component(x=2, y=1)}),
    ({"t": component(x=1, y=1)}, {}, [remove("/t/x")], {"t": component(y=1)}),
    ({"t": component(x={"a": 1})}, {}, [add("/t/x", {"b": 1})], {"t": component(x={"b": 1})}),
    # With its last property a component goes.
    ({"t": component(x=1)}, {}, [remove("/t/x")], {}),
    ({"t": component(y=1)}, {"t": component(x=1)}, [remove("/t/x")], {"t": component(y=1)}),
    # A whole component.
    ({}, {}, [add("/t", {"x": 1, "$metadata": {}})], {"t": component(x=1)}),
    ({"t": component(y=1)}, {}, [add("/t", {"x": 1, "$metadata": {}})], {"t": component(x=1)}),
    ({"t": component(y=1)}, {}, [put("/t", {"$metadata": {}})], {"t": component()}),
    ({}, {"t": component(y=1)}, [put("/t", {"x": 1, "$metadata": {}})], {"t": component(x=1)}),
    ({"t": component(y=1), "x": 1}, {}, [remove("/t")], {"x": 1}),
    # One operation sees what the one before it did.
    ({}, {}, [add("/a", 1), put("/a", 2)], {"a": 2}),
    ({"a": 1}, {}, [remove("/a"), add("/a", 2)], {"a": 2}),
    ({}, {}, [add("/a", 1), remove("/a")], {}),
    ({"t": component(x=1)}, {}, [remove("/t"), add("/t", 5)], {"t": 5}),
    (
        {"t": component(x=1, y=1)},
        {},
        [add("/t", {"z": 1, "$metadata": {}}), add("/t/w", 2), remove("/t/z")],
        {"t": component(w=2)},
    ),
    ({"a": 1}, {}, [], {"a": 1}),
]


@pytest.mark.parametrize(("desired", "reported", "patch", "after"), WRITES)
def test_a_patch_writes_desired_properties(
    desired: JsonObject, reported: JsonObject, patch: list[JsonObject], after: JsonObject
) -> None:
    assert desired_after(desired, reported, *patch) == after


def test_only_what_is_written_has_a_new_version() -> None:
    desired = {"fan": 1, "pump": 1, "t": component(x=1, y=1)}
    row = write(make_row(desired, {}), [add("/fan", 1), add("/t/x", 1)])
    document = digital_twins.document(row)
    root, thermostat = document["$metadata"], document["t"]["$metadata"]
    # The version counts though the values are what they were: a write is a write.
    assert [root["fan"]["desiredVersion"], thermostat["x"]["desiredVersion"]] == [3, 3]
    assert [root["pump"]["desiredVersion"], thermostat["y"]["desiredVersion"]] == [2, 2]


def test_a_removal_of_what_is_only_reported_writes_nothing() -> None:
    # "Clears the desired value, if it is set."
    row = make_row({"t": component(y=1)}, {"fan": 1, "t": component(x=1), "u": component(x=1)})
    for path in ("/fan", "/t/x", "/u", "/u/x"):
        assert digital_twins.desired_changes(row, [remove(path)]) == {}


def test_escapes_in_a_path_are_undone() -> None:
    row = make_row({}, {"a/b~c": 1})
    assert digital_twins.desired_changes(row, [check("/a~1b~0c", 1)]) == {}


# --- what a patch tests


@pytest.mark.parametrize(
    "step",
    [
        check("/fan", 3),
        check("/fan", 3.0),
        check("/t/x", {"a": [1, 2]}),
        check("/$metadata/$model", "dtmi:x;1"),
        check("/$metadata/fan/desiredValue", 2),
        check("/$dtId", "sample-device"),
    ],
)
def test_a_test_that_holds_lets_the_patch_pass(step: JsonObject) -> None:
    row = make_row({"fan": 2}, {"fan": acknowledge(3, 1), "t": component(x={"a": [1, 2]})})
    row = replace(row, identity=replace(row.identity, model_id="dtmi:x;1"))
    assert digital_twins.desired_changes(row, [step, add("/fan", 4)]) == {"fan": 4}


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (check("/fan", 2), InvalidDigitalTwinPatch),
        (check("/fan", "3"), InvalidDigitalTwinPatch),
        (check("/on", 1), InvalidDigitalTwinPatch),
        (check("/t/x", {"a": [1]}), InvalidDigitalTwinPatch),
        (check("/t/x", {"a": [1, 2], "b": 1}), InvalidDigitalTwinPatch),
        (check("/t/x", {"b": [1, 2]}), InvalidDigitalTwinPatch),
        (check("/t/x", None), InvalidDigitalTwinPatch),
        (check("/nothing", 1), InvalidDigitalTwinPatchPath),
        (check("/fan/x", 1), InvalidDigitalTwinPatchPath),
        (check("/t/x/a/0", 1), InvalidDigitalTwinPatchPath),
    ],
)
def test_a_test_that_fails_ends_the_patch(step: JsonObject, error: type[HubError]) -> None:
    row = make_row({}, {"fan": 3, "on": True, "t": component(x={"a": [1, 2]})})
    with pytest.raises(error):
        digital_twins.desired_changes(row, [add("/fan", 4), step])


# --- what is no patch

NOT_CONFORMANT = (
    "'{}' exists within the device twin and is not digital twin conformant property. "
    "Please refer to aka.ms/dtpatch to update this to be conformant."
)


@pytest.mark.parametrize(
    "patch",
    [
        None,
        {},
        "add",
        {"op": "add", "path": "/a", "value": 1},
        ["add"],
        [None],
        [{}],
        [{"path": "/a", "value": 1}],
        [{"op": "put", "path": "/a", "value": 1}],
        [{"op": "ADD", "path": "/a", "value": 1}],
        [{"op": ["add"], "path": "/a", "value": 1}],
        [{"op": "add", "path": "/a"}],
        [{"op": "replace", "path": "/a"}],
        [{"op": "test", "path": "/a"}],
        [{"op": "add", "path": 7, "value": 1}],
        [add("/a", 1), {}],
    ],
)
def test_what_is_no_json_patch_is_refused(patch: object) -> None:
    with pytest.raises(InvalidDigitalTwinJsonPatch) as refusal:
        digital_twins.desired_changes(make_row({}, {}), patch)
    assert refusal.value.text


@pytest.mark.parametrize("path", [None, "", "a", "targetTemperature", "/", "//a", "a/b"])
def test_a_path_without_a_name_is_refused_in_a_hubs_words(path: str | None) -> None:
    patch = [{"op": "add", "path": path, "value": 1}]
    with pytest.raises(InvalidDigitalTwinPatch) as refusal:
        digital_twins.desired_changes(make_row({}, {}), patch)
    assert refusal.value.text == (
        f"Error in path: {path}. 'path' string must be non-null, begin with '/' and have atleast "
        "the component name."
    )


@pytest.mark.parametrize("operation", ["move", "copy"])
def test_a_value_can_not_be_moved(operation: str) -> None:
    patch = [{"op": operation, "from": "/a", "path": "/b"}]
    with pytest.raises(InvalidDigitalTwinPatch, match=operation):
        digital_twins.desired_changes(make_row({"a": 1}, {}), patch)


@pytest.mark.parametrize(
    "step",
    [
        put("/a", 1),
        remove("/a"),
        put("/t/a", 1),
        remove("/t/a"),
        remove("/a/b"),
        put("/t/x/a", 1),
        add("/t/x/a", 1),
        add("/$metadata", {}),
        add("/$metadata/x", 1),
        put("/$dtId", "x"),
        add("/t/$metadata", {}),
        add("/__t", "c"),
        add("/_a", 1),
        add("/a_", 1),
        add("/1a", 1),
        add("/a-b", 1),
        add("/a.b", 1),
        add("/ä", 1),
        add("/a~0b", 1),
        add("/t/", 1),
        add("/" + "a" * 65, 1),
    ],
)
def test_a_path_that_is_not_there_or_can_not_be_is_refused(step: JsonObject) -> None:
    row = make_row({"t": component(x={"a": 1})}, {})
    with pytest.raises(InvalidDigitalTwinPatchPath) as refusal:
        digital_twins.desired_changes(row, [step])
    assert step["path"].replace("~0", "~") in refusal.value.text


@pytest.mark.parametrize("name", ["a", "A9", "a_b", "a" * 64, "a1"])
def test_a_name_of_dtdl_is_taken(name: str) -> None:
    assert desired_after({}, {}, add(f"/{name}", 1)) == {name: 1}


FIVE_DEEP = {"a": {"a": {"a": {"a": {"a": 1}}}}}


@pytest.mark.parametrize("value", [0, -1.5, True, "", "text", {}, {"a": {}}, FIVE_DEEP])
def test_a_value_that_a_property_can_have_is_taken(value: object) -> None:
    assert desired_after({}, {}, add("/p", value)) == {"p": value}
    assert desired_after({}, {}, add("/t/p", value)) == {"t": component(p=value)}


@pytest.mark.parametrize(
    "value",
    [None, [], [1], {"a": None}, {"a": [1]}, {"a": FIVE_DEEP}, {"a b": 1}, {"a": {"$x": 1}}],
)
@pytest.mark.parametrize("path", ["/p", "/t/p", "/t"])
def test_a_value_that_no_property_can_have_is_refused(path: str, value: object) -> None:
    step = add(path, {"p": value, "$metadata": {}} if path == "/t" else value)
    with pytest.raises(ArgumentInvalid) as refusal:
        digital_twins.desired_changes(make_row({}, {}), [step])
    assert refusal.value.text == NOT_CONFORMANT.format("p")


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (add("/t", {"x": 1}), "t"),
        (add("/u", {"x": 1}), "u"),
        (put("/t", 1), "t"),
        (add("/p", {"x": 1, "$metadata": {}}), "p"),
        (add("/q", {"x": 1, "$metadata": {}}), "q"),
        (add("/p/x", 1), "p"),
        (remove("/p/x"), "p"),
        (add("/q/x", 1), "q"),
        (add("/t", {"a b": 1, "$metadata": {}}), "a b"),
    ],
)
def test_a_component_is_no_property_and_the_reverse(step: JsonObject, name: str) -> None:
    row = make_row({"t": component(x=1), "p": {"x": 1}}, {"u": component(x=1), "q": {"x": 1}})
    with pytest.raises(ArgumentInvalid) as refusal:
        digital_twins.desired_changes(row, [step])
    assert refusal.value.text == NOT_CONFORMANT.format(name)


@pytest.mark.parametrize("metadata", [None, 1, [], {"x": 1}])
def test_the_mark_of_a_component_is_an_empty_object(metadata: object) -> None:
    step = add("/t", {"x": 1, "$metadata": metadata})
    with pytest.raises(InvalidDigitalTwinPatch, match=r"\$metadata"):
        digital_twins.desired_changes(make_row({}, {}), [step])


# --- properties of patches

names = st.sampled_from(["a", "b", "t", "u"])
scalars = st.one_of(st.integers(0, 9), st.booleans(), st.text(max_size=3))
objects = st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 3), max_size=2)
values = st.one_of(scalars, objects)
members = st.dictionaries(st.sampled_from(["x", "y", "z"]), values, max_size=3)
sections = st.dictionaries(
    names, st.one_of(values, st.builds(lambda made: component(**made), members)), max_size=4
)
paths = st.one_of(
    st.builds("/{}".format, names),
    st.builds("/{}/{}".format, names, st.sampled_from(["x", "y", "z"])),
)
steps = st.one_of(
    st.builds(
        add,
        paths,
        st.one_of(values, st.builds(lambda made: {**made, "$metadata": {}}, members)),
    ),
    st.builds(put, paths, values),
    st.builds(remove, paths),
)


def one_by_one(row: TwinRow, patch: list[JsonObject]) -> TwinRow | type[HubError]:
    """Apply the operations each as a patch of its own; gives the error where one fails."""
    for step in patch:
        try:
            row = write(row, [step])
        except HubError as error:
            return type(error)
    return row


@given(desired=sections, reported=sections, patch=st.lists(steps, max_size=6))
def test_a_patch_does_what_its_operations_do_one_after_the_other(
    desired: JsonObject, reported: JsonObject, patch: list[JsonObject]
) -> None:
    row = make_row(desired, reported)
    expected = one_by_one(row, patch)
    if isinstance(expected, TwinRow):
        assert write(row, patch).twin.desired.values == expected.twin.desired.values
    else:
        with pytest.raises(expected):
            write(row, patch)


@given(desired=sections, reported=sections, path=paths, value=values)
def test_what_is_added_is_desired_then_and_nothing_else_changes(
    desired: JsonObject, reported: JsonObject, path: str, value: object
) -> None:
    row = make_row(desired, reported)
    try:
        after = write(row, [add(path, value)]).twin.desired.values
    except (ArgumentInvalid, InvalidDigitalTwinPatchPath):
        return
    name, _, prop = path[1:].partition("/")
    assert (after[name][prop] if prop else after[name]) == value
    assert {key: after[key] for key in after if key != name} == {
        key: desired[key] for key in desired if key != name
    }
    old = desired.get(name)
    if prop and isinstance(old, dict):
        assert {key: after[name][key] for key in old if key not in (prop, "__t")} == {
            key: old[key] for key in old if key not in (prop, "__t")
        }


# --- in a hub


@pytest.fixture
def hub() -> IotHub:
    """A hub with one device, without properties."""
    hub = IotHub(store=MemoryStore(), policies=(), hosts=(), clock=lambda: NOW)
    hub.registry.put_device(KEY.device_id, {"deviceId": KEY.device_id}, UNCONDITIONAL)
    return hub


def test_an_update_is_one_write_of_the_twin(hub: IotHub) -> None:
    before = hub.registry.get_twin(KEY)
    patch = [add("/fan", 1), add("/t/x", 2), remove("/fan")]
    etag = hub.digital_twins.update(KEY.device_id, patch, IfMatch(before["etag"]))
    after = hub.registry.get_twin(KEY)
    assert (before["etag"], etag, after["etag"]) == ("AAAAAAAAAAE=", "AAAAAAAAAAI=", etag)
    assert after["properties"]["desired"]["$version"] == 2
    assert after["properties"]["desired"]["t"] == component(x=2)
    document, read_etag = hub.digital_twins.get(KEY.device_id)
    assert read_etag == etag
    assert document["t"]["$metadata"]["x"] == {"desiredValue": 2, "desiredVersion": 2}


def test_an_update_that_fails_writes_nothing(hub: IotHub) -> None:
    before = hub.registry.get_twin(KEY)
    update = hub.digital_twins.update
    with pytest.raises(PreconditionFailed):
        update(KEY.device_id, [add("/fan", 1)], IfMatch("AAAAAAAAAAk="))
    with pytest.raises(InvalidDigitalTwinPatchPath):
        update(KEY.device_id, [add("/fan", 1), remove("/pump")], UNCONDITIONAL)
    with pytest.raises(ArgumentInvalid, match="exceeds maximum"):
        update(KEY.device_id, [add(f"/p{n}", "x" * 4000) for n in range(9)], UNCONDITIONAL)
    with pytest.raises(DeviceNotFound):
        update("nobody", [add("/fan", 1)], UNCONDITIONAL)
    with pytest.raises(DeviceNotFound):
        hub.digital_twins.get("nobody")
    assert hub.registry.get_twin(KEY) == before


def test_an_empty_patch_writes_nothing_but_checks_the_etag(hub: IotHub) -> None:
    assert hub.digital_twins.update(KEY.device_id, [], IfMatch("*")) == "AAAAAAAAAAE="
    with pytest.raises(PreconditionFailed):
        hub.digital_twins.update(KEY.device_id, [], IfMatch("AAAAAAAAAAk="))


# --- commands


@pytest.mark.parametrize(
    ("name", "part", "method"),
    [("reboot", None, "reboot"), ("getReport", "thermostat1", "thermostat1*getReport")],
)
def test_a_command_is_a_direct_method(name: str, part: str | None, method: str) -> None:
    call = digital_twins.command(name, part, {"a": 1}, {"responseTimeoutInSeconds": 5})
    assert call == {"methodName": method, "payload": {"a": 1}, "responseTimeoutInSeconds": 5}
