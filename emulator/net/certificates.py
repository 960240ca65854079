"""The TLS certificates: a local CA in a folder, and the server certificates that it signs.

The Azure SDKs speak TLS only, and check the host name. To be trusted by unmodified SDKs, `prepare`
keeps five files in a folder: the CA's key, the CA's certificate, two certificates of the server
with their keys, and the bundle for `SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE`.

The server has an RSA certificate, as a real hub has: small TLS libraries know RSA alone. Beside it
stands an elliptic-curve certificate, which OpenSSL shows to every client that knows both, because
it costs the server 0.2 ms less in each handshake.

The folder holds no record of the certificates. Instead each start makes two handshakes in memory:
in a few milliseconds they show whether keys, chain, dates and names are right, without
`cryptography`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import certifi
from msgspec import Struct

from emulator.net import files

if TYPE_CHECKING:
    from emulator.net.authority import Authority

logger = logging.getLogger(__name__)

# The next start renews a certificate that has less than this left. An emulator that runs for longer
# can outlive its certificate.
RENEW_BEFORE = timedelta(days=30)
# A folder that is shared by one container after another collects their host names, and each
# handshake carries all of them. The newest names stay.
MAX_NAMES = 64
# To make all files takes about 0.5 s, most of it for RSA keys and the import of cryptography.
LOCK_WAIT = timedelta(seconds=10)

# X509_V_FLAGNO_CHECK_TIME in OpenSSL's x509_vfy.h; the ssl module has no name for it.
NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_BUNDLE_TITLE = b"# Written by local-iot-hub: its CA, the public roots and the system's own bundle."
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
    server_rsa: Path
    """The same with an RSA key."""

    @classmethod
    def of(cls, folder: Path) -> Certificates:
        """Return the paths in a folder."""
        names = ("ca.pem", "ca-bundle.pem", "server.pem", "server-rsa.pem")
        return cls(*(folder / name for name in names))

    @property
    def ca_key(self) -> Path:
        """The CA's certificate and its private key; only its owner can read it."""
        return self.ca.with_name("ca-key.pem")

    @property
    def of_server(self) -> tuple[Path, Path]:
        """Both files of the server."""
        return self.server, self.server_rsa

    def server_context(self) -> ssl.SSLContext:
        """Return a new server-side context: TLS 1.2 and newer, both certificates loaded.

        Raises:
            CertificateError: the file can't be read any more.
        """
        try:
            return _server_context(*self.of_server)
        except OSError as error:
            raise _unusable(self.server.parent, error) from error


def prepare(
    folder: Path,
    names: Collection[str],
    *,
    extra: Collection[str] = (),
    now: datetime | None = None,
) -> Certificates:
    """Make sure that a folder holds server certificates for these names, and their CA.

    A file that is valid for another 30 days stays. A missing, damaged or ending file is made again.
    Names that the certificate had before stay in it, so two emulators on different addresses can
    share a folder. A name outside the CA's name constraints makes a new CA. A file with a key that
    other users can read becomes private. Several processes can call this at once.

    Args:
        folder: the folder of the files; it need not exist.
        names: DNS names and IP addresses, as clients dial them.
        extra: names that a new certificate also has, where the CA permits them.
        now: an aware datetime; None is the present.

    Raises:
        CertificateError: a name is invalid, or the folder can't be used.
    """
    wanted = tuple(dict.fromkeys(_normal_name(name) for name in names))
    if not wanted:
        raise CertificateError("A server certificate needs at least one host name or IP address.")
    now = now or datetime.now(UTC)
    folder = folder.absolute()
    certificates = Certificates.of(folder)
    try:
        for file in (certificates.ca_key, *certificates.of_server):
            files.make_private(file)
        if not _is_current(certificates, wanted, now):
            # The modes of folder and files keep the keys private. Windows ignores them: there the
            # access list of the user's folder does that.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder):
                _renew(certificates, wanted, [_normal_name(name) for name in extra], now)
    except OSError as error:
        raise _unusable(folder, error) from error
    return certificates


def local_names(host: str, names: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names by which clients reach an emulator that listens on `host`.

    A host that means all addresses (empty, 0.0.0.0, ::) adds no name of its own. Without other
    names, clients then use the name of this machine. DNS is not asked.

    Args:
        host: the address or name to listen on.
        names: other names of the emulator.

    Raises:
        CertificateError: a name is neither a host name nor an IP address.
    """
    found = ["localhost", "127.0.0.1", "::1"]
    if host and (name := _normal_name(host)) not in ("0.0.0.0", "::"):  # noqa: S104 (not bound)
        found.append(name)
    elif not names:
        found += machine_names()
    return tuple(dict.fromkeys([*found, *map(_normal_name, names)]))


def machine_names() -> tuple[str, ...]:
    """Return the names of this machine; none if no client can dial it, as with "Ann's PC"."""
    machine = socket.gethostname()
    names = []
    for name in (machine, machine.partition(".")[0]):
        with contextlib.suppress(CertificateError):
            names.append(_normal_name(name))
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
    serves = all(state.serves(names, now) for state in _inspect(certificates))
    return serves and files.holds(certificates.bundle, _bundle_content(certificates))


def _inspect(certificates: Certificates) -> list[_State]:
    """Validate both server certificates as a strict client does; see `_inspect_one`."""
    return [_inspect_one(certificates.ca, server) for server in certificates.of_server]


def _inspect_one(ca: Path, server: Path) -> _State:
    """Validate a server certificate as a strict client does; empty if such a client refuses it.

    Whatever is wrong, such as a missing file, the files are made again. An error of that shows what
    is wrong with the folder.
    """
    # The checks of Python 3.13, except for the dates: those are compared with `now`.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT | NO_CHECK_TIME
    client.check_hostname = False  # the names are compared as a set
    try:
        client.load_verify_locations(ca)
        leaf = _peer_certificate(_server_context(server), client)
    except OSError as error:
        logger.debug("no usable server certificate in %s: %s", server, error)
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


def _server_context(*chains: Path) -> ssl.SSLContext:
    # Not ssl.create_default_context: since Python 3.13 that is stricter with client certificates
    # than IoT Hub is with a device's self-signed certificate.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # One ticket for the next connection. OpenSSL's two take 10 % of a handshake, for browsers.
    context.num_tickets = 1
    for file in chains:  # OpenSSL keeps one certificate of each kind of key
        try:
            # Without a password OpenSSL would ask for one on the terminal if the key were encrypted
            context.load_cert_chain(file, password="")
        except ssl.SSLError:
            # OpenSSL opens the file twice, for the certificate and for the key. Another emulator
            # can replace the file in between, but not twice in so short a time.
            context.load_cert_chain(file, password="")
    return context


def _date(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


# --- Making what is missing ---------------------------------------------------


def _renew(
    certificates: Certificates, names: tuple[str, ...], extra: Collection[str], now: datetime
) -> None:
    """Make invalid files again, unless another emulator has just done it."""
    states = _inspect(certificates)
    if not all(state.serves(names, now) for state in states):
        _issue(certificates, states, names, extra, now)
    files.write_change(certificates.bundle, _bundle_content(certificates))


def _issue(
    certificates: Certificates,
    states: Sequence[_State],
    names: tuple[str, ...],
    extra: Collection[str],
    now: datetime,
) -> None:
    from emulator.net.authority import rsa_key_of

    before = [name for state in states for name in state.names]
    authority = _authority(certificates, names, [*names, *extra, *before], now)
    files.write_change(certificates.ca, authority.certificate_pem())
    states = _inspect(certificates)  # again: ca.pem may have been the damaged file
    before += [name for state in states for name in state.names]
    possible = dict.fromkeys([*names, *filter(authority.permits, [*extra, *before])])
    together = tuple(possible)[: max(MAX_NAMES, len(names))]
    for server, state in zip(certificates.of_server, states, strict=True):
        if not state.serves(names, now):
            # An RSA key takes 30 to 250 ms: it is made once, and stays.
            is_rsa = server == certificates.server_rsa
            key = rsa_key_of(server.read_bytes() if server.exists() else b"") if is_rsa else None
            files.write(server, authority.issue(together, now, key), mode=files.PRIVATE)
            logger.info("Made %s for %s.", server, ", ".join(together))


def _authority(
    certificates: Certificates, names: Collection[str], known: Collection[str], now: datetime
) -> Authority:
    """Return the CA in the folder, or a new one if that is invalid or cannot sign for the names.

    Args:
        certificates: where the files are.
        names: the names that it must sign for.
        known: the names that a new CA can sign for.
        now: an aware datetime.
    """
    # Imported only here: that takes longer than all other work of this module at a usual start.
    from emulator.net.authority import Authority

    key_file = certificates.ca_key
    try:
        authority = Authority.from_pem(key_file.read_bytes())
    except FileNotFoundError:
        trouble = "its key was missing"
    except ValueError as error:
        trouble = f"its key could not be used ({error})"
    else:
        certificate = authority.certificate
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        outside = [name for name in names if not authority.permits(name)]
        if not start <= now or not now + RENEW_BEFORE <= end:
            trouble = f"it is valid only from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
        elif outside:
            trouble = f"it cannot sign for {', '.join(outside)}"
        else:
            return authority

    permitted = tuple(dict.fromkeys(known))[: max(MAX_NAMES, len(names))]
    authority = Authority.create(socket.gethostname(), permitted, now)
    files.write(key_file, authority.to_pem(), mode=files.PRIVATE)
    if certificates.ca.exists():
        logger.warning(
            f"The local CA was made again, because {trouble}. Restart the other hubs that use "
            f"{key_file.parent}. In each console where SSL_CERT_FILE, REQUESTS_CA_BUNDLE or "
            f"NODE_EXTRA_CA_CERTS names {certificates.bundle} or {certificates.ca}, restart your "
            f"programs. Replace your copies of these files, also in trust stores."
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
    sources = (certificates.ca, Path(certifi.where()), system)
    # By their text, so that each comes once: the system's bundle repeats most public roots.
    trusted = dict.fromkeys(text for file in sources for text in _pem_certificates(file))
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


# --- The folder -----------------------------------------------------------------


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process and thread alone; the lock ends with its process."""
    # Imported only here: a usual start needs no lock.
    import filelock

    try:
        with filelock.FileLock(folder / ".lock", LOCK_WAIT.total_seconds(), files.PRIVATE):
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
