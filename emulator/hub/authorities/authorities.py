"""The CAs that are registered with the hub: those that services register, and those of its start.

The shapes are those of `Microsoft.Devices/IotHubs/certificates` in Azure Resource Manager.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cached_property

from msgspec.structs import replace

from emulator.hub.authorities.authority import Authority, check_name, key_of, new_etag
from emulator.hub.core import limits, members
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    GenericForbidden,
    GenericNotFound,
    PreconditionFailed,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Store

_FORM = members.Form("name", properties=members.Form("certificate", "isVerified"))
_PROOF = members.Form("certificate")
# As long as a code of the service (IoT Hub docs: prove possession of a CA certificate).
_CODE_BYTES = 24


class Authorities:
    """The registered CAs.

    Args:
        store: the store.
        clock: the clock of the hub; certificates are made with the machine's time.
        given: CAs of the start, DER, each with its name: they are verified, and stay.

    Attributes:
        trusted: the certificates of the verified CAs, DER; another tuple after each change.
    """

    def __init__(self, store: Store, clock: Clock, given: Sequence[tuple[str, bytes]] = ()) -> None:
        self._store = store
        self._clock = clock
        self._given = tuple(given)
        self.trusted: tuple[bytes, ...] = ()
        self._follow()

    def named(self, name: str, *, verified: bool = True) -> list[bytes]:
        """Return the CAs that an enrollment refers to, DER: the verified ones, or the others.

        A name is that of the registration, or the common name of the certificate: on a real service
        the owner chooses it with the upload, and a file of the start has no name of that kind.
        """
        wanted = name.lower()
        return [
            each.certificate
            for each in (*self._of_start, *self._store.scan(Authority))
            if each.verified is verified
            and wanted in (each.name.lower(), (each.common_name or "").lower())
        ]

    def documents(self) -> list[JsonObject]:
        """Return the documents of all CAs."""
        return [each.document() for each in (*self._of_start, *self._store.scan(Authority))]

    def get(self, name: str) -> JsonObject:
        """Return the document of a CA.

        Raises:
            GenericNotFound
        """
        for each in self._of_start:
            if each.key == key_of(name):
                return each.document()
        return self._stored(name).document()

    def has(self, name: str) -> bool:
        """Return whether a service has registered a CA with this name."""
        return self._store.get(Authority, key_of(name)) is not None

    def put(self, name: str, body: object, if_match: IfMatch) -> JsonObject:
        """Register a CA, or change it; return its document.

        Args:
            name: its name.
            body: `{"properties": {"certificate", "isVerified"}}`. A new certificate is not verified
                unless the body says so; the same one stays as it was.
            if_match: the condition on the etag.

        Raises:
            ArgumentInvalid, ArgumentNull: the certificate is missing or not that of a CA.
            GenericForbidden: the hub has its limit of CAs.
            PreconditionFailed: the etag is another one.
        """
        # Imported here, as below: a start must not wait for it.
        from emulator.hub.authorities import certificate

        check_name(name)
        self._check_writable(name)
        before = self._store.get(Authority, key_of(name))
        if not if_match.allows(before.etag if before else ""):
            raise PreconditionFailed
        properties = members.block(members.document(body, _FORM), "properties")
        text = members.text(properties, "certificate")
        if not text:
            raise ArgumentNull("properties.certificate is missing")
        parsed = certificate.parse(text)
        certificate.check_authority(parsed, self._clock.machine.now())
        authority = certificate.authority(name, parsed, self._clock.now())
        same = before is not None and before.certificate == authority.certificate
        if properties.get("isVerified") is not None:
            verified = members.flag(properties, "isVerified")
        else:
            verified = before is not None and same and before.verified
        self._check_new(authority, before)
        authority = replace(
            authority,
            verified=verified,
            created=before.created if before else authority.created,
            code=before.code if before and same else None,
        )
        return self._write(authority).document()

    def delete(self, name: str, if_match: IfMatch) -> None:
        """Remove a CA. Its devices stay connected until they end their connections, as on a hub.

        Raises:
            ArgumentInvalid, GenericNotFound, PreconditionFailed
        """
        self._check_writable(name)
        found = self._matching(name, if_match)
        self._store.commit(delete=((Authority, found.key),))
        self._follow()

    def generate_code(self, name: str, if_match: IfMatch) -> JsonObject:
        """Make a verification code, in place of an earlier one; return the document with it.

        Raises:
            ArgumentInvalid, GenericNotFound, PreconditionFailed
        """
        self._check_writable(name)
        code = secrets.token_hex(_CODE_BYTES).upper()
        found = replace(self._matching(name, if_match), code=code)
        return self._write(found).document(with_code=True)

    def verify(self, name: str, body: object, if_match: IfMatch) -> JsonObject:
        """Verify a CA by a proof that its owner has the key; return its document.

        Args:
            name: the name of the CA.
            body: `{"certificate"}`, a certificate with the verification code as its common name.
            if_match: the condition on the etag.

        Raises:
            ArgumentInvalid, ArgumentNull: the proof is wrong, or no code was generated.
            GenericNotFound, PreconditionFailed
        """
        from emulator.hub.authorities import certificate

        self._check_writable(name)
        found = self._matching(name, if_match)
        text = members.text(members.document(body, _PROOF), "certificate")
        if not text:
            raise ArgumentNull("certificate is missing")
        if found.code is None:
            raise ArgumentInvalid(
                f"The certificate {found.name} has no verification code. Generate one first"
            )
        now = self._clock.machine.now()
        own = certificate.load(found.certificate)
        certificate.check_proof(certificate.parse(text), own, found.code, now)
        return self._write(replace(found, verified=True, code=None)).document()

    def _matching(self, name: str, if_match: IfMatch) -> Authority:
        found = self._stored(name)
        if not if_match.allows(found.etag):
            raise PreconditionFailed
        return found

    def _stored(self, name: str) -> Authority:
        found = self._store.get(Authority, key_of(name))
        if found is None:
            raise GenericNotFound(f"The certificate {name} is unknown")
        return found

    def _check_writable(self, name: str) -> None:
        if any(key_of(each) == key_of(name) for each, _ in self._given):
            raise ArgumentInvalid(
                f"The certificate {name} is that of --client-ca. Restart the hub without it"
            )

    def _check_new(self, authority: Authority, before: Authority | None) -> None:
        """Check the number of CAs, and that no other one has the certificate."""
        others = [each for each in self._store.scan(Authority) if each.key != authority.key]
        if before is None and len(others) >= limits.AUTHORITIES:
            raise GenericForbidden(
                f"The hub has {limits.AUTHORITIES} certificates, its limit. Delete one first"
            )
        for each in others:
            if each.certificate == authority.certificate:
                raise ArgumentInvalid(f"The certificate is registered already, as {each.name}")

    def _write(self, authority: Authority) -> Authority:
        written = replace(authority, updated=self._clock.now(), etag=new_etag())
        self._store.commit(put=(written,))
        self._follow()
        return written

    def _follow(self) -> None:
        found = [each.certificate for each in self._store.scan(Authority) if each.verified]
        self.trusted = (*(each for _, each in self._given), *found)

    @cached_property
    def _of_start(self) -> Sequence[Authority]:
        """The CAs of the start: what is in their certificates is read for those that ask."""
        if not self._given:
            return ()
        from emulator.hub.authorities import certificate

        now = self._clock.now()
        found = (
            certificate.authority(name, certificate.load(der), now) for name, der in self._given
        )
        return [replace(each, verified=True) for each in found]
