"""`run -- COMMAND`: a hub for one command."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from emulator import event_loop
from emulator.cli.log import set_up
from emulator.cli.options import Command, add_settings, read_command
from emulator.cli.output import complain
from emulator.cli.parser import Parser
from emulator.cli.process import (
    allow_many_files,
    collect_garbage,
    on_signal,
    stop_signals,
    switch_threads_often,
)
from emulator.emulator import Emulator
from emulator.errors import StartError
from emulator.net.listeners import ListenError, other_loopback_address
from emulator.settings import HTTPS_PORT, Settings

_DESCRIPTION = """\
Start a hub, run a command with all variables set, stop the hub, and exit with
the status of the command. The hub listens on a free loopback address, not on
localhost; --host chooses another one. It keeps nothing, unless --data-dir
names a folder. It prints nothing, unless --verbose is given.
"""
_EPILOG = """\
examples:
  %(prog)s -- python my_device.py
      a program on a hub of its own
  %(prog)s --device kitchen -- npm test
      tests, with a device of this name

The command begins behind --, or at the first word that is not an option of the
hub. All options behind that are its own.
"""

# As shells have them.
_NOT_FOUND, _NOT_EXECUTABLE, _BY_SIGNAL = 127, 126, 128


def main(arguments: Sequence[str]) -> int:
    """Run a command, and return its status.

    Raises:
        StartError: the hub can't start.
    """
    parser = Parser("run", _DESCRIPTION, _EPILOG)
    add_settings(
        parser,
        host="a free loopback address, not localhost",
        https_port=str(HTTPS_PORT),
        data_dir="the hub keeps nothing",
        cert_dir="a folder of this user",
    )
    parser.usage = f"{parser.prog} [OPTIONS] [--] COMMAND [ARGUMENT ...]"
    end = parser.end_of_options(arguments)
    options = vars(parser.parse_known(arguments[:end]))
    program = arguments[end + 1 :] if arguments[end : end + 1] == ["--"] else arguments[end:]
    if not program:
        parser.error(f"The command is missing: {parser.prog} -- COMMAND")
    command = read_command(parser, options, "run")
    set_up(verbose=command.verbose, quiet=True)
    if not command.verbose:
        logging.getLogger().setLevel(logging.CRITICAL)
        logging.getLogger("emulator").setLevel(logging.CRITICAL)
    is_host_free = "host" not in command.found
    return event_loop.run(_run(command, program, is_host_free=is_host_free))


async def _run(command: Command, program: Sequence[str], *, is_host_free: bool) -> int:
    allow_many_files()
    switch_threads_often()
    async with AsyncExitStack() as stack:
        emulator = await _start(stack, command.settings, is_host_free=is_host_free)
        collect_garbage()
        device_id = emulator.settings.devices[0]
        environment = {**os.environ, **emulator.environment(device_id)}
        try:
            process = await asyncio.create_subprocess_exec(*program, env=environment)
        except OSError as error:
            complain(f"emulator: Can't run {program[0]}: {error.strerror}.")
            is_missing = isinstance(error, FileNotFoundError)
            return _NOT_FOUND if is_missing else _NOT_EXECUTABLE
        for number in stop_signals():
            on_signal(number, functools.partial(_forward, process, number))
        status = await process.wait()
    return status if status >= 0 else _BY_SIGNAL - status


async def _start(stack: AsyncExitStack, settings: Settings, *, is_host_free: bool) -> Emulator:
    """Start a hub, on the first loopback address that is free unless the user chose another one."""
    for host in _addresses() if is_host_free else (settings.host,):
        try:
            return await stack.enter_async_context(Emulator(replace(settings, host=host)))
        except StartError as error:
            failure = error
            if not isinstance(error.__cause__, ListenError) or not error.__cause__.in_use:
                break
    raise failure


def _addresses() -> Iterator[str]:
    """Return the loopback addresses behind the one of a usual hub; macOS has no others."""
    address = other_loopback_address("localhost") or "127.0.0.1"
    while address:
        yield address
        address = other_loopback_address(address) or ""


def _forward(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to the command; a terminal, and Windows, send Ctrl-C to both."""
    from_terminal = sys.platform == "win32" or (sys.stdin is not None and sys.stdin.isatty())
    if number == signal.SIGINT and from_terminal:
        return
    if process.returncode is None:
        process.send_signal(number)
