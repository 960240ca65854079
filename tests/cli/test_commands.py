"""The commands beside the hub itself, as processes."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.settings import WELL_KNOWN_PRIMARY_KEY, table
from emulator.testing.addresses import free_loopback_address
from tests.cli.test_start import ANY_PORTS
from tests.processes import Console, EmulatorConsole, clean_environment, posix_only
from tests.x509 import issue

COMMANDS = (
    *("run", "status", "env", "token", "ca", "clock", "fault", "config"),
    *("snapshot", "restore", "reset"),
)
PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS has one loopback address, so these hubs would meet"
)


@pytest.fixture
def quick(data_dir: Path, host: str) -> tuple[str | Path, ...]:
    """Options of a hub that takes no usual port, with certificates that are there."""
    return ("--host", host, *ANY_PORTS, "--cert-dir", data_dir)


def run_to_end(*arguments: str | Path, **variables: str) -> tuple[int, list[str], list[str]]:
    """Run a command to its end; return the status, and the lines of both streams."""
    with Console("-m", "emulator", *arguments, environment=clean_environment(**variables)) as run:
        status = run.wait()
    return status, run.lines, run.errors


# --- all


@pytest.mark.parametrize(
    "command", [*COMMANDS, "completion", "config check", "config apply", "config schema"]
)
def test_each_help_has_an_example(command: str) -> None:
    status, lines, errors = run_to_end(*command.split(), "--help")
    assert (status, errors) == (0, [])
    assert max(map(len, lines)) < 80
    text = "\n".join(lines)
    assert f"usage: python -m emulator {command}" in text
    assert re.search(rf"examples?:\n  python -m emulator {command}", text)


def test_the_help_of_run_has_its_own_defaults() -> None:
    text = " ".join(" ".join(run_to_end("run", "--help")[1]).split())
    assert "(default: a free loopback address, not localhost)" in text
    assert "(default: the hub keeps nothing)" in text


# What is wrong in its use, and the line that says so.
WRONG_USE: dict[str, tuple[tuple[str, ...], str]] = {
    "a command that is not the first word": (
        ("--quiet", "status"),
        r"The command status must be the first word\. --help shows the options\.",
    ),
    "a misspelt command": (("statsu",), r"Unknown command 'statsu'\. Use status\. --help .*"),
    "a command like no other": (
        ("deploy",),
        r"Unknown command 'deploy'\. Use tutorial, run, .*, query, .*",
    ),
    "an unknown option": (("status", "--jsn"), r"Unknown option --jsn\. Use --json\. --help .*"),
    "one word too many": (("status", "now"), r"Unexpected argument: now\. --help .*"),
    "no file": (("snapshot",), r"FILE is missing\. --help .*"),
    "no command to run": (("run",), r"The command is missing: python -m emulator run -- COMMAND.*"),
    "an option of a run that is misspelt": (
        ("run", "--devcie", "a", "npm", "test"),
        r"Unknown option --devcie\. Use --device\. --help .*",
    ),
    "an option of a run without its value": (
        ("run", "--device", "--", "npm", "test"),
        r"--device needs a value\. --help .*",
    ),
    "options of a run alone": (
        ("run", "--verbose", "--device", "a"),
        r"The command is missing: python -m emulator run -- COMMAND.*",
    ),
    "an unknown command of config": (
        ("config", "chek", "hub.toml"),
        r"Unknown command 'config chek'\. Use check, apply, schema\. --help .*",
    ),
    "a connection string that is not one": (
        ("status", "--login", "HostName=a"),
        r"--login: Invalid connection string of a service\. Use HostName=<host>;Shared.* --help .*",
    ),
    "a device's connection string": (
        ("query", "-q", "x", "--login", "HostName=a;DeviceId=b;SharedAccessKey=YQ=="),
        r"--login: Invalid connection string of a service\. .*",
    ),
    "an empty file": (("snapshot", ""), r"argument FILE: The value is empty\. --help .*"),
    "an empty snapshot": (("restore", ""), r"argument FILE: The value is empty\. --help .*"),
    "an empty file of env": (("env", "--file", ""), r"argument --file: The value is empty\. .*"),
    "an empty folder": (("ca", "create", "--dir", ""), r"argument --dir: The value is empty\. .*"),
    "an option of a hub": (("run", "--mqtt-port", "x", "--", "true"), "--mqtt-port: Invalid .*"),
    "json of a run": (("run", "--json", "--", "true"), "--json has no use for the command run.*"),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use_is_one_line_and_status_2(name: str) -> None:
    arguments, said = WRONG_USE[name]
    status, lines, errors = run_to_end(*arguments)
    assert (status, lines) == (2, [])
    assert len(errors) == 1
    assert re.fullmatch(f"emulator: {said}", errors[0]), errors[0]


# --- run


def test_run_sets_every_variable_and_says_nothing_itself(quick: tuple[str | Path, ...]) -> None:
    command = (sys.executable, "-c", PRINT_ENVIRONMENT)
    status, lines, errors = run_to_end("run", *quick, "--device", "pump", "--", *command, MINE="x")
    assert (status, errors, len(lines)) == (0, [], 1)
    found = json.loads(lines[0])
    assert found["MINE"] == "x"
    assert found["IOTHUB_DEVICE_ID"] == "pump"
    assert "DeviceId=pump;" in found["IOTHUB_DEVICE_CONNECTION_STRING"]
    assert "SharedAccessKeyName=iothubowner;" in found["IOTHUB_CONNECTION_STRING"]
    assert Path(found["SSL_CERT_FILE"]).name == "ca-bundle.pem"
    assert {"EVENTHUB_CONNECTION_STRING", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"} <= set(found)


PRINT_WORDS = "import os, sys; print(os.environ['IOTHUB_DEVICE_ID'], *sys.argv[1:])"


@pytest.mark.parametrize("options", [("--device", "pump"), ("--dev", "pump"), ("--device=pump",)])
def test_options_behind_the_program_of_a_run_are_its_own(
    quick: tuple[str | Path, ...], options: tuple[str, ...]
) -> None:
    own = ("--device", "x", "-q", "--verbose", "--", "-", "--help")
    command = (sys.executable, "-c", PRINT_WORDS, *own)
    assert run_to_end("run", *options, *quick, *command) == (0, [f"pump {' '.join(own)}"], [])


def test_run_takes_a_free_address_beside_another_hub(data_dir: Path) -> None:
    """Two at once, the second one inside the first one: each has an address of its own."""
    show = (sys.executable, "-c", "import os; print(os.environ['IOTHUB_DEVICE_CONNECTION_STRING'])")
    run = ("run", "--cert-dir", str(data_dir), "--")
    inner = (sys.executable, "-m", "emulator", *run, *show)
    program = f"import subprocess as s; s.run({show!r}); s.run({inner!r}, check=True)"
    status, lines, errors = run_to_end(*run, sys.executable, "-c", program)
    assert (status, errors) == (0, [])
    hosts = [line.split(";")[0].removeprefix("HostName=") for line in lines]
    assert len(hosts) == 2
    assert hosts[0] != hosts[1]
    assert all(each.startswith("127.") for each in hosts)


def test_a_command_inside_run_finds_its_hub(quick: tuple[str | Path, ...]) -> None:
    command = (sys.executable, "-m", "emulator", "status", "--json")
    status, lines, errors = run_to_end("run", *quick, "--", *command)
    assert (status, errors) == (0, [])
    assert json.loads(lines[0])["devices"]["totalDeviceCount"] == 1


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ((sys.executable, "-c", "raise SystemExit(7)"), 7, []),
        (("no-such-program",), 127, ["emulator: Can't run no-such-program: No such file .*"]),
        ((os.devnull,), 126, ["emulator: Can't run /dev/null: Permission denied."]),
    ],
)
def test_run_has_the_status_of_its_command(
    quick: tuple[str | Path, ...], program: tuple[str, ...], status: int, said: list[str]
) -> None:
    found, lines, errors = run_to_end("run", *quick, "--", *program)
    assert (found, lines, len(errors)) == (status, [], len(said))
    assert all(map(re.fullmatch, said, errors))


WAIT = """\
import signal, sys, time
def end(number, _):
    print(f"got {number}", flush=True)
    sys.exit(5)
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, end)
print("ready", flush=True)
time.sleep(60)
"""


@posix_only
def test_a_signal_reaches_the_command(quick: tuple[str | Path, ...]) -> None:
    arguments = ("-m", "emulator", "run", *quick, "--", sys.executable, "-c", WAIT)
    with Console(*arguments) as run:
        run.wait_for("ready")
        assert run.terminate() == 5
        assert run.lines[-1] == "got 15"
        assert run.errors == []
        assert not run.left_programs


@posix_only
def test_a_command_that_a_signal_ends_has_the_status_of_a_shell(
    quick: tuple[str | Path, ...],
) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    status, _, errors = run_to_end("run", *quick, "--", sys.executable, "-c", program)
    assert (status, errors) == (128 + 9, [])


def test_the_log_of_run_is_shown_if_it_is_asked_for(quick: tuple[str | Path, ...]) -> None:
    command = (sys.executable, "-m", "emulator", "status")
    status, _, errors = run_to_end("run", *quick, "--verbose", "--", *command)
    assert status == 0
    assert any("GET '/_emulator/info': 200" in line for line in errors)


def test_a_hub_that_cannot_start_runs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    status, lines, errors = run_to_end("run", "--config", file, "--", "echo", "ran")
    assert (status, lines) == (1, [])
    assert errors == [f"emulator: {file}: Can't read the file: No such file or directory."]


# --- status, and how a command finds its hub


def test_status_finds_the_hub_by_its_private_file(
    hub: EmulatorConsole, host: str, data_dir: Path
) -> None:
    file = data_dir / f"{host}-8883.hub.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    status, lines, errors = run_to_end("status", "--data-dir", data_dir)
    assert (status, errors) == (0, [])
    found = dict(re.split(r" {2,}", line, maxsplit=1) for line in lines)
    assert re.fullmatch(rf"{host}(:8443)?, version \d+\.\S+", found["hub"])
    assert re.match(r"20\d\d-\d\d-\d\dT", found["since"])
    assert found["ports"].startswith("mqtt 8883, https ")
    assert found["devices"] == "2, 0 connected"
    assert found["clock"].endswith(", as this machine")
    assert found["faults"] == "none"


def test_status_shows_active_faults_and_an_advanced_clock(
    quick: tuple[str | Path, ...], tmp_path: Path
) -> None:
    with EmulatorConsole(*quick, "--data-dir", tmp_path) as hub:
        hub.request("POST", "/_emulator/faults", json={"kind": "throttle", "device": "cellar"})
        hub.request("POST", "/_emulator/clock", json={"advance": 90})
        _, lines, _ = run_to_end("status", "--data-dir", tmp_path)
    assert lines[-3].endswith(", 90 s ahead of this machine")
    assert lines[-2] == "faults   1"
    assert json.loads(lines[-1])["kind"] == "throttle"


def test_status_finds_the_hub_by_variable_and_by_login(hub: EmulatorConsole) -> None:
    login = hub.variables["IOTHUB_CONNECTION_STRING"]
    trust = {"SSL_CERT_FILE": hub.variables["SSL_CERT_FILE"]}
    for arguments, variables in (
        ((), {"IOTHUB_CONNECTION_STRING": login}),
        (("--login", login), {"IOTHUB_CONNECTION_STRING": "HostName=none"}),
    ):
        status, lines, errors = run_to_end("status", "--json", *arguments, **variables, **trust)
        assert (status, errors) == (0, [])
        assert json.loads(lines[0])["devices"]["totalDeviceCount"] == 2


def test_several_hubs_are_told_apart_by_their_host(
    hub: EmulatorConsole, host: str, data_dir: Path
) -> None:
    other = free_loopback_address()
    with EmulatorConsole("--host", other, "--data-dir", data_dir) as second:
        status, _, errors = run_to_end("status", "--data-dir", data_dir)
        hosts = ", ".join(sorted((host, other)))
        said = f"emulator: Several hubs run: {hosts}. Choose one: --host HOST."
        assert (status, errors) == (1, [said])
        status, lines, _ = run_to_end("status", "--json", "--data-dir", data_dir, "--host", other)
        assert status == 0
        assert json.loads(lines[0])["hostName"] == other
        second.terminate()
    assert [*data_dir.glob("*.hub.json")] == [data_dir / f"{host}-8883.hub.json"]


def test_a_command_reaches_a_hub_whose_name_this_machine_cannot_resolve(
    tmp_path: Path,
) -> None:
    arguments = ("--host", free_loopback_address(), "--name", "hub.invalid")
    with EmulatorConsole(*arguments, "--data-dir", tmp_path):
        status, lines, errors = run_to_end("status", "--data-dir", tmp_path)
    assert (status, errors) == (0, [])
    assert lines[0].startswith("hub      hub.invalid, version ")


def away(folder: Path) -> tuple[str, ...]:
    """Return the options for a hub that was killed: its file is there."""
    free = free_loopback_address()
    policy = f"SharedAccessKeyName=iothubowner;SharedAccessKey={WELL_KNOWN_PRIMARY_KEY}"
    document = {
        "pid": 1,
        "host": free,
        "port": 8443,
        "environment": {},
        "ca": str(folder / "ca.pem"),
        "connectionString": f"HostName={free};{policy}",
    }
    (folder / "gone.hub.json").write_text(json.dumps(document))
    (folder / "half.hub.json").write_text("{")
    return ("--data-dir", str(folder))


def strange(folder: Path, text: str) -> tuple[str, ...]:
    """Name a folder whose file is not that of a hub."""
    (folder / "strange.hub.json").write_text(text)
    return ("--data-dir", str(folder))


_NONE_HERE = r"No hub runs here\. Start it: python -m emulator\. Or name another one: --login .*"

# The options of `status`, and the line that says what to do.
NOT_FOUND: dict[str, tuple[Callable[[Path], tuple[str, ...]], str]] = {
    "no hub": (lambda folder: ("--data-dir", str(folder)), _NONE_HERE),
    "a file with a list": (lambda folder: strange(folder, "[]"), _NONE_HERE),
    "a file that lacks a member": (
        lambda folder: strange(folder, '{"pid": 1, "host": "localhost", "port": 1}'),
        _NONE_HERE,
    ),
    "a file with a number for a text": (
        lambda folder: strange(
            folder,
            '{"pid":1,"host":3,"connectionString":"a","port":1,"ca":"a","environment":{}}',
        ),
        _NONE_HERE,
    ),
    "no such host": (
        lambda folder: ("--data-dir", str(folder), "--host", "127.0.0.9"),
        r"No hub runs here on 127\.0\.0\.9\. Start it: python -m emulator --host 127\.0\.0\.9\. .*",
    ),
    "a hub that was killed": (
        away,
        r"Can't reach the hub at (127\.\S+): connection refused\. Start it: python -m emulator "
        r"--host \1",
    ),
    "an unknown name": (
        lambda _: ("--login", "HostName=a.invalid;SharedAccessKeyName=p;SharedAccessKey=YQ=="),
        r"Can't reach the hub at a\.invalid: .*\. Use a name or an address of .*",
    ),
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_a_hub_that_is_not_found_is_one_line(name: str, tmp_path: Path) -> None:
    options, said = NOT_FOUND[name]
    status, lines, errors = run_to_end("status", *options(tmp_path))
    assert (status, lines, len(errors)) == (1, [], 1)
    assert re.fullmatch(f"emulator: {said}", errors[0]), errors[0]


def test_a_variable_that_is_no_connection_string_is_named() -> None:
    status, lines, errors = run_to_end("status", IOTHUB_CONNECTION_STRING="HostName=a")
    assert (status, lines, len(errors)) == (2, [], 1)
    assert errors[0].startswith("emulator: IOTHUB_CONNECTION_STRING: Invalid connection string of")
    name = "PROVISIONING_CONNECTION_STRING"
    status, lines, errors = run_to_end("enrollment", "list", **{name: "HostName=a"})
    assert (status, lines, len(errors)) == (2, [], 1)
    assert errors[0].startswith(f"emulator: {name}: Invalid connection string of a service.")


def test_a_wrong_key_and_a_certificate_that_is_not_trusted(
    hub: EmulatorConsole, data_dir: Path, tmp_path: Path
) -> None:
    login = hub.variables["IOTHUB_CONNECTION_STRING"]
    wrong = re.sub("SharedAccessKey=.*", "SharedAccessKey=YQ==", login)
    status, _, errors = run_to_end("status", "--data-dir", data_dir, "--login", wrong)
    assert (status, len(errors)) == (1, 1)
    assert "answers 401 IotHubUnauthorizedAccess: " in errors[0]
    assert errors[0].endswith(". Check --login; the window of a local hub says why.")
    trust = {"SSL_CERT_FILE": hub.variables["SSL_CERT_FILE"]}
    for words, variable in (
        (("status",), "IOTHUB_CONNECTION_STRING"),
        (("device-identity", "list"), "IOTHUB_CONNECTION_STRING"),
        (("enrollment", "list"), "PROVISIONING_CONNECTION_STRING"),
    ):
        status, _, errors = run_to_end(*words, **{variable: wrong}, **trust)
        assert (status, len(errors)) == (1, 1)
        assert errors[0].endswith(f". Check {variable}; the window of a local hub says why.")
    status, _, errors = run_to_end("status", "--data-dir", tmp_path, "--login", login)
    assert (status, len(errors)) == (1, 1)
    assert re.search(r"its certificate is not trusted \(.*\)\. Set SSL_CERT_FILE to", errors[0])


# --- config


def test_config_prints_each_setting_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("host = '127.0.0.9'\nretention = '12h'\npartitions = 2")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"iothubowner": WELL_KNOWN_PRIMARY_KEY}))
    arguments = ("config", "--config", file, "--partitions", "3", "--keys", keys, "--verbose")
    status, lines, errors = run_to_end(
        *arguments, IOTHUB_EMULATOR_THROTTLE="S1", IOTHUB_EMULATOR_RETENTION="2h"
    )
    assert (status, errors) == (0, [])
    found = json.loads("\n".join(lines))
    keys_of_settings = [setting.key for setting in table().values()]
    assert [*found][: len(keys_of_settings)] == keys_of_settings
    assert found["config"] == {"value": str(file), "from": "--config"}
    assert found["host"] == {"value": "127.0.0.9", "from": str(file)}
    assert found["retention"] == {"value": 7200.0, "from": "IOTHUB_EMULATOR_RETENTION"}
    assert found["partitions"] == {"value": 3, "from": "--partitions"}
    assert found["throttle"] == {"value": ["S1"], "from": "IOTHUB_EMULATOR_THROTTLE"}
    assert found["mqtt-port"] == {"value": 8883, "from": "default"}
    assert found["keys"] == {"value": {"iothubowner": "***"}, "from": "--keys"}
    assert found["verbose"] == {"value": True, "from": "--verbose"}
    _, lines, _ = run_to_end(*arguments, "--show-keys")
    assert json.loads("\n".join(lines))["keys"]["value"] == {"iothubowner": WELL_KNOWN_PRIMARY_KEY}


def test_config_check_shows_every_mistake(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("devices = [{id = 'a', tgas = 1}, {id = 'b', status = 'off'}]")
    status, lines, errors = run_to_end("config", "check", file)
    assert (status, lines) == (1, [])
    assert errors == [
        f"emulator: {file}: devices[0]: Unknown member 'tgas'. Use tags.",
        f"emulator: {file}: devices[1].status: Invalid value 'off': use disabled or enabled.",
    ]
    file.write_text("host = 'a'\ndevices = [{id = 'a'}, {id = 'b c'}]")
    status, lines, errors = run_to_end("config", "check", file)
    assert (status, lines, len(errors)) == (1, [], 1)
    assert errors[0].startswith(f"emulator: {file}: devices[1].id: The hub refuses it: Invalid id")
    file.write_text("host = 'a'\ndevices = [{id = 'a'}, {id = 'b'}]")
    numbers = "0 policies, 2 devices, 0 certificates, 0 configurations, 0 faults"
    said = f"{file} is valid: 1 settings, {numbers}."
    assert run_to_end("config", "check", file) == (0, [said], [])


@posix_only
@pytest.mark.parametrize("command", ["check", "apply"])
def test_config_reads_no_pipe(command: str, tmp_path: Path) -> None:
    pipe = tmp_path / "hub.toml"
    os.mkfifo(pipe)
    said = f"emulator: {pipe}: Can't read the file: it is not a regular file."
    assert run_to_end("config", command, pipe) == (1, [], [said])


def test_config_apply_changes_the_hub_that_runs(
    hub: EmulatorConsole, data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(
        "retention = '2h'\n"
        "devices = [{id = 'kitchen', tags = {floor = 1}}, {id = 'attic', desired = {x = 1.50}}]"
    )
    apply = ("config", "apply", file, "--data-dir", data_dir)
    status, lines, errors = run_to_end(*apply)
    assert (status, lines) == (0, [f"Applied {file}: 1 created, 1 changed, 0 deleted."])
    restart = f"python -m emulator --config {file}"
    assert errors == [f"emulator: Not applied: retention. They need a restart: {restart}"]
    assert hub.request("GET", "/twins/kitchen").json()["tags"] == {"floor": 1}
    assert len(hub.request("GET", "/devices").json()) == 3
    file.write_text("")
    status, lines, errors = run_to_end(*apply)
    assert (lines, errors) == ([f"Applied {file}: 0 created, 1 changed, 1 deleted."], [])
    assert run_to_end(*apply) == (0, [f"Applied {file}: nothing has changed."], [])
    assert "tags" not in hub.request("GET", "/twins/kitchen").json()
    assert len(hub.request("GET", "/devices").json()) == 2


# The settings of a hub: in its file, in another version of the file, and which of them differ.
OTHER_KEY = "bXkga2V5LCB1c2VkIGhlcmUgb25seQ=="
POLICY = "policies = [{name = 'p', rights = ['RegistryRead'], primaryKey = '%s'}]\n"
OF_HUB = f"host = '127.0.0.1'\nretention = '2h'\n{POLICY % WELL_KNOWN_PRIMARY_KEY}"
CHANGED_SETTINGS = {
    "none": (OF_HUB, ""),
    "a comment": (f"# mine\n{OF_HUB}", ""),
    "the same in another form": (OF_HUB.replace("2h", "120m"), ""),
    "what an option of the hub says": (f"{OF_HUB}partitions = 2\n", ""),
    "another value": (OF_HUB.replace("2h", "3h"), "retention"),
    "a new one": (f"device = ['x']\n{OF_HUB}", "device"),
    "one that is gone": (OF_HUB.replace("retention = '2h'", ""), "retention"),
    "a key": (
        OF_HUB.replace(WELL_KNOWN_PRIMARY_KEY, OTHER_KEY),
        "policies",
    ),
    "all": ("", "host, retention, policies"),
}


def test_config_apply_names_the_settings_that_have_changed(
    quick: tuple[str | Path, ...], tmp_path: Path
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(OF_HUB)
    options = ("--config", file, "--data-dir", tmp_path, "--partitions", "2")
    with EmulatorConsole(*quick, *options) as hub:
        private = next(tmp_path.glob("*.hub.json"))
        settings = json.loads(private.read_text())["settings"]
        assert WELL_KNOWN_PRIMARY_KEY not in json.dumps(settings)
        pasted = ("IOTHUB_CONNECTION_STRING", "SSL_CERT_FILE")
        variables = {name: hub.variables[name] for name in pasted}
        variables["IOTHUB_EMULATOR_DATA_DIR"] = str(tmp_path)
        said = f"Applied {file}: nothing has changed."
        restart = f"They need a restart: python -m emulator --config {file}"
        for name, (text, changed) in CHANGED_SETTINGS.items():
            file.write_text(text)
            errors = [f"emulator: Not applied: {changed}. {restart}"] if changed else []
            found = run_to_end("config", "apply", file, "--data-dir", tmp_path)
            assert found == (0, [said], errors), name
        # A console with the variables of the hub.
        assert run_to_end("config", "apply", file, **variables) == (0, [said], errors)
        # The settings of a hub on another machine are unknown.
        file.write_text(OF_HUB)
        private.rename(tmp_path / "away")
        errors = [
            "emulator: Not applied: host, retention, policies. They need a restart if they have "
            f"changed: python -m emulator --config {file}"
        ]
        assert run_to_end("config", "apply", file, **variables) == (0, [said], errors)


def test_config_apply_begins_the_faults_of_a_file_anew(
    hub: EmulatorConsole, data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("faults = [{kind = 'throttle', device = 'cellar', operation = 'read-twin'}]")
    apply = ("config", "apply", file, "--data-dir", data_dir)
    for _ in range(2):
        said = f"Applied {file}: nothing has changed. Its faults begin anew."
        assert run_to_end(*apply) == (0, [said], [])
    (fault,) = hub.request("GET", "/_emulator/faults").json()
    assert fault["kind"] == "throttle"
    file.write_text("")
    run_to_end(*apply)
    assert hub.request("GET", "/_emulator/faults").json() == []


def test_config_apply_reads_a_ca_beside_the_file(
    hub: EmulatorConsole, data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "ca").mkdir()
    issue("Root", ca=True).certificate_file(tmp_path).rename(tmp_path / "ca" / "root.pem")
    file = tmp_path / "hub.toml"
    file.write_text("certificates = [{name = 'factory', path = 'ca/root.pem'}]")
    for content, count in ((file.read_text(), 1), ("", 0)):
        file.write_text(content)
        status, _, errors = run_to_end("config", "apply", file, "--data-dir", data_dir)
        assert (status, errors) == (0, [])
        found = hub.request("GET", "/_emulator/certificates").json()["value"]
        assert [each["name"] for each in found] == ["factory"] * count


# --- snapshot, restore, reset


def devices(hub: EmulatorConsole) -> list[str]:
    return [each["deviceId"] for each in hub.request("GET", "/devices").json()]


def test_snapshot_restore_and_reset_of_a_hub_from_a_file(
    quick: tuple[str | Path, ...], tmp_path: Path
) -> None:
    config, snapshot = tmp_path / "hub.toml", tmp_path / "hub.snapshot"
    config.write_text("devices = [{id = 'mine', tags = {floor = 1}}]")
    with EmulatorConsole(*quick, "--data-dir", tmp_path, "--config", config) as hub:
        to = ("--data-dir", str(tmp_path))
        hub.request("PUT", "/devices/theirs", json={"deviceId": "theirs"})
        hub.request("PATCH", "/twins/mine", json={"tags": {"floor": 2}})

        status, lines, errors = run_to_end("snapshot", snapshot, *to)
        assert (status, errors) == (0, [])
        assert lines == [f"Wrote {snapshot.stat().st_size} bytes to {snapshot}."]
        assert stat.S_IMODE(snapshot.stat().st_mode) == 0o600

        assert run_to_end("reset", "--events", *to) == (0, ["The hub has no events."], [])
        assert devices(hub) == ["mine", "theirs"]

        assert run_to_end("reset", *to) == (0, ["The hub is reset."], [])
        assert devices(hub) == ["mine"]
        assert hub.request("GET", "/twins/mine").json()["tags"] == {"floor": 1}

        said = [f"The hub has the state in {snapshot}."]
        assert run_to_end("restore", snapshot, *to) == (0, said, [])
        assert devices(hub) == ["mine", "theirs"]
        assert hub.request("GET", "/twins/mine").json()["tags"] == {"floor": 2}
        # The hub still knows what its file has created.
        config.write_text("")
        assert run_to_end("config", "apply", config, *to)[0] == 0
        assert devices(hub) == ["theirs"]


def test_a_snapshot_that_cannot_be_written_or_read(
    hub: EmulatorConsole, data_dir: Path, tmp_path: Path
) -> None:
    to = ("--data-dir", str(data_dir))
    none = tmp_path / "none"
    said = f"emulator: Can't write {none / 'file'}: No such file or directory."
    assert run_to_end("snapshot", none / "file", *to) == (1, [], [said])
    said = f"emulator: Can't read {none}: No such file or directory."
    assert run_to_end("restore", none, *to) == (1, [], [said])
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"no snapshot")
    status, lines, errors = run_to_end("restore", wrong, *to)
    assert (status, lines, len(errors)) == (1, [], 1)
    assert " answers 400 ArgumentInvalid: " in errors[0]
    assert devices(hub) == ["kitchen", "cellar"]
