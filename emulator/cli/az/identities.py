"""`device-identity` and `module-identity`: what the registry has."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emulator.cli.az import credentials, updates
from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub, precondition
from emulator.cli.parser import UsageError
from emulator.connection_strings import for_device
from emulator.errors import ClientError

DEVICE_COLUMNS = ("deviceId", "status", "connectionState", "lastActivityTime", "authenticationType")
_MODULE_COLUMNS = ("deviceId", "moduleId", "connectionState", "lastActivityTime")
_ALL = ["*"]
_VALID_DAYS = 365
_MOST_KEYS = 100  # how many keys one request renews, at most
# What a service writes; the rest of an identity belongs to the hub.
_WRITTEN = (
    *("deviceId", "moduleId", "managedBy", "status", "statusReason", "authentication"),
    *("capabilities", "deviceScope", "parentScopes"),
)


def where(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the path of a device or a module, in its parts."""
    module_id = getattr(options, "module_id", None)
    return "devices", options.device_id, *(("modules", module_id) if module_id else ())


def create_device(hub: Hub, options: argparse.Namespace) -> Any:
    """Register a device; return it."""
    document = {
        "deviceId": options.device_id,
        "status": options.status or "enabled",
        "statusReason": options.status_reason,
        "capabilities": {"iotEdge": bool(options.edge_enabled)},
    }
    if options.device_scope:
        # An edge device has a scope of its own.
        parent = {"parentScopes": [options.device_scope]}
        document |= parent if options.edge_enabled else {"deviceScope": options.device_scope}
    return _create(hub, options, document)


def create_module(hub: Hub, options: argparse.Namespace) -> Any:
    """Register a module; return it."""
    document = {"deviceId": options.device_id, "moduleId": options.module_id}
    return _create(hub, options, document)


def _create(hub: Hub, options: argparse.Namespace, document: dict[str, Any]) -> Any:
    """Register an identity, with a certificate of its own if the options say so."""
    written: Iterable[Path] = ()
    if options.output_dir:
        # Imported here: to import cryptography takes longer than the rest.
        from emulator.cli.az import self_signed

        name, days = where(options)[-1], options.valid_days or _VALID_DAYS
        options.primary_thumbprint, written = self_signed.write(name, days, options.output_dir)
    elif options.valid_days:
        raise UsageError("--valid-days needs --output-dir, for the certificate and its key")
    try:
        document["authentication"] = credentials.change({}, options)
        return hub.send("PUT", *where(options), body=document).json()
    except (ClientError, UsageError):
        for file in written:
            file.unlink()
        raise


def show(hub: Hub, options: argparse.Namespace) -> Any:
    """Return a device or a module."""
    return hub.get(*where(options))


def list_devices(hub: Hub, options: argparse.Namespace) -> Any:
    """Return the devices, as their twins."""
    edge = "select * from devices where capabilities.iotEdge = true"
    return hub.query(edge if options.edge_enabled else "select * from devices", options.top)


def list_modules(hub: Hub, options: argparse.Namespace) -> Any:
    """Return the modules of a device."""
    return hub.get(*where(options), "modules")[: options.top]


def update_device(hub: Hub, options: argparse.Namespace) -> Any:
    """Change a device; return it."""
    device = show(hub, options)
    if options.edge_enabled is not None:
        device["capabilities"]["iotEdge"] = options.edge_enabled
    for name, value in (("status", options.status), ("statusReason", options.status_reason)):
        if value is not None:
            device[name] = value
    return _update(hub, options, device)


def update_module(hub: Hub, options: argparse.Namespace) -> Any:
    """Change a module; return it."""
    return _update(hub, options, show(hub, options))


def _update(hub: Hub, options: argparse.Namespace, identity: dict[str, Any]) -> Any:
    credentials.change(identity["authentication"], options)
    updates.apply(identity, options.set, options.remove)
    return _put(hub, where(options), identity, options.etag)


def _put(hub: Hub, at: Iterable[str], identity: dict[str, Any], etag: str | None) -> Any:
    written = {name: identity[name] for name in _WRITTEN if name in identity}
    return hub.send("PUT", *at, body=written, headers=precondition(etag)).json()


def delete(hub: Hub, options: argparse.Namespace) -> None:
    """Delete a device or a module."""
    hub.send("DELETE", *where(options), headers=precondition(options.etag))


def show_connection_string(hub: Hub, options: argparse.Namespace) -> Any:
    """Return the connection string of a device or a module."""
    identity, module_id = show(hub, options), getattr(options, "module_id", None)
    has_key = identity["authentication"]["type"] == "sas"
    key = credentials.key_of(identity, options.key_type) if has_key else None
    string = for_device(hub.device_host, options.device_id, key, module_id)
    return {"connectionString": string}


def renew_device_keys(hub: Hub, options: argparse.Namespace) -> Any:
    """Give devices new keys; return the device, or what was done to each."""
    names = options.device_id
    if options.key_type == "swap":
        return _swap_keys(hub, ("devices",), names, options.etag)
    found = (
        hub.query("select deviceId, authenticationType from devices")
        if names == _ALL
        else [{"deviceId": name, "authenticationType": "sas"} for name in names]
    )
    items = [{"id": each["deviceId"]} for each in found if each["authenticationType"] == "sas"]
    if options.include_modules:
        items += [item for each in found for item in _modules_with_keys(hub, each["deviceId"])]
    result = _renew_keys(hub, items, options.key_type)
    is_one = len(names) == 1 and names != _ALL and not options.include_modules
    return hub.get("devices", names[0]) if is_one else result


def renew_module_keys(hub: Hub, options: argparse.Namespace) -> Any:
    """Give modules of a device new keys; return the module, or what was done to each."""
    device_id, names = options.device_id, options.module_id
    at = ("devices", device_id, "modules")
    if options.key_type == "swap":
        return _swap_keys(hub, at, names, options.etag)
    if names == _ALL:
        return _renew_keys(hub, _modules_with_keys(hub, device_id), options.key_type)
    items = [{"id": device_id, "moduleId": name} for name in names]
    result = _renew_keys(hub, items, options.key_type)
    return hub.get(*at, names[0]) if len(names) == 1 else result


def _modules_with_keys(hub: Hub, device_id: str) -> list[dict[str, str]]:
    return [
        {"id": device_id, "moduleId": module["moduleId"]}
        for module in hub.get("devices", device_id, "modules")
        if module["authentication"]["type"] == "sas"
    ]


def _renew_keys(hub: Hub, items: list[dict[str, str]], kind: str) -> dict[str, Any]:
    policy = kind if kind == "both" else f"{kind}Key"
    result: dict[str, Any] = {"policyKey": policy, "rotatedKeys": [], "errors": []}
    for start in range(0, len(items), _MOST_KEYS):
        body = {"policyKey": policy, "devices": items[start : start + _MOST_KEYS]}
        done = hub.send("POST", "devices", "keys", "regenerate", body=body).json()
        result["rotatedKeys"] += done["rotatedKeys"] or []
        result["errors"] += done["errors"] or []
    return result


def _swap_keys(hub: Hub, at: tuple[str, ...], names: list[str], etag: str | None) -> Any:
    if len(names) > 1 or names == _ALL:
        raise UsageError("--key-type swap takes one id")
    identity = hub.get(*at, names[0])
    primary, secondary = (credentials.key_of(identity, each) for each in ("primary", "secondary"))
    swapped = {"primaryKey": secondary, "secondaryKey": primary}
    identity["authentication"]["symmetricKey"] = swapped
    return _put(hub, (*at, names[0]), identity, etag)


_CREDENTIALS = (o.AUTH, *o.KEYS_AND_THUMBPRINTS)
_DEVICE = (o.EDGE, *_CREDENTIALS, o.STATUS, o.REASON)
_MODULE = (o.DEVICE, o.MODULE)
_MANY = {"nargs": "+", "action": "extend"}
_D, _M = "device-identity", "module-identity"
_DEVICE_EXAMPLE, _MODULE_EXAMPLE = "-d kitchen", "-d kitchen -m camera"


def _commands(
    kind: str, of: tuple[o.Option, ...], example: str, columns: tuple[str, ...]
) -> tuple[Command, ...]:
    """Return the commands that are the same for devices and for modules."""
    words, text = f"{kind}-identity", f"{example} -o tsv"
    return (
        Command(f"{words} show", f"show a {kind}", show, of, example, columns),
        Command(f"{words} delete", f"delete a {kind}", delete, (*of, o.ETAG), example),
        Command(
            f"{words} connection-string show",
            f"show the connection string of a {kind}",
            *(show_connection_string, (*of, o.KEY_TYPE), text),
            alone=True,
        ),
    )


COMMANDS: tuple[Command, ...] = (
    Command(
        f"{_D} create",
        "register a device",
        create_device,
        (o.DEVICE, *_DEVICE, *o.SELF_SIGNED, o.SCOPE),
        _DEVICE_EXAMPLE,
        DEVICE_COLUMNS,
    ),
    Command(
        *(f"{_D} list", "list devices", list_devices, (o.TOP, o.EDGE)),
        *("--top 10 -o table", DEVICE_COLUMNS),
    ),
    Command(
        f"{_D} update",
        "change a device",
        update_device,
        (o.DEVICE, *_DEVICE, *o.UPDATES, o.ETAG),
        f"{_DEVICE_EXAMPLE} --status disabled",
        DEVICE_COLUMNS,
    ),
    Command(
        f"{_D} renew-key",
        "give devices new keys; * is all devices",
        renew_device_keys,
        (o.DEVICE.but(**_MANY), o.RENEW_TYPE, o.MODULES, o.ETAG),
        f"{_DEVICE_EXAMPLE} --key-type primary",
    ),
    *_commands("device", (o.DEVICE,), _DEVICE_EXAMPLE, DEVICE_COLUMNS),
    Command(
        f"{_M} create",
        "register a module of a device",
        create_module,
        (*_MODULE, *_CREDENTIALS, *o.SELF_SIGNED),
        _MODULE_EXAMPLE,
        _MODULE_COLUMNS,
    ),
    Command(
        f"{_M} list",
        "list the modules of a device",
        list_modules,
        (o.DEVICE, o.TOP),
        "-d kitchen -o table",
        _MODULE_COLUMNS,
    ),
    Command(
        f"{_M} update",
        "change a module",
        update_module,
        (*_MODULE, *_CREDENTIALS, *o.UPDATES, o.ETAG),
        f"{_MODULE_EXAMPLE} --set managedBy=me",
        _MODULE_COLUMNS,
    ),
    Command(
        f"{_M} renew-key",
        "give modules new keys; * is all modules of the device",
        renew_module_keys,
        (o.DEVICE, o.MODULE.but(**_MANY), o.RENEW_TYPE, o.ETAG),
        f"{_MODULE_EXAMPLE} --key-type both",
    ),
    *_commands("module", _MODULE, _MODULE_EXAMPLE, _MODULE_COLUMNS),
)
