from __future__ import annotations

import queue
import ssl
import threading
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import requests

from emulator import Emulator
from tests.devices import connect_device
from tests.http.support import (
    PATIENCE,
    MethodDevice,
    check_error,
    check_nested_error,
    echo,
    put_device,
)
from tests.support import Device, Service

ETAGS = ['"AAAAAAAAAAE="', '"AAAAAAAAAAI="', '"AAAAAAAAAAM="']
CONTROLLER = "dtmi:com:example:TemperatureController;1"


def get(service: Service, device_id: str) -> requests.Response:
    return service.request("GET", f"/digitaltwins/{device_id}")


def patch(
    service: Service, device_id: str, *operations: object, etag: str | None = None
) -> requests.Response:
    return service.request(
        "PATCH", f"/digitaltwins/{device_id}", json=list(operations), headers={"If-Match": etag}
    )


def add(path: str, value: object) -> dict[str, object]:
    return {"op": "add", "path": path, "value": value}


def command(
    service: Service,
    device_id: str,
    path: str = "commands/c",
    *,
    data: bytes | None = None,
    **time_outs: object,
) -> requests.Response:
    query = "".join(f"&{name}={value}" for name, value in time_outs.items())
    return service.request(
        "POST", f"/digitaltwins/{device_id}/{path}?api-version=2021-04-12{query}",
        data=data, params={},
    )  # fmt: skip


# --- reading


def test_a_device_without_properties_has_a_digital_twin(service: Service, device: Device) -> None:
    response = get(service, device.id)
    assert response.status_code == 200
    assert response.text == f'{{"$dtId":"{device.id}","$metadata":{{"$model":""}}}}'
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert response.headers["ETag"] == ETAGS[0]


def test_the_etag_is_the_twins(service: Service, device: Device) -> None:
    twin = service.request("PATCH", f"/twins/{device.id}", json={"tags": {"a": 1}}).json()
    assert get(service, device.id).headers["ETag"] == f'"{twin["etag"]}"' == ETAGS[1]


def test_it_shows_what_the_device_reports(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with MethodDevice(emulator, device, echo) as connected:
        connected.report('{"serial": "7", "thermostat1": {"__t": "c", "max": 25.30}}')
    document = get(service, device.id)
    assert '"max":25.30' in document.text
    twin = document.json()
    reported = service.request("GET", f"/twins/{device.id}").json()["properties"]["reported"]
    at = reported["$metadata"]["serial"]["$lastUpdated"]
    assert twin == {
        "$dtId": device.id,
        "serial": "7",
        "thermostat1": {"max": 25.3, "$metadata": {"max": {"lastUpdateTime": at}}},
        "$metadata": {"$model": "", "serial": {"lastUpdateTime": at}},
    }


@pytest.mark.parametrize("verb", ["GET", "PATCH"])
def test_an_unknown_device_is_not_found(service: Service, verb: str) -> None:
    body = [add("/a", 1)] if verb == "PATCH" else None
    response = service.request(verb, "/digitaltwins/nobody", json=body)
    assert check_error(response, 404, "DeviceNotFound") == "nobody"


def test_a_disabled_device_has_one_as_it_has_a_twin(service: Service) -> None:
    device_id = f"disabled-{uuid.uuid4().hex}"
    put_device(service, device_id, status="disabled")
    assert patch(service, device_id, add("/a", 1)).status_code == 202
    assert get(service, device_id).json()["$metadata"]["a"]["desiredValue"] == 1


# --- writing


def test_an_update_is_accepted_with_its_etag_and_location(service: Service, device: Device) -> None:
    response = patch(service, device.id, add("/fan", 2.50), add("/thermostat1/target", 21))
    assert response.status_code == 202
    assert (response.content, response.headers["Content-Length"]) == (b"", "0")
    assert response.headers["ETag"] == ETAGS[1]
    location = response.headers["Location"]
    assert service.request("GET", location).json()["$dtId"] == device.id
    twin = service.request("GET", f"/twins/{device.id}").json()
    desired = {k: v for k, v in twin["properties"]["desired"].items() if k[0] != "$"}
    assert desired == {"fan": 2.5, "thermostat1": {"__t": "c", "target": 21}}


def test_the_location_of_an_unusual_id_leads_back(service: Service) -> None:
    device_id = f"a%b#c?-{uuid.uuid4().hex}"
    quoted = quote(device_id, safe="")
    assert service.request("PUT", f"/devices/{quoted}", json={"deviceId": device_id}).ok
    response = patch(service, quoted, add("/a", 1))
    assert response.status_code == 202
    assert service.request("GET", response.headers["Location"]).json()["$dtId"] == device_id


def test_the_device_is_told_of_what_is_desired_and_cleared(
    service: Service, device: Device, emulator: Emulator
) -> None:
    context = ssl.create_default_context(cafile=emulator.ca_file)
    assert patch(service, device.id, add("/thermostat1/target", 20)).status_code == 202
    filters = ("$iothub/twin/PATCH/properties/desired/#",)
    with connect_device(device.connection_string, emulator.mqtt_port, context, *filters) as wire:
        operations = (add("/fan", 2), {"op": "remove", "path": "/thermostat1"})
        assert patch(service, device.id, *operations).status_code == 202
        topic, payload = wire.receive_publish()
    assert topic == "$iothub/twin/PATCH/properties/desired/?$version=3"
    assert payload == b'{"fan":2,"thermostat1":null,"$version":3}'


@pytest.mark.parametrize(
    ("etag", "status"),
    [
        (None, 202),
        ("*", 202),
        ('"*"', 202),
        (ETAGS[0], 202),
        (ETAGS[0].strip('"'), 202),
        (ETAGS[1], 412),
        ("x", 412),
    ],
)
def test_an_update_may_have_a_condition(
    service: Service, device: Device, etag: str | None, status: int
) -> None:
    response = patch(service, device.id, add("/fan", 1), etag=etag)
    assert response.status_code == status
    if status == 412:
        text = check_error(response, 412, "PreconditionFailed")
        assert text == f"ETag mismatch for device ID '{device.id}'"
        assert get(service, device.id).headers["ETag"] == ETAGS[0]


@pytest.mark.parametrize(
    ("body", "name", "text"),
    [
        ({"op": "add", "path": "/a", "value": 1}, "InvalidDigitalTwinJsonPatch", "not an array"),
        ([{"op": "add", "path": "/a"}], "InvalidDigitalTwinJsonPatch", "no value"),
        ([{"op": "move", "from": "/a", "path": "/b"}], "InvalidDigitalTwinPatch", "move"),
        (
            [add("target", 1)],
            "InvalidDigitalTwinPatch",
            "Error in path: target. 'path' string must be non-null, begin with '/' and have "
            "atleast the component name.",
        ),
        ([{"op": "remove", "path": "/a"}], "InvalidDigitalTwinPatchPath", "/a"),
        ([add("/a", [1])], "ArgumentInvalid", "aka.ms/dtpatch"),
    ],
)
def test_a_patch_that_can_not_be_is_refused_in_the_usual_form(
    service: Service, device: Device, body: object, name: str, text: str
) -> None:
    response = service.request("PATCH", f"/digitaltwins/{device.id}", json=body)
    assert text in check_error(response, 400, name)
    assert get(service, device.id).headers["ETag"] == ETAGS[0]


def test_a_body_that_is_no_json_is_refused(service: Service, device: Device) -> None:
    response = service.request("PATCH", f"/digitaltwins/{device.id}", data=b"[")
    check_error(response, 400, "DeserializationError")


def test_a_json_patch_may_be_called_one(service: Service, device: Device) -> None:
    response = service.request(
        "PATCH",
        f"/digitaltwins/{device.id}",
        data=b'[{"op": "add", "path": "/a", "value": 1}]',
        headers={"Content-Type": "application/json-patch+json"},
    )
    assert response.status_code == 202


# --- commands


@pytest.fixture(scope="module")
def connected(emulator: Emulator) -> Iterator[MethodDevice]:
    key = emulator.register_device("commanded").partition(";SharedAccessKey=")[2]
    with MethodDevice(emulator, Device("commanded", key, ""), echo) as device:
        yield device


@pytest.fixture
def commanded(connected: MethodDevice) -> MethodDevice:
    """A connected device, `commanded`, which answers each command with its payload."""
    while not connected.calls.empty():  # what a test that failed left behind
        connected.calls.get()
    return connected


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("commands/reboot", "reboot"),
        ("components/thermostat1/commands/getMaxMinReport", "thermostat1*getMaxMinReport"),
        ("Components/t/Commands/c", "t*c"),
    ],
)
def test_a_command_is_a_direct_method(
    service: Service, commanded: MethodDevice, path: str, method: str
) -> None:
    response = command(service, "commanded", path, data=b'{"delay": 1.50}')
    assert response.status_code == 200
    assert response.text == '{"delay":1.50}'
    assert response.headers["x-ms-command-statuscode"] == "200"
    assert uuid.UUID(response.headers["x-ms-request-id"])
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    call = commanded.next_call()
    assert (call.name, call.payload) == (method, b'{"delay":1.50}')


@pytest.mark.parametrize("data", [None, b"", b"null"])
def test_a_command_needs_no_payload(
    service: Service, commanded: MethodDevice, data: bytes | None
) -> None:
    response = command(service, "commanded", data=data)
    assert (response.status_code, response.text) == (200, "null")
    assert commanded.next_call().payload == b"null"


@pytest.mark.parametrize("data", [b'""', b"0", b"false", b"[]", b'"2026-01-31T14:46:08Z"'])
def test_a_payload_is_any_json(service: Service, commanded: MethodDevice, data: bytes) -> None:
    assert command(service, "commanded", data=data).content == data
    assert commanded.next_call().payload == data


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "nonsense"])
def test_an_empty_body_may_say_that_it_is_anything(
    service: Service, commanded: MethodDevice, content_type: str
) -> None:
    response = service.request(
        "POST",
        "/digitaltwins/commanded/commands/c",
        headers={"Content-Type": content_type, "Content-Length": "0"},
    )
    assert response.status_code == 200
    commanded.next_call()


@pytest.mark.parametrize("status", [0, 201, 404, 500, -1])
def test_the_devices_status_stands_in_a_header(
    service: Service, device: Device, emulator: Emulator, status: int
) -> None:
    with MethodDevice(emulator, device, lambda _: (status, b"")):
        response = command(service, device.id)
    assert (response.status_code, response.text) == (200, "null")
    assert response.headers["x-ms-command-statuscode"] == str(status)


@pytest.mark.parametrize(
    "time_outs",
    [
        {"responseTimeoutInSeconds": 4},
        {"responseTimeoutInSeconds": 301},
        {"responseTimeoutInSeconds": -5},
        {"responseTimeoutInSeconds": ""},
        {"responseTimeoutInSeconds": "soon"},
        {"responseTimeoutInSeconds": "5.0"},
        {"responseTimeoutInSeconds": "%D9%A3%D9%A0"},  # Arabic digits
        {"responseTimeoutInSeconds": "9" * 5000},
        {"connectTimeoutInSeconds": -1},
        {"connectTimeoutInSeconds": 301, "responseTimeoutInSeconds": 300},
        {"connectTimeoutInSeconds": 11, "responseTimeoutInSeconds": 10},
        {"connectTimeoutInSeconds": 31},
    ],
)
def test_time_outs_have_the_ranges_of_a_direct_methods(
    service: Service, commanded: MethodDevice, time_outs: dict[str, object]
) -> None:
    response = command(service, "commanded", **time_outs)
    inner = check_nested_error(response, 400004, "ArgumentInvalid")
    assert "must be within" in inner["message"] or "cannot be longer" in inner["message"]
    assert commanded.calls.empty()


def test_time_outs_within_their_ranges_are_taken(service: Service, commanded: MethodDevice) -> None:
    time_outs = {"responseTimeoutInSeconds": 300, "connectTimeoutInSeconds": 300}
    assert command(service, "commanded", **time_outs).status_code == 200
    commanded.next_call()


def test_a_command_waits_for_its_device_to_connect(
    service: Service, device: Device, emulator: Emulator
) -> None:
    response: queue.Queue[requests.Response] = queue.Queue()

    def call() -> None:
        other = Service(emulator)
        response.put(command(other, device.id, data=b"1", connectTimeoutInSeconds=20))
        other.close()

    thread = threading.Thread(target=call)
    thread.start()
    with MethodDevice(emulator, device, echo):
        assert response.get(timeout=PATIENCE).text == "1"
    thread.join()


@pytest.mark.parametrize("path", ["commands/c", "components/t/commands/c"])
def test_a_command_fails_as_a_direct_method_does(
    service: Service, device: Device, path: str
) -> None:
    check_nested_error(command(service, device.id, path), 404103, "DeviceNotOnline")
    check_nested_error(command(service, "nobody", path), 404001, "DeviceNotFound")
    long_name = path + "c" * 100
    check_nested_error(command(service, device.id, long_name), 400004, "ArgumentInvalid")
    bad = command(service, device.id, path, data=b"{")
    check_nested_error(bad, 400012, "DeserializationError")
    large = command(service, device.id, path, data=b'"' + b"x" * 128 * 1024 + b'"')
    check_nested_error(large, 413001, "MessageTooLarge")
