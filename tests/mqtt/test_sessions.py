"""Sessions that outlive a restart of the emulator, and the file that holds them."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from emulator import Emulator, Settings
from emulator.emulator import StartError
from emulator.hub.core import limits
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.mqtt.sessions import Session, Sessions
from tests.devices import greeting
from tests.hub.fakes import put
from tests.mqtt import raw
from tests.mqtt.raw import Dial, Greet, Online, Wire
from tests.support import Device, Service, second_hub, small_files

_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"


def test_a_device_that_is_registered_again_has_no_session(
    dial: Dial, emulator: Emulator, greet: Greet, online: Online, service: Service, device: Device
) -> None:
    online(device, _METHODS, clean=False).close()
    service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})
    emulator.register_device(device.id)
    wire = dial()
    wire.send(greet(device, clean=False))
    wire.expect(raw.connack(0, session_present=False))


# --- over restarts


class Connected(Protocol):
    """Connects a device to the emulator that is running."""

    def __call__(
        self, device_id: str, *, clean: bool = ..., session_present: bool = ...
    ) -> Wire: ...


Restarts = Callable[..., AbstractContextManager[Connected]]


@pytest.fixture
def settings(emulator: Emulator, tmp_path: Path) -> Settings:
    """Settings with a folder for the data, and the same port at each start."""
    with socket.create_server((emulator.host_name, 0)) as probe:
        port = probe.getsockname()[1]
    devices, data_dir = ("d1", "d2"), tmp_path / "data"
    return second_hub(emulator, mqtt_port=port, devices=devices, data_dir=data_dir).settings


@pytest.fixture
def started(trust: ssl.SSLContext) -> Iterator[Restarts]:
    """Starts an emulator; the devices close their connections before it stops."""
    with ExitStack() as wires:

        @contextmanager
        def start(settings: Settings) -> Iterator[Connected]:
            with Emulator(settings) as running:
                host = running.host_name

                def connected(
                    device_id: str, *, clean: bool = False, session_present: bool = False
                ) -> Wire:
                    device = Device.of(running.device_connection_string(device_id))
                    wire = wires.enter_context(Wire((host, running.mqtt_port), trust))
                    wire.send(greeting(host, device_id, device.key, clean=clean))
                    wire.expect(raw.connack(0, session_present=session_present))
                    return wire

                yield connected
                wires.close()

        yield start


def test_subscriptions_outlive_a_restart(started: Restarts, settings: Settings) -> None:
    with started(settings) as connected:
        for device_id in ("d1", "d2"):
            wire = connected(device_id)
            wire.send(raw.subscribe(1, (_TWIN_ANSWERS, 1), _METHODS))
            wire.expect(raw.suback(1, 1, 0))
        # d1 is still connected as the emulator stops; d2 has come back with clean session 1.
        connected("d2", clean=True)
    with started(settings) as connected:
        wire = connected("d1", session_present=True)
        wire.send(raw.publish("$iothub/twin/GET/?$rid=1"))
        wire.expect_publish("$iothub/twin/res/200/?$rid=1")
        connected("d2", session_present=False)


def test_a_session_whose_device_or_module_is_gone_does_not_outlive_a_restart(
    settings: Settings,
) -> None:
    """A hub can be killed after it has deleted a device, and before it deletes the session."""
    clients = ("d1", "d1/m", "d2/m", "gone", "gone/m")

    def leave(hub: IotHub) -> None:
        put(hub, IdentityKey("d1", "m"))
        hub.store.commit(put=[Session(each, {}) for each in clients])

    with Emulator(settings) as emulator:
        emulator._call(leave)
    with Emulator(settings) as emulator:
        left = emulator._call(lambda hub: [each.client_id for each in hub.store.scan(Session)])
    assert left == ["d1", "d1/m"]


def test_without_a_folder_no_session_outlives_a_restart(
    started: Restarts, settings: Settings
) -> None:
    settings = replace(settings, data_dir=None)
    with started(settings) as connected:
        wire = connected("d1")
        wire.send(raw.subscribe(1, _TWIN_ANSWERS))
        wire.expect(raw.suback(1, 0))
    with started(settings) as connected:
        connected("d1", session_present=False)


def test_a_folder_that_cannot_be_used_is_named(
    started: Restarts, settings: Settings, tmp_path: Path
) -> None:
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    with (
        pytest.raises(StartError, match=f"{re.escape(str(not_a_folder))}.*Settings.data_dir="),
        started(replace(settings, data_dir=not_a_folder)),
    ):
        pass


def older_file(settings: Settings) -> Path:
    """The file in which an older emulator kept the sessions of these settings."""
    assert settings.data_dir is not None
    settings.data_dir.mkdir(exist_ok=True)
    return settings.data_dir / f"sessions-{settings.host}-{settings.mqtt_port}.sqlite"


def test_the_sessions_of_an_older_emulator_are_taken_once(
    started: Restarts, settings: Settings
) -> None:
    file = older_file(settings)
    create(file, {"d1": SOUND, "of a device that is not registered yet": SOUND})
    before = rows(file)
    with started(settings) as connected:
        connected("d1", session_present=True)
        connected("d2", session_present=False)
        connected("d1", clean=True)  # its session ends
    assert not file.exists()
    assert rows(Path(f"{file}.migrated")) == before
    with started(settings) as connected:
        connected("d1", session_present=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_where_the_disk_is_full_nothing_is_acknowledged(
    started: Restarts, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    acknowledged = 0
    with started(settings) as connected:
        wire = connected("d1")

        def fill_the_disk() -> None:
            nonlocal acknowledged
            for packet_id in range(1, 10_000):
                body = b"x" * 1000
                wire.send(raw.publish("devices/d1/messages/events/", body, packet_id=packet_id))
                wire.expect(raw.puback(packet_id))
                acknowledged += 1

        with small_files(1_000_000), pytest.raises((AssertionError, OSError)):
            fill_the_disk()
        wire = connected("d1")  # it can connect again
        wire.send(raw.publish("$iothub/twin/GET/?$rid=1"))
    assert "free disk space" in caplog.text
    with Emulator(settings) as emulator:
        events = emulator._call(lambda hub: hub.events.read())
    assert len(events) == acknowledged > 20


def test_a_session_that_is_found_is_a_copy() -> None:
    sessions = Sessions(MemoryStore())
    given = {_METHODS: 0}
    sessions.keep("d1", given)
    given[_TWIN_ANSWERS] = 0
    found = sessions.find("d1")
    assert found == {_METHODS: 0}
    found[_TWIN_ANSWERS] = 0
    assert sessions.find("d1") == {_METHODS: 0}


# --- the file of an older emulator

SOUND = json.dumps({_METHODS: 0})


def create(file: Path, sessions: Mapping[str, Any]) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE sessions (client_id TEXT PRIMARY KEY, subscriptions TEXT)")
        database.executemany("INSERT INTO sessions VALUES (?, ?)", sessions.items())


def rows(file: Path) -> list[Any]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT * FROM sessions").fetchall()


DAMAGED = [
    *("", "{", "null", "[]", "1", '"text"', "[1, 2]", "{" * 100_000),
    *(None, 7, 1.5, b"\xff\xfe", b"\x00"),
    *(json.dumps({_METHODS: qos}) for qos in (2, -1, 128, True, None, "0", 1.0, [0], {"qos": 0})),
    *(
        json.dumps({name: 0})
        for name in ("", "a#", "#/a", "a/#/b", "a+", "+a/b", "a\0b", "\ud800", "a" * 65_536)
    ),
    json.dumps({f"filter-{number}": 0 for number in range(limits.MQTT_SUBSCRIPTIONS + 1)}),
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_session_is_left_out_with_a_warning(
    text: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, sessions = tmp_path / "sessions.sqlite", Sessions(MemoryStore())
    create(file, {"d1": text, "d2": SOUND})
    sessions.adopt(file)
    assert sessions.find("d1") is None
    assert sessions.find("d2") == {_METHODS: 0}
    assert "1 of 2 are damaged" in caplog.text


@pytest.mark.parametrize("content", [b"", b"this is not a database" * 100])
def test_a_damaged_file_stays_where_it_is(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, sessions = tmp_path / "sessions.sqlite", Sessions(MemoryStore())
    file.write_bytes(content)
    sessions.adopt(file)
    assert file.read_bytes() == content
    assert str(file) in caplog.text
