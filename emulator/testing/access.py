"""The way into a running hub from any thread: the hub belongs to its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from emulator import event_loop
from emulator.hub.core.errors import HubError
from emulator.hub.hub import IotHub
from emulator.hub.waits import WaitTimeout

_T = TypeVar("_T")

# What a test can expect: the frames inside the hub say nothing of it, and pytest would show them
# all. It also leaves out the frames of modules with this name.
_OUTCOMES = (HubError, WaitTimeout)
__tracebackhide__ = True


class Running(Protocol):
    """A hub that runs, and its event loop."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""

    @property
    def hub(self) -> IotHub:
        """The hub."""


class Access:
    """Calls into a hub.

    Args:
        running: returns the hub, or raises RuntimeError if it does not run.
    """

    def __init__(self, running: Callable[[], Running]) -> None:
        self._running = running

    def call(self, function: Callable[[IotHub], _T]) -> _T:
        """Call a function with the hub, and return its result."""
        running = self._running()
        return event_loop.call(running.loop, lambda: function(running.hub))

    def block(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the event loop of the hub, and block this thread until its result."""
        try:
            loop = self._running().loop
        except RuntimeError:
            work.close()
            raise
        try:
            return event_loop.wait(loop, work)
        except _OUTCOMES as error:
            raise error.with_traceback(None) from None

    async def run(self, work: Callable[[IotHub], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine with the hub, and return the result."""
        running = self._running()
        try:
            return await event_loop.wait_async(running.loop, work(running.hub))
        except _OUTCOMES as error:
            raise error.with_traceback(None) from None
