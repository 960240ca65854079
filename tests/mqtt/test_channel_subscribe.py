"""SUBSCRIBE and UNSUBSCRIBE: the filters, what a subscription does, and sessions that persist."""

from __future__ import annotations

import pytest

from emulator.hub.core.errors import DeviceNotOnline
from tests.mqtt.playbook import Lab
from tests.mqtt.raw import publish, published

_C2D = "devices/d1/messages/devicebound/#"
_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"
_FILTERS = [_C2D, _METHODS, _TWIN_ANSWERS, _DESIRED, "$iothub/methods/POST/reboot/#"]


@pytest.mark.parametrize("name", _FILTERS)
@pytest.mark.parametrize(("wanted", "granted"), [(0, 0), (1, 1), (2, 1)])
def test_every_filter_of_a_device_is_granted_with_qos_1_at_most(
    lab: Lab, name: str, wanted: int, granted: int
) -> None:
    lab.connect().play(f">> SUBSCRIBE 65535 {name}:{wanted}", f"<< SUBACK 65535 {granted}")


def test_filters_in_one_packet_are_granted_in_their_order(lab: Lab) -> None:
    # MQTT 3.1.1, 3.8.4: as if each filter had come in a SUBSCRIBE of its own.
    lab.connect().play(f"""
        >> SUBSCRIBE 10 {_METHODS}:2 {_TWIN_ANSWERS}:0 {_DESIRED}:1
        << SUBACK 10 1 0 1
        >> SUBSCRIBE 11 {_METHODS}:1 {_METHODS}:0
        << SUBACK 11 1 0
    """)


@pytest.mark.parametrize("name", ["", "a/#/b", "a#", "a/+b/#", "##", "++"])
def test_a_malformed_filter_ends_the_connection(lab: Lab, name: str) -> None:
    for filters in (name, f"{_METHODS} {name} {_DESIRED}"):
        lab.connect().play(f">> SUBSCRIBE 1 {filters}", "<< CLOSED")


@pytest.mark.parametrize(
    "name",
    """# + +/# $iothub/# $iothub/methods/# $iothub/twin/res/200/# $SYS/# foo/bar devices/#
    devices/d2/# devices/d1/messages/deviceBound/# devices/d1/messages/events/#
    devices/d1/messages/devicebound/# devices/+/messages/devicebound/# $iothub/+/+/#
    $share/g/# $iothub/streams/POST/# devices/d1/modules/camera/#""".split(),  # noqa: SIM905
)
@pytest.mark.parametrize("own", ["d2", "d1/microphone"])
async def test_any_filter_is_granted_and_shows_no_other_device(
    lab: Lab, name: str, own: str
) -> None:
    client = lab.connect(own)
    client.play(f">> SUBSCRIBE 1 {name}:2", "<< SUBACK 1 1")
    device = lab.connect("d1", f"{_C2D}:1", _METHODS, _TWIN_ANSWERS, _DESIRED)
    lab.send("secret")
    lab.patch_desired(a=1)
    device.send(publish("$iothub/twin/GET/?$rid=1"), publish("devices/d1/messages/events/"))
    call = await lab.invoked("d1", "reboot")
    client.expect_nothing()
    call.cancel()


@pytest.mark.parametrize(
    ("name", "brings"),
    [
        ("#", "C2D"),
        ("+/d1/#", "C2D"),
        ("devices/d1/messages/devicebound/+", "C2D"),
        ("devices/+/+/devicebound/#", "C2D"),
        ("devices/d1/messages/deviceBound/#", ""),
        ("devices/d1/messages/events/#", ""),
        ("devices/d1/messages/devicebound", ""),
        ("$iothub/#", "200 204 desired method"),
        ("$iothub/+/#", "200 204 desired method"),
        ("$iothub/methods/#", "method"),
        ("$iothub/methods/POST/+/#", "method"),
        ("$iothub/methods/+/reboot/+", "method"),
        ("$iothub/methods/POST/Reboot/#", ""),
        ("$iothub/twin/res/200/#", "200"),
        ("$iothub/twin/res/+/#", "200 204"),
        ("$iothub/twin/PATCH/#", "desired"),
        ("$iothub/twin/#", "200 204 desired"),
        ("$IOTHUB/#", ""),
        ("+/twin/res/#", ""),
    ],
)
async def test_the_topics_of_a_device_are_matched_against_its_filters(
    lab: Lab, name: str, brings: str
) -> None:
    client = lab.connect("d1", f"{name}:1")
    brought = []
    lab.send("hello")
    client.send(publish("$iothub/twin/GET/?$rid=1"))
    client.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b"{}"))
    lab.patch_desired(a=1)
    call = await lab.invoked("d1", "reboot")
    while client.has_packets:
        topic, _ = published(client.take())
        words = {"devices": "C2D", "res/200": "200", "res/204": "204", "POST": "method"}
        words["desired"] = "desired"
        brought += [word for part, word in words.items() if part in topic]
    assert " ".join(brought) == brings
    assert call.done() == ("method" not in brings)
    call.cancel()


@pytest.mark.parametrize(("filters", "granted"), [(["#:0", f"{_C2D}:1"], 1), (["#:0"], 0)])
def test_the_highest_qos_of_the_filters_that_match_counts(
    lab: Lab, filters: list[str], granted: int
) -> None:
    client = lab.connect("d1", *filters, "devices/+/+/+/#:0", "no/such/topic:1")
    lab.send("hello")
    assert client.take()[0] == 0x30 | granted << 1
    client.expect_nothing()


def test_a_long_filter_is_granted(lab: Lab) -> None:
    for name in ("+/" * 32767 + "#", "a" * 65535, "/" * 65535):
        client = lab.connect("d1", name, _TWIN_ANSWERS)
        client.play(
            ">> PUBLISH $iothub/twin/GET/?$rid=1", "<< PUBLISH $iothub/twin/res/200/?$rid=1 …"
        )


# --- how many


def test_the_sixth_subscription_ends_the_connection(lab: Lab) -> None:
    client = lab.connect("d1", *_FILTERS)
    client.play(f"""
        >> SUBSCRIBE 6 {_METHODS}
        << SUBACK 6 0
        >> UNSUBSCRIBE 7 {_DESIRED}
        << UNSUBACK 7
        >> SUBSCRIBE 8 $iothub/methods/POST/other/#
        << SUBACK 8 0
        >> SUBSCRIBE 9 $iothub/methods/POST/another/#
        << CLOSED
    """)


def test_six_subscriptions_in_one_packet_end_the_connection(lab: Lab) -> None:
    lab.connect().play(f"""
        >> SUBSCRIBE 1 {" ".join(_FILTERS)} $iothub/methods/POST/other/#
        << CLOSED
    """)


# --- what they do


def test_without_a_subscription_twin_requests_are_carried_out_and_not_answered(lab: Lab) -> None:
    client = lab.connect()
    client.play("""
        >> PUBLISH $iothub/twin/GET/?$rid=1
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=2 {"a": 1}
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=3 no JSON
    """)
    assert lab.twin()["properties"]["reported"]["a"] == 1
    client.play(f"""
        >> SUBSCRIBE 4 {_TWIN_ANSWERS}
        << SUBACK 4 0
        >> PUBLISH $iothub/twin/GET/?$rid=5
        << PUBLISH $iothub/twin/res/200/?$rid=5 …
    """)


async def test_unsubscribing_ends_what_a_subscription_brings(lab: Lab) -> None:
    client = lab.connect("d1", _TWIN_ANSWERS, _METHODS, _DESIRED)
    client.play(f"""
        >> PUBLISH $iothub/twin/GET/?$rid=1
        << PUBLISH $iothub/twin/res/200/?$rid=1 …
        >> UNSUBSCRIBE 2 {_TWIN_ANSWERS} {_METHODS} {_DESIRED}
        << UNSUBACK 2
        >> PUBLISH $iothub/twin/GET/?$rid=3
    """)
    lab.patch_desired(a=1)
    with pytest.raises(DeviceNotOnline):
        await lab.invoke("d1", "reboot")
    client.expect_nothing()
    assert lab.state() == "Connected"


def test_unsubscribing_without_a_subscription_is_acknowledged(lab: Lab) -> None:
    lab.connect("d1", _METHODS).play(f"""
        >> UNSUBSCRIBE 2 {_DESIRED} no/such/topic #
        << UNSUBACK 2
    """)


async def test_a_subscription_to_one_method_is_only_for_that_one(lab: Lab) -> None:
    client = lab.connect("d1", "$iothub/methods/POST/reboot/#")
    with pytest.raises(DeviceNotOnline):
        await lab.invoke("d1", "Reboot")
    call = await lab.invoked("d1", "reboot")
    client.play("""
        << PUBLISH $iothub/methods/POST/reboot/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=1
    """)
    assert (await call).status == 200


@pytest.mark.parametrize("qos", [1, 2])
async def test_twins_and_methods_are_sent_with_qos_0_whatever_was_granted(
    lab: Lab, qos: int
) -> None:
    client = lab.connect("d1", f"{_TWIN_ANSWERS}:{qos}", f"{_DESIRED}:{qos}", f"{_METHODS}:{qos}")
    client.play(">> PUBLISH $iothub/twin/GET/?$rid=1", "<< PUBLISH $iothub/twin/res/200/?$rid=1 …")
    lab.patch_desired(a=1)
    client.play("<< PUBLISH $iothub/twin/PATCH/properties/desired/?$version=2 …")
    call = await lab.invoked("d1", "reboot")
    client.play("<< PUBLISH $iothub/methods/POST/reboot/?$rid=1")
    call.cancel()


# --- sessions

_LEAVE = {
    "a DISCONNECT": """
        >> DISCONNECT
        << CLOSED
    """,
    "a connection that breaks": ">> LOST",
    "a broken rule": """
        >> PUBLISH no/such/topic
        << CLOSED
    """,
    "a refused subscription": f"""
        >> SUBSCRIBE 2 {_METHODS} a/#/b
        << CLOSED
    """,
    "a takeover": "",
}


@pytest.mark.parametrize("leave", _LEAVE.values(), ids=_LEAVE)
def test_subscriptions_with_clean_session_0_outlive_the_connection(lab: Lab, leave: str) -> None:
    lab.connect("d1", _TWIN_ANSWERS, clean=False).play(leave)
    client = lab.dial(lab.greeting(clean=False), publish("$iothub/twin/GET/?$rid=1"))
    client.play("<< CONNACK 0 session", "<< PUBLISH $iothub/twin/res/200/?$rid=1 …")


def test_an_ended_subscription_stays_ended(lab: Lab) -> None:
    lab.connect("d1", _TWIN_ANSWERS, _METHODS, clean=False).play(f"""
        >> UNSUBSCRIBE 2 {_TWIN_ANSWERS}
        << UNSUBACK 2
        >> LOST
    """)
    again = lab.dial(lab.greeting(clean=False), publish("$iothub/twin/GET/?$rid=1"))
    again.play("<< CONNACK 0 session")


def test_with_clean_session_1_no_subscription_outlives_the_connection(lab: Lab) -> None:
    lab.connect("d1", _TWIN_ANSWERS, clean=False).play(">> LOST")
    clean = lab.connect("d1", clean=True)
    clean.play(f"""
        >> PUBLISH $iothub/twin/GET/?$rid=1
        >> SUBSCRIBE 1 {_TWIN_ANSWERS}
        << SUBACK 1 0
        >> LOST
    """)
    again = lab.dial(lab.greeting(clean=False), publish("$iothub/twin/GET/?$rid=1"))
    again.play("<< CONNACK 0")


def test_a_device_that_is_registered_again_has_no_session(lab: Lab) -> None:
    """The server deletes the session with the identity: see test_sessions.py."""
    lab.connect("d1", _METHODS, clean=False).play(">> LOST")
    lab.sessions.forget("d1")
    lab.connect(clean=False)


def test_a_session_keeps_any_filter(lab: Lab) -> None:
    lab.connect("d1", "#:1", "foo/bar", clean=False).play(">> LOST")
    lab.send("hello")
    client = lab.dial(lab.greeting(clean=False))
    client.play("<< CONNACK 0 session", "<< PUBLISH 1 devices/d1/messages/devicebound/… hello")


def test_a_session_with_a_malformed_filter_is_forgotten(lab: Lab) -> None:
    lab.sessions.keep("d1", {_METHODS: 0, "a/#/b": 0})
    for _ in range(2):
        lab.connect(clean=False)
    assert lab.sessions.find("d1") is None
