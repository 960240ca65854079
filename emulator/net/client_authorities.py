"""The files of `--client-ca`: CAs that are registered at the start of a hub."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from pathlib import Path

from emulator.hub.core import limits
from emulator.net import files
from emulator.net.certificates import CertificateError

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


def read(files: Iterable[Path]) -> list[tuple[str, bytes]]:
    """Return the CAs in PEM files, DER, each with the name of its file without its ending.

    The second one in a file is called `name-2`, and so on. OpenSSL checks them, because to import
    `cryptography` takes longer than the rest of a start.

    Raises:
        CertificateError: a file can't be read, or has a certificate that is not a CA's.
    """
    return [
        (file.stem if number == 1 else f"{file.stem}-{number}", der)
        for file in files
        for number, der in enumerate(_read(file), 1)
    ]


def _read(file: Path) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        content = files.read_named(file, limits.CERTIFICATES_FILE_BYTES)
        context.load_verify_locations(file)
    except OSError as error:
        raise CertificateError(
            f"Can't use {file} for --client-ca: {error.strerror or error}. Use a PEM file."
        ) from error
    found = _CERTIFICATE.findall(content.decode(errors="replace"))
    count = context.cert_store_stats()
    if len(found) < count["x509"]:  # OpenSSL knows more forms
        raise CertificateError(
            f"Can't use {file} for --client-ca: it has a certificate in a rare form. Use PEM with "
            "BEGIN CERTIFICATE."
        )
    if count["x509"] != count["x509_ca"]:
        raise CertificateError(
            f"Can't use {file} for --client-ca: it has a certificate that is not a CA's."
        )
    return [ssl.PEM_cert_to_DER_cert(each) for each in found]
