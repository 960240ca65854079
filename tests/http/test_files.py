"""File uploads over HTTPS: a device's own routes, and notifications of files for services.

The storage is one without bytes: where these go, and the SDKs, have tests of their own.
"""

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import requests

from emulator import Emulator
from tests.http.support import MOMENT, check_error, check_nested_error, device_token
from tests.hub.uploads.shelf import Shelf
from tests.messages import put_module
from tests.support import API_VERSION, Device, Service, sas_token

_NOTIFICATIONS = "/messages/serviceBound/filenotifications"
_UNKNOWN = base64.b64encode(
    b"209901311446_00000000-0000-0000-0000-000000000000_a.txt_ver2.0"
).decode()


@pytest.fixture
def shelf(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    monkeypatch.setattr(emulator.hub.uploads, "_storage", shelf)
    return shelf


class DeviceApi:
    """A device that uses HTTPS."""

    def __init__(self, service: Service, emulator: Emulator, device: Device) -> None:
        self._service = service
        self._path = f"/devices/{device.id}/files"
        self._token = device_token(emulator, device)

    def post(self, path: str = "", body: object = None, **options: Any) -> requests.Response:
        """Send a request as the device, with its body as JSON."""
        options = {"json": body, "headers": {"Authorization": self._token}, **options}
        return self._service.request("POST", self._path + path, **options)

    def start(self, name: str = "a.txt") -> dict[str, str]:
        """Start an upload; return the answer."""
        answer = self.post(body={"blobName": name})
        assert answer.status_code == 200, answer.text
        document: dict[str, str] = answer.json()
        return document


@pytest.fixture
def api(service: Service, emulator: Emulator, device: Device) -> DeviceApi:
    return DeviceApi(service, emulator, device)


def take(service: Service) -> requests.Response:
    return service.request("GET", _NOTIFICATIONS)


def drain(service: Service) -> None:
    while (answer := take(service)).status_code == 200:
        lock = answer.headers["iothub-messagelocktoken"]
        assert service.request("DELETE", f"{_NOTIFICATIONS}/{lock}").status_code == 204


@pytest.fixture
def uploaded(api: DeviceApi, shelf: Shelf, service: Service, device: Device) -> str:
    """The name of a blob of which services are notified."""
    drain(service)
    started = api.start()
    name = started["blobName"]
    shelf.put(name, 1234)
    body = {"correlationId": started["correlationId"], "isSuccess": True, "statusCode": 201}
    assert api.post("/notifications", body).status_code == 204
    return name


# --- devices


def test_an_upload_is_started_and_reported_in_the_body(
    api: DeviceApi, shelf: Shelf, service: Service, device: Device
) -> None:
    drain(service)
    started = api.start("logs/a b.txt")
    correlation_id = started.pop("correlationId")
    blob = f"{device.id}/logs/a b.txt"
    place = {"hostName": "localhost:8444", "containerName": "uploads", "blobName": blob}
    assert started == {**place, "sasToken": "?sv=1&sig=x"}
    shelf.put(blob)
    body = {
        "correlationId": correlation_id,
        "isSuccess": True,
        "statusCode": 200,
        "statusDescription": "OK",
    }
    answer = api.post("/notifications", body)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Content-Length"] == "0"
    assert take(service).json()["blobName"] == blob


@pytest.mark.parametrize("name", ["a.txt", "what?>~é.txt"])  # a slash and a plus in Base64
def test_an_upload_is_reported_with_its_id_in_the_path(
    api: DeviceApi, shelf: Shelf, service: Service, name: str
) -> None:
    drain(service)
    started = api.start(name)
    shelf.put(started["blobName"])
    path = f"/notifications/{quote(started['correlationId'], safe='')}"
    body = {"isSuccess": True, "statusCode": 0, "statusDescription": ""}
    assert api.post(path, body).status_code == 204
    assert take(service).json()["blobName"] == started["blobName"]


def test_a_failure_is_reported(api: DeviceApi, shelf: Shelf, service: Service) -> None:
    drain(service)
    for _ in range(11):
        body = {"correlationId": api.start()["correlationId"], "isSuccess": False, "statusCode": -1}
        assert api.post("/notifications", body).status_code == 204
    assert take(service).status_code == 204


def test_the_body_needs_no_content_type(api: DeviceApi, shelf: Shelf) -> None:
    assert api.post(json=None, data=b'{"blobName": "a"}').status_code == 200


@pytest.mark.parametrize("version", ["2016-11-14", "2019-10-01", "2020-03-13", API_VERSION])
def test_each_api_version_of_the_sdks_is_accepted(
    api: DeviceApi, shelf: Shelf, version: str
) -> None:
    answer = api.post(body={"blobName": "a"}, params={"api-version": version})
    assert answer.status_code == 200


def test_a_missing_api_version_is_refused(api: DeviceApi, shelf: Shelf) -> None:
    check_error(api.post(body={"blobName": "a"}, params={}), 400, "InvalidProtocolVersion")


Change = Callable[[DeviceApi, Shelf], requests.Response]


def _start(body: object) -> Change:
    return lambda api, _: api.post(body=body)


def _end(body: object, path: str = "/notifications") -> Change:
    return lambda api, _: api.post(path, body)


def _fill(api: DeviceApi, _: Shelf) -> requests.Response:
    for _number in range(10):
        api.start()
    return api.post(body={"blobName": "a"})


def _report_early(api: DeviceApi, _: Shelf) -> requests.Response:
    started = api.start()
    return api.post(
        "/notifications", {"correlationId": started["correlationId"], "isSuccess": True}
    )


def _report_twice(api: DeviceApi, _: Shelf) -> requests.Response:
    body = {"correlationId": api.start()["correlationId"], "isSuccess": False}
    api.post("/notifications", body)
    return api.post("/notifications", body)


@pytest.mark.parametrize(
    ("change", "code", "name", "text"),
    [
        (_start({}), 400005, "ArgumentNull", "blobName is missing or empty. Use the name"),
        (_start({"blobName": ""}), 400005, "ArgumentNull", "blobName is missing or empty"),
        (_start({"blobName": 5}), 400004, "ArgumentInvalid", "blobName is not a string"),
        (_start({"blobName": "\n"}), 400004, "ArgumentInvalid", "blobName has a control char"),
        (_start({"blobName": "a" * 1025}), 400004, "ArgumentInvalid", "blobName is too long"),
        (_start({"blobName": "a/" * 254}), 400004, "ArgumentInvalid", "blobName has too many"),
        (_start([]), 400012, "DeserializationError", "BadRequest"),
        (lambda api, _: api.post(data=b"{"), 400012, "DeserializationError", "The body is not"),
        (_fill, 403006, "DeviceMaximumActiveFileUploadLimitExceeded", "Number of active file u"),
        (_end({"isSuccess": True}), 400005, "ArgumentNull", "correlationId is missing"),
        (
            _end({"correlationId": _UNKNOWN}),
            400019,
            "InvalidFileUploadCompletionStatus",
            "isSuccess is missing",
        ),
        (
            _end({"correlationId": _UNKNOWN, "isSuccess": True}),
            400015,
            "InvalidFileUploadCorrelationId",
            "The correlation id is unknown",
        ),
        (
            _end({"isSuccess": True}, f"/notifications/{quote(_UNKNOWN, safe='')}"),
            400015,
            "InvalidFileUploadCorrelationId",
            "The correlation id is unknown",
        ),
        (
            _end({"isSuccess": True}, "/notifications/invalid-correlation-id"),
            400006,
            "IotHubFormatError",
            "The correlation id is not one of a file upload",
        ),
        (_report_early, 400020, "InvalidStorageEndpointOrBlob", "The blob device-"),
        (_report_twice, 400015, "InvalidFileUploadCorrelationId", "The correlation id is unkno"),
    ],
)
def test_a_wrong_request_has_its_error(
    api: DeviceApi, shelf: Shelf, change: Change, code: int, name: str, text: str
) -> None:
    error = check_nested_error(change(api, shelf), code, name)
    assert error["message"].startswith(text)


def test_a_hub_without_storage_says_so(
    api: DeviceApi, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator.hub.uploads, "_storage", None)
    answer = api.post(body={"blobName": "a"})
    text = check_error(answer, 400, "DefaultStorageEndpointNotConfigured")
    assert text == "The hub has no storage for file uploads."


def test_an_upload_of_another_device_is_unknown(
    api: DeviceApi, shelf: Shelf, service: Service, emulator: Emulator, other: Device
) -> None:
    body = {"correlationId": api.start()["correlationId"], "isSuccess": True}
    foreign = DeviceApi(service, emulator, other)
    answer = foreign.post("/notifications", body)
    check_nested_error(answer, 400015, "InvalidFileUploadCorrelationId")


def test_a_disabled_device_is_refused(
    api: DeviceApi, shelf: Shelf, service: Service, device: Device
) -> None:
    body = {"correlationId": api.start()["correlationId"], "isSuccess": False}
    identity = service.request("GET", f"/devices/{device.id}").json()
    for status in ("disabled", "enabled"):
        answer = service.request(
            "PUT",
            f"/devices/{device.id}",
            json={**identity, "status": status},
            headers={"If-Match": "*"},
        )
        assert answer.status_code == 200
        if status == "disabled":
            check_error(api.post(body={"blobName": "a"}), 401, "IotHubUnauthorizedAccess")
            check_error(api.post("/notifications", body), 401, "IotHubUnauthorizedAccess")
    assert api.post("/notifications", body).status_code == 204


def test_modules_have_no_uploads(
    shelf: Shelf, service: Service, emulator: Emulator, device: Device
) -> None:
    """A module's token is refused on the path of its device. Modules have no path of their own."""
    module = put_module(service, device.id, "m")
    path = f"/devices/{device.id}/modules/m"
    headers: dict[str, str | None] = {
        "Authorization": sas_token(f"{emulator.https_host}{path}", module.key)
    }
    body = {"blobName": "a"}
    answer = service.request("POST", f"/devices/{device.id}/files", json=body, headers=headers)
    check_error(answer, 401, "IotHubUnauthorizedAccess")
    answer = service.request("POST", f"{path}/files", json=body, headers=headers)
    assert answer.status_code == 404
    assert answer.json()["Message"].startswith("No HTTP resource was found")


# --- services


def test_a_service_receives_and_completes_a_notification(service: Service, uploaded: str) -> None:
    answer = take(service)
    assert answer.status_code == 200
    content_type = "application/vnd.microsoft.iothub.filenotification.json"
    assert answer.headers["Content-Type"] == content_type
    lock = answer.headers["iothub-messagelocktoken"]
    assert answer.headers["ETag"] == f'"{lock}"'
    document = answer.json()
    assert document["enqueuedTimeUtc"] == answer.headers["iothub-enqueuedtime"]
    assert MOMENT.fullmatch(document.pop("enqueuedTimeUtc"))
    assert document == {
        "deviceId": uploaded.split("/")[0],
        "blobUri": f"https://localhost:8444/uploads/{uploaded}",
        "blobName": uploaded,
        "lastUpdatedTime": "2026-01-31T14:46:09+00:00",
        "blobSizeInBytes": 1234,
    }
    assert take(service).status_code == 204
    path = f"/messages/servicebound/filenotifications/{lock}"  # of any letter case
    assert service.request("DELETE", path).status_code == 204
    check_error(service.request("DELETE", path), 412, "DeviceMessageLockLost")


def test_an_abandoned_notification_comes_again(service: Service, uploaded: str) -> None:
    for _ in range(10):
        answer = take(service)
        assert answer.json()["blobName"] == uploaded
        lock = answer.headers["iothub-messagelocktoken"]
        abandoned = service.request("POST", f"{_NOTIFICATIONS}/{lock}/abandon")
        assert abandoned.status_code == 204
    assert take(service).status_code == 204


def test_an_unknown_lock_is_lost(service: Service) -> None:
    for verb, path in (("DELETE", "x"), ("POST", "x/abandon")):
        answer = service.request(verb, f"{_NOTIFICATIONS}/{path}")
        check_error(answer, 412, "DeviceMessageLockLost")
