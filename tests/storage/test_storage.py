"""The storage of import and export jobs: real folders, and a small blob service of the test's."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from emulator import Settings
from emulator.hub.core import limits
from emulator.hub.core.errors import BlobContainerValidationError
from emulator.settings import LOCAL_STORAGE_HOSTS
from emulator.storage.container import StorageError
from emulator.storage.storage import Storage
from tests.support import small_files

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")

BOX = "file:///box"
SAS = "sv=2020-10-02&sp=rwd&sr=c&se=2030-01-01T00%3A00%3A00Z&sig=a%2Bb%2Fc%3D"
SECRET = "sig="


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that the user has named, beside a folder that no caller may use."""
    (tmp_path / "root" / "box").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_bytes(b"private")
    return tmp_path / "root"


@pytest.fixture
def storage(root: Path) -> Storage:
    return Storage(root, ())


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """Expect an error whose text has these parts, and never a secret."""
    with pytest.raises(BlobContainerValidationError) as caught:
        yield
    for part in parts:
        assert part in caught.value.text
    assert SECRET not in caught.value.text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# --- folders


async def test_a_folder_is_a_container(storage: Storage, root: Path) -> None:
    await storage.check(BOX)
    assert list((root / "box").iterdir()) == []
    for content in (b"a line\n" * 100_000, b"", b"\x00\r\n\x1a"):
        await storage.write(BOX, "devices.txt", content)
        assert await storage.read(f"{BOX}/", "devices.txt") == content
        assert (root / "box" / "devices.txt").read_bytes() == content
    assert [file.name for file in (root / "box").iterdir()] == ["devices.txt"]


@posix_only
async def test_only_its_owner_can_read_what_is_written(storage: Storage, root: Path) -> None:
    file = root / "box" / "devices.txt"
    file.touch(mode=0o666)
    await storage.write(BOX, "devices.txt", b"keys")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_what_was_there_is_replaced_at_once(storage: Storage, root: Path) -> None:
    await storage.write(BOX, "devices.txt", b"old")
    with (root / "box" / "devices.txt").open("rb") as reader:
        await storage.write(BOX, "devices.txt", b"new")
        assert reader.read() == b"old"  # the file that it had opened was not written to
    assert await storage.read(BOX, "devices.txt") == b"new"


@pytest.mark.parametrize(
    "container",
    [
        *("file:///", "file:////", "file:///.", "file:///..", "file:///../private"),
        *("file:///box/../../private", "file:///box/box", "file://box", "file:box", "file:///*"),
        *("file:///%2e%2e", "file:///..%2fprivate", "file:///box%00", "file:///box\x00"),
        *("file:///C:", "file:///C:/box", "file:///c|", "file:///box\\..", "file:///..\\private"),
        *("file:///box.", "file:///box ", "file:///.box", "file:///bo\u0078\u0301", "file:///~"),
        *("file:///box?x", "file:///box#x", "file://localhost/box", "file:////server/share"),
        *("file:///NUL", "file:///com1", "file:///aux.txt", "file:///CONOUT$", "FILE:///box"),
        *("file:///box\n", " file:///box", "file:///" + "x" * 200, "/box", "box", "", "../box"),
    ],
)
async def test_no_uri_leads_out_of_the_folder(storage: Storage, container: str) -> None:
    with refused("Unauthorized to write to output blob container. "):
        await storage.check(container)
    with refused():
        await storage.read(container, "key.txt")
    with refused("The blob key.txt could not be written. "):
        await storage.write(container, "key.txt", b"")


@pytest.mark.parametrize(
    "name",
    [
        *("../../private/key.txt", "..", ".", "", "/etc/passwd", "a/b", "a\\b", "C:key.txt"),
        *("NUL", "con.txt", "key.txt:stream", "key.txt.", ".hidden", "key.txt\n", "x" * 300),
    ],
)
async def test_no_name_leads_out_of_the_container(storage: Storage, root: Path, name: str) -> None:
    with refused("name"):
        await storage.read(BOX, name)
    with refused("name"):
        await storage.write(BOX, name, b"")
    assert list((root / "box").iterdir()) == []


@pytest.fixture(scope="module")
def walled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder around the one that the user has named, with another one in it."""
    around = tmp_path_factory.mktemp("around")
    (around / "root" / "box").mkdir(parents=True)
    (around / "private").mkdir()
    return around


PATHS = st.lists(
    st.sampled_from(["..", ".", "/", "\\", "box", "private", "%2e", "%2f", "a", ":", "\x00", "~"]),
    max_size=6,
).map("".join)


@given(uri=PATHS, name=PATHS)
def test_nothing_is_ever_written_outside(walled: Path, uri: str, name: str) -> None:
    async def write() -> None:
        await Storage(walled / "root", ()).write(f"file:///{uri}", name, b"")

    with suppress(BlobContainerValidationError):
        asyncio.run(write())
    assert {path.name for path in walled.iterdir()} == {"root", "private"}
    assert list((walled / "private").iterdir()) == []
    assert {path.name for path in (walled / "root").iterdir()} == {"box"}


@posix_only
@pytest.mark.parametrize("target", ["../private", "/", "box/../../private", "link", "."])
async def test_a_linked_folder_that_lies_elsewhere_is_none(
    storage: Storage, root: Path, target: str
) -> None:
    (root / "link").symlink_to(target)
    with refused("There is no folder link"):
        await storage.check("file:///link")
    with refused("There is no folder link"):
        await storage.read("file:///link", "key.txt")
    assert [file.name for file in (root.parent / "private").iterdir()] == ["key.txt"]


@posix_only
async def test_a_linked_file_is_not_followed_out(storage: Storage, root: Path) -> None:
    private = root.parent / "private" / "key.txt"
    for name, target in (("link.txt", private), ("circle.txt", "circle.txt")):
        (root / "box" / name).symlink_to(target)
        with refused():
            await storage.read(BOX, name)
    await storage.write(BOX, "link.txt", b"new")
    assert private.read_bytes() == b"private"
    assert not (root / "box" / "link.txt").is_symlink()


@posix_only
async def test_what_is_no_file_is_not_read(storage: Storage, root: Path) -> None:
    os.mkfifo(root / "box" / "pipe")  # reading it would wait for a writer
    (root / "box" / "folder").mkdir()
    with refused("pipe is not a file"):
        await storage.read(BOX, "pipe")
    with refused("directory"):
        await storage.read(BOX, "folder")
    with refused("The blob folder could not be written. "):
        await storage.write(BOX, "folder", b"")
    assert {path.name for path in (root / "box").iterdir()} == {"pipe", "folder"}


async def test_what_is_not_there_is_said(storage: Storage, root: Path) -> None:
    with refused("write to output blob container. There is no folder cellar", "Make it"):
        await storage.check("file:///cellar")
    (root / "file").touch()
    with refused("There is no folder file"):
        await storage.check("file:///file")
    with refused("No such file"):
        await storage.read(BOX, "devices.txt")
    (root / "box").rmdir()
    with refused("could not be written. There is no folder box"):
        await storage.write(BOX, "devices.txt", b"")


async def test_without_a_folder_the_option_is_named() -> None:
    with refused("--storage DIR", "make DIR/box"):
        await Storage(None, ()).check(BOX)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_can_not_be_written_is_said(storage: Storage, root: Path) -> None:
    (root / "box").chmod(0o500)
    try:
        with refused("Unauthorized to write to output blob container. ", "Permission denied"):
            await storage.check(BOX)
    finally:
        (root / "box").chmod(0o700)


@posix_only
async def test_a_write_that_fails_midway_leaves_the_old_file(storage: Storage, root: Path) -> None:
    await storage.write(BOX, "devices.txt", b"old")
    with small_files(), refused("The blob devices.txt could not be written. ", "too large"):
        await storage.write(BOX, "devices.txt", b"x" * 200_000)
    assert [file.name for file in (root / "box").iterdir()] == ["devices.txt"]
    assert await storage.read(BOX, "devices.txt") == b"old"


async def test_a_write_once_begun_is_done_even_if_nobody_waits(
    storage: Storage, root: Path
) -> None:
    for number in range(20):
        writing = asyncio.ensure_future(storage.write(BOX, f"{number}.txt", b"x" * 1_000_000))
        for _ in range(number % 4 + 1):
            await asyncio.sleep(0)
        writing.cancel()
        with suppress(asyncio.CancelledError):  # unless it was faster
            await writing
        # All of it is there, or none, and nothing else will come.
        files = list((root / "box").iterdir())
        assert all(file.stat().st_size == 1_000_000 for file in files)
        assert not any(file.name.endswith(".tmp") for file in files)


async def test_a_file_that_is_too_large_is_not_read(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRANSFER_BLOB_BYTES", 1_000)
    (root / "box" / "exact").write_bytes(b"x" * 1_000)
    (root / "box" / "over").write_bytes(b"x" * 1_001)
    assert len(await storage.read(BOX, "exact")) == 1_000
    with refused("more than 1000 bytes"):
        await storage.read(BOX, "over")


def test_a_storage_folder_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        with pytest.raises(StorageError, match=f"There is no folder .*{name}.*--storage"):
            Storage(tmp_path / name, ())


@posix_only
async def test_the_users_own_folder_may_be_a_link(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    await Storage(root.parent / "link", ()).check(BOX)


# --- storage accounts


class BlobService:
    """A blob service that knows one container, and keeps what it was asked."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.problems: list[str] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        self.requests.append((request.method, path))
        if query != SAS:
            self.problems.append(f"another SAS: {query}")
        if request.headers.get("x-ms-version") != "2020-10-02":
            self.problems.append("another version")
        if "Cookie" in request.headers or "Authorization" in request.headers:
            self.problems.append("a header too many")
        if self.answer is not None:
            return await self.answer(request)
        start, _, name = path.rpartition("/")
        if start not in ("/account/box", "/box"):
            return failure(404, "ContainerNotFound")
        return await self.serve(request, unquote(name))

    async def serve(self, request: web.Request, name: str) -> web.StreamResponse:
        if request.method == "PUT":
            if request.headers.get("x-ms-blob-type") != "BlockBlob":
                return failure(400, "MissingRequiredHeader")
            if "Content-Length" not in request.headers:
                return failure(411, "MissingContentLengthHeader")
            self.blobs[name] = await request.read()
            return web.Response(status=201)
        if name not in self.blobs:
            return failure(404, "BlobNotFound")
        if request.method == "DELETE":
            del self.blobs[name]
            return web.Response(status=202)
        return web.Response(body=self.blobs[name])


def failure(status: int, code: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>sig=... is what it was</Message></Error>"
    return web.Response(status=status, headers={"x-ms-error-code": code}, text=text)


@pytest.fixture
def service() -> BlobService:
    return BlobService()


@pytest_asyncio.fixture
async def server(service: BlobService) -> AsyncIterator[TestServer]:
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", service.handle)
    async with TestServer(app) as running:
        yield running


@pytest.fixture
def address(server: TestServer) -> str:
    return f"127.0.0.1:{server.port}"


@pytest.fixture
def url(address: str) -> str:
    return f"http://{address}/account/box?{SAS}"


@pytest.fixture
def account(address: str) -> Storage:
    return Storage(None, (address,))


async def test_a_container_of_an_account_is_written_and_read(
    account: Storage, service: BlobService, address: str, url: str
) -> None:
    await account.check(url)
    (put, probe), deleted = service.requests
    assert (put, *deleted) == ("PUT", "DELETE", probe)
    assert probe.startswith("/account/box/iothub-check-")
    assert service.blobs == {}
    content = b"a line\n" * 100_000
    await account.write(url, "devices.txt", content)
    assert service.blobs == {"devices.txt": content}
    assert await account.read(url, "devices.txt") == content
    # As a storage account in the cloud has it; and a slash at its end.
    assert await account.read(f"http://{address}/box/?{SAS}", "devices.txt") == content
    assert service.problems == []


async def test_names_of_blobs_are_encoded(account: Storage, service: BlobService, url: str) -> None:
    name = "a b?c#d&e%2fü"
    await account.write(url, name, b"x")
    assert service.blobs == {name: b"x"}
    assert await account.read(url, name) == b"x"
    assert service.requests[-1] == ("GET", "/account/box/a%20b%3Fc%23d%26e%252f%C3%BC")
    service.answer = created
    await account.write(url, "a/b", b"x")
    assert service.requests[-1] == ("PUT", "/account/box/a/b")


async def created(_: web.Request) -> web.Response:
    return web.Response(status=201)


async def test_what_the_service_refuses_is_said(
    account: Storage, service: BlobService, address: str, url: str
) -> None:
    with refused("write to output blob container. The storage answered 404 ContainerNotFound"):
        await account.check(f"http://{address}/account/cellar?{SAS}")
    with refused("The storage answered 404 BlobNotFound"):
        await account.read(url, "devices.txt")

    async def keep(request: web.Request) -> web.StreamResponse:
        if request.method == "DELETE":
            return failure(403, "AuthorizationPermissionMismatch")
        return web.Response(status=201)

    service.answer = keep
    with refused(
        "Unauthorized to delete from output blob container. "
        "The storage answered 403 AuthorizationPermissionMismatch. The SAS must allow to"
    ):
        await account.check(url)


async def redirect(request: web.Request) -> web.Response:
    return web.Response(status=307, headers={"Location": str(request.url.with_path("/box/other"))})


async def strange_code(_: web.Request) -> web.Response:
    return web.Response(status=400, headers={"x-ms-error-code": "<b>sig=1</b>"})


async def break_off(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def end_early(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x")
    assert request.transport is not None
    request.transport.close()
    return response


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (redirect, "The storage answered 307. "),
        (strange_code, "The storage answered 400. "),
        (break_off, "The storage closed the connection (ServerDisconnectedError)"),
        (end_early, "The storage closed the connection (ClientPayloadError)"),
    ],
)
async def test_an_odd_answer_is_an_error(
    account: Storage,
    service: BlobService,
    url: str,
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
    said: str,
) -> None:
    service.answer = answer
    with refused(said):
        await account.read(url, "devices.txt")
    assert set(service.requests) == {("GET", "/account/box/devices.txt")}


async def test_an_answer_without_end_is_cut_off(
    account: Storage, service: BlobService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRANSFER_BLOB_BYTES", 100_000)

    async def pour(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)

    service.answer = pour
    with refused("more than 100000 bytes"):
        await account.read(url, "devices.txt")


async def test_compressed_content_is_not_unpacked(
    account: Storage, service: BlobService, url: str
) -> None:
    async def packed(request: web.Request) -> web.Response:
        assert "Accept-Encoding" not in request.headers
        return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    service.answer = packed
    assert await account.read(url, "devices.txt") == b"\x1f\x8b"


async def test_a_service_that_is_silent_is_left(
    service: BlobService, address: str, url: str
) -> None:
    async def wait(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    service.answer = wait
    impatient = Storage(None, (address,), aiohttp.ClientTimeout(total=0.05))
    for call in (impatient.check(url), impatient.read(url, "x"), impatient.write(url, "x", b"")):
        with refused("The storage did not answer in time"):
            await call


async def test_a_service_that_does_not_run_is_said(
    account: Storage, server: TestServer, url: str
) -> None:
    await server.close()
    with refused("write to output blob container. The storage can't be reached", "does it run?"):
        await account.check(url)


async def test_a_service_without_tls_is_said(account: Storage, url: str) -> None:
    with refused("The storage does not speak TLS. Azurite does so with its options --cert"):
        await account.check(url.replace("http:", "https:"))


async def test_no_proxy_is_asked(
    account: Storage, service: BlobService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    await account.check(url)
    assert service.problems == []


# --- which hosts


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:10001", "127.0.0.1", "localhost", "localhost.:10000", "127.1:10000"),
        *("2130706433:10000", "0x7f.0.0.1:10000", "0177.0.0.1:10000", "[::ffff:127.0.0.1]:10000"),
        *("0.0.0.0:10000", "[::]:10000", "example.com:10000", "169.254.169.254"),
        *("account.blob.core.windows.net", "127.0.0.1.example.com:10000", "localhost:09999"),
    ],
)
async def test_no_other_host_is_called(host: str) -> None:
    storage = Storage(None, LOCAL_STORAGE_HOSTS)
    for scheme in ("http", "https"):
        with refused("The emulator does not call", "--storage-host"):
            await storage.check(f"{scheme}://{host}/account/box?{SAS}")


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost:10000@example.com/a/box?x", "http://user:p@localhost:10000/a/box?x"),
        *("http://example.com#@localhost:10000/a/box?x", "http://localhost:10000/a/box?x#y"),
        *("http://localhost:10000\\@example.com/a/box?x", "http://localhost:10000/a/../box?x"),
        *(
            "http://localhost:10000/?x",
            "http://localhost:10000?x",
            "http://localhost:10000/a/b/c?x",
        ),
        *("http://localhost:10000/a%2Fbox?x", "http://localhost:10000/a/box.txt?x", "http:///a?x"),
        *("ftp://localhost:10000/a/box?x", "//localhost:10000/a/box?x", "http:localhost:10000/a?x"),
        *("http://localhost:10000/a/box?x\r\nHost: y", "http://localhost:10000/a/box?x y"),
        *("http://localhost:10000/a/box?{}", "http://localhost:10000/a/{0}?x", "http://ü/a?x"),
    ],
)
async def test_a_url_that_could_be_read_in_two_ways_is_none(url: str) -> None:
    with refused("The container is neither file:///NAME nor a URL such as"):
        await Storage(None, LOCAL_STORAGE_HOSTS).check(url)


@pytest.mark.parametrize("url", ["http://localhost:10000/a/box", "http://[::1]:10000/box/"])
async def test_a_url_without_a_sas_is_said_to_lack_it(url: str) -> None:
    with refused("The URL has no SAS"):
        await Storage(None, LOCAL_STORAGE_HOSTS).check(url)


@pytest.mark.parametrize(
    ("host", "good", "bad"),
    [
        ("azurite", ["http://azurite", "https://AZURITE:443"], ["http://azurite:10000"]),
        ("Azurite:10000", ["http://azurite:10000", "https://azurite:10000"], ["http://azurite"]),
        ("[::2]:1", ["http://[::2]:1"], ["http://[::2]"]),
    ],
)
async def test_hosts_can_be_named(
    host: str, good: list[str], bad: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def no_call(self: aiohttp.ClientSession, verb: str, url: object, **_: object) -> None:
        called.append(str(url))
        raise aiohttp.ClientError

    monkeypatch.setattr(aiohttp.ClientSession, "request", no_call)
    storage = Storage(None, (host,))
    for start in good:
        with refused("The storage closed the connection"):
            await storage.read(f"{start}/account/box?{SAS}", "devices.txt")
    assert len(called) == len(good)
    assert all(each.endswith(f"/account/box/devices.txt?{SAS}") for each in called)
    for start in bad:
        with refused("does not call"):
            await storage.read(f"{start}/account/box?{SAS}", "devices.txt")
    assert len(called) == len(good)


@pytest.mark.parametrize(
    "host", ["", "http://x", "x:", "x:y", "x:70000", "x/y", "a b", "::1", "user@x", "x?y"]
)
def test_a_host_that_is_none_is_said(host: str) -> None:
    with pytest.raises(StorageError, match=r"Invalid host of a storage .*: use HOST or"):
        Storage(None, (host,))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_a_hub_on_loopback_may_use_a_local_storage_emulator(host: str) -> None:
    assert Settings(host=host).allowed_storage_hosts == LOCAL_STORAGE_HOSTS
    named = Settings(host=host, storage_hosts=("azurite:10000",))
    assert named.allowed_storage_hosts == (*LOCAL_STORAGE_HOSTS, "azurite:10000")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "my-machine"])
def test_a_hub_that_others_reach_uses_what_is_named_alone(host: str) -> None:
    assert Settings(host=host).allowed_storage_hosts == ()
    named = Settings(host=host, storage_hosts=("localhost:10000",))
    assert named.allowed_storage_hosts == ("localhost:10000",)
