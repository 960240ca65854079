"""The gate: every request enters the hub with one call of it.

It authorizes a service, or admits a device, and charges the request to its throttle. A head calls
the gate before any other part of the hub.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from emulator.hub.access import entra
from emulator.hub.access.certificates import ClientCertificate, check_certificate
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.operations import Operation
from emulator.hub.access.policies import Policy, Right
from emulator.hub.access.sas import SasToken, check_reach, check_signature
from emulator.hub.access.throttles import Throttles
from emulator.hub.access.token_time import TokenTime
from emulator.hub.core.errors import HubError, IotHubUnauthorized, IotHubUnauthorizedAccess
from emulator.hub.core.json import dumps
from emulator.hub.core.store import Store
from emulator.hub.faults.faults import Faults
from emulator.hub.faults.refusals import refusal
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.links.link import Admission

# A service sends the same token with many requests: its signature is checked once.
_REMEMBERED_TOKENS = 256

_OWN_ROUTES = "_emulator"  # the first segment of their paths


class ServiceCaller(NamedTuple):
    """A service that sends a request.

    Args:
        token: its SAS token, or its bearer token; None if it sent no token.
        host: the host in the request.
        resource: the path of the request, decoded, as segments.
        verb: the HTTP method, for the text of a refusal.
    """

    token: str | None
    host: str
    resource: Sequence[str]
    verb: str = ""


class EventHubsCaller(NamedTuple):
    """A service at the Event Hubs-compatible endpoint.

    Args:
        token: its SAS token, for an `sb://` URI; None if it sent no token.
        resource: the path of the request, as segments, the first of which is the entity.
    """

    token: str | None
    resource: Sequence[str]


class DeviceCaller(NamedTuple):
    """A device or module that authenticates itself.

    Args:
        key: the identity that it claims.
        token: its password, or its `Authorization` header; None if both are missing.
        host: the host in the request.
        certificate: the certificate of its TLS handshake; None if it sent no certificate.
        model_id: the model that it implements; "" if it names no model.
    """

    key: IdentityKey
    token: str | None
    host: str
    certificate: ClientCertificate | None = None
    model_id: str = ""


Caller: TypeAlias = ServiceCaller | EventHubsCaller | DeviceCaller


class Gate:
    """Authorizes, admits and charges every request.

    Args:
        store: the store of the identities.
        policies: the shared access policies.
        hosts: the names of the hub; a token for any of them is valid.
        throttles: the throttles of the hub.
        faults: the faults that are on.
        time: the time by which tokens are judged.
        accepts_entra: whether every bearer token with the form of a token of Entra ID is valid.
    """

    def __init__(
        self,
        store: Store,
        policies: Iterable[Policy],
        hosts: Collection[str],
        throttles: Throttles,
        faults: Faults,
        time: TokenTime,
        *,
        accepts_entra: bool = False,
    ) -> None:
        self._accepts_entra = accepts_entra
        self._store = store
        self._policies = {policy.name: policy for policy in policies}
        self._hosts = frozenset(hosts)
        self._faults = faults
        self._time = time
        self._authenticate = functools.lru_cache(_REMEMBERED_TOKENS)(self._parse_service_token)
        self.throttles = throttles

    def enter(
        self,
        caller: Caller | Admission,
        operation: Operation,
        *,
        size: int = 0,
        flaw: HubError | None = None,
    ) -> Admission | None:
        """Check a request, and charge it to its throttle.

        Args:
            caller: a service or a device, with its credentials; or the admission of a device whose
                connection is open.
            operation: the operation of the request.
            size: the size of the request in bytes.
            flaw: an error in the request itself. The gate raises it for a caller that is
                authorized, and does not charge the request.

        Returns:
            The admission of a device; None for a service.

        Raises:
            IotHubUnauthorizedAccess: the credentials are missing, wrong or expired, or do not allow
                the operation; or the device is unknown or disabled. The text does not show the
                reason; the cause has it, for the log.
            ThrottlingException: the throttle of the operation is used up.
            HubError: the flaw; or a fault refuses the request.
        """
        admission = caller if isinstance(caller, Admission) else self.check(caller, operation)
        if flaw is not None:
            raise flaw
        if self._faults.active:
            self._meet_faults(caller, operation)
        if self.throttles.active:
            self.throttles.charge(operation, size=size)
        return admission

    def check(self, caller: Caller, operation: Operation) -> Admission | None:
        """Check credentials, and charge nothing: for a link by which requests will come.

        Returns, and raises: see `enter`.
        """
        if isinstance(caller, DeviceCaller):
            return self._admit(caller)
        self._authorize(caller, operation)
        return None

    def _meet_faults(self, caller: Caller | Admission, operation: Operation) -> None:
        """Refuse a request if a fault does so; the emulator's own routes have no faults."""
        if isinstance(caller, Admission | DeviceCaller):
            key: IdentityKey | None = caller.key
        elif next(iter(caller.resource), "") == _OWN_ROUTES:
            return
        else:
            key = _subject(caller.resource)
        connects = isinstance(caller, DeviceCaller) or operation is Operation.CONNECT
        if error := refusal(self._faults, key, operation, connects=connects):
            raise error

    # --- services

    def _authorize(self, caller: ServiceCaller | EventHubsCaller, operation: Operation) -> None:
        """Check a service's token (IoT Hub docs: control access with SAS)."""
        if caller.token is None:
            raise IotHubUnauthorizedAccess from ValueError("no SAS token")
        if (bearer := entra.bearer_token(caller.token)) is not None:
            self._authorize_principal(bearer, caller, operation)
            return
        token = self._authenticate(caller.token, operation.right)
        if isinstance(caller, EventHubsCaller):
            check_reach(token, resource=caller.resource, hosts=None, time=self._time)
        else:
            self._check_reach(token, caller.resource, caller.host)

    def _authorize_principal(
        self, token: str, caller: ServiceCaller | EventHubsCaller, operation: Operation
    ) -> None:
        """Check the bearer token of a service; without the setting, no principal has a role."""
        try:
            name = entra.principal(token)
        except ValueError as error:
            raise IotHubUnauthorizedAccess from error
        is_allowed = operation.right & entra.DATA_CONTRIBUTOR
        if self._accepts_entra and is_allowed and operation is not Operation.INVOKE_COMMAND:
            return
        verb = caller.verb if isinstance(caller, ServiceCaller) else ""
        reason = "" if self._accepts_entra else "bearer tokens need the setting --entra accept"
        raise IotHubUnauthorized(
            f"Principal {name} is not authorized for {verb} on "
            f"/{'/'.join(caller.resource)} due to no assigned permissions"
        ) from ValueError(reason or f"no role allows {operation.name} with a bearer token")

    def _parse_service_token(self, text: str, right: Right) -> SasToken:
        """Parse a token, and check its signature and the right of its policy."""
        token = SasToken.parse(text)
        check_signature(token, self._policy_keys(token, right))
        return token

    def _policy_keys(self, token: SasToken, right: Right) -> SymmetricKeys:
        policy = self._policies.get(token.policy or "")
        if policy is None:
            reason = f"unknown policy {token.policy!r}" if token.policy else "no policy (skn)"
            raise IotHubUnauthorizedAccess from ValueError(f"the SAS token names {reason}")
        if not policy.allows(right):
            wanted = str(right.name).replace("_", " ").lower()
            reason = f"the policy {policy.name!r} does not have the right {wanted!r}"
            raise IotHubUnauthorizedAccess from ValueError(reason)
        return policy.keys

    def _check_reach(self, token: SasToken, resource: Sequence[str], host: str) -> None:
        hosts = self._hosts | {host}
        check_reach(token, resource=resource, hosts=hosts, time=self._time)

    # --- devices and modules

    def _admit(self, caller: DeviceCaller) -> Admission:
        """Admit a device: check its own key, a policy's key, or its certificate."""
        key = caller.key
        identity = self._store.get(Identity, key)
        device = self._store.get(Identity, IdentityKey(key.device_id))
        if identity is None or device is None:
            unknown = "device" if device is None else "module"
            raise IotHubUnauthorizedAccess from ValueError(f"unknown {unknown}: {str(key)!r}")
        if not (identity.enabled and device.enabled):
            disabled = str(device.key if identity.enabled else key)
            raise IotHubUnauthorizedAccess from ValueError(f"disabled: {disabled!r}")
        scope = "device" if key.module_id is None else "module"
        authentication, expires = identity.authentication, math.inf
        if authentication.keys is None:
            # Some clients send an empty password. A policy's key can replace the key of a device,
            # but not its certificate.
            if caller.token:
                reason = "a token, but the identity has no keys"
                raise IotHubUnauthorizedAccess from ValueError(reason)
            check_certificate(caller.certificate, authentication.thumbprints, name=str(key))
            auth_method = _auth_method(scope, "x509Certificate", "external")
        else:
            token = self._check_token(authentication.keys, caller)
            expires = self._time.end(token.expiry)
            auth_method = _auth_method("hub" if token.policy else scope, "sas", "iothub")
        return Admission(key, expires, identity.generation_id, auth_method, caller.model_id)

    def _check_token(self, own_keys: SymmetricKeys, caller: DeviceCaller) -> SasToken:
        """Return the valid token of a caller whose identity has keys."""
        if caller.token is None:
            raise IotHubUnauthorizedAccess from ValueError("no SAS token")
        if caller.certificate is not None:
            reason = "a certificate, but the identity has keys"
            raise IotHubUnauthorizedAccess from ValueError(reason)
        token = SasToken.parse(caller.token)
        keys = self._policy_keys(token, Right.DEVICE_CONNECT) if token.policy else own_keys
        check_signature(token, keys)
        self._check_reach(token, caller.key.resource, caller.host)
        return token


def _subject(resource: Sequence[str]) -> IdentityKey | None:
    """Return the identity that the path of a service's request names."""
    match resource:
        case ["devices" | "twins" | "digitaltwins", device_id, "modules", module_id, *_]:
            return IdentityKey(device_id, module_id)
        case ["devices" | "twins" | "digitaltwins", device_id, *_]:
            return IdentityKey(device_id)
    return None


@functools.cache
def _auth_method(scope: str, kind: str, issuer: str) -> str:
    """Return the authentication method of a sender as JSON text (IoT Hub docs: messages).

    The values x509Certificate and external and the last member were seen on real hubs.
    """
    method = {"scope": scope, "type": kind, "issuer": issuer, "acceptingIpFilterRule": None}
    return dumps(method).decode()
