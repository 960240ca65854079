"""Throttles as callers see them. Their clock stands still, so that no allowance returns."""

from collections.abc import Callable

import pytest
import requests

from emulator import Emulator, StartError
from emulator.http.route import Route
from emulator.http.routes import ROUTES
from emulator.hub.access.throttles import Throttles
from tests.clock import ManualClock
from tests.devices import connect_device
from tests.http.route_table import TABLE, call, name_of, row_of
from tests.http.support import MethodDevice, check_error, echo, invoke, read
from tests.mqtt.raw import puback, publish
from tests.support import Device, Service, sas_token, second_hub, trust

NAMES = sorted({throttle[0] for _, throttle in TABLE.values() if throttle is not None})

Throttle = Callable[..., None]


@pytest.fixture
def throttle(emulator: Emulator, device: Device, monkeypatch: pytest.MonkeyPatch) -> Throttle:
    """Throttles the hub for this test, after its device was registered."""

    def set_throttles(*settings: str) -> None:
        throttles = Throttles.parse(settings, clock=ManualClock())
        monkeypatch.setattr(emulator.hub.gate, "throttles", throttles)

    return set_throttles


def check_throttled(response: requests.Response, operation: str) -> None:
    text = check_error(response, 429, "ThrottlingException")
    assert text == (
        "The request has been throttled. Wait 10 seconds and try again. "
        f"Operation type: {operation}"
    )
    assert response.headers["Connection"] == "close"
    # With this header, the SDK for Python would repeat the request by itself.
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_a_route_counts_against_its_throttle_alone(
    service: Service, emulator: Emulator, device: Device, throttle: Throttle, route: Route
) -> None:
    def request() -> requests.Response:
        body = b"{}" if route.verb in ("POST", "PUT", "PATCH") else None
        return call(service, emulator, route, device, data=body)

    _, expected = TABLE[row_of(route)]
    name, operation = expected or ("", "")
    throttle(*(f"{other}=1/min" for other in NAMES if other != name))
    for _ in range(2):
        assert request().status_code != 429
    if expected is not None:
        throttle(f"{name}=1/min")
        assert request().status_code != 429
        check_throttled(request(), operation)


def test_a_refused_request_changes_nothing(
    service: Service, device: Device, throttle: Throttle
) -> None:
    throttle("twin-updates=1/min")
    path = f"/twins/{device.id}"
    assert service.request("PATCH", path, json={"tags": {"a": 1}}).status_code == 200
    check_throttled(service.request("PATCH", path, json={"tags": {"a": 2}}), "TwinUpdate")
    assert read(service, path)["tags"] == {"a": 1}


def test_an_unauthorized_or_invalid_request_is_not_counted(
    service: Service, device: Device, throttle: Throttle
) -> None:
    throttle("twin-reads=1/min")
    path = f"/twins/{device.id}"
    for _ in range(2):
        assert service.request("GET", path, headers={"Authorization": None}).status_code == 401
        assert service.request("GET", path, params={}).status_code == 400
    assert service.request("GET", path).status_code == 200


def test_a_direct_method_is_refused_in_the_usual_form(
    service: Service, emulator: Emulator, device: Device, throttle: Throttle
) -> None:
    throttle("methods=3/s")
    with MethodDevice(emulator, device, echo) as connected:
        # It counts once for each 4 KB that are sent.
        assert invoke(service, device.id, payload="x" * 5000).status_code == 200
        assert invoke(service, device.id, payload="x").status_code == 200
        check_throttled(invoke(service, device.id, payload="x"), "DirectMethod")
        connected.next_call()
        connected.next_call()
        assert connected.calls.empty()


# --- settings


def test_the_settings_throttle_a_hub(emulator: Emulator) -> None:
    assert (emulator.settings.throttle, emulator.hub.gate.throttles.job_slots) == ((), 10)
    settings = ("S1", "configurations=1/min")
    with second_hub(emulator, throttle=settings) as hub, Service(hub) as service:
        answers = [service.request("GET", "/configurations/a").status_code for _ in range(3)]
        assert hub.hub.gate.throttles.job_slots == 1
    assert answers == [404, 429, 429]


def test_an_invalid_throttle_ends_the_start_with_one_line(emulator: Emulator) -> None:
    with pytest.raises(StartError) as refusal, second_hub(emulator, throttle=("S1", "S2")):
        raise AssertionError("it started")
    assert "'S2'" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_telemetry_over_mqtt_waits_for_its_turn_and_other_requests_do_not(
    emulator: Emulator,
) -> None:
    settings = {"devices": ("d", "e"), "throttle": ("d2c-sends=1/min", "connections=2/min")}
    with second_hub(emulator, **settings) as hub:
        strings = [hub.device_connection_string(device_id) for device_id in ("d", "e")]
        dial = [(string, hub.mqtt_port, trust(hub), "$iothub/twin/res/#") for string in strings]
        with connect_device(*dial[0]) as wire, connect_device(*dial[1]) as other:
            events = "devices/d/messages/events/"
            wire.send(*[publish(events, b"x", packet_id=number) for number in range(1, 21)])
            wire.expect(puback(1))
            other.send(publish("$iothub/twin/GET/?$rid=1", b""))
            other.expect_publish("$iothub/twin/res/200/?$rid=1")
            with pytest.raises(AssertionError, match="CONNACK 3"):
                connect_device(*dial[0])
            # While telemetry waits, HTTPS is refused.
            service = Service(hub)
            key, _ = hub.settings.key_pair("e")
            headers = {"Authorization": sas_token(f"{hub.https_host}/devices/e", key)}
            path = "/devices/e/messages/events"
            answer = service.request("POST", path, headers=headers, data=b"x")
            check_throttled(answer, "DeviceToCloudSend")
            service.close()
        assert len(hub.hub.events.read()) == 1
