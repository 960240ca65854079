"""Bulk calls on the registry over REST."""

from __future__ import annotations

import ssl
import uuid
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.http.support import MethodDevice, check_error, put_device, silence
from tests.mqtt.raw import Wire, connack, connect, suback, subscribe
from tests.support import API_VERSION, Device, Service, sas_token


def post(service: Service, *items: dict[str, Any]) -> requests.Response:
    return service.request("POST", "/devices", json=list(items))


def new_ids(count: int) -> list[str]:
    return [f"bulk-{uuid.uuid4().hex[:12]}" for _ in range(count)]


def check_success(response: requests.Response) -> None:
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "iothub-errorcode" not in response.headers
    assert response.content == b'{"isSuccessful":true,"errors":[],"warnings":[]}'


def check_failure(response: requests.Response) -> list[dict[str, Any]]:
    """Check the answer to a call of which a part was refused; gives its errors."""
    assert response.status_code == 400, response.text
    assert response.headers["iothub-errorcode"] == "BulkRegistryOperationFailure"
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    result = response.json()
    assert list(result) == ["isSuccessful", "errors", "warnings"]
    assert (result["isSuccessful"], result["warnings"]) == (False, [])
    errors: list[dict[str, Any]] = result["errors"]
    assert errors
    return errors


@pytest.mark.parametrize("path", ["/devices", "/devices/"])
def test_devices_are_created_updated_and_deleted(service: Service, path: str) -> None:
    ids = new_ids(3)
    items = [
        {"id": each, "importMode": "create", "status": "enabled", "tags": {"n": number}}
        for number, each in enumerate(ids)
    ]
    check_success(service.request("POST", path, json=items))
    created = [service.request("GET", f"/devices/{each}").json() for each in ids]
    for number, each in enumerate(ids):
        assert service.request("GET", f"/twins/{each}").json()["tags"] == {"n": number}
    check_success(
        post(
            service,
            {"id": ids[0], "importMode": "update", "status": "disabled"},
            {"id": ids[1], "importMode": "UpdateIfMatchETag", "eTag": created[1]["etag"]},
            {"id": ids[2], "importMode": "Delete"},
        )
    )
    first, second, third = (service.request("GET", f"/devices/{each}") for each in ids)
    assert (first.json()["status"], first.json()["etag"] == created[0]["etag"]) == (
        "disabled",
        False,
    )
    assert second.json()["etag"] != created[1]["etag"]
    check_error(third, 404, "DeviceNotFound")


def test_modules_are_created_on_devices_that_are_there(service: Service, device: Device) -> None:
    items = [
        {"id": device.id, "moduleId": name, "importMode": "create", "managedBy": "me"}
        for name in ("a", "b")
    ]
    check_success(post(service, *items))
    modules = service.request("GET", f"/devices/{device.id}/modules").json()
    assert [(each["moduleId"], each["managedBy"]) for each in modules] == [("a", "me"), ("b", "me")]


def test_a_device_and_its_module_are_created_in_one_call(service: Service) -> None:
    (device_id,) = new_ids(1)
    items = [
        {"id": device_id, "importMode": "create"},
        {"id": device_id, "moduleId": "m", "importMode": "create"},
    ]
    check_success(post(service, *items))
    assert service.request("GET", f"/devices/{device_id}/modules/m").status_code == 200


def test_what_is_refused_is_told_and_the_rest_is_done(service: Service, device: Device) -> None:
    ids = new_ids(2)
    response = post(
        service,
        {"id": ids[0], "importMode": "create"},
        {"id": device.id, "importMode": "create"},
        {"id": device.id, "moduleId": "m", "importMode": "deleteIfMatchETag", "eTag": "MQ=="},
        {"id": ids[1], "importMode": "create"},
    )
    assert check_failure(response) == [
        {
            "deviceId": device.id,
            "errorCode": "DeviceAlreadyExists",
            "errorStatus": f"A device with ID '{device.id}' is already registered.",
            "operation": "create",
        },
        {
            "deviceId": device.id,
            "errorCode": "ModuleNotFound",
            "errorStatus": f"{device.id}/m",
            "moduleId": "m",
            "operation": "deleteIfMatchETag",
        },
    ]
    for each in ids:
        assert service.request("GET", f"/devices/{each}").status_code == 200


def test_the_same_device_twice_is_refused(service: Service) -> None:
    once, twice = new_ids(2)
    items = [{"id": each, "importMode": "create"} for each in (twice, once, twice)]
    errors = check_failure(post(service, *items))
    assert [(each["deviceId"], each["errorCode"]) for each in errors] == [
        (twice, "DeviceDefinedMultipleTimes")
    ] * 2
    check_error(service.request("GET", f"/devices/{twice}"), 404, "DeviceNotFound")
    assert service.request("GET", f"/devices/{once}").status_code == 200


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{}", b'{"devices":[]}', b'["d"]', b"null", b'[{"id":"x"},1]']
)
def test_a_body_that_is_no_array_of_objects_is_refused(service: Service, data: bytes) -> None:
    check_error(service.request("POST", "/devices", data=data), 400, "DeserializationError")


def test_a_call_has_a_hundred_items_at_most(service: Service) -> None:
    ids = new_ids(101)
    items: list[dict[str, Any]] = [{"id": each, "importMode": "create"} for each in ids]
    check_error(post(service, *items), 413, "TooManyDevices")
    check_error(service.request("GET", f"/devices/{ids[0]}"), 404, "DeviceNotFound")
    check_success(post(service, *items[:100]))
    check_success(post(service, *[{"id": each, "importMode": "delete"} for each in ids[:100]]))


@pytest.mark.parametrize(
    "item",
    [
        {"importMode": "update", "status": "disabled"},
        {"importMode": "delete"},
    ],
)
def test_a_device_that_is_disabled_or_deleted_in_bulk_is_dropped(
    service: Service, device: Device, emulator: Emulator, item: dict[str, Any]
) -> None:
    with MethodDevice(emulator, device, silence) as connected:
        check_success(post(service, {"id": device.id, **item}))
        connected.wait_until_gone()


@pytest.mark.parametrize("mode", ["update", "createOrUpdate", "updateTwin"])
def test_a_device_is_told_of_what_it_is_to_be(
    service: Service, device: Device, emulator: Emulator, mode: str
) -> None:
    host = emulator.host_name
    context = ssl.create_default_context(cafile=str(emulator.ca_file))
    token = sas_token(f"{host}/devices/{device.id}", device.key)
    with Wire((host, emulator.mqtt_port), context) as wire:
        wire.send(connect(device.id, f"{host}/{device.id}/?api-version={API_VERSION}", token))
        wire.send(subscribe(1, "$iothub/twin/PATCH/properties/desired/#"))
        wire.expect(connack(0), suback(1, 0))
        item = {"id": device.id, "importMode": mode, "properties": {"desired": {"a": 1}}}
        check_success(post(service, item))
        topic = "$iothub/twin/PATCH/properties/desired/?$version=2"
        wire.expect_publish(topic, {"a": 1, "$version": 2})


def test_a_child_is_created_below_its_parent(service: Service) -> None:
    parent, leaf, edge = new_ids(3)
    scope = put_device(service, parent, capabilities={"iotEdge": True})["deviceScope"]
    items = [
        {"id": leaf, "importMode": "create", "deviceScope": scope},
        {
            "id": edge,
            "importMode": "create",
            "capabilities": {"iotEdge": True},
            "parentScopes": [scope],
        },
    ]
    check_success(post(service, *items))
    for each in (leaf, edge):
        assert service.request("GET", f"/devices/{each}").json()["parentScopes"] == [scope]
    modules = service.request("GET", f"/devices/{edge}/modules").json()
    assert [each["moduleId"] for each in modules] == ["$edgeAgent", "$edgeHub"]
    wrong = {"id": leaf, "importMode": "update", "deviceScope": scope[:-1]}
    (error,) = check_failure(post(service, wrong))
    assert error["errorCode"] == "InvalidDeviceScope"


@pytest.mark.parametrize("policy", ["registryRead", "service", "device"])
def test_a_bulk_call_needs_the_right_to_write(
    emulator: Emulator, device: Device, policy: str
) -> None:
    caller = Service(emulator, policy)
    refused = post(caller, {"id": device.id, "importMode": "delete"})
    check_error(refused, 401, "IotHubUnauthorizedAccess")
    caller.close()
    writer = Service(emulator, "registryReadWrite")
    check_success(post(writer, {"id": device.id, "importMode": "delete"}))
    writer.close()
