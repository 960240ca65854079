"""The process of a command: its open files, its signals and its garbage collector."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

# What a process may open on macOS at most, without being root.
_FILES = 10_240


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


def collect_garbage() -> None:
    """Turn the garbage collector on, except for the objects that the start has made: they stay."""
    gc.freeze()
    gc.enable()


def on_signals(stop: Callable[[], object]) -> None:
    """Call `stop` in the running event loop on Ctrl-C and on SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
