"""The calls of the test kit that wait, as coroutines: `hub.aio`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, HubError
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages import event as hub_event
from emulator.hub.waits import WaitTimeout, body_includes, describe_device, where_text
from emulator.testing.access import Access
from emulator.testing.values import Event, MethodAnswer, MethodCall, Upload, given, plain

__all__ = ["AioKit", "Event", "MethodAnswer", "MethodCall", "Upload", "WaitTimeout", "Where"]

_SECONDS = limits.WAIT_SECONDS_DEFAULT
__tracebackhide__ = True  # pytest shows the line of the test

Where: TypeAlias = Callable[[Event], object] | Mapping[str, Any]
"""Which event: a predicate, or members that its JSON body includes; see `wait_for_event`."""


class AioKit:
    """The calls of the test kit that wait, for tests with an event loop of their own.

    `Emulator` has each of them as a blocking method with the same name.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    async def wait_for_event(
        self,
        device: str | None = None,
        *,
        module: str | None = None,
        where: Where | None = None,
        after: Event | None = None,
        timeout: float = _SECONDS,
    ) -> Event:
        """Wait for an event, and return it. An event that the hub has already counts.

        Args:
            device: the device that sent it, itself or by a module; None is any device.
            module: the module that sent it.
            where: a function that returns whether an event is the one, or members that the JSON
                body includes: `{"alert": {"level": 2}}`. A member that is None is null or missing.
            after: an earlier event: only events behind it count.
            timeout: the longest time in seconds.

        Raises:
            WaitTimeout: no such event came in time. The text says what was there instead.
            ServiceUnavailable: the hub stops.
            ArgumentInvalid: `where` is neither an object nor a function.
        """
        if callable(where):
            matches, wanted = functools.partial(_matches, where), " for which `where` is true"
        elif not (where is None or isinstance(where, Mapping)):
            raise ArgumentInvalid(
                f"Invalid where: {where!r}. Use an object such as {{'temperature': 21}}, or a "
                "function of an event"
            )
        else:
            part = given(where or {})
            matches, wanted = functools.partial(_includes, part), where_text(part)

        async def find(hub: IotHub) -> Event:
            found = await hub.waits.event(
                matches,
                wanted,
                key=None if device is None else IdentityKey(device, module),
                start=0 if after is None else after.number + 1,
                seconds=timeout,
            )
            return Event.of(found)

        return await self._access.run(find)

    async def wait_until_connected(
        self, device: str, *, module: str | None = None, timeout: float = _SECONDS
    ) -> None:
        """Wait until a device or module is connected.

        Raises:
            WaitTimeout, ServiceUnavailable: see `wait_for_event`.
        """
        key = IdentityKey(device, module)
        await self._access.run(lambda hub: hub.waits.connected(key, seconds=timeout))

    async def wait_until_listening(
        self, device: str, method: str, *, module: str | None = None, timeout: float = _SECONDS
    ) -> None:
        """Wait until a device or module can answer a direct method.

        Raises:
            WaitTimeout, ServiceUnavailable: see `wait_for_event`.
        """
        key = IdentityKey(device, module)
        await self._access.run(lambda hub: hub.waits.listening(key, method, seconds=timeout))

    async def wait_for_reported(
        self,
        device: str,
        subset: Mapping[str, Any],
        *,
        module: str | None = None,
        timeout: float = _SECONDS,
    ) -> dict[str, Any]:
        """Wait until the reported properties of a device include others, and return all of them.

        Args:
            device: the device.
            subset: members with their values: `{"fan": {"speed": 2}}`. A member that is None must
                be missing.
            module: the module.
            timeout: the longest time in seconds.

        Raises:
            WaitTimeout, ServiceUnavailable: see `wait_for_event`.
        """
        key, part = IdentityKey(device, module), given(subset)

        async def find(hub: IotHub) -> dict[str, Any]:
            await hub.waits.reported(key, part, seconds=timeout)
            reported: dict[str, Any] = plain(hub.waits.device(key)["reported"])
            return reported

        return await self._access.run(find)

    async def wait_for_upload(
        self,
        device: str,
        *,
        name: str | None = None,
        after: Upload | None = None,
        timeout: float = _SECONDS,
    ) -> Upload:
        """Wait until a device has reported a file, as uploaded or as failed, and return it.

        Args:
            device: the device.
            name: the name of the file; None is any.
            after: an earlier upload: only later reports count.
            timeout: the longest time in seconds.

        Raises:
            WaitTimeout, ServiceUnavailable: see `wait_for_event`.
        """
        start = 0 if after is None else after.number + 1

        async def find(hub: IotHub) -> Upload:
            return Upload.of(await hub.waits.upload(device, name, start=start, seconds=timeout))

        return await self._access.run(find)

    async def invoke(
        self,
        device: str,
        method: str,
        payload: Any = None,
        *,
        module: str | None = None,
        timeout: int = int(_SECONDS),
        connect_timeout: int | None = None,
    ) -> MethodAnswer:
        """Invoke a direct method, and return the answer of the device.

        Args:
            device: the device.
            method: the name of the method.
            payload: a JSON value.
            module: the module.
            timeout: the longest time in seconds, from 5 to 300, on the clock of the hub.
            connect_timeout: for how many of these seconds the hub waits until the device listens
                to the method; None stands for all of them, and 0 does not wait.

        Raises:
            DeviceNotFound, DeviceNotOnline, GatewayTimeout, HubError: as a service gets them. A
                note says what state the device is in.
        """
        key = IdentityKey(device, module)
        body = {
            "methodName": method,
            "payload": given(payload),
            "responseTimeoutInSeconds": timeout,
            "connectTimeoutInSeconds": timeout if connect_timeout is None else connect_timeout,
        }

        async def call(hub: IotHub) -> MethodAnswer:
            try:
                return MethodAnswer.of(await hub.methods.invoke(key, body))
            except HubError as error:
                for line in describe_device(hub.waits.device(key)):
                    error.add_note(line)
                raise

        return await self._access.run(call)

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """Return all rows of a query, such as `SELECT * FROM devices`.

        Raises:
            ArgumentInvalid: the query is invalid.
        """

        async def read(hub: IotHub) -> list[dict[str, Any]]:
            rows, continuation = [], None
            while True:
                page = await hub.queries.run(sql, size=limits.QUERY_PAGE, continuation=continuation)
                rows += [plain(row) for row in page.items]
                continuation = page.continuation
                if continuation is None:
                    return rows

        return await self._access.run(read)


def _matches(where: Callable[[Event], object], event: hub_event.Event) -> bool:
    return bool(where(Event.of(event)))


def _includes(part: dict[str, Any], event: hub_event.Event) -> bool:
    return not part or body_includes(event, part)
