import base64
import re
import string
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
from tests.clock import START
from tests.hub.fakes import KEYS

LATER = START + timedelta(minutes=5)
KEY = IdentityKey("myDevice")
ALLOWED = string.ascii_letters + string.digits + "-.+%_#*?!(),=@$':;"

KEY_MEMBERS = {"primaryKey": KEYS.primary, "secondaryKey": KEYS.secondary}
SHA1 = "0123456789abcdefABCDEF0123456789abcdefAB"


def new(**members: Any) -> Identity:
    return create(KEY, {"deviceId": KEY.device_id, **members}, START)


def updated(identity: Identity, **members: Any) -> Identity:
    return update(identity, {"deviceId": KEY.device_id, **members}, LATER)


# --- names


def test_a_key_names_a_device_or_a_module() -> None:
    device, module = IdentityKey("d"), IdentityKey("d", "m")
    assert (str(device), device.resource) == ("d", ("devices", "d"))
    assert (str(module), module.resource) == ("d/m", ("devices", "d", "modules", "m"))


@given(st.text(ALLOWED, min_size=1, max_size=128))
def test_an_id_of_the_allowed_characters_is_valid(identifier: str) -> None:
    key = IdentityKey(identifier)
    assert create(key, {"deviceId": identifier}, START).key == key


@given(st.text(ALLOWED, max_size=127), st.characters(exclude_characters=ALLOWED), st.integers(0))
def test_an_id_with_any_other_character_is_refused(text: str, other: str, place: int) -> None:
    place %= len(text) + 1
    with pytest.raises(ArgumentInvalid):
        check_id(text[:place] + other + text[place:])


@pytest.mark.parametrize("identifier", ["", "x" * 129, "x" * 100_000, "a\n", "/"])
def test_the_text_about_an_invalid_id_is_short_and_whole_in_the_sdk_for_node(
    identifier: str,
) -> None:
    with pytest.raises(ArgumentInvalid) as refusal:
        check_id(identifier)
    assert len(refusal.value.text) < 500
    # That SDK takes the text up to the first ';'. An id can have one, so the text must say so.
    assert ";" not in refusal.value.text.rstrip(";")


# --- creating and updating


def test_a_new_identity_has_the_defaults_of_a_hub() -> None:
    identity = new()
    assert (identity.key, identity.status_updated, identity.iot_edge) == (KEY, NEVER, False)
    assert re.fullmatch(r"\d{18}", identity.generation_id)
    assert (identity.status, identity.status_reason, identity.enabled) == ("enabled", None, True)
    assert (identity.authentication.type, identity.authentication.thumbprints) == ("sas", None)
    assert identity.authentication.keys is not None


def test_an_etag_is_base64_of_nine_digits() -> None:
    etags = {base64.b64decode(new().etag).decode() for _ in range(20)}
    assert all(re.fullmatch(r"\d{9}", etag) for etag in etags)
    assert len(etags) > 1  # it starts anywhere
    identity = replace(new(), revision=241791198)
    assert identity.etag == "MjQxNzkxMTk4"


def test_an_update_adds_one_to_the_etag_and_replaces_what_it_leaves_out() -> None:
    first = new(status="disabled", statusReason="lost", capabilities={"iotEdge": True})
    second = updated(first)
    assert second.revision == first.revision + 1
    assert (second.key, second.generation_id) == (first.key, first.generation_id)
    assert (second.status, second.status_reason, second.iot_edge) == ("enabled", None, False)
    assert second.authentication != first.authentication


@pytest.mark.parametrize("empty", [None, "", 0, False, [], {}])
def test_an_empty_member_has_its_default(empty: object) -> None:
    body = {"deviceId": "myDevice", "status": empty, "capabilities": {"iotEdge": empty}}
    identity = create(KEY, body, START)
    assert (identity.status, identity.iot_edge) == ("enabled", False)


def test_a_status_is_dated_when_it_changes() -> None:
    identity = new()
    assert updated(identity, statusReason="x").status_updated == NEVER
    disabled = updated(identity, status="disabled")
    assert (disabled.status_updated, disabled.enabled) == (LATER, False)
    body = {"deviceId": KEY.device_id, "status": "disabled"}
    again = update(disabled, body, LATER + timedelta(1))
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
def test_the_members_that_a_client_can_set(
    members: dict[str, Any], field: str, value: object
) -> None:
    for identity in (new(**members), updated(new(), **members)):
        assert getattr(identity, field) == value
        assert identity.generation_id != "1"


@pytest.mark.parametrize(
    "members",
    [
        *({"deviceId": device_id} for device_id in ("mydevice", None, 7)),
        *({"status": status} for status in ("unknown", ["enabled"])),
        *({"statusReason": reason} for reason in ("x" * 129, 7, loads("1e5"))),
        *({"capabilities": capabilities} for capabilities in ("edge", {"iotEdge": 1})),
        *({"authentication": authentication} for authentication in ([], "sas")),
    ],
)
def test_an_invalid_member_is_refused(members: dict[str, Any]) -> None:
    for write in (new, lambda **given: updated(new(), **given)):
        with pytest.raises(ArgumentInvalid):
            write(**members)


@pytest.mark.parametrize("body", [None, [], "x", 1, True])
def test_a_body_must_be_an_object(body: object) -> None:
    for write in (create, update):
        first: Any = KEY if write is create else new()
        with pytest.raises(DeserializationError):
            write(first, body, START)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3)
    ),
    max_leaves=5,
)
MEMBERS = ["status", "statusReason", "capabilities", "authentication", "parentScopes", "etag"]
BLOCKS = st.dictionaries(st.sampled_from(["type", "symmetricKey", "x509Thumbprint"]), JSON)


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON | BLOCKS))
def test_a_body_makes_an_identity_or_is_refused(members: dict[str, Any]) -> None:
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


def test_a_module_has_a_manager_and_keys_and_no_status() -> None:
    ignored = {"status": "disabled", "authentication": {"type": "none"}}
    module = create(MODULE, {**MODULE_BODY, "managedBy": "me", **ignored}, START)
    assert (module.key, module.managed_by, module.enabled) == (MODULE, "me", True)
    assert module.authentication.type == "sas"
    assert module.authentication.keys is not None
    assert update(module, MODULE_BODY, LATER).managed_by is None


@pytest.mark.parametrize(
    ("module_id", "body"),
    [
        ("myModule", {"deviceId": "myDevice"}),
        ("myModule", {"moduleId": "myModule"}),
        ("myModule", {"deviceId": "myDevice", "moduleId": "mymodule"}),
        ("myModule", {**MODULE_BODY, "managedBy": 7}),
        ("myModule", {**MODULE_BODY, "managedBy": "x" * 129}),
        ("$edgeAgent", {"deviceId": "myDevice", "moduleId": "$edgeAgent"}),
        ("a/b", {"deviceId": "myDevice", "moduleId": "a/b"}),
        ("m" * 129, {"deviceId": "myDevice", "moduleId": "m" * 129}),
        (None, MODULE_BODY),
    ],
)
def test_an_invalid_module_is_refused(module_id: str | None, body: dict[str, Any]) -> None:
    with pytest.raises(ArgumentInvalid):
        create(IdentityKey("myDevice", module_id), body, START)


# --- authentication


def prints(primary: str | None, secondary: str | None = None) -> dict[str, Any]:
    return {"x509Thumbprint": {"primaryThumbprint": primary, "secondaryThumbprint": secondary}}


def self_signed(*thumbprints: str | None) -> Authentication:
    return Authentication("selfSigned", thumbprints=Thumbprints(*thumbprints))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"type": "sas", "symmetricKey": KEY_MEMBERS}, Authentication("sas", keys=KEYS)),
        ({"symmetricKey": KEY_MEMBERS}, Authentication("sas", keys=KEYS)),
        ({"type": "selfSigned", **prints(SHA1)}, self_signed(SHA1, None)),
        (prints(None, "0" * 64), self_signed(None, "0" * 64)),
        ({"type": "certificateAuthority"}, Authentication("certificateAuthority")),
    ],
)
def test_authentication_is_parsed(block: dict[str, Any], expected: Authentication) -> None:
    assert Authentication.parse(block) == expected


@pytest.mark.parametrize(
    "block",
    [
        *({}, {"type": None}, prints("")),
        {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}},
    ],
)
def test_missing_keys_are_new_each_time(block: dict[str, Any]) -> None:
    keys = [Authentication.parse(block).keys for _ in range(2)]
    assert keys[0] is not None
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "none"}, "DeviceAuthenticationTypeIsMissing"),
        ({"type": "x509"}, ""),
        ({"type": ["sas"]}, ""),
        ({"symmetricKey": {"primaryKey": KEYS.primary}}, "Either no keys or both keys can be set"),
        ({"symmetricKey": KEY_MEMBERS | {"secondaryKey": "AAAA"}}, "Invalid device key length"),
        ({"symmetricKey": KEYS.primary}, ""),
        ({"x509Thumbprint": [SHA1]}, ""),
        (prints(SHA1[:-1]), "StringIsNotThumbprint"),
        (prints(f"{SHA1}\n"), "StringIsNotThumbprint"),
        (prints(f" {SHA1[1:]}"), "StringIsNotThumbprint"),
        (prints("٣" * 40), "StringIsNotThumbprint"),
    ],
)
def test_invalid_authentication_is_refused(block: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentInvalid) as refusal:
        Authentication.parse(block)
    assert text in refusal.value.text
    assert KEYS.primary not in refusal.value.text


def test_the_repr_of_an_identity_hides_its_keys() -> None:
    identity = new(authentication={"symmetricKey": KEY_MEMBERS})
    assert KEYS.primary not in repr(identity)
    assert KEYS.secondary not in repr(identity)
