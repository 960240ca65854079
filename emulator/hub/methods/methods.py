"""Direct methods: calls to devices, and the responses that they wait for.

The rules are those of IoT Hub docs: direct methods, and of what was seen on a real hub.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict

from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.store import Store
from emulator.hub.core.times import span
from emulator.hub.faults.faults import Faults
from emulator.hub.faults.refusals import method_error
from emulator.hub.feed import Change, Feed
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import DeviceLink, Disconnected
from emulator.hub.links.links import Links
from emulator.hub.methods.request import MethodRequest, MethodResult, response_payload

# What a caller learns of a lost connection: a takeover (IoT Hub docs: error 400027), and a hub that
# stops. Any other way in which a device is gone is "not online", whatever ended the connection. The
# text is a real hub's (its team in azure-iot-sdk-csharp#317).
_TOLD = (errors.ConnectionForcefullyClosedOnNewConnection, errors.ServiceUnavailable)
_UNAVAILABLE = "Device unavailable"

_Response = asyncio.Future[MethodResult]


class MethodCalled(Change, frozen=True):
    """A direct method was sent to a device.

    Args:
        request_id: unique among the calls of the connection.
    """

    key: IdentityKey
    request_id: str
    request: MethodRequest


class MethodEnded(Change, frozen=True):
    """A call of a direct method has ended.

    Args:
        outcome: the device's response, or an error; None where the caller left first.
    """

    key: IdentityKey
    request_id: str
    name: str
    outcome: MethodResult | errors.HubError | None


class _Calls:
    """The calls on one connection: their request ids count from 1 (seen on a real hub)."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.open: dict[str, _Response] = {}


class Methods:
    """The direct methods of a hub."""

    def __init__(
        self, store: Store, links: Links, feed: Feed, clock: Clock, faults: Faults
    ) -> None:
        self._store = store
        self._links = links
        self._feed = feed
        self._clock = clock
        self._faults = faults
        self._calls: defaultdict[DeviceLink, _Calls] = defaultdict(_Calls)
        self._memory = 0  # of the calls in flight, in bytes
        feed.subscribe(Disconnected, self._abandon)

    async def invoke(self, key: IdentityKey, body: object) -> MethodResult:
        """Invoke a direct method, and wait for the device's response.

        Args:
            key: the device or module.
            body: `{"methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds"}`

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid, MessageTooLarge
            DeviceNotFound, ModuleNotFound: unknown, or disabled.
            DeviceNotOnline: not connected, or not subscribed to methods, within the connect
                time-out; or disconnected during the call.
            DeviceMaximumInflightMethodExceeded: too many calls wait for this device, or all calls
                that wait hold too much.
            GatewayTimeout: no response within the response time-out.
            InvalidResponseWhileProxying: the response is not JSON.
            HubError: a fault fails the call.
        """
        request = MethodRequest.parse(body)
        del body  # while the call waits, its request is enough
        self._check_invocable(key)
        if self._faults.active and (fault := self._faults.match("fail-method", key)):
            raise method_error(fault.status)
        memory = limits.METHOD_CALL_BYTES + len(request.payload)
        if self._memory + memory > limits.METHODS_IN_FLIGHT_BYTES:
            raise errors.DeviceMaximumInflightMethodExceeded(
                "The calls in flight on this hub hold too much. "
                f"{limits.METHODS_IN_FLIGHT_BYTES} bytes are allowed."
            )
        self._memory += memory
        try:
            return await self._invoke(key, request)
        finally:
            self._memory -= memory

    def respond(self, link: DeviceLink, request_id: str, status: int, payload: bytes) -> None:
        """Take a device's response; one that is late, repeated or unknown is ignored."""
        faults, key = self._faults, link.key
        if faults.active and faults.match("lose-method-response", key):
            return
        if faults.active and (fault := faults.match("delay-method-response", key)):
            self._clock.call_later(fault.delay, self._take, link, request_id, status, payload)
        else:
            self._take(link, request_id, status, payload)

    def _take(self, link: DeviceLink, request_id: str, status: int, payload: bytes) -> None:
        calls = self._calls.get(link)
        response = calls.open.get(request_id) if calls else None
        if response is None or response.done():
            return
        if len(payload) > limits.METHOD_PAYLOAD_BYTES:
            _fail(response, errors.MessageTooLarge("The device's response is too large."))
            return
        try:
            response.set_result(MethodResult(status, response_payload(payload)))
        except errors.InvalidResponseWhileProxying as error:
            _fail(response, error)

    async def _invoke(self, key: IdentityKey, request: MethodRequest) -> MethodResult:
        link = self._links.listener(key, request.name)
        # The response time-out covers all of it: waiting for the device uses a part of it.
        deadline = self._clock.monotonic() + request.response_timeout
        if link is None and request.connect_timeout:
            link = await self._links.wait_for_listener(key, request.name, request.connect_timeout)
        if link is None:
            waited = request.connect_timeout
            raise errors.DeviceNotOnline(info={"timeout": span(waited)} if waited else None)
        remaining = deadline - self._clock.monotonic()
        if remaining <= 0:
            raise _timed_out(request)
        return await self._call(link, request, remaining)

    async def _call(self, link: DeviceLink, request: MethodRequest, timeout: float) -> MethodResult:
        calls = self._calls[link]
        if len(calls.open) >= limits.METHODS_IN_FLIGHT_PER_DEVICE:
            raise errors.DeviceMaximumInflightMethodExceeded
        request_id = f"{next(calls.numbers):x}"
        response: _Response = asyncio.get_running_loop().create_future()
        calls.open[request_id] = response
        timer = self._clock.call_later(timeout, _fail, response, _timed_out(request))
        outcome: MethodResult | errors.HubError | None = None
        try:
            self._send(link, request_id, request, response)
            self._feed.publish(MethodCalled(link.key, request_id, request))
            outcome = result = await response
        except errors.HubError as error:
            outcome = error
            raise
        finally:
            timer.cancel()
            calls.open.pop(request_id, None)
            self._feed.publish(MethodEnded(link.key, request_id, request.name, outcome))
        return result

    def _send(
        self, link: DeviceLink, request_id: str, request: MethodRequest, response: _Response
    ) -> None:
        """Send a method to a device; a fault can lose or delay it."""

        def send() -> None:
            if not response.done():  # else the call has ended meanwhile
                link.invoke_method(request_id, request.name, request.payload)

        faults = self._faults
        if faults.active and faults.match("lose-method", link.key):
            return
        if faults.active and (fault := faults.match("delay-method", link.key)):
            self._clock.call_later(fault.delay, send)
        else:
            send()

    def _abandon(self, change: Disconnected) -> None:
        """Fail every open call of a device that is gone."""
        told = isinstance(change.reason, _TOLD)
        reason = change.reason if told else errors.DeviceNotOnline(_UNAVAILABLE)
        if calls := self._calls.pop(change.link, None):
            for response in calls.open.values():
                _fail(response, reason)

    def _check_invocable(self, key: IdentityKey) -> None:
        device = self._store.get(Identity, IdentityKey(key.device_id))
        if device is None or not device.enabled:
            raise errors.DeviceNotFound(key.device_id)
        if self._store.get(Identity, key) is None:
            raise errors.ModuleNotFound(f"{key.device_id}/{key.module_id}")


def _timed_out(request: MethodRequest) -> errors.GatewayTimeout:
    return errors.GatewayTimeout(info={"timeout": span(request.response_timeout)})


def _fail(response: _Response, error: errors.HubError) -> None:
    if not response.done():
        response.set_exception(error)
