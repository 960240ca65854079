from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from emulator.hub.core import errors
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import dumps, loads
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub
from emulator.hub.identities import identity as identities
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.links import Presence
from emulator.hub.registry import digital_twins
from emulator.hub.registry.documents import TwinRow
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes
from tests.clock import START
from tests.hub.fakes import ANY, CREATE, STALE, CountingStore, put

REPORTED = START + timedelta(seconds=1)
LATER = START + timedelta(seconds=2)
KEY = IdentityKey("sample-device")

JsonObject = dict[str, Any]


def make_row(desired: JsonObject, reported: JsonObject, model_id: str = "") -> TwinRow:
    """Make a device whose twin each side has written once, the device a second later."""
    identity = identities.create(KEY, {"deviceId": KEY.device_id}, START)
    twin = writes.patch(twins.create(KEY, START), {"properties": {"desired": desired}}, START).twin
    twin = writes.report(twin, reported, REPORTED, None).twin
    return TwinRow(replace(identity, model_id=model_id), twin, Presence(identity.key), 0)


def view(desired: JsonObject, reported: JsonObject) -> JsonObject:
    return digital_twins.document(make_row(desired, reported))


def write(row: TwinRow, patch: object) -> TwinRow:
    """Apply a JSON patch, as the hub does."""
    body = {"properties": {"desired": digital_twins.desired_changes(row, patch)}}
    return replace(row, twin=writes.patch(row.twin, body, LATER).twin)


def desired_after(desired: JsonObject, reported: JsonObject, *patch: object) -> JsonObject:
    return write(make_row(desired, reported), list(patch)).twin.desired.values


def refusal(error: type[errors.HubError], row: TwinRow, patch: object) -> str:
    """Return the text with which a patch is refused."""
    with pytest.raises(error) as refused:
        digital_twins.desired_changes(row, patch)
    return refused.value.text


def add(path: str, value: object) -> JsonObject:
    return {"op": "add", "path": path, "value": value}


def set_to(path: str, value: object) -> JsonObject:
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
    reported = {"thermostat1": thermostat, "serialNumber": "alwinexlepaho8329"}
    model_id = "dtmi:com:example:TemperatureController;1"
    at = iso(REPORTED)
    expected = {
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
    # As text, which also tells the order of the members.
    assert dumps(digital_twins.document(make_row(desired, reported, model_id))) == dumps(expected)


PROPERTIES = [
    # desired, reported; the value in the view, and its metadata without the time of a report
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


def test_the_desired_or_the_reported_side_marks_a_component() -> None:
    for desired, reported in (
        ({"t": component(a=1)}, {"t": {"b": 2}}),
        ({"t": {"a": 1}}, {"t": component(b=2)}),
    ):
        thermostat = view(desired, reported)["t"]
        assert thermostat["b"] == 2
        assert thermostat["$metadata"]["a"] == {"desiredValue": 1, "desiredVersion": 2}
        assert "__t" not in thermostat
    assert view({}, {"p": {"__t": "d", "a": 1}})["p"] == {"__t": "d", "a": 1}  # a property


def test_numbers_stay_as_they_are_written() -> None:
    document = view(loads('{"p": 1.50}'), loads('{"p": {"value": 1e2, "ac": 200, "av": 1}}'))
    assert b'"p":1e2' in dumps(document)
    assert b'"desiredValue":1.50' in dumps(document)


# --- what a patch writes

WRITES = [
    # desired, reported, the patch; desired after it
    ({}, {}, [add("/fan", 2)], {"fan": 2}),
    ({"fan": 1, "x": 1}, {}, [add("/fan", 2)], {"fan": 2, "x": 1}),
    ({"fan": 1}, {}, [set_to("/fan", 2)], {"fan": 2}),
    ({}, {"fan": 1}, [set_to("/fan", 2)], {"fan": 2}),
    ({"fan": 1, "x": 1}, {}, [remove("/fan")], {"x": 1}),
    ({"x": 1}, {"fan": 1}, [remove("/fan")], {"x": 1}),
    # An object is replaced, not merged.
    ({"p": {"a": 1, "b": {"c": 1}}}, {}, [add("/p", {"b": {"d": 2}})], {"p": {"b": {"d": 2}}}),
    ({"p": {"a": 1}}, {}, [add("/p", {})], {"p": {}}),
    ({"p": {"a": 1}}, {}, [add("/p", 5)], {"p": 5}),
    ({"p": 5}, {}, [add("/p", {"a": 1})], {"p": {"a": 1}}),
    # A property of a component.
    ({}, {}, [add("/t/x", 1)], {"t": component(x=1)}),
    ({}, {"t": component(x=3)}, [set_to("/t/x", 1)], {"t": component(x=1)}),
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
    ({"t": component(y=1)}, {}, [set_to("/t", {"$metadata": {}})], {"t": component()}),
    ({}, {"t": component(y=1)}, [set_to("/t", {"x": 1, "$metadata": {}})], {"t": component(x=1)}),
    ({"t": component(y=1), "x": 1}, {}, [remove("/t")], {"x": 1}),
    # One operation sees what the one before it did.
    ({}, {}, [add("/a", 1), set_to("/a", 2)], {"a": 2}),
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


def test_a_patch_gives_a_new_version_to_what_it_writes_and_to_nothing_else() -> None:
    desired = {"fan": 1, "pump": 1, "t": component(x=1, y=1)}
    row = write(make_row(desired, {}), [add("/fan", 1), add("/t/x", 1)])
    document = digital_twins.document(row)
    root, thermostat = document["$metadata"], document["t"]["$metadata"]
    # The version counts though the values are what they were: a write is a write.
    assert [root["fan"]["desiredVersion"], thermostat["x"]["desiredVersion"]] == [3, 3]
    assert [root["pump"]["desiredVersion"], thermostat["y"]["desiredVersion"]] == [2, 2]


def test_a_removal_of_a_reported_value_writes_nothing() -> None:
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
        *(check("/fan", 3), check("/fan", 3.0), check("/t/x", {"a": [1, 2]})),
        *(check("/$metadata/$model", "dtmi:x;1"), check("/$metadata/fan/desiredValue", 2)),
        check("/$dtId", "sample-device"),
    ],
)
def test_a_patch_whose_test_succeeds_is_applied(step: JsonObject) -> None:
    row = make_row({"fan": 2}, {"fan": acknowledge(3, 1), "t": component(x={"a": [1, 2]})})
    row = replace(row, identity=replace(row.identity, model_id="dtmi:x;1"))
    assert digital_twins.desired_changes(row, [step, add("/fan", 4)]) == {"fan": 4}


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (check("/fan", 2), errors.InvalidDigitalTwinPatch),
        (check("/fan", "3"), errors.InvalidDigitalTwinPatch),
        (check("/on", 1), errors.InvalidDigitalTwinPatch),
        (check("/t/x", {"a": [1]}), errors.InvalidDigitalTwinPatch),
        (check("/t/x", {"a": [1, 2], "b": 1}), errors.InvalidDigitalTwinPatch),
        (check("/t/x", {"b": [1, 2]}), errors.InvalidDigitalTwinPatch),
        (check("/t/x", None), errors.InvalidDigitalTwinPatch),
        (check("/nothing", 1), errors.InvalidDigitalTwinPatchPath),
        (check("/fan/x", 1), errors.InvalidDigitalTwinPatchPath),
        (check("/t/x/a/0", 1), errors.InvalidDigitalTwinPatchPath),
    ],
)
def test_a_patch_whose_test_fails_is_refused(
    step: JsonObject, error: type[errors.HubError]
) -> None:
    row = make_row({}, {"fan": 3, "on": True, "t": component(x={"a": [1, 2]})})
    with pytest.raises(error):
        digital_twins.desired_changes(row, [add("/fan", 4), step])


# --- what is refused

NOT_CONFORMANT = (
    "'{}' exists within the device twin and is not digital twin conformant property. "
    "Please refer to aka.ms/dtpatch to update this to be conformant."
)


@pytest.mark.parametrize(
    "patch",
    [
        *(None, {}, "add", {"op": "add", "path": "/a", "value": 1}, ["add"], [None], [{}]),
        *([{"path": "/a", "value": 1}], [{"op": "put", "path": "/a", "value": 1}]),
        *([{"op": "ADD", "path": "/a", "value": 1}], [{"op": ["add"], "path": "/a", "value": 1}]),
        *([{"op": "add", "path": "/a"}], [{"op": "replace", "path": "/a"}]),
        *([{"op": "test", "path": "/a"}], [{"op": "add", "path": 7, "value": 1}]),
        [add("/a", 1), {}],
        [add("/a", 1)] * 1_001,
    ],
    ids=lambda patch: repr(patch)[:60],
)
def test_an_invalid_json_patch_is_refused(patch: object) -> None:
    assert refusal(errors.InvalidDigitalTwinJsonPatch, make_row({}, {}), patch)


@pytest.mark.parametrize("path", [None, "", "a", "targetTemperature", "/", "//a", "a/b"])
def test_a_path_without_a_name_is_refused_with_the_text_of_the_service(path: str | None) -> None:
    patch = [{"op": "add", "path": path, "value": 1}]
    text = refusal(errors.InvalidDigitalTwinPatch, make_row({}, {}), patch)
    assert text == (
        f"Error in path: {path}. 'path' string must be non-null, begin with '/' and have atleast "
        "the component name."
    )


@pytest.mark.parametrize(
    ("text", "step"),
    [
        *((f"'{op}'", {"op": op, "from": "/a", "path": "/b"}) for op in ("move", "copy")),
        *(("$metadata", add("/t", {"x": 1, "$metadata": m})) for m in (None, 1, [], {"x": 1})),
    ],
)
def test_an_operation_that_no_digital_twin_allows_is_refused(text: str, step: JsonObject) -> None:
    assert text in refusal(errors.InvalidDigitalTwinPatch, make_row({"a": 1}, {}), [step])


@pytest.mark.parametrize(
    "step",
    [
        *(set_to("/a", 1), remove("/a"), set_to("/t/a", 1), remove("/t/a"), remove("/a/b")),
        *(set_to("/t/x/a", 1), add("/t/x/a", 1), add("/$metadata", {}), add("/$metadata/x", 1)),
        *(set_to("/$dtId", "x"), add("/t/$metadata", {}), add("/__t", "c"), add("/_a", 1)),
        *(add("/a_", 1), add("/1a", 1), add("/a-b", 1), add("/a.b", 1), add("/ä", 1)),
        *(add("/a~0b", 1), add("/t/", 1), add("/" + "a" * 65, 1)),
    ],
)
def test_a_path_that_is_missing_or_invalid_is_refused(step: JsonObject) -> None:
    row = make_row({"t": component(x={"a": 1})}, {})
    text = refusal(errors.InvalidDigitalTwinPatchPath, row, [step])
    assert step["path"].replace("~0", "~") in text


@pytest.mark.parametrize("name", ["a", "A9", "a_b", "a" * 64, "a1"])
def test_a_name_of_dtdl_is_accepted(name: str) -> None:
    assert desired_after({}, {}, add(f"/{name}", 1)) == {name: 1}


FIVE_DEEP = {"a": {"a": {"a": {"a": {"a": 1}}}}}


@pytest.mark.parametrize("value", [0, -1.5, True, "", "text", {}, {"a": {}}, FIVE_DEEP])
def test_a_value_that_a_property_can_have_is_accepted(value: object) -> None:
    assert desired_after({}, {}, add("/p", value)) == {"p": value}
    assert desired_after({}, {}, add("/t/p", value)) == {"t": component(p=value)}


@pytest.mark.parametrize(
    "value",
    [None, [], [1], {"a": None}, {"a": [1]}, {"a": FIVE_DEEP}, {"a b": 1}, {"a": {"$x": 1}}],
)
@pytest.mark.parametrize("path", ["/p", "/t/p", "/t"])
def test_a_value_that_no_property_can_have_is_refused(path: str, value: object) -> None:
    step = add(path, {"p": value, "$metadata": {}} if path == "/t" else value)
    assert refusal(errors.ArgumentInvalid, make_row({}, {}), [step]) == NOT_CONFORMANT.format("p")


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (add("/t", {"x": 1}), "t"),
        (add("/u", {"x": 1}), "u"),
        (set_to("/t", 1), "t"),
        (add("/p", {"x": 1, "$metadata": {}}), "p"),
        (add("/q", {"x": 1, "$metadata": {}}), "q"),
        (add("/p/x", 1), "p"),
        (remove("/p/x"), "p"),
        (add("/q/x", 1), "q"),
        (add("/t", {"a b": 1, "$metadata": {}}), "a b"),
    ],
)
def test_a_component_is_not_written_as_a_property_nor_the_reverse(
    step: JsonObject, name: str
) -> None:
    row = make_row({"t": component(x=1), "p": {"x": 1}}, {"u": component(x=1), "q": {"x": 1}})
    assert refusal(errors.ArgumentInvalid, row, [step]) == NOT_CONFORMANT.format(name)


# --- properties of patches

names = st.sampled_from(["a", "b", "t", "u"])
scalars = st.one_of(st.integers(0, 9), st.booleans(), st.text(max_size=3))
objects = st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 3), max_size=2)
values = st.one_of(scalars, objects)
members = st.dictionaries(st.sampled_from(["x", "y", "z"]), values, max_size=3)
components = members.map(lambda made: component(**made))
sections = st.dictionaries(names, values | components, max_size=4)
paths = st.builds("/{}".format, names) | st.builds(
    "/{}/{}".format, names, st.sampled_from(["x", "y", "z"])
)
steps = st.one_of(
    st.builds(add, paths, values | members.map(lambda made: {**made, "$metadata": {}})),
    st.builds(set_to, paths, values),
    st.builds(remove, paths),
)


def one_by_one(row: TwinRow, patch: list[JsonObject]) -> TwinRow | type[errors.HubError]:
    """Apply each operation as its own patch; return the error if one fails."""
    for step in patch:
        try:
            row = write(row, [step])
        except errors.HubError as error:
            return type(error)
    return row


@given(desired=sections, reported=sections, patch=st.lists(steps, max_size=6))
def test_a_patch_is_the_same_as_its_operations_one_after_the_other(
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
def test_an_added_value_is_desired_and_nothing_else_changes(
    desired: JsonObject, reported: JsonObject, path: str, value: object
) -> None:
    row = make_row(desired, reported)
    try:
        after = write(row, [add(path, value)]).twin.desired.values
    except (errors.ArgumentInvalid, errors.InvalidDigitalTwinPatchPath):
        return
    name, _, prop = path[1:].partition("/")
    assert (after[name][prop] if prop else after[name]) == value
    old, new = desired.get(name), after.pop(name)
    assert after == {key: desired[key] for key in desired if key != name}
    if prop and isinstance(old, dict):
        assert {**old, **component(), prop: None} == {**new, prop: None}


# --- in a hub


@pytest.fixture
def hub(hub: IotHub) -> IotHub:
    """A hub with one device, without properties."""
    put(hub, KEY)
    return hub


def test_an_update_is_one_write_of_the_twin(hub: IotHub) -> None:
    before = hub.twins.get(KEY)
    patch = [add("/fan", 1), add("/t/x", 2), remove("/fan")]
    etag = hub.digital_twins.update(KEY.device_id, patch, IfMatch(before["etag"]))
    after = hub.twins.get(KEY)
    assert (before["etag"], etag, after["etag"]) == ("AAAAAAAAAAE=", "AAAAAAAAAAI=", etag)
    assert after["properties"]["desired"]["$version"] == 2
    assert after["properties"]["desired"]["t"] == component(x=2)
    document, read_etag = hub.digital_twins.get(KEY.device_id)
    assert read_etag == etag
    assert document["t"]["$metadata"]["x"] == {"desiredValue": 2, "desiredVersion": 2}


def test_an_update_that_fails_writes_nothing(hub: IotHub, store: CountingStore) -> None:
    commits, update = store.commits, hub.digital_twins.update
    for patch in ([], [add("/fan", 1)]):  # an empty patch writes nothing, but its etag is checked
        with pytest.raises(errors.PreconditionFailed):
            update(KEY.device_id, patch, STALE)
    assert update(KEY.device_id, [], ANY) == "AAAAAAAAAAE="
    with pytest.raises(errors.InvalidDigitalTwinPatchPath):
        update(KEY.device_id, [add("/fan", 1), remove("/pump")], CREATE)
    with pytest.raises(errors.DeviceModelMaxPropertiesExceeded, match="less than 32768 bytes"):
        update(KEY.device_id, [add(f"/p{n}", "x" * 4000) for n in range(9)], CREATE)
    with pytest.raises(errors.DeviceNotFound):
        update("unknown", [add("/fan", 1)], CREATE)
    with pytest.raises(errors.DeviceNotFound):
        hub.digital_twins.get("unknown")
    assert store.commits == commits


# --- commands


@pytest.mark.parametrize(
    ("name", "part", "method"),
    [("reboot", None, "reboot"), ("getReport", "thermostat1", "thermostat1*getReport")],
)
def test_a_command_is_a_direct_method(name: str, part: str | None, method: str) -> None:
    call = digital_twins.command(name, part, {"a": 1}, {"responseTimeoutInSeconds": 5})
    assert call == {"methodName": method, "payload": {"a": 1}, "responseTimeoutInSeconds": 5}
