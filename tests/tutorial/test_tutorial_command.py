"""`python -m emulator tutorial`: one command runs a hub and both scripts."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.testing.addresses import free_loopback_address
from tests.processes import ROOT, Console, clean_environment, posix_only


def tutorial(data_dir: Path, host: str, *, folder: Path = ROOT, **variables: str) -> Console:
    """Start the command."""
    return Console(
        *("-m", "emulator", "tutorial", "--host", host, "--data-dir", data_dir),
        environment=clean_environment(**variables),
        folder=folder,
    )


def test_a_port_in_use_ends_it_with_one_line(tmp_path: Path) -> None:
    host = free_loopback_address()
    with socket.create_server((host, 8883)), tutorial(tmp_path, host) as command:
        assert command.wait() == 1
    assert command.lines == []
    assert len(command.errors) == 1
    assert re.search(f"8883.*{re.escape(host)}", command.errors[0])


def test_a_missing_script_ends_it_with_one_line(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "emulator", tmp_path / "emulator")
    with tutorial(tmp_path, free_loopback_address(), folder=tmp_path) as command:
        assert command.wait() == 1
    assert command.lines == []
    assert len(command.errors) == 1
    assert "dmpatterns_getstarted_device.py is missing" in command.errors[0]


@pytest.mark.parametrize(
    ("module", "failure"),
    [
        # A machine without azure-iot-device, and one without a wheel of uamqp.
        ("azure", "the device did not connect and listen; the device script ended with status 1"),
        ("uamqp", "the service did not see the reboot; the service script ended with status 1"),
    ],
)
def test_a_script_that_fails_is_named_with_its_step(
    tmp_path: Path, module: str, failure: str
) -> None:
    hidden = tmp_path / "path" / module
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not installed')\n")
    host = free_loopback_address()
    with tutorial(tmp_path, host, PYTHONPATH=str(hidden.parent)) as command:
        assert command.wait() == 1
    assert f"hub     | the tutorial failed: {failure}" in command.lines
    assert command.errors == []


@posix_only
@pytest.mark.parametrize("stop", [Console.press_ctrl_c, Console.terminate])
def test_a_signal_stops_it_and_both_scripts(tmp_path: Path, stop: Callable[[Console], int]) -> None:
    with tutorial(tmp_path, free_loopback_address()) as command:
        command.wait_for(r"device  \| Rebooting device")
        assert stop(command) != 0
        assert command.errors == []
        assert not command.left_programs


def test_it_ends_once_the_service_has_read_the_time_of_the_reboot(
    tutorial_command: Console,
) -> None:
    assert tutorial_command.wait() == 0
    consoles: dict[str, list[str]] = {"hub": [], "device": [], "service": []}
    for line in tutorial_command.lines:
        name, _, text = line.partition("|")
        consoles[name.strip()].append(text.strip())

    assert consoles["device"][:5] == [
        "Starting the IoT Hub Python sample...",
        "IoTHubDeviceClient waiting for commands, press Ctrl-C to exit",
        "Rebooting device",
        "Device rebooted",
        "Device twins updated with latest rebootTime",
    ]
    service = [line for line in consoles["service"] if line]
    assert service[3:6] == [
        "Invoking device to reboot...",
        "Successfully invoked the device to reboot.",
        "{'Response': 'This is the response from the device'}",
    ]
    assert any(re.match(r"Last reboot time: \d{4}-", line) for line in service)
    assert consoles["hub"][0].startswith("ready at ")
    assert consoles["hub"][-1].startswith("the tutorial worked")
    assert tutorial_command.errors == []
