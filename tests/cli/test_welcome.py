"""What the command prints on a terminal and for a program, and what it does with port 443."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from emulator.testing.addresses import free_loopback_address
from tests.processes import ROOT, Console, EmulatorConsole, clean_environment, posix_only
from tests.support import PATIENCE, wait_until

READY = "The hub is ready. Ctrl-C stops it."
COLUMNS, ROWS = 80, 24

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS has one loopback address, so these hubs would meet"
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def on_a_terminal(*options: str | Path, **variables: str) -> list[str]:
    """Start a hub on a terminal, stop it, and return its lines."""
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "emulator", *map(str, options)]
    environment = clean_environment(**variables)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, start_new_session=True
    ) as hub:
        os.close(theirs)
        text = b""
        while READY.encode() not in text:
            text += os.read(ours, 65536)
        hub.send_signal(signal.SIGINT)
        assert hub.wait(60) == 0
    os.close(ours)
    return text.decode().splitlines()


@pytest.fixture(scope="module")
def short_dir(data_dir: Path) -> Iterator[Path]:
    """The same folder, with a path as long as /home/ann/.local/share/local-iot-hub."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        link = Path(folder, "x" * (35 - len(folder)))
        link.symlink_to(data_dir)
        yield link


@posix_only
@pytest.mark.parametrize("count", [1, 2, 3, 4, 40])
def test_the_text_fits_on_a_terminal_and_ends_with_the_ready_line(
    short_dir: Path, count: int
) -> None:
    devices = [f"thermostat-{n}" for n in range(count)]
    options = [word for device in devices for word in ("--device", device)]
    lines = on_a_terminal("--host", free_loopback_address(), "--data-dir", short_dir, *options)
    rows = sum(max(1, math.ceil(len(line) / COLUMNS)) for line in lines)
    assert rows < ROWS, lines  # the cursor needs one
    assert lines[-1] == READY
    shown = [device for device in devices if any(f"DeviceId={device};" in line for line in lines)]
    assert shown == devices[:3]
    rest = f"Other devices (2 of {count - 1}; --json shows all):"
    assert (rest in lines) is (count > 3)


@posix_only
@pytest.mark.parametrize(
    ("shell", "line", "suffix"),
    [
        ("/usr/bin/fish", "  set -gx IOTHUB_DEVICE_ID 'myDeviceId'", ".fish"),
        ("/bin/zsh", "  export IOTHUB_DEVICE_ID=myDeviceId", ".sh"),
        ("/opt/unknown", "  export IOTHUB_DEVICE_ID=myDeviceId", ".sh"),
    ],
)
def test_a_terminal_shows_the_lines_of_its_shell_alone(
    data_dir: Path, shell: str, line: str, suffix: str
) -> None:
    lines = on_a_terminal("--host", free_loopback_address(), "--data-dir", data_dir, SHELL=shell)
    assert line in lines
    assert len([each for each in lines if "IOTHUB_DEVICE_ID" in each]) == 1
    assert any(suffix in each for each in lines)
    assert [*data_dir.glob(f"*{suffix}")] == []  # it ends with its hub


def test_json_is_one_line_with_every_device(data_dir: Path) -> None:
    devices = [f"device-{n}" for n in range(20)]
    options = [word for device in devices for word in ("--device", device)]
    ports = ("--mqtt-port", "0", "--https-port", "0")
    with Console(
        *("-m", "emulator", "--host", "127.0.0.1", "--data-dir", data_dir, "--json"),
        *(*ports, *options),
    ) as console:
        document = json.loads(console.wait_for(r"\{.*\}"))
        assert console.lines == [json.dumps(document)]
        for name in ("mqttPort", "httpsPort"):
            socket.create_connection((document["hostName"], document[name]), timeout=5).close()
    assert list(document["deviceConnectionStrings"]) == devices
    environment = document["environment"]
    assert environment["IOTHUB_CONNECTION_STRING"] == document["serviceConnectionString"]
    assert environment["NODE_EXTRA_CA_CERTS"] == environment["SSL_CERT_FILE"]


@pytest.mark.parametrize("option", ["--version", "-V", "--vers"])
def test_the_version_is_one_line(option: str) -> None:
    with Console("-m", "emulator", option) as console:
        assert console.wait() == 0
    assert (console.lines, console.errors) == ([f"local-iot-hub {version('local-iot-hub')}"], [])


# --- port 443


def may_open_443() -> bool:
    with contextlib.suppress(OSError), socket.create_server((free_loopback_address(), 443)):
        return True
    return False


needs_443 = pytest.mark.skipif(not may_open_443(), reason="this user can't open port 443")


def service_host(hub: EmulatorConsole) -> str:
    return hub.variables["IOTHUB_CONNECTION_STRING"].partition(";")[0].removeprefix("HostName=")


@needs_443
def test_a_hub_listens_on_port_443_as_well(data_dir: Path) -> None:
    host = free_loopback_address()
    with EmulatorConsole("--host", host, "--data-dir", data_dir) as hub:
        assert service_host(hub) == host
        assert hub.request("GET", "/devices").status_code == 200
        socket.create_connection((host, 8443), timeout=5).close()
        assert "443" not in hub.lines[-2]
        hub.terminate()
        assert hub.errors == []


@needs_443
@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (("--https-port", "8443"), {}),
        (("--https-port", "0"), {}),
        ((), {"IOTHUB_EMULATOR_HTTPS_PORT": "8444"}),
        (("--mqtt-port", "443"), {}),
        (("--amqps-port", "443"), {}),
        (("--amqp-port", "443"), {}),
    ],
)
def test_a_port_that_was_chosen_is_the_only_one(
    data_dir: Path, options: Sequence[str], variables: dict[str, str]
) -> None:
    host = free_loopback_address()
    environment = clean_environment(**variables)
    usual = ("--host", host, "--data-dir", data_dir)
    with EmulatorConsole(*usual, *options, environment=environment) as hub:
        assert re.fullmatch(rf"{host}:\d+", service_host(hub))
        if "443" not in options:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, 443), timeout=5)


@needs_443
def test_a_hub_starts_without_port_443_if_it_is_in_use(data_dir: Path) -> None:
    host = free_loopback_address()
    with (
        socket.create_server((host, 443)),
        EmulatorConsole("--host", host, "--data-dir", data_dir) as hub,
    ):
        assert service_host(hub) == f"{host}:8443"
        said = [line for line in hub.lines if line.startswith("Port 443 is in use")]
        assert len(said) == 1
        assert "--host 127." in said[0]


# A hub that can't open the port. The user of these tests may be root, and could open it.
NOT_ALLOWED = """
import errno, socket, sys
create_server = socket.create_server

def refuse_443(address, **options):
    if address[1] == 443:
        raise PermissionError(errno.EACCES, "Permission denied")
    return create_server(address, **options)

socket.create_server = refuse_443
from emulator.cli.main import main
sys.exit(main())
"""


def test_a_hub_starts_without_port_443_if_it_is_not_allowed(data_dir: Path) -> None:
    host = free_loopback_address()
    with Console("-c", NOT_ALLOWED, "--host", host, "--data-dir", data_dir) as hub:
        hub.wait_for(re.escape(READY))
        said = [line for line in hub.lines if "port 443" in line.lower()]
        assert said == [
            "For port 443 (Node): sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443"
        ]
        assert any(f"HostName={host}:8443;" in line for line in hub.lines)
        assert hub.errors == []


# --- the end


def shell(line: str, *, seconds: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("EMULATOR", f"{sys.executable} -m emulator")],
        cwd=ROOT,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=seconds,
    )


FULL, BROKEN = "Can't write the output: No space left on device.", "Can't write the output: Broken"
GONE = "Nothing reads the output any more, so the hub stopped."


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("EMULATOR --host HOST > /dev/full", FULL),
        ("EMULATOR --host HOST --json > /dev/full", FULL),
        ("EMULATOR --help > /dev/full", FULL),
        ("EMULATOR --version > /dev/full", FULL),
        ("EMULATOR tutorial --host HOST > /dev/full", FULL),
        ("EMULATOR --host HOST | head -1", f"({BROKEN}|{GONE})"),
        ("EMULATOR --host HOST --verbose --quiet | head -1", "--verbose and --quiet contradict"),
        ("EMULATOR tutorial --host HOST | head -1", BROKEN),
    ],
)
def test_an_output_that_cannot_be_written_ends_it_in_one_line(
    data_dir: Path, line: str, error: str
) -> None:
    line = line.replace("HOST", free_loopback_address())
    run = shell(line, IOTHUB_EMULATOR_DATA_DIR=str(data_dir))
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert re.match(f"emulator: {error}", run.stderr)


@posix_only
@pytest.mark.parametrize("command", ["--help", "--version"])
def test_a_reader_that_leaves_early_sees_no_traceback(command: str) -> None:
    run = shell(f"EMULATOR {command} | true")
    assert len(run.stderr.splitlines()) <= 1
    assert "Traceback" not in run.stderr


@posix_only
@pytest.mark.parametrize("number", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_a_signal_stops_it_in_order(data_dir: Path, number: str) -> None:
    with EmulatorConsole("--host", free_loopback_address(), "--data-dir", data_dir) as hub:
        os.kill(hub._process.pid, getattr(signal, number))
        assert hub.wait() == 0
        assert hub.errors == []


@posix_only
def test_nohup_keeps_it_running(data_dir: Path) -> None:
    environment = clean_environment()
    with ignored(signal.SIGHUP):
        hub = EmulatorConsole(
            *("--host", free_loopback_address(), "--data-dir", data_dir), environment=environment
        )
    with hub:
        os.kill(hub._process.pid, signal.SIGHUP)
        assert hub.request("GET", "/devices").status_code == 200
        assert hub.terminate() == 0


@contextlib.contextmanager
def ignored(number: int) -> Iterator[None]:
    """Let programs that are started here ignore a signal."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


@posix_only
@pytest.mark.parametrize("command", ["hub", "tutorial", "--help", "device", "service"])
def test_ctrl_c_at_any_time_shows_no_traceback(data_dir: Path, command: str) -> None:
    host = free_loopback_address()
    hub = ("-m", "emulator", "--host", host, "--data-dir", data_dir)
    commands: dict[str, Sequence[str | Path]] = {
        "hub": hub,
        "tutorial": (*hub, "tutorial"),
        "--help": ("-m", "emulator", "--help"),
        "device": (ROOT / "dmpatterns_getstarted_device.py",),
        "service": (ROOT / "dmpatterns_getstarted_service.py",),
    }
    variables = {
        "IOTHUB_DEVICE_CONNECTION_STRING": f"HostName={host};DeviceId=a;SharedAccessKey=YQ==",
        "IOTHUB_CONNECTION_STRING": f"HostName={host};SharedAccessKeyName=a;SharedAccessKey=YQ==",
        "IOTHUB_DEVICE_ID": "a",
    }
    environment = clean_environment(**variables)
    for delay in (0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0):
        with Console(*commands[command], environment=environment) as console:
            time.sleep(delay)
            if console.running:
                console.press_ctrl_c()
            console.wait()
        if "Traceback" in console.output and str(ROOT) not in console.output:
            continue  # Python itself had not yet begun with our files
        assert "Traceback" not in console.output, (delay, console.output)
        assert len(console.errors) <= 1, (delay, console.output)
        assert not console.left_programs


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("-m", "emulator"), "emulator: The package .* is missing in .*: pip install -r"),
        (("-m", "emulator", "tutorial"), "emulator: The package .* is missing in .*pip install"),
        (("-m", "emulator", "--help"), "emulator: The package .* is missing in .*pip install"),
        (("dmpatterns_getstarted_device.py",), "Cannot import azure-iot-device: .*pip install"),
        (("dmpatterns_getstarted_service.py",), "Cannot import azure-iot-hub: .*pip install"),
    ],
)
def test_outside_the_virtual_environment_it_ends_in_one_line(
    command: Sequence[str], said: str
) -> None:
    # Without its site module, Python finds no package of the environment.
    with Console("-S", *command) as console:
        assert console.wait() == 1
    assert console.lines == []
    assert len(console.errors) == 1, console.output
    assert re.match(said, console.errors[0])


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_hub_runs_without_an_input_an_output_or_an_error_output(
    data_dir: Path, tmp_path: Path, closed: str
) -> None:
    host = free_loopback_address()
    script = tmp_path / "ready"
    # It ends in order on SIGTERM, after the time that a start takes.
    line = f"EMULATOR --host {host} {closed} & sleep 3; kill $!; wait $!; echo $? > {script}"
    run = shell(line, IOTHUB_EMULATOR_DATA_DIR=str(data_dir))
    assert script.read_text() == "0\n", run.stderr
    assert run.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of files that are any bytes")
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {},
    ],
    ids=["ascii", "latin-1", "C", "usual"],
)
@pytest.mark.parametrize("name", [b"d\xc3\xa9 \xe2\x80\xa6", b"d\xff"], ids=["utf-8", "bytes"])
def test_a_folder_of_any_name_and_an_output_with_few_letters(
    name: bytes, variables: dict[str, str], tmp_path: Path
) -> None:
    folder = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118 - Path takes no bytes
    command = [sys.executable, "-m", "emulator"]
    options = ["--host", free_loopback_address(), "--data-dir", folder]
    environment, output = clean_environment(**variables), tmp_path / "output"
    with (
        output.open("wb") as written,
        subprocess.Popen(
            [*command, *options], cwd=ROOT, env=environment, stdout=written, stderr=subprocess.PIPE
        ) as hub,
    ):
        try:
            wait_until(
                lambda: hub.poll() is not None or b"The hub is ready." in output.read_bytes()
            )
            assert hub.poll() is None
            assert folder in output.read_bytes()
            found = subprocess.run(
                [*command, "env", "--shell", "bash", "--data-dir", folder],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                timeout=PATIENCE,
            )
            assert (found.returncode, found.stderr) == (0, b"")
            line = b'eval "$1"; printf %s "$SSL_CERT_FILE"'
            shell = ["bash", "-c", line, "bash", found.stdout]
            run = subprocess.run(shell, capture_output=True, timeout=PATIENCE)
            assert run.stdout == folder + b"/ca-bundle.pem"
        finally:
            hub.terminate()
            _, errors = hub.communicate(timeout=PATIENCE)
    assert b"Traceback" not in errors
    assert hub.returncode == 0
