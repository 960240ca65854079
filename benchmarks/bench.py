"""What one measure is given to work with, in a form that one process can write to another."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from benchmarks.table import Figure, Sample

API_VERSION = "2021-04-12"

# A day: longer than any run.
_TOKEN_SECONDS = 86_400


@dataclass(frozen=True)
class End:
    """Where a server listens, and which process it is."""

    host: str
    port: int
    pid: int

    @property
    def address(self) -> tuple[str, int]:
        """What a socket connects to."""
        return self.host, self.port


@dataclass(frozen=True)
class Hub:
    """A running emulator.

    Args:
        key: base64, of the policy `iothubowner` and of every device that is registered here.
    """

    mqtt: End
    https: End
    key: str

    def service_token(self) -> str:
        """Sign for a service with every right."""
        resource = f"{self.https.host}:{self.https.port}"
        return f"{_sign(resource, self.key)}&skn=iothubowner"

    def device_token(self, device_id: str) -> str:
        """Sign for a device with its own key."""
        return _sign(f"{self.mqtt.host}/devices/{device_id}", self.key)


@dataclass(frozen=True)
class Effort:
    """How much is done in each round.

    Args:
        seconds: how long a rate is measured.
        calls: how many round trips are measured one after the other.
        share: of the devices that a figure names, how many there really are.
    """

    seconds: float
    calls: int
    share: float

    def devices(self, named: int) -> int:
        """Tell how many devices there are where a figure names so many."""
        return round(named * self.share)


FULL = Effort(seconds=2.0, calls=3_000, share=1.0)
QUICK = Effort(seconds=0.3, calls=60, share=0.1)


@dataclass(frozen=True)
class Bench:
    """What is there for a measure.

    Args:
        ca: PEM file of the CA that signed for all servers.
        hub: the emulator.
        mosquitto: None if it isn't installed, or not asked for.
        hello: the bare HTTPS server; None if it isn't asked for.
        nod: the bare MQTT server; likewise.
        rounds: how often to measure.
    """

    ca: str
    hub: Hub
    mosquitto: End | None
    hello: End | None
    nod: End | None
    rounds: int
    effort: Effort

    def trust(self) -> ssl.SSLContext:
        """Make what clients connect with: the CA alone, not a bundle of all public roots."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        return context

    def to_json(self) -> str:
        """Write it down for the process that measures."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Bench:
        """Read what `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        parts = fields["hub"]
        hub = Hub(End(**parts["mqtt"]), End(**parts["https"]), parts["key"])
        peers = ("mosquitto", "hello", "nod")
        ends = {name: fields[name] and End(**fields[name]) for name in peers}
        return cls(**{**fields, "hub": hub, **ends, "effort": Effort(**fields["effort"])})


# What a measure gives in each round: a sample for each of its figures, in their order.
Round = tuple[Sample, ...]


@dataclass(frozen=True)
class Measure:
    """Figures that are measured together.

    Args:
        run: measures so many rounds, in a process that does nothing else.
        mosquitto: whether it needs it.
        hello: whether it needs the bare HTTPS server.
        nod: whether it needs the bare MQTT server.
        devices: how many connections it opens at most.
        fresh: whether each round has new servers: because they must have seen nothing yet, or
            because a process is up to a tenth faster or slower than the same one started again, by
            where its memory lies.
        most_rounds: where a round takes long, and tells enough.
    """

    figures: tuple[Figure, ...]
    run: Callable[[Bench], Iterator[Round]]
    mosquitto: bool = False
    hello: bool = False
    nod: bool = False
    devices: int = 0
    fresh: bool = False
    most_rounds: int | None = None


def _sign(resource: str, key: str) -> str:
    """Sign a SAS token (IoT Hub docs: control access with shared access signatures)."""
    audience = quote(resource, safe="")
    expiry = int(time.time()) + _TOKEN_SECONDS
    signed = f"{audience}\n{expiry}".encode()
    digest = hmac.digest(base64.b64decode(key), signed, hashlib.sha256)
    signature = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={audience}&sig={signature}&se={expiry}"
