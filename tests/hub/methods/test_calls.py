"""The latest calls of direct methods."""

import asyncio
import contextlib

import pytest

from emulator.hub.core import errors, limits
from emulator.hub.hub import IotHub
from emulator.testing import MethodAnswer, MethodCall
from tests.clock import ManualClock, settle
from tests.hub.fakes import DEVICE, MODULE, FakeLink, connect, put


async def invoke(hub: IotHub, link: FakeLink, name: str = "reboot", payload: object = None) -> None:
    """Invoke a method; the device answers with 200 and the payload."""
    call = asyncio.ensure_future(
        hub.methods.invoke(link.key, {"methodName": name, "payload": payload})
    )
    await settle()
    hub.methods.respond(link, link.invoked[-1][0], 200, b'{"a": 1.0}')
    await asyncio.wait_for(call, 1)


@pytest.fixture
def link(hub: IotHub) -> FakeLink:
    put(hub, DEVICE)
    return connect(hub, FakeLink())


def documents(hub: IotHub) -> list[dict[str, object]]:
    return [each.document() for each in hub.method_calls.list()]


async def test_a_call_is_listed_with_its_answer(hub: IotHub, link: FakeLink) -> None:
    await invoke(hub, link, payload={"delay": 1})
    (call,) = hub.method_calls.list()
    assert call.result
    assert (call.request.payload, call.result.payload) == (b'{"delay":1}', b'{"a": 1.0}')
    document = call.document()
    assert list(document) == [
        *("deviceId", "moduleId", "methodName", "payload", "calledTime"),
        *("status", "answer", "error"),
    ]
    assert (document["deviceId"], document["methodName"]) == ("d", "reboot")
    assert (document["status"], document["error"]) == (200, None)


async def test_an_open_call_has_no_outcome(hub: IotHub, link: FakeLink) -> None:
    call = asyncio.ensure_future(hub.methods.invoke(DEVICE, {"methodName": "reboot"}))
    await settle()
    (document,) = documents(hub)
    assert (document["payload"], document["status"], document["error"]) == (None, None, None)
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    (document,) = documents(hub)
    assert document["error"] == "The caller left before the answer."


async def test_a_call_that_fails_has_its_error(
    hub: IotHub, link: FakeLink, clock: ManualClock
) -> None:
    call = asyncio.ensure_future(hub.methods.invoke(DEVICE, {"methodName": "reboot"}))
    await settle()
    clock.advance(31)
    with pytest.raises(errors.GatewayTimeout):
        await asyncio.wait_for(call, 1)
    (document,) = documents(hub)
    assert str(document["error"]).startswith("GatewayTimeout: ")


@pytest.mark.parametrize("answer", [b"[" * 5000 + b"]" * 5000, b"{'a': 1}"])
async def test_an_answer_that_few_readers_parse_is_a_text(
    hub: IotHub, link: FakeLink, answer: bytes
) -> None:
    call = asyncio.ensure_future(hub.methods.invoke(DEVICE, {"methodName": "reboot"}))
    await settle()
    hub.methods.respond(link, link.invoked[-1][0], 200, answer)
    await asyncio.wait_for(call, 1)
    (document,) = documents(hub)
    assert document["answer"] == answer.decode()
    assert MethodCall.of(hub.method_calls.list()[0]).answer == MethodAnswer(200, answer.decode())


async def test_calls_of_two_connections_are_kept_apart(hub: IotHub, link: FakeLink) -> None:
    put(hub, MODULE)
    module = connect(hub, FakeLink(MODULE))
    await invoke(hub, link, "one")
    await invoke(hub, module, "two")
    await invoke(hub, connect(hub, FakeLink()), "three")
    found = [(each["moduleId"], each["methodName"]) for each in documents(hub)]
    assert found == [(None, "one"), ("m", "two"), (None, "three")]


async def test_the_calls_are_bounded(
    hub: IotHub, link: FakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "METHOD_CALLS_KEPT", 3)
    for number in range(5):
        await invoke(hub, link, f"method-{number}")
    assert [each.request.name for each in hub.method_calls.list()] == [
        *("method-2", "method-3", "method-4"),
    ]
    monkeypatch.setattr(limits, "METHOD_CALLS_BYTES", 3 * limits.METHOD_CALL_BYTES)
    await invoke(hub, link, "large", payload="x" * 2 * limits.METHOD_CALL_BYTES)
    assert [each.request.name for each in hub.method_calls.list()] == []
    await invoke(hub, link, "small")
    assert [each.request.name for each in hub.method_calls.list()] == ["small"]
