"""Where the emulator keeps its state, and what a restart does with keys and first devices."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator, Settings
from emulator.cli.options import parse
from emulator.errors import StartError
from emulator.hub.core.etags import IfMatch
from emulator.hub.identities.identity import IdentityKey
from emulator.testing.addresses import free_loopback_address
from tests.processes import Console, EmulatorConsole, clean_environment
from tests.support import fields_of, second_hub

_PORTS = dict.fromkeys(("mqtt_port", "https_port", "amqps_port", "amqp_port", "uploads_port"), 0)
_KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def settings(emulator: Emulator, tmp_path: Path) -> Settings:
    return second_hub(emulator, data_dir=tmp_path, devices=("d1",)).settings


def ids(emulator: Emulator) -> list[str]:
    devices: list[str] = emulator._call(
        lambda hub: [row.identity.key.device_id for _, row in hub.twins._rows.devices()]
    )
    return devices


def key_of(text: str) -> str:
    return fields_of(text)["SharedAccessKey"]


def test_devices_are_there_after_a_restart_and_registered_once(settings: Settings) -> None:
    with Emulator(settings) as emulator:
        emulator.register_device("d2")
        etag = emulator._call(lambda hub: hub.identities.get(IdentityKey("d1"))["etag"])
    with Emulator(replace(settings, devices=("d1", "d3"))) as emulator:
        assert ids(emulator) == ["d1", "d2", "d3"]
        assert emulator._call(lambda hub: hub.identities.get(IdentityKey("d1"))["etag"]) == etag


def test_without_a_folder_nothing_lasts(settings: Settings) -> None:
    settings = replace(settings, data_dir=None)
    with Emulator(settings) as emulator:
        emulator.register_device("d2")
    with Emulator(settings) as emulator:
        assert ids(emulator) == ["d1"]


def test_a_first_device_that_was_changed_stays_as_it_is(settings: Settings) -> None:
    def disable(hub: Any) -> None:
        body = {**hub.identities.get(IdentityKey("d1")), "status": "disabled"}
        hub.identities.update(IdentityKey("d1"), body, IfMatch("*"))

    with Emulator(settings) as emulator:
        emulator._call(disable)
    with Emulator(settings) as emulator:
        status = emulator._call(lambda hub: hub.identities.get(IdentityKey("d1"))["status"])
    assert status == "disabled"


def test_the_keys_of_a_file_replace_the_stored_ones(settings: Settings) -> None:
    with Emulator(settings) as emulator:
        emulator.register_device("d2")
    keys = {"d2": _KEY, "service": _KEY, "unknown": _KEY}
    with Emulator(replace(settings, keys=keys)) as emulator:
        assert key_of(emulator.device_connection_string("d2")) == _KEY
        assert key_of(emulator.device_connection_string("d1")) != _KEY
        assert key_of(emulator.policy_connection_string("service")) == _KEY
        assert ids(emulator) == ["d1", "d2"]


def test_random_keys_are_those_of_the_first_start(settings: Settings) -> None:
    settings = replace(settings, host="0.0.0.0", names=("localhost",))
    keys = []
    for _ in range(2):
        with Emulator(settings) as emulator:
            texts = emulator.device_connection_string("d1"), emulator.service_connection_string
            keys.append([key_of(each) for each in texts])
    assert keys[0] == keys[1]


def test_each_host_has_its_own_file(settings: Settings) -> None:
    with Emulator(settings) as emulator:
        emulator.register_device("d2")
    with Emulator(replace(settings, host=free_loopback_address())) as emulator:
        assert ids(emulator) == ["d1"]
    with Emulator(settings) as emulator:
        assert ids(emulator) == ["d1", "d2"]


def test_a_second_hub_on_the_same_host_says_what_to_do(settings: Settings) -> None:
    with Emulator(settings), pytest.raises(StartError) as error:
        Emulator(settings).__enter__()  # its ports are others
    assert re.fullmatch(
        r"\S+ is in use by another emulator\. Stop it, or use another folder: "
        r"Settings\(data_dir=\.\.\.\)\. Or keep nothing: --in-memory\.",
        str(error.value),
    )


def test_another_number_of_partitions_is_a_warning(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    Emulator(settings).__enter__().__exit__()
    assert caplog.text == ""
    with Emulator(replace(settings, partitions=8)) as emulator:
        assert len(emulator._call(lambda hub: hub.events.partitions)) == 4
    assert "The hub has 4 partitions, not 8" in caplog.text


def test_a_start_that_names_no_number_of_partitions_is_no_warning(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    Emulator(replace(settings, partitions=8)).__enter__().__exit__()
    with Emulator(settings) as emulator:
        assert len(emulator._call(lambda hub: hub.events.partitions)) == 8
    assert caplog.text == ""
    Emulator(replace(settings, partitions=4)).__enter__().__exit__()
    assert "The hub has 8 partitions, not 4" in caplog.text


# --- the command


@pytest.mark.parametrize(
    ("words", "keeps"),
    [
        ([], True),
        (["--data-dir", "X"], True),
        (["--in-memory"], False),
        (["--in-memory", "--data-dir", "X"], False),
        (["tutorial"], False),
        (["tutorial", "--data-dir", "X"], True),
        (["tutorial", "--data-dir", "X", "--in-memory"], False),
    ],
)
def test_which_commands_keep_their_state(
    words: list[str], keeps: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("IOTHUB_EMULATOR_DATA_DIR", raising=False)
    settings = parse(words).settings
    assert (settings.data_dir is not None) is keeps
    assert settings.cert_dir is not None
    assert settings.recover is False
    assert parse([*words, "--recover"]).settings.recover is True


def test_the_command_keeps_its_state_in_the_folder_of_the_user(
    emulator: Emulator, tmp_path: Path
) -> None:
    host = free_loopback_address()
    environment = clean_environment(
        XDG_DATA_HOME=str(tmp_path), IOTHUB_EMULATOR_CERT_DIR=str(emulator.ca_file.parent)
    )
    for option, status in (("--quiet", 200), ("--quiet", 409), ("--in-memory", 200)):
        with EmulatorConsole("--host", host, option, environment=environment) as hub:
            body = {"deviceId": "mine"}
            assert hub.request("PUT", "/devices/mine", json=body).status_code == status
            assert hub.terminate() == 0
    assert (tmp_path / "local-iot-hub" / f"hub-{host}.sqlite").is_file()


def test_a_second_command_on_the_same_host_ends_in_one_line(
    emulator: Emulator, tmp_path: Path
) -> None:
    host, certificates = free_loopback_address(), emulator.ca_file.parent
    options = ("--host", host, "--data-dir", tmp_path, "--cert-dir", certificates)
    ports = [f"--{name}-port=0" for name in ("mqtt", "https", "amqps", "amqp", "uploads")]
    with EmulatorConsole(*options), Console("-m", "emulator", *options, *ports) as second:
        assert second.wait() == 1
        [line] = second.errors
        assert line.endswith("or use another folder: --data-dir DIR. Or keep nothing: --in-memory.")
    with EmulatorConsole(*options), EmulatorConsole(*options, *ports, "--in-memory"):
        pass
