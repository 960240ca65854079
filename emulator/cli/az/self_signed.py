"""A self-signed certificate of a new identity, as files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from emulator.cli import new_files
from emulator.net.authority import MAX_COMMON_NAME
from emulator.net.client_certificates import create_device


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
    # The hub knows it by its thumbprint, so its name can be cut.
    made = create_device(
        name[:MAX_COMMON_NAME], by=None, rsa_key=False, days=days, now=datetime.now(UTC)
    )
    certificate, key = folder / f"{name}-cert.pem", folder / f"{name}-key.pem"
    contents = {certificate: made.certificate_pem(), key: made.key_pem()}
    new_files.write(contents, advice="Use another --output-dir.")
    return made.thumbprint, (certificate, key)
