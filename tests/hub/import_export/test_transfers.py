"""Import and export jobs in the hub: requests, files, and a job's life on storage of the test's."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    BlobContainerValidationError,
    DeserializationError,
    DeviceAlreadyExists,
    HubError,
    JobNotFound,
    JobQuotaExceeded,
    ManagedIdentityNotEnabled,
    ServiceUnavailable,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.import_export import files as transfer_files
from emulator.hub.import_export.records import Order, TransferType
from emulator.hub.import_export.transfers import NoBlobs

NOW = datetime(2026, 1, 31, 14, 46, 8, 123456, tzinfo=UTC)
CREATE = IfMatch(None)
KEYS = {"primaryKey": "cHJpbWFyeSBrZXkgISEhISE=", "secondaryKey": "c2Vjb25kYXJ5IGtleSEhISE="}
THUMBPRINT = "0123456789abcdefABCDEF0123456789abcdefAB"

JsonObject = dict[str, Any]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Box:
    """Storage in memory. What it is told to fail at, fails."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.fails: dict[str, Exception] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.waited_for = asyncio.Event()

    async def check(self, container: str) -> None:
        await self._do("check")

    async def read(self, container: str, name: str) -> bytes:
        await self._do("read")
        if (container, name) not in self.blobs:
            raise BlobContainerValidationError("It is not there.")
        return self.blobs[container, name]

    async def write(self, container: str, name: str, content: bytes) -> None:
        self.waited_for.set()
        await self.open.wait()
        await self._do("write")
        self.blobs[container, name] = content

    async def _do(self, what: str) -> None:
        await asyncio.sleep(0)
        if what in self.fails:
            raise self.fails[what]

    def lines(self, name: str = "devices.txt", container: str = "out") -> list[JsonObject]:
        return [json.loads(line) for line in self.blobs[container, name].splitlines()]

    def errors(self) -> list[JsonObject]:
        return self.lines("importErrors.log")

    def put_lines(self, *items: object, name: str = "devices.txt") -> None:
        self.blobs["in", name] = b"".join(json.dumps(item).encode() + b"\n" for item in items)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def hub(clock: Clock, box: Box) -> IotHub:
    return make_hub(clock, box)


def make_hub(clock: Clock, box: Box | None) -> IotHub:
    return IotHub(store=MemoryStore(), policies=(), hosts=(), clock=clock, blobs=box)


def export(**members: object) -> JsonObject:
    return {"type": "export", "outputBlobContainerUri": "out", **members}


def import_(**members: object) -> JsonObject:
    containers = {"inputBlobContainerUri": "in", "outputBlobContainerUri": "out"}
    return {"type": "import", **containers, **members}


async def finish(hub: IotHub, body: JsonObject) -> JsonObject:
    """Make a job, and wait for its end; gives it as it is then."""
    job_id = (await hub.transfers.create(body))["jobId"]
    return await over(hub, job_id)


async def over(hub: IotHub, job_id: str) -> JsonObject:
    while True:
        job = hub.transfers.get(job_id)
        if job["status"] not in ("enqueued", "running"):
            return job
        await asyncio.sleep(0)


async def begun(hub: IotHub, job_id: str) -> None:
    """Wait until a part of a job is done."""
    for _ in range(1_000):
        if hub.transfers.get(job_id)["progress"]:
            return
        await asyncio.sleep(0)
    raise AssertionError("it is not begun")


def put_device(hub: IotHub, device_id: str, **members: object) -> JsonObject:
    return hub.registry.put_device(device_id, {"deviceId": device_id, **members}, CREATE)


def put_module(hub: IotHub, device_id: str, module_id: str, **members: object) -> JsonObject:
    key = IdentityKey(device_id, module_id)
    body = {"deviceId": device_id, "moduleId": module_id, **members}
    return hub.registry.put_module(key, body, CREATE)


def sas(**keys: str) -> JsonObject:
    return {"type": "sas", "symmetricKey": {**KEYS, **keys}}


def line(device_id: str, **members: object) -> JsonObject:
    return {"id": device_id, "status": "enabled", **members}


# --- what is asked for


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ([], DeserializationError),
        (None, DeserializationError),
        ({"outputBlobContainerUri": "out"}, ArgumentNull),
        (export(type="backup"), ArgumentInvalid),
        (export(type=1), ArgumentInvalid),
        ({"type": "export"}, ArgumentNull),
        (export(outputBlobContainerUri=""), ArgumentNull),
        (export(outputBlobContainerUri=7), ArgumentInvalid),
        ({"type": "import", "outputBlobContainerUri": "out"}, ArgumentNull),
        (export(excludeKeysInExport="true"), ArgumentInvalid),
        (export(includeConfigurations=1), ArgumentInvalid),
        (export(storageAuthenticationType="none"), ArgumentInvalid),
        (export(storageAuthenticationType="identityBased"), ManagedIdentityNotEnabled),
        (export(storageAuthenticationType="IdentityBased"), ManagedIdentityNotEnabled),
        (export(outputBlobName="../devices.txt"), ArgumentInvalid),
        (export(outputBlobName="a//b"), ArgumentInvalid),
        (export(outputBlobName="/etc/passwd"), ArgumentInvalid),
        (export(outputBlobName="a\nb"), ArgumentInvalid),
        (export(outputBlobName="x" * 1025), ArgumentInvalid),
        (import_(inputBlobName=".."), ArgumentInvalid),
        (import_(configurationsBlobName="."), ArgumentInvalid),
    ],
)
def test_a_request_that_is_none_is_refused(body: object, error: type[HubError]) -> None:
    with pytest.raises(error):
        Order.parse(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            export(),
            Order(TransferType.EXPORT, "out", "out", "devices.txt", None, exclude_keys=False),
        ),
        (
            export(
                type="Export",
                outputBlobName="2026/mine.txt",
                inputBlobName="of no matter",
                excludeKeysInExport=True,
                includeConfigurations=True,
                storageAuthenticationType="keyBased",
                jobId="of no matter",
            ),
            Order(
                TransferType.EXPORT,
                "out",
                "out",
                "2026/mine.txt",
                "configurations.txt",
                exclude_keys=True,
            ),
        ),
        (
            import_(
                inputBlobName="mine.txt",
                outputBlobName="of no matter",
                excludeKeysInExport=True,
                includeConfigurations=True,
                configurationsBlobName="c",
            ),
            Order(TransferType.IMPORT, "in", "out", "mine.txt", "c", exclude_keys=False),
        ),
        (
            {"type": "import", "inputBlobContainerUri": "in", "configurationsBlobName": "c"},
            Order(TransferType.IMPORT, "in", "in", "devices.txt", None, exclude_keys=False),
        ),
    ],
)
def test_a_request_is_read(body: JsonObject, expected: Order) -> None:
    assert Order.parse(body) == expected


def test_an_order_does_not_show_its_containers() -> None:
    order = Order.parse(import_(inputBlobContainerUri="sig=1", outputBlobContainerUri="sig=2"))
    assert "sig=" not in repr(order)


# --- files


async def test_a_device_is_written_as_a_hub_writes_it(hub: IotHub, box: Box) -> None:
    device = put_device(hub, "d", authentication=sas(), statusReason="new")
    key = IdentityKey("d")
    patch = {"tags": {"floor": 1}, "properties": {"desired": {"a": {"b": 1.50}}}}
    hub.registry.patch_twin(key, patch, CREATE)
    hub.registry.report(key, {"c": [1, {"d": "e"}]}, None)
    await finish(hub, export())
    text = box.blobs["out", "devices.txt"].decode()
    none = '"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null}'
    assert text == (
        f'{{"id":"d","eTag":"{device["etag"]}","status":"enabled","statusReason":"new",'
        f'"authentication":{{"symmetricKey":{{"primaryKey":"{KEYS["primaryKey"]}",'
        f'"secondaryKey":"{KEYS["secondaryKey"]}"}},{none},"type":"sas"}},'
        f'"twinETag":"AAAAAAAAAAI=","tags":{{"floor":1}},"properties":{{"desired":'
        f'{{"a":{{"b":1.5}}}},"reported":{{"c":[1,{{"d":"e"}}]}}}},'
        f'"capabilities":{{"iotEdge":false}}}}\n'
    )


async def test_a_plain_device_and_its_module_have_a_line_each(hub: IotHub, box: Box) -> None:
    put_device(hub, "d", status="disabled")
    put_device(hub, "e")
    put_module(hub, "e", "m", managedBy="someone")
    await finish(hub, export())
    device, other, module = box.lines()
    assert (device["id"], device["status"]) == ("d", "disabled")
    assert (device["tags"], device["properties"]) == ({}, {"desired": {}, "reported": {}})
    assert other["id"] == "e"
    assert list(module) == [
        *("id", "moduleId", "eTag", "status", "authentication", "twinETag", "tags"),
        *("properties", "managedBy"),
    ]
    assert (module["id"], module["moduleId"], module["managedBy"]) == ("e", "m", "someone")


async def test_without_keys_no_credentials_are_in_the_file(hub: IotHub, box: Box) -> None:
    put_device(hub, "d", authentication=sas())
    prints = {"primaryThumbprint": THUMBPRINT}
    put_device(hub, "x", authentication={"type": "selfSigned", "x509Thumbprint": prints})
    job = await finish(hub, export(excludeKeysInExport=True))
    assert job["excludeKeysInExport"] is True
    content = box.blobs["out", "devices.txt"].decode()
    warning, *lines = content.splitlines()
    assert warning.startswith("Warning: ")
    assert [json.loads(text)["authentication"] for text in lines] == [None, None]
    assert not any(secret in content for secret in (*KEYS.values(), THUMBPRINT))


async def test_a_hub_without_devices_gives_an_empty_file(hub: IotHub, box: Box) -> None:
    job = await finish(hub, export())
    assert (job["status"], job["progress"]) == ("completed", 100)
    assert box.blobs == {("out", "devices.txt"): b""}


NAMES = st.text(st.characters(codec="utf-8"), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | NAMES,
    lambda below: st.dictionaries(NAMES, below, max_size=2),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries(
        {"id": NAMES, "etag": NAMES, "priority": st.integers(0, 9), "targetCondition": NAMES},
        optional={
            "labels": st.none() | st.dictionaries(NAMES, NAMES),
            "schemaVersion": st.none() | NAMES,
            "content": st.fixed_dictionaries(
                {},
                optional={
                    name: st.dictionaries(NAMES, VALUES)
                    for name in ("deviceContent", "moduleContent", "modulesContent")
                },
            ),
            "metrics": st.fixed_dictionaries({"queries": st.dictionaries(NAMES, NAMES)}),
        },
    )
)
def test_a_configuration_is_read_as_it_was_written(document: JsonObject) -> None:
    text = transfer_files.configuration_line(document)
    assert text.count(b"\n") == 1
    assert transfer_files.read_configuration(text) == document
    # In Pascal's case, but not what names of the user's own are in it.
    item = json.loads(text)
    assert {name[0] for name in item} <= set("IEPTLSCM")
    assert item.get("Labels") == document.get("labels")


@given(st.lists(st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"")), max_size=9))
def test_lines_are_cut_at_newlines_and_percent_only_rises(texts: list[bytes]) -> None:
    found = list(transfer_files.lines(b"\r\n".join(texts)))
    assert [each.text for each in found] == [text.strip() for text in texts if text.strip()]
    percents = [each.percent for each in found]
    assert percents == sorted(percents)
    assert all(0 <= percent < 100 for percent in percents)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Warning: no JSON", "Expecting value"),
        ("[]", "It is not an object"),
        ('{"id":"d"}', "'status' not found"),
        ('{"id":"d","status":null}', "'status' not found"),
        ('{"status":"enabled"}', "'id' not found"),
        ('{"id":1,"status":"enabled"}', "'id' not found"),
        ('{"id":"d","importMode":"delete"}', "'status' not found"),
    ],
)
def test_a_line_that_is_none_is_repeated_in_the_error(text: str, why: str) -> None:
    with pytest.raises(DeserializationError) as caught:
        transfer_files.read_identity(text.encode())
    assert caught.value.text.startswith(f"Invalid device format in line: {text}. ")
    assert why in caught.value.text


def test_a_line_beyond_reason_is_not_even_read() -> None:
    item = json.dumps(line("d", statusReason="x" * limits.IMPORT_LINE_BYTES)).encode()
    with pytest.raises(DeserializationError) as caught:
        transfer_files.read_identity(item)
    assert len(caught.value.text) < 2_000


# --- imports


async def test_lines_are_done_in_the_mode_that_each_names(hub: IotHub, box: Box) -> None:
    for device_id in ("old", "gone", "twin"):
        put_device(hub, device_id, authentication=sas())
    box.put_lines(
        line("new"),
        line("old", status="Disabled", authentication=sas()),
        line("gone", importMode="delete"),
        line("twin", importMode="UpdateTwin", tags={"a": 1}),
        line("keyed", importMode="create", authentication=sas(), tags={"b": 2}),
    )
    job = await finish(hub, import_())
    assert (job["status"], job["progress"]) == ("completed", 100)
    assert box.blobs["out", "importErrors.log"] == b""
    devices = {device["deviceId"]: device for device in hub.registry.list_devices()}
    assert list(devices) == ["old", "twin", "new", "keyed"]
    assert devices["old"]["status"] == "disabled"
    assert devices["keyed"]["authentication"]["symmetricKey"] == KEYS
    assert hub.registry.get_twin(IdentityKey("twin"))["tags"] == {"a": 1}
    assert hub.registry.get_twin(IdentityKey("keyed"))["tags"] == {"b": 2}


async def test_a_line_that_fails_is_logged_and_the_rest_is_done(hub: IotHub, box: Box) -> None:
    put_device(hub, "old")
    bad = json.dumps(line("typed", authentication={"type": "SELF_SIGNED"}))
    content = [
        json.dumps(line("old", importMode="create")),
        "",
        "no JSON; really",
        bad,
        json.dumps(line("moded", importMode="maybe")),
        json.dumps(line("nobody", moduleId="m")),
        json.dumps({"id": "stateless"}),
        json.dumps(line("new")),
    ]
    box.blobs["in", "devices.txt"] = "\r\n".join(content).encode()
    job = await finish(hub, import_())
    assert job["status"] == "completed"
    assert "failureReason" not in job
    exists, *others = box.errors()
    assert exists == {
        "deviceId": "old",
        "errorCode": DeviceAlreadyExists.code,
        "errorStatus": "A device with ID 'old' is already registered.",
    }
    assert list(exists) == ["deviceId", "errorCode", "errorStatus"]
    assert [(each.get("deviceId"), each.get("moduleId"), each["errorCode"]) for each in others] == [
        (None, None, 400012),
        ("typed", None, 400004),
        ("moded", None, 400004),
        ("nobody", "m", 404001),
        (None, None, 400012),
    ]
    assert others[0]["errorStatus"].startswith("Invalid device format in line: no JSON; really. ")
    assert [each["deviceId"] for each in hub.registry.list_devices()] == ["old", "new"]


async def test_an_import_waits_for_nothing_that_comes_after_it_was_asked_for(
    hub: IotHub, box: Box
) -> None:
    box.put_lines(line("then"))
    job = await hub.transfers.create(import_())
    box.put_lines(line("too late"))
    await over(hub, job["jobId"])
    assert [each["deviceId"] for each in hub.registry.list_devices()] == ["then"]


async def test_empty_twins_leave_a_twin_as_it_is(hub: IotHub, box: Box) -> None:
    put_device(hub, "d", authentication=sas())
    before = hub.registry.get_twin(IdentityKey("d"))
    nothing = {"tags": {}, "properties": {"desired": {}, "reported": {}}}
    box.put_lines(line("d", authentication=sas(), **nothing))
    await finish(hub, import_())
    after = hub.registry.get_twin(IdentityKey("d"))
    assert (after["version"], after["etag"]) == (before["version"], before["etag"])


async def test_ten_thousand_lines_leave_their_turn_to_others(hub: IotHub, box: Box) -> None:
    count = 10_000
    box.put_lines(*(line(f"d{number}") for number in range(count)))
    job = await hub.transfers.create(import_())
    seen: list[tuple[int, int]] = []
    while (now := hub.transfers.get(job["jobId"]))["status"] in ("enqueued", "running"):
        statistics = hub.registry.device_statistics()
        seen.append((statistics["totalDeviceCount"], now["progress"]))
        await asyncio.sleep(0)
    steps = [after[0] - before[0] for before, after in itertools.pairwise(seen)]
    assert max(steps) <= limits.TRANSFER_SLICE
    assert hub.registry.device_statistics()["totalDeviceCount"] == count
    assert {percent for _, percent in seen} >= set(range(1, 99))

    job = await hub.transfers.create(export())
    turns = 0
    while hub.transfers.get(job["jobId"])["status"] in ("enqueued", "running"):
        turns += 1
        await asyncio.sleep(0)
    assert turns >= count / limits.TRANSFER_SLICE
    assert len(box.lines()) == count


# --- IoT Edge


def edge(device_id: str, **members: object) -> JsonObject:
    return line(device_id, capabilities={"iotEdge": True}, **members)


def scope(device_id: str) -> str:
    return f"ms-azure-iot-edge://{device_id}-637000000000000000"


async def test_children_find_their_parents_wherever_these_stand(hub: IotHub, box: Box) -> None:
    box.put_lines(
        line("leaf", deviceScope=scope("inner"), parentScopes=[scope("inner")]),
        line("leaf", moduleId="m"),
        edge("inner", deviceScope=scope("inner"), parentScopes=[scope("outer")]),
        edge("outer", deviceScope=scope("outer")),
        line("orphan", deviceScope=scope("nobody")),
        line("orphan", moduleId="m"),
    )
    await finish(hub, import_())
    outer, inner, leaf = (hub.registry.get_device(name) for name in ("outer", "inner", "leaf"))
    assert inner["parentScopes"] == [outer["deviceScope"]]
    assert leaf["parentScopes"] == [inner["deviceScope"]]
    assert hub.registry.has(IdentityKey("leaf", "m"))
    assert [(each["deviceId"], each.get("moduleId")) for each in box.errors()] == [
        ("orphan", None),
        ("orphan", "m"),
    ]
    assert [each["errorCode"] for each in box.errors()] == [400028, 404001]


async def test_layers_may_stand_in_any_order(hub: IotHub, box: Box) -> None:
    names = [f"layer{number}" for number in range(limits.EDGE_LAYERS)]
    layers = [
        edge(name, deviceScope=scope(name), parentScopes=[scope(parent)] if parent else [])
        for parent, name in zip([None, *names], names, strict=False)
    ]
    leaf = line("leaf", deviceScope=scope(names[-1]))
    box.put_lines(leaf, *reversed(layers))
    await finish(hub, import_())
    assert box.blobs["out", "importErrors.log"] == b""
    parents = [hub.registry.get_device(name)["deviceScope"] for name in names]
    children = [*names[1:], "leaf"]
    assert [hub.registry.get_device(name)["parentScopes"] for name in children] == [
        [parent] for parent in parents
    ]


async def test_a_deployed_module_is_put_back(clock: Clock, hub: IotHub, box: Box) -> None:
    put_device(hub, "edge", capabilities={"iotEdge": True})
    desired = {"schemaVersion": "1.1", "modules": {"m": {"version": "1"}}}
    content = {"modulesContent": {"$edgeAgent": {"properties.desired": desired}}}
    hub.configurations.apply_content("edge", content)
    other = await moved(hub, box, clock)
    twin = other.registry.get_twin(IdentityKey("edge", "$edgeAgent"))
    assert without_marks(twin["properties"]["desired"]) == desired
    assert box.blobs["out", "importErrors.log"] == b""


async def test_a_system_module_that_is_not_there_is_an_error(hub: IotHub, box: Box) -> None:
    box.put_lines(
        line("d"),
        line("d", moduleId="$edgeAgent"),
        edge("e"),
        line("e", moduleId="$edgeHub", importMode="update"),
    )
    await finish(hub, import_())
    assert [(each["moduleId"], each["errorCode"]) for each in box.errors()] == [
        ("$edgeAgent", 404001),
        ("$edgeHub", 401100),
    ]


# --- there and back


def without_marks(section: JsonObject) -> JsonObject:
    return {name: value for name, value in section.items() if not name.startswith("$")}


def fill(hub: IotHub) -> None:
    """Register one of each kind."""
    put_device(hub, "edge", capabilities={"iotEdge": True}, authentication=sas())
    parent = hub.registry.get_device("edge")["deviceScope"]
    put_device(hub, "leaf", deviceScope=parent, authentication=sas())
    put_device(hub, "inner", capabilities={"iotEdge": True}, parentScopes=[parent])
    put_device(hub, "off", status="disabled", statusReason="in repair", authentication=sas())
    prints = {"primaryThumbprint": THUMBPRINT, "secondaryThumbprint": THUMBPRINT[::-1]}
    put_device(hub, "x509", authentication={"type": "selfSigned", "x509Thumbprint": prints})
    put_device(hub, "ca", authentication={"type": "certificateAuthority"})
    put_module(hub, "leaf", "m", authentication=sas(), managedBy="me")
    put_module(hub, "leaf", "n")
    twin = {"tags": {"t": {"u": [1, 2.50]}}, "properties": {"desired": {"ä;": {"b": "\n"}}}}
    for key in (IdentityKey("leaf"), IdentityKey("leaf", "m")):
        hub.registry.patch_twin(key, twin, CREATE)
        hub.registry.report(key, {"r": 1}, None)


def registry_of(hub: IotHub) -> list[JsonObject]:
    """List everything but what the hub alone makes: times, etags, generations and scopes."""
    found = []
    for device in hub.registry.list_devices():
        device_id = device["deviceId"]
        scopes = [device.pop("deviceScope", ""), *device.pop("parentScopes", [])]
        device["family"] = [each.rpartition("-")[0] for each in scopes]
        modules = (
            []
            if device["status"] == "disabled"
            else sorted(hub.registry.list_modules(device_id), key=lambda each: each["moduleId"])
        )
        for document in (device, *modules):
            twin = hub.registry.get_twin(IdentityKey(device_id, document.get("moduleId")))
            own = {
                name: value
                for name, value in document.items()
                if name not in ("etag", "generationId") and not name.endswith("Time")
            }
            desired = without_marks(twin["properties"]["desired"])
            found.append({**own, "tags": twin.get("tags"), "desired": desired})
    return sorted(found, key=lambda each: (each["deviceId"], each.get("moduleId") or ""))


async def moved(hub: IotHub, box: Box, clock: Clock, **members: object) -> IotHub:
    """Export a hub, and import that into a new one."""
    await finish(hub, export(**members))
    for name in ("devices.txt", "configurations.txt"):
        if ("out", name) in box.blobs:
            box.blobs["in", name] = box.blobs["out", name]
    clock.now += timedelta(days=1)
    other = make_hub(clock, box)
    await finish(other, import_(**members))
    return other


async def test_an_export_makes_the_same_registry_elsewhere(
    hub: IotHub, box: Box, clock: Clock
) -> None:
    fill(hub)
    other = await moved(hub, box, clock)
    assert box.errors() == []
    assert registry_of(other) == registry_of(hub)


async def test_an_export_brings_a_hub_back_to_what_it_was(
    hub: IotHub, box: Box, clock: Clock
) -> None:
    fill(hub)
    before = registry_of(hub)
    await finish(hub, export())
    box.blobs["in", "devices.txt"] = box.blobs["out", "devices.txt"]
    twin = {"tags": {"t": {"u": 0}}, "properties": {"desired": {"ä;": 1}}}
    hub.registry.patch_twin(IdentityKey("leaf"), twin, CREATE)
    hub.registry.delete_device("x509", IfMatch("*"))
    put_off = {"deviceId": "off", "status": "enabled"}
    hub.registry.put_device("off", put_off, IfMatch("*"))
    assert registry_of(hub) != before
    await finish(hub, import_())
    assert box.errors() == []
    assert registry_of(hub) == before


DEVICE_CONTENT = {"deviceContent": {"properties.desired.colour": {"Name": "red"}}}


async def put_configuration(hub: IotHub, name: str, **members: object) -> JsonObject:
    body = {"id": name, "content": DEVICE_CONTENT, "targetCondition": "tags.x = 1", **members}
    return await hub.configurations.put(name, body, CREATE)


def configurations_of(hub: IotHub) -> list[JsonObject]:
    members = ("id", "content", "targetCondition", "priority", "labels", "schemaVersion")
    return [
        {**{name: each[name] for name in members}, "queries": each["metrics"]["queries"]}
        for each in hub.configurations.list()
    ]


async def test_configurations_go_along(hub: IotHub, box: Box, clock: Clock) -> None:
    metrics = {"queries": {"mine": "select deviceId from devices"}}
    labels = {"targetCondition": "a name of my own"}
    put_device(hub, "d", authentication=sas())
    await put_configuration(hub, "a", priority=7, labels=labels, metrics=metrics)
    await put_configuration(hub, "b", targetCondition="*")
    other = await moved(hub, box, clock, includeConfigurations=True)
    assert box.errors() == []
    assert configurations_of(other) == configurations_of(hub)
    first, second = box.lines("configurations.txt")
    assert list(first) == [
        *("Id", "SchemaVersion", "Labels", "Content", "TargetCondition", "CreatedTimeUtc"),
        *("LastUpdatedTimeUtc", "Priority", "SystemMetrics", "Metrics", "ETag"),
    ]
    assert first["Content"] == {"DeviceContent": DEVICE_CONTENT["deviceContent"]}
    assert first["Labels"] == labels
    assert first["Metrics"] == {"Results": {"mine": 1}, "Queries": metrics["queries"]}
    assert second["ETag"] == "MQ=="
    # They do there what they do here.
    desired = other.registry.get_twin(IdentityKey("d"))["properties"]["desired"]
    assert desired["colour"] == {"Name": "red"}


async def test_a_configuration_is_updated_only_if_its_etag_is_the_same(
    hub: IotHub, box: Box
) -> None:
    for name in ("same", "stale", "bare"):
        await put_configuration(hub, name)
    common = {"Content": DEVICE_CONTENT, "TargetCondition": "tags.x = 1", "Priority": 9}
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
    body = import_(includeConfigurations=True, configurationsBlobName="mine.txt")
    assert (await finish(hub, body))["status"] == "completed"
    priorities = {each["id"]: each["priority"] for each in hub.configurations.list()}
    assert priorities == {"same": 9, "stale": 0, "bare": 0, "new": 9}
    assert [(each.get("configurationId"), each["errorCode"]) for each in box.errors()] == [
        ("stale", 412001),
        ("bare", 412001),
        ("New", 400004),
        ("empty", 400402),
        (None, 400012),
    ]


# --- a job's life


MEMBERS = [
    *("jobId", "startTimeUtc", "type", "status", "progress", "outputBlobContainerUri"),
    *("excludeKeysInExport", "useSecondaryStorageAsSource"),
]


async def test_a_job_is_told_of_as_a_hub_tells_it(hub: IotHub, clock: Clock) -> None:
    job = await hub.transfers.create(export(outputBlobContainerUri="https://x/y?sig=secret"))
    assert list(job) == MEMBERS
    assert str(uuid.UUID(job["jobId"])) == job["jobId"]
    assert job == {
        "jobId": job["jobId"],
        "startTimeUtc": "2026-01-31T14:46:08.123456Z",
        "type": "export",
        "status": "enqueued",
        "progress": 0,
        "outputBlobContainerUri": "",
        "excludeKeysInExport": False,
        "useSecondaryStorageAsSource": False,
    }
    clock.now += timedelta(seconds=3)
    after = await over(hub, job["jobId"])
    ended = {"endTimeUtc": "2026-01-31T14:46:11.123456Z", "status": "completed", "progress": 100}
    assert after == {**job, **ended}
    assert hub.transfers.list() == [after]


async def test_one_job_runs_at_a_time(hub: IotHub, box: Box) -> None:
    box.open.clear()
    first = asyncio.ensure_future(hub.transfers.create(export()))
    await asyncio.sleep(0)  # it is still looking at its container
    with pytest.raises(JobQuotaExceeded) as caught:
        await hub.transfers.create(export())
    assert caught.value.text == (
        "Error: 403 ErrorCode: JobQuotaExceeded\r\nMessage: Job quota has been exceeded\r\n"
        "Timestamp: 01/31/2026 14:46:08\r\nTracking ID: "
    )
    job_id = (await first)["jobId"]
    await box.waited_for.wait()
    assert hub.transfers.get(job_id)["status"] == "running"
    with pytest.raises(JobQuotaExceeded):
        await hub.transfers.create(import_())
    box.open.set()
    await over(hub, job_id)
    await asyncio.sleep(0)
    assert (await finish(hub, export()))["status"] == "completed"


BAD = BlobContainerValidationError("The disk is full.")


@pytest.mark.parametrize(
    ("what", "body", "message"),
    [
        ("check", export(), "The disk is full."),
        ("check", import_(), "The disk is full."),
        (
            "read",
            import_(),
            "Failed to read devices blob from the input container. The disk is full.",
        ),
        (
            "nothing",
            import_(inputBlobName="x"),
            "Failed to read devices blob from the input container. It is not there.",
        ),
        (
            "nothing",
            import_(includeConfigurations=True),
            "Failed to read configurations blob from the input container. It is not there.",
        ),
    ],
)
async def test_a_bad_container_is_an_error_at_once_and_leaves_no_job(
    hub: IotHub, box: Box, what: str, body: JsonObject, message: str
) -> None:
    box.put_lines(line("d"))
    box.fails[what] = BAD
    with pytest.raises(BlobContainerValidationError) as caught:
        await hub.transfers.create(body)
    assert f"\r\nMessage: {message}\r\n" in caught.value.text
    assert caught.value.text.startswith("Error: 400 ErrorCode: BlobContainerValidationError\r\n")
    assert hub.transfers.list() == []
    # The slot is free again.
    box.fails.clear()
    assert (await finish(hub, import_()))["status"] == "completed"


@pytest.mark.parametrize("body", [export(), import_()])
async def test_storage_that_goes_away_fails_the_job(
    hub: IotHub, box: Box, body: JsonObject
) -> None:
    box.put_lines(line("d"))
    box.fails["write"] = BAD
    job = await finish(hub, body)
    assert (job["status"], job["failureReason"]) == ("failed", "The disk is full.")
    assert "endTimeUtc" in job
    assert ("out", "devices.txt") not in box.blobs


async def test_a_defect_fails_the_job_and_is_logged(
    hub: IotHub, box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.fails["write"] = RuntimeError("a defect")
    job = await finish(hub, export())
    assert (job["status"], job["failureReason"]) == ("failed", "An internal error occurred.")
    assert "a defect" in caplog.text


async def test_a_hub_without_storage_refuses_every_container(clock: Clock) -> None:
    hub = make_hub(clock, None)
    with pytest.raises(BlobContainerValidationError, match="without any storage") as caught:
        await hub.transfers.create(export(outputBlobContainerUri="https://x/?sig=secret"))
    assert "secret" not in caught.value.text
    for refused in (NoBlobs().read("c", "n"), NoBlobs().write("c", "n", b"")):
        with pytest.raises(BlobContainerValidationError):
            await refused


async def test_an_unknown_job_is_not_found(hub: IotHub) -> None:
    with pytest.raises(JobNotFound):
        hub.transfers.get("nobody")
    with pytest.raises(JobNotFound):
        await hub.transfers.cancel("nobody")


async def test_a_cancelled_import_stops_where_it_is(hub: IotHub, box: Box) -> None:
    box.put_lines(*(line(f"d{number}") for number in range(1_000)))
    job = await hub.transfers.create(import_())
    await begun(hub, job["jobId"])
    await hub.transfers.cancel(job["jobId"])
    cancelled = hub.transfers.get(job["jobId"])
    assert cancelled["status"] == "cancelled"
    assert "endTimeUtc" in cancelled
    done = hub.registry.device_statistics()["totalDeviceCount"]
    assert 0 < done < 1_000
    await asyncio.sleep(0)
    assert hub.registry.device_statistics()["totalDeviceCount"] == done
    assert ("out", "importErrors.log") not in box.blobs
    # Once more is no error, and changes nothing; the slot is free.
    await hub.transfers.cancel(job["jobId"])
    assert hub.transfers.get(job["jobId"]) == cancelled
    assert (await finish(hub, import_()))["status"] == "completed"


async def test_a_job_that_is_cancelled_before_it_began_does_nothing(hub: IotHub, box: Box) -> None:
    box.put_lines(line("d"))
    job = await hub.transfers.create(import_())
    await hub.transfers.cancel(job["jobId"])
    assert hub.transfers.get(job["jobId"])["status"] == "cancelled"
    assert hub.registry.list_devices() == []


async def test_a_cancelled_job_stays_so_even_if_its_end_was_at_hand(clock: Clock) -> None:
    class Stubborn(Box):
        """Makes an error of its own of being cancelled, as a client library can."""

        async def write(self, container: str, name: str, content: bytes) -> None:
            self.waited_for.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise BAD from None

    stubborn = Stubborn()
    hub = make_hub(clock, stubborn)
    job = await hub.transfers.create(export())
    await stubborn.waited_for.wait()
    await hub.transfers.cancel(job["jobId"])
    assert hub.transfers.get(job["jobId"])["status"] == "cancelled"


@pytest.mark.parametrize("end", ["cancel", "stop"])
async def test_nothing_more_is_done_once_a_job_was_ended(clock: Clock, end: str) -> None:
    class Thorough(Box):
        """Takes its time to clear up."""

        cleared = False

        async def write(self, container: str, name: str, content: bytes) -> None:
            self.waited_for.set()
            try:
                await asyncio.Event().wait()
            finally:
                for _ in range(10):
                    await asyncio.sleep(0)
                self.cleared = True

    thorough = Thorough()
    hub = make_hub(clock, thorough)
    job = await hub.transfers.create(export())
    await thorough.waited_for.wait()
    await (hub.transfers.cancel(job["jobId"]) if end == "cancel" else hub.transfers.stop())
    assert thorough.cleared


async def test_a_stopping_hub_ends_its_job_and_takes_no_other(hub: IotHub, box: Box) -> None:
    done = await finish(hub, export())
    box.open.clear()
    job_id = (await hub.transfers.create(export(outputBlobName="second")))["jobId"]
    await box.waited_for.wait()
    await hub.stop_jobs()
    job = hub.transfers.get(job_id)
    assert job["status"] == "failed"
    assert job["failureReason"] == "The hub was stopped before the job was done."
    assert hub.transfers.get(done["jobId"]) == done
    assert ("out", "second") not in box.blobs
    with pytest.raises(ServiceUnavailable):
        await hub.transfers.create(export())
    with pytest.raises(ServiceUnavailable):
        await hub.transfers.cancel(job_id)
    await hub.stop_jobs()


async def test_a_hub_that_stops_while_it_looks_at_a_container_makes_no_job(hub: IotHub) -> None:
    asked = asyncio.ensure_future(hub.transfers.create(export()))
    await asyncio.sleep(0)
    await hub.stop_jobs()
    with pytest.raises(ServiceUnavailable):
        await asked
    assert hub.transfers.list() == []


def list_jobs(hub: IotHub) -> None:
    hub.transfers.list()


def get_job(hub: IotHub) -> None:
    with pytest.raises(JobNotFound):
        hub.transfers.get("nobody")


@pytest.mark.parametrize("ask", [list_jobs, get_job])
async def test_jobs_are_remembered_for_thirty_days(
    hub: IotHub, clock: Clock, ask: Callable[[IotHub], None]
) -> None:
    first = await finish(hub, export())
    clock.now += timedelta(days=1)
    second = await finish(hub, export())
    assert hub.transfers.list() == [first, second]
    clock.now = NOW + timedelta(days=30) - timedelta(microseconds=1)
    assert hub.transfers.list() == [first, second]
    clock.now = NOW + timedelta(days=30)
    ask(hub)
    assert hub.transfers.list() == [second]


async def test_devices_that_come_and_go_while_an_export_runs_do_it_no_harm(
    hub: IotHub, box: Box
) -> None:
    for number in range(200):
        put_device(hub, f"d{number}")
    job = await hub.transfers.create(export())
    await begun(hub, job["jobId"])
    hub.registry.delete_device("d199", IfMatch("*"))
    put_device(hub, "late")
    assert (await over(hub, job["jobId"]))["status"] == "completed"
    assert [each["id"] for each in box.lines()] == [f"d{number}" for number in range(199)]
