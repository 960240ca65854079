"""Events that are not telemetry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from emulator.hub.core.json import loads
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.messages.event import Event
from emulator.hub.messages.message import Message
from emulator.hub.notifications.sources import SOURCES
from tests.clock import START
from tests.hub.fakes import ANY, DEVICE, MODULE, FakeLink, connect, make_hub, put

NOW = iso(START)
CLOUD_TIME = NOW.removesuffix("Z") + "+00:00"


def hub_with(*sources: str) -> IotHub:
    return make_hub(event_sources=sources, hosts=("contoso.azure-devices.net", "localhost"))


def events(hub: IotHub) -> list[Event]:
    return hub.events.read()


def body(event: Event) -> Any:
    return loads(event.message.body)


def marks(event: Event) -> dict[str, Any]:
    """Return what all events have, without the ids that are drawn."""
    system = dict(event.message.system)
    assert system.pop("correlation-id")
    return {**system, **event.message.properties}


def properties(operation: str, schema: str, **ids: str) -> dict[str, Any]:
    return {
        "user-id": "contoso",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "hubName": "contoso",
        **ids,
        "operationTimestamp": NOW,
        "opType": operation,
        "iothub-message-schema": schema,
    }


def test_a_hub_has_no_such_events_unless_it_is_asked() -> None:
    hub = make_hub()
    put(hub, DEVICE)
    connect(hub, FakeLink())
    hub.twins.patch(DEVICE, {"tags": {"a": 1}}, ANY)
    assert events(hub) == []


def test_the_annotations_have_no_sender() -> None:
    hub = hub_with(*SOURCES)
    put(hub, DEVICE)
    (event,) = events(hub)
    assert list(event.annotations) == [
        *("iothub-connection-device-id", "iothub-message-source", "iothub-enqueuedtime"),
    ]
    assert event.annotations["iothub-message-source"] == "deviceLifecycleEvents"


# --- twins


def test_a_patch_is_an_event_with_what_it_wrote() -> None:
    hub = hub_with("twinChangeEvents")
    put(hub, DEVICE)
    hub.twins.patch(DEVICE, {"properties": {"desired": {"old": 1, "other": 2}}}, ANY)
    patch = {"tags": {"floor": 3}, "properties": {"desired": {"a": {"b": 1.50}, "old": None}}}
    hub.twins.patch(DEVICE, patch, ANY)
    event = events(hub)[-1]
    assert marks(event) == properties("updateTwin", "twinChangeNotification", deviceId="d")
    mark = {"$lastUpdated": NOW, "$lastUpdatedVersion": 3}
    assert body(event) == {
        "version": 4,
        "tags": {"floor": 3},
        "properties": {
            "desired": {
                "a": {"b": 1.5},
                "old": None,
                "$metadata": {**mark, "a": {**mark, "b": mark}},
                "$version": 3,
            }
        },
    }


def test_a_report_is_an_event_of_reported_properties() -> None:
    hub = hub_with("twinChangeEvents")
    put(hub, DEVICE)
    put(hub, MODULE)
    hub.twins.report(MODULE, {"a": {"b": 1}, "list": [1]}, None)
    (event,) = events(hub)
    ids = {"deviceId": "d", "moduleId": "m"}
    assert marks(event) == properties("updateTwin", "twinChangeNotification", **ids)
    assert event.annotations["iothub-connection-module-id"] == "m"
    mark = {"$lastUpdated": NOW}
    assert body(event) == {
        "version": 3,
        "properties": {
            "reported": {
                "a": {"b": 1},
                "list": [1],
                "$metadata": {**mark, "a": {**mark, "b": mark}, "list": mark},
                "$version": 2,
            }
        },
    }


def test_a_replace_is_an_event_with_the_whole_twin() -> None:
    hub = hub_with("twinChangeEvents")
    put(hub, DEVICE)
    hub.twins.replace(DEVICE, {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}}, ANY)
    (event,) = events(hub)
    assert marks(event)["opType"] == "replaceTwin"
    found = body(event)
    assert {name: found[name] for name in ("deviceId", "etag", "version", "tags")} == {
        "deviceId": "d",
        "etag": "AAAAAAAAAAI=",
        "version": 3,
        "tags": {"a": 1},
    }
    assert found["properties"]["desired"]["b"] == 2
    assert found["properties"]["reported"]["$version"] == 1


def test_a_write_of_the_same_value_is_an_event() -> None:
    hub = hub_with("twinChangeEvents")
    put(hub, DEVICE)
    for _ in range(2):
        hub.twins.report(DEVICE, {"a": 1}, None)
    assert [body(each)["version"] for each in events(hub)] == [3, 4]


def test_numbers_stay_as_they_were_written() -> None:
    hub = hub_with("twinChangeEvents")
    put(hub, DEVICE)
    hub.twins.report(DEVICE, loads('{"a": 1.50}'), None)
    assert b'"a":1.50' in events(hub)[0].message.body


# --- identities


@pytest.mark.parametrize(("key", "ids"), [(DEVICE, {"deviceId": "d"}), (MODULE, {"moduleId": "m"})])
def test_a_creation_and_a_deletion_are_events(key: IdentityKey, ids: dict[str, str]) -> None:
    hub = hub_with("deviceLifecycleEvents")
    put(hub, DEVICE)
    if key == MODULE:
        put(hub, MODULE)
    hub.identities.remove(key, ANY)
    created, deleted = events(hub)[-2:]
    ids = {"deviceId": "d"} | ids
    schema = "deviceLifecycleNotification"
    assert marks(created) == properties("createDeviceIdentity", schema, **ids)
    assert marks(deleted) == properties("deleteDeviceIdentity", schema, **ids)
    date = "0001-01-01T00:00:00Z" if key == MODULE else NOW
    section = {"$metadata": {"$lastUpdated": date}, "$version": 1}
    assert (
        body(created)
        == body(deleted)
        == {
            **ids,
            "etag": "AAAAAAAAAAE=",
            "version": 2,
            "properties": {"desired": section, "reported": section},
        }
    )


def test_the_modules_of_a_deleted_device_are_deleted_too() -> None:
    hub = hub_with("deviceLifecycleEvents")
    put(hub, DEVICE, capabilities={"iotEdge": True})
    put(hub, MODULE)
    hub.identities.remove(DEVICE, ANY)
    deleted = [each for each in events(hub) if marks(each)["opType"] == "deleteDeviceIdentity"]
    assert [body(each).get("moduleId") for each in deleted] == [None, "$edgeAgent", "$edgeHub", "m"]


# --- connections


def test_a_connection_and_its_end_are_events_with_growing_numbers() -> None:
    hub = hub_with("deviceConnectionStateEvents")
    put(hub, DEVICE)
    put(hub, MODULE)
    link = connect(hub, FakeLink())
    connect(hub, FakeLink(MODULE))
    hub.links.disconnect(link)
    found = events(hub)
    schema = "deviceConnectionStateNotification"
    ids = {"deviceId": "d", "moduleId": "m"}
    assert [marks(each) for each in found] == [
        properties("deviceConnected", schema, deviceId="d"),
        properties("deviceConnected", schema, **ids),
        properties("deviceDisconnected", schema, deviceId="d"),
    ]
    numbers = [body(each)["sequenceNumber"] for each in found]
    assert numbers == sorted(set(numbers))
    assert [(len(each), each[0]) for each in numbers] == [(64, "0")] * 3


def test_events_are_in_order_with_telemetry() -> None:
    hub = hub_with(*SOURCES)
    put(hub, DEVICE)
    link = connect(hub, FakeLink())
    sender = Admission(DEVICE, 1e12, "1", "{}")
    hub.telemetry.sender(sender).ingest([Message(b"1")])
    hub.twins.report(DEVICE, {"a": 1}, None)
    hub.telemetry.sender(sender).ingest([Message(b"2")])
    hub.links.disconnect(link)
    assert [each.origin.source for each in hub.events.partition_of("d").read(0, 99)] == [
        *("deviceLifecycleEvents", "deviceConnectionStateEvents", "Telemetry"),
        *("twinChangeEvents", "Telemetry", "deviceConnectionStateEvents"),
    ]


# --- jobs


async def test_a_job_is_an_event_when_it_starts_and_when_it_ends() -> None:
    hub = hub_with("deviceJobLifecycleEvents")
    put(hub, DEVICE)
    job = {
        "jobId": "job1",
        "type": "scheduleUpdateTwin",
        "queryCondition": "*",
        "updateTwin": {"etag": "*", "tags": {"a": 1}},
    }
    hub.jobs.create("job1", job)
    async with asyncio.timeout(5):
        await hub.events.wait(1, seconds=5)
    started, ended = events(hub)
    assert marks(started) == properties("jobStarted", "deviceJobLifecycleNotification")
    assert marks(ended)["opType"] == "jobEnded"
    about = {"jobId": "job1", "type": "scheduleUpdateTwin"}
    assert [body(started), body(ended)] == [
        {**about, "status": "running"},
        {**about, "status": "completed"},
    ]
    assert started.device_id is None
    assert "iothub-connection-device-id" not in started.annotations
    assert started.document()["deviceId"] is None


# --- digital twins


def with_model() -> IotHub:
    hub = hub_with("digitalTwinChangeEvents")
    put(hub, DEVICE)
    connect(hub, FakeLink(), model_id="dtmi:com:example:Thermostat;1")
    return hub


def test_a_new_model_is_an_event() -> None:
    (event,) = events(with_model())
    assert marks(event) == properties(
        "updateTwin", "digitalTwinChangeNotification", deviceId="d"
    ) | {"content-type": "application/json-patch+json", "operationTimestamp": CLOUD_TIME}
    assert body(event) == [
        {"op": "replace", "path": "/$metadata/$model", "value": "dtmi:com:example:Thermostat;1"}
    ]


def test_the_events_of_reported_properties_are_json_patches() -> None:
    hub = with_model()
    hub.twins.report(DEVICE, {"temperature": 20}, None)
    hub.twins.report(DEVICE, {"temperature": 20, "a/b": 1}, None)
    hub.clock.advance(1)  # type: ignore[attr-defined]
    hub.twins.report(DEVICE, {"temperature": 21, "a/b": None}, None)
    later = iso(hub.clock.now())
    added, second, third = map(body, events(hub)[1:])
    assert added == [
        {"op": "add", "path": "/$metadata/temperature", "value": {"lastUpdateTime": NOW}},
        {"op": "add", "path": "/temperature", "value": 20},
    ]
    assert second == [
        {"op": "add", "path": "/$metadata/a~1b", "value": {"lastUpdateTime": NOW}},
        {"op": "add", "path": "/a~1b", "value": 1},
    ]
    assert third == [
        {"op": "replace", "path": "/$metadata/temperature/lastUpdateTime", "value": later},
        {"op": "replace", "path": "/temperature", "value": 21},
        {"op": "remove", "path": "/$metadata/a~1b"},
        {"op": "remove", "path": "/a~1b"},
    ]


def test_a_new_component_is_one_operation_and_then_it_has_properties() -> None:
    hub = with_model()
    hub.twins.report(DEVICE, {"thermostat1": {"__t": "c", "temperature": 20}}, None)
    hub.clock.advance(1)  # type: ignore[attr-defined]
    hub.twins.report(DEVICE, {"thermostat1": {"__t": "c", "temperature": 21}}, None)
    first, second = map(body, events(hub)[1:])
    assert first == [
        {
            "op": "add",
            "path": "/thermostat1",
            "value": {"temperature": 20, "$metadata": {"temperature": {"lastUpdateTime": NOW}}},
        }
    ]
    later = iso(hub.clock.now())
    path = "/thermostat1/$metadata/temperature/lastUpdateTime"
    assert second == [
        {"op": "replace", "path": path, "value": later},
        {"op": "replace", "path": "/thermostat1/temperature", "value": 21},
    ]


def test_a_desired_property_changes_the_metadata() -> None:
    hub = with_model()
    hub.twins.report(DEVICE, {"target": 1}, None)
    hub.twins.patch(DEVICE, {"properties": {"desired": {"target": 2}}}, ANY)
    assert body(events(hub)[-1]) == [
        {"op": "add", "path": "/$metadata/target/desiredValue", "value": 2},
        {"op": "add", "path": "/$metadata/target/desiredVersion", "value": 2},
    ]


COMPONENT, OTHER = {"__t": "c", "x": 1}, {"__t": "c", "y": {"z": [1]}}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        *((before, after) for before in (1, "a", {"k": 1}) for after in (True, 2, {"k": 2}, None)),
        *((before, after) for before in (COMPONENT, OTHER) for after in (5, {"k": 1}, None)),
        *((before, after) for before in (5, {"k": 1}, None) for after in (COMPONENT, OTHER)),
        (COMPONENT, {**COMPONENT, "x": True}),
    ],
)
def test_the_patch_makes_the_new_twin_of_the_old_one(first: Any, then: Any) -> None:
    hub = with_model()
    hub.twins.report(DEVICE, {"p": first, "q~/": 1}, None)
    before = hub.digital_twins.get("d")[0]
    start = len(events(hub))
    hub.twins.report(DEVICE, {"p": None}, None)
    hub.twins.report(DEVICE, {"p": then}, None)
    for event in events(hub)[start:]:
        patch(before, body(event))
    assert before == hub.digital_twins.get("d")[0]


def patch(document: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    """Apply a JSON patch (RFC 6902)."""
    for step in steps:
        *path, last = [
            part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]
        ]
        place = document
        for name in path:
            place = place[name]
        assert (last in place) is (step["op"] != "add"), step
        if step["op"] == "remove":
            del place[last]
        else:
            place[last] = step["value"]


@pytest.mark.parametrize(("first", "then"), [(COMPONENT, 5), (5, COMPONENT), (COMPONENT, {"k": 1})])
def test_a_property_that_becomes_a_component_in_one_report_is_an_event(
    first: Any, then: Any
) -> None:
    hub = with_model()
    hub.twins.report(DEVICE, {"p": first}, None)
    before = hub.digital_twins.get("d")[0]
    hub.twins.replace(DEVICE, {"properties": {"desired": {"p": then}}}, ANY)
    hub.twins.report(DEVICE, {"p": then}, None)
    assert events(hub)[-1].message.body != b"[]"
    assert len(events(hub)) >= 3
    assert before != hub.digital_twins.get("d")[0]


def test_a_desired_property_that_becomes_a_boolean_is_in_the_patch() -> None:
    hub = with_model()
    for value in (1, True):
        hub.twins.patch(DEVICE, {"properties": {"desired": {"p": value}}}, ANY)
    steps = {step["path"]: step["value"] for step in body(events(hub)[-1])}
    assert steps["/$metadata/p/desiredValue"] is True


def test_a_device_without_a_model_and_a_module_have_no_such_events() -> None:
    hub = hub_with("digitalTwinChangeEvents")
    put(hub, DEVICE)
    put(hub, MODULE)
    for key in (DEVICE, MODULE):
        hub.twins.report(key, {"a": 1}, None)
    hub.twins.patch(DEVICE, {"tags": {"a": 1}}, ANY)
    assert events(hub) == []
