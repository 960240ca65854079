"""azure-iot-device's asyncio client, against a hub."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from azure.iot.device import Message, MethodRequest, MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.device.exceptions import ClientError, CredentialError

from tests.sdk.support import iothub_real, uses_deprecated_calls
from tests.support import PATIENCE, Device, wait_until

if TYPE_CHECKING:
    from tests.sdk.conftest import BackEnd

pytestmark = iothub_real

MakeClient = Callable[..., IoTHubDeviceClient]


# --- direct methods


@uses_deprecated_calls
async def test_a_method_is_received_and_answered(
    aio_client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    # Of any name: the SDK makes the inbox of a name only after it has subscribed, and a request
    # that comes between the two goes elsewhere.
    receiving = asyncio.ensure_future(aio_client.receive_method_request())
    # The SDK subscribes in that call, so the service waits for a device that listens.
    time_outs = {"connect_timeout_in_seconds": 20, "response_timeout_in_seconds": 30}
    call = asyncio.ensure_future(
        asyncio.to_thread(back_end.invoke, "reboot", {"take": 1}, **time_outs)
    )
    request = await asyncio.wait_for(receiving, PATIENCE)
    assert (request.name, request.payload) == ("reboot", {"take": 1})
    await aio_client.send_method_response(
        MethodResponse.create_from_method_request(request, 418, ["done"])
    )
    assert await call == (418, ["done"])


async def test_each_open_method_receives_its_own_answer(
    aio_client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    arrived = []

    async def answer_after_the_last(request: MethodRequest) -> None:
        arrived.append(request)
        await asyncio.to_thread(wait_until, lambda: len(arrived) == 4)
        payload = {"name": request.name, "echo": request.payload}
        await aio_client.send_method_response(MethodResponse(request.request_id, 200, payload))

    aio_client.on_method_request_received = answer_after_the_last
    calls = [asyncio.to_thread(back_end.invoke, f"method{n}", n) for n in range(4)]
    assert await asyncio.gather(*calls) == [
        (200, {"name": f"method{n}", "echo": n}) for n in range(4)
    ]


# --- twins


async def test_the_device_reads_the_properties_that_both_sides_set(
    aio_client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    await asyncio.to_thread(back_end.desire, {"interval": 30})
    await aio_client.patch_twin_reported_properties({"firmware": {"version": "1.0"}})
    assert await aio_client.get_twin() == {
        "desired": {"interval": 30, "$version": 2},
        "reported": {"firmware": {"version": "1.0"}, "$version": 2},
    }
    assert await asyncio.to_thread(back_end.reported) == {"firmware": {"version": "1.0"}}


async def test_a_reported_patch_that_the_hub_refuses_is_an_error(
    aio_client: IoTHubDeviceClient,
) -> None:
    with pytest.raises(ClientError):
        await aio_client.patch_twin_reported_properties({"a.b": 2})


async def test_a_desired_patch_reaches_the_handler(
    aio_client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    # The SDK runs handlers in an event loop of its own, in another thread.
    patches: queue.Queue[dict[str, object]] = queue.Queue()

    async def keep(patch: dict[str, object]) -> None:
        patches.put(patch)

    aio_client.on_twin_desired_properties_patch_received = keep
    await asyncio.to_thread(back_end.desire, {"interval": 30})
    patch = await asyncio.to_thread(patches.get, timeout=PATIENCE)
    assert patch == {"interval": 30, "$version": 2}


@uses_deprecated_calls
async def test_a_desired_patch_is_received(
    aio_client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    receiving = asyncio.ensure_future(aio_client.receive_twin_desired_properties_patch())
    # The SDK subscribes in that call, and gives no sign of it: so the service repeats the patch.
    for interval in range(100):
        version = await asyncio.to_thread(back_end.desire, {"interval": interval})
        if receiving.done():
            break
    patch = await asyncio.wait_for(receiving, PATIENCE)
    assert patch == {"interval": patch["$version"] - 2, "$version": patch["$version"]}
    assert patch["$version"] <= version


# --- telemetry


async def test_sending_a_message_completes(aio_client: IoTHubDeviceClient) -> None:
    messages = [Message(f'{{"temperature": {n}}}') for n in range(20)]
    await asyncio.wait_for(asyncio.gather(*map(aio_client.send_message, messages)), PATIENCE)


# --- connections


async def test_a_wrong_key_is_a_credential_error(
    device: Device, make_aio_client: MakeClient
) -> None:
    other_key = "A" * 43 + "="
    client = make_aio_client(device.connection_string.replace(device.key, other_key))
    with pytest.raises(CredentialError):
        await client.connect()


async def test_a_device_that_is_disabled_loses_its_connection_until_it_is_enabled_again(
    make_aio_client: MakeClient, back_end: BackEnd
) -> None:
    client = make_aio_client(connection_retry=False)
    await client.connect()
    await asyncio.to_thread(back_end.set_status, "disabled")
    await asyncio.to_thread(wait_until, lambda: not client.connected)
    with pytest.raises(CredentialError):
        await client.connect()
    await asyncio.to_thread(back_end.set_status, "enabled")
    await client.connect()
    assert client.connected


async def test_a_connection_that_the_hub_closed_is_restored_with_its_subscriptions(
    aio_client: IoTHubDeviceClient, make_aio_client: MakeClient, back_end: BackEnd
) -> None:
    async def answer(request: MethodRequest) -> None:
        response = MethodResponse(request.request_id, 200, "still here")
        await aio_client.send_method_response(response)

    aio_client.on_method_request_received = answer
    # The hub accepts one connection of an identity, so a second one replaces the first.
    second = make_aio_client(connection_retry=False)
    await second.connect()
    await asyncio.to_thread(wait_until, lambda: aio_client.connected and not second.connected)
    call = asyncio.to_thread(back_end.invoke, "are you there", None)
    assert await call == (200, "still here")
