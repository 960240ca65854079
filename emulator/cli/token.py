"""`token`: a SAS token alone, for the header of a request."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.cli import hubs
from emulator.cli.az import tokens
from emulator.cli.az.session import Hub
from emulator.cli.output import say
from emulator.cli.parser import Parser

_DESCRIPTION = f"""\
Print a SAS token of the hub, a device or a module: what a request has in its
header Authorization, and a device over MQTT as its password.

{hubs.FINDING}"""
_EPILOG = """\
examples:
  %(prog)s -d kitchen
      that of a device
  curl --cacert "$(iothub-emulator ca)" \\
      -H "Authorization: $(iothub-emulator token)" \\
      "https://localhost:8443/devices?api-version=2021-04-12"
"""


def main(arguments: Sequence[str]) -> int:
    """Print a token.

    Raises:
        ClientError, UsageError
    """
    parser = Parser("token", _DESCRIPTION, _EPILOG)
    for option in tokens.OPTIONS:
        option.add_to(parser)
    hubs.add_options(parser)
    options = parser.parse_known(arguments)
    say(tokens.token(Hub(options), options))
    return 0
