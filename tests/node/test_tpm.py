"""Devices with a TPM that register with the provisioning SDK of npm."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.dps.support import Owner, new_id
from tests.node.conftest import AMQPS_PORT, Node, NodeError
from tests.support import PATIENCE


@pytest.fixture(params=["Amqp", "AmqpWs", "Http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dps(request: pytest.FixtureRequest, emulator: Emulator, transport: str) -> Emulator:
    """The emulator that the SDK dials."""
    if transport == "Amqp":
        if emulator.amqps_port != AMQPS_PORT:
            pytest.skip("another program has port 5671")
        return emulator
    found = request.getfixturevalue("web_socket_hub")
    assert isinstance(found, Emulator)
    return found


@pytest.fixture
def owner(dps: Emulator) -> Iterator[Owner]:
    with Owner(dps) as client:
        yield client


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[int]:
    """The port of a TPM: swtpm, which is built on libtpms."""
    program = shutil.which("swtpm")
    if program is None or sys.platform != "linux":
        pytest.skip("swtpm is not installed")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [
            *(program, "socket", "--tpm2", "--tpmstate", f"dir={tmp_path}"),
            *("--server", f"type=tcp,port={port}", "--flags", "not-need-init,startup-clear"),
        ]
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        # It serves one client, and ends behind it: so no connection is tried here.
        if f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text(encoding="ascii"):
            break
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield port
    process.terminate()
    process.wait(PATIENCE)


def register(node: Node, dps: Emulator, name: str, transport: str) -> dict[str, Any]:
    found: dict[str, Any] = node.call(
        "tpm",
        "register",
        host=dps.host_name,
        idScope=dps.dps_id_scope,
        id=name,
        transport=transport,
    )
    return found


def check_that_it_can_send(node: Node, dps: Emulator, name: str) -> None:
    """Send telemetry with a token that the TPM of a device signs."""
    token = node.call("tpm", "token", id=name, resource=f"{dps.host_name}/devices/{name}")
    answer = requests.post(
        f"https://{dps.https_host}/devices/{name}/messages/events?api-version=2021-04-12",
        headers={"Authorization": token},
        verify=str(dps.ca_file),
        timeout=PATIENCE,
    )
    assert answer.status_code == 204, answer.text


def test_a_device_with_a_tpm_registers(
    node: Node, dps: Emulator, owner: Owner, transport: str
) -> None:
    name = new_id("tpm")
    owner.enroll(name, {"type": "tpm", "tpm": node.call("tpm", "open", id=name)})
    result = register(node, dps, name, transport)
    assert result == {"status": "assigned", "hub": dps.host_name, "device": name}
    check_that_it_can_send(node, dps, name)


def test_a_tpm_that_is_not_enrolled_fails(
    node: Node, dps: Emulator, owner: Owner, transport: str
) -> None:
    name = new_id("tpm")
    node.call("tpm", "open", id=name)
    with pytest.raises(NodeError) as error:
        register(node, dps, name, transport)
    assert error.value.name == "ProvisioningRegistrationFailedError"
    owner.refuse("GET", f"/registrations/{name}", 404203)


@pytest.mark.parametrize("transport", ["Http"])  # over AMQP, the SDK waits without end
def test_another_tpm_is_refused(node: Node, dps: Emulator, owner: Owner, transport: str) -> None:
    name = new_id("tpm")
    owner.enroll(name, {"type": "tpm", "tpm": node.call("tpm", "open", id=name)})
    node.call("tpm", "open", id=name)
    with pytest.raises(NodeError) as error:
        register(node, dps, name, transport)
    assert error.value.name == "FormatError"  # it gets no key


def test_the_sdks_own_client_with_a_simulated_tpm(
    node: Node, dps: Emulator, owner: Owner, transport: str, simulator: int
) -> None:
    name = new_id("tpm")
    tpm = node.call("tpm", "open", id=name, port=simulator)
    owner.enroll(name, {"type": "tpm", "tpm": tpm})
    assert register(node, dps, name, transport)["status"] == "assigned"
    check_that_it_can_send(node, dps, name)
