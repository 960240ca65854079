"""Direct methods over REST, on devices that answer, wait, or disconnect."""

import json
import threading
from contextlib import ExitStack
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.http import support
from tests.support import Device, Service

PAYLOAD_BYTES = 128 * 1024


# --- a call and its answer


@pytest.mark.parametrize(
    "payload",
    [
        None,
        False,
        0,
        -12.5,
        "",
        '{"method_number":"42"}',
        [1, [None, {"a": "b"}]],
        {"k": "v", "": {"nested": [{}]}},
        'ü€😀 \u2028 \x00 " \\ /',
        {"ключ": "значение"},
    ],
)
def test_every_kind_of_payload_is_sent_and_returned(
    service: Service, echoing: support.MethodDevice, payload: object
) -> None:
    response = support.invoke(service, "echoing", payload=payload)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == support.JSON_TYPE
    assert response.headers["x-ms-request-id"]
    assert list(response.json()) == ["status", "payload"]
    assert response.json() == {"status": 200, "payload": payload}
    sent = echoing.next_call().payload
    assert (json.loads(sent) if sent else None) == payload


@pytest.mark.parametrize(
    ("members", "sent"), [({}, b""), ({"payload": None}, b""), ({"payload": ""}, b'""')]
)
def test_a_payload_that_is_null_or_left_out_reaches_the_device_as_an_empty_body(
    service: Service, echoing: support.MethodDevice, members: dict[str, Any], sent: bytes
) -> None:
    answer = {"status": 200, "payload": members.get("payload")}
    assert support.invoke(service, "echoing", **members).json() == answer
    assert echoing.next_call().payload == sent


def test_numbers_in_a_payload_stay_as_they_are_written(
    service: Service, echoing: support.MethodDevice
) -> None:
    numbers = "[1.0,1,1e5,1E5,1e+05,1e-07,-0,-0.0,1.50,0.1,123456789012345678901234567890,1e400]"
    body = f'{{"methodName":"m","payload":{numbers}}}'
    response = service.request("POST", "/twins/echoing/methods", data=body)
    assert echoing.next_call().payload.decode() == numbers
    assert response.text == f'{{"status":200,"payload":{numbers}}}'


def test_the_device_receives_the_name_as_it_is_written(
    service: Service, echoing: support.MethodDevice
) -> None:
    for name in ("rebootDevice", "reboot_device", "a.b", "component*command", "n" * 100):
        assert support.invoke(service, "echoing", methodName=name).status_code == 200
        assert echoing.next_call().name == name


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_every_answer_of_a_device_reaches_the_caller(
    service: Service, device: Device, emulator: Emulator
) -> None:
    answers: list[tuple[int, bytes]] = [
        *((status, b'"done"') for status in (0, 404, -1, 2**31 - 1, -(2**31))),
        *((200, body) for body in (b"", b' { "a" : 1.0 } ', b"{'a':1}", b'"half: \\ud800"')),
    ]
    expected = iter([*answers])
    with support.MethodDevice(emulator, device, lambda call: next(expected)):
        for status, body in answers:
            response = support.invoke(service, device.id)
            assert response.status_code == 200
            text = b'{"status":%d,"payload":%s}' % (status, body or b"null")
            assert response.content == text


@pytest.mark.parametrize("body", [b"fine <thanks", b"not JSON", b"caf\xe9", b"{"])
def test_an_answer_that_is_not_json_is_a_bad_gateway(
    service: Service, device: Device, emulator: Emulator, body: bytes
) -> None:
    paths = (f"/twins/{device.id}/methods", f"/digitaltwins/{device.id}/commands/m")
    with support.MethodDevice(emulator, device, lambda call: (200, body)):
        for path in paths:
            response = service.request("POST", path, json={"methodName": "m"})
            error = support.check_nested_error(response, 502101, "InvalidResponseWhileProxying")
            assert error["message"] == "Payload is not a valid document of type application/json"


def test_a_deeply_nested_answer_reaches_the_caller(
    service: Service, device: Device, emulator: Emulator
) -> None:
    depths = [100, 255, 256, 1_000, 60_000]
    bodies = iter([deep(depth) for depth in depths])
    with support.MethodDevice(emulator, device, lambda call: (200, next(bodies))):
        for depth in depths:
            response = support.invoke(service, device.id)
            assert response.content == b'{"status":200,"payload":%s}' % deep(depth)


# --- limits


def text_of(size: int) -> str:
    """Make a string that is so many bytes of JSON."""
    return "x" * (size - 2)


def test_a_payload_may_have_128_kb(service: Service, echoing: support.MethodDevice) -> None:
    payload = text_of(PAYLOAD_BYTES)
    assert support.invoke(service, "echoing", payload=payload).json()["payload"] == payload
    assert len(echoing.next_call().payload) == PAYLOAD_BYTES
    response = support.invoke(service, "echoing", payload=text_of(PAYLOAD_BYTES + 1))
    support.check_nested_error(response, 413001, "MessageTooLarge")
    assert echoing.calls.empty()


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"responseTimeoutInSeconds": 4}, "must be within [5; 300]"),
        ({"responseTimeoutInSeconds": 10**30}, "must be within [5; 300]"),
        ({"connectTimeoutInSeconds": 31}, "cannot be longer than an overall call timeout"),
        ({"connectTimeoutInSeconds": [1]}, ""),
        ({"responseTimeoutInSeconds": "4"}, "must be within [5; 300]"),
        ({"methodName": "n" * 101}, ""),
    ],
)
def test_an_invalid_value_is_refused(
    service: Service, echoing: support.MethodDevice, members: dict[str, Any], text: str
) -> None:
    response = support.invoke(service, "echoing", **members)
    assert text in support.check_nested_error(response, 400004, "ArgumentInvalid")["message"]
    assert echoing.calls.empty()


@pytest.mark.parametrize(
    "members",
    [
        {"responseTimeoutInSeconds": 300, "connectTimeoutInSeconds": 300},
        {"responseTimeoutInSeconds": None, "connectTimeoutInSeconds": 0},
        {"responseTimeoutInSeconds": 5, "unknown": 1},
        {"responseTimeoutInSeconds": "30", "connectTimeoutInSeconds": "30"},
    ],
)
def test_a_valid_value_is_accepted(
    service: Service, echoing: support.MethodDevice, members: dict[str, Any]
) -> None:
    assert support.invoke(service, "echoing", **members).status_code == 200
    echoing.next_call()


def test_a_method_needs_a_name_and_an_object(service: Service) -> None:
    response = service.request("POST", "/twins/unknown/methods", json={})
    support.check_nested_error(response, 400005, "ArgumentNull")
    response = service.request("POST", "/twins/unknown/methods", data=b"[]")
    support.check_nested_error(response, 400012, "DeserializationError")


# --- devices that don't answer


def check_offline(response: requests.Response, info: object = None) -> None:
    inner = support.check_nested_error(response, 404103, "DeviceNotOnline")
    assert inner["message"] == (
        "The operation failed because the requested device isn't online. "
        "To learn more, see https://aka.ms/iothub404103"
    )
    assert inner["info"] == info


def test_a_device_without_a_subscription_for_the_method_is_not_online(
    service: Service, device: Device, emulator: Emulator
) -> None:
    check_offline(support.invoke(service, device.id))
    with support.MethodDevice(
        emulator, device, support.echo, subscribe="$iothub/methods/POST/other/#"
    ):
        check_offline(support.invoke(service, device.id, methodName="m"))
        assert support.invoke(service, device.id, methodName="other").status_code == 200


def test_an_unknown_or_disabled_device_is_not_found(service: Service, device: Device) -> None:
    support.update_device(service, device.id, status="disabled")
    for device_id in ("unknown", device.id):
        support.check_nested_error(support.invoke(service, device_id), 404001, "DeviceNotFound")


def test_a_call_waits_for_a_device_that_connects_in_time(
    device: Device, emulator: Emulator
) -> None:
    body = {"methodName": "m", "payload": 1, "connectTimeoutInSeconds": 20}
    with (
        support.sent_call(emulator, f"/twins/{device.id}/methods", body) as call,
        support.MethodDevice(emulator, device, support.echo),
    ):
        assert call.answer() == {"status": 200, "payload": 1}


# --- many at a time


def test_30_devices_answer_at_the_same_time(emulator: Emulator) -> None:
    all_are_called = threading.Barrier(30)

    def answer(call: support.Call) -> tuple[int, bytes]:
        all_are_called.wait(support.PATIENCE)
        return support.echo(call)

    with ExitStack() as stack:
        calls = {}
        for _ in range(30):
            device = support.register(emulator, support.new_id("one-of-30"))
            stack.enter_context(support.MethodDevice(emulator, device, answer))
            body = {"methodName": "m", "payload": {"for": device.id}}
            call = support.sent_call(emulator, f"/twins/{device.id}/methods", body)
            calls[device.id] = stack.enter_context(call)
        for device_id, open_call in calls.items():
            assert open_call.answer() == {"status": 200, "payload": {"for": device_id}}
