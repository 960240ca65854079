from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from emulator import Emulator
from tests.http.support import MethodDevice, check_error, silence
from tests.support import Device, Service

MEMBERS = [
    "deviceId",
    "etag",
    "deviceEtag",
    "status",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "modelId",
    "version",
    "properties",
    "capabilities",
]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?Z")
FIRST_ETAG, SECOND_ETAG = "AAAAAAAAAAE=", "AAAAAAAAAAI="
WRITES = ["PATCH", "PUT"]


def read(service: Service, device: Device) -> dict[str, Any]:
    response = service.request("GET", f"/twins/{device.id}")
    assert response.status_code == 200, response.text
    twin: dict[str, Any] = response.json()
    return twin


def write(service: Service, device: Device, verb: str, body: object) -> dict[str, Any]:
    response = service.request(verb, f"/twins/{device.id}", json=body)
    assert response.status_code == 200, response.text
    twin: dict[str, Any] = response.json()
    assert twin == read(service, device)
    return twin


def desired(properties: object) -> dict[str, Any]:
    return {"properties": {"desired": properties}}


def values(section: dict[str, Any]) -> dict[str, Any]:
    """Leave out the hub's own members."""
    return {name: value for name, value in section.items() if not name.startswith("$")}


# --- the document


def test_a_fresh_twin_is_as_a_hub_writes_it(service: Service, device: Device) -> None:
    response = service.request("GET", f"/twins/{device.id}")
    assert "ETag" not in response.headers
    twin = response.json()
    assert list(twin) == MEMBERS  # no tags while there are none
    identity = service.request("GET", f"/devices/{device.id}").json()
    moments = [section["$metadata"].pop("$lastUpdated") for section in twin["properties"].values()]
    assert all(MOMENT.fullmatch(moment) for moment in moments)
    assert moments > ["2020", "2020"]  # the device's creation, not .NET's year 1
    assert twin == {
        "deviceId": device.id,
        "etag": FIRST_ETAG,
        "deviceEtag": identity["etag"],
        "status": "enabled",
        "statusUpdateTime": "0001-01-01T00:00:00Z",
        "connectionState": "Disconnected",
        "lastActivityTime": "0001-01-01T00:00:00Z",
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


def test_every_optional_member_has_its_place(service: Service, device: Device) -> None:
    identity = {"deviceId": device.id, "status": "disabled", "statusReason": "lost"}
    service.request("PUT", f"/devices/{device.id}", json=identity, headers={"If-Match": "*"})
    twin = write(service, device, "PATCH", {"tags": {"a": 1}})
    members = list(MEMBERS)
    members.insert(members.index("status") + 1, "statusReason")
    members.insert(members.index("version") + 1, "tags")
    assert list(twin) == members
    assert twin["statusReason"] == "lost"
    assert MOMENT.fullmatch(twin["statusUpdateTime"])


def test_the_members_of_a_section_come_before_the_hubs_own(
    service: Service, device: Device
) -> None:
    twin = write(service, device, "PATCH", desired({"b": {"z": 1, "a": 2}, "a": [1, {"c": 2}]}))
    section = twin["properties"]["desired"]
    assert list(section) == ["b", "a", "$metadata", "$version"]
    metadata = section["$metadata"]
    assert list(metadata) == ["$lastUpdated", "$lastUpdatedVersion", "b", "a"]
    assert list(metadata["b"]) == ["$lastUpdated", "$lastUpdatedVersion", "z", "a"]
    assert list(metadata["a"]) == ["$lastUpdated", "$lastUpdatedVersion"]


def test_a_connection_shows_in_the_twin(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with MethodDevice(emulator, device, silence):
        online = read(service, device)
    offline = read(service, device)
    assert (online["connectionState"], offline["connectionState"]) == ("Connected", "Disconnected")
    assert online["lastActivityTime"] > "2020"
    # The etag is the services' own: neither a connection nor its end moves it.
    assert (online["etag"], offline["etag"]) == (FIRST_ETAG, FIRST_ETAG)


def test_a_modules_twin_is_a_document_of_its_own(service: Service, device: Device) -> None:
    identity = {"deviceId": device.id, "moduleId": "m"}
    identity = service.request("PUT", f"/devices/{device.id}/modules/m", json=identity).json()
    path = f"/twins/{device.id}/modules/m"
    response = service.request("GET", path)
    assert "ETag" not in response.headers
    twin = response.json()
    members = ["deviceId", "moduleId", *MEMBERS[1:]]
    members.remove("capabilities")
    assert list(twin) == members
    assert (twin["deviceId"], twin["moduleId"]) == (device.id, "m")
    assert (twin["etag"], twin["version"]) == (FIRST_ETAG, 2)
    assert twin["deviceEtag"] == identity["etag"]
    metadata = [section["$metadata"] for section in twin["properties"].values()]
    assert metadata == [{"$lastUpdated": "0001-01-01T00:00:00Z"}] * 2

    for verb in WRITES:
        body: dict[str, Any] = {
            "tags": {"of": "the module", "by": verb},
            **desired({"a": verb}),
        }
        twin = service.request(verb, path, json=body, headers={"If-Match": "*"}).json()
        assert twin["tags"] == {"of": "the module", "by": verb}
        assert values(twin["properties"]["desired"]) == {"a": verb}
    assert "tags" not in read(service, device)


@pytest.mark.parametrize("device_is_there", [True, False])
def test_a_module_that_is_not_registered_is_not_found_as_a_device(
    service: Service, device: Device, device_is_there: bool
) -> None:
    device_id = device.id if device_is_there else "nobody"
    for verb in ("GET", *WRITES):
        body: dict[str, Any] | None = None if verb == "GET" else {"tags": {}}
        response = service.request(verb, f"/twins/{device_id}/modules/nothing", json=body)
        check_error(response, 404, "DeviceNotFound")


# --- versions and metadata


def test_versions_and_etags_count_the_writes(
    service: Service, device: Device, emulator: Emulator
) -> None:
    def counters() -> tuple[str, int, int, int]:
        twin = read(service, device)
        sections = twin["properties"]
        return (
            twin["etag"],
            twin["version"],
            sections["desired"]["$version"],
            sections["reported"]["$version"],
        )

    assert counters() == (FIRST_ETAG, 2, 1, 1)
    with MethodDevice(emulator, device, silence) as connected:
        write(service, device, "PATCH", desired({"a": 1}))
        assert counters() == (SECOND_ETAG, 3, 2, 1)
        connected.report('{"a": 1}')
        assert counters() == (SECOND_ETAG, 4, 2, 2)
        connected.report('{"b": 2.50}')
        assert counters() == (SECOND_ETAG, 5, 2, 3)
        write(service, device, "PATCH", {"tags": {"a": 1}})
        etag, _, desired_version, reported_version = counters()
        assert (etag, desired_version, reported_version) == ("AAAAAAAAAAM=", 2, 3)
        write(service, device, "PUT", {})
        etag, _, desired_version, reported_version = counters()
        assert (etag, desired_version, reported_version) == ("AAAAAAAAAAQ=", 3, 3)
    # What a device reports comes to the service as the device wrote it.
    assert '"b":2.50' in service.request("GET", f"/twins/{device.id}").text


def test_metadata_is_dated_along_the_path_of_a_write(service: Service, device: Device) -> None:
    write(service, device, "PATCH", desired({"a": {"x": 1, "y": 1}, "b": 1}))
    before = read(service, device)["properties"]["desired"]["$metadata"]
    twin = write(service, device, "PATCH", desired({"a": {"x": 2, "y": None}}))
    after = twin["properties"]["desired"]["$metadata"]
    for node in (after, after["a"], after["a"]["x"]):
        assert node["$lastUpdatedVersion"] == 3
        assert MOMENT.fullmatch(node["$lastUpdated"])
        assert node["$lastUpdated"] > before["$lastUpdated"]
    assert "y" not in after["a"]
    assert after["b"] == before["b"] == {**before["b"], "$lastUpdatedVersion": 2}
    assert "$lastUpdatedVersion" not in twin["properties"]["reported"]["$metadata"]


# --- writing


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"b": None}, {"a": {"x": 1, "y": [1, 2]}, "c": "text"}),
        ({"a": None, "b": None}, {"c": "text"}),
        ({"a": {"x": None}}, {"a": {"y": [1, 2]}, "b": True, "c": "text"}),
        ({"a": {"x": None, "y": None}}, {"a": {}, "b": True, "c": "text"}),
        ({"a": {"y": [3]}}, {"a": {"x": 1, "y": [3]}, "b": True, "c": "text"}),
        ({"a": {}}, {"a": {"x": 1, "y": [1, 2]}, "b": True, "c": "text"}),
        ({"a": 5}, {"a": 5, "b": True, "c": "text"}),
        ({"c": {"d": {"e": None}}}, {"a": {"x": 1, "y": [1, 2]}, "b": True, "c": {"d": {}}}),
        ({"é": "ü€😀"}, {"a": {"x": 1, "y": [1, 2]}, "b": True, "c": "text", "é": "ü€😀"}),
        ({"": 0}, {"a": {"x": 1, "y": [1, 2]}, "b": True, "c": "text", "": 0}),
    ],
)
def test_patch_merges_tags_and_desired_alike(
    service: Service, device: Device, patch: dict[str, Any], result: dict[str, Any]
) -> None:
    document = {"a": {"x": 1, "y": [1, 2]}, "b": True, "c": "text"}
    write(service, device, "PUT", {"tags": document, **desired(document)})
    twin = write(service, device, "PATCH", {"tags": patch, **desired(patch)})
    assert twin["tags"] == result
    assert values(twin["properties"]["desired"]) == result


def test_patch_leaves_alone_what_it_does_not_name(service: Service, device: Device) -> None:
    write(service, device, "PATCH", {"tags": {"a": 1}, **desired({"b": 2})})
    after_tags = write(service, device, "PATCH", {"tags": {"c": 3}})
    assert after_tags["tags"] == {"a": 1, "c": 3}
    assert values(after_tags["properties"]["desired"]) == {"b": 2}
    after_desired = write(service, device, "PATCH", desired({"d": 4}))
    assert after_desired["tags"] == {"a": 1, "c": 3}
    assert values(after_desired["properties"]["desired"]) == {"b": 2, "d": 4}


def test_put_replaces_tags_and_desired_and_leaves_reported(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with MethodDevice(emulator, device, silence) as connected:
        connected.report('{"r": 1}')
    first = {"tags": {"a": 1, "b": {"c": 1}}, **desired({"d": 1, "e": 1})}
    write(service, device, "PUT", first)
    twin = write(service, device, "PUT", {"tags": {"z": 1}, **desired({"d": 2})})
    assert twin["tags"] == {"z": 1}
    section = twin["properties"]["desired"]
    assert values(section) == {"d": 2}
    assert set(values(section["$metadata"])) == {"d"}
    assert values(twin["properties"]["reported"]) == {"r": 1}
    # A part that is left out is emptied.
    twin = write(service, device, "PUT", {"tags": {"z": 1}})
    assert values(twin["properties"]["desired"]) == {}
    twin = write(service, device, "PUT", desired({"d": 1}))
    assert "tags" not in twin
    assert values(twin["properties"]["reported"]) == {"r": 1}


@pytest.mark.parametrize("verb", WRITES)
def test_a_whole_twin_may_be_sent_back(
    service: Service, device: Device, emulator: Emulator, verb: str
) -> None:
    with MethodDevice(emulator, device, silence) as connected:
        connected.report('{"r": 1}')
    write(service, device, "PATCH", {"tags": {"a": 1}, **desired({"b": {"c": 1}})})
    before = read(service, device)
    changed = json.loads(json.dumps(before))
    changed["tags"]["a"] = 2
    changed["properties"]["desired"]["b"]["c"] = 2
    changed["properties"]["reported"]["r"] = 2  # a device's own
    changed["status"] = "disabled"
    changed["deviceId"] = "somebody-else"
    changed["version"] = 99
    after = write(service, device, verb, changed)
    assert after["tags"] == {"a": 2}
    assert values(after["properties"]["desired"]) == {"b": {"c": 2}}
    assert after["properties"]["desired"]["$version"] == 3
    assert after["properties"]["reported"] == before["properties"]["reported"]
    assert (after["status"], after["deviceId"]) == ("enabled", device.id)
    assert after["etag"] == "AAAAAAAAAAM="


NUMBERS = ["1.0", "1", "1e5", "1E5", "1e+05", "1e-07", "-0", "-0.0", "1.50", "1.5e300", "0.1"]


@pytest.mark.parametrize("verb", WRITES)
def test_numbers_come_back_as_they_were_written(
    service: Service, device: Device, verb: str
) -> None:
    members = ",".join(f'"n{index}":{number}' for index, number in enumerate(NUMBERS))
    body = f'{{"tags":{{{members},"array":[{",".join(NUMBERS)}]}}}}'
    response = service.request(verb, f"/twins/{device.id}", data=body)
    assert response.status_code == 200, response.text
    for text in (response.text, service.request("GET", f"/twins/{device.id}").text):
        tags = json.loads(text, parse_float=str, parse_int=str)["tags"]
        assert tags["array"] == NUMBERS
        assert [tags[f"n{index}"] for index in range(len(NUMBERS))] == NUMBERS


# --- preconditions


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("header", [None, "*", '"*"', FIRST_ETAG, f'"{FIRST_ETAG}"', '""'])
def test_a_write_passes_whose_etag_matches(
    service: Service, device: Device, verb: str, header: str | None
) -> None:
    response = service.request(
        verb, f"/twins/{device.id}", json={"tags": {"a": 1}}, headers={"If-Match": header}
    )
    assert response.status_code == 200
    assert "ETag" not in response.headers
    assert response.json()["etag"] == SECOND_ETAG


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("header", [SECOND_ETAG, f'"{SECOND_ETAG}"', '"x"'])
def test_a_stale_etag_stops_a_write(
    service: Service, device: Device, verb: str, header: str
) -> None:
    before = read(service, device)
    response = service.request(
        verb, f"/twins/{device.id}", json={"tags": {"a": 1}}, headers={"If-Match": header}
    )
    text = check_error(response, 412, "PreconditionFailed")
    assert text == f"ETag mismatch for device ID '{device.id}'"
    assert read(service, device) == before


@pytest.mark.parametrize("verb", WRITES)
def test_the_etag_in_a_body_is_no_precondition(service: Service, device: Device, verb: str) -> None:
    twin = write(service, device, verb, {"etag": "AAAAAAAAAGM=", "tags": {"a": 1}})
    assert twin["etag"] == SECOND_ETAG


def test_writers_in_parallel_lose_nothing(service: Service, device: Device) -> None:
    def write_tag(number: int) -> int:
        body = {"tags": {f"writer{number}": number}}
        headers: dict[str, str | None] = {"If-Match": '"*"'}
        path = f"/twins/{device.id}"
        return service.request("PATCH", path, json=body, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write_tag, range(30))) == {200}
    twin = read(service, device)
    assert twin["tags"] == {f"writer{number}": number for number in range(30)}
    assert twin["etag"] == "AAAAAAAAAB8="  # 31


# --- what is refused


def nested(levels: int) -> Any:
    """Make a section with so many levels of objects below it, and a scalar in the last one."""
    section: dict[str, Any] = {"scalar": 1}
    for _ in range(levels):
        section = {"o": section}
    return section


FULL_TAGS = dict.fromkeys("ab", "x" * 4095)  # 2 * (1 + 4095) is 8 KB
FULL_DESIRED = dict.fromkeys("abcdefgh", "x" * 4095)  # 32 KB

WITHIN_LIMITS: dict[str, dict[str, Any]] = {
    "8 KB of tags": {"tags": FULL_TAGS},
    "32 KB of desired properties": desired(FULL_DESIRED),
    "ten levels of objects": {"tags": nested(10), **desired(nested(10))},
    "a key of 1 KB": desired({"k" * 1024: 1}),
    "a string of 4 KB": {"tags": {"a": "x" * 4096}},
    "the largest integers": desired({"a": 4503599627370495, "b": -4503599627370496}),
    "a float beyond the integers": desired({"a": 1e20}),
    "an empty object": {"tags": {"a": {}}, **desired({"a": {}})},
}
BEYOND_LIMITS: dict[str, dict[str, Any]] = {
    "over 8 KB of tags": {"tags": {**FULL_TAGS, "c": ""}},
    "over 32 KB of desired properties": desired({**FULL_DESIRED, "i": ""}),
    "eleven levels of objects in tags": {"tags": nested(11)},
    "eleven levels of objects in desired": desired(nested(11)),
    "a key over 1 KB": desired({"k" * 1025: 1}),
    "a key over 1 KB in UTF-8": desired({"é" * 513: 1}),
    "a string over 4 KB": {"tags": {"a": "x" * 4097}},
    "a string over 4 KB in UTF-8": {"tags": {"a": "é" * 2049}},
    "too large an integer": desired({"a": 4503599627370496}),
    "too small an integer": desired({"a": -4503599627370497}),
    "an integer of 30 digits": desired({"a": 10**30}),
    "null in an array": {"tags": {"a": [1, None]}},
    "tags that are no object": {"tags": [1]},
    "desired that is no object": desired("text"),
    "properties that are no object": {"properties": 1},
    **{
        f"{character!a} in a key": desired({"a": {f"b{character}c": 1}})
        for character in (".", "$", " ", "#", "\n", "\x1f", "\x85")
    },
    "$ before a deeper key": {"tags": {"a": {"$b": 1}}},
    "one bad key among good ones": {"tags": {"good": 1}, **desired({"good": 1, "b.d": 1})},
}


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("body", WITHIN_LIMITS.values(), ids=WITHIN_LIMITS.keys())
def test_what_is_within_the_limits_is_taken(
    service: Service, device: Device, verb: str, body: dict[str, Any]
) -> None:
    twin = write(service, device, verb, body)
    assert twin.get("tags", {}) == body.get("tags", {})
    given = body.get("properties", {}).get("desired", {})
    assert values(twin["properties"]["desired"]) == given


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("body", BEYOND_LIMITS.values(), ids=BEYOND_LIMITS.keys())
def test_what_is_beyond_the_limits_is_refused_as_a_whole(
    service: Service, device: Device, verb: str, body: dict[str, Any]
) -> None:
    before = read(service, device)
    response = service.request(verb, f"/twins/{device.id}", json=body)
    assert check_error(response, 400, "ArgumentInvalid") != "BadRequest"
    assert read(service, device) == before


def test_a_section_is_measured_after_the_patch(service: Service, device: Device) -> None:
    write(service, device, "PATCH", {"tags": FULL_TAGS})
    response = service.request("PATCH", f"/twins/{device.id}", json={"tags": {"c": 1}})
    check_error(response, 400, "ArgumentInvalid")
    # As much leaves as comes.
    twin = write(service, device, "PATCH", {"tags": {"a": None, "c": "x" * 4095}})
    assert set(twin["tags"]) == {"b", "c"}


@pytest.mark.parametrize("verb", ["GET", *WRITES])
def test_a_device_that_is_not_registered_has_no_twin(service: Service, verb: str) -> None:
    body: dict[str, Any] | None = None if verb == "GET" else {"tags": {}}
    response = service.request(verb, "/twins/nobody", json=body, headers={"If-Match": "*"})
    assert check_error(response, 404, "DeviceNotFound") == "nobody"


def test_the_twin_of_a_disabled_device_still_works(service: Service, device: Device) -> None:
    identity = {"deviceId": device.id, "status": "disabled"}
    response = service.request(
        "PUT", f"/devices/{device.id}", json=identity, headers={"If-Match": "*"}
    )
    assert response.status_code == 200
    assert read(service, device)["status"] == "disabled"
    for verb in WRITES:
        twin = write(service, device, verb, {"tags": {verb: 1}, **desired({verb: 1})})
        assert (twin["tags"][verb], twin["properties"]["desired"][verb]) == (1, 1)


def test_the_tracking_id_of_an_error_names_no_gateway(service: Service, device: Device) -> None:
    response = service.request("GET", f"/twins/no-{device.id}")
    check_error(response, 404, "DeviceNotFound")
    assert "-G:" not in response.json()["ExceptionMessage"]
