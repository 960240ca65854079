"""Messages over HTTPS: a device's own API, and what a service does with messages and feedback."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.http.support import check_error, device_token, read
from tests.messages import pending, read_events, send, take_feedback, try_to_send
from tests.support import Device, Service

_LIMIT = 262_144  # IoT Hub docs: quotas and throttling, 256 KB
_FEEDBACK = "/messages/serviceBound/feedback"


class DeviceApi:
    """A device that uses HTTPS."""

    def __init__(self, service: Service, emulator: Emulator, device: Device) -> None:
        self._service = service
        self._path = f"/devices/{device.id}/messages"
        self._token = device_token(emulator, device)

    def call(self, verb: str, path: str, body: bytes = b"", **headers: Any) -> requests.Response:
        """Send a request; underscores in a header's name stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = self._token
        return self._service.request(verb, f"{self._path}/{path}", data=body, headers=named)

    def send(self, body: bytes, **headers: str | bytes) -> requests.Response:
        return self.call("POST", "events", body, **headers)

    def receive(self) -> requests.Response:
        return self.call("GET", "deviceBound")

    def take(self) -> tuple[str, str]:
        """Receive a message; return its body and its lock."""
        response = self.receive()
        assert response.status_code == 200, response.text
        return response.text, response.headers["iothub-messagelocktoken"]

    def complete(self, lock: str) -> requests.Response:
        return self.call("DELETE", f"deviceBound/{lock}")

    def reject(self, lock: str) -> requests.Response:
        return self.call("DELETE", f"deviceBound/{lock}?reject=")

    def abandon(self, lock: str) -> requests.Response:
        return self.call("POST", f"deviceBound/{lock}/abandon")


@pytest.fixture
def api(service: Service, emulator: Emulator, device: Device) -> DeviceApi:
    return DeviceApi(service, emulator, device)


# --- telemetry


def test_a_message_is_logged_with_the_properties_of_its_headers(
    api: DeviceApi, service: Service, device: Device
) -> None:
    answer = api.send(
        b'{"t": 21.5}',
        iothub_messageid="m1",
        iothub_correlationid="c1",
        iothub_userid="u1",
        iothub_to="somewhere",
        iothub_contenttype="application/json",
        iothub_contentencoding="utf-8",
        iothub_app_Alert="yes & no",
        IoTHub_App_empty="",
        X_Other="1",
        Content_Type="text/plain",
    )
    assert (answer.status_code, answer.content) == (204, b"")
    (event,) = read_events(service, device.id)
    assert event["body"] == {"t": 21.5}
    assert event["properties"] == {"Alert": "yes & no", "empty": ""}
    assert event["systemProperties"] == {
        "message-id": "m1",
        "correlation-id": "c1",
        "user-id": "u1",
        "to": "somewhere",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    stamps = event["annotations"]
    identity = read(service, f"/devices/{device.id}")
    assert stamps["iothub-connection-device-id"] == device.id
    assert stamps["iothub-connection-auth-generation-id"] == identity["generationId"]
    method = json.loads(stamps["iothub-connection-auth-method"])
    assert (method["scope"], method["type"]) == ("device", "sas")


def test_a_message_may_be_empty_or_bytes(api: DeviceApi, service: Service, device: Device) -> None:
    for body in (b"", b"\x00\xff"):
        assert api.send(body).status_code == 204
    first, second = read_events(service, device.id)
    assert (first["body"], second["bodyBase64"]) == ("", "AP8=")
    assert first["properties"] == first["systemProperties"] == {}


def test_a_message_may_have_256_kb_with_its_properties(
    api: DeviceApi, service: Service, device: Device
) -> None:
    assert api.send(bytes(_LIMIT - 4), iothub_app_ab="cd").status_code == 204
    check_error(api.send(bytes(_LIMIT - 3), iothub_app_ab="cd"), 413, "MessageTooLarge")
    assert len(read_events(service, device.id)) == 1


def test_a_header_that_is_not_text_is_not_an_error_of_the_hub(api: DeviceApi) -> None:
    assert api.send(b"", iothub_app_a=b"\xe9").status_code in (204, 400)


def test_each_message_moves_the_last_activity(
    api: DeviceApi, service: Service, device: Device
) -> None:
    identities = []
    for _ in range(2):
        assert api.send(b"").status_code == 204
        identities.append(read(service, f"/devices/{device.id}"))
    first, second = identities
    assert "2" < first["lastActivityTime"] < second["lastActivityTime"]
    assert first["connectionState"] == "Disconnected"


# --- receiving


def test_a_message_brings_its_properties_in_headers(
    api: DeviceApi, service: Service, device: Device
) -> None:
    expiry = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1000)
    send(
        service,
        device,
        '{"a": 1}',
        messageId="m1",
        correlationId="c1",
        userId="u1",
        contentType="application/json",
        contentEncoding="utf-8",
        expiryTimeUtc=expiry.strftime("%Y-%m-%dT%H:%M:%SZ"),
        ack="full",
        properties={"Colour": "blue & green", "empty": ""},
    )
    answer = api.receive()
    assert (answer.status_code, answer.text) == (200, '{"a": 1}')
    headers = answer.headers
    lock = headers["iothub-messagelocktoken"]
    assert headers["ETag"] == f'"{lock}"'
    expected = {
        "iothub-messageid": "m1",
        "iothub-correlationid": "c1",
        "iothub-userid": "u1",
        "iothub-to": f"/devices/{device.id}/messages/deviceBound",
        "iothub-ack": "full",
        "iothub-sequencenumber": "1",
        "iothub-deliverycount": "0",
        "iothub-expiry": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "iothub-app-Colour": "blue & green",
        "iothub-app-empty": "",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    assert {name: headers.get(name) for name in expected} == expected
    enqueued = datetime.fromisoformat(headers["iothub-enqueuedtime"].partition(".")[0].rstrip("Z"))
    age = datetime.now(UTC).replace(tzinfo=None) - enqueued
    assert timedelta(0) <= age < timedelta(seconds=60)
    assert "iothub-app-iothub-ack" not in headers


def test_a_property_of_any_text_does_not_block_the_queue(
    api: DeviceApi, service: Service, device: Device
) -> None:
    """The hub refuses the message, or delivers it in some form."""
    for value in ("blå grøn €", "two\r\nlines", "nul\0"):
        answer = try_to_send(service, device, body="odd", properties={"a": value}, messageId="m")
        if answer.status_code == 204:
            body, lock = api.take()
            assert (body, api.complete(lock).status_code) == ("odd", 204)
        else:
            check_error(answer, 400, "ArgumentInvalid")


def test_each_message_is_received_once_and_in_order(
    api: DeviceApi, service: Service, device: Device
) -> None:
    for body in ("one", "two"):
        send(service, device, body)
    assert [api.take()[0] for _ in range(2)] == ["one", "two"]
    answer = api.receive()
    assert (answer.status_code, answer.content) == (204, b"")
    assert pending(service, device) == 2


@pytest.mark.parametrize(
    ("settle", "level", "outcome"),
    [(DeviceApi.complete, "positive", "Success"), (DeviceApi.reject, "negative", "Rejected")],
)
def test_a_settled_message_is_gone_and_its_sender_receives_the_outcome(
    api: DeviceApi,
    service: Service,
    device: Device,
    settle: Callable[[DeviceApi, str], requests.Response],
    level: str,
    outcome: str,
) -> None:
    send(service, device, messageId="m", ack=level)
    answer = settle(api, api.take()[1])
    assert (answer.status_code, answer.content) == (204, b"")
    assert (api.receive().status_code, pending(service, device)) == (204, 0)
    assert take_feedback(service, device) == [("m", outcome)]


def test_an_abandoned_message_keeps_its_place_and_is_dropped_the_tenth_time(
    api: DeviceApi, service: Service, device: Device
) -> None:
    send(service, device, "one", messageId="one", ack="full")
    send(service, device, "two")
    for count in range(10):
        answer = api.receive()
        assert (answer.text, answer.headers["iothub-deliverycount"]) == ("one", str(count))
        assert answer.headers["iothub-sequencenumber"] == "1"
        assert api.abandon(answer.headers["iothub-messagelocktoken"]).status_code == 204
    assert api.take()[0] == "two"
    assert take_feedback(service, device) == [("one", "DeliveryCountExceeded")]


@pytest.mark.parametrize("settle", [DeviceApi.complete, DeviceApi.reject, DeviceApi.abandon])
def test_a_lock_is_valid_once_and_for_its_own_device(
    api: DeviceApi,
    emulator: Emulator,
    service: Service,
    device: Device,
    other: Device,
    settle: Callable[[DeviceApi, str], requests.Response],
) -> None:
    send(service, device, "one")
    _, stale = api.take()
    assert api.abandon(stale).status_code == 204
    _, lock = api.take()
    for lost in (stale, "no-such-lock", "%00"):
        check_error(settle(api, lost), 412, "DeviceMessageLockLost")
    of_other = settle(DeviceApi(service, emulator, other), lock)
    check_error(of_other, 412, "DeviceMessageLockLost")
    assert settle(api, lock).status_code == 204
    check_error(settle(api, lock), 412, "DeviceMessageLockLost")


# --- the purge


def test_a_purge_returns_the_number_of_messages_that_it_ended(
    api: DeviceApi, service: Service, device: Device
) -> None:
    for level in ("none", "positive", "negative", "full"):
        send(service, device, level, messageId=level, ack=level)
    _, lock = api.take()
    path = f"/devices/{device.id}/commands"
    answer = service.request("DELETE", path)
    assert answer.status_code == 200
    assert answer.json() == {"totalMessagesPurged": 4, "deviceId": device.id, "moduleId": None}
    check_error(api.complete(lock), 412, "DeviceMessageLockLost")
    assert pending(service, device) == 0
    assert service.request("DELETE", path).json()["totalMessagesPurged"] == 0
    assert take_feedback(service, device) == [("negative", "Purged"), ("full", "Purged")]
    unknown = service.request("DELETE", f"/devices/{device.id}-unknown/commands")
    check_error(unknown, 404, "DeviceNotFound")


# --- feedback


def test_a_batch_of_feedback_names_message_device_and_outcome(
    api: DeviceApi, service: Service, device: Device
) -> None:
    take_feedback(service, device)
    send(service, device, messageId="m1", ack="full")
    assert api.complete(api.take()[1]).status_code == 204
    send(service, device, ack="full")  # without an id
    assert api.reject(api.take()[1]).status_code == 204
    batch = service.request("GET", _FEEDBACK)
    assert batch.status_code == 200
    lock = batch.headers["iothub-messagelocktoken"]
    assert batch.headers["ETag"] == f'"{lock}"'
    assert batch.headers["Content-Type"] == "application/vnd.microsoft.iothub.feedback.json"
    assert batch.headers["iothub-enqueuedtime"].endswith("Z")
    generation = read(service, f"/devices/{device.id}")["generationId"]
    first, second = batch.json()
    assert first.pop("enqueuedTimeUtc").endswith("Z")
    assert second.pop("enqueuedTimeUtc").endswith("Z")
    assert first == {
        "originalMessageId": "m1",
        "statusCode": "Success",
        "description": "Success",
        "deviceId": device.id,
        "deviceGenerationId": generation,
    }
    assert second == {
        **first,
        "originalMessageId": None,
        "statusCode": "Rejected",
        "description": "Message rejected",
    }
    assert service.request("GET", _FEEDBACK).status_code == 204  # the batch is locked
    abandon = f"{_FEEDBACK}/{lock}/abandon"
    assert service.request("POST", abandon).status_code == 204
    check_error(service.request("POST", abandon), 412, "DeviceMessageLockLost")
    lock = service.request("GET", _FEEDBACK).headers["iothub-messagelocktoken"]
    assert service.request("DELETE", f"{_FEEDBACK}/{lock}").status_code == 204
    check_error(service.request("DELETE", f"{_FEEDBACK}/{lock}"), 412, "DeviceMessageLockLost")
    assert take_feedback(service, device) == []
