"""A connected device or module: the hub's `DeviceLink`, and its links on one connection.

A device is connected from its first link on, until its last one ends. One connection can have the
links of many devices (C# SDK: connection pooling).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from emulator.amqp.errors import AmqpError
from emulator.amqp.nodes.node import AnyNode, Callers, LinkRequest, Receives, Sends
from emulator.amqp.nodes.pairs import Pairs
from emulator.amqp.performatives import RECEIVER, SENDER
from emulator.amqp.refusals import amqp_error
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ConnectionForcefullyClosedOnFaultInjection,
    HubError,
    IotHubUnauthorized,
    ServiceUnavailable,
)
from emulator.hub.gate import DeviceCaller
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Delivery

if TYPE_CHECKING:
    from emulator.amqp.nodes.device_commands import CommandLink
    from emulator.amqp.nodes.device_methods import MethodRequests
    from emulator.amqp.nodes.device_twins import TwinReplies

DEVICE, MODULE = "/devices/{device_id}", "/devices/{device_id}/modules/{module_id}"


# The parts of a connection that a fault can end: how the address ends, and our role.
_PARTS = {
    "cbs-requests": ("$cbs", RECEIVER),
    "cbs-replies": ("$cbs", SENDER),
    "telemetry": ("/messages/events", RECEIVER),
    "commands": ("/messages/devicebound", SENDER),
    "twin-requests": ("/twin", RECEIVER),
    "twin-replies": ("/twin", SENDER),
    "method-requests": ("/methods/devicebound", SENDER),
    "method-responses": ("/methods/devicebound", RECEIVER),
}


class DeviceHandler:
    """What takes one link of a device; each family of addresses has its own.

    Args:
        device: the device.
        request: the link.
    """

    credit = 100
    """How many messages that the device sends can be on their way."""

    def __init__(self, device: Device, request: LinkRequest[Any]) -> None:
        self.device = device
        self.request = request
        self.link: Any = request.link

    def accept(self) -> None:
        """Accept the link."""
        if self.link.role == SENDER:
            self.link.accept(self)
        else:
            self.link.accept(self, credit=self.credit, max_message_size=limits.AMQP_MESSAGE_BYTES)

    def begin(self) -> None:
        """Note that the link is attached, and that its device is connected."""

    def end(self) -> None:
        """Note that the link has ended."""

    def on_credit(self) -> None:
        """See `Sender.on_credit`."""

    def on_detached(self, error: AmqpError | None) -> None:
        """See `Handler.on_detached`."""
        self.device.remove(self)


class Device:
    """A device or module on a connection.

    Args:
        request: its first link.
    """

    protocol = "AMQP"

    def __init__(self, request: LinkRequest[Any]) -> None:
        self.hub: IotHub = request.hub
        self.admission = request.device
        """The result of the gate for its first link."""
        self.commands: CommandLink | None = None
        """The link by which it receives cloud-to-device messages."""
        self.methods: Pairs[MethodRequests] = Pairs()
        self.twins: Pairs[TwinReplies] = Pairs()
        self._client = request.client
        self._handlers: dict[DeviceHandler, None] = {}
        self._waiting: list[DeviceHandler] | None = None
        self._connected = False
        self._client.devices[self.key] = self

    # --- what nodes call

    def open(self, handler: DeviceHandler) -> None:
        """Accept a link, at once or later.

        A device that is connected from two programs has to wait: see `Links.takeover_delay`.
        """
        if self._waiting is not None:
            self._waiting.append(handler)
        elif not self._connected and (delay := self.hub.links.takeover_delay(self.key)):
            self._waiting = [handler]
            self.hub.clock.call_later(delay, self._open_waiting)
        else:
            self._open(handler)

    def remove(self, handler: DeviceHandler) -> None:
        """Note that a link has ended: with its last link, the device is disconnected."""
        if handler in self._handlers:
            del self._handlers[handler]
            handler.end()
            if not self._handlers:
                self._forget()
                self.hub.links.disconnect(self)

    # --- what the hub calls: see `DeviceLink`

    @property
    def key(self) -> IdentityKey:
        """See `DeviceLink.key`."""
        return self.admission.key

    def accepts_method(self, name: str) -> bool:
        """See `DeviceLink.accepts_method`; a device receives all methods, or no methods."""
        return bool(self.methods.complete())

    @property
    def accepts_commands(self) -> bool:
        """See `DeviceLink.accepts_commands`: while the device grants credit."""
        return self.commands is not None and self.commands.has_credit

    @property
    def unacknowledged(self) -> Collection[str]:
        """See `DeviceLink.unacknowledged`."""
        return self.commands.unsettled if self.commands is not None else ()

    @property
    def lock_seconds(self) -> float:
        """See `DeviceLink.lock_seconds` (IoT Hub docs: cloud-to-device messages)."""
        return limits.C2D_LOCK

    def deliver(self, delivery: Delivery) -> None:
        """See `DeviceLink.deliver`."""
        if self.commands is not None:
            self.commands.deliver(delivery)

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        """See `DeviceLink.invoke_method`; of several pairs of links, the newest gets it."""
        for requests in self.methods.complete()[-1:]:
            requests.invoke(request_id, name, payload)

    def notify_desired(self, patch: bytes, version: int) -> None:
        """See `DeviceLink.notify_desired`; sent on each pair of links that asked for it."""
        for replies in self.twins.complete():
            replies.notify(patch, version)

    def close(self, reason: HubError) -> None:
        """See `DeviceLink.close`: detach its links. Other devices keep the connection.

        When the hub stops, the connection breaks, as over MQTT: then the SDK for Node connects
        again at once. After a detach or a close it waits 45 s, and does not connect again (seen).
        """
        handlers, self._handlers = self._handlers, {}
        self._forget()
        for handler in handlers:
            if not isinstance(reason, ServiceUnavailable):
                handler.link.detach(handler.request.error(reason))
            handler.end()
        if isinstance(reason, ServiceUnavailable):
            self._client.connection.lost()

    def cut(self) -> None:
        """See `DeviceLink.cut`; other devices lose the connection too."""
        handlers, self._handlers = self._handlers, {}
        self._forget()
        for handler in handlers:
            handler.end()
        self._client.cut()
        self._client.connection.lost()

    def detach(self, part: str) -> None:
        """See `DeviceLink.detach`; a session or a connection ends for other devices too."""
        connection = self._client.connection
        error = amqp_error(ConnectionForcefullyClosedOnFaultInjection(), self.hub.clock.now())
        if part == "connection":
            connection.close(error)
        elif part == "session":
            for session in {handler.link.session for handler in self._handlers}:
                session.end(error)
        else:
            path, role = _PARTS[part]
            for link in connection.all_links():
                if link.role == role and link.address.lower().rstrip("/").endswith(path):
                    link.drop(error)

    def slow(self, rate: int | None) -> None:
        """See `DeviceLink.slow`; other devices on the connection are slow too."""
        self._client.slow(rate)

    # ---

    def _open_waiting(self) -> None:
        """Accept the links that have waited, unless the device is refused by now."""
        waiting, self._waiting = self._waiting or [], None
        for handler in waiting:
            request = handler.request
            try:
                if request.grant.expires <= self.hub.clock.now().timestamp():
                    raise IotHubUnauthorized
                caller = cast("DeviceCaller", request.grant.caller)
                self.hub.gate.check(caller, Operation.CONNECT)
            except HubError as error:
                request.link.detach(request.error(error))
            else:
                self._open(handler)
        if not self._connected:
            self._forget()

    def _open(self, handler: DeviceHandler) -> None:
        handler.accept()
        if not handler.link.attached:  # it ended while it waited
            return
        self._handlers[handler] = None
        if not self._connected:
            self._connected = True
            # The client's connection watches the expiry of each link's token.
            self.hub.links.connect(self, replace(self.admission, expires=math.inf))
        handler.begin()

    def _forget(self) -> None:
        self._connected = False
        self._client.look_again()
        if self._client.devices.get(self.key) is self:
            del self._client.devices[self.key]


def opens(handler: Callable[[Device, LinkRequest[Any]], DeviceHandler]) -> Callable[..., None]:
    """Return what opens the links of a node of devices, each with a handler of its own."""

    def open_link(request: LinkRequest[Any]) -> None:
        device = request.client.devices.get(request.device.key) or Device(request)
        device.open(handler(device, request))

    return open_link


def device_nodes(
    kind: type[Sends] | type[Receives],
    path: str,
    operation: Operation,
    handler: Callable[[Device, LinkRequest[Any]], DeviceHandler],
) -> tuple[AnyNode, ...]:
    """Return the nodes of devices and of modules at a path below theirs."""
    return tuple(
        kind(start + path, operation, opens(handler), Callers.DEVICES) for start in (DEVICE, MODULE)
    )
