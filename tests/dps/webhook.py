"""A program on this machine that chooses hubs: custom allocation."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support import PATIENCE


class Webhook:
    """A program that chooses hubs."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: bytes = b""
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                webhook.paths.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.requests.append(json.loads(body))
                webhook.may_answer.wait(PATIENCE)
                self.send_response(webhook.status)
                self.send_header("Content-Length", str(len(webhook.answer)))
                self.end_headers()
                self.wfile.write(webhook.answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/allocate"

    def says(self, **members: Any) -> None:
        self.answer = json.dumps(members).encode()

    @property
    def policy(self) -> dict[str, Any]:
        definition = {"webhookUrl": self.url, "apiVersion": "2019-03-31"}
        return {"allocationPolicy": "custom", "customAllocationDefinition": definition}

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)
