"""What the tests of the hub share: a store that counts, a link that records, a hub to fill."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import math
import os
import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from emulator.disk.codec import encode
from emulator.disk.file import OpenFile
from emulator.disk.store import DiskStore
from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import HubError
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import Deletion, Key, MemoryStore, R, Record, Store
from emulator.hub.feed import Change, Feed
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission, Delivery, DeviceLink
from tests.clock import START, ManualClock

L = TypeVar("L", bound=DeviceLink)
T = TypeVar("T")

CREATE, ANY, STALE = IfMatch(None), IfMatch("*"), IfMatch("c3RhbGU=")
KEYS, OTHER_KEYS = (
    SymmetricKeys(*(base64.b64encode(letter * 32).decode() for letter in pair))
    for pair in ((b"p", b"s"), (b"q", b"t"))
)
LATER = str(int(START.timestamp()) + 3600)
CA_SIGNED = {"type": "certificateAuthority"}
DEVICE, MODULE = IdentityKey("d"), IdentityKey("d", "m")


class ForgetfulStore(DiskStore):
    """A store in a file of its own that reads each record from its bytes after a commit."""

    def __init__(self) -> None:
        folder = tempfile.mkdtemp()
        super().__init__(Path(folder) / "hub.sqlite")
        weakref.finalize(self, _remove, self._file, folder)

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        put = tuple(put)
        super().commit(put=put, delete=delete)
        for each in put:
            kind = type(each)
            self._records[kind][each.key] = encode(each)  # type: ignore[assignment]
            self._decoded.discard(kind)
            self._families.pop(kind, None)


def _remove(file: OpenFile, folder: str) -> None:
    # The collector can run in the thread of an emulator, which must not close it; then it does.
    with contextlib.suppress(sqlite3.ProgrammingError):
        file.database.close()
    file.lock.release()
    shutil.rmtree(folder)


# With HUB_STORE=disk, the tests of the hub use a store on the disk.
HubStore: type[MemoryStore] = MemoryStore
if os.environ.get("HUB_STORE") == "disk":
    HubStore = ForgetfulStore


class CountingStore(HubStore):  # type: ignore[valid-type, misc]
    """A store that counts its commits."""

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        self.commits += 1
        super().commit(put=put, delete=delete)


@dataclass(eq=False)
class FakeLink:
    """A connected device that records what it receives. It acknowledges no message."""

    key: IdentityKey = DEVICE
    accepts_methods: bool = True
    accepts_commands: bool = True
    lock_seconds: float | None = None
    delivered: list[Delivery] = field(default_factory=list)
    invoked: list[tuple[str, str, Any]] = field(default_factory=list)
    desired: list[dict[str, Any]] = field(default_factory=list)
    closed: HubError | None = None
    was_cut: bool = False
    detached: list[str] = field(default_factory=list)
    rates: list[int | None] = field(default_factory=list)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.delivered]

    @property
    def unacknowledged(self) -> list[str]:
        return [delivery.lock_token for delivery in self.delivered]

    def accepts_method(self, name: str) -> bool:
        return self.accepts_methods

    def deliver(self, delivery: Delivery) -> None:
        self.delivered.append(delivery)

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        self.invoked.append((request_id, name, json.loads(payload) if payload else None))

    def notify_desired(self, patch: bytes, version: int) -> None:
        notice = json.loads(patch)
        assert notice["$version"] == version
        self.desired.append(notice)

    def cut(self) -> None:
        self.was_cut = True
        self.accepts_methods = self.accepts_commands = False

    def detach(self, part: str) -> None:
        self.detached.append(part)

    def slow(self, rate: int | None) -> None:
        self.rates.append(rate)

    def close(self, reason: HubError) -> None:
        assert self.closed is None, "a link is closed once"
        self.closed = reason
        self.accepts_methods = self.accepts_commands = False


def signature(key: str, sr: str, se: str) -> str:
    """Sign as the documentation says, apart from the code under test."""
    mac = hmac.new(base64.b64decode(key), f"{sr}\n{se}".encode(), hashlib.sha256)
    return base64.b64encode(mac.digest()).decode()


def token_text(sr: str, se: str = LATER, *, skn: str | None = None, key: str = KEYS.primary) -> str:
    """Write a SAS token."""
    text = f"SharedAccessSignature sr={sr}&sig={quote(signature(key, sr, se), safe='')}&se={se}"
    return text if skn is None else f"{text}&skn={skn}"


def certificate(
    content: str = "own", common_name: str | None = None, *, by_authority: bool = False
) -> ClientCertificate:
    """Return what a client's certificate shows; other content makes another certificate."""
    data = content.encode()
    sha1, sha256 = hashlib.sha1(data).hexdigest(), hashlib.sha256(data).hexdigest()
    return ClientCertificate(sha1, sha256, common_name, by_authority)


def self_signed(primary: str | None = None, secondary: str | None = None) -> dict[str, Any]:
    """Return the `authentication` of an identity that names thumbprints."""
    thumbprints = {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
    return {"type": "selfSigned", "x509Thumbprint": thumbprints}


def done(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of work in slices, also where a test is not a coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    while True:  # the work waits for nothing except its next slice
        try:
            turn = work.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        turn._asyncio_future_blocking = False
        turn.set_result(None)


def all_configurations(hub: IotHub) -> list[dict[str, Any]]:
    """Return the documents of all configurations."""

    async def all_of_them() -> list[dict[str, Any]]:
        return [document async for document in hub.configurations.all()]

    return done(all_of_them())


def make_hub(store: Store | None = None, clock: Clock | None = None, **options: Any) -> IotHub:
    """Return a hub whose clock stands still."""
    options = {"policies": (), "hosts": ("localhost",), **options}
    return IotHub(store=store or HubStore(), clock=clock or ManualClock(), **options)


def put(hub: IotHub, key: IdentityKey, if_match: IfMatch = CREATE, **members: Any) -> Any:
    """Create a device or module, or update it; return its document."""
    ids = {"deviceId": key.device_id, "moduleId": key.module_id}
    return hub.identities.put(key, ids | members, if_match)


def connect(hub: IotHub, link: L, *, lifetime: float = math.inf, model_id: str = "") -> L:
    """Connect a link, and note that it has subscribed; its credentials expire after `lifetime`."""
    expires = hub.clock.now().timestamp() + lifetime
    hub.links.connect(link, Admission(link.key, expires, "1", "{}", model_id))
    hub.links.subscribed(link)
    return link


def record_changes(feed: Feed, kind: type[Change] = Change) -> list[Any]:
    """Return a list to which each later change of a kind is added."""
    changes: list[Any] = []
    feed.subscribe(kind, changes.append)
    return changes


def stored(store: Store, kind: type[R], key: Key) -> R:
    """Return a record that must be in a store."""
    record = store.get(kind, key)
    assert record is not None
    return record
