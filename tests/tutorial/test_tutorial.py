"""The tutorial as its reader sees it: both scripts, unchanged, in consoles of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes import (
    DEVICE_SCRIPT,
    END_SECONDS,
    SERVICE_SCRIPT,
    Console,
    EmulatorConsole,
    posix_only,
)

if TYPE_CHECKING:
    from tests.tutorial.conftest import Consoles

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?"

# A key of the right form that opens nothing.
WRONG_KEY = "d3Jvbmcga2V5IGZvciB0aGUgdHV0b3JpYWwncyB0ZXN0"

DEVICE_STARTS = [
    "Starting the IoT Hub Python sample...",
    "IoTHubDeviceClient waiting for commands, press Ctrl-C to exit",
]
DEVICE_REBOOTS = [
    "Rebooting device",
    "Device rebooted",
    "Device twins updated with latest rebootTime",
]


def with_key(connection_string: str, key: str) -> str:
    return connection_string.rpartition("SharedAccessKey=")[0] + f"SharedAccessKey={key}"


def of_policy(connection_string: str, policy: str) -> str:
    # Every policy has the same well-known key while the hub is on loopback.
    return connection_string.replace("Name=iothubowner", f"Name={policy}")


# Each takes the variables that the hub says to paste, and gives those that are wrong.
FAILURES: dict[str, tuple[Path, Callable[[dict[str, str]], dict[str, str]], str]] = {
    "the device is offline": (
        SERVICE_SCRIPT,
        lambda _: {"IOTHUB_DEVICE_ID": "spare"},
        "check that the device console is running",
    ),
    "the device id is unknown": (
        SERVICE_SCRIPT,
        lambda _: {"IOTHUB_DEVICE_ID": "nobody"},
        "check the device id",
    ),
    "the service has a wrong key": (
        SERVICE_SCRIPT,
        lambda right: {
            "IOTHUB_CONNECTION_STRING": with_key(right["IOTHUB_CONNECTION_STRING"], WRONG_KEY)
        },
        "check the policy's name, key and permissions",
    ),
    "the policy lacks service connect": (
        SERVICE_SCRIPT,
        lambda right: {
            "IOTHUB_CONNECTION_STRING": of_policy(
                right["IOTHUB_CONNECTION_STRING"], "registryReadWrite"
            )
        },
        "check the policy's name, key and permissions",
    ),
    "the device has a wrong key": (
        DEVICE_SCRIPT,
        lambda right: {
            "IOTHUB_DEVICE_CONNECTION_STRING": with_key(
                right["IOTHUB_DEVICE_CONNECTION_STRING"], WRONG_KEY
            ).replace("DeviceId=myDeviceId", "DeviceId=spare")
        },
        "check DeviceId and SharedAccessKey, and that the device is enabled",
    ),
}


# These pass while the device reboots, so they come first.
@pytest.mark.parametrize(("script", "wrong", "advice"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_ends_a_script_with_one_clear_line(
    consoles: Consoles,
    script: Path,
    wrong: Callable[[dict[str, str]], dict[str, str]],
    advice: str,
) -> None:
    environment = consoles.hub.environment(**wrong(consoles.hub.variables))
    with Console(script, environment=environment) as console:
        assert console.wait() == 1
    assert console.lines[-1].startswith("Unexpected error ")
    assert advice in console.lines[-1]
    assert [line for line in console.lines if "rror" in line] == console.lines[-1:]
    assert console.errors == []
    assert "SharedAccessKey=" not in console.output.replace("SharedAccessKey=***", "")


@posix_only
def test_the_service_reboots_the_device_and_sees_when_it_did(consoles: Consoles) -> None:
    device, service = consoles.device, consoles.service
    shown = service.wait_for(f"Last reboot time: {TIME}")
    reads = service.lines.count(shown)  # they come every 5 seconds
    assert service.press_ctrl_c() == 0

    masked = with_key(consoles.hub.variables["IOTHUB_CONNECTION_STRING"], "***")
    assert service.lines == [
        "Starting the IoT Hub Service Client DeviceManagement Python sample...",
        f"    Connection string = {masked}",
        "    Device ID         = myDeviceId",
        "",
        "Invoking device to reboot...",
        "",
        "Successfully invoked the device to reboot.",
        "",
        "{'Response': 'This is the response from the device'}",
        "",
        "IoTHubClient waiting for commands, press Ctrl-C to exit",
        *[shown] * reads,
        "",
        "IoTHubDeviceMethod sample stopped",
    ]
    assert service.errors == []
    assert device.lines == DEVICE_STARTS + DEVICE_REBOOTS
    assert device.running

    reboot_time = shown.removeprefix("Last reboot time: ")
    twin = consoles.hub.request("GET", "/twins/myDeviceId").json()
    assert twin["properties"]["reported"]["rebootTime"] == reboot_time
    assert datetime.now() - datetime.fromisoformat(reboot_time) < timedelta(minutes=1)


@posix_only
def test_the_device_works_on_after_the_hub_was_stopped_and_started(
    consoles: Consoles, hub_options: list[str | Path]
) -> None:
    device = consoles.device
    device.wait_for(DEVICE_REBOOTS[-1])
    before = len(device.lines)

    began = time.monotonic()
    assert consoles.hub.terminate() == 0
    assert time.monotonic() - began < END_SECONDS
    assert consoles.hub.errors == []

    with EmulatorConsole(*hub_options) as hub:
        hub.wait_for_device("myDeviceId")  # the SDK tries again every 10 seconds
        with Console(SERVICE_SCRIPT, environment=hub.environment()) as service:
            device.wait_for("Rebooting device", count=2)
            assert service.press_ctrl_c() == 0
        assert service.lines[-1] == "IoTHubDeviceMethod sample stopped"
        assert service.errors == []

        assert device.press_ctrl_c() == 0
        assert device.lines[before:] == ["Rebooting device", "IoTHubDeviceClient sample stopped"]
        assert device.errors == []
