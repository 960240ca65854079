from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from emulator import Emulator
from tests.http.support import (
    PATIENCE,
    Call,
    MethodDevice,
    check_error,
    check_nested_error,
    echo,
    invoke,
    put_device,
    sent_call,
    silence,
)
from tests.support import Device, Service, sas_token

PAYLOAD_BYTES = 128 * 1024


@pytest.fixture(scope="module")
def connected_echo(emulator: Emulator) -> Iterator[MethodDevice]:
    key = emulator.register_device("echoing").partition(";SharedAccessKey=")[2]
    with MethodDevice(emulator, Device("echoing", key, ""), echo) as connected:
        yield connected


@pytest.fixture
def echoing(connected_echo: MethodDevice) -> MethodDevice:
    """A connected device, `echoing`, which answers each call with its payload."""
    while not connected_echo.calls.empty():  # what a test that failed left behind
        connected_echo.calls.get()
    return connected_echo


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls that stay open."""
    with ThreadPoolExecutor(4) as executor:
        yield executor


# --- a call and its answer


@pytest.mark.parametrize(
    "payload",
    [
        None,
        True,
        False,
        0,
        -12.5,
        "",
        "foo",
        '{"method_number":"42"}',
        [],
        [1, [None, {"a": "b"}]],
        {},
        {"k": "v", "": {"nested": [{}]}},
        'ü€😀 \u2028 \x00 " \\ /',
        {"ключ": "значение"},
    ],
)
def test_every_kind_of_payload_goes_there_and_back(
    service: Service, echoing: MethodDevice, payload: object
) -> None:
    response = invoke(service, "echoing", payload=payload)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.headers["x-ms-request-id"]
    assert list(response.json()) == ["status", "payload"]
    assert response.json() == {"status": 200, "payload": payload}
    assert json.loads(echoing.next_call().payload) == payload


def test_a_payload_that_is_left_out_is_none(service: Service, echoing: MethodDevice) -> None:
    response = invoke(service, "echoing")
    assert response.json() == {"status": 200, "payload": None}
    # Which of the two a real hub sends is not known; every SDK takes them for the same.
    assert echoing.next_call().payload in (b"", b"null")


def test_numbers_in_a_payload_stay_as_they_are_written(
    service: Service, echoing: MethodDevice
) -> None:
    numbers = "[1.0,1,1e5,1E5,1e+05,1e-07,-0,-0.0,1.50,0.1,123456789012345678901234567890,1e400]"
    body = f'{{"methodName":"m","payload":{numbers}}}'
    response = service.request("POST", "/twins/echoing/methods", data=body)
    assert echoing.next_call().payload.decode() == numbers
    assert response.text == f'{{"status":200,"payload":{numbers}}}'


@pytest.mark.parametrize("status", [0, 1, 200, 404, 500, -1, 2**31 - 1, -(2**31)])
def test_the_devices_status_is_no_concern_of_http(
    service: Service, device: Device, emulator: Emulator, status: int
) -> None:
    with MethodDevice(emulator, device, lambda call: (status, b'"done"')):
        response = invoke(service, device.id)
    assert response.status_code == 200
    assert response.json() == {"status": status, "payload": "done"}


def test_the_device_gets_the_name_as_it_is_written(service: Service, echoing: MethodDevice) -> None:
    for name in ("rebootDevice", "reboot_device", "a.b", "component*command", "n" * 100):
        assert invoke(service, "echoing", methodName=name).status_code == 200
        assert echoing.next_call().name == name


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", None),
        (b"null", None),
        (b' { "a" : 1.0 } ', {"a": 1.0}),
        (b"not JSON", "not JSON"),
        (b'{"cut": ', '{"cut": '),
        (b"NaN", "NaN"),
        (b"caf\xe9", "caf\ufffd"),
        (b'"half a pair: \\ud800"', '"half a pair: \\ud800"'),
    ],
)
def test_whatever_a_device_answers_reaches_the_caller(
    service: Service, device: Device, emulator: Emulator, body: bytes, payload: object
) -> None:
    # What a real hub makes of an answer that is not JSON is not known.
    with MethodDevice(emulator, device, lambda call: (200, body)):
        response = invoke(service, device.id)
    assert response.status_code == 200
    assert response.json() == {"status": 200, "payload": payload}


@pytest.mark.parametrize("depth", [100, 252, 253, 254, 255, 256, 100_000])
def test_a_deep_answer_is_an_answer(
    service: Service, device: Device, emulator: Emulator, depth: int
) -> None:
    body = b"[" * depth + b"]" * depth
    if len(body) > PAYLOAD_BYTES:
        body = body[:PAYLOAD_BYTES]
    with MethodDevice(emulator, device, lambda call: (200, body)):
        response = invoke(service, device.id)
    assert response.status_code == 200, response.text


# --- limits


def text_of(size: int) -> str:
    """Make a string that is so many bytes of JSON."""
    return "x" * (size - 2)


def test_a_payload_of_128_kb_goes_there_and_back(service: Service, echoing: MethodDevice) -> None:
    payload = text_of(PAYLOAD_BYTES)
    assert invoke(service, "echoing", payload=payload).json()["payload"] == payload
    assert len(echoing.next_call().payload) == PAYLOAD_BYTES


@pytest.mark.parametrize(
    "payload", [text_of(PAYLOAD_BYTES + 1), "é" * (PAYLOAD_BYTES // 2)], ids=["ASCII", "UTF-8"]
)
def test_a_payload_over_128_kb_is_refused(
    service: Service, echoing: MethodDevice, payload: str
) -> None:
    response = invoke(service, "echoing", payload=payload)
    check_nested_error(response, 413001, "MessageTooLarge")
    assert echoing.calls.empty()


def test_an_answer_over_128_kb_fails_the_call(
    service: Service, device: Device, emulator: Emulator
) -> None:
    answers = [b"1" * (PAYLOAD_BYTES + 1), b'"small"']
    with MethodDevice(emulator, device, lambda call: (200, answers.pop(0))):
        check_nested_error(invoke(service, device.id), 413001, "MessageTooLarge")
        # The device is still there.
        assert invoke(service, device.id).json()["payload"] == "small"


@pytest.mark.parametrize(
    "members",
    [
        {"responseTimeoutInSeconds": 4},
        {"responseTimeoutInSeconds": 301},
        {"responseTimeoutInSeconds": 0},
        {"responseTimeoutInSeconds": -5},
        {"responseTimeoutInSeconds": "30"},
        {"responseTimeoutInSeconds": True},
        {"responseTimeoutInSeconds": 10**30},
        {"connectTimeoutInSeconds": -1},
        {"connectTimeoutInSeconds": 301, "responseTimeoutInSeconds": 300},
        {"connectTimeoutInSeconds": [1]},
        {"connectTimeoutInSeconds": 11, "responseTimeoutInSeconds": 10},
        {"connectTimeoutInSeconds": 31},  # over the response's default
        {"methodName": "n" * 101},
        {"methodName": 7},
    ],
)
def test_a_value_out_of_its_range_is_refused(
    service: Service, echoing: MethodDevice, members: dict[str, Any]
) -> None:
    check_nested_error(invoke(service, "echoing", **members), 400004, "ArgumentInvalid")
    assert echoing.calls.empty()


def test_the_texts_about_time_outs_are_a_hubs(service: Service) -> None:
    response = invoke(service, "nobody", responseTimeoutInSeconds=4)
    assert (
        "must be within [5; 300]"
        in check_nested_error(response, 400004, "ArgumentInvalid")["message"]
    )
    response = invoke(service, "nobody", responseTimeoutInSeconds=10, connectTimeoutInSeconds=11)
    text = check_nested_error(response, 400004, "ArgumentInvalid")["message"]
    assert text.startswith("Device connection timeout")
    assert "cannot be longer than an overall call timeout" in text


@pytest.mark.parametrize(
    "members",
    [
        {"responseTimeoutInSeconds": 5},
        {"responseTimeoutInSeconds": 300, "connectTimeoutInSeconds": 300},
        {"responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 5},
        {"responseTimeoutInSeconds": None, "connectTimeoutInSeconds": 0},
        {"connectTimeoutInSeconds": 30},
        {"unknown": 1},
    ],
)
def test_a_value_within_its_range_is_taken(
    service: Service, echoing: MethodDevice, members: dict[str, Any]
) -> None:
    assert invoke(service, "echoing", **members).status_code == 200
    echoing.next_call()


@pytest.mark.parametrize("members", [{}, {"methodName": None}, {"methodName": ""}])
def test_a_method_needs_a_name(service: Service, members: dict[str, Any]) -> None:
    response = service.request("POST", "/twins/nobody/methods", json=members)
    check_nested_error(response, 400005, "ArgumentNull")


@pytest.mark.parametrize("body", [b"", b"{", b'"m"', b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(service: Service, body: bytes) -> None:
    response = service.request("POST", "/twins/nobody/methods", data=body)
    check_nested_error(response, 400012, "DeserializationError")


# --- devices that don't answer


OFFLINE = (
    "The operation failed because the requested device isn't online. "
    "To learn more, see https://aka.ms/iothub404103"
)


def check_offline(response: Any) -> None:
    inner = check_nested_error(response, 404103, "DeviceNotOnline")
    assert (inner["message"], inner["info"]) == (OFFLINE, None)


def test_a_device_that_is_not_connected_is_not_online(service: Service, device: Device) -> None:
    check_offline(invoke(service, device.id))


def test_a_device_that_does_not_listen_for_methods_is_not_online(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with MethodDevice(emulator, device, echo, subscribe="$iothub/methods/POST/other/#"):
        check_offline(invoke(service, device.id, methodName="m"))
        assert invoke(service, device.id, methodName="other").status_code == 200


def test_an_unknown_device_is_not_found(service: Service) -> None:
    check_nested_error(invoke(service, "nobody"), 404001, "DeviceNotFound")


def test_a_module_is_not_found_or_not_online(service: Service, device: Device) -> None:
    body = {"methodName": "m"}
    path = f"/twins/{device.id}/modules/m/methods"
    check_nested_error(service.request("POST", path, json=body), 404010, "ModuleNotFound")
    module = {"deviceId": device.id, "moduleId": "m"}
    assert service.request("PUT", f"/devices/{device.id}/modules/m", json=module).ok
    check_offline(service.request("POST", path, json=body))
    response = service.request("POST", "/twins/nobody/modules/m/methods", json=body)
    check_nested_error(response, 404001, "DeviceNotFound")


def test_a_disabled_device_is_not_found(service: Service) -> None:
    device_id = f"disabled-{uuid.uuid4().hex}"
    put_device(service, device_id, status="disabled")
    check_nested_error(invoke(service, device_id), 404001, "DeviceNotFound")


def test_time_outs_end_the_wait_and_the_late_answer_is_ignored(
    service: Service, device: Device, emulator: Emulator, pool: ThreadPoolExecutor
) -> None:
    never_there = f"never-there-{uuid.uuid4().hex}"
    put_device(service, never_there)
    with MethodDevice(emulator, device, silence) as connected:
        start = time.monotonic()
        slow = pool.submit(invoke, service, device.id, responseTimeoutInSeconds=5)
        offline = pool.submit(invoke, service, never_there, connectTimeoutInSeconds=1)
        late = connected.next_call()

        inner = check_nested_error(offline.result(), 404103, "DeviceNotOnline")
        assert inner["info"] == {"timeout": "00:00:01"}
        inner = check_nested_error(slow.result(), 504101, "GatewayTimeout")
        assert inner["message"] == "Timed out waiting for the response from device."
        assert inner["info"] == {"timeout": "00:00:05"}
        assert 4.9 < time.monotonic() - start < 15

        second = pool.submit(invoke, service, device.id)
        current = connected.next_call()
        connected.reply(late.request_id, 1, b'"too late"')
        connected.reply("unknown", 2, b'"nobody asked"')
        connected.reply(current.request_id, 3, b'"in time"')
        connected.reply(current.request_id, 4, b'"twice"')
        assert second.result().json() == {"status": 3, "payload": "in time"}


def test_a_call_waits_for_a_device_that_connects_in_time(
    device: Device, emulator: Emulator
) -> None:
    with sent_call(emulator, device.id, payload=1, connectTimeoutInSeconds=20) as call:  # noqa: SIM117
        # The call is on its way before the device is.
        with MethodDevice(emulator, device, echo):
            assert call.answer() == {"status": 200, "payload": 1}


def test_a_call_fails_when_the_device_leaves(
    service: Service, device: Device, emulator: Emulator, pool: ThreadPoolExecutor
) -> None:
    with MethodDevice(emulator, device, silence) as connected:
        call = pool.submit(invoke, service, device.id)
        connected.next_call()
        connected.disconnect()
        check_nested_error(call.result(PATIENCE), 404103, "DeviceNotOnline")


@pytest.mark.parametrize("how", ["disabled", "deleted"])
def test_a_call_fails_when_the_device_is_taken_away(
    service: Service, device: Device, emulator: Emulator, pool: ThreadPoolExecutor, how: str
) -> None:
    verb, body = ("DELETE", None)
    if how == "disabled":
        verb, body = ("PUT", {"deviceId": device.id, "status": "disabled"})
    with MethodDevice(emulator, device, silence) as connected:
        call = pool.submit(invoke, service, device.id)
        connected.next_call()
        path = f"/devices/{device.id}"
        assert service.request(verb, path, json=body, headers={"If-Match": "*"}).ok
        connected.wait_until_gone()
        response = call.result(PATIENCE)
    assert response.status_code == 404
    check_nested_error(response, 404103, "DeviceNotOnline")
    # From then on there is no such device to call.
    check_nested_error(invoke(service, device.id), 404001, "DeviceNotFound")


def test_a_call_fails_when_another_connection_takes_over(
    service: Service, device: Device, emulator: Emulator, pool: ThreadPoolExecutor
) -> None:
    with MethodDevice(emulator, device, silence) as older:
        call = pool.submit(invoke, service, device.id)
        older.next_call()
        with MethodDevice(emulator, device, echo):
            name = "ConnectionForcefullyClosedOnNewConnection"
            check_nested_error(call.result(PATIENCE), 400027, name)
            # The newer one is the device now.
            assert invoke(service, device.id, payload="new").json()["payload"] == "new"
        older.wait_until_gone()


# --- many at a time


def test_calls_to_30_devices_are_open_at_once_and_apart(
    service: Service, emulator: Emulator
) -> None:
    everybody_is_called = threading.Barrier(30)

    def answer(call: Call) -> tuple[int, bytes]:
        everybody_is_called.wait(PATIENCE)
        return echo(call)

    with ExitStack() as stack:
        calls = {}
        for number in range(30):
            device_id = f"one-of-30-{number}-{uuid.uuid4().hex}"
            key = emulator.register_device(device_id).partition(";SharedAccessKey=")[2]
            stack.enter_context(MethodDevice(emulator, Device(device_id, key, ""), answer))
            call = sent_call(emulator, device_id, payload={"for": device_id})
            calls[device_id] = stack.enter_context(call)
        for device_id, open_call in calls.items():
            assert open_call.answer() == {"status": 200, "payload": {"for": device_id}}


def test_calls_to_one_device_are_told_apart(
    service: Service, device: Device, emulator: Emulator, pool: ThreadPoolExecutor
) -> None:
    with MethodDevice(emulator, device, silence) as connected:
        open_calls = {
            number: pool.submit(invoke, service, device.id, payload=number) for number in range(4)
        }
        received = [connected.next_call() for _ in open_calls]
        assert len({call.request_id for call in received}) == len(received)
        for call in reversed(received):
            connected.reply(call.request_id, int(call.payload), call.payload)
        for number, open_call in open_calls.items():
            assert open_call.result(PATIENCE).json() == {"status": number, "payload": number}


# --- who may call


def test_a_call_without_the_right_is_refused_in_the_usual_form(
    service: Service, device: Device, emulator: Emulator
) -> None:
    key, _ = emulator.settings.key_pair("registryReadWrite")
    token = sas_token(emulator.https_host, key, policy="registryReadWrite")
    response = service.request(
        "POST",
        f"/twins/{device.id}/methods",
        json={"methodName": "m"},
        headers={"Authorization": token},
    )
    check_error(response, 401, "IotHubUnauthorizedAccess")
