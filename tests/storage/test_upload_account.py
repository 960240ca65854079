"""Uploads into an account: what goes wrong, with a small blob service of the test's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from emulator.hub.core.errors import InvalidStorageEndpointOrBlob, ServiceUnavailable
from emulator.net import certificates
from emulator.storage import blob_sas
from emulator.storage.connection_string import parse
from emulator.storage.upload_account import AccountUploads
from tests.clock import START, ManualClock

KEY = "c2VjcmV0"
HOUR = timedelta(hours=1)


class Service:
    """A blob service that answers as a test says."""

    def __init__(self) -> None:
        self.answer = web.Response(status=200)
        self.requests: list[web.BaseRequest] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        return self.answer


@pytest.fixture
def service() -> Service:
    return Service()


@pytest_asyncio.fixture
async def endpoint(service: Service) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}/account"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificates.prepare(tmp_path_factory.mktemp("ca"), ("localhost",)).bundle


def uploads_at(endpoint: str, bundle: Path) -> AccountUploads:
    account = parse(f"AccountName=account;AccountKey={KEY};BlobEndpoint={endpoint}")
    return AccountUploads(account, ManualClock(), bundle)


@pytest.fixture
def uploads(endpoint: str, bundle: Path) -> AccountUploads:
    return uploads_at(endpoint, bundle)


async def prepared(uploads: AccountUploads) -> None:
    """Wait until the container is there, or an attempt has failed."""
    uploads.prepare()
    if uploads._preparing is not None:
        await uploads._preparing


async def test_the_container_is_made_once(uploads: AccountUploads, service: Service) -> None:
    service.answer = web.Response(status=201)
    await prepared(uploads)
    await prepared(uploads)
    (request,) = service.requests
    assert (request.method, request.path) == ("PUT", "/account/iothub-uploads")
    assert request.query["restype"] == "container"
    assert (request.query["ss"], request.query["srt"], request.query["sp"]) == ("b", "c", "c")


async def test_a_container_that_is_there_is_used(uploads: AccountUploads, service: Service) -> None:
    service.answer = web.Response(status=409, headers={"x-ms-error-code": "ContainerAlreadyExists"})
    await prepared(uploads)
    service.answer = web.Response(status=403)
    await prepared(uploads)
    assert len(service.requests) == 1


async def test_a_container_that_can_not_be_made_is_tried_again(
    uploads: AccountUploads, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.answer = web.Response(status=403, headers={"x-ms-error-code": "AuthorizationFailure"})
    await prepared(uploads)
    assert "Can't create the container" in caplog.text
    assert "The storage answered 403 AuthorizationFailure." in caplog.text
    assert "sig" not in caplog.text
    service.answer = web.Response(status=201)
    uploads.grant("d/x", START, START + HOUR)
    assert uploads._preparing is not None
    await uploads._preparing
    assert len(service.requests) == 2


async def test_a_token_has_the_time_of_the_machine(uploads: AccountUploads) -> None:
    """The clock of the hub can be days ahead, and the account knows nothing of that."""
    ahead = START + timedelta(days=3)
    grant = uploads.grant("d/x y", ahead, ahead + HOUR)
    await uploads.stop()
    assert grant.host_name.endswith("/account")
    assert grant.container == "iothub-uploads"
    blob = blob_sas.Blob("account", "iothub-uploads", "d/x y")
    end = START + HOUR
    fields = blob_sas.verify(grant.sas_token[1:], blob, b"secret", end - timedelta(seconds=1))
    assert fields["sp"] == "rw"
    with pytest.raises(blob_sas.SasError):
        blob_sas.verify(grant.sas_token[1:], blob, b"secret", end)


async def test_a_blob_is_found(uploads: AccountUploads, service: Service, endpoint: str) -> None:
    headers = {"Content-Length": "5", "Last-Modified": "Sat, 31 Jan 2026 14:46:08 GMT"}
    service.answer = web.Response(status=200, headers=headers, body=b"12345")
    found = await uploads.find("d/x y?")
    assert found is not None
    assert found.uri == f"{endpoint}/iothub-uploads/d/x%20y%3F"
    assert (found.size, found.modified) == (5, START)
    assert service.requests[0].method == "HEAD"
    assert service.requests[0].query["sp"] == "r"


async def test_a_blob_that_is_missing(uploads: AccountUploads, service: Service) -> None:
    service.answer = web.Response(status=404)
    assert await uploads.find("d/x") is None


@pytest.mark.parametrize("status", [302, 403, 500])
async def test_a_refusal_of_the_account(
    uploads: AccountUploads, service: Service, status: int
) -> None:
    headers = {"x-ms-error-code": "Reason", "Location": "http://127.0.0.1:1/x"}
    service.answer = web.Response(status=status, headers=headers)
    with pytest.raises(InvalidStorageEndpointOrBlob, match=f"it answered {status} Reason"):
        await uploads.find("d/x")
    assert len(service.requests) == 1


async def test_an_answer_that_is_not_one_of_a_blob(
    uploads: AccountUploads, service: Service
) -> None:
    with pytest.raises(ServiceUnavailable, match="not one of a blob"):
        await uploads.find("d/x")


@pytest.mark.parametrize(
    ("scheme", "port", "text"),
    [
        ("http", "1", "can't be reached .*: does it run?"),
        ("https", None, "does not speak TLS. Azurite does so with its options --cert and --key"),
    ],
)
async def test_an_account_that_can_not_be_reached(
    endpoint: str,
    bundle: Path,
    caplog: pytest.LogCaptureFixture,
    scheme: str,
    port: str | None,
    text: str,
) -> None:
    address = endpoint.removeprefix("http://")
    if port is not None:
        address = f"127.0.0.1:{port}/account"
    uploads = uploads_at(f"{scheme}://{address}", bundle)
    with pytest.raises(ServiceUnavailable, match=text) as caught:
        await uploads.find("d/x")
    assert "sig" not in str(caught.value)
    await prepared(uploads)
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "sig" not in record.getMessage()
