from __future__ import annotations

import base64
import hashlib
import hmac
import traceback
from collections.abc import Sequence
from urllib.parse import quote, unquote

import pytest
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from emulator.hub.access.keys import SymmetricKeys, mask_key
from emulator.hub.access.policies import DEFAULT_RIGHTS, Policy, Right
from emulator.hub.access.sas import SasToken, check_token
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, IotHubUnauthorizedAccess

KEYS = SymmetricKeys(base64.b64encode(b"p" * 32).decode(), base64.b64encode(b"s" * 32).decode())
OTHER_KEYS = SymmetricKeys.generate()
HOSTS = ("localhost", "127.0.0.1", "::1", "My-Hub.azure-devices.net")
NOW = 1_700_000_000.0
LATER = "1700003600"


def signature(key: str, sr: str, se: str) -> str:
    """Sign as the documentation says, apart from the code under test."""
    mac = hmac.new(base64.b64decode(key), f"{sr}\n{se}".encode(), hashlib.sha256)
    return base64.b64encode(mac.digest()).decode()


def token_text(sr: str, se: str = LATER, *, skn: str | None = None, key: str = KEYS.primary) -> str:
    text = f"SharedAccessSignature sr={sr}&sig={quote(signature(key, sr, se), safe='')}&se={se}"
    return text if skn is None else f"{text}&skn={skn}"


def passes(
    text: str,
    resource: Sequence[str] = (),
    *,
    keys: SymmetricKeys = KEYS,
    hosts: Sequence[str] = HOSTS,
    now: float = NOW,
) -> bool:
    try:
        check_token(SasToken.parse(text), keys, resource=resource, hosts=hosts, now=now)
    except IotHubUnauthorizedAccess:
        return False
    return True


# --- what identities are called, and how clients write it

ids = st.one_of(
    st.sampled_from(
        ["a", "ab", "A", "a%2Fb", "a%2fmodules", "100%", "100%25", "%", "a#b", "a%23b"]
    ),
    st.text("ab09-.+%_#*?!(),=@$':;", min_size=1, max_size=8),
)
resources = st.one_of(
    st.just(()),
    st.just(("devices",)),
    st.tuples(st.just("devices"), ids),
    st.tuples(st.just("devices"), ids, st.just("modules"), ids),
)
key_texts = st.binary(min_size=16, max_size=64).map(lambda key: base64.b64encode(key).decode())
dialled = st.sampled_from(
    ["localhost", "LOCALHOST:8443", "127.0.0.1:443", "[::1]:8443", "my-hub.azure-devices.net"]
)


def encoded(path: str) -> str:  # the Python device SDK, Node
    return quote(path, safe="")


def lower_case_escapes(path: str) -> str:  # C#, and older documentation
    text = encoded(path)
    for escape in {text[i : i + 3] for i, c in enumerate(text) if c == "%"}:
        text = text.replace(escape, escape.lower())
    return text


def slashes_kept(path: str) -> str:  # urllib.parse.quote, as it is called by default
    return quote(path)


def encoded_twice(path: str) -> str:
    return encoded(encoded(path))


def ids_twice(path: str) -> str:  # the C# SDK and Edge
    host, *rest = path.split("/")
    return encoded("/".join([host, *map(encoded, rest)]))


def raw(path: str) -> str:  # the C SDK
    return path


documented = st.sampled_from([encoded, lower_case_escapes, slashes_kept, encoded_twice])
any_spelling = st.sampled_from(
    [encoded, lower_case_escapes, slashes_kept, encoded_twice, ids_twice, raw]
)


# --- what a token covers


@settings(deadline=None)
@given(granted=resources, wanted=resources, host=dialled, write=documented, key=key_texts)
def test_a_policy_token_covers_its_own_path_and_what_lies_below(granted, wanted, host, write, key):
    keys = SymmetricKeys(key, OTHER_KEYS.secondary)
    text = token_text(write("/".join([host, *granted])), skn="device", key=keys.primary)
    covered = wanted[: len(granted)] == granted
    assert passes(text, wanted, keys=keys, hosts=[host]) == covered
    assert passes(text, granted, keys=keys, hosts=[host])
    assert not passes(text, wanted, keys=keys, hosts=["elsewhere"])


@settings(deadline=None)
@given(device=ids, write=any_spelling)
def test_a_policy_token_never_covers_two_devices(device, write):
    token = SasToken.parse(token_text(write(f"localhost/devices/{device}"), skn="device"))
    decoded = [device, unquote(device), unquote(unquote(device))]
    look_alikes = {*decoded, *map(encoded, decoded), device.partition("%2F")[0], device.lower()}
    covered = [other for other in look_alikes if token.covers(("devices", other), HOSTS)]
    assert len(covered) <= 1


@settings(deadline=None)
@given(device=ids, module=ids, write=any_spelling)
def test_an_own_key_token_may_spell_its_ids_as_any_sdk_does(device, module, write):
    resource = ("devices", device, "modules", module)
    assert passes(token_text(write("/".join(["localhost:8443", *resource]))), resource)


@pytest.mark.parametrize("skn", [None, "device"])
@pytest.mark.parametrize(
    ("sr", "resource", "covered"),
    [
        ("localhost", (), True),
        ("localhost", ("devices", "a", "modules", "m"), True),
        ("localhost/", ("devices", "a"), True),
        ("localhost%2F", ("devices", "a"), True),
        ("localhost/devices", ("devices", "a"), True),
        ("localhost/devices/", ("devices", "a"), True),
        ("localhost%2Fdevices%2F", ("devices", "a"), True),
        ("localhost%2Fdevices%2Fa%2F", ("devices", "a"), True),
        ("localhost/devices/a", ("devices", "a"), True),
        ("localhost/devices/a", ("devices", "a", "modules", "m"), True),
        ("localhost/devices/a", ("devices", "a", "messages", "events"), True),
        ("localhost/devices/a/modules", ("devices", "a", "modules", "m"), True),
        ("localhost/devices/a/modules/m", ("devices", "a", "modules", "m"), True),
        ("localhost%252Fdevices%252Fa", ("devices", "a"), True),
        ("localhost%3A8443/devices/a", ("devices", "a"), True),
        # Below, beside, or above what is wanted.
        ("localhost/devices", (), False),
        ("localhost/devices/a", (), False),
        ("localhost/devices/a", ("devices",), False),
        ("localhost/devices/a/modules/m", ("devices", "a"), False),
        ("localhost/devices/a/modules/m", ("devices", "a", "modules", "n"), False),
        ("localhost/devices/a", ("devices", "ab"), False),
        ("localhost/devices/ab", ("devices", "a"), False),
        ("localhost/devices/a", ("devices", "A"), False),
        ("localhost/Devices/a", ("devices", "a"), False),
        ("localhost/modules/a", ("devices", "a"), False),
        # Slashes that are too many, or that belong to an id.
        ("localhost//devices/a", ("devices", "a"), False),
        ("localhost/devices//", ("devices", "a"), False),
        ("localhost/devices//a", ("devices", "a"), False),
        ("/localhost/devices/a", ("devices", "a"), False),
        ("localhost/devices/a/..", ("devices", "a"), False),
        ("localhost%2Fdevices%2Fa%252Fb", ("devices", "a"), False),
        ("localhost%2Fdevices%2Fa%252Fmodules%252Fm", ("devices", "a", "modules", "m"), False),
        ("localhost/devices/a%2Fmodules%2Fm", ("devices", "a", "modules", "m"), False),
        ("localhost/devices/a%2Fb", ("devices", "a"), False),
        ("localhost%2Fdevices%2Fa", ("devices", "a%2Fb"), False),
        # No such host.
        ("localhost2/devices/a", ("devices", "a"), False),
        ("other/devices/a", ("devices", "a"), False),
        ("%2Fdevices%2Fa", ("devices", "a"), False),
        ("devices/a", ("devices", "a"), False),
    ],
)
def test_an_audience_covers_by_whole_segments(sr, resource, covered, skn):
    assert passes(token_text(sr, skn=skn), resource) == covered


@pytest.mark.parametrize(
    ("sr", "device"),
    [
        ("localhost%2Fdevices%2Fa%2523b", "a#b"),  # encoded twice, or an id with a '%'
        ("localhost/devices/100%25", "100%25"),  # not encoded, or encoded once
    ],
)
def test_an_ambiguous_id_is_read_as_documented_in_a_policy_token(sr, device):
    assert passes(token_text(sr), ("devices", device))
    assert not passes(token_text(sr, skn="device"), ("devices", device))


@pytest.mark.parametrize(
    ("host", "known_as"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8443", "localhost"),
        ("localhost", "LOCALHOST:8443"),
        ("127.0.0.1:8443", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:8443", "::1"),
        ("::1", "[::1]:8443"),
        ("[FE80::1]:8443", "fe80::1"),
        ("my_container", "my_container:443"),
    ],
)
def test_a_host_is_compared_without_port_and_letter_case(host, known_as):
    assert passes(token_text(encoded(host)), hosts=[known_as])
    assert passes(token_text(encoded(f"{host}/devices/a")), ("devices", "a"), hosts=[known_as])
    assert passes(token_text(f"{host}/devices/a"), ("devices", "a"), hosts=[known_as])


@pytest.mark.parametrize(
    ("host", "known_as"),
    [
        ("::1", "::2"),
        ("::1:8443", "::1"),  # an address of its own
        ("[::1]8443", "::1"),
        ("localhost:", "localhost"),
        ("localhost:8443x", "localhost"),
        ("localhost:٤٤٣", "localhost"),
        ("user@localhost", "localhost"),
        ("https://localhost", "localhost"),
        ("localhost.example.com", "localhost"),
    ],
)
def test_another_host_is_refused(host, known_as):
    assert not passes(token_text(encoded(host)), hosts=[known_as])


# --- signature and expiry


@pytest.mark.parametrize("key", [KEYS.primary, KEYS.secondary])
def test_either_key_signs(key):
    text = token_text("localhost", key=key)
    assert passes(text)
    assert not passes(text, keys=OTHER_KEYS)


@settings(deadline=None)
@given(data=st.data(), part=st.sampled_from(["sr", "se", "sig"]), skn=st.sampled_from([None, "p"]))
def test_any_single_changed_character_refuses(data, part, skn):
    sr, se = encoded("localhost/devices/a+b"), LATER
    parts = {"sr": sr, "se": se, "sig": signature(KEYS.primary, sr, se)}
    place = data.draw(st.integers(0, len(parts[part]) - 1))
    character = data.draw(st.characters(max_codepoint=127))
    changed = parts[part][:place] + character + parts[part][place + 1 :]
    assume(changed != parts[part])
    parts[part] = changed
    tail = "" if skn is None else f"&skn={skn}"
    text = f"SharedAccessSignature sr={parts['sr']}&sig={encoded(parts['sig'])}&se={parts['se']}"
    assert not passes(text + tail, ("devices", "a+b"))


def test_spare_bits_in_the_last_digit_of_a_signature_are_not_free_to_choose():
    sig = signature(KEYS.primary, "localhost", LATER)
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = sig[:-2] + digits[digits.index(sig[-2]) ^ 1] + "="
    assert base64.b64decode(twin) == base64.b64decode(sig)
    assert passes(f"SharedAccessSignature sr=localhost&sig={sig}&se={LATER}")
    assert not passes(f"SharedAccessSignature sr=localhost&sig={twin}&se={LATER}")


@pytest.mark.parametrize(
    ("now", "good"),
    [(NOW, True), (1700003599.999, True), (1700003600.0, False), (1700003600.001, False)],
)
def test_a_token_is_good_until_the_moment_of_its_expiry(now, good):
    assert passes(token_text("localhost"), now=now) == good


@pytest.mark.parametrize(
    ("se", "good"),
    [
        ("0", False),
        ("4102444800", True),  # the year 2100
        ("253402300799", True),  # the end of the year 9999, and of .NET's DateTime
        ("253402300800", False),
        ("1700003600000", False),  # milliseconds
        (str(10**400), False),
        ("9" * 5000, False),  # beyond what int() reads
        ("001700003600", True),
        ("1e9", False),
        ("1.7e9", False),
        ("1700003600.0", False),
        ("+1700003600", False),
        ("-1700003600", False),
        (" 1700003600", False),
        ("1700003600\n", False),
        ("1_700_003_600", False),
        ("0x65537f10", False),
        ("%31700003600", False),
        ("inf", False),
        ("nan", False),
    ],
)
def test_expiry_is_a_decimal_number_of_seconds(se, good):
    assert passes(token_text("localhost", se)) == good


@pytest.mark.parametrize(
    ("text", "now", "cause"),
    [
        (token_text("localhost", key=OTHER_KEYS.primary), NOW, "signed with neither"),
        (token_text("localhost"), 1700003600.0, "expired: se is 1700003600"),
        (token_text("elsewhere"), NOW, "for 'elsewhere', not for 'the hub'"),
    ],
)
def test_a_refusal_gives_the_service_s_text_and_its_reason_as_the_cause(text, now, cause):
    with pytest.raises(IotHubUnauthorizedAccess) as refused:
        check_token(SasToken.parse(text), KEYS, resource=(), hosts=HOSTS, now=now)
    assert refused.value.text == "Unauthorized"
    assert cause in str(refused.value.__cause__)


# --- the token's text

SIG = quote(signature(KEYS.primary, "localhost", LATER), safe="")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}", None),
        (f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&skn=service", "service"),
        (f"SharedAccessSignature skn=service&se={LATER}&sig={SIG}&sr=localhost", "service"),
        (f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&skn=my%20policy", "my policy"),
        (f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&skn=a+b", "a+b"),
        (f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&skn=", None),  # the C SDK
        (f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&foo=bar&baz", None),
    ],
)
def test_fields_come_in_any_order_among_unknown_ones(text, policy):
    assert passes(text)
    assert SasToken.parse(text).policy == policy


def test_a_signature_may_hold_an_unencoded_plus():
    # Some expiry in the first hundred gives a signature with one.
    for se in map(str, range(1_700_003_600, 1_700_003_700)):
        sig = signature(KEYS.primary, "localhost", se)
        if "+" in sig:
            assert passes(f"SharedAccessSignature sr=localhost&sig={sig}&se={se}")
            return
    pytest.fail("no signature with a plus")


GOOD = {"sr": "localhost", "sig": SIG, "se": LATER}
MALFORMED = [
    "",
    "SharedAccessSignature",
    "SharedAccessSignature ",
    "SharedAccessSignature &&",
    "Bearer abc",
    f"sr=localhost&sig={SIG}&se={LATER}",
    f"sharedaccesssignature sr=localhost&sig={SIG}&se={LATER}",
    f" SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}",
    f"SharedAccessSignature  sr=localhost&sig={SIG}&se={LATER}",
    f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&sr=localhost",
    f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&se={LATER}",
    f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&skn=a&skn=b",
    f"SharedAccessSignature sr=localhost&sig={SIG}&se={LATER}&skn=ä",
    *("SharedAccessSignature " + "&".join(f"{k}={v}" for k, v in fields.items()) for fields in [
        *({k: v for k, v in GOOD.items() if k != left_out} for left_out in GOOD),
        *({**GOOD, empty: ""} for empty in GOOD),
        {**GOOD, "sr": "löcalhost"},
        {**GOOD, "se": "١٧٠٠٠٠٣٦٠٠"},
        {**GOOD, "sig": "!!!!"},
        {**GOOD, "sig": "%"},
        {**GOOD, "sig": "%C3%A4"},
        {**GOOD, "sig": "="},
        {**GOOD, "sig": SIG.removesuffix("%3D")},
        {**GOOD, "sig": SIG + "%3D"},
        {**GOOD, "sig": SIG + "%0A"},
        {**GOOD, "sig": quote(SIG)},
    ]),
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_token_is_refused(text):
    with pytest.raises(IotHubUnauthorizedAccess):
        SasToken.parse(text)


pieces = st.one_of(
    st.sampled_from(["SharedAccessSignature ", "sr=", "sig=", "se=", "skn=", "&", "=", "%", "/"]),
    st.sampled_from(["localhost", SIG, LATER, "%2F", "%25", "[", "]", ":", "1" * 5000]),
    st.text(max_size=5),
)
messy_tokens = st.one_of(
    st.text(),
    st.lists(pieces).map("".join),
    st.lists(pieces).map(lambda parts: "SharedAccessSignature " + "".join(parts)),
    st.builds(
        "SharedAccessSignature sr={}&sig={}&se={}{}".format,
        st.lists(pieces).map("".join),
        st.just(SIG) | st.text(),
        st.just(LATER) | st.text() | st.integers().map(str),
        st.text(),
    ),
)


@settings(deadline=None)
@given(text=messy_tokens, resource=resources)
def test_no_text_raises_anything_but_unauthorized(text, resource):
    try:
        token = SasToken.parse(text)
    except IotHubUnauthorizedAccess:
        return
    token.covers(resource, HOSTS)
    assert not passes(text, resource, keys=OTHER_KEYS)


# --- the SDKs' own tokens


@settings(deadline=None, max_examples=30)
@given(device=ids, key=key_texts, host=dialled)
def test_tokens_of_the_device_sdk_are_accepted(device, key, host):
    made = RenewableSasToken(f"{host}/devices/{device}", SymmetricKeySigningMechanism(key), ttl=60)
    keys = SymmetricKeys(key, key)
    resource = ("devices", device)
    hosts = [host]
    assert passes(str(made), resource, keys=keys, hosts=hosts, now=made.expiry_time - 1)
    assert not passes(str(made), resource, keys=keys, hosts=hosts, now=made.expiry_time)


@settings(deadline=None, max_examples=30)
@given(key=key_texts, host=dialled)
def test_tokens_of_the_service_sdk_are_accepted(key, host):
    pytest.importorskip("azure.iot.hub", exc_type=ImportError)  # no build for arm64
    from azure.iot.hub.sastoken import SasToken as ServiceSasToken

    made = ServiceSasToken(host, key, "iothubowner", ttl=60)
    keys = SymmetricKeys(key, key)
    assert SasToken.parse(str(made)).policy == "iothubowner"
    assert passes(str(made), keys=keys, hosts=[host], now=made.expiry_time - 1)
    assert not passes(str(made), keys=keys, hosts=[host], now=made.expiry_time)


# --- keys and policies


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
def test_bad_keys_are_refused(primary, secondary, text):
    with pytest.raises(ArgumentInvalid) as refused:
        SymmetricKeys.from_request(primary, secondary)
    assert refused.value.text == text


json_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), key_texts, st.lists(st.text(), max_size=2)
)


@given(primary=json_values, secondary=json_values)
def test_a_request_gives_two_usable_keys_or_is_refused(primary, secondary):
    try:
        keys = SymmetricKeys.from_request(primary, secondary)
    except ArgumentInvalid:
        return
    for key in (keys.primary, keys.secondary):
        assert len(base64.b64decode(key)) in limits.KEY_BYTES


def test_the_default_policies_have_the_documented_rights():
    read, write = Right.REGISTRY_READ, Right.REGISTRY_WRITE
    service, device = Right.SERVICE_CONNECT, Right.DEVICE_CONNECT
    assert dict(DEFAULT_RIGHTS) == {
        "iothubowner": read | write | service | device,
        "service": service,
        "device": device,
        "registryRead": read,
        "registryReadWrite": read | write,
    }


# --- secrets stay secret


@given(primary=key_texts, secondary=key_texts)
def test_a_repr_shows_no_secret(primary, secondary):
    keys = SymmetricKeys(primary, secondary)
    token = SasToken.parse(token_text("localhost", key=primary))
    shown = f"{keys!r} {keys} {Policy('service', Right.SERVICE_CONNECT, keys)!r} {token!r}"
    assert primary not in shown
    assert secondary not in shown
    assert repr(token.signature) not in shown


@pytest.mark.parametrize("secret", [SHORT, LONG, "c2VjcmV0!", "sécret"])
def test_a_traceback_shows_no_refused_key(secret):
    with pytest.raises(ArgumentInvalid) as refused:
        SymmetricKeys.from_request(secret, secret)
    assert secret not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0+/==",
            "HostName=h;DeviceId=d;SharedAccessKey=***",
        ),
        (
            "HostName=h;SharedAccessKey=c2VjcmV0;SharedAccessKeyName=service",
            "HostName=h;SharedAccessKey=***;SharedAccessKeyName=service",
        ),
        (
            "HostName=h;DeviceId=d;SharedAccessSignature="
            "SharedAccessSignature sr=h%2Fdevices%2Fd&sig=c2VjcmV0%3D&se=1&skn=p",
            "HostName=h;DeviceId=d;SharedAccessSignature="
            "SharedAccessSignature sr=h%2Fdevices%2Fd&sig=***&se=1&skn=p",
        ),
        (
            "Authorization: SharedAccessSignature sig=c2VjcmV0%3D&sr=h&se=1",
            "Authorization: SharedAccessSignature sig=***&sr=h&se=1",
        ),
        (
            "HostName=h;sharedaccesskey=c2VjcmV0 and SHAREDACCESSKEY = 'c2VjcmV0'",
            "HostName=h;sharedaccesskey=*** and SHAREDACCESSKEY = '***'",
        ),
        ("HostName=h;DeviceId=sig;x509=true", "HostName=h;DeviceId=sig;x509=true"),
    ],
)
def test_masking_hides_keys_and_signatures_alone(text, masked):
    assert mask_key(text) == masked
    assert mask_key(masked) == masked


@given(key=key_texts)
def test_no_key_survives_masking(key):
    assert key not in mask_key(f"HostName=h;DeviceId=d;SharedAccessKey={key}")
