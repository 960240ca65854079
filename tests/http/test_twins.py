"""Device twins over REST; `test_modules.py` has those of modules."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from emulator import Emulator
from tests.http import support
from tests.http.support import read as read_document
from tests.support import Device, Service

MEMBERS = [
    *("deviceId", "etag", "deviceEtag", "status", "statusUpdateTime", "connectionState"),
    *("lastActivityTime", "cloudToDeviceMessageCount", "authenticationType", "x509Thumbprint"),
    *("modelId", "version", "properties", "capabilities"),
]
FIRST_ETAG, SECOND_ETAG = "AAAAAAAAAAE=", "AAAAAAAAAAI="
WRITES = pytest.mark.parametrize("verb", ["PATCH", "PUT"])


def read(service: Service, device: Device) -> Any:
    return read_document(service, f"/twins/{device.id}")


def send(
    service: Service, device: Device, verb: str, body: object, if_match: str | None = None
) -> requests.Response:
    headers = {"If-Match": if_match}
    return service.request(verb, f"/twins/{device.id}", json=body, headers=headers)


def write(service: Service, device: Device, verb: str, body: object) -> Any:
    response = send(service, device, verb, body)
    assert response.status_code == 200, response.text
    assert response.json() == read(service, device)
    return response.json()


def desired(properties: object) -> dict[str, Any]:
    return {"properties": {"desired": properties}}


def desired_of(twin: dict[str, Any]) -> dict[str, Any]:
    return support.own(twin["properties"]["desired"])


# --- the document


def test_a_new_twin_has_the_members_of_a_real_hub(service: Service, device: Device) -> None:
    response = service.request("GET", f"/twins/{device.id}")
    assert "ETag" not in response.headers
    twin = response.json()
    assert list(twin) == MEMBERS  # `tags` is there only if the twin has tags
    identity = read_document(service, f"/devices/{device.id}")
    moments = [section["$metadata"].pop("$lastUpdated") for section in twin["properties"].values()]
    assert all(support.MOMENT.fullmatch(moment) for moment in moments)
    assert twin == {
        "deviceId": device.id,
        "etag": FIRST_ETAG,
        "deviceEtag": identity["etag"],
        "status": "enabled",
        "statusUpdateTime": support.NEVER,
        "connectionState": "Disconnected",
        "lastActivityTime": support.NEVER,
        "cloudToDeviceMessageCount": 0,
        "authenticationType": "sas",
        "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        "modelId": "",
        "version": 2,
        "properties": {
            "desired": {"$metadata": {}, "$version": 1},
            "reported": {"$metadata": {}, "$version": 1},
        },
        "capabilities": {"iotEdge": False},
    }


@WRITES
def test_the_twin_of_a_disabled_device_has_every_member_and_can_be_written(
    service: Service, device: Device, verb: str
) -> None:
    support.update_device(service, device.id, status="disabled", statusReason="lost")
    twin = write(service, device, verb, {"tags": {"a": 1}, **desired({"b": 1})})
    members = list(MEMBERS)
    members.insert(members.index("status") + 1, "statusReason")
    members.insert(members.index("version") + 1, "tags")
    assert list(twin) == members
    assert (twin["status"], twin["statusReason"]) == ("disabled", "lost")
    assert support.MOMENT.fullmatch(twin["statusUpdateTime"])
    assert (twin["tags"], desired_of(twin)) == ({"a": 1}, {"b": 1})


def test_a_twin_shows_the_connection(service: Service, device: Device, emulator: Emulator) -> None:
    with support.MethodDevice(emulator, device, support.silence):
        online = read(service, device)
    offline = read(service, device)
    assert (online["connectionState"], offline["connectionState"]) == ("Connected", "Disconnected")
    assert support.MOMENT.fullmatch(online["lastActivityTime"])
    # Only a write of a service changes the etag.
    assert (online["etag"], offline["etag"]) == (FIRST_ETAG, FIRST_ETAG)


# --- versions and metadata


def test_versions_and_etags_count_the_writes(
    service: Service, device: Device, emulator: Emulator
) -> None:
    def counters() -> tuple[str, int, int, int]:
        twin = read(service, device)
        versions = [twin["properties"][name]["$version"] for name in ("desired", "reported")]
        return twin["etag"], twin["version"], versions[0], versions[1]

    assert counters() == (FIRST_ETAG, 2, 1, 1)
    with support.MethodDevice(emulator, device, support.silence) as connected:
        write(service, device, "PATCH", desired({"a": 1}))
        assert counters() == (SECOND_ETAG, 3, 2, 1)
        connected.report('{"a": 1}')
        assert counters() == (SECOND_ETAG, 4, 2, 2)
        connected.report('{"b": 2.50}')
        assert counters() == (SECOND_ETAG, 5, 2, 3)
        write(service, device, "PATCH", {"tags": {"a": 1}})
        assert counters() == ("AAAAAAAAAAM=", 6, 2, 3)
        write(service, device, "PUT", {})
        assert counters() == ("AAAAAAAAAAQ=", 7, 3, 3)
        write(service, device, "PATCH", {"tags": {"a": 1}, **desired({"a": 1})})
        assert counters() == ("AAAAAAAAAAU=", 8, 4, 3)
    # The service reads a number as the device wrote it.
    assert '"b":2.50' in service.request("GET", f"/twins/{device.id}").text


# --- writing


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"b": None}, {"a": {"x": 1, "y": [1, 2]}, "c": "text"}),
        ({"a": {"x": None}}, {"a": {"y": [1, 2]}, "b": True, "c": "text"}),
        ({"a": {"y": [3]}}, {"a": {"x": 1, "y": [3]}, "b": True, "c": "text"}),
        ({"c": {"d": {"e": None}}}, {"a": {"x": 1, "y": [1, 2]}, "b": True, "c": {"d": {}}}),
    ],
)
def test_patch_merges_into_tags_and_desired_properties(
    service: Service, device: Device, patch: dict[str, Any], result: dict[str, Any]
) -> None:
    document = {"a": {"x": 1, "y": [1, 2]}, "b": True, "c": "text"}
    write(service, device, "PUT", {"tags": document, **desired(document)})
    twin = write(service, device, "PATCH", {"tags": patch, **desired({})})
    assert (twin["tags"], desired_of(twin)) == (result, document)
    twin = write(service, device, "PATCH", desired(patch))
    assert (twin["tags"], desired_of(twin)) == (result, result)


def test_put_replaces_tags_and_desired_properties_and_keeps_reported_ones(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with support.MethodDevice(emulator, device, support.silence) as connected:
        connected.report('{"r": 1}')
    first = {"tags": {"a": 1, "b": {"c": 1}}, **desired({"d": 1, "e": 1})}
    write(service, device, "PUT", first)
    twin = write(service, device, "PUT", {"tags": {"z": 1}, **desired({"d": 2})})
    assert twin["tags"] == {"z": 1}
    section = twin["properties"]["desired"]
    assert (support.own(section), set(support.own(section["$metadata"]))) == ({"d": 2}, {"d"})
    # A part that is left out is emptied.
    assert desired_of(write(service, device, "PUT", {"tags": {"z": 1}})) == {}
    twin = write(service, device, "PUT", desired({"d": 1}))
    assert "tags" not in twin
    assert support.own(twin["properties"]["reported"]) == {"r": 1}


@WRITES
def test_a_whole_twin_can_be_sent_back(
    service: Service, device: Device, emulator: Emulator, verb: str
) -> None:
    with support.MethodDevice(emulator, device, support.silence) as connected:
        connected.report('{"r": 1}')
    before = write(service, device, "PATCH", {"tags": {"a": 1}, **desired({"b": {"c": 1}})})
    changed = copy.deepcopy(before)
    changed["tags"]["a"] = 2
    changed["properties"]["desired"]["b"]["c"] = 2
    # All others are ignored. The etag in a body is not a precondition.
    changed["properties"]["reported"]["r"] = 2
    changed |= {"status": "disabled", "deviceId": "another", "version": 99, "etag": "AAAAAAAAAGM="}
    after = write(service, device, verb, changed)
    assert (after["tags"], desired_of(after)) == ({"a": 2}, {"b": {"c": 2}})
    assert after["properties"]["desired"]["$version"] == 3
    assert after["properties"]["reported"] == before["properties"]["reported"]
    assert (after["status"], after["deviceId"]) == ("enabled", device.id)
    assert after["etag"] == "AAAAAAAAAAM="


NUMBERS = ["1.0", "1", "1e5", "1E5", "1e+05", "1e-07", "-0", "-0.0", "1.50", "1.5e300", "0.1"]


@WRITES
def test_numbers_are_returned_as_they_were_written(
    service: Service, device: Device, verb: str
) -> None:
    path = f"/twins/{device.id}"
    response = service.request(verb, path, data=f'{{"tags":{{"array":[{",".join(NUMBERS)}]}}}}')
    assert response.status_code == 200, response.text
    for text in (response.text, service.request("GET", path).text):
        tags = json.loads(text, parse_float=str, parse_int=str)["tags"]
        assert tags["array"] == NUMBERS


# --- preconditions


@WRITES
@pytest.mark.parametrize("if_match", [None, '"*"', FIRST_ETAG, f'"{FIRST_ETAG}"', '""'])
def test_a_matching_etag_allows_a_write(
    service: Service, device: Device, verb: str, if_match: str | None
) -> None:
    response = send(service, device, verb, {"tags": {"a": 1}}, if_match)
    assert response.status_code == 200
    assert "ETag" not in response.headers
    assert response.json()["etag"] == SECOND_ETAG


@WRITES
@pytest.mark.parametrize("if_match", [SECOND_ETAG, f'"{SECOND_ETAG}"', '"x"'])
def test_a_stale_etag_prevents_a_write(
    service: Service, device: Device, verb: str, if_match: str
) -> None:
    before = read(service, device)
    response = send(service, device, verb, {"tags": {"a": 1}}, if_match)
    text = support.check_error(response, 412, "PreconditionFailed")
    assert text == f"ETag mismatch for device ID '{device.id}'"
    assert read(service, device) == before


def test_parallel_writers_lose_nothing(
    service: Service, device: Device, pool: ThreadPoolExecutor
) -> None:
    def write_tag(number: int) -> int:
        body = {"tags": {f"writer{number}": number}}
        return send(service, device, "PATCH", body, '"*"').status_code

    assert set(pool.map(write_tag, range(30), timeout=60)) == {200}
    twin = read(service, device)
    assert twin["tags"] == {f"writer{number}": number for number in range(30)}
    assert twin["etag"] == "AAAAAAAAAB8="  # 31


# --- what is refused


FULL_TAGS = dict.fromkeys("ab", "x" * 4095)  # 2 * (1 + 4095) is 8 KB
FULL_DESIRED = dict.fromkeys("abcdefgh", "x" * 4095)  # 32 KB


@WRITES
def test_a_twin_has_limits_and_is_refused_as_a_whole(
    service: Service, device: Device, verb: str
) -> None:
    twin = write(service, device, verb, {"tags": FULL_TAGS, **desired(FULL_DESIRED)})
    assert (twin["tags"], desired_of(twin)) == (FULL_TAGS, FULL_DESIRED)
    for body, limit in (
        ({"tags": {**FULL_TAGS, "c": ""}}, "'Tags' size should be less than 8192 bytes."),
        (
            desired({**FULL_DESIRED, "i": ""}),
            "'Properties.Desired' size should be less than 32768 bytes.",
        ),
    ):
        response = send(service, device, verb, body)
        assert support.check_error(response, 403, "DeviceModelMaxPropertiesExceeded") == limit
    for body in ({"tags": [1]}, {"tags": {"good": 1}, **desired({"good": 1, "b.d": 1})}):
        response = send(service, device, verb, body)
        assert support.check_error(response, 400, "ArgumentInvalid") != "BadRequest"
    for text in ("", "{", "{'a': 1}", "[]", "null", '{"tags": {"a": NaN}}'):
        response = service.request(verb, f"/twins/{device.id}", data=text.encode())
        assert "Provided json is not a valid" in support.check_error(
            response, 400, "ArgumentInvalid"
        )
    assert read(service, device) == twin


@WRITES
@pytest.mark.parametrize("digits", [4_000, 100_000, 4_000_000])
def test_a_number_takes_as_much_room_as_it_has_digits(
    service: Service, device: Device, verb: str, digits: int
) -> None:
    number = "0." + "1" * digits
    # Three of 4,000 digits are more than 8 KB.
    names = "abc" if digits == 4_000 else "a"
    members = ",".join(f'"{name}":{number}' for name in names)
    before = read(service, device)
    response = service.request(verb, f"/twins/{device.id}", data=f'{{"tags":{{{members}}}}}')
    name = (403, "DeviceModelMaxPropertiesExceeded")
    if digits == 100_000:  # a value is at most 4 KB
        name = (400, "ArgumentInvalid")
    support.check_error(response, *name)
    assert read(service, device) == before


def test_a_replace_with_a_null_is_refused(service: Service, device: Device) -> None:
    for body in ({"tags": {"floor": None}}, desired({"a": {"floor": None}})):
        response = send(service, device, "PUT", body)
        assert support.check_error(response, 400, "ArgumentInvalid") == (
            "Value of Property or Tag cannot be null. Error in Property/Tag floor"
        )
    write(service, device, "PUT", {"tags": {"a": 1}, **desired({"b": 1})})
    # A part that is null is emptied, also by a patch.
    twin = write(service, device, "PUT", {"tags": None, **desired(None)})
    assert "tags" not in twin
    write(service, device, "PUT", {"tags": {"a": 1}, **desired({"b": 1})})
    assert "tags" not in write(service, device, "PATCH", {"tags": None})


@pytest.mark.parametrize("verb", ["GET", "PATCH", "PUT"])
def test_an_unknown_device_has_no_twin(service: Service, verb: str) -> None:
    body = None if verb == "GET" else b"{}"
    response = service.request(verb, "/twins/unknown", data=body, headers=support.ANY)
    assert support.check_error(response, 404, "DeviceNotFound") == "unknown"
    # The tracking id of a twin's error names no gateway (seen on a real hub).
    assert "-G:" not in response.json()["ExceptionMessage"]
