"""Uploads as a setting: ports, folders, and what a reset, a restore and a restart keep."""

from __future__ import annotations

import logging
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from emulator import Emulator, Settings, StartError
from emulator.hub.core.errors import DefaultStorageEndpointNotConfigured
from emulator.settings import UPLOADS_PORT
from emulator.testing.addresses import free_loopback_address
from tests.blobs.support import Blobs, Place
from tests.cli.test_commands import run_to_end
from tests.support import second_hub

STORAGE = "AccountName=acc1;AccountKey=c2VjcmV0;BlobEndpoint=https://127.0.0.1:1/acc1"


@pytest.fixture
def settings(emulator: Emulator) -> Settings:
    """Settings with the default port of uploads, on an address of their own."""
    return second_hub(emulator, host=free_loopback_address(), uploads_port=None).settings


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def refuses_uploads(hub: Emulator) -> bool:
    """Return whether the hub says that it has no storage."""
    assert hub.hub.uploads._storage is None
    with pytest.raises(DefaultStorageEndpointNotConfigured):
        hub.hub.uploads._configured()
    return True


# --- ports


def test_uploads_have_a_port_by_default(settings: Settings) -> None:
    with Emulator(settings) as hub:
        assert hub.uploads_port == UPLOADS_PORT
        grant = Place.at(hub, "d/x")
        with Blobs(hub) as blobs:
            assert blobs.put(grant, b"x").status == 201


def test_a_default_port_in_use_costs_one_warning(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server((settings.host, UPLOADS_PORT)), Emulator(settings) as hub:
        assert hub.uploads_port is hub.uploads_folder is None
        assert refuses_uploads(hub)
    (warning,) = warnings(caplog)
    assert f"Port {UPLOADS_PORT} is in use on {settings.host}" in warning
    assert "does not serve uploads of files there" in warning
    assert "--uploads-port PORT" in warning


def test_a_named_port_in_use_stops_the_start(settings: Settings) -> None:
    with socket.create_server((settings.host, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"Port {port} is in use"):
            Emulator(replace(settings, uploads_port=port)).__enter__()


def test_another_head_can_have_the_default_port(settings: Settings) -> None:
    with Emulator(replace(settings, https_port=UPLOADS_PORT)) as hub:
        assert (hub.https_port, hub.uploads_port) == (UPLOADS_PORT, None)


def test_uploads_can_be_left_out(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    without = replace(settings, no_uploads=True, upload_storage=STORAGE)
    with socket.create_server((settings.host, UPLOADS_PORT)), Emulator(without) as hub:
        assert hub.uploads_port is hub.uploads_folder is None
        assert refuses_uploads(hub)
    assert warnings(caplog) == []


def test_an_account_needs_no_port(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """An account that does not run yet stops no start."""
    with Emulator(replace(settings, upload_storage=STORAGE)) as hub:
        assert hub.uploads_port is hub.uploads_folder is None
        assert hub.hub.uploads._storage is not None
        hub.reset()
        assert hub.hub.uploads._storage is not None
    assert all("Can't create the container" in each for each in warnings(caplog))


# --- the setting with a key


@pytest.mark.parametrize("text", ["x", "AccountName=acc1;AccountKey=secret!"])
def test_an_invalid_connection_string(text: str) -> None:
    with pytest.raises(StartError) as caught:
        Settings(upload_storage=text)
    assert "secret" not in str(caught.value)
    status, _, errors = run_to_end("--upload-storage", text)
    assert status == 2
    assert "--upload-storage: " in errors[-1]
    assert "secret" not in "".join(errors)


def test_the_key_is_not_shown() -> None:
    assert "c2VjcmV0" not in repr(Settings(upload_storage=STORAGE))
    arguments = ("config", "--upload-storage", STORAGE)
    status, lines, _ = run_to_end(*arguments)
    assert status == 0
    assert "c2VjcmV0" not in "".join(lines)
    assert "AccountName=acc1;AccountKey=***;" in "".join(lines)
    _, lines, _ = run_to_end(*arguments, "--show-keys")
    assert "c2VjcmV0" in "".join(lines)


# --- folders


def put(hub: Emulator, place: Place, content: bytes) -> None:
    with Blobs(hub) as blobs:
        assert blobs.put(place, content).status == 201


def read(hub: Emulator, place: Place) -> int:
    with Blobs(hub) as blobs:
        return blobs.read(place).status


def test_a_hub_in_memory_has_a_temporary_folder(emulator: Emulator) -> None:
    with second_hub(emulator, data_dir=None) as hub:
        assert hub.uploads_folder is not None
        folder = hub.uploads_folder
        put(hub, Place.at(hub, "d/a.txt"), b"a")
        assert (folder / "d" / "a.txt").read_bytes() == b"a"
        if sys.platform != "win32":
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        hub.reset()
        assert hub.uploads_folder == folder
        assert not (folder / "d").exists()
        put(hub, Place.at(hub, "d/a.txt"), b"b")
        assert (folder / "d" / "a.txt").read_bytes() == b"b"
    assert not folder.exists()


def test_nothing_is_made_before_it_is_needed(emulator: Emulator, tmp_path: Path) -> None:
    with second_hub(emulator, data_dir=tmp_path):
        pass
    assert not (tmp_path / "uploads").exists()


def test_a_restart_keeps_files_and_tokens(emulator: Emulator, tmp_path: Path) -> None:
    hub = second_hub(emulator, data_dir=tmp_path)
    with hub:
        place, other = Place.at(hub, "d/a.txt"), Place.at(hub, "d/b.txt")
        put(hub, place, b"a")
        assert hub.uploads_folder == tmp_path / "uploads" / hub.settings.host
    with Emulator(hub.settings) as again:
        assert read(again, place) == 200
        put(again, other, b"b")
        assert again.uploads_folder is not None
        assert (again.uploads_folder / "d" / "b.txt").read_bytes() == b"b"


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_reset_ends_tokens_and_a_restore_brings_them_back(
    emulator: Emulator, tmp_path: Path, in_memory: bool
) -> None:
    with second_hub(emulator, data_dir=None if in_memory else tmp_path / "data") as hub:
        place = Place.at(hub, "d/a.txt")
        put(hub, place, b"a")
        hub.snapshot(tmp_path / "snapshot")
        hub.reset()
        assert read(hub, place) == 403
        anew = Place.at(hub, "d/a.txt")
        assert read(hub, anew) == (404 if in_memory else 200)
        hub.restore(tmp_path / "snapshot")
        assert read(hub, anew) == 403
        put(hub, place, b"b")
        assert read(hub, place) == 200


def test_the_folder_of_storage_has_uploads_too(emulator: Emulator, tmp_path: Path) -> None:
    with second_hub(emulator, storage=tmp_path) as hub:
        assert hub.uploads_folder == tmp_path / "iothub-uploads"
        put(hub, Place.at(hub, "d/a.txt"), b"a")
    assert (tmp_path / "iothub-uploads" / "d" / "a.txt").read_bytes() == b"a"


def test_a_folder_that_can_not_be_made(
    emulator: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "iothub-uploads").write_bytes(b"a file is in the way")
    with second_hub(emulator, storage=tmp_path) as hub, Blobs(hub) as blobs:
        assert blobs.put(Place.at(hub, "d/a.txt"), b"a").error == "500 InternalError"
    assert any("File exists" in each for each in warnings(caplog))
