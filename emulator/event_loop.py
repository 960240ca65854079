"""The event loop: uvloop's where it has a build, else asyncio's. And a thread that has one, for
programs without an event loop of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from emulator.errors import StartError

_T = TypeVar("_T")

# A start can wait 10 s for the lock on the certificates, and a machine can be slow.
_START_SECONDS = 60.0
# How long a caller that gives up, such as on Ctrl-C, waits for the thread to end. The thread can be
# in a call that nothing interrupts: for a lock, or for an address.
_GIVE_UP_SECONDS = 2.0


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


class BlockThread:
    """A thread with an event loop of its own, which holds an asynchronous block open.

    Args:
        block: the block. The thread enters it on `enter`, and leaves it on `leave`.
    """

    def __init__(self, block: AbstractAsyncContextManager[object]) -> None:
        self._block = block
        self._entered: Future[None] = Future()
        self._leaving: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="emulator", daemon=True)

    def enter(self) -> None:
        """Start the thread, and return when it has entered the block.

        Raises:
            StartError: the block was not entered in time.
            BaseException: what the block raised, or Ctrl-C in this thread.
        """
        try:
            self._thread.start()
            if not wait((self._entered,), _START_SECONDS).done:
                raise StartError(f"The emulator did not start within {_START_SECONDS:.0f} s.")
            self._entered.result()
        except BaseException:
            # A thread that is still entering the block gives that up.
            self._leaving.set_result(None)
            if self._thread.is_alive():
                self._thread.join(_GIVE_UP_SECONDS)
            raise

    def leave(self) -> None:
        """Leave the block, and return when the thread has ended.

        Raises:
            BaseException: what the block raised at its end.
        """
        self._leaving.set_result(None)
        self._thread.join()
        self._ended.result()

    def _run(self) -> None:
        try:
            run(self._hold())
        except BaseException as error:  # noqa: BLE001 - it is raised again where a thread waits
            (self._ended if self._entered.done() else self._entered).set_exception(error)
        else:
            self._ended.set_result(None)

    async def _hold(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        asyncio.wrap_future(self._leaving).add_done_callback(lambda _: task.cancel())
        with contextlib.suppress(asyncio.CancelledError):
            async with self._block:
                self._entered.set_result(None)
                await asyncio.Event().wait()
