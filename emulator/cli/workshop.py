"""`ca create`, `ca issue`, `ca verify`: CAs and certificates for tests, as files."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.cli import new_files
from emulator.cli.output import say
from emulator.cli.parser import Parser, named, named_path
from emulator.cli.shells import parent_program, shell_in_use
from emulator.errors import ClientError
from emulator.hub.core.errors import HubError
from emulator.hub.identities.identity import check_id
from emulator.program import program

if TYPE_CHECKING:
    from emulator.net.client_certificates import Credential

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")  # as the hub allows it for a CA
_CODE = re.compile(r"[A-Za-z0-9-]{1,64}")
_DEFAULT = "test-ca"
_CA_DAYS, _DEVICE_DAYS, _PROOF_DAYS = 3650, 365, 1
_MOST_DAYS = 36500

_CREATE = """\
Create a CA, root or intermediate, that signs the certificates of devices: the
files NAME-cert.pem and NAME-key.pem. It is for tests only: no password
protects the key, and no program of yours needs to trust it.
"""
_ISSUE = """\
Create the certificate of a device, for a hub or for provisioning: the files
DEVICE_ID-cert.pem, with the CAs above it except the root, and
DEVICE_ID-key.pem. It is for tests only: no password protects the key.
"""
_VERIFY = """\
Create the certificate that proves the possession of a CA's key to a hub, which
has made a verification code: the file NAME-proof.pem. It is for tests only.
"""
_CREATE_EPILOG = """\
examples:
  %(prog)s factory
      a root
  %(prog)s line-1 --signed-by factory
      an intermediate
"""
_ISSUE_EPILOG = """\
examples:
  %(prog)s kitchen --signed-by factory
      the certificate of the device kitchen
  %(prog)s kitchen --self-signed
      one without a CA, for a device that has its thumbprint
  %(prog)s kitchen --signed-by factory --days -1 --force
      one that has expired
"""
_VERIFY_EPILOG = """\
example:
  %(prog)s CODE --signed-by factory
      with the code that certificate generate-verification-code has shown
"""


def create(arguments: Sequence[str]) -> int:
    """Create a CA.

    Raises:
        ClientError: a file is missing, is there already, or can't be written.
    """
    parser = Parser("ca create", _CREATE, _CREATE_EPILOG)
    parser.add_argument(
        "name", metavar="NAME", nargs="?", default=_DEFAULT, help=_default(_DEFAULT)
    )
    _add_options(parser, _CA_DAYS, "the CA that signs it (default: none; it is a root)")
    options = parser.parse_known(arguments)
    if not _NAME.fullmatch(options.name):
        parser.error(f"Invalid name {options.name!r}: use up to 64 letters, digits and - . _")
    # Imported here: a wrong option needs no cryptography, which takes 50 to 200 ms.
    from emulator.net.client_certificates import create_authority

    name, folder = options.name, options.dir
    made = create_authority(
        name,
        by=_load(folder, options.signed_by) if options.signed_by else None,
        rsa_key=options.key == "rsa",
        days=options.days,
        now=datetime.now(UTC),
    )
    certificate, key, chain = (folder / f"{name}-{part}.pem" for part in ("cert", "key", "chain"))
    contents = {certificate: made.certificate_pem(), key: made.key_pem()}
    if made.chain:
        contents[chain] = made.chain_pem()
    _write(contents, options)
    kind = "an intermediate" if options.signed_by else "a root"
    say(
        f"Created {kind}, for tests only: {_shown(contents)}. Only you can read them.\n"
        "Register it at the hub that runs, which trusts it then:\n"
        f"  {program()} certificate create -n {name} -p {_word(certificate)} --verified\n"
        "Or at the start of a hub:\n"
        f"  {program()} --client-ca {_word(certificate)}\n"
        "Issue the certificate of a device:\n"
        f"  {program()} ca issue DEVICE_ID --signed-by {name}{_in(folder)}"
    )
    return 0


def issue(arguments: Sequence[str]) -> int:
    """Create the certificate of a device or module.

    Raises:
        ClientError: a file is missing, is there already, or can't be written.
    """
    parser = Parser("ca issue", _ISSUE, _ISSUE_EPILOG)
    parser.add_argument(
        "device", metavar="DEVICE_ID", type=named, help="the device, or its registration id"
    )
    parser.add_argument(
        *("-m", "--module-id"), metavar="ID", type=named, help="a module of the device"
    )
    parser.add_argument("--self-signed", action="store_true", help="without a CA")
    _add_options(parser, _DEVICE_DAYS, f"the CA that signs it {_default(_DEFAULT)}")
    options = parser.parse_known(arguments)
    if options.self_signed and options.signed_by:
        parser.error("--self-signed and --signed-by contradict each other")
    device, module = options.device, options.module_id
    name = f"{device}/{module}" if module else device
    try:
        for each in filter(None, (device, module)):
            check_id(each)
    except HubError as error:
        parser.error(error.text)
    from emulator.net.authority import MAX_COMMON_NAME
    from emulator.net.client_certificates import create_device

    if len(name) > MAX_COMMON_NAME:
        parser.error(
            f"{name!r} has {len(name)} characters. A certificate can name {MAX_COMMON_NAME} at most"
        )
    folder = options.dir
    made = create_device(
        name,
        by=None if options.self_signed else _load(folder, options.signed_by or _DEFAULT),
        rsa_key=options.key == "rsa",
        days=options.days,
        now=datetime.now(UTC),
    )
    # An id can have characters that names of files can't have everywhere.
    stem = re.sub(r"[^\w.-]", "_", name)
    certificate, key = (folder / f"{stem}-{part}.pem" for part in ("cert", "key"))
    contents = {certificate: made.certificate_pem() + made.chain_pem(), key: made.key_pem()}
    _write(contents, options)
    identity = (
        f"module-identity create -d {_word(device)} -m {_word(module)}"
        if module
        else (f"device-identity create -d {_word(device)}")
    )
    method = f"x509_thumbprint --ptp {made.thumbprint}" if options.self_signed else "x509_ca"
    lines = [
        f"Created a certificate, for tests only: {_shown(contents)}. Only you can read them.",
        f"Its SHA-256 thumbprint: {made.thumbprint}",
        "Register the identity:",
        f"  {program()} {identity} --am {method}",
        "In a program with azure-iot-device:",
        f"  X509({json.dumps(str(certificate))}, {json.dumps(str(key))})",
    ]
    if not module:
        lines += [
            "Or try it without a program:",
            f"  {program()} simulate -d {_word(device)} --cp {_word(certificate)} "
            f"--kp {_word(key)} --msg-count 1",
        ]
    say("\n".join(lines))
    return 0


def verify(arguments: Sequence[str]) -> int:
    """Create a proof of possession.

    Raises:
        ClientError: a file is missing, is there already, or can't be written.
    """
    parser = Parser("ca verify", _VERIFY, _VERIFY_EPILOG)
    parser.add_argument("code", metavar="CODE", help="the verification code of the hub")
    _add_options(parser, _PROOF_DAYS, f"the CA whose key is proved {_default(_DEFAULT)}")
    options = parser.parse_known(arguments)
    if not _CODE.fullmatch(options.code):
        parser.error(f"Invalid code {options.code!r}: use that of generate-verification-code")
    from emulator.net.client_certificates import create_device

    name = options.signed_by or _DEFAULT
    made = create_device(
        options.code,
        by=_load(options.dir, name),
        rsa_key=options.key == "rsa",
        days=options.days,
        now=datetime.now(UTC),
    )
    proof = options.dir / f"{name}-proof.pem"
    # A proof is of use once, and its own key is of no use.
    _write({proof: made.certificate_pem()}, options)
    say(
        f"Created a proof, for tests only: {proof}.\n"
        "Verify the CA with it at the hub that runs:\n"
        f"  {program()} certificate verify -n {name} -p {_word(proof)}"
    )
    return 0


def _add_options(parser: Parser, days: int, signed_by: str) -> None:
    parser.add_argument("--signed-by", metavar="NAME", type=named, help=signed_by)
    parser.add_argument(
        "--dir",
        metavar="DIR",
        type=named_path,
        default=Path(),
        help="of the files (default: this one)",
    )
    parser.add_argument(
        "--key", choices=("ec", "rsa"), default="ec", metavar="KIND", help="ec or rsa (default: ec)"
    )
    parser.add_argument(
        "--days",
        type=_days,
        default=days,
        metavar="NUMBER",
        help=f"its validity; a negative number makes one that has expired {_default(str(days))}",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def _days(text: str) -> int:
    try:
        days = int(text)
    except ValueError:
        days = 0
    if days == 0 or abs(days) > _MOST_DAYS:
        raise argparse.ArgumentTypeError(
            f"Invalid number {text!r}: use days, 1 to {_MOST_DAYS}, or -1 to -{_MOST_DAYS}"
        )
    return days


def _default(text: str) -> str:
    return f"(default: {text})"


def _load(folder: Path, name: str) -> Credential:
    """Return the CA in the files of `ca create`.

    Raises:
        ClientError
    """
    from emulator.net.client_certificates import Credential

    certificate, key, chain = (folder / f"{name}-{part}.pem" for part in ("cert", "key", "chain"))
    try:
        text = certificate.read_bytes() + (chain.read_bytes() if chain.is_file() else b"")
        found = Credential.from_pem(text, key.read_bytes())
    except FileNotFoundError as error:
        raise ClientError(
            f"No CA {name!r} here: {error.filename} is missing. Create it: "
            f"{program()} ca create {name}{_in(folder)}"
        ) from None
    except OSError as error:
        raise ClientError(f"Can't read {error.filename}: {error.strerror or error}.") from None
    except ValueError as error:
        raise ClientError(
            f"Can't use the CA {name!r} in {certificate} and {key}: {error}."
        ) from None
    if not found.is_authority:
        raise ClientError(f"{certificate} is not that of a CA. Use one of: {program()} ca create")
    return found


def _write(contents: Mapping[Path, bytes], options: argparse.Namespace) -> None:
    advice, folder = "Use --force to replace it, or another --dir.", options.dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClientError(f"Can't create {folder}: {error.strerror or error}.") from None
    new_files.write(contents, advice=advice, force=options.force)


def _shown(contents: Mapping[Path, bytes]) -> str:
    return ", ".join(map(str, contents))


def _word(text: str | Path) -> str:
    """Return a word of a command to copy, in quotes where the shell in use needs them."""
    word = str(text)
    if shlex.quote(word) == word:
        return word
    return shell_in_use(os.environ, parent=parent_program()).quote(word)


def _in(folder: Path) -> str:
    return "" if folder == Path() else f" --dir {_word(folder)}"
