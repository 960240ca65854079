from __future__ import annotations

import re
import socket
import ssl
import threading
import uuid
import warnings
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from emulator import Emulator, Settings
from emulator.hub import limits
from tests.http.support import check_error, put_device
from tests.support import API_VERSION, Device, Service, free_loopback_address, sas_token

# One route of each family; none of them needs a body to be told that its api-version is wrong.
FAMILIES = [("GET", "/devices/{id}"), ("GET", "/twins/{id}"), ("POST", "/twins/{id}/methods")]


def exchange(emulator: Emulator, request: str, context: ssl.SSLContext | None = None) -> bytes:
    """Send a request as it is written, and read until the server closes the connection."""
    context = context or ssl.create_default_context(cafile=emulator.ca_file)
    address = (emulator.host_name, emulator.https_port)
    with (
        socket.create_connection(address, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=emulator.host_name) as connection,
    ):
        connection.sendall(request.encode())
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


# --- bodies

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
