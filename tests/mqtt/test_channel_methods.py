"""Direct methods over MQTT: from the hub to the device's topics, and back."""

from __future__ import annotations

import json

import pytest

from emulator.hub.core.errors import (
    DeviceNotOnline,
    GatewayTimeout,
    InvalidResponseWhileProxying,
    MessageTooLarge,
)
from tests.clock import settle
from tests.mqtt.playbook import Client, Lab
from tests.mqtt.raw import publish

_METHODS = "$iothub/methods/POST/#"


@pytest.fixture
def client(lab: Lab) -> Client:
    """A connection of `d1` that is subscribed to methods."""
    return lab.connect("d1", _METHODS)


def _respond(client: Client, request_id: str, payload: bytes = b"", *, status: int = 200) -> None:
    client.send(publish(f"$iothub/methods/res/{status}/?$rid={request_id}", payload))


async def test_a_method_goes_to_the_device_and_its_response_to_the_caller(
    lab: Lab, client: Client
) -> None:
    call = await lab.invoked("d1", "rebootDevice", {"method_number": "42"})
    client.play("""
        << PUBLISH $iothub/methods/POST/rebootDevice/?$rid=1 {"method_number": "42"}
        >> PUBLISH 5 $iothub/methods/res/201/?$rid=1 {"Response": "This is the response"}
        << PUBACK 5
    """)
    result = await call
    assert result.status == 201
    assert json.loads(result.payload) == {"Response": "This is the response"}


@pytest.mark.parametrize(
    ("status", "body", "payload"),
    [
        (0, b"", None),
        (-1, b'{"\xc3\xa4": [1.50, null]}', {"ä": [1.5, None]}),
        (2147483647, b" [ 1 ] ", [1]),
        (-2147483648, b'"\xc3\xa4"', "ä"),
    ],
)
async def test_a_response_has_any_status_and_any_body(
    lab: Lab, client: Client, status: int, body: bytes, payload: object
) -> None:
    call = await lab.invoked("d1", "odd")
    _respond(client, "1", body, status=status)
    result = await call
    assert (result.status, json.loads(result.payload)) == (status, payload)


async def test_a_response_is_passed_on_as_it_was_written_or_fails_the_call(
    lab: Lab, client: Client
) -> None:
    call = await lab.invoked("d1", "odd")
    client.play("""
        << PUBLISH $iothub/methods/POST/odd/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=1 { 'a' : 1.50, }
    """)
    assert (await call).payload == b"{ 'a' : 1.50, }"
    call = await lab.invoked("d1", "odd", "")
    client.play("""
        << PUBLISH $iothub/methods/POST/odd/?$rid=2 ""
        >> PUBLISH 7 $iothub/methods/res/200/?$rid=2 fine <thanks
        << PUBACK 7
    """)
    with pytest.raises(InvalidResponseWhileProxying):
        await call
    again = lab.connect("d1", _METHODS)
    call = await lab.invoked("d1", "odd")
    again.play("""
        << PUBLISH $iothub/methods/POST/odd/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=1
    """)
    assert (await call).payload == b"null"


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("reboot", "reboot"),
        ("a b", "a b"),
        ("component*command", "component*command"),
        ("ä€𝄞", "ä€𝄞"),
        ("$rid=9&x", "$rid=9&x"),
        ("a/b", "a%2Fb"),
        ("+", "%2B"),
        ("#", "%23"),
        ("a?$rid=9", "a%3F$rid=9"),
        ("100%", "100%25"),
        ("line\nbreak", "line%0Abreak"),
        ("nul\0", "nul%00"),
        ("n" * 100, "n" * 100),
    ],
)
async def test_a_name_with_odd_characters_stays_one_segment_of_the_topic(
    lab: Lab, client: Client, name: str, segment: str
) -> None:
    call = await lab.invoked("d1", name)
    assert client.take_publish()[0] == f"$iothub/methods/POST/{segment}/?$rid=1"
    _respond(client, "1")
    assert (await call).status == 200


async def test_fifty_calls_answered_backwards_each_get_their_own_response(
    lab: Lab, client: Client
) -> None:
    calls = [await lab.invoked("d1", "add", number) for number in range(50)]
    requests = [client.take_publish() for _ in calls]
    assert [int(payload) for _, payload in requests] == list(range(50))
    for topic, payload in reversed(requests):
        request_id, number = topic.rpartition("=")[2], int(payload)
        _respond(client, request_id, b"%d" % (number + 1000), status=number)
    for number, call in enumerate(calls):
        result = await call
        assert (result.status, result.payload) == (number, b"%d" % (number + 1000))


async def test_unknown_and_repeated_responses_are_ignored(lab: Lab, client: Client) -> None:
    call = await lab.invoked("d1", "once")
    client.play("""
        << PUBLISH $iothub/methods/POST/once/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=ffffffff "unknown"
        >> PUBLISH $iothub/methods/res/200/?$rid= "unknown"
        >> PUBLISH $iothub/methods/res/200/?$rid=10 "unknown"
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "first"
        >> PUBLISH $iothub/methods/res/500/?$rid=1 "second"
    """)
    assert (await call).payload == b'"first"'
    call = await lab.invoked("d1", "next")
    client.play("""
        << PUBLISH $iothub/methods/POST/next/?$rid=2
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "third"
        >> PUBLISH $iothub/methods/res/200/?$rid=2 "its own"
    """)
    assert (await call).payload == b'"its own"'


async def test_a_late_response_is_ignored(lab: Lab, client: Client) -> None:
    call = await lab.invoked("d1", "slow", responseTimeoutInSeconds=5)
    lab.clock.advance(5)
    with pytest.raises(GatewayTimeout):
        await call
    call = await lab.invoked("d1", "next")
    client.play("""
        << PUBLISH $iothub/methods/POST/slow/?$rid=1
        << PUBLISH $iothub/methods/POST/next/?$rid=2
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "late"
        >> PUBLISH $iothub/methods/res/200/?$rid=2 "in time"
    """)
    assert (await call).payload == b'"in time"'


# --- a device that is not online


async def test_a_device_that_is_away_or_not_subscribed_is_not_online(lab: Lab) -> None:
    with pytest.raises(DeviceNotOnline):
        await lab.invoke("d1", "reboot")
    client = lab.connect("d1", "$iothub/twin/res/#")
    with pytest.raises(DeviceNotOnline):
        await lab.invoke("d1", "reboot")
    client.expect_nothing()


@pytest.mark.parametrize("persistent", [False, True])
async def test_a_caller_may_wait_for_the_device(lab: Lab, persistent: bool) -> None:
    """SDKs never subscribe again after a reconnect: an old subscription must do."""
    if persistent:
        lab.connect("d1", _METHODS, clean=False).play(">> LOST")
    call = await lab.invoked("d1", "wake", connectTimeoutInSeconds=8)
    lab.clock.advance(7)
    if persistent:
        client = lab.connect(clean=False, session_present=True)
    else:
        client = lab.connect("d1")
        client.play(f">> SUBSCRIBE 1 {_METHODS}", "<< SUBACK 1 0")
    await settle()
    client.play("""
        << PUBLISH $iothub/methods/POST/wake/?$rid=1
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "awake"
    """)
    assert (await call).payload == b'"awake"'


async def test_a_response_counts_even_after_the_subscription_ended(
    lab: Lab, client: Client
) -> None:
    call = await lab.invoked("d1", "last")
    client.play(f"""
        << PUBLISH $iothub/methods/POST/last/?$rid=1
        >> UNSUBSCRIBE 2 {_METHODS}
        << UNSUBACK 2
        >> PUBLISH $iothub/methods/res/200/?$rid=1 "done"
    """)
    assert (await call).payload == b'"done"'


# --- sizes


async def test_128_kb_go_both_ways(lab: Lab, client: Client) -> None:
    payload = "x" * (128 * 1024 - 2)  # and its two quotes
    call = await lab.invoked("d1", "large", payload)
    assert json.loads(client.take_publish()[1]) == payload
    _respond(client, "1", json.dumps(payload).encode())
    assert json.loads((await call).payload) == payload


async def test_a_larger_response_fails_the_call_and_leaves_the_connection(
    lab: Lab, client: Client
) -> None:
    call = await lab.invoked("d1", "larger")
    client.take()
    _respond(client, "1", b'"' + b"x" * (128 * 1024) + b'"')
    with pytest.raises(MessageTooLarge):
        await call
    client.expect_nothing()
