from __future__ import annotations

import base64
import re
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.core.errors import ArgumentInvalid, DeserializationError, HubError
from emulator.hub.core.json import loads
from emulator.hub.core.times import NEVER
from emulator.hub.identities.identity import (
    Authentication,
    Identity,
    IdentityKey,
    Thumbprints,
    check_id,
    create,
    update,
)

NOW = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
KEY = IdentityKey("myDevice")
ALLOWED = string.ascii_letters + string.digits + "-.+%_#*?!(),=@$':;"

PRIMARY = base64.b64encode(b"p" * 32).decode()
SECONDARY = base64.b64encode(b"s" * 32).decode()
SHA1 = "0123456789abcdefABCDEF0123456789abcdefAB"


def new(**members: Any) -> Identity:
    return create(KEY, {"deviceId": KEY.device_id, **members}, NOW)


def updated(identity: Identity, **members: Any) -> Identity:
    return update(identity, {"deviceId": KEY.device_id, **members}, LATER)


# --- names


@pytest.mark.parametrize(
    ("key", "text", "resource"),
    [
        (IdentityKey("d"), "d", ("devices", "d")),
        (IdentityKey("d", "m"), "d/m", ("devices", "d", "modules", "m")),
    ],
)
def test_a_key_names_a_device_or_a_module(
    key: IdentityKey, text: str, resource: tuple[str, ...]
) -> None:
    assert (str(key), key.resource) == (text, resource)


@given(st.text(ALLOWED, min_size=1, max_size=128))
def test_an_id_of_the_allowed_characters_passes(identifier: str) -> None:
    check_id(identifier)


@given(st.text(ALLOWED, max_size=127), st.characters(exclude_characters=ALLOWED), st.integers(0))
def test_an_id_with_any_other_character_is_refused(text: str, other: str, place: int) -> None:
    place %= len(text) + 1
    with pytest.raises(ArgumentInvalid):
        check_id(text[:place] + other + text[place:])


@pytest.mark.parametrize("identifier", ["", "x" * 129, "x" * 100_000, "a\n"])
def test_an_id_of_another_length_is_refused(identifier: str) -> None:
    with pytest.raises(ArgumentInvalid) as refusal:
        check_id(identifier)
    # Whatever came is not sent back at its full length.
    assert len(refusal.value.text) < 500


def test_node_sdk_can_read_the_whole_text_about_an_id() -> None:
    # It takes an error's text up to the first ';', an id may hold one, and the text must say so.
    with pytest.raises(ArgumentInvalid) as refusal:
        check_id("/")
    assert ";" not in refusal.value.text.rstrip(";")


# --- creating and updating


def test_an_identity_has_a_hubs_defaults() -> None:
    identity = new()
    assert identity.key == KEY
    assert re.fullmatch(r"\d{18}", identity.generation_id)
    assert (identity.status, identity.status_reason, identity.enabled) == ("enabled", None, True)
    assert identity.status_updated == NEVER
    assert identity.iot_edge is False
    assert identity.authentication.type == "sas"
    assert identity.authentication.keys is not None
    assert identity.authentication.thumbprints is None


def test_an_etag_is_base64_of_nine_digits() -> None:
    etags = {base64.b64decode(new().etag).decode() for _ in range(20)}
    assert all(re.fullmatch(r"\d{9}", etag) for etag in etags)
    assert len(etags) > 1  # it starts anywhere
    identity = replace(new(), revision=241791198)
    assert identity.etag == "MjQxNzkxMTk4"


def test_an_update_adds_one_to_the_etag_and_keeps_the_generation() -> None:
    first = new()
    second = updated(first)
    assert second.revision == first.revision + 1
    assert second.generation_id == first.generation_id
    assert second.key == first.key


def test_an_update_replaces_what_it_leaves_out() -> None:
    first = new(status="disabled", statusReason="lost", capabilities={"iotEdge": True})
    second = updated(first)
    assert (second.status, second.status_reason, second.iot_edge) == ("enabled", None, False)
    assert second.authentication != first.authentication


def test_a_status_is_dated_when_it_changes() -> None:
    identity = new()
    assert updated(identity, statusReason="x").status_updated == NEVER
    disabled = updated(identity, status="disabled")
    assert (disabled.status_updated, disabled.enabled) == (LATER, False)
    again = update(
        disabled, {"deviceId": KEY.device_id, "status": "disabled"}, LATER + timedelta(1)
    )
    assert again.status_updated == LATER


@pytest.mark.parametrize(
    ("members", "field", "value"),
    [
        ({"status": "Disabled"}, "status", "disabled"),
        ({"status": None}, "status", "enabled"),
        ({"statusReason": "x" * 128}, "status_reason", "x" * 128),
        ({"statusReason": "ü€😀"}, "status_reason", "ü€😀"),
        ({"statusReason": None}, "status_reason", None),
        ({"capabilities": {"iotEdge": True}}, "iot_edge", True),
        ({"capabilities": None}, "iot_edge", False),
        ({"capabilities": {}}, "iot_edge", False),
        ({"generationId": "1"}, "status", "enabled"),
    ],
)
def test_what_a_client_may_set(members: dict[str, Any], field: str, value: object) -> None:
    for identity in (new(**members), updated(new(), **members)):
        assert getattr(identity, field) == value
        assert identity.generation_id != "1"


@pytest.mark.parametrize(
    "members",
    [
        {"deviceId": "mydevice"},
        {"deviceId": None},
        {"deviceId": 7},
        {"status": "unknown"},
        {"status": ["enabled"]},
        {"statusReason": "x" * 129},
        {"statusReason": 7},
        {"capabilities": "edge"},
        {"capabilities": {"iotEdge": 1}},
        {"authentication": []},
    ],
)
def test_what_is_not_valid_is_refused(members: dict[str, Any]) -> None:
    for write in (new, lambda **given: updated(new(), **given)):
        with pytest.raises(ArgumentInvalid):
            write(**members)


@pytest.mark.parametrize("body", [None, [], "x", 1, True])
def test_a_body_must_be_an_object(body: object) -> None:
    for write in (create, update):
        first: Any = KEY if write is create else new()
        with pytest.raises(DeserializationError):
            write(first, body, NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3)
    ),
    max_leaves=5,
)
MEMBERS = [
    "status",
    "statusReason",
    "capabilities",
    "authentication",
    "deviceScope",
    "parentScopes",
    "etag",
]
BLOCKS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(["type", "symmetricKey", "x509Thumbprint"], JSON)
)


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON | BLOCKS))
def test_no_body_does_worse_than_a_hub_error(members: dict[str, Any]) -> None:
    try:
        identity = new(**members)
    except HubError:
        return
    assert identity.status in ("enabled", "disabled")
    assert identity.status_reason is None or len(identity.status_reason) <= 128
    assert identity.iot_edge in (True, False)
    assert identity.authentication.type in ("sas", "selfSigned", "certificateAuthority")


# --- modules

MODULE = IdentityKey("myDevice", "myModule")
MODULE_BODY = {"deviceId": "myDevice", "moduleId": "myModule"}


def test_a_module_has_a_manager_and_no_status() -> None:
    module = create(MODULE, {**MODULE_BODY, "managedBy": "me", "status": "disabled"}, NOW)
    assert (module.key, module.managed_by, module.enabled) == (MODULE, "me", True)
    assert update(module, MODULE_BODY, LATER).managed_by is None


def test_authentication_none_becomes_sas_for_a_module() -> None:
    module = create(MODULE, {**MODULE_BODY, "authentication": {"type": "none"}}, NOW)
    assert module.authentication.type == "sas"
    assert module.authentication.keys is not None


@pytest.mark.parametrize(
    ("module_id", "body"),
    [
        ("myModule", {"deviceId": "myDevice"}),
        ("myModule", {"moduleId": "myModule"}),
        ("myModule", {"deviceId": "myDevice", "moduleId": "mymodule"}),
        ("myModule", {**MODULE_BODY, "managedBy": 7}),
        ("$edgeAgent", {"deviceId": "myDevice", "moduleId": "$edgeAgent"}),
        ("a/b", {"deviceId": "myDevice", "moduleId": "a/b"}),
        ("m" * 129, {"deviceId": "myDevice", "moduleId": "m" * 129}),
    ],
)
def test_a_module_that_is_not_valid_is_refused(module_id: str, body: dict[str, Any]) -> None:
    with pytest.raises(ArgumentInvalid):
        create(IdentityKey("myDevice", module_id), body, NOW)


def test_a_device_is_no_module() -> None:
    with pytest.raises(ArgumentInvalid):
        create(KEY, MODULE_BODY, NOW)


# --- authentication


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            {"type": "sas", "symmetricKey": {"primaryKey": PRIMARY, "secondaryKey": SECONDARY}},
            Authentication("sas", keys=SymmetricKeys(PRIMARY, SECONDARY)),
        ),
        (
            {"symmetricKey": {"primaryKey": PRIMARY, "secondaryKey": SECONDARY}},
            Authentication("sas", keys=SymmetricKeys(PRIMARY, SECONDARY)),
        ),
        (
            {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": SHA1}},
            Authentication("selfSigned", thumbprints=Thumbprints(SHA1, None)),
        ),
        (
            {"x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": "0" * 64}},
            Authentication("selfSigned", thumbprints=Thumbprints(None, "0" * 64)),
        ),
        ({"type": "certificateAuthority"}, Authentication("certificateAuthority")),
    ],
)
def test_authentication_is_read(block: dict[str, Any], expected: Authentication) -> None:
    assert Authentication.parse(block) == expected


@pytest.mark.parametrize(
    "block",
    [
        {},
        {"type": None},
        {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}},
        {"x509Thumbprint": {"primaryThumbprint": "", "secondaryThumbprint": None}},
    ],
)
def test_keys_that_are_not_given_are_new_each_time(block: dict[str, Any]) -> None:
    keys = [Authentication.parse(block).keys for _ in range(2)]
    assert keys[0] is not None
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "none"}, "DeviceAuthenticationTypeIsMissing"),
        ({"type": "x509"}, ""),
        ({"type": ["sas"]}, ""),
        ({"symmetricKey": {"primaryKey": PRIMARY}}, "Either no keys or both keys can be set"),
        (
            {"symmetricKey": {"primaryKey": PRIMARY, "secondaryKey": "AAAA"}},
            "Invalid device key length",
        ),
        ({"symmetricKey": PRIMARY}, ""),
        ({"x509Thumbprint": [SHA1]}, ""),
        ({"x509Thumbprint": {"primaryThumbprint": SHA1[:-1]}}, "StringIsNotThumbprint"),
        ({"x509Thumbprint": {"primaryThumbprint": f"{SHA1}\n"}}, "StringIsNotThumbprint"),
        ({"x509Thumbprint": {"primaryThumbprint": f" {SHA1[1:]}"}}, "StringIsNotThumbprint"),
        ({"x509Thumbprint": {"primaryThumbprint": "٣" * 40}}, "StringIsNotThumbprint"),
    ],
)
def test_invalid_authentication_is_refused(block: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentInvalid) as refusal:
        Authentication.parse(block)
    assert text in refusal.value.text
    assert PRIMARY not in refusal.value.text


def test_an_identity_shows_no_key_where_it_is_printed() -> None:
    keys = {"primaryKey": PRIMARY, "secondaryKey": SECONDARY}
    identity = new(authentication={"symmetricKey": keys})
    assert PRIMARY not in repr(identity)
    assert SECONDARY not in repr(identity)


def test_a_number_that_is_kept_as_text_is_no_status_reason() -> None:
    with pytest.raises(ArgumentInvalid):
        create(KEY, loads(b'{"deviceId":"myDevice","statusReason":1e5}'), NOW)
