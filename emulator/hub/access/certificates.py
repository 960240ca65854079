"""Client certificates (IoT Hub docs: authenticate identities with X.509 certificates)."""

from __future__ import annotations

from msgspec import Struct

from emulator.hub.core.errors import IotHubUnauthorizedAccess


class ClientCertificate(Struct, frozen=True):
    """The certificate that a client sent in its TLS handshake.

    The handshake has proved that the client has the private key. It has proved nothing else: any
    certificate can come here.

    Args:
        sha1: the SHA-1 thumbprint, in lower-case hexadecimal.
        sha256: the SHA-256 thumbprint, in lower-case hexadecimal.
        common_name: the common name of the subject; None if the subject has none or several.
        by_authority: whether a CA that is registered with the hub signed the certificate.
        in_date: whether the certificate is valid at this time.
    """

    sha1: str
    sha256: str
    common_name: str | None
    by_authority: bool
    in_date: bool = True


def check_certificate(
    certificate: ClientCertificate | None,
    thumbprints: tuple[str | None, str | None] | None,
    *,
    name: str,
) -> None:
    """Check the certificate of a client that connects as an identity.

    Args:
        certificate: the certificate of the client; None if it sent none.
        thumbprints: the primary and the secondary thumbprint of the identity, SHA-1 or SHA-256;
            None if a registered CA must have signed the certificate instead.
        name: the common name that a CA-signed certificate must have: `device`, or `device/module`
            (IoT Hub docs: module twins). A certificate with a known thumbprint needs no name.

    Raises:
        IotHubUnauthorizedAccess: the certificate is missing or wrong. The text is always the
            service's own; the cause has the reason, for the log.
    """
    if certificate is None:
        reason = "the client sent no certificate"
    elif not certificate.in_date:
        reason = "the client's certificate has expired, or is not valid yet"
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
        reason = "no registered CA that is verified has signed the certificate"
    elif certificate.common_name != name:
        reason = f"the certificate's common name is {certificate.common_name!r}, not {name!r}"
    else:
        return
    raise IotHubUnauthorizedAccess from ValueError(reason)
