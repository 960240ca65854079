"""The texts with which a program reaches a hub: connection strings and environment variables."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

_PROXIES = ("https_proxy", "all_proxy")
# How the variables of the Device Provisioning Service begin (samples of the SDKs).
PROVISIONING = "PROVISIONING_"
_NO_PROXY = ("NO_PROXY", "no_proxy")


def host_with_port(host: str, port: int, *, default: int | None = None) -> str:
    """Write a host and its port as a URL does; the default port is left out."""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port == default else f"{bracketed}:{port}"


def fields_of(connection_string: str) -> dict[str, str]:
    """Return the fields of a connection string, by their names."""
    return dict(part.split("=", 1) for part in connection_string.split(";") if "=" in part)


def sign(resource: str, key: bytes, expiry: int, policy: str | None = None) -> str:
    """Write a SAS token (IoT Hub docs: control access with SAS).

    Args:
        resource: the host of the hub, with the path of a device or a module if it is theirs.
        key: the decoded key.
        expiry: when the token expires, in seconds since 1970.
        policy: the policy that has the key; None for the key of a device or a module.
    """
    audience = quote(resource, safe="")
    digest = hmac.digest(key, f"{audience}\n{expiry}".encode(), hashlib.sha256)
    signature = quote(base64.b64encode(digest), safe="")
    of = f"&skn={quote(policy, safe='')}" if policy else ""
    return f"SharedAccessSignature sr={audience}&sig={signature}&se={expiry}{of}"


def for_service(host: str, policy: str, key: str) -> str:
    """Write a service's connection string.

    Args:
        host: with a port, unless that is 443. The service SDK takes one there; device SDKs don't.
        policy: the shared access policy whose rights the service has.
        key: one of the policy's keys.
    """
    return f"HostName={host};SharedAccessKeyName={policy};SharedAccessKey={key}"


def for_event_hubs(host: str, policy: str, key: str, *, entity: str, plain: bool) -> str:
    """Write a connection string for clients of Event Hubs.

    Args:
        host: with a port, unless that is the default one. azure-eventhub takes a port only where
            `plain` is set.
        policy: the shared access policy.
        key: one of the policy's keys.
        entity: the Event Hubs-compatible name.
        plain: without TLS, as Microsoft's own Event Hubs emulator: then a client needs no
            certificate.
    """
    mode = "UseDevelopmentEmulator=true;" if plain else ""
    return (
        f"Endpoint=sb://{host};SharedAccessKeyName={policy};SharedAccessKey={key};"
        f"{mode}EntityPath={entity}"
    )


def for_device(host: str, device_id: str, key: str | None, module_id: str | None = None) -> str:
    """Write the connection string of a device or module; without a key it has a certificate."""
    module = f"ModuleId={module_id};" if module_id else ""
    proof = f"SharedAccessKey={key}" if key else "x509=true"
    return f"HostName={host};DeviceId={device_id};{module}{proof}"


def _without_proxy(host: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep the way to a host free of the proxy of the environment.

    Both spellings, because programs differ in which one they read first.
    """
    if not any(environ.get(each) or environ.get(each.upper()) for each in _PROXIES):
        return {}
    hosts = [each for name in _NO_PROXY for each in environ.get(name, "").split(",")]
    hosts = list(dict.fromkeys(each.strip() for each in (*hosts, host) if each.strip()))
    if "*" in hosts:
        return {}  # no host has a proxy; `*` counts only where it stands alone
    return dict.fromkeys(_NO_PROXY, ",".join(hosts))


def environment(
    *,
    bundle: Path,
    host: str,
    service: str,
    event_hubs: str,
    dps: tuple[str, str] | None,
    device: tuple[str, str] | None,
) -> dict[str, str]:
    """Return the environment variables that the SDKs and the tutorial's scripts read.

    Args:
        bundle: the certificates to trust, PEM.
        host: the hub's host, for programs on a machine with a proxy.
        service: the service's connection string.
        event_hubs: the connection string for clients of Event Hubs.
        dps: the id scope of the Device Provisioning Service and its connection string; None leaves
            them out.
        device: the id of the device that the service's script calls, and its connection string;
            None leaves them out.
    """
    id_scope, provisioning = dps or (None, None)
    device_id, string = device or (None, None)
    variables = {
        "SSL_CERT_FILE": str(bundle),
        "REQUESTS_CA_BUNDLE": str(bundle),
        "NODE_EXTRA_CA_CERTS": str(bundle),
        **_without_proxy(host, os.environ),
        "IOTHUB_DEVICE_CONNECTION_STRING": string,
        "IOTHUB_CONNECTION_STRING": service,
        "EVENTHUB_CONNECTION_STRING": event_hubs,
        "IOTHUB_DEVICE_ID": device_id,
        f"{PROVISIONING}HOST": host if dps else None,
        f"{PROVISIONING}IDSCOPE": id_scope,
        f"{PROVISIONING}CONNECTION_STRING": provisioning,
    }
    return {name: value for name, value in variables.items() if value is not None}
