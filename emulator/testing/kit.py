"""What a test does with a running hub, as methods of `Emulator`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from msgspec import structs

from emulator import connection_strings
from emulator.hub.core import limits
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.command_document import read_command
from emulator.hub.waits import describe
from emulator.settings import Settings
from emulator.state import register
from emulator.testing.access import Access, Running
from emulator.testing.aio import AioKit, Where
from emulator.testing.values import Event, MethodAnswer, MethodCall, Upload, given, plain

_SECONDS = limits.WAIT_SECONDS_DEFAULT
__tracebackhide__ = True  # pytest shows the line of the test
_ANY = IfMatch("*")
# What `describe` shows: so many calls, and characters of each.
_CALLS, _SHOWN = 5, 200


class Kit:
    """What a test does with a running hub. Every method can be called from every thread.

    A method that waits blocks its thread; `aio` has it as a coroutine. Errors of the hub are raised
    as `HubError`, with the names of the service.

    Args:
        settings: how the emulator is set up.
        running: returns the running hub, or raises RuntimeError.
    """

    def __init__(self, settings: Settings, running: Callable[[], Running]) -> None:
        self.settings = settings
        access = Access(running)
        self._call, self._block = access.call, access.block
        self.aio = AioKit(access)
        """The methods that wait, as coroutines."""

    # --- devices and modules

    def register_device(
        self,
        device_id: str,
        *,
        tags: Mapping[str, Any] | None = None,
        desired: Mapping[str, Any] | None = None,
        authentication: Mapping[str, Any] | None = None,
        edge: bool = False,
        enabled: bool = True,
    ) -> str:
        """Register a device, and return its connection string.

        Args:
            device_id: its id.
            tags: the tags of its twin.
            desired: the desired properties of its twin.
            authentication: its credentials, as the REST API has them: `{"type": "selfSigned",
                "x509Thumbprint": {"primaryThumbprint": …}}`; None chooses keys by the settings.
            edge: whether it is an IoT Edge device.
            enabled: whether it can connect.

        Raises:
            DeviceAlreadyExists, ArgumentInvalid
        """
        members: JsonObject = {"capabilities": {"iotEdge": edge}}
        if not enabled:
            members["status"] = "disabled"
        self._register(IdentityKey(device_id), members, authentication, tags, desired)
        return self.device_connection_string(device_id)

    def register_module(
        self,
        device_id: str,
        module_id: str,
        *,
        tags: Mapping[str, Any] | None = None,
        desired: Mapping[str, Any] | None = None,
        authentication: Mapping[str, Any] | None = None,
    ) -> str:
        """Register a module of a device, and return its connection string.

        Args, Raises:
            See `register_device`; DeviceNotFound, ModuleAlreadyExistsOnDevice.
        """
        self._register(IdentityKey(device_id, module_id), {}, authentication, tags, desired)
        return self.device_connection_string(device_id, module_id)

    def remove_device(self, device_id: str) -> None:
        """Delete a device with its modules, and close its connection.

        Raises:
            DeviceNotFound
        """
        self._call(lambda hub: hub.identities.remove(IdentityKey(device_id), _ANY))

    def remove_module(self, device_id: str, module_id: str) -> None:
        """Delete a module, and close its connection.

        Raises:
            IotHubUnauthorizedAccess: the device is missing or disabled.
            ModuleNotFound
        """
        key = IdentityKey(device_id, module_id)
        self._call(lambda hub: hub.identities.remove(key, _ANY))

    def device_connection_string(self, device_id: str, module_id: str | None = None) -> str:
        """Return the connection string of a device, or of a module.

        Raises:
            DeviceNotFound, ModuleNotFound
        """
        key = IdentityKey(device_id, module_id)
        identity = self._call(lambda hub: hub.identities.get(key))
        secret = identity["authentication"]["symmetricKey"]["primaryKey"]
        return connection_strings.for_device(self.settings.host_name, device_id, secret, module_id)

    # --- twins

    def twin(self, device: str, *, module: str | None = None) -> dict[str, Any]:
        """Return the twin of a device or module, as services read it.

        Raises:
            DeviceNotFound
        """
        twin = self._call(lambda hub: hub.twins.get(IdentityKey(device, module)))
        document: dict[str, Any] = plain(twin)
        return document

    def update_twin(
        self,
        device: str,
        *,
        tags: Mapping[str, Any] | None = None,
        desired: Mapping[str, Any] | None = None,
        module: str | None = None,
    ) -> dict[str, Any]:
        """Merge tags and desired properties into a twin, and return it; None deletes a member.

        Raises:
            DeviceNotFound, ArgumentInvalid, DeviceModelMaxPropertiesExceeded
        """
        key, patch = IdentityKey(device, module), _twin_patch(tags, desired)
        document: dict[str, Any] = plain(self._call(lambda hub: hub.twins.patch(key, patch, _ANY)))
        return document

    def wait_for_reported(
        self,
        device: str,
        subset: Mapping[str, Any],
        *,
        module: str | None = None,
        timeout: float = _SECONDS,
    ) -> dict[str, Any]:
        """Wait until the reported properties include others; see `AioKit.wait_for_reported`."""
        return self._block(
            self.aio.wait_for_reported(device, subset, module=module, timeout=timeout)
        )

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return all rows of a query, such as `SELECT * FROM devices`; see `AioKit.query`."""
        return self._block(self.aio.query(sql))

    # --- messages

    def send_command(
        self,
        device_id: str,
        body: str | bytes | Mapping[str, Any] | list[Any],
        *,
        properties: Mapping[str, str | None] | None = None,
        ack: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        expires: datetime | None = None,
    ) -> None:
        """Send a cloud-to-device message. It waits in the hub until the device receives it.

        Args:
            device_id: the device.
            body: bytes, a text, or a JSON value.
            properties: the application properties.
            ack: which feedback the hub makes: `none`, `positive`, `negative` or `full`.
            message_id: the message id, which feedback names.
            correlation_id: the correlation id.
            content_type: such as `application/json`.
            content_encoding: such as `utf-8`.
            expires: when the message expires, with a time zone.

        Raises:
            DeviceNotFound, ArgumentInvalid, MessageTooLarge, DeviceMaximumQueueDepthExceeded
        """
        members = {
            "body": "" if isinstance(body, bytes) else body,
            "properties": dict(properties or {}),
            "ack": ack,
            "messageId": message_id,
            "correlationId": correlation_id,
            "contentType": content_type,
            "contentEncoding": content_encoding,
            "expiryTimeUtc": expires and iso(expires),
        }
        document = {name: value for name, value in members.items() if value is not None}
        message = read_command(device_id, given(document))
        if isinstance(body, bytes):
            message = structs.replace(message, body=body)
        self._call(lambda hub: hub.cloud_to_device.send(device_id, message))

    def events(self, device: str | None = None) -> list[Event]:
        """Return the events that the hub has, of all devices or of one, the oldest first."""
        events = self._call(lambda hub: hub.events.read(0, device))
        return [Event.of(event) for event in events]

    def wait_for_event(
        self,
        device: str | None = None,
        *,
        module: str | None = None,
        where: Where | None = None,
        after: Event | None = None,
        timeout: float = _SECONDS,
    ) -> Event:
        """Wait for an event, and return it; see `AioKit.wait_for_event`."""
        return self._block(
            self.aio.wait_for_event(
                device, module=module, where=where, after=after, timeout=timeout
            )
        )

    def wait_for_upload(
        self,
        device: str,
        *,
        name: str | None = None,
        after: Upload | None = None,
        timeout: float = _SECONDS,
    ) -> Upload:
        """Wait until a device has reported a file; see `AioKit.wait_for_upload`."""
        return self._block(
            self.aio.wait_for_upload(device, name=name, after=after, timeout=timeout)
        )

    # --- connections and direct methods

    def wait_until_connected(
        self, device: str, *, module: str | None = None, timeout: float = _SECONDS
    ) -> None:
        """Wait until a device or module is connected; see `AioKit.wait_until_connected`."""
        self._block(self.aio.wait_until_connected(device, module=module, timeout=timeout))

    def wait_until_listening(
        self, device: str, method: str, *, module: str | None = None, timeout: float = _SECONDS
    ) -> None:
        """Wait until a device or module can answer a method; see `AioKit.wait_until_listening`."""
        self._block(self.aio.wait_until_listening(device, method, module=module, timeout=timeout))

    def invoke(
        self,
        device: str,
        method: str,
        payload: Any = None,
        *,
        module: str | None = None,
        timeout: int = int(_SECONDS),
        connect_timeout: int | None = None,
    ) -> MethodAnswer:
        """Invoke a direct method, and return the answer of the device; see `AioKit.invoke`."""
        return self._block(
            self.aio.invoke(
                device,
                method,
                payload,
                module=module,
                timeout=timeout,
                connect_timeout=connect_timeout,
            )
        )

    @property
    def calls(self) -> list[MethodCall]:
        """The latest direct methods that devices received, with their answers, the oldest first."""
        calls = self._call(lambda hub: hub.method_calls.list())
        return [MethodCall.of(call) for call in calls]

    def describe(self) -> str:
        """Return lines that say what is there: connected devices, and the last events and calls."""
        lines = self._call(lambda hub: describe(hub.waits.state()))
        calls = [f"  {call}"[:_SHOWN] for call in self.calls[-_CALLS:]]
        return "\n".join([*lines, "last calls:" if calls else "calls: none", *calls])

    def _register(
        self,
        key: IdentityKey,
        members: JsonObject,
        authentication: Mapping[str, Any] | None,
        tags: Mapping[str, Any] | None,
        desired: Mapping[str, Any] | None,
    ) -> None:
        if authentication is not None:
            members = {**members, "authentication": given(authentication)}
        twin = _twin_patch(tags, desired)
        self._call(lambda hub: register(hub, self.settings, key, members=members, twin=twin))


def _twin_patch(tags: Mapping[str, Any] | None, desired: Mapping[str, Any] | None) -> JsonObject:
    """Return the patch of a twin; the parts that are None stay as they are."""
    patch: JsonObject = {}
    if tags is not None:
        patch["tags"] = given(tags)
    if desired is not None:
        patch["properties"] = {"desired": given(desired)}
    return patch
