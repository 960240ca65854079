"""`env`, `token`, `ca`, `completion`, and how each command finds a hub, as processes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emulator.cli.commands import AZ_COMMANDS, COMMANDS
from emulator.cli.shells import BY_NAME
from tests.cli.test_commands import run_to_end
from tests.processes import ROOT, Console, EmulatorConsole, clean_environment, posix_only
from tests.support import PATIENCE

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="macOS has one loopback address, so these hubs would meet"
)


# --- env


def test_env_has_the_lines_that_the_hub_prints(hub: EmulatorConsole, data_dir: Path) -> None:
    status, lines, errors = run_to_end("env", "--data-dir", data_dir, "--shell", "bash")
    assert (status, errors) == (0, [])
    # The window of the hub has no room for the variables of provisioning.
    printed = [f"  {line}" for line in lines if "PROVISIONING_" not in line]
    assert (printed, len(lines)) == (hub.paste, len(hub.paste) + 3)
    status, lines, _ = run_to_end("env", "--data-dir", data_dir, "--json")
    found = json.loads("\n".join(lines))
    assert {name: found[name] for name in hub.variables} == hub.variables


def test_env_of_another_device_in_a_file(
    hub: EmulatorConsole, data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cellar.env"
    options = ("--data-dir", data_dir, "-d", "cellar", "--file", file, "--shell", "dotenv")
    status, lines, errors = run_to_end("env", *options)
    assert (status, lines, errors) == (0, [f"Wrote 10 variables to {file}."], [])
    found = dict(line.split("=", 1) for line in file.read_text().splitlines())
    text = hub.device_connection_strings["cellar"]
    assert found["IOTHUB_DEVICE_CONNECTION_STRING"] == text
    assert found["IOTHUB_DEVICE_ID"] == "cellar"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    status, lines, errors = run_to_end("env", "--data-dir", data_dir, "-d", "none")
    assert (status, lines, len(errors)) == (3, [], 1)


@posix_only
@pytest.mark.usefixtures("hub")
def test_env_is_written_to_a_pipe_that_stays_one(data_dir: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    status, _, errors = run_to_end("env", "--data-dir", data_dir, "--file", pipe)
    assert (status, errors) == (0, [])
    reader.join(PATIENCE)
    assert pipe.is_fifo()
    assert "IOTHUB_CONNECTION_STRING" in read[0]


@posix_only
@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "command", ["device-identity list", "monitor-events --timeout 0.1", "env", "query -q x"]
)
def test_a_command_without_streams(command: str, closed: str, data_dir: Path) -> None:
    line = f'"$0" -m emulator {command} --data-dir "$1" {closed}'
    run = subprocess.run(
        ["sh", "-c", line, sys.executable, str(data_dir)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environment(),
    )
    refused = command.startswith("query")
    assert run.returncode == int(refused), run.stderr
    assert len(run.stderr.splitlines()) == int(refused and "2>" not in closed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.usefixtures("hub")
def test_an_error_that_cannot_be_written_keeps_its_status(data_dir: Path) -> None:
    line = '"$0" -m emulator device-identity show -d none --data-dir "$1" 2> /dev/full'
    command = ["sh", "-c", line, sys.executable, str(data_dir)]
    assert subprocess.run(command, timeout=PATIENCE, env=clean_environment()).returncode == 3


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("shell", BY_NAME)
def test_env_is_for_each_shell(shell: str, data_dir: Path) -> None:
    status, lines, errors = run_to_end("env", "--data-dir", data_dir, "--shell", shell)
    assert (status, len(lines), errors) == (0, 10, [])
    program = shutil.which(shell)
    if program and shell in ("bash", "zsh", "sh", "fish"):
        script = "\n".join(
            [
                *lines,
                f"{shlex.quote(sys.executable)} -c 'import os; print(len(os.environ"
                '["IOTHUB_CONNECTION_STRING"]))\'',
            ]
        )
        run = subprocess.run([program, "-c", script], capture_output=True, text=True, check=True)
        assert int(run.stdout) > 50


def test_env_for_cmd_has_the_lines_of_a_script(
    hub: EmulatorConsole, data_dir: Path, tmp_path: Path
) -> None:
    hub.request("PUT", "/devices/50%25", json={"deviceId": "50%"})
    file = tmp_path / "hub.cmd"
    options = ("--data-dir", data_dir, "-d", "50%", "--shell", "cmd")
    _, lines, errors = run_to_end("env", *options)
    assert (errors, 'set "IOTHUB_DEVICE_ID=50%%"' in lines) == ([], True)
    assert run_to_end("env", *options, "--file", file)[0] == 0
    assert file.read_text().splitlines() == lines
    hub.request("DELETE", "/devices/50%25")


# --- token, ca


def test_curl_needs_the_token_and_the_ca_only(
    hub: EmulatorConsole, host: str, data_dir: Path
) -> None:
    _, [token], _ = run_to_end("token", "--data-dir", data_dir)
    _, [ca], _ = run_to_end("ca", "--data-dir", data_dir)
    assert Path(ca) == data_dir / "ca.pem"
    _, lines, _ = run_to_end("ca", "print", "--data-dir", data_dir)
    assert "\n".join([*lines, ""]) == Path(ca).read_text()
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    port = hub.variables["IOTHUB_CONNECTION_STRING"].split(";")[0].partition(":")[2] or "443"
    url = f"https://{host}:{port}/devices/kitchen?api-version=2021-04-12"
    command = [curl, "-s", "--noproxy", "*", "--cacert", ca, "-H", f"Authorization: {token}", url]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert json.loads(run.stdout)["deviceId"] == "kitchen"


# --- the hub of a command


@pytest.mark.usefixtures("hub")
def test_a_command_finds_the_hub(host: str, data_dir: Path, hub: EmulatorConsole) -> None:
    show = ("device-identity", "show", "-d", "kitchen", "--query", "deviceId", "-o", "tsv")
    for options in (("--data-dir", data_dir), ("--data-dir", data_dir, "-n", host)):
        assert run_to_end(*show, *options) == (0, ["kitchen"], [])
    ignored = ("-g", "group", "--auth-type", "key", "--only-show-errors")
    text = hub.service_connection_string
    assert run_to_end(*show, *ignored, "-l", text, "--data-dir", data_dir) == (0, ["kitchen"], [])
    variables = {"IOTHUB_CONNECTION_STRING": text, "SSL_CERT_FILE": str(hub.ca_file)}
    assert run_to_end(*show, **variables) == (0, ["kitchen"], [])
    # A real hub of this name does not run here.
    status, lines, errors = run_to_end(*show, "--data-dir", data_dir, "-n", "my-hub")
    assert (status, lines) == (1, [])
    assert errors[0].startswith("emulator: No hub runs here on my-hub. Start it: python -m emul")


@pytest.mark.parametrize("command", ["env", "token", "ca", "query -q x", "simulate -d x"])
def test_no_hub_is_one_line(command: str, tmp_path: Path) -> None:
    status, lines, errors = run_to_end(*command.split(), "--data-dir", tmp_path)
    assert (status, lines) == (1, [])
    assert errors == [
        "emulator: No hub runs here. Start it: python -m emulator. Or name another one: "
        "--login CONNECTION_STRING"
    ]


def test_a_hub_that_does_not_answer_is_one_line() -> None:
    text = "HostName=127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=YWJj"
    status, lines, errors = run_to_end("monitor-events", "--login", text)
    assert (status, lines) == (1, [])
    assert errors == [
        "emulator: Can't reach the hub at 127.0.0.1:1: connection refused. "
        "Start it: python -m emulator"
    ]


@posix_only
@pytest.mark.usefixtures("hub")
def test_ctrl_c_ends_a_monitor_without_a_word(data_dir: Path) -> None:
    monitor = ("-m", "emulator", "monitor-events", "--data-dir", data_dir, "--et", "0")
    with Console(*monitor, environment=clean_environment()) as console:
        with Console(
            *("-m", "emulator", "simulate", "-d", "kitchen", "--msg-count", "1", "--mi", "0"),
            *("--data-dir", data_dir),
            environment=clean_environment(),
        ) as device:
            assert device.wait() == 0
        console.wait_for(r' *"data": "Ping from the command line #1"')
        assert console.press_ctrl_c() in (-2, 130)
        assert console.errors == []


# --- completion


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    shells = ("bash", "zsh", "fish", "powershell")
    return {shell: "\n".join(run_to_end("completion", shell)[1]) for shell in shells}


def test_each_script_has_every_command_and_option(scripts: dict[str, str]) -> None:
    for script in scripts.values():
        for word in (*COMMANDS, *AZ_COMMANDS, "tutorial"):
            assert word in script
        assert "device-identity connection-string show" in script
        assert "--primary-thumbprint" in script
        assert "@TABLE@" not in script


# What shows the completions of a line: the words, the last of which is incomplete.
_BASH = """
COMP_WORDS=({words}); COMP_CWORD=$(({count} - 1))
_iothub_emulator; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# zsh completes on a terminal only. These stand for its own functions.
_ZSH = """
words=({words}); CURRENT={count}
_iothub_emulator
"""
_ZSH_FUNCTIONS = """
compdef() { }; _files() { }
compadd() { print -l -- ${(M)${@[2,-1]}:#$words[CURRENT]*} }
"""
_FISH = "complete -C{line}"


def complete(shell: str, script: str, *words: str) -> set[str]:
    """Return what a shell completes at the end of a line."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    line = shlex.join(("iothub-emulator", *words))
    count = len(words) + 1
    if shell == "bash":
        text = script + _BASH.format(words=line, count=count)
    elif shell == "zsh":
        text = _ZSH_FUNCTIONS + script + _ZSH.format(words=line, count=count)
    else:
        line = " ".join(("iothub-emulator", *words))
        text = f"{script}\n{_FISH.format(line=shlex.quote(line))}"
    run = subprocess.run([program, "-c", text], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return set(run.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(shell: str, scripts: dict[str, str]) -> None:
    script = scripts[shell]
    assert complete(shell, script, "device-") == {"device-twin", "device-identity"}
    words = complete(shell, script, "device-identity", "")
    assert {"create", "show", "connection-string"} <= words
    assert not words & {"device-twin", "--login"}
    assert complete(shell, script, "device-identity", "connection-string", "s") == {"show"}
    assert complete(shell, script, "device-twin", "update", "-d", "x", "--des") == {"--desired"}
    assert complete(shell, script, "--mqtt") == {"--mqtt-port"}
    assert complete(shell, script, "config", "ch") == {"check"}
    assert complete(shell, script, "ca", "") >= {"path", "print", "create", "issue", "verify"}
    assert "--signed-by" in complete(shell, script, "ca", "issue", "--s")
    assert complete(shell, script, "enrollment-group", "comp") == {"compute-device-key"}
    assert "--root-ca-name" in complete(shell, script, "enrollment-group", "create", "--ro")
    assert complete(shell, script, "completion", "po") == {"powershell"}
    assert complete(shell, script, "clock", "") >= {"advance", "show"}
    assert complete(shell, script, "fault", "") >= {"add", "list", "remove", "clear"}
    assert complete(shell, script, "fault", "add", "twin") == {"twin-status"}
    assert complete(shell, script, "fault", "add", "throttle", "--prob") == {"--probability"}


def test_an_unknown_shell_is_one_line() -> None:
    status, lines, errors = run_to_end("completion", "tcsh")
    assert (status, lines, len(errors)) == (2, [], 1)


# --- the start


def test_a_start_imports_nothing_of_the_commands() -> None:
    program = (
        "import sys, emulator.cli.main, emulator.cli.start, emulator.cli.options;"
        "print([each for each in sys.modules if each.startswith('emulator.cli.az')"
        " or each in ('emulator.client', 'jmespath', 'emulator.cli.completion')])"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
