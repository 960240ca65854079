"""HTTPS requests, encoded beforehand, and one caller that keeps its connection."""

from __future__ import annotations

import json
import re
import ssl

from benchmarks.bench import API_VERSION, End, Hub
from benchmarks.mqtt import dial

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def request(hub: Hub, verb: str, path: str, body: object = None) -> bytes:
    """Encode a request as a service with every right sends it."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{verb} {path}?api-version={API_VERSION} HTTP/1.1",
        f"Host: {hub.https.host}:{hub.https.port}",
        f"Authorization: {hub.service_token()}",
        "Accept: application/json",
    ]
    if content:
        lines += [f"Content-Length: {len(content)}", "Content-Type: application/json"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def whole(data: bytes | bytearray) -> int:
    """Tell the size of the first answer; 0 if it isn't there as a whole."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return 0
    length = _LENGTH.search(data, 0, end)
    size = end + (int(length[1]) if length else 0)
    return size if size <= len(data) else 0


def check(answer: bytes | bytearray) -> None:
    """Make sure that a request was carried out.

    Raises:
        ValueError: it was not; the text is the answer.
    """
    if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 204")):
        raise ValueError(f"the server answered {bytes(answer[:500])!r}")


class Caller:
    """Someone who waits for each answer."""

    def __init__(self, end: End, trust: ssl.SSLContext) -> None:
        self._socket = dial(end, trust)

    def call(self, data: bytes) -> bytes:
        """Send a request, and give the body of its answer.

        Raises:
            ValueError: it was not carried out.
        """
        self.send(data)
        return self.receive()

    def send(self, data: bytes) -> None:
        """Send a request."""
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Wait for the answer, and give its body.

        Raises:
            ValueError: the request was not carried out.
        """
        answer = self._socket.recv(65536)
        while not whole(answer):
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            answer += data
        check(answer)
        return answer[answer.index(b"\r\n\r\n") + 4 :]

    def close(self) -> None:
        """Go."""
        self._socket.close()
