"""azure-iot-device's synchronous client, against a hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from azure.iot.device import IoTHubDeviceClient, Message, MethodRequest, MethodResponse
from azure.iot.device.exceptions import ClientError, CredentialError

from tests.sdk.support import desired_patches, iothub_real, uses_deprecated_calls
from tests.support import PATIENCE, Device, wait_until

if TYPE_CHECKING:
    from tests.sdk.conftest import BackEnd

pytestmark = iothub_real

MakeClient = Callable[..., IoTHubDeviceClient]


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """Runs the calls of a service while the test acts as the device."""
    with ThreadPoolExecutor() as executor:
        yield executor


# --- direct methods


@uses_deprecated_calls
@pytest.mark.parametrize("payload", [{"a": [1, None]}, "{}", 42, [], None])
def test_a_method_is_received_and_answered(
    client: IoTHubDeviceClient, back_end: BackEnd, background: ThreadPoolExecutor, payload: object
) -> None:
    # By this call the device is subscribed.
    assert client.receive_method_request("reboot", block=False) is None
    call = background.submit(back_end.invoke, "reboot", {"take": 1})
    request = client.receive_method_request("reboot", timeout=PATIENCE)
    assert (request.name, request.payload) == ("reboot", {"take": 1})
    client.send_method_response(MethodResponse.create_from_method_request(request, 418, payload))
    assert call.result(PATIENCE) == (418, payload)


def test_a_method_reaches_the_handler(client: IoTHubDeviceClient, back_end: BackEnd) -> None:
    def answer(request: MethodRequest) -> None:
        payload = {"name": request.name, "payload": request.payload}
        client.send_method_response(MethodResponse(request.request_id, 200, payload))

    client.on_method_request_received = answer
    # The service's SDK sends the string as JSON, and so the device gets a string.
    echo = {"name": "Größe", "payload": '{"method_number":"42"}'}
    assert back_end.invoke("Größe", '{"method_number":"42"}') == (200, echo)


@uses_deprecated_calls
def test_each_open_method_receives_its_own_answer(
    client: IoTHubDeviceClient, back_end: BackEnd, background: ThreadPoolExecutor
) -> None:
    assert client.receive_method_request(block=False) is None
    calls = [background.submit(back_end.invoke, f"method{n}", n) for n in range(4)]
    requests = [client.receive_method_request(timeout=PATIENCE) for _ in calls]
    for request in reversed(requests):
        answer = {"echo": request.payload}
        client.send_method_response(MethodResponse(request.request_id, 200, answer))
    assert [call.result(PATIENCE) for call in calls] == [(200, {"echo": n}) for n in range(4)]


# --- twins


def test_the_device_reads_the_properties_that_both_sides_set(
    client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    back_end.desire({"interval": 30})
    client.patch_twin_reported_properties({"firmware": {"version": "1.0"}})
    assert client.get_twin() == {
        "desired": {"interval": 30, "$version": 2},
        "reported": {"firmware": {"version": "1.0"}, "$version": 2},
    }


def test_a_reported_patch_merges_and_none_deletes(
    client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    client.patch_twin_reported_properties({"kept": 1, "deleted": 2, "inner": {"kept": "é"}})
    client.patch_twin_reported_properties({"deleted": None, "inner": {"added": [1, 2.5]}})
    assert back_end.reported() == {"kept": 1, "inner": {"kept": "é", "added": [1, 2.5]}}


def test_a_reported_patch_that_the_hub_refuses_is_an_error_and_changes_nothing(
    client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    with pytest.raises(ClientError):
        client.patch_twin_reported_properties({"good": 1, "a.b": 2})
    assert back_end.reported() == {}


def test_a_desired_patch_reaches_the_handler(client: IoTHubDeviceClient, back_end: BackEnd) -> None:
    patches = desired_patches(client)
    back_end.desire({"interval": 30, "unit": {"name": "s"}})
    assert patches.get(timeout=PATIENCE) == {"interval": 30, "unit": {"name": "s"}, "$version": 2}
    back_end.desire({"unit": None})
    assert patches.get(timeout=PATIENCE) == {"unit": None, "$version": 3}


@uses_deprecated_calls
def test_a_desired_patch_is_received(client: IoTHubDeviceClient, back_end: BackEnd) -> None:
    assert client.receive_twin_desired_properties_patch(block=False) is None
    back_end.desire({"interval": 30})
    patch = client.receive_twin_desired_properties_patch(timeout=PATIENCE)
    assert patch == {"interval": 30, "$version": 2}


def test_the_device_receives_a_desired_patch_of_its_absence(
    client: IoTHubDeviceClient, back_end: BackEnd
) -> None:
    patches = desired_patches(client)
    assert client.get_twin()["desired"] == {"$version": 1}
    client.disconnect()
    back_end.desire({"interval": 30})
    back_end.desire({"interval": 60})
    client.connect()
    # The SDK reads the twin by itself, and makes a patch of it. It is subscribed to the answer only
    # if the program read the twin before.
    assert patches.get(timeout=PATIENCE) == {"interval": 60, "$version": 3}


# --- telemetry


def test_sending_a_message_completes(client: IoTHubDeviceClient) -> None:
    message = Message('{"temperature": 21.5}', content_encoding="utf-8")
    message.custom_properties["alert"] = "no & never"
    client.send_message(message)
    client.send_message("x" * 200_000)


# --- connections


def test_a_wrong_key_is_a_credential_error(device: Device, make_client: MakeClient) -> None:
    other_key = "A" * 43 + "="
    client = make_client(device.connection_string.replace(device.key, other_key))
    with pytest.raises(CredentialError):
        client.connect()


def test_an_unknown_device_is_a_credential_error(device: Device, make_client: MakeClient) -> None:
    client = make_client(device.connection_string.replace(device.id, f"{device.id}-unknown"))
    with pytest.raises(CredentialError):
        client.connect()


def test_a_device_that_is_disabled_loses_its_connection_until_it_is_enabled_again(
    make_client: MakeClient, back_end: BackEnd
) -> None:
    from tests.sdk.service_sdk import refused

    client = make_client(connection_retry=False)
    client.connect()
    back_end.set_status("disabled")
    wait_until(lambda: not client.connected)
    with pytest.raises(CredentialError):
        client.connect()
    with refused(404, "DeviceNotFound"):
        back_end.invoke("reboot", None)
    back_end.set_status("enabled")
    client.connect()
    assert client.connected


def test_a_device_that_is_deleted_loses_its_connection(
    make_client: MakeClient, back_end: BackEnd
) -> None:
    client = make_client(connection_retry=False)
    client.connect()
    back_end.delete_device()
    wait_until(lambda: not client.connected)
    with pytest.raises(CredentialError):
        client.connect()


def test_a_connection_that_the_hub_closed_is_restored_with_its_subscriptions(
    client: IoTHubDeviceClient, make_client: MakeClient, back_end: BackEnd
) -> None:
    patches = desired_patches(client)
    client.on_method_request_received = lambda request: client.send_method_response(
        MethodResponse(request.request_id, 200, "still here")
    )
    # The hub accepts one connection of an identity, so a second one replaces the first.
    second = make_client(connection_retry=False)
    second.connect()
    wait_until(lambda: client.connected and not second.connected)
    assert back_end.invoke("are you there", None) == (200, "still here")
    back_end.desire({"interval": 30})
    assert patches.get(timeout=PATIENCE)["interval"] == 30
