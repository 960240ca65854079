"""Bulk calls on the registry over REST."""

from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.devices import connect_device
from tests.http import support
from tests.support import Device, Service


def post(service: Service, *items: dict[str, Any]) -> requests.Response:
    return service.request("POST", "/devices", json=list(items))


def check_success(response: requests.Response) -> None:
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == support.JSON_TYPE
    assert "iothub-errorcode" not in response.headers
    assert response.content == b'{"isSuccessful":true,"errors":[],"warnings":[]}'


def check_failure(response: requests.Response) -> list[dict[str, Any]]:
    """Check the answer to a call with a refused item; return its errors."""
    assert response.status_code == 400, response.text
    assert response.headers["iothub-errorcode"] == "BulkRegistryOperationFailure"
    assert response.headers["Content-Type"] == support.JSON_TYPE
    result = response.json()
    assert list(result) == ["isSuccessful", "errors", "warnings"]
    assert (result["isSuccessful"], result["warnings"]) == (False, [])
    errors: list[dict[str, Any]] = result["errors"]
    assert errors
    return errors


def check_missing(service: Service, device_id: str) -> None:
    support.check_error(service.request("GET", f"/devices/{device_id}"), 404, "DeviceNotFound")


def test_devices_and_modules_are_created_updated_and_deleted(service: Service) -> None:
    ids = [support.new_id("bulk") for _ in range(3)]
    items: list[dict[str, Any]] = [
        {"id": each, "importMode": "create", "status": "enabled", "tags": {"n": number}}
        for number, each in enumerate(ids)
    ]
    module = {"id": ids[0], "moduleId": "m", "importMode": "create", "managedBy": "me"}
    check_success(service.request("POST", "/devices/", json=[*items, module]))
    created = [support.read(service, f"/devices/{each}") for each in ids]
    assert [support.read(service, f"/twins/{each}")["tags"]["n"] for each in ids] == [0, 1, 2]
    assert support.read(service, f"/devices/{ids[0]}/modules/m")["managedBy"] == "me"
    check_success(
        post(
            service,
            {"id": ids[0], "importMode": "update", "status": "disabled"},
            {"id": ids[1], "importMode": "UpdateIfMatchETag", "eTag": created[1]["etag"]},
            {"id": ids[2], "importMode": "Delete"},
        )
    )
    first, second = (support.read(service, f"/devices/{each}") for each in ids[:2])
    assert (first["status"], first["etag"] == created[0]["etag"]) == ("disabled", False)
    assert second["etag"] != created[1]["etag"]
    check_missing(service, ids[2])


def test_a_refused_item_is_described_and_the_others_are_done(
    service: Service, device: Device
) -> None:
    new, twice = support.new_id("bulk"), support.new_id("bulk")
    response = post(
        service,
        {"id": device.id, "importMode": "create"},
        {"id": device.id, "moduleId": "m", "importMode": "deleteIfMatchETag", "eTag": "MQ=="},
        {"id": twice, "importMode": "create"},
        {"id": twice, "importMode": "create"},
        {"id": new, "importMode": "create"},
    )
    exists, missing, *twofold = check_failure(response)
    assert exists == {
        "deviceId": device.id,
        "errorCode": 409001,
        "errorStatus": f"A device with ID '{device.id}' is already registered.",
        "operation": "create",
    }
    assert missing == {
        "deviceId": device.id,
        "errorCode": 404010,
        "errorStatus": f"{device.id}/m",
        "moduleId": "m",
        "operation": "deleteIfMatchETag",
    }
    codes = [(each["deviceId"], each["errorCode"]) for each in twofold]
    assert codes == [(twice, 400011)] * 2
    check_missing(service, twice)
    assert support.read(service, f"/devices/{new}")["deviceId"] == new


def test_a_call_has_a_hundred_items_at_most(service: Service) -> None:
    ids = [support.new_id("bulk") for _ in range(101)]
    items: list[dict[str, Any]] = [{"id": each, "importMode": "create"} for each in ids]
    support.check_error(post(service, *items), 413, "TooManyDevices")
    check_missing(service, ids[0])
    check_success(post(service, *items[:100]))
    check_success(post(service, *[{"id": each, "importMode": "delete"} for each in ids[:100]]))


@pytest.mark.parametrize(
    "item", [{"importMode": "update", "status": "disabled"}, {"importMode": "delete"}]
)
def test_a_device_that_is_disabled_or_deleted_loses_its_connection(
    service: Service, device: Device, emulator: Emulator, item: dict[str, Any]
) -> None:
    with support.MethodDevice(emulator, device, support.silence) as connected:
        check_success(post(service, {"id": device.id, **item}))
        connected.wait_until_gone()


@pytest.mark.parametrize("mode", ["update", "createOrUpdate", "updateTwin"])
def test_a_device_receives_its_new_desired_properties(
    service: Service, device: Device, emulator: Emulator, mode: str
) -> None:
    string, topic = device.connection_string, "$iothub/twin/PATCH/properties/desired/"
    with connect_device(string, emulator.mqtt_port, support.trust(emulator), f"{topic}#") as wire:
        item = {"id": device.id, "importMode": mode, "properties": {"desired": {"a": 1}}}
        check_success(post(service, item))
        wire.expect_publish(f"{topic}?$version=2", {"a": 1, "$version": 2})
