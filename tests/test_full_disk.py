"""A disk that becomes full while a hub runs: what it answers, what it keeps, and how it goes on."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from emulator import Emulator
from emulator.errors import StartError
from emulator.testing.addresses import free_loopback_address
from tests.lasting import Run
from tests.mqtt import raw
from tests.support import second_hub, small_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits a process from outside")

_EVENTS = "devices/sender/messages/events/"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(free_loopback_address(), tmp_path) as run:
        yield run


def limit(run: Run, size: int) -> None:
    """Let no file of a hub grow beyond a size: as a disk that is full, or has room again."""
    psutil.Process(run.pid).rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def bodies(run: Run) -> list[str]:
    with run.service() as service:
        events = service.request("GET", "/_emulator/events", params={}).json()
    return [each["body"] for each in events]


def test_the_hub_refuses_changes_while_the_disk_is_full_and_goes_on_when_there_is_room(
    run: Run, tmp_path: Path
) -> None:
    [journal] = tmp_path.glob("*-wal")
    wire, _ = run.connect("sender")
    with run.service() as service, wire:
        wire.send(raw.publish(_EVENTS, b"before", packet_id=1))
        wire.expect(raw.puback(1))
        limit(run, journal.stat().st_size)

        refused = service.request("PUT", "/devices/refused", json={"deviceId": "refused"})
        assert refused.status_code == 503
        assert refused.headers["iothub-errorcode"] == "ServiceUnavailable"
        patch = {"properties": {"desired": {"n": 1}}}
        assert service.request("PATCH", "/twins/worker", json=patch).status_code == 503
        job: dict[str, object] = {"jobId": "j", "type": "scheduleUpdateTwin"}
        job |= {"queryCondition": "*", "updateTwin": {"etag": "*", "tags": {"a": 1}}}
        assert service.request("PUT", "/jobs/v2/j", json=job).status_code == 503
        message = {"body": "refused"}
        path = "/_emulator/devices/receiver/messages"
        assert service.request("POST", path, json=message, params={}).status_code == 503
        # Telemetry has no PUBACK: the device sends it again on its next connection.
        wire.send(raw.publish(_EVENTS, b"refused", packet_id=2))
        wire.expect_closed()
        # What only reads works, and so does a device that connects.
        assert service.request("GET", "/devices/refused").status_code == 404
        assert "desired" in service.request("GET", "/twins/worker").json()["properties"]
        second, _ = run.connect("worker")

        limit(run, resource.RLIM_INFINITY)
        with second:
            second.send(raw.publish("devices/worker/messages/events/", b"after", packet_id=3))
            second.expect(raw.puback(3))
        assert service.request("PUT", "/devices/kept", json={"deviceId": "kept"}).ok
        assert bodies(run) == ["before", "after"]

    run.kill()
    for text in ("free disk space", "can be written again"):
        assert len([line for line in run.errors if text in line]) == 1
    with Run(run.address[0], tmp_path) as run, run.service() as service:
        assert bodies(run) == ["before", "after"]
        assert service.request("GET", "/devices/kept").ok
        assert service.request("GET", "/devices/refused").status_code == 404
        assert service.request("GET", "/twins/worker").json()["version"] == 2
        assert service.request("GET", "/jobs/v2/j").json()["status"] == "unknown"


@pytest.mark.parametrize("size", [1_000, 6_000, 20_000])
def test_a_start_on_a_full_disk_says_what_to_do(
    emulator: Emulator, tmp_path: Path, size: int
) -> None:
    hub = second_hub(emulator, data_dir=tmp_path, devices=[f"d{n}" for n in range(100)])
    with small_files(size), pytest.raises(StartError) as error:
        hub.__enter__()
    assert str(tmp_path) in str(error.value)
    assert "ree disk space" in str(error.value)
    assert "\n" not in str(error.value)
    with hub:  # there is room again
        assert hub.device_connection_string("d99")
