"""Devices without an SDK, for tests that need many of them, or some that misbehave."""

from __future__ import annotations

import ssl
from contextlib import ExitStack
from typing import Any

from tests.mqtt.raw import Wire, connect
from tests.support import API_VERSION, Device, fields_of, sas_token

METHODS = "$iothub/methods/POST/#"


def greeting(
    host: str,
    name: str,
    key: str,
    *,
    policy: str | None = None,
    lifetime: float = 3600,
    tail: str = "",
    **fields: Any,
) -> bytes:
    """Build the CONNECT of a device, or of a `device/module`; `tail` ends its user name."""
    resource = f"{host}/devices/{name.replace('/', '/modules/')}"
    token = sas_token(resource, key, policy=policy, lifetime=lifetime)
    return connect(name, f"{host}/{name}/?api-version={API_VERSION}{tail}", token, **fields)


def connect_device(connection_string: str, port: int, trust: ssl.SSLContext, *filters: str) -> Wire:
    """Connect as the device of a connection string, and subscribe to topic filters."""
    host = fields_of(connection_string)["HostName"]
    device = Device.of(connection_string)
    with ExitStack() as stack:
        wire = stack.enter_context(Wire((host, port), trust))
        wire.begin(greeting(host, device.id, device.key), *filters)
        stack.pop_all()
        return wire
