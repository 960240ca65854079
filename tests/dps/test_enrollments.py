"""The service API: enrollments, groups, and what was registered with them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.dps.software_tpm import a_tpm
from tests.dps.support import (
    API_VERSION,
    KEY,
    KEYS,
    OTHER_KEY,
    SYMMETRIC,
    Owner,
    Registrant,
    derived,
    new_id,
    pem,
)
from tests.support import fields_of, jwt, sas_token, second_hub
from tests.x509 import issue

LEAF = issue("device-1")


def client_certificates(**slots: str) -> dict[str, Any]:
    pair = {slot: {"certificate": text} for slot, text in slots.items()}
    return {"type": "x509", "x509": {"clientCertificates": pair}}


# --- create, read, update, delete


def test_an_enrollment_is_created_read_updated_and_deleted(owner: Owner) -> None:
    name = new_id()
    created = owner.enroll(name)
    assert created["attestation"] == SYMMETRIC
    assert created["etag"].startswith('"')
    read = owner.call("GET", f"/enrollments/{name}")
    assert read == {**created, "attestation": {"type": "symmetricKey"}}
    assert read["provisioningStatus"] == "enabled"
    assert read["allocationPolicy"] == "hashed"
    assert read["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}
    assert read["capabilities"] == {"iotEdge": False}
    assert "registrationState" not in read
    updated = owner.change(name, provisioningStatus="disabled", deviceId="other")
    assert (updated["provisioningStatus"], updated["deviceId"]) == ("disabled", "other")
    assert updated["createdDateTimeUtc"] == created["createdDateTimeUtc"]
    assert updated["etag"] != created["etag"]
    owner.call("DELETE", f"/enrollments/{name}", status=204)
    owner.refuse("GET", f"/enrollments/{name}", 404201)
    owner.refuse("DELETE", f"/enrollments/{name}", 404201)


def test_a_group_is_created_read_updated_and_deleted(owner: Owner) -> None:
    name = new_id("group")
    created = owner.enroll_group(name, iotHubs=["a.example", "b.example"])
    assert created["enrollmentGroupId"] == name
    assert "registrationId" not in created
    assert owner.call("GET", f"/enrollmentgroups/{name}")["iotHubs"] == ["a.example", "b.example"]
    owner.call("DELETE", f"/enrollmentGroups/{name}", status=204)
    owner.refuse("GET", f"/enrollmentGroups/{name}", 404202)
    owner.refuse("POST", f"/enrollmentGroups/{name}/attestationmechanism", 404202)


def test_letter_case_of_an_id_does_not_matter(owner: Owner) -> None:
    name = new_id("Reg")
    owner.enroll(name)
    assert owner.call("GET", f"/enrollments/{name.upper()}")["registrationId"] == name
    owner.call("DELETE", f"/enrollments/{name.lower()}", status=204)


def test_an_existing_enrollment_needs_an_etag(owner: Owner) -> None:
    name, group = new_id(), new_id("group")
    owner.enroll(name)
    body = {"registrationId": name, "attestation": SYMMETRIC}
    owner.refuse("PUT", f"/enrollments/{name}", 409201, body)
    owner.refuse("PUT", f"/enrollments/{name}", 412201, body, If_Match='"old"')
    owner.refuse("DELETE", f"/enrollments/{name}", 412201, If_Match="old")
    owner.call("DELETE", f"/enrollments/{name}", status=204, If_Match="*")
    owner.refuse("PUT", f"/enrollments/{name}", 404201, body, If_Match="old")
    owner.enroll_group(group)
    body = {"enrollmentGroupId": group, "attestation": SYMMETRIC}
    owner.refuse("PUT", f"/enrollmentGroups/{group}", 409202, body)
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204, If_Match="*")


@pytest.mark.parametrize("form", ["{}", '"{}"', '""{}""'])
def test_an_etag_comes_bare_quoted_and_quoted_twice(owner: Owner, form: str) -> None:
    name = new_id()
    bare = owner.enroll(name)["etag"].strip('"')
    body = {"registrationId": name, "attestation": SYMMETRIC}
    written = owner.call("PUT", f"/enrollments/{name}", body, If_Match=form.format(bare))
    bare = written["etag"].strip('"')
    owner.call("DELETE", f"/enrollments/{name}", status=204, If_Match=form.format(bare))


def test_keys_are_made_by_the_service_and_stay(owner: Owner) -> None:
    name = new_id()
    keys = owner.enroll(name, {"type": "symmetricKey"})["attestation"]["symmetricKey"]
    assert all(len(base64.b64decode(key)) == 64 for key in keys.values())
    assert owner.change(name, deviceId="d")["attestation"]["symmetricKey"] == keys
    mechanism = owner.call("POST", f"/enrollments/{name}/attestationmechanism")
    assert mechanism == {"type": "symmetricKey", "symmetricKey": keys}


def test_certificates_are_described_and_stay(owner: Owner) -> None:
    name = new_id()
    owner.enroll(name, client_certificates(primary=pem(LEAF)))
    attestation = owner.call("GET", f"/enrollments/{name}")["attestation"]
    info = attestation["x509"]["clientCertificates"]["primary"]["info"]
    assert info["subjectName"] == info["issuerName"] == "CN=device-1"
    assert info["sha1Thumbprint"] == LEAF.sha1.upper()
    assert info["sha256Thumbprint"] == LEAF.sha256.upper()
    assert info["version"] == 3
    assert {*info} >= {"notBeforeUtc", "notAfterUtc", "serialNumber"}
    assert owner.change(name, deviceId="d")["attestation"] == attestation


def test_tpm_keys_are_kept(owner: Owner) -> None:
    name = new_id()
    tpm = {"type": "tpm", "tpm": a_tpm().document}
    assert owner.enroll(name, tpm)["attestation"] == tpm


def test_every_other_member_is_kept(owner: Owner) -> None:
    name = new_id()
    members = {
        "deviceId": "device",
        "provisioningStatus": "disabled",
        "allocationPolicy": "custom",
        "customAllocationDefinition": {
            "webhookUrl": "http://localhost:7071/api/allocate",
            "apiVersion": "2019-03-31",
        },
        "iotHubs": ["one.example", "two.example"],
        "initialTwin": {"tags": {"site": "x"}, "properties": {"desired": {"rate": 5}}},
        "capabilities": {"iotEdge": True},
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": False},
        "optionalDeviceInformation": {"batch": 7},
    }
    created = owner.enroll(name, **members)
    assert {name: created[name] for name in members} == members


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"attestation": {"type": "password"}}, "Invalid attestation type: password"),
        ({"attestation": None}, "Invalid attestation type"),
        ({"attestation": client_certificates(primary="no certificate")}, "Invalid certificate"),
        ({"attestation": {"type": "x509", "x509": {}}}, "x509 must have one of"),
        (
            {"attestation": {"type": "x509", "x509": {"signingCertificates": {"primary": {}}}}},
            "x509 must have one of clientCertificates",
        ),
        ({"attestation": {"type": "tpm"}}, "tpm has no endorsementKey"),
        (
            {"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}},
            "Either no keys or both",
        ),
        (
            {"attestation": {"type": "symmetricKey", "symmetricKey": dict.fromkeys(KEYS, "x")}},
            "Invalid device key",
        ),
        ({"provisioningStatus": "on"}, "Invalid provisioningStatus: on. Use enabled, disabled"),
        ({"allocationPolicy": "random"}, "Invalid allocationPolicy: random"),
        ({"allocationPolicy": "custom"}, "needs a customAllocationDefinition"),
        ({"allocationPolicy": "static", "iotHubs": ["a", "b"]}, "static has 2 iotHubs"),
        ({"iotHubs": ["hub:443"]}, "Invalid host name of a hub: hub:443"),
        ({"iotHubs": "hub"}, "iotHubs is not a list"),
        (
            {"customAllocationDefinition": {"webhookUrl": "https://example.com/x"}},
            "is not on this machine",
        ),
        ({"deviceId": "a/b"}, "Invalid id 'a/b'"),
        ({"initialTwin": {"tags": {"a.b": 1}}}, "Invalid initialTwin"),
        ({"capabilities": {"iotEdge": "yes"}}, "iotEdge is not a boolean"),
        ({"registrationId": "another"}, "registrationId in the body and the id in the URL differ"),
    ],
)
def test_an_invalid_enrollment_is_refused(owner: Owner, members: dict[str, Any], text: str) -> None:
    name = new_id()
    body = {"registrationId": name, "attestation": SYMMETRIC, **members}
    assert text in owner.refuse("PUT", f"/enrollments/{name}", 400004, body)["message"]
    owner.refuse("GET", f"/enrollments/{name}", 404201)


@pytest.mark.parametrize("name", ["a b", "ends.", "x" * 129, "ümlaut", "a+b", "a%2Fb"])
def test_an_invalid_id_is_refused(owner: Owner, name: str) -> None:
    body = {"registrationId": name.replace("%2F", "/"), "attestation": SYMMETRIC}
    owner.refuse("PUT", f"/enrollments/{name}", 400004, body)


@pytest.mark.parametrize("host", ["a" * 254, "[" + 46 * ":" + "]", "::1:8443/", ":"])
def test_an_invalid_host_name_is_refused(owner: Owner, host: str) -> None:
    document = {"registrationId": "x", "attestation": SYMMETRIC, "iotHubs": [host]}
    owner.refuse("PUT", "/enrollments/x", 400004, document)


def test_a_group_has_no_tpm_and_no_client_certificates(owner: Owner) -> None:
    for attestation in (
        {"type": "tpm", "tpm": {"endorsementKey": KEY}},
        client_certificates(primary=pem(LEAF)),
    ):
        body = {"enrollmentGroupId": "g", "attestation": attestation}
        owner.refuse("PUT", "/enrollmentGroups/g", 400004, body)


def test_an_initial_twin_of_an_sdk_has_metadata(owner: Owner) -> None:
    twin = {
        "tags": {"$version": 1, "site": "x"},
        "properties": {"desired": {"$metadata": {}, "rate": 1}},
    }
    created = owner.enroll(new_id(), initialTwin=twin)
    assert created["initialTwin"] == {
        "tags": {"site": "x"},
        "properties": {"desired": {"rate": 1}},
    }


# --- bulk


def test_a_bulk_call_creates_updates_and_deletes(owner: Owner) -> None:
    names = [new_id() for _ in range(3)]
    items = [{"registrationId": name, "attestation": SYMMETRIC} for name in names]
    done = {"isSuccessful": True, "errors": []}
    assert owner.call("POST", "/enrollments", {"mode": "create", "enrollments": items}) == done
    again = owner.call("POST", "/enrollments", {"mode": "create", "enrollments": items[:1]})
    assert again["isSuccessful"] is False
    (error,) = again["errors"]
    assert (error["registrationId"], error["errorCode"]) == (names[0], 409201)
    assert error["errorStatus"]
    items = [{**item, "deviceId": "changed"} for item in items]
    assert owner.call("POST", "/enrollments", {"mode": "update", "enrollments": items}) == done
    read = owner.call("GET", f"/enrollments/{names[0]}")
    assert read["deviceId"] == "changed"
    items = [{**items[0], "etag": read["etag"]}, {**items[1], "etag": '"stale"'}]
    result = owner.call("POST", "/enrollments", {"mode": "updateIfMatchETag", "enrollments": items})
    assert [error["errorCode"] for error in result["errors"]] == [412201]
    items = [{"registrationId": name} for name in names]
    assert owner.call("POST", "/enrollments", {"mode": "delete", "enrollments": items}) == done
    for name in names:
        owner.refuse("GET", f"/enrollments/{name}", 404201)


def test_an_invalid_bulk_call_is_refused(owner: Owner) -> None:
    owner.refuse("POST", "/enrollments", 400004, {"mode": "replace", "enrollments": [{}]})
    owner.refuse("POST", "/enrollments", 400004, {"mode": "create", "enrollments": []})
    owner.refuse("POST", "/enrollments", 400004, {"mode": "create", "enrollments": [{}] * 11})
    owner.refuse("POST", "/enrollments", 400012, [])


def test_a_bulk_call_with_an_item_of_a_wrong_form_creates_nothing(owner: Owner) -> None:
    name = new_id()
    good = {"registrationId": name, "attestation": SYMMETRIC}
    answer = owner.request(
        "POST", "/enrollments", json={"mode": "create", "enrollments": [good, 7]}
    )
    assert answer.status_code == 400
    owner.refuse("GET", f"/enrollments/{name}", 404201)


# --- queries


def ask(owner: Owner, path: str, text: str, **headers: str) -> requests.Response:
    return owner.request("POST", path, json={"query": text}, headers=headers or None)


def test_a_query_has_pages(owner: Owner) -> None:
    names = [new_id("page") for _ in range(5)]
    for name in names:
        owner.enroll(name, deviceId="of-the-query")
    text = "SELECT * FROM enrollments WHERE deviceId = 'of-the-query'"
    found, sizes, more = [], [], {"x-ms-max-item-count": "2"}
    while True:
        answer = ask(owner, "/enrollments/query", text, **more)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-ms-item-type"] == "Enrollment"
        found += [each["registrationId"] for each in answer.json()]
        sizes.append(len(answer.json()))
        if (token := answer.headers.get("x-ms-continuation")) is None:
            break
        more["x-ms-continuation"] = token
    assert (found, sizes) == (names, [2, 2, 1])


def test_the_queries_of_az_are_understood(owner: Owner) -> None:
    """As of azure-iot 0.25 with az 2.66; registrations have no body in the REST API."""
    name, group = new_id(), new_id("group")
    owner.enroll(name)
    owner.enroll_group(group)
    query = f'SELECT * FROM enrollments WHERE registrationId = "{name}"'
    found = ask(owner, "/enrollments/query", repr({"additional_properties": {}, "query": query}))
    assert [each["registrationId"] for each in found.json()] == [name]
    assert owner.call("POST", f"/registrations/{group}/query") == []
    owner.refuse("POST", "/enrollments/query", 400012)
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def test_a_query_shows_no_keys_and_has_100_rows_at_most(owner: Owner) -> None:
    names = [new_id("many") for _ in range(101)]
    for start in range(0, len(names), 10):
        items = [{"registrationId": name, "attestation": SYMMETRIC} for name in names[start:][:10]]
        owner.call("POST", "/enrollments", {"mode": "create", "enrollments": items})
    answer = ask(owner, "/enrollments/query", "SELECT *", **{"x-ms-max-item-count": "500"})
    assert len(answer.json()) == 100
    assert OTHER_KEY not in answer.text
    assert "x-ms-continuation" in answer.headers


def test_groups_are_queried(owner: Owner) -> None:
    name = new_id("group")
    owner.enroll_group(name)
    text = f"select * from enrollmentGroups where enrollmentGroupId='{name}'"
    answer = ask(owner, "/enrollmentGroups/query", text)
    assert [each["enrollmentGroupId"] for each in answer.json()] == [name]
    assert answer.headers["x-ms-item-type"] == "EnrollmentGroup"
    owner.call("DELETE", f"/enrollmentGroups/{name}", status=204)


@pytest.mark.parametrize(
    "text", ["", "SELECT deviceId FROM enrollments", "DELETE", "SELECT * WHERE"]
)
def test_an_invalid_query_is_refused(owner: Owner, text: str) -> None:
    owner.refuse("POST", "/enrollments/query", 400004, {"query": text})


def test_white_space_in_a_query_takes_no_time(owner: Owner) -> None:
    space = 100_000 * " "  # a minute, if each blank were the start of an end
    query = {"query": f"{space}SELECT * WHERE registrationId = 'x'{space}"}
    assert owner.call("POST", "/enrollments/query", query) == []
    owner.refuse("POST", "/enrollments/query", 412001, {"query": f"SELECT * WHERE a{space}b"})


def test_an_invalid_page_is_refused(owner: Owner) -> None:
    body = {"query": "SELECT *"}
    owner.refuse("POST", "/enrollments/query", 400004, body, x_ms_max_item_count="0")
    owner.refuse("POST", "/enrollments/query", 400004, body, x_ms_continuation="bogus")


# --- registrations


def test_registrations_are_read_queried_and_deleted(owner: Owner, emulator: Emulator) -> None:
    group, name = new_id("group"), new_id()
    owner.enroll_group(group)
    state = Registrant(emulator, name, derived(KEY, name)).register()["registrationState"]
    record = owner.call("GET", f"/registrations/{name}")
    assert record == state
    answer = ask(owner, f"/registrations/{group}/query", "SELECT *")
    assert (answer.json(), answer.headers["x-ms-item-type"]) == ([record], "DeviceRegistration")
    owner.refuse("DELETE", f"/registrations/{name}", 412201, If_Match="stale")
    owner.call("DELETE", f"/registrations/{name}", status=204, If_Match=record["etag"])
    owner.refuse("GET", f"/registrations/{name}", 404203)
    owner.refuse("DELETE", f"/registrations/{name}", 404203)
    assert ask(owner, f"/registrations/{group}/query", "SELECT *").json() == []
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)
    owner.refuse("POST", f"/registrations/{group}/query", 404202, {"query": "SELECT *"})


def test_a_registration_ends_with_its_enrollment(owner: Owner, emulator: Emulator) -> None:
    name = new_id()
    owner.enroll(name)
    state = Registrant(emulator, name).register()["registrationState"]
    assert owner.call("GET", f"/enrollments/{name}")["registrationState"] == state
    owner.call("DELETE", f"/enrollments/{name}", status=204)
    owner.refuse("GET", f"/registrations/{name}", 404203)


# --- limits


def test_an_enrollment_that_no_page_has_room_for_is_refused(owner: Owner) -> None:
    name = new_id()
    large = {"registrationId": name, "attestation": SYMMETRIC}
    large["optionalDeviceInformation"] = {"note": "x" * 1024 * 1024}
    owner.refuse("PUT", f"/enrollments/{name}", 413001, large)
    body = owner.call("POST", "/enrollments", {"mode": "create", "enrollments": [large]})
    assert [each["errorCode"] for each in body["errors"]] == [413001]


def test_the_number_of_enrollments_is_limited(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emulator.dps.limits.ENROLLMENTS", 2)
    for _ in range(2):  # also those of before a restart
        with second_hub(emulator, data_dir=tmp_path) as hub, Owner(hub) as other:
            if not other.call("POST", "/enrollments/query", {"query": "SELECT *"}):
                other.enroll("one")
                other.enroll("two")
                other.change("two", deviceId="more")
            third = {"registrationId": "three", "attestation": SYMMETRIC}
            other.refuse("PUT", "/enrollments/three", 413002, third)
    with second_hub(emulator, data_dir=tmp_path) as hub, Owner(hub) as other:
        other.call("DELETE", "/enrollments/two", status=204)
        other.enroll("three")


# --- access


def test_only_the_owner_may_call(owner: Owner, emulator: Emulator) -> None:
    host = emulator.https_host
    policy = "provisioningserviceowner"
    key = fields_of(owner.service_connection_string)["SharedAccessKey"]

    def status(token: str | None) -> int:
        answer = requests.get(
            f"https://{host}/enrollments/x",
            params={"api-version": API_VERSION},
            headers={"Authorization": token} if token else {},
            verify=str(emulator.ca_file),
            timeout=60,
        )
        if answer.status_code == 401:
            body = answer.json()
            assert (body["errorCode"], body["message"]) == (401000, "Unauthorized")
            assert answer.headers["x-ms-error-code"] == "401000"
        return answer.status_code

    assert status(sas_token(host, key, policy=policy)) == 404
    for token in (
        None,
        "SharedAccessSignature nonsense",
        f"Bearer {jwt(sub='x')}",
        sas_token(host, OTHER_KEY, policy=policy),
        sas_token(host, key, policy="iothubowner"),
        sas_token(host, key),
        sas_token(host, key, policy=policy, lifetime=-1),
        sas_token("another.example", key, policy=policy),
    ):
        assert status(token) == 401, token


def test_the_policy_opens_no_route_of_the_hub(owner: Owner) -> None:
    answer = owner.request("GET", "/devices")
    assert answer.status_code == 401
    assert answer.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"


def test_an_api_version_is_needed(owner: Owner) -> None:
    answer = owner.request("GET", "/enrollments/x", params={})
    assert (answer.status_code, answer.json()["errorCode"]) == (400, 400001)


def test_an_unknown_path_and_method_are_refused(owner: Owner) -> None:
    owner.refuse("GET", "/enrollments/a/b/c", 404000)
    owner.refuse("PATCH", "/enrollments/a", 405000)


def test_a_body_that_is_no_json_is_refused(owner: Owner) -> None:
    answer = owner.request("PUT", "/enrollments/x", data=b"{", params={"api-version": "2021-10-01"})
    assert (answer.status_code, answer.json()["errorCode"]) == (400, 400012)
