"""Each script alone: a failure ends it with one clear line, and Ctrl-C ends it cleanly."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from emulator import Emulator
from emulator.testing.addresses import free_loopback_address
from tests import processes
from tests.support import Device, Service

needs_service_sdk = pytest.mark.skipif(
    find_spec("uamqp") is None, reason="azure-iot-hub has no wheel for this machine"
)

# The environment variables of the scripts, and parts of a connection string.
DEVICE = "IOTHUB_DEVICE_CONNECTION_STRING"
SERVICE = "IOTHUB_CONNECTION_STRING"
HOST = "HostName=[^;]+"
KEY = "SharedAccessKey=.+"
WRONG_KEY = "SharedAccessKey=d3Jvbmcga2V5IGZvciB0aGUgdHV0b3JpYWwncyB0ZXN0"
NO_LISTENER = f"HostName={free_loopback_address()}"


def line(error: str, check: str) -> str:
    """Return a pattern of the line that ends a script."""
    return rf"Unexpected error {error} \(check {re.escape(check)}\)"


DEVICE_MALFORMED = line(
    "ValueError: Invalid .+", "the connection string: HostName=...;DeviceId=...;SharedAccessKey=..."
)
DEVICE_REFUSED = line(
    r"UnauthorizedError: Connection Refused: not authorised\.",
    "DeviceId and SharedAccessKey, and that the device is enabled",
)
SERVICE_MALFORMED = line(
    "(Value)?Error: .+",
    "the connection string: HostName=...;SharedAccessKeyName=...;SharedAccessKey=...",
)
SERVICE_REFUSED = line(
    "HTTP 401 Unauthorized: .+",
    "the policy's name, key and permissions: it needs service connect and registry read",
)
UNKNOWN_HOST = line(r"gaierror: \[Errno .+", "HostName in the connection string")

# What is wrong: the variable, the part that is replaced, the replacement, and the last line.
FAILURES: dict[str, tuple[str, str, str, str]] = {
    "device: no fields": (DEVICE, ".+", "localhost", DEVICE_MALFORMED),
    "device: no key": (DEVICE, ";" + KEY, "", DEVICE_MALFORMED),
    "device: key is not base64": (DEVICE, KEY, "SharedAccessKey=abc", DEVICE_MALFORMED),
    "device: trailing semicolon": (DEVICE, "$", ";", DEVICE_MALFORMED),
    "device: unknown field": (DEVICE, "$", ";Port=8883", DEVICE_MALFORMED),
    "device: string of a service": (
        *(DEVICE, "DeviceId", "SharedAccessKeyName"),
        line("KeyError: 'DeviceId'", "that the connection string is the device's, not the hub's"),
    ),
    "device: no listener": (
        *(DEVICE, HOST, NO_LISTENER),
        line(r"Connection\w+: .+", "that the hub is running, and that port 8883 is open"),
    ),
    "device: unknown host": (DEVICE, HOST, "HostName=hub.invalid", UNKNOWN_HOST),
    "device: untrusted certificate": (
        *("SSL_CERT_FILE", ".+", ""),
        line(
            r"SSLCertVerificationError: \[SSL: CERTIFICATE_VERIFY_FAILED\] .+",
            "HostName, and the hub's CA certificate in SSL_CERT_FILE",
        ),
    ),
    "device: wrong key": (DEVICE, KEY, WRONG_KEY, DEVICE_REFUSED),
    "service: no fields": (SERVICE, ".+", "localhost", SERVICE_MALFORMED),
    "service: no key": (SERVICE, ";" + KEY, "", SERVICE_MALFORMED),
    "service: key is not base64": (SERVICE, KEY, "SharedAccessKey=abc", SERVICE_MALFORMED),
    "service: trailing semicolon": (SERVICE, "$", ";", SERVICE_MALFORMED),
    "service: unknown field": (SERVICE, "KeyName", "Policy", SERVICE_MALFORMED),
    "service: key in lower case": (SERVICE, "AccessKey=", "accesskey=", SERVICE_MALFORMED),
    "service: string of a device": (
        *(SERVICE, "SharedAccessKeyName", "DeviceId"),
        line(
            "KeyError: 'SharedAccessKeyName'",
            "that the connection string is the hub's, not the device's",
        ),
    ),
    "service: no listener": (
        *(SERVICE, HOST, NO_LISTENER),
        line(r"Connection\w+: .+", "that the hub is running"),
    ),
    "service: unknown host": (SERVICE, HOST, "HostName=hub.invalid", UNKNOWN_HOST),
    "service: untrusted certificate": (
        *("REQUESTS_CA_BUNDLE", ".+", ""),
        line(
            r"SSLCertVerificationError: \[SSL: CERTIFICATE_VERIFY_FAILED\] .+",
            "HostName, and the hub's CA certificate in REQUESTS_CA_BUNDLE",
        ),
    ),
    "service: wrong key": (SERVICE, KEY, WRONG_KEY, SERVICE_REFUSED),
    "service: no service connect": (SERVICE, "iothubowner", "registryReadWrite", SERVICE_REFUSED),
    "service: device offline": (
        *("IOTHUB_DEVICE_ID", "$", ""),
        line("HTTP 404 Not Found: .+", "that the device console is running"),
    ),
    "service: device unknown": (
        *("IOTHUB_DEVICE_ID", ".+", "unknown"),
        line("HTTP 404 Not Found: .+", "the device id"),
    ),
}


def start(script: Path, variables: dict[str, str]) -> processes.Console:
    """Start a script, with Python's usual buffers, which must not hold a line back."""
    return processes.Console(
        script, environment=processes.clean_environment(PYTHONUNBUFFERED="", **variables)
    )


def wrong(variables: dict[str, str], name: str) -> dict[str, str]:
    """Return the environment variables of a failure."""
    variable, part, replacement, _ = FAILURES[name]
    return variables | {variable: re.sub(part, replacement, variables[variable], count=1)}


@pytest.fixture(scope="module")
def variables(emulator: Emulator, janitor: Service) -> Iterator[dict[str, str]]:
    """The environment variables with which the scripts reach a hub and its device thermostat."""
    emulator.register_device("thermostat")
    yield emulator.environment("thermostat")
    janitor.request("DELETE", "/devices/thermostat", headers={"If-Match": "*"})


@pytest.fixture(scope="module")
def failed(variables: dict[str, str]) -> dict[str, processes.Console]:
    """The console of each failure, after its end.

    Four run at a time, because the service SDK tries for five seconds to connect.
    """

    def run(name: str) -> processes.Console:
        script = processes.DEVICE_SCRIPT if name.startswith("device") else processes.SERVICE_SCRIPT
        with start(script, wrong(variables, name)) as console:
            console.wait()
        return console

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(FAILURES, pool.map(run, FAILURES), strict=True))


@pytest.mark.parametrize("name", [name for name in FAILURES if name.startswith("device")])
def test_a_failure_ends_the_device_with_one_clear_line(
    failed: dict[str, processes.Console], variables: dict[str, str], name: str
) -> None:
    console = failed[name]
    assert console.wait() == 1
    assert console.lines[:-1] == processes.DEVICE_STARTS
    assert re.fullmatch(FAILURES[name][-1], console.lines[-1])
    assert console.errors == []
    assert variables[DEVICE].partition("SharedAccessKey=")[2] not in console.output


@needs_service_sdk
@pytest.mark.parametrize("name", [name for name in FAILURES if name.startswith("service")])
def test_a_failure_ends_the_service_with_one_clear_line(
    failed: dict[str, processes.Console], variables: dict[str, str], name: str
) -> None:
    console = failed[name]
    assert console.wait() == 1
    shown = wrong(variables, name)
    masked = re.sub("(?i)(AccessKey=)[^;]+", r"\1***", shown[SERVICE])
    assert [text for text in console.lines[:-1] if text] == [
        "Starting the IoT Hub Service Client DeviceManagement Python sample...",
        f"    Connection string = {masked}",
        f"    Device ID         = {shown['IOTHUB_DEVICE_ID']}",
        *["Invoking device to reboot..."] * ("Invoking device to reboot..." in console.lines),
    ]
    assert re.fullmatch(FAILURES[name][-1], console.lines[-1])
    assert console.errors == []
    assert variables[SERVICE].partition("SharedAccessKey=")[2] not in console.output


def test_the_device_ends_when_the_hub_no_longer_accepts_it(
    emulator: Emulator, device: Device, service: Service
) -> None:
    with start(processes.DEVICE_SCRIPT, emulator.environment(device.id)) as console:
        service.wait_for_device(device.id)
        identity = service.request("GET", f"/devices/{device.id}").json() | {"status": "disabled"}
        headers: dict[str, str | None] = {"If-Match": "*"}
        service.request("PUT", f"/devices/{device.id}", json=identity, headers=headers)
        assert console.wait() == 1
    assert console.lines[:2] == processes.DEVICE_STARTS
    assert re.fullmatch(DEVICE_REFUSED, console.lines[-1])
    assert console.errors == []


SET_DEVICE = (
    "Set IOTHUB_DEVICE_CONNECTION_STRING, or replace {deviceConnectionString} in this file."
)
SET_SERVICE = "Set IOTHUB_CONNECTION_STRING, or replace {IoTHubConnectionString} in this file."
SET_DEVICE_ID = "Set IOTHUB_DEVICE_ID, or replace {deviceId} in this file."


@pytest.mark.parametrize(
    ("script", "variables", "line"),
    [
        (processes.DEVICE_SCRIPT, {}, SET_DEVICE),
        pytest.param(processes.SERVICE_SCRIPT, {SERVICE: ""}, SET_SERVICE, marks=needs_service_sdk),
        pytest.param(
            processes.SERVICE_SCRIPT, {SERVICE: "any"}, SET_DEVICE_ID, marks=needs_service_sdk
        ),
    ],
    ids=["device", "service", "device id"],
)
def test_a_placeholder_ends_a_script_with_one_line_that_says_what_to_set(
    script: Path, variables: dict[str, str], line: str
) -> None:
    with start(script, variables) as console:
        assert console.wait() == 2
    assert (console.lines, console.errors) == ([line], [])


INSTALL_DEVICE = "Run: pip install azure-iot-device"
INSTALL_SERVICE = (
    "Run: pip install azure-iot-hub six "
    "(it needs uamqp, which has wheels for x86-64 and Python up to 3.13 only)"
)


@pytest.mark.parametrize(
    ("script", "module", "line"),
    [
        (
            processes.DEVICE_SCRIPT,
            "azure",
            f"Cannot import azure-iot-device: absent. {INSTALL_DEVICE}",
        ),
        (
            processes.SERVICE_SCRIPT,
            "azure",
            f"Cannot import azure-iot-hub: absent. {INSTALL_SERVICE}",
        ),
        *(
            pytest.param(
                processes.SERVICE_SCRIPT,
                module,
                f"Cannot import azure-iot-hub: absent. {INSTALL_SERVICE}",
                marks=needs_service_sdk,
            )
            for module in ("uamqp", "six", "msrest")
        ),
    ],
)
def test_a_missing_package_ends_a_script_with_one_line_that_says_what_to_install(
    tmp_path: Path, script: Path, module: str, line: str
) -> None:
    hidden = tmp_path / module
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError('absent')")
    with start(script, {"PYTHONPATH": str(tmp_path)}) as console:
        assert console.wait() == 1
    assert (console.lines, console.errors) == ([], [line])


@processes.posix_only
def test_ctrl_c_ends_the_device_while_it_listens(
    emulator: Emulator, device: Device, service: Service
) -> None:
    with start(processes.DEVICE_SCRIPT, emulator.environment(device.id)) as console:
        service.wait_for_device(device.id)
        console.wait_for(processes.DEVICE_STARTS[-1])  # a pipe shows the line while the script runs
        assert console.press_ctrl_c() == 0
    assert console.lines == [*processes.DEVICE_STARTS, "IoTHubDeviceClient sample stopped"]
    assert console.errors == []


@processes.posix_only
@pytest.mark.parametrize(
    ("script", "port", "stopped"),
    [
        (processes.DEVICE_SCRIPT, 8883, "IoTHubDeviceClient sample stopped"),
        pytest.param(
            processes.SERVICE_SCRIPT,
            0,
            "IoTHubDeviceMethod sample stopped",
            marks=needs_service_sdk,
        ),
    ],
)
def test_ctrl_c_ends_a_script_while_it_connects(script: Path, port: int, stopped: str) -> None:
    with socket.create_server((free_loopback_address(), port)) as silent_hub:
        silent_hub.settimeout(processes.PATIENCE)
        host, port = silent_hub.getsockname()
        variables = {
            DEVICE: f"HostName={host};DeviceId=thermostat;SharedAccessKey=a2V5",
            SERVICE: f"HostName={host}:{port};SharedAccessKeyName=any;SharedAccessKey=a2V5",
            "IOTHUB_DEVICE_ID": "thermostat",
        }
        with start(script, variables) as console:
            connection, _ = silent_hub.accept()
            with connection:
                began = time.monotonic()
                assert console.press_ctrl_c() == 0
                assert time.monotonic() - began < 10  # the SDK waits 60 seconds for TLS
    assert console.lines[-1] == stopped
    assert console.errors == []
