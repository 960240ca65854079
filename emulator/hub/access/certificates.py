"""Client certificates: which one an identity may connect with.

IoT Hub docs: authenticate identities with X.509 certificates.
"""

from __future__ import annotations

from msgspec import Struct

from emulator.hub.core.errors import IotHubUnauthorizedAccess


class ClientCertificate(Struct, frozen=True):
    """The certificate that a client has shown in its TLS handshake.

    The client has its private key, and the present time is between its dates.

    Args:
        sha1: its SHA-1 thumbprint, in lower-case hexadecimal.
        sha256: its SHA-256 thumbprint, likewise.
        common_name: of its subject; None if that has none, or several.
        by_authority: whether a CA that is registered with the hub has signed it.
    """

    sha1: str
    sha256: str
    common_name: str | None
    by_authority: bool


def check_certificate(
    certificate: ClientCertificate | None,
    thumbprints: tuple[str | None, str | None] | None,
    *,
    name: str,
) -> None:
    """Let a client pass that has an identity's own certificate.

    Args:
        certificate: what the client has shown, None if nothing.
        thumbprints: the primary and the secondary one of the identity, SHA-1 or SHA-256; None if a
            registered CA is to vouch for it instead.
        name: what a CA-signed certificate must have as its common name: `device`, or
            `device/module` (IoT Hub docs: module twins). A thumbprint needs no name.

    Raises:
        IotHubUnauthorizedAccess: it must not pass. The text is always the service's own; the cause
            says why, for the log.
    """
    if certificate is None:
        reason = "the client has shown no certificate that is valid now"
    elif thumbprints is not None:
        known = {thumbprint.lower() for thumbprint in thumbprints if thumbprint}
        if known & {certificate.sha1, certificate.sha256}:
            return
        primary, secondary = thumbprints
        reason = (  # IoT Hub docs: error 401003
            "Thumbprint does not match configuration: Thumbprint: "
            f"SHA1Hash={certificate.sha1}, SHA2Hash={certificate.sha256}; Configuration: "
            f"PrimaryThumbprint={primary}, SecondaryThumbprint={secondary}"
        )
    elif not certificate.by_authority:
        reason = "no registered CA has signed the certificate"
    elif certificate.common_name != name:
        reason = f"the certificate's common name is {certificate.common_name!r}, not {name!r}"
    else:
        return
    raise IotHubUnauthorizedAccess from ValueError(reason)
