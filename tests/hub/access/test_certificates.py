"""X.509 certificates: whom they admit, and which thumbprints a hub knows."""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

import pytest
from emulator.hub.links.connections import Admission
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.access.certificates import ClientCertificate, check_certificate
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import DEFAULT_RIGHTS, Policy
from emulator.hub.core.errors import DeviceNotFound, IotHubUnauthorizedAccess
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from tests.support import sas_token

KEYS = SymmetricKeys(base64.b64encode(b"p" * 32).decode(), base64.b64encode(b"s" * 32).decode())
DEVICE = IdentityKey("d")
MODULE = IdentityKey("d", "m")


def certificate(
    content: str = "own", common_name: str | None = None, *, by_authority: bool = False
) -> ClientCertificate:
    data = content.encode()
    sha1, sha256 = hashlib.sha1(data).hexdigest(), hashlib.sha256(data).hexdigest()
    return ClientCertificate(sha1, sha256, common_name, by_authority)


OWN = certificate()
OTHER = certificate("other")


# --- one certificate


@pytest.mark.parametrize(
    "thumbprints",
    [
        (OWN.sha1, None),
        (OWN.sha256, None),
        (None, OWN.sha1),
        (OTHER.sha256, OWN.sha256.upper()),
        (OWN.sha1.upper(), OTHER.sha256),
    ],
)
def test_a_thumbprint_is_matched_by_either_hash_in_either_place_in_any_case(
    thumbprints: tuple[str | None, str | None],
) -> None:
    check_certificate(OWN, thumbprints, name="d")


@pytest.mark.parametrize(
    ("shown", "thumbprints", "reason"),
    [
        (None, (OWN.sha1, None), "no certificate"),
        (None, None, "no certificate"),
        (OWN, (None, None), "Thumbprint does not match configuration"),
        (OWN, (OTHER.sha1, OTHER.sha256), "Thumbprint does not match configuration"),
        (OWN, (OWN.sha1[:-1], OWN.sha256[:40]), "Thumbprint does not match configuration"),
        (
            certificate(common_name="d", by_authority=True),
            (OTHER.sha1, None),
            "Thumbprint does not match configuration",
        ),
        (certificate(common_name="d"), None, "no registered CA"),
        (certificate(common_name="e", by_authority=True), None, "common name is 'e', not 'd'"),
        (certificate(common_name="D", by_authority=True), None, "common name"),
        (certificate(common_name="d/m", by_authority=True), None, "common name"),
        (certificate(common_name=None, by_authority=True), None, "common name"),
    ],
)
def test_the_log_is_told_why_a_certificate_is_refused(
    shown: ClientCertificate | None,
    thumbprints: tuple[str | None, str | None] | None,
    reason: str,
) -> None:
    with pytest.raises(IotHubUnauthorizedAccess) as raised:
        check_certificate(shown, thumbprints, name="d")
    assert reason in str(raised.value.__cause__)
    assert raised.value.text == "Unauthorized"


def test_a_mismatch_is_told_in_the_documented_words() -> None:
    with pytest.raises(IotHubUnauthorizedAccess) as raised:
        check_certificate(OWN, (OTHER.sha1, None), name="d")
    assert str(raised.value.__cause__) == (
        "Thumbprint does not match configuration: "
        f"Thumbprint: SHA1Hash={OWN.sha1}, SHA2Hash={OWN.sha256}; "
        f"Configuration: PrimaryThumbprint={OTHER.sha1}, SecondaryThumbprint=None"
    )


# --- a hub


def open_hub(store: MemoryStore) -> IotHub:
    policies = [Policy(name, rights, KEYS) for name, rights in DEFAULT_RIGHTS.items()]
    return IotHub(store=store, policies=policies, hosts=["localhost"])


@pytest.fixture
def hub() -> IotHub:
    return open_hub(MemoryStore())


def put(hub: IotHub, key: IdentityKey, authentication: dict[str, Any], **members: Any) -> None:
    """Register a device or a module, or update it."""
    body = {"deviceId": key.device_id, "authentication": authentication, **members}
    try:
        hub.registry.identity(key)
        if_match = IfMatch("*")
    except DeviceNotFound:
        if_match = IfMatch(None)
    if key.module_id is None:
        hub.registry.put_device(key.device_id, body, if_match)
    else:
        hub.registry.put_module(key, {**body, "moduleId": key.module_id}, if_match)


def self_signed(primary: str | None = None, secondary: str | None = None) -> dict[str, Any]:
    thumbprints = {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
    return {"type": "selfSigned", "x509Thumbprint": thumbprints}


CA_SIGNED = {"type": "certificateAuthority"}
SAS = {
    "type": "sas",
    "symmetricKey": {"primaryKey": KEYS.primary, "secondaryKey": KEYS.secondary},
}


def admit(
    hub: IotHub,
    key: IdentityKey,
    shown: ClientCertificate | None = None,
    token: str | None = None,
) -> Admission | None:
    try:
        return hub.admit(key, token, host="localhost", certificate=shown)
    except IotHubUnauthorizedAccess:
        return None


@pytest.mark.parametrize("password", [None, ""])
def test_a_certificate_admits_without_a_password_and_without_end(
    hub: IotHub, password: str | None
) -> None:
    put(hub, DEVICE, self_signed(OWN.sha1))
    admission = admit(hub, DEVICE, OWN, password)
    assert admission
    assert admission.key == DEVICE
    assert admission.expires == math.inf
    assert admission.auth_method == (
        '{"scope":"device","type":"x509Certificate","issuer":"external",'
        '"acceptingIpFilterRule":null}'
    )


def test_a_ca_signed_certificate_admits_whom_it_names(hub: IotHub) -> None:
    put(hub, DEVICE, CA_SIGNED)
    put(hub, MODULE, CA_SIGNED)
    for key, name in ((DEVICE, "d"), (MODULE, "d/m")):
        for each in ("d", "d/m", "m", "e"):
            shown = certificate("any", each, by_authority=True)
            assert bool(admit(hub, key, shown)) is (each == name)
        assert not admit(hub, key, certificate("any", name, by_authority=False))


def test_a_module_has_its_own_thumbprints(hub: IotHub) -> None:
    put(hub, DEVICE, self_signed(OWN.sha1))
    put(hub, MODULE, self_signed(OTHER.sha1))
    assert admit(hub, DEVICE, OWN)
    assert not admit(hub, DEVICE, OTHER)
    admission = admit(hub, MODULE, OTHER)
    assert admission
    assert '"scope":"module"' in admission.auth_method
    assert not admit(hub, MODULE, OWN)


@pytest.mark.parametrize("authentication", [self_signed(OWN.sha1), CA_SIGNED])
@pytest.mark.parametrize("policy", [None, "device", "iothubowner"])
@pytest.mark.parametrize("shown", [None, certificate(common_name="d", by_authority=True)])
def test_no_token_admits_an_x509_device_alone_or_beside_its_certificate(
    hub: IotHub,
    authentication: dict[str, Any],
    policy: str | None,
    shown: ClientCertificate | None,
) -> None:
    put(hub, DEVICE, authentication)
    token = sas_token("localhost/devices/d", KEYS.primary, policy=policy)
    assert not admit(hub, DEVICE, shown, token)


def test_a_device_with_keys_is_admitted_by_its_token_alone(hub: IotHub) -> None:
    put(hub, DEVICE, SAS)
    token = sas_token("localhost/devices/d", KEYS.primary)
    assert admit(hub, DEVICE, None, token)
    for shown in (OWN, certificate(common_name="d", by_authority=True)):
        assert not admit(hub, DEVICE, shown, token)
        assert not admit(hub, DEVICE, shown)
    assert not admit(hub, DEVICE)


def test_a_certificate_admits_nobody_who_is_unknown_or_disabled(hub: IotHub) -> None:
    assert not admit(hub, DEVICE, OWN)
    put(hub, DEVICE, self_signed(OWN.sha1))
    put(hub, MODULE, self_signed(OWN.sha1))
    put(hub, DEVICE, self_signed(OWN.sha1), status="disabled")
    assert not admit(hub, DEVICE, OWN)
    assert not admit(hub, MODULE, OWN)


# --- the thumbprints that a hub knows


def test_a_hub_knows_thumbprints_in_lower_case_however_they_were_written(hub: IotHub) -> None:
    put(hub, DEVICE, self_signed(OWN.sha1.upper(), OTHER.sha256.upper()))
    assert set(hub.registry.thumbprints) == {OWN.sha1, OTHER.sha256}


def test_a_hub_knows_what_its_store_holds_from_the_start() -> None:
    store = MemoryStore()
    hub = open_hub(store)
    put(hub, DEVICE, self_signed(OWN.sha1))
    put(hub, MODULE, self_signed(None, OTHER.sha256))
    assert set(open_hub(store).registry.thumbprints) == {OWN.sha1, OTHER.sha256}


keys = st.sampled_from([DEVICE, MODULE, IdentityKey("e"), IdentityKey("e", "m")])
thumbprints = st.sampled_from([None, *(character * 40 for character in "abc")])
authentications = st.one_of(
    st.just(SAS), st.just(CA_SIGNED), st.builds(self_signed, thumbprints, thumbprints)
)


@given(st.lists(st.tuples(keys, st.none() | authentications), max_size=12))
def test_a_hub_knows_the_thumbprints_of_its_identities_and_no_others(
    steps: list[tuple[IdentityKey, dict[str, Any] | None]],
) -> None:
    hub = open_hub(MemoryStore())
    expected: dict[IdentityKey, set[str | None]] = {}
    for key, authentication in steps:
        device = IdentityKey(key.device_id)
        if authentication is not None:
            if key != device and device not in expected:
                continue
            put(hub, key, authentication)
            expected[key] = set(authentication.get("x509Thumbprint", {}).values())
        elif key in expected:
            if key == device:
                hub.registry.delete_device(key.device_id, IfMatch("*"))
                expected = {k: v for k, v in expected.items() if k.device_id != key.device_id}
            else:
                hub.registry.delete_module(key, IfMatch("*"))
                del expected[key]
        assert set(hub.registry.thumbprints) == set().union(*expected.values()) - {None}
