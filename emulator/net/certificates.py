"""The TLS certificates: a CA of this machine's own, kept in a folder, and what it signs.

The Azure SDKs speak nothing but TLS, and check the host name. So that they trust the emulator
unchanged, `prepare` keeps four files in a folder: the CA's key, the CA's certificate, the server's
certificate with its key, and the bundle that `SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE` name.

No record is kept beside the certificates themselves. Each start shakes hands with itself in memory:
within milliseconds that shows whether key, chain, dates and names are right, and without importing
`cryptography`.
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
import urllib.parse
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

# A certificate with less than this left is made again at the next start. An emulator that runs for
# longer can outlive its certificate.
RENEW_BEFORE = timedelta(days=30)
# A folder that one container after another uses collects their host names, and each handshake
# carries them all. Those that were wanted last stay.
MAX_NAMES = 64
# To make all files takes about 0.3 s, most of it for the import of cryptography.
LOCK_WAIT = timedelta(seconds=10)

# What a user may have pointed at a file of their own. requests reads CURL_CA_BUNDLE where
# REQUESTS_CA_BUNDLE is not set (requests, Session.merge_environment_settings).
TRUST_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# X509_V_FLAG_NO_CHECK_TIME in OpenSSL's x509_vfy.h; the ssl module has no name for it.
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_BUNDLE_TITLE = (
    b"# Written by local-iot-hub: its own CA, the public roots, and what was trusted here before."
)
# Begins a comment line in the bundle that names a user's own file, percent-encoded.
_BUNDLE_SOURCE = b"# Before: "
_PRIVATE, _PUBLIC = 0o600, 0o644
# RFC 1123 section 2.1, and the underscore, which Docker Compose and Windows allow in host names.
_DNS_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MAX_DNS_NAME = 253  # RFC 1035 section 2.3.4, less the length octet and the root label


class CertificateError(Exception):
    """No certificates can be had; the text is one line that says why, and what to do."""


class Certificates(Struct, frozen=True, kw_only=True):
    """Where the files are that TLS needs: all paths absolute."""

    ca: Path
    """Our CA's certificate alone, PEM."""
    bundle: Path
    """The public roots and our CA, PEM: for `SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE`."""
    server: Path
    """The server's certificate and its private key in one PEM file; only its owner can read it."""

    def server_context(self) -> ssl.SSLContext:
        """Return a new server-side context: TLS 1.2 and newer, the certificate loaded.

        CertificateError: the file can't be read any more.
        """
        try:
            return _server_context(self.server)
        except OSError as error:
            raise _unusable(self.server.parent, error) from error


def prepare(folder: Path, names: Collection[str], *, now: datetime | None = None) -> Certificates:
    """Make sure that `folder` holds a server certificate for `names` and a CA that signed it.

    What is there and good for another 30 days stays. What is missing, damaged or near its end is
    made again. Names that the certificate had before stay in it, so that two emulators on different
    addresses can share a folder. Several processes may call this at once.

    `names` are DNS names and IP addresses, as clients dial them. `now` is an aware datetime.

    CertificateError: a name is not one, or the folder can't be used.
    """
    wanted = tuple(dict.fromkeys(_normal_name(name) for name in names))
    if not wanted:
        raise CertificateError("a server certificate needs at least one host name or IP address")
    now = now or datetime.now(UTC)
    folder = folder.absolute()
    certificates = Certificates(
        ca=folder / "ca.pem", bundle=folder / "ca-bundle.pem", server=folder / "server.pem"
    )
    try:
        if not _is_current(certificates, wanted, now):
            # The modes of folder and files keep the keys private. They mean nothing on Windows, but
            # there the access list of the user's own folder lets nobody else in.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder):
                _renew(certificates, wanted, now)
    except OSError as error:
        raise _unusable(folder, error) from error
    return certificates


def default_folder() -> Path:
    """Return the user's own folder for certificates; it need not exist yet.

    CertificateError: the user has no home folder.
    """
    try:
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            base = Path(local) if local else Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        else:
            # XDG Base Directory Specification: a relative path is to be ignored.
            data_home = Path(os.environ.get("XDG_DATA_HOME", ""))
            base = data_home if data_home.is_absolute() else Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise CertificateError(
            "this user has no home folder to keep certificates in; choose a folder with --cert-dir"
        ) from error
    return base / "local-iot-hub"


def local_names(host: str) -> tuple[str, ...]:
    """Return the names by which clients can reach an emulator that listens on `host`.

    A `host` that stands for all addresses (empty, 0.0.0.0, ::) adds no name. DNS is not asked.

    CertificateError: `host` is neither a host name nor an IP address.
    """
    names = ["localhost", "127.0.0.1", "::1"]
    machine = socket.gethostname()
    for name in (machine, machine.partition(".")[0]):
        # A machine may bear a name that nobody can dial ("Ann's PC"): no reason not to start.
        with contextlib.suppress(CertificateError):
            names.append(_normal_name(name))
    if host:
        name = _normal_name(host)
        if name not in ("0.0.0.0", "::"):  # noqa: S104 (nothing is bound here)
            names.append(name)
    return tuple(dict.fromkeys(names))


def _normal_name(name: str) -> str:
    """Return the one spelling under which a certificate holds this name.

    IPv6 addresses lose their brackets and their zone: the zone means something on one machine only.
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
        # An IP address with a slip in it, such as 127.0.0.256. A container's id can be all digits.
        or (len(labels) > 1 and top.isdigit())
    ):
        raise CertificateError(
            f"{name!r} is neither a host name nor an IP address; a certificate needs one"
        )
    return text


# --- What is there ------------------------------------------------------------


class _State(Struct, frozen=True):
    """What a server certificate says that has passed every check but those of dates and names."""

    names: tuple[str, ...]
    start: datetime
    end: datetime  # no later than the CA's: Authority.issue sees to that

    def serves(self, names: Collection[str], now: datetime) -> bool:
        return self.start <= now and now + RENEW_BEFORE <= self.end and set(names) <= {*self.names}


def _is_current(certificates: Certificates, names: Collection[str], now: datetime) -> bool:
    state = _inspect(certificates)
    return (
        state is not None
        and state.serves(names, now)
        and _holds(certificates.bundle, _bundle_content(certificates))
    )


def _inspect(certificates: Certificates) -> _State | None:
    """Look at the server certificate as a strict client would; None if such a client refuses it.

    Whatever is wrong, missing files included, the answer is to make them again. If the folder does
    not let us, that says why.
    """
    # What Python 3.13 asks of a chain by default, but for the dates: those are compared with `now`.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME
    client.check_hostname = False  # the names are compared as a set
    try:
        client.load_verify_locations(certificates.ca)
        leaf = _peer_certificate(_server_context(certificates.server), client)
    except OSError as error:
        logger.debug("no usable server certificate in %s: %s", certificates.server, error)
        return None
    return _State(
        names=tuple(
            str(ip_address(name)) if kind == "IP Address" else name
            for kind, name in leaf.get("subjectAltName", ())
        ),
        start=_date(leaf["notBefore"]),
        end=_date(leaf["notAfter"]),
    )


def _peer_certificate(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Shake hands in memory; return the server certificate, verified, as `SSLSocket.getpeercert`.

    OSError (`ssl.SSLError`): the client refused it.
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
    # Not ssl.create_default_context: since Python 3.13 that asks more of client certificates than
    # IoT Hub does of a device's self-signed one.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # One for the next connection; OpenSSL's two are for browsers, and a tenth of a handshake.
    context.num_tickets = 1
    try:
        # Without a password OpenSSL would ask for one on the terminal if the key were encrypted.
        context.load_cert_chain(server, password="")
    except ssl.SSLError:
        # OpenSSL opens the file once for the certificate and once for the key. Another emulator may
        # have replaced it in between; it can't do so twice in this short time.
        context.load_cert_chain(server, password="")
    return context


def _date(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


# --- Making what is missing ---------------------------------------------------


def _renew(certificates: Certificates, names: tuple[str, ...], now: datetime) -> None:
    """Make again what is not good, after another look: another emulator may just have done it."""
    state = _inspect(certificates)
    if state is None or not state.serves(names, now):
        _issue(certificates, names, now)
    _write_change(certificates.bundle, _bundle_content(certificates))


def _issue(certificates: Certificates, names: tuple[str, ...], now: datetime) -> None:
    authority = _authority(certificates, now)
    _write_change(certificates.ca, authority.certificate_pem())
    state = _inspect(certificates)
    if state is not None and state.serves(names, now):
        return  # nothing but ca.pem was damaged
    former = state.names if state else ()
    together = tuple(dict.fromkeys([*names, *former]))[: max(MAX_NAMES, len(names))]
    _write(certificates.server, authority.issue(together, now), mode=_PRIVATE)
    logger.info("Made %s for %s.", certificates.server, ", ".join(together))


def _authority(certificates: Certificates, now: datetime) -> Authority:
    """Return the CA that the folder holds, or a new one if that is not good."""
    # Imported only here: that takes longer than all else that this module does at a usual start.
    from emulator.net.authority import Authority

    key_file = certificates.ca.with_name("ca-key.pem")
    try:
        authority = Authority.from_pem(key_file.read_bytes())
    except FileNotFoundError:
        trouble = "its key was missing"
    except ValueError as error:
        trouble = f"its key could not be read ({error})"
    else:
        if authority.start <= now and now + RENEW_BEFORE <= authority.end:
            return authority
        trouble = f"it is valid from {authority.start:%Y-%m-%d} to {authority.end:%Y-%m-%d} only"

    authority = Authority.create(socket.gethostname(), now)
    _write(key_file, authority.to_pem(), mode=_PRIVATE)
    if certificates.ca.exists():
        logger.warning(
            "The local CA was made again, because %s. Restart the programs that use %s or %s, "
            "and replace the copies that were made of them.",
            trouble,
            certificates.bundle,
            certificates.ca,
        )
    return authority


# --- The bundle -----------------------------------------------------------------


def _bundle_content(certificates: Certificates) -> bytes:
    """Return what the bundle ought to hold: our CA, and all that the user trusts without us.

    Whoever sets the two variables trusts nothing but this file: it must not cut them off from the
    rest of the world.
    """
    # By their text, so that none comes twice: a user's file often repeats the public roots.
    trusted = dict.fromkeys(
        [*_pem_certificates(certificates.ca), *_pem_certificates(Path(certifi.where()))]
    )
    # The file whose place SSL_CERT_FILE takes; an administrator may have added to it.
    system = Path(ssl.get_default_verify_paths().openssl_cafile)
    others = _other_bundles(certificates.bundle)
    # To load a hundred certificates takes longer than all else that a usual start does here.
    proven = set(_pem_certificates(certificates.bundle)) if certificates.bundle.exists() else set()
    for path in [*([system] if system.is_file() else []), *others]:
        found = _pem_certificates(path)
        new = [text for text in found if text not in proven]
        if not new or _can_be_loaded(new):
            trusted.update(dict.fromkeys(found))
        else:
            logger.warning("The certificates in %s are left out: OpenSSL can't read them.", path)
    comments = [_BUNDLE_TITLE, *(_BUNDLE_SOURCE + _quote(path) for path in others)]
    return b"\n".join([*comments, *trusted, b""])


def _other_bundles(bundle: Path) -> list[Path]:
    """Return the files and folders that the user's environment named before it named our bundle.

    Once a variable names our bundle, only the bundle itself still tells what stood there before.
    """
    named = [Path(os.environ[name]).absolute() for name in TRUST_VARIABLES if os.environ.get(name)]
    others = [path for path in named if not _is_same_file(path, bundle)]
    if len(others) < len(named) and bundle.exists():
        lines = bundle.read_bytes().splitlines()
        others += [_unquote(line) for line in lines if line.startswith(_BUNDLE_SOURCE)]
    return sorted(set(others))


def _pem_certificates(path: Path) -> list[bytes]:
    """Return the certificates in a file or folder, each as its PEM text: no comments, no keys."""
    try:
        # REQUESTS_CA_BUNDLE may name a folder. OpenSSL reads from it what is named by a hash.
        files = sorted(path.glob("*.[0-9]")) if path.is_dir() else [path]
        return [text for file in files for text in _PEM_CERTIFICATE.findall(file.read_bytes())]
    except OSError as error:
        logger.warning("The certificates in %s are left out: %s.", path, error.strerror)
        return []


def _can_be_loaded(certificates: list[bytes]) -> bool:
    """Tell whether OpenSSL can read these: one that it can't would spoil the whole bundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        for certificate in certificates:
            context.load_verify_locations(cadata=certificate.decode("ascii"))
    except ssl.SSLError:
        return False
    return True


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path == other or path.samefile(other)
    except OSError:  # one of them isn't there, or is out of reach
        return False


def _quote(path: Path) -> bytes:
    return urllib.parse.quote_from_bytes(os.fsencode(path)).encode("ascii")


def _unquote(line: bytes) -> Path:
    return Path(os.fsdecode(urllib.parse.unquote_to_bytes(line.removeprefix(_BUNDLE_SOURCE))))


# --- Files --------------------------------------------------------------------


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _write_change(path: Path, content: bytes) -> None:
    if not _holds(path, content):
        _write(path, content, mode=_PUBLIC)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Put a whole new file in place of the old one, with the folder locked.

    Whoever reads meanwhile gets one or the other. A private file is private from its first byte.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # left by a process that was killed
    descriptor = os.open(
        new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode
    )
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
    # Windows refuses while another process has the file open, as one that starts has for a moment.
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
    """Hold the folder for this process and thread alone.

    The system's own lock on a file: it ends with the process that holds it, however that ends.
    """
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, _PRIVATE)
    try:
        deadline = time.monotonic() + LOCK_WAIT.total_seconds()
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise CertificateError(
                    f"another process keeps the certificates in {folder} locked; "
                    "end it, or choose another folder with --cert-dir"
                )
            time.sleep(0.02)
        try:
            yield
        finally:
            _unlock(descriptor)
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _unusable(folder: Path, error: OSError) -> CertificateError:
    reason = error.strerror or str(error)
    return CertificateError(
        f"cannot keep certificates in {folder}: {reason}; choose another folder with --cert-dir"
    )
