"""`python -m emulator` as a person meets it: a process, its two streams and its exit status."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from emulator.program import program
from emulator.settings import WELL_KNOWN_PRIMARY_KEY, table
from emulator.testing.addresses import free_loopback_address
from tests.devices import METHODS, connect_device
from tests.mqtt.raw import Wire, connack, connect
from tests.processes import (
    END_SECONDS,
    ROOT,
    Console,
    EmulatorConsole,
    clean_environment,
    posix_only,
)
from tests.support import API_VERSION, sas_token

ANY_PORTS = tuple(f"--{kind}-port=0" for kind in ("mqtt", "https", "amqps", "amqp", "uploads"))

# Keys that stand nowhere else, so that a test can search for them.
POLICY_KEY = "cG9saWN5IGtleSBvZiB0aGUgY29tbWFuZCdzIHRlc3Rz"
DEVICE_KEY = "ZGV2aWNlIGtleSBvZiB0aGUgY29tbWFuZCdzIHRlc3Rz"


Usual = tuple[str | Path, ...]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name a shell must not take apart; certificates are made in it once."""
    return tmp_path_factory.mktemp("data") / "it's a $HOME"


@pytest.fixture(scope="module")
def usual(data_dir: Path) -> Usual:
    """The options of a hub that the device SDKs need not find."""
    return ("--host", "127.0.0.1", *ANY_PORTS, "--data-dir", data_dir)


@pytest.fixture(scope="module")
def host() -> str:
    return free_loopback_address()


@pytest.fixture(scope="module")
def hub(host: str, data_dir: Path) -> Iterator[EmulatorConsole]:
    """A hub with two devices, on the ports that it has by itself."""
    devices = ("--device", "kitchen", "--device", "cellar")
    with EmulatorConsole("--host", host, "--data-dir", data_dir, *devices) as console:
        yield console
        console.terminate()


PRINT_VARIABLES = "import json, os; print(json.dumps(dict(os.environ)))"


def https_host(host: str) -> str:
    """Return what a service's connection string names: a port, unless a hub has port 443."""
    with contextlib.suppress(OSError):
        socket.create_connection((host, 443), timeout=5).close()
        return host
    return f"{host}:8443"


def trust(hub: EmulatorConsole) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=hub.variables["SSL_CERT_FILE"])


# --- ready


def test_it_says_what_a_person_needs_next(hub: EmulatorConsole, host: str, data_dir: Path) -> None:
    key = WELL_KNOWN_PRIMARY_KEY
    bundle = str(data_dir / "ca-bundle.pem")
    https = https_host(host)
    service = f"HostName={https};SharedAccessKeyName=iothubowner;SharedAccessKey={key}"
    events = (
        f"Endpoint=sb://{host};SharedAccessKeyName=service;SharedAccessKey={key};"
        "UseDevelopmentEmulator=true;EntityPath=iothub-ehub-emulator"
    )
    kitchen = f"HostName={host};DeviceId=kitchen;SharedAccessKey={key}"
    services = [f"https://{each}" for each in dict.fromkeys((https, f"{host}:8443"))]
    assert [line for line in hub.lines if "port 443" not in line.lower()] == [
        f"  devices   mqtts://{host}:8883",
        f"  services  {'  '.join(services)}",
        f"  page      https://{host}:8443/",
        "  dps       id scope 0ne00010CA1 (the line below also sets PROVISIONING_…)",
        "In the console of each program, type this line, or paste those below it:",
        f"  . {shlex.quote(str(data_dir / f'{host}-8883.sh'))}",
        f"  export SSL_CERT_FILE={shlex.quote(bundle)}",
        f"  export REQUESTS_CA_BUNDLE={shlex.quote(bundle)}",
        f"  export NODE_EXTRA_CA_CERTS={shlex.quote(bundle)}",
        f"  export IOTHUB_DEVICE_CONNECTION_STRING='{kitchen}'",
        f"  export IOTHUB_CONNECTION_STRING='{service}'",
        f"  export EVENTHUB_CONNECTION_STRING='{events}'",
        "  export IOTHUB_DEVICE_ID=kitchen",
        "Other devices:",
        f"  HostName={host};DeviceId=cellar;SharedAccessKey={key}",
        "The hub is ready. Ctrl-C stops it.",
    ]
    assert hub.errors == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sh")
@pytest.mark.parametrize("way", ["paste", "source"])
def test_the_lines_and_their_file_set_the_same_variables(hub: EmulatorConsole, way: str) -> None:
    source = next(line for line in hub.lines if line.startswith("  . "))
    assert stat.S_IMODE(Path(shlex.split(source)[1]).stat().st_mode) == 0o600
    lines = hub.paste if way == "paste" else [source]
    printed = subprocess.run(
        ["sh", "-c", "\n".join([*lines, shlex.join([sys.executable, "-c", PRINT_VARIABLES])])],
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    found = json.loads(printed.stdout)
    assert found.items() >= hub.variables.items()
    assert len(hub.variables) == 7
    # Those of the Device Provisioning Service are in the file alone.
    names = {name for name in found if name.startswith("PROVISIONING_")}
    assert len(names) == (3 if way == "source" else 0)


DEVICE_PROGRAM = """\
import os
from azure.iot.device import IoTHubDeviceClient

client = IoTHubDeviceClient.create_from_connection_string(
    os.environ["IOTHUB_DEVICE_CONNECTION_STRING"]
)
client.connect()
print(client.get_twin()["desired"])
client.shutdown()
"""

SERVICE_PROGRAM = """\
import os
from azure.iot.hub import IoTHubRegistryManager

manager = IoTHubRegistryManager(os.environ["IOTHUB_CONNECTION_STRING"])
print(manager.get_device(os.environ["IOTHUB_DEVICE_ID"]).status)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sh")
@pytest.mark.parametrize(
    ("program", "shown"), [(DEVICE_PROGRAM, "{'$version': 1}"), (SERVICE_PROGRAM, "enabled")]
)
def test_what_is_pasted_into_a_shell_lets_an_sdk_reach_it(
    hub: EmulatorConsole, tmp_path: Path, program: str, shown: str
) -> None:
    if program is SERVICE_PROGRAM:
        pytest.importorskip(
            "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
        )
    file = tmp_path / "program.py"
    file.write_text(program)
    pasted = [*hub.paste, shlex.join([sys.executable, str(file)])]
    shell = subprocess.run(
        ["sh"],
        input="\n".join(pasted) + "\n",
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (shell.returncode, shell.stdout, shell.stderr) == (0, f"{shown}\n", "")


def test_it_is_ready_when_it_says_so_and_shows_the_ports_that_it_picked(usual: Usual) -> None:
    with Console("-m", "emulator", *usual) as console:
        console.wait_for(r"The hub is ready\..*")
        ports = [
            int(console.wait_for(rf"  {ends} .*").rpartition(":")[2])
            for ends in ("devices", "services")
        ]
        for port in ports:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert 0 not in ports
        assert 8883 not in ports
        # The SDKs dial 8883 alone, so it says that they can't come.
        console.wait_for(rf"Azure's device SDKs dial port 8883 .* on port {ports[0]}\.")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one loopback address")
def test_a_second_hub_runs_beside_the_first_on_another_address(
    hub: EmulatorConsole, data_dir: Path
) -> None:
    with EmulatorConsole("--host", free_loopback_address(), "--data-dir", data_dir) as other:
        assert [device["deviceId"] for device in other.request("GET", "/devices").json()] == [
            "myDeviceId"
        ]
    assert len(hub.request("GET", "/devices").json()) == 2


@posix_only
def test_the_line_to_type_works_in_every_folder(usual: Usual, tmp_path: Path) -> None:
    options = (*usual[:-1], "state")
    with EmulatorConsole(*options, folder=tmp_path) as hub:
        line = next(line for line in hub.lines if line.startswith("  . "))
        shell = ("sh", "-c", f"{line}; echo $IOTHUB_DEVICE_ID")
        assert subprocess.check_output(shell, cwd="/", text=True, timeout=10) == "myDeviceId\n"


@posix_only
def test_without_an_active_venv_a_message_has_the_path_of_python(tmp_path: Path) -> None:
    search = clean_environment(PATH=os.defpath)
    python = Path(sys.executable)
    if python.is_relative_to(ROOT):  # the folder in which it runs
        python = python.relative_to(ROOT)
    for environment, name in (
        (clean_environment(), "python"),
        (search, shlex.quote(str(python))),
    ):
        with Console(
            "-m", "emulator", "status", "--data-dir", tmp_path, environment=environment
        ) as run:
            assert run.wait() == 1
        assert f"Start it: {name} -m emulator. " in run.errors[0]


@posix_only
@pytest.mark.parametrize(
    ("started", "path", "typed"),
    [
        (".venv/bin/iothub-emulator", "", ".venv/bin/iothub-emulator"),
        ("{folder}/.venv/bin/iothub-emulator", "", ".venv/bin/iothub-emulator"),
        ("{folder}/.venv/bin/iothub-emulator", "{folder}/.venv/bin", "iothub-emulator"),
        ("{folder}/.venv/bin/iothub-emulator", "{folder}/other", ".venv/bin/iothub-emulator"),
        ("{folder}/a b/iothub-emulator", "", "'a b/iothub-emulator'"),
    ],
)
def test_a_program_that_is_not_on_the_path_is_called_by_its_own_path(
    started: str, path: str, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (".venv/bin", "other", "a b"):
        file = tmp_path / folder / "iothub-emulator"
        file.parent.mkdir(parents=True)
        file.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path.format(folder=tmp_path))
    monkeypatch.setattr(sys, "argv", [started.format(folder=tmp_path)])
    assert program() == typed


@pytest.mark.parametrize("name", ["python -m emulator", "iothub-emulator"])
def test_help_names_every_setting_the_tutorial_and_the_variables(name: str) -> None:
    program = (
        "import sys; sys.argv[0] = 'iothub-emulator'; from emulator.cli.main import main; main()"
    )
    way = ("-m", "emulator") if name == "python -m emulator" else ("-c", program)
    with Console(*way, "--help") as console:
        assert console.wait() == 0
    assert max(map(len, console.lines)) < 80  # the columns of a terminal
    text = " ".join("\n".join(console.lines).split())
    for setting in table().values():
        named = f"{setting.option} {setting.metavar}".strip()
        repeated = "; may be repeated" if setting.many else ""
        assert f"{named} {setting.help}{repeated} (default: {setting.default})" in text
    for option in ("--verbose log each", "--quiet log warnings", "--json print", "--version print"):
        assert option in text
    assert f"usage: {name} [-h]" in text
    assert f"{name} tutorial run the tutorial" in text
    assert "IOTHUB_EMULATOR_MQTT_PORT=8884 means --mqtt-port 8884" in text
    assert console.errors == []


def test_a_variable_stands_for_its_option_and_an_option_beats_it(
    data_dir: Path, tmp_path: Path
) -> None:
    variables = {
        "IOTHUB_EMULATOR_HOST": "127.0.0.1",
        "IOTHUB_EMULATOR_MQTT_PORT": "not a port, but not needed either",
        **{f"IOTHUB_EMULATOR_{kind}_PORT": "0" for kind in ("HTTPS", "AMQPS", "AMQP", "UPLOADS")},
        "IOTHUB_EMULATOR_DEVICE": "kitchen cellar",
        "IOTHUB_EMULATOR_DATA_DIR": str(tmp_path),
        "IOTHUB_EMULATOR_CERT_DIR": str(data_dir),
        "IOTHUB_EMULATOR_VERBOSE": "1",
    }
    environment = clean_environment(**variables)
    with EmulatorConsole("--mqtt-port", "0", environment=environment) as hub:
        assert list(hub.device_connection_strings) == ["kitchen", "cellar"]
        assert hub.variables["SSL_CERT_FILE"] == str(data_dir / "ca-bundle.pem")
        hub.terminate()
        assert hub.errors == []


# --- failures: one line that says what to do, and the exit status


def keys_file(folder: Path, content: str) -> tuple[str, Path]:
    file = folder / "keys.json"
    file.write_text(content)
    return "--keys", file


def file_in_place_of_a_folder(folder: Path) -> Path:
    file = folder / "file"
    file.touch()
    return file / "folder"


NO_KEY = "bm8ga2V5"

# The options of each failure, the exit status, and what the line must say.
FAILURES: dict[str, tuple[Callable[[Path], tuple[str | Path, ...]], int, str]] = {
    "an unknown option": (lambda _: ("--nonsense",), 2, "Unknown option --nonsense.*--help"),
    "an option like no other": (lambda _: ("--bogus",), 2, r"Unknown option --bogus\. --help"),
    "devices for device": (
        lambda _: ("--devices", "a"),
        2,
        r"Unknown option --devices\. Use --device\.",
    ),
    "devices for device, with =": (lambda _: ("--devices=a",), 2, r"--devices\. Use --device\."),
    "a port of which head": (
        lambda _: ("--port", "9000"),
        2,
        r"Unknown option --port\. Use --mqtt-port or --https-port",
    ),
    "a short option": (lambda _: ("-p", "9000"), 2, "Unknown option -p.*--help"),
    "a misspelt option": (lambda _: ("--verbos3",), 2, r"--verbos3\. Use --verbose\."),
    "a negative port": (lambda _: ("--mqtt-port", "-1"), 2, "Invalid port '-1'"),
    "verbose and quiet": (lambda _: ("--verbose", "--quiet"), 2, "--verbose and --quiet contra"),
    "a tutorial as JSON": (lambda _: ("tutorial", "--json"), 2, "--json has no use"),
    "a tutorial on a free port": (
        lambda _: ("tutorial", "--mqtt-port", "0"),
        2,
        "The tutorial can't use --mqtt-port 0: its device dials port 8883",
    ),
    "a tutorial on another port": (
        lambda _: ("tutorial", "--mqtt-port", "9883"),
        2,
        "--mqtt-port 9883: .* port 8883 and no other",
    ),
    "an unknown command": (
        lambda _: ("tutorials",),
        2,
        r"Unknown command 'tutorials'\. Use tutorial\. --h",
    ),
    "a port out of range": (
        lambda _: ("--mqtt-port", "65536"),
        2,
        "--mqtt-port: Invalid port '65536': use .*--help",
    ),
    "a port that is not a number": (lambda _: ("--https-port", "http"), 2, "Invalid port 'http'"),
    "an option without its value": (lambda _: ("--device",), 2, "--device needs a value. --h"),
    "a flag with a value": (lambda _: ("--quiet=1",), 2, "--quiet takes no value. --help"),
    "a device id that is not valid": (
        lambda _: ("--device", "a b"),
        2,
        "--device: Invalid id 'a b'.*--help",
    ),
    "a device without an id": (lambda _: ("--device", ""), 2, "--device: Invalid id ''"),
    "a host that is not one": (
        lambda _: ("--host", "a b"),
        2,
        "--host: Invalid host 'a b': use a host name or an IP address. --help",
    ),
    "an empty host": (lambda _: ("--host", ""), 2, "--host: Invalid host ''"),
    "a name that is not one": (lambda _: ("--name", "a", "--name", "b/c"), 2, "--name: .*'b/c'"),
    **{
        f"an empty {option}": (
            lambda _, option=option: (f"--{option}", ""),  # type: ignore[misc]
            2,
            f"--{option}: Invalid path '': use that of a {kind}. --help",
        )
        for option, kind in (
            *(("config", "file"), ("keys", "file"), ("client-ca", "file")),
            *(("data-dir", "folder"), ("cert-dir", "folder"), ("storage", "folder")),
        )
    },
    "an empty account": (lambda _: ("--upload-storage", ""), 2, "--upload-storage: The connection"),
    "bearer tokens on a network": (
        lambda _: ("--entra", "accept", "--host", "0.0.0.0"),
        2,
        "entra is not allowed on host '0.0.0.0'.*--help",
    ),
    "20 consumer groups": (
        lambda _: tuple(f"--consumer-group=g{number}" for number in range(20)),
        2,
        "20 consumer groups: use 19 at most. --help",
    ),
    "an address of another machine": (lambda _: ("--host", "192.0.2.1"), 1, "192.0.2.1.*--host"),
    "a data folder below a file": (
        lambda folder: ("--data-dir", file_in_place_of_a_folder(folder)),
        1,
        "file.folder",
    ),
    "a data folder below a file, but certificates elsewhere": (
        lambda folder: (
            *("--data-dir", file_in_place_of_a_folder(folder)),
            *("--cert-dir", folder, "--mqtt-port", "8899"),
        ),
        1,
        "--data-dir",
    ),
    "no file of keys": (
        lambda folder: ("--keys", folder / "none"),
        1,
        r"none: No such file or directory\.",
    ),
    "keys that are no JSON": (lambda folder: keys_file(folder, "{"), 1, "Can't read the keys in"),
    "keys that are a list": (lambda folder: keys_file(folder, "[]"), 1, "is not of the form"),
    "a key that is a number": (
        lambda folder: keys_file(folder, '{"iothubowner": 1}'),
        1,
        "is not of the form",
    ),
    "a key that is too short": (
        lambda folder: keys_file(folder, json.dumps({"iothubowner": NO_KEY})),
        1,
        "iothubowner",
    ),
    "a key that is not base64": (
        lambda folder: keys_file(folder, json.dumps({"myDeviceId": f"%{NO_KEY}"})),
        1,
        "myDeviceId",
    ),
    "keys in a file that is not text": (
        lambda folder: (keys_file(folder, "")[0], Path(sys.executable)),
        1,
        "Can't read the keys in",
    ),
    "an invalid throttle": (lambda _: ("--throttle", "S4"), 2, "'S4'.*S1, S2, S3.*--help"),
    "a throttle of nothing": (lambda _: ("--throttle", "query=1/s"), 2, "'query=1/s'.*queries"),
    "a throttle without a rate": (lambda _: ("--throttle", "queries=1"), 2, "queries=1.*20/min"),
    "no folder of containers": (
        lambda folder: ("--storage", folder / "none"),
        1,
        "There is no folder .*none.*--storage",
    ),
    "a file of containers": (
        lambda folder: ("--storage", file_in_place_of_a_folder(folder).parent),
        1,
        "There is no folder .*file.*--storage",
    ),
    "a storage host that is a URL": (
        lambda _: ("--storage-host", "http://azurite:10000"),
        2,
        "--storage-host: Invalid host of a storage 'http://azurite:10000': use HOST or HOST:PORT",
    ),
    "two tiers": (lambda _: ("--throttle", "S1", "--throttle", "S2"), 2, "'S2' contradicts"),
    "a client's CA without an end": (
        lambda _: ("--client-ca", "/dev/zero"),
        1,
        "Can't use /dev/zero for --client-ca: it is not a regular file. Use a PEM file.",
    ),
    "keys without an end": (
        lambda _: ("--keys", "/dev/zero"),
        1,
        "Can't read the keys in /dev/zero: it is larger than 32 MB, which is the most.",
    ),
    "no file of a client's CA": (lambda folder: ("--client-ca", folder / "none"), 1, "client-ca"),
}


@pytest.fixture(scope="module")
def failed(usual: Usual, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Console]:
    """All of these commands, run to their ends; several at once, since each takes a second."""

    def run(name: str) -> Console:
        options = FAILURES[name][0](tmp_path_factory.mktemp("failure"))
        with Console("-m", "emulator", *usual, *options) as console:
            console.wait()
        return console

    with ThreadPoolExecutor(4) as threads:
        return dict(zip(FAILURES, threads.map(run, FAILURES), strict=True))


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_wrong_is_said_in_one_line(failed: dict[str, Console], name: str) -> None:
    console, (_, status, said) = failed[name], FAILURES[name]
    assert console.wait() == status
    assert console.lines == []
    assert len(console.errors) == 1, console.output
    assert console.errors[0].startswith("emulator: ")
    assert re.search(said, console.errors[0])
    assert NO_KEY not in console.errors[0]


@pytest.mark.parametrize("option", ["--mqtt-port", "--https-port", "--http-port"])
def test_a_port_in_use_is_said_in_one_line(usual: Usual, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Console("-m", "emulator", *usual, option, str(port)) as console:
            assert console.wait() == 1
    assert console.lines == []
    assert console.errors == [
        f"emulator: Port {port} is in use on 127.0.0.1. Stop the other program, or use another "
        + (f"port: {option} PORT." if sys.platform == "darwin" else "address: --host 127.0.0.2.")
    ]


# --- the port without TLS


def test_a_port_without_tls_is_named_by_the_start_and_by_status(
    data_dir: Path, tmp_path: Path
) -> None:
    own = ("--host", "127.0.0.1", *ANY_PORTS, "--data-dir", tmp_path, "--cert-dir", data_dir)
    with EmulatorConsole(*own, "--http-port", "0") as hub:
        (line,) = (each for each in hub.lines if each.startswith("  no TLS "))
        found = re.fullmatch(
            r"  no TLS    (http://127\.0\.0\.1:(\d+)/ca\.pem) \(also /ca-bundle\.pem, "
            r"/_emulator/health\)",
            line,
        )
        assert found is not None, line
        with urllib.request.urlopen(found[1], timeout=60) as answer:
            assert answer.read() == (data_dir / "ca.pem").read_bytes()
        assert hub.request("GET", "/_emulator/info").json()["ports"]["http"] == int(found[2])
        with Console("-m", "emulator", "status", "--data-dir", tmp_path) as status:
            status.wait_for(rf"ports    .*, http {found[2]}, uploads .*")
        hub.terminate()
        assert hub.errors == []


def test_json_has_the_port_without_tls(usual: Usual) -> None:
    for options, is_there in (((), False), (("--http-port", "0"), True)):
        with Console("-m", "emulator", *usual, *options, "--json") as console:
            port = json.loads(console.wait_for(r"\{.*\}"))["httpPort"]
        assert (port is not None) is is_there


def test_a_port_that_is_given_twice_is_said_in_one_line(usual: Usual) -> None:
    with Console(
        "-m", "emulator", *usual, "--https-port", "8080", "--http-port", "8080"
    ) as console:
        assert console.wait() == 2
    said = "Port 8080 is that of --https-port already. Use another one: --http-port PORT."
    assert (console.lines, console.errors) == ([], [f"emulator: {said} --help shows the options."])


# The variable of each failure, its value, the exit status, and what the line must say.
WRONG_VARIABLES = {
    "a port": ("MQTT_PORT", "http", 2, "Invalid port 'http': use a number"),
    "a throttle": ("THROTTLE", "S1 S4", 2, "'S4'"),
    "a switch": ("VERBOSE", "perhaps", 2, "Invalid value 'perhaps': use 1 or 0"),
    "a device": ("DEVICE", "kitchen a/b", 2, "Invalid id 'a/b'"),
    "a tier of two": ("THROTTLE", "S1 S2", 2, "'S2' contradicts another throttle"),
    "a file": ("KEYS", "/nowhere/keys.json", 1, "Can't read the keys in /nowhere/keys.json"),
    "an address": ("HOST", "192.0.2.1", 1, "192.0.2.1"),
}


@pytest.mark.parametrize("name", WRONG_VARIABLES)
def test_a_wrong_value_in_a_variable_is_one_line_that_names_it(data_dir: Path, name: str) -> None:
    key, value, status, said = WRONG_VARIABLES[name]
    variable = f"IOTHUB_EMULATOR_{key}"
    usual = {"MQTT_PORT": "0", "HTTPS_PORT": "0", "DATA_DIR": str(data_dir), key: value}
    variables = {f"IOTHUB_EMULATOR_{name}": text for name, text in usual.items()}
    with Console("-m", "emulator", environment=clean_environment(**variables)) as console:
        assert console.wait() == status
    assert console.lines == []
    assert len(console.errors) == 1, console.output
    assert console.errors[0].startswith("emulator: ")
    assert variable in console.errors[0]
    assert said in console.errors[0]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one loopback address")
def test_a_port_in_use_names_the_variables_of_ports_alone(data_dir: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        variables = {
            "HOST": "127.0.0.1",
            "MQTT_PORT": port,
            "HTTPS_PORT": "0",
            "DATA_DIR": str(data_dir),
            "CERT_DIR": str(tmp_path),
            "IN_MEMORY": "1",
            "DEVICE": "a b",
        }
        environment = {f"IOTHUB_EMULATOR_{name}": text for name, text in variables.items()}
        with Console("-m", "emulator", environment=clean_environment(**environment)) as console:
            assert console.wait() == 1
    assert console.errors == [
        f"emulator: Port {port} is in use on 127.0.0.1. Stop the other program, or use another "
        "address: --host 127.0.0.2. "
        "(Set in the environment: IOTHUB_EMULATOR_HOST, IOTHUB_EMULATOR_MQTT_PORT.)"
    ]


# --- keys


def test_keys_come_from_a_file_and_never_go_to_stderr(usual: Usual, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, json.dumps({"iothubowner": POLICY_KEY, "myDeviceId": DEVICE_KEY}))
    with EmulatorConsole(*usual, "--verbose", *keys) as hub:
        connection_string = hub.device_connection_strings["myDeviceId"]
        assert connection_string.endswith(f";SharedAccessKey={DEVICE_KEY}")
        port = int(hub.wait_for(r"  devices .*").rpartition(":")[2])
        assert hub.request("GET", "/devices").status_code == 200

        # The device connects, listens, and has a method.
        wrong_key = connection_string.replace(DEVICE_KEY, POLICY_KEY)
        with (
            ThreadPoolExecutor() as threads,
            connect_device(connection_string, port, trust(hub), METHODS) as device,
        ):
            body = {"methodName": "reboot", "payload": {"SharedAccessKey": DEVICE_KEY}}
            call = threads.submit(hub.request, "POST", "/twins/myDeviceId/methods", json=body)
            device.expect_method("reboot")
            device.close()
            assert call.result().status_code == 404

        # What users get wrong: the key, the token, and what goes where.
        token = sas_token("127.0.0.1/devices/myDeviceId", DEVICE_KEY)
        user = f"127.0.0.1/myDeviceId/?api-version={API_VERSION}"
        signature = token.partition("sig=")[2].partition("&")[0]
        with pytest.raises(AssertionError, match="CONNACK"):
            connect_device(wrong_key, port, trust(hub))
        for client_id, user_name, password in (
            ("myDeviceId", user, DEVICE_KEY),
            ("myDeviceId", user, connection_string),
            ("myDeviceId", token, token),
            (connection_string, user, token),
            (token, connection_string, connection_string),
        ):
            with Wire(("127.0.0.1", port), trust(hub)) as wire:
                wire.send(connect(client_id, user_name, password))
                wire.expect(connack(5))
        hub.terminate()
    log = "\n".join(hub.errors)
    assert "myDeviceId connected" in log
    assert "Refused" in log
    for secret in (POLICY_KEY, DEVICE_KEY, signature):
        assert secret not in log


# --- storage


def test_jobs_find_their_containers_where_it_is_told(usual: Usual, tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # nothing listens there from now on
    storage = ("--storage", tmp_path, "--storage-host", f"127.0.0.1:{port}")
    job = {"type": "export", "outputBlobContainerUri": "file:///box"}
    with EmulatorConsole(*usual, "--verbose", *storage) as hub:
        asked = hub.request("POST", "/jobs/create", json=job)
        assert asked.status_code == 200, asked.text
        while True:
            now = hub.request("GET", f"/jobs/{asked.json()['jobId']}").json()
            if now["status"] not in ("enqueued", "running"):
                break
        assert now["status"] == "completed"
        # The host is one that may be called, though it can't be.
        url = f"http://127.0.0.1:{port}/account/box?sig=its-secret"
        away = hub.request("POST", "/jobs/create", json={**job, "outputBlobContainerUri": url})
        assert away.status_code == 400
        assert "can't be reached" in away.json()["Message"]
        hub.terminate()
    assert json.loads((tmp_path / "box" / "devices.txt").read_text())["id"] == "myDeviceId"
    log = "\n".join(hub.errors)
    assert f"The job {now['jobId']} is completed" in log
    assert "its-secret" not in log + away.text
    assert WELL_KNOWN_PRIMARY_KEY not in log


# --- the end


@posix_only
@pytest.mark.parametrize("way", [Console.press_ctrl_c, Console.terminate])
def test_a_signal_ends_it_at_once_with_50_devices_and_an_open_call(
    usual: Usual, way: Callable[[Console], int]
) -> None:
    devices = [f"device-{n}" for n in range(50)]
    options = [word for device in devices for word in ("--device", device)]
    with EmulatorConsole(*usual, *options) as hub, ExitStack() as stack:
        port = int(hub.wait_for(r"  devices .*").rpartition(":")[2])
        context = trust(hub)
        key = f"SharedAccessKey={WELL_KNOWN_PRIMARY_KEY}"
        strings = [f"HostName=127.0.0.1;DeviceId={device};{key}" for device in devices]
        wires = [
            stack.enter_context(connect_device(string, port, context, METHODS))
            for string in strings
        ]
        threads = stack.enter_context(ThreadPoolExecutor())
        body = {"methodName": "reboot", "responseTimeoutInSeconds": 60}
        call = threads.submit(hub.request, "POST", "/twins/device-7/methods", json=body)
        wires[7].expect_method("reboot")

        began = time.monotonic()
        status = way(hub)
        assert time.monotonic() - began < END_SECONDS
        assert (status, hub.errors) == (0, [])
        assert "Other devices (2 of 49; --json shows all):" in hub.lines
        answer = call.result()
        assert answer.status_code == 503
        assert answer.headers["iothub-errorcode"] == "ServiceUnavailable"
        for wire in wires:
            wire.expect_closed()
