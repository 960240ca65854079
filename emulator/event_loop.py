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
    try:
        if asyncio.get_running_loop() is loop:
            return function()
    except RuntimeError:
        pass  # this thread has no loop

    async def called() -> _T:
        return function()

    try:
        return asyncio.run_coroutine_threadsafe(called(), loop).result()
    except CancelledError:
        raise RuntimeError("The event loop ended before the call.") from None


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
