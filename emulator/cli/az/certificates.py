"""`certificate`: the CAs that sign the certificates of devices.

On a real hub these are operations of Azure Resource Manager; only an emulator has them here.
"""

from __future__ import annotations

import argparse
import base64
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az import values
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub, precondition
from emulator.errors import ClientError

_WHERE = "_emulator", "certificates"


def create(hub: Hub, options: argparse.Namespace) -> Any:
    """Register a CA; return it."""
    if any(each["name"].lower() == options.name.lower() for each in _list(hub)):
        raise ClientError(f"The certificate {options.name!r} exists. Use certificate update.")
    return _put(hub, options)


def update(hub: Hub, options: argparse.Namespace) -> Any:
    """Replace the certificate of a CA; return it."""
    show(hub, options)
    return _put(hub, options)


def _put(hub: Hub, options: argparse.Namespace) -> Any:
    properties: dict[str, Any] = {"certificate": _text(options)}
    if options.verified is not None:
        properties["isVerified"] = options.verified
    headers = precondition(options.etag) if getattr(options, "etag", None) else None
    body = {"properties": properties}
    return hub.send("PUT", *_WHERE, options.name, body=body, headers=headers).json()


def list_certificates(hub: Hub, _: argparse.Namespace) -> Any:
    """Return all CAs."""
    return {"value": _list(hub)}


def _list(hub: Hub) -> Any:
    return hub.get(*_WHERE)["value"]


def show(hub: Hub, options: argparse.Namespace) -> Any:
    """Return a CA."""
    return hub.get(*_WHERE, options.name)


def delete(hub: Hub, options: argparse.Namespace) -> None:
    """Remove a CA."""
    hub.send("DELETE", *_WHERE, options.name, headers=precondition(options.etag))


def generate_code(hub: Hub, options: argparse.Namespace) -> Any:
    """Make a verification code; return the CA with it."""
    where = *_WHERE, options.name, "generateVerificationCode"
    return hub.send("POST", *where, headers=precondition(options.etag)).json()


def verify(hub: Hub, options: argparse.Namespace) -> Any:
    """Verify a CA by a proof of possession; return it."""
    where, body = (*_WHERE, options.name, "verify"), {"certificate": _text(options)}
    return hub.send("POST", *where, body=body, headers=precondition(options.etag)).json()


def _text(options: argparse.Namespace) -> str:
    return base64.b64encode(options.path).decode()


# Names and short forms are those of azure-cli 2.66 (source: command_modules/iot/_params.py).
_NAME = o.option("--name", "-n", required=True, help="the name of the CA")
_PATH = o.option(
    *("--path", "-p"),
    required=True,
    metavar="FILE",
    type=values.content_of,
    help="its certificate, PEM or DER",
)
_PROOF = _PATH.but(help="the proof that `ca verify` makes, PEM or DER")
_VERIFIED = o.switch("--verified", "-v", help="whether it is trusted without a proof")
_EXAMPLE = "-n factory"

COMMANDS: tuple[Command, ...] = (
    Command(
        "certificate create",
        "register a CA of devices",
        create,
        (_NAME, _PATH, _VERIFIED),
        f"{_EXAMPLE} -p factory-cert.pem --verified",
    ),
    Command(
        "certificate list",
        "list the registered CAs",
        list_certificates,
        (),
        '--query "value[].{name:name, verified:properties.isVerified}" -o table',
    ),
    Command("certificate show", "show a CA", show, (_NAME,), _EXAMPLE),
    Command(
        "certificate update",
        "change a CA",
        update,
        (_NAME, _PATH, _VERIFIED, o.ETAG),
        f"{_EXAMPLE} -p factory-cert.pem --verified",
    ),
    Command("certificate delete", "remove a CA", delete, (_NAME, o.ETAG), _EXAMPLE),
    Command(
        "certificate generate-verification-code",
        "make the code for a proof of possession",
        generate_code,
        (_NAME, o.ETAG),
        f"{_EXAMPLE} --query properties.verificationCode -o tsv",
    ),
    Command(
        "certificate verify",
        "verify a CA by a proof of possession",
        verify,
        (_NAME, _PROOF, o.ETAG),
        f"{_EXAMPLE} -p factory-proof.pem",
    ),
)
