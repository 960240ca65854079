"""Faults on demand over `/_emulator/faults`, and what services and devices see over HTTPS."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.devices import connect_device
from tests.http.support import check_error, check_nested_error, device_token, read, report_upload
from tests.hub.uploads.shelf import Shelf
from tests.messages import bodies, send
from tests.support import Device, Service, trust

_FAULTS = "/_emulator/faults"


@pytest.fixture(autouse=True)
def no_faults(service: Service) -> Iterator[None]:
    """Turn all faults off after a test."""
    yield
    assert service.request("DELETE", _FAULTS).status_code == 204
    assert read(service, _FAULTS) == []


def add(service: Service, kind: str, device: Device | None = None, **members: Any) -> int:
    document = {"kind": kind, "device": device.id if device else None, **members}
    answer = service.request("POST", _FAULTS, json=document)
    assert answer.status_code == 201, answer.text
    (number,) = answer.json().values()
    return int(number)


# --- the routes


def test_faults_are_added_listed_and_removed(service: Service, device: Device) -> None:
    first = add(service, "throttle", device, count=3, probability=1)
    second = add(service, "slow-link", device, rate=1000, duration=1.5)
    assert read(service, _FAULTS) == [
        {"id": first, "hits": 0, "kind": "throttle", "device": device.id, "count": 3},
        {
            "id": second,
            "hits": 0,
            "kind": "slow-link",
            "device": device.id,
            "duration": 1.5,
            "rate": 1000,
        },
    ]
    assert service.request("DELETE", f"{_FAULTS}/{first}").status_code == 204
    assert [each["id"] for each in read(service, _FAULTS)] == [second]
    assert service.request("DELETE", _FAULTS).status_code == 204
    assert read(service, _FAULTS) == []


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"kind": "boom"}, "Invalid kind of fault: 'boom'. Use an object whose kind is one of"),
        ([], "Invalid kind of fault: None."),
        ({"kind": "throttle", "statu": 1}, "Unknown member of the fault throttle: 'statu'. Use"),
        ({"kind": "twin-status"}, "The fault twin-status needs status. Use one of 400, 403"),
        ({"kind": "throttle", "count": "3"}, "Invalid count of a fault: '3'. Use a whole number"),
    ],
)
def test_an_invalid_fault_is_refused(service: Service, document: object, text: str) -> None:
    answer = service.request("POST", _FAULTS, json=document)
    assert check_error(answer, 400, "ArgumentInvalid").startswith(text)


def test_an_unknown_fault_is_not_removed(service: Service) -> None:
    answer = service.request("DELETE", f"{_FAULTS}/999999")
    text = check_error(answer, 400, "ArgumentInvalid")
    assert text == "Unknown fault: 999999. The ids of the faults: there are no faults"
    answer = service.request("DELETE", f"{_FAULTS}/x")
    assert check_error(answer, 400, "ArgumentInvalid").startswith("Invalid id of a fault: x. Use")
    answer = service.request("DELETE", f"{_FAULTS}?kind=throttle")
    assert check_error(answer, 400, "ArgumentInvalid").startswith("Unknown parameter: kind.")


def test_a_body_that_is_not_json_is_refused(service: Service) -> None:
    answer = service.request("POST", _FAULTS, data="{")
    check_error(answer, 400, "DeserializationError")


# --- what services see


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("throttle", 429, "ThrottlingException"),
        ("quota-exceeded", 403, "IotHubQuotaExceeded"),
        ("server-error", 500, "ServerError"),
        ("service-unavailable", 503, "ServiceUnavailable"),
    ],
)
def test_an_operation_of_a_service_is_refused(
    service: Service, device: Device, kind: str, status: int, name: str
) -> None:
    add(service, kind, device, operation="read-twin", count=2)
    for _ in range(2):
        answer = service.request("GET", f"/twins/{device.id}")
        check_error(answer, status, name)
        assert (answer.headers.get("Connection") == "close") == (status == 429)
        assert "Retry-After" not in answer.headers
    read(service, f"/twins/{device.id}")
    read(service, f"/devices/{device.id}")


def test_a_hub_that_is_down_still_takes_commands_of_its_tests(
    service: Service, device: Device
) -> None:
    add(service, "service-unavailable")
    for path in (f"/devices/{device.id}", f"/twins/{device.id}", "/statistics/devices"):
        check_error(service.request("GET", path), 503, "ServiceUnavailable")
    send(service, device, "to a hub that is down")
    assert bodies(service, device.id) == []
    (fault,) = read(service, _FAULTS)
    assert fault["hits"] == 3
    assert service.request("DELETE", f"{_FAULTS}/{fault['id']}").status_code == 204
    read(service, f"/devices/{device.id}")


def test_the_faults_of_a_device_leave_services_alone(service: Service, device: Device) -> None:
    add(service, "server-error", device)
    read(service, f"/twins/{device.id}")


def test_a_method_fails(service: Service, device: Device) -> None:
    add(service, "fail-method", device, status=504, count=1)
    path, body = f"/twins/{device.id}/methods", {"methodName": "m"}
    check_nested_error(service.request("POST", path, json=body), 504101, "GatewayTimeout")
    check_nested_error(service.request("POST", path, json=body), 404103, "DeviceNotOnline")


# --- what devices see


class Https:
    """A device that speaks HTTPS."""

    def __init__(self, emulator: Emulator, service: Service, device: Device) -> None:
        self._service = service
        self._device = device
        self._headers = {"Authorization": device_token(emulator, device)}

    def send(self, text: str = "x") -> requests.Response:
        path = f"/devices/{self._device.id}/messages/events"
        return self._service.request("POST", path, headers=self._headers, data=text)

    def receive(self) -> requests.Response:
        path = f"/devices/{self._device.id}/messages/deviceBound"
        return self._service.request("GET", path, headers=self._headers)


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("throttle", 429, "ThrottlingException"),
        ("quota-exceeded", 403, "IotHubQuotaExceeded"),
        ("server-error", 500, "ServerError"),
        ("service-unavailable", 503, "ServiceUnavailable"),
        ("refuse-connection", 503, "ServiceUnavailable"),
        ("expire-token", 401, "IotHubUnauthorizedAccess"),
    ],
)
def test_a_device_is_refused(
    emulator: Emulator, service: Service, device: Device, kind: str, status: int, name: str
) -> None:
    neighbour = Device.of(emulator.register_device(f"{device.id}-neighbour"))
    add(service, kind, device, count=1)
    assert Https(emulator, service, neighbour).send().status_code == 204
    https = Https(emulator, service, device)
    check_error(https.send(), status, name)
    assert https.send().status_code == 204
    assert len(bodies(service, device.id)) == 1


@pytest.mark.parametrize("operation", ["start-upload", "end-upload"])
def test_an_upload_is_refused(
    emulator: Emulator,
    service: Service,
    device: Device,
    operation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = Shelf()
    monkeypatch.setattr(emulator.hub.uploads, "_storage", shelf)
    add(service, "server-error", device, operation=operation, count=1)
    with pytest.raises(AssertionError, match="ServerError"):
        report_upload(emulator, device, shelf, "a.txt")
    report_upload(emulator, device, shelf, "a.txt")


def test_a_connection_ends_without_an_answer(
    emulator: Emulator, service: Service, device: Device
) -> None:
    add(service, "drop-connection", device)
    https = Https(emulator, service, device)
    with pytest.raises(requests.ConnectionError) as caught:
        https.send()
    assert isinstance(caught.value.args[0].args[1], http.client.RemoteDisconnected | OSError)
    assert https.send().status_code == 204
    assert len(bodies(service, device.id)) == 1


def test_a_request_of_a_service_ends_without_an_answer(
    emulator: Emulator, service: Service, device: Device
) -> None:
    with connect_device(device.connection_string, emulator.mqtt_port, trust(emulator)) as connected:
        add(service, "drop-connection", device, operation="read-twin")
        with pytest.raises(requests.ConnectionError):
            service.request("GET", f"/twins/{device.id}")
        connected.expect_nothing()
    read(service, f"/twins/{device.id}")


def test_messages_change_places(emulator: Emulator, service: Service, device: Device) -> None:
    add(service, "reorder-c2d", device, count=1)
    send(service, device, "1")
    send(service, device, "2")
    https = Https(emulator, service, device)
    assert [https.receive().text for _ in range(2)] == ["2", "1"]
