from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    DeserializationError,
    DeviceMaximumInflightMethodExceeded,
    DeviceNotOnline,
    GatewayTimeout,
    HubError,
    MessageTooLarge,
)
from emulator.hub.core.json import loads
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.commands import Command
from emulator.hub.methods.calls import MethodCalls, MethodRequest, MethodResult

KEY = IdentityKey("myDevice")
REQUEST = MethodRequest("reboot", b'{"delay":1.0}', response_timeout=30, connect_timeout=0)


class Link:
    """A device's link that notes what it is given."""

    accepts_commands = False

    def __init__(self, key: IdentityKey = KEY) -> None:
        self.key = key
        self.invoked: list[tuple[str, str, bytes]] = []

    def accepts_method(self, name: str) -> bool:
        return True

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        self.invoked.append((request_id, name, payload))

    def deliver(self, command: Command) -> None:
        raise NotImplementedError

    def notify_desired(self, patch: bytes, version: int) -> None:
        raise NotImplementedError

    def close(self, reason: HubError) -> None:
        raise NotImplementedError


@asynccontextmanager
async def in_flight(
    call: Coroutine[Any, Any, MethodResult],
) -> AsyncIterator[asyncio.Task[MethodResult]]:
    """Let a call run until it waits for the device."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    assert not task.done()
    try:
        yield task
    finally:
        task.cancel()


# --- what is asked for


def test_a_request_has_a_hubs_defaults() -> None:
    request = MethodRequest.parse({"methodName": "reboot"})
    assert request == MethodRequest("reboot", b"null", response_timeout=30, connect_timeout=0)


def test_a_request_is_read_whole() -> None:
    body = loads(
        b'{"methodName":"Re boot","payload":{"a":[1.0,1e5,null]},"responseTimeoutInSeconds":300,'
        b'"connectTimeoutInSeconds":299,"other":1}'
    )
    request = MethodRequest.parse(body)
    assert request == MethodRequest("Re boot", b'{"a":[1.0,1e5,null]}', 300, 299)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda values: st.lists(values) | st.dictionaries(st.text(), values),
        max_leaves=10,
    )
)
def test_any_json_value_is_a_payload(payload: object) -> None:
    request = MethodRequest.parse({"methodName": "m", "payload": payload})
    assert json.loads(request.payload) == payload


@pytest.mark.parametrize("body", [None, [], "m", 1, True])
def test_a_request_must_be_an_object(body: object) -> None:
    with pytest.raises(DeserializationError):
        MethodRequest.parse(body)


@pytest.mark.parametrize("body", [{}, {"methodName": None}, {"methodName": ""}])
def test_a_request_must_have_a_name(body: object) -> None:
    with pytest.raises(ArgumentNull):
        MethodRequest.parse(body)


@pytest.mark.parametrize(
    ("response", "connect"), [(5, 0), (5, 5), (300, 300), (30, None), (None, 30), (None, None)]
)
def test_time_outs_within_their_ranges_pass(response: int | None, connect: int | None) -> None:
    request = MethodRequest.parse(
        {
            "methodName": "n" * 100,
            "responseTimeoutInSeconds": response,
            "connectTimeoutInSeconds": connect,
        }
    )
    assert (request.response_timeout, request.connect_timeout) == (response or 30, connect or 0)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"responseTimeoutInSeconds": 4}, "must be within [5; 300]"),
        ({"responseTimeoutInSeconds": 301}, "must be within [5; 300]"),
        ({"responseTimeoutInSeconds": -1}, "must be within [5; 300]"),
        ({"responseTimeoutInSeconds": 5.5}, ""),
        ({"responseTimeoutInSeconds": "30"}, ""),
        ({"responseTimeoutInSeconds": True}, ""),
        ({"connectTimeoutInSeconds": -1}, "must be within [0; 300]"),
        ({"connectTimeoutInSeconds": 301}, "must be within [0; 300]"),
        ({"connectTimeoutInSeconds": []}, ""),
        (
            {"connectTimeoutInSeconds": 31},
            "Device connection timeout (00:00:31) cannot be longer than an overall call timeout "
            "(00:00:30).",
        ),
        ({"methodName": "n" * 101}, ""),
        ({"methodName": 7}, ""),
        ({"methodName": ["m"]}, ""),
    ],
)
def test_what_is_out_of_its_range_is_refused(members: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentInvalid) as refusal:
        MethodRequest.parse({"methodName": "m", **members})
    assert text in refusal.value.text


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
def test_a_payload_is_measured_in_utf_8(character: str) -> None:
    width = len(character.encode())
    # Two quotes belong to it.
    fits = character * ((limits.METHOD_PAYLOAD_BYTES - 2) // width)
    request = MethodRequest.parse({"methodName": "m", "payload": fits})
    assert len(request.payload) <= limits.METHOD_PAYLOAD_BYTES
    with pytest.raises(MessageTooLarge):
        MethodRequest.parse({"methodName": "m", "payload": fits + character})


# --- calls and answers


async def test_an_answer_reaches_the_caller() -> None:
    calls, link = MethodCalls(), Link()
    async with in_flight(calls.call(link, REQUEST, timeout=30)) as call:
        ((request_id, name, payload),) = link.invoked
        assert (name, payload) == ("reboot", b'{"delay":1.0}')
        calls.complete(KEY, request_id, 200, b'{"a":1}')
        assert await call == MethodResult(200, {"a": 1})


async def test_an_answer_may_come_while_the_call_is_made() -> None:
    class Prompt(Link):
        def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
            calls.complete(KEY, request_id, 1, b"")

    calls = MethodCalls()
    assert await calls.call(Prompt(), REQUEST, timeout=30) == MethodResult(1, None)


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", None),
        (b"null", None),
        (b"[1]", [1]),
        (b"  7 ", 7),
        (b"text", "text"),
        (b" ", " "),
        (b"\xff{", "\ufffd{"),
    ],
)
async def test_what_is_not_json_is_given_as_text(body: bytes, payload: object) -> None:
    calls, link = MethodCalls(), Link()
    async with in_flight(calls.call(link, REQUEST, timeout=30)) as call:
        calls.complete(KEY, link.invoked[0][0], 200, body)
        assert (await call).payload == payload


async def test_an_answer_over_the_limit_fails_the_call() -> None:
    calls, link = MethodCalls(), Link()
    for size in (limits.METHOD_PAYLOAD_BYTES, limits.METHOD_PAYLOAD_BYTES + 1):
        async with in_flight(calls.call(link, REQUEST, timeout=30)) as call:
            calls.complete(KEY, link.invoked[-1][0], 200, b"1" * size)
            if size > limits.METHOD_PAYLOAD_BYTES:
                with pytest.raises(MessageTooLarge):
                    await call
            else:
                assert (await call).status == 200


async def test_only_the_first_answer_with_the_right_id_from_the_right_device_counts() -> None:
    calls, link, other = MethodCalls(), Link(), IdentityKey("other")
    async with in_flight(calls.call(link, REQUEST, timeout=30)) as call:
        request_id = link.invoked[0][0]
        calls.complete(other, request_id, 1, b"")
        calls.complete(IdentityKey("myDevice", "module"), request_id, 2, b"")
        calls.complete(KEY, f"{request_id}0", 3, b"")
        calls.complete(KEY, request_id, 4, b"")
        calls.complete(KEY, request_id, 5, b"")
        assert (await call).status == 4
    calls.complete(KEY, request_id, 6, b"")  # late: nobody is there to be told


async def test_calls_are_told_apart() -> None:
    calls = MethodCalls()
    links = [Link(IdentityKey(name)) for name in "aabbb"]
    tasks = [asyncio.ensure_future(calls.call(link, REQUEST, timeout=30)) for link in links]
    await asyncio.sleep(0)
    request_ids = [link.invoked[0][0] for link in links]
    assert len(set(request_ids)) == len(links)
    for number in reversed(range(len(links))):
        calls.complete(links[number].key, request_ids[number], number, b"")
    assert [result.status for result in await asyncio.gather(*tasks)] == [0, 1, 2, 3, 4]


async def test_a_call_ends_when_its_time_is_over() -> None:
    calls, link = MethodCalls(), Link()
    with pytest.raises(GatewayTimeout) as timeout:
        await calls.call(link, REQUEST, timeout=0.01)
    # The caller is told what it asked for, not what the wait for the device left of it.
    assert timeout.value.info == {"timeout": "00:00:30"}
    calls.complete(KEY, link.invoked[0][0], 200, b"")


async def test_a_device_that_is_gone_fails_its_calls_and_no_others() -> None:
    calls, link, neighbour = MethodCalls(), Link(), Link(IdentityKey("neighbour"))
    async with (
        in_flight(calls.call(link, REQUEST, timeout=30)) as first,
        in_flight(calls.call(link, REQUEST, timeout=30)) as second,
        in_flight(calls.call(neighbour, REQUEST, timeout=30)) as elsewhere,
    ):
        calls.abandon(KEY, DeviceNotOnline("gone"))
        for call in (first, second):
            with pytest.raises(DeviceNotOnline, match="gone"):
                await call
        calls.complete(neighbour.key, neighbour.invoked[0][0], 200, b"")
        assert (await elsewhere).status == 200
    calls.abandon(KEY, DeviceNotOnline())  # there are none left


async def test_a_device_that_came_back_is_called_anew() -> None:
    calls, link = MethodCalls(), Link()
    async with in_flight(calls.call(link, REQUEST, timeout=30)) as before:
        calls.abandon(KEY, DeviceNotOnline())
        # Before the first caller has even heard of it.
        async with in_flight(calls.call(link, REQUEST, timeout=30)) as after:
            with pytest.raises(DeviceNotOnline):
                await before
            calls.complete(KEY, link.invoked[1][0], 200, b"")
            assert (await after).status == 200


async def test_a_device_has_so_many_calls_open_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METHODS_IN_FLIGHT_PER_DEVICE", 2)
    calls, link, neighbour = MethodCalls(), Link(), Link(IdentityKey("neighbour"))
    async with in_flight(calls.call(link, REQUEST, timeout=30)) as first:
        async with in_flight(calls.call(link, REQUEST, timeout=30)):
            with pytest.raises(DeviceMaximumInflightMethodExceeded):
                await calls.call(link, REQUEST, timeout=30)
            assert len(link.invoked) == 2
            async with in_flight(calls.call(neighbour, REQUEST, timeout=30)):
                pass
        # A caller that gave up, or was answered, makes room.
        calls.complete(KEY, link.invoked[0][0], 200, b"")
        await first
    async with in_flight(calls.call(link, REQUEST, timeout=30)):
        pass
