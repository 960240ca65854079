from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from emulator import Emulator
from tests.http.support import MethodDevice, check_error, put_device, silence
from tests.support import Device, Service

MEMBERS = [
    "deviceId",
    "generationId",
    "etag",
    "connectionState",
    "status",
    "statusReason",
    "connectionStateUpdatedTime",
    "statusUpdatedTime",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authentication",
    "capabilities",
]
TIMES = ["connectionStateUpdatedTime", "statusUpdatedTime", "lastActivityTime"]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?Z")
ANY: dict[str, str | None] = {"If-Match": "*"}

SHA1 = "0123456789abcdefABCDEF0123456789abcdefAB"
SHA256 = "F" * 64


def new_id() -> str:
    return f"device-{uuid.uuid4().hex}"


def key_of(length: int) -> str:
    return base64.b64encode(bytes(range(length))).decode()


def sas(primary: object, secondary: object) -> dict[str, Any]:
    return {
        "type": "sas",
        "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary},
    }


def update(service: Service, device_id: str, **members: Any) -> dict[str, Any]:
    body = {"deviceId": device_id, **members}
    response = service.request("PUT", f"/devices/{device_id}", json=body, headers=ANY)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def revision(document: dict[str, Any]) -> int:
    """Read the number in an etag."""
    digits = base64.b64decode(document["etag"], validate=True).decode()
    assert re.fullmatch(r"\d{8,10}", digits)
    return int(digits)


# --- reading


def test_a_device_is_read_with_its_etag(service: Service, device: Device) -> None:
    response = service.request("GET", f"/devices/{device.id}")
    assert response.status_code == 200
    assert response.json()["deviceId"] == device.id
    assert response.headers["ETag"] == f'"{response.json()["etag"]}"'


def test_a_device_is_read_as_a_hub_writes_it(service: Service) -> None:
    device_id = new_id()
    created = put_device(service, device_id)
    document = service.request("GET", f"/devices/{device_id}").json()
    assert list(document) == MEMBERS
    for name in TIMES:
        assert document[name] == "0001-01-01T00:00:00Z"
        created[name] += "Z"
    del created["parentScopes"]
    assert document == created


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_a_device_that_is_not_registered_is_not_found(service: Service, verb: str) -> None:
    response = service.request(verb, "/devices/nobody", headers=ANY)
    assert check_error(response, 404, "DeviceNotFound") == "nobody"


def test_a_connection_shows_in_the_identity(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with MethodDevice(emulator, device, silence):
        online = service.request("GET", f"/devices/{device.id}").json()
    offline = service.request("GET", f"/devices/{device.id}").json()
    assert (online["connectionState"], offline["connectionState"]) == ("Connected", "Disconnected")
    for document in (online, offline):
        assert MOMENT.fullmatch(document["connectionStateUpdatedTime"])
        assert MOMENT.fullmatch(document["lastActivityTime"])
    assert online["connectionStateUpdatedTime"] < offline["connectionStateUpdatedTime"]
    assert online["etag"] == offline["etag"]


# --- creating


def test_a_device_is_created_from_its_id_alone(service: Service) -> None:
    device_id = new_id()
    response = service.request("PUT", f"/devices/{device_id}", json={"deviceId": device_id})
    assert response.status_code == 200
    document = response.json()
    assert list(document) == [*MEMBERS, "parentScopes"]
    assert response.headers["ETag"] == f'"{document["etag"]}"'
    assert revision(document) > 0
    assert re.fullmatch(r"\d{18}", document["generationId"])
    symmetric_key = document["authentication"].pop("symmetricKey")
    keys = [symmetric_key[name] for name in ("primaryKey", "secondaryKey")]
    assert [len(base64.b64decode(key, validate=True)) for key in keys] == [32, 32]
    assert keys[0] != keys[1]
    expected: dict[str, Any] = {
        "deviceId": device_id,
        "connectionState": "Disconnected",
        "status": "enabled",
        "statusReason": None,
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
            "type": "sas",
        },
        "capabilities": {"iotEdge": False},
        "parentScopes": [],
        # Without the Z that every later answer has.
        **dict.fromkeys(TIMES, "0001-01-01T00:00:00"),
    }
    assert {name: document[name] for name in expected} == expected


def test_a_text_that_looks_like_a_time_stays_as_it_is(service: Service) -> None:
    reason = "0001-01-01T00:00:00Z"
    assert put_device(service, new_id(), statusReason=reason)["statusReason"] == reason


@pytest.mark.parametrize("length", [16, 32, 64])
def test_keys_come_back_as_they_were_given(service: Service, length: int) -> None:
    authentication = sas(key_of(length), base64.b64encode(b"s" * length).decode())
    device_id = new_id()
    created = put_device(service, device_id, authentication=authentication)
    read = service.request("GET", f"/devices/{device_id}").json()
    for document in (created, read):
        assert document["authentication"]["symmetricKey"] == authentication["symmetricKey"]


@pytest.mark.parametrize(
    "authentication",
    [None, {}, {"type": "sas"}, {"type": "sas", "symmetricKey": None}, sas("", ""), sas(None, "")],
)
def test_keys_that_are_not_given_are_generated(service: Service, authentication: Any) -> None:
    document = put_device(service, new_id(), authentication=authentication)
    keys = document["authentication"]["symmetricKey"].values()
    assert [len(base64.b64decode(key)) for key in keys] == [32, 32]


GOOD_KEY = key_of(32)
LENGTH = "Invalid device key length"
BOTH = "Either no keys or both keys can be set"


@pytest.mark.parametrize(
    ("primary", "secondary", "text"),
    [
        (GOOD_KEY, None, BOTH),
        (GOOD_KEY, "", BOTH),
        (None, GOOD_KEY, BOTH),
        (key_of(15), key_of(15), LENGTH),
        (GOOD_KEY, key_of(65), LENGTH),
        ("not base64!", GOOD_KEY, ""),
        (GOOD_KEY, GOOD_KEY.rstrip("="), ""),
        (GOOD_KEY, f"{GOOD_KEY}\n", ""),
        (GOOD_KEY, 42, ""),
        (["a"], GOOD_KEY, ""),
    ],
)
def test_a_key_that_is_none_is_refused(
    service: Service, primary: object, secondary: object, text: str
) -> None:
    device_id = new_id()
    body = {"deviceId": device_id, "authentication": sas(primary, secondary)}
    response = service.request("PUT", f"/devices/{device_id}", json=body)
    assert text in check_error(response, 400, "ArgumentInvalid")
    # A refusal must not show what may be a key with a typing error.
    assert "not base64!" not in response.text
    check_error(service.request("GET", f"/devices/{device_id}"), 404, "DeviceNotFound")


NO_KEYS = {"primaryKey": None, "secondaryKey": None}
NO_THUMBPRINTS = {"primaryThumbprint": None, "secondaryThumbprint": None}
THUMBPRINTS = {"primaryThumbprint": SHA1, "secondaryThumbprint": SHA256}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (
            {"type": "selfSigned", "x509Thumbprint": THUMBPRINTS},
            {"symmetricKey": NO_KEYS, "x509Thumbprint": THUMBPRINTS, "type": "selfSigned"},
        ),
        (  # the thumbprints tell the type
            {"x509Thumbprint": {"primaryThumbprint": "0" * 40}},
            {
                "symmetricKey": NO_KEYS,
                "x509Thumbprint": {"primaryThumbprint": "0" * 40, "secondaryThumbprint": None},
                "type": "selfSigned",
            },
        ),
        (
            {"type": "certificateAuthority"},
            {
                "symmetricKey": NO_KEYS,
                "x509Thumbprint": NO_THUMBPRINTS,
                "type": "certificateAuthority",
            },
        ),
        (  # the keys tell the type
            {"symmetricKey": {"primaryKey": GOOD_KEY, "secondaryKey": GOOD_KEY}},
            {
                "symmetricKey": {"primaryKey": GOOD_KEY, "secondaryKey": GOOD_KEY},
                "x509Thumbprint": NO_THUMBPRINTS,
                "type": "sas",
            },
        ),
    ],
)
def test_each_kind_of_authentication_is_kept(
    service: Service, given: dict[str, Any], kept: dict[str, Any]
) -> None:
    document = put_device(service, new_id(), authentication=given)
    assert document["authentication"] == kept
    assert list(document["authentication"]) == ["symmetricKey", "x509Thumbprint", "type"]


@pytest.mark.parametrize(
    ("authentication", "text"),
    [
        ({"type": "none"}, "DeviceAuthenticationTypeIsMissing"),
        ({"type": "password"}, ""),
        ({"type": 7}, ""),
        ("sas", ""),
        ({"symmetricKey": "secret"}, ""),
        ({"x509Thumbprint": {"primaryThumbprint": ":".join(["AB"] * 20)}}, "StringIsNotThumbprint"),
        ({"x509Thumbprint": {"primaryThumbprint": "A" * 39}}, "StringIsNotThumbprint"),
        ({"x509Thumbprint": {"secondaryThumbprint": "G" * 40}}, "StringIsNotThumbprint"),
        ({"x509Thumbprint": {"primaryThumbprint": 7}}, "StringIsNotThumbprint"),
    ],
)
def test_authentication_that_makes_no_sense_is_refused(
    service: Service, authentication: object, text: str
) -> None:
    device_id = new_id()
    body = {"deviceId": device_id, "authentication": authentication}
    response = service.request("PUT", f"/devices/{device_id}", json=body)
    assert text in check_error(response, 400, "ArgumentInvalid")


@pytest.mark.parametrize(
    "members",
    [
        {"status": "unknown"},
        {"status": 1},
        {"statusReason": 1},
        {"statusReason": "x" * 129},
        {"capabilities": []},
        {"capabilities": {"iotEdge": "yes"}},
    ],
)
def test_a_member_of_the_wrong_kind_is_refused(
    service: Service, device: Device, members: dict[str, Any]
) -> None:
    before = service.request("GET", f"/devices/{device.id}").json()
    response = service.request(
        "PUT", f"/devices/{device.id}", json={"deviceId": device.id, **members}, headers=ANY
    )
    check_error(response, 400, "ArgumentInvalid")
    assert service.request("GET", f"/devices/{device.id}").json() == before


# --- ids


def encode_as_javascript(text: str) -> str:
    """Encode as encodeURIComponent does."""
    return quote(text, safe="-_.!~*'()")


def encode_everything(text: str) -> str:
    return "".join(f"%{ord(character):02x}" for character in text)


@pytest.mark.parametrize("encode", [encode_as_javascript, encode_everything])
def test_an_id_may_hold_every_allowed_character(
    service: Service, encode: Callable[[str], str]
) -> None:
    suffix = uuid.uuid4().hex
    for device_id in (f"-.+%_#*?!(),=@$':;aZ09{suffix}", f"%41%2F%252e%{suffix}", f"${suffix}"):
        path = f"/devices/{encode(device_id)}"
        created = service.request("PUT", path, json={"deviceId": device_id})
        assert created.status_code == 200, created.text
        read = service.request("GET", path)
        assert read.json()["deviceId"] == device_id
        assert service.request("GET", f"/twins/{encode(device_id)}").json()["deviceId"] == device_id
        assert service.request("DELETE", path, headers=ANY).status_code == 204


@pytest.mark.parametrize("character", list(' /\\{}[]<>|^`~"&é€\x01\x7f'), ids=ascii)
def test_no_other_character_is_allowed_in_an_id(service: Service, character: str) -> None:
    device_id = f"a{character}b"
    path = f"/devices/{quote(device_id, safe='')}"
    response = service.request("PUT", path, json={"deviceId": device_id})
    check_error(response, 400, "ArgumentInvalid")


def test_an_id_has_128_characters_at_most(service: Service) -> None:
    longest = new_id().ljust(128, "x")
    assert put_device(service, longest)["deviceId"] == longest
    too_long = f"{longest}x"
    response = service.request("PUT", f"/devices/{too_long}", json={"deviceId": too_long})
    check_error(response, 400, "ArgumentInvalid")


def test_ids_differ_by_case(service: Service) -> None:
    device_id = new_id()
    put_device(service, device_id)
    check_error(service.request("GET", f"/devices/{device_id.upper()}"), 404, "DeviceNotFound")


@pytest.mark.parametrize("change", [str.upper, lambda name: f"{name}x", lambda name: None])
def test_the_id_in_the_body_must_be_that_of_the_url(
    service: Service, change: Callable[[str], str | None]
) -> None:
    device_id = new_id()
    body = {"deviceId": change(device_id)}
    response = service.request("PUT", f"/devices/{device_id}", json=body)
    assert response.status_code == 400
    check_error(response, 400, response.headers["iothub-errorcode"])
    check_error(service.request("GET", f"/devices/{device_id}"), 404, "DeviceNotFound")


# --- preconditions

CURRENT = "<the current etag>"


@pytest.mark.parametrize("if_match", [None, '""', f'"{CURRENT}"', CURRENT, "*", '"*"', '"AAAA"'])
def test_put_creates_a_device_only_without_a_precondition(
    service: Service, device: Device, if_match: str | None
) -> None:
    creates = if_match in (None, '""')
    header = if_match and if_match.replace(CURRENT, "MTIzNDU2Nzg5")
    device_id = new_id()
    response = service.request(
        "PUT", f"/devices/{device_id}", json={"deviceId": device_id}, headers={"If-Match": header}
    )
    if creates:
        assert response.status_code == 200
    else:
        assert check_error(response, 404, "DeviceNotFound") == device_id


@pytest.mark.parametrize("if_match", [f'"{CURRENT}"', CURRENT, "*", '"*"'])
def test_put_updates_a_device_whose_etag_matches(
    service: Service, device: Device, if_match: str
) -> None:
    before = service.request("GET", f"/devices/{device.id}").json()
    response = service.request(
        "PUT",
        f"/devices/{device.id}",
        json=before,
        headers={"If-Match": if_match.replace(CURRENT, before["etag"])},
    )
    assert response.status_code == 200
    after = response.json()
    assert list(after) == MEMBERS
    assert response.headers["ETag"] == f'"{after["etag"]}"'
    assert revision(after) == revision(before) + 1
    # Nothing else has changed: the document was sent back as it was read.
    assert {**after, "etag": ""} == {**before, "etag": ""}


@pytest.mark.parametrize("if_match", ['"MTIzNDU2Nzg5"', "MTIzNDU2Nzg5", '"**"'])
def test_a_stale_etag_stops_an_update(service: Service, device: Device, if_match: str) -> None:
    before = service.request("GET", f"/devices/{device.id}").json()
    response = service.request(
        "PUT",
        f"/devices/{device.id}",
        json={**before, "status": "disabled"},
        headers={"If-Match": if_match},
    )
    text = check_error(response, 412, "PreconditionFailed")
    assert text.startswith("PreconditionFailed")
    assert service.request("GET", f"/devices/{device.id}").json() == before


@pytest.mark.parametrize("if_match", [None, '""'])
def test_a_device_is_not_created_twice(
    service: Service, device: Device, if_match: str | None
) -> None:
    before = service.request("GET", f"/devices/{device.id}").json()
    # The etag in the body is no precondition, and If-None-Match is ignored.
    headers = {"If-Match": if_match, "If-None-Match": '"x"'}
    response = service.request("PUT", f"/devices/{device.id}", json=before, headers=headers)
    text = check_error(response, 409, "DeviceAlreadyExists")
    assert text == f"A device with ID '{device.id}' is already registered."
    assert service.request("GET", f"/devices/{device.id}").json() == before


# --- updating


def test_an_update_replaces_everything(service: Service) -> None:
    device_id = new_id()
    created = put_device(service, device_id, status="disabled", statusReason="broken")
    assert created["statusReason"] == "broken"
    updated = update(service, device_id)
    assert (updated["status"], updated["statusReason"]) == ("enabled", None)
    old, new = (document["authentication"]["symmetricKey"] for document in (created, updated))
    assert not set(old.values()) & set(new.values())


def test_only_a_change_of_status_is_dated(service: Service) -> None:
    device_id = new_id()
    put_device(service, device_id)
    never = update(service, device_id, statusReason="still enabled")["statusUpdatedTime"]
    assert never == "0001-01-01T00:00:00Z"
    disabled = update(service, device_id, status="disabled", statusReason="x" * 128)
    assert disabled["status"] == "disabled"
    assert disabled["statusReason"] == "x" * 128
    moment = disabled["statusUpdatedTime"]
    assert MOMENT.fullmatch(moment)
    assert moment > never
    assert update(service, device_id, status="disabled")["statusUpdatedTime"] == moment
    assert update(service, device_id, status="enabled")["statusUpdatedTime"] > moment


def test_each_write_adds_one_to_the_etag(service: Service) -> None:
    device_id = new_id()
    created = put_device(service, device_id)
    documents = [created, *(update(service, device_id) for _ in range(3))]
    first = revision(created)
    assert [revision(document) - first for document in documents] == [0, 1, 2, 3]
    assert len({document["generationId"] for document in documents}) == 1
    # A twin's etag is another one; it stays.
    twin = service.request("GET", f"/twins/{device_id}").json()
    assert (twin["etag"], twin["deviceEtag"]) == ("AAAAAAAAAAE=", documents[-1]["etag"])


def test_members_that_only_the_hub_sets_are_ignored(service: Service) -> None:
    device_id = new_id()
    made_up = {
        "generationId": "1",
        "etag": "MTIz",
        "connectionState": "Connected",
        "connectionStateUpdatedTime": "2020-01-01T00:00:00Z",
        "statusUpdatedTime": "2020-01-01T00:00:00Z",
        "lastActivityTime": "2020-01-01T00:00:00Z",
        "cloudToDeviceMessageCount": 7,
        "somethingElse": {"a": [1]},
    }
    put_device(service, device_id, **made_up)
    update(service, device_id, **made_up)
    document = service.request("GET", f"/devices/{device_id}").json()
    assert [name for name, value in made_up.items() if document.get(name) == value] == []


def test_disabling_a_device_drops_its_connection(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with MethodDevice(emulator, device, silence) as connected:
        document = update(service, device.id, status="disabled")
        connected.wait_until_gone()
    assert document["connectionState"] == "Disconnected"


# --- deleting


@pytest.mark.parametrize("if_match", [f'"{CURRENT}"', CURRENT, "*", '"*"'])
def test_a_device_is_deleted_with_its_twin(service: Service, device: Device, if_match: str) -> None:
    etag = service.request("GET", f"/devices/{device.id}").json()["etag"]
    headers: dict[str, str | None] = {"If-Match": if_match.replace(CURRENT, etag)}
    response = service.request("DELETE", f"/devices/{device.id}", headers=headers)
    assert (response.status_code, response.content) == (204, b"")
    for path in (f"/devices/{device.id}", f"/twins/{device.id}"):
        text = check_error(service.request("GET", path), 404, "DeviceNotFound")
        assert text == device.id
    listed = service.request("GET", "/devices").json()
    assert device.id not in [document["deviceId"] for document in listed]


@pytest.mark.parametrize(
    ("if_match", "text"), [(None, "Etag missing"), ('""', "Etag missing"), ('"MTIz"', "")]
)
def test_a_device_is_not_deleted_without_its_etag(
    service: Service, device: Device, if_match: str | None, text: str
) -> None:
    response = service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": if_match})
    assert text in check_error(response, 412, "PreconditionFailed")
    assert service.request("GET", f"/devices/{device.id}").status_code == 200


def test_a_device_that_is_created_again_is_a_new_one(service: Service, device: Device) -> None:
    before = service.request("GET", f"/devices/{device.id}").json()
    service.request("PATCH", f"/twins/{device.id}", json={"tags": {"a": 1}})
    assert service.request("DELETE", f"/devices/{device.id}", headers=ANY).status_code == 204
    after = put_device(service, device.id)
    for member in ("generationId", "etag", "authentication"):
        assert after[member] != before[member]
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert "tags" not in twin
    assert (twin["etag"], twin["version"]) == ("AAAAAAAAAAE=", 2)


# --- listing


def test_devices_are_listed_as_they_are_read(service: Service) -> None:
    ids = [new_id() for _ in range(3)]
    for device_id in ids:
        put_device(service, device_id)
    response = service.request("GET", "/devices")
    assert response.status_code == 200
    listed = {document["deviceId"]: document for document in response.json()}
    for device_id in ids:
        assert listed[device_id] == service.request("GET", f"/devices/{device_id}").json()
        assert list(listed[device_id]) == MEMBERS


@pytest.mark.parametrize("path", ["/devices", "/devices/"])
def test_top_says_how_many_devices_are_listed(service: Service, path: str) -> None:
    for _ in range(3):
        put_device(service, new_id())

    def count(top: str) -> int:
        params = {"api-version": "2021-04-12", "top": top}
        return len(service.request("GET", path, params=params).json())

    assert [count("1"), count("2"), count("003")] == [1, 2, 3]
    # Out of range is 1,000.
    everything = len(service.request("GET", path).json())
    assert everything >= 3
    for top in ("0", "-1", "1000", "1001", "99999999999999999999"):
        assert count(top) == everything


@pytest.mark.parametrize("top", ["", "all", "1.5", "-", "--1", "1e2", "٣"])
def test_top_must_be_a_number(service: Service, top: str) -> None:
    params = {"api-version": "2021-04-12", "top": top}
    check_error(service.request("GET", "/devices", params=params), 400, "ArgumentInvalid")
