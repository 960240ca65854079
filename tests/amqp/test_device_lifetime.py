"""When a device over AMQP is connected, and what ends its links."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from emulator.amqp.message import Message
from emulator.amqp.performatives import ACCEPTED, Begin, End
from emulator.hub.core.errors import DeviceNotOnline
from tests.amqp.devices import MethodPair, TwinPair, commands, connect, telemetry
from tests.amqp.lab import AmqpClient, Lab, RemoteLink, code_of, device_token, service_token
from tests.amqp.playbook import write
from tests.hub.fakes import certificate, self_signed

M_KEY = "M" * 43 + "="  # of d2
CAMERA_KEY = "Q" * 43 + "="
LINKS = [
    ("sender", "/devices/d1/messages/events"),
    ("receiver", "/devices/d1/messages/devicebound"),
    ("sender", "/devices/d1/methods/devicebound"),
    ("receiver", "/devices/d1/methods/devicebound"),
    ("sender", "/devices/d1/twin"),
    ("receiver", "/devices/d1/twin"),
]


def _ended(link: RemoteLink) -> tuple[str, int]:
    error = link.detached()
    assert error is not None
    return error.condition, code_of(error)


# --- from the first link to the last


@pytest.mark.parametrize(("direction", "address"), LINKS)
def test_any_first_link_connects_a_device(lab: Lab, direction: str, address: str) -> None:
    client = connect(lab)
    assert lab.state() == "Disconnected"
    link = getattr(client, direction)(address)
    assert lab.state() == "Connected"
    link.detach()
    assert lab.state() == "Disconnected"
    assert not client.client.devices
    getattr(client, direction)(address)
    assert lab.state() == "Connected"


def test_the_last_link_disconnects_a_device(lab: Lab) -> None:
    client = connect(lab)
    links = [telemetry(client), commands(client), *vars(MethodPair(client)).values()]
    for link in links[:-1]:
        link.detach()
        assert lab.state() == "Connected"
    links[-1].detach()
    assert lab.state() == "Disconnected"


@pytest.mark.parametrize("how", ["session", "connection", "close"])
def test_the_end_of_a_session_or_a_connection_disconnects(lab: Lab, how: str) -> None:
    client = connect(lab)
    telemetry(client)
    commands(client)
    TwinPair(client)
    if how == "session":
        client.send(write(0, End()))
    elif how == "connection":
        client.connection.lost()
    else:
        client.connection.close()
    assert lab.state() == "Disconnected"


def _with_many_links(lab: Lab) -> AmqpClient:
    """Connect a device with more links than end at once; the last ones are of d2."""
    client = connect(lab)
    client.put_token(device_token(lab, "d2", M_KEY))
    for _ in range(100):
        telemetry(client)
    return client


async def test_the_hub_sends_nothing_to_a_device_whose_link_is_about_to_end(lab: Lab) -> None:
    client = _with_many_links(lab)
    settled = commands(client, "d2", snd_settle_mode=1)
    MethodPair(client, "d2")
    lab.patch_desired("d2", before=1)
    client.connection.lost()
    assert lab.state("d2") == "Connected"
    lab.send("hello", "d2")
    assert lab.pending("d2") == 1
    with pytest.raises(DeviceNotOnline):
        await asyncio.wait_for(lab.invoke("d2", "x"), 5)
    lab.patch_desired("d2", after=1)
    settled.client.expect_nothing()
    for _ in client.connection.end_links():
        pass
    assert [lab.state(name) for name in ("d1", "d2")] == ["Disconnected"] * 2
    again = connect(lab, "d2", key=M_KEY)
    assert commands(again, "d2").take().body == b"hello"


def test_a_device_connects_again_while_its_link_is_about_to_end(lab: Lab) -> None:
    client = _with_many_links(lab)
    link = commands(client, "d2")
    lab.send("hello", "d2")
    link.take()
    client.connection.lost()
    again = commands(connect(lab, "d2", key=M_KEY), "d2")
    message = again.take()
    assert message.body == b"hello"
    for _ in client.connection.end_links():
        pass
    assert lab.state("d2") == "Connected"
    again.settle(ACCEPTED)
    assert lab.pending("d2") == 0


def test_many_devices_on_one_connection(lab: Lab) -> None:
    """As pooling in C#: a session and a token each, and the same names of links."""
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab, "d1"))
    client.put_token(device_token(lab, "d2", M_KEY))
    client.put_token(device_token(lab, "d1/camera", CAMERA_KEY))
    client.session(1).session(2).session(3)
    names = ("d1", "d2", "d1/modules/camera")
    links = []
    for channel, name in enumerate(names, start=1):
        client._handles = itertools.count()  # names are of a session
        links.append(client.sender(f"/devices/{name}/messages/events", channel))
    for link in links:
        assert link.send(Message(b"x")) == ACCEPTED
    assert [lab.state(name) for name in ("d1", "d2", "d1/camera")] == ["Connected"] * 3
    links[0].detach()
    assert [lab.state(name) for name in ("d1", "d2", "d1/camera")] == [
        "Disconnected",
        "Connected",
        "Connected",
    ]


# --- credentials


@pytest.mark.parametrize(
    "token",
    [
        lambda lab: device_token(lab, "d1", M_KEY),
        lambda lab: device_token(lab, "d2", M_KEY),
        lambda lab: service_token(lab, "service"),
    ],
    ids=["wrong key", "another device", "no right to connect"],
)
@pytest.mark.parametrize(("direction", "address"), LINKS)
def test_a_link_without_a_right_is_refused(
    lab: Lab, token: object, direction: str, address: str
) -> None:
    client = AmqpClient(lab).open()
    client.put_token(token(lab))  # type: ignore[operator]
    link = getattr(client, direction)(address)
    assert client.refused(link) == ("amqp:unauthorized-access", 401002)
    assert lab.state() == "Disconnected"


def test_links_without_any_token_and_of_unknown_devices_are_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    for name in ("d1", "unknown", "d1/unknown"):
        assert client.refused(telemetry(client, name)) == ("amqp:unauthorized-access", 401002)


def test_a_policy_with_device_connect_can_stand_for_a_device(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab, "device"))
    assert telemetry(client).send(Message(b"x")) == ACCEPTED
    assert telemetry(client, "d2").send(Message(b"x")) == ACCEPTED


def test_plain_in_place_of_a_token(lab: Lab) -> None:
    client = AmqpClient(lab)
    assert client.sasl("d1@sas.hub", device_token(lab)) == 0
    assert telemetry(client.open()).send(Message(b"x")) == ACCEPTED


def test_a_certificate_in_place_of_a_token(lab: Lab) -> None:
    own = certificate()
    lab.register("x1", authentication=self_signed(own.sha1))
    lab.register("x2", authentication={"type": "certificateAuthority"})
    client = AmqpClient(lab, certificate=own).open()
    assert telemetry(client, "x1").send(Message(b"x")) == ACCEPTED
    assert client.refused(telemetry(client, "x2")) == ("amqp:unauthorized-access", 401002)
    assert client.refused(telemetry(client, "d1")) == ("amqp:unauthorized-access", 401002)
    by_authority = AmqpClient(lab, certificate=certificate("ca", "x2", by_authority=True)).open()
    assert telemetry(by_authority, "x2").send(Message(b"x")) == ACCEPTED
    assert by_authority.refused(telemetry(by_authority, "x1"))[0] == "amqp:unauthorized-access"
    method = lab.events("x1")[0]["annotations"]["iothub-connection-auth-method"]
    assert '"type":"x509Certificate"' in method


# --- what ends the links of a device


def test_a_newer_connection_takes_over(lab: Lab) -> None:
    old = connect(lab)
    links = [telemetry(old), commands(old)]
    lab.send("hello")
    links[1].take()
    new = connect(lab)
    link = commands(new)
    assert [_ended(each) for each in links] == [("amqp:link:stolen", 400027)] * 2
    assert link.take().body == b"hello"
    assert lab.state() == "Connected"
    old.expect_nothing()
    assert not old.connection.closed


def test_a_device_is_connected_over_one_protocol_at_a_time(lab: Lab) -> None:
    over_mqtt = lab.connect("d1")
    over_amqp = telemetry(connect(lab))
    over_mqtt.expect_closed()
    assert lab.state() == "Connected"
    lab.clock.advance(60)
    lab.connect("d1")
    assert _ended(over_amqp) == ("amqp:link:stolen", 400027)
    assert lab.state() == "Connected"


def test_two_programs_with_one_identity_slow_down(lab: Lab) -> None:
    clients = [connect(lab) for _ in range(3)]
    telemetry(clients[0])
    telemetry(clients[1])
    attach = [
        clients[2].pending("/devices/d1/messages/events"),
        clients[2].pending("/devices/d1/twin"),
    ]
    clients[2].expect_nothing()
    lab.clock.advance(0.25)
    assert all(RemoteLink(clients[2], each, 0).credit for each in attach)
    assert lab.state() == "Connected"


def test_a_device_that_waits_can_be_refused_or_leave(lab: Lab) -> None:
    clients = [connect(lab) for _ in range(4)]
    telemetry(clients[0])
    telemetry(clients[1])
    attach = clients[2].pending("/devices/d1/messages/events")
    clients[3].pending("/devices/d1/messages/events")
    clients[3].connection.lost()
    lab.register("d1", status="disabled")
    lab.clock.advance(1)
    assert clients[2].refused(RemoteLink(clients[2], attach, 0))[0] == "amqp:unauthorized-access"
    assert not clients[2].client.devices
    assert not clients[3].client.devices


def test_a_device_that_is_disabled_or_deleted_loses_its_links(lab: Lab) -> None:
    client = connect(lab)
    links = [telemetry(client), commands(client)]
    lab.register("d1", status="disabled")
    assert [_ended(each) for each in links] == [("amqp:not-allowed", 403012)] * 2
    assert client.refused(telemetry(client))[0] == "amqp:unauthorized-access"
    lab.register("d1", status="enabled")
    again = telemetry(client)
    lab.delete("d1")
    assert _ended(again)[0] == "amqp:not-found"
    assert not client.client.devices


def test_an_expired_token_ends_the_links_of_its_device(lab: Lab) -> None:
    client = connect(lab, lifetime=60)
    client.put_token(device_token(lab, "d2", M_KEY))
    link, other = telemetry(client), telemetry(client, "d2")
    lab.clock.advance(59)
    assert lab.state() == "Connected"
    lab.clock.advance(2)
    assert _ended(link) == ("amqp:unauthorized-access", 401003)
    assert lab.state() == "Disconnected"
    assert other.send(Message(b"x")) == ACCEPTED


def test_a_renewed_token_keeps_the_links(lab: Lab) -> None:
    client = connect(lab, lifetime=60)
    link = telemetry(client)
    lab.clock.advance(30)
    client.put_token(device_token(lab, lifetime=60))
    lab.clock.advance(45)
    assert link.send(Message(b"x")) == ACCEPTED
    lab.clock.advance(20)
    assert _ended(link) == ("amqp:unauthorized-access", 401003)


def test_a_token_ends_a_link_that_waited_when_another_token_expired(lab: Lab) -> None:
    for _ in range(2):  # two programs: the next one has to wait for 0.25 s
        telemetry(connect(lab))
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab, "d2", M_KEY, lifetime=10))
    other = telemetry(client, "d2")
    client.put_token(device_token(lab, lifetime=20))
    lab.clock.advance(9.9)
    waiting = client.pending("/devices/d1/messages/events")
    lab.clock.advance(0.2)
    assert _ended(other) == ("amqp:unauthorized-access", 401003)
    lab.clock.advance(0.2)
    link = RemoteLink(client, waiting, 0)
    assert link.error is None
    lab.clock.advance(10)
    assert _ended(link) == ("amqp:unauthorized-access", 401003)


# --- what a connection is without a right to anything


def _expect_few_sessions_and_little_time(client: AmqpClient) -> None:
    client.expect_nothing()
    for channel in range(1, 16):
        client.session(channel)
    client.lab.clock.advance(59)
    client.connection.tick(client.lab.clock.monotonic())
    client.expect_nothing()
    client.lab.clock.advance(1)
    client.connection.tick(client.lab.clock.monotonic())
    client.expect_closed("amqp:unauthorized-access")


@pytest.mark.parametrize("how", ["disabled", "deleted", "expired"])
def test_a_connection_ends_soon_after_its_last_right(lab: Lab, how: str) -> None:
    client = connect(lab, lifetime=600)
    link = telemetry(client)
    if how == "disabled":
        lab.register("d1", status="disabled")
    elif how == "deleted":
        lab.delete("d1")
    else:
        lab.clock.advance(600)
    _ended(link)
    client.expect_nothing()
    wakes = client.wakes
    lab.clock.advance(0)
    assert how == "expired" or client.wakes == wakes + 1  # the deadline is new
    _expect_few_sessions_and_little_time(client)


def test_a_device_without_links_has_a_right_until_it_is_deleted(lab: Lab) -> None:
    client = connect(lab)
    telemetry(client).detach()
    lab.clock.advance(180)
    client.connection.tick(lab.clock.monotonic())
    lab.delete("d1")
    lab.clock.advance(60)
    _expect_few_sessions_and_little_time(client)


def test_a_connection_without_a_right_has_few_sessions(lab: Lab) -> None:
    client = connect(lab)
    telemetry(client)
    for channel in range(1, 20):
        client.session(channel)
    lab.delete("d1")
    lab.clock.advance(0)
    client.take()
    client.send(write(20, Begin(None, 0, 100, 100)))
    client.expect_closed("amqp:resource-limit-exceeded")


def test_a_connection_without_a_right_can_get_one_again(lab: Lab) -> None:
    client = connect(lab, lifetime=60)
    link = telemetry(client)
    lab.clock.advance(60)
    _ended(link)
    lab.clock.advance(30)
    client.put_token(device_token(lab, lifetime=600))
    assert telemetry(client).send(Message(b"x")) == ACCEPTED
    lab.clock.advance(100)
    client.connection.tick(lab.clock.monotonic())
    client.expect_nothing()
    assert not client.connection.closed


def test_the_token_of_a_service_without_links_is_a_right(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab, lifetime=600))
    client.sender("/messages/devicebound").detach()
    lab.clock.advance(400)
    client.put_token(service_token(lab, lifetime=600))
    lab.clock.advance(400)
    client.connection.tick(lab.clock.monotonic())
    client.expect_nothing()
    assert not client.connection.closed
    lab.clock.advance(200)
    _expect_few_sessions_and_little_time(client)


def test_connections_over_the_rate_are_refused() -> None:
    lab = Lab("connections=1/min")
    client = connect(lab)
    client.put_token(device_token(lab, "d2", M_KEY))
    telemetry(client)
    telemetry(client)  # the same device
    refused = client.refused(telemetry(client, "d2"))
    assert refused == ("com.microsoft:device-container-throttled", 429001)


def test_the_connection_of_a_device_breaks_when_the_hub_stops(lab: Lab) -> None:
    client = connect(lab)
    client.put_token(device_token(lab, "d2", M_KEY))
    telemetry(client)
    telemetry(client, "d2")
    commands(client)
    client.expect_nothing()
    wakes = client.wakes
    lab.hub.links.stop()
    assert [lab.state(name) for name in ("d1", "d2")] == ["Disconnected"] * 2
    client.expect_nothing()
    assert client.connection.closed
    assert client.wakes == wakes + 1
    assert not client.client.devices
