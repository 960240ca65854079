"""`ca`: the local CA that programs must trust."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emulator.cli import hubs
from emulator.cli.output import say
from emulator.cli.parser import Parser
from emulator.errors import ClientError

_DESCRIPTION = """\
Print the path of the certificate of the local CA, which the programs of a hub
must trust, or the certificate itself.

It finds the hub by the file that a running hub keeps in the data folder.
"""
_EPILOG = """\
examples:
  %(prog)s
      the path, as for curl --cacert
  %(prog)s print > ca.pem
      the certificate, PEM
"""


def main(arguments: Sequence[str]) -> int:
    """Print the path of the CA, or its certificate.

    Raises:
        ClientError: no hub runs, or the file can't be read.
    """
    parser = Parser("ca", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "what", nargs="?", choices=("path", "print"), default="path", help="(default: path)"
    )
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
