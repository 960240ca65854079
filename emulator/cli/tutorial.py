"""The tutorial by one command: a hub, its two scripts as they are, and both consoles as one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from emulator.cli.output import OutputError, say
from emulator.cli.process import collect_garbage, on_signals
from emulator.emulator import Emulator
from emulator.errors import StartError
from emulator.hub.identities.identity import IdentityKey
from emulator.settings import Settings

_FOLDER = Path(__file__).resolve().parents[2]
_DEVICE_SCRIPT = _FOLDER / "dmpatterns_getstarted_device.py"
_SERVICE_SCRIPT = _FOLDER / "dmpatterns_getstarted_service.py"

_METHOD = "rebootDevice"
# How the last line of the service begins: it proves that the tutorial worked.
_PROOF = "Last reboot time: "

# A step that takes longer than this has failed. The device reboots for 20 seconds.
_CONNECT_SECONDS = 30
_REBOOT_SECONDS = 90
# How long a script may take to end on Ctrl-C.
_END_SECONDS = 5

_GROUP_OF_ITS_OWN: Mapping[str, Any] = (
    {"creationflags": 0x200}  # CREATE_NEW_PROCESS_GROUP
    if sys.platform == "win32"
    else {"start_new_session": True}
)

# The exit status of a program that Ctrl-C ended, as shells have it.
_INTERRUPTED = 130


class _Console:
    """A running script; its lines are shown as they come, with its name before them."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.proved = asyncio.Event()
        """Whether the line that proves the reboot was read."""
        self.silent = False
        """Whether its lines are not shown any more."""
        self.reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - it was started with a pipe
        async for line in self.process.stdout:
            text = line.decode(errors="replace").rstrip()
            if not self.silent:
                self._show(text)
            if text.startswith(_PROOF):
                self.proved.set()

    def _show(self, text: str) -> None:
        try:
            _say(self.name, text)
        except OutputError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()  # the step ends, and with it the tutorial
            raise

    async def end(self) -> None:
        """End the script as Ctrl-C does, or by force if that takes too long."""
        if self.process.returncode is None:
            if sys.platform == "win32":  # a program there can't send a Ctrl-C to one other
                self.process.terminate()
            else:
                self.process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(self.process.wait(), _END_SECONDS)
            except TimeoutError:
                self.process.kill()
        await self.reading


async def play(settings: Settings) -> int:
    """Run the tutorial on a hub of its own until its end, Ctrl-C or SIGTERM.

    Returns:
        the exit status: 0 when the service has seen the reboot, 1 for a failure.

    Raises:
        StartError: the hub can't start, or a script is missing.
    """
    collect_garbage()
    for script in (_DEVICE_SCRIPT, _SERVICE_SCRIPT):
        if not script.is_file():
            raise StartError(f"{script} is missing. Run the tutorial in a checkout of its source.")
    playing = asyncio.ensure_future(_play(settings))
    on_signals(playing.cancel)
    try:
        return await playing
    except asyncio.CancelledError:
        _say("hub", "interrupted")
        return _INTERRUPTED


async def _play(settings: Settings) -> int:
    async with Emulator(settings).in_this_loop() as emulator:
        device_id = settings.devices[0]
        _say("hub", f"ready at mqtts://{emulator.mqtt_host}, https://{emulator.https_host}")
        environment = {**os.environ, **emulator.environment(device_id)}
        async with _console("device", _DEVICE_SCRIPT, environment) as device:
            key, links = IdentityKey(device_id), emulator.hub.links
            listening = links.wait_for_listener(key, _METHOD, _CONNECT_SECONDS)
            if not await _happens(listening, _CONNECT_SECONDS, device):
                return _failed("the device did not connect and listen", device)
            async with _console("service", _SERVICE_SCRIPT, environment) as service:
                if not await _happens(service.proved.wait(), _REBOOT_SECONDS, service, device):
                    return _failed("the service did not see the reboot", service, device)
    _say("hub", "the tutorial worked: the device rebooted, and the service saw it")
    return 0


@asynccontextmanager
async def _console(
    name: str, script: Path, environment: Mapping[str, str]
) -> AsyncIterator[_Console]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # A Ctrl-C at the terminal reaches this process alone, which ends the scripts.
        **_GROUP_OF_ITS_OWN,
    )
    console = _Console(name, process)
    try:
        yield console
    except asyncio.CancelledError:
        console.silent = True  # a script that still imports its SDK ends in a traceback
        raise
    finally:
        await console.end()


async def _happens(step: Coroutine[Any, Any, Any], seconds: float, *consoles: _Console) -> bool:
    """Wait for a step of the tutorial; False if it fails, or takes longer, or a script ends."""
    stepping = asyncio.ensure_future(step)
    endings = [asyncio.ensure_future(console.process.wait()) for console in consoles]
    try:
        steps = [stepping, *endings]
        await asyncio.wait(steps, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return stepping.done() and bool(stepping.result())
    finally:
        for task in (stepping, *endings):
            task.cancel()


def _failed(step: str, *consoles: _Console) -> int:
    ended = [
        f"the {console.name} script ended with status {console.process.returncode}"
        for console in consoles
        if console.process.returncode is not None
    ]
    _say("hub", f"the tutorial failed: {'; '.join([step, *ended])}")
    return 1


def _say(name: str, text: str) -> None:
    say(f"{name:<7} | {text}".rstrip())
