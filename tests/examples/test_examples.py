"""The examples as a reader runs them: in consoles that have the lines of the hub, and no more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from emulator.testing.addresses import free_loopback_address
from tests.node.conftest import node_modules
from tests.processes import ROOT, Console, EmulatorConsole, posix_only

EXAMPLES = ROOT / "examples"

# What the SDKs dial, whatever the connection string has.
AMQPS_PORT = 5671

__all__ = ["node_modules"]  # a fixture

needs_service_sdk = pytest.mark.skipif(
    find_spec("uamqp") is None, reason="azure-iot-hub has no wheel for this machine"
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorConsole]:
    """A hub with a new CA, so no program trusts it yet."""
    options = ("--host", free_loopback_address(), "--data-dir", tmp_path_factory.mktemp("hub"))
    with EmulatorConsole(*options) as console:
        if any(str(AMQPS_PORT) in line for line in console.errors):
            pytest.skip(f"another program has port {AMQPS_PORT}")
        yield console


def run(hub: EmulatorConsole, name: str, **variables: str) -> Console:
    """Start an example in a console into which the lines of the hub were pasted."""
    script = EXAMPLES / name
    environment = hub.environment(PYTHONUNBUFFERED="1", **variables)
    if script.suffix == ".py":
        return Console(script, environment=environment)
    return Console(script, environment=environment, program=str(shutil.which("node")))


@posix_only
@needs_service_sdk
def test_a_service_sends_messages_that_a_device_receives(hub: EmulatorConsole) -> None:
    with run(hub, "receive_cloud_to_device_messages.py") as device:
        device.wait_for("Waiting for messages. Ctrl-C stops it.")
        with run(hub, "send_cloud_to_device_messages.py") as service:
            assert service.wait() == 0, service.output
        device.wait_for("    priority: .+", count=3)
        assert device.press_ctrl_c() == 0
    assert service.lines == [f"Sent to myDeviceId: Message {number}" for number in (1, 2, 3)]
    first, *messages, last = device.lines
    assert (first, last) == ("Waiting for messages. Ctrl-C stops it.", "Stopped.")
    # In any order: the SDK handles each message in a thread of its own.
    assert sorted(zip(messages[::2], messages[1::2], strict=True)) == [
        ("Received: Message 1", "    priority: normal"),
        ("Received: Message 2", "    priority: normal"),
        ("Received: Message 3", "    priority: high"),
    ]
    assert (service.errors, device.errors) == ([], [])


@posix_only
@needs_service_sdk
def test_a_service_receives_feedback(hub: EmulatorConsole, node_modules: Path) -> None:
    with (
        run(hub, "receive_cloud_to_device_messages.py") as device,
        run(
            hub, "receive_feedback.js", NODE_PATH=str(node_modules), NODE_NO_WARNINGS="1"
        ) as reader,
    ):
        device.wait_for("Waiting for messages. Ctrl-C stops it.")
        reader.wait_for("Waiting for feedback. Ctrl-C stops it.")
        with run(hub, "send_cloud_to_device_messages.py") as service:
            assert service.wait() == 0, service.output
        for number in (1, 2, 3):
            reader.wait_for(f"myDeviceId, message-{number}: Success")
        reader.press_ctrl_c()
    assert (reader.errors, service.errors, device.errors) == ([], [], [])


@posix_only
def test_a_program_reads_what_a_device_sends(hub: EmulatorConsole) -> None:
    with run(hub, "read_device_to_cloud_messages.py") as reader:
        reader.wait_for("Waiting for messages. Ctrl-C stops it.")
        with run(hub, "send_device_to_cloud_messages.py") as device:
            assert device.wait() == 0, device.output
        reader.wait_for("    alert: true")
        assert reader.press_ctrl_c() == 0
    bodies = [f'{{"temperature": {each}}}' for each in (21.5, 24.0, 31.5)]
    assert device.lines == [f"Sent: {body}" for body in bodies]
    first = reader.lines[1]
    partition = first.removeprefix("Partition ")[0]
    assert reader.lines == [
        "Waiting for messages. Ctrl-C stops it.",
        *(f"Partition {partition}, myDeviceId: {bodies[0]}", "    alert: false"),
        *(f"Partition {partition}, myDeviceId: {bodies[1]}", "    alert: false"),
        *(f"Partition {partition}, myDeviceId: {bodies[2]}", "    alert: true"),
        "Stopped.",
    ]
    assert (reader.errors, device.errors) == ([], [])


@posix_only
def test_a_device_is_enrolled_provisioned_connected_and_rebooted(hub: EmulatorConsole) -> None:
    for _ in range(2):  # the second time it is enrolled and assigned already
        with run(hub, "provision_device.py", **hub.file_variables) as device:
            device.wait_for("Waiting for rebootDevice. Ctrl-C stops it.")
            body = {"methodName": "rebootDevice", "connectTimeoutInSeconds": 30}
            answer = hub.request("POST", "/twins/my-first-device/methods", json=body)
            assert answer.json() == {"status": 200, "payload": {"rebooting": True}}
            device.wait_for("Rebooting")
            assert device.press_ctrl_c() == 0
        assert device.lines == [
            "Enrolled: my-first-device",
            f"Assigned to {hub.file_variables['PROVISIONING_HOST']} as my-first-device",
            "Connected; telemetryInterval is 60",
            "Waiting for rebootDevice. Ctrl-C stops it.",
            "Rebooting",
            "Stopped.",
        ]
        assert device.errors == []
    reported = hub.request("GET", "/twins/my-first-device").json()["properties"]["reported"]
    assert reported["rebootTime"]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_a_missing_variable_ends_an_example_with_one_line(script: Path) -> None:
    if script.name.startswith("send_cloud") and find_spec("uamqp") is None:
        pytest.skip("azure-iot-hub has no wheel for this machine")
    with Console(script) as console:
        assert console.wait() == 1
    assert console.lines == []
    assert len(console.errors) == 1
    assert console.errors[0].startswith("Set ")
