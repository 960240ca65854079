"""Digital twins and their commands over REST."""

import uuid
from typing import Any
from urllib.parse import quote

import pytest
import requests

from emulator import Emulator
from tests.devices import connect_device
from tests.http import support
from tests.support import API_VERSION, Device, Service

ETAGS = ['"AAAAAAAAAAE="', '"AAAAAAAAAAI="']


def get(service: Service, device_id: str) -> requests.Response:
    return service.request("GET", f"/digitaltwins/{device_id}")


def patch(
    service: Service, device_id: str, *operations: object, etag: str | None = None
) -> requests.Response:
    headers = {"If-Match": etag}
    return service.request("PATCH", f"/digitaltwins/{device_id}", json=operations, headers=headers)


def add(path: str, value: object) -> dict[str, object]:
    return {"op": "add", "path": path, "value": value}


def command(
    service: Service,
    device_id: str,
    path: str = "commands/c",
    *,
    data: bytes | None = None,
    **time_outs: Any,
) -> requests.Response:
    params = {"api-version": API_VERSION, **time_outs}
    return service.request("POST", f"/digitaltwins/{device_id}/{path}", data=data, params=params)


# --- reading


def test_a_device_without_properties_has_a_digital_twin(service: Service, device: Device) -> None:
    response = get(service, device.id)
    assert response.status_code == 200
    assert response.text == f'{{"$dtId":"{device.id}","$metadata":{{"$model":""}}}}'
    assert response.headers["Content-Type"] == support.JSON_TYPE
    assert response.headers["ETag"] == ETAGS[0]
    twin = service.request("PATCH", f"/twins/{device.id}", json={"tags": {"a": 1}}).json()
    assert get(service, device.id).headers["ETag"] == f'"{twin["etag"]}"' == ETAGS[1]


def test_a_digital_twin_shows_the_reported_properties(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with support.MethodDevice(emulator, device, support.echo) as connected:
        connected.report('{"serial": "7", "thermostat1": {"__t": "c", "max": 25.30}}')
    document = get(service, device.id)
    assert '"max":25.30' in document.text
    reported = support.read(service, f"/twins/{device.id}")["properties"]["reported"]
    at = reported["$metadata"]["serial"]["$lastUpdated"]
    assert document.json() == {
        "$dtId": device.id,
        "serial": "7",
        "thermostat1": {"max": 25.3, "$metadata": {"max": {"lastUpdateTime": at}}},
        "$metadata": {"$model": "", "serial": {"lastUpdateTime": at}},
    }


@pytest.mark.parametrize("verb", ["GET", "PATCH"])
def test_an_unknown_device_is_not_found(service: Service, verb: str) -> None:
    body = [add("/a", 1)] if verb == "PATCH" else None
    response = service.request(verb, "/digitaltwins/unknown", json=body)
    assert support.check_error(response, 404, "DeviceNotFound") == "unknown"


def test_a_disabled_device_has_a_digital_twin(service: Service) -> None:
    device_id = support.new_id("disabled")
    support.put_device(service, device_id, status="disabled")
    assert patch(service, device_id, add("/a", 1)).status_code == 202
    assert get(service, device_id).json()["$metadata"]["a"]["desiredValue"] == 1


# --- writing


def test_an_update_is_accepted_with_its_etag_and_location(service: Service) -> None:
    device_id = support.new_id("a%b#c?")
    quoted = quote(device_id, safe="")
    assert service.request("PUT", f"/devices/{quoted}", json={"deviceId": device_id}).ok
    response = patch(service, quoted, add("/fan", 2.50), add("/thermostat1/target", 21))
    assert response.status_code == 202
    assert (response.content, response.headers["Content-Length"]) == (b"", "0")
    assert response.headers["ETag"] == ETAGS[1]
    assert service.request("GET", response.headers["Location"]).json()["$dtId"] == device_id
    expected = {"fan": 2.5, "thermostat1": {"__t": "c", "target": 21}}
    assert support.desired(service, quoted) == expected


def test_the_device_receives_the_desired_properties_and_their_removal(
    service: Service, device: Device, emulator: Emulator
) -> None:
    assert patch(service, device.id, add("/thermostat1/target", 20)).status_code == 202
    string, topic = device.connection_string, "$iothub/twin/PATCH/properties/desired/"
    with connect_device(string, emulator.mqtt_port, support.trust(emulator), f"{topic}#") as wire:
        operations = (add("/fan", 2), {"op": "remove", "path": "/thermostat1"})
        assert patch(service, device.id, *operations).status_code == 202
        payload = b'{"fan":2,"thermostat1":null,"$version":3}'
        wire.expect_publish(f"{topic}?$version=3", payload)


@pytest.mark.parametrize(
    ("etag", "status"),
    [(None, 202), ('"*"', 202), (ETAGS[0], 202), (ETAGS[0].strip('"'), 202), (ETAGS[1], 412)],
)
def test_an_update_may_have_a_condition(
    service: Service, device: Device, etag: str | None, status: int
) -> None:
    response = patch(service, device.id, add("/fan", 1), etag=etag)
    assert response.status_code == status
    if status == 412:
        text = support.check_error(response, 412, "PreconditionFailed")
        assert text == f"ETag mismatch for device ID '{device.id}'"
        assert get(service, device.id).headers["ETag"] == ETAGS[0]


@pytest.mark.parametrize(
    ("body", "name", "text"),
    [
        (add("/a", 1), "InvalidDigitalTwinJsonPatch", "not an array"),
        ([add("target", 1)], "InvalidDigitalTwinPatch", "Error in path: target. 'path' string"),
        ([{"op": "remove", "path": "/a"}], "InvalidDigitalTwinPatchPath", "/a"),
        ([add("/a", [1])], "ArgumentInvalid", "aka.ms/dtpatch"),
    ],
)
def test_an_invalid_patch_is_refused_in_the_usual_form(
    service: Service, device: Device, body: object, name: str, text: str
) -> None:
    response = service.request("PATCH", f"/digitaltwins/{device.id}", json=body)
    assert text in support.check_error(response, 400, name)
    assert get(service, device.id).headers["ETag"] == ETAGS[0]


def test_a_patch_may_have_the_type_of_a_json_patch(service: Service, device: Device) -> None:
    response = service.request(
        "PATCH",
        f"/digitaltwins/{device.id}",
        data=b'[{"op": "add", "path": "/a", "value": 1}]',
        headers={"Content-Type": "application/json-patch+json"},
    )
    assert response.status_code == 202


# --- commands


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("commands/reboot", "reboot"),
        ("components/thermostat1/commands/getMaxMinReport", "thermostat1*getMaxMinReport"),
        ("Components/t/Commands/c", "t*c"),
    ],
)
def test_a_command_is_a_direct_method(
    service: Service, echoing: support.MethodDevice, path: str, method: str
) -> None:
    response = command(service, "echoing", path, data=b'{"delay": 1.50}')
    assert response.status_code == 200
    assert response.text == '{"delay":1.50}'
    assert response.headers["x-ms-command-statuscode"] == "200"
    assert uuid.UUID(response.headers["x-ms-request-id"])
    assert response.headers["Content-Type"] == support.JSON_TYPE
    call = echoing.next_call()
    assert (call.name, call.payload) == (method, b'{"delay":1.50}')


@pytest.mark.parametrize("data", [None, b"", b"null", b'""', b"0", b"false", b"[]"])
def test_a_payload_is_any_json_and_may_be_left_out(
    service: Service, echoing: support.MethodDevice, data: bytes | None
) -> None:
    response = command(service, "echoing", data=data)
    assert (response.status_code, response.content) == (200, data or b"null")
    assert echoing.next_call().payload == (b"" if data == b"null" else data or b"")


@pytest.mark.parametrize("content_type", ["application/octet-stream", "nonsense"])
def test_an_empty_body_may_have_any_type(
    service: Service, echoing: support.MethodDevice, content_type: str
) -> None:
    headers: dict[str, str | None] = {"Content-Type": content_type, "Content-Length": "0"}
    response = service.request("POST", "/digitaltwins/echoing/commands/c", headers=headers)
    assert response.status_code == 200
    echoing.next_call()


@pytest.mark.parametrize("status", [0, 404, -1])
def test_the_status_of_the_device_is_in_a_header(
    service: Service, device: Device, emulator: Emulator, status: int
) -> None:
    with support.MethodDevice(emulator, device, lambda _: (status, b"{ 'a' : 1.50 }")):
        response = command(service, device.id)
    assert (response.status_code, response.text) == (200, "{ 'a' : 1.50 }")
    assert response.headers["x-ms-command-statuscode"] == str(status)


RESPONSE, CONNECT = "responseTimeoutInSeconds", "connectTimeoutInSeconds"


@pytest.mark.parametrize(
    ("time_outs", "text"),
    [
        *(({RESPONSE: value}, "must be within") for value in (4, -5, "", "soon", "5.0", "٣٠")),
        ({RESPONSE: "9" * 5000}, "must be within"),
        ({CONNECT: -1}, "must be within"),
        ({CONNECT: 11, RESPONSE: 10}, "cannot be longer"),
    ],
)
def test_an_invalid_time_out_is_refused(
    service: Service, echoing: support.MethodDevice, time_outs: dict[str, Any], text: str
) -> None:
    response = command(service, "echoing", **time_outs)
    assert text in support.check_nested_error(response, 400004, "ArgumentInvalid")["message"]
    assert echoing.calls.empty()


def test_a_command_waits_for_its_device_to_connect(device: Device, emulator: Emulator) -> None:
    path = f"/digitaltwins/{device.id}/commands/c"
    time_outs = {CONNECT: 20, RESPONSE: 300}
    with (
        support.sent_call(emulator, path, 1, **time_outs) as call,
        support.MethodDevice(emulator, device, support.echo),
    ):
        assert call.answer() == 1


@pytest.mark.parametrize("path", ["commands/c", "components/t/commands/c"])
def test_a_command_fails_as_a_direct_method_does(
    service: Service, device: Device, path: str
) -> None:
    support.check_nested_error(command(service, device.id, path), 404103, "DeviceNotOnline")
    support.check_nested_error(command(service, "unknown", path), 404001, "DeviceNotFound")
    long_name = path + "c" * 100
    support.check_nested_error(command(service, device.id, long_name), 400004, "ArgumentInvalid")
    invalid = command(service, device.id, path, data=b"{")
    support.check_nested_error(invalid, 400012, "DeserializationError")
    large = command(service, device.id, path, data=b'"' + b"x" * 128 * 1024 + b'"')
    support.check_nested_error(large, 413001, "MessageTooLarge")
