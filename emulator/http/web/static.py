"""The files of the page, with the headers that keep a browser from anything else."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from aiohttp.web_response import Response

_FOLDER = Path(__file__).with_name("files")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
    )
)

SAFE: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""The headers of each answer of the page."""


def serve(name: str) -> Response:
    """Return a file of the page."""
    found = _files().get(name)
    if found is None:
        return Response(status=404, text="Unknown file.", headers=SAFE)
    kind, content = found
    return Response(body=content, headers={**SAFE, "Content-Type": kind})


@functools.cache
def _files() -> Mapping[str, tuple[str, bytes]]:
    """Read all files once."""
    files = sorted(each for each in _FOLDER.iterdir() if each.suffix in _TYPES)
    return {each.name: (_TYPES[each.suffix], each.read_bytes()) for each in files}
