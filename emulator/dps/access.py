"""Access to the service: programs of its owner have a policy, and devices have proofs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from emulator.dps import certificates, enrollment
from emulator.dps.attestation import CLIENT, KEY, REFERENCES, X509Attestation, derived_keys
from emulator.dps.enrollment import Enrollment
from emulator.dps.errors import InvalidCertificate, Unauthorized
from emulator.dps.names import POLICY
from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.sas import SasToken, check_reach, check_signature
from emulator.hub.authorities.authorities import Authorities
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import IotHubUnauthorizedAccess
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Store

# The name in the token of a device; some clients leave it out.
_DEVICE_POLICY = "registration"


class Proof(NamedTuple):
    """What a device sends to prove what it is.

    Args:
        token: its SAS token; None if it sent none.
        certificate: the certificate of its TLS handshake; None if it sent none.
        chain: this certificate, and those that it sent along, DER.
    """

    token: str | None
    certificate: ClientCertificate | None
    chain: Sequence[bytes]


class Admitted(NamedTuple):
    """A device that the service knows.

    Args:
        enrollment: its own enrollment, or that of its group.
        authentication: how it authenticates at its hub: the member of its identity.
    """

    enrollment: Enrollment
    authentication: JsonObject


class Access:
    """Checks credentials.

    Args:
        store: the store of the enrollments.
        keys: the keys of the policy.
        hosts: the names of the service; a token for any of them is valid.
        id_scope: the scope in the tokens of devices.
        authorities: the registered CAs, to which an enrollment can refer.
        clock: the clock of the hub: tokens and certificates are made with the machine's time.
    """

    def __init__(
        self,
        store: Store,
        keys: SymmetricKeys,
        hosts: Collection[str],
        id_scope: str,
        authorities: Authorities,
        clock: Clock,
    ) -> None:
        self._store = store
        self._keys = keys
        self._hosts = frozenset(hosts)
        self._id_scope = id_scope
        self._authorities = authorities
        self._machine = clock.machine

    def check_service(self, token: str | None, resource: Sequence[str], host: str) -> None:
        """Check the token of a program of the owner.

        Raises:
            Unauthorized: the cause has the reason, for the log.
        """
        try:
            if token is None:
                raise ValueError("no SAS token")
            parsed = SasToken.parse(token)
            if parsed.policy != POLICY:
                raise ValueError(f"the SAS token names the policy {parsed.policy!r}, not {POLICY}")
            check_signature(parsed, self._keys)
            self._check_reach(parsed, resource, self._hosts | {host})
        except (IotHubUnauthorizedAccess, ValueError) as error:
            raise Unauthorized from error.__cause__ or error

    def admit(self, registration_id: str, proof: Proof) -> Admitted:
        """Return the enrollment of a device whose proof is right.

        An enrollment of its own comes first; it alone decides then.

        Raises:
            Unauthorized: its token, or both are missing or wrong.
            InvalidCertificate: no enrollment accepts its certificate.
        """
        own = self._store.get(Enrollment, enrollment.key(registration_id, is_group=False))
        candidates = [own] if own else self._store.scan(Enrollment, ("group",))
        if proof.token:
            return self._by_token(registration_id, proof.token, candidates)
        if proof.certificate is not None:
            return self._by_certificate(registration_id, proof.certificate, proof.chain, candidates)
        raise Unauthorized from ValueError("neither a SAS token nor a certificate")

    # --- tokens

    def _by_token(
        self, registration_id: str, text: str, candidates: Sequence[Enrollment]
    ) -> Admitted:
        reason: BaseException = ValueError(f"no enrollment for {registration_id!r} has keys")
        try:
            token = SasToken.parse(text)
            if token.policy not in (None, _DEVICE_POLICY):
                raise ValueError(f"the SAS token of a device names the policy {token.policy!r}")
            resource = ("registrations", registration_id)
            self._check_reach(token, resource, {self._id_scope})
        except (IotHubUnauthorizedAccess, ValueError) as error:
            raise Unauthorized from error.__cause__ or error
        for each in candidates:
            if (keys := each.attestation.keys) is None:
                continue
            if each.is_group:
                keys = derived_keys(keys, registration_id)
            try:
                check_signature(token, keys)
            except IotHubUnauthorizedAccess as error:
                reason = error.__cause__ or error
            else:
                pair = {"primaryKey": keys.primary, "secondaryKey": keys.secondary}
                return Admitted(each, {"type": "sas", KEY: pair})
        raise Unauthorized from reason

    def _check_reach(
        self, token: SasToken, resource: Sequence[str], hosts: Collection[str]
    ) -> None:
        now = self._machine.now().timestamp()
        check_reach(token, resource=resource, hosts=hosts, now=now)

    # --- certificates

    def _by_certificate(
        self,
        registration_id: str,
        certificate: ClientCertificate,
        chain: Sequence[bytes],
        candidates: Sequence[Enrollment],
    ) -> Admitted:
        name = certificate.common_name
        if name is None or name.lower() != registration_id.lower():
            reason = f"the certificate's common name is {name!r}, not {registration_id!r}"
            raise InvalidCertificate from ValueError(reason)
        if not certificate.in_date:
            reason = "the device's certificate has expired, or is not valid yet"
            raise InvalidCertificate from ValueError(reason)
        reason = f"no enrollment for {registration_id!r} accepts the certificate"
        for each in candidates:
            if (attestation := each.attestation.x509) is None:
                continue
            if self._accepts(attestation, chain):
                return Admitted(each, self_signed(certificate.sha256))
            if unknown := [*self._unknown(attestation)]:
                reason = f"no CA {unknown[0]!r}, as in the enrollment {each.id!r}, is verified"
        raise InvalidCertificate from ValueError(reason)

    def _accepts(self, attestation: X509Attestation, chain: Sequence[bytes]) -> bool:
        if attestation.kind == CLIENT:
            return any(own in attestation.certificates for own in chain[:1])
        if attestation.kind == REFERENCES:
            names = [name for name in attestation.references if name]
            anchors = [each for name in names for each in self._authorities.named(name)]
        else:
            anchors = [each for each in attestation.certificates if each is not None]
        return certificates.is_trusted(chain, anchors, self._machine.now())

    def _unknown(self, attestation: X509Attestation) -> Iterator[str]:
        """Return the names of CAs that are unknown or not verified."""
        named = self._authorities.named
        return (each for each in attestation.references if each and not named(each))


def self_signed(sha256: str) -> JsonObject:
    """Return the authentication of a device with a certificate (seen on the service).

    It is that of a certificate of its own, also if a CA signed it.
    """
    prints = {"primaryThumbprint": sha256.upper(), "secondaryThumbprint": None}
    return {"type": "selfSigned", "x509Thumbprint": prints}
