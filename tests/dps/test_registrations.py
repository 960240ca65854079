"""Devices that register over HTTPS, and what becomes of them in the hub."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.dps.support import (
    ID_SCOPE,
    KEY,
    OTHER_KEY,
    SYMMETRIC,
    Owner,
    Registrant,
    derived,
    new_id,
)
from tests.support import Service, own

Make = Callable[..., Registrant]


# --- register, poll, look up


def test_a_device_registers(owner: Owner, registrant: Make, service: Service) -> None:
    name = new_id()
    owner.enroll(name)
    device = registrant(name)
    first = device.begin()
    assert first.status_code == 202
    assert first.headers["Retry-After"] == "3"
    uuid.UUID(first.headers["x-ms-request-id"])
    pending = first.json()
    assert pending == {"operationId": pending["operationId"], "status": "assigning"}
    assert re.fullmatch(r"5\.[0-9a-f]{16}\.[0-9a-f-]{36}", pending["operationId"])
    assert (
        first.headers["Location"]
        .partition("?")[0]
        .endswith(f"/{ID_SCOPE}/registrations/{name}/operations/{pending['operationId']}")
    )
    last = device.send("GET", f"/operations/{pending['operationId']}")
    assert last.status_code == 200
    state = last.json()["registrationState"]
    assert last.json() == {**pending, "status": "assigned", "registrationState": state}
    assert {*state} == {
        *("registrationId", "createdDateTimeUtc", "assignedHub", "deviceId", "status"),
        *("substatus", "lastUpdatedDateTimeUtc", "etag"),
    }
    assert (state["registrationId"], state["deviceId"]) == (name, name)
    assert (state["status"], state["substatus"]) == ("assigned", "initialAssignment")
    assert device.send("POST", "", {"registrationId": name}).json() == state
    identity = service.request("GET", f"/devices/{name}").json()
    assert identity["authentication"]["type"] == "sas"
    assert identity["authentication"]["symmetricKey"] == SYMMETRIC["symmetricKey"]
    assert identity["status"] == "enabled"


def test_a_device_of_a_group_has_a_derived_key(
    owner: Owner, registrant: Make, service: Service
) -> None:
    group, name = new_id("group"), new_id()
    owner.enroll_group(group)
    for key in (OTHER_KEY, KEY):
        registrant(name, derived(key, name)).register()
    keys = service.request("GET", f"/devices/{name}").json()["authentication"]["symmetricKey"]
    assert keys == {"primaryKey": derived(KEY, name), "secondaryKey": derived(OTHER_KEY, name)}
    assert registrant(name, KEY).refused() == 401000  # the key of the group itself
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)
    assert registrant(name, derived(KEY, name)).refused() == 401000


def test_an_enrollment_of_its_own_comes_before_the_group(owner: Owner, registrant: Make) -> None:
    group, name = new_id("group"), new_id()
    owner.enroll_group(group)
    owner.enroll(name, {"type": "symmetricKey"})
    assert registrant(name, derived(KEY, name)).refused() == 401000
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def test_the_body_may_be_empty(owner: Owner, registrant: Make) -> None:
    name = new_id()
    owner.enroll(name)
    assert registrant(name).send("PUT", "/register").status_code == 202


def test_the_name_in_a_token_may_be_missing(owner: Owner, registrant: Make) -> None:
    name = new_id()
    owner.enroll(name)
    assert registrant(name, policy=None).begin().status_code == 202


@pytest.mark.parametrize(
    "token",
    [
        {"key": OTHER_KEY[:-5] + "AAAA="},
        {"lifetime": -1},
        {"policy": "provisioningserviceowner"},
        {"key": None},
    ],
)
def test_a_wrong_token_is_refused(owner: Owner, registrant: Make, token: dict[str, Any]) -> None:
    name = new_id()
    owner.enroll(name)
    assert registrant(name, **token).refused() == 401000


def test_an_unknown_device_and_a_token_of_another_one_are_refused(
    owner: Owner, registrant: Make
) -> None:
    name, other = new_id(), new_id()
    assert registrant(name).refused() == 401000
    owner.enroll(name)
    owner.enroll(other)
    device = registrant(other)
    device.url = device.url.replace(other, name)
    assert device.refused(registrationId=name) == 401000


def test_an_unknown_id_scope_is_refused(owner: Owner, registrant: Make) -> None:
    name = new_id()
    owner.enroll(name)
    assert registrant(name, scope="0ne00000000").refused() == 401000


def test_an_operation_of_another_id_is_unknown(owner: Owner, registrant: Make) -> None:
    name = new_id()
    owner.enroll(name)
    device = registrant(name)
    assert device.send("POST", "", {}).json()["errorCode"] == 404203
    first = device.begin().json()["operationId"]
    device.register()
    for operation in (first, "5.0.0"):
        assert device.send("GET", f"/operations/{operation}").json()["errorCode"] == 404204


def test_an_invalid_request_is_refused(owner: Owner, registrant: Make) -> None:
    name = new_id()
    owner.enroll(name)
    device = registrant(name)
    assert device.refused(registrationId="another") == 400004
    assert device.send("PUT", "/register", []).json()["errorCode"] == 400012
    assert device.send("PUT", "/register", {"payload": "x" * 100_000}).status_code == 413
    assert device.send("POST", "", {"csr": "x"}).json()["errorCode"] == 400004


def test_an_invalid_registration_id_is_refused(owner: Owner, registrant: Make) -> None:
    group = new_id("group")
    owner.enroll_group(group)
    for name in ("a+b", "ends.", "x" * 129):
        assert registrant(name, derived(KEY, name)).refused() == 400004
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def test_a_disabled_enrollment_ends_disabled(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name = new_id()
    owner.enroll(name, provisioningStatus="disabled")
    answer = registrant(name).register()
    assert (answer["status"], answer["registrationState"]["status"]) == ("disabled", "disabled")
    assert "assignedHub" not in answer["registrationState"]
    assert owner.call("GET", f"/registrations/{name}")["status"] == "disabled"
    assert service.request("GET", f"/devices/{name}").status_code == 404


# --- what lands in the hub


def test_the_initial_twin_and_the_capabilities_are_written(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name, device_id = new_id(), new_id("edge")
    twin = {"tags": {"site": "x"}, "properties": {"desired": {"rate": 5}}}
    owner.enroll(name, deviceId=device_id, initialTwin=twin, capabilities={"iotEdge": True})
    assert registrant(name).register()["registrationState"]["deviceId"] == device_id
    assert service.request("GET", f"/devices/{device_id}").json()["capabilities"]["iotEdge"]
    found = service.request("GET", f"/twins/{device_id}").json()
    assert (found["tags"], own(found["properties"]["desired"])) == ({"site": "x"}, {"rate": 5})


def test_a_second_registration_updates_the_keys_alone(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name = new_id()
    owner.enroll(name, initialTwin={"tags": {"site": "x"}})
    registrant(name).register()
    service.request("PATCH", f"/twins/{name}", json={"tags": {"site": "moved"}})
    keys = {"primaryKey": OTHER_KEY, "secondaryKey": KEY}
    owner.change(name, attestation={"type": "symmetricKey", "symmetricKey": keys})
    state = registrant(name, OTHER_KEY).register()["registrationState"]
    assert state["substatus"] == "initialAssignment"
    identity = service.request("GET", f"/devices/{name}").json()
    assert identity["authentication"]["symmetricKey"] == keys
    assert service.request("GET", f"/twins/{name}").json()["tags"] == {"site": "moved"}


def test_a_device_that_was_deleted_is_created_again(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name = new_id()
    owner.enroll(name, initialTwin={"tags": {"site": "x"}})
    registrant(name).register()
    service.request("DELETE", f"/devices/{name}", headers={"If-Match": "*"})
    registrant(name).register()
    assert service.request("GET", f"/twins/{name}").json()["tags"] == {"site": "x"}


def test_a_device_of_the_hub_stays_an_edge_device(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name = new_id()
    body = {"deviceId": name, "capabilities": {"iotEdge": True}, "status": "disabled"}
    assert service.request("PUT", f"/devices/{name}", json=body).ok
    owner.enroll(name)
    registrant(name).register()
    identity = service.request("GET", f"/devices/{name}").json()
    assert identity["capabilities"] == {"iotEdge": True}
    assert identity["status"] == "disabled"
    assert identity["authentication"]["symmetricKey"]["primaryKey"] == KEY


@pytest.mark.parametrize("is_group", [False, True])
def test_an_id_in_another_letter_case_is_the_same_device(
    owner: Owner, registrant: Make, service: Service, is_group: bool
) -> None:
    name = new_id("Reg")
    if is_group:
        group = new_id("group")
        owner.enroll_group(group)
    else:
        owner.enroll(name)
    for spelling in (name, name.upper(), name.lower()):
        key = derived(KEY, spelling) if is_group else KEY
        state = registrant(spelling, key).register()["registrationState"]
        assert (state["registrationId"], state["deviceId"]) == (name, name)
        keys = service.request("GET", f"/devices/{name}").json()["authentication"]["symmetricKey"]
        assert keys["primaryKey"] == key
    assert service.request("GET", f"/devices/{name.upper()}").status_code == 404
    if is_group:
        owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def test_another_device_id_is_another_device(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name, other = new_id(), new_id("renamed")
    owner.enroll(name)
    registrant(name).register()
    owner.change(name, deviceId=other)
    assert registrant(name).register()["registrationState"]["deviceId"] == other
    for device_id in (name, other):
        assert service.request("GET", f"/devices/{device_id}").status_code == 200


def test_what_the_hub_refuses_ends_failed(owner: Owner, registrant: Make, service: Service) -> None:
    name = new_id()
    owner.enroll(name, capabilities={"iotEdge": True})
    # A leaf device that has a parent can't become an IoT Edge device.
    edge = new_id("parent")
    body = {"deviceId": edge, "capabilities": {"iotEdge": True}}
    scope = service.request("PUT", f"/devices/{edge}", json=body).json()["deviceScope"]
    body = {"deviceId": name, "deviceScope": scope}
    assert service.request("PUT", f"/devices/{name}", json=body).ok
    answer = registrant(name).register()
    state = answer["registrationState"]
    assert (answer["status"], state["errorCode"]) == ("failed", 400209)
    assert state["errorMessage"].startswith("ErrorCode:InvalidDeviceScope;")
    assert owner.call("GET", f"/registrations/{name}")["errorCode"] == 400209


# --- hubs


def test_a_static_allocation_names_any_host(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name = new_id()
    owner.enroll(name, allocationPolicy="static", iotHubs=["hub.example"])
    assert registrant(name).register()["registrationState"]["assignedHub"] == "hub.example"
    assert service.request("GET", f"/devices/{name}").status_code == 404
    older = new_id()
    owner.enroll(older, iotHubHostName="older.example")
    assert registrant(older).register()["registrationState"]["assignedHub"] == "older.example"


def test_a_hashed_allocation_spreads_devices_and_stays(owner: Owner, registrant: Make) -> None:
    hubs = [f"hub-{number}.example" for number in range(3)]
    group = new_id("group")
    owner.enroll_group(group, iotHubs=hubs)
    names = [new_id() for _ in range(30)]

    def register() -> list[str]:
        devices = [registrant(name, derived(KEY, name)) for name in names]
        return [each.register()["registrationState"]["assignedHub"] for each in devices]

    first = register()
    assert {*first} == {*hubs}
    assert register() == first
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


@pytest.mark.parametrize(
    ("policy", "hub", "substatus", "stays"),
    [
        ((True, True), "new.example", "deviceDataMigrated", False),
        ((True, False), "new.example", "deviceDataReset", False),
        ((False, False), None, "initialAssignment", True),
    ],
)
def test_reprovisioning_policies(
    owner: Owner,
    registrant: Make,
    service: Service,
    policy: tuple[bool, bool],
    hub: str | None,
    substatus: str,
    stays: bool,
) -> None:
    name = new_id()
    update, migrate = policy
    reprovision = {"updateHubAssignment": update, "migrateDeviceData": migrate}
    owner.enroll(name, reprovisionPolicy=reprovision)
    first = registrant(name).register()["registrationState"]["assignedHub"]
    owner.change(name, allocationPolicy="static", iotHubs=["new.example"])
    state = registrant(name).register()["registrationState"]
    assert state["assignedHub"] == (hub or first)
    assert state["substatus"] == "initialAssignment"  # as a device always reads it
    assert owner.call("GET", f"/registrations/{name}")["substatus"] == substatus
    assert service.request("GET", f"/devices/{name}").ok is stays


def test_a_device_that_returns_is_reset_by_its_policy(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name = new_id()
    reprovision = {"updateHubAssignment": True, "migrateDeviceData": False}
    static = {"allocationPolicy": "static", "iotHubs": ["old.example"]}
    twin = {"tags": {"site": "x"}}
    owner.enroll(name, reprovisionPolicy=reprovision, initialTwin=twin, **static)
    registrant(name).register()
    body = {"deviceId": name}
    assert service.request("PUT", f"/devices/{name}", json=body).ok  # by another program
    owner.change(name, allocationPolicy="hashed", iotHubs=None)
    registrant(name).register()
    assert service.request("GET", f"/twins/{name}").json()["tags"] == {"site": "x"}


def test_a_disabled_registration_keeps_its_assignment(
    owner: Owner, registrant: Make, service: Service
) -> None:
    name = new_id()
    owner.enroll(name, initialTwin={"tags": {"site": "x"}})
    registrant(name).register()
    service.request("PATCH", f"/twins/{name}", json={"tags": {"site": "moved"}})
    owner.change(name, provisioningStatus="disabled")
    assert registrant(name).register()["status"] == "disabled"
    owner.change(name, provisioningStatus="enabled")
    registrant(name).register()
    assert service.request("GET", f"/twins/{name}").json()["tags"] == {"site": "moved"}
