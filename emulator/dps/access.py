"""Access to the service: programs of its owner have a policy, and devices have proofs."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from emulator.dps import certificates, enrollment, tpm_keys
from emulator.dps.attestation import CLIENT, KEY, REFERENCES, X509Attestation, derived_keys
from emulator.dps.enrollment import Enrollment
from emulator.dps.errors import (
    EnrollmentNotFound,
    InvalidCertificate,
    TpmChallenge,
    Unauthorized,
    UnverifiedAuthority,
)
from emulator.dps.names import POLICY
from emulator.dps.tpm_keys import DEVICE, REGISTRATION, Tpm
from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.keys import SymmetricKeys, decode_key, key_document
from emulator.hub.access.policies import Policy, Right
from emulator.hub.access.sas import SasToken, check_reach, check_signature
from emulator.hub.access.token_time import TokenTime
from emulator.hub.authorities.authorities import Authorities
from emulator.hub.core.clock import TimeSource
from emulator.hub.core.errors import HubError, IotHubUnauthorizedAccess
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Store

# The policy in the token of a device (SDKs: `skn`); some clients leave it out.
DEVICE_POLICY = "registration"


class Proof(NamedTuple):
    """What a device sends to prove what it is.

    Args:
        token: its SAS token; None if it sent none.
        certificate: the certificate of its TLS handshake; None if it sent none.
        chain: this certificate, and those that it sent along, DER.
        tpm: its TPM; None if it names none.
    """

    token: str | None
    certificate: ClientCertificate | None = None
    chain: Sequence[bytes] = ()
    tpm: Tpm | None = None


class Admitted(NamedTuple):
    """A device that the service knows.

    Args:
        enrollment: its own enrollment, or that of its group.
        authentication: how it authenticates at its hub: the member of its identity.
        tpm: its TPM, as far as it is known; None if it has none.
        failure: why its registration fails; None if it does not.
    """

    enrollment: Enrollment
    authentication: JsonObject
    tpm: Tpm | None = None
    failure: HubError | None = None


class Access:
    """Checks credentials.

    Args:
        store: the store of the enrollments.
        policies: the shared access policies by name.
        hosts: the names of the service; a token for any of them is valid.
        id_scope: the scope in the tokens of devices.
        authorities: the registered CAs, to which an enrollment can refer.
        time: the time by which tokens are judged.
        machine: the time of the machine, with which certificates are made.
    """

    def __init__(
        self,
        store: Store,
        policies: Mapping[str, Policy],
        hosts: Collection[str],
        id_scope: str,
        authorities: Authorities,
        time: TokenTime,
        machine: TimeSource,
    ) -> None:
        self._store = store
        self._policies = policies
        self._hosts = frozenset(hosts)
        self._id_scope = id_scope
        self._authorities = authorities
        self._time = time
        self._machine = machine

    def check_service(
        self, token: str | None, resource: Sequence[str], host: str, right: Right
    ) -> None:
        """Check the token of a program of the owner.

        Raises:
            Unauthorized: the cause has the reason, for the log.
        """
        try:
            if token is None:
                raise ValueError("no SAS token")
            parsed = SasToken.parse(token)
            policy = self._policies.get(parsed.policy or "")
            if policy is None:
                raise ValueError(f"the SAS token names the unknown policy {parsed.policy!r}")
            if not policy.allows(right):
                wanted = str(right.name).replace("_", " ").lower()
                raise ValueError(f"the policy {policy.name!r} does not have the right {wanted!r}")
            check_signature(parsed, policy.keys)
            self._check_reach(parsed, resource, self._hosts | {host})
        except (IotHubUnauthorizedAccess, ValueError) as error:
            raise Unauthorized from error.__cause__ or error

    def admit(self, registration_id: str, proof: Proof) -> Admitted:
        """Return the enrollment of a device whose proof is right.

        An enrollment of its own comes first; it alone decides then.

        Raises:
            Unauthorized: its token, or both are missing or wrong.
            InvalidCertificate: no enrollment accepts its certificate.
            TpmChallenge: it has a TPM, and sends no token yet.
            EnrollmentNotFound: it has proved to have its TPM, but no enrollment has it.
            ArgumentInvalid: the keys of its TPM are missing or malformed.
        """
        own = self._store.get(Enrollment, enrollment.key(registration_id, is_group=False))
        if own is not None and own.attestation.tpm is not None:
            known = Tpm.parse(own.attestation.tpm)
            if known is not None and (proof.token or proof.tpm is not None):
                return self._by_tpm(registration_id, proof, own, _same(known, proof.tpm))
        elif own is None and proof.tpm is not None and proof.certificate is None:
            return self._by_tpm(registration_id, proof, None, proof.tpm)
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
        token = self._parse(registration_id, text)
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
                return Admitted(each, {"type": "sas", KEY: key_document(keys)})
        raise Unauthorized from reason

    def _parse(self, registration_id: str, text: str) -> SasToken:
        """Return the token of a device, whose signature is to be checked."""
        try:
            token = SasToken.parse(text)
            if token.policy not in (None, DEVICE_POLICY):
                raise ValueError(f"the SAS token of a device names the policy {token.policy!r}")
            resource = ("registrations", registration_id)
            self._check_reach(token, resource, {self._id_scope})
        except (IotHubUnauthorizedAccess, ValueError) as error:
            raise Unauthorized from error.__cause__ or error
        return token

    def _check_reach(
        self, token: SasToken, resource: Sequence[str], hosts: Collection[str]
    ) -> None:
        check_reach(token, resource=resource, hosts=hosts, time=self._time)

    # --- TPMs

    def seal(self, registration_id: str, tpm: Tpm) -> str:
        """Return the key of a device for its hub, sealed for its TPM, in base64.

        Raises:
            ArgumentInvalid: a key of the TPM is missing or malformed.
        """
        key = self._tpm_key(DEVICE, registration_id, tpm)
        return base64.b64encode(tpm_keys.seal(tpm, key)).decode()

    def _by_tpm(
        self, registration_id: str, proof: Proof, own: Enrollment | None, tpm: Tpm
    ) -> Admitted:
        """Admit a device that signs with the key that was sealed for its TPM."""
        key = self._tpm_key(REGISTRATION, registration_id, tpm)
        if not proof.token:
            raise TpmChallenge(tpm_keys.seal(tpm, key))
        token = self._parse(registration_id, proof.token)
        try:
            check_signature(token, _pair(key))
        except IotHubUnauthorizedAccess as error:
            raise Unauthorized from error.__cause__ or error
        if own is None:
            raise EnrollmentNotFound
        keys = _pair(self._tpm_key(DEVICE, registration_id, tpm))
        return Admitted(own, {"type": "sas", KEY: key_document(keys)}, tpm)

    def _tpm_key(self, purpose: bytes, registration_id: str, tpm: Tpm) -> bytes:
        secret = decode_key(self._policies[POLICY].keys.primary)
        return tpm_keys.derive(secret, purpose, registration_id, tpm.endorsement)

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
        authentication = self_signed(certificate.sha256)
        followed = certificates.Chain(chain, self._machine.now())
        failed: Admitted | None = None
        for each in candidates:
            if (attestation := each.attestation.x509) is None:
                continue
            if self._accepts(attestation, chain, followed):
                return Admitted(each, authentication)
            if attestation.kind != REFERENCES:
                continue  # it has its CAs itself: none of them can be unverified
            if self._accepts(attestation, chain, followed, verified=False):
                failed = Admitted(each, authentication, failure=UnverifiedAuthority())
            if unknown := [*self._unknown(attestation)]:
                reason = f"no CA {unknown[0]!r}, as in the enrollment {each.id!r}, is verified"
        if failed is not None:
            return failed
        raise InvalidCertificate from ValueError(reason)

    def _accepts(
        self,
        attestation: X509Attestation,
        chain: Sequence[bytes],
        followed: certificates.Chain,
        *,
        verified: bool = True,
    ) -> bool:
        """Return whether an enrollment accepts a chain.

        Args:
            attestation: that of the enrollment.
            chain: the certificates of a device.
            followed: the same, as far as they lead.
            verified: whether the CA that it refers to is verified; else it only is registered.
        """
        if attestation.kind == CLIENT:
            return any(own in attestation.certificates for own in chain[:1])
        if attestation.kind == REFERENCES:
            names = [name for name in attestation.references if name]
            named = self._authorities.named
            anchors = [each for name in names for each in named(name, verified=verified)]
        else:
            anchors = [each for each in attestation.certificates if each is not None]
        return followed.leads_to(anchors)

    def _unknown(self, attestation: X509Attestation) -> Iterator[str]:
        """Return the names of CAs that are unknown or not verified."""
        named = self._authorities.named
        return (each for each in attestation.references if each and not named(each))


def _same(known: Tpm, given: Tpm | None) -> Tpm:
    """Return the TPM of an enrollment, with the root key that the device sends.

    Raises:
        Unauthorized: the device has another TPM.
    """
    if given is None:
        return known
    if given.endorsement != known.endorsement:
        raise Unauthorized from ValueError("the endorsement key is not that of the enrollment")
    if known.root is not None and given.root not in (None, known.root):
        raise Unauthorized from ValueError("the storage root key is not that of the enrollment")
    return Tpm(known.endorsement, known.root or given.root)


def _pair(key: bytes) -> SymmetricKeys:
    text = base64.b64encode(key).decode()
    return SymmetricKeys(text, text)


def self_signed(sha256: str) -> JsonObject:
    """Return the authentication of a device with a certificate (seen on the service).

    It is that of a certificate of its own, also if a CA signed it.
    """
    prints = {"primaryThumbprint": sha256.upper(), "secondaryThumbprint": None}
    return {"type": "selfSigned", "x509Thumbprint": prints}
