"""The process of a command: its open files, its signals, its output and its garbage collector."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import stat
import sys
from collections.abc import Callable

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

# What a process may open on macOS at most, without being root.
_FILES = 10_240

# How long a thread keeps the interpreter while another one waits for it.
_SWITCH_SECONDS = 0.0002

# How many collections of younger objects are between two of all objects; Python has 10. A
# collection of all objects stops the event loop for 50 ms if peers have attached 24,000 links.
_FULL_COLLECTION = 50


def allow_many_files() -> None:
    """Raise this process's limit on open files: each device's connection is one.

    Systems begin with 1,024 (Linux) or 256 (macOS), and let a process raise that by itself.
    """
    if resource is None:
        return
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def switch_threads_often() -> None:
    """Let the event loop wait less for a thread that parses a large body.

    It gives the interpreter away at each read and write of TLS. With Python's 5 ms it then waits
    too long, too often: a read of a twin takes ten such turns.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)


def collect_garbage() -> None:
    """Turn the garbage collector on, except for the objects that the start has made: they stay."""
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _FULL_COLLECTION)
    gc.enable()


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a command: Ctrl-C, SIGTERM, and the end of its terminal."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    # `nohup` ignores this one, and means it.
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def on_signals(stop: Callable[[], object]) -> None:
    """Call `stop` in the running event loop on each of the signals that stop a command."""
    for number in stop_signals():
        on_signal(number, stop)


def on_signal(number: signal.Signals, call: Callable[[], object]) -> None:
    """Call a function in the running event loop on a signal."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, call)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))


def on_reader_gone(stop: Callable[[], object]) -> None:
    """Call `stop` in the running event loop when stdout is a pipe and its reader ends.

    So `python -m emulator | head -1` ends, as a program does that goes on to write.
    """
    if sys.platform == "win32" or sys.stdout is None:
        return
    output = sys.stdout.fileno()
    if stat.S_ISFIFO(os.fstat(output).st_mode):
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(output)
            stop()

        # The end for writing has nothing to read: what it reports is that the other end closed.
        loop.add_reader(output, gone)
