"""How a connection begins: CONNECT, and the CONNACK that answers it."""

from __future__ import annotations

import base64

import pytest

from emulator.hub.core.errors import DeviceNotOnline
from tests.mqtt import raw
from tests.mqtt.playbook import HOST, KEY, POLICY_KEY, Lab

_TAIL = "/?api-version=2021-04-12"
_OTHER_KEY = base64.b64encode(b"a key that is not registered").decode()


# --- user name and client id


@pytest.mark.parametrize(
    "user_name",
    [
        "hub.test/d1/?api-version=2019-10-01&DeviceClientType=azure-iot-device%2F2.14.0%20(x%3B)",
        "hub.test/d1/api-version=2016-11-14",  # as old clients send it
        "hub.test/d1",
        "HUB.TEST/d1/?api-version=2021-04-12",
        "hub.test/d1/DeviceClientType=azure-iot-device%2F1.1.20&api-version=2016-11-14",
        "hub.test/d1/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1",
        "hub.test/d1/DeviceClientType=iothubclient%2F1.0.9",
        "hub.test/d1/?api-version=2021-04-12&DeviceClientType=c/1.0 (x)",
    ],
)
def test_a_device_connects_with_its_own_key(lab: Lab, user_name: str) -> None:
    client = lab.dial(raw.connect("d1", user_name, lab.token(f"{HOST}/devices/d1")))
    client.play("<< CONNACK 0", ">> PINGREQ", "<< PINGRESP")
    assert lab.state() == "Connected"


@pytest.mark.parametrize("tail", ["", "/", "/?", "/?api-version=", "/DeviceClientType=x", "/?a=1"])
async def test_without_an_api_version_telemetry_works_and_twins_and_methods_do_not(
    lab: Lab, tail: str
) -> None:
    filters = "$iothub/twin/res/#", "$iothub/methods/POST/#", "$iothub/twin/PATCH/#"
    client = lab.connect("d1", *filters, tail=tail)
    client.play("""
        >> PUBLISH 1 devices/d1/messages/events/
        << PUBACK 1
        >> PUBLISH $iothub/twin/GET/?$rid=1
        << PUBLISH $iothub/twin/res/400/?$rid=1 …
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=2 {"a": 1}
        << PUBLISH $iothub/twin/res/400/?$rid=2 …
    """)
    lab.patch_desired(a=1)
    with pytest.raises(DeviceNotOnline):
        await lab.invoke("d1", "reboot")
    client.expect_nothing()


@pytest.mark.parametrize(
    "tail",
    [
        "/?api-version=2021-04-12&DeviceClientType=a/b",
        "/?DeviceClientType=a/&api-version=2021-04-12",
    ],
)
@pytest.mark.parametrize(
    "request_topic", ["$iothub/twin/GET/?$rid=1", "$iothub/twin/PATCH/properties/reported/?$rid=1"]
)
def test_a_slash_in_the_type_of_the_client_ends_the_connection_at_a_twin_request(
    lab: Lab, tail: str, request_topic: str
) -> None:
    client = lab.connect("d1", "$iothub/twin/res/#", tail=tail)
    client.play(f"""
        >> PUBLISH 1 devices/d1/messages/events/
        << PUBACK 1
        >> PUBLISH {request_topic} {{}}
        << CLOSED
    """)
    assert len(lab.events()) == 1


def test_connections_over_the_rate_are_refused() -> None:
    lab = Lab("connections=2/min")
    lab.refuse(lab.greeting(lifetime=-10))  # it is not counted
    for name in ("d1", "d1/camera"):
        lab.connect(name)
    lab.refuse(lab.greeting("d2"), code=3)
    lab.refuse(lab.greeting("d1"), code=3)
    assert lab.state() == "Connected"  # the first connection
    lab.clock.advance(30)
    lab.connect("d2")


@pytest.mark.parametrize("device_id", ["MyDevice", "SENSOR.a", "x$Y"])
def test_a_token_may_be_for_the_uri_in_lower_case(lab: Lab, device_id: str) -> None:
    other = device_id.swapcase()
    lab.register(device_id)
    lab.register(other, key=_OTHER_KEY)
    for audience in (f"{HOST}/devices/{device_id}".lower(), f"{HOST}/DEVICES/{other}"):
        token = lab.token(audience)
        client = lab.dial(raw.connect(device_id, f"{HOST}/{device_id}{_TAIL}", token))
        client.expect(raw.connack(0))
        # Ids stay case-sensitive: the key decides.
        lab.refuse(raw.connect(other, f"{HOST}/{other}{_TAIL}", token))


def test_a_device_may_know_the_hub_by_another_name(lab: Lab) -> None:
    """The name of a container, or of a hub behind `GatewayHostName`: the token is for it."""
    token = lab.token("hub.example/devices/d1")
    client = lab.dial(raw.connect("d1", f"hub.example/d1{_TAIL}", token))
    client.expect(raw.connack(0))


@pytest.mark.parametrize(
    "user_name",
    [
        *(None, "", "hub.test", "d1", "/d1/?api-version=2021-04-12", "hub.test/d2/"),
        "hub.test/d1/module/?api-version=2021-04-12",
    ],
)
def test_a_user_name_that_disagrees_with_the_client_id_is_refused(
    lab: Lab, user_name: str | None
) -> None:
    token = None if user_name is None else lab.token(f"{HOST}/devices/d1")
    lab.refuse(raw.connect("d1", user_name, token))


def test_a_client_id_is_case_sensitive(lab: Lab) -> None:
    lab.refuse(lab.greeting("D1"))


@pytest.mark.parametrize(("clean", "code"), [(False, 2), (True, 5)])
def test_an_empty_client_id_is_refused(lab: Lab, clean: bool, code: int) -> None:
    # MQTT 3.1.1, 3.1.3.1: with clean session 0 the answer is 2. With 1 a server may accept it, but
    # it can't agree with a user name: that is 5 to a hub.
    token = lab.token(f"{HOST}/devices/")
    lab.refuse(raw.connect("", f"{HOST}/{_TAIL}", token, clean=clean), code=code)


# --- passwords


@pytest.mark.parametrize(
    "password",
    [
        None,
        "",
        "letmein",
        KEY,
        "SharedAccessSignature",
        "SharedAccessSignature sr=x",
        "SharedAccessSignature sr=x&sig=*&se=never",
        b"\xff\xfe\x00 not text, which a password may be",
    ],
)
def test_a_password_that_is_not_a_token_is_refused(lab: Lab, password: str | bytes | None) -> None:
    lab.refuse(raw.connect("d1", f"{HOST}/d1{_TAIL}", password))


@pytest.mark.parametrize(
    ("resource", "fields"),
    [
        ("hub.test/devices/d1", {"key": _OTHER_KEY}),
        ("hub.test/devices/d1", {"lifetime": -60}),
        ("hub.test/devices/d2", {}),
        ("hub.test/devices/d2", {"key": "M" * 43 + "="}),  # as d2 itself signs it
        ("hub.test/devices/d1x", {}),
        ("hub.test/devices/d1/modules/m", {}),
        ("elsewhere.example/devices/d1", {}),
        ("hub.test/devices/d1", {"policy": "device"}),  # signed with the key of the device
        ("hub.test/devices/d1", {"policy": "unknown"}),
        # policies without the right to connect devices
        ("hub.test", {"key": POLICY_KEY, "policy": "service"}),
        ("hub.test", {"key": POLICY_KEY, "policy": "registryRead"}),
        ("hub.test", {"key": POLICY_KEY, "policy": "registryReadWrite"}),
        ("hub.test/devices/d2", {"key": POLICY_KEY, "policy": "device"}),
    ],
    ids=str,
)
def test_a_token_that_is_not_valid_for_the_device_is_refused(
    lab: Lab, resource: str, fields: dict[str, str]
) -> None:
    token = lab.token(resource, **fields)
    lab.refuse(raw.connect("d1", f"{HOST}/d1{_TAIL}", token))
    assert lab.state() == "Disconnected"


@pytest.mark.parametrize("resource", ["hub.test", "hub.test/devices", "hub.test/devices/d1"])
@pytest.mark.parametrize("policy", ["device", "iothubowner"])
def test_a_policy_with_the_right_to_connect_devices_connects_any(
    lab: Lab, policy: str, resource: str
) -> None:
    token = lab.token(resource, POLICY_KEY, policy=policy)
    client = lab.dial(raw.connect("d1", f"{HOST}/d1{_TAIL}", token))
    client.expect(raw.connack(0))


def test_a_device_connects_with_its_secondary_key(lab: Lab) -> None:
    primary = base64.b64encode(b"primary" * 5).decode()
    secondary = base64.b64encode(b"secondary" * 5).decode()
    keys = {"primaryKey": primary, "secondaryKey": secondary}
    lab.register("d1", authentication={"symmetricKey": keys})
    lab.connect("d1", key=secondary)
    lab.refuse(lab.greeting("d1"))


def test_a_token_may_be_valid_for_centuries(lab: Lab) -> None:
    until_9999 = 253_402_300_799 - lab.clock.now().timestamp()
    lab.connect(lifetime=until_9999).expect_nothing()


@pytest.mark.parametrize("name", ["unknown", "d1/unknown"])
def test_an_unknown_identity_is_refused(lab: Lab, name: str) -> None:
    lab.refuse(lab.greeting(name))


def test_a_disabled_device_is_refused(lab: Lab) -> None:
    lab.register("d1", status="disabled")
    lab.refuse(lab.greeting())


def test_packets_after_a_refused_connect_are_not_handled(lab: Lab) -> None:
    report = raw.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"sneaked": "in"}')
    lab.refuse(raw.connect("d1", f"{HOST}/d1{_TAIL}", "no token"), report)
    twin = lab.twin()
    assert "sneaked" not in twin["properties"]["reported"]
    assert twin["connectionState"] == "Disconnected"


def test_the_log_names_the_reason_of_a_refusal_and_no_key(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "emulator.refusals")
    pasted = f"d1;SharedAccessKey={KEY}"
    lab.refuse(raw.connect(pasted, f"{HOST}/{pasted}", "x"))
    lab.refuse(lab.greeting(lifetime=-60))
    mistaken, expired = caplog.messages
    assert "'d1;SharedAccessKey=***' at the lab" in mistaken
    assert "expired" in expired


# --- the protocol's version


@pytest.mark.parametrize(
    "data",
    [
        raw.connect("d1", "h/d1", "p", level=0),
        raw.connect("d1", "h/d1", "p", level=3),
        raw.connect("d1", "h/d1", "p", level=6),
        raw.connect("d1", "h/d1", "p", level=0x84),  # a bridge of mosquitto
        raw.connect("d1", "h/d1", "p", level=0x85),
        raw.connect("d1", "h/d1", "p", protocol="MQIsdp", level=3),  # MQTT 3.1
        raw.packet(0x10, raw.text("MQTT")),
    ],
)
def test_another_version_of_mqtt_is_refused(lab: Lab, data: bytes) -> None:
    lab.refuse(data, code=1)


# MQTT 5, 3.1: properties stand between the keep-alive and the client id.
_MQTT_5 = raw.text("MQTT") + b"\x05\x02" + raw.number(60)


@pytest.mark.parametrize(
    "data",
    [
        raw.connect("d1", "h/d1", "p", level=5),
        raw.packet(0x10, _MQTT_5 + b"\x00" + raw.text("d1")),
        raw.packet(0x10, _MQTT_5 + b"\x05\x11" + bytes(4) + raw.text("d1")),
        raw.packet(0x10, _MQTT_5[:7]),
    ],
)
def test_mqtt_5_is_refused_in_its_own_form(lab: Lab, data: bytes) -> None:
    # MQTT 5, 3.2: no session, reason "unsupported protocol version", no properties
    client = lab.dial(data)
    client.expect(bytes.fromhex("20 03 00 84 00"))
    client.expect_closed()


# --- malformed: MQTT 3.1.1, 3.1.4, point 1

_LEVEL = raw.text("MQTT") + b"\x04"
_ID, _USER, _PASSWORD = (
    raw.text("d"),
    raw.text("host/d/?api-version=2021-04-12"),
    raw.text("secret"),
)
_WILL = raw.text("devices/d/messages/events/") + raw.text(b"gone")


def _raw_connect(flags: int, *fields: bytes) -> bytes:
    return raw.packet(0x10, _LEVEL + bytes([flags]) + raw.number(60) + b"".join(fields))


_MALFORMED = {
    # MQTT 3.1.1, 3.1.2: the flags
    "the reserved flag": raw.connect("d", "h/d", "p", flags=0xC3),
    "a password without a user name": raw.connect("d", None, "p"),
    "a will QoS without a will": raw.connect("d", "h/d", "p", flags=0xC2 | 0x08),
    "will retain without a will": raw.connect("d", "h/d", "p", flags=0xC2 | 0x20),
    "will QoS 3": raw.connect(
        "d", "h/d", "p", will=("devices/d/messages/events/", b""), flags=0xDE
    ),
    "fixed-header flags": b"\x11" + raw.connect("d", "h/d", "p")[1:],
    "another protocol's name": raw.connect("d", "h/d", "p", protocol="MQTTX"),
    "the name in lower case": raw.connect("d", "h/d", "p", protocol="mqtt"),
    "no name": raw.connect("d", "h/d", "p", protocol=""),
    # 3.1.3: what the flags announce must be there, and nothing else
    "nothing": raw.packet(0x10, b""),
    "half a name": raw.packet(0x10, raw.text("MQTT")[:4]),
    "no flags": raw.packet(0x10, _LEVEL),
    "no keep-alive": raw.packet(0x10, _LEVEL + b"\xc2"),
    "half a keep-alive": raw.packet(0x10, _LEVEL + b"\xc2\x00"),
    "no client id": _raw_connect(0x02),
    "a truncated client id": _raw_connect(0x02, b"\x00\x09d"),
    "no user name": _raw_connect(0xC2, _ID),
    "no password": _raw_connect(0xC2, _ID, _USER),
    "a truncated password": _raw_connect(0xC2, _ID, _USER, b"\x00\x09s"),
    "no will": _raw_connect(0x06, _ID),
    "a will without its message": _raw_connect(0x06, _ID, raw.text("devices/d/messages/events/")),
    "a user name that no flag announces": _raw_connect(0x02, _ID, _USER),
    "a password that no flag announces": _raw_connect(0x82, _ID, _USER, _PASSWORD),
    "a will that no flag announces": _raw_connect(0xC2, _ID, _WILL, _USER, _PASSWORD),
    "a byte too many": _raw_connect(0xC2, _ID, _USER, _PASSWORD, b"\x00"),
    "a client id that is not UTF-8": _raw_connect(0xC2, raw.text(b"\xff"), _USER, _PASSWORD),
    "a user name that is not UTF-8": _raw_connect(0xC2, _ID, raw.text(b"\xc3"), _PASSWORD),
    "a client id of 40 KB that is not UTF-8": _raw_connect(0xC2, raw.text(b"\xff" * 40_000), _USER),
    "NUL in the client id": _raw_connect(0xC2, raw.text("d\0"), raw.text("host/d\0/"), _PASSWORD),
}


@pytest.mark.parametrize("data", _MALFORMED.values(), ids=_MALFORMED)
def test_a_malformed_connect_is_closed_without_a_connack(lab: Lab, data: bytes) -> None:
    client = lab.dial(data)
    client.expect_closed()


# --- what comes with it


def test_packets_that_come_together_with_the_connect_are_handled_after_it(lab: Lab) -> None:
    client = lab.dial(
        lab.greeting(),
        raw.subscribe(1, ("$iothub/twin/res/#", 1)),
        raw.publish("devices/d1/messages/events/", b"{}", packet_id=2),
        raw.publish("$iothub/twin/GET/?$rid=3", packet_id=3),
        raw.PINGREQ,
    )
    client.play("""
        << CONNACK 0
        << SUBACK 1 1
        << PUBACK 2
        << PUBACK 3
        << PUBLISH $iothub/twin/res/200/?$rid=3 …
        << PINGRESP
    """)


def test_packets_may_come_in_pieces(lab: Lab) -> None:
    client = lab.dial()
    for octet in lab.greeting() + raw.subscribe(1, "$iothub/twin/res/#") + raw.PINGREQ:
        client.send(bytes([octet]))
    client.play("<< CONNACK 0", "<< SUBACK 1 0", "<< PINGRESP")


def test_a_second_connect_ends_the_connection(lab: Lab) -> None:
    for second in (lab.greeting(), raw.connect("d1", "h/d1", "p", flags=0xC3)):
        client = lab.connect()
        client.send(second)
        client.expect_closed()


@pytest.mark.parametrize("silence", [(0, 1767), (1, 1.5), (60, 90), (1177, 1765.5), (65535, 1767)])
def test_a_device_may_be_silent_for_one_and_a_half_times_its_keep_alive(
    lab: Lab, silence: tuple[int, float]
) -> None:
    keep_alive, seconds = silence
    assert lab.connect(keep_alive=keep_alive).channel.silence == seconds


# --- the session-present bit


def test_session_present_shows_stored_subscriptions(lab: Lab) -> None:
    for clean, present in ((False, ""), (False, " session"), (True, ""), (False, "")):
        client = lab.dial(lab.greeting(clean=clean))
        client.play(f"<< CONNACK 0{present}", ">> SUBSCRIBE 1 $iothub/twin/res/#", "<< SUBACK 1 0")
        client.send(raw.DISCONNECT)
        client.expect_closed()


def test_a_refusal_never_shows_a_session(lab: Lab) -> None:
    lab.connect("d1", "$iothub/twin/res/#", clean=False)
    lab.refuse(raw.connect("d1", f"{HOST}/d1", "no token", clean=False))
