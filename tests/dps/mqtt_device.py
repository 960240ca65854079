"""A device that registers over MQTT, packet by packet."""

from __future__ import annotations

import json
import ssl
from typing import Any

from emulator import Emulator
from tests.dps.support import ID_SCOPE, KEY
from tests.mqtt import raw
from tests.mqtt.raw import Wire
from tests.support import sas_token, trust

REGISTER = "PUT/iotdps-register/?$rid={}"
STATUS = "GET/iotdps-get-operationstatus/?$rid={}&operationId={}"


def greeting(name: str, key: str | None = KEY, tail: str = "/api-version=2019-03-31") -> bytes:
    """Return the CONNECT of a device."""
    resource = f"{ID_SCOPE}/registrations/{name}"
    token = None if key is None else sas_token(resource, key, policy="registration")
    return raw.connect(name, resource + tail, token)


def connect(
    hub: Emulator, name: str, key: str | None = KEY, *, tls: ssl.SSLContext | None = None
) -> Wire:
    """Connect a device, which subscribes to its answers."""
    wire = Wire((hub.host_name, hub.mqtt_port), tls or trust(hub))
    wire.send(greeting(name, key))
    wire.expect(raw.connack(0))
    wire.send(raw.subscribe(1, "$dps/registrations/res/#"))
    wire.expect(raw.suback(1, 0))
    return wire


def publish(wire: Wire, topic: str, payload: bytes = b"") -> None:
    """Send a request."""
    wire.send(raw.publish(f"$dps/registrations/{topic}", payload))


def ask(wire: Wire, topic: str, payload: bytes = b"") -> tuple[str, Any]:
    """Send a request, and return the topic and the JSON of its answer."""
    publish(wire, topic, payload)
    answered, answer = wire.receive_publish()
    return answered.removeprefix("$dps/registrations/res/"), json.loads(answer)
