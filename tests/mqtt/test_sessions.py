"""Sessions that outlive a restart of the emulator, and the file that holds them."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from emulator import Emulator, Settings
from emulator.emulator import StartError
from emulator.mqtt.sessions import Sessions
from tests.devices import greeting
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


def test_emulators_on_two_ports_share_a_folder_and_no_sessions(
    started: Restarts, settings: Settings
) -> None:
    with socket.create_server((settings.host, 0)) as probe:
        other = replace(settings, mqtt_port=probe.getsockname()[1])
    with started(settings) as connected:
        wire = connected("d1")
        wire.send(raw.subscribe(1, _TWIN_ANSWERS))
        wire.expect(raw.suback(1, 0))
        with started(other) as connected_to_other:
            connected_to_other("d1", session_present=False)


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


def test_a_damaged_file_is_moved_aside_and_the_emulator_starts(
    started: Restarts, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings.data_dir is not None
    for number in range(1, 4):
        with started(settings) as connected:
            wire = connected("d1", session_present=False)
            wire.send(raw.subscribe(1, _METHODS))
            wire.expect(raw.suback(1, 0))
        [file] = settings.data_dir.glob("sessions-*.sqlite")
        file.write_bytes(b"this is not a database" * number)
    with started(settings):
        pass
    for number, name in enumerate(("damaged", "damaged-2", "damaged-3"), start=1):
        aside = file.with_name(f"{file.name}.{name}")
        assert aside.read_bytes() == b"this is not a database" * number
        assert aside.name in caplog.text
    assert str(file) in caplog.text


def test_one_damaged_row_does_not_lock_its_device_out(
    started: Restarts, settings: Settings
) -> None:
    with started(settings) as connected:
        for device_id in ("d1", "d2"):
            wire = connected(device_id)
            wire.send(raw.subscribe(1, _TWIN_ANSWERS))
            wire.expect(raw.suback(1, 0))
    assert settings.data_dir is not None
    [file] = settings.data_dir.glob("sessions-*.sqlite")
    write(file, "UPDATE sessions SET subscriptions = '{' WHERE client_id = 'd1'")
    with started(settings) as connected:
        connected("d1", session_present=False)
        connected("d2", session_present=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_device_is_served_where_the_disk_is_full(
    started: Restarts, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with started(settings) as connected:
        wire = connected("d1")
        with small_files():
            for packet_id in range(1, 101):
                wire.send(raw.subscribe(packet_id, _TWIN_ANSWERS))
                wire.expect(raw.suback(packet_id, 0))
        wire.send(raw.publish("$iothub/twin/GET/?$rid=1"))
        wire.expect_publish("$iothub/twin/res/200/?$rid=1")
    assert "Can't store the session of d1" in caplog.text
    assert "--data-dir" in caplog.text


# --- the file itself


def test_sessions_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "sessions.sqlite"
    sessions = Sessions(file)
    sessions.keep("d1", {_METHODS: 0, _TWIN_ANSWERS: 1})
    sessions.keep("d1", {_METHODS: 1})
    sessions.keep("d1/m1", {})
    sessions.keep("d'2\"", {_TWIN_ANSWERS: 0})
    sessions.keep("d3", {_TWIN_ANSWERS: 0})
    sessions.forget("d3")
    sessions.forget("unknown")
    sessions.close()
    sessions = Sessions(file)
    found = {each: sessions.find(each) for each in ("d1", "d1/m1", "d'2\"", "d3", "unknown")}
    sessions.close()
    assert found == {
        "d1": {_METHODS: 1},
        "d1/m1": {},
        "d'2\"": {_TWIN_ANSWERS: 0},
        "d3": None,
        "unknown": None,
    }


def test_a_session_that_is_found_is_a_copy() -> None:
    sessions = Sessions()
    given = {_METHODS: 0}
    sessions.keep("d1", given)
    given[_TWIN_ANSWERS] = 0
    found = sessions.find("d1")
    assert found == {_METHODS: 0}
    found[_TWIN_ANSWERS] = 0
    assert sessions.find("d1") == {_METHODS: 0}
    sessions.close()


# --- damage


def write(file: Path, statement: str, *values: object) -> None:
    database = sqlite3.connect(file)
    with database:
        database.execute(statement, values)
    database.close()


def rows(file: Path, table: str) -> list[Any]:
    database = sqlite3.connect(file)
    database.text_factory = bytes
    found = database.execute(f"SELECT client_id, subscriptions FROM {table}").fetchall()
    database.close()
    return found


SOUND = json.dumps({_METHODS: 0})

DAMAGED_ROWS = [
    *[("d1", text) for text in ("", "{", "null", "[]", "1", '"text"', "[1, 2]", "{" * 100_000)],
    *[("d1", value) for value in (None, 7, 1.5, b"\xff\xfe", b"\x00")],
    *[
        ("d1", json.dumps({_METHODS: qos}))
        for qos in (2, -1, 128, True, None, "0", 1.0, [0], {"qos": 0})
    ],
    *[
        ("d1", json.dumps({name: 0}))
        for name in ("", "a#", "#/a", "a/#/b", "a+", "+a/b", "a\0b", "\ud800", "a" * 65_536)
    ],
    ("d1", json.dumps({f"devices/d1/{number}": 0 for number in range(6)})),
    *[(client_id, SOUND) for client_id in (None, b"\xff\xfe")],
]


@pytest.mark.parametrize(("client_id", "subscriptions"), DAMAGED_ROWS)
def test_a_damaged_row_is_moved_aside_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, client_id: Any, subscriptions: Any
) -> None:
    file = tmp_path / "sessions.sqlite"
    sessions = Sessions(file)
    sessions.keep("d2", {_TWIN_ANSWERS: 1})
    sessions.close()
    write(file, "INSERT INTO sessions VALUES (?, ?)", client_id, subscriptions)
    stored = next(row for row in rows(file, "sessions") if row[0] != b"d2")
    for _ in range(2):
        sessions = Sessions(file)
        assert sessions.find("d1") is None
        assert sessions.find("d2") == {_TWIN_ANSWERS: 1}
        sessions.keep("d1", {_METHODS: 1})
        sessions.forget("d1")
        sessions.close()
        # As it was, and still there.
        assert rows(file, "damaged_sessions") == [stored]
    [record] = caplog.records
    assert str(file) in record.getMessage()
    assert "damaged_sessions" in record.getMessage()


def test_many_damaged_rows_have_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "sessions.sqlite"
    Sessions(file).close()
    for number in range(9):
        write(file, "INSERT INTO sessions VALUES (?, 'x')", f"d{number}\n")
    Sessions(file).close()
    [record] = caplog.records
    assert "'d0\\n', 'd1\\n', 'd2\\n', 'd3\\n', 'd4\\n' and 4 more." in record.getMessage()
    assert len(rows(file, "damaged_sessions")) == 9


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _overwritten(content: bytes) -> bytes:
    return content[:100] + b"\xff" * 2000 + content[2100:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda _: b"this is not a database",
    "zeros": lambda content: bytes(len(content)),
    "cut": _cut,
    "a header without a database": lambda content: content[:100],
    "another header": lambda content: b"X" + content[1:],
    "overwritten": _overwritten,
    "the last page is lost": lambda content: content[:-4096] + bytes(range(256)) * 16,
}


@pytest.mark.parametrize("damage", [*DAMAGES, "other columns"])
def test_a_damaged_file_is_moved_aside_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    file = tmp_path / "sessions.sqlite"
    sessions = Sessions(file)
    for number in range(200):
        sessions.keep(f"d{number}", {_METHODS: 0, _TWIN_ANSWERS: 1})
    sessions.close()
    if damage == "other columns":
        write(file, "DROP TABLE sessions")
        write(file, "CREATE TABLE sessions (id, value)")
        content = file.read_bytes()
    else:
        content = DAMAGES[damage](file.read_bytes())
        file.write_bytes(content)
    sessions = Sessions(file)
    assert sessions.find("d1") is None
    sessions.keep("d1", {_METHODS: 1})
    sessions.close()
    assert (tmp_path / "sessions.sqlite.damaged").read_bytes() == content
    [record] = caplog.records
    assert str(file) in record.getMessage()
    assert "sessions.sqlite.damaged" in record.getMessage()
    sessions = Sessions(file)
    assert sessions.find("d1") == {_METHODS: 1}
    sessions.close()


def test_a_file_that_cannot_be_opened_is_not_damaged(tmp_path: Path) -> None:
    file = tmp_path / "sessions.sqlite"
    file.mkdir()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Sessions(file)
    assert file.is_dir()
    assert [*tmp_path.iterdir()] == [file]
