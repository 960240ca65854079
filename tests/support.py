"""Clients of a running emulator that use none of its code."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import random
import socket
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

import requests

from emulator import Emulator

API_VERSION = "2021-04-12"


class Device(NamedTuple):
    """A registered device, as its own program knows it."""

    id: str
    key: str
    connection_string: str


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


def free_loopback_address() -> str:
    """Find a loopback address with a free port 8883, which is the only one that device SDKs dial.

    Linux and Windows have all of 127.0.0.0/8, from which one is drawn, so that runs side by side
    don't meet; macOS has 127.0.0.1 only.
    """
    if sys.platform == "darwin":
        return "127.0.0.1"
    while True:
        address = f"127.0.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        with contextlib.suppress(OSError), socket.create_server((address, 8883)):
            return address


class Service:
    """A service without an SDK: plain HTTPS with a policy's token."""

    def __init__(self, emulator: Emulator, policy: str = "iothubowner") -> None:
        fields = dict(
            part.split("=", 1) for part in emulator.policy_connection_string(policy).split(";")
        )
        self.url = f"https://{fields['HostName']}"
        self._session = requests.Session()
        self._session.verify = str(emulator.ca_file)
        self._session.headers["Authorization"] = sas_token(
            fields["HostName"], fields["SharedAccessKey"], policy=policy
        )

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

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """Let no file of this process grow beyond 100 KB: as a disk that is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
