"""Reset, snapshot and restore of a hub that runs, in Python and over HTTPS."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from emulator import Emulator
from emulator.disk import file as files
from emulator.errors import SnapshotError
from emulator.hub.core.etags import IfMatch
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.message import Message
from emulator.testing.addresses import free_loopback_address
from tests import support
from tests.amqp.wire import AmqpWire
from tests.devices import greeting
from tests.mqtt import raw
from tests.mqtt.raw import Wire
from tests.mqtt.web_socket import WebSocketWire
from tests.processes import EmulatorConsole
from tests.support import (
    Device,
    Service,
    second_hub,
    small_files,
    wait_until,
)

_EVENTS = "devices/{}/messages/events/"


@pytest.fixture(params=["memory", "disk"])
def hub(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Iterator[Emulator]:
    """A hub with the device `first`, in memory or on disk."""
    data_dir = tmp_path / "state" if request.param == "disk" else None
    with second_hub(emulator, data_dir=data_dir, devices=("first",)) as hub:
        yield hub


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as service:
        yield service


def fill(hub: Emulator, service: Service) -> None:
    """Let a hub have state of each kind."""
    hub.register_device("d1")
    service.request("PUT", "/devices/d1/modules/m", json={"deviceId": "d1", "moduleId": "m"})
    twin = {"tags": {"a": 1}, "properties": {"desired": {"n": 1.50}}}
    service.request("PATCH", "/twins/d1", json=twin)
    own = {"body": "hello"}
    service.request("POST", "/_emulator/devices/d1/messages", json=own, params={})
    job = {"jobId": "j", "type": "scheduleUpdateTwin", "queryCondition": "*"}
    service.request("PUT", "/jobs/v2/j", json=job | {"updateTwin": {"etag": "*", "tags": {}}})
    wait_until(lambda: service.request("GET", "/jobs/v2/j").json()["status"] == "completed")
    content = {"deviceContent": {"properties.desired.c": 1}}
    configuration = {"id": "c", "content": content, "targetCondition": "tags.a=1", "priority": 1}
    assert service.request("PUT", "/configurations/c", json=configuration).ok
    for number in range(3):
        send(hub, "d1", f"event {number}")


def send(hub: Emulator, device_id: str, *bodies: str) -> None:
    device = Device.of(hub.device_connection_string(device_id))
    with connect(hub, device) as wire:
        topic = _EVENTS.format(device_id)
        wire.send(*(raw.publish(topic, body.encode(), packet_id=1) for body in bodies))
        wire.expect(*[raw.puback(1)] * len(bodies))


def connect(hub: Emulator, device: Device, *filters: str) -> Wire:
    wire = Wire((hub.host_name, hub.mqtt_port), support.trust(hub))
    wire.begin(greeting(hub.host_name, device.id, device.key, clean=False), *filters)
    return wire


def state(service: Service) -> dict[str, Any]:
    """Return all that a service can see of a hub, except times of activity."""
    paths = ("/devices", "/configurations", "/jobs/v2/query", "/_emulator/events")
    found: dict[str, Any] = {}
    for path in paths:
        params = {} if path.startswith("/_") else None
        found[path] = service.request("GET", path, params=params).json()
    for device in found["/devices"]:
        name = device["deviceId"]
        found[f"twin {name}"] = service.request("GET", f"/twins/{name}").json()
        found[f"modules {name}"] = service.request("GET", f"/devices/{name}/modules").json()
        device.pop("lastActivityTime")
        found[f"twin {name}"].pop("lastActivityTime")
    return found


def bodies(service: Service) -> list[tuple[int, str]]:
    events = service.request("GET", "/_emulator/events", params={}).json()
    return [(each["sequenceNumber"], each["body"]) for each in events]


# --- reset


def test_a_reset_leaves_what_a_new_hub_has(hub: Emulator, service: Service) -> None:
    keys = hub.device_connection_string("first"), hub.service_connection_string
    ports = hub.mqtt_port, hub.https_port, hub.amqps_port
    fill(hub, service)
    hub.reset()
    found = state(service)
    assert [each["deviceId"] for each in found["/devices"]] == ["first"]
    assert (found["/configurations"], found["/jobs/v2/query"]) == ([], [])
    assert found["/_emulator/events"] == []
    assert (hub.device_connection_string("first"), hub.service_connection_string) == keys
    assert (hub.mqtt_port, hub.https_port, hub.amqps_port) == ports
    send(hub, "first", "again")
    assert bodies(service) == [(0, "again")]


def test_random_keys_stay_over_a_reset(emulator: Emulator) -> None:
    with second_hub(emulator, host="0.0.0.0", names=("localhost",), devices=("d",)) as hub:
        keys = hub.device_connection_string("d"), hub.service_connection_string
        hub.reset()
        assert (hub.device_connection_string("d"), hub.service_connection_string) == keys


def test_a_reset_lasts(hub: Emulator, service: Service) -> None:
    fill(hub, service)
    hub.reset()
    hub.register_device("later")
    if hub.settings.data_dir is None:
        return
    hub.__exit__()
    with Emulator(hub.settings) as again:
        ids = [each["deviceId"] for each in state(Service(again))["/devices"]]
    hub.__enter__()
    assert ids == ["first", "later"]


def test_a_reset_of_events_keeps_all_else_and_their_numbers(
    hub: Emulator, service: Service
) -> None:
    fill(hub, service)
    before = state(service)
    hub.reset(events_only=True)
    assert state(service) == before | {"/_emulator/events": []}
    send(hub, "d1", "next")
    assert bodies(service) == [(3, "next")]
    [event] = service.request("GET", "/_emulator/events", params={}).json()
    assert event["partitionSequenceNumber"] == 3
    hub.reset(events_only=True)
    if hub.settings.data_dir is not None:
        hub.__exit__()
        hub.__enter__()
        with Service(hub) as again:
            assert bodies(again) == []
            send(hub, "d1", "last")
            assert bodies(again) == [(4, "last")]


def test_devices_are_cut_off_and_connect_again(hub: Emulator, service: Service) -> None:
    device = Device.of(hub.device_connection_string("first"))
    hub.register_device("other")
    with (
        connect(hub, device, "$iothub/methods/POST/#") as wire,
        ThreadPoolExecutor() as threads,
        Service(hub) as second,
    ):
        method = {"methodName": "m", "responseTimeoutInSeconds": 60}
        call = threads.submit(service.request, "POST", "/twins/first/methods", json=method)
        wire.receive_publish()
        method["connectTimeoutInSeconds"] = 60
        waits = threads.submit(second.request, "POST", "/twins/other/methods", json=method)
        wait_until(lambda: hub._call(lambda hub: bool(hub.links._signals)))
        hub.reset()
        wire.expect_closed()
        assert [each.result(5).status_code for each in (call, waits)] == [503, 503]
    with connect(hub, device) as wire:
        assert service.state("first") == "Connected"


def test_connections_of_each_kind_end(hub: Emulator) -> None:
    trust = support.trust(hub)
    device = Device.of(hub.device_connection_string("first"))
    with (
        Wire((hub.host_name, hub.mqtt_port), trust) as silent,
        WebSocketWire(hub.host_name, hub.https_port, trust) as web_socket,
        AmqpWire((hub.host_name, hub.amqp_port or 0)) as amqp,
    ):
        web_socket.begin(greeting(hub.host_name, device.id, device.key))
        amqp.begin()
        silent.send(b"\x10")  # the begin of a CONNECT
        wait_until(lambda: len(hub._running._heads["mqtt_port"]._connections) == 2)  # type: ignore[attr-defined]
        hub.reset()
        web_socket.expect_closed()
        assert amqp.take_close().error.condition == "amqp:connection:forced"
        amqp.expect_end()
        silent.expect_closed()


def test_a_session_ends_with_its_device(hub: Emulator) -> None:
    device = Device.of(hub.register_device("d1"))
    with connect(hub, device, "$iothub/methods/POST/#"):
        pass
    hub.reset()
    hub.register_device("d1")
    with Wire((hub.host_name, hub.mqtt_port), support.trust(hub)) as wire:
        wire.send(greeting(hub.host_name, device.id, device.key, clean=False))
        assert wire.receive() == raw.connack(0)


def test_a_stream_of_events_ends(hub: Emulator, service: Service) -> None:
    headers = {"Accept": "text/event-stream"}
    url = f"{service.url}/_emulator/events"
    with service._session.get(url, headers=headers, stream=True, timeout=20) as stream:
        lines = stream.iter_lines()
        assert next(lines) == b": events follow"
        hub.reset()
        assert [*lines] == [b""]  # it ends


def test_a_tool_can_follow_the_new_hub(hub: Emulator) -> None:
    hubs: list[IotHub] = []
    hub.follow(hubs.append)
    first = hub.hub
    hub.reset()
    assert hubs == [first, hub.hub]
    assert first is not hub.hub


def test_a_verbose_log_follows(emulator: Emulator) -> None:
    options = ("--host", free_loopback_address(), "--in-memory", "--verbose")
    with EmulatorConsole(*options, "--cert-dir", emulator.ca_file.parent) as console:
        assert console.request("POST", "/_emulator/reset").status_code == 204
        assert console.request("PUT", "/devices/x", json={"deviceId": "x"}).ok
        wait_until(lambda: any("x was created" in line for line in console.errors))
        assert "Traceback" not in console.output


def test_a_reset_takes_milliseconds(hub: Emulator, service: Service) -> None:
    fill(hub, service)
    taken = []
    for _ in range(20):
        hub.register_device("d9")
        start = time.perf_counter()
        hub.reset()
        taken.append(time.perf_counter() - start)
    assert sorted(taken)[5] < 0.01


def test_resets_at_once_and_under_load_leave_a_hub_that_works(hub: Emulator) -> None:
    ended = threading.Event()

    def load(number: int) -> None:
        with Service(hub) as service:
            while not ended.is_set():
                answer = service.request(
                    "PUT", f"/devices/d{number}", json={"deviceId": f"d{number}"}
                )
                assert answer.status_code in (200, 409), answer.text

    with ThreadPoolExecutor() as threads:
        loads = [threads.submit(load, name) for name in ("d1", "d2")]
        resets = [threads.submit(hub.reset) for _ in range(20)]
        for each in resets:
            each.result(20)
        ended.set()
        for each in loads:
            each.result(20)
    hub.reset()
    with Service(hub) as service:
        assert [each["deviceId"] for each in state(service)["/devices"]] == ["first"]


async def test_a_call_in_the_loop_of_the_emulator_is_refused(emulator: Emulator) -> None:
    async with second_hub(emulator) as hub:
        if hub._running.loop is asyncio.get_running_loop():
            with pytest.raises(RuntimeError, match="would block"):
                hub.reset()


# --- snapshot and restore


def test_a_restored_hub_is_as_it_was(hub: Emulator, service: Service, tmp_path: Path) -> None:
    fill(hub, service)
    before = state(service)
    hub.snapshot(tmp_path / "snapshot")
    service.request("DELETE", "/devices/d1", headers={"If-Match": "*"})
    hub.register_device("d2")
    send(hub, "first", "later")
    hub.restore(tmp_path / "snapshot")
    assert state(service) == before
    send(hub, "d1", "next")
    assert bodies(service)[-1] == (3, "next")
    hub.restore(str(tmp_path / "snapshot"))
    assert state(service) == before
    if hub.settings.data_dir is not None:
        hub.__exit__()
        hub.__enter__()
        with Service(hub) as again:
            assert state(again) == before


def test_a_queue_of_messages_is_restored(hub: Emulator, service: Service, tmp_path: Path) -> None:
    fill(hub, service)
    hub.snapshot(tmp_path / "snapshot")
    hub.reset()
    hub.restore(tmp_path / "snapshot")
    device = Device.of(hub.device_connection_string("d1"))
    with connect(hub, device, "devices/d1/messages/devicebound/#") as wire:
        assert wire.receive_publish()[1] == b"hello"


def test_a_snapshot_can_be_the_file_of_a_hub(
    hub: Emulator, service: Service, tmp_path: Path, emulator: Emulator
) -> None:
    fill(hub, service)
    before = state(service)
    folder = tmp_path / "another"
    folder.mkdir()
    other = second_hub(emulator, data_dir=folder)
    hub.snapshot(folder / f"hub-{other.settings.host_in_file_names}.sqlite")
    with other, Service(other) as again:
        assert state(again) == before
        assert other.hub.events.created == hub.hub.events.created


def test_the_file_of_a_hub_that_ended_can_be_restored(
    emulator: Emulator, hub: Emulator, service: Service, tmp_path: Path
) -> None:
    with second_hub(emulator, data_dir=tmp_path / "other") as other, Service(other) as theirs:
        fill(other, theirs)
        before = state(theirs)
    [file] = (tmp_path / "other").glob("*.sqlite")
    hub.restore(file)
    assert state(service) == before


def test_only_its_owner_can_read_a_snapshot(hub: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "snapshot"
    file.write_bytes(b"an old one")
    file.chmod(0o644)
    hub.snapshot(file)
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["snapshot"]


def damaged(content: bytes) -> bytes:
    assert b'["first"' in content
    return content.replace(b'["first"', b'["FIRST"')


def newer(content: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(content)
        database.execute(f"PRAGMA user_version = {files.VERSION + 1}")
        return bytes(database.serialize())


def foreign() -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE theirs (x)")
        return bytes(database.serialize())


REFUSED = {
    "a changed record": (damaged, r"The snapshot is damaged \(.+\)\. Use another one\."),
    "a half": (lambda content: content[: len(content) // 2], r"The snapshot is damaged .*\."),
    "a newer one": (newer, r"The snapshot is from a newer emulator: .* Update the emulator\."),
    "nothing": (
        lambda _: b"",
        r"This is not a snapshot of a hub\. Use one that the emulator wrote\.",
    ),
    "a text": (lambda _: b"hello" * 1000, r"This is not a snapshot of a hub\..*"),
    "another database": (lambda _: foreign(), r"This is not a snapshot of a hub\..*"),
}


@pytest.mark.parametrize(("change", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_sound_snapshot_is_refused_and_changes_nothing(
    hub: Emulator, service: Service, tmp_path: Path, change: Any, says: str
) -> None:
    hub.snapshot(tmp_path / "sound")
    content = change((tmp_path / "sound").read_bytes())
    (tmp_path / "file").write_bytes(content)
    hub.register_device("d1")
    before, device = state(service), Device.of(hub.device_connection_string("first"))
    with connect(hub, device) as wire:
        with pytest.raises(SnapshotError) as error:
            hub.restore(tmp_path / "file")
        assert re.fullmatch(says, str(error.value))
        answer = service.request("POST", "/_emulator/restore", data=content or b" ", params={})
        assert answer.status_code == 400
        if content:
            assert str(error.value) in answer.json()["Message"]
        wire.send(raw.PINGREQ)
        wire.expect(raw.PINGRESP)
        now = state(service)
        for each in (now, before):
            for device_ in each["/devices"]:
                device_.pop("connectionState"), device_.pop("connectionStateUpdatedTime")
            for name in ("first", "d1"):
                each[f"twin {name}"].pop("connectionState")
        assert now == before


def test_files_that_cannot_be_read_or_written_are_named(hub: Emulator, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "snapshot"
    with pytest.raises(SnapshotError, match=f"^Can't write {missing}: .*\\.$"):
        hub.snapshot(missing)
    with pytest.raises(SnapshotError, match=f"^Can't read {missing}: .*\\.$"):
        hub.restore(missing)


@pytest.mark.skipif(os.name != "posix", reason="needs the limits of POSIX")
@pytest.mark.parametrize("hub", ["disk"], indirect=True)
def test_a_full_disk_refuses_a_reset_and_changes_nothing(
    hub: Emulator, service: Service, tmp_path: Path
) -> None:
    fill(hub, service)
    hub.snapshot(tmp_path / "snapshot")
    before = state(service)
    [journal] = (tmp_path / "state").glob("*-wal")
    with small_files(journal.stat().st_size):
        for path in ("reset", "restore"):
            data = (tmp_path / "snapshot").read_bytes() if path == "restore" else b""
            answer = service.request("POST", f"/_emulator/{path}", data=data, params={})
            assert answer.status_code == 503
            assert state(service) == before
    hub.reset()
    assert [each["deviceId"] for each in state(service)["/devices"]] == ["first"]


@pytest.mark.skipif(os.name != "posix", reason="needs the limits of POSIX")
def test_a_disk_that_is_nearly_full_refuses_a_reset_in_the_words_of_the_hub(
    emulator: Emulator, tmp_path: Path
) -> None:
    devices = [f"d{number}" for number in range(40)]
    with (
        second_hub(emulator, data_dir=tmp_path, devices=devices) as hub,
        Service(hub) as service,
    ):
        [journal] = tmp_path.glob("*-wal")
        before, statuses = state(service), set()
        for more in range(0, 60_000, 2_000):
            with small_files(journal.stat().st_size + more):
                status = service.request("POST", "/_emulator/reset", params={}).status_code
            statuses.add(status)
            if status == 204:
                break
            assert state(service) == before
        assert statuses == {503, 204}


@pytest.mark.skipif(os.name != "posix", reason="needs the limits of POSIX")
def test_a_full_disk_refuses_a_configuration_file(emulator: Emulator, tmp_path: Path) -> None:
    with second_hub(emulator, data_dir=tmp_path) as hub, Service(hub) as service:
        [journal] = tmp_path.glob("*-wal")
        body = {"devices": [{"id": "a"}]}
        with small_files(journal.stat().st_size):
            answer = service.request("POST", "/_emulator/config", json=body, params={})
        assert answer.status_code == 503
        answer = service.request("POST", "/_emulator/config", json=body, params={})
        assert answer.json()["created"] == 1


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pipes in folders")
def test_a_snapshot_replaces_no_pipe_and_no_link(hub: Emulator, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        hub.snapshot(pipe)
        assert os.read(reader, 100).startswith(b"SQLite format 3")
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    link.symlink_to("target")
    for _ in range(2):
        hub.snapshot(link)
    assert link.is_symlink()
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o600
    hub.restore(link)


# --- over HTTPS


def test_the_routes(hub: Emulator, service: Service) -> None:
    def own(verb: str, path: str, **body: Any) -> Any:
        return service.request(verb, f"/_emulator/{path}", params={}, **body)

    fill(hub, service)
    before = state(service)
    taken = own("GET", "snapshot")
    assert (taken.status_code, taken.headers["Content-Type"]) == (200, "application/vnd.sqlite3")
    assert own("POST", "reset", json={"scope": "events"}).status_code == 204
    assert state(service) == before | {"/_emulator/events": []}
    assert own("POST", "reset").status_code == 204
    assert [each["deviceId"] for each in state(service)["/devices"]] == ["first"]
    assert own("POST", "restore", data=taken.content).status_code == 204
    assert state(service) == before
    assert own("POST", "reset", json={"scope": "all"}).status_code == 204
    assert own("POST", "reset", json={"scope": "x"}).status_code == 400
    assert own("POST", "reset", json={"scopes": "all"}).status_code == 400
    assert own("POST", "reset", data="{").status_code == 400


@pytest.mark.parametrize("policy", ["service", "device", "registryRead"])
def test_a_caller_needs_the_right_to_write_the_registry(hub: Emulator, policy: str) -> None:
    strings = (
        hub.policy_connection_string(policy),
        hub.policy_connection_string("registryReadWrite"),
    )
    statuses = []
    for string in strings:
        caller = SimpleNamespace(service_connection_string=string, ca_file=hub.ca_file)
        with Service(cast("Any", caller)) as service:
            for verb, path in (("GET", "snapshot"), ("POST", "reset"), ("POST", "restore")):
                answer = service.request(verb, f"/_emulator/{path}", data=b"x", params={})
                statuses.append(answer.status_code)
    assert statuses == [401, 401, 401, 200, 400, 400]


def test_a_large_snapshot_can_be_restored(hub: Emulator, service: Service) -> None:
    def add(hub: IotHub) -> None:
        for number in range(100):
            key = IdentityKey(f"d{number}")
            hub.identities.put(key, {"deviceId": key.device_id}, IfMatch(None))
            hub.cloud_to_device.send(key.device_id, Message(os.urandom(60_000)))

    hub._call(add)
    content = service.request("GET", "/_emulator/snapshot", params={}).content
    assert len(content) > 5_000_000
    hub.reset()
    answer = service.request("POST", "/_emulator/restore", data=content, params={})
    assert answer.status_code == 204, answer.text
    assert len(json.loads(service.request("GET", "/devices").text)) == 101
