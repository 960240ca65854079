from __future__ import annotations

import base64
from collections.abc import Sequence
from urllib.parse import quote, unquote

import pytest
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.sas import SasToken, check_token
from emulator.hub.core.errors import IotHubUnauthorizedAccess
from tests.clock import START
from tests.hub.fakes import KEYS, LATER, OTHER_KEYS, signature, token_text

HOSTS = ("localhost", "127.0.0.1", "::1", "My-Hub.azure-devices.net")
NOW = START.timestamp()


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


# --- ids, and how clients spell them

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
def test_a_token_of_the_device_s_own_key_can_spell_its_ids_as_any_sdk_does(device, module, write):
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
        # Unknown hosts.
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
    ("host", "known_as", "same"),
    [
        ("localhost", "localhost", True),
        ("LocalHost:8443", "localhost", True),
        ("localhost", "LOCALHOST:8443", True),
        ("127.0.0.1:8443", "127.0.0.1", True),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("[::1]:8443", "::1", True),
        ("::1", "[::1]:8443", True),
        ("[FE80::1]:8443", "fe80::1", True),
        ("my_container", "my_container:443", True),
        ("::1", "::2", False),
        ("::1:8443", "::1", False),  # an address of its own
        ("[::1]8443", "::1", False),
        ("localhost:", "localhost", False),
        ("localhost:8443x", "localhost", False),
        ("localhost:٤٤٣", "localhost", False),
        ("user@localhost", "localhost", False),
        ("https://localhost", "localhost", False),
        ("localhost.example.com", "localhost", False),
    ],
)
def test_a_host_is_compared_without_port_and_letter_case(host, known_as, same):
    device = ("devices", "a")
    assert passes(token_text(encoded(host)), hosts=[known_as]) == same
    assert passes(token_text(encoded(f"{host}/devices/a")), device, hosts=[known_as]) == same
    assert passes(token_text(f"{host}/devices/a"), device, hosts=[known_as]) == same


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


def test_the_unused_bits_in_the_last_digit_of_a_signature_must_be_zero():
    sig = signature(KEYS.primary, "localhost", LATER)
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = sig[:-2] + digits[digits.index(sig[-2]) ^ 1] + "="
    assert base64.b64decode(twin) == base64.b64decode(sig)
    assert passes(f"SharedAccessSignature sr=localhost&sig={sig}&se={LATER}")
    assert not passes(f"SharedAccessSignature sr=localhost&sig={twin}&se={LATER}")


@pytest.mark.parametrize(
    ("now", "good"),
    [(NOW, True), (1769874367.999, True), (1769874368.0, False), (1769874368.001, False)],
)
def test_a_token_is_valid_until_the_moment_of_its_expiry(now, good):
    assert passes(token_text("localhost"), now=now) == good


@pytest.mark.parametrize(
    ("se", "good"),
    [
        ("0", False),
        ("4102444800", True),  # the year 2100
        ("253402300799", True),  # the end of the year 9999, and of .NET's DateTime
        ("253402300800", False),
        ("1769874368000", False),  # milliseconds
        (str(10**400), False),
        ("9" * 5000, False),  # beyond what int() reads
        ("001769874368", True),
        ("1e9", False),
        ("1.7e9", False),
        ("1769874368.0", False),
        ("+1769874368", False),
        ("-1769874368", False),
        (" 1769874368", False),
        ("1769874368\n", False),
        ("1_769_874_368", False),
        ("0x697e23c0", False),
        ("%31769874368", False),
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
        (token_text("localhost"), 1769874368.0, "expired: se is 1769874368"),
        (token_text("elsewhere"), NOW, "for 'elsewhere', not for 'the hub'"),
    ],
)
def test_a_refusal_has_the_text_of_the_service_and_its_reason_as_the_cause(text, now, cause):
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


def test_a_signature_can_have_an_unencoded_plus():
    # Some expiry in the first hundred gives a signature with one.
    for se in map(str, range(1_769_874_368, 1_769_874_468)):
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


def test_the_repr_of_a_token_hides_its_signature():
    token = SasToken.parse(token_text("localhost"))
    assert repr(token) == "SasToken(audience='localhost', policy=None)"
