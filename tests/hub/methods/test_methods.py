"""Direct methods in the hub: calls, responses, time-outs, and what ends a call."""

import asyncio
import weakref
from typing import Any

import pytest

from emulator.hub.core import errors, limits
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.methods.methods import MethodCalled, MethodEnded
from emulator.hub.methods.request import MethodResult
from tests.clock import ManualClock, settle
from tests.hub.fakes import ANY, DEVICE, MODULE, FakeLink, connect, put, record_changes

OTHER = IdentityKey("other")
Call = asyncio.Task[MethodResult]


def connected(hub: IotHub, key: IdentityKey = DEVICE, **options: Any) -> FakeLink:
    """Connect an identity, which is created if it is missing."""
    for each in (IdentityKey(key.device_id), key):
        if not hub.identities.has(each):
            put(hub, each)
    link = FakeLink(key, **options)
    connect(hub, link)
    return link


async def call(hub: IotHub, key: IdentityKey = DEVICE, **members: Any) -> Call:
    """Invoke a method, and return when the call waits for the device, or has ended."""
    body = {"methodName": "reboot", "payload": {"delay": 1}, **members}
    task = asyncio.ensure_future(hub.methods.invoke(key, body))
    await settle()
    return task


async def failure(call: Call) -> errors.HubError:
    """Return the error that ends a call within a second."""
    with pytest.raises(errors.HubError) as caught:
        await asyncio.wait_for(call, 1)
    return caught.value


async def status(call: Call) -> int:
    return (await asyncio.wait_for(call, 1)).status


# --- responses


async def test_a_response_reaches_the_caller(hub: IotHub) -> None:
    link = connected(hub)
    changes = record_changes(hub.feed, MethodCalled)
    ended = record_changes(hub.feed, MethodEnded)
    waiting = await call(hub)
    ((request_id, name, payload),) = link.invoked
    assert (name, payload) == ("reboot", {"delay": 1})
    assert [(c.key, c.request_id, c.request.name) for c in changes] == [
        (DEVICE, request_id, "reboot")
    ]
    assert ended == []
    hub.methods.respond(link, request_id, 200, b'{"a":1}')
    result = await waiting
    assert result == MethodResult(200, b'{"a":1}')
    assert ended == [MethodEnded(DEVICE, request_id, "reboot", result)]


async def test_a_response_can_come_before_the_call_waits(hub: IotHub) -> None:
    class PromptLink(FakeLink):
        def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
            hub.methods.respond(self, request_id, 1, b"")

    put(hub, DEVICE)
    connect(hub, PromptLink())
    assert await (await call(hub)) == MethodResult(1, b"null")


async def test_a_response_over_the_limit_fails_the_call(hub: IotHub) -> None:
    link = connected(hub)
    for size, expected in ((0, None), (1, errors.MessageTooLarge)):
        waiting = await call(hub)
        body = b"1" * (limits.METHOD_PAYLOAD_BYTES + size)
        hub.methods.respond(link, link.invoked[-1][0], 200, body)
        if expected is None:
            assert await status(waiting) == 200
        else:
            assert type(await failure(waiting)) is expected


async def test_a_response_that_is_not_json_fails_the_call(hub: IotHub) -> None:
    link = connected(hub)
    for body in (b"fine <thanks", b"{", b"\xff"):
        waiting = await call(hub)
        hub.methods.respond(link, link.invoked[-1][0], 200, body)
        assert type(await failure(waiting)) is errors.InvalidResponseWhileProxying


async def test_request_ids_count_from_1_on_each_connection(hub: IotHub) -> None:
    link = connected(hub)
    for number in range(1, 28):
        waiting = await call(hub)
        hub.methods.respond(link, link.invoked[-1][0], 200, b"")
        assert (link.invoked[-1][0], await status(waiting)) == (f"{number:x}", 200)
    for again in (connected(hub), connected(hub, MODULE), connected(hub, OTHER)):
        waiting = await call(hub, again.key)
        assert again.invoked[0][0] == "1"
        hub.methods.respond(link, "1", 500, b"")  # of the connection that ended
        hub.methods.respond(again, "1", 200, b"")
        assert await status(waiting) == 200


async def test_only_the_first_response_with_the_right_id_and_device_counts(hub: IotHub) -> None:
    link, module, other = (connected(hub, key) for key in (DEVICE, MODULE, OTHER))
    waiting = await call(hub)
    request_id = link.invoked[0][0]
    hub.methods.respond(other, request_id, 1, b"")
    hub.methods.respond(module, request_id, 2, b"")
    hub.methods.respond(link, f"{request_id}0", 3, b"")
    hub.methods.respond(link, request_id, 4, b"")
    hub.methods.respond(link, request_id, 5, b"")
    assert await status(waiting) == 4
    hub.methods.respond(link, request_id, 6, b"")  # late: no caller waits


async def test_each_response_reaches_its_own_call(hub: IotHub) -> None:
    links = [connected(hub, IdentityKey(device_id)) for device_id in "ab"]
    calls = [(link, await call(hub, link.key)) for link in links for _ in range(3)]
    requests = [(link, each[0]) for link in links for each in link.invoked]
    assert [request_id for _, request_id in requests] == ["1", "2", "3"] * 2
    for number, (link, request_id) in reversed([*enumerate(requests)]):
        hub.methods.respond(link, request_id, number, b"")
    assert [await status(waiting) for _, waiting in calls] == [0, 1, 2, 3, 4, 5]


# --- time-outs


async def test_a_call_ends_when_its_time_is_over(hub: IotHub, clock: ManualClock) -> None:
    link = connected(hub)
    ended = record_changes(hub.feed, MethodEnded)
    waiting = await call(hub, responseTimeoutInSeconds=7)
    await clock.pass_time(6.9)
    assert not waiting.done()
    await clock.pass_time(0.1)
    error = await failure(waiting)
    assert (type(error), error.info) == (errors.GatewayTimeout, {"timeout": "00:00:07"})
    assert [change.outcome for change in ended] == [error]
    hub.methods.respond(link, link.invoked[0][0], 200, b"")  # late


@pytest.mark.parametrize("connected_before", [False, True], ids=["offline", "not subscribed"])
async def test_without_a_connect_time_out_a_call_does_not_wait(
    hub: IotHub, connected_before: bool
) -> None:
    put(hub, DEVICE)
    if connected_before:
        connected(hub, accepts_methods=False)
    error = await failure(await call(hub))
    assert (type(error), error.info) == (errors.DeviceNotOnline, None)


async def test_a_call_waits_for_a_device_until_its_connect_time_out(
    hub: IotHub, clock: ManualClock
) -> None:
    put(hub, DEVICE)
    waiting = await call(hub, connectTimeoutInSeconds=10)
    connected(hub, accepts_methods=False)
    await clock.pass_time(9.9)
    assert not waiting.done()
    await clock.pass_time(0.1)
    error = await failure(waiting)
    assert (type(error), error.info) == (errors.DeviceNotOnline, {"timeout": "00:00:10"})


async def test_the_wait_for_a_device_is_a_part_of_the_response_time_out(
    hub: IotHub, clock: ManualClock
) -> None:
    link = connected(hub, accepts_methods=False)
    waiting = await call(hub, connectTimeoutInSeconds=10, responseTimeoutInSeconds=12)
    await clock.pass_time(9)
    link.accepts_methods = True
    hub.links.subscribed(link)
    await settle()
    assert len(link.invoked) == 1
    await clock.pass_time(2.9)
    assert not waiting.done()
    await clock.pass_time(0.1)
    # The text has the whole time-out, not what the wait for the device left.
    assert (await failure(waiting)).info == {"timeout": "00:00:12"}


# --- what ends a call


async def test_only_a_registered_and_enabled_device_is_called(hub: IotHub) -> None:
    connected(hub, MODULE)
    assert type(await failure(await call(hub, OTHER))) is errors.DeviceNotFound
    assert type(await failure(await call(hub, IdentityKey("d", "x")))) is errors.ModuleNotFound
    put(hub, DEVICE, ANY, status="disabled")
    for key in (DEVICE, MODULE):
        assert type(await failure(await call(hub, key))) is errors.DeviceNotFound


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (None, errors.DeviceNotOnline),
        (errors.IotHubUnauthorized(), errors.DeviceNotOnline),
        (
            errors.ConnectionForcefullyClosedOnNewConnection(),
            errors.ConnectionForcefullyClosedOnNewConnection,
        ),
        (errors.ServiceUnavailable(), errors.ServiceUnavailable),
    ],
)
async def test_the_end_of_a_connection_fails_its_calls_and_no_others(
    hub: IotHub, reason: errors.HubError | None, expected: type[errors.HubError]
) -> None:
    link, other = connected(hub), connected(hub, OTHER)
    first, second, elsewhere = await call(hub), await call(hub), await call(hub, OTHER)
    if reason is None:
        hub.links.disconnect(link)
    else:
        hub.links.drop(DEVICE, reason)
    for waiting in (first, second):
        assert type(await failure(waiting)) is expected
    hub.methods.respond(other, other.invoked[0][0], 200, b"")
    assert await status(elsewhere) == 200


async def test_a_device_that_connects_again_receives_new_calls(hub: IotHub) -> None:
    connected(hub)
    before = await call(hub)
    link = connected(hub)  # the first caller does not run before the second call
    after = asyncio.ensure_future(hub.methods.invoke(DEVICE, {"methodName": "reboot"}))
    assert type(await failure(before)) is errors.ConnectionForcefullyClosedOnNewConnection
    hub.methods.respond(link, link.invoked[0][0], 200, b"")
    assert await status(after) == 200


async def test_a_device_has_a_bounded_number_of_open_calls(
    hub: IotHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "METHODS_IN_FLIGHT_PER_DEVICE", 2)
    link = connected(hub)
    connected(hub, OTHER)
    ended = record_changes(hub.feed, MethodEnded)
    first, second = await call(hub), await call(hub)
    assert type(await failure(await call(hub))) is errors.DeviceMaximumInflightMethodExceeded
    assert len(link.invoked) == 2
    elsewhere = await call(hub, OTHER)
    assert not elsewhere.done()
    # A response, or a caller that leaves, makes room.
    hub.methods.respond(link, link.invoked[0][0], 200, b"")
    await first
    third = await call(hub)
    second.cancel()
    await settle()
    assert ended[-1].outcome is None
    fourth = await call(hub)
    assert len(link.invoked) == 4
    for waiting in (third, fourth, elsewhere):
        assert not waiting.done()
        waiting.cancel()


# --- memory


async def test_calls_in_flight_have_bounded_memory(
    hub: IotHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Room for two calls with 1,000 bytes each, on any device.
    size = limits.METHOD_CALL_BYTES + 1_000
    monkeypatch.setattr(limits, "METHODS_IN_FLIGHT_BYTES", 2 * size)
    link = connected(hub)
    put(hub, OTHER)
    payload = "x" * 998
    first = await call(hub, payload=payload)
    # A call that waits for its device counts as well.
    offline = await call(hub, OTHER, payload=payload, connectTimeoutInSeconds=20)
    refused = await failure(await call(hub, payload=None))
    assert type(refused) is errors.DeviceMaximumInflightMethodExceeded
    assert len(link.invoked) == 1
    # A response makes room, and so does a caller that leaves, or an error.
    hub.methods.respond(link, link.invoked[0][0], 200, b"")
    assert await status(first) == 200
    offline.cancel()
    await settle()
    for _ in range(3):
        assert type(await failure(await call(hub, OTHER))) is errors.DeviceNotOnline
    for _ in range(2):
        assert not (await call(hub, payload=payload)).done()
    assert (await call(hub, payload="")).done()


async def test_a_call_that_waits_does_not_hold_its_body(hub: IotHub) -> None:
    class Body(dict[str, Any]):
        """A dictionary that a weak reference can observe."""

    body = Body(methodName="reboot", payload=[[]] * 1_000)
    observer = weakref.ref(body)
    connected(hub)
    task = asyncio.ensure_future(hub.methods.invoke(DEVICE, body))
    del body
    await settle()
    assert not task.done()
    assert observer() is None
    task.cancel()
