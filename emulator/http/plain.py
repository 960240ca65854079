"""HTTP without TLS, for containers and scripts that do not trust the hub yet.

It has the certificates of the local CA, and whether the hub accepts; nothing else, and no secret.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp.web_response import Response

from emulator.http.responses import json_response
from emulator.hub.core import limits
from emulator.hub.core.clock import TimeSource
from emulator.hub.core.printable import printable
from emulator.net.http_connection import HttpConnections, HttpRequest
from emulator.net.listeners import accept

log = logging.getLogger(__name__)

CA, BUNDLE, HEALTH = "/ca.pem", "/ca-bundle.pem", "/_emulator/health"

_PEM = "application/x-pem-file"
_METHODS = ("GET", "HEAD")
_BAD_REQUEST, _NOT_FOUND, _METHOD_NOT_ALLOWED = 400, 404, 405


class PlainServer:
    """Serves the certificates and the health of an emulator.

    Args:
        clock: the time of the machine.
        certificates: the texts of `CA` and `BUNDLE`.
        health: returns the answer about the health.
        services: where everything else is: `https://localhost:8443`.
    """

    def __init__(
        self,
        clock: TimeSource,
        certificates: Mapping[str, bytes],
        health: Callable[[], Response],
        services: str,
    ) -> None:
        self._clock = clock
        self._certificates = certificates
        self._health = health
        self._services = services
        self._listening: list[asyncio.Server] = []

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections on bound sockets."""
        loop = asyncio.get_running_loop()
        make = functools.partial(HttpRequest, loop=loop, client_max_size=limits.HTTP_HEAD_BYTES)
        # Requests are what `make` makes.
        dispatch: Any = self._dispatch
        self._server = HttpConnections(dispatch, make, self._clock, _malformed)
        self._listening = await accept(self._server, sockets, None)

    async def stop(self) -> None:
        """Stop accepting, and close every connection."""
        for server in self._listening:
            server.close()
        await self._server.stop()

    async def _dispatch(self, request: HttpRequest) -> Response:
        response = self._answer(request)
        log.debug("%s %r: %d", printable(request.method), request.path, response.status)
        if request.body_exists:
            response.force_close()  # nothing reads it
        return response

    def _answer(self, request: HttpRequest) -> Response:
        path = request.path
        if path != HEALTH and path not in self._certificates:
            text = (
                f"This port has {', '.join(self._certificates)} and {HEALTH} only. "
                f"Everything else is at {self._services}"
            )
            return json_response({"Message": text}, status=_NOT_FOUND)
        if request.method not in _METHODS:
            text = f"The method {request.method!r} is not allowed. Use {' or '.join(_METHODS)}."
            headers = {"Allow": ", ".join(_METHODS)}
            return json_response({"Message": text}, status=_METHOD_NOT_ALLOWED, headers=headers)
        if path == HEALTH:
            return self._health()
        return Response(body=self._certificates[path], headers={"Content-Type": _PEM})


def _malformed() -> Response:
    text = "The request is not valid HTTP/1.1. This port has no TLS."
    return json_response({"Message": text}, status=_BAD_REQUEST)
