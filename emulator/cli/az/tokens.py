"""`generate-sas-token`: a token of a hub, a device or a module."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.az import credentials, identities
from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub, path
from emulator.cli.parser import UsageError
from emulator.client import sas_token
from emulator.connection_strings import fields_of
from emulator.errors import ClientError


def generate(hub: Hub, options: argparse.Namespace) -> Any:
    """Return a token."""
    return {"sas": token(hub, options)}


def token(hub: Hub, options: argparse.Namespace) -> str:
    """Return the token that the options name.

    Raises:
        UsageError, ClientError
    """
    duration = options.duration
    if options.connection_string:
        return _of_connection_string(options.connection_string, duration)
    device_id, module_id = options.device_id, options.module_id
    if module_id and not device_id:
        raise UsageError("--module-id needs --device-id")
    if device_id:
        where = identities.where(options)
        key = credentials.key_of(hub.get(*where), options.key_type)
        return sas_token(hub.device_host + path(*where), key, duration)
    if options.key_type != "primary":
        raise UsageError("--key-type needs --device-id: a connection string has one key")
    if options.policy_name not in (None, hub.client.policy):
        raise UsageError(
            f"--policy-name {options.policy_name}: the connection string is that of "
            f"{hub.client.policy}. Use --login with another one"
        )
    return hub.client.token(duration)


def _of_connection_string(text: str, duration: int) -> str:
    fields = fields_of(text)
    try:
        host, key = fields["HostName"], fields["SharedAccessKey"]
        parts = ["devices", fields["DeviceId"]] if "DeviceId" in fields else []
        parts += ["modules", fields["ModuleId"]] if "ModuleId" in fields else []
        policy = None if parts else fields["SharedAccessKeyName"]
        return sas_token(host + path(*parts), key, duration, policy)
    except KeyError:
        raise UsageError(
            "Invalid --connection-string. Use that of a service, a device or a module"
        ) from None
    except ClientError as error:
        raise UsageError(f"--connection-string: {error}") from None


OPTIONS = (*(o.ANY_DEVICE, o.ANY_MODULE, o.KEY_TYPE, o.DURATION, o.POLICY, o.CONNECTION_STRING),)

COMMANDS: tuple[Command, ...] = (
    Command(
        "generate-sas-token",
        "make a SAS token of the hub, a device or a module",
        generate,
        OPTIONS,
        "-d kitchen --duration 600",
    ),
)
