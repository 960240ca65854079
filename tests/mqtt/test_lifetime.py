"""What ends a connection, and what doesn't."""

from __future__ import annotations

import base64
import gc
import importlib.util
import json
import ssl
import time
from collections.abc import Callable

import pytest

from emulator import Emulator
from emulator.hub.core import limits
from tests.mqtt.raw import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    Dial,
    Greet,
    Invoke,
    Online,
    connack,
    connect,
    publish,
    suback,
    subscribe,
)
from tests.support import Device, Service, sas_token

_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"


def _connection_state(service: Service, device: Device) -> str:
    state: str = service.request("GET", f"/devices/{device.id}").json()["connectionState"]
    return state


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- nothing is left


def _tls_objects() -> int:
    """Count the emulator's ends of TLS connections; a client's are sockets."""
    return sum(type(each) is ssl.SSLObject for each in gc.get_objects())


@pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="asyncio's own TLS is a circle by itself"
)
@pytest.mark.parametrize("last", [b"", DISCONNECT, b"\xff\xff"])
def test_an_ended_connection_waits_for_no_garbage_collector(
    dial: Dial, online: Online, device: Device, last: bytes
) -> None:
    gc.collect()
    before = _tls_objects()
    gc.disable()
    try:
        for _ in range(10):
            for wire in (online(device, _METHODS), dial()):
                wire.send(last)
                wire.close()
        _wait(lambda: _tls_objects() <= before)
    finally:
        gc.enable()


# --- one connection for each identity


def test_a_new_connection_replaces_the_older_one(
    online: Online, service: Service, device: Device
) -> None:
    older = online(device, _TWIN_ANSWERS)
    newer = online(device, _TWIN_ANSWERS)
    older.expect_closed()
    newer.send(publish("$iothub/twin/GET/?$rid=1"))
    newer.expect_publish("$iothub/twin/res/200/?$rid=1")
    assert _connection_state(service, device) == "Connected"


def test_calls_in_flight_fail_when_the_device_connects_anew(
    online: Online, invoke: Invoke, device: Device
) -> None:
    older = online(device, _METHODS)
    calls = [invoke(device, "wait") for _ in range(3)]
    request_ids = [older.expect_method("wait") for _ in calls]
    newer = online(device, _METHODS)
    for call in calls:
        answer = call.result()
        assert answer.status_code == 400
        assert answer.headers["iothub-errorcode"] == "ConnectionForcefullyClosedOnNewConnection"
        assert json.loads(answer.json()["Message"])["errorCode"] == 400027
    # The new connection can't answer for the old one, and has calls of its own.
    newer.send(publish(f"$iothub/methods/res/200/?$rid={request_ids[0]}", b'"late"'))
    call = invoke(device, "work")
    newer.send(publish(f"$iothub/methods/res/201/?$rid={newer.expect_method('work')}", b'"new"'))
    assert call.result().json() == {"status": 201, "payload": "new"}


def test_ten_takeovers_leave_one_connection(online: Online, invoke: Invoke, device: Device) -> None:
    wires = [online(device, _METHODS) for _ in range(10)]
    for wire in wires[:-1]:
        wire.expect_closed()
    call = invoke(device, "who")
    request_id = wires[-1].expect_method("who")
    wires[-1].send(publish(f"$iothub/methods/res/200/?$rid={request_id}"))
    assert call.result().status_code == 200


def test_a_connect_with_a_wrong_key_leaves_the_live_connection_alone(
    dial: Dial, greet: Greet, online: Online, invoke: Invoke, service: Service, device: Device
) -> None:
    live = online(device, _METHODS)
    call = invoke(device, "wait")
    request_id = live.expect_method("wait")
    intruder = dial()
    wrong_key = base64.b64encode(b"a key that nobody has registered").decode()
    intruder.send(greet(device._replace(key=wrong_key)))
    intruder.expect(connack(5))
    intruder.expect_closed()
    assert _connection_state(service, device) == "Connected"
    live.send(publish(f"$iothub/methods/res/200/?$rid={request_id}", b'"still here"'))
    assert call.result().json() == {"status": 200, "payload": "still here"}
    live.expect_nothing()


def test_a_refused_connect_with_clean_session_leaves_the_stored_session_alone(
    dial: Dial, greet: Greet, online: Online, device: Device
) -> None:
    with online(device, _METHODS, clean=False) as first:
        first.send(DISCONNECT)
        first.expect_closed()
    intruder = dial()
    wrong_key = base64.b64encode(b"a key that nobody has registered").decode()
    intruder.send(greet(device._replace(key=wrong_key), clean=True))
    intruder.expect(connack(5))
    again = dial()
    again.send(greet(device, clean=False))
    again.expect(connack(0, session_present=True))


# --- the client ends it


def test_a_disconnect_ends_it(online: Online, service: Service, device: Device) -> None:
    wire = online(device)
    assert _connection_state(service, device) == "Connected"
    wire.send(DISCONNECT)
    wire.expect_closed()
    assert _connection_state(service, device) == "Disconnected"


def test_what_follows_a_disconnect_is_not_handled(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device)
    wire.send(
        DISCONNECT,
        publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"sneaked": "in"}'),
    )
    wire.expect_closed()
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert "sneaked" not in twin["properties"]["reported"]


def test_calls_in_flight_fail_when_the_device_goes(
    online: Online, invoke: Invoke, service: Service, device: Device
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "wait")
    wire.expect_method("wait")
    wire.close()
    answer = call.result()
    assert answer.status_code == 404
    assert answer.headers["iothub-errorcode"] == "DeviceNotOnline"
    _wait(lambda: _connection_state(service, device) == "Disconnected")


# --- rules that the client breaks


def test_a_second_connect_ends_it(online: Online, greet: Greet, device: Device) -> None:
    wire = online(device)
    wire.send(greet(device))
    wire.expect_closed()


@pytest.mark.parametrize(
    "first",
    [
        PINGREQ,
        DISCONNECT,
        subscribe(1, _TWIN_ANSWERS),
        publish("$iothub/twin/GET/?$rid=1"),
        connack(0),
    ],
    ids=["PINGREQ", "DISCONNECT", "SUBSCRIBE", "PUBLISH", "CONNACK"],
)
def test_a_first_packet_that_is_no_connect_ends_it_without_an_answer(
    dial: Dial, greet: Greet, device: Device, first: bytes
) -> None:
    wire = dial()
    wire.send(first, greet(device))
    wire.expect_closed()


# --- keep-alive


def test_silence_longer_than_one_and_a_half_times_the_keep_alive_ends_it(
    online: Online, invoke: Invoke, service: Service, device: Device, other_device: Device
) -> None:
    silent, busy = online(device, _METHODS, keep_alive=1), online(other_device, keep_alive=1)
    started = time.monotonic()
    call = invoke(device, "wait")
    silent.expect_method("wait")
    assert not call.done()
    while time.monotonic() - started < 2.2:
        busy.send(publish(f"devices/{other_device.id}/messages/events/"))  # any packet counts
        time.sleep(0.3)
    busy.expect_nothing()
    silent.expect_closed()
    assert _connection_state(service, device) == "Disconnected"
    assert call.result().headers["iothub-errorcode"] == "DeviceNotOnline"


def test_a_keep_alive_does_not_lapse_before_its_time(online: Online, device: Device) -> None:
    wire = online(device, keep_alive=2)
    time.sleep(0.5)
    wire.expect_nothing()


@pytest.mark.parametrize("keep_alive", [0, 65535])
def test_the_hub_waits_no_longer_than_its_own_limit(
    online: Online, device: Device, keep_alive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MQTT_KEEP_ALIVE_MAX", 0.5)
    wire = online(device, keep_alive=keep_alive)
    wire.expect_closed()


def test_keep_alive_0_is_no_keep_alive_of_0_seconds(online: Online, device: Device) -> None:
    wire = online(device, keep_alive=0)
    for _ in range(3):
        time.sleep(0.1)
        wire.expect_nothing()


# --- the identity and its token


def test_a_token_that_runs_out_ends_the_connection_that_it_opened_and_no_later_one(
    dial: Dial,
    greet: Greet,
    online: Online,
    invoke: Invoke,
    service: Service,
    device: Device,
    other_device: Device,
) -> None:
    # SDKs renew a token by connecting again: what the older one expires at is past caring.
    older = dial()
    older.send(greet(other_device, lifetime=2.5))
    older.expect(connack(0))
    renewed = online(other_device)
    wire = dial()
    wire.send(greet(device, lifetime=2.5), subscribe(1, _METHODS))
    wire.expect(connack(0), suback(1, 0))
    call = invoke(device, "wait")
    wire.expect_method("wait")
    wire.expect_closed()
    assert _connection_state(service, device) == "Disconnected"
    assert call.result().headers["iothub-errorcode"] == "DeviceNotOnline"
    renewed.expect_nothing()
    again = online(device)
    again.expect_nothing()


def test_disabling_a_device_ends_its_connection(
    dial: Dial, greet: Greet, online: Online, invoke: Invoke, service: Service, device: Device
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "wait")
    wire.expect_method("wait")
    identity = service.request("GET", f"/devices/{device.id}").json()
    for status in ("disabled", "enabled"):
        answer = service.request(
            "PUT", f"/devices/{device.id}", json=identity | {"status": status},
            headers={"If-Match": "*"},
        )  # fmt: skip
        assert answer.status_code == 200
    wire.expect_closed()
    assert call.result().status_code == 404
    again = dial()
    again.send(greet(device))
    again.expect(connack(0))


def test_an_update_that_leaves_a_device_enabled_leaves_its_connection_alone(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device)
    identity = service.request("GET", f"/devices/{device.id}").json()
    answer = service.request(
        "PUT", f"/devices/{device.id}", json=identity | {"statusReason": "none"},
        headers={"If-Match": "*"},
    )  # fmt: skip
    assert answer.status_code == 200
    wire.expect_nothing()


def test_deleting_a_device_ends_its_connection(
    dial: Dial, greet: Greet, online: Online, invoke: Invoke, service: Service, device: Device
) -> None:
    wire = online(device, _METHODS)
    call = invoke(device, "wait")
    wire.expect_method("wait")
    deleted = service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": "*"})
    assert deleted.status_code == 204
    wire.expect_closed()
    assert call.result().status_code == 404
    again = dial()
    again.send(greet(device))
    again.expect(connack(5))


def test_a_client_that_connects_and_disconnects_at_once_leaves_nothing(
    dial: Dial, greet: Greet, service: Service, device: Device
) -> None:
    for _ in range(20):
        with dial() as wire:
            wire.send(greet(device), DISCONNECT)
            wire.expect(connack(0))
            wire.expect_closed()
    with dial() as wire:
        wire.send(greet(device), PINGREQ)
        wire.expect(connack(0), PINGRESP)
        assert _connection_state(service, device) == "Connected"
    _wait(lambda: _connection_state(service, device) == "Disconnected")


# --- modules


def test_a_module_and_its_device_are_connected_each_on_its_own(
    dial: Dial, emulator: Emulator, online: Online, service: Service, device: Device
) -> None:
    path = f"/devices/{device.id}/modules/m1"
    created = service.request("PUT", path, json={"deviceId": device.id, "moduleId": "m1"})
    key = created.json()["authentication"]["symmetricKey"]["primaryKey"]
    host, client_id = emulator.host_name, f"{device.id}/m1"
    token = sas_token(f"{host}/devices/{device.id}/modules/m1", key)
    wire, module = online(device), dial()
    module.send(connect(client_id, f"{host}/{client_id}/?api-version=2021-04-12", token))
    module.expect(connack(0))
    wire.expect_nothing()
    module.send(publish(f"devices/{device.id}/messages/events/"))
    module.expect_closed()
    wire.expect_nothing()
