"""Device identities over REST."""

import base64
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from emulator import Emulator
from tests.http import support
from tests.support import Device, Service

MEMBERS = [
    *("deviceId", "generationId", "etag", "connectionState", "status", "statusReason"),
    *("connectionStateUpdatedTime", "statusUpdatedTime", "lastActivityTime"),
    *("cloudToDeviceMessageCount", "authentication", "capabilities"),
]
TIMES = [name for name in MEMBERS if name.endswith("Time")]

SHA1 = "0123456789abcdefABCDEF0123456789abcdefAB"
SHA256 = "F" * 64
KEY = base64.b64encode(bytes(range(32))).decode()


def sas(primary: object, secondary: object) -> dict[str, Any]:
    return {"type": "sas", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}


def get(service: Service, device_id: str) -> Any:
    return support.read(service, f"/devices/{device_id}")


def update(service: Service, device_id: str, **members: Any) -> Any:
    response = support.update_device(service, device_id, **members)
    assert response.status_code == 200, response.text
    return response.json()


def check_missing(service: Service, device_id: str) -> None:
    response = service.request("GET", f"/devices/{device_id}")
    assert support.check_error(response, 404, "DeviceNotFound") == device_id


def revision(document: dict[str, Any]) -> int:
    """Return the number in an etag."""
    digits = base64.b64decode(document["etag"], validate=True).decode()
    assert re.fullmatch(r"\d{8,10}", digits)
    return int(digits)


# --- reading


def test_a_device_is_read_as_a_hub_writes_it(service: Service) -> None:
    device_id = support.new_id()
    created = support.put_device(service, device_id)
    response = service.request("GET", f"/devices/{device_id}")
    document = response.json()
    assert response.headers["ETag"] == f'"{document["etag"]}"'
    assert list(document) == MEMBERS
    for name in TIMES:
        assert document[name] == support.NEVER
        created[name] += "Z"
    del created["parentScopes"]
    assert document == created


def test_an_identity_shows_the_connection(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with support.MethodDevice(emulator, device, support.silence):
        online = get(service, device.id)
    offline = get(service, device.id)
    assert (online["connectionState"], offline["connectionState"]) == ("Connected", "Disconnected")
    for document in (online, offline):
        assert support.MOMENT.fullmatch(document["connectionStateUpdatedTime"])
        assert support.MOMENT.fullmatch(document["lastActivityTime"])
    assert online["connectionStateUpdatedTime"] < offline["connectionStateUpdatedTime"]
    assert online["etag"] == offline["etag"]


# --- creating


def test_a_device_is_created_from_its_id_alone(service: Service) -> None:
    device_id = support.new_id()
    response = service.request("PUT", f"/devices/{device_id}", json={"deviceId": device_id})
    assert response.status_code == 200
    document = response.json()
    assert list(document) == [*MEMBERS, "parentScopes"]
    assert response.headers["ETag"] == f'"{document["etag"]}"'
    assert revision(document) > 0
    assert re.fullmatch(r"\d{18}", document["generationId"])
    keys = list(document["authentication"].pop("symmetricKey").values())
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
        **dict.fromkeys(TIMES, support.NEVER[:-1]),
    }
    assert {name: document[name] for name in expected} == expected


def test_a_text_that_looks_like_a_time_is_not_changed(service: Service) -> None:
    assert (
        support.put_device(service, support.new_id(), statusReason=support.NEVER)["statusReason"]
        == support.NEVER
    )


NO_KEYS = {"primaryKey": None, "secondaryKey": None}
NO_THUMBPRINTS = {"primaryThumbprint": None, "secondaryThumbprint": None}
THUMBPRINTS = {"primaryThumbprint": SHA1, "secondaryThumbprint": SHA256}


@pytest.mark.parametrize(
    ("given", "kind", "keys", "thumbprints"),
    [
        (sas(KEY, SHA1 * 2), "sas", {"primaryKey": KEY, "secondaryKey": SHA1 * 2}, NO_THUMBPRINTS),
        ({"type": "selfSigned", "x509Thumbprint": THUMBPRINTS}, "selfSigned", NO_KEYS, THUMBPRINTS),
        # Without a type, the thumbprints show it.
        ({"x509Thumbprint": THUMBPRINTS}, "selfSigned", NO_KEYS, THUMBPRINTS),
        ({"type": "certificateAuthority"}, "certificateAuthority", NO_KEYS, NO_THUMBPRINTS),
    ],
)
def test_each_kind_of_authentication_is_kept(
    service: Service, given: dict[str, Any], kind: str, keys: object, thumbprints: object
) -> None:
    device_id = support.new_id()
    created = support.put_device(service, device_id, authentication=given)
    for document in (created, get(service, device_id)):
        assert list(document["authentication"].items()) == [
            ("symmetricKey", keys),
            ("x509Thumbprint", thumbprints),
            ("type", kind),
        ]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"authentication": sas(KEY, None)}, "Either no keys or both keys can be set"),
        ({"authentication": sas(KEY, "AAAA")}, "Invalid device key length"),
        ({"authentication": sas("not base64!", KEY)}, ""),
        ({"authentication": {"type": "none"}}, "DeviceAuthenticationTypeIsMissing"),
        (
            {"authentication": {"x509Thumbprint": {"primaryThumbprint": SHA1[1:]}}},
            "StringIsNotThumbprint",
        ),
        ({"status": "unknown"}, ""),
        ({"statusReason": "x" * 129}, ""),
        ({"capabilities": {"iotEdge": "yes"}}, ""),
        ({"deviceId": "another"}, ""),
    ],
)
def test_an_invalid_member_is_refused(
    service: Service, device: Device, members: dict[str, Any], text: str
) -> None:
    before, missing = get(service, device.id), support.new_id()
    for device_id, headers in ((missing, None), (device.id, support.ANY)):
        body = {"deviceId": device_id, **members}
        response = service.request("PUT", f"/devices/{device_id}", json=body, headers=headers)
        assert text in support.check_error(response, 400, "ArgumentInvalid")
        # The text may contain a key with a typing error: a refusal must not show it.
        assert "not base64!" not in response.text
    check_missing(service, missing)
    assert get(service, device.id) == before


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
    suffix = support.new_id("")
    for device_id in (f"-.+%_#*?!(),=@$':;aZ09{suffix}", f"%41%2F%252e%{suffix}", f"${suffix}"):
        path = f"/devices/{encode(device_id)}"
        created = service.request("PUT", path, json={"deviceId": device_id})
        assert created.status_code == 200, created.text
        for each in (path, f"/twins/{encode(device_id)}"):
            assert support.read(service, each)["deviceId"] == device_id
        assert service.request("DELETE", path, headers=support.ANY).status_code == 204


@pytest.mark.parametrize("device_id", [*(f"a{c}b" for c in ' /\\"&é\x7f'), "x" * 129], ids=ascii)
def test_an_invalid_id_is_refused(service: Service, device_id: str) -> None:
    path = f"/devices/{quote(device_id, safe='')}"
    response = service.request("PUT", path, json={"deviceId": device_id})
    support.check_error(response, 400, "ArgumentInvalid")


def test_an_id_may_have_128_characters_and_is_case_sensitive(service: Service) -> None:
    longest = support.new_id().ljust(128, "x")
    assert support.put_device(service, longest)["deviceId"] == longest
    check_missing(service, longest.upper())


# --- preconditions

CURRENT = "<the current etag>"


@pytest.mark.parametrize("if_match", [None, '""', f'"{CURRENT}"', "*", '"*"'])
def test_put_creates_a_device_only_without_a_precondition(
    service: Service, if_match: str | None
) -> None:
    device_id = support.new_id()
    headers = {"If-Match": if_match and if_match.replace(CURRENT, "MTIzNDU2Nzg5")}
    body = {"deviceId": device_id}
    response = service.request("PUT", f"/devices/{device_id}", json=body, headers=headers)
    if if_match in (None, '""'):
        assert response.status_code == 200
    else:
        assert support.check_error(response, 404, "DeviceNotFound") == device_id


@pytest.mark.parametrize("if_match", [f'"{CURRENT}"', CURRENT, "*", '"*"'])
def test_put_updates_a_device_whose_etag_matches(
    service: Service, device: Device, if_match: str
) -> None:
    before = get(service, device.id)
    headers: dict[str, str | None] = {"If-Match": if_match.replace(CURRENT, before["etag"])}
    response = service.request("PUT", f"/devices/{device.id}", json=before, headers=headers)
    assert response.status_code == 200
    after = response.json()
    assert list(after) == MEMBERS
    assert response.headers["ETag"] == f'"{after["etag"]}"'
    assert revision(after) == revision(before) + 1
    # Nothing else has changed: the document was sent back as it was read.
    assert {**after, "etag": ""} == {**before, "etag": ""}


@pytest.mark.parametrize("if_match", ['"MTIzNDU2Nzg5"', "MTIzNDU2Nzg5", '"**"'])
def test_a_stale_etag_prevents_an_update(service: Service, device: Device, if_match: str) -> None:
    before = get(service, device.id)
    body, headers = {**before, "status": "disabled"}, {"If-Match": if_match}
    response = service.request("PUT", f"/devices/{device.id}", json=body, headers={**headers})
    text = support.check_error(response, 412, "PreconditionFailed")
    assert text.startswith("PreconditionFailed")
    assert get(service, device.id) == before


@pytest.mark.parametrize("if_match", [None, '""'])
def test_a_device_is_not_created_twice(
    service: Service, device: Device, if_match: str | None
) -> None:
    before = get(service, device.id)
    # The etag in the body is not a precondition, and the hub ignores If-None-Match.
    headers = {"If-Match": if_match, "If-None-Match": '"x"'}
    response = service.request("PUT", f"/devices/{device.id}", json=before, headers=headers)
    text = support.check_error(response, 409, "DeviceAlreadyExists")
    assert text == f"A device with ID '{device.id}' is already registered."
    assert get(service, device.id) == before


# --- updating


def test_an_update_replaces_everything_and_adds_one_to_the_etag(service: Service) -> None:
    device_id = support.new_id()
    created = support.put_device(service, device_id, statusReason="new")
    disabled = update(service, device_id, status="disabled")
    assert (created["statusReason"], disabled["statusReason"]) == ("new", None)
    assert (created["statusUpdatedTime"], disabled["status"]) == (support.NEVER[:-1], "disabled")
    assert support.MOMENT.fullmatch(disabled["statusUpdatedTime"])
    old, new = (document["authentication"]["symmetricKey"] for document in (created, disabled))
    assert not set(old.values()) & set(new.values())
    assert revision(disabled) == revision(created) + 1
    assert disabled["generationId"] == created["generationId"]
    # The twin has another etag, which does not change.
    twin = support.read(service, f"/twins/{device_id}")
    assert (twin["etag"], twin["deviceEtag"]) == ("AAAAAAAAAAE=", disabled["etag"])


def test_members_that_only_the_hub_sets_are_ignored(service: Service) -> None:
    device_id = support.new_id()
    made_up = {
        "generationId": "1",
        "etag": "MTIz",
        "connectionState": "Connected",
        **dict.fromkeys(TIMES, "2020-01-01T00:00:00Z"),
        "cloudToDeviceMessageCount": 7,
        "somethingElse": {"a": [1]},
    }
    support.put_device(service, device_id, **made_up)
    update(service, device_id, **made_up)
    document = get(service, device_id)
    assert [name for name, value in made_up.items() if document.get(name) == value] == []


def test_a_device_that_is_disabled_loses_its_connection(
    service: Service, device: Device, emulator: Emulator
) -> None:
    with support.MethodDevice(emulator, device, support.silence) as connected:
        document = update(service, device.id, status="disabled")
        connected.wait_until_gone()
    assert document["connectionState"] == "Disconnected"


# --- deleting


@pytest.mark.parametrize("if_match", [f'"{CURRENT}"', CURRENT, "*", '"*"'])
def test_a_device_is_deleted_with_its_twin(service: Service, device: Device, if_match: str) -> None:
    etag = get(service, device.id)["etag"]
    headers: dict[str, str | None] = {"If-Match": if_match.replace(CURRENT, etag)}
    response = service.request("DELETE", f"/devices/{device.id}", headers=headers)
    assert (response.status_code, response.content) == (204, b"")
    check_missing(service, device.id)
    for verb, path in (("GET", f"/twins/{device.id}"), ("DELETE", f"/devices/{device.id}")):
        response = service.request(verb, path, headers=support.ANY)
        assert support.check_error(response, 404, "DeviceNotFound") == device.id
    assert device.id not in [document["deviceId"] for document in support.read(service, "/devices")]


@pytest.mark.parametrize(
    ("if_match", "text"), [(None, "Etag missing"), ('""', "Etag missing"), ('"MTIz"', "")]
)
def test_a_device_is_not_deleted_without_its_etag(
    service: Service, device: Device, if_match: str | None, text: str
) -> None:
    response = service.request("DELETE", f"/devices/{device.id}", headers={"If-Match": if_match})
    assert text in support.check_error(response, 412, "PreconditionFailed")
    assert get(service, device.id)["deviceId"] == device.id


def test_a_device_that_is_created_again_is_a_new_one(service: Service, device: Device) -> None:
    before = get(service, device.id)
    service.request("PATCH", f"/twins/{device.id}", json={"tags": {"a": 1}})
    assert (
        service.request("DELETE", f"/devices/{device.id}", headers=support.ANY).status_code == 204
    )
    after = support.put_device(service, device.id)
    for member in ("generationId", "etag", "authentication"):
        assert after[member] != before[member]
    twin = support.read(service, f"/twins/{device.id}")
    assert "tags" not in twin
    assert (twin["etag"], twin["version"]) == ("AAAAAAAAAAE=", 2)


# --- listing


@pytest.mark.parametrize("path", ["/devices", "/devices/"])
def test_devices_are_listed_as_they_are_read(service: Service, path: str) -> None:
    ids = [support.new_id() for _ in range(3)]
    for device_id in ids:
        support.put_device(service, device_id)
    listed = {document["deviceId"]: document for document in support.read(service, path)}
    for device_id in ids:
        assert listed[device_id] == get(service, device_id)
        assert list(listed[device_id]) == MEMBERS
    # Out of range is 1,000.
    for top, count in {"1": 1, "2": 2, "003": 3}.items():
        assert len(support.read(service, path, top=top)) == count
    for top in ("0", "-1", "1000", "1001", "99999999999999999999"):
        assert len(support.read(service, path, top=top)) == len(listed)


@pytest.mark.parametrize("top", ["", "all", "1.5", "-", "--1", "٣"])
def test_top_must_be_a_number(service: Service, top: str) -> None:
    params = {"api-version": "2021-04-12", "top": top}
    support.check_error(service.request("GET", "/devices", params=params), 400, "ArgumentInvalid")
