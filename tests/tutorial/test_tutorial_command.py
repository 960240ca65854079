"""`python -m emulator tutorial`: both scripts on a hub of their own, by one command."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import ROOT, Console, clean_environment, posix_only
from tests.support import free_loopback_address


def tutorial(data_dir: Path, host: str, *, folder: Path = ROOT, **variables: str) -> Console:
    return Console(
        *("-m", "emulator", "tutorial", "--host", host, "--data-dir", data_dir),
        environment=clean_environment(**variables),
        folder=folder,
    )


def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    host = free_loopback_address()
    with socket.create_server((host, 8883)), tutorial(tmp_path, host) as command:
        assert command.wait() == 1
    assert command.lines == []
    assert len(command.errors) == 1
    assert command.errors[0].startswith(f"emulator: Port 8883 is in use on {host}.")


def test_without_the_scripts_it_says_which_one_is_missing(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "emulator", tmp_path / "emulator")
    with tutorial(tmp_path, free_loopback_address(), folder=tmp_path) as command:
        assert command.wait() == 1
    assert command.lines == []
    assert len(command.errors) == 1
    assert "dmpatterns_getstarted_device.py is missing" in command.errors[0]


@pytest.mark.parametrize(
    ("module", "failure"),
    [
        # A machine without azure-iot-device, and one with an arm64 processor.
        (
            "azure",
            "the device did not connect and listen; the device script ended with status 1",
        ),
        (
            "uamqp",
            "the service did not see the reboot; the service script ended with status 1",
        ),
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
@pytest.mark.parametrize("way", [Console.press_ctrl_c, Console.terminate])
def test_it_can_be_stopped_and_leaves_no_script_behind(
    tmp_path: Path, way: Callable[[Console], int]
) -> None:
    with tutorial(tmp_path, free_loopback_address()) as command:
        command.wait_for(r"device  \| Rebooting device")
        status = way(command)
        assert status != 0
        assert command.errors == []
        assert not command.left_programs


def test_it_ends_by_itself_once_the_service_saw_the_reboot(tutorial_command: Console) -> None:
    assert tutorial_command.wait(timeout=90) == 0
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
    assert consoles["hub"][-1].startswith("the tutorial worked")
    assert tutorial_command.errors == []
