"""`simulate`: devices that a command plays, against the hub of the whole run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from tests.cli.az.conftest import Run
from tests.cli.az.test_messages import documents
from tests.http.support import invoke, new_id
from tests.messages import bodies, read_events
from tests.processes import Console, clean_environment, posix_only
from tests.support import PATIENCE, Device, Service, own, wait_until

Simulate = Callable[..., Console]


@pytest.fixture
def simulate(emulator: Emulator) -> Iterator[Simulate]:
    """Starts `simulate` as a process, which the end of the test ends."""
    consoles: list[Console] = []
    environment = clean_environment(
        SSL_CERT_FILE=str(emulator.ca_file),
        IOTHUB_CONNECTION_STRING=emulator.service_connection_string,
    )

    def start(*arguments: str) -> Console:
        words = ("-m", "emulator", "simulate", *arguments)
        console = Console(*words, environment=environment).__enter__()
        consoles.append(console)
        return console

    yield start
    for each in consoles:
        each.__exit__(None, None, None)


def wait_for_document(console: Console, member: str) -> Any:
    """Wait until a process has printed a document with a member; return that."""

    def found() -> list[Any]:
        text = "\n".join(console.lines)
        try:
            shown = documents(text)
        except ValueError:  # half of one
            return []
        return [each[member] for each in shown if member in each]

    wait_until(found)
    return found()[0]


def is_connected(service: Service, device: Device) -> bool:
    twin = service.request("GET", f"/twins/{device.id}").json()
    return bool(twin["connectionState"] == "Connected")


def test_telemetry_is_that_of_az(az: Run, device: Device, service: Service) -> None:
    options = ("--data", "t", "--msg-count", "3", "--mi", "0", "--props", "a=1;$.mid=m x")
    model = "dtmi:com:example:Thermostat;1"
    options = (*options, "--dtmi", model)
    assert az("simulate", "-d", device.id, *options) == (0, "", [])
    events = read_events(service, device.id)
    assert [each["body"]["data"] for each in events] == ["t #1", "t #2", "t #3"]
    assert set(events[0]["body"]) == {"id", "timestamp", "data"}
    assert events[0]["properties"] == {"a": "1"}
    assert events[0]["systemProperties"] == {
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "message-id": "m x",
    }
    assert events[0]["annotations"]["dt-dataschema"] == model


@posix_only
def test_a_device_answers_reports_and_shows(
    simulate: Simulate, device: Device, service: Service
) -> None:
    console = simulate("-d", device.id, "--msg-count", "0", "--mi", "60", "--irp", '{"fan": 1}')
    wait_until(lambda: len(bodies(service, device.id)) == 1)
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert own(twin["properties"]["reported"]) == {"fan": 1}

    answer = invoke(service, device.id, methodName="re boot/é", payload={"delay": 5}).json()
    assert answer["status"] == 200
    assert answer["payload"]["methodName"] == "re boot/é"
    assert answer["payload"]["methodRequestPayload"] == {"delay": 5}
    shown = wait_for_document(console, "method")
    assert shown == {"name": "re boot/é", "payload": {"delay": 5}, "status": 200}

    patch = {"properties": {"desired": {"interval": 5}}}
    service.request("PATCH", f"/twins/{device.id}", json=patch)

    def reported() -> bool:
        twin = service.request("GET", f"/twins/{device.id}").json()
        return own(twin["properties"]["reported"]) == {"fan": 1, "interval": 5}

    wait_until(reported)
    assert wait_for_document(console, "desired")["interval"] == 5

    message = {"body": "\x1b[31mred", "properties": {"p": "1"}}
    service.request("POST", f"/_emulator/devices/{device.id}/messages", json=message)
    shown = wait_for_document(console, "message")
    assert (shown["data"], shown["properties"]["p"]) == ("\x1b[31mred", "1")
    assert not any("\x1b" in line for line in console.lines)
    assert console.press_ctrl_c() == 0
    assert console.errors == []
    wait_until(lambda: not is_connected(service, device))


def test_the_answer_of_a_method_is_chosen(
    simulate: Simulate, device: Device, service: Service
) -> None:
    options = ("--msg-count", "0", "--mi", "60", "--mrc", "418", "--mrp", '{"tea": true}')
    simulate("-d", device.id, *options)
    wait_until(lambda: len(bodies(service, device.id)) == 1)
    answer = invoke(service, device.id, methodName="x", payload=None).json()
    assert (answer["status"], answer["payload"]) == (418, {"tea": True})


def test_many_devices_are_made_and_run(az: Run, service: Service) -> None:
    prefix = new_id()
    names = [f"{prefix}-{number}" for number in range(1, 4)]
    try:
        assert az("device-identity", "create", "-d", names[1]).status == 0
        result = az("simulate", "-d", prefix, "--count", "3", "--msg-count", "2", "--mi", "0")
        assert result == (0, "", ["emulator: Created 2 devices."])
        assert [len(bodies(service, name)) for name in names] == [2, 2, 2]
    finally:
        for name in names:
            service.request("DELETE", f"/devices/{name}", headers={"If-Match": "*"})


def test_a_device_with_a_certificate(az: Run, service: Service, tmp_path: Path) -> None:
    name = new_id()
    create = ("device-identity", "create", "-d", name, "--am", "x509_thumbprint")
    try:
        assert az(*create, "--od", str(tmp_path)).status == 0
        files = ("--cp", f"{tmp_path}/{name}-cert.pem", "--kp", f"{tmp_path}/{name}-key.pem")
        options = ("--msg-count", "1", "--mi", "0")
        assert az("simulate", "-d", name, *options, *files) == (0, "", [])
        assert len(bodies(service, name)) == 1
        without = az("simulate", "-d", name, *options)
        assert (without.status, without.output, len(without.errors)) == (1, "", 1)
        assert "has no key: it authenticates by selfSigned." in without.errors[0]
        wrong = az("simulate", "-d", name, *options, "--cp", "/none/c", "--kp", "/none/k")
        assert (wrong.status, len(wrong.errors)) == (2, 1)
    finally:
        service.request("DELETE", f"/devices/{name}", headers={"If-Match": "*"})


def test_a_device_that_is_refused_is_one_line(az: Run, device: Device, service: Service) -> None:
    unknown = az("simulate", "-d", "none")
    assert (unknown.status, unknown.output, len(unknown.errors)) == (3, "", 1)
    az("device-identity", "update", "-d", device.id, "--status", "disabled")
    refused = az("simulate", "-d", device.id)
    assert refused == (
        1,
        "",
        [
            f"emulator: The hub refuses the connection of {device.id}: not authorized. Check that "
            "the device is enabled, and its key or certificate."
        ],
    )
    invalid = az("simulate", "-d", device.id, "--key", "%")
    said = (
        "argument --symmetric-key/--key: Invalid key: it is not base64. --help shows the options."
    )
    assert invalid == (2, "", [f"emulator: {said}"])


def test_a_connection_that_ends_is_one_line(
    simulate: Simulate, device: Device, service: Service
) -> None:
    console = simulate("-d", device.id, "--msg-count", "0", "--mi", "0.05")
    wait_until(lambda: len(bodies(service, device.id)) > 1)
    service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})
    assert console.wait() == 1
    assert console.errors == [f"emulator: The hub closed the connection of {device.id}."]


@posix_only
def test_a_pipe_that_closes_ends_it(emulator: Emulator, device: Device, service: Service) -> None:
    environment = clean_environment(
        SSL_CERT_FILE=str(emulator.ca_file),
        IOTHUB_CONNECTION_STRING=emulator.service_connection_string,
    )
    command = [sys.executable, "-m", "emulator", "simulate", "-d", device.id]
    process = subprocess.Popen(
        [*command, "--msg-count", "0", "--mi", "0.05"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            wait_until(lambda: len(bodies(service, device.id)) > 1)
            assert process.stdout is not None
            process.stdout.close()
            invoke(service, device.id, methodName="x", payload=None)
            assert process.wait(PATIENCE) == 1
            assert process.stderr is not None
            assert process.stderr.read() == b"emulator: Can't write the output: Broken pipe.\n"
        finally:
            process.kill()
