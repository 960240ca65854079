"""A configuration file on its way into a hub: at the start, and over HTTPS while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator, Settings, StartError
from emulator.settings import WELL_KNOWN_PRIMARY_KEY, WELL_KNOWN_SECONDARY_KEY
from tests.dps.support import pem
from tests.http.support import ANY, check_error, put_device, read
from tests.support import Service, own, second_hub
from tests.x509 import issue

KEYS = ("a2V5IG9uZSBvZiBhIHRlc3Qh", "a2V5IHR3byBvZiBhIHRlc3Qh")
THUMBPRINT = "A" * 40


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A hub of its own: a file deletes what the file before it has created."""
    with second_hub(emulator, devices=()) as running:
        yield running


@pytest.fixture
def client(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as service:
        yield service
        apply(service)
        for device in read(service, "/devices"):
            service.request("DELETE", f"/devices/{device['deviceId']}", headers=ANY)
        for each in read(service, "/configurations"):
            service.request("DELETE", f"/configurations/{each['id']}", headers=ANY)


def apply(client: Service, *devices: object, **others: object) -> dict[str, int]:
    """Apply a document, and return the numbers of what changed."""
    response = client.request("POST", "/_emulator/config", json={"devices": devices, **others})
    assert response.status_code == 200, response.text
    numbers: dict[str, int] = response.json()
    return numbers


def changes(created: int = 0, changed: int = 0, deleted: int = 0) -> dict[str, int]:
    return {"created": created, "changed": changed, "deleted": deleted}


def refused(client: Service, document: object) -> str:
    response = client.request("POST", "/_emulator/config", json=document)
    return check_error(response, 400, "ArgumentInvalid")


def credentials(client: Service, path: str) -> tuple[Any, ...]:
    found = read(client, f"/devices/{path}")["authentication"]
    return (
        found["type"],
        *found["symmetricKey"].values(),
        *found["x509Thumbprint"].values(),
    )


def test_a_device_has_what_the_file_says(client: Service) -> None:
    device = {
        "id": "kitchen",
        "primaryKey": KEYS[0],
        "secondaryKey": KEYS[1],
        "status": "disabled",
        "statusReason": "cold",
        "tags": {"floor": 1},
        "desired": {"interval": 10},
    }
    assert apply(client, device) == changes(created=1)
    found = read(client, "/devices/kitchen")
    assert (found["status"], found["statusReason"]) == ("disabled", "cold")
    assert credentials(client, "kitchen") == ("sas", *KEYS, None, None)
    twin = read(client, "/twins/kitchen")
    assert (twin["tags"], own(twin["properties"]["desired"])) == ({"floor": 1}, {"interval": 10})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, ("sas", WELL_KNOWN_PRIMARY_KEY, WELL_KNOWN_SECONDARY_KEY, None, None)),
        ({"primaryKey": KEYS[0]}, ("sas", KEYS[0], KEYS[0], None, None)),
        ({"secondaryKey": KEYS[1]}, ("sas", KEYS[1], KEYS[1], None, None)),
        ({"primaryThumbprint": THUMBPRINT}, ("selfSigned", None, None, THUMBPRINT, None)),
        ({"secondaryThumbprint": THUMBPRINT}, ("selfSigned", None, None, None, THUMBPRINT)),
        (
            {"authentication": "certificateAuthority"},
            ("certificateAuthority", None, None, None, None),
        ),
    ],
)
def test_credentials_of_a_new_device_and_of_one_that_is_there(
    client: Service, entry: dict[str, str], expected: tuple[Any, ...]
) -> None:
    apply(client, {"id": "new", **entry})
    assert credentials(client, "new") == expected
    put_device(client, "old")
    before = credentials(client, "old")
    apply(client, {"id": "new", **entry}, {"id": "old", **entry})
    # An entry without credentials leaves those that are there.
    assert credentials(client, "old") == (expected if entry else before)


def test_modules_and_iot_edge_also_of_a_disabled_device(client: Service) -> None:
    gateway = {
        "id": "gateway",
        "iotEdge": True,
        "status": "disabled",
        "modules": [{"id": "camera", "managedBy": "me", "tags": {"a": 1}}],
    }
    assert apply(client, gateway) == changes(created=2)
    assert apply(client, gateway) == changes()
    gateway["status"] = "enabled"
    gateway["modules"] = [{"id": "camera", "tags": {"a": 2}}]
    assert apply(client, gateway) == changes(changed=2)
    modules = read(client, "/devices/gateway/modules")
    assert {each["moduleId"] for each in modules} == {"$edgeAgent", "$edgeHub", "camera"}
    assert read(client, "/devices/gateway/modules/camera")["managedBy"] == "me"
    assert read(client, "/twins/gateway/modules/camera")["tags"] == {"a": 2}
    assert apply(client, {"id": "gateway"}) == changes(deleted=1)


def test_the_same_file_again_changes_nothing(client: Service) -> None:
    device = {"id": "a", "tags": {"x": {"y": [1, 2]}, "z": None}, "desired": {"d": 1.0}}
    assert apply(client, device) == changes(created=1)
    before = read(client, "/twins/a")
    assert apply(client, device) == changes()
    assert read(client, "/twins/a") == before


# What a file wrote, what a service wrote then, what the next file has, and what is there then.
MERGES: dict[str, tuple[dict[str, Any], ...]] = {
    "a value is added": ({"a": 1}, {}, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
    "a value changes": ({"a": 1}, {}, {"a": 2}, {"a": 2}),
    "a value of the file is restored": ({"a": 1}, {"a": 5}, {"a": 1}, {"a": 1}),
    "a value is gone": ({"a": 1, "b": 2}, {}, {"b": 2}, {"b": 2}),
    "a value of a service stays": ({"a": 1}, {"s": 1}, {}, {"s": 1}),
    "a value below is gone": ({"a": {"b": 1, "c": 2}}, {}, {"a": {"c": 2}}, {"a": {"c": 2}}),
    "an object of the file is gone": ({"a": {"b": {"c": 1}}}, {}, {}, {}),
    "but not what a service wrote in it": (
        {"a": {"b": {"c": 1}}},
        {"a": {"s": 1}},
        {},
        {"a": {"s": 1}},
    ),
    "a value that a service removed": ({"a": 1, "b": 2}, {"a": None}, {"b": 2}, {"b": 2}),
    "an object becomes a value": ({"a": {"b": 1}}, {}, {"a": 1}, {"a": 1}),
    "a value becomes an object": ({"a": 1}, {}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    "a list is replaced": ({"a": [1, 2]}, {}, {"a": [2]}, {"a": [2]}),
}


@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("created", [True, False])
def test_tags_and_desired_properties_are_merged(client: Service, name: str, created: bool) -> None:
    first, patch, second, expected = MERGES[name]
    if not created:
        put_device(client, "a")
    apply(client, {"id": "a", "tags": first, "desired": first})
    body = {"tags": patch, "properties": {"desired": patch}}
    assert client.request("PATCH", "/twins/a", json=body).status_code == 200
    apply(client, {"id": "a", "tags": second, "desired": second})
    twin = read(client, "/twins/a")
    assert twin.get("tags", {}) == expected
    assert own(twin["properties"]["desired"]) == expected


def test_it_deletes_only_what_it_created(client: Service) -> None:
    put_device(client, "theirs")
    tags = {"from": "file"}
    apply(client, {"id": "mine", "modules": [{"id": "m"}]}, {"id": "theirs", "tags": tags})
    assert read(client, "/twins/theirs")["tags"] == tags
    assert apply(client) == changes(changed=1, deleted=1)
    assert [each["deviceId"] for each in read(client, "/devices")] == ["theirs"]
    assert "tags" not in read(client, "/twins/theirs")


def test_a_device_that_a_service_created_anew_is_not_deleted(client: Service) -> None:
    apply(client, {"id": "a"})
    client.request("DELETE", "/devices/a", headers=ANY)
    put_device(client, "a")
    assert apply(client) == changes()
    assert [each["deviceId"] for each in read(client, "/devices")] == ["a"]


def test_a_device_that_was_deleted_comes_back(client: Service) -> None:
    apply(client, {"id": "a"})
    client.request("DELETE", "/devices/a", headers=ANY)
    assert apply(client, {"id": "a"}) == changes(created=1)
    assert apply(client) == changes(deleted=1)


def configuration(value: int = 1, **members: object) -> dict[str, object]:
    content = {"deviceContent": {"properties.desired.x": value}}
    return {"id": "c", "content": content, "targetCondition": "tags.floor = 1", **members}


def test_configurations_are_created_updated_and_deleted(client: Service) -> None:
    device = {"id": "a", "tags": {"floor": 1}}
    first = [configuration()]
    assert apply(client, device, configurations=first) == changes(created=2)
    assert apply(client, device, configurations=first) == changes()
    assert own(read(client, "/twins/a")["properties"]["desired"]) == {"x": 1}
    other = [configuration(priority=5)]
    assert apply(client, device, configurations=other) == changes(changed=1)
    assert read(client, "/configurations/c")["priority"] == 5
    # A hub never changes the content of a configuration, so it is created anew.
    content = [configuration(2)]
    assert apply(client, device, configurations=content) == changes(created=1, deleted=1)
    assert own(read(client, "/twins/a")["properties"]["desired"]) == {"x": 2}
    assert apply(client, device) == changes(deleted=1)
    assert read(client, "/configurations") == []


def test_a_configuration_of_a_service_is_updated_but_not_deleted(client: Service) -> None:
    client.request("PUT", "/configurations/c", json=configuration())
    assert apply(client, configurations=[configuration(priority=2)]) == changes(changed=1)
    said = refused(client, {"configurations": [configuration(3)]})
    assert said.startswith("configurations[0]: ")
    assert "Use another id" in said
    assert apply(client) == changes()
    assert read(client, "/configurations/c")["priority"] == 2


def test_the_answer_of_the_rest_api_is_a_configuration_for_a_file(client: Service) -> None:
    answer = client.request("PUT", "/configurations/c", json=configuration()).json()
    assert apply(client, configurations=[answer]) == changes()


def faults(client: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.request("GET", "/_emulator/info", params={}).json()[
        "faults"
    ]
    return found


def test_cas_are_registered_changed_and_removed(client: Service) -> None:
    first, second = (pem(issue(f"CA {number}", ca=True)) for number in "12")
    entry = {"name": "Factory", "certificate": first}
    waiting = {"name": "line-1", "certificate": second, "verified": False}
    assert apply(client, certificates=[entry, waiting]) == changes(created=2)
    assert apply(client, certificates=[entry, waiting]) == changes()
    assert verified(client) == {"Factory": True, "line-1": False}
    assert apply(client, certificates=[entry, {**waiting, "verified": True}]) == changes(changed=1)
    # What was verified meanwhile stays verified.
    assert apply(client, certificates=[entry, waiting]) == changes()
    other = {"name": "factory", "certificate": pem(issue("CA 3", ca=True))}
    assert apply(client, certificates=[other]) == changes(changed=1, deleted=1)
    assert verified(client) == {"factory": True}
    assert apply(client) == changes(deleted=1)
    assert verified(client) == {}


def test_a_ca_of_a_service_is_not_removed(client: Service) -> None:
    body = {"properties": {"certificate": pem(issue("CA", ca=True))}}
    assert client.request("PUT", "/_emulator/certificates/own", json=body).ok
    entry = {"name": "own", "certificate": pem(issue("CA", ca=True))}
    assert apply(client, certificates=[entry]) == changes(changed=1)
    assert apply(client) == changes()
    assert verified(client) == {"own": True}
    assert client.request("DELETE", "/_emulator/certificates/own").ok


def verified(client: Service) -> dict[str, bool]:
    found = read(client, "/_emulator/certificates")["value"]
    return {each["name"]: each["properties"]["isVerified"] for each in found}


def test_the_faults_of_a_file_replace_those_of_the_file_before(client: Service) -> None:
    mine = client.request("POST", "/_emulator/faults", json={"kind": "throttle", "device": "x"})
    number = mine.json()["id"]
    fault = {"kind": "twin-status", "device": "a", "status": 500, "count": 1}
    apply(client, {"id": "a"}, faults=[fault])
    assert [(each["kind"], each["device"]) for each in faults(client)] == [
        ("throttle", "x"),
        ("twin-status", "a"),
    ]
    apply(client, {"id": "a"}, faults=[{**fault, "status": 503}, {**fault, "device": "b"}])
    assert [each.get("status") for each in faults(client)] == [None, 503, 500]
    apply(client)
    assert [each["id"] for each in faults(client)] == [number]
    client.request("DELETE", "/_emulator/faults")


# A document, and how the refusal begins.
REFUSED: dict[str, tuple[object, str]] = {
    "a list": ([], "Invalid value []: use an object."),
    "an unknown member": ({"device": []}, "Unknown member 'device'. Use devices."),
    "policies": ({"policies": []}, "policies can't change while the hub runs. Restart"),
    "an id": ({"devices": [{"id": "a b"}]}, "devices[0].id: The hub refuses it: Invalid id 'a b'"),
    "a short key": (
        {"devices": [{"id": "a"}, {"id": "b", "primaryKey": "AAAA"}]},
        "devices[1].primaryKey: The hub refuses it: Invalid device key length",
    ),
    "a thumbprint": (
        {"devices": [{"id": "a", "primaryThumbprint": "x"}]},
        "devices[0]: The hub refuses it: StringIsNotThumbprint",
    ),
    "a module of the hub": (
        {"devices": [{"id": "a", "modules": [{"id": "$edgeHub"}]}]},
        "devices[0].modules[0]: The hub refuses it: Invalid module id",
    ),
    "tags": (
        {"devices": [{"id": "a", "tags": {"$x": 1}}]},
        "devices[0].tags: The hub refuses it: ",
    ),
    "a path of a CA": (
        {"certificates": [{"name": "a", "path": "/etc/hosts"}]},
        "certificates[0]: Use either 'certificate' or, in a file, 'path'.",
    ),
    "no CA": (
        {"certificates": [{"name": "a", "certificate": "x"}]},
        "certificates[0]: The hub refuses it: Invalid certificate. Use one",
    ),
    "a condition": (
        {"configurations": [configuration(targetCondition="what?")]},
        "configurations[0]: The hub refuses it: ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_of_a_document_with_a_mistake_nothing_is_applied(client: Service, name: str) -> None:
    document, said = REFUSED[name]
    good = {"id": "good"}
    if isinstance(document, dict) and "devices" in document:
        document = {**document, "devices": [*document["devices"], good]}
    assert refused(client, document).startswith(said)
    assert read(client, "/devices") == []


def test_a_registry_reader_is_refused(hub: Emulator) -> None:
    from tests.http.support import policy_token

    token = policy_token(hub, "registryRead")
    with Service(hub) as service:
        response = service.request(
            "POST", "/_emulator/config", json={}, headers={"Authorization": token}
        )
    check_error(response, 401, "IotHubUnauthorizedAccess")


def test_at_the_start_with_policies_and_settings(emulator: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(
        f"""
        [[policies]]
        name = "reader"
        rights = ["RegistryRead"]
        primaryKey = "{KEYS[0]}"

        [[policies]]
        name = "service"
        primaryKey = "{KEYS[1]}"

        [[devices]]
        id = "kitchen"
        primaryKey = "{KEYS[0]}"
        tags = {{ floor = 1 }}
        """
    )
    settings = Settings.from_file(file)
    with second_hub(emulator, config=settings.config, devices=settings.devices) as hub:
        assert hub.device_connection_string("kitchen").endswith(KEYS[0])
        assert hub.event_hubs_connection_string.split(";")[2].endswith(KEYS[1])
        reader = hub.policy_connection_string("reader")
        assert reader.endswith(f"SharedAccessKeyName=reader;SharedAccessKey={KEYS[0]}")

        class Reader:
            service_connection_string = reader
            ca_file = hub.ca_file

        with Service(Reader()) as service:
            assert [each["deviceId"] for each in read(service, "/devices")] == ["kitchen"]
            assert service.request("DELETE", "/devices/kitchen", headers=ANY).status_code == 401
        with Service(hub) as service:
            assert read(service, "/twins/kitchen")["tags"] == {"floor": 1}
            assert apply(service) == changes(deleted=1)


def test_a_hub_does_not_start_with_content_that_it_refuses(
    emulator: Emulator, tmp_path: Path
) -> None:
    file = tmp_path / "hub.json"
    file.write_text('{"devices": [{"id": "a b"}, {"id": "c", "tags": {"a.b": 1}}]}')
    with pytest.raises(StartError) as error:
        second_hub(emulator, config=Settings.from_file(file).config).__enter__()
    lines = str(error.value).splitlines()
    assert [line.partition(": The hub")[0] for line in lines] == [
        f"{file}: devices[0].id",
        f"{file}: devices[1].tags",
    ]


def test_what_a_file_created_is_remembered_over_a_restart(
    emulator: Emulator, tmp_path: Path
) -> None:
    file = tmp_path / "hub.toml"

    def start(text: str) -> Emulator:
        file.write_text(text)
        settings = Settings.from_file(file)
        return second_hub(
            emulator, config=settings.config, devices=settings.devices, data_dir=tmp_path
        )

    module = "modules = [{id = 'm', tags = {x = 1.50}}]"
    both = f"devices = [{{id = 'a', tags = {{x = 1}}, {module}}}, {{id = 'b'}}]"
    content = "content = {deviceContent = {'properties.desired.x' = 1}}"
    with start(f"{both}\nconfigurations = [{{id = 'c', {content}}}]") as hub, Service(hub) as first:
        before = read(first, "/twins/a")
        identity = read(first, "/devices/a")
        put_device(first, "theirs")
    with start(f"{both}\nconfigurations = [{{id = 'c', {content}}}]") as hub, Service(hub) as again:
        assert read(again, "/twins/a") == before
        assert read(again, "/devices/a") == identity
    with start("devices = [{id = 'b'}]") as hub, Service(hub) as last:
        assert [each["deviceId"] for each in read(last, "/devices")] == ["b", "theirs"]
        assert read(last, "/configurations") == []
