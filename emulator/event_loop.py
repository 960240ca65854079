"""The event loop: uvloop's where it has a build, else asyncio's."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent import futures
from typing import Any, TypeVar

_T = TypeVar("_T")

_ENDED = "The event loop ended before the call."
# How often a call looks whether its loop still exists.
_CHECK_SECONDS = 1.0


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
    loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, _T], seconds: float = math.inf
) -> _T:
    """Run a coroutine in the event loop of another thread, and block this one until its result.

    Args:
        loop: the event loop.
        main: the coroutine.
        seconds: how long to wait at most.

    Raises:
        RuntimeError: the loop ends before the coroutine, or would wait for itself.
        TimeoutError: the coroutine has not ended in time; it is cancelled.
    """
    if is_running_here(loop):
        main.close()
        raise RuntimeError("A call that waits would block the event loop of the emulator itself.")
    future, end = _begin(loop, main), time.monotonic() + seconds
    try:
        while not future.done():
            futures.wait((future,), min(_CHECK_SECONDS, end - time.monotonic()))
            _check_open(loop, future)
            if not future.done() and time.monotonic() > end:
                raise TimeoutError
        return future.result()
    except futures.CancelledError:
        raise RuntimeError(_ENDED) from None
    finally:
        future.cancel()  # Ctrl-C or the time can have ended the wait


async def wait_async(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in an event loop, this one or that of another thread.

    Returns:
        The result of the coroutine.

    Raises:
        RuntimeError: the loop ends before the coroutine.
    """
    future = _begin(loop, main)
    waiting = asyncio.wrap_future(future)
    try:
        while not waiting.done():
            await asyncio.wait((waiting,), timeout=_CHECK_SECONDS)
            _check_open(loop, future)
        if waiting.cancelled():
            raise RuntimeError(_ENDED)
        return waiting.result()
    finally:
        future.cancel()  # the caller's task can have been cancelled


def is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this thread runs an event loop at the moment."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _begin(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, _T]) -> futures.Future[_T]:
    try:
        return asyncio.run_coroutine_threadsafe(main, loop)
    except RuntimeError:  # the loop is closed
        main.close()
        raise RuntimeError(_ENDED) from None


def _check_open(loop: asyncio.AbstractEventLoop, future: futures.Future[_T]) -> None:
    """Check that a loop can still complete a future: a loop that ends drops its last callbacks."""
    if loop.is_closed() and not future.done():
        raise RuntimeError(_ENDED)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
