"""azure-iot-hub's DigitalTwinClient, with azure-iot-device as the IoT Plug and Play device."""

import queue
from collections.abc import Callable
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodRequest, MethodResponse

from emulator import Emulator
from tests.sdk.service_sdk import refused, sdk
from tests.sdk.support import desired_patches, iothub_real
from tests.support import PATIENCE, Device, own

pytestmark = iothub_real
MODEL = "dtmi:com:example:TemperatureController;1"


@pytest.fixture
def twins(hub: Emulator) -> Any:
    """A DigitalTwinClient with every right."""
    return sdk.DigitalTwinClient.from_connection_string(hub.service_connection_string)


@pytest.fixture
def controller(make_client: Callable[..., IoTHubDeviceClient]) -> IoTHubDeviceClient:
    """A connected device that names its model."""
    client = make_client(product_info=MODEL)
    client.connect()
    return client


def etag_of(twins: Any, device: Device) -> str:
    """Read the etag, which the client returns in its raw answers alone."""
    response = twins.protocol.digital_twin.get_digital_twin(device.id, raw=True)
    return str(response.headers["ETag"])


def add(path: str, value: object) -> dict[str, object]:
    return {"op": "add", "path": path, "value": value}


# --- properties


def test_a_device_without_a_model_has_a_digital_twin(twins: Any, device: Device) -> None:
    assert twins.get_digital_twin(device.id) == {"$dtId": device.id, "$metadata": {"$model": ""}}


def test_a_digital_twin_shows_the_reported_properties(
    twins: Any, device: Device, controller: IoTHubDeviceClient
) -> None:
    component = {"__t": "c", "maxTempSinceLastReboot": 25.3}
    report = {"serialNumber": "alwinexlepaho8329", "thermostat1": component}
    controller.patch_twin_reported_properties(report)
    twin = twins.get_digital_twin(device.id)
    assert twin["$dtId"] == device.id
    assert twin["$metadata"]["$model"] == MODEL
    assert twin["serialNumber"] == "alwinexlepaho8329"
    assert list(twin["$metadata"]["serialNumber"]) == ["lastUpdateTime"]
    thermostat = twin["thermostat1"]
    assert thermostat["maxTempSinceLastReboot"] == 25.3
    assert list(thermostat["$metadata"]["maxTempSinceLastReboot"]) == ["lastUpdateTime"]


def test_the_device_receives_a_desired_value_and_acknowledges_it(
    twins: Any, device: Device, controller: IoTHubDeviceClient
) -> None:
    patches = desired_patches(controller)
    controller.get_twin()  # by its answer the device is subscribed
    update = add("/thermostat1/targetTemperature", 21.8)
    assert twins.update_digital_twin(device.id, [update]) is None
    assert twins.get_digital_twin(device.id)["thermostat1"] == {
        "$metadata": {"targetTemperature": {"desiredValue": 21.8, "desiredVersion": 2}}
    }

    patch = patches.get(timeout=PATIENCE)
    assert patch == {"thermostat1": {"__t": "c", "targetTemperature": 21.8}, "$version": 2}
    acknowledged = {"value": 21.8, "ac": 200, "av": 2, "ad": "Successfully executed patch"}
    controller.patch_twin_reported_properties(
        {"thermostat1": {"__t": "c", "targetTemperature": acknowledged}}
    )
    thermostat = twins.get_digital_twin(device.id)["thermostat1"]
    assert thermostat["targetTemperature"] == 21.8
    metadata = thermostat["$metadata"]["targetTemperature"]
    assert metadata.pop("lastUpdateTime")
    assert metadata == {
        "desiredValue": 21.8,
        "desiredVersion": 2,
        "ackVersion": 2,
        "ackCode": 200,
        "ackDescription": "Successfully executed patch",
    }


def test_components_are_added_replaced_and_removed(
    twins: Any, device: Device, registry: Any
) -> None:
    def desired() -> dict[str, Any]:
        return own(registry.get_twin(device.id).properties.desired)

    component = {"target": 21, "$metadata": {}}
    twins.update_digital_twin(device.id, [add("/fan", 1), add("/thermostat1", component)])
    assert desired() == {"fan": 1, "thermostat1": {"__t": "c", "target": 21}}
    replacement = add("/thermostat1", {"other": 42, "$metadata": {}}) | {"op": "replace"}
    twins.update_digital_twin(device.id, [replacement, {"op": "remove", "path": "/fan"}])
    assert desired() == {"thermostat1": {"__t": "c", "other": 42}}
    twins.update_digital_twin(device.id, [{"op": "remove", "path": "/thermostat1"}])
    assert desired() == {}


def test_an_update_may_have_a_condition_and_answers_with_the_etag(
    twins: Any, device: Device
) -> None:
    first, update = etag_of(twins, device), [add("/fan", 1)]
    twins.update_digital_twin(device.id, update, etag=first)
    assert etag_of(twins, device) != first
    with refused(412, "PreconditionFailed"):
        twins.update_digital_twin(device.id, update, etag=first)
    twins.update_digital_twin(device.id, update, etag="*")
    answer = twins.protocol.digital_twin.update_digital_twin(device.id, update, raw=True)
    assert answer.headers["ETag"] == etag_of(twins, device)
    assert answer.headers["Location"].endswith(f"/digitaltwins/{device.id}")


def test_an_invalid_update_is_refused(twins: Any, device: Device) -> None:
    with refused(400, "InvalidDigitalTwinPatch"):  # a path begins with a slash
        twins.update_digital_twin(device.id, [add("fan", 1)])
    with refused(404, "DeviceNotFound"):
        twins.update_digital_twin("unknown", [add("/fan", 1)])
    with refused(404, "DeviceNotFound"):
        twins.get_digital_twin("unknown")


# --- commands


def answer_methods(
    client: IoTHubDeviceClient, status: int = 200, payload: object = None
) -> queue.Queue[MethodRequest]:
    """Make a device answer every command; return the queue of the commands."""
    requests: queue.Queue[MethodRequest] = queue.Queue()

    def answer(request: MethodRequest) -> None:
        requests.put(request)
        client.send_method_response(
            MethodResponse.create_from_method_request(request, status, payload)
        )

    client.on_method_request_received = answer
    client.get_twin()  # by its answer the device is subscribed
    return requests


@pytest.mark.parametrize(
    "payload", [{"delay": 5}, "2026-01-31T14:46:08Z", 0, [1, {"a": None}]], ids=repr
)
def test_a_command_of_the_root_is_answered(
    twins: Any, device: Device, controller: IoTHubDeviceClient, payload: object
) -> None:
    requests = answer_methods(controller, 202, {"done": payload})
    assert twins.invoke_command(device.id, "reboot", payload) == {"done": payload}
    request = requests.get(timeout=PATIENCE)
    assert (request.name, request.payload) == ("reboot", payload)


def test_a_command_of_a_component_is_answered(
    twins: Any, device: Device, controller: IoTHubDeviceClient
) -> None:
    report = {"maxTemp": 25.3, "minTemp": 20}
    requests = answer_methods(controller, 200, report)
    since = "2026-01-31T14:46:08Z"
    time_outs = {"connect_timeout_in_seconds": 10, "response_timeout_in_seconds": 60}
    answer = twins.invoke_component_command(
        device.id, "thermostat1", "getMaxMinReport", since, **time_outs
    )
    assert answer == report
    request = requests.get(timeout=PATIENCE)
    assert (request.name, request.payload) == ("thermostat1*getMaxMinReport", since)


def test_the_status_of_a_command_is_in_a_header(
    twins: Any, device: Device, controller: IoTHubDeviceClient
) -> None:
    answer_methods(controller, 404)
    answer = twins.protocol.digital_twin.invoke_root_level_command(
        device.id, "reboot", {}, raw=True
    )
    assert answer.headers["x-ms-command-statuscode"] == 404
    assert answer.headers["x-ms-request-id"]
    assert answer.output is None


def test_a_command_for_an_offline_device_is_refused(twins: Any, device: Device) -> None:
    with refused(404, "DeviceNotOnline"):
        twins.invoke_command(device.id, "reboot", {})
    with refused(404, "DeviceNotOnline"):
        twins.invoke_component_command(device.id, "thermostat1", "reboot", {})
    with refused(404, "DeviceNotFound"):
        twins.invoke_command("unknown", "reboot", {})
    with refused(400, "ArgumentInvalid"):
        twins.invoke_command(device.id, "reboot", {}, response_timeout_in_seconds=4)
