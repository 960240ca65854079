"""The one door that heads come in by.

A head turns wire bytes into a call here, and the answer, or the `HubError` it raises, into wire
bytes. Every change of state is one commit on the store, done before it is answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from emulator.hub import documents, identities, limits, twins
from emulator.hub.access import Policy, Right, SasToken, SymmetricKeys, check_token
from emulator.hub.connections import Connections, DeviceLink
from emulator.hub.errors import (
    ConnectionForcefullyClosedOnNewConnection,
    DeviceAlreadyExists,
    DeviceDisabled,
    DeviceNotFound,
    DeviceNotOnline,
    GatewayTimeout,
    HubError,
    IotHubUnauthorized,
    IotHubUnauthorizedAccess,
    ModuleNotFound,
    PreconditionFailed,
    ServiceUnavailable,
    TooManyDevices,
)
from emulator.hub.etags import IfMatch
from emulator.hub.identities import Identity, IdentityKey
from emulator.hub.jsontext import JsonObject, dumps
from emulator.hub.methods import MethodCalls, MethodRequest, MethodResult
from emulator.hub.store import Store
from emulator.hub.times import span, utc_now
from emulator.hub.twins import Twin

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Admission:
    """A device or module that proved who it is, until `expires` (seconds since the epoch)."""

    key: IdentityKey
    expires: float


class IotHub:
    """An IoT hub: its identities, their twins, and the devices that are connected.

    Args:
        store: where the state is kept.
        policies: the shared access policies.
        hosts: the names it is known by; a token for any of them is good.
        clock: tells the present moment, in UTC.
    """

    def __init__(
        self,
        *,
        store: Store,
        policies: Iterable[Policy],
        hosts: Collection[str],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._policies = {policy.name: policy for policy in policies}
        self._hosts = frozenset(hosts)
        self._clock = clock
        self._connections = Connections()
        self._expiries: dict[DeviceLink, asyncio.TimerHandle] = {}
        self._calls = MethodCalls()
        self._device_count = sum(1 for _ in store.devices())

    # --- access

    def authorize(self, token: str | None, right: Right, *, host: str) -> None:
        """Let a service's request pass, or not (IoT Hub docs: control access with SAS).

        Args:
            token: the `Authorization` header, None if there was none.
            right: what the operation needs.
            host: the host that the client addressed.

        Raises:
            IotHubUnauthorizedAccess: no token, a bad or an expired one, or one without the right.
        """
        if token is None:
            raise IotHubUnauthorizedAccess
        sas = SasToken.parse(token)
        check_token(
            sas,
            self._policy_keys(sas, right),
            resource=(),
            hosts=self._hosts | {host},
            now=self._clock().timestamp(),
        )

    def admit(self, key: IdentityKey, token: str | None, *, host: str) -> Admission:
        """Let a device or module in by its own key, or by a policy with DeviceConnect.

        Raises:
            IotHubUnauthorizedAccess: it is unknown or disabled, or the token is not good for it;
                the answer does not tell which.
        """
        identity = self._store.identity(key)
        device = self._store.identity(IdentityKey(key.device_id))
        if token is None or identity is None or device is None:
            raise IotHubUnauthorizedAccess
        if not (identity.enabled and device.enabled):
            raise IotHubUnauthorizedAccess
        sas = SasToken.parse(token)
        check_token(
            sas,
            self._device_keys(sas, identity),
            resource=key.resource,
            hosts=self._hosts | {host},
            now=self._clock().timestamp(),
        )
        return Admission(key, float(sas.expiry))

    def _device_keys(self, token: SasToken, identity: Identity) -> SymmetricKeys:
        # A policy's key stands in for a device's own, but not for an X.509 identity's certificate.
        own = identity.authentication.keys
        if own is None:
            raise IotHubUnauthorizedAccess
        return own if token.policy is None else self._policy_keys(token, Right.DEVICE_CONNECT)

    def _policy_keys(self, token: SasToken, right: Right) -> SymmetricKeys:
        policy = self._policies.get(token.policy or "")
        if policy is None or right not in policy.rights:
            raise IotHubUnauthorizedAccess
        return policy.keys

    # --- identities

    def get_device(self, device_id: str) -> JsonObject:
        """Read a device identity.

        Raises:
            DeviceNotFound
        """
        key = IdentityKey(device_id)
        return documents.device(self._identity(key), self._connections.presence(key))

    def put_device(self, device_id: str, body: object, if_match: IfMatch) -> JsonObject:
        """Create a device, or with `If-Match` update it.

        Raises:
            DeviceAlreadyExists, DeviceNotFound, PreconditionFailed, ArgumentInvalid
        """
        key = IdentityKey(device_id)
        if not if_match.absent:
            return self._update_device(key, body, if_match)
        if self._store.identity(key) is not None:
            raise DeviceAlreadyExists(f"A device with ID '{device_id}' is already registered.")
        if self._device_count >= limits.DEVICES_PER_HUB:
            raise TooManyDevices
        now = self._clock()
        identity = identities.create(key, body, now)
        self._store.commit(put=(identity, twins.create(key, now)))
        self._device_count += 1
        return documents.device(identity, self._connections.presence(key), just_created=True)

    def _update_device(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        identity = self._identity(key)
        if not if_match.allows(identity.etag):
            raise PreconditionFailed
        identity = identities.update(identity, body, self._clock())
        self._store.commit(put=(identity,))
        if not identity.enabled:
            self._drop_device(key.device_id, DeviceDisabled())
        return documents.device(identity, self._connections.presence(key))

    def delete_device(self, device_id: str, if_match: IfMatch) -> None:
        """Delete a device with its modules and their twins; a live connection is dropped.

        Raises:
            DeviceNotFound
            PreconditionFailed: the etag is stale, or there is none.
        """
        identity = self._identity(IdentityKey(device_id))
        if if_match.absent:
            raise PreconditionFailed("PreconditionFailed, Etag missing.")
        if not if_match.allows(identity.etag):
            raise PreconditionFailed
        family = self._store.keys_of(device_id)
        self._store.commit(delete=family)
        self._device_count -= 1
        self._drop_device(device_id, DeviceNotFound(device_id), family)
        for key in family:
            self._connections.forget(key)

    def list_devices(self, top: int = limits.LIST_DEVICES) -> list[JsonObject]:
        """List device identities, oldest first: `top` of them, 1 to 1,000.

        Anything outside that range counts as 1,000 (seen on a real hub).
        """
        count = top if 1 <= top <= limits.LIST_DEVICES else limits.LIST_DEVICES
        return [
            documents.device(identity, self._connections.presence(identity.key))
            for identity, _ in zip(self._store.devices(), range(count), strict=False)
        ]

    def _identity(self, key: IdentityKey) -> Identity:
        identity = self._store.identity(key)
        if identity is None:
            raise DeviceNotFound(key.device_id)
        return identity

    # --- twins

    def get_twin(self, key: IdentityKey) -> JsonObject:
        """Read a twin as a service sees it.

        Raises:
            DeviceNotFound: also for a module that is missing (seen on a real hub).
        """
        return documents.twin(self._identity(key), self._twin(key), self._connections.presence(key))

    def patch_twin(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Merge tags and desired properties into a twin, and tell the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid
        """
        return self._change_twin(key, if_match, twins.patch, body)

    def replace_twin(self, key: IdentityKey, body: object, if_match: IfMatch) -> JsonObject:
        """Replace a twin's tags and desired properties, and tell the device.

        Raises:
            DeviceNotFound, PreconditionFailed, ArgumentInvalid
        """
        return self._change_twin(key, if_match, twins.replace, body)

    def _change_twin(
        self,
        key: IdentityKey,
        if_match: IfMatch,
        change_twin: Callable[[Twin, object, datetime], twins.Change],
        body: object,
    ) -> JsonObject:
        twin = self._twin(key)
        if not if_match.allows(twin.etag):
            raise PreconditionFailed(f"ETag mismatch for device ID '{key.device_id}'")
        change = change_twin(twin, body, self._clock())
        self._store.commit(put=(change.twin,))
        link = self._connections.link(key)
        if link is not None and change.desired is not None:
            link.notify_desired(dumps(change.desired), change.twin.desired.version)
        return self.get_twin(key)

    def read_twin(self, key: IdentityKey) -> JsonObject:
        """Read a twin as its device sees it.

        Raises:
            DeviceNotFound
        """
        return self._twin(key).device_view()

    def report(self, key: IdentityKey, body: object, expected_version: int | None) -> int:
        """Merge a device's patch into its reported properties; gives their new version.

        Raises:
            DeviceNotFound, ArgumentInvalid
            PreconditionFailed: the reported properties are not at `expected_version`.
        """
        twin = twins.report(self._twin(key), body, self._clock(), expected_version)
        self._store.commit(put=(twin,))
        return twin.reported.version

    def _twin(self, key: IdentityKey) -> Twin:
        twin = self._store.twin(key)
        if twin is None:
            raise DeviceNotFound(key.device_id)
        return twin

    # --- direct methods

    async def invoke_method(self, key: IdentityKey, body: object) -> MethodResult:
        """Invoke a direct method, and wait for the device's answer (IoT Hub docs: direct methods).

        Args:
            body: `{"methodName", "payload", "responseTimeoutInSeconds", "connectTimeoutInSeconds"}`

        Raises:
            DeserializationError, ArgumentNull, ArgumentInvalid, MessageTooLarge
            DeviceNotFound, ModuleNotFound: unknown, or disabled.
            DeviceNotOnline: not connected, or not subscribed to methods, within the connect
                time-out; or gone while the call was open.
            GatewayTimeout: no answer within the response time-out.
        """
        request = MethodRequest.parse(body)
        self._check_invocable(key)
        link = self._connections.listener(key, request.name)
        # The response time-out is the budget for all of it: waiting for the device eats from it.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.response_timeout
        if link is None and request.connect_timeout:
            link = await self._connections.wait_for_listener(
                key, request.name, request.connect_timeout
            )
        if link is None:
            waited = request.connect_timeout
            raise DeviceNotOnline(info={"timeout": span(waited)} if waited else None)
        remaining = deadline - loop.time()
        if remaining <= 0:
            raise GatewayTimeout(info={"timeout": span(request.response_timeout)})
        return await self._calls.call(link, request, timeout=remaining)

    def complete_method(
        self, link: DeviceLink, request_id: str, status: int, payload: bytes
    ) -> None:
        """Take a device's answer to a direct method; one that nobody waits for is ignored."""
        self._calls.complete(link.key, request_id, status, payload)

    async def wait_for_listener(self, key: IdentityKey, method: str, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a device to listen for a direct method."""
        return await self._connections.wait_for_listener(key, method, timeout) is not None

    def _check_invocable(self, key: IdentityKey) -> None:
        device = self._store.identity(IdentityKey(key.device_id))
        if device is None or not device.enabled:
            raise DeviceNotFound(key.device_id)
        if self._store.identity(key) is None:
            raise ModuleNotFound(f"{key.device_id}/{key.module_id}")

    # --- connections

    def connect(self, link: DeviceLink, admission: Admission) -> None:
        """Put a device's link in place; an older link of the same identity is closed.

        The link is closed in its turn when the credentials run out.
        """
        replaced = self._connections.add(link, self._clock())
        if replaced is not None:
            self._let_go(replaced, ConnectionForcefullyClosedOnNewConnection())
        seconds = admission.expires - self._clock().timestamp()
        self._expiries[link] = asyncio.get_running_loop().call_later(
            seconds, self._drop, link, IotHubUnauthorized()
        )
        log.info("%s connected", link.key)

    def disconnect(self, link: DeviceLink) -> None:
        """Forget a link whose connection has ended; one that the hub itself closed is forgotten."""
        if self._connections.remove(link, self._clock()):
            self._end(link, DeviceNotOnline())
            log.info("%s disconnected", link.key)

    def listens(self, link: DeviceLink) -> None:
        """Note that a device has begun to listen for direct methods."""
        self._connections.listens(link.key)

    def heard_of(self, link: DeviceLink) -> None:
        """Note that a device sent something: its last activity is now."""
        self._connections.heard_of(link.key, self._clock())

    def drop_all(self) -> None:
        """Close every link: the hub is stopping."""
        for link in self._connections.links():
            self._drop(link, ServiceUnavailable())

    def _drop_device(
        self, device_id: str, reason: HubError, family: Iterable[IdentityKey] | None = None
    ) -> None:
        """Close the links of a device and of its modules."""
        for key in self._store.keys_of(device_id) if family is None else family:
            if link := self._connections.link(key):
                self._drop(link, reason)

    def _drop(self, link: DeviceLink, reason: HubError) -> None:
        self._connections.remove(link, self._clock())
        self._let_go(link, reason)

    def _let_go(self, link: DeviceLink, reason: HubError) -> None:
        self._end(link, reason)
        log.info("%s dropped: %s", link.key, reason)
        link.close(reason)

    def _end(self, link: DeviceLink, reason: HubError) -> None:
        if timer := self._expiries.pop(link, None):
            timer.cancel()
        # A caller is told of a takeover (IoT Hub docs: error 400027) and of a hub that stops; any
        # other way in which a device is gone is "not online" to it, whatever ended the connection.
        told = (ConnectionForcefullyClosedOnNewConnection, ServiceUnavailable)
        self._calls.abandon(link.key, reason if isinstance(reason, told) else DeviceNotOnline())
