"""The rules that every route shares: api-versions, headers, paths, bodies, HTTP and TLS."""

import gzip
import json
import re
import socket
import ssl
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime

import pytest
import requests

from emulator import Emulator
from emulator.http.route import Route
from emulator.http.routes import ROUTES
from emulator.hub.core import limits
from tests.http import support
from tests.http.route_table import ID, call, name_of
from tests.support import API_VERSION, Device, Service, second_hub

VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
VERSIONED = [route for route in ROUTES if not route.path.startswith("/_emulator")]
# The routes that read a JSON body: to abandon a message and to cancel a job need none.
WITH_BODY = [
    route
    for route in ROUTES
    if not route.for_device
    and route.verb in ("POST", "PUT", "PATCH")
    and not route.path.endswith(("/abandon", "/cancel", "/generateVerificationCode"))
]
PATCH = b'{"tags": {"a": 1}}'


def check_hubs_own(response: requests.Response) -> None:
    """Check that an error is the hub's, in the form of its route."""
    assert response.headers["iothub-errorcode"]
    assert response.headers["Content-Type"] == support.JSON_TYPE
    assert response.headers["Server"] == "Microsoft-HTTPAPI/2.0"
    body = response.json()
    assert "Message" in body or "errorCode" in body


def check_frameworks_own(response: requests.Response, status: int, text: str) -> None:
    """Check that an error is the web framework's: it has no code of the hub."""
    assert response.status_code == status
    assert "iothub-errorcode" not in response.headers
    assert response.headers["Content-Type"] == support.JSON_TYPE
    assert response.headers["Server"] == "Microsoft-HTTPAPI/2.0"
    if response.request.method != "HEAD":
        assert response.json() == {"Message": text}


@contextmanager
def connection_to(
    emulator: Emulator, context: ssl.SSLContext | None = None
) -> Iterator[ssl.SSLSocket]:
    """Open a TLS connection, on which a test can send any bytes."""
    address = (emulator.host_name, emulator.https_port)
    context = context or support.trust(emulator)
    with (
        socket.create_connection(address, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=emulator.host_name) as connection,
    ):
        yield connection


def exchange(emulator: Emulator, request: str, context: ssl.SSLContext | None = None) -> bytes:
    """Send a request as it is written, and read until the server closes the connection."""
    with connection_to(emulator, context) as connection:
        connection.sendall(request.encode(errors="surrogateescape"))
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head_of(
    emulator: Emulator, verb: str, path: str, *headers: str, host: str = "x", resource: str = ""
) -> str:
    """Write the head of an authorized request, which ends its connection."""
    token = support.policy_token(emulator, "iothubowner", resource=resource)
    lines = (
        f"{verb} {path}?api-version={API_VERSION} HTTP/1.1",
        *(f"Host: {host}", f"Authorization: {token}", "Connection: close"),
        *headers,
    )
    return "\r\n".join(lines) + "\r\n\r\n"


# --- api-version


@pytest.mark.parametrize("route", VERSIONED, ids=name_of)
def test_every_route_needs_an_api_version(
    service: Service, emulator: Emulator, device: Device, route: Route
) -> None:
    response = call(service, emulator, route, device, params={})
    assert support.check_error(response, 400, "InvalidProtocolVersion") == "BadRequest"


@pytest.mark.parametrize(
    ("version", "status"),
    [
        *((version, 200) for version in ("2016-02-03", "2016-11-14", "2018-04-01", "2018-06-30")),
        *((version, 200) for version in ("2019-10-01", "2020-03-13", "2020-05-31-preview")),
        *((version, 200) for version in ("2020-09-30", "2021-04-12", "2024-03-31")),
        # A version that is newer than all known ones is accepted.
        *((version, 200) for version in ("2024-04-01", "9999-12-31", "2035-12-31-preview")),
        # These versions never existed, or are not dates.
        *((version, 400) for version in ("1999-01-01", "0001-01-01", "2016-02-02", "2017-01-01")),
        *((version, 400) for version in ("2020-05-31", "2024-03-30", "2024-03-31-preview")),
        *((version, 400) for version in ("9999-99-99", "2035-02-30", "0000-00-00")),
        *((version, 400) for version in ("", "latest", "2021-4-12", "20210412", "2021-04-12-beta")),
        *((version, 400) for version in ("2021-04-12 ", "2021-04-12\n")),
        ("２０２１-04-12", 400),  # noqa: RUF001 - full-width digits
    ],
)
def test_an_api_version_existed_or_is_newer(
    service: Service, device: Device, version: str, status: int
) -> None:
    response = service.request("GET", f"/twins/{device.id}", params={"api-version": version})
    assert response.status_code == status
    if status == 400:
        text = support.check_error(response, 400, "InvalidProtocolVersion")
        assert text == "BadRequest"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("API-Version=2021-04-12", 200),
        ("Api-version=2021-04-12&top=1", 200),
        ("api%2Dversion=2021%2D04%2D12", 200),
        ("api-version=2021-04-12&api-version=2020-09-30", 200),
        ("api-version=2021-04-12&API-VERSION=1999-01-01", 400),
        ("api-version=&api-version=2021-04-12", 400),
        ("api_version=2021-04-12", 400),
        ("version=2021-04-12", 400),
        ("api-version", 400),
        ("api-version=2021-04-12;", 400),
        ("&&=&api-version=%32021-04-12", 200),
    ],
)
def test_the_parameter_of_an_api_version(service: Service, query: str, status: int) -> None:
    response = service.request("GET", f"/devices?{query}", params={})
    assert response.status_code == status, response.text


# --- headers


def test_every_answer_has_the_headers_of_a_hub(service: Service, device: Device) -> None:
    answers = {
        200: service.request("GET", f"/devices/{device.id}"),
        404: service.request("GET", "/devices/unknown"),
        204: service.request("DELETE", f"/devices/{device.id}", headers=support.ANY),
    }
    for status, response in answers.items():
        assert response.status_code == status
        assert response.headers["Server"] == "Microsoft-HTTPAPI/2.0"
        assert response.headers["Vary"] == "Origin"
        assert parsedate_to_datetime(response.headers["Date"])
        assert uuid.UUID(response.headers["x-ms-request-id"])
        assert ("iothub-errorcode" in response.headers) == (status == 404)
        if status != 204:
            assert response.headers["Content-Type"] == support.JSON_TYPE
    request_ids = {response.headers["x-ms-request-id"] for response in answers.values()}
    assert len(request_ids) == len(answers)
    assert (answers[204].headers["Content-Length"], answers[204].content) == ("0", b"")


# --- paths and verbs


@pytest.mark.parametrize(
    ("verb", "path"), [("GET", "/DEVICES/{}"), ("GET", "/devices/"), ("POST", "/TWINS/{}/Methods/")]
)
def test_the_case_of_a_path_and_a_slash_at_its_end_do_not_matter(
    service: Service, device: Device, verb: str, path: str
) -> None:
    json = {"methodName": "m"} if verb == "POST" else None
    response = service.request(verb, path.format(device.id), json=json)
    # The device is offline: the answer to a method is an error of its own route.
    assert response.status_code == (404 if verb == "POST" else 200)
    assert verb == "GET" or response.headers["iothub-errorcode"] == "DeviceNotOnline"


@pytest.mark.parametrize("path", ["/nothing", "/twins", "/devices/a/b", "//devices"])
def test_an_unknown_route_is_not_found(service: Service, path: str) -> None:
    response = service.request("GET", path)
    text = f"No HTTP resource was found that matches the request URI '{path}'."
    check_frameworks_own(response, 404, text)


@pytest.mark.parametrize("path", ["/a%0d%0ab", "/%ff", "/%C3%A4", "/a'\"b"])
def test_an_unknown_route_is_quoted_as_it_was_sent(emulator: Emulator, path: str) -> None:
    answer = exchange(emulator, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert f"request URI '{path}'" in json.loads(body)["Message"]


def verbs_of(path: str) -> set[str]:
    """Return the verbs of the routes that a path, with its ids filled in, fits."""
    segments = path.split("/")
    return {
        route.verb
        for route in ROUTES
        if len(parts := route.path.split("/")) == len(segments)
        and all(
            ID.match(part) or part == segment for part, segment in zip(parts, segments, strict=True)
        )
    }


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_a_wrong_verb_is_not_allowed_on_any_route(service: Service, path: str) -> None:
    filled = ID.sub("made-up", path)
    allowed = verbs_of(filled)
    for verb in VERBS:
        if verb not in allowed:
            response = service.request(verb, filled)
            text = f"The requested resource does not support http method '{verb}'."
            check_frameworks_own(response, 405, text)
            assert set(response.headers["Allow"].split(",")) == allowed


def test_an_answer_to_head_has_no_body(emulator: Emulator) -> None:
    answer = exchange(emulator, "HEAD /devices HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert body == b""


# --- bodies


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
def test_a_body_that_cannot_be_read_is_a_bad_request_on_every_route(
    emulator: Emulator, device: Device, route: Route
) -> None:
    service = Service(emulator)  # for this test alone: a broken body can end its connection
    for data, encoding in ((b"{", None), (b"\xff", None), (b"[1 2]", None), (b"{}", "gzip")):
        headers = {"Content-Encoding": encoding}
        response = call(service, emulator, route, device, data=data, headers=headers)
        assert response.status_code == 400, response.text
        of_twin = route.path.startswith("/twins/") and route.verb != "POST"
        name = "ArgumentInvalid" if of_twin else "DeserializationError"
        assert response.headers["iothub-errorcode"] == name
        check_hubs_own(response)
    service.close()


STRANGE_BODIES = [None, b"null", b"[]", b"{}", b'"text"', b"7", b"[null]", b"[" * 100_000]


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
def test_no_route_fails_because_of_a_strange_body(
    service: Service, emulator: Emulator, device: Device, route: Route
) -> None:
    for body in STRANGE_BODIES:
        response = call(service, emulator, route, device, data=body)
        assert response.status_code < 500, response.text
        if not response.ok:
            check_hubs_own(response)


@pytest.mark.parametrize("route", [route for route in WITH_BODY if route in VERSIONED], ids=name_of)
def test_every_route_refuses_a_body_of_another_type_than_json(
    service: Service, emulator: Emulator, device: Device, route: Route
) -> None:
    headers = {"Content-Type": "application/xml"}
    response = call(service, emulator, route, device, data=b"<a/>", headers=headers)
    support.check_error(response, 415, "GenericUnsupportedMediaType")


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        *((name, True) for name in (None, "", "application/json", "Application/JSON", "text/json")),
        *(
            (f"application/json{charset}", True)
            for charset in ("; charset=utf-8", ";charset=UTF-8")
        ),
        ("application/merge-patch+json", True),
        ("application/vnd.microsoft.iothub+json", True),
        *((f"application/{name}", False) for name in ("octet-stream", "jsonp", "json+xml")),
        ("application/x-www-form-urlencoded", False),
        *((name, False) for name in ("text/plain", "json", "text/html; charset=utf-8; json")),
    ],
)
def test_a_body_is_json_by_its_type(
    service: Service, device: Device, content_type: str | None, accepted: bool
) -> None:
    headers = {"Content-Type": content_type}
    response = service.request("PATCH", f"/twins/{device.id}", data=PATCH, headers=headers)
    if not accepted:
        assert str(content_type) in support.check_error(
            response, 415, "GenericUnsupportedMediaType"
        )
    assert support.read(service, f"/twins/{device.id}").get("tags") == (
        {"a": 1} if accepted else None
    )


def test_a_type_without_a_body_means_nothing(service: Service, device: Device) -> None:
    for verb, path in (("GET", f"/twins/{device.id}"), ("DELETE", f"/devices/{device.id}")):
        headers: dict[str, str | None] = {"Content-Type": "text/plain", **support.ANY}
        assert service.request(verb, path, headers=headers).ok


def test_the_routes_that_need_no_json_accept_any_type(
    service: Service, emulator: Emulator, device: Device
) -> None:
    for path, content_type, token in (
        # `curl -d` sends the type of a form.
        (f"/_emulator/devices/{device.id}/messages", "application/x-www-form-urlencoded", None),
        (
            f"/devices/{device.id}/messages/events",
            "image/png",
            support.device_token(emulator, device),
        ),
    ):
        headers: dict[str, str | None] = {"Content-Type": content_type}
        headers |= {"Authorization": token} if token else {}
        data = b"\x00\xff" if token else b'{"body": "hello"}'
        assert service.request("POST", path, data=data, headers=headers).status_code == 204


@pytest.mark.parametrize(
    ("verb", "path", "header"),
    [
        ("PATCH", "/twins/{}", "Content-Type"),
        ("POST", "/devices/query", "x-ms-max-item-count"),
        ("PUT", "/devices/{}", "If-Match"),
        ("PUT", "/configurations/c", "If-Match"),
        ("PATCH", "/twins/{}", "Expect"),
    ],
)
def test_a_header_that_is_not_utf_8_does_not_make_the_hub_fail(
    emulator: Emulator, device: Device, verb: str, path: str, header: str
) -> None:
    headers = (f"{header}: \udcff", "Content-Length: 2")
    answer = exchange(emulator, head_of(emulator, verb, path.format(device.id), *headers) + "{}")
    head = answer.partition(b"\r\n\r\n")[0]
    assert re.match(rb"HTTP/1\.1 [24]\d\d ", head), head
    assert head.startswith(b"HTTP/1.1 2") or b"\r\niothub-errorcode: " in head


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue", "miracles"])
def test_a_caller_may_send_any_expectation(
    emulator: Emulator, device: Device, expectation: str
) -> None:
    headers = (f"Expect: {expectation}", f"Content-Length: {len(PATCH)}")
    head = head_of(emulator, "PATCH", f"/twins/{device.id}", *headers)
    answer = exchange(emulator, head + PATCH.decode())
    invited, _, rest = answer.partition(b"HTTP/1.1 200 ")
    assert invited == (b"" if expectation == "miracles" else b"HTTP/1.1 100 Continue\r\n\r\n")
    assert b'"tags":{"a":1}' in rest


def _raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


_TAGS = {"tags": {"a": 1}}
_TEXT = json.dumps(_TAGS).encode()

_BODIES: dict[str, tuple[str, bytes, int]] = {
    "gzip": ("gzip", gzip.compress(_TEXT), 200),
    "gzip in capitals": ("GZIP", gzip.compress(_TEXT), 200),
    "x-gzip": ("x-gzip", gzip.compress(_TEXT), 200),
    "deflate": ("deflate", zlib.compress(_TEXT), 200),
    "deflate without a header": ("deflate", _raw_deflate(_TEXT), 200),
    "identity": ("identity", _TEXT, 200),
    "an encoding of text": ("utf-8", _TEXT, 200),
    "no gzip": ("gzip", _TEXT, 400),
    "half of it": ("gzip", gzip.compress(_TEXT)[:-9], 400),
    "bytes behind it": ("gzip", gzip.compress(_TEXT) + b"x", 400),
    "two of them": ("gzip", gzip.compress(_TEXT) * 2, 400),
    "an empty stream": ("deflate", b"", 400),
    "a bomb": ("gzip", gzip.compress(bytes(100_000_000), 1), 413),
    "a byte too much": ("deflate", zlib.compress(bytes(limits.HTTP_BODY_BYTES + 1)), 413),
}


@pytest.mark.parametrize(("encoding", "data", "status"), _BODIES.values(), ids=_BODIES)
def test_a_body_is_inflated_up_to_the_limit(
    service: Service, device: Device, encoding: str, data: bytes, status: int
) -> None:
    headers: dict[str, str | None] = {"Content-Encoding": encoding}
    response = service.request("PATCH", f"/twins/{device.id}", data=data, headers=headers)
    assert response.status_code == status, response.text
    assert support.read(service, f"/twins/{device.id}").get("tags") == (
        _TAGS["tags"] if status == 200 else None
    )


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("POST", "/nothing", 404),
        ("POST", "/devices", 401),
        ("PATCH", "/twins/d", 401),
        ("POST", "/devices/d/messages/events", 401),
        ("PUT", "/devices/query", 401),
        ("PATCH", "/devices/query", 405),
    ],
)
def test_no_body_is_inflated_for_a_request_that_is_refused(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, verb: str, path: str, status: int
) -> None:
    inflated: list[bytes] = []
    monkeypatch.setattr("emulator.http.requests._inflate", lambda body, _: inflated.append(body))
    body = gzip.compress(bytes(1_000_000)).decode("ascii", "surrogateescape")
    answer = exchange(
        emulator,
        f"{verb} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: gzip\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}",
    )
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert inflated == []


@pytest.mark.parametrize("body", ["4\r\nHello\r\n0\r\n\r\n", "x\r\n", "5\r\nHello0\r\n\r\n"])
@pytest.mark.parametrize(
    ("verb", "path"), [("PATCH", "/twins/{}"), ("POST", "/devices/query"), ("PUT", "/devices/{}")]
)
def test_a_body_in_broken_chunks_is_a_bad_request_at_once(
    emulator: Emulator, device: Device, verb: str, path: str, body: str
) -> None:
    head = head_of(emulator, verb, path.format(device.id), "Transfer-Encoding: chunked")
    head = head.replace("Connection: close\r\n", "")
    with connection_to(emulator) as connection:
        connection.sendall(head.encode())
        time.sleep(0.1)  # the hub has the head, and waits for the body
        connection.sendall(body.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    name = "ArgumentInvalid" if "twins" in path else "DeserializationError"
    assert f"\r\niothub-errorcode: {name}\r\n".encode() in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_over_the_limit_is_refused_and_the_connection_is_used_again(
    service: Service,
) -> None:
    # Twice on one connection: the rest of a refused body must not be read as the next request.
    for size in (limits.HTTP_BODY_BYTES + 1, 3 * limits.HTTP_BODY_BYTES):
        response = service.request("PUT", "/devices/big", data=b" " * size)
        support.check_error(response, 413, "MessageTooLarge")
        support.check_error(service.request("GET", "/devices/big"), 404, "DeviceNotFound")


def test_the_body_of_a_device_has_the_same_limits(emulator: Emulator, device: Device) -> None:
    service = Service(emulator)
    path = f"/devices/{device.id}/messages/events"
    headers: dict[str, str | None] = {"Authorization": support.device_token(emulator, device)}
    for size in (limits.D2C_MESSAGE_BYTES + 1, limits.HTTP_BODY_BYTES + 1):
        response = service.request("POST", path, data=b" " * size, headers=headers)
        support.check_error(response, 413, "MessageTooLarge")
    headers["Content-Encoding"] = "gzip"
    response = service.request("POST", path, data=b"not gzip", headers=headers)
    service.close()
    support.check_error(response, 400, "DeserializationError")


def test_a_caller_that_leaves_within_its_body_is_not_an_error_of_the_hub(
    emulator: Emulator, service: Service, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    with connection_to(emulator) as connection:
        head = head_of(emulator, "PATCH", f"/twins/{device.id}", "Content-Length: 100")
        connection.sendall(f"{head}{{}}".encode())
        # After a round trip on another connection, the hub waits for the rest.
        support.read(service, f"/twins/{device.id}")
    for _ in range(3):  # after these, the hub has seen the end of the connection
        support.read(service, f"/twins/{device.id}")
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


# --- HTTP and TLS


@pytest.mark.parametrize(
    "host", ["", "[::1", "a b:99999999", "hub.example:port", "x" * 300], ids=lambda text: text[:12]
)
def test_an_invalid_host_header_changes_nothing(emulator: Emulator, host: str) -> None:
    answer = exchange(emulator, head_of(emulator, "GET", "/devices/unknown", host=host))
    # A token does not sign the header: the route decides.
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\niothub-errorcode: DeviceNotFound\r\n" in answer


def test_a_token_may_carry_the_name_by_which_the_client_reaches_the_hub(emulator: Emulator) -> None:
    head = head_of(emulator, "GET", "/devices", host="a-container:443", resource="a-container")
    assert exchange(emulator, head).startswith(b"HTTP/1.1 200 ")


def test_http_1_0_without_a_host_is_answered(emulator: Emulator, service: Service) -> None:
    device_id = support.new_id()
    support.put_device(service, device_id)
    answer = exchange(
        emulator,
        f"GET /devices/{device_id}?api-version={API_VERSION} HTTP/1.0\r\n"
        f"Authorization: {support.policy_token(emulator, 'iothubowner')}\r\n\r\n",
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] 200 ", head)
    # As many bytes as the header says, and then the hub closes the connection.
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.startswith(f'{{"deviceId":"{device_id}"'.encode())


@pytest.mark.parametrize("request_line", ["NONSENSE", "GET /devices HTTP/1.1"])
def test_a_request_that_is_not_http_is_a_bad_request(emulator: Emulator, request_line: str) -> None:
    # The second one lacks a Host header.
    assert b" 400 " in exchange(emulator, f"{request_line}\r\n\r\n").partition(b"\r\n")[0]


@pytest.mark.parametrize("port", ["mqtt_port", "https_port"])
@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n"])
def test_a_tls_handshake_has_a_deadline(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, port: str, data: bytes
) -> None:
    assert limits.TLS_HANDSHAKE_TIMEOUT <= 30
    monkeypatch.setattr(limits, "TLS_HANDSHAKE_TIMEOUT", 0.2)
    with (
        second_hub(emulator) as hub,
        socket.create_connection((hub.host_name, getattr(hub, port)), timeout=30) as plain,
    ):
        plain.sendall(data)
        with suppress(ConnectionError):
            while plain.recv(65536):
                pass
