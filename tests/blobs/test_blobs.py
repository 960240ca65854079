"""The operations on blobs, over HTTPS without an SDK."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
import sys
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from emulator import Emulator
from emulator.hub.core import limits
from emulator.storage.upload_folder import CONTAINER
from tests.blobs.support import BLOCK_BLOB, Blobs, Place, encoded, target

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


# --- whole blobs


def test_a_blob_is_a_file(blobs: Blobs, place: Place, file: Path) -> None:
    answer = blobs.put(place, b"hello")
    assert (answer.status, answer.body) == (201, b"")
    assert answer.headers["Content-MD5"] == md5(b"hello")
    assert answer.headers["x-ms-request-server-encrypted"] == "true"
    assert re.fullmatch('"0x[0-9A-F]{16}"', answer.headers["ETag"])
    assert file.read_bytes() == b"hello"

    read = blobs.read(place)
    assert (read.status, read.body) == (200, b"hello")
    for name in ("ETag", "Last-Modified", "Content-MD5"):
        assert read.headers[name] == answer.headers[name]
    assert read.headers["Content-Type"] == "application/octet-stream"
    assert read.headers["Accept-Ranges"] == "bytes"
    assert read.headers["x-ms-blob-type"] == "BlockBlob"
    assert read.headers["x-ms-lease-state"] == "available"
    assert parsedate_to_datetime(read.headers["x-ms-creation-time"])


def test_an_empty_blob(blobs: Blobs, place: Place, file: Path) -> None:
    assert blobs.put(place, b"").status == 201
    assert file.read_bytes() == b""
    read = blobs.read(place)
    assert (read.status, read.body, read.headers["Content-Length"]) == (200, b"", "0")
    assert blobs.read(place, Range="bytes=0-9").error == "416 InvalidRange"


def test_a_large_blob(blobs: Blobs, place: Place, file: Path) -> None:
    data = bytes(range(256)) * 50_000
    assert blobs.put(place, data, {"Content-MD5": md5(data)}).status == 201
    assert file.read_bytes() == data
    assert blobs.read(place).body == data


def test_properties_have_no_body(blobs: Blobs, place: Place) -> None:
    blobs.put(place, b"hello")
    whole, head = blobs.read(place), blobs.call("HEAD", place)
    assert (head.status, head.body) == (200, b"")
    for name, value in whole.headers.items():
        if name.lower() not in ("date", "x-ms-request-id"):
            assert head.headers[name] == value
    missing = blobs.call("HEAD", Place(place.name, place.token.replace("sp=rw", "sp=r")))
    assert (missing.status, missing.body) == (403, b"")
    assert missing.headers["x-ms-error-code"] == "AuthenticationFailed"


def test_what_a_client_says_of_a_blob(blobs: Blobs, place: Place) -> None:
    said = {
        "x-ms-blob-content-type": "image/jpeg",
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Encoding": "gzip",
        "x-ms-blob-content-language": "de",
        "x-ms-blob-content-disposition": "attachment",
        "x-ms-blob-cache-control": "no-cache",
        "x-ms-meta-Camera": "front, 2",
    }
    assert blobs.put(place, b"not gzip", said).status == 201
    read = blobs.read(place)
    assert read.body == b"not gzip"
    assert read.headers["Content-Type"] == "image/jpeg"
    assert read.headers["Content-Encoding"] == "gzip"
    assert read.headers["Content-Language"] == "de"
    assert read.headers["Content-Disposition"] == "attachment"
    assert read.headers["Cache-Control"] == "no-cache"
    assert read.headers["x-ms-meta-Camera"] == "front, 2"
    blobs.put(place, b"other")
    assert "x-ms-meta-Camera" not in blobs.read(place).headers


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"x-ms-blob-type": "BlockBlob", "Content-MD5": md5(b"other")}, "400 Md5Mismatch"),
        ({"x-ms-blob-type": "BlockBlob", "Content-MD5": "x"}, "400 InvalidMd5"),
        ({"x-ms-blob-type": "BlockBlob", "Content-MD5": "AAAA"}, "400 InvalidMd5"),
        ({}, "400 MissingRequiredHeader"),
        ({"x-ms-blob-type": "blob"}, "400 InvalidHeaderValue"),
        ({"x-ms-blob-type": "PageBlob"}, "501 NotImplemented"),
        ({"x-ms-blob-type": "AppendBlob"}, "501 NotImplemented"),
        ({**BLOCK_BLOB, "x-ms-version": "1"}, "400 InvalidHeaderValue"),
        ({**BLOCK_BLOB, "x-ms-meta-a-b": "x"}, "400 InvalidMetadata"),
        (
            {**BLOCK_BLOB, "x-ms-meta-a": "x" * 5_000, "x-ms-meta-b": "x" * 5_000},
            "400 MetadataTooLarge",
        ),
        ({**BLOCK_BLOB, "x-ms-meta-a": "x" * 9_000}, "400 InvalidInput"),
        ({**BLOCK_BLOB, "x-ms-blob-content-type": "\xff"}, "400 InvalidHeaderValue"),
        ({**BLOCK_BLOB, "x-ms-blob-content-md5": "AA=="}, "400 InvalidMd5"),
        ({**BLOCK_BLOB, "x-ms-copy-source": "https://x/y"}, "501 NotImplemented"),
        ({**BLOCK_BLOB, "x-ms-structured-body": "XSM/1.0"}, "501 NotImplemented"),
        ({**BLOCK_BLOB, "If-Modified-Since": "today"}, "400 InvalidHeaderValue"),
        (
            {**BLOCK_BLOB, "If-Modified-Since": f"1 Jan 2020 {'9' * 20}:00:00 GMT"},
            "400 InvalidHeaderValue",
        ),
    ],
)
def test_an_invalid_put_leaves_nothing(
    blobs: Blobs, place: Place, file: Path, headers: dict[str, str], error: str
) -> None:
    assert blobs.call("PUT", place, b"hello", headers).error == error
    assert blobs.read(place).error == "404 BlobNotFound"
    assert not file.exists()


@posix_only
def test_only_the_user_can_read_files(blobs: Blobs, place: Place, file: Path) -> None:
    blobs.put(place, b"x")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_versions_and_ids_of_requests(blobs: Blobs, place: Place) -> None:
    answer = blobs.put(place, b"x", {"x-ms-version": "2019-02-02", "x-ms-client-request-id": "a b"})
    assert answer.headers["x-ms-version"] == "2019-02-02"
    assert answer.headers["x-ms-client-request-id"] == "a b"
    assert re.fullmatch("[0-9a-f-]{36}", answer.headers["x-ms-request-id"])
    assert blobs.read(place).headers["x-ms-version"] == "2020-12-06"
    refused = blobs.send("GET", "/box/x", headers={"x-ms-client-request-id": "c"})
    assert refused.headers["x-ms-client-request-id"] == "c"


# --- ranges and conditions


@pytest.mark.parametrize(
    ("asked", "body", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=5-", b"56789", "bytes 5-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
        ("bytes=0-9", b"0123456789", "bytes 0-9/10"),
    ],
)
@pytest.mark.parametrize("name", ["Range", "x-ms-range"])
def test_ranges(
    blobs: Blobs, place: Place, name: str, asked: str, body: bytes, content_range: str
) -> None:
    blobs.put(place, b"0123456789")
    answer = blobs.call("GET", place, headers={name: asked})
    assert (answer.status, answer.body) == (206, body)
    assert answer.headers["Content-Range"] == content_range
    assert "Content-MD5" not in answer.headers
    assert answer.headers["x-ms-blob-content-md5"] == md5(b"0123456789")


@pytest.mark.parametrize("asked", ["bytes=-3", "bytes=1-2,4-5", "lines=1-2", "bytes=a-b"])
def test_other_ranges_are_ignored(blobs: Blobs, place: Place, asked: str) -> None:
    blobs.put(place, b"0123456789")
    answer = blobs.read(place, Range=asked)
    assert (answer.status, answer.body) == (200, b"0123456789")


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=4-3", "bytes=99999999999-"])
def test_ranges_that_are_not_there(blobs: Blobs, place: Place, asked: str) -> None:
    blobs.put(place, b"0123456789")
    answer = blobs.read(place, Range=asked)
    assert answer.error == "416 InvalidRange"
    assert answer.headers["Content-Range"] == "bytes */10"


def test_conditions_of_a_write(blobs: Blobs, place: Place, file: Path) -> None:
    assert blobs.put(place, b"1", {"If-Match": "*"}).error == "412 ConditionNotMet"
    first = blobs.put(place, b"1", {"If-None-Match": "*"})
    assert first.status == 201
    assert blobs.put(place, b"2", {"If-None-Match": "*"}).error == "409 BlobAlreadyExists"
    etag, modified = first.headers["ETag"], first.headers["Last-Modified"]
    assert blobs.put(place, b"2", {"If-None-Match": etag}).error == "412 ConditionNotMet"
    assert blobs.put(place, b"2", {"If-Match": '"0x1"'}).error == "412 ConditionNotMet"
    before = "Sat, 01 Jan 2000 00:00:00 GMT"
    assert blobs.put(place, b"2", {"If-Unmodified-Since": before}).error == "412 ConditionNotMet"
    assert blobs.put(place, b"2", {"If-Modified-Since": modified}).error == "412 ConditionNotMet"
    assert file.read_bytes() == b"1"
    second = blobs.put(place, b"2", {"If-Match": etag, "If-Unmodified-Since": modified})
    assert second.status == 201
    assert second.headers["ETag"] != etag
    assert blobs.put(place, b"3", {"If-Match": etag}).error == "412 ConditionNotMet"


def test_conditions_of_a_read(blobs: Blobs, place: Place) -> None:
    written = blobs.put(place, b"1")
    etag, modified = written.headers["ETag"], written.headers["Last-Modified"]
    for headers in ({"If-None-Match": etag}, {"If-Modified-Since": modified}):
        for verb in ("GET", "HEAD"):
            answer = blobs.call(verb, place, headers=headers)
            assert (answer.status, answer.body) == (304, b"")
            assert answer.headers["ETag"] == etag
    assert blobs.read(place, If_Match='"0x1"').error == "412 ConditionNotMet"
    assert blobs.read(place, If_Match=etag, If_None_Match='"0x1"').body == b"1"


# --- blocks


def test_blocks_become_a_blob(blobs: Blobs, place: Place, file: Path) -> None:
    for name in ("a", "c", "b"):
        answer = blobs.stage(place, name, name.encode() * 3)
        assert (answer.status, answer.headers["Content-MD5"]) == (201, md5(name.encode() * 3))
    assert blobs.read(place).error == "404 BlobNotFound"
    assert listed(blobs, place, "all") == ([], [("a", 3), ("b", 3), ("c", 3)])
    said = {"x-ms-blob-content-type": "text/plain", "Content-Type": "application/xml"}
    answer = blobs.commit(place, "b", "a", "a", headers=said)
    assert answer.status == 201
    assert file.read_bytes() == b"bbbaaaaaa"
    assert listed(blobs, place, "all") == ([("b", 3), ("a", 3), ("a", 3)], [])
    read = blobs.read(place)
    assert read.headers["Content-Type"] == "text/plain"
    assert read.headers["x-ms-blob-committed-block-count"] == "3"
    assert read.headers["ETag"] == answer.headers["ETag"]
    assert "Content-MD5" not in read.headers


def listed(blobs: Blobs, place: Place, kind: str) -> tuple[list[tuple[str, int]], ...]:
    """Return the committed and the uncommitted blocks."""
    answer = blobs.call("GET", place, query=f"comp=blocklist&blocklisttype={kind}")
    assert answer.status == 200, answer.body
    root = ElementTree.fromstring(answer.body)

    def read(block: ElementTree.Element) -> tuple[str, int]:
        name, size = (block.findtext(part) or "" for part in ("Name", "Size"))
        return base64.b64decode(name).decode(), int(size)

    return tuple([read(block) for block in part] for part in root)


def test_a_block_is_replaced(blobs: Blobs, place: Place, file: Path) -> None:
    blobs.stage(place, "a", b"old")
    blobs.stage(place, "a", b"newer")
    assert listed(blobs, place, "uncommitted") == ([("a", 5)],)
    assert blobs.commit(place, "a").status == 201
    assert file.read_bytes() == b"newer"


def test_committed_blocks_are_used_again(blobs: Blobs, place: Place, file: Path) -> None:
    for name in ("a", "b"):
        blobs.stage(place, name, name.encode() * 2)
    blobs.commit(place, "a", "b")
    blobs.stage(place, "b", b"new")
    assert blobs.commit(place, "b", "a", kind="Committed").status == 201
    assert file.read_bytes() == b"bbaa"
    # The list of uncommitted blocks ends with each commit.
    assert blobs.commit(place, "b", kind="Uncommitted").error == "400 InvalidBlockList"
    blobs.stage(place, "c", b"c")
    assert blobs.commit(place, "a", "c", "b").status == 201
    assert file.read_bytes() == b"aacbb"


def test_an_empty_list_is_an_empty_blob(blobs: Blobs, place: Place, file: Path) -> None:
    assert blobs.commit(place).status == 201
    assert file.read_bytes() == b""


def test_a_whole_blob_drops_blocks(blobs: Blobs, place: Place) -> None:
    blobs.stage(place, "a", b"a")
    blobs.put(place, b"whole")
    assert listed(blobs, place, "all") == ([], [])
    assert blobs.commit(place, "a").error == "400 InvalidBlockList"
    assert blobs.read(place).body == b"whole"


def test_block_lists_have_conditions(blobs: Blobs, place: Place) -> None:
    blobs.put(place, b"whole")
    blobs.stage(place, "a", b"a")
    refused = blobs.commit(place, "a", headers={"If-None-Match": "*"})
    assert refused.error == "409 BlobAlreadyExists"
    assert blobs.read(place).body == b"whole"
    assert blobs.commit(place, "a", headers={"If-Match": "*"}).status == 201


def test_block_ids_have_one_length(blobs: Blobs, place: Place) -> None:
    blobs.stage(place, "a", b"a")
    assert blobs.stage(place, "aa", b"a").error == "400 InvalidBlobOrBlock"
    assert blobs.stage(place, "b" * 64, b"a").error == "400 InvalidBlobOrBlock"
    blobs.commit(place, "a")
    assert blobs.stage(place, "b" * 64, b"a").status == 201


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("comp=block", "400 MissingRequiredQueryParameter"),
        ("comp=block&blockid=", "400 InvalidQueryParameterValue"),
        ("comp=block&blockid=!", "400 InvalidQueryParameterValue"),
        (f"comp=block&blockid={encoded('x' * 65)}", "400 InvalidQueryParameterValue"),
        ("comp=block&blockid=AA%3D%3D&blockid=AA%3D%3D", "400 InvalidQueryParameterValue"),
        ("comp=block&comp=blocklist&blockid=AA%3D%3D", "400 InvalidQueryParameterValue"),
        ("comp=blocks", "400 InvalidQueryParameterValue"),
        ("comp=", "400 InvalidQueryParameterValue"),
        ("comp=metadata", "501 NotImplemented"),
        ("comp=lease", "501 NotImplemented"),
        ("comp=tier", "501 NotImplemented"),
        ("comp=page", "501 NotImplemented"),
        ("restype=container", "501 NotImplemented"),
        ("snapshot=2026-01-01T00:00:00.0000000Z", "501 NotImplemented"),
    ],
)
def test_what_is_not_supported(blobs: Blobs, place: Place, query: str, error: str) -> None:
    assert blobs.call("PUT", place, b"x", BLOCK_BLOB, query).error == error


@pytest.mark.parametrize("verb", ["POST", "PATCH", "OPTIONS", "TRACE"])
def test_verbs_that_are_not_supported(blobs: Blobs, place: Place, verb: str) -> None:
    answer = blobs.call(verb, place)
    assert answer.error == "405 UnsupportedHttpVerb"
    assert answer.headers["Allow"] == "GET, HEAD, PUT, DELETE"


def test_an_empty_block_is_refused(blobs: Blobs, place: Place) -> None:
    assert blobs.stage(place, "a", b"").error == "400 InvalidHeaderValue"


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"", "400 InvalidXmlDocument"),
        (b"<BlockList>", "400 InvalidXmlDocument"),
        (b"<Blocks/>", "400 InvalidXmlDocument"),
        (b"<BlockList><Newest>YQ==</Newest></BlockList>", "400 InvalidXmlDocument"),
        (b"<BlockList><Latest>!</Latest></BlockList>", "400 InvalidBlockList"),
        (b"<BlockList><Latest/></BlockList>", "400 InvalidBlockList"),
        (b"<BlockList><Latest><a/>YQ==</Latest></BlockList>", "400 InvalidBlockList"),
        (b"<BlockList><Latest>Yg==</Latest></BlockList>", "400 InvalidBlockList"),
        (b"<BlockList><Committed>YQ==</Committed></BlockList>", "400 InvalidBlockList"),
        (
            b'<!DOCTYPE x [<!ENTITY a "YQ==">]><BlockList><Latest>&a;</Latest></BlockList>',
            "400 InvalidXmlDocument",
        ),
        ("<BlockList/>".encode("utf-16"), "400 InvalidXmlDocument"),
        (b"\xff", "400 InvalidXmlDocument"),
        (
            b"<BlockList>" + b"<Latest>YQ==</Latest>" * 50_001 + b"</BlockList>",
            "400 BlockListTooLong",
        ),
    ],
)
def test_an_invalid_block_list(blobs: Blobs, place: Place, document: bytes, error: str) -> None:
    blobs.stage(place, "a", b"a")
    assert blobs.call("PUT", place, document, query="comp=blocklist").error == error
    assert blobs.read(place).error == "404 BlobNotFound"
    assert listed(blobs, place, "uncommitted") == ([("a", 1)],)  # it can be tried again


def test_the_md5_of_a_block_list_is_checked(blobs: Blobs, place: Place) -> None:
    headers = {"Content-MD5": md5(b"other")}
    assert blobs.commit(place, headers=headers).error == "400 Md5Mismatch"


def test_the_list_of_a_blob_that_is_not_there(blobs: Blobs, place: Place) -> None:
    assert blobs.call("GET", place, query="comp=blocklist").error == "404 BlobNotFound"
    wrong = blobs.call("GET", place, query="comp=blocklist&blocklisttype=x")
    assert wrong.error == "400 InvalidQueryParameterValue"


def test_the_number_of_blocks_is_bounded(
    blobs: Blobs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UPLOAD_UNCOMMITTED_BLOCKS", 3)
    for name in "abc":
        assert blobs.stage(place, name, b"x").status == 201
    assert blobs.stage(place, "d", b"x").error == "409 BlockCountExceedsLimit"
    assert blobs.stage(place, "a", b"y").status == 201
    blobs.commit(place, "a")
    assert blobs.stage(place, "d", b"x").status == 201


# --- permissions


def test_what_a_device_can_not_do(blobs: Blobs, place: Place) -> None:
    blobs.put(place, b"x")
    assert blobs.call("DELETE", place).error == "403 AuthorizationPermissionMismatch"


def test_a_token_can_allow_to_delete(
    blobs: Blobs, emulator: Emulator, place: Place, file: Path
) -> None:
    deleter = place.allowing(emulator, "d")
    assert blobs.call("DELETE", deleter).error == "404 BlobNotFound"
    blobs.put(place, b"x")
    assert blobs.call("DELETE", deleter, headers={"If-Match": '"0x1"'}).status == 412
    assert blobs.call("DELETE", deleter).status == 202
    assert not file.exists()
    assert blobs.read(place).error == "404 BlobNotFound"
    assert blobs.read(deleter).error == "403 AuthorizationPermissionMismatch"


def test_a_reader_can_not_write(blobs: Blobs, emulator: Emulator, place: Place) -> None:
    reader = place.allowing(emulator, "r")
    for answer in (
        blobs.put(reader, b"x"),
        blobs.stage(reader, "a", b"x"),
        blobs.commit(reader, "a"),
    ):
        assert answer.error == "403 AuthorizationPermissionMismatch"


def test_a_token_can_allow_to_create_alone(
    blobs: Blobs, emulator: Emulator, place: Place, file: Path
) -> None:
    creator = place.allowing(emulator, "c")
    assert blobs.put(creator, b"1").status == 201
    assert blobs.put(creator, b"2").error == "403 AuthorizationPermissionMismatch"
    assert file.read_bytes() == b"1"


# --- files that a person changes


def test_a_file_that_was_changed_is_the_blob(blobs: Blobs, place: Place, file: Path) -> None:
    etag = blobs.put(place, b"old", {"x-ms-blob-content-type": "image/png"}).headers["ETag"]
    file.write_bytes(b"longer")
    read = blobs.read(place)
    assert (read.body, read.headers["Content-Type"]) == (b"longer", "application/octet-stream")
    assert read.headers["ETag"] != etag
    assert "Content-MD5" not in read.headers
    file.unlink()
    assert blobs.read(place).error == "404 BlobNotFound"
    assert blobs.put(place, b"again", {"If-None-Match": "*"}).status == 201
    assert file.read_bytes() == b"again"


def test_times_are_those_of_the_hub(
    blobs: Blobs, emulator: Emulator, place: Place, file: Path
) -> None:
    modified = parsedate_to_datetime(blobs.put(place, b"x").headers["Last-Modified"])
    assert abs((emulator.hub.clock.now() - modified).total_seconds()) < 60
    assert format_datetime(modified, usegmt=True) == blobs.read(place).headers["Last-Modified"]


def test_a_path_names_a_container_and_a_blob(blobs: Blobs, place: Place) -> None:
    blobs.put(place, b"x")
    assert target(place).startswith(f"/{CONTAINER}/")
    for path in ("", "/", f"/{CONTAINER}", f"/{CONTAINER}/", f"/other/{place.name}", "/$root/x"):
        answer = blobs.send("GET", f"{path or '/'}?{place.token}")
        assert answer.error == "403 AuthenticationFailed"
