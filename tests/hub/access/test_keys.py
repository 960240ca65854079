import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from emulator.hub.access.keys import SymmetricKeys, mask_key
from emulator.hub.access.policies import Policy, Right
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from tests.hub.fakes import KEYS

key_texts = st.binary(min_size=16, max_size=64).map(lambda key: base64.b64encode(key).decode())


def test_generated_keys_are_32_random_bytes_each():
    keys = [key for _ in range(2) for key in astuple(SymmetricKeys.generate())]
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {32}
    assert len(set(keys)) == 4


@pytest.mark.parametrize("absent", [None, ""])
def test_absent_keys_are_generated(absent):
    assert SymmetricKeys.from_request(absent, None) != SymmetricKeys.from_request(absent, None)


@given(primary=key_texts, secondary=key_texts)
def test_given_keys_are_kept_as_they_are(primary, secondary):
    keys = SymmetricKeys.from_request(primary, secondary)
    assert (keys.primary, keys.secondary) == (primary, secondary)


SHORT, LONG = (base64.b64encode(bytes(size)).decode() for size in (15, 65))


@pytest.mark.parametrize(
    ("primary", "secondary", "text"),
    [
        (KEYS.primary, None, "Either no keys or both keys can be set"),
        ("", KEYS.secondary, "Either no keys or both keys can be set"),
        (SHORT, KEYS.secondary, "Invalid device key length"),
        (KEYS.primary, LONG, "Invalid device key length"),
        ("not base64, but long enough!", KEYS.secondary, "Invalid device key: not base64"),
        (KEYS.primary, KEYS.secondary + "\n", "Invalid device key: not base64"),
        (KEYS.primary, "ä" * 24, "Invalid device key: not base64"),
        (KEYS.primary, 7, "Invalid device key: not a string"),
        ([], {}, "Invalid device key: not a string"),
        (False, 0, "Invalid device key: not a string"),
    ],
)
def test_invalid_keys_are_refused(primary, secondary, text):
    with pytest.raises(ArgumentInvalid) as refused:
        SymmetricKeys.from_request(primary, secondary)
    assert refused.value.text == text


json_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), key_texts, st.lists(st.text(), max_size=2)
)


@given(primary=json_values, secondary=json_values)
def test_a_request_makes_two_valid_keys_or_is_refused(primary, secondary):
    try:
        keys = SymmetricKeys.from_request(primary, secondary)
    except ArgumentInvalid:
        return
    for key in (keys.primary, keys.secondary):
        assert len(base64.b64decode(key)) in limits.KEY_BYTES


# --- keys in logs


@given(primary=key_texts, secondary=key_texts)
def test_a_repr_shows_no_key(primary, secondary):
    keys = SymmetricKeys(primary, secondary)
    shown = f"{keys!r} {keys} {Policy('service', Right.SERVICE_CONNECT, keys)!r}"
    assert primary not in shown
    assert secondary not in shown


@pytest.mark.parametrize("secret", [SHORT, LONG, "c2VjcmV0!", "sécret"])
def test_the_traceback_of_a_refusal_does_not_show_the_key(secret):
    with pytest.raises(ArgumentInvalid) as refused:
        SymmetricKeys.from_request(secret, secret)
    assert secret not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "masked",
    [
        "HostName=h;DeviceId=d;SharedAccessKey=***",
        "HostName=h;SharedAccessKey=***;SharedAccessKeyName=service",
        "SharedAccessSignature=SharedAccessSignature sr=h%2Fdevices%2Fd&sig=***&se=1&skn=p",
        "Authorization: SharedAccessSignature sig=***&sr=h&se=1",
        "HostName=h;sharedaccesskey=*** and SHAREDACCESSKEY = '***'",
        "HostName=h;DeviceId=sig;x509=true",
    ],
)
def test_masking_hides_keys_and_signatures_and_nothing_else(masked):
    for secret in ("c2VjcmV0", "c2VjcmV0+/==", "c2VjcmV0%3D", "***"):
        assert mask_key(masked.replace("***", secret)) == masked


@given(key=key_texts)
def test_no_key_survives_masking(key):
    assert key not in mask_key(f"HostName=h;DeviceId=d;SharedAccessKey={key}")
