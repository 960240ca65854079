"""The rights of shared access policies at the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator import Emulator, Settings
from tests.dps.support import KEY, SYMMETRIC, VERSION, Owner, Registrant, new_id
from tests.support import second_hub

RIGHTS = (
    *("ServiceConfig", "EnrollmentRead", "EnrollmentWrite"),
    *("RegistrationStatusRead", "RegistrationStatusWrite"),
)

# A body, the route, and the right that it needs.
ROUTES = [
    (None, "GET", "/enrollments/{one}", "EnrollmentRead"),
    (None, "GET", "/enrollmentGroups/{group}", "EnrollmentRead"),
    (None, "POST", "/enrollments/{one}/attestationmechanism", "EnrollmentRead"),
    (None, "POST", "/enrollmentGroups/{group}/attestationmechanism", "EnrollmentRead"),
    ({"query": "SELECT *"}, "POST", "/enrollments/query", "EnrollmentRead"),
    ({"query": "SELECT *"}, "POST", "/enrollmentGroups/query", "EnrollmentRead"),
    (
        {"registrationId": "{new}", "attestation": SYMMETRIC},
        *("PUT", "/enrollments/{new}", "EnrollmentWrite"),
    ),
    (
        {"enrollmentGroupId": "{new}", "attestation": SYMMETRIC},
        *("PUT", "/enrollmentGroups/{new}", "EnrollmentWrite"),
    ),
    (
        {"mode": "create", "enrollments": [{"registrationId": "x-{new}"}]},
        *("POST", "/enrollments", "EnrollmentWrite"),
    ),
    (None, "GET", "/registrations/{one}", "RegistrationStatusRead"),
    ({"query": "SELECT *"}, "POST", "/registrations/{group}/query", "RegistrationStatusRead"),
    (None, "DELETE", "/registrations/{one}", "RegistrationStatusWrite"),
    (None, "DELETE", "/enrollments/{one}", "EnrollmentWrite"),
    (None, "DELETE", "/enrollmentGroups/{group}", "EnrollmentWrite"),
]


@pytest.fixture(scope="module")
def hub(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A hub with a policy for each right, and a key of the owner's policy."""
    file = tmp_path_factory.mktemp("rights") / "hub.json"
    policies = [{"name": right, "rights": [right]} for right in RIGHTS]
    owner = {"name": "provisioningserviceowner", "primaryKey": KEY}
    file.write_text(json.dumps({"policies": [*policies, owner]}), encoding="utf-8")
    with second_hub(emulator, config=Settings.from_file(file).config) as running:
        yield running


class Program(Owner):
    """A program with the key of a policy."""

    def __init__(self, hub: Emulator, policy: str) -> None:
        self._string = hub.policy_connection_string(policy)
        super().__init__(hub)

    @property
    def service_connection_string(self) -> str:
        """The one of the policy."""
        return self._string

    @service_connection_string.setter
    def service_connection_string(self, _: str) -> None:
        pass


@pytest.mark.parametrize(("body", "verb", "path", "right"), ROUTES)
def test_a_route_needs_its_right(
    hub: Emulator, body: object, verb: str, path: str, right: str
) -> None:
    names = {"one": new_id(), "group": new_id("group"), "new": new_id()}
    text = json.dumps(body)
    for key, value in names.items():
        path, text = path.replace(f"{{{key}}}", value), text.replace(f"{{{key}}}", value)
    with Owner(hub) as owner:
        owner.enroll(names["one"])
        owner.enroll_group(names["group"])
    Registrant(hub, names["one"]).register()
    for policy in (*(each for each in RIGHTS if each != right), "iothubowner", right):
        with Program(hub, policy) as program:
            answer = program.request(verb, path, json=json.loads(text), params=VERSION)
        if policy == right:
            assert answer.status_code in (200, 204), answer.text
        else:
            assert answer.status_code == 401
            assert answer.json()["errorCode"] == 401000
            assert answer.headers["x-ms-error-code"] == "401000"


def test_the_key_of_the_owner_comes_from_the_file(hub: Emulator) -> None:
    assert str(hub.dps_connection_string).endswith(f"SharedAccessKey={KEY}")


def test_a_policy_of_the_service_has_no_right_in_the_hub(hub: Emulator) -> None:
    with Program(hub, "EnrollmentRead") as program:
        assert program.request("GET", "/devices/x").status_code == 401


def test_the_refusal_is_explained(hub: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with Program(hub, "EnrollmentRead") as program:
        program.request("DELETE", "/enrollments/x", params=VERSION)
    assert "'EnrollmentRead' does not have the right 'enrollment write'" in caplog.text


def test_a_file_can_name_the_policy_of_the_owner_without_rights(tmp_path: Path) -> None:
    file = tmp_path / "hub.json"
    policy = {"name": "provisioningserviceowner", "primaryKey": KEY}
    file.write_text(json.dumps({"policies": [policy]}), encoding="utf-8")
    assert Settings.from_file(file).config is not None
