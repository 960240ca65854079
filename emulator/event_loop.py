"""The event loop: uvloop's where it has a build, else asyncio's."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end in a new event loop."""
    runner = asyncio.Runner(loop_factory=_new_event_loop)
    try:
        return runner.run(main)
    finally:
        loop = runner.get_loop()
        # A connection in its TLS handshake has no owner yet. It ends with the loop, and asyncio's
        # own objects of it end with the garbage.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            runner.close()
            if isinstance(loop, asyncio.BaseEventLoop):
                gc.collect()


def call(loop: asyncio.AbstractEventLoop, function: Callable[[], _T]) -> _T:
    """Call a function in the thread of an event loop, and wait for its result.

    Raises:
        RuntimeError: the loop ends before the call.
    """
    if is_running_here(loop):
        return function()

    async def called() -> _T:
        return function()

    return wait(loop, called())


def wait(
    loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, _T], seconds: float | None = None
) -> _T:
    """Run a coroutine in the event loop of another thread, and wait for its result.

    Args:
        loop: the event loop.
        main: the coroutine.
        seconds: how long to wait at most; None is without a limit.

    Raises:
        RuntimeError: the loop ends before the coroutine.
        TimeoutError: the coroutine has not ended in time; it is cancelled.
    """
    running = asyncio.run_coroutine_threadsafe(main, loop)
    try:
        return running.result(seconds)
    except CancelledError:
        raise RuntimeError("The event loop ended before the call.") from None
    except TimeoutError:
        running.cancel()
        raise


def is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this thread runs an event loop at the moment."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
