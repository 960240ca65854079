"""Property bags: `k=v` pairs in a topic, parsed and written."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.mqtt.frame import ProtocolError
from emulator.mqtt.property_bag import parse, write

_SHORT = {
    "message-id": "$.mid",
    "correlation-id": "$.cid",
    "user-id": "$.uid",
    "to": "$.to",
    "absolute-expiry-time": "$.exp",
    "content-type": "$.ct",
    "content-encoding": "$.ce",
    "iothub-outputname": "$.on",
    "iothub-message-schema": "$.schema",
    "iothub-interface-id": "$.ifid",
    "dt-subject": "$.sub",
}

_texts = st.text(st.characters(exclude_categories=["Cs"]))
_names = _texts.filter(lambda name: name and not name.startswith("$."))


@pytest.mark.parametrize(
    ("text", "system", "properties"),
    [
        ("", {}, {}),
        ("a", {}, {"a": ""}),
        ("a=", {}, {"a": ""}),
        ("a=1&a", {}, {"a": ""}),
        ("b=2&a=1&b=3", {}, {"a": "1", "b": "3"}),
        ("?a=1", {}, {"?a": "1"}),
        ("a=1/b=2", {}, {"a": "1"}),
        ("a=1/&&==", {}, {"a": "1"}),
        ("a=1&b/c=2", {}, {"a": "1", "b": ""}),
        ("/a=1", {}, {}),
        ("a=%3D&%3D=%26", {}, {"a": "=", "=": "&"}),
        ("a:b=c:d!*'();,@[]", {}, {"a:b": "c:d!*'();,@[]"}),
        ("ü=ß", {}, {"ü": "ß"}),
        ("a%26b%3Dc=%2F%23%2B%25", {}, {"a&b=c": "/#+%"}),
        ("Case=1&case=2", {}, {"case": "2"}),
        ("case=1&a=3&C%41se=2", {}, {"a": "3", "CAse": "2"}),
        ("bad=%zz%4", {}, {"bad": "%zz%4"}),
        ("not-utf-8=%FF", {}, {"not-utf-8": "\ufffd"}),
        ("$.unknown=1&mid=2", {}, {"$.unknown": "1", "mid": "2"}),
        ("a+b=c+d", {}, {"a+b": "c+d"}),  # a space is %20, never +
        ("a=%", {}, {"a": "%"}),
        ("%24.mid=1&$.mid=2", {"message-id": "2"}, {}),
        ("$.mid", {"message-id": ""}, {}),
        ("$.MID=1", {}, {"$.MID": "1"}),
        ("$.cdid=d&%24.cdid=d&$.cmid", {}, {}),
        ("message-id=1", {}, {"message-id": "1"}),
        ("%24.ctime=now", {}, {"iothub-creation-time-utc": "now"}),
        ("iothub-ack=full&iothub-operation=x", {}, {"iothub-ack": "full", "iothub-operation": "x"}),
    ],
)
def test_the_properties_of_a_bag(
    text: str, system: dict[str, str], properties: dict[str, str | None]
) -> None:
    assert parse(text) == (system, properties)


@pytest.mark.parametrize(
    "text",
    [
        "=",
        "==",
        "=a",
        "==v",
        "k==",
        "k=a=b",
        "k==v",
        "a=1&b==",
        "a=1&=b",
        "&",
        "&&",
        "&a",
        "a&",
        "a=1&",
        "a=1&&b=2",
        "&/a",
        "a=1&/",
        "a=b=/",
        "$.mid=a=b",
        "$.cdid=a=b",
    ],
)
def test_a_bag_with_a_stray_separator_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse(text)


@pytest.mark.parametrize(("name", "short"), _SHORT.items())
def test_a_system_property_has_its_short_name_both_ways(name: str, short: str) -> None:
    assert write({name: "a b"}, {}) == f"{quote(short)}=a%20b"
    assert parse(f"{short}=a%20b") == ({name: "a b"}, {})


def test_system_properties_come_first_and_only_those_with_a_short_name() -> None:
    assert write({"message-id": "1", "no-such-name": "2"}, {"b": "", "a": None}) == (
        "%24.mid=1&b=&a"
    )


def _by_lower_case(properties: dict[str, str | None]) -> dict[str, str]:
    last = {name.lower(): (name, value) for name, value in properties.items()}
    return {name: value or "" for name, value in last.values()}


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(_SHORT)), _texts),
    st.dictionaries(_names, st.none() | _texts),
)
def test_a_bag_is_parsed_as_it_was_written(
    system: dict[str, str], properties: dict[str, str | None]
) -> None:
    text = write(system, properties)
    # One segment of a topic, in which the SDK for Python finds its pairs by `&` and `=`.
    assert text.isascii()
    assert not set(text) & set("/+#$ \0")
    assert text.count("&") == max(len(system) + len(properties) - 1, 0)
    properties = {name: properties[name] for name in sorted(properties, key="iothub-ack".__ne__)}
    assert parse(text) == (system, _by_lower_case(properties))


@settings(deadline=None)
@given(st.text("$.%=&midc24dF \0é/") | _texts)
def test_any_text_is_a_bag_or_an_error_of_the_client(text: str) -> None:
    pairs = text.partition("/")[0].split("&")
    is_valid = pairs == [""] or all(
        pair and pair[0] != "=" and pair.count("=") <= 1 for pair in pairs
    )
    try:
        bag = parse(text)
    except ProtocolError:
        assert not is_valid
        return
    assert is_valid
    assert not {"$.cdid", "$.cmid"} & set(bag.properties)
    assert len(bag.system) + len(bag.properties) <= len(pairs)
    assert parse(write(*bag)) == bag
