"""Devices without an SDK, for tests that need many of them, or some that misbehave."""

from __future__ import annotations

import ssl
from contextlib import ExitStack

from tests.mqtt.raw import Wire, connack, connect, suback, subscribe
from tests.support import API_VERSION, sas_token

METHODS = "$iothub/methods/POST/#"


def connect_device(connection_string: str, port: int, trust: ssl.SSLContext, *filters: str) -> Wire:
    """Connect as the device of a connection string, and subscribe to topic filters."""
    fields = dict(part.split("=", 1) for part in connection_string.split(";"))
    host, device_id = fields["HostName"], fields["DeviceId"]
    token = sas_token(f"{host}/devices/{device_id}", fields["SharedAccessKey"])
    with ExitStack() as stack:
        wire = stack.enter_context(Wire((host, port), trust))
        wire.send(connect(device_id, f"{host}/{device_id}/?api-version={API_VERSION}", token))
        wire.expect(connack(0))
        if filters:
            wire.send(subscribe(1, *filters))
            wire.expect(suback(1, *[0] * len(filters)))
        stack.pop_all()
        return wire
