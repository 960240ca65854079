"""What ends a connection, and what does not; and that one device never disturbs another."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from emulator.hub.core.errors import (
    ConnectionForcefullyClosedOnNewConnection,
    DeviceNotOnline,
    HubError,
)
from tests.mqtt.playbook import HOST, KEY, POLICY_KEY, Client, Lab
from tests.mqtt.raw import connack, connect, puback, publish, subscribe

_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"
_ALL = (_METHODS, _TWIN_ANSWERS, _DESIRED)
_OTHER_KEY = "Y" * 43 + "="


# --- one connection for each identity


def test_a_new_connection_replaces_the_older_one(lab: Lab) -> None:
    clients = [lab.connect("d1", _TWIN_ANSWERS) for _ in range(10)]
    for client in clients[:-1]:
        client.expect_closed()
    clients[-1].play("""
        >> PUBLISH $iothub/twin/GET/?$rid=1
        << PUBLISH $iothub/twin/res/200/?$rid=1 …
    """)
    assert lab.state() == "Connected"


async def test_calls_in_flight_fail_when_the_device_connects_again(lab: Lab) -> None:
    lab.connect("d1", _METHODS)
    calls = [await lab.invoked("d1", "wait") for _ in range(3)]
    newer = lab.connect("d1", _METHODS)
    for call in calls:
        with pytest.raises(ConnectionForcefullyClosedOnNewConnection):
            await call
    # The new connection can't answer for the old one. Its own calls count from 1.
    call = await lab.invoked("d1", "work")
    newer.play("""
        << PUBLISH $iothub/methods/POST/work/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=2 "late"
        >> PUBLISH $iothub/methods/res/201/?$rid=1 "new"
    """)
    assert (await call).payload == b'"new"'


async def test_a_refused_connect_leaves_the_live_connection_alone(lab: Lab) -> None:
    live = lab.connect("d1", _METHODS, clean=False)
    call = await lab.invoked("d1", "wait")
    for clean in (False, True):
        lab.refuse(lab.greeting(key=_OTHER_KEY, clean=clean))
    assert lab.state() == "Connected"
    live.play("""
        << PUBLISH $iothub/methods/POST/wait/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "still here"
    """)
    assert (await call).payload == b'"still here"'
    lab.connect(clean=False, session_present=True)


# --- what ends it


def _goodbye(client: Client, _: Lab) -> None:
    client.play(">> DISCONNECT", "<< CLOSED")


def _break_off(client: Client, _: Lab) -> None:
    client.lose()


def _be_silent(client: Client, _: Lab) -> None:
    client.channel.expire()
    client.expect_closed()


def _break_a_rule(client: Client, _: Lab) -> None:
    client.send(b"\xf0\x00")
    client.expect_closed()


def _let_the_token_expire(client: Client, lab: Lab) -> None:
    lab.clock.advance(9)
    client.expect_nothing()
    lab.clock.advance(2)
    client.expect_closed()


def _disable(client: Client, lab: Lab) -> None:
    lab.register("d1", statusReason="an update that leaves the device enabled")
    client.expect_nothing()
    lab.register("d1", status="disabled")
    client.expect_closed()


def _delete(client: Client, lab: Lab) -> None:
    lab.delete("d1")
    client.expect_closed()


@pytest.mark.parametrize(
    "end",
    [_goodbye, _break_off, _be_silent, _break_a_rule, _let_the_token_expire, _disable, _delete],
)
async def test_when_a_connection_ends_its_device_is_not_online(
    lab: Lab, end: Callable[[Client, Lab], None]
) -> None:
    client = lab.connect("d1", _METHODS, lifetime=10)
    call = await lab.invoked("d1", "wait")
    client.take()
    end(client, lab)
    with pytest.raises(HubError) as raised:
        await call
    assert type(raised.value) is DeviceNotOnline
    assert raised.value.text == "Device unavailable"
    if end is _delete:
        lab.refuse(lab.greeting())
        return
    assert lab.state() == "Disconnected"
    lab.register("d1", status="enabled")
    lab.connect("d1").expect_nothing()


def test_a_renewed_token_counts_in_place_of_the_older_one(lab: Lab) -> None:
    """SDKs renew a token by connecting again."""
    older = lab.connect(lifetime=10)
    renewed = lab.connect(lifetime=100)
    older.expect_closed()
    lab.clock.advance(50)
    renewed.expect_nothing()


def test_a_connection_that_ends_at_once_leaves_nothing(lab: Lab) -> None:
    for _ in range(20):
        client = lab.dial(lab.greeting(), b"\xe0\x00")
        client.expect(connack(0))
        client.expect_closed()
        assert lab.state() == "Disconnected"
    assert not lab.hub.links.links()


# --- isolation


def test_a_device_receives_only_its_own_answers_and_desired_properties(lab: Lab) -> None:
    client, other = lab.connect("d1", *_ALL), lab.connect("d2", *_ALL)
    lab.patch_desired(a=1)
    client.play("""
        << PUBLISH $iothub/twin/PATCH/properties/desired/?$version=2 {"a": 1, "$version": 2}
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=1 {"deviceId": "d2"}
        << PUBLISH $iothub/twin/res/204/?$rid=1&$version=2
        >> PUBLISH 1 devices/d1/messages/events/ 21.5
        << PUBACK 1
    """)
    other.play("""
        >> PUBLISH $iothub/twin/GET/?$rid=1
        << PUBLISH $iothub/twin/res/200/?$rid=1 {"desired":{"$version":1},"reported":{"$version":1}}
    """)


def test_a_message_goes_only_to_its_device(lab: Lab) -> None:
    client = lab.connect("d1", "devices/d1/messages/devicebound/#:1")
    other = lab.connect("d2", "devices/d2/messages/devicebound/#:1")
    lab.send("private")
    packet_id, body = client.take_message()
    assert body == "private"
    other.send(puback(packet_id))  # an identifier is each connection's own
    other.expect_nothing()
    assert lab.pending() == 1


async def test_a_device_cannot_answer_anothers_method(lab: Lab) -> None:
    client, other = lab.connect("d1", _METHODS), lab.connect("d2", _METHODS)
    call = await lab.invoked("d1", "secret")
    other.play('>> PUBLISH $iothub/methods/res/200/?$rid=1 "forged"')
    others = await lab.invoked("d2", "secret")
    other.play("""
        << PUBLISH $iothub/methods/POST/secret/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "mine"
    """)
    assert (await others).payload == b'"mine"'
    assert not call.done()
    client.play("""
        << PUBLISH $iothub/methods/POST/secret/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "genuine"
    """)
    assert (await call).payload == b'"genuine"'


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize(
    "topic",
    [
        "devices/d1/messages/events/",
        "devices/d1/messages/devicebound/",
        "devices/d1/modules/m/messages/events/",
        "devices/+/messages/events/",
        "#",
        # topics that the hub publishes to
        "$iothub/methods/POST/reboot/?$rid=1",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/twin/PATCH/properties/desired/?$version=9",
        "$SYS/broker/version",
    ],
)
def test_a_device_cannot_publish_to_another(lab: Lab, topic: str, retain: bool) -> None:
    client, other = lab.connect("d1", *_ALL), lab.connect("d2", *_ALL)
    other.send(publish(topic, b"{}", packet_id=1, retain=retain))
    other.expect_closed()
    client.expect_nothing()
    lab.connect("d2", *_ALL).expect_nothing()  # nothing is kept for later
    assert lab.events("d1") == lab.events("d2") == []


async def test_a_policys_token_makes_a_client_one_device_and_no_other(lab: Lab) -> None:
    client = lab.connect("d1", *_ALL)
    token = lab.token(HOST, POLICY_KEY, policy="iothubowner")
    other = lab.dial(
        connect("d2", f"{HOST}/d2/?api-version=2021-04-12", token), subscribe(1, *_ALL)
    )
    other.play("<< CONNACK 0", "<< SUBACK 1 0 0 0")
    call = await lab.invoked("d1", "reboot")
    other.play(">> PUBLISH devices/d1/messages/events/", "<< CLOSED")
    client.play("""
        << PUBLISH $iothub/methods/POST/reboot/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=1
    """)
    assert (await call).status == 200


@pytest.mark.parametrize(
    "device_id", ["d1-2", "+", "#", "a#", "+b", "$iothub", "*", "%2F", "a.b:c;d=e", "d%31"]
)
def test_a_device_with_an_odd_id_is_one_device(lab: Lab, device_id: str) -> None:
    lab.register(device_id)
    odd, client = lab.connect(device_id, *_ALL), lab.connect("d1", *_ALL)
    lab.patch_desired(a=1)
    client.play("<< PUBLISH $iothub/twin/PATCH/properties/desired/?$version=2 …")
    odd.play("""
        >> PUBLISH $iothub/twin/GET/?$rid=1
        << PUBLISH $iothub/twin/res/200/?$rid=1 {"desired":{"$version":1},"reported":{"$version":1}}
        >> PUBLISH devices/d1/messages/events/
        << CLOSED
    """)


# --- modules


_CAMERA_KEY = "Q" * 43 + "="
_CAMERA_EVENTS = "devices/d1/modules/camera/messages/events/"


def test_modules_connect_beside_their_device(lab: Lab) -> None:
    device, camera = lab.connect(), lab.connect("d1/camera")
    microphone = lab.connect("d1/microphone")
    names = ("d1", "d1/camera", "d1/microphone")
    assert [lab.state(name) for name in names] == ["Connected"] * 3
    newer = lab.connect("d1/camera")
    camera.expect_closed()
    newer.play(">> DISCONNECT", "<< CLOSED")
    assert [lab.state(name) for name in names] == ["Connected", "Disconnected", "Connected"]
    device.lose()
    assert [lab.state(name) for name in names] == ["Disconnected", "Disconnected", "Connected"]
    microphone.expect_nothing()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("d1/camera", KEY),  # the key of the device
        ("d1/camera", "U" * 43 + "="),  # the key of another module
        ("d1/camera", _OTHER_KEY),
        ("d1", _CAMERA_KEY),
        ("d1/Camera", _CAMERA_KEY),
        ("D1/camera", _CAMERA_KEY),
    ],
)
def test_only_its_own_key_opens_the_connection_of_a_module(lab: Lab, name: str, key: str) -> None:
    live = lab.connect("d1/camera")
    lab.refuse(lab.greeting(name, key=key))
    live.expect_nothing()


def test_a_policy_that_connects_devices_connects_modules(lab: Lab) -> None:
    token = lab.token(HOST, POLICY_KEY, policy="device")
    client = lab.dial(connect("d1/camera", f"{HOST}/d1/camera/?api-version=2021-04-12", token))
    client.send(publish(_CAMERA_EVENTS, packet_id=1))
    client.expect(connack(0), puback(1))
    method = json.loads(lab.events()[0]["annotations"]["iothub-connection-auth-method"])
    assert method["scope"] == "hub"


def test_a_module_ends_with_its_device_and_not_the_reverse(lab: Lab) -> None:
    device, camera = lab.connect(), lab.connect("d1/camera")
    lab.delete("d1/camera")
    camera.expect_closed()
    device.expect_nothing()
    microphone = lab.connect("d1/microphone")
    lab.register("d1", status="disabled")
    microphone.expect_closed()
    lab.refuse(lab.greeting("d1/microphone"))
    lab.register("d1", status="enabled")
    device, microphone = lab.connect(), lab.connect("d1/microphone")
    lab.delete("d1")
    device.expect_closed()
    microphone.expect_closed()


def test_a_modules_telemetry_is_stamped_with_its_own_identity(lab: Lab) -> None:
    model = "/?api-version=2021-04-12&model-id=dtmi%3Acom%3Aexample%3AC%3B1"
    device, camera = lab.connect(), lab.connect("d1/camera", tail=model)
    camera.play(f">> PUBLISH 1 {_CAMERA_EVENTS}a=1&%24.on=alerts/ from the module", "<< PUBACK 1")
    device.play(">> PUBLISH 1 devices/d1/messages/events/ from the device", "<< PUBACK 1")
    first, second = lab.events()
    assert (first["body"], first["deviceId"], first["moduleId"]) == (
        "from the module",
        "d1",
        "camera",
    )
    assert (first["properties"], first["systemProperties"]) == (
        {"a": "1"},
        {"iothub-outputname": "alerts"},
    )
    stamps, of_device = first["annotations"], second["annotations"]
    assert stamps["iothub-connection-device-id"] == "d1"
    assert stamps["iothub-connection-module-id"] == "camera"
    assert stamps["dt-dataschema"] == "dtmi:com:example:C;1"
    method = json.loads(stamps["iothub-connection-auth-method"])
    assert (method["scope"], method["type"], method["issuer"]) == ("module", "sas", "iothub")
    generation = "iothub-connection-auth-generation-id"
    assert stamps[generation] != of_device[generation]
    assert (second["body"], second["moduleId"]) == ("from the device", None)
    assert not {"iothub-connection-module-id", "dt-dataschema"} & set(of_device)


@pytest.mark.parametrize(
    ("name", "packet"),
    [
        ("d1/camera", "PUBLISH devices/d1/messages/events/"),
        ("d1/camera", "PUBLISH devices/d1/modules/microphone/messages/events/"),
        ("d1", f"PUBLISH {_CAMERA_EVENTS}"),
    ],
)
def test_device_and_modules_have_topics_of_their_own(lab: Lab, name: str, packet: str) -> None:
    lab.connect(name).play(f">> {packet}", "<< CLOSED")
    assert lab.events() == []


def test_a_module_may_subscribe_to_what_the_sdks_subscribe_to(lab: Lab) -> None:
    start = "devices/d1/modules/camera"
    lab.connect("d1/camera").play(f"""
        >> SUBSCRIBE 1 {start}/messages/devicebound/#:1 {start}/inputs/#:1 {" ".join(_ALL)}
        << SUBACK 1 1 1 0 0 0
        >> UNSUBSCRIBE 2 {start}/inputs/#
        << UNSUBACK 2
        >> SUBSCRIBE 3 {start}/#
        << SUBACK 3 0
    """)


def test_a_devices_messages_are_not_for_its_modules(lab: Lab) -> None:
    camera = lab.connect("d1/camera", "devices/d1/modules/camera/messages/devicebound/#")
    lab.send("once")
    camera.expect_nothing()
    assert lab.twin("d1/camera")["cloudToDeviceMessageCount"] == 0
    device = lab.connect("d1", "devices/d1/messages/devicebound/#:1")
    assert device.take_message()[1] == "once"
    camera.lose()  # which releases nothing of the device: it would receive the message again
    lab.send("next")
    assert device.take_message()[1] == "next"
    device.expect_nothing()


def test_a_module_has_a_session_of_its_own(lab: Lab) -> None:
    lab.connect("d1/camera", _METHODS, clean=False).lose()
    for name, clean, present in (
        ("d1", False, False),
        ("d1", True, False),
        ("d1/camera", False, True),
    ):
        lab.connect(name, clean=clean, session_present=present)


def test_a_module_has_a_twin_of_its_own(lab: Lab) -> None:
    device = lab.connect("d1", *_ALL)
    camera = lab.connect("d1/camera", *_ALL)
    lab.patch_desired("d1/camera", zoom=2)
    camera.play("""
        << PUBLISH $iothub/twin/PATCH/properties/desired/?$version=2 {"zoom": 2, "$version": 2}
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=1 {"zoom": 1}
        << PUBLISH $iothub/twin/res/204/?$rid=1&$version=2
        >> PUBLISH $iothub/twin/GET/?$rid=2
        << PUBLISH $iothub/twin/res/200/?$rid=2 {"desired":{"zoom":2,"$version":2},…
    """)
    device.play("""
        >> PUBLISH $iothub/twin/GET/?$rid=3
        << PUBLISH $iothub/twin/res/200/?$rid=3 {"desired":{"$version":1},"reported":{"$version":1}}
    """)
    twin = lab.twin("d1/camera")
    assert (twin["moduleId"], twin["properties"]["reported"]["zoom"]) == ("camera", 1)
    lab.patch_desired("d1", interval=1)
    device.play("<< PUBLISH $iothub/twin/PATCH/properties/desired/?$version=2 …")
    camera.expect_nothing()


async def test_a_module_answers_methods_of_its_own(lab: Lab) -> None:
    device = lab.connect("d1", _METHODS)
    with pytest.raises(DeviceNotOnline):
        await lab.invoke("d1/camera", "zoom")
    device.expect_nothing()
    camera = lab.connect("d1/camera", _METHODS)
    calls = [await lab.invoked(name, "zoom", {"by": 2}) for name in ("d1/camera", "d1")]
    # A response counts only from the identity that was called.
    device.play("""
        << PUBLISH $iothub/methods/POST/zoom/?$rid=1 {"by": 2}
        >> PUBLISH $iothub/methods/res/500/?$rid=2 "unknown"
        >> PUBLISH $iothub/methods/res/201/?$rid=1 "device"
    """)
    camera.play("""
        << PUBLISH $iothub/methods/POST/zoom/?$rid=1 {"by": 2}
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "module"
    """)
    results = [await call for call in calls]
    assert [(each.status, each.payload) for each in results] == [
        (200, b'"module"'),
        (201, b'"device"'),
    ]
