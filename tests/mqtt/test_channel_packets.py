"""The packets of a connected device: which end the connection, and what is acknowledged."""

from __future__ import annotations

import pytest

from emulator.hub.core import limits
from tests.mqtt import raw
from tests.mqtt.playbook import Lab

_TWIN_ANSWERS = "$iothub/twin/res/#"
_REPORTED = "$iothub/twin/PATCH/properties/reported/"
_EVENTS = "devices/d1/messages/events/"

_MALFORMED = {
    # MQTT 3.1.1, 2.2.1 and 2.2.2: packet types, and their flags
    "packet type 0": b"\x00\x00",
    "packet type 15": b"\xf0\x00",
    "a CONNACK": b"\x20\x02\x00\x00",
    "a SUBACK": b"\x90\x03\x00\x01\x00",
    "an UNSUBACK": b"\xb0\x02\x00\x01",
    "a PINGRESP": b"\xd0\x00",
    "a PUBREC": b"\x50\x02\x00\x01",
    "a PUBREL": b"\x62\x02\x00\x01",
    "a PUBCOMP": b"\x70\x02\x00\x01",
    "a PINGREQ with flags": b"\xc1\x00",
    "a PINGREQ with a body": b"\xc0\x01\x00",
    "a DISCONNECT with flags": b"\xe1\x00",
    "a DISCONNECT with a body": b"\xe0\x01\x00",
    "a PUBACK with flags": b"\x41\x02\x00\x01",
    "a PUBACK that is too short": b"\x40\x01\x00",
    "a PUBACK that is too long": b"\x40\x03\x00\x01\x00",
    # 2.2.3: the remaining length
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x7f",
    "a length without an end": b"\xc0" + b"\x80" * 20,
    "the largest length": b"\x30\xff\xff\xff\x7f",
    "a length of 1 MB": b"\x30\x80\x80\x40",
    "a length of 400 KB, and so many bytes": raw.packet(0x30, raw.text(_EVENTS) + bytes(400_000)),
    # 3.3: PUBLISH
    "a PUBLISH with QoS 2": raw.publish(_EVENTS, b"", packet_id=1, qos=2),
    "a PUBLISH with QoS 3": raw.publish(_EVENTS, b"", packet_id=1, qos=3),
    "a PUBLISH with DUP and QoS 0": raw.publish(_EVENTS, b"", dup=True),
    "a PUBLISH without a body": b"\x30\x00",
    "a PUBLISH with half a topic length": b"\x30\x01\x00",
    "a PUBLISH with a truncated topic": b"\x30\x05\x00\x04abc",
    "a PUBLISH with a wrong topic length": raw.packet(0x30, b"\xff\xff" + b"a" * 100),
    "a PUBLISH without a topic": raw.packet(0x30, raw.text("") + b"payload"),
    "a PUBLISH without its packet id": raw.packet(0x32, raw.text(_EVENTS)),
    "a PUBLISH with half a packet id": raw.packet(0x32, raw.text(_EVENTS) + b"\x00"),
    "a PUBLISH with packet id 0": raw.packet(0x32, raw.text(_EVENTS) + raw.number(0)),
    "a topic that is not UTF-8": raw.publish(b"$iothub/twin/GET/?$rid=\xff\xfe"),
    "a topic with half a character": raw.publish("$iothub/twin/GET/?$rid=ä".encode()[:-1]),
    "a topic with a surrogate": raw.publish(b"$iothub/twin/GET/?$rid=\xed\xa0\x80"),
    "a topic with an overlong character": raw.publish(b"$iothub/twin/GET/?$rid=\xc0\xaf"),
    # 3.3.2.1 and 1.5.3: wildcards and NUL
    "a topic that is a wildcard": raw.publish(f"{_EVENTS}#"),
    "a topic with +": raw.publish(f"{_EVENTS}a=+"),
    "a topic with NUL": raw.publish(f"{_EVENTS}a=\0"),
    "a request id with #": raw.publish("$iothub/twin/GET/?$rid=#"),
    "a request id with +": raw.publish("$iothub/twin/GET/?$rid=a+b"),
    "a request id with NUL": raw.publish("$iothub/twin/GET/?$rid=\0"),
    # 3.8: SUBSCRIBE
    "a SUBSCRIBE with flags 0": raw.packet(0x80, raw.number(1) + raw.text(_TWIN_ANSWERS) + b"\x00"),
    "a SUBSCRIBE with flags 3": raw.packet(0x83, raw.number(1) + raw.text(_TWIN_ANSWERS) + b"\x00"),
    "a SUBSCRIBE with packet id 0": raw.subscribe(0, _TWIN_ANSWERS),
    "a SUBSCRIBE without a body": b"\x82\x00",
    "a SUBSCRIBE with half a packet id": b"\x82\x01\x00",
    "a SUBSCRIBE without filters": b"\x82\x02\x00\x01",
    "a SUBSCRIBE without a QoS": raw.packet(0x82, raw.number(1) + raw.text(_TWIN_ANSWERS)),
    "a SUBSCRIBE for QoS 3": raw.subscribe(1, (_TWIN_ANSWERS, 3)),
    "a SUBSCRIBE with reserved bits": raw.subscribe(1, (_TWIN_ANSWERS, 0x81)),
    "a SUBSCRIBE with a byte too many": raw.packet(
        0x82, raw.number(1) + raw.text(_TWIN_ANSWERS) + b"\x00" + b"\x00"
    ),
    "a SUBSCRIBE with a truncated filter": raw.packet(0x82, raw.number(1) + b"\x00\x20$iothub"),
    "a SUBSCRIBE with a filter that is not UTF-8": raw.packet(
        0x82, raw.number(1) + raw.text(b"\xff") + b"\0"
    ),
    "a SUBSCRIBE of 40 KB": raw.packet(0x82, raw.number(1) + raw.text(b"\xff" * 40_000) + b"\x00"),
    # 3.10: UNSUBSCRIBE
    "an UNSUBSCRIBE with flags 0": raw.packet(0xA0, raw.number(1) + raw.text(_TWIN_ANSWERS)),
    "an UNSUBSCRIBE with packet id 0": raw.unsubscribe(0, _TWIN_ANSWERS),
    "an UNSUBSCRIBE without filters": b"\xa2\x02\x00\x01",
    "an UNSUBSCRIBE with a truncated filter": raw.packet(0xA2, raw.number(1) + b"\x00\x20$iothub"),
    "an UNSUBSCRIBE with a filter that is not UTF-8": raw.packet(
        0xA2, raw.number(1) + raw.text(b"\xff")
    ),
    "an UNSUBSCRIBE of 40 KB": raw.packet(0xA2, raw.number(1) + raw.text(b"\xff" * 40_000)),
    # and no MQTT at all
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "AMQP": b"AMQP\x03\x01\x00\x00",
}


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "as the first packet"])
@pytest.mark.parametrize("data", _MALFORMED.values(), ids=_MALFORMED)
def test_a_malformed_packet_ends_the_connection_and_no_other(
    lab: Lab, data: bytes, connected: bool
) -> None:
    other = lab.connect("d2", _TWIN_ANSWERS)
    client = lab.connect() if connected else lab.dial()
    client.send(data)
    client.expect_closed()
    assert client.error
    other.play(">> PUBLISH $iothub/twin/GET/?$rid=1", "<< PUBLISH $iothub/twin/res/200/?$rid=1 …")


@pytest.mark.parametrize(
    "first",
    ["PINGREQ", "DISCONNECT", f"SUBSCRIBE 1 {_TWIN_ANSWERS}", "PUBLISH $iothub/twin/GET/?$rid=1"],
)
def test_a_first_packet_that_is_no_connect_ends_the_connection(lab: Lab, first: str) -> None:
    lab.dial().play(f">> {first}", "<< CLOSED")


def test_packets_after_a_malformed_one_are_not_handled(lab: Lab) -> None:
    client = lab.connect()
    client.send(
        raw.PINGREQ,
        raw.publish(f"{_REPORTED}?$rid=1", b'{"before": 1}', packet_id=1),
        raw.publish(_EVENTS, b"before"),
        raw.publish("no/such/topic", packet_id=2),
        raw.publish(f"{_REPORTED}?$rid=3", b'{"after": 1}', packet_id=3),
        raw.publish(_EVENTS, b"after"),
    )
    client.expect(raw.PINGRESP, raw.puback(1))
    client.expect_closed()
    reported = lab.twin()["properties"]["reported"]
    assert reported["before"] == 1
    assert "after" not in reported
    assert lab.bodies() == ["before"]


def test_an_incomplete_packet_is_not_handled(lab: Lab) -> None:
    client = lab.connect("d1", _TWIN_ANSWERS)
    client.send(raw.publish("$iothub/twin/GET/?$rid=1", packet_id=1)[:-1])
    client.expect_nothing()


def test_a_ping_is_answered(lab: Lab) -> None:
    lab.connect().play(">> PINGREQ", "<< PINGRESP")


# --- PUBLISH


@pytest.mark.parametrize(
    "topic",
    [
        "devices/d1/messages/events/",
        "devices/d1/messages/events",
        "devices/d1/messages/events/alert=true&%24.ct=application%2Fjson&$.mid=1&empty=&flag",
        "devices/d1/messages/events/%24.on=output/",  # as the SDK for Node ends it
    ],
)
def test_telemetry_with_qos_1_is_acknowledged(lab: Lab, topic: str) -> None:
    lab.connect().play(f"""
        >> PUBLISH {topic} 21.5
        >> PUBLISH 65535 {topic} 21.5
        << PUBACK 65535
        >> PUBLISH +dup 65535 {topic} 21.5
        << PUBACK 65535
        >> PUBLISH +retain 1 {topic} 21.5
        << PUBACK 1
        >> PUBLISH +dup+retain 1 {topic} 21.5
        << PUBACK 1
    """)


def test_packets_are_acknowledged_and_answered_in_their_order(lab: Lab) -> None:
    """Telemetry, twin requests and responses of methods, mixed."""
    client = lab.connect("d1", _TWIN_ANSWERS)
    packets, expected = [], []
    for packet_id in range(1, 2001):
        if packet_id % 10 == 0:
            topic = f"$iothub/methods/res/200/?$rid=none-{packet_id}"
        elif packet_id % 10 == 5:
            topic = f"$iothub/twin/GET/?$rid={packet_id}"
        else:
            topic = _EVENTS
        packets.append(raw.publish(topic, b"21.5", packet_id=packet_id))
        expected.append(raw.puback(packet_id))
        if packet_id % 10 == 5:
            expected.append(b"an answer")
    client.send(*packets)
    for each in expected:
        if each == b"an answer":
            assert client.take_publish()[0].startswith("$iothub/twin/res/200/?$rid=")
        else:
            client.expect(each)
    client.expect_nothing()


def test_a_publish_and_its_answer_come_before_those_of_the_next(lab: Lab) -> None:
    client = lab.connect("d1", _TWIN_ANSWERS)
    client.send(
        raw.publish("$iothub/twin/GET/?$rid=a", packet_id=7),
        raw.publish(_EVENTS, packet_id=7),  # an identifier may be used again at once
        raw.publish(f"{_REPORTED}?$rid=b", b'{"a": 1}', packet_id=3),
    )
    client.play("""
        << PUBACK 7
        << PUBLISH $iothub/twin/res/200/?$rid=a …
        << PUBACK 7
        << PUBACK 3
        << PUBLISH $iothub/twin/res/204/?$rid=b&$version=2
    """)


@pytest.mark.parametrize("packet_id", ["", " 1"], ids=["QoS 0", "QoS 1"])
@pytest.mark.parametrize(
    "topic", ["telemetry", "$iothub/twin/GET/", "$iothub/methods/res/ok/?$rid=1", "devices/d2/x"]
)
def test_an_unknown_topic_ends_the_connection(lab: Lab, topic: str, packet_id: str) -> None:
    lab.connect("d1", _TWIN_ANSWERS).play(f">> PUBLISH{packet_id} {topic} {{}}", "<< CLOSED")


def test_a_topic_may_be_as_long_as_mqtt_allows(lab: Lab) -> None:
    client = lab.connect("d1", _TWIN_ANSWERS)
    client.send(raw.publish(f"{_EVENTS}a=".ljust(65_535, "x"), packet_id=1))
    client.expect(raw.puback(1))
    request_id = "x" * (65_535 - len("$iothub/twin/res/200/?$rid="))
    client.send(raw.publish(f"$iothub/twin/GET/?$rid={request_id}", packet_id=2))
    client.expect(raw.puback(2))
    assert client.take_publish()[0] == f"$iothub/twin/res/200/?$rid={request_id}"


def test_a_request_id_that_is_too_long_for_the_answer_ends_the_connection(lab: Lab) -> None:
    client = lab.connect("d1", _TWIN_ANSWERS)
    client.send(raw.publish("$iothub/twin/GET/?$rid=".ljust(65_535, "x"), packet_id=1))
    client.expect(raw.puback(1))
    client.expect_closed()


# --- DISCONNECT


def test_packets_after_a_disconnect_are_not_handled(lab: Lab) -> None:
    client = lab.connect()
    client.send(
        raw.publish(_EVENTS, b"before", packet_id=1),
        b"\xe0\x00",
        raw.publish(_EVENTS, b"after", packet_id=2),
        raw.PINGREQ,
    )
    client.expect(raw.puback(1))
    client.expect_closed()
    assert client.error is None
    assert lab.bodies() == ["before"]
    assert lab.state() == "Disconnected"
    client.send(raw.PINGREQ)
    client.expect_closed()


# --- a device that does not read


def test_a_device_that_does_not_read_what_the_hub_sends_is_closed(lab: Lab) -> None:
    client = lab.connect("d1", "$iothub/twin/PATCH/properties/desired/#")
    client.backlog = limits.MQTT_WRITE_BUFFER_BYTES
    lab.patch_desired(a=1)
    client.play("<< PUBLISH $iothub/twin/PATCH/properties/desired/?$version=2 …")
    client.backlog += 1
    lab.patch_desired(a=2)
    assert lab.state() == "Disconnected"
    client.play("<< CLOSED")


def test_messages_wait_until_the_device_reads(lab: Lab) -> None:
    """With QoS 0 a cloud-to-device message has ended once it is sent: it waits before that."""
    client = lab.connect("d1", "devices/d1/messages/devicebound/#")
    client.backlog = limits.MQTT_WRITE_BUFFER_BYTES + 1
    lab.send("waits")
    client.expect_nothing()
    assert lab.pending() == 1
    client.backlog = 0
    client.channel.resume()
    client.play("<< PUBLISH devices/d1/messages/devicebound/ waits")
    assert lab.pending() == 0


def test_a_channel_without_a_device_has_nothing_to_send(lab: Lab) -> None:
    """The connection calls these also on a channel that has not begun, or has ended."""
    client = lab.dial()
    client.channel.resume()
    client.channel.flush()
    client.lose()
    client = lab.dial(lab.greeting(key="A" * 42 + "Q="))
    client.expect(raw.connack(5))
    client.channel.resume()
    client.expect_closed()
