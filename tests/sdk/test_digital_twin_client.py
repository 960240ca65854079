"""azure-iot-hub's DigitalTwinClient, with azure-iot-device as the IoT Plug and Play device."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import pytest
from azure.iot.device import IoTHubDeviceClient, MethodRequest, MethodResponse

from emulator import Emulator
from tests.support import Device

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot.hub import DigitalTwinClient

from tests.sdk.refusals import refused

pytestmark = [
    pytest.mark.real_hub,
    pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning"),
    # paho forgets the socket pair that woke its thread, each time that it connects again.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

PATIENCE = 60
MODEL = "dtmi:com:example:TemperatureController;1"


@pytest.fixture
def twins(hub: Emulator) -> Any:
    """A DigitalTwinClient with every right."""
    return DigitalTwinClient.from_connection_string(hub.service_connection_string)


@pytest.fixture
def controller(make_client: Callable[..., IoTHubDeviceClient]) -> IoTHubDeviceClient:
    """A connected device that says which model it implements."""
    client = make_client(product_info=MODEL)
    client.connect()
    return client


def etag_of(twins: Any, device: Device) -> str:
    """Read the etag, which the client gives out in its raw answers alone."""
    response = twins.protocol.digital_twin.get_digital_twin(device.id, raw=True)
    etag: str = response.headers["ETag"]
    return etag


# --- properties


def test_a_device_without_a_model_has_a_digital_twin(twins: Any, device: Device) -> None:
    assert twins.get_digital_twin(device.id) == {"$dtId": device.id, "$metadata": {"$model": ""}}


def test_what_the_device_reports_is_in_its_digital_twin(
    twins: Any, device: Device, controller: IoTHubDeviceClient
) -> None:
    controller.patch_twin_reported_properties(
        {
            "serialNumber": "alwinexlepaho8329",
            "thermostat1": {"__t": "c", "maxTempSinceLastReboot": 25.3},
        }
    )
    twin = twins.get_digital_twin(device.id)
    assert twin["$dtId"] == device.id
    assert twin["$metadata"]["$model"] == MODEL
    assert twin["serialNumber"] == "alwinexlepaho8329"
    assert list(twin["$metadata"]["serialNumber"]) == ["lastUpdateTime"]
    thermostat = twin["thermostat1"]
    assert thermostat["maxTempSinceLastReboot"] == 25.3
    assert list(thermostat["$metadata"]["maxTempSinceLastReboot"]) == ["lastUpdateTime"]


def test_a_desired_value_goes_to_the_device_and_its_acknowledgement_comes_back(
    twins: Any, device: Device, controller: IoTHubDeviceClient
) -> None:
    patches: queue.Queue[dict[str, Any]] = queue.Queue()
    controller.on_twin_desired_properties_patch_received = patches.put
    controller.get_twin()  # by its answer the device is subscribed
    update = [{"op": "add", "path": "/thermostat1/targetTemperature", "value": 21.8}]
    assert twins.update_digital_twin(device.id, update) is None
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
        properties = registry.get_twin(device.id).properties.desired
        return {name: value for name, value in properties.items() if not name.startswith("$")}

    twins.update_digital_twin(
        device.id,
        [
            {"op": "add", "path": "/fan", "value": 1},
            {"op": "add", "path": "/thermostat1", "value": {"target": 21, "$metadata": {}}},
        ],
    )
    assert desired() == {"fan": 1, "thermostat1": {"__t": "c", "target": 21}}
    twins.update_digital_twin(
        device.id,
        [
            {"op": "replace", "path": "/thermostat1", "value": {"other": 42, "$metadata": {}}},
            {"op": "remove", "path": "/fan"},
        ],
    )
    assert desired() == {"thermostat1": {"__t": "c", "other": 42}}
    twins.update_digital_twin(device.id, [{"op": "remove", "path": "/thermostat1"}])
    assert desired() == {}


def test_an_update_may_have_a_condition(twins: Any, device: Device) -> None:
    first = etag_of(twins, device)
    update = [{"op": "add", "path": "/fan", "value": 1}]
    twins.update_digital_twin(device.id, update, etag=first)
    assert etag_of(twins, device) != first
    with refused(412, "PreconditionFailed"):
        twins.update_digital_twin(device.id, update, etag=first)
    twins.update_digital_twin(device.id, update, etag="*")


def test_an_update_answers_with_the_etag_and_the_place(twins: Any, device: Device) -> None:
    operations = twins.protocol.digital_twin
    update = [{"op": "add", "path": "/fan", "value": 1}]
    answer = operations.update_digital_twin(device.id, update, raw=True)
    assert answer.headers["ETag"] == etag_of(twins, device)
    assert answer.headers["Location"].endswith(f"/digitaltwins/{device.id}")


def test_an_update_that_can_not_be_is_refused(twins: Any, device: Device) -> None:
    with refused(400, "InvalidDigitalTwinPatch"):  # a path has a slash first
        twins.update_digital_twin(device.id, [{"op": "add", "path": "fan", "value": 1}])
    with refused(404, "DeviceNotFound"):
        twins.update_digital_twin("nobody", [{"op": "add", "path": "/fan", "value": 1}])
    with refused(404, "DeviceNotFound"):
        twins.get_digital_twin("nobody")


# --- commands


def answer_methods(
    client: IoTHubDeviceClient, status: int = 200, payload: object = None
) -> queue.Queue[MethodRequest]:
    """Have a device answer every command; gives the commands as they come."""
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


def test_a_commands_status_stands_in_a_header(
    twins: Any, device: Device, controller: IoTHubDeviceClient
) -> None:
    answer_methods(controller, 404)
    answer = twins.protocol.digital_twin.invoke_root_level_command(
        device.id, "reboot", {}, raw=True
    )
    assert answer.headers["x-ms-command-statuscode"] == 404
    assert answer.headers["x-ms-request-id"]
    assert answer.output is None


def test_a_command_for_a_device_that_is_away_is_refused(twins: Any, device: Device) -> None:
    with refused(404, "DeviceNotOnline"):
        twins.invoke_command(device.id, "reboot", {})
    with refused(404, "DeviceNotOnline"):
        twins.invoke_component_command(device.id, "thermostat1", "reboot", {})
    with refused(404, "DeviceNotFound"):
        twins.invoke_command("nobody", "reboot", {})
    with refused(400, "ArgumentInvalid"):
        twins.invoke_command(device.id, "reboot", {}, response_timeout_in_seconds=4)
