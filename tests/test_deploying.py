"""The Dockerfile, compose.yaml and docs/deploying.md, as far as they run without Docker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from emulator.settings import table
from emulator.testing.addresses import free_loopback_address
from tests.doc_page import blocks
from tests.processes import ROOT, Console, EmulatorConsole, clean_environment, posix_only
from tests.support import PATIENCE

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
PAGE = blocks(ROOT / "docs" / "deploying.md")

VARIABLES = dict(re.findall(r'(IOTHUB_\w+)="([^"]*)"', DOCKERFILE))
(HEALTH_CHECK,) = re.findall(r"CMD (\[.*\])", DOCKERFILE)

pytestmark = [
    posix_only,
    pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one loopback address"),
]


class Container:
    """What the image is, without Docker: its variables, and an address of this machine."""

    def __init__(self, data_dir: Path) -> None:
        self.host = free_loopback_address()
        own = {"HOST": self.host, "DATA_DIR": str(data_dir), "MQTT_PORT": "0", "HTTPS_PORT": "8443"}
        own = {f"IOTHUB_EMULATOR_{name}": value for name, value in own.items()}
        names = {"IOTHUB_EMULATOR_NAME": f"{VARIABLES['IOTHUB_EMULATOR_NAME']} {self.host}"}
        self.environment = clean_environment(**VARIABLES | own | names)

    def here(self, text: str) -> str:
        """Replace the addresses of the containers by that of this machine."""
        return text.replace("127.0.0.1", self.host).replace("//iothub", f"//{self.host}")

    def check_health(self) -> int:
        program, *arguments = json.loads(self.here(HEALTH_CHECK))
        assert program == "python"
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, timeout=PATIENCE
        ).returncode


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    container = Container(tmp_path_factory.mktemp("data"))
    assert container.check_health() == 1
    with EmulatorConsole(environment=container.environment):
        yield container
    assert container.check_health() == 1


def test_each_variable_is_a_setting() -> None:
    settings = {setting.variable for setting in table().values()}
    assert len(VARIABLES) == 4
    assert VARIABLES.keys() <= settings
    given = {
        name for service in COMPOSE["services"].values() for name in service.get("environment", ())
    }
    assert {each for each in given if each.startswith("IOTHUB_EMULATOR_")} <= settings


def test_the_user_is_not_root_and_builds_nothing() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert "pip" not in last
    assert "apt-get" not in DOCKERFILE


def test_each_port_of_compose_is_one_of_the_image() -> None:
    (exposed,) = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    for port in COMPOSE["services"]["iothub"]["ports"]:
        host, outside, inside = port.split(":")
        assert host == "127.0.0.1"
        assert outside == inside
        assert inside in exposed.split()


def test_each_volume_is_declared() -> None:
    (volume,) = COMPOSE["services"]["iothub"]["volumes"]
    name, _, folder = volume.partition(":")
    assert name in COMPOSE["volumes"]
    assert folder == VARIABLES["IOTHUB_EMULATOR_DATA_DIR"]


def test_the_health_check_succeeds_while_the_hub_runs(container: Container) -> None:
    assert container.check_health() == 0


def test_the_second_service_waits_and_then_trusts_the_hub(
    container: Container, tmp_path: Path
) -> None:
    device = COMPOSE["services"]["device"]
    assert device["depends_on"] == {"iothub": {"condition": "service_healthy"}}
    program, option, script = device["command"]
    assert (program, option) == ("python", "-c")
    bundle = tmp_path / "ca-bundle.pem"
    environment = clean_environment(SSL_CERT_FILE=str(bundle), NO_PROXY="*")
    with Console("-c", container.here(script), environment=environment) as run:
        assert run.wait() == 0, run.output
    assert run.lines == ['trusted and {"status":"healthy"}']


def test_env_names_the_host_of_the_service(container: Container) -> None:
    command = ("-m", "emulator", "env", "--shell", "dotenv")
    with Console(*command, environment=container.environment) as run:
        assert run.wait() == 0, run.output
    found = dict(line.split("=", 1) for line in run.lines)
    assert found["IOTHUB_DEVICE_CONNECTION_STRING"].startswith(
        "HostName=iothub;DeviceId=myDeviceId;"
    )


# --- the page


def the_block(language: str, word: str) -> str:
    (found,) = (each.text for each in PAGE if each.language == language and word in each.text)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_in_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "iothub.service"
    text = the_block("ini", "[Service]")
    command = "ExecStart=/opt/iothub/bin/iothub-emulator"
    assert command in text
    unit.write_text(text.replace(command, f"ExecStart={shutil.which('true')}"))
    result = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=PATIENCE
    )
    own = [line for line in result.stderr.splitlines() if "iothub" in line]
    assert (result.returncode, own) == (0, [])


def test_the_options_of_the_unit_are_those_of_the_command() -> None:
    (line,) = re.findall(r"^ExecStart=\S+ (.*)$", the_block("ini", "[Service]"), re.MULTILINE)
    assert set(re.findall(r"--[a-z-]+", line)) <= {each.option for each in table().values()}


def test_the_jobs_are_yaml_and_the_hub_of_the_first_one_starts(tmp_path: Path) -> None:
    """The step runs as it is, with the command of this environment, on another address."""
    for text in (each.text for each in PAGE if each.language == "yaml"):
        assert yaml.safe_load(text)
    steps = yaml.safe_load(the_block("yaml", "GITHUB_ENV"))["jobs"]["test"]["steps"]
    (script,) = (each["run"] for each in steps if each.get("name") == "Start the hub")
    host, file = free_loopback_address(), tmp_path / "variables"
    script = script.replace("http://localhost", f"http://{host}")
    script = script.replace("iothub-emulator", f"{sys.executable} -m emulator")
    environment = clean_environment(
        GITHUB_ENV=str(file),
        IOTHUB_EMULATOR_HOST=host,
        IOTHUB_EMULATOR_DATA_DIR=str(tmp_path / "data"),
        PYTHONPATH=str(ROOT),
        NO_PROXY="*",
    )
    with Console(
        *("-e", "-c", script + "\nkill $!\nwait $!"),
        environment=environment,
        folder=tmp_path,
        program="bash",
    ) as run:
        assert run.wait() == 0, run.output
    assert "IOTHUB_CONNECTION_STRING=HostName=" in file.read_text()
    assert "The hub is ready" in (tmp_path / "hub.log").read_text()
