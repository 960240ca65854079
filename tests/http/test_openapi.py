"""The OpenAPI document: it has each route below `/_emulator/`, and the answers match it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema
import pytest
import requests

from emulator import Emulator
from emulator.http.admin.openapi import document
from emulator.http.route import Route
from emulator.http.server import HttpServer
from emulator.hub.faults.fault import KINDS, LINKS
from emulator.hub.faults.fault import OPERATIONS as FAULT_OPERATIONS
from emulator.hub.hub import IotHub
from tests.devices import connect_device
from tests.dps.support import pem
from tests.http.support import MethodDevice, read, report_upload
from tests.hub.uploads.shelf import Shelf
from tests.mqtt.raw import publish
from tests.support import Device, Service, second_hub, trust
from tests.x509 import issue

DOCUMENT: dict[str, Any] = json.loads(document())
OPERATIONS = {
    (verb.upper(), re.sub(r"\{[^}]+\}", "*", path)): operation
    for path, item in DOCUMENT["paths"].items()
    for verb, operation in item.items()
}


def check(value: Any, schema: dict[str, Any]) -> None:
    """Check a value against a schema, which can refer to the components of the document."""
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(
        value
    )


def response_of(verb: str, path: str, status: int) -> dict[str, Any]:
    """Return the response of an operation; one that is referred to is looked up."""
    found: dict[str, Any] = OPERATIONS[verb, path]["responses"][str(status)]
    if "$ref" in found:
        found = DOCUMENT["components"]["responses"][found["$ref"].rpartition("/")[2]]
    return found


def contents(node: Any) -> Iterator[dict[str, Any]]:
    """Find each content of a request or a response that has a schema."""
    if isinstance(node, dict):
        if isinstance(node.get("schema"), dict) and {"example", "examples"} & node.keys():
            yield node
        for each in node.values():
            yield from contents(each)
    elif isinstance(node, list):
        for each in node:
            yield from contents(each)


def test_it_has_each_route_and_no_other(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Route] = []

    def make_server(hub: IotHub, routes: Iterable[Route], *arguments: Any) -> HttpServer:
        served.extend(routes)
        return HttpServer(hub, routes, *arguments)

    monkeypatch.setattr("emulator.running.HttpServer", make_server)
    with second_hub(emulator):
        pass
    own = {
        (route.verb, re.sub(r"\{[^}]+\}", "*", route.path))
        for route in served
        if route.path.startswith("/_emulator/")
    }
    assert OPERATIONS.keys() == own


def test_a_hub_serves_it(service: Service) -> None:
    assert read(service, "/_emulator/openapi.json") == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_each_operation_is_complete() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)
    for (_, path), operation in OPERATIONS.items():
        assert operation["summary"]
        named = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"]
        assert len(named) == path.count("*")


def test_each_schema_is_valid_and_each_example_matches_its_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    checked = 0
    for content in contents(DOCUMENT):
        examples = [each["value"] for each in content.get("examples", {}).values()]
        for example in [*examples, *([content["example"]] if "example" in content else [])]:
            check(example, content["schema"])
            checked += 1
    assert checked > 10


def call(service: Service, verb: str, path: str, **more: Any) -> requests.Response:
    """Call a route, and check its answer against the document."""
    response = service.request(verb, path, params=more.pop("params", {}), **more)
    star = re.sub(r"(devices|faults|certificates)/[^/]+", r"\1/*", path)
    described = response_of(verb, star, response.status_code)
    if "content" in described:
        check(response.json(), described["content"]["application/json"]["schema"])
    else:
        assert response.content == b""
    return response


def examples_of(path: str) -> list[Any]:
    """Return the examples of the requests of a POST."""
    content = OPERATIONS["POST", path]["requestBody"]["content"]["application/json"]
    return [each["value"] for each in content["examples"].values()]


def test_the_answers_of_a_hub_match(
    emulator: Emulator,
    service: Service,
    device: Device,
    echoing: MethodDevice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    messages = f"/_emulator/devices/{device.id}/messages"
    with connect_device(device.connection_string, emulator.mqtt_port, trust(emulator)) as wire:
        for body in (b"\xff", b'{"n": 1}'):
            wire.send(publish(f"devices/{device.id}/messages/events/a=b&c", body))
        wait = {"for": "event", "device": device.id, "where": {"n": 1}}
        assert "event" in call(service, "POST", "/_emulator/wait", json=wait).json()
        wait = {"for": "connected", "device": device.id}
        assert "device" in call(service, "POST", "/_emulator/wait", json=wait).json()
    shelf = Shelf()
    monkeypatch.setattr(emulator.hub.uploads, "_storage", shelf)
    report_upload(emulator, device, shelf, "a", statusCode=201, statusDescription="Created")
    report_upload(emulator, device, shelf, "b", isSuccess=False)
    for name, status in (("a", 201), ("b", None)):
        wait = {"for": "upload", "device": device.id, "name": name}
        upload = call(service, "POST", "/_emulator/wait", json=wait).json()["upload"]
        assert (upload["name"], upload["statusCode"]) == (name, status)
    wait = {"for": "listening", "device": device.id, "method": "go", "timeout": 0.01}
    assert call(service, "POST", "/_emulator/wait", json=wait).status_code == 504
    wait = {"for": "event", "where": {"n": 2}, "timeout": 0.01}
    assert call(service, "POST", "/_emulator/wait", json=wait).status_code == 504
    assert call(service, "POST", "/_emulator/wait", json={"for": "rain"}).status_code == 400

    events = call(service, "GET", "/_emulator/events", params={"device": device.id}).json()
    assert len(events) == 2
    wrong = call(service, "GET", "/_emulator/events", params={"form": "1"})
    assert wrong.status_code == 400
    unknown = call(service, "GET", "/_emulator/events", params={"device": "nowhere"})
    assert unknown.status_code == 404
    refused = call(service, "GET", "/_emulator/events", headers={"Authorization": None})
    assert refused.status_code == 401

    assert call(service, "POST", messages, json={"body": {"n": 1}}).status_code == 204
    assert call(service, "POST", messages, json={"bodi": 1}).status_code == 400
    for payload in ({"n": 1}, None):
        body = {"methodName": "go", "payload": payload}
        assert service.request("POST", "/twins/echoing/methods", json=body).status_code == 200
    assert len(call(service, "GET", "/_emulator/calls").json()) >= 2


def test_the_answers_about_the_emulator_match(emulator: Emulator) -> None:
    with second_hub(emulator, devices=()) as hub, Service(hub) as service:
        for path in ("info", "health"):
            assert call(service, "GET", f"/_emulator/{path}").status_code == 200
        metrics = service.request("GET", "/_emulator/metrics")
        kind, _, _ = metrics.headers["Content-Type"].partition(";")
        assert kind in response_of("GET", "/_emulator/metrics", 200)["content"]
        config = {"devices": [{"id": "thermostat", "tags": {"floor": 1}}]}
        described = OPERATIONS["POST", "/_emulator/config"]["requestBody"]["content"]
        assert described["application/json"]["example"] == config
        answer = call(service, "POST", "/_emulator/config", json=config)
        assert answer.json() == {"created": 1, "changed": 0, "deleted": 0}
        assert call(service, "POST", "/_emulator/config", json={"device": 1}).status_code == 400


def test_the_answers_about_faults_match(emulator: Emulator) -> None:
    path = "/_emulator/faults"
    kinds = DOCUMENT["components"]["schemas"]["Fault"]["properties"]
    assert kinds["kind"]["enum"] == list(KINDS)
    assert kinds["operation"]["enum"] == sorted(FAULT_OPERATIONS)
    assert kinds["link"]["enum"] == list(LINKS)
    with second_hub(emulator) as hub, Service(hub) as service:
        ids = [call(service, "POST", path, json=each).json()["id"] for each in examples_of(path)]
        assert call(service, "POST", path, json={"kind": "rain"}).status_code == 400
        assert call(service, "GET", path).json()
        assert call(service, "GET", "/_emulator/info").status_code == 200
        assert call(service, "DELETE", f"{path}/{ids[-1]}").status_code == 204
        assert call(service, "DELETE", f"{path}/99").status_code == 400
        assert call(service, "DELETE", path).status_code == 204


def test_the_answers_about_certificates_match(emulator: Emulator) -> None:
    path = "/_emulator/certificates"
    stale: dict[str, str | None] = {"If-Match": "stale"}
    root, first = issue("Root", ca=True), f"{path}/a"
    document = {"properties": {"certificate": pem(root)}}
    with second_hub(emulator) as hub, Service(hub) as service:
        assert call(service, "PUT", first, json=document).status_code == 201
        assert call(service, "PUT", first, json=document).status_code == 200
        assert call(service, "PUT", first, json={}).status_code == 400
        for verb, tail in (("PUT", ""), ("DELETE", ""), ("POST", "/verify")):
            answer = call(service, verb, first + tail, json=document, headers=stale)
            assert answer.status_code == 412
        assert call(service, "GET", path).json()["value"]
        assert call(service, "GET", first).status_code == 200
        made = call(service, "POST", f"{first}/generateVerificationCode").json()
        proof = {"certificate": pem(issue(made["properties"]["verificationCode"], by=root))}
        assert call(service, "POST", f"{first}/verify", json=proof).status_code == 200
        assert call(service, "POST", f"{first}/verify", json=proof).status_code == 400
        assert call(service, "DELETE", first).status_code == 204
        assert call(service, "DELETE", first).status_code == 404


def test_the_answers_about_the_state_match(emulator: Emulator) -> None:
    with second_hub(emulator) as hub, Service(hub) as service:
        snapshot = service.request("GET", "/_emulator/snapshot")
        assert (
            snapshot.headers["Content-Type"]
            in response_of("GET", "/_emulator/snapshot", 200)["content"]
        )
        for body in ({"scope": "events"}, {"scope": "all"}, None):
            assert call(service, "POST", "/_emulator/reset", json=body).status_code == 204
        assert call(service, "POST", "/_emulator/reset", json={"scope": "x"}).status_code == 400
        restored = call(service, "POST", "/_emulator/restore", data=snapshot.content)
        assert restored.status_code == 204
        assert call(service, "POST", "/_emulator/restore", data=b"x").status_code == 400


def test_the_answers_of_the_clock_match(emulator: Emulator) -> None:
    with second_hub(emulator) as hub, Service(hub) as service:
        call(service, "GET", "/_emulator/clock")
        for span in ("PT1H", 1.5):
            answer = call(service, "POST", "/_emulator/clock", json={"advance": span})
            assert answer.status_code == 200
        assert call(service, "POST", "/_emulator/clock", json={}).status_code == 400


@pytest.mark.parametrize(
    "example", examples_of("/_emulator/wait"), ids=lambda example: str(example["for"])
)
def test_a_request_of_the_document_is_understood(service: Service, example: dict[str, Any]) -> None:
    body = {**example, "device": "nowhere", "timeout": 0.01}
    assert call(service, "POST", "/_emulator/wait", json=body).status_code == 504
