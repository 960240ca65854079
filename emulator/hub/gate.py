"""The gate: the one call by which every request enters the hub.

It authorizes a service, or admits a device, and charges the request to its throttle. Heads call
nothing else of the hub before it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, overload

from emulator.hub.access.certificates import ClientCertificate, check_certificate
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.operations import RULES, Operation
from emulator.hub.access.policies import Policy, Right
from emulator.hub.access.sas import SasToken, check_reach, check_signature, check_token
from emulator.hub.access.throttles import Throttles
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import HubError, IotHubUnauthorizedAccess
from emulator.hub.core.json import dumps
from emulator.hub.core.store import Store
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import Admission

# A service sends its token again and again while it is valid: the signature is checked once.
_REMEMBERED_TOKENS = 256

# What a connected device is charged for. Its other operations pass: a real hub slows them down, and
# refuses none of them on an open connection.
_CHARGED_ON_A_CONNECTION = (Operation.READ_OWN_TWIN, Operation.REPORT)


class ServiceCaller(NamedTuple):
    """A service, by what it sent with its request.

    Args:
        token: its SAS token; None if it sent no token.
        host: the host that it addressed.
        resource: the path that it addressed, decoded, as segments.
    """

    token: str | None
    host: str
    resource: Sequence[str]


class DeviceCaller(NamedTuple):
    """A device or module that authenticates itself, by what it sent.

    Args:
        key: the identity that it claims.
        token: its password, or its `Authorization` header; None if it sent neither.
        host: the host that it addressed.
        certificate: the certificate of its TLS handshake; None if it sent no certificate.
        model_id: the model that it implements, "" if it names none.
    """

    key: IdentityKey
    token: str | None
    host: str
    certificate: ClientCertificate | None = None
    model_id: str = ""


class Gate:
    """Authorizes, admits and charges every request.

    Args:
        store: where identities are found.
        policies: the shared access policies.
        hosts: the names of the hub; a token for any of them is valid.
        throttles: how much callers can ask for in a time.
        clock: the clock of the hub.
    """

    def __init__(
        self,
        store: Store,
        policies: Iterable[Policy],
        hosts: Collection[str],
        throttles: Throttles,
        clock: Clock,
    ) -> None:
        self._store = store
        self._policies = {policy.name: policy for policy in policies}
        self._hosts = frozenset(hosts)
        self._clock = clock
        self._recall_token = functools.lru_cache(_REMEMBERED_TOKENS)(self._authenticate)
        self.throttles = throttles

    @overload
    def enter(
        self,
        caller: ServiceCaller,
        operation: Operation,
        *,
        size: int = 0,
        flaw: HubError | None = None,
    ) -> None: ...

    @overload
    def enter(
        self,
        caller: DeviceCaller | Admission,
        operation: Operation,
        *,
        size: int = 0,
        flaw: HubError | None = None,
    ) -> Admission: ...

    def enter(
        self,
        caller: ServiceCaller | DeviceCaller | Admission,
        operation: Operation,
        *,
        size: int = 0,
        flaw: HubError | None = None,
    ) -> Admission | None:
        """Let a request pass, or refuse it.

        Args:
            caller: a service or a device, with its credentials; or the admission of a device whose
                connection is open.
            operation: what it asks for.
            size: the bytes that it sends with the request.
            flaw: what is wrong with the request itself. It is raised for a caller that is
                authorized, and such a request is not charged.

        Returns:
            The admission of a device.

        Raises:
            IotHubUnauthorizedAccess: the credentials are missing, wrong or expired, or do not allow
                the operation; or the device is unknown or disabled. The text never says which; the
                cause does, for the log.
            ThrottlingException: the throttle of the operation is used up.
            HubError: the flaw.
        """
        if isinstance(caller, Admission):
            if operation in _CHARGED_ON_A_CONNECTION:
                self.throttles.charge(operation, size=size)
            return caller
        admission = None
        if isinstance(caller, ServiceCaller):
            self._authorize(caller, RULES[operation].right)
        else:
            admission = self._admit(caller)
        if flaw is not None:
            raise flaw
        self.throttles.charge(operation, size=size)
        return admission

    # --- services

    def _authorize(self, caller: ServiceCaller, right: Right) -> None:
        """Check a service's token (IoT Hub docs: control access with SAS)."""
        if caller.token is None:
            raise IotHubUnauthorizedAccess
        sas = self._recall_token(caller.token)
        self._policy_with(right, sas)
        check_reach(
            sas,
            resource=caller.resource,
            hosts=self._hosts | {caller.host},
            now=self._clock.now().timestamp(),
        )

    def _authenticate(self, token: str) -> SasToken:
        """Parse a token that a policy's key has signed."""
        sas = SasToken.parse(token)
        check_signature(sas, self._policy(sas).keys)
        return sas

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

    # --- devices and modules

    def _admit(self, caller: DeviceCaller) -> Admission:
        """Check a device's credentials: its own key, a policy with DeviceConnect, a certificate."""
        key = caller.key
        identity = self._store.get(Identity, key)
        device = self._store.get(Identity, IdentityKey(key.device_id))
        if identity is None or device is None:
            raise IotHubUnauthorizedAccess
        if not (identity.enabled and device.enabled):
            raise IotHubUnauthorizedAccess
        if identity.authentication.keys is None:
            expires, auth_method = self._check_certificate(identity, caller)
        else:
            expires, auth_method = self._check_token(identity, identity.authentication.keys, caller)
        return Admission(key, expires, identity.generation_id, auth_method, caller.model_id)

    def _check_token(
        self, identity: Identity, own_keys: SymmetricKeys, caller: DeviceCaller
    ) -> tuple[float, str]:
        """Check an identity that has keys; return when its token expires, and the auth method."""
        if caller.token is None:
            raise IotHubUnauthorizedAccess from ValueError("no SAS token")
        if caller.certificate is not None:
            raise IotHubUnauthorizedAccess from ValueError(
                "a certificate, but the identity has keys"
            )
        sas = SasToken.parse(caller.token)
        check_token(
            sas,
            self._policy_with(Right.DEVICE_CONNECT, sas).keys if sas.policy else own_keys,
            resource=identity.key.resource,
            hosts=self._hosts | {caller.host},
            now=self._clock.now().timestamp(),
        )
        scope = "hub" if sas.policy else _scope(identity)
        return sas.expiry, _auth_method(scope, "sas", "iothub")

    def _check_certificate(self, identity: Identity, caller: DeviceCaller) -> tuple[float, str]:
        """Check an identity that has a certificate; the rest is as in `_check_token`."""
        # Some clients send an empty password where they have none. A policy's key stands in for a
        # device's own key, but not for its certificate.
        if caller.token:
            raise IotHubUnauthorizedAccess from ValueError("a token, but the identity has no keys")
        check_certificate(
            caller.certificate, identity.authentication.thumbprints, name=str(identity.key)
        )
        return math.inf, _auth_method(_scope(identity), "x509Certificate", "external")


def _scope(identity: Identity) -> str:
    return "device" if identity.key.module_id is None else "module"


@functools.cache
def _auth_method(scope: str, kind: str, issuer: str) -> str:
    """Write how a sender was authenticated (IoT Hub docs: messages; x509Certificate, external and
    the last member were seen on real hubs).
    """
    method = {"scope": scope, "type": kind, "issuer": issuer, "acceptingIpFilterRule": None}
    return dumps(method).decode()
