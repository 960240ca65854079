"""New keys for many devices and modules over REST (azure-iot-cli-extension)."""

from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.devices import connect_device
from tests.http import support
from tests.support import Device, Service

Members = dict[str, Any]
PRINTS = {"primaryThumbprint": "A" * 40, "secondaryThumbprint": None}
SELF_SIGNED = {"authentication": {"type": "selfSigned", "x509Thumbprint": PRINTS}}


def rotate(service: Service, policy_key: Any, *items: Any) -> requests.Response:
    body = {"policyKey": policy_key, "devices": list(items)}
    return service.request("POST", "/devices/keys/regenerate", json=body)


def keys_of(service: Service, path: str) -> Members:
    keys: Members = support.read(service, path)["authentication"]["symmetricKey"]
    return keys


@pytest.mark.parametrize(
    ("policy_key", "changed"),
    [
        ("primaryKey", ["primaryKey"]),
        ("secondaryKey", ["secondaryKey"]),
        ("both", ["primaryKey", "secondaryKey"]),
        ("PrimaryKey", ["primaryKey"]),
    ],
)
def test_the_named_key_is_new_and_the_rest_of_the_identity_stays(
    service: Service, policy_key: str, changed: list[str]
) -> None:
    device_id = support.new_id()
    members = {"statusReason": "why", "capabilities": {"iotEdge": True}}
    support.put_device(service, device_id, **members)
    service.request("PATCH", f"/twins/{device_id}", json={"tags": {"a": 1}})
    before, twin = (support.read(service, f"/{part}/{device_id}") for part in ("devices", "twins"))
    answer = rotate(service, policy_key, {"id": device_id})
    assert answer.status_code == 200, answer.text
    after = support.read(service, f"/devices/{device_id}")
    old, new = (each.pop("authentication")["symmetricKey"] for each in (before, after))
    assert [name for name in old if old[name] != new[name]] == changed
    shown = {name: new[name] if name in changed else None for name in new}
    assert answer.json() == {
        "policyKey": policy_key[:1].lower() + policy_key[1:],
        "rotatedKeys": [{"id": device_id, "moduleId": None, **shown}],
        "errors": [],
    }
    assert before.pop("etag") != after.pop("etag")
    assert before == after
    assert twin["etag"] == support.read(service, f"/twins/{device_id}")["etag"]


def test_a_module_is_rotated_and_its_device_stays(service: Service, device: Device) -> None:
    path = f"/devices/{device.id}/modules/m"
    body = {"deviceId": device.id, "moduleId": "m", "managedBy": "me"}
    service.request("PUT", path, json=body)
    of_device, of_module = keys_of(service, f"/devices/{device.id}"), keys_of(service, path)
    answer = rotate(service, "both", {"Id": device.id, "ModuleId": "m", "other": 1})
    (rotated,) = answer.json()["rotatedKeys"]
    assert (answer.status_code, rotated["id"], rotated["moduleId"]) == (200, device.id, "m")
    assert keys_of(service, f"/devices/{device.id}") == of_device
    now = keys_of(service, path)
    assert now == {name: rotated[name] for name in now}
    assert not {*now.values()} & {*of_module.values()}
    assert support.read(service, path)["managedBy"] == "me"


def test_some_are_done_and_the_others_are_errors(service: Service, device: Device) -> None:
    signed = support.new_id()
    support.put_device(service, signed, **SELF_SIGNED)
    before = support.read(service, f"/devices/{signed}")
    others: list[Members] = [
        {"id": signed},
        {"id": "unknown"},
        {"id": device.id, "moduleId": "unknown"},
        {"id": "unknown", "moduleId": "m"},
        {"moduleId": "m"},
        {"id": 1},
        {"id": signed, "moduleId": "$edgeAgent"},
    ]
    answer = rotate(service, "primaryKey", *others[:2], {"id": device.id}, *others[2:])
    assert answer.status_code == 207
    assert "iothub-errorcode" not in answer.headers
    result = answer.json()
    assert [each["id"] for each in result["rotatedKeys"]] == [device.id]
    found = [(each["id"], each["moduleId"], each["errorCode"]) for each in result["errors"]]
    assert found == [
        (signed, None, 400004),
        ("unknown", None, 404001),
        (device.id, "unknown", 404010),
        ("unknown", "m", 404001),
        (None, "m", 400004),
        (1, None, 400004),
        (signed, "$edgeAgent", 404010),
    ]
    assert all(each["errorStatus"] for each in result["errors"])
    assert support.read(service, f"/devices/{signed}") == before
    answer = rotate(service, "both", *others)
    assert answer.status_code == 400
    assert answer.headers["iothub-errorcode"] == "BulkRegenerateDeviceKeyOperationFailure"
    assert (answer.json()["rotatedKeys"], len(answer.json()["errors"])) == ([], len(others))


def test_an_identity_that_a_call_names_twice_keeps_its_keys(
    service: Service, device: Device
) -> None:
    before = keys_of(service, f"/devices/{device.id}")
    answer = rotate(service, "both", {"id": device.id}, {"id": device.id, "moduleId": ""})
    assert [each["errorCode"] for each in answer.json()["errors"]] == [400011, 400011]
    assert (answer.status_code, keys_of(service, f"/devices/{device.id}")) == (400, before)


@pytest.mark.parametrize("policy_key", [None, "", "swap", "primary", 1, ["both"]])
def test_an_unknown_policy_key_is_refused(
    service: Service, device: Device, policy_key: Any
) -> None:
    before = keys_of(service, f"/devices/{device.id}")
    answer = rotate(service, policy_key, {"id": device.id})
    support.check_error(answer, 400, "InvalidPolicyKey")
    assert keys_of(service, f"/devices/{device.id}") == before


@pytest.mark.parametrize("devices", [None, {}, "x", [1], [None], [["x"]]])
def test_the_devices_are_an_array_of_objects(service: Service, devices: Any) -> None:
    body = {"policyKey": "both", "devices": devices}
    answer = service.request("POST", "/devices/keys/regenerate", json=body)
    support.check_error(answer, 400, "DeserializationError")


def test_a_call_has_a_hundred_items_at_most(service: Service, device: Device) -> None:
    before = keys_of(service, f"/devices/{device.id}")
    items = [{"id": device.id}, *({"id": f"n{number}"} for number in range(100))]
    support.check_error(rotate(service, "both", *items), 413, "TooManyDevices")
    assert keys_of(service, f"/devices/{device.id}") == before
    assert rotate(service, "both", *items[:100]).status_code == 207
    assert rotate(service, "both").status_code == 200


def test_a_connected_device_stays_connected(
    service: Service, device: Device, emulator: Emulator
) -> None:
    string = device.connection_string
    with connect_device(string, emulator.mqtt_port, support.trust(emulator)) as wire:
        assert rotate(service, "both", {"id": device.id}).status_code == 200
        wire.expect_nothing()
