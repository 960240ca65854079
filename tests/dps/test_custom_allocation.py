"""Custom allocation: a webhook on this machine chooses the hub."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from emulator import Emulator
from tests.dps.support import KEY, OTHER_KEY, Owner, Registrant, derived, new_id
from tests.dps.webhook import Webhook
from tests.support import Service, wait_until

Make = Callable[..., Registrant]

_INVALID = "The webhook's answer is invalid: "


def test_the_webhook_chooses(
    owner: Owner, registrant: Make, webhook: Webhook, emulator: Emulator, service: Service
) -> None:
    name = new_id()
    webhook.says(
        iotHubHostName=emulator.host_name,
        initialTwin={"tags": {"chosen": True}, "properties": {"desired": {"x": 1}}},
        payload={"hello": ["device"]},
    )
    created = owner.enroll(name, **webhook.policy)
    state = registrant(name).register(payload={"model": 7})["registrationState"]
    assert state["assignedHub"] == emulator.host_name
    assert state["payload"] == {"hello": ["device"]}
    assert service.request("GET", f"/twins/{name}").json()["tags"] == {"chosen": True}
    (request,) = webhook.requests
    assert request["individualEnrollment"]["registrationId"] == created["registrationId"]
    assert KEY not in json.dumps(request)
    assert request["linkedHubs"] == [emulator.host_name]
    assert request["deviceRuntimeContext"] == {
        "registrationId": name,
        "symmetricKey": {},
        "payload": {"model": 7},
    }
    assert webhook.paths == ["/api/allocate?api-version=2019-03-31"]
    registrant(name).register()
    context = webhook.requests[-1]["deviceRuntimeContext"]
    assert context["currentIotHubHostName"] == emulator.host_name
    assert context["currentDeviceId"] == name


def test_a_group_has_a_webhook(owner: Owner, registrant: Make, webhook: Webhook) -> None:
    group, name = new_id("group"), new_id()
    webhook.says(iotHubHostName="far.example")
    owner.enroll_group(group, **webhook.policy, iotHubs=["far.example", "near.example"])
    state = registrant(name, derived(KEY, name)).register()["registrationState"]
    assert state["assignedHub"] == "far.example"
    (request,) = webhook.requests
    assert request["enrollmentGroup"]["enrollmentGroupId"] == group
    assert request["linkedHubs"] == ["far.example", "near.example"]
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def test_a_device_waits_while_the_webhook_works(
    owner: Owner, registrant: Make, webhook: Webhook
) -> None:
    name = new_id()
    webhook.says(iotHubHostName="hub.example")
    webhook.may_answer.clear()
    owner.enroll(name, **webhook.policy)
    device = registrant(name)
    operation = device.begin().json()["operationId"]
    pending = device.send("GET", f"/operations/{operation}")
    assert (pending.status_code, pending.headers["Retry-After"]) == (202, "3")
    assert pending.json() == {
        "operationId": operation,
        "status": "assigning",
        "registrationState": {"registrationId": name, "status": "assigning"},
    }
    webhook.may_answer.set()
    assert device.register()["status"] == "assigned"
    assert device.send("GET", f"/operations/{operation}").json()["errorCode"] == 404204


@pytest.mark.parametrize("is_enrolled_again", [False, True])
def test_an_enrollment_that_is_deleted_meanwhile_leaves_nothing(
    owner: Owner,
    registrant: Make,
    webhook: Webhook,
    emulator: Emulator,
    service: Service,
    caplog: pytest.LogCaptureFixture,
    is_enrolled_again: bool,
) -> None:
    caplog.set_level("INFO", "emulator.refusals")
    name = new_id()
    webhook.says(iotHubHostName=emulator.host_name)
    webhook.may_answer.clear()
    owner.enroll(name, **webhook.policy)
    device = registrant(name)
    operation = f"/operations/{device.begin().json()['operationId']}"
    wait_until(lambda: webhook.requests)
    owner.call("DELETE", f"/enrollments/{name}", status=204)
    if is_enrolled_again:  # with another key: the operation was for the old one
        keys = {"primaryKey": OTHER_KEY, "secondaryKey": OTHER_KEY}
        owner.enroll(name, {"type": "symmetricKey", "symmetricKey": keys})
    assert device.send("GET", operation).json()["errorCode"] == 401000
    webhook.may_answer.set()
    wait_until(lambda: f"Can't assign '{name}': " in caplog.text)
    if is_enrolled_again:
        again = registrant(name, OTHER_KEY)
        assert again.send("GET", operation).json()["errorCode"] == 404204
    owner.refuse("GET", f"/registrations/{name}", 404203)
    assert service.request("GET", f"/devices/{name}").status_code == 404


@pytest.mark.parametrize(
    ("status", "answer", "code", "text"),
    [
        (500, b"{}", 400207, "The webhook answered 500."),
        (302, b"{}", 400207, "The webhook answered 302."),
        (200, b"no JSON", 400207, f"{_INVALID}Expecting value"),
        (200, b"[]", 400207, f"{_INVALID}it is not an object"),
        (200, b'{"iotHubHostName": "a b"}', 400207, f"{_INVALID}Invalid host name"),
        (200, b'{"iotHubHostName": "a", "initialTwin": 1}', 400207, f"{_INVALID}initialTwin"),
        (200, b"{}", 400208, "The custom allocation names no IoT hub"),
        (200, b"x" * 2_000_000, 400207, "The webhook answered more than"),
    ],
)
def test_a_webhook_that_fails_ends_the_registration(
    owner: Owner,
    registrant: Make,
    webhook: Webhook,
    status: int,
    answer: bytes,
    code: int,
    text: str,
) -> None:
    name = new_id()
    webhook.status, webhook.answer = status, answer
    owner.enroll(name, **webhook.policy)
    result = registrant(name).register()
    assert (result["status"], result["registrationState"]["errorCode"]) == ("failed", code)
    assert result["registrationState"]["errorMessage"].startswith(text)


def test_a_webhook_that_does_not_run_ends_the_registration(
    owner: Owner, registrant: Make, webhook: Webhook
) -> None:
    name = new_id()
    owner.enroll(name, **webhook.policy)
    webhook.close()
    state = registrant(name).register()["registrationState"]
    assert state["errorMessage"].startswith("The webhook can't be reached (")
    assert state["errorMessage"].endswith("does it run?")
