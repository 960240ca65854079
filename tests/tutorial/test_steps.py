"""The steps of the two scripts, with a stand-in for the SDK's client and for the clock."""

from __future__ import annotations

import importlib
import io
import json
from http import HTTPStatus
from types import ModuleType, SimpleNamespace
from unittest import mock

import pytest
import requests
from azure.iot.device import MethodRequest
from azure.iot.device.exceptions import ConnectionFailedError

import dmpatterns_getstarted_device as device_script


@pytest.fixture
def service_script(needs_service_sdk: None) -> ModuleType:
    """The service script as a module, with a device id."""
    return importlib.import_module("dmpatterns_getstarted_service")


@pytest.fixture
def hub(service_script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    """A stand-in for the service client, whose method calls succeed."""
    client = mock.Mock()
    client.invoke_device_method.return_value.payload = {"Response": "yes"}
    monkeypatch.setattr(service_script, "IoTHubRegistryManager", lambda _: client)
    monkeypatch.setattr(service_script, "DEVICE_ID", "thermostat")
    monkeypatch.setattr(service_script, "time", client)
    return client


def http_error(status: int, code: str, body: str) -> Exception:
    """Return the error that the service SDK raises for a response of the hub."""
    response = requests.Response()
    response.status_code, response.reason = status, HTTPStatus(status).phrase
    response.headers["iothub-errorcode"] = code
    response.encoding, response.raw = "utf-8", io.BytesIO(body.encode())
    error: Exception = importlib.import_module("msrest.exceptions").HttpOperationError(
        None, response
    )
    return error


def method_error(message: str) -> str:
    """Return the body of a failed direct method: JSON inside JSON."""
    inner = {"errorCode": 404103, "trackingId": "0", "message": message, "info": {}}
    return json.dumps({"Message": json.dumps(inner), "ExceptionMessage": ""})


def test_the_device_updates_its_twin_before_it_responds_and_listens_on_after_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = mock.Mock()
    client.receive_method_request.side_effect = [
        MethodRequest(request_id, "rebootDevice", "{}") for request_id in ("1", "2")
    ] + [KeyboardInterrupt]
    client.patch_twin_reported_properties.side_effect = [ConnectionFailedError("no hub"), None]
    monkeypatch.setattr(device_script, "time", client)

    with pytest.raises(KeyboardInterrupt):
        device_script.keep_listening(client)

    steps = [(name, *arguments) for name, arguments, _ in client.mock_calls]
    reboot = [
        ("receive_method_request", "rebootDevice"),
        ("sleep", 20),
        ("patch_twin_reported_properties", {"rebootTime": mock.ANY}),
    ]
    answer = ("send_method_response", mock.ANY)
    assert steps == [*reboot, ("sleep", 5), *reboot, answer, reboot[0]]
    response = client.send_method_response.call_args.args[0]
    assert (response.request_id, response.status) == ("2", 200)
    assert response.payload == {"Response": "This is the response from the device"}
    assert capsys.readouterr().out.splitlines() == [
        "Rebooting device",
        "Device rebooted",
        "Listening again after an error: ConnectionFailedError: no hub",
        "Rebooting device",
        "Device rebooted",
        "Device twins updated with latest rebootTime",
    ]


def test_the_service_calls_the_method_then_reads_the_twin_in_rounds_of_eleven(
    service_script: ModuleType, hub: mock.Mock, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = [{}, *[{"rebootTime": "2020-02-02"}] * 11]
    hub.get_twin.side_effect = [
        *(SimpleNamespace(properties=SimpleNamespace(reported=each)) for each in reported),
        KeyboardInterrupt,
    ]
    service_script.iothub_devicemethod_sample_run()

    device_id, method = hub.invoke_device_method.call_args.args
    assert device_id == "thermostat"
    assert method.as_dict() == {
        "method_name": "rebootDevice",
        "payload": '{"method_number":"42"}',
        "response_timeout_in_seconds": 60,
    }
    assert hub.sleep.mock_calls == [mock.call(5)] * 12
    assert capsys.readouterr().out.splitlines() == [
        "",
        "Invoking device to reboot...",
        "",
        "Successfully invoked the device to reboot.",
        "",
        "{'Response': 'yes'}",
        "",
        "IoTHubClient waiting for commands, press Ctrl-C to exit",
        "Waiting for device to report last reboot time...",
        *["Last reboot time: 2020-02-02"] * 10,
        "",
        "IoTHubClient waiting for commands, press Ctrl-C to exit",
        "Last reboot time: 2020-02-02",
        "",
        "IoTHubDeviceMethod sample stopped",
    ]


def test_the_service_ends_when_it_cannot_read_the_twin(
    service_script: ModuleType, hub: mock.Mock, capsys: pytest.CaptureFixture[str]
) -> None:
    body = '{"Message":"ErrorCode:DeviceNotFound;thermostat"}'
    hub.get_twin.side_effect = http_error(404, "DeviceNotFound", body)
    with pytest.raises(SystemExit) as end:
        service_script.iothub_devicemethod_sample_run()
    assert end.value.code == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "IoTHubClient waiting for commands, press Ctrl-C to exit",
        "",
        "Unexpected error HTTP 404 Not Found: ErrorCode:DeviceNotFound;thermostat "
        "(check the device id)",
    ]


@pytest.mark.parametrize(
    ("status", "code", "body", "line"),
    [
        (
            404,
            "DeviceNotOnline",
            method_error("The device isn't online."),
            "HTTP 404 Not Found: The device isn't online. "
            "(check that the device console is running)",
        ),
        (
            504,
            "GatewayTimeout",
            method_error("Timed out."),
            "HTTP 504 Gateway Timeout: Timed out. "
            "(check the device console: it did not answer in time)",
        ),
        (
            401,
            "IotHubUnauthorizedAccess",
            '{"Message":"ErrorCode:IotHubUnauthorizedAccess;No"}',
            "HTTP 401 Unauthorized: ErrorCode:IotHubUnauthorizedAccess;No (check the policy's "
            "name, key and permissions: it needs service connect and registry read)",
        ),
        (403, "", "<p>\nNot a hub\n</p>", "HTTP 403 Forbidden: <p> Not a hub </p>"),
        (503, "", "", "HTTP 503 Service Unavailable"),
        (500, "", "long " * 100, f"HTTP 500 Internal Server Error: {'long ' * 53}..."),
    ],
    ids=["404", "504", "401", "403", "503", "500"],
)
def test_the_service_explains_an_error_of_the_hub_in_one_line(
    service_script: ModuleType, status: int, code: str, body: str, line: str
) -> None:
    assert service_script.explain(http_error(status, code, body)) == line
