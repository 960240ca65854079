"""The throttles of the service, and faults that are injected into it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from emulator import Emulator
from tests.dps import mqtt_device
from tests.dps.amqp_device import REGISTER, AmqpDevice, RefusedError, status
from tests.dps.mqtt_device import ask, connect, publish
from tests.dps.support import KEY, Owner, Registrant, new_id
from tests.support import sas_token, second_hub, wait_until


def amqp(hub: Emulator, name: str) -> AmqpDevice:
    device = AmqpDevice(hub, name)
    device.plain(sas_token(device.address, KEY, policy="registration"))
    device.attach()
    return device


# --- throttles


@pytest.fixture
def throttled(emulator: Emulator) -> Iterator[Emulator]:
    rates = ("registrations=3/min", "registration-polls=1/min", "enrollments=4/min")
    with second_hub(emulator, throttle=rates) as hub:
        yield hub


def test_registrations_and_polls_have_throttles_of_their_own(throttled: Emulator) -> None:
    name, other = new_id(), new_id()
    with Owner(throttled) as owner:
        owner.enroll(name)
        owner.enroll(other)
    device = Registrant(throttled, name)
    operation = device.begin().json()["operationId"]
    assert device.send("GET", f"/operations/{operation}").status_code == 200
    answer = device.send("GET", f"/operations/{operation}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.json()["errorCode"] == 429001
    with amqp(throttled, name) as wire:  # the same device
        with pytest.raises(RefusedError) as refused:
            wire.request(status(operation))
        assert refused.value.condition == "com.microsoft:device-container-throttled"
        assert refused.value.info["retry-after"] == refused.value.info["Retry-After"] == 3
        assert refused.value.body["errorCode"] == 429001
        wire.request(REGISTER)  # this has an allowance of its own
    with connect(throttled, other) as mqtt_wire:
        _, pending = ask(mqtt_wire, mqtt_device.REGISTER.format(1))  # the third of all
        poll = mqtt_device.STATUS.format(2, pending["operationId"])
        assert ask(mqtt_wire, poll)[1]["status"] == "assigned"  # another device
        topic, body = ask(mqtt_wire, poll)
        assert topic == "429/?$rid=2&retry-after=3"
        assert body["errorCode"] == 429001
        topic, body = ask(mqtt_wire, mqtt_device.REGISTER.format(1))
        assert topic == "429/?$rid=1&retry-after=3"
    answer = device.begin()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")


def test_requests_of_services_have_a_throttle(throttled: Emulator) -> None:
    name = new_id()
    with Owner(throttled) as owner:
        owner.enroll(name)
        for _ in range(2):
            owner.call("GET", f"/enrollments/{name}")
        owner.refuse("GET", f"/registrations/{name}", 404203)
        answer = owner.refuse("GET", f"/enrollments/{name}", 429001)
        assert "Enrollment" in answer["message"]
        throttled.clock.advance(seconds=60)
        owner.call("GET", f"/enrollments/{name}")


def test_a_device_that_is_refused_uses_nothing_up(throttled: Emulator) -> None:
    name = new_id()
    with Owner(throttled) as owner:
        owner.enroll(name, {"type": "symmetricKey"})
    for _ in range(4):
        assert Registrant(throttled, name).refused() == 401000


# --- faults


@pytest.fixture
def name(owner: Owner) -> str:
    name = new_id()
    owner.enroll(name)
    return name


@pytest.mark.parametrize(
    ("kind", "code"),
    [("throttle", 429001), ("server-error", 500001), ("service-unavailable", 503001)],
)
@pytest.mark.parametrize("operation", ["register", "poll-registration"])
def test_a_request_of_a_device_is_refused_once(
    emulator: Emulator, owner: Owner, name: str, kind: str, code: int, operation: str
) -> None:
    device = Registrant(emulator, name)
    found = device.begin().json()["operationId"]
    with emulator.faults.injected(kind, device=name, operation=operation, count=1):
        if operation == "register":
            answer = device.begin()
        else:
            answer = device.send("GET", f"/operations/{found}")
        assert (answer.status_code, answer.json()["errorCode"]) == (code // 1000, code)
        assert answer.headers["Retry-After"] == "3"
        assert device.register()["status"] == "assigned"


def test_a_fault_over_mqtt_and_amqp(emulator: Emulator, owner: Owner, name: str) -> None:
    with emulator.faults.injected("server-error", device=name, operation="register", count=2):
        with connect(emulator, name) as wire:
            topic, body = ask(wire, mqtt_device.REGISTER.format(1))
            assert topic == "500/?$rid=1&retry-after=3"
            assert body["errorCode"] == 500001
        with amqp(emulator, name) as device, pytest.raises(RefusedError) as refused:
            device.request(REGISTER)
        assert (refused.value.condition, refused.value.info["retry-after"]) == (
            "amqp:internal-error",
            3,
        )


def test_a_connection_is_dropped(emulator: Emulator, owner: Owner, name: str) -> None:
    fault = {"device": name, "operation": "register", "count": 3}
    with emulator.faults.injected("drop-connection", **fault):
        with connect(emulator, name) as wire:
            publish(wire, mqtt_device.REGISTER.format(1))
            wire.expect_closed()
        with amqp(emulator, name) as device, pytest.raises(ConnectionResetError):
            device.request(REGISTER)
        with pytest.raises(requests.ConnectionError):
            Registrant(emulator, name).begin()
        assert Registrant(emulator, name).register()["status"] == "assigned"


@pytest.mark.parametrize(
    ("operation", "verb", "path"),
    [
        ("read-enrollment", "GET", "/enrollments/{}"),
        ("write-enrollment", "DELETE", "/enrollments/{}"),
        ("read-registration", "GET", "/registrations/{}"),
        ("delete-registration", "DELETE", "/registrations/{}"),
    ],
)
def test_a_request_of_a_service_is_refused(
    emulator: Emulator, owner: Owner, name: str, operation: str, verb: str, path: str
) -> None:
    Registrant(emulator, name).register()
    with emulator.faults.injected("server-error", operation=operation, count=1):
        owner.refuse(verb, path.format(name), 500001)
        owner.call(verb, path.format(name), status=200 if verb == "GET" else 204)


def test_an_assignment_fails_on_demand(emulator: Emulator, owner: Owner, name: str) -> None:
    with emulator.faults.injected("fail-registration", device=name, count=1):
        final = Registrant(emulator, name).register()
        state = final["registrationState"]
        assert (final["status"], state["errorCode"]) == ("failed", 400209)
        assert state["errorMessage"].startswith("ErrorCode:ServiceUnavailable;")
        assert owner.call("GET", f"/registrations/{name}")["status"] == "failed"
    assert Registrant(emulator, name).register()["status"] == "assigned"


def test_an_assignment_is_delayed_on_demand(emulator: Emulator, tmp_path: Path) -> None:
    with second_hub(emulator) as hub, Owner(hub) as owner:
        name = new_id()
        owner.enroll(name)
        hub.faults.add("delay-registration", device=name, delay=30, count=1)
        device = Registrant(hub, name)
        path = f"/operations/{device.begin().json()['operationId']}"
        for _ in range(2):
            answer = device.send("GET", path)
            assert (answer.status_code, answer.json()["status"]) == (202, "assigning")
        begun = time.monotonic()
        hub.clock.advance(seconds=30)
        wait_until(lambda: device.send("GET", path).status_code == 200)
        assert time.monotonic() - begun < 20
        assert device.send("GET", path).json()["status"] == "assigned"


def test_faults_of_devices_of_the_hub_do_not_touch_registrations(
    emulator: Emulator, owner: Owner, name: str
) -> None:
    with emulator.faults.injected("throttle", device=name):
        assert Registrant(emulator, name).register()["status"] == "assigned"
