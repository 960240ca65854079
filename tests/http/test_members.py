"""The names of members in the documents of requests: letter case, and unknown members."""

import json
from typing import Any

import pytest

from tests.http import support
from tests.http.support import MethodDevice
from tests.support import Device, Service


def pascal(value: Any) -> Any:
    """Return a document with names in PascalCase."""
    if not isinstance(value, dict):
        return value
    return {name[:1].upper() + name[1:]: pascal(each) for name, each in value.items()}


def upper(value: Any) -> Any:
    """Return a document with names in capitals."""
    if not isinstance(value, dict):
        return value
    return {name.upper(): upper(each) for name, each in value.items()}


SPELLINGS = pytest.mark.parametrize("spell", [lambda value: value, pascal, upper])
KEY = "dGhpcyBsb2NhbCBJb1QgSHViIGtleSBpcyBwdWJsaWM="


# --- identities


@SPELLINGS
def test_an_identity(service: Service, spell: Any) -> None:
    device_id = support.new_id()
    keys = {"primaryKey": KEY, "secondaryKey": KEY}
    members = {
        "deviceId": device_id,
        "status": "disabled",
        "statusReason": "broken",
        "authentication": {"type": "sas", "symmetricKey": keys},
        "capabilities": {"iotEdge": True},
        "anything": 1,
    }
    response = service.request("PUT", f"/devices/{device_id}", json=spell(members))
    assert response.status_code == 200, response.text
    identity = response.json()
    for name in ("deviceId", "status", "statusReason", "capabilities"):
        assert identity[name] == members[name]
    assert identity["authentication"]["symmetricKey"] == keys


@SPELLINGS
def test_a_module_with_thumbprints(service: Service, device: Device, spell: Any) -> None:
    prints = {"primaryThumbprint": "A" * 40, "secondaryThumbprint": "B" * 40}
    body = {"deviceId": device.id, "moduleId": "m", "managedBy": "me"}
    body = {**body, "authentication": {"type": "selfSigned", "x509Thumbprint": prints}}
    path = f"/devices/{device.id}/modules/m"
    response = service.request("PUT", path, json=spell(body))
    assert response.status_code == 200, response.text
    assert response.json()["managedBy"] == "me"
    assert response.json()["authentication"]["x509Thumbprint"] == prints


@SPELLINGS
def test_an_item_of_a_bulk_call(service: Service, spell: Any) -> None:
    device_id = support.new_id()
    item = spell({"id": device_id, "importMode": "create", "status": "disabled", "unknown": 1})
    item |= {"TAGS": {"Colour": "red"}, "Properties": {"DESIRED": {"Fan": {"On": True}}}}
    response = service.request("POST", "/devices", json=[item])
    assert response.status_code == 200, response.text
    twin = support.read(service, f"/twins/{device_id}")
    assert (twin["status"], twin["tags"]) == ("disabled", {"Colour": "red"})
    assert support.desired(service, device_id) == {"Fan": {"On": True}}


def test_an_identity_as_it_was_read_can_be_written(service: Service, device: Device) -> None:
    identity = support.read(service, f"/devices/{device.id}")
    path = f"/devices/{device.id}"
    response = service.request("PUT", path, json=identity, headers=support.ANY)
    assert response.status_code == 200, response.text
    assert response.json()["authentication"] == identity["authentication"]


# --- twins


@pytest.mark.parametrize("verb", ["PATCH", "PUT"])
@SPELLINGS
def test_a_twin_and_the_letter_case_of_its_own_keys(
    service: Service, device: Device, spell: Any, verb: str
) -> None:
    name, properties, desired = spell({"tags": 0, "properties": 0, "desired": 0})
    body = {name: {"Floor": 1, "floor": 2}, properties: {desired: {"Fan": 1, "fan": 2}}}
    response = service.request(verb, f"/twins/{device.id}", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["tags"] == {"Floor": 1, "floor": 2}
    assert support.desired(service, device.id) == {"Fan": 1, "fan": 2}


@pytest.mark.parametrize("verb", ["PATCH", "PUT"])
@pytest.mark.parametrize("part", ["device", "module", "edge"])
def test_a_twin_as_it_was_read_can_be_written(service: Service, verb: str, part: str) -> None:
    device_id = support.new_id()
    support.put_device(service, device_id, capabilities={"iotEdge": part == "edge"})
    path = f"/twins/{device_id}"
    if part == "module":
        body = {"deviceId": device_id, "moduleId": "m"}
        service.request("PUT", f"/devices/{device_id}/modules/m", json=body)
        path += "/modules/m"
    response = service.request("PATCH", path, json={"tags": {"a": 1}})
    twin = response.json()
    (row,) = service.request(
        "POST",
        "/devices/query",
        json={
            "query": f"SELECT * FROM devices{'.modules' if part == 'module' else ''} "
            f"WHERE deviceId = '{device_id}' AND is_defined(tags.a)"
        },
    ).json()
    # The SDKs for Python and Node, and the Azure CLI, send a whole twin.
    for document in (twin, row, {**twin, "properties": {"desired": {}}, "tags": {}}):
        response = service.request(verb, path, json=document)
        assert response.status_code == 200, response.text


UNKNOWN: list[dict[str, Any]] = [
    {"desiredProperties": {}},
    {"desired": {"a": 1}},
    {"reported": {}},
    {"tag": {"a": 1}},
    {"tags ": {}},
    {"": {}},
    {"tags": {"a": 1}, "other": None},
    {"properties": {"a": 1}},
    {"properties": {"tags": {}}},
    {"properties": {"desired": {"a": 1}, "$metadata": {}}},
    {"metadata": {}},
    {"generationId": "1"},
]


@pytest.mark.parametrize("verb", ["PATCH", "PUT"])
@pytest.mark.parametrize("body", UNKNOWN, ids=json.dumps)
def test_a_member_that_no_twin_has_is_refused(
    service: Service, device: Device, verb: str, body: dict[str, Any]
) -> None:
    before = support.read(service, f"/twins/{device.id}")
    response = service.request(verb, f"/twins/{device.id}", json=body)
    text = support.check_error(response, 400, "GenericBadRequest")
    assert text.startswith("BadRequest")
    assert support.read(service, f"/twins/{device.id}") == before


@pytest.mark.parametrize("body", UNKNOWN, ids=json.dumps)
def test_a_job_refuses_what_a_twin_refuses(service: Service, body: dict[str, Any]) -> None:
    job_id = support.new_id("job")
    job = {"type": "scheduleUpdateTwin", "queryCondition": "*", "updateTwin": {"etag": "*"} | body}
    response = service.request("PUT", f"/jobs/v2/{job_id}", json=job)
    support.check_error(response, 400, "GenericBadRequest")
    assert support.read(service, f"/jobs/v2/{job_id}")["status"] == "unknown"


@pytest.mark.parametrize(
    "properties", [{"other": {}}, {"desired": {}, "metadata": {}}, {"Tags": {}}]
)
def test_an_item_of_a_bulk_call_refuses_what_a_twin_refuses(
    service: Service, properties: dict[str, Any]
) -> None:
    device_id = support.new_id()
    item = {"id": device_id, "importMode": "create", "properties": properties}
    response = service.request("POST", "/devices", json=[item])
    assert [each["errorCode"] for each in response.json()["errors"]] == [400000]
    support.check_error(service.request("GET", f"/devices/{device_id}"), 404, "DeviceNotFound")


def test_the_steps_of_a_digital_twin(service: Service, device: Device) -> None:
    steps = [{"Op": "add", "PATH": "/Speed", "Value": {"Up": 1}, "from": "/x", "note": 1}]
    response = service.request("PATCH", f"/digitaltwins/{device.id}", json=steps)
    assert response.status_code == 202, response.text
    assert support.desired(service, device.id) == {"Speed": {"Up": 1}}


# --- methods, queries, jobs, configurations


@SPELLINGS
def test_a_method_and_the_letter_case_of_its_payload(
    service: Service, echoing: MethodDevice, spell: Any
) -> None:
    body = spell({"methodName": "Reboot", "responseTimeoutInSeconds": 20, "unknown": {}})
    (payload,) = spell({"payload": 0})
    body[payload] = {"Delay": 1, "delay": 2}
    response = service.request("POST", "/twins/echoing/methods", json=body)
    assert response.json() == {"status": 200, "payload": {"Delay": 1, "delay": 2}}
    assert echoing.next_call().name == "Reboot"


@SPELLINGS
def test_the_time_outs_of_a_method(service: Service, device: Device, spell: Any) -> None:
    body = {"methodName": "m", "responseTimeoutInSeconds": 4}
    response = service.request("POST", f"/twins/{device.id}/methods", json=spell(body))
    support.check_nested_error(response, 400004, "ArgumentInvalid")


@SPELLINGS
def test_a_query(service: Service, device: Device, spell: Any) -> None:
    body = {"query": f"SELECT deviceId FROM devices WHERE deviceId = '{device.id}'", "other": 1}
    response = service.request("POST", "/devices/query", json=spell(body))
    assert response.json() == [{"deviceId": device.id}]


@SPELLINGS
def test_a_job(service: Service, device: Device, spell: Any) -> None:
    job_id = support.new_id("Job")
    body = {
        "jobId": job_id,
        "type": "scheduleUpdateTwin",
        "queryCondition": f"deviceId = '{device.id}'",
        "maxExecutionTimeInSeconds": 77,
        "unknown": 1,
    }
    body = spell(body) | {"UpdateTwin": {"ETag": "*", "Tags": {"Floor": 1}}}
    response = service.request("PUT", f"/jobs/v2/{job_id}", json=body)
    assert response.status_code == 200, response.text
    assert support.read(service, f"/jobs/v2/{job_id}")["maxExecutionTimeInSeconds"] == 77
    for _ in range(100):
        if (tags := support.read(service, f"/twins/{device.id}").get("tags")) is not None:
            break
    assert tags == {"Floor": 1}


@SPELLINGS
def test_a_configuration(service: Service, spell: Any) -> None:
    configuration_id = support.new_id("c")
    query = "SELECT deviceId FROM devices WHERE tags.A = 1"
    body = {
        "id": configuration_id,
        "targetCondition": "tags.Floor = 1",
        "priority": 7,
        "schemaVersion": "1.0",
        "unknown": 1,
    }
    body = spell(body)
    (content, kind), (metrics, queries) = (
        (next(iter(spell({outer: 0}))), next(iter(spell({inner: 0}))))
        for outer, inner in (("content", "deviceContent"), ("metrics", "queries"))
    )
    body[content] = {kind: {"properties.desired.Fan": {"On": 1}}}
    body[metrics] = {queries: {"Count": query}}
    path = f"/configurations/{configuration_id}"
    response = service.request("PUT", path, json=body)
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["content"] == {"deviceContent": {"properties.desired.Fan": {"On": 1}}}
    assert document["metrics"]["queries"] == {"Count": query}
    assert (document["priority"], document["targetCondition"]) == (7, "tags.Floor = 1")
    again = service.request("PUT", path, json=document, headers=support.ANY)
    assert again.status_code == 200, again.text
    assert service.request("DELETE", path).status_code == 204


@SPELLINGS
def test_a_check_of_queries(service: Service, spell: Any) -> None:
    body = {"targetCondition": "tags.a = ", "unknown": 1}
    response = service.request("POST", "/configurations/testQueries", json=spell(body))
    assert response.json()["targetConditionError"]


@SPELLINGS
def test_an_import_job(service: Service, spell: Any) -> None:
    body = {"type": "export", "outputBlobContainerUri": "x", "outputBlobName": "..", "unknown": 1}
    response = service.request("POST", "/jobs/create", json=spell(body))
    text = support.check_error(response, 400, "ArgumentInvalid")
    assert text == "outputBlobName is not a valid name of a blob"


# --- the documents of real clients, as they send them


def test_the_documents_of_the_azure_cli(service: Service, device: Device) -> None:
    edge_id, job_id = support.new_id("edge"), support.new_id("cliJob")
    edge = {
        "deviceId": edge_id,
        "authentication": {"type": "sas", "symmetricKey": {}},
        "capabilities": {"iotEdge": True},
        "status": "enabled",
        "parentScopes": [],
    }
    method = {"methodName": "m", "payload": {}, "responseTimeoutInSeconds": 30}
    job = {
        "jobId": job_id,
        "type": "scheduleDeviceMethod",
        "queryCondition": "deviceId = 'offline'",
        "maxExecutionTimeInSeconds": 3600,
        "cloudToDeviceMethod": {**method, "connectTimeoutInSeconds": 30},
    }
    answer = service.request("PUT", f"/devices/{edge_id}", json=edge)
    assert answer.status_code == 200, answer.text
    twin = support.read(service, f"/twins/{device.id}")
    for verb, path, body in (
        # az iot hub device-identity update, device-twin update and replace, job create
        ("PUT", f"/devices/{edge_id}", answer.json()),
        ("PUT", f"/devices/{device.id}", support.read(service, f"/devices/{device.id}")),
        ("PUT", f"/jobs/v2/{job_id}", job),
        ("PATCH", f"/twins/{device.id}", {"tags": {"a": 1}, "properties": {"desired": {"b": 1}}}),
        ("PATCH", f"/twins/{device.id}", {**twin, "tags": {"a": 1}}),
        ("PUT", f"/twins/{device.id}", twin),
    ):
        response = service.request(verb, path, json=body, headers={"If-Match": '"*"'})
        assert response.status_code == 200, (verb, path, response.text)


def test_the_documents_of_nodes_sdk(service: Service, device: Device) -> None:
    item = {"id": device.id, "importMode": "UpdateIfMatchETag", "status": "disabled"}
    twin = {"deviceId": device.id, "etag": None, "tags": {"a": 1}, "properties": {"desired": {}}}
    job = {
        "jobId": support.new_id("nodeJob"),
        "type": "scheduleUpdateTwin",
        "updateTwin": {"etag": "*", "properties": {"desired": {"b": 1}}},
        "queryCondition": f"deviceId IN ['{device.id}']",
        "startTime": None,
        "maxExecutionTimeInSeconds": 3600,
    }
    for verb, path, body in (
        ("POST", "/devices", [item]),
        ("PATCH", f"/twins/{device.id}", twin),
        ("PUT", f"/jobs/v2/{job['jobId']}", job),
    ):
        response = service.request(verb, path, json=body)
        assert response.status_code == 200, (verb, path, response.text)
