"""Configurations over plain HTTPS: the routes, their documents and their errors."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from tests.http.support import ANY, EDGE, check_error, desired, new_id, put_device, read
from tests.support import Device, Service

MEMBERS = [
    *("id", "schemaVersion", "labels", "content", "targetCondition", "createdTimeUtc"),
    *("lastUpdatedTimeUtc", "priority", "systemMetrics", "metrics", "etag"),
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
    """The id of a configuration that does not exist; if the test creates it, it is deleted."""
    name = new_id("c")
    yield name
    service.request("DELETE", f"/configurations/{name}")


@pytest.fixture
def put(service: Service, name: str) -> PutConfiguration:
    """Puts the configuration `name`, which targets no device."""

    def put(if_match: str | None = None, **members: Any) -> requests.Response:
        body = {"id": name, "content": CONTENT, **members}
        headers = {"If-Match": if_match}
        return service.request("PUT", f"/configurations/{name}", json=body, headers=headers)

    return put


@pytest.fixture
def edge_device(service: Service) -> Iterator[str]:
    """The id of an IoT Edge device."""
    device_id = new_id("edge")
    put_device(service, device_id, **EDGE)
    yield device_id
    service.request("DELETE", f"/devices/{device_id}", headers=ANY)


def check_missing(service: Service, name: str) -> None:
    response = service.request("GET", f"/configurations/{name}")
    assert check_error(response, 404, "ConfigurationNotFound") == name


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


def test_the_members_that_a_service_may_set(
    put: PutConfiguration, service: Service, name: str
) -> None:
    members = {
        "schemaVersion": "2.0",
        "labels": {"HostPlatform": "Linux"},
        "targetCondition": "tags.unused = 'has this'",
        "priority": 2_147_483_647,
    }
    queries = {f"m{number}": "select * from devices.modules" for number in range(4)}
    # The grammar has no query like the last one, but a real hub accepts it.
    queries["bare"] = "select *"
    metrics = {"queries": queries, "results": {"m0": 77}}
    readonly = {"etag": "*", "createdTimeUtc": "2020-01-01T00:00:00Z", "systemMetrics": {"x": 1}}
    document = put(**members, **readonly, metrics=metrics).json()
    assert {key: document[key] for key in members} == members
    assert document["metrics"] == {"results": {}, "queries": queries}
    assert document["etag"] == "MQ=="
    assert not document["createdTimeUtc"].startswith("2020")
    results = read(service, f"/configurations/{name}")["metrics"]["results"]
    assert list(results) == list(queries)
    # An SDK sends null, or an empty object, for a member without a value.
    none = dict.fromkeys(("labels", "targetCondition", "priority", "schemaVersion"))
    document = put("*", **none, metrics={}).json()
    assert (document["labels"], document["priority"], document["targetCondition"]) == (None, 0, "")
    assert document["metrics"]["queries"] == {}
    assert put("*", labels={}).json()["labels"] == {}


@pytest.mark.parametrize("if_match", [None, '""', "MQ==", 'W/"MQ=="'])
def test_put_creates_without_a_quoted_etag(put: PutConfiguration, if_match: str | None) -> None:
    assert put(if_match).status_code == 200
    check_error(put(if_match), 409, "ConfigurationAlreadyExists")


@pytest.mark.parametrize("if_match", ["*", '"*"', '"MQ=="'])
def test_put_updates_with_a_quoted_etag(
    service: Service, put: PutConfiguration, name: str, if_match: str
) -> None:
    assert check_error(put(if_match), 404, "ConfigurationNotFound") == name
    put()
    response = put(if_match, priority=5, content={"deviceContent": {"properties.desired.y": 1}})
    assert response.status_code == 200, response.text
    assert response.headers["ETag"] == '"Mg=="'
    assert (response.json()["etag"], response.json()["priority"]) == ("Mg==", 5)
    assert response.json()["content"] == CONTENT  # other content is ignored
    check_error(put('"MQ=="'), 412, "PreconditionFailed")
    check_error(put('"Mg=="', content=None), 400, "InvalidConfigurationContent")


@pytest.mark.parametrize("if_match", [None, '"*"', "MQ=="])
def test_a_configuration_is_deleted(
    service: Service, put: PutConfiguration, name: str, if_match: str | None
) -> None:
    def delete(if_match: str | None) -> requests.Response:
        headers = {"If-Match": if_match}
        return service.request("DELETE", f"/configurations/{name}", headers=headers)

    put()
    check_error(delete('"Mg=="'), 412, "PreconditionFailed")
    response = delete(if_match)
    assert (response.status_code, response.content) == (204, b"")
    check_missing(service, name)
    assert check_error(delete(if_match), 404, "ConfigurationNotFound") == name


CONTENT_ERROR = "InvalidConfigurationContent"
CONDITION_ERROR = "InvalidConfigurationTargetCondition"
METRICS_ERROR = "InvalidConfigurationCustomMetricsQuery"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"content": None}, CONTENT_ERROR),
        ({"targetCondition": "properties.desired.x=1"}, CONDITION_ERROR),
        ({"metrics": {"queries": {"m": "SELEC"}}}, METRICS_ERROR),
        ({"metrics": {"queries": {f"m{n}": "select *" for n in range(6)}}}, METRICS_ERROR),
        *(({"id": value}, "ArgumentInvalid") for value in ("other", None)),
        *(
            ({"priority": value}, "ArgumentInvalid")
            for value in (-1, 2_147_483_648, 1.5, "1", True)
        ),
        ({"targetCondition": 1}, "ArgumentInvalid"),
        ({"schemaVersion": 2.0}, "ArgumentInvalid"),
        *(({"labels": value}, "ArgumentInvalid") for value in (["x"], {"x": 1})),
        ({"metrics": []}, "ArgumentInvalid"),
        *(
            ({"metrics": {"queries": value}}, "ArgumentInvalid")
            for value in (["select *"], {"m": None})
        ),
    ],
)
def test_an_invalid_member_is_refused(
    service: Service, put: PutConfiguration, name: str, members: dict[str, Any], code: str
) -> None:
    check_error(put(**members), 400, code)
    check_missing(service, name)
    before = put().json()
    check_error(put("*", **members), 400, code)
    after = read(service, f"/configurations/{name}")
    assert (after["etag"], after["lastUpdatedTimeUtc"]) == ("MQ==", before["lastUpdatedTimeUtc"])


def test_a_body_must_be_an_object(service: Service, name: str) -> None:
    for verb, path in (("PUT", name), ("POST", "testQueries")):
        response = service.request(verb, f"/configurations/{path}", data="[]")
        check_error(response, 400, "DeserializationError")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        *((path, True) for path in ("az09-+_*!'", "50%25", "%2A", "x" * 128)),
        *((path, False) for path in ("Upper", "a.b", "a%20b", "%C3%A4", "a:b", "x" * 129)),
    ],
)
def test_the_characters_of_an_id(service: Service, path: str, allowed: bool) -> None:
    name, url = unquote(path), f"/configurations/{path}"
    response = service.request("PUT", url, json={"id": name, "content": CONTENT})
    if not allowed:
        check_error(response, 400, "ArgumentInvalid")
        return
    assert response.status_code == 200, response.text
    assert read(service, url)["id"] == name
    assert service.request("DELETE", url).status_code == 204


def test_the_list_of_configurations(service: Service, put: PutConfiguration, name: str) -> None:
    put(content=MANIFEST)
    other = f"{name}-other"
    service.request("PUT", f"/configurations/{other}", json={"id": other, "content": CONTENT})
    for query in ({}, {"top": "1"}):  # `top` is ignored
        listed = read(service, "/configurations", **query)
        documents = {document["id"]: document for document in listed}
        assert list(documents) == [name, other]
        assert all(list(document) == MEMBERS for document in documents.values())
    metrics = documents[name]["systemMetrics"]
    assert list(metrics["queries"]) == list(metrics["results"])
    assert list(metrics["results"].values()) == [0, 0, 0, 0]
    service.request("DELETE", f"/configurations/{other}")


def test_a_configuration_is_applied_to_a_device(
    service: Service, put: PutConfiguration, name: str, device: Device
) -> None:
    cold = "select deviceId from devices where properties.desired.chiller.temperature < 70"
    put(targetCondition=f"deviceId = '{device.id}'", metrics={"queries": {"cold": cold}})
    assert desired(service, device.id) == {"chiller": {"temperature": 66}}
    document = read(service, f"/configurations/{name}")
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
    results = read(service, f"/configurations/{name}")["systemMetrics"]["results"]
    assert [results["targetedCount"], results["appliedCount"]] == [1, 1]


# --- tests of queries


def check_queries(service: Service, **body: Any) -> dict[str, Any]:
    response = service.request("POST", "/configurations/testQueries", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert list(answer) == ["targetConditionError", "customMetricQueryErrors"]
    return answer


def test_valid_queries_have_no_errors(service: Service) -> None:
    condition, modules = "deviceId = 'x'", "FROM devices.modules WHERE tags.a=1"
    queries = {"a": "select deviceId from devices where tags.x = 1", "b": "select *"}
    for body in (
        {"targetCondition": condition},
        {"targetCondition": modules},
        {"customMetricQueries": queries},
        {"targetCondition": condition, "customMetricQueries": queries},
    ):
        answer = check_queries(service, **body)
        assert [answer[name] for name in answer] == [None, {}]


def test_invalid_queries_have_errors(service: Service) -> None:
    queries = {"good": "select * from devices", "bad": "SELEC nope"}
    answer = check_queries(
        service, targetCondition="properties.desired.x = 1", customMetricQueries=queries
    )
    assert answer["targetConditionError"].endswith("It contains: properties.desired.x")
    assert list(answer["customMetricQueryErrors"]) == ["bad"]
    assert "SELEC" in answer["customMetricQueryErrors"]["bad"]
    # A real hub refuses this here, and accepts it in a configuration.
    answer = check_queries(service, targetCondition="*")
    assert answer["targetConditionError"].endswith("It contains: *")


@pytest.mark.parametrize(
    "body",
    [
        {"targetCondition": None, "customMetricQueries": None},
        {"targetCondition": 1},
        {"customMetricQueries": []},
        {"customMetricQueries": {"m": 1}},
    ],
)
def test_a_test_needs_queries(service: Service, body: dict[str, Any]) -> None:
    response = service.request("POST", "/configurations/testQueries", json=body)
    check_error(response, 400, "ArgumentInvalid")


# --- content for one device


def apply(service: Service, device_id: str, content: object) -> requests.Response:
    path = f"/devices/{device_id}/applyConfigurationContent"
    return service.request("POST", path, json=content)


def test_content_creates_the_modules_of_one_device(service: Service, edge_device: str) -> None:
    response = apply(service, edge_device, MANIFEST)
    assert (response.status_code, response.content) == (204, b"")
    modules = read(service, f"/devices/{edge_device}/modules")
    assert {module["moduleId"]: module["managedBy"] for module in modules} == dict.fromkeys(
        ("$edgeAgent", "$edgeHub", "sensor"), "iotEdge"
    )
    assert desired(service, f"{edge_device}/modules/sensor") == {"interval": 5}
    # A whole section replaces the old one; a path adds to it.
    content: Any = {"$edgeAgent": {"properties.desired": {}}, "sensor": {"properties.desired.b": 1}}
    assert apply(service, edge_device, {"modulesContent": content}).status_code == 204
    assert desired(service, f"{edge_device}/modules/$edgeAgent") == {}
    assert desired(service, f"{edge_device}/modules/sensor") == {"interval": 5, "b": 1}


def test_content_is_for_edge_devices_only(
    service: Service, device: Device, edge_device: str
) -> None:
    text = check_error(apply(service, device.id, MANIFEST), 400, "ArgumentInvalid")
    assert text == "Not an Azure IoT Edge device"
    check_error(apply(service, "unknown", MANIFEST), 404, "DeviceNotFound")
    check_error(apply(service, edge_device, CONTENT), 400, "InvalidConfigurationContent")
