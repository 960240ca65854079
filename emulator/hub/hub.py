"""The one door that heads come in by.

A head turns wire bytes into a call here, and the answer, or the `HubError` it raises, into wire
bytes. Every change of state is one commit on the store, done before it is answered.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

from emulator.hub.access.certificates import ClientCertificate, check_certificate
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import Policy, Right
from emulator.hub.access.sas import SasToken, check_reach, check_signature, check_token
from emulator.hub.access.throttles import Operation, Throttles
from emulator.hub.configurations.configurations import Configurations
from emulator.hub.core.errors import (
    ConnectionForcefullyClosedOnNewConnection,
    DeviceNotFound,
    DeviceNotOnline,
    GatewayTimeout,
    HubError,
    IotHubUnauthorized,
    IotHubUnauthorizedAccess,
    ModuleNotFound,
    ServiceUnavailable,
)
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.store import Store
from emulator.hub.core.times import span, utc_now
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.import_export.transfers import Blobs, NoBlobs, Transfers
from emulator.hub.jobs.jobs import Jobs
from emulator.hub.links.connections import Admission, Connections, DeviceLink
from emulator.hub.messages.cloud_to_device import Commands
from emulator.hub.messages.event_log import EventLog
from emulator.hub.messages.message import Message
from emulator.hub.methods.calls import MethodCalls, MethodRequest, MethodResult
from emulator.hub.query.queries import Queries
from emulator.hub.registry.digital_twins import DigitalTwins
from emulator.hub.registry.identities import Registry

log = logging.getLogger(__name__)

# Services send a token again and again while it is good: its signature is checked once.
_REMEMBERED_TOKENS = 256


class IotHub:
    """An IoT hub: its identities, their twins, and the devices that are connected.

    Args:
        store: where the state is kept.
        policies: the shared access policies.
        hosts: the names it is known by; a token for any of them is good.
        clock: tells the present moment, in UTC.
        blobs: where import and export jobs find their files; None is nowhere.
        throttles: what callers may ask for in a time; None is as much as they like.
    """

    def __init__(
        self,
        *,
        store: Store,
        policies: Iterable[Policy],
        hosts: Collection[str],
        clock: Callable[[], datetime] = utc_now,
        blobs: Blobs | None = None,
        throttles: Throttles | None = None,
    ) -> None:
        self._store = store
        self._policies = {policy.name: policy for policy in policies}
        self._hosts = frozenset(hosts)
        self._recall_token = functools.lru_cache(_REMEMBERED_TOKENS)(self._authenticate)
        self._clock = clock
        self._connections = Connections()
        self._expiries: dict[DeviceLink, asyncio.TimerHandle] = {}
        self._calls = MethodCalls()
        self.registry = Registry(store, self._connections, clock, self._drop)
        self.commands = Commands(store, self._connections, clock)
        self.events = EventLog()
        self.registry.when_deleted(self._connections.forget)
        self.registry.when_deleted(self.commands.forget)
        self.throttles = throttles or Throttles()
        self.digital_twins = DigitalTwins(self.registry)
        self.configurations = Configurations(
            store, self.registry, clock, count=lambda text: self.queries.count(text)
        )
        self.registry.when_changed(self.configurations.reconcile)
        self.queries = Queries(
            self.registry,
            statuses=self.configurations.statuses,
            device_jobs=lambda: self.jobs.device_documents(),
        )
        self.jobs = Jobs(
            store,
            self.registry,
            clock,
            find=self.queries.find,
            invoke=self.invoke_method,
            slots=self.throttles.job_slots,
        )
        self.transfers = Transfers(
            store, self.registry, self.configurations, clock, blobs or NoBlobs()
        )

    # --- access

    def authorize(
        self, token: str | None, right: Right, *, host: str, resource: Sequence[str]
    ) -> None:
        """Let a service's request pass, or not (IoT Hub docs: control access with SAS).

        Args:
            token: the `Authorization` header, None if there was none.
            right: what the operation needs; of several rights, one will do.
            host: the host that the client addressed.
            resource: the path that it addressed, decoded, as segments.

        Raises:
            IotHubUnauthorizedAccess: no token, a bad or an expired one, or one without the right.
        """
        if token is None:
            raise IotHubUnauthorizedAccess
        sas = self._recall_token(token)
        self._policy_with(right, sas)
        check_reach(
            sas,
            resource=resource,
            hosts=self._hosts | {host},
            now=self._clock().timestamp(),
        )

    def _authenticate(self, token: str) -> SasToken:
        """Read a token that a policy's key has signed."""
        sas = SasToken.parse(token)
        check_signature(sas, self._policy(sas).keys)
        return sas

    def admit(
        self,
        key: IdentityKey,
        token: str | None,
        *,
        host: str,
        certificate: ClientCertificate | None = None,
        model_id: str = "",
    ) -> Admission:
        """Let a device or module in: by its own key, a policy with DeviceConnect, or a certificate.

        Args:
            token: the password or the `Authorization` header, None if there was none.
            host: the host that the client addressed.
            certificate: what it has shown in its TLS handshake, None if nothing.
            model_id: the model that it says it implements.

        Raises:
            IotHubUnauthorizedAccess: it is unknown or disabled, or what it has given is not good
                for it, or not of its kind; the answer does not tell which.
        """
        identity = self._store.identity(key)
        device = self._store.identity(IdentityKey(key.device_id))
        if identity is None or device is None:
            raise IotHubUnauthorizedAccess
        if not (identity.enabled and device.enabled):
            raise IotHubUnauthorizedAccess
        if identity.authentication.keys is None:
            expires, auth_method = self._admit_certificate(identity, token, certificate)
        else:
            expires, auth_method = self._admit_token(
                identity, identity.authentication.keys, token, certificate, host
            )
        return Admission(key, expires, identity.generation_id, auth_method, model_id)

    def _admit_token(
        self,
        identity: Identity,
        own_keys: SymmetricKeys,
        token: str | None,
        certificate: ClientCertificate | None,
        host: str,
    ) -> tuple[float, str]:
        """Check an identity that has keys; gives when the token expires, and how it was proved."""
        if token is None:
            raise IotHubUnauthorizedAccess from ValueError("no SAS token")
        if certificate is not None:
            raise IotHubUnauthorizedAccess from ValueError(
                "a certificate, but the identity has keys"
            )
        sas = SasToken.parse(token)
        check_token(
            sas,
            self._policy_with(Right.DEVICE_CONNECT, sas).keys if sas.policy else own_keys,
            resource=identity.key.resource,
            hosts=self._hosts | {host},
            now=self._clock().timestamp(),
        )
        scope = "hub" if sas.policy else _scope(identity)
        return sas.expiry, _auth_method(scope, "sas", "iothub")

    def _admit_certificate(
        self, identity: Identity, token: str | None, certificate: ClientCertificate | None
    ) -> tuple[float, str]:
        """Check an identity that has a certificate; the rest is as `_admit_token` has it."""
        # Some clients send an empty password where they have none. A policy's key stands in for a
        # device's own, but not for its certificate.
        if token:
            raise IotHubUnauthorizedAccess from ValueError("a token, but the identity has no keys")
        thumbprints = identity.authentication.thumbprints
        check_certificate(certificate, thumbprints, name=str(identity.key))
        return math.inf, _auth_method(_scope(identity), "x509Certificate", "external")

    def _policy(self, token: SasToken) -> Policy:
        policy = self._policies.get(token.policy or "")
        if policy is None:
            raise IotHubUnauthorizedAccess
        return policy

    def _policy_with(self, right: Right, token: SasToken) -> Policy:
        policy = self._policy(token)
        if not policy.allows(right):
            raise IotHubUnauthorizedAccess
        return policy

    # --- device-to-cloud messages

    def ingest(self, sender: Admission, messages: Sequence[Message]) -> None:
        """Stamp messages, and put them into the event log (IoT Hub docs: device-to-cloud)."""
        now, key = self._clock(), sender.key
        # A deleted device can leave a will.
        if self._connections.is_known(key) or self._store.identity(key) is not None:
            self._connections.heard_of(key, now)
        self.events.extend(sender, messages, now)

    # --- a device's own twin

    def read_twin(self, key: IdentityKey) -> JsonObject:
        """Read a twin for its device.

        Raises:
            DeviceNotFound, ThrottlingException
        """
        self.throttles.charge(Operation.READ_TWIN)
        return self.registry.read_twin(key)

    def report(self, key: IdentityKey, body: object, expected_version: int | None) -> int:
        """Merge a device's patch into its reported properties, as `Registry.report` does.

        Raises:
            DeviceNotFound, ArgumentInvalid, PreconditionFailed, ThrottlingException
        """
        self.throttles.charge(Operation.UPDATE_TWIN)
        return self.registry.report(key, body, expected_version)

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
        self.registry.note_model(admission.key, admission.model_id)
        replaced = self._connections.add(link, self._clock())
        if replaced is not None:
            self._let_go(replaced, ConnectionForcefullyClosedOnNewConnection())
        seconds = admission.expires - self._clock().timestamp()
        self._expiries[link] = asyncio.get_running_loop().call_later(
            seconds, self._drop, link.key, IotHubUnauthorized()
        )
        log.info("%s connected", link.key)

    def disconnect(self, link: DeviceLink) -> None:
        """Forget a link whose connection has ended; one that the hub itself closed is forgotten."""
        if self._connections.remove(link, self._clock()):
            self._end(link, DeviceNotOnline())
            log.info("%s disconnected", link.key)

    def listens(self, link: DeviceLink) -> None:
        """Note that a device has begun to listen for direct methods, or for messages."""
        self._connections.listens(link.key)
        self.commands.push(link)

    def heard_of(self, link: DeviceLink) -> None:
        """Note that a device sent something: its last activity is now."""
        self._connections.heard_of(link.key, self._clock())

    async def stop_jobs(self) -> None:
        """End every job that runs: the hub is stopping."""
        await self.jobs.stop()
        await self.transfers.stop()

    def drop_all(self) -> None:
        """Close every link: the hub is stopping."""
        for link in self._connections.links():
            self._drop(link.key, ServiceUnavailable())

    def _drop(self, key: IdentityKey, reason: HubError) -> None:
        """Close the link of an identity, if it has one."""
        link = self._connections.link(key)
        if link is not None:
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
        self.commands.release(link.key.device_id, link.unacknowledged)
        self._calls.abandon(link.key, reason if isinstance(reason, told) else DeviceNotOnline())


def _scope(identity: Identity) -> str:
    return "device" if identity.key.module_id is None else "module"


@functools.cache
def _auth_method(scope: str, kind: str, issuer: str) -> str:
    """Write how a sender was authenticated (IoT Hub docs: messages; x509Certificate, external and
    the last member as seen on real hubs).
    """
    method = {"scope": scope, "type": kind, "issuer": issuer, "acceptingIpFilterRule": None}
    return dumps(method).decode()
