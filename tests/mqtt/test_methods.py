"""Direct methods, from the caller's HTTP request to the device's topics and back."""

from __future__ import annotations

import json
import time

import pytest

from tests.mqtt.raw import (
    DISCONNECT,
    Dial,
    Greet,
    Invoke,
    Online,
    connack,
    puback,
    publish,
    suback,
    subscribe,
    unsuback,
    unsubscribe,
)
from tests.support import Device

_METHODS = "$iothub/methods/POST/#"


def _answer(request_id: str, payload: bytes = b"", *, status: int = 200) -> bytes:
    return publish(f"$iothub/methods/res/{status}/?$rid={request_id}", payload)


def test_a_method_goes_to_the_device_and_its_answer_to_the_caller(
    online: Online, invoke: Invoke, device: Device
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "rebootDevice", '{"method_number":"42"}')
    request_id = wire.expect_method("rebootDevice", '{"method_number":"42"}')
    wire.send(
        publish(
            f"$iothub/methods/res/200/?$rid={request_id}",
            b'{"Response": "This is the response from the device"}',
            packet_id=5,
        )
    )
    wire.expect(puback(5))
    answer = call.result()
    assert answer.status_code == 200
    assert answer.json() == {
        "status": 200,
        "payload": {"Response": "This is the response from the device"},
    }


@pytest.mark.parametrize(
    "payload", [None, "", "text", 0, 1.5, True, [], {}, [1, {"a": None}], {"ä": "€ 𝄞"}]
)
def test_any_json_goes_both_ways(
    online: Online, invoke: Invoke, device: Device, payload: object
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "echo", payload)
    request_id = wire.expect_method("echo", payload)
    wire.send(_answer(request_id, json.dumps(payload).encode()))
    assert call.result().json() == {"status": 200, "payload": payload}


@pytest.mark.parametrize("status", [0, -1, 404, 500, 2147483647, -2147483648])
def test_the_devices_status_is_the_devices_own(
    online: Online, invoke: Invoke, device: Device, status: int
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "status")
    wire.send(_answer(wire.expect_method("status"), b"{}", status=status))
    answer = call.result()
    assert answer.status_code == 200
    assert answer.json() == {"status": status, "payload": {}}


@pytest.mark.parametrize(
    ("body", "payload"),
    [(b"", None), (b"plain text", "plain text"), (b"{", "{"), (b"\xff", "\ufffd")],
)
def test_an_answer_that_is_empty_is_null_and_one_that_is_no_json_is_a_string(
    online: Online, invoke: Invoke, device: Device, body: bytes, payload: object
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "odd")
    wire.send(_answer(wire.expect_method("odd"), body))
    assert call.result().json() == {"status": 200, "payload": payload}


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("reboot", "reboot"),
        ("a b", "a b"),
        ("component*command", "component*command"),
        ("ä€𝄞", "ä€𝄞"),
        ("$rid=9&x", "$rid=9&x"),
        ("a/b", "a%2Fb"),
        ("+", "%2B"),
        ("#", "%23"),
        ("a?$rid=9", "a%3F$rid=9"),
        ("100%", "100%25"),
        ("line\nbreak", "line%0Abreak"),
        ("nul\0", "nul%00"),
        ("n" * 100, "n" * 100),
    ],
)
def test_a_name_with_odd_characters_stays_one_segment_of_the_topic(
    online: Online, invoke: Invoke, device: Device, name: str, segment: str
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, name)
    wire.send(_answer(wire.expect_method(segment)))
    assert call.result().status_code == 200


def test_fifty_calls_answered_backwards_each_get_their_own_answer(
    online: Online, invoke: Invoke, device: Device
) -> None:
    wire = online(device, _METHODS)
    calls = [invoke(device, "add", number) for number in range(50)]
    requests: list[tuple[str, int]] = []
    for _ in calls:
        topic, payload = wire.receive_publish()
        requests.append((topic.removeprefix("$iothub/methods/POST/add/?$rid="), int(payload)))
    assert sorted(number for _, number in requests) == list(range(50))
    assert len({request_id for request_id, _ in requests}) == 50
    for request_id, number in reversed(requests):
        wire.send(_answer(request_id, b"%d" % (number + 1000), status=number))
    for number, call in enumerate(calls):
        assert call.result().json() == {"status": number, "payload": number + 1000}


def test_unknown_and_second_answers_are_ignored(
    online: Online, invoke: Invoke, device: Device
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "once")
    request_id = wire.expect_method("once")
    wire.send(
        _answer("ffffffff", b'"unknown"'),
        _answer("", b'"unknown"'),
        _answer(request_id.upper() + "0", b'"unknown"'),
        _answer(request_id, b'"first"'),
        _answer(request_id, b'"second"', status=500),
    )
    assert call.result().json() == {"status": 200, "payload": "first"}
    wire.expect_nothing()
    # Nor does the second answer go to the next call.
    call = invoke(device, "next")
    next_id = wire.expect_method("next")
    assert next_id != request_id
    wire.send(_answer(request_id, b'"third"'), _answer(next_id, b'"its own"'))
    assert call.result().json() == {"status": 200, "payload": "its own"}


def test_a_late_answer_is_ignored(online: Online, invoke: Invoke, device: Device) -> None:
    wire = online(device, _METHODS)
    started = time.monotonic()
    call = invoke(device, "slow", responseTimeoutInSeconds=5)
    request_id = wire.expect_method("slow")
    answer = call.result()
    assert 4 < time.monotonic() - started < 9
    assert answer.status_code == 504
    assert answer.headers["iothub-errorcode"] == "GatewayTimeout"
    assert json.loads(answer.json()["Message"])["errorCode"] == 504101
    call = invoke(device, "next")
    wire.send(_answer(request_id, b'"late"'), _answer(wire.expect_method("next"), b'"in time"'))
    assert call.result().json() == {"status": 200, "payload": "in time"}


# --- a device that isn't there


def test_a_device_that_is_away_or_not_subscribed_is_not_online(
    online: Online, invoke: Invoke, device: Device
) -> None:
    offline = invoke(device, "reboot").result()
    online(device, "$iothub/twin/res/#")
    deaf = invoke(device, "reboot").result()
    for answer in (offline, deaf):
        assert answer.status_code == 404
        assert answer.headers["iothub-errorcode"] == "DeviceNotOnline"
        assert json.loads(answer.json()["Message"])["errorCode"] == 404103


def test_a_caller_may_wait_for_the_device_to_come_online(
    online: Online, invoke: Invoke, device: Device
) -> None:
    call = invoke(device, "wake", connectTimeoutInSeconds=8)
    wire = online(device)
    wire.expect_nothing()
    wire.send(subscribe(1, _METHODS))
    wire.expect(suback(1, 0))
    wire.send(_answer(wire.expect_method("wake"), b'"awake"'))
    assert call.result().json() == {"status": 200, "payload": "awake"}


def test_a_caller_is_served_by_a_device_whose_subscription_outlived_its_connection(
    dial: Dial, greet: Greet, online: Online, invoke: Invoke, device: Device
) -> None:
    """SDKs never subscribe again after a reconnect."""
    with online(device, _METHODS, clean=False) as wire:
        wire.send(DISCONNECT)
        wire.expect_closed()
    call = invoke(device, "wake", connectTimeoutInSeconds=8)
    wire = dial()
    wire.send(greet(device, clean=False))
    wire.expect(connack(0, session_present=True))
    wire.send(_answer(wire.expect_method("wake"), b'"awake"'))
    assert call.result().json() == {"status": 200, "payload": "awake"}


def test_an_answer_counts_even_after_the_subscription_ended(
    online: Online, invoke: Invoke, device: Device
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "last")
    request_id = wire.expect_method("last")
    wire.send(unsubscribe(2, _METHODS), _answer(request_id, b'"done"'))
    wire.expect(unsuback(2))
    assert call.result().json() == {"status": 200, "payload": "done"}


# --- sizes


def test_128_kb_go_both_ways(online: Online, invoke: Invoke, device: Device) -> None:
    payload = "x" * (128 * 1024 - 2)  # and its two quotes
    wire = online(device, _METHODS)
    call = invoke(device, "large", payload)
    wire.send(_answer(wire.expect_method("large", payload), json.dumps(payload).encode()))
    assert call.result().json() == {"status": 200, "payload": payload}


def test_a_larger_answer_fails_the_call_and_leaves_the_connection(
    online: Online, invoke: Invoke, device: Device
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "larger")
    wire.send(_answer(wire.expect_method("larger"), b'"' + b"x" * (128 * 1024) + b'"'))
    assert call.result().headers["iothub-errorcode"] == "MessageTooLarge"
    wire.expect_nothing()
