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
        iothub_expiry="2035-01-01T00:00:00Z",
        iothub_messageschema="s1",
        iothub_interface_id="i1",
        dt_subject="thermostat",
        iothub_ack="full",
        iothub_creationtimeutc="2026-01-31T14:46:08Z",
        iothub_app_Alert="yes & no",
        IoTHub_App_empty="",
        X_Other="1",
        Content_Type="text/plain",
    )
    assert (answer.status_code, answer.content) == (204, b"")
    (event,) = read_events(service, device.id)
    assert event["body"] == {"t": 21.5}
    assert event["properties"] == {
        "iothub-ack": "full",
        "iothub-creation-time-utc": "2026-01-31T14:46:08Z",
        "Alert": "yes & no",
        "empty": "",
    }
    assert event["systemProperties"] == {
        "message-id": "m1",
        "correlation-id": "c1",
        "user-id": "u1",
        "to": "somewhere",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2035-01-01T00:00:00Z",
        "iothub-message-schema": "s1",
        "iothub-interface-id": "i1",
        "dt-subject": "thermostat",
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


BATCH = "application/vnd.microsoft.iothub.json"


def test_each_item_of_a_batch_is_an_event(api: DeviceApi, service: Service, device: Device) -> None:
    items: list[dict[str, Any]] = [
        {"body": "b25l"},  # as Node and C# send it
        {"body": "dHdv", "base64Encoded": True, "properties": {"iothub-app-a": "1", "other": "x"}},
        {"body": "thrée", "base64Encoded": False, "properties": {"IoTHub-App-Two": "b=c & d"}},
        {"body": "AP8=", "properties": {"iothub-messageid": "m4", "dt-subject": "t"}},
        {
            "Body": "eyJ0IjoxfQ==",
            "Base64Encoded": None,
            "PROPERTIES": {"iothub-contenttype": "application/json"},
            "unknown": 1,
        },
        {"body": "", "properties": {"iothub-app-n": 1.0, "iothub-app-t": True, "iothub-app-0": ""}},
        {"body": "", "base64Encoded": False, "properties": None},
        # Names of another kind are left out.
        {"body": "", "properties": {"iothub-app-": "1", "message-id": "m", "": "x"}},
        # Of names that differ in letter case only, the last one counts.
        {"body": "", "properties": {"iothub-app-a": "1", "IOTHUB-APP-A": "2", "iothub-app-b": "3"}},
    ]
    answer = api.send(json.dumps(items).encode(), Content_Type=BATCH)
    assert (answer.status_code, answer.content) == (204, b"")
    events = read_events(service, device.id)
    assert [event.get("body", event.get("bodyBase64")) for event in events] == [
        *("one", "two", "thrée", "AP8=", {"t": 1}, "", "", "", "")
    ]
    assert [event["properties"] for event in events] == [
        *({}, {"a": "1"}, {"Two": "b=c & d"}, {}, {}, {"n": "1.0", "t": "true", "0": ""}, {}, {}),
        {"A": "2", "b": "3"},
    ]
    assert [event["systemProperties"] for event in events] == [
        *({}, {}, {}, {"message-id": "m4", "dt-subject": "t"}),
        *({"content-type": "application/json"}, {}, {}, {}, {}),
    ]
    assert events[3]["annotations"]["dt-subject"] == "t"
    numbers = [event["sequenceNumber"] for event in events]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "content_type", [BATCH, f"{BATCH}; charset=utf-8", "Application/VND.Microsoft.IoTHub.JSON"]
)
def test_the_content_type_tells_a_batch(
    api: DeviceApi, service: Service, device: Device, content_type: str
) -> None:
    body = b'[{"body": "YQ=="}, {"body": "Yg=="}]'
    assert api.send(body, Content_Type=content_type, iothub_app_x="1").status_code == 204
    assert api.send(b"[]", Content_Type=content_type).status_code == 204
    assert [event["body"] for event in read_events(service, device.id)] == ["a", "b"]
    assert api.send(body, Content_Type="application/json").status_code == 204
    assert read_events(service, device.id)[2]["body"] == body.decode()


@pytest.mark.parametrize(
    "item",
    [
        *({}, {"properties": {}}, {"body": None}, {"body": 1}, {"body": {}}, {"body": ["YQ=="]}),
        *({"body": "YQ"}, {"body": "Y Q=="}, {"body": "é"}, {"body": "YQ==\n"}),
        *({"body": "YQ==", "base64Encoded": value} for value in ("false", 0, [])),
        *({"body": "YQ==", "properties": value} for value in ([], "x", 1)),
        *({"body": "YQ==", "properties": {"iothub-app-a": value}} for value in ({}, [1])),
        *(None, [], "YQ==", 1),
    ],
)
def test_a_batch_with_an_invalid_item_stores_nothing(
    api: DeviceApi, service: Service, device: Device, item: Any
) -> None:
    good = {"body": "YQ=="}
    for items in ([item], [good, item], [item, good]):
        answer = api.send(json.dumps(items).encode(), Content_Type=BATCH)
        assert answer.status_code == 400, answer.text
    assert read_events(service, device.id) == []


@pytest.mark.parametrize("body", [b"", b"{}", b'{"body": "YQ=="}', b"null", b"[{]", b"\xff", b"1"])
def test_a_batch_is_an_array(api: DeviceApi, service: Service, device: Device, body: bytes) -> None:
    check_error(api.send(body, Content_Type=BATCH), 400, "DeserializationError")
    assert read_events(service, device.id) == []


def test_a_batch_has_256_kb_at_most(api: DeviceApi, service: Service, device: Device) -> None:
    item = json.dumps([{"body": "", "base64Encoded": False}]).encode()
    largest = item + b" " * (_LIMIT - len(item))
    assert api.send(largest, Content_Type=BATCH).status_code == 204
    check_error(api.send(largest + b" ", Content_Type=BATCH), 413, "MessageTooLarge")
    assert len(read_events(service, device.id)) == 1


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
        "ContentType": "application/json",
        "ContentEncoding": "utf-8",
        "iothub-contenttype": "application/json",
        "iothub-contentencoding": "utf-8",
    }
    assert {name: headers.get(name) for name in expected} == expected
    assert expected.keys() <= set(headers)  # the SDK for C compares names with letter case
    assert "Content-Encoding" not in headers
    assert headers["Content-Type"] == "application/octet-stream"
    enqueued = datetime.fromisoformat(headers["iothub-enqueuedtime"].partition(".")[0].rstrip("Z"))
    age = datetime.now(UTC).replace(tzinfo=None) - enqueued
    assert timedelta(0) <= age < timedelta(seconds=60)
    assert "iothub-app-iothub-ack" not in headers


@pytest.mark.parametrize(
    ("encoding", "content_type"), [("gzip", "text/plain"), ("deflate", "x"), ("br", "a/b; c=d")]
)
def test_a_client_does_not_decode_a_message_by_its_properties(
    api: DeviceApi, service: Service, device: Device, encoding: str, content_type: str
) -> None:
    send(service, device, "no gzip", contentEncoding=encoding, contentType=content_type)
    answer = api.receive()
    assert (answer.status_code, answer.text) == (200, "no gzip")
    assert answer.headers["ContentEncoding"] == encoding
    assert answer.headers["ContentType"] == content_type


@pytest.mark.parametrize("keyword", ["devicebound", "deviceBound", "DEVICEBOUND"])
def test_the_address_is_what_the_sender_wrote(
    api: DeviceApi, service: Service, device: Device, keyword: str
) -> None:
    address = f"/devices/{device.id}/messages/{keyword}"
    for level in ("none", "positive", "negative", "full"):
        send(service, device, to=address, ack=level)
        answer = api.receive()
        assert answer.headers["iothub-to"] == address
        assert answer.headers["iothub-ack"] == level


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
