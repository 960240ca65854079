"""A self-signed certificate of a new identity, as files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from emulator.errors import ClientError
from emulator.net import files


def write(name: str, days: int, folder: Path) -> tuple[str, tuple[Path, Path]]:
    """Write `{name}-cert.pem` and `{name}-key.pem`, which only this user can read.

    Args:
        name: the id of the device or module.
        days: for how long the certificate is valid.
        folder: where the files go.

    Returns:
        the thumbprint, and the two files.

    Raises:
        ClientError: a file is there already, or can't be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    written = folder / f"{name}-cert.pem", folder / f"{name}-key.pem"
    for file, content in zip(written, (certificate.public_bytes(pem), private), strict=True):
        if file.exists():
            raise ClientError(f"{file} is there already. Use another --output-dir.")
        try:
            files.write(file, content, mode=files.PRIVATE)
        except OSError as error:
            raise ClientError(f"Can't write {file}: {error.strerror or error}.") from None
    return certificate.fingerprint(hashes.SHA1()).hex().upper(), written  # noqa: S303
