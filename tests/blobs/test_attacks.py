"""What no token allows, and requests that are wrong on purpose."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from emulator import Emulator
from emulator.hub.core import limits
from emulator.net import http_connection
from emulator.storage.blob_folder import BlobFolder
from emulator.storage.upload_folder import CONTAINER
from tests.blobs.support import BLOCK_BLOB, Blobs, Place, target, uploads
from tests.support import PATIENCE, second_hub, small_files, trust, wait_until

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")


def unfinished(emulator: Emulator) -> list[Path]:
    """Return the files that are not complete."""
    folder = emulator.uploads_folder
    assert folder is not None
    new = folder / ".iothub" / "new"
    return list(new.iterdir()) if new.exists() else []


@contextmanager
def untouched(emulator: Emulator) -> Iterator[None]:
    """Expect that nothing is written in the block."""
    before = set(uploads(emulator).folder.path.rglob("*"))
    yield
    assert set(uploads(emulator).folder.path.rglob("*")) == before


# --- names that would lead elsewhere


@pytest.mark.parametrize(
    "name",
    [
        "../../{}",
        "d/../../../{}",
        "d/./{}",
        "/{}",
        "/etc/{}",
        "d/{}\0.txt",
        r"..\..\{}",
        r"c:\{}",
        "d/.iothub/records/{}",
        ".iothub/new/{}",
        "d//{}",
        "d/{}/",
        "d/CON.{}",
        "d/{}:stream",
        "~/{}",
        "d/{}\r\nx-evil: 1",
        "d/%2e%2e/{}",
        "d/\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/{}",
        "d/{}\u202egpj.exe",
    ],
)
def test_each_name_is_a_file_inside(emulator: Emulator, tmp_path: Path, name: str) -> None:
    """The hub refuses some of these names; a blob can have each of them."""
    with second_hub(emulator, storage=tmp_path) as hub, Blobs(hub) as blobs:
        place = Place.at(hub, name.format(uuid.uuid4().hex))
        assert blobs.put(place, b"content").status == 201
        assert blobs.read(place).body == b"content"
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert sorted(each.read_bytes() == b"content" for each in files) == [False, True]
    assert [each.name for each in tmp_path.iterdir()] == [CONTAINER]


@pytest.mark.parametrize("character", ["\N{HIRAGANA LETTER A}", "\N{GRINNING FACE}", "%", "/a"])
def test_the_longest_name_is_written_and_read(
    emulator: Emulator, blobs: Blobs, character: str
) -> None:
    name = f"d/{character * limits.BLOB_NAME_LENGTH}"[: limits.BLOB_NAME_LENGTH]
    place = Place.at(emulator, name)
    assert blobs.put(place, b"x").status == 201
    assert blobs.read(place).body == b"x"


@pytest.mark.parametrize(
    "path",
    [
        "/{container}/{device}/../{name}",
        "/{container}/{device}/%2e%2e/{device}/{name}",
        "/{container}/../{container}/{device}/{name}",
        "/{container}/./{device}/{name}",
        "/./{container}/{device}/{name}",
        "//{container}/{device}/{name}",
        "/{container}//{device}/{name}",
        "/{container}/{device}/{name}/",
        "/{container}/{device}/{name}%00",
        "/{container}/{device}/{name}%20",
        "/{container}%2F{device}%2F{name}",
        "/{container}/{device}%5C{name}",
        "/{container}/{device}/{upper}",
        "/{upper_container}/{device}/{name}",
        "/{container}/{device}",
        "/other/{device}/{name}",
        "/devstoreaccount1/{container}/{device}/{name}",
    ],
)
def test_a_token_does_not_open_another_path(
    blobs: Blobs, emulator: Emulator, place: Place, path: str
) -> None:
    device, _, name = place.name.partition("/")
    filled = path.format(
        container=CONTAINER,
        upper_container=CONTAINER.upper(),
        device=device,
        name=name,
        upper=name.upper(),
    )
    with untouched(emulator):
        for verb in ("PUT", "GET", "DELETE"):
            answer = blobs.send(verb, f"{filled}?{place.token}", b"evil", BLOCK_BLOB)
            assert answer.error == "403 AuthenticationFailed"
    assert "Signature did not match" in answer.detail("AuthenticationErrorDetail")


@pytest.mark.parametrize("written", ["{container}/{device}%2F{name}", "{container}/{escaped}"])
def test_forms_of_the_same_path(blobs: Blobs, place: Place, file: Path, written: str) -> None:
    device, _, name = place.name.partition("/")
    escaped = "".join(f"%{ord(each):02x}" for each in place.name)
    path = written.format(container=CONTAINER, device=device, name=name, escaped=escaped)
    assert blobs.send("PUT", f"/{path}?{place.token}", b"x", BLOCK_BLOB).status == 201
    assert file.read_bytes() == b"x"


@posix_only
@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_are_not_followed(
    emulator: Emulator, blobs: Blobs, place: Place, file: Path, tmp_path: Path, what: str
) -> None:
    secret = tmp_path / "photo.jpg"
    secret.write_bytes(b"secret")
    if what == "file":
        file.parent.mkdir()
        file.symlink_to(secret)
    else:
        file.parent.symlink_to(tmp_path)
    assert blobs.read(place).error == "404 BlobNotFound"
    assert blobs.put(place, b"uploaded").status == 201
    assert blobs.read(place).body == b"uploaded"
    assert secret.read_bytes() == b"secret"
    assert [each.name for each in tmp_path.iterdir()] == ["photo.jpg"]


@posix_only
def test_a_file_that_becomes_a_link_is_no_blob(
    blobs: Blobs, place: Place, file: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    blobs.put(place, b"x")
    file.unlink()
    file.symlink_to(secret)
    assert blobs.read(place).error == "404 BlobNotFound"
    assert blobs.put(place, b"y").status == 201
    assert secret.read_bytes() == b"secret"


# --- tokens


def test_a_request_without_a_token(blobs: Blobs, place: Place) -> None:
    blobs.put(place, b"x")
    for verb in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        answer = blobs.send(verb, target(place).partition("?")[0], b"x" if verb == "PUT" else None)
        assert answer.status == 401
        assert answer.headers["x-ms-error-code"] == "NoAuthenticationInformation"
        assert answer.headers["WWW-Authenticate"]
    refused = blobs.send(
        "GET", target(place).partition("?")[0], headers={"Authorization": "SharedKey a:b"}
    )
    assert refused.error == "403 AuthenticationFailed"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("sp=rw", "sp=rwd"),
        ("se=20", "se=21"),
        ("sr=b", "sr=c"),
        ("sp=rw", "sp=rw&sp=rwd"),
        ("sig=", "sig=A&sig="),
        ("sig=", "sig=%00"),
    ],
)
def test_a_changed_token(blobs: Blobs, place: Place, file: Path, before: str, after: str) -> None:
    assert before in place.token
    changed = Place(place.name, place.token.replace(before, after))
    assert blobs.put(changed, b"x").error == "403 AuthenticationFailed"
    assert not file.exists()


def test_a_token_of_another_hub(blobs: Blobs, emulator: Emulator, place: Place) -> None:
    with second_hub(emulator) as other, Blobs(other) as others:
        elsewhere = Place.at(other, place.name)
        assert blobs.put(elsewhere, b"x").error == "403 AuthenticationFailed"
        assert others.put(place, b"x").error == "403 AuthenticationFailed"
        assert others.put(elsewhere, b"x").status == 201
        other.reset()
        assert others.put(elsewhere, b"x").error == "403 AuthenticationFailed"


def test_a_token_expires_by_the_clock_of_the_hub(emulator: Emulator) -> None:
    with second_hub(emulator) as hub, Blobs(hub) as blobs:
        place = Place.at(hub, "d/x")
        hub.clock.advance(seconds=60 * 60 - 10)
        assert blobs.put(place, b"x").status == 201
        hub.clock.advance(seconds=10)
        answer = blobs.read(place)
        assert answer.error == "403 AuthenticationFailed"
        assert "Signature not valid in the specified time frame: Start [] - Expiry [" in (
            answer.detail("AuthenticationErrorDetail")
        )


# --- bodies


class Raw:
    """A connection of bytes."""

    def __init__(self, emulator: Emulator) -> None:
        assert emulator.uploads_port is not None
        address = (emulator.host_name, emulator.uploads_port)
        plain = socket.create_connection(address, timeout=PATIENCE)
        self._socket = trust(emulator).wrap_socket(plain, server_hostname=emulator.host_name)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def head(self, verb: str, place: Place, *headers: str, query: str = "") -> None:
        """Send the head of a request."""
        lines = [f"{verb} {target(place, query)} HTTP/1.1", "Host: x", *headers]
        self.send("\r\n".join([*lines, "x-ms-blob-type: BlockBlob", "", ""]).encode())

    def answer(self) -> bytes:
        """Receive until an answer has ended its head, or the connection ends."""
        received = b""
        while b"\r\n\r\n" not in received:
            data = self._socket.recv(65536)
            if not data:
                break
            received += data
        return received

    def rest(self) -> bytes:
        """Receive until the connection ends."""
        received = b""
        try:
            while data := self._socket.recv(65536):
                received += data
        except OSError:
            pass
        return received

    def abort(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def raw(emulator: Emulator) -> Iterator[Raw]:
    with Raw(emulator) as connection:
        yield connection


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ((), 411, "MissingContentLengthHeader"),
        (("Transfer-Encoding: chunked",), 411, "MissingContentLengthHeader"),
        (("Content-Length: 5243000000",), 413, "RequestBodyTooLarge"),
        ((f"Content-Length: {10**18}",), 413, "RequestBodyTooLarge"),
        (("Content-Length: x",), 400, "InvalidInput"),
        (("Content-Length: -1",), 400, "InvalidInput"),
        (("Content-Length: 1", "Content-Length: 2"), 400, "InvalidInput"),
        (("Content-Length: 1", "Transfer-Encoding: chunked"), 400, "InvalidInput"),
    ],
)
def test_lengths_of_a_body(
    raw: Raw, place: Place, file: Path, headers: tuple[str, ...], status: int, code: str
) -> None:
    raw.head("PUT", place, *headers)
    answer = raw.answer().decode()
    assert answer.split(" ", 2)[1] == str(status)
    assert f"x-ms-error-code: {code}\r\n" in answer
    assert not file.exists()


def test_nothing_is_invited_that_is_refused(raw: Raw, place: Place) -> None:
    changed = Place(place.name, place.token.replace("sp=rw", "sp=rwd"))
    raw.head("PUT", changed, "Expect: 100-continue", "Content-Length: 100000000")
    assert raw.answer().startswith(b"HTTP/1.1 403 ")


def test_a_client_can_wait_for_an_invitation(raw: Raw, place: Place, file: Path) -> None:
    raw.head("PUT", place, "Expect: 100-continue", "Content-Length: 5")
    assert raw.answer() == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.send(b"hello")
    assert raw.answer().startswith(b"HTTP/1.1 201 ")
    assert file.read_bytes() == b"hello"


@pytest.mark.parametrize("query", ["", "comp=block&blockid=AA%3D%3D"])
def test_an_upload_that_is_cancelled_leaves_nothing(
    emulator: Emulator, raw: Raw, place: Place, file: Path, blobs: Blobs, query: str
) -> None:
    raw.head("PUT", place, "Content-Length: 10000000", query=query)
    raw.send(b"x" * 2_000_000)
    wait_until(lambda: bool(unfinished(emulator)))
    raw.abort()
    wait_until(lambda: not unfinished(emulator))
    assert not file.exists()
    assert blobs.call("GET", place, query="comp=blocklist").error == "404 BlobNotFound"


def test_the_end_of_the_hub_ends_uploads(emulator: Emulator, tmp_path: Path) -> None:
    hub = second_hub(emulator, data_dir=tmp_path)
    hub.__enter__()
    with Raw(hub) as raw:
        raw.head("PUT", Place.at(hub, "d/x"), "Content-Length: 10000000")
        raw.send(b"x" * 2_000_000)
        wait_until(lambda: bool(unfinished(hub)))
        folder, begin = hub.uploads_folder, time.monotonic()
        hub.__exit__()
    assert time.monotonic() - begin < 5
    assert folder == tmp_path / "uploads" / hub.settings.host
    assert list((folder / ".iothub" / "new").iterdir()) == []


def test_a_slow_body_has_a_deadline(
    emulator: Emulator, raw: Raw, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection.limits, "HTTP_REQUEST_TIMEOUT", 1)
    with Raw(emulator) as slow, Raw(emulator) as steady:
        slow.head("PUT", place, "Content-Length: 10000000")
        steady.head("PUT", place, f"Content-Length: {300_000 * 8}")
        slow.send(b"x")
        # More than the deadline in all; each part has the time of its own.
        for _ in range(8):
            steady.send(b"x" * 300_000)
            time.sleep(0.3)
        assert steady.answer().startswith(b"HTTP/1.1 201 ")
        assert not slow.answer().startswith(b"HTTP/1.1 2")
    wait_until(lambda: not unfinished(emulator))


def test_a_reader_that_does_not_read_has_a_deadline(
    emulator: Emulator,
    blobs: Blobs,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    size = 30_000_000
    assert blobs.put(place, b"x" * size).status == 201
    monkeypatch.setattr(http_connection.limits, "HTTP_REQUEST_TIMEOUT", 0.5)
    caplog.set_level("INFO", "emulator.blobs")
    with Raw(emulator) as slow:
        slow.head("GET", place)
        wait_until(lambda: "ended early" in caplog.text)
        received = slow.rest()
        assert received.startswith(b"HTTP/1.1 200 ")
        assert len(received) < size
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_a_file_that_becomes_shorter_ends_the_connection(
    emulator: Emulator, blobs: Blobs, place: Place, file: Path
) -> None:
    size = 30_000_000
    assert blobs.put(place, b"x" * size).status == 201
    with Raw(emulator) as reader:
        reader.head("GET", place)
        assert reader.answer().startswith(b"HTTP/1.1 200 ")
        os.truncate(file, 1)
        assert len(reader.rest()) < size


def test_a_large_body_that_is_refused(blobs: Blobs, place: Place, file: Path) -> None:
    """The client sends all of it, and then it receives the reason."""
    changed = Place(place.name, place.token.replace("sp=rw", "sp=rwd"))
    assert blobs.put(changed, b"x" * 20_000_000).error == "403 AuthenticationFailed"
    assert not file.exists()
    assert blobs.put(place, b"x" * 20_000_000).status == 201


def test_uploads_at_once_are_whole(emulator: Emulator, place: Place, file: Path) -> None:
    sizes = [3_000_000 + each for each in range(6)]
    answers: list[int] = []

    def put(number: int) -> None:
        with Blobs(emulator) as blobs:
            body = bytes([number]) * sizes[number]
            answers.append(blobs.put(place, body).status)

    threads = [threading.Thread(target=put, args=(each,)) for each in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [201] * len(sizes)
    content = file.read_bytes()
    assert len(set(content)) == 1
    assert len(content) == sizes[content[0]]
    assert unfinished(emulator) == []


def test_one_of_many_creates_a_blob(emulator: Emulator, place: Place) -> None:
    answers: list[int] = []

    def put() -> None:
        with Blobs(emulator) as blobs:
            answers.append(blobs.put(place, os.urandom(500_000), {"If-None-Match": "*"}).status)

    threads = [threading.Thread(target=put) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answers) == [201, *[409] * 5]


def test_many_blocks(blobs: Blobs, place: Place, file: Path) -> None:
    ids = [f"{each:05}" for each in range(500)]
    for each in ids:
        assert blobs.stage(place, each, each.encode()).status == 201
    assert blobs.commit(place, *reversed(ids)).status == 201
    assert file.read_bytes() == "".join(reversed(ids)).encode()


def test_a_large_block_list_has_a_bound(raw: Raw, place: Place) -> None:
    length = limits.UPLOAD_BLOCK_LIST_BYTES + 1
    raw.head("PUT", place, f"Content-Length: {length}", query="comp=blocklist")
    assert raw.answer().startswith(b"HTTP/1.1 413 ")


@posix_only
@pytest.mark.parametrize("blocks", [False, True])
def test_a_full_disk(
    emulator: Emulator, blobs: Blobs, place: Place, file: Path, blocks: bool
) -> None:
    blobs.put(place, b"before")
    with small_files(1_000_000):
        if blocks:
            for name in "ab":
                assert blobs.stage(place, name, b"x" * 900_000).status == 201
            refused = blobs.commit(place, "a", "b")
        else:
            refused = blobs.put(place, b"x" * 2_000_000)
    assert refused.error == "507 InsufficientStorage"
    assert file.read_bytes() == b"before"
    assert blobs.read(place).body == b"before"
    assert unfinished(emulator) == []
    if blocks:
        assert blobs.commit(place, "a", "b").status == 201
        assert len(blobs.read(place).body) == 1_800_000


def test_a_folder_that_a_person_removes_is_made_again(emulator: Emulator, tmp_path: Path) -> None:
    with second_hub(emulator, storage=tmp_path) as hub, Blobs(hub) as blobs:
        place = Place.at(hub, "d/x")
        assert blobs.stage(place, "a", b"x").status == 201
        shutil.rmtree(tmp_path / CONTAINER)
        assert blobs.put(place, b"x").status == 201
        assert blobs.read(place).body == b"x"
        shutil.rmtree(tmp_path / CONTAINER)
        assert blobs.stage(place, "other", b"y").status == 201
        assert blobs.commit(place, "other").status == 201
        assert blobs.read(place).body == b"y"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_can_not_be_written(
    blobs: Blobs,
    place: Place,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert blobs.put(place, b"before").status == 201

    def refuse(_: BlobFolder) -> None:
        raise OSError(number, os.strerror(number), "folder/file")

    with monkeypatch.context() as patched:
        patched.setattr(BlobFolder, "create", refuse)
        assert blobs.put(place, b"x").error == "507 FolderNotWritable"
        assert blobs.stage(place, "a", b"x").error == "507 FolderNotWritable"
    assert "folder/file" in caplog.text
    assert blobs.read(place).body == b"before"


# --- blocks that are never committed


def test_abandoned_blocks_are_deleted_after_a_week(emulator: Emulator) -> None:
    with second_hub(emulator) as hub, Blobs(hub) as blobs:
        assert hub.uploads_folder is not None
        blocks = hub.uploads_folder / ".iothub" / "blocks"
        week = limits.UPLOAD_BLOCK_LIFE
        assert blobs.stage(Place.at(hub, "d/x"), "a", b"x").status == 201
        hub.clock.advance(seconds=week - 2 * 60 * 60)
        assert len(list(blocks.iterdir())) == 1
        assert blobs.stage(Place.at(hub, "d/y"), "a", b"x").status == 201
        hub.clock.advance(seconds=4 * 60 * 60)
        wait_until(lambda: len(list(blocks.iterdir())) == 1)
        hub.clock.advance(seconds=week)
        wait_until(lambda: not list(blocks.iterdir()))


# --- what is not TLS, and what is not HTTP


def test_other_bytes_end_the_connection(emulator: Emulator) -> None:
    assert emulator.uploads_port is not None
    address = (emulator.host_name, emulator.uploads_port)
    with socket.create_connection(address, timeout=PATIENCE) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while plain.recv(1000):  # OpenSSL can send an alert
            pass
    with Raw(emulator) as raw:
        raw.send(b"\x00\x01\x02\r\n\r\n")
        assert raw.answer().startswith(b"HTTP/1.0 400 ")


def test_no_query_makes_the_service_fail(
    emulator: Emulator, blobs: Blobs, caplog: pytest.LogCaptureFixture
) -> None:
    with untouched(emulator):
        for path in ("/%", "/%ff", "/a/%c3%28", "/a/%00", "/" + quote("é"), "/a/" + "b" * 5_000):
            for query in ("", "sig", "sig=%ff", "sig=a&sv=%00", "&&=&sig==", "sig=a&sv=2020-12-06"):
                answer = blobs.send("GET", f"{path}?{query}")
                assert answer.status in (400, 401, 403), (path, query)
    assert not [each for each in caplog.records if each.levelname == "ERROR"]
