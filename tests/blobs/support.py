"""Places for blobs, and a client without an SDK."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from emulator import Emulator, event_loop
from emulator.storage import blob_sas
from emulator.storage.upload_folder import ACCOUNT, CONTAINER
from tests.support import PATIENCE, trust

BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}
HOUR = timedelta(hours=1)


class Place(NamedTuple):
    """Where a device can put a blob.

    Attributes:
        name: the name of the blob.
        token: its token, without the question mark.
    """

    name: str
    token: str

    @classmethod
    def at(cls, emulator: Emulator, name: str) -> Place:
        """Let the storage of the hub grant it, as for a device."""

        def grant() -> str:
            now = emulator.hub.clock.now()
            return uploads(emulator).grant(name, now, now + HOUR).sas_token

        return cls(name, event_loop.call(emulator._running.loop, grant)[1:])

    def allowing(self, emulator: Emulator, permissions: str) -> Place:
        """Return the same place with other permissions, which no device gets."""
        blob = blob_sas.Blob(ACCOUNT, CONTAINER, self.name)
        key, now = uploads(emulator)._key(), emulator.hub.clock.now()
        return Place(self.name, blob_sas.sign(blob, key, permissions, now + HOUR)[1:])


def uploads(emulator: Emulator):  # type: ignore[no-untyped-def]
    return emulator._running.uploads_of_folder()


class Answer(NamedTuple):
    """An answer, with its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The code of the error; it stands in the header and in the body."""
        root = ElementTree.fromstring(self.body)
        code = root.findtext("Code")
        assert root.tag == "Error"
        assert self.headers["x-ms-error-code"] == code
        assert self.headers["Content-Type"] == "application/xml"
        assert f"RequestId:{self.headers['x-ms-request-id']}\nTime:" in (
            root.findtext("Message") or ""
        )
        return f"{self.status} {code}"

    def detail(self, name: str) -> str:
        """Return an element of the error."""
        found = ElementTree.fromstring(self.body).findtext(name)
        assert found is not None
        return found


class Blobs:
    """A client that changes nothing: no path is normalized, and no header is added."""

    def __init__(self, emulator: Emulator) -> None:
        assert emulator.uploads_port is not None
        self._connection = http.client.HTTPSConnection(
            emulator.host_name, emulator.uploads_port, timeout=PATIENCE, context=trust(emulator)
        )

    def __enter__(self) -> Blobs:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(
        self,
        verb: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request to any target."""
        self._connection.request(verb, target, body, dict(headers or {}))
        response = self._connection.getresponse()
        return Answer(response.status, response.headers, response.read())  # type: ignore[arg-type]

    def call(
        self,
        verb: str,
        place: Place,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> Answer:
        """Send a request about the blob of a place."""
        return self.send(verb, target(place, query), body, headers)

    def put(self, place: Place, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """Put a whole blob."""
        return self.call("PUT", place, body, {**BLOCK_BLOB, **(headers or {})})

    def stage(self, place: Place, block_id: str, body: bytes) -> Answer:
        """Put a block."""
        return self.call("PUT", place, body, query=f"comp=block&blockid={encoded(block_id)}")

    def commit(
        self, place: Place, *block_ids: str, kind: str = "Latest", headers: Mapping[str, str] = {}
    ) -> Answer:
        """Make the blob of blocks."""
        listed = "".join(
            f"<{kind}>{base64.b64encode(each.encode()).decode()}</{kind}>" for each in block_ids
        )
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'
        return self.call("PUT", place, body.encode(), headers, "comp=blocklist")

    def read(self, place: Place, **headers: str) -> Answer:
        """Read the blob."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("GET", place, headers=named)


def encoded(block_id: str) -> str:
    """Write the id of a block for a query."""
    return quote(base64.b64encode(block_id.encode()).decode(), safe="")


def target(place: Place, query: str = "") -> str:
    """Return the path and the query of a blob, as SDKs write them."""
    parts = "&".join(each for each in (query, place.token) if each)
    return f"/{CONTAINER}/{quote(place.name)}?{parts}"
