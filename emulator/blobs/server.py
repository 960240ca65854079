"""The server of the blob service: TLS, and the answers to requests.

What a request needs is imported when the first one arrives: most hubs have no uploads.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp.web_response import Response, StreamResponse

from emulator.hub.core.printable import printable
from emulator.hub.hub import IotHub
from emulator.net.http_connection import HttpConnections
from emulator.net.listeners import accept
from emulator.net.tls import Handshakes
from emulator.storage.upload_folder import FolderUploads

if TYPE_CHECKING:
    from emulator.blobs.errors import ServiceError
    from emulator.blobs.requests import BlobRequest

log = logging.getLogger(__name__)


class BlobServer:
    """Serves the uploads of a hub.

    Args:
        hub: the hub.
        uploads: returns the uploads of the present hub.
        handshakes: the handshakes of TLS.
    """

    def __init__(
        self, hub: IotHub, uploads: Callable[[], FolderUploads], handshakes: Handshakes
    ) -> None:
        self._hub = hub
        self._uploads = uploads
        self._handshakes = handshakes
        self._machine = hub.clock.machine
        self._listening: list[asyncio.Server] = []

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on bound sockets."""
        self._loop = asyncio.get_running_loop()
        self._listening = await accept(self._connect, sockets, self._handshakes.context)

    async def stop(self) -> None:
        """Stop accepting, and close the connections; an upload that is not complete is dropped."""
        for server in self._listening:
            server.close()
        if "_server" in self.__dict__:
            await self._server.stop()

    def use(self, hub: IotHub) -> None:
        """Serve another hub from now on. Connections stay: each request is one of its own."""
        self._hub = hub

    @property
    def open_connections(self) -> int:
        """How many connections are open on which something has arrived."""
        return len(self._server.connections) if "_server" in self.__dict__ else 0

    def _connect(self) -> asyncio.BaseProtocol:
        return self._server()

    @functools.cached_property
    def _server(self) -> HttpConnections:
        from emulator.blobs.requests import BlobRequest

        make = functools.partial(BlobRequest, loop=self._loop)
        return HttpConnections(self._answer, make, self._machine, self._malformed)

    async def _answer(self, request: BlobRequest) -> StreamResponse:
        from emulator.blobs.errors import ServiceError, of_system
        from emulator.blobs.operations import answer
        from emulator.blobs.requests import DisconnectedError

        verb, path = request.method, request.path
        try:
            request.begin(self._uploads())
            response = await answer(request)
        except ServiceError as failure:
            self._hub.refusals.info(
                "Refused %s %r: %s", printable(verb), path, printable(failure), error=failure
            )
            response = self._failed(failure, request)
        except (ConnectionError, TimeoutError, DisconnectedError) as error:
            log.info("%s %r was not completed: %s", printable(verb), path, printable(error))
            request.protocol.force_close()
            response = self._failed(ServiceError("InvalidInput"), request)
        except OSError as error:
            log.warning("%s %r failed: %s", printable(verb), path, printable(error))
            response = self._failed(of_system(error), request)
        except Exception:
            log.exception("%r %r failed", verb, path)
            response = self._failed(ServiceError("InternalError"), request)
        log.debug("%s %r: %d", printable(verb), path, response.status)
        return response

    def _failed(self, failure: ServiceError, request: BlobRequest) -> Response:
        body = failure.document(request.request_id, self._machine.now())
        return _response(failure, body)

    def _malformed(self) -> Response:
        from emulator.blobs.errors import ServiceError

        request_id = str(uuid.uuid4())
        failure = ServiceError("InvalidInput", headers={"x-ms-request-id": request_id})
        return _response(failure, failure.document(request_id, self._machine.now()))


def _response(failure: ServiceError, body: bytes) -> Response:
    headers: dict[str, Any] = {"x-ms-error-code": failure.code, **failure.headers}
    return Response(
        status=failure.status, headers=headers, body=body, content_type="application/xml"
    )
