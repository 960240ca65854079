"""A bare HTTPS server: the least that an answer from aiohttp costs.

    python -m benchmarks.hello HOST FOLDER

It has the emulator's event loop, TLS settings and certificate, reads a request's body, and answers
with a few bytes of JSON.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from emulator.event_loop import run
from emulator.net import certificates
from emulator.net.listeners import BACKLOG


async def hello(request: web.Request) -> web.Response:
    """Answer any request."""
    await request.read()
    return web.Response(body=b'"hello"', content_type="application/json")


async def serve(host: str, folder: Path) -> None:
    """Serve until the process is ended; prints the port."""
    tls = certificates.prepare(folder, certificates.local_names(host)).server_context()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(
        runner.server,  # type: ignore[arg-type] # set up above
        host,
        0,
        ssl=tls,
        backlog=BACKLOG,
    )
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(serve(sys.argv[1], Path(sys.argv[2])))
