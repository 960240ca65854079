"""The hubs that run: how a command finds one.

A hub that starts writes a file into its data folder, which only its user can read, and removes it
at its end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

import msgspec

from emulator import connection_strings
from emulator.cli import setting_values
from emulator.cli.parser import Parser, UsageError, named, named_path
from emulator.connection_strings import PROVISIONING
from emulator.errors import ClientError, ConnectionStringError
from emulator.net import files
from emulator.program import program
from emulator.settings import table, user_folder

if TYPE_CHECKING:
    from emulator.client import Client
    from emulator.emulator import Emulator

# Where the SDKs' programs, and these commands, find their connection string.
_VARIABLE = "IOTHUB_CONNECTION_STRING"
_SUFFIX = ".hub.json"
# How long a port of this machine may take to accept.
_CONNECT_SECONDS = 1.0

PROVISIONING_VARIABLE = f"{PROVISIONING}CONNECTION_STRING"

# The second and the third are those of `az iot hub`.
HOST_NAMES = ("--host", "--hub-name", "-n")

FINDING = f"""\
It finds the hub by --login, or else by {_VARIABLE}, or else
by the file that a running hub keeps in the data folder. --host and --data-dir
choose such a file.
"""
FINDING_PROVISIONING = f"""\
It finds the service by --login, or else by
{PROVISIONING_VARIABLE}, or else by the file that a running hub
keeps in the data folder. --host and --data-dir choose such a file.
"""


class Announcement(TypedDict):
    """What the file of a running hub has."""

    pid: int
    host: str
    connectionString: str
    port: int
    ca: str
    environment: dict[str, str]
    settings: NotRequired[dict[str, list[str]]]


@contextlib.contextmanager
def announced(emulator: Emulator) -> Iterator[None]:
    """Keep the file by which commands find a hub, for this user alone, while the hub runs."""
    settings = emulator.settings
    folder, host = settings.data_dir or settings.cert_dir, settings.host_in_file_names
    if folder is None:
        yield
        return
    file = folder / f"{host}-{emulator.mqtt_port}{_SUFFIX}"
    document: Announcement = {
        "pid": os.getpid(),
        "host": emulator.settings.host,
        "connectionString": _own_connection_string(emulator),
        "port": emulator.https_port,
        "ca": str(emulator.ca_file),
        "environment": emulator.environment(settings.devices[0]),
        "settings": setting_values.of_hub(settings),
    }
    try:
        files.write(file, json.dumps(document).encode(), mode=files.PRIVATE)
    except OSError:
        yield  # commands can have --login
        return
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _own_connection_string(emulator: Emulator) -> str:
    """Return a service's connection string with a host that this machine can resolve.

    A `--name` can be a name that only other machines resolve, such as that of a container.
    """
    host = connection_strings.host_with_port(
        emulator.settings.own_host, emulator.https_port, default=443
    )
    _, _, policy_and_key = emulator.service_connection_string.partition(";")
    return f"HostName={host};{policy_and_key}"


def add_options(parser: Parser, names: Iterable[str] = HOST_NAMES) -> None:
    """Add the options that name a running hub.

    Args:
        parser: of the command.
        names: the names of the option for its host.
    """
    parser.add_argument(
        *("--login", "-l"),
        metavar="STRING",
        type=named,
        help="the connection string of a service of the hub",
    )
    parser.add_argument(
        *names, metavar="HOST", type=named, help="the host of a hub of this machine"
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", type=named_path, help="the data folder of the hub"
    )


def connect(options: argparse.Namespace) -> Client:
    """Return a client of the hub that the options of a command name.

    Raises:
        ClientError: no hub, or more than one, is named.
        UsageError: a connection string is malformed.
        StartError: the user has no folder.
    """
    return _connect(options, _VARIABLE, client_of)


def connect_provisioning(options: argparse.Namespace) -> Client:
    """Return a client of the Device Provisioning Service that the options of a command name.

    Raises:
        ClientError: no service, or more than one, is named.
        UsageError: a connection string is malformed.
        StartError: the user has no folder.
    """
    return _connect(options, PROVISIONING_VARIABLE, _provisioning_client_of)


def _connect(
    options: argparse.Namespace, variable: str, of_running: Callable[[Announcement], Client]
) -> Client:
    # Imported here: a hub that starts needs no client.
    from emulator.client import Client

    if given := _given(options, variable):
        ca, source = _folder(options) / "ca.pem", "--login" if options.login else variable
        try:
            return Client(given, trust=ca if ca.is_file() else None, source=source)
        except ConnectionStringError as error:
            raise UsageError(f"{source}: {error}") from None
    return of_running(running(options))


def _given(options: argparse.Namespace, variable: str) -> str | None:
    """Return the connection string of the option, or else of the variable; None without one."""
    is_chosen = options.host or options.data_dir
    return options.login or (None if is_chosen else os.environ.get(variable))


def announcement(options: argparse.Namespace) -> Announcement | None:
    """Return what the file of the hub has that the options name; None if it has no file here.

    Raises:
        ClientError: no hub runs, or several do.
        StartError: the user has no folder.
    """
    given = _given(options, _VARIABLE)
    if not given:
        return running(options)
    for each in _announced(_folder(options), None):
        if given in (each["connectionString"], each["environment"].get(_VARIABLE)):
            return each
    return None


def _provisioning_client_of(found: Announcement) -> Client:
    string = found["environment"].get(PROVISIONING_VARIABLE)
    if string is None:
        raise ClientError(
            f"The hub on {found['host']} has no Device Provisioning Service. Start it without "
            "--no-dps."
        )
    # The host of the hub's own connection string is one that this machine can resolve.
    host, _, _ = found["connectionString"].partition(";")
    return client_of({**found, "connectionString": f"{host};{string.partition(';')[2]}"})


def client_of(found: Announcement) -> Client:
    """Return a client of a hub, by what its file has.

    Raises:
        ClientError
    """
    # Imported here: a hub that starts needs no client.
    from emulator.client import Client

    ca = Path(found["ca"])
    return Client(found["connectionString"], trust=ca if ca.is_file() else None)


def running(options: argparse.Namespace) -> Announcement:
    """Return what the file of a running hub has.

    Raises:
        ClientError: no hub runs, or several do.
        StartError: the user has no folder.
    """
    found = _announced(_folder(options), options.host)
    if len(found) > 1:
        found = [each for each in found if _accepts(each)] or found[:1]
    if len(found) > 1:
        hosts = ", ".join(sorted(each["host"] for each in found))
        raise ClientError(f"Several hubs run: {hosts}. Choose one: --host HOST.")
    if not found:
        where = f" on {options.host}" if options.host else ""
        option = f" --host {options.host}" if options.host else ""
        raise ClientError(
            f"No hub runs here{where}. Start it: {program()}{option}. Or name another one: "
            "--login CONNECTION_STRING"
        )
    return found[0]


def _folder(options: argparse.Namespace) -> Path:
    """Return the data folder: of the option, of the variable, or of this user."""
    if options.data_dir:
        return Path(options.data_dir)
    variable = os.environ.get(table()["data_dir"].variable)
    return Path(variable) if variable else user_folder()


def _announced(folder: Path, host: str | None) -> list[Announcement]:
    """Return the hubs whose files are in a folder."""
    found = []
    for file in sorted(folder.glob(f"*{_SUFFIX}")):
        # A hub starts or ends just now, or another program wrote it.
        with contextlib.suppress(OSError, ValueError):
            # Not by msgspec alone: a path can have surrogates, which are bytes that are not UTF-8.
            document = msgspec.convert(json.loads(file.read_bytes()), Announcement)
            if host in (None, document["host"]):
                found.append(document)
    return found


def _accepts(document: Announcement) -> bool:
    """Return whether a hub runs yet: one that was killed leaves its file."""
    try:
        socket.create_connection((document["host"], document["port"]), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
