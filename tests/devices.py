"""Devices without an SDK, for tests that need many of them, or some that misbehave."""

from __future__ import annotations

import ssl
from contextlib import ExitStack

from tests.mqtt.raw import Wire, connect
from tests.support import API_VERSION, sas_token

METHODS = "$iothub/methods/POST/#"


def connect_device(connection_string: str, port: int, trust: ssl.SSLContext, *filters: str) -> Wire:
    """Connect as the device of a connection string, and subscribe to topic filters."""
    fields = dict(part.split("=", 1) for part in connection_string.split(";"))
    host, device_id = fields["HostName"], fields["DeviceId"]
    token = sas_token(f"{host}/devices/{device_id}", fields["SharedAccessKey"])
    with ExitStack() as stack:
        wire = stack.enter_context(Wire((host, port), trust))
        user_name = f"{host}/{device_id}/?api-version={API_VERSION}"
        wire.begin(connect(device_id, user_name, token), *filters)
        stack.pop_all()
        return wire
