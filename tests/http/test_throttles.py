"""Throttles as callers meet them. Their clock stands, so that no allowance comes back."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from emulator import Emulator, Settings, StartError
from emulator.emulator import ROUTES
from emulator.http.route import DeviceRoute, Route
from emulator.hub.access.throttles import Throttles
from tests.clock import ManualClock
from tests.devices import connect_device
from tests.http.support import MethodDevice, check_error, echo, invoke
from tests.mqtt.raw import publish
from tests.support import Device, Service, free_loopback_address, sas_token

ID = re.compile(r"\{[^}]+\}")

# The throttle that each operation counts against (IoT Hub docs: quotas and throttling), and the
# name that a refusal has for it. A star stands for an id. None is a route that no throttle is
# documented for.
REGISTRY, QUERY = ("registry", "CRUD"), ("queries", "Query")
READ_TWIN, UPDATE_TWIN = ("twin-reads", "TwinRead"), ("twin-updates", "TwinUpdate")
METHOD, JOB = ("methods", "DirectMethod"), ("jobs", "Job")
READ_CONFIGURATION = ("configurations", "ConfigurationRead")
WRITE_CONFIGURATION = ("configurations", "ConfigurationWrite")
THROTTLED: dict[tuple[str, str], tuple[str, str] | None] = {
    ("GET", "/devices"): REGISTRY,
    ("POST", "/devices"): REGISTRY,
    ("GET", "/devices/*"): REGISTRY,
    ("PUT", "/devices/*"): REGISTRY,
    ("DELETE", "/devices/*"): REGISTRY,
    ("GET", "/devices/*/modules"): REGISTRY,
    ("GET", "/devices/*/modules/*"): REGISTRY,
    ("PUT", "/devices/*/modules/*"): REGISTRY,
    ("DELETE", "/devices/*/modules/*"): REGISTRY,
    ("GET", "/statistics/devices"): REGISTRY,
    ("GET", "/statistics/service"): REGISTRY,
    ("POST", "/devices/query"): QUERY,
    ("GET", "/twins/*"): READ_TWIN,
    ("PATCH", "/twins/*"): UPDATE_TWIN,
    ("PUT", "/twins/*"): UPDATE_TWIN,
    ("GET", "/twins/*/modules/*"): READ_TWIN,
    ("PATCH", "/twins/*/modules/*"): UPDATE_TWIN,
    ("PUT", "/twins/*/modules/*"): UPDATE_TWIN,
    ("POST", "/twins/*/methods"): METHOD,
    ("POST", "/twins/*/modules/*/methods"): METHOD,
    ("GET", "/digitaltwins/*"): READ_TWIN,
    ("PATCH", "/digitaltwins/*"): UPDATE_TWIN,
    ("POST", "/digitaltwins/*/commands/*"): METHOD,
    ("POST", "/digitaltwins/*/components/*/commands/*"): METHOD,
    ("GET", "/configurations"): READ_CONFIGURATION,
    ("GET", "/configurations/*"): READ_CONFIGURATION,
    ("PUT", "/configurations/*"): WRITE_CONFIGURATION,
    ("DELETE", "/configurations/*"): WRITE_CONFIGURATION,
    ("POST", "/configurations/testQueries"): READ_CONFIGURATION,
    ("POST", "/devices/*/applyConfigurationContent"): WRITE_CONFIGURATION,
    ("GET", "/jobs/v2/query"): JOB,
    ("GET", "/jobs/v2/*"): JOB,
    ("PUT", "/jobs/v2/*"): JOB,
    ("POST", "/jobs/v2/*/cancel"): JOB,
    ("POST", "/jobs/create"): JOB,
    ("GET", "/jobs"): JOB,
    ("GET", "/jobs/*"): JOB,
    ("DELETE", "/jobs/*"): JOB,
    ("POST", "/devices/*/messages/events"): ("d2c-sends", "DeviceToCloudSend"),
    ("GET", "/devices/*/messages/deviceBound"): ("c2d-receives", "CloudToDeviceReceive"),
    ("DELETE", "/devices/*/messages/deviceBound/*"): None,
    ("POST", "/devices/*/messages/deviceBound/*/abandon"): None,
    ("POST", "/_emulator/devices/*/messages"): ("c2d-sends", "CloudToDeviceSend"),
    ("GET", "/_emulator/events"): None,
    ("DELETE", "/devices/*/commands"): None,
    ("GET", "/messages/serviceBound/feedback"): None,
    ("DELETE", "/messages/serviceBound/feedback/*"): None,
    ("POST", "/messages/serviceBound/feedback/*/abandon"): None,
}
NAMES = sorted({throttle[0] for throttle in THROTTLED.values() if throttle is not None})
ROUTE = pytest.mark.parametrize(
    "route", ROUTES, ids=lambda route: f"{route.verb} {ID.sub('*', route.path)}"
)

Throttle = Callable[..., None]


@pytest.fixture
def throttle(emulator: Emulator, device: Device, monkeypatch: pytest.MonkeyPatch) -> Throttle:
    """Throttles the hub for this test, after its device was registered."""

    def set_throttles(*settings: str) -> None:
        throttles = Throttles.parse(settings, clock=ManualClock())
        monkeypatch.setattr(emulator.hub.gate, "throttles", throttles)

    return set_throttles


def call(
    service: Service, emulator: Emulator, route: Route | DeviceRoute, device: Device
) -> requests.Response:
    """Call a route for a device that is there; every other id in its path is made up."""
    path = ID.sub("made-up", route.path.replace("{device_id}", device.id))
    headers: dict[str, str | None] = {}
    if isinstance(route, DeviceRoute):
        resource = f"{emulator.https_host}/devices/{device.id}"
        headers["Authorization"] = sas_token(resource, device.key)
    body = {} if route.verb in ("POST", "PUT", "PATCH") else None
    return service.request(route.verb, path, json=body, headers=headers)


def check_throttled(response: requests.Response, operation: str) -> None:
    text = check_error(response, 429, "ThrottlingException")
    assert text == (
        "The request has been throttled. Wait 10 seconds and try again. "
        f"Operation type: {operation}"
    )
    assert response.headers["Connection"] == "close"
    # With it, the SDK for Python would send the request again by itself.
    assert "Retry-After" not in response.headers


def test_this_table_has_every_route() -> None:
    routes = {(route.verb, ID.sub("*", route.path)) for route in ROUTES}
    assert routes - set(THROTTLED) == set()


@ROUTE
def test_a_route_counts_against_its_throttle_alone(
    service: Service,
    emulator: Emulator,
    device: Device,
    throttle: Throttle,
    route: Route | DeviceRoute,
) -> None:
    expected = THROTTLED[route.verb, ID.sub("*", route.path)]
    name, operation = expected or ("", "")
    throttle(*(f"{other}=1/min" for other in NAMES if other != name))
    for _ in range(3):
        assert call(service, emulator, route, device).status_code != 429
    if expected is not None:
        throttle(f"{name}=1/min")
        assert call(service, emulator, route, device).status_code != 429
        check_throttled(call(service, emulator, route, device), operation)


def test_a_refused_request_does_nothing(
    service: Service, device: Device, throttle: Throttle
) -> None:
    throttle("twin-updates=1/min")
    path = f"/twins/{device.id}"
    assert service.request("PATCH", path, json={"tags": {"a": 1}}).status_code == 200
    check_throttled(service.request("PATCH", path, json={"tags": {"a": 2}}), "TwinUpdate")
    assert service.request("GET", path).json()["tags"] == {"a": 1}


def test_who_may_not_call_is_not_counted(
    service: Service, device: Device, throttle: Throttle
) -> None:
    throttle("twin-reads=1/min")
    path = f"/twins/{device.id}"
    for _ in range(3):
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


def test_a_devices_twin_requests_are_throttled_over_mqtt_as_well(
    service: Service, emulator: Emulator, device: Device, throttle: Throttle
) -> None:
    throttle("twin-reads=2/s", "twin-updates=1/s")
    context = ssl.create_default_context(cafile=emulator.ca_file)
    get, report = "$iothub/twin/GET/?$rid=", "$iothub/twin/PATCH/properties/reported/?$rid="
    connection = connect_device(
        device.connection_string, emulator.mqtt_port, context, "$iothub/twin/res/#"
    )
    with connection as wire:
        wire.send(publish(get + "1", b""))
        wire.expect_publish("$iothub/twin/res/200/?$rid=1")
        # A service's requests count as well: it is the hub's throttle.
        assert service.request("GET", f"/twins/{device.id}").status_code == 200
        wire.send(publish(get + "2", b""))
        refusal = wire.receive_publish()
        wire.send(publish(report + "3", b'{"a": 1}'), publish(report + "4", b'{"a": 2}'))
        wire.expect_publish("$iothub/twin/res/204/?$rid=3&$version=2")
        second_topic, _ = wire.receive_publish()
        wire.expect_nothing()  # and it is still connected
    topic, body = refusal
    assert topic == "$iothub/twin/res/429/?$rid=2"
    assert second_topic == "$iothub/twin/res/429/?$rid=4"
    assert b'"errorCode":429001' in body
    assert b"Wait 10 seconds and try again. Operation type: TwinRead" in body
    throttle()
    reported = service.request("GET", f"/twins/{device.id}").json()["properties"]["reported"]
    assert reported["a"] == 1


# --- settings


def settings(tmp_path: Path, *throttle: str) -> Settings:
    return Settings(
        host=free_loopback_address(),
        mqtt_port=0,
        https_port=0,
        devices=(),
        cert_dir=tmp_path,
        throttle=throttle,
    )


def test_the_settings_throttle_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(settings(tmp_path, "S1", "configurations=1/min")) as emulator:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(emulator.ca_file))
        service = Service(emulator)
        answers = [service.request("GET", "/configurations/a").status_code for _ in range(3)]
        service.close()
        assert emulator.hub.gate.throttles.job_slots == 1
    assert [answer == 429 for answer in answers] == [False, True, True]


def test_a_hub_is_not_throttled_by_itself(emulator: Emulator) -> None:
    assert emulator.settings.throttle == ()
    assert emulator.hub.gate.throttles.job_slots == 10


@pytest.mark.parametrize("given", [("S4",), ("queries",), ("S1", "S2")])
def test_what_is_no_throttle_ends_the_start_in_one_line(
    tmp_path: Path, given: tuple[str, ...]
) -> None:
    with pytest.raises(StartError) as refusal, Emulator(settings(tmp_path, *given)):
        raise AssertionError("it started")
    assert repr(given[-1]) in str(refusal.value)
    assert "\n" not in str(refusal.value)
