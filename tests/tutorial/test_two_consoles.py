"""The tutorial as its reader sees it: both scripts, unchanged, in consoles of their own."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.processes import DEVICE_STARTS, SERVICE_SCRIPT, Console, posix_only

if TYPE_CHECKING:
    from tests.tutorial.conftest import Consoles

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?"


@posix_only
def test_the_service_reboots_the_device_and_reads_the_time_of_the_reboot(
    consoles: Consoles,
) -> None:
    device, service = consoles.device, consoles.service
    assert service is not None
    shown = service.wait_for(f"Last reboot time: {TIME}")
    reads = service.lines.count(shown)  # a read every 5 seconds
    assert service.press_ctrl_c() == 0

    before_key, name, _ = consoles.hub.variables["IOTHUB_CONNECTION_STRING"].rpartition(
        "SharedAccessKey="
    )
    assert service.lines == [
        "Starting the IoT Hub Service Client DeviceManagement Python sample...",
        f"    Connection string = {before_key}{name}***",
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
    assert device.lines == [
        *DEVICE_STARTS,
        "Rebooting device",
        "Device rebooted",
        "Device twins updated with latest rebootTime",
    ]
    assert device.running

    reboot_time = shown.removeprefix("Last reboot time: ")
    twin = consoles.hub.request("GET", "/twins/myDeviceId").json()
    assert twin["properties"]["reported"]["rebootTime"] == reboot_time
    assert datetime.now() - datetime.fromisoformat(reboot_time) < timedelta(minutes=1)


@posix_only
@pytest.mark.usefixtures("needs_service_sdk")
def test_the_device_takes_calls_again_after_a_restart_of_the_hub(restarted: Consoles) -> None:
    hub, device = restarted.hub, restarted.device
    hub.wait_for_listener("myDeviceId")
    with Console(SERVICE_SCRIPT, environment=hub.environment()) as service:
        device.wait_for("Rebooting device")
        assert service.press_ctrl_c() == 0
    assert service.lines[-1] == "IoTHubDeviceMethod sample stopped"
    assert service.errors == []

    assert device.press_ctrl_c() == 0
    assert device.lines == [*DEVICE_STARTS, "Rebooting device", "IoTHubDeviceClient sample stopped"]
    assert device.errors == []
