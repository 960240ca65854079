"""The service over twins. How a write changes a twin is in `tests/hub/twins`."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from emulator.hub.core import errors
from emulator.hub.core.etags import IfMatch
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.twins.twin import TwinChanged
from tests.clock import ManualClock, eventually
from tests.hub import fakes
from tests.hub.fakes import ANY, CREATE, DEVICE, MODULE, STALE, FakeLink, connect, put

AGENT = IdentityKey("d", "$edgeAgent")
BODY = {"tags": {"t": 1}, "properties": {"desired": {"b": 2}}}
Write = Callable[[IotHub, IdentityKey, Any, IfMatch], Any]
WRITES: list[Write] = [
    lambda hub, *arguments: hub.twins.patch(*arguments),
    lambda hub, *arguments: hub.twins.replace(*arguments),
]


@pytest.fixture
def hub(hub: IotHub) -> IotHub:
    """A hub with an IoT Edge device and its module `m`."""
    put(hub, DEVICE, capabilities={"iotEdge": True})
    put(hub, MODULE)
    return hub


@pytest.mark.parametrize(
    ("write", "sent"), [(WRITES[0], {"b": 2}), (WRITES[1], {"b": 2, "old": None})]
)
@pytest.mark.parametrize("key", [DEVICE, MODULE])
def test_a_write_is_stored_published_and_sent_to_its_device(
    hub: IotHub, clock: ManualClock, key: IdentityKey, write: Write, sent: dict[str, Any]
) -> None:
    write(hub, key, {"properties": {"desired": {"old": {"deep": 1}}}}, CREATE)
    link = connect(hub, FakeLink(key))
    other = connect(hub, FakeLink(MODULE if key == DEVICE else DEVICE))
    changes = fakes.record_changes(hub.feed)
    clock.advance(1)
    document = write(hub, key, BODY, IfMatch("AAAAAAAAAAI="))
    assert document == hub.twins.get(key)
    assert (document["etag"], document["tags"]) == ("AAAAAAAAAAM=", {"t": 1})
    assert document["properties"]["desired"]["$metadata"]["$lastUpdated"] == "2026-01-31T14:46:09Z"
    notice = {**sent, "$version": 3}
    assert (link.desired, other.desired) == ([notice], [])
    (change,) = changes
    assert (type(change), change.key, change.desired) == (TwinChanged, key, notice)
    kept = {"old": {"deep": 1}} if write is WRITES[0] else {}
    assert hub.twins.read_own(key)["desired"] == {**kept, "b": 2, "$version": 3}
    write(hub, key, {"tags": {}}, CREATE)
    assert len(link.desired) == (2 if write is WRITES[1] else 1)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(
    ("key", "body", "if_match", "error"),
    [
        (IdentityKey("unknown"), BODY, ANY, errors.DeviceNotFound),
        (IdentityKey("d", "unknown"), BODY, ANY, errors.DeviceNotFound),
        (AGENT, BODY, ANY, errors.SystemModuleModifyUnauthorizedAccess),
        (DEVICE, BODY, STALE, errors.PreconditionFailed),
        (DEVICE, {"tags": {"a.b": 1}}, ANY, errors.ArgumentInvalid),
    ],
)
def test_a_write_that_is_refused_changes_nothing(
    hub: IotHub,
    store: fakes.CountingStore,
    write: Write,
    key: IdentityKey,
    body: Any,
    if_match: IfMatch,
    error: type[errors.HubError],
) -> None:
    changes, commits = fakes.record_changes(hub.feed), store.commits
    with pytest.raises(error):
        write(hub, key, body, if_match)
    assert (changes, store.commits) == ([], commits)


async def test_every_write_of_a_service_counts_and_a_report_moves_no_etag(hub: IotHub) -> None:
    key = IdentityKey("counted")
    put(hub, key)
    twin = {"tags": {"t": 2}, "properties": {"desired": {"a": 2}}}
    item = {"id": key.device_id, **twin}
    path = {"op": "add", "path": "/b", "value": 1}
    content = {"deviceContent": {"properties.desired.c": 1}}
    configuration = {"id": "c", "content": content, "targetCondition": "deviceId = 'counted'"}
    job = {
        "type": "scheduleUpdateTwin",
        "updateTwin": {"etag": "*", "tags": {"job": 1}},
        "queryCondition": "deviceId = 'counted'",
    }
    hub.twins.patch(key, {"tags": {"t": 1}}, ANY)
    hub.twins.patch(key, {"tags": {"t": 1}}, ANY)  # the same again
    hub.twins.patch(key, {}, ANY)  # writes nothing
    hub.twins.replace(key, {}, ANY)
    assert _counters(hub, key) == (4, 5, 2, 1)
    hub.twins.report(key, {"r": 1}, None)
    hub.twins.report(key, {}, None)
    assert _counters(hub, key) == (4, 7, 2, 3)
    assert (await hub.bulk.run([{**item, "importMode": "updateTwin"}]))["isSuccessful"]
    assert _counters(hub, key) == (5, 8, 3, 3)
    assert (await hub.bulk.run([{**item, "importMode": "update"}]))["isSuccessful"]
    assert _counters(hub, key) == (6, 9, 4, 3)
    hub.digital_twins.update(key.device_id, [path], ANY)
    assert _counters(hub, key) == (7, 10, 5, 3)
    await hub.configurations.put("c", configuration, CREATE)
    assert _counters(hub, key) == (8, 11, 6, 3)
    put(hub, key, ANY)  # a write of the identity alone
    assert _counters(hub, key) == (8, 11, 6, 3)
    hub.jobs.create("j", job)
    await eventually(lambda: hub.jobs.get("j")["status"] == "completed")
    assert _counters(hub, key) == (9, 12, 6, 3)
    await hub.jobs.stop()


def _counters(hub: IotHub, key: IdentityKey) -> tuple[int, int, int, int]:
    """Return the number in the etag, the version of the twin, and those of its sections."""
    twin = hub.twins.get(key)
    desired, reported = (twin["properties"][name]["$version"] for name in ("desired", "reported"))
    return int.from_bytes(base64.b64decode(twin["etag"])), twin["version"], desired, reported


def test_the_hub_itself_can_write_the_twin_of_its_own_module(hub: IotHub) -> None:
    link = connect(hub, FakeLink(AGENT))
    hub.twins.write(AGENT, BODY)
    assert hub.twins.get(AGENT)["tags"] == {"t": 1}
    assert link.desired == [{"b": 2, "$version": 2}]


def test_a_report_is_stored_and_published_and_not_sent_back(hub: IotHub) -> None:
    changes, link = fakes.record_changes(hub.feed, TwinChanged), connect(hub, FakeLink())
    assert hub.twins.report(DEVICE, {"r": 1}, None) == 2
    assert hub.twins.report(DEVICE, {"s": 1}, 2) == 3
    with pytest.raises(errors.PreconditionFailed):
        hub.twins.report(DEVICE, {"r": 2}, 2)
    with pytest.raises(errors.DeviceNotFound):
        hub.twins.report(IdentityKey("unknown"), {"r": 1}, None)
    assert hub.twins.read_own(DEVICE)["reported"] == {"r": 1, "s": 1, "$version": 3}
    assert [change.reported for change in changes] == [{"r": 1}, {"s": 1}]
    assert link.desired == []


def test_what_a_subscriber_writes_follows_the_answer_to_the_first_writer(hub: IotHub) -> None:
    link = connect(hub, FakeLink())

    def follow(change: TwinChanged) -> None:
        if change.twin.desired.version == 2:
            hub.twins.write(DEVICE, {"properties": {"desired": {"second": 2}}})

    hub.feed.subscribe(TwinChanged, follow)
    first = hub.twins.patch(DEVICE, {"properties": {"desired": {"first": 1}}}, ANY)
    assert first["properties"]["desired"]["$version"] == 2
    assert link.desired == [{"first": 1, "$version": 2}, {"second": 2, "$version": 3}]
