"""The latest calls of direct methods, with their outcomes: what tests and people look at."""

from __future__ import annotations

import itertools
from datetime import datetime

from msgspec import Struct, structs

from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import HubError
from emulator.hub.core.json import JsonObject, WrittenJson, loads
from emulator.hub.core.times import iso
from emulator.hub.feed import Feed
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.methods.methods import MethodCalled, MethodEnded
from emulator.hub.methods.request import MethodRequest, MethodResult


class MethodCall(Struct, frozen=True):
    """A direct method that was sent to a device; without a result and an error, it is open.

    Args:
        key: the device or module.
        request: the method.
        called: when it was sent.
        result: the answer of the device.
        error: why there is no answer.
    """

    key: IdentityKey
    request: MethodRequest
    called: datetime
    result: MethodResult | None = None
    error: str | None = None

    @property
    def memory(self) -> int:
        """Bytes of memory, roughly."""
        answer = len(self.result.payload) if self.result else 0
        return limits.METHOD_CALL_BYTES + len(self.request.payload) + answer

    def ended(self, outcome: MethodResult | HubError | None) -> MethodCall:
        """Return the call with its outcome; see `MethodEnded`."""
        if isinstance(outcome, MethodResult):
            return structs.replace(self, result=outcome)
        return structs.replace(self, error=str(outcome or "The caller left before the answer."))

    def document(self) -> JsonObject:
        """Return the call as JSON; a payload that few readers take for JSON is a text."""
        return {
            "deviceId": self.key.device_id,
            "moduleId": self.key.module_id,
            "methodName": self.request.name,
            "payload": _json(self.request.payload) if self.request.payload else None,
            "calledTime": iso(self.called),
            "status": self.result.status if self.result else None,
            "answer": _json(self.result.payload) if self.result else None,
            "error": self.error,
        }


class MethodCalls:
    """The latest calls of a hub, the oldest first; a call that found no device is not among them.

    They are bounded, as `limits.METHOD_CALLS_KEPT` and `limits.METHOD_CALLS_BYTES` say.
    """

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self._calls: dict[int, MethodCall] = {}
        # Of the calls without an outcome. Request ids are unique for a connection, whose end ends
        # its calls.
        self._open: dict[tuple[IdentityKey, str], int] = {}
        self._memory = 0
        feed.subscribe(MethodCalled, self._begin)
        feed.subscribe(MethodEnded, self._end)

    def list(self) -> list[MethodCall]:
        """Return the calls."""
        return [*self._calls.values()]

    def _begin(self, change: MethodCalled) -> None:
        number = self._open[change.key, change.request_id] = next(self._numbers)
        self._keep(number, MethodCall(change.key, change.request, self._clock.now()))

    def _end(self, change: MethodEnded) -> None:
        number = self._open.pop((change.key, change.request_id), None)
        if number is not None and (call := self._calls.get(number)):
            self._memory -= call.memory
            self._keep(number, call.ended(change.outcome))

    def _keep(self, number: int, call: MethodCall) -> None:
        self._calls[number] = call
        self._memory += call.memory
        while (
            len(self._calls) > limits.METHOD_CALLS_KEPT or self._memory > limits.METHOD_CALLS_BYTES
        ):
            self._memory -= self._calls.pop(next(iter(self._calls))).memory


def _json(text: bytes) -> WrittenJson | str:
    try:
        loads(text)
    except ValueError:  # for lenient readers only, or too deep for most
        return text.decode(errors="replace")
    return WrittenJson(text)
