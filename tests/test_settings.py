"""The table of settings: their names, and what makes their values."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from emulator import Settings
from emulator.errors import StartError
from emulator.setting import SettingError
from emulator.settings import in_program, read, table, user_folder

OPTIONS = {
    *("--host", "--mqtt-port", "--https-port", "--device", "--keys", "--client-ca", "--data-dir"),
    *("--amqps-port", "--amqp-port", "--cert-dir", "--throttle", "--storage", "--storage-host"),
    *("--partitions", "--consumer-group", "--retention", "--event-log-size", "--events"),
    *("--name", "--entra", "--recover", "--config", "--fault-messages", "--no-dps"),
    "--sas-tolerance",
    "--http-port",
    *("--uploads-port", "--upload-storage", "--no-uploads"),
}


def test_each_field_is_a_setting_with_three_names() -> None:
    settings = table()
    assert [*settings] == [field.name for field in fields(Settings)]
    assert {setting.option for setting in settings.values()} == OPTIONS
    for setting in settings.values():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", setting.key)
        assert setting.option == f"--{setting.key}"
        assert setting.variable == f"IOTHUB_EMULATOR_{setting.key.upper().replace('-', '_')}"


def test_a_setting_with_several_values_is_a_tuple() -> None:
    defaults = Settings()
    assert {name for name, setting in table().items() if setting.many} == {
        name for name in table() if isinstance(getattr(defaults, name), tuple)
    }


def test_without_options_and_variables_settings_have_their_defaults() -> None:
    assert read({}, {}) == Settings()
    assert read(dict.fromkeys(table()), {"IOTHUB_EMULATOR_HOST": ""}) == Settings()


PATHS = f"a{os.pathsep}b c"


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ({"host": ["::1"]}, {}, {"host": "::1"}),
        ({"mqtt_port": ["1", "2"]}, {}, {"mqtt_port": 2}),
        ({"devices": ["a", "b"]}, {}, {"devices": ("a", "b")}),
        ({"cert_dir": ["here"]}, {}, {"cert_dir": Path("here")}),
        ({}, {"HOST": "::1"}, {"host": "::1"}),
        ({}, {"HTTPS_PORT": "443"}, {"https_port": 443}),
        ({}, {"DEVICE": " a  b\n"}, {"devices": ("a", "b")}),
        ({}, {"THROTTLE": "S1 queries=20/min"}, {"throttle": ("S1", "queries=20/min")}),
        ({"names": ["hub", "::1"]}, {}, {"names": ("hub", "::1")}),
        ({}, {"NAME": "hub localhost"}, {"names": ("hub", "localhost")}),
        ({"entra": ["accept"]}, {}, {"entra": "accept"}),
        ({}, {"ENTRA": "accept"}, {"entra": "accept"}),
        ({}, {"STORAGE": "my folder"}, {"storage": Path("my folder")}),
        ({}, {"CLIENT_CA": PATHS}, {"authorities": (Path("a"), Path("b c"))}),
        ({"devices": ["a"]}, {"DEVICE": "b c"}, {"devices": ("a",)}),
        ({"mqtt_port": ["1"]}, {"MQTT_PORT": "no port"}, {"mqtt_port": 1}),
    ],
)
def test_an_option_beats_a_variable_which_beats_the_default(
    options: dict[str, list[str]], environ: Mapping[str, str], expected: dict[str, object]
) -> None:
    variables = {f"IOTHUB_EMULATOR_{name}": text for name, text in environ.items()}
    assert read(options, variables) == Settings(**expected)


@pytest.mark.parametrize("text", ["-1", "65536", "1.0", "http", "\uff11"])
def test_a_wrong_value_is_named_with_its_source(text: str) -> None:
    said = re.escape(f"Invalid port {text!r}: use a number from 0 to 65535.")
    with pytest.raises(SettingError, match=f"^--mqtt-port: {said}$"):
        read({"mqtt_port": [text]}, {})
    with pytest.raises(SettingError, match=f"^IOTHUB_EMULATOR_MQTT_PORT: {said}$"):
        read({}, {"IOTHUB_EMULATOR_MQTT_PORT": text})


@pytest.mark.parametrize("text", ["Accept", "yes", "1", "accept "])
def test_another_value_of_entra_is_named(text: str) -> None:
    with pytest.raises(SettingError, match=f"^--entra: Invalid value '{text}': use accept.$"):
        read({"entra": [text]}, {})


# --- this user's folder


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="other systems have other folders")
def test_the_users_folder_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert user_folder() == Path("/data/local-iot-hub")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", value)
        assert user_folder() == tmp_path / ".local/share/local-iot-hub"


@pytest.mark.skipif(sys.platform != "darwin", reason="macOS only")
def test_the_users_folder_on_macos() -> None:
    assert user_folder() == Path.home() / "Library" / "Application Support" / "local-iot-hub"


@pytest.mark.skipif(sys.platform != "win32", reason="Windows only")
def test_the_users_folder_on_windows() -> None:
    assert user_folder() == Path(os.environ["LOCALAPPDATA"]) / "local-iot-hub"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such users")
def test_a_user_without_a_home_is_told_to_choose_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    # As in a container that runs as a user of no name.
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    with pytest.raises(StartError, match=r"^This user has no home folder\. .* --data-dir DIR\.$"):
        user_folder()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"devices": "thermostat"}, "devices is the text 'thermostat'. Use a tuple: "),
        ({"throttle": "S1"}, "throttle is the text 'S1'"),
        ({"throttle": ("S1", "S2")}, "'S2' contradicts another throttle: use one of them."),
        ({"http_port": 8883}, "Port 8883 is that of mqtt_port already. Use another one: Settings("),
        ({"host": "a b"}, "Invalid host 'a b': use a host name or an IP address."),
        ({"mqtt_port": 70000}, "Invalid mqtt_port 70000: use a number from 0 to 65535"),
        ({"https_port": "8443"}, "Invalid https_port '8443'"),
        ({"names": "hub"}, "names is the text 'hub'"),
        ({"entra": "yes"}, "Invalid entra 'yes': use 'accept'."),
        *(
            ({"entra": "accept", "host": host}, f"entra is not allowed on host {host!r}")
            for host in ("0.0.0.0", "::", "192.0.2.1", "hub.example", "localhost.example")
        ),
    ],
)
def test_a_wrong_value_in_a_program_is_one_clear_error(values: dict[str, Any], text: str) -> None:
    with pytest.raises(StartError, match=re.escape(text)):
        Settings(**values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Use another address: --host 127.0.0.2.",
            "Use another address: Settings(host='127.0.0.2').",
        ),
        ("Choose a folder: --data-dir DIR.", "Choose a folder: Settings(data_dir=...)."),
        ("or another port: --mqtt-port PORT.", "or another port: Settings(mqtt_port=...)."),
        ("Can't use a.pem for --client-ca: it", "Can't use a.pem for authorities: it"),
        ("Nothing -- to replace, --help neither", "Nothing -- to replace, --help neither"),
    ],
)
def test_in_a_program_an_error_names_fields(text: str, expected: str) -> None:
    assert in_program(text) == expected


# --- the event log


def test_the_event_log_has_its_settings() -> None:
    options = {
        "partitions": ["2"],
        "consumer_groups": ["mine", "$Default"],
        "retention": ["12h"],
        "event_log_size": ["50000", "256MB"],
        "events": ["twinChangeEvents,deviceLifecycleEvents", "twinChangeEvents"],
    }
    settings = read(options, {})
    assert (settings.partitions, settings.retention) == (2, 12 * 60 * 60)
    assert settings.consumer_groups == ("mine", "$Default")
    assert settings.event_log_bounds == {"events": 50_000, "size": 256 * 1024 * 1024}
    assert settings.event_sources == {"twinChangeEvents", "deviceLifecycleEvents"}
    assert len(read({"events": ["all"]}, {}).event_sources) == 5
    assert Settings().event_sources == set()
    assert Settings().event_log_bounds == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("partitions", each) for each in ("0", "129", "x", "-1", "٣")),
        *(("retention", each) for each in ("0s", "1", "1w", "-1d", "1.5h")),
        *(("event_log_size", each) for each in ("0", "x", "1TB", "1 MB", "-1")),
        *(("consumer_groups", each) for each in ("", "a/b", "a b", "$Other", "a" * 51)),
        *(("events", each) for each in ("", "Telemetry", "all,x", "twinchangeevents")),
    ],
)
def test_an_invalid_setting_of_the_event_log_is_refused(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=f"{table()[name].option}: Invalid"):
        read({name: [text]}, {})


@pytest.mark.parametrize(
    ("name", "text"),
    [*(("retention", each) for each in ("0s", "00d")), ("event_log_size", "0MB")],
)
def test_a_value_of_0_is_refused_for_being_0(name: str, text: str) -> None:
    with pytest.raises(SettingError, match=rf"Invalid .*'{text}': use more than 0\.$"):
        read({name: [text]}, {})


def test_a_hub_has_20_consumer_groups_at_most() -> None:
    names = tuple(f"g{number}" for number in range(19))
    assert Settings(consumer_groups=(*names, "$Default")).consumer_groups[0] == "g0"
    with pytest.raises(StartError, match="20 consumer groups: use 19 at most"):
        Settings(consumer_groups=(*names, "one-more"))


def test_the_tolerance_of_tokens_is_a_time() -> None:
    assert read({"sas_tolerance": ["300s"]}, {}).sas_tolerance == 300
    assert read({"sas_tolerance": ["0s"]}, {}).sas_tolerance == Settings().sas_tolerance == 0
    assert read({"sas_tolerance": ["0m"]}, {}).sas_tolerance == 0
    with pytest.raises(SettingError, match="--sas-tolerance: Invalid time '300': use a number and"):
        read({"sas_tolerance": ["300"]}, {})


@pytest.mark.parametrize(
    "values",
    [
        {"partitions": 0},
        {"host": ""},
        {"retention": 0},
        {"sas_tolerance": -1},
        {"sas_tolerance": math.nan},
        {"event_log_size": ("1TB",)},
        {"consumer_groups": ("a b",)},
        {"events": ("x",)},
    ],
)
def test_a_program_gets_an_error_for_such_a_setting(values: dict[str, Any]) -> None:
    with pytest.raises(StartError, match="Invalid"):
        Settings(**values)
