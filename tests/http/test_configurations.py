"""Configurations over plain HTTPS: the routes, their documents and their errors."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.http.support import check_error, put_device
from tests.support import Device, Service

MEMBERS = [
    "id",
    "schemaVersion",
    "labels",
    "content",
    "targetCondition",
    "createdTimeUtc",
    "lastUpdatedTimeUtc",
    "priority",
    "systemMetrics",
    "metrics",
    "etag",
]
CONTENT = {"deviceContent": {"properties.desired.chiller": {"temperature": 66}}}
MANIFEST = {
    "modulesContent": {
        "$edgeAgent": {"properties.desired": {"modules": {"sensor": {"type": "docker"}}}},
        "sensor": {"properties.desired": {"interval": 5}},
    }
}
PutConfiguration = Callable[..., requests.Response]


@pytest.fixture
def name(service: Service) -> Iterator[str]:
    """The id of a configuration that isn't there; if the test creates it, it is deleted."""
    name = f"c-{uuid.uuid4().hex[:12]}"
    yield name
    service.request("DELETE", f"/configurations/{name}")


@pytest.fixture
def put(service: Service, name: str) -> PutConfiguration:
    """Puts the configuration `name`, which targets no device."""

    def put(if_match: str | None = None, **members: Any) -> requests.Response:
        headers = {} if if_match is None else {"If-Match": if_match}
        body = {"id": name, "content": CONTENT, **members}
        return service.request("PUT", f"/configurations/{name}", json=body, headers=headers)

    return put


@pytest.fixture
def edge_device(service: Service) -> Iterator[str]:
    """The id of an IoT Edge device."""
    device_id = f"edge-{uuid.uuid4().hex[:12]}"
    put_device(service, device_id, capabilities={"iotEdge": True})
    yield device_id
    service.request("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"})


def read(service: Service, name: str) -> dict[str, Any]:
    response = service.request("GET", f"/configurations/{name}")
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def desired(service: Service, path: str) -> dict[str, Any]:
    section = service.request("GET", f"/twins/{path}").json()["properties"]["desired"]
    return {name: value for name, value in section.items() if not name.startswith("$")}


def test_a_new_configuration(service: Service, put: PutConfiguration, name: str) -> None:
    response = put()
    assert response.status_code == 200
    assert response.headers["ETag"] == '"MQ=="'
    document = response.json()
    assert list(document) == MEMBERS
    created = document["createdTimeUtc"]
    assert created.endswith("Z")
    assert document == {
        "id": name,
        "schemaVersion": None,
        "labels": None,
        "content": CONTENT,
        "targetCondition": "",
        "createdTimeUtc": created,
        "lastUpdatedTimeUtc": created,
        "priority": 0,
        "systemMetrics": {
            "results": {},
            "queries": {
                "targetedCount": "",
                "appliedCount": "select deviceId from devices "
                f"where configurations.[[{name}]].status = 'Applied'",
            },
        },
        "metrics": {"results": {}, "queries": {}},
        "etag": "MQ==",
    }
    assert list(document["systemMetrics"]) == list(document["metrics"]) == ["results", "queries"]

    response = service.request("GET", f"/configurations/{name}")
    assert response.headers["ETag"] == '"MQ=="'
    assert list(response.json()) == MEMBERS
    counted = {"targetedCount": 0, "appliedCount": 0}
    assert response.json()["systemMetrics"]["results"] == counted


def test_what_a_service_may_set(put: PutConfiguration, service: Service, name: str) -> None:
    members = {
        "schemaVersion": "2.0",
        "labels": {"HostPlatform": "Linux"},
        "targetCondition": "tags.nobody = 'has this'",
        "priority": 2_147_483_647,
    }
    queries = {f"m{number}": "select * from devices.modules" for number in range(4)}
    # The last one is no query by the grammar, and yet a real hub takes it.
    metrics = {"queries": {**queries, "bare": "select *"}, "results": {"m0": 77}}
    readonly = {"etag": "*", "createdTimeUtc": "2020-01-01T00:00:00Z", "systemMetrics": {"x": 1}}
    document = put(**members, **readonly, metrics=metrics).json()
    assert {key: document[key] for key in members} == members
    assert document["metrics"] == {"results": {}, "queries": metrics["queries"]}
    assert document["etag"] == "MQ=="
    assert not document["createdTimeUtc"].startswith("2020")
    assert list(read(service, name)["metrics"]["results"]) == list(metrics["queries"])
    # An SDK sends null, or an empty object, where it has nothing.
    empty = {"labels": None, "metrics": {}, "targetCondition": None, "priority": None}
    document = put("*", **empty, schemaVersion=None).json()
    assert (document["labels"], document["priority"], document["targetCondition"]) == (None, 0, "")
    assert document["metrics"]["queries"] == {}
    assert put("*", labels={}).json()["labels"] == {}


@pytest.mark.parametrize("if_match", [None, "", '""', "MQ==", "Mg==", 'W/"MQ=="'])
def test_what_is_there_is_not_created(put: PutConfiguration, if_match: str | None) -> None:
    assert put(if_match).status_code == 200
    check_error(put(if_match), 409, "ConfigurationAlreadyExists")


@pytest.mark.parametrize("if_match", ["*", '"*"', '"MQ=="'])
def test_what_is_there_is_updated(put: PutConfiguration, if_match: str) -> None:
    put()
    response = put(if_match, priority=5, content={"deviceContent": {"properties.desired.y": 1}})
    assert response.status_code == 200, response.text
    assert response.headers["ETag"] == '"Mg=="'
    assert (response.json()["etag"], response.json()["priority"]) == ("Mg==", 5)
    assert response.json()["content"] == CONTENT  # other content is ignored
    check_error(put('"MQ=="'), 412, "PreconditionFailed")
    check_error(put('"Mg=="', content=None), 400, "InvalidConfigurationContent")


@pytest.mark.parametrize("if_match", ["*", '"*"', '"MQ=="'])
def test_what_is_not_there_is_not_updated(
    service: Service, put: PutConfiguration, name: str, if_match: str
) -> None:
    assert check_error(put(if_match), 404, "ConfigurationNotFound") == name
    for verb in ("GET", "DELETE"):
        response = service.request(verb, f"/configurations/{name}", headers={"If-Match": if_match})
        assert check_error(response, 404, "ConfigurationNotFound") == name


@pytest.mark.parametrize("if_match", [None, "*", '"*"', '"MQ=="', "MQ=="])
def test_a_configuration_is_deleted(
    service: Service, put: PutConfiguration, name: str, if_match: str | None
) -> None:
    put()
    stale = service.request("DELETE", f"/configurations/{name}", headers={"If-Match": '"Mg=="'})
    check_error(stale, 412, "PreconditionFailed")
    response = service.request("DELETE", f"/configurations/{name}", headers={"If-Match": if_match})
    assert (response.status_code, response.content) == (204, b"")
    check_error(service.request("GET", f"/configurations/{name}"), 404, "ConfigurationNotFound")


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"content": None}, "InvalidConfigurationContent"),
        ({"content": {}}, "InvalidConfigurationContent"),
        ({"content": {"deviceContent": {"tags.x": 1}}}, "InvalidConfigurationContent"),
        ({"content": {**CONTENT, **MANIFEST}}, "InvalidConfigurationContent"),
        ({"content": {"modulesContent": {"$edgeHub": {}}}}, "InvalidConfigurationContent"),
        ({"targetCondition": "tags."}, "InvalidConfigurationTargetCondition"),
        ({"targetCondition": "properties.desired.x=1"}, "InvalidConfigurationTargetCondition"),
        ({"targetCondition": "status = 'enabled'"}, "InvalidConfigurationTargetCondition"),
        ({"targetCondition": "deviceId IN ['a']"}, "InvalidConfigurationTargetCondition"),
        ({"metrics": {"queries": {"m": "SELEC"}}}, "InvalidConfigurationCustomMetricsQuery"),
        (
            {"metrics": {"queries": {f"m{n}": "select *" for n in range(6)}}},
            "InvalidConfigurationCustomMetricsQuery",
        ),
        ({"id": "other"}, "ArgumentInvalid"),
        ({"id": None}, "ArgumentInvalid"),
        ({"priority": -1}, "ArgumentInvalid"),
        ({"priority": 2_147_483_648}, "ArgumentInvalid"),
        ({"priority": 1.5}, "ArgumentInvalid"),
        ({"priority": "1"}, "ArgumentInvalid"),
        ({"priority": True}, "ArgumentInvalid"),
        ({"targetCondition": 1}, "ArgumentInvalid"),
        ({"schemaVersion": 2.0}, "ArgumentInvalid"),
        ({"labels": ["x"]}, "ArgumentInvalid"),
        ({"labels": {"x": 1}}, "ArgumentInvalid"),
        ({"metrics": []}, "ArgumentInvalid"),
        ({"metrics": {"queries": ["select *"]}}, "ArgumentInvalid"),
        ({"metrics": {"queries": {"m": None}}}, "ArgumentInvalid"),
    ],
)
def test_a_body_that_is_none_is_refused(
    service: Service, put: PutConfiguration, name: str, members: dict[str, Any], code: str
) -> None:
    check_error(put(**members), 400, code)
    check_error(service.request("GET", f"/configurations/{name}"), 404, "ConfigurationNotFound")
    before = put().json()
    check_error(put("*", **members), 400, code)
    after = read(service, name)
    assert (after["etag"], after["lastUpdatedTimeUtc"]) == ("MQ==", before["lastUpdatedTimeUtc"])


@pytest.mark.parametrize("body", ["[]", "null", '"x"', "{", ""])
def test_a_body_that_is_no_object_is_refused(service: Service, name: str, body: str) -> None:
    for verb, path in [
        ("PUT", f"/configurations/{name}"),
        ("POST", "/configurations/testQueries"),
    ]:
        check_error(service.request(verb, path, data=body), 400, "DeserializationError")


@pytest.mark.parametrize("path", ["Upper", "a.b", "a%20b", "%C3%A4", "a:b", "x" * 129])
def test_an_id_that_is_none_is_refused(service: Service, path: str) -> None:
    body = {"id": requests.utils.unquote(path), "content": CONTENT}
    response = service.request("PUT", f"/configurations/{path}", json=body)
    check_error(response, 400, "ArgumentInvalid")


@pytest.mark.parametrize("path", ["az09-+_*!'", "50%25", "%2A", "x" * 128])
def test_an_id_may_be_escaped(service: Service, path: str) -> None:
    name = requests.utils.unquote(path)
    response = service.request(
        "PUT", f"/configurations/{path}", json={"id": name, "content": CONTENT}
    )
    assert response.status_code == 200, response.text
    assert read(service, path)["id"] == name
    assert service.request("DELETE", f"/configurations/{path}").status_code == 204


def test_all_are_listed(service: Service, put: PutConfiguration, name: str) -> None:
    put(content=MANIFEST)
    other = f"{name}-other"
    service.request("PUT", f"/configurations/{other}", json={"id": other, "content": CONTENT})
    for query in ({}, {"top": "1"}):  # which is ignored
        params = {"api-version": "2021-04-12", **query}
        response = service.request("GET", "/configurations", params=params)
        assert response.status_code == 200
        documents = {document["id"]: document for document in response.json()}
        assert list(documents) == [name, other]
        assert all(list(document) == MEMBERS for document in documents.values())
    metrics = documents[name]["systemMetrics"]
    assert list(metrics["queries"]) == list(metrics["results"])
    assert list(metrics["results"].values()) == [0, 0, 0, 0]
    service.request("DELETE", f"/configurations/{other}")


def test_a_configuration_is_applied_to_a_device(
    service: Service, put: PutConfiguration, name: str, device: Device
) -> None:
    queries = {
        "cold": "select deviceId from devices where properties.desired.chiller.temperature < 70"
    }
    put(targetCondition=f"deviceId = '{device.id}'", metrics={"queries": queries})
    assert desired(service, device.id) == {"chiller": {"temperature": 66}}
    document = read(service, name)
    assert document["systemMetrics"]["results"] == {"targetedCount": 1, "appliedCount": 1}
    assert document["metrics"]["results"] == {"cold": 1}
    for query in document["systemMetrics"]["queries"].values():
        found = service.request("POST", "/devices/query", json={"query": query})
        assert found.json() == [{"deviceId": device.id}]
    service.request("DELETE", f"/configurations/{name}")
    assert desired(service, device.id) == {"chiller": {"temperature": 66}}


def test_a_deployment_is_applied_to_an_edge_device(
    service: Service, put: PutConfiguration, name: str, edge_device: str
) -> None:
    put(content=MANIFEST, targetCondition=f"deviceId = '{edge_device}'")
    agent = {"modules": {"sensor": {"type": "docker"}}}
    assert desired(service, f"{edge_device}/modules/$edgeAgent") == agent
    assert desired(service, f"{edge_device}/modules/sensor") == {"interval": 5}
    results = read(service, name)["systemMetrics"]["results"]
    assert [results["targetedCount"], results["appliedCount"]] == [1, 1]


def check_queries(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    response = service.request("POST", "/configurations/testQueries", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert list(answer) == ["targetConditionError", "customMetricQueryErrors"]
    return answer


def test_queries_that_are_right(service: Service) -> None:
    right = {"targetConditionError": None, "customMetricQueryErrors": {}}
    queries = {"a": "select deviceId from devices where tags.x = 1", "b": "select *"}
    assert check_queries(service, {"targetCondition": "tags.x = 1"}) == right
    assert check_queries(service, {"targetCondition": "FROM devices.modules WHERE a=1"}) != right
    assert (
        check_queries(service, {"targetCondition": "FROM devices.modules WHERE tags.a=1"}) == right
    )
    assert check_queries(service, {"customMetricQueries": queries}) == right
    both = {"targetCondition": "deviceId = 'x'", "customMetricQueries": queries}
    assert check_queries(service, both) == right


def test_queries_that_are_wrong(service: Service) -> None:
    queries = {"good": "select * from devices", "bad": "SELEC nope"}
    answer = check_queries(
        service, {"targetCondition": "properties.desired.x = 1", "customMetricQueries": queries}
    )
    assert answer["targetConditionError"].endswith("It contains: properties.desired.x")
    assert list(answer["customMetricQueryErrors"]) == ["bad"]
    assert "SELEC" in answer["customMetricQueryErrors"]["bad"]
    # A real hub refuses here what it takes in a configuration.
    answer = check_queries(service, {"targetCondition": "*"})
    assert answer["targetConditionError"].endswith("It contains: *")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"targetCondition": None, "customMetricQueries": None},
        {"targetCondition": 1},
        {"customMetricQueries": []},
        {"customMetricQueries": {"m": 1}},
    ],
)
def test_no_queries_to_test(service: Service, body: dict[str, Any]) -> None:
    response = service.request("POST", "/configurations/testQueries", json=body)
    check_error(response, 400, "ArgumentInvalid")


def apply(service: Service, device_id: str, content: object) -> requests.Response:
    path = f"/devices/{device_id}/applyConfigurationContent"
    return service.request("POST", path, json=content)


def test_modules_are_given_to_one_device(service: Service, edge_device: str) -> None:
    response = apply(service, edge_device, MANIFEST)
    assert (response.status_code, response.content) == (204, b"")
    modules = service.request("GET", f"/devices/{edge_device}/modules").json()
    assert {module["moduleId"]: module["managedBy"] for module in modules} == dict.fromkeys(
        ("$edgeAgent", "$edgeHub", "sensor"), "iotEdge"
    )
    assert desired(service, f"{edge_device}/modules/sensor") == {"interval": 5}
    # What is no longer named is gone.
    assert apply(service, edge_device, {"modulesContent": {
        "$edgeAgent": {"properties.desired": {}}, "sensor": {"properties.desired.b": 1},
    }}).status_code == 204  # fmt: skip
    assert desired(service, f"{edge_device}/modules/$edgeAgent") == {}
    assert desired(service, f"{edge_device}/modules/sensor") == {"interval": 5, "b": 1}


def test_modules_are_given_to_edge_devices_only(
    service: Service, device: Device, edge_device: str
) -> None:
    text = check_error(apply(service, device.id, MANIFEST), 400, "ArgumentInvalid")
    assert text == "Not an Azure IoT Edge device"
    check_error(apply(service, "nobody", MANIFEST), 404, "DeviceNotFound")
    for content in (CONTENT, {}, {"modulesContent": {}}, []):
        response = apply(service, edge_device, content)
        check_error(response, 400, "InvalidConfigurationContent")
