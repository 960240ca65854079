"""`env`: the environment variables of programs, of the hub that runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from emulator.cli import hubs
from emulator.cli.az.session import path
from emulator.cli.output import in_bytes, say
from emulator.cli.parser import Parser, named, named_path
from emulator.cli.shells import BY_NAME, parent_program, shell_in_use
from emulator.connection_strings import for_device
from emulator.errors import ClientError
from emulator.net import files

_DESCRIPTION = """\
Print the environment variables that a program needs for the hub that runs, as
lines of the shell in use: connection strings, and the file of certificates.

It finds the hub by the file that a running hub keeps in the data folder.
"""
_EPILOG = """\
examples:
  %(prog)s
      print them for this shell; eval "$(%(prog)s)" sets them
  %(prog)s -d cellar --file cellar.env --shell dotenv
      those of another device, in a file for docker run --env-file
  %(prog)s --shell cmd > hub.cmd && call hub.cmd
      set them in cmd, whose lines are those of a script
"""
_DEVICE, _DEVICE_ID = "IOTHUB_DEVICE_CONNECTION_STRING", "IOTHUB_DEVICE_ID"


def main(arguments: Sequence[str]) -> int:
    """Print the variables.

    Raises:
        ClientError: no hub runs, the device is unknown, or the file can't be written.
    """
    parser = Parser("env", _DESCRIPTION, _EPILOG)
    hubs.add_options(parser)
    parser.add_argument(
        *("-d", "--device-id"),
        metavar="ID",
        type=named,
        help="the device (default: the first of the hub)",
    )
    names = ", ".join(BY_NAME)
    parser.add_argument(
        "--shell", choices=BY_NAME, metavar="SHELL", help=f"{names} (default: that in use)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for a program")
    parser.add_argument(
        "--file", metavar="FILE", type=named_path, help="write a file, which is private"
    )
    options = parser.parse_known(arguments)
    if options.login:
        parser.error("--login has no use here: a connection string does not name all variables")
    if options.json and options.shell:
        parser.error("--json and --shell contradict each other")
    hub = hubs.running(options)
    variables = hub["environment"]
    device_id = options.device_id or variables[_DEVICE_ID]
    # Its keys can be others than at the start of the hub.
    device = hubs.client_of(hub).get(path("devices", device_id))
    key = (device["authentication"].get("symmetricKey") or {}).get("primaryKey")
    host = variables[_DEVICE].partition(";")[0].removeprefix("HostName=")
    variables |= {_DEVICE: for_device(host, device_id, key), _DEVICE_ID: device_id}
    if options.json:
        text = json.dumps(variables, indent=2)
    else:
        shell = BY_NAME.get(options.shell) or shell_in_use(os.environ, parent=parent_program())
        text = "\n".join(shell.script(variables))
    if options.file is None:
        say(text)
        return 0
    try:
        files.write_named(options.file, in_bytes(f"{text}\n"))
    except OSError as error:
        raise ClientError(f"Can't write {options.file}: {error.strerror or error}.") from None
    say(f"Wrote {len(variables)} variables to {options.file}.")
    return 0
