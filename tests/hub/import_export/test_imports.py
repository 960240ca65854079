"""Imports: modes, errors, IoT Edge devices, configurations; and exports that are imported again."""

import asyncio
import itertools
import json

import pytest

from emulator.hub.core import limits
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from tests.clock import ManualClock
from tests.hub.fakes import ANY, CREATE, DEVICE, all_configurations, done, make_hub, put
from tests.hub.import_export import depot


async def test_each_line_has_a_mode(hub: IotHub, box: depot.Box) -> None:
    for device_id in ("old", "gone", "twin"):
        put(hub, IdentityKey(device_id), authentication=depot.SAS)
    box.put_lines(
        depot.line("new"),
        depot.line("old", status="Disabled", authentication=depot.SAS),
        depot.line("gone", importMode="delete"),
        depot.line("twin", importMode="UpdateTwin", tags={"a": 1}),
        depot.line("keyed", importMode="create", authentication=depot.SAS, tags={"b": 2}),
    )
    job = await depot.finish(hub, depot.import_())
    assert (job["status"], job["progress"], box.errors()) == ("completed", 100, [])
    assert depot.device_ids(hub) == ["old", "twin", "new", "keyed"]
    assert hub.identities.get(IdentityKey("old"))["status"] == "disabled"
    assert hub.identities.get(IdentityKey("keyed"))["authentication"]["symmetricKey"] == depot.KEYS
    assert [depot.twin(hub, name)["tags"] for name in ("twin", "keyed")] == [{"a": 1}, {"b": 2}]


async def test_the_names_in_a_file_have_any_letter_case(hub: IotHub, box: depot.Box) -> None:
    lines = [
        {"Id": "d", "Status": "disabled", "ImportMode": "Create", "Tags": {"A": 1}},
        {"ID": "d", "MODULEID": "m", "STATUS": "enabled", "ManagedBy": "me", "unknown": 1},
        {"Id": "d", "STATUS": "enabled", "Properties": {"Desired": {"B": 1}}, "TAGS": {}},
    ]
    box.put_lines(*lines)
    await depot.finish(hub, depot.import_())
    assert box.errors() == []
    twin = hub.twins.get(IdentityKey("d"))
    assert (twin["status"], twin["tags"]) == ("enabled", {"A": 1})
    assert twin["properties"]["desired"]["B"] == 1
    assert hub.identities.get(IdentityKey("d", "m"))["managedBy"] == "me"


async def test_a_line_that_fails_is_logged_and_the_others_are_done(
    hub: IotHub, box: depot.Box
) -> None:
    put(hub, IdentityKey("old"))
    content = [
        json.dumps(depot.line("old", importMode="create")),
        "",
        "no JSON; really",
        json.dumps(depot.line("typed", authentication={"type": "SELF_SIGNED"})),
        json.dumps(depot.line("moded", importMode="maybe")),
        json.dumps(depot.line("missing", moduleId="m")),
        json.dumps({"id": "stateless"}),
        json.dumps(depot.line("new")),
    ]
    box.blobs["in", "devices.txt"] = "\r\n".join(content).encode()
    job = await depot.finish(hub, depot.import_())
    assert (job["status"], "failureReason" in job) == ("completed", False)
    assert [*box.errors()[0].items()] == [
        ("deviceId", "old"),
        ("errorCode", 409001),
        ("errorStatus", "A device with ID 'old' is already registered."),
    ]
    assert box.errors("deviceId", "moduleId", "errorCode")[1:] == [
        (None, None, 400012),
        ("typed", None, 400004),
        ("moded", None, 400004),
        ("missing", "m", 404001),
        (None, None, 400012),
    ]
    text = box.errors()[1]["errorStatus"]
    assert text.startswith("Invalid device format in line: no JSON; really. ")
    assert depot.device_ids(hub) == ["old", "new"]


async def test_an_import_reads_its_file_when_it_is_created(hub: IotHub, box: depot.Box) -> None:
    box.put_lines(depot.line("then"))
    job = await hub.transfers.create(depot.import_())
    box.put_lines(depot.line("too-late"))
    await depot.over(hub, job["jobId"])
    assert depot.device_ids(hub) == ["then"]


async def test_an_empty_twin_in_a_line_changes_nothing(hub: IotHub, box: depot.Box) -> None:
    put(hub, DEVICE, authentication=depot.SAS)
    before = hub.twins.get(DEVICE)
    nothing = {"tags": {}, "properties": {"desired": {}, "reported": {}}}
    box.put_lines(depot.line("d", authentication=depot.SAS, **nothing))
    await depot.finish(hub, depot.import_())
    after = hub.twins.get(DEVICE)
    assert (after["version"], after["etag"]) == (before["version"], before["etag"])


@pytest.mark.parametrize("name", ["desiredProperties", "tags", ""])
async def test_an_unknown_member_of_a_twin_in_a_line_is_an_error_also_if_it_is_empty(
    hub: IotHub, box: depot.Box, name: str
) -> None:
    box.put_lines(depot.line("d", properties={"Desired": {}, name: {}}), depot.line("e"))
    await depot.finish(hub, depot.import_())
    assert box.errors("deviceId", "errorCode") == [("d", 400000)]
    assert depot.device_ids(hub) == ["e"]


async def test_other_work_runs_during_an_import_and_an_export(hub: IotHub, box: depot.Box) -> None:
    count, slice_ = 1000, 5
    box.put_lines(*(depot.line(f"d{number:04}") for number in range(count)))

    async def watch(body: depot.JsonObject) -> list[tuple[int, int]]:
        """Run a job; return the number of devices and the progress between its steps."""
        job, seen = await hub.transfers.create(body), []
        for _ in range(10_000):
            present = hub.transfers.get(job["jobId"])
            if present["status"] == "completed":
                return seen
            devices = done(hub.identities.device_statistics())["totalDeviceCount"]
            seen.append((devices, present["progress"]))
            await asyncio.sleep(0)
        raise AssertionError("the job has no end")

    seen = await watch(depot.import_())
    devices = [number for number, _ in seen]
    steps = [after - before for before, after in itertools.pairwise(devices)]
    assert max(steps) <= slice_ + 1  # the first one has no look at the clock
    assert done(hub.identities.device_statistics())["totalDeviceCount"] == count
    assert {percent for _, percent in seen} >= set(range(1, 99))
    assert len(await watch(depot.export())) >= count / slice_
    assert len(box.lines()) == count


# --- IoT Edge


def edge(device_id: str, **members: object) -> depot.JsonObject:
    return depot.line(device_id, capabilities={"iotEdge": True}, **members)


def scope(device_id: str) -> str:
    return f"ms-azure-iot-edge://{device_id}-637000000000000000"


async def test_a_child_finds_its_parent_anywhere_in_the_file(hub: IotHub, box: depot.Box) -> None:
    box.put_lines(
        depot.line("leaf", deviceScope=scope("inner"), parentScopes=[scope("inner")]),
        depot.line("leaf", moduleId="m"),
        edge("inner", deviceScope=scope("inner"), parentScopes=[scope("outer")]),
        edge("outer", deviceScope=scope("outer")),
        depot.line("orphan", deviceScope=scope("missing")),
        depot.line("orphan", moduleId="m"),
    )
    await depot.finish(hub, depot.import_())
    outer, inner, leaf = (
        hub.identities.get(IdentityKey(name)) for name in ("outer", "inner", "leaf")
    )
    assert inner["parentScopes"] == [outer["deviceScope"]]
    assert leaf["parentScopes"] == [inner["deviceScope"]]
    assert hub.identities.has(IdentityKey("leaf", "m"))
    assert box.errors("deviceId", "moduleId", "errorCode") == [
        ("orphan", None, 400028),
        ("orphan", "m", 404001),
    ]


async def test_layers_can_be_in_any_order(hub: IotHub, box: depot.Box) -> None:
    names = [f"layer{number}" for number in range(limits.EDGE_LAYERS)]
    layers = [
        edge(name, deviceScope=scope(name), parentScopes=[scope(parent)] if parent else [])
        for parent, name in zip([None, *names], names, strict=False)
    ]
    box.put_lines(depot.line("leaf", deviceScope=scope(names[-1])), *reversed(layers))
    await depot.finish(hub, depot.import_())
    assert box.errors() == []
    for parent, child in zip(names, [*names[1:], "leaf"], strict=True):
        device_scope = hub.identities.get(IdentityKey(parent))["deviceScope"]
        assert hub.identities.get(IdentityKey(child))["parentScopes"] == [device_scope]


async def test_a_system_module_that_does_not_exist_is_an_error(hub: IotHub, box: depot.Box) -> None:
    box.put_lines(
        depot.line("d"),
        depot.line("d", moduleId="$edgeAgent"),
        edge("e"),
        depot.line("e", moduleId="$edgeHub", importMode="update"),
    )
    await depot.finish(hub, depot.import_())
    assert box.errors("moduleId", "errorCode") == [("$edgeAgent", 404001), ("$edgeHub", 401100)]


# --- exports that are imported again


def fill(hub: IotHub) -> None:
    """Register a device or module of each kind."""
    edge = put(hub, IdentityKey("edge"), capabilities={"iotEdge": True}, authentication=depot.SAS)
    parent = edge["deviceScope"]
    put(hub, IdentityKey("leaf"), deviceScope=parent, authentication=depot.SAS)
    put(hub, IdentityKey("inner"), capabilities={"iotEdge": True}, parentScopes=[parent])
    off = {"status": "disabled", "statusReason": "in repair"}
    put(hub, IdentityKey("off"), **off, authentication=depot.SAS)
    prints = {"primaryThumbprint": depot.THUMBPRINT, "secondaryThumbprint": depot.THUMBPRINT[::-1]}
    x509 = {"type": "selfSigned", "x509Thumbprint": prints}
    put(hub, IdentityKey("x509"), authentication=x509)
    put(hub, IdentityKey("ca"), authentication={"type": "certificateAuthority"})
    put(hub, IdentityKey("leaf", "m"), authentication=depot.SAS, managedBy="me")
    put(hub, IdentityKey("leaf", "n"))
    parts = {"tags": {"t": {"u": [1, 2.50]}}, "properties": {"desired": {"ä;": {"b": "\n"}}}}
    for key in (IdentityKey("leaf"), IdentityKey("leaf", "m")):
        hub.twins.patch(key, parts, CREATE)
        hub.twins.report(key, {"r": 1}, None)


def registry_of(hub: IotHub) -> list[depot.JsonObject]:
    """Return all identities and twins, without what each hub makes: times, etags, scopes."""
    found = []
    for device in done(hub.identities.list_devices()):
        scopes = [device.pop("deviceScope", ""), *device.pop("parentScopes", [])]
        device["family"] = [each.rpartition("-")[0] for each in scopes]
        enabled = device["status"] == "enabled"
        modules = hub.identities.list_modules(device["deviceId"]) if enabled else []
        for document in (device, *modules):
            own = {
                name: value
                for name, value in document.items()
                if name not in ("etag", "generationId") and not name.endswith("Time")
            }
            found.append({**own, **depot.twin(hub, device["deviceId"], document.get("moduleId"))})
    return sorted(found, key=lambda each: (each["deviceId"], each.get("moduleId") or ""))


async def moved(hub: IotHub, box: depot.Box, clock: ManualClock, **members: object) -> IotHub:
    """Export a hub, and import it into a new one without errors."""
    await depot.finish(hub, depot.export(**members))
    for container, name in [*box.blobs]:
        box.blobs["in", name] = box.blobs[container, name]
    clock.advance(24 * 3600)
    other = make_hub(clock=clock, blobs=box)
    await depot.finish(other, depot.import_(**members))
    assert box.errors() == []
    return other


async def test_an_export_makes_the_same_registry_elsewhere(
    hub: IotHub, box: depot.Box, clock: ManualClock
) -> None:
    fill(hub)
    other = await moved(hub, box, clock)
    assert registry_of(other) == registry_of(hub)
    assert len(registry_of(other)) == 12  # 6 devices, 2 modules, 4 modules of the hub


async def test_an_export_restores_a_hub(hub: IotHub, box: depot.Box) -> None:
    fill(hub)
    before = registry_of(hub)
    await depot.finish(hub, depot.export())
    box.blobs["in", "devices.txt"] = box.blobs["out", "devices.txt"]
    parts = {"tags": {"t": {"u": 0}}, "properties": {"desired": {"ä;": 1}}}
    hub.twins.patch(IdentityKey("leaf"), parts, CREATE)
    hub.identities.remove(IdentityKey("x509"), ANY)
    put(hub, IdentityKey("off"), ANY, status="enabled")
    assert registry_of(hub) != before
    await depot.finish(hub, depot.import_())
    assert box.errors() == []
    assert registry_of(hub) == before


async def test_a_deployed_module_is_restored(
    hub: IotHub, box: depot.Box, clock: ManualClock
) -> None:
    put(hub, IdentityKey("edge"), capabilities={"iotEdge": True})
    desired = {"schemaVersion": "1.1", "modules": {"m": {"version": "1"}}}
    content = {"modulesContent": {"$edgeAgent": {"properties.desired": desired}}}
    done(hub.configurations.apply_content("edge", content))
    other = await moved(hub, box, clock)
    assert depot.twin(other, "edge", "$edgeAgent")["desired"] == desired


# --- configurations

CONTENT = {"deviceContent": {"properties.desired.colour": {"Name": "red"}}}


async def configure(hub: IotHub, name: str, **members: object) -> None:
    body = {"id": name, "content": CONTENT, "targetCondition": "tags.x = 1", **members}
    await hub.configurations.put(name, body, CREATE)


def configurations_of(hub: IotHub) -> list[depot.JsonObject]:
    names = ("id", "content", "targetCondition", "priority", "labels", "schemaVersion")
    return [
        {**{name: each[name] for name in names}, "queries": each["metrics"]["queries"]}
        for each in all_configurations(hub)
    ]


async def test_an_export_can_include_configurations(
    hub: IotHub, box: depot.Box, clock: ManualClock
) -> None:
    metrics = {"queries": {"mine": "select deviceId from devices"}}
    labels = {"targetCondition": "a name of my own"}
    put(hub, DEVICE, authentication=depot.SAS)
    await configure(hub, "a", priority=7, labels=labels, metrics=metrics)
    await configure(hub, "b", targetCondition="*")
    other = await moved(hub, box, clock, includeConfigurations=True)
    assert configurations_of(other) == configurations_of(hub)
    first, second = box.lines("configurations.txt")
    assert [*first] == [
        *("Id", "SchemaVersion", "Labels", "Content", "TargetCondition", "CreatedTimeUtc"),
        *("LastUpdatedTimeUtc", "Priority", "SystemMetrics", "Metrics", "ETag"),
    ]
    assert first["Content"] == {"DeviceContent": CONTENT["deviceContent"]}
    assert first["Labels"] == labels
    assert first["Metrics"] == {"Results": {"mine": 1}, "Queries": metrics["queries"]}
    assert second["ETag"] == "MQ=="
    # They have the same effect in the other hub.
    assert depot.twin(other, "d")["desired"] == {"colour": {"Name": "red"}}


async def test_an_import_updates_a_configuration_only_with_its_etag(
    hub: IotHub, box: depot.Box
) -> None:
    for name in ("same", "stale", "bare"):
        await configure(hub, name)
    common = {"Content": CONTENT, "TargetCondition": "tags.x = 1", "Priority": 9}
    box.put_lines()  # no devices
    box.put_lines(
        {"Id": "same", "ETag": "MQ==", **common},
        {"Id": "stale", "ETag": "Mg==", **common},
        {"Id": "bare", **common},
        {"Id": "New", **common},
        {"id": "new", "ImportMode": "createOrUpdateIfMatchETag", **common},
        {"Id": "empty"},
        {"nothing": 1},
        name="mine.txt",
    )
    body = depot.import_(includeConfigurations=True, configurationsBlobName="mine.txt")
    assert (await depot.finish(hub, body))["status"] == "completed"
    priorities = {each["id"]: each["priority"] for each in all_configurations(hub)}
    assert priorities == {"same": 9, "stale": 0, "bare": 0, "new": 9}
    assert box.errors("configurationId", "errorCode") == [
        ("stale", 412001),
        ("bare", 412001),
        ("New", 400004),
        ("empty", 400402),
        (None, 400012),
    ]
