from __future__ import annotations

import re
import socket
import ssl
import threading
import uuid
import warnings
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator import Emulator, Settings
from emulator.emulator import ROUTES
from emulator.http.server import DeviceRoute, Route
from emulator.hub.core import limits
from tests.http.support import check_error, put_device
from tests.support import API_VERSION, Device, Service, free_loopback_address, sas_token

# One route of each family; none of them needs a body to be told that its api-version is wrong.
FAMILIES = [("GET", "/devices/{id}"), ("GET", "/twins/{id}"), ("POST", "/twins/{id}/methods")]

ID = re.compile(r"\{[^}]+\}")
VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
SERVICE_ROUTES = [route for route in ROUTES if isinstance(route, Route)]
DEVICE_ROUTES = [route for route in ROUTES if isinstance(route, DeviceRoute)]
HUB_ROUTES = [route for route in SERVICE_ROUTES if not route.path.startswith("/_emulator")]
# Those that take a body: giving a message back and cancelling a job need none.
WITH_BODY = [
    route
    for route in SERVICE_ROUTES
    if route.verb in ("POST", "PUT", "PATCH") and not route.path.endswith(("/abandon", "/cancel"))
]


def name_of(route: Route | DeviceRoute) -> str:
    return f"{route.verb} {route.path}"


def call(
    service: Service, route: Route | DeviceRoute, device_id: str, **more: Any
) -> requests.Response:
    """Call a route for a device; every other id in its path is made up."""
    path = route.path.replace("{device_id}", device_id)
    return service.request(route.verb, ID.sub("made-up", path), **more)


def check_hubs_own(response: requests.Response) -> None:
    """Check that an error is a hub's, in whichever form its route writes errors."""
    assert response.headers["iothub-errorcode"]
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.headers["Server"] == "Microsoft-HTTPAPI/2.0"
    body = response.json()
    assert "Message" in body or "errorCode" in body


def exchange(emulator: Emulator, request: str, context: ssl.SSLContext | None = None) -> bytes:
    """Send a request as it is written, and read until the server closes the connection."""
    context = context or ssl.create_default_context(cafile=emulator.ca_file)
    address = (emulator.host_name, emulator.https_port)
    with (
        socket.create_connection(address, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=emulator.host_name) as connection,
    ):
        connection.sendall(request.encode(errors="surrogateescape"))
        return b"".join(iter(lambda: connection.recv(65536), b""))


def owner_token(emulator: Emulator, resource: str | None = None) -> str:
    key, _ = emulator.settings.key_pair("iothubowner")
    return sas_token(resource or emulator.https_host, key, policy="iothubowner")


# --- api-version


@pytest.mark.parametrize(("verb", "path"), FAMILIES)
@pytest.mark.parametrize(
    "version",
    [
        None,
        "",
        "latest",
        "2021-4-12",
        "20210412",
        "2021-04-12-beta",
        "2021-04-12 ",
        "2021-04-12\n",
        "２０２１-04-12",  # noqa: RUF001 - full-width digits
    ],
)
def test_an_api_version_that_is_missing_or_malformed_is_refused(
    service: Service, device: Device, verb: str, path: str, version: str | None
) -> None:
    params = {} if version is None else {"api-version": version}
    response = service.request(verb, path.format(id=device.id), params=params)
    assert check_error(response, 400, "InvalidProtocolVersion") == "BadRequest"


@pytest.mark.parametrize("route", HUB_ROUTES, ids=name_of)
def test_every_route_needs_an_api_version(service: Service, device: Device, route: Route) -> None:
    response = call(service, route, device.id, params={})
    assert check_error(response, 400, "InvalidProtocolVersion") == "BadRequest"


@pytest.mark.parametrize("route", DEVICE_ROUTES, ids=name_of)
def test_every_route_of_devices_needs_an_api_version(
    service: Service, emulator: Emulator, device: Device, route: DeviceRoute
) -> None:
    token = sas_token(f"{emulator.https_host}/devices/{device.id}", device.key)
    response = call(service, route, device.id, params={}, headers={"Authorization": token})
    assert check_error(response, 400, "InvalidProtocolVersion") == "BadRequest"


@pytest.mark.parametrize("version", ["2035-12-31", "9999-99-99", "2035-12-31-preview"])
def test_a_newer_api_version_is_not_refused(service: Service, device: Device, version: str) -> None:
    response = service.request("GET", f"/twins/{device.id}", params={"api-version": version})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "version",
    [
        "2016-11-14",
        "2018-04-01",
        "2018-06-30",
        "2019-10-01",
        "2020-03-13",
        "2020-05-31-preview",
        "2020-09-30",
        "2021-04-12",
        "2024-03-31",
    ],
)
def test_every_api_version_that_an_sdk_sends_is_taken(
    service: Service, device: Device, version: str
) -> None:
    response = service.request("GET", f"/devices/{device.id}", params={"api-version": version})
    assert response.status_code == 200


# --- headers


def test_every_answer_has_the_headers_of_a_hub(service: Service, device: Device) -> None:
    answers = {
        200: service.request("GET", f"/devices/{device.id}"),
        404: service.request("GET", "/devices/nobody"),
        204: service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"}),
    }
    for status, response in answers.items():
        assert response.status_code == status
        assert response.headers["Server"] == "Microsoft-HTTPAPI/2.0"
        assert response.headers["Vary"] == "Origin"
        assert parsedate_to_datetime(response.headers["Date"])
        assert uuid.UUID(response.headers["x-ms-request-id"])
        assert ("iothub-errorcode" in response.headers) == (status == 404)
        if status != 204:
            content_type = response.headers["Content-Type"]
            assert content_type == "application/json; charset=utf-8"
    request_ids = {response.headers["x-ms-request-id"] for response in answers.values()}
    assert len(request_ids) == len(answers)


def test_a_204_says_that_its_body_is_empty(service: Service, device: Device) -> None:
    response = service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})
    assert response.status_code == 204
    assert response.headers.get("Content-Length") == "0"
    assert response.content == b""


# --- paths


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/DEVICES/{id}", 200),
        ("GET", "/Twins/{id}", 200),
        ("POST", "/TWINS/{id}/Methods", 404),
        ("GET", "/devices/", 200),
        ("GET", "/devices/{id}/", 200),
        ("GET", "/twins/{id}/", 200),
        ("POST", "/twins/{id}/methods/", 404),
    ],
)
def test_the_case_of_a_path_and_a_slash_at_its_end_do_not_matter(
    service: Service, device: Device, verb: str, path: str, status: int
) -> None:
    json = {"methodName": "m"} if verb == "POST" else None
    response = service.request(verb, path.format(id=device.id), json=json)
    assert response.status_code == status
    if status == 404:  # the device is offline: the route was found
        assert response.headers["iothub-errorcode"] == "DeviceNotOnline"


@pytest.mark.parametrize("path", ["/", "/nothing", "/twins", "/devices/a/b", "//devices"])
def test_an_unknown_route_is_not_found(service: Service, path: str) -> None:
    check_error(service.request("GET", path), 404, "GenericNotFound")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("PATCH", "/devices/{id}"),
        ("POST", "/devices/{id}"),
        ("DELETE", "/devices"),
        ("DELETE", "/twins/{id}"),
        ("GET", "/twins/{id}/methods"),
    ],
)
def test_a_wrong_verb_is_not_allowed(
    service: Service, device: Device, verb: str, path: str
) -> None:
    response = service.request(verb, path.format(id=device.id))
    check_error(response, 405, "GenericMethodNotAllowed")


def is_route(verb: str, path: str) -> bool:
    """Say whether a path, with its ids filled in, is a route's."""
    segments = path.split("/")
    return any(
        route.verb == verb
        and len(parts := route.path.split("/")) == len(segments)
        and all(
            ID.match(part) or part == segment for part, segment in zip(parts, segments, strict=True)
        )
        for route in ROUTES
    )


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_a_wrong_verb_is_not_allowed_on_any_route(service: Service, path: str) -> None:
    filled = ID.sub("made-up", path)
    for verb in VERBS:
        if not is_route(verb, filled):
            response = service.request(verb, filled)
            assert response.status_code == 405, verb
            assert response.headers["iothub-errorcode"] == "GenericMethodNotAllowed"
            allowed = set(response.headers["Allow"].split(","))
            assert allowed == {each for each in VERBS if is_route(each, filled)}
            if verb != "HEAD":
                check_error(response, 405, "GenericMethodNotAllowed")


def test_an_answer_to_head_has_no_body(emulator: Emulator) -> None:
    answer = exchange(emulator, "HEAD /devices HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert body == b""


# --- bodies


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
@pytest.mark.parametrize("body", [b"{", b"\xff", b"[1 2]"])
def test_a_body_that_is_no_json_is_a_bad_request_on_every_route(
    service: Service, device: Device, route: Route, body: bytes
) -> None:
    response = call(service, route, device.id, data=body)
    assert response.status_code == 400, response.text
    check_hubs_own(response)


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
@pytest.mark.parametrize("body", [None, b"null", b"[]", b"{}", b'"text"', b"7", b"[null]"])
def test_no_body_is_too_strange_for_a_route(
    service: Service, device: Device, route: Route, body: bytes | None
) -> None:
    response = call(service, route, device.id, data=body)
    assert response.status_code < 500, response.text
    if not response.ok:
        check_hubs_own(response)


@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
def test_a_body_that_its_encoding_does_not_fit_is_a_hubs_own_error(
    emulator: Emulator, device: Device, route: Route
) -> None:
    service = Service(emulator)  # for this request alone: a broken body may end its connection
    headers: dict[str, str | None] = {"Content-Encoding": "gzip"}
    response = call(service, route, device.id, data=b"{}", headers=headers)
    service.close()
    assert response.status_code == 400
    check_hubs_own(response)


NO_JSON_TYPES = [
    "text/plain",
    "application/xml",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
    "application/jsonp",
    "application/json+xml",
    "json",
    "text/html; charset=utf-8; json",
]


@pytest.mark.parametrize(
    "route", [route for route in WITH_BODY if route in HUB_ROUTES], ids=name_of
)
def test_a_body_that_says_that_it_is_no_json_is_of_an_unsupported_type(
    service: Service, device: Device, route: Route
) -> None:
    headers: dict[str, str | None] = {"Content-Type": "application/xml"}
    response = call(service, route, device.id, data=b"<a/>", headers=headers)
    check_error(response, 415, "GenericUnsupportedMediaType")


@pytest.mark.parametrize("content_type", NO_JSON_TYPES)
def test_a_type_that_is_not_json_is_unsupported(
    service: Service, device: Device, content_type: str
) -> None:
    response = service.request(
        "PATCH",
        f"/twins/{device.id}",
        data=b'{"tags": {"a": 1}}',
        headers={"Content-Type": content_type},
    )
    assert content_type in check_error(response, 415, "GenericUnsupportedMediaType")
    assert "tags" not in service.request("GET", f"/twins/{device.id}").json()


@pytest.mark.parametrize("header", ["Content-Type", "x-ms-max-item-count", "If-Match", "Expect"])
@pytest.mark.parametrize("route", WITH_BODY, ids=name_of)
def test_a_header_that_is_not_utf_8_is_no_failure_of_the_hub(
    emulator: Emulator, device: Device, route: Route, header: str
) -> None:
    path = ID.sub("made-up", route.path.replace("{device_id}", device.id))
    answer = exchange(
        emulator,
        f"{route.verb} {path}?api-version={API_VERSION} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {owner_token(emulator)}\r\n{header}: \udcff\r\n"
        "Connection: close\r\nContent-Length: 2\r\n\r\n{}",
    )
    head = answer.partition(b"\r\n\r\n")[0]
    assert re.match(rb"HTTP/1\.1 [24]\d\d ", head), head
    if head.startswith(b"HTTP/1.1 4"):
        assert b"\r\niothub-errorcode: " in head


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "Application/JSON",
        "text/json",
        "application/merge-patch+json",
        "application/vnd.microsoft.iothub+json",
    ],
)
def test_a_type_that_is_json_is_taken_and_so_is_none(
    service: Service, device: Device, content_type: str | None
) -> None:
    response = service.request(
        "PATCH",
        f"/twins/{device.id}",
        data=b'{"tags": {"a": 1}}',
        headers={"Content-Type": content_type},
    )
    assert response.json()["tags"] == {"a": 1}


def test_a_type_without_a_body_means_nothing(service: Service, device: Device) -> None:
    for verb, path in (("GET", f"/twins/{device.id}"), ("DELETE", f"/devices/{device.id}")):
        headers: dict[str, str | None] = {"Content-Type": "text/plain", "If-Match": "*"}
        assert service.request(verb, path, headers=headers).ok


def test_the_emulators_own_route_takes_what_curl_sends(service: Service, device: Device) -> None:
    # `curl -d` says that it sends a form.
    response = service.request(
        "POST",
        f"/_emulator/devices/{device.id}/messages",
        data=b'{"body": "hello"}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        params={},
    )
    assert response.status_code == 204


def test_a_devices_message_is_of_any_type(
    service: Service, emulator: Emulator, device: Device
) -> None:
    token = sas_token(f"{emulator.https_host}/devices/{device.id}", device.key)
    response = service.request(
        "POST",
        f"/devices/{device.id}/messages/events",
        data=b"\x00\xff",
        headers={"Authorization": token, "Content-Type": "image/png"},
    )
    assert response.status_code == 204


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue", "miracles"])
def test_a_caller_may_expect_what_it_likes(
    emulator: Emulator, device: Device, expectation: str
) -> None:
    body = '{"tags": {"a": 1}}'
    answer = exchange(
        emulator,
        f"PATCH /twins/{device.id}?api-version={API_VERSION} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {owner_token(emulator)}\r\nExpect: {expectation}\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}",
    )
    invited, _, rest = answer.partition(b"HTTP/1.1 200 ")
    assert invited == (b"" if expectation == "miracles" else b"HTTP/1.1 100 Continue\r\n\r\n")
    assert b'"tags":{"a":1}' in rest


NOT_JSON_OBJECTS = {
    "empty": b"",
    "cut off": b'{"deviceId": "x"',
    "two values": b"{} {}",
    "not UTF-8": b'{"deviceId": "\xff"}',
    "NaN": b'{"deviceId": NaN}',
    "half a surrogate pair": b'{"deviceId": "\\ud800"}',
    "nested beyond reason": b"[" * 100_000,
    "null": b"null",
    "an array": b"[]",
    "a string": b'"x"',
}


@pytest.mark.parametrize("body", NOT_JSON_OBJECTS.values(), ids=NOT_JSON_OBJECTS.keys())
@pytest.mark.parametrize(
    ("verb", "path"), [("PUT", "/devices/{id}"), ("PATCH", "/twins/{id}"), ("PUT", "/twins/{id}")]
)
def test_a_body_that_is_no_json_object_is_a_bad_request(
    service: Service, device: Device, verb: str, path: str, body: bytes
) -> None:
    headers: dict[str, str | None] = {"If-Match": "*"}
    response = service.request(verb, path.format(id=device.id), data=body, headers=headers)
    assert response.status_code == 400
    check_error(response, 400, response.headers["iothub-errorcode"])


def test_a_body_that_its_content_encoding_does_not_fit_is_a_bad_request(
    emulator: Emulator, device: Device
) -> None:
    service = Service(emulator)  # for this request alone: a broken body may end its connection
    response = service.request(
        "PATCH", f"/twins/{device.id}", data=b"{}", headers={"Content-Encoding": "gzip"}
    )
    service.close()
    assert response.status_code == 400


def test_a_body_over_the_limit_is_refused_and_the_hub_goes_on(service: Service) -> None:
    # Twice, on the session's one connection: the rest of a refused body must not be taken for
    # the next request.
    for size in (limits.HTTP_BODY_BYTES + 1, 3 * limits.HTTP_BODY_BYTES):
        response = service.request("PUT", "/devices/big", data=b" " * size)
        check_error(response, 413, "MessageTooLarge")
        check_error(service.request("GET", "/devices/big"), 404, "DeviceNotFound")


def test_a_device_meets_the_same_limits(emulator: Emulator, device: Device) -> None:
    service = Service(emulator)
    token = sas_token(f"{emulator.https_host}/devices/{device.id}", device.key)
    path = f"/devices/{device.id}/messages/events"
    headers: dict[str, str | None] = {"Authorization": token}
    for size in (limits.D2C_MESSAGE_BYTES + 1, limits.HTTP_BODY_BYTES + 1):
        response = service.request("POST", path, data=b" " * size, headers=headers)
        check_error(response, 413, "MessageTooLarge")
    headers["Content-Encoding"] = "gzip"
    response = service.request("POST", path, data=b"not gzip", headers=headers)
    service.close()
    assert response.status_code == 400


def test_a_caller_that_leaves_within_its_body_is_no_failure_of_the_hub(
    emulator: Emulator, service: Service, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(cafile=emulator.ca_file)
    with (
        socket.create_connection((emulator.host_name, emulator.https_port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=emulator.host_name) as connection,
    ):
        connection.sendall(
            f"PATCH /twins/{device.id}?api-version={API_VERSION} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {owner_token(emulator)}\r\nContent-Length: 100\r\n\r\n{{}}".encode()
        )
        # A round trip on another connection: by then the hub waits for the rest.
        assert service.request("GET", f"/twins/{device.id}").ok
    for _ in range(3):  # and by then it has seen that there is none
        assert service.request("GET", f"/twins/{device.id}").ok
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_no_content_type_is_needed(service: Service, device: Device) -> None:
    response = service.request(
        "PATCH",
        f"/twins/{device.id}",
        data=b'{"tags": {"a": 1}}',
        headers={"Content-Type": None},
    )
    assert response.json()["tags"] == {"a": 1}


# --- HTTP and TLS


@pytest.mark.parametrize(
    "host", ["", "[::1", "a b:99999999", "hub.example:port", "x" * 300], ids=lambda text: text[:12]
)
def test_a_senseless_host_header_does_no_harm(emulator: Emulator, host: str) -> None:
    answer = exchange(
        emulator,
        f"GET /devices/nobody?api-version={API_VERSION} HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: {owner_token(emulator)}\r\nConnection: close\r\n\r\n",
    )
    # It is no part of what the token proves: the route decides.
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"\r\niothub-errorcode: DeviceNotFound\r\n" in answer


def test_a_token_is_good_for_whatever_name_the_client_reaches_the_hub_by(
    emulator: Emulator,
) -> None:
    answer = exchange(
        emulator,
        f"GET /devices?api-version={API_VERSION} HTTP/1.1\r\nHost: a-container:443\r\n"
        f"Authorization: {owner_token(emulator, 'a-container')}\r\nConnection: close\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_http_1_0_without_a_host_is_answered(emulator: Emulator, service: Service) -> None:
    device_id = f"device-{uuid.uuid4().hex}"
    put_device(service, device_id)
    answer = exchange(
        emulator,
        f"GET /devices/{device_id}?api-version={API_VERSION} HTTP/1.0\r\n"
        f"Authorization: {owner_token(emulator)}\r\n\r\n",
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] 200 ", head)
    # As many bytes as it says, and then the connection is closed.
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.startswith(f'{{"deviceId":"{device_id}"'.encode())


@pytest.mark.parametrize("request_line", ["NONSENSE", "GET /devices HTTP/1.1"])
def test_what_is_no_http_request_is_a_bad_request(emulator: Emulator, request_line: str) -> None:
    # The second one lacks a Host header.
    assert b" 400 " in exchange(emulator, f"{request_line}\r\n\r\n").partition(b"\r\n")[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(emulator: Emulator, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=emulator.ca_file)
    context.minimum_version = context.maximum_version = version
    assert b" 404 " in exchange(emulator, "GET / HTTP/1.0\r\n\r\n", context).partition(b"\r\n")[0]


def test_tls_1_1_is_refused(emulator: Emulator) -> None:
    context = ssl.create_default_context(cafile=emulator.ca_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    # Without this the client itself would refuse, and the test would prove nothing.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)) as refusal:
        exchange(emulator, "GET / HTTP/1.0\r\n\r\n", context)
    if "NO_PROTOCOLS_AVAILABLE" in str(refusal.value):
        pytest.skip("this client can't speak TLS 1.1")


def test_it_stops_though_a_client_keeps_its_connection_open(tmp_path: Path) -> None:
    settings = Settings(
        host=free_loopback_address(), mqtt_port=0, https_port=0, devices=(), cert_dir=tmp_path
    )
    emulator = Emulator(settings)
    emulator.__enter__()
    # Not `with`: if it hangs, this test fails, and the run goes on.
    stop = threading.Thread(target=emulator.__exit__, args=(None, None, None), daemon=True)
    context = ssl.create_default_context(cafile=emulator.ca_file)
    address = (emulator.host_name, emulator.https_port)
    with (
        socket.create_connection(address, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=emulator.host_name) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 404 ")
        stop.start()
        stop.join(timeout=10)
        assert not stop.is_alive()
