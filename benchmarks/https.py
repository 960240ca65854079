"""HTTPS requests for the clients, and the SAS tokens that requests and devices carry."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import re
import time
from collections.abc import Sequence
from urllib.parse import quote

from benchmarks.bench import Client
from benchmarks.servers import HOST, Server
from benchmarks.wires import Loop, Wire

API_VERSION = "2021-04-12"

# Of all policies and devices, while the emulator listens on loopback (README: Keys).
KEY = "dGhpcyBsb2NhbCBJb1QgSHViIGtleSBpcyBwdWJsaWM="

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def sas_token(resource: str) -> str:
    """Sign a token for a day (IoT Hub docs: control access with shared access signatures)."""
    audience, expiry = quote(resource, safe=""), int(time.time()) + 86_400
    digest = hmac.digest(base64.b64decode(KEY), f"{audience}\n{expiry}".encode(), hashlib.sha256)
    signature = quote(base64.b64encode(digest), safe="")
    return f"SharedAccessSignature sr={audience}&sig={signature}&se={expiry}"


def request(server: Server, verb: str, path: str, body: object = None) -> bytes:
    """Encode a request of a service that has all rights."""
    host = f"{HOST}:{server.ports['https']}"
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{verb} {path}?api-version={API_VERSION} HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: {sas_token(host)}&skn=iothubowner\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def whole(data: bytes) -> int:
    """Return the size of the first answer; 0 if a part of it is missing.

    Raises:
        ValueError: the request failed; the text is the answer.
    """
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return 0
    if not data.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")):
        raise ValueError(f"the server returned {data[:500]!r}")
    length = _LENGTH.search(data, 0, end)
    size = end + (int(length[1]) if length else 0)
    return size if size <= len(data) else 0


class Caller(Client):
    """A service that sends some requests over and over again, on one connection."""

    def __init__(self, loop: Loop, server: Server, requests: Sequence[bytes] = ()) -> None:
        super().__init__()
        self._requests = itertools.cycle(requests)
        self._loop = loop
        self.wire = Wire(loop, server.ports["https"])
        self.wire.take(whole, lambda _: self.answered())
        opened: list[bool] = []
        self.wire.open(lambda: opened.append(True))
        loop.run(lambda: bool(opened))

    def call(self, data: bytes) -> None:
        """Send one request, and wait for its answer.

        Raises:
            ValueError: the request failed.
        """
        self._requests = itertools.cycle([data])
        self.send()
        self._loop.run(lambda: self.idle)

    def _send(self) -> None:
        self.wire.send(next(self._requests))
