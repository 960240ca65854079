"""The hub of a command: requests to its paths, queries in pages, and which kind of hub it is."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from emulator.cli import hubs
from emulator.client import Client, Response
from emulator.errors import ClientError

_CONTINUATION, _PAGE_SIZE = "x-ms-continuation", "x-ms-max-item-count"


def path(*parts: str) -> str:
    """Write a path of its parts."""
    return "".join("/" + quote(each, safe="") for each in parts)


def precondition(etag: str | None) -> dict[str, str]:
    """Return the header that allows a change in the state of an etag, or in any state."""
    return {"If-Match": f'"{etag}"' if etag else "*"}


class Hub:
    """The hub that the options of a command name; nothing is sent before it is used.

    Attributes:
        FINDING: how a command finds it.
        NAMES: the names of the option for its host.
    """

    FINDING = hubs.FINDING
    NAMES: tuple[str, ...] = hubs.HOST_NAMES

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    @functools.cached_property
    def client(self) -> Client:
        """The hub's service.

        Raises:
            ClientError: no hub is named.
        """
        return hubs.connect(self._options)

    @property
    def device_host(self) -> str:
        """The name by which devices know the hub: without a port."""
        host = self.client.host
        return host if host.endswith("]") else host.rpartition(":")[0] or host

    @functools.cached_property
    def emulator(self) -> dict[str, Any] | None:
        """What an emulator says of itself; None for a real hub.

        Raises:
            ClientError: the hub can't be reached.
        """
        try:
            info: dict[str, Any] = self.client.get("/_emulator/info")
        except ClientError as error:
            if error.status is None or error.status == 401:
                raise
            return None
        return info

    def get(self, *parts: str) -> Any:
        """Return the document at a path."""
        return self.client.get(path(*parts))

    def send(
        self,
        verb: str,
        *parts: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request; return the answer."""
        where = path(*parts)
        return self.client.request(verb, where, body, headers=headers, parameters=parameters)

    def query(self, text: str, top: int | None = None) -> list[Any]:
        """Return the rows of a query, from all its pages."""
        return self.pages("POST", ("devices", "query"), {"query": text}, top)

    def jobs(self, kind: str | None, status: str | None, top: int | None) -> list[Any]:
        """Return scheduled jobs, from all pages."""
        given = {"jobType": kind or "", "jobStatus": status or ""}
        parameters = {name: value for name, value in given.items() if value}
        return self.pages("GET", ("jobs", "v2", "query"), None, top, parameters)

    def pages(
        self,
        verb: str,
        where: tuple[str, ...],
        body: object,
        top: int | None,
        parameters: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Return the rows of all pages."""
        rows: list[Any] = []
        headers: dict[str, str] = {}
        while top is None or len(rows) < top:
            if top is not None:
                headers[_PAGE_SIZE] = str(top - len(rows))
            answer = self.send(verb, *where, body=body, headers=headers, parameters=parameters)
            rows += answer.json()
            found = {name.lower(): value for name, value in answer.headers.items()}
            if not found.get(_CONTINUATION):
                break
            headers[_CONTINUATION] = found[_CONTINUATION]
        return rows if top is None else rows[:top]
