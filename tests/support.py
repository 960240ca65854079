"""Clients of a running emulator that use none of its code."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import requests

from emulator import Emulator

API_VERSION = "2021-04-12"

# How long something may take on a busy machine. A wait ends by its event, except in a failure.
PATIENCE = 60.0


def fields_of(connection_string: str) -> dict[str, str]:
    """Return the fields of a connection string."""
    return dict(part.split("=", 1) for part in connection_string.split(";"))


def wait_until(happened: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def own(section: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a twin's section without those that the hub adds."""
    return {name: value for name, value in section.items() if not name.startswith("$")}


class Device(NamedTuple):
    """A registered device, as its own program knows it."""

    id: str
    key: str
    connection_string: str

    @classmethod
    def of(cls, connection_string: str) -> Device:
        """Return the device of a connection string."""
        fields = fields_of(connection_string)
        return cls(fields["DeviceId"], fields["SharedAccessKey"], connection_string)


def sas_token(
    resource: str,
    key: str,
    *,
    policy: str | None = None,
    lifetime: float = 3600,
    now: float | None = None,
) -> str:
    """Sign a SAS token as the documentation shows, independently of the emulator and the SDKs."""
    audience = quote(resource, safe="")
    expiry = str(int((time.time() if now is None else now) + lifetime))
    signature = hmac.new(
        base64.b64decode(key), f"{audience}\n{expiry}".encode(), hashlib.sha256
    ).digest()
    token = f"sr={audience}&sig={quote(base64.b64encode(signature), safe='')}&se={expiry}"
    return f"SharedAccessSignature {token}" + (f"&skn={policy}" if policy else "")


def jwt(header: object = None, signature: str = "c2ln", **claims: object) -> str:
    """Write a token that looks like one of Entra ID."""
    texts = (json.dumps(part) for part in ({"alg": "RS256"} if header is None else header, claims))
    parts = [base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in texts]
    return ".".join([*parts, signature])


def entity_token(audience: str, key: str, policy: str, now: float, lifetime: float = 3600) -> str:
    """Sign a token as clients of Event Hubs do: with the text of the key, which is not decoded."""
    resource, expiry = quote(audience, safe=""), str(int(now + lifetime))
    digest = hmac.new(key.encode(), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"


class Hub(Protocol):
    """What a service has to know of a hub."""

    service_connection_string: str
    ca_file: Path


def send_events(emulator: Emulator, device: Device, *bodies: str, **properties: str) -> None:
    """Send messages as a device, over HTTPS."""
    resource = f"{emulator.https_host}/devices/{device.id}"
    token = sas_token(resource, device.key)
    for body in bodies:
        answer = requests.post(
            f"https://{resource}/messages/events",
            data=body.encode(),
            params={"api-version": API_VERSION},
            headers={"Authorization": token}
            | {f"iothub-app-{name}": value for name, value in properties.items()},
            verify=str(emulator.ca_file),
            timeout=PATIENCE,
        )
        assert answer.status_code == 204


def second_hub(emulator: Emulator, **settings: Any) -> Emulator:
    """Make an emulator, not started, with the certificates of another one and its own settings."""
    own: dict[str, Any] = dict.fromkeys(
        ("mqtt_port", "https_port", "amqps_port", "amqp_port", "uploads_port"), 0
    )
    if (folder := emulator.settings.data_dir) is not None:
        own["data_dir"] = folder / uuid.uuid4().hex
    return Emulator(replace(emulator.settings, **own | settings))


def trust(hub: Hub) -> ssl.SSLContext:
    """Make a TLS context that trusts the hub."""
    return ssl.create_default_context(cafile=hub.ca_file)


class Service:
    """A service without an SDK: plain HTTPS with every right. It can be a `with` block."""

    def __init__(self, hub: Hub, lifetime: float = 3600) -> None:
        fields = fields_of(hub.service_connection_string)
        host, policy = fields["HostName"], fields["SharedAccessKeyName"]
        self.url = f"https://{host}"
        self._session = requests.Session()
        # The machine's variables may name a proxy, or another CA.
        self._session.trust_env = False
        self._session.verify = str(hub.ca_file)
        self._session.headers["Authorization"] = sas_token(
            host, fields["SharedAccessKey"], policy=policy, lifetime=lifetime
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(
        self,
        verb: str,
        path: str,
        *,
        json: object = None,
        data: bytes | str | None = None,
        headers: dict[str, str | None] | None = None,
        params: dict[str, str] | None = None,
    ) -> requests.Response:
        """Send one request; `params` replaces the api-version, a header of None is left out."""
        return self._session.request(
            verb,
            self.url + path,
            json=json,
            data=data,
            headers=headers,
            params={"api-version": API_VERSION} if params is None else params,
            timeout=70,
        )

    def state(self, device_id: str) -> str:
        """Return the connection state of a device."""
        return str(self.request("GET", f"/devices/{device_id}").json()["connectionState"])

    def wait_for_device(self, device_id: str) -> None:
        """Wait until a device is connected."""
        wait_until(lambda: self.state(device_id) == "Connected")

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


@contextlib.contextmanager
def small_files(size: int = 100_000) -> Iterator[None]:
    """Let no file of this process grow beyond some bytes: as a disk that is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
