"""Import and export jobs for tests: storage in memory, requests, and lines of files."""

import asyncio
import json
from typing import Any

from emulator.hub.core.errors import BlobContainerValidationError
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from tests.clock import eventually
from tests.hub.fakes import done

JsonObject = dict[str, Any]

KEYS = {"primaryKey": "cHJpbWFyeSBrZXkgISEhISE=", "secondaryKey": "c2Vjb25kYXJ5IGtleSEhISE="}
SAS: JsonObject = {"type": "sas", "symmetricKey": KEYS}
THUMBPRINT = "0123456789abcdefABCDEF0123456789abcdefAB"


class Box:
    """Storage in memory; an operation that a test names in `fails` raises that error."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.fails: dict[str, Exception] = {}
        self.open = asyncio.Event()
        self.open.set()
        self.waited_for = asyncio.Event()

    async def check(self, container: str) -> None:
        await self._do("check")

    async def read(self, container: str, name: str) -> bytes:
        await self._do("read")
        if (container, name) not in self.blobs:
            raise BlobContainerValidationError("It is not there.")
        return self.blobs[container, name]

    async def write(self, container: str, name: str, content: bytes) -> None:
        self.waited_for.set()
        await self.open.wait()
        await self._do("write")
        self.blobs[container, name] = content

    async def _do(self, what: str) -> None:
        await asyncio.sleep(0)
        if what in self.fails:
            raise self.fails[what]

    def lines(self, name: str = "devices.txt", container: str = "out") -> list[JsonObject]:
        return [json.loads(line) for line in self.blobs[container, name].splitlines()]

    def errors(self, *names: str) -> list[Any]:
        """Return members of the lines of the error log, or whole lines."""
        lines = self.lines("importErrors.log")
        return [tuple(line.get(name) for name in names) for line in lines] if names else lines

    def put_lines(self, *items: object, name: str = "devices.txt") -> None:
        self.blobs["in", name] = b"".join(json.dumps(item).encode() + b"\n" for item in items)


def export(**members: object) -> JsonObject:
    return {"type": "export", "outputBlobContainerUri": "out", **members}


def import_(**members: object) -> JsonObject:
    containers = {"inputBlobContainerUri": "in", "outputBlobContainerUri": "out"}
    return {"type": "import", **containers, **members}


def line(device_id: str, **members: object) -> JsonObject:
    return {"id": device_id, "status": "enabled", **members}


async def finish(hub: IotHub, body: JsonObject) -> JsonObject:
    """Create a job, and return it when it is over."""
    return await over(hub, (await hub.transfers.create(body))["jobId"])


async def over(hub: IotHub, job_id: str) -> JsonObject:
    running = ("enqueued", "running")
    await eventually(lambda: hub.transfers.get(job_id)["status"] not in running)
    return hub.transfers.get(job_id)


async def begun(hub: IotHub, job_id: str) -> None:
    """Wait until a part of a job is done."""
    await eventually(lambda: hub.transfers.get(job_id)["progress"] > 0)


def device_ids(hub: IotHub) -> list[str]:
    return [device["deviceId"] for device in done(hub.identities.list_devices())]


def twin(hub: IotHub, device_id: str, module_id: str | None = None) -> JsonObject:
    """Return the tags and the desired properties of a twin, without metadata."""
    document = hub.twins.get(IdentityKey(device_id, module_id))
    desired = document["properties"]["desired"]
    values = {name: value for name, value in desired.items() if not name.startswith("$")}
    return {"tags": document.get("tags"), "desired": values}
