"""The TLS certificates: a local CA in a folder, and the server certificate that it signs.

The Azure SDKs speak TLS only, and check the host name. To be trusted by unmodified SDKs, `prepare`
keeps four files in a folder: the CA's key, the CA's certificate, the server's certificate with its
key, and the bundle for `SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE`.

The folder holds no record of the certificates. Instead each start makes a handshake in memory: in a
few milliseconds it shows whether key, chain, dates and names are right, without `cryptography`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import ssl
import sys
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import certifi
from msgspec import Struct

if TYPE_CHECKING:
    from emulator.net.authority import Authority

logger = logging.getLogger(__name__)

# The next start renews a certificate that has less than this left. An emulator that runs for longer
# can outlive its certificate.
RENEW_BEFORE = timedelta(days=30)
# A folder that is shared by one container after another collects their host names, and each
# handshake carries all of them. The newest names stay.
MAX_NAMES = 64
# To make all files takes about 0.3 s, most of it for the import of cryptography.
LOCK_WAIT = timedelta(seconds=10)

# X509_V_FLAG_NO_CHECK_TIME in OpenSSL's x509_vfy.h; the ssl module has no name for it.
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_BUNDLE_TITLE = b"# Written by local-iot-hub: its CA, the public roots and the system's own bundle."
_PRIVATE, _PUBLIC = 0o600, 0o644
# RFC 1123 section 2.1, and the underscore, which Docker Compose and Windows allow in host names.
_DNS_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MAX_DNS_NAME = 253  # RFC 1035 section 2.3.4, less the length octet and the root label


class CertificateError(Exception):
    """The certificates can't be used. The text is one line: what is wrong, and what to do."""


class Certificates(Struct, frozen=True):
    """Where the files are that TLS needs: all paths absolute."""

    ca: Path
    """Our CA's certificate alone, PEM."""
    bundle: Path
    """The public roots and our CA, PEM: for `SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE`."""
    server: Path
    """The server's certificate and its private key in one PEM file; only its owner can read it."""

    def server_context(self) -> ssl.SSLContext:
        """Return a new server-side context: TLS 1.2 and newer, the certificate loaded.

        Raises:
            CertificateError: the file can't be read any more.
        """
        try:
            return _server_context(self.server)
        except OSError as error:
            raise _unusable(self.server.parent, error) from error


def prepare(folder: Path, names: Collection[str], *, now: datetime | None = None) -> Certificates:
    """Make sure that a folder holds a server certificate for these names, and its CA.

    A file that is valid for another 30 days stays. A missing, damaged or ending file is made again.
    Names that the certificate had before stay in it, so two emulators on different addresses can
    share a folder. Several processes can call this at once.

    Args:
        folder: the folder of the files; it need not exist.
        names: DNS names and IP addresses, as clients dial them.
        now: an aware datetime; None is the present.

    Raises:
        CertificateError: a name is invalid, or the folder can't be used.
    """
    wanted = tuple(dict.fromkeys(_normal_name(name) for name in names))
    if not wanted:
        raise CertificateError("A server certificate needs at least one host name or IP address.")
    now = now or datetime.now(UTC)
    folder = folder.absolute()
    certificates = Certificates(folder / "ca.pem", folder / "ca-bundle.pem", folder / "server.pem")
    try:
        if not _is_current(certificates, wanted, now):
            # The modes of folder and files keep the keys private. Windows ignores them: there the
            # access list of the user's folder does that.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder):
                _renew(certificates, wanted, now)
    except OSError as error:
        raise _unusable(folder, error) from error
    return certificates


def local_names(host: str) -> tuple[str, ...]:
    """Return the names by which clients can reach an emulator that listens on `host`.

    A host that means all addresses (empty, 0.0.0.0, ::) adds no name. DNS is not asked.

    Raises:
        CertificateError: `host` is neither a host name nor an IP address.
    """
    names = ["localhost", "127.0.0.1", "::1"]
    machine = socket.gethostname()
    for name in (machine, machine.partition(".")[0]):
        # A machine's name can be one that no client can dial, such as "Ann's PC".
        with contextlib.suppress(CertificateError):
            names.append(_normal_name(name))
    if host and (name := _normal_name(host)) not in ("0.0.0.0", "::"):  # noqa: S104 (not bound)
        names.append(name)
    return tuple(dict.fromkeys(names))


def _normal_name(name: str) -> str:
    """Return the spelling of a name in a certificate.

    IPv6 addresses lose their brackets and their zone, which has a meaning on one machine only.
    """
    try:
        address = ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return _normal_dns_name(name)
    return str(IPv6Address(int(address)) if address.version == 6 else address)


def _normal_dns_name(name: str) -> str:
    try:
        # The codec that the ssl module uses for the name a client dials.
        text = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        text = ""
    text = text.lower().removesuffix(".")
    *_, top = labels = text.split(".")
    if (
        len(text) > _MAX_DNS_NAME
        or not all(_DNS_LABEL.fullmatch(label) for label in labels)
        # A mistyped IP address, such as 127.0.0.256. The id of a container can be all digits.
        or (len(labels) > 1 and top.isdigit())
    ):
        raise CertificateError(f"Invalid host {name!r}: use a host name or an IP address.")
    return text


# --- What is there ------------------------------------------------------------


class _State(Struct, frozen=True):
    """A server certificate that has passed every check, except those of dates and names."""

    names: tuple[str, ...] = ()  # empty: the certificate is missing, or a strict client refuses it
    start: datetime = datetime.max.replace(tzinfo=UTC)
    # Not later than the CA's end: see Authority.issue
    end: datetime = datetime.min.replace(tzinfo=UTC)

    def serves(self, names: Collection[str], now: datetime) -> bool:
        return self.start <= now and now + RENEW_BEFORE <= self.end and set(names) <= {*self.names}


def _is_current(certificates: Certificates, names: Collection[str], now: datetime) -> bool:
    serves = _inspect(certificates).serves(names, now)
    return serves and _holds(certificates.bundle, _bundle_content(certificates))


def _inspect(certificates: Certificates) -> _State:
    """Validate the server certificate as a strict client does; empty if such a client refuses it.

    Whatever is wrong, such as a missing file, the files are made again. An error of that shows what
    is wrong with the folder.
    """
    # The checks of Python 3.13, except for the dates: those are compared with `now`.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME
    client.check_hostname = False  # the names are compared as a set
    try:
        client.load_verify_locations(certificates.ca)
        leaf = _peer_certificate(_server_context(certificates.server), client)
    except OSError as error:
        logger.debug("no usable server certificate in %s: %s", certificates.server, error)
        return _State()
    names = (
        str(ip_address(name)) if kind == "IP Address" else name
        for kind, name in leaf.get("subjectAltName", ())
    )
    return _State(tuple(names), _date(leaf["notBefore"]), _date(leaf["notAfter"]))


def _peer_certificate(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Make a handshake in memory; return the verified certificate as `SSLSocket.getpeercert` does.

    Raises:
        OSError: an `ssl.SSLError`: the client refused the certificate.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server)
    # TLS 1.2 takes five turns, TLS 1.3 three.
    for side in (client_side, server_side, client_side, server_side, client_side):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return cast("dict[str, Any]", client_side.getpeercert())


def _server_context(server: Path) -> ssl.SSLContext:
    # Not ssl.create_default_context: since Python 3.13 that is stricter with client certificates
    # than IoT Hub is with a device's self-signed certificate.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # One ticket for the next connection. OpenSSL's two take 10 % of a handshake, for browsers.
    context.num_tickets = 1
    try:
        # Without a password OpenSSL would ask for one on the terminal if the key were encrypted.
        context.load_cert_chain(server, password="")
    except ssl.SSLError:
        # OpenSSL opens the file twice, for the certificate and for the key. Another emulator can
        # replace the file in between, but not twice in so short a time.
        context.load_cert_chain(server, password="")
    return context


def _date(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


# --- Making what is missing ---------------------------------------------------


def _renew(certificates: Certificates, names: tuple[str, ...], now: datetime) -> None:
    """Make invalid files again, unless another emulator has just done it."""
    if not _inspect(certificates).serves(names, now):
        _issue(certificates, names, now)
    _write_change(certificates.bundle, _bundle_content(certificates))


def _issue(certificates: Certificates, names: tuple[str, ...], now: datetime) -> None:
    authority = _authority(certificates, now)
    _write_change(certificates.ca, authority.certificate_pem())
    state = _inspect(certificates)
    if state.serves(names, now):
        return  # only ca.pem was damaged
    together = tuple(dict.fromkeys([*names, *state.names]))[: max(MAX_NAMES, len(names))]
    _write(certificates.server, authority.issue(together, now), mode=_PRIVATE)
    logger.info("Made %s for %s.", certificates.server, ", ".join(together))


def _authority(certificates: Certificates, now: datetime) -> Authority:
    """Return the CA in the folder, or a new one if that is invalid."""
    # Imported only here: that takes longer than all other work of this module at a usual start.
    from emulator.net.authority import Authority

    key_file = certificates.ca.with_name("ca-key.pem")
    try:
        authority = Authority.from_pem(key_file.read_bytes())
    except FileNotFoundError:
        trouble = "its key was missing"
    except ValueError as error:
        trouble = f"its key could not be read ({error})"
    else:
        certificate = authority.certificate
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if start <= now and now + RENEW_BEFORE <= end:
            return authority
        trouble = f"it is valid only from {start:%Y-%m-%d} to {end:%Y-%m-%d}"

    authority = Authority.create(socket.gethostname(), now)
    _write(key_file, authority.to_pem(), mode=_PRIVATE)
    if certificates.ca.exists():
        logger.warning(
            f"The local CA was made again, because {trouble}. Restart the programs that use "
            f"{certificates.bundle} or {certificates.ca}, and replace your copies of these files."
        )
    return authority


# --- The bundle -----------------------------------------------------------------


def _bundle_content(certificates: Certificates) -> bytes:
    """Return what the bundle must hold: our CA, the public roots, and the system's own bundle.

    A program whose `SSL_CERT_FILE` names the bundle trusts nothing else, so with our CA alone it
    could reach only this emulator.
    """
    # The file whose place SSL_CERT_FILE takes; an administrator may have added to it.
    system = Path(ssl.get_default_verify_paths().openssl_cafile)
    files = (certificates.ca, Path(certifi.where()), system)
    # By their text, so that each comes once: the system's bundle repeats most public roots.
    trusted = dict.fromkeys(text for file in files for text in _pem_certificates(file))
    return b"\n".join([_BUNDLE_TITLE, *trusted, b""])


def _pem_certificates(file: Path) -> list[bytes]:
    """Return the certificates in a file, each as its PEM text: no comments, no keys."""
    try:
        return _PEM_CERTIFICATE.findall(file.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        logger.warning("The certificates in %s are left out: %s.", file, error.strerror)
        return []


# --- Files --------------------------------------------------------------------


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _write_change(path: Path, content: bytes) -> None:
    if not _holds(path, content):
        _write(path, content, mode=_PUBLIC)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file by a new one, with the folder locked.

    A reader gets the whole old file or the whole new one. A private file is private from its first
    byte.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # left by a process that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(new, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        _replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _replace(new: Path, path: Path) -> None:
    # Windows refuses while another process has the file open, as a starting emulator does briefly.
    for pause in (0.01, 0.1, 1.0) if sys.platform == "win32" else ():
        try:
            new.replace(path)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    new.replace(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process and thread alone; the lock ends with its process."""
    # Imported only here: a usual start needs no lock.
    import filelock

    try:
        with filelock.FileLock(folder / ".lock", LOCK_WAIT.total_seconds(), _PRIVATE):
            yield
    except filelock.Timeout:
        raise CertificateError(
            f"Another process has locked the certificates in {folder}. "
            "End it, or choose another folder: --cert-dir DIR."
        ) from None


def _unusable(folder: Path, error: OSError) -> CertificateError:
    reason = error.strerror or str(error)
    return CertificateError(
        f"Can't keep certificates in {folder}: {reason}. Choose another folder: --cert-dir DIR."
    )
