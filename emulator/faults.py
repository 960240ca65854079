"""The faults of an emulator, for programs: from any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from emulator.hub.core.json import JsonObject
from emulator.hub.faults.fault import Fault
from emulator.hub.hub import IotHub

_T = TypeVar("_T")


class _Call(Protocol):
    def __call__(self, function: Callable[[IotHub], _T], /) -> _T: ...


class EmulatorFaults:
    """Turns faults on and off; docs/faults.md lists them.

    Args:
        call: calls a function with the hub, in the event loop of the hub.
    """

    def __init__(self, call: _Call) -> None:
        self._call = call

    def add(self, kind: str, **members: Any) -> int:
        """Turn a fault on, and return its id: `add("drop-connection", device="x", how="cut")`.

        Raises:
            ArgumentInvalid: a member is unknown, missing or invalid; the text says which.
        """
        fault = Fault.parse({"kind": kind, **members})
        return self._call(lambda hub: hub.faults.add(fault))

    def remove(self, fault_id: int) -> None:
        """Turn a fault off.

        Raises:
            ArgumentInvalid: the id is unknown; the fault can have ended.
        """
        self._call(lambda hub: hub.faults.remove(fault_id))

    def clear(self) -> None:
        """Turn all faults off."""
        self._call(lambda hub: hub.faults.clear())

    def list(self) -> list[JsonObject]:
        """Return the faults that are on, each with its `id` and its `hits`."""
        return self._call(lambda hub: hub.faults.list())

    @contextmanager
    def injected(self, kind: str, **members: Any) -> Iterator[int]:
        """Turn a fault on for a block: `with hub.faults.injected("throttle", device="x"):`.

        Raises:
            ArgumentInvalid: see `add`.
        """
        fault_id = self.add(kind, **members)
        try:
            yield fault_id
        finally:
            self._call(lambda hub: hub.faults.discard(fault_id))
