"""`ca`: the local CA that programs must trust; and CAs of devices for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from emulator.cli import hubs
from emulator.cli.output import say
from emulator.cli.parser import Parser
from emulator.errors import ClientError

_DESCRIPTION = """\
Print the path of the certificate of the local CA, which the programs of a hub
must trust, or the certificate itself.

It finds the hub by the file that a running hub keeps in the data folder.

create, issue and verify make other CAs, and certificates of devices, for
tests; each has --help.
"""
_EPILOG = """\
examples:
  %(prog)s
      the path, as for curl --cacert
  %(prog)s print > ca.pem
      the certificate, PEM
  %(prog)s create factory
      a CA for the certificates of devices, for tests only
  %(prog)s issue kitchen --signed-by factory
      the certificate of a device
  %(prog)s verify CODE --signed-by factory
      a proof that you have the key of the CA
"""
_PRINTED = ("path", "print")
_WORKSHOP = ("create", "issue", "verify")


def main(arguments: Sequence[str]) -> int:
    """Print the path of the CA, or its certificate; or make certificates for tests.

    Raises:
        ClientError: no hub runs, or a file can't be read or written.
    """
    if arguments and arguments[0] in _WORKSHOP:
        # Imported here: the CA of the hub needs none of it.
        from emulator.cli import workshop

        action: Callable[[Sequence[str]], int] = getattr(workshop, arguments[0])
        return action(arguments[1:])
    parser = Parser("ca", _DESCRIPTION, _EPILOG)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _PRINTED:
        words = ", ".join((*_PRINTED, *_WORKSHOP))
        parser.error(f"Unknown command 'ca {arguments[0]}'. Use {words}")
    parser.usage = f"{parser.prog} [path|print] [OPTIONS] | create|issue|verify"
    parser.add_argument("what", nargs="?", choices=_PRINTED, default="path", help="(default: path)")
    hubs.add_options(parser)
    options = parser.parse_known(arguments)
    if options.login:
        parser.error("--login has no use here: a connection string names no CA")
    file = Path(hubs.running(options)["ca"])
    try:
        text = file.read_text(encoding="ascii").rstrip()
    except OSError as error:
        raise ClientError(f"Can't read {file}: {error.strerror or error}.") from None
    say(text if options.what == "print" else str(file))
    return 0
