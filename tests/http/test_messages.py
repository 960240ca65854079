"""Messages over HTTPS: a device's own API, and what a service does about messages and feedback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests

from emulator import Emulator
from tests.http.support import check_error
from tests.messages import pending, read_events, send, take_feedback, try_to_send
from tests.support import API_VERSION, Device, Service, sas_token

_LIMIT = 262_144  # IoT Hub docs: quotas and throttling, 256 KB
_FEEDBACK = "/messages/serviceBound/feedback"


class DeviceApi:
    """A device that speaks HTTPS."""

    def __init__(self, emulator: Emulator, device: Device, token: str | None) -> None:
        self._start = f"https://{emulator.https_host}/devices/{device.id}/messages"
        self._session = requests.Session()
        self._session.trust_env = False  # or the whole bundle of public roots is read each time
        self._session.verify = str(emulator.ca_file)
        if token is not None:
            self._session.headers["Authorization"] = token

    def call(
        self,
        verb: str,
        path: str,
        *,
        data: bytes = b"",
        headers: dict[str, str | bytes] | None = None,
        **params: str,
    ) -> requests.Response:
        return self._session.request(
            verb,
            f"{self._start}/{path}",
            data=data,
            headers=headers,
            params={"api-version": API_VERSION, **params},
            timeout=30,
        )

    def send(self, body: bytes, **headers: str | bytes) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("POST", "events", data=body, headers=named)

    def receive(self) -> requests.Response:
        return self.call("GET", "deviceBound")

    def take(self) -> tuple[str, str]:
        """Receive a message that must be there; gives its body and its lock."""
        response = self.receive()
        assert response.status_code == 200, response.text
        return response.text, response.headers["iothub-messagelocktoken"]

    def complete(self, lock: str) -> requests.Response:
        return self.call("DELETE", f"deviceBound/{lock}")

    def reject(self, lock: str) -> requests.Response:
        return self.call("DELETE", f"deviceBound/{lock}", reject="")

    def abandon(self, lock: str) -> requests.Response:
        return self.call("POST", f"deviceBound/{lock}/abandon")

    def close(self) -> None:
        self._session.close()


MakeApi = Callable[..., DeviceApi]


@pytest.fixture
def make_api(emulator: Emulator) -> Iterator[MakeApi]:
    """Makes devices that speak HTTPS; the token is their own unless one is given."""
    apis = []

    def make(device: Device, token: str | None = "") -> DeviceApi:
        own = sas_token(f"{emulator.host_name}/devices/{device.id}", device.key)
        apis.append(DeviceApi(emulator, device, own if token == "" else token))
        return apis[-1]

    yield make
    for api in apis:
        api.close()


@pytest.fixture
def api(make_api: MakeApi, device: Device) -> DeviceApi:
    return make_api(device)


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
    identity = service.request("GET", f"/devices/{device.id}").json()
    assert stamps["iothub-connection-device-id"] == device.id
    assert stamps["iothub-connection-auth-generation-id"] == identity["generationId"]
    method = json.loads(stamps["iothub-connection-auth-method"])
    assert (method["scope"], method["type"]) == ("device", "sas")


def test_a_message_may_be_empty_and_bytes(api: DeviceApi, service: Service, device: Device) -> None:
    for body in (b"", b"\x00\xff"):
        assert api.send(body).status_code == 204
    first, second = read_events(service, device.id)
    assert (first["body"], second["bodyBase64"]) == ("", "AP8=")
    assert first["properties"] == first["systemProperties"] == {}


def test_a_message_may_have_256_kb_with_its_properties_and_no_more(
    api: DeviceApi, service: Service, device: Device
) -> None:
    assert api.send(bytes(_LIMIT - 4), iothub_app_ab="cd").status_code == 204
    check_error(api.send(bytes(_LIMIT - 3), iothub_app_ab="cd"), 413, "MessageTooLarge")
    assert len(read_events(service, device.id)) == 1


def test_a_body_above_any_limit_is_too_large_as_well(
    api: DeviceApi, service: Service, device: Device
) -> None:
    check_error(api.send(bytes(4 * 1024 * 1024 + 1)), 413, "MessageTooLarge")
    assert read_events(service, device.id) == []


def test_a_header_that_is_not_text_is_no_error_of_the_hub(api: DeviceApi) -> None:
    assert api.send(b"", iothub_app_a=b"\xe9").status_code in (204, 400)


def test_sending_moves_the_last_activity(api: DeviceApi, service: Service, device: Device) -> None:
    path = f"/devices/{device.id}"
    assert api.send(b"").status_code == 204
    first = service.request("GET", path).json()
    assert not first["lastActivityTime"].startswith("0001-")
    assert first["connectionState"] == "Disconnected"
    assert api.send(b"").status_code == 204
    assert service.request("GET", path).json()["lastActivityTime"] > first["lastActivityTime"]


# --- who may


def test_only_the_device_itself_may_call(
    emulator: Emulator, make_api: MakeApi, service: Service, device: Device
) -> None:
    host = emulator.host_name
    audience = f"{host}/devices/{device.id}"
    (owner, _), (connect, _) = (emulator.settings.key_pair(each) for each in ("service", "device"))
    tokens = [
        None,
        "no token",
        sas_token(audience, "A" * 43 + "="),
        sas_token(audience, device.key, lifetime=-10),
        sas_token(f"{audience}-x", device.key),
        sas_token(host, owner, policy="service"),
    ]
    send(service, device, "one")
    for token in tokens:
        intruder = make_api(device, token)
        for answer in (intruder.send(b""), intruder.receive(), intruder.complete("x")):
            check_error(answer, 401, "IotHubUnauthorizedAccess")
    unknown = make_api(device._replace(id=f"{device.id}-unknown"))
    check_error(unknown.send(b""), 401, "IotHubUnauthorizedAccess")
    assert (read_events(service, device.id), pending(service, device)) == ([], 1)
    assert make_api(device, sas_token(host, connect, policy="device")).receive().text == "one"


def test_a_disabled_device_may_not_call(api: DeviceApi, service: Service, device: Device) -> None:
    identity = service.request("GET", f"/devices/{device.id}").json()
    identity["status"] = "disabled"
    path, headers = f"/devices/{device.id}", {"If-Match": "*"}
    assert service.request("PUT", path, json=identity, headers=headers).ok
    check_error(api.send(b""), 401, "IotHubUnauthorizedAccess")
    check_error(api.receive(), 401, "IotHubUnauthorizedAccess")


def test_a_device_names_an_api_version(api: DeviceApi) -> None:
    answer = api.call("GET", "deviceBound", **{"api-version": ""})
    check_error(answer, 400, "InvalidProtocolVersion")


# --- receiving


def test_an_empty_queue_is_no_content(api: DeviceApi) -> None:
    answer = api.receive()
    assert (answer.status_code, answer.content) == (204, b"")


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
    """It is refused when it is sent, or it arrives in some form."""
    for value in ("blå grøn €", "two\r\nlines", "nul\0"):
        answer = try_to_send(service, device, body="odd", properties={"a": value}, messageId="m")
        if answer.status_code == 204:
            body, lock = api.take()
            assert (body, api.complete(lock).status_code) == ("odd", 204)
        else:
            check_error(answer, 400, "ArgumentInvalid")


def test_messages_are_lent_in_order_each_once(
    api: DeviceApi, service: Service, device: Device
) -> None:
    for body in ("one", "two"):
        send(service, device, body)
    (first, _), (second, _) = api.take(), api.take()
    assert (first, second) == ("one", "two")
    assert api.receive().status_code == 204
    assert pending(service, device) == 2


def test_a_completed_message_is_gone(api: DeviceApi, service: Service, device: Device) -> None:
    send(service, device, messageId="m", ack="positive")
    _, lock = api.take()
    answer = api.complete(lock)
    assert (answer.status_code, answer.content) == (204, b"")
    assert pending(service, device) == 0
    assert take_feedback(service, device) == [("m", "Success")]


@pytest.mark.parametrize("level", ["negative", "full"])
def test_a_rejected_message_is_gone_and_its_sender_hears_of_it(
    api: DeviceApi, service: Service, device: Device, level: str
) -> None:
    send(service, device, messageId="m", ack=level)
    assert api.reject(api.take()[1]).status_code == 204
    assert (api.receive().status_code, pending(service, device)) == (204, 0)
    assert take_feedback(service, device) == [("m", "Rejected")]


def test_an_abandoned_message_comes_again_in_its_old_place_and_dies_the_tenth_time(
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
def test_a_lock_holds_once(
    api: DeviceApi,
    service: Service,
    device: Device,
    settle: Callable[[DeviceApi, str], requests.Response],
) -> None:
    send(service, device, "one")
    _, stale = api.take()
    assert api.abandon(stale).status_code == 204
    _, lock = api.take()
    for lost in (stale, "no-such-lock", "%00"):
        check_error(settle(api, lost), 412, "DeviceMessageLockLost")
    assert settle(api, lock).status_code == 204
    check_error(settle(api, lock), 412, "DeviceMessageLockLost")


def test_a_lock_is_good_for_its_own_device_alone(
    api: DeviceApi, emulator: Emulator, make_api: MakeApi, service: Service, device: Device
) -> None:
    send(service, device, "one")
    _, lock = api.take()
    connection_string = emulator.register_device(f"{device.id}-2")
    other = make_api(Device(f"{device.id}-2", device.key, connection_string))
    check_error(other.complete(lock), 412, "DeviceMessageLockLost")
    assert api.complete(lock).status_code == 204


def test_paths_are_found_in_any_case(api: DeviceApi, service: Service, device: Device) -> None:
    send(service, device, "one")
    answer = api.call("GET", "devicebound")
    assert (answer.status_code, answer.text) == (200, "one")
    lock = answer.headers["iothub-messagelocktoken"]
    assert api.call("DELETE", f"DeviceBound/{lock}").status_code == 204


# --- the purge


def test_a_purge_tells_how_many_messages_it_ended(
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


def test_an_unknown_device_has_nothing_to_purge(service: Service, device: Device) -> None:
    answer = service.request("DELETE", f"/devices/{device.id}-unknown/commands")
    check_error(answer, 404, "DeviceNotFound")


# --- feedback


def _succeed(api: DeviceApi, service: Service, device: Device, message_id: str) -> None:
    send(service, device, messageId=message_id, ack="full")
    assert api.complete(api.take()[1]).status_code == 204


def test_a_batch_of_feedback_names_message_device_and_outcome(
    api: DeviceApi, service: Service, device: Device
) -> None:
    take_feedback(service, device)
    _succeed(api, service, device, "m1")
    send(service, device, ack="full")  # without an id
    assert api.reject(api.take()[1]).status_code == 204
    batch = service.request("GET", _FEEDBACK)
    assert batch.status_code == 200
    lock = batch.headers["iothub-messagelocktoken"]
    assert batch.headers["ETag"] == f'"{lock}"'
    assert batch.headers["Content-Type"] == "application/vnd.microsoft.iothub.feedback.json"
    assert batch.headers["iothub-enqueuedtime"].endswith("Z")
    generation = service.request("GET", f"/devices/{device.id}").json()["generationId"]
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
    assert service.request("GET", _FEEDBACK).status_code == 204  # it is lent
    assert service.request("DELETE", f"{_FEEDBACK}/{lock}").status_code == 204
    check_error(service.request("DELETE", f"{_FEEDBACK}/{lock}"), 412, "DeviceMessageLockLost")


def test_a_batch_that_was_abandoned_comes_again(
    api: DeviceApi, service: Service, device: Device
) -> None:
    take_feedback(service, device)
    _succeed(api, service, device, "m1")
    lock = service.request("GET", _FEEDBACK).headers["iothub-messagelocktoken"]
    assert service.request("POST", f"{_FEEDBACK}/{lock}/abandon").status_code == 204
    answer = service.request("POST", f"{_FEEDBACK}/{lock}/abandon")
    check_error(answer, 412, "DeviceMessageLockLost")
    assert take_feedback(service, device) == [("m1", "Success")]


@pytest.mark.parametrize("policy", ["registryReadWrite", "device"])
def test_feedback_and_purge_need_the_right_of_a_service(
    emulator: Emulator, service: Service, device: Device, policy: str
) -> None:
    send(service, device, "one")
    caller = Service(emulator, policy)
    for verb, path in (
        ("DELETE", f"/devices/{device.id}/commands"),
        ("GET", _FEEDBACK),
        ("DELETE", f"{_FEEDBACK}/x"),
        ("POST", f"{_FEEDBACK}/x/abandon"),
    ):
        check_error(caller.request(verb, path), 401, "IotHubUnauthorizedAccess")
    caller.close()
    assert pending(service, device) == 1


def test_the_policy_of_a_service_is_enough(
    emulator: Emulator, api: DeviceApi, service: Service, device: Device
) -> None:
    _succeed(api, service, device, "m1")
    caller = Service(emulator, "service")
    assert take_feedback(caller, device) == [("m1", "Success")]
    assert caller.request("DELETE", f"/devices/{device.id}/commands").status_code == 200
    caller.close()
