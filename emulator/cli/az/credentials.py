"""How an identity authenticates: keys, thumbprints of certificates, or a CA."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.parser import UsageError
from emulator.errors import ClientError

_KEYS, _THUMBPRINT, _CA = "shared_private_key", "x509_thumbprint", "x509_ca"
# The values of --auth-method, as the service names them.
_TYPES = {_KEYS: "sas", _THUMBPRINT: "selfSigned", _CA: "certificateAuthority"}
# The members of an identity, with the method that has them, and their options.
_MEMBERS = {
    "symmetricKey": (_KEYS, "primary_key", "secondary_key"),
    "x509Thumbprint": (_THUMBPRINT, "primary_thumbprint", "secondary_thumbprint"),
}


def change(document: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Change how an identity authenticates, as the options say.

    Args:
        document: its `authentication`, which is changed; empty for a new identity.
        options: the options of the command.

    Returns:
        the document.

    Raises:
        UsageError: the options contradict each other, or one is missing.
    """
    is_new = not document
    if options.auth_method or is_new:
        document["type"] = _TYPES[options.auth_method or _KEYS]
    for member, (method, *names) in _MEMBERS.items():
        given = {name: getattr(options, name) for name in names if getattr(options, name)}
        flags = " and ".join("--" + name.replace("_", "-") for name in names)
        if given and document["type"] != _TYPES[method]:
            raise UsageError(f"{flags} do not fit. They need --auth-method {method}")
        if is_new and method == _KEYS and len(given) == 1:
            raise UsageError(f"{flags} belong together")
        if given:
            present = {_camel(name): value for name, value in given.items()}
            document[member] = {**(document.get(member) or {}), **present}
    if is_new and options.auth_method == _THUMBPRINT and not options.primary_thumbprint:
        raise UsageError(f"--primary-thumbprint is missing. {_THUMBPRINT} needs it")
    return document


def key_of(identity: dict[str, Any], kind: str = "primary") -> str:
    """Return a key of an identity.

    Args:
        identity: its document.
        kind: primary or secondary.

    Raises:
        ClientError: it authenticates in another way.
    """
    document = identity["authentication"]
    if document["type"] != "sas":
        name = "/".join(filter(None, [identity["deviceId"], identity.get("moduleId")]))
        raise ClientError(f"{name!r} has no key: it authenticates by {document['type']}.")
    return str(document["symmetricKey"][f"{kind}Key"])


def _camel(name: str) -> str:
    head, _, tail = name.partition("_")
    return head + tail.capitalize()
