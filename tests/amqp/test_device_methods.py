"""Direct methods to devices and modules."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from emulator.amqp.performatives import ACCEPTED, Rejected
from emulator.amqp.types import Int, UInt
from emulator.hub.core.errors import DeviceNotOnline
from tests.amqp.devices import MethodPair, connect, telemetry
from tests.amqp.lab import Lab
from tests.clock import settle


@pytest.mark.parametrize("form", [UUID, str], ids=["uuid", "text"])
@pytest.mark.parametrize("status", [Int(200), UInt(200)])
async def test_a_method_and_its_response(lab: Lab, form: Any, status: Any) -> None:
    pair = MethodPair(connect(lab))
    call = await lab.invoked("d1", "reboot", {"delay": 5})
    name, payload, correlation_id = pair.take()
    assert (name, payload) == ("reboot", b'{"delay":5}')
    assert pair.respond(form(str(correlation_id)), status, b'{"ok": true}') == ACCEPTED
    result = await call
    assert (result.status, result.payload) == (200, b'{"ok": true}')


async def test_calls_have_ids_of_their_own(lab: Lab) -> None:
    pair = MethodPair(connect(lab))
    calls = [await lab.invoked("d1", name) for name in ("a", "b")]
    ids = [pair.take()[2] for _ in calls]
    assert ids[0] != ids[1]
    for number, correlation_id in reversed([*enumerate(ids)]):
        pair.respond(correlation_id, Int(number))
    assert [(await call).status for call in calls] == [0, 1]


async def test_a_payload_of_null_is_empty(lab: Lab) -> None:
    pair = MethodPair(connect(lab))
    call = await lab.invoked("d1", "x")
    assert pair.take()[1] == b""
    call.cancel()


async def test_a_request_waits_for_credit(lab: Lab) -> None:
    pair = MethodPair(connect(lab), credit=0)
    call = await lab.invoked("d1", "x")
    pair.requests.client.expect_nothing()
    pair.requests.grant(1)
    assert pair.take()[0] == "x"
    call.cancel()


@pytest.mark.parametrize("correlation_id", [None, "text", uuid4(), UUID(int=0)])
async def test_an_unknown_response_is_ignored(lab: Lab, correlation_id: Any) -> None:
    pair = MethodPair(connect(lab))
    call = await lab.invoked("d1", "x")
    pair.take()
    assert pair.respond(correlation_id, Int(200)) == ACCEPTED
    await settle()
    assert not call.done()
    call.cancel()


@pytest.mark.parametrize("status", ["200", None, True, 2**31])
async def test_a_response_without_a_status_is_rejected(lab: Lab, status: Any) -> None:
    pair = MethodPair(connect(lab))
    call = await lab.invoked("d1", "x")
    correlation_id = pair.take()[2]
    outcome = pair.respond(correlation_id, status)
    assert isinstance(outcome, Rejected)
    assert outcome.error is not None
    assert outcome.error.condition == "com.microsoft:argument-error"
    pair.respond(correlation_id, Int(0))
    assert (await call).status == 0


async def test_a_device_is_online_for_methods_with_both_links(lab: Lab) -> None:
    client = connect(lab)
    telemetry(client)
    with pytest.raises(DeviceNotOnline):
        await lab.invoke("d1", "x")
    waiting = lab.invoke("d1", "x", connectTimeoutInSeconds=10)
    await settle()
    client.receiver("/devices/d1/methods/devicebound", credit=1)
    await settle()
    with pytest.raises(DeviceNotOnline):
        await lab.invoke("d1", "x")
    client.sender("/devices/d1/methods/deviceBound")
    await settle()
    assert client.take()[1] is not None
    client.expect_nothing()
    waiting.cancel()


async def test_calls_fail_when_the_device_disconnects(lab: Lab) -> None:
    client = connect(lab)
    pair = MethodPair(client)
    call = await lab.invoked("d1", "x")
    pair.take()
    client.connection.lost()
    with pytest.raises(DeviceNotOnline):
        await call


async def test_a_module_has_methods_of_its_own(lab: Lab) -> None:
    client = connect(lab)
    from tests.amqp.lab import device_token

    client.put_token(device_token(lab, "d1/camera", "Q" * 43 + "="))
    camera, device = MethodPair(client, "d1/camera"), MethodPair(client)
    call = await lab.invoked("d1/camera", "x")
    _, _, correlation_id = camera.take()
    client.expect_nothing()
    device.respond(correlation_id, Int(1))  # another identity's id
    await settle()
    assert not call.done()
    camera.respond(correlation_id, Int(2))
    assert (await call).status == 2
