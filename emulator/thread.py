"""A thread for programs that have no event loop of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager

from emulator.errors import StartError
from emulator.event_loop import run

# A start can wait 10 s for the lock on the certificates, and a machine can be slow.
_START_SECONDS = 60.0
# How long a caller that gives up, such as on Ctrl-C, waits for the thread to end. The thread can be
# in a call that nothing interrupts: for a lock, or for an address.
_GIVE_UP_SECONDS = 2.0


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
            wait((self._entered,), _START_SECONDS)
            self._check_entered()
        except BaseException:
            # A thread that is still entering the block gives that up.
            self._leaving.set_result(None)
            wait((self._ended,), _GIVE_UP_SECONDS)
            raise

    def leave(self) -> None:
        """Leave the block, and return when the thread has ended.

        Raises:
            BaseException: what the block raised at its end.
        """
        self._leaving.set_result(None)
        self._thread.join()
        self._ended.result()

    async def enter_async(self) -> None:
        """Do as `enter`, without blocking the caller's event loop."""
        try:
            self._thread.start()
            await _wait(self._entered, _START_SECONDS)
            self._check_entered()
        except BaseException:
            self._leaving.set_result(None)
            await _wait(self._ended, _GIVE_UP_SECONDS)
            raise

    async def leave_async(self) -> None:
        """Do as `leave`, without blocking the caller's event loop."""
        self._leaving.set_result(None)
        await _wait(self._ended, None)
        self._thread.join()  # it does nothing more
        self._ended.result()

    def _check_entered(self) -> None:
        if not self._entered.done():
            raise StartError(f"The emulator did not start within {_START_SECONDS:.0f} s.")
        self._entered.result()

    def _run(self) -> None:
        try:
            run(self._hold())
        except BaseException as error:  # noqa: BLE001 - it is raised again where a thread waits
            if self._entered.done():
                self._ended.set_exception(error)
                return
            self._entered.set_exception(error)
        self._ended.set_result(None)

    async def _hold(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        asyncio.wrap_future(self._leaving).add_done_callback(lambda _: task.cancel())
        with contextlib.suppress(asyncio.CancelledError):
            async with self._block:
                self._entered.set_result(None)
                await asyncio.Event().wait()


async def _wait(future: Future[None], seconds: float | None) -> None:
    """Wait until a future of another thread is done, at most some seconds; leave its result."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def wake(_: Future[None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), seconds)
