import base64
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import pytest
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.sas import SasToken, check_reach, check_signature
from emulator.hub.access.token_time import TokenTime
from emulator.hub.core.errors import IotHubUnauthorizedAccess
from tests.clock import START, ManualClock
from tests.hub.fakes import KEYS, LATER, OTHER_KEYS, signature, token_text

HOSTS = ("localhost", "127.0.0.1", "::1", "My-Hub.azure-devices.net")
NOW = START.timestamp()


def check(text, keys, resource, hosts, now, tolerance=0.0):
    token = SasToken.parse(text)
    check_signature(token, keys)
    time = TokenTime(ManualClock(datetime.fromtimestamp(now, UTC)), tolerance)
    check_reach(token, resource=resource, hosts=hosts, time=time)


def passes(text, resource=(), *, keys=KEYS, hosts=HOSTS, now=NOW, tolerance=0.0):
    try:
        check(text, keys, resource, hosts, now, tolerance)
    except IotHubUnauthorizedAccess:
        return False
    return True


# --- ids, and how clients spell them

odd_ids = ["a", "ab", "A", "a%2Fb", "a%2fmodules", "100%", "100%25", "%", "a#b", "a%23b"]
ids = st.sampled_from(odd_ids) | st.text("ab09-.+%_#*?!(),=@$':;", min_size=1, max_size=8)
resources = st.one_of(
    st.sampled_from([(), ("devices",)]),
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


def ids_twice(path: str) -> str:  # the C# SDK and Edge
    host, *rest = path.split("/")
    return encoded("/".join([host, *map(encoded, rest)]))


# Without an argument, `quote` keeps the slashes. The last one of all is the C SDK.
SPELLINGS = [encoded, lower_case_escapes, quote, lambda path: encoded(encoded(path))]
documented = st.sampled_from(SPELLINGS)
any_spelling = st.sampled_from([*SPELLINGS, ids_twice, str])


CASES = [str.lower, str.upper, str.swapcase]


# --- what a token covers


def lower(resource):
    return [segment.lower() for segment in resource]


@settings(deadline=None)
@given(granted=resources, wanted=resources, host=dialled, write=documented, key=key_texts)
def test_a_policy_token_covers_its_own_path_and_what_lies_below(granted, wanted, host, write, key):
    keys = SymmetricKeys(key, OTHER_KEYS.secondary)
    text = token_text(write("/".join([host, *granted])), skn="device", key=keys.primary)
    covered = lower(wanted[: len(granted)]) == lower(granted)
    assert passes(text, wanted, keys=keys, hosts=[host]) == covered
    assert passes(text, granted, keys=keys, hosts=[host])
    assert not passes(text, wanted, keys=keys, hosts=["elsewhere"])


@settings(deadline=None)
@given(device=ids, write=any_spelling)
def test_a_policy_token_never_covers_two_devices(device, write):
    token = SasToken.parse(token_text(write(f"localhost/devices/{device}"), skn="device"))
    decoded = [device, unquote(device), unquote(unquote(device))]
    look_alikes = {*decoded, *map(encoded, decoded), device.partition("%2F")[0], device.swapcase()}
    covered = {each.lower() for each in look_alikes if token.covers(("devices", each), HOSTS)}
    assert len(covered) <= 1


@settings(deadline=None)
@given(granted=resources, host=dialled, write=any_spelling, change=st.sampled_from(CASES))
def test_an_audience_is_compared_without_regard_to_letter_case(granted, host, write, change):
    path = "/".join([host, *granted])
    assert passes(token_text(change(encoded(path)), skn="device"), granted, hosts=[host])
    assert passes(token_text(write(change(path))), granted, hosts=[host])
    assert passes(token_text(write(path)), tuple(map(change, granted)), hosts=[host])


@settings(deadline=None)
@given(device=ids, module=ids, write=any_spelling)
def test_a_token_of_the_device_s_own_key_can_spell_its_ids_as_any_sdk_does(device, module, write):
    resource = ("devices", device, "modules", module)
    assert passes(token_text(write("/".join(["localhost:8443", *resource]))), resource)


# By the path that is wanted: the audiences that cover it, and those that do not.
COVERED = {
    "": ["localhost"],
    "devices/a": [
        *("localhost/", "localhost%2F", "localhost/devices", "localhost/devices/"),
        *("localhost%2Fdevices%2F", "localhost%2Fdevices%2Fa%2F", "localhost/devices/a"),
        *("localhost%252Fdevices%252Fa", "localhost%3A8443/devices/a"),
        *("localhost/Devices/a", "LOCALHOST/DEVICES/A", "localhost%2Fdevices%2FA"),
    ],
    "devices/MyDevice": ["localhost%2fdevices%2fmydevice", "localhost/devices/MYDEVICE"],
    "devices/MyDevice/modules/M": ["localhost%2fdevices%2fmydevice%2fmodules%2fm"],
    "devices/a/modules/m": ["localhost", "localhost/devices/a", "localhost/devices/a/modules"],
    "devices/a/messages/events": ["localhost/devices/a"],
}
NOT_COVERED = {
    # Below, or beside
    "": ["localhost/devices", "localhost/devices/a"],
    "devices": ["localhost/devices/a"],
    "devices/a": [
        *("localhost/devices/a/modules/m", "localhost/devices/ab", "localhost/Devices/AB"),
        "localhost/modules/a",
        # Slashes that are too many, or that belong to an id
        *("localhost//devices/a", "localhost/devices//", "localhost/devices//a"),
        *("/localhost/devices/a", "localhost/devices/a/..", "localhost%2Fdevices%2Fa%252Fb"),
        "localhost/devices/a%2Fb",
        # Unknown hosts
        *("localhost2/devices/a", "other/devices/a", "%2Fdevices%2Fa", "devices/a"),
    ],
    "devices/ab": ["localhost/devices/a"],
    "devices/a%2Fb": ["localhost%2Fdevices%2Fa"],
    "devices/a/modules/n": ["localhost/devices/a/modules/m"],
    "devices/a/modules/m": [
        *("localhost%2Fdevices%2Fa%252Fmodules%252Fm", "localhost/devices/a%2Fmodules%2Fm")
    ],
}


@pytest.mark.parametrize("skn", [None, "device"])
@pytest.mark.parametrize(
    ("wanted", "sr", "covered"),
    [
        *((wanted, sr, True) for wanted, audiences in COVERED.items() for sr in audiences),
        *((wanted, sr, False) for wanted, audiences in NOT_COVERED.items() for sr in audiences),
    ],
)
def test_an_audience_covers_by_whole_segments(wanted, sr, covered, skn):
    resource = tuple(wanted.split("/")) if wanted else ()
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


# By the name of the hub.
SAME_HOST = {
    "localhost": ["localhost", "LocalHost:8443"],
    "LOCALHOST:8443": ["localhost"],
    "127.0.0.1": ["127.0.0.1:8443"],
    "::1": ["::1", "[::1]", "[::1]:8443"],
    "[::1]:8443": ["::1"],
    "fe80::1": ["[FE80::1]:8443"],
    "my_container:443": ["my_container"],
}
OTHER_HOST = {
    "::1": ["::2", "::1:8443", "[::1]8443"],  # the second one is an address of its own
    "localhost": [
        *("localhost:", "localhost:8443x", "localhost:٤٤٣", "user@localhost"),
        *("https://localhost", "localhost.example.com"),
    ],
}


@pytest.mark.parametrize(
    ("known_as", "host", "same"),
    [
        *((known_as, host, True) for known_as, hosts in SAME_HOST.items() for host in hosts),
        *((known_as, host, False) for known_as, hosts in OTHER_HOST.items() for host in hosts),
    ],
)
def test_a_host_is_compared_without_port_and_letter_case(known_as, host, same):
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
    assert passes(token_text("localhost"), now=now + 300, tolerance=300.0) == good


INVALID_EXPIRIES = [
    # Beyond the end of .NET's DateTime: one second, in milliseconds, and more than int() reads
    *("253402300800", "1769874368000", str(10**400), "9" * 5000),
    *("0", "1e9", "1.7e9", "1769874368.0", "+1769874368", "-1769874368", " 1769874368"),
    *("1769874368\n", "1_769_874_368", "0x697e23c0", "%31769874368", "inf", "nan"),
]


@pytest.mark.parametrize(
    ("se", "good"),
    [
        ("4102444800", True),  # the year 2100
        ("253402300799", True),  # the end of the year 9999, and of .NET's DateTime
        ("001769874368", True),
        *((se, False) for se in INVALID_EXPIRIES),
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
        check(text, KEYS, (), HOSTS, now)
    assert refused.value.text == "Unauthorized"
    assert cause in str(refused.value.__cause__)


def test_a_refusal_names_the_tolerance():
    with pytest.raises(IotHubUnauthorizedAccess) as refused:
        check(token_text("localhost"), KEYS, (), HOSTS, 1769874668.0, 300.0)
    assert str(refused.value.__cause__) == (
        "the SAS token expired: se is 1769874368, the time is 1769874668, 300 s late is tolerated"
    )


# --- the token's text

SIG = quote(signature(KEYS.primary, "localhost", LATER), safe="")


SCHEME, FIELDS = "SharedAccessSignature", f"sr=localhost&sig={SIG}&se={LATER}"


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        (FIELDS, None),
        (f"{FIELDS}&skn=service", "service"),
        (f"skn=service&se={LATER}&sig={SIG}&sr=localhost", "service"),
        (f"{FIELDS}&skn=my%20policy", "my policy"),
        (f"{FIELDS}&skn=a+b", "a+b"),
        (f"{FIELDS}&skn=", None),  # the C SDK
        (f"{FIELDS}&foo=bar&baz", None),
    ],
)
def test_fields_come_in_any_order_among_unknown_ones(fields, policy):
    assert passes(f"{SCHEME} {fields}")
    assert SasToken.parse(f"{SCHEME} {fields}").policy == policy


@pytest.mark.parametrize("sig", ["x", "%0a", "A===", "%1b[31m"])
def test_a_signature_that_is_not_base64_is_named_as_the_reason(sig):
    with pytest.raises(IotHubUnauthorizedAccess) as caught:
        SasToken.parse(f"SharedAccessSignature sr=localhost&sig={sig}&se={LATER}")
    assert str(caught.value.__cause__) == "a SAS token whose sig is not base64"


def test_a_signature_can_have_an_unencoded_plus():
    # Some expiry in the first hundred gives a signature with one.
    for se in map(str, range(1_769_874_368, 1_769_874_468)):
        sig = signature(KEYS.primary, "localhost", se)
        if "+" in sig:
            assert passes(f"SharedAccessSignature sr=localhost&sig={sig}&se={se}")
            return
    pytest.fail("no signature with a plus")


VALUES = {"sr": "localhost", "sig": SIG, "se": LATER}
MALFORMED_FIELDS = [
    *({name: value for name, value in VALUES.items() if name != missing} for missing in VALUES),
    *({**VALUES, empty: ""} for empty in VALUES),
    *({**VALUES, "sr": "löcalhost"}, {**VALUES, "se": "١٧٠٠٠٠٣٦٠٠"}),
    *({**VALUES, "sig": sig} for sig in ("!!!!", "%", "%C3%A4", "=", SIG.removesuffix("%3D"))),
    *({**VALUES, "sig": sig} for sig in (SIG + "%3D", SIG + "%0A", quote(SIG))),
]
MALFORMED = [
    *("", SCHEME, f"{SCHEME} ", f"{SCHEME} &&", "Bearer abc", FIELDS, f" {SCHEME} {FIELDS}"),
    *(f"{SCHEME.lower()} {FIELDS}", f"{SCHEME}  {FIELDS}"),
    *(f"{SCHEME} {FIELDS}&{more}" for more in ("sr=a", "se=1", "skn=a&skn=b", "skn=ä")),
    *(
        f"{SCHEME} " + "&".join(f"{name}={value}" for name, value in fields.items())
        for fields in MALFORMED_FIELDS
    ),
]


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
    asked = {"resource": ("devices", device), "keys": keys, "hosts": [host]}
    assert passes(str(made), **asked, now=made.expiry_time - 1)
    assert not passes(str(made), **asked, now=made.expiry_time)


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
