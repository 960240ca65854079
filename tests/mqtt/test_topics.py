"""Topics, filters and user names: what is parsed, and what is written."""

from __future__ import annotations

import contextlib
import re
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.hub.identities.identity import IdentityKey
from emulator.mqtt import topics
from emulator.mqtt.frame import ProtocolError

_DEVICE = IdentityKey("d1")
_MODULE = IdentityKey("d1", "m1")

# Text made of parts of topics is more likely to be almost a topic.
_PIECES = st.sampled_from(
    ["$iothub", "twin", "methods", "res", "POST", "GET", "PATCH", "properties", "reported",
     "desired", "devices", "d1", "modules", "m1", "messages", "events", "devicebound", "inputs",
     "/", "/", "/", "?", "$rid=", "$version=", "&", "=", "#", "+", "200", "-1", "99999999999"]
)  # fmt: skip
_TEXT = st.one_of(st.text(), st.lists(st.one_of(_PIECES, st.text(max_size=3))).map("".join))
_KEYS = st.sampled_from([_DEVICE, _MODULE, IdentityKey("+"), IdentityKey("#"), IdentityKey("(")])


@pytest.mark.parametrize(
    ("topic", "parsed"),
    [
        ("devices/d1/messages/events", topics.Telemetry("")),
        ("devices/d1/messages/events/", topics.Telemetry("")),
        ("devices/d1/messages/events/a=1&%24.ct=x", topics.Telemetry("a=1&%24.ct=x")),
        ("devices/d1/messages/events/a=1/b=2", topics.Telemetry("a=1/b=2")),
        ("$iothub/twin/GET/?$rid=1", topics.TwinGet("1")),
        ("$iothub/twin/GET/?$rid=", topics.TwinGet("")),
        ("$iothub/twin/GET/?a=b&$rid=%41=/?", topics.TwinGet("%41=/?")),
        ("$iothub/twin/PATCH/properties/reported/?$rid=1", topics.TwinPatch("1", None)),
        ("$iothub/twin/PATCH/properties/reported/?$rid=1&$version=7", topics.TwinPatch("1", "7")),
        ("$iothub/twin/PATCH/properties/reported/?$version=7&$rid=1", topics.TwinPatch("1", "7")),
        ("$iothub/twin/PATCH/properties/reported/", topics.TwinPatch(None, None)),
        ("$iothub/methods/res/200/?$rid=1f", topics.MethodResponse(200, "1f")),
        ("$iothub/methods/res/-2147483648/?$rid=1", topics.MethodResponse(-2147483648, "1")),
        ("$iothub/methods/res/2147483647/?$rid=1", topics.MethodResponse(2147483647, "1")),
    ],
)
def test_the_topics_that_a_device_may_publish_to(topic: str, parsed: object) -> None:
    assert topics.parse_topic(topic, _DEVICE) == parsed


def test_a_modules_telemetry_is_its_own() -> None:
    topic = "devices/d1/modules/m1/messages/events/"
    assert topics.parse_topic(f"{topic}%24.on=out/", _MODULE) == topics.Telemetry("%24.on=out/")
    for key in (_DEVICE, IdentityKey("d1", "m2"), IdentityKey("d2", "m1")):
        with pytest.raises(ProtocolError):
            topics.parse_topic(topic, key)
    with pytest.raises(ProtocolError):
        topics.parse_topic("devices/d1/messages/events/", _MODULE)


_OTHER_TOPICS = """
    telemetry devices/d1 devices/d1/messages devices/d1/messages/ devices/d1/messages/eventsx/
    devices/d1/messages/Events/ Devices/d1/messages/events/
    /devices/d1/messages/events/ devices/d1/messages/devicebound/ devices//messages/events/
    devices/d2/messages/events/ $SYS/broker/uptime $other/twin/GET/?$rid=1
    $iothub/ $iothub $iothub/twin $iothub/twin/ $iothub/twin/GET $iothub/twin/GET/
    $iothub/twin/GET/? $iothub/twin/GET/?rid=1 $iothub/twin/GET/?$RID=1 $iothub/twin/GET/x?$rid=1
    $iothub/twin/GET/x/?$rid=1 $iothub/twin/get/?$rid=1 $iothub/Twin/GET/?$rid=1
    $iothub/twin/PATCH/properties/reported $iothub/twin/PATCH/properties/reported/x
    $iothub/twin/PATCH/properties/desired/?$rid=1 $iothub/twin/PUT/properties/reported/?$rid=1
    $iothub/methods/res/?$rid=1 $iothub/methods/res/200/ $iothub/methods/res/ok/?$rid=1
    $iothub/methods/res/2.5/?$rid=1 $iothub/methods/res/+1/?$rid=1 $iothub/methods/res/٣/?$rid=1
    $iothub/methods/res/2147483648/?$rid=1 $iothub/methods/res/-2147483649/?$rid=1
"""  # ٣ is a digit, but not of ASCII


@pytest.mark.parametrize(
    "topic",
    [
        *_OTHER_TOPICS.split(),
        "",
        "$iothub/methods/res/1 /?$rid=1",
        "$iothub/methods/res/1\n/?$rid=1",
    ],
)
def test_a_topic_that_is_almost_right_is_refused(topic: str) -> None:
    with pytest.raises(ProtocolError):
        topics.parse_topic(topic, _DEVICE)


@settings(deadline=None)
@given(_TEXT, _KEYS)
def test_any_text_is_a_topic_or_an_error_of_the_client(topic: str, key: IdentityKey) -> None:
    with contextlib.suppress(ProtocolError):
        topics.parse_topic(topic, key)
        assert topic.startswith(("$iothub/", f"{topics.own_topics(key)}/messages/events"))


# --- filters

_MATCHES = """
    #                                     devices/d1/messages/devicebound/
    +/#                                   devices/d1/messages/devicebound/
    devices/#                             devices/d1/messages/devicebound/
    devices/+/messages/devicebound/+      devices/d1/messages/devicebound/a=1
    devices/+/messages/devicebound/+      devices/d1/messages/devicebound/
    devices/d1/messages/devicebound/#     devices/d1/messages/devicebound
    devices/+/#                           devices/d1
    +/+                                   /
    /+                                    /
    $iothub/#                             $iothub/twin/res/200/?$rid=1
    $iothub/methods/#                     $iothub/methods/POST/reboot/?$rid=1
    $iothub/methods/POST/+/#              $iothub/methods/POST/reboot/?$rid=1
    $iothub/methods/POST/reboot/+         $iothub/methods/POST/reboot/?$rid=1
    $iothub/+/POST/#                      $iothub/methods/POST/reboot/?$rid=1
    $iothub/twin/res/200/#                $iothub/twin/res/200/?$rid=a/b
    $iothub/twin/res/+/?$rid=1            $iothub/twin/res/204/?$rid=1
"""
_MISMATCHES = """
    #                                     $iothub/twin/res/200/?$rid=1
    +/twin/res/#                          $iothub/twin/res/200/?$rid=1
    $iothub/twin/res/200/#                $iothub/twin/res/204/?$rid=1&$version=2
    $iothub/twin/res/+                    $iothub/twin/res/200/?$rid=1
    $iothub/twin/res/+/+                  $iothub/twin/res/200/?$rid=a/b
    $IOTHUB/twin/res/#                    $iothub/twin/res/200/?$rid=1
    $iothub/twin/#/res                    $iothub/twin/res/200/?$rid=1
    devices/d1/messages/deviceBound/#     devices/d1/messages/devicebound/
    devices/d1/messages/events/#          devices/d1/messages/devicebound/
    devices/d1/messages/devicebound       devices/d1/messages/devicebound/
    devices/d/#                           devices/d1/messages/devicebound/
    devices/d2/messages/devicebound/#     devices/d1/messages/devicebound/
    /#                                    devices/d1/messages/devicebound/
    +                                     devices/d1
    +/+/+                                 devices/d1
    $share/group/#                        devices/d1
    foo/bar                               devices/d1
"""


@pytest.mark.parametrize("pair", _MATCHES.strip().splitlines())
def test_a_filter_that_matches(pair: str) -> None:
    topic_filter, topic = pair.split()
    topics.check_filter(topic_filter)
    assert topics.matches(topic_filter, topic)


@pytest.mark.parametrize("pair", _MISMATCHES.strip().splitlines())
def test_a_filter_that_does_not_match(pair: str) -> None:
    topic_filter, topic = pair.split()
    assert not topics.matches(topic_filter, topic)


@pytest.mark.parametrize(
    "text", ["", "a/#/b", "#/", "a#", "#a", "##", "a+", "+a/b", "a/++", "a/b#"]
)
def test_a_malformed_filter_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        topics.check_filter(text)


@settings(deadline=None)
@given(_TEXT, _TEXT.filter(bool))
def test_a_filter_matches_as_the_specification_says(text: str, topic: str) -> None:
    try:
        topics.check_filter(text)
    except ProtocolError:
        return
    pattern = "/".join("[^/]*" if level == "+" else re.escape(level) for level in text.split("/"))
    pattern = re.sub(r"(/|^)\\#$", lambda match: "(/.*)?" if match[1] else ".*", pattern)
    hidden = topic[0] == "$" and text[0] in "#+"
    expected = not hidden and re.fullmatch(pattern, topic, re.DOTALL) is not None
    assert topics.matches(text, topic) == expected


# --- user names


@pytest.mark.parametrize(
    ("user_name", "parameters"),
    [
        ("hub/d1", {}),
        ("hub/d1/", {}),
        ("hub/d1/?", {}),
        ("hub/d1/?api-version=2021-04-12", {"api-version": "2021-04-12"}),
        ("hub/d1/api-version=2016-11-14", {"api-version": "2016-11-14"}),
        ("hub/d1/?a=1&a=2", {"a": "1"}),
        ("hub/d1/?a%3Db=c%26d&flag&&e=f=g", {"a=b": "c&d", "flag": "", "e": "f=g"}),
        ("hub/d1/?model-id=dtmi%3Acom%3Ax%3B1", {"model-id": "dtmi:com:x;1"}),
        # Tails of older clients, without the question mark
        (
            "hub/d1/DeviceClientType=azure-iot-device%2F1.1.20&api-version=2016-11-14",
            {"DeviceClientType": "azure-iot-device/1.1.20", "api-version": "2016-11-14"},
        ),
        (
            "hub/d1/api-version=2016-11-14&DeviceClientType=x",
            {"DeviceClientType": "x", "api-version": "2016-11-14"},
        ),
        ("hub/d1/DeviceClientType=x", {"DeviceClientType": "x"}),
        ("hub/d1/x=1&api-version=2016-11-14", {"x": "1", "api-version": "2016-11-14"}),
        ("hub/d1/api-version=1/DeviceClientType=a/b", {"api-version": "1"}),
        ("hub/d1/DeviceClientType=a/b&api-version=1", {"DeviceClientType": "a"}),
        ("hub/d1/?api-version=1/", {"api-version": "1"}),
        ("hub/d1/?api-version=1/DeviceClientType=a/b", {"api-version": "1"}),
    ],
)
def test_a_user_name_names_host_identity_and_parameters(
    user_name: str, parameters: dict[str, str]
) -> None:
    assert topics.parse_user_name(user_name, "d1") == topics.UserName("hub", _DEVICE, parameters)


@pytest.mark.parametrize("tail", ["?api-version=1", "api-version=1", "api-version=1/x"])
def test_a_modules_user_name(tail: str) -> None:
    assert topics.parse_user_name(f"hub/d1/m1/{tail}", "d1/m1") == topics.UserName(
        "hub", _MODULE, {"api-version": "1"}
    )


@pytest.mark.parametrize(
    "tail",
    [
        "?DeviceClientType=a/b",
        "?api-version=1&DeviceClientType=a/b",
        "?DeviceClientType=/b&api-version=1",
    ],
)
def test_a_slash_in_the_type_of_the_client_cuts_a_user_name(tail: str) -> None:
    user_name = topics.parse_user_name(f"hub/d1/{tail}", "d1")
    assert user_name is not None
    assert user_name.is_cut


@pytest.mark.parametrize(
    ("user_name", "client_id"),
    [
        ("", ""),
        ("hub/", ""),
        ("hub", "hub"),
        ("/d1", "d1"),
        ("hub/d2", "d1"),
        ("hub/d1", "d1/m1"),
        ("hub/d1/m1", "d1"),
        ("hub/d1//", "d1"),
        ("hub/d1//?api-version=2021-04-12", "d1"),
        ("hub/d1/x=1", "d1"),
        ("hub/d1/deviceclienttype=x", "d1"),
        ("hub/d1/m1/api-version=1", "d1"),
        ("hub/d1/DeviceClientType=x", "d1/DeviceClientType=x"),
        ("hub/d1/api-version=1", "d1/api-version=1"),
        ("hub/d1/m1/?api-version=2021-04-12", "d1"),
        ("hub/d1/", "d1/"),
        ("hub/d1/m1/x", "d1/m1/x"),
        ("hub/d1?api-version=2021-04-12", "d1"),
        ("hub//d1/?api-version=2021-04-12", "d1"),
        ("hub/d1x/?api-version=2021-04-12", "d1"),
        ("hub/d1/", "D1"),
    ],
)
def test_a_user_name_that_disagrees_with_the_client_id(user_name: str, client_id: str) -> None:
    assert topics.parse_user_name(user_name, client_id) is None


@settings(deadline=None)
@given(_TEXT, _TEXT)
def test_any_user_name_is_that_of_its_client_or_refused(user_name: str, client_id: str) -> None:
    parsed = topics.parse_user_name(user_name, client_id)
    if parsed is not None:
        assert str(parsed.key) == client_id
        assert user_name.startswith(f"{parsed.host}/{client_id}")


# --- what the hub sends on


def test_topics_of_the_hub() -> None:
    assert topics.twin_response(200, "a=b") == "$iothub/twin/res/200/?$rid=a=b"
    assert topics.twin_response(204, "1", 7) == "$iothub/twin/res/204/?$rid=1&$version=7"
    assert topics.desired_patch(7) == "$iothub/twin/PATCH/properties/desired/?$version=7"
    assert topics.method_request("a/b", "1f") == "$iothub/methods/POST/a%2Fb/?$rid=1f"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_methods_name_is_one_segment_and_unique(name: str) -> None:
    segment = topics.method_name(name)
    assert not set(segment) & set("/+#?\0")
    assert unquote(segment) == name
