"""What tests of messages and of modules share: modules, the event log, sending, feedback."""

from __future__ import annotations

from typing import Any, NamedTuple

import requests

from emulator import Emulator
from tests.devices import greeting
from tests.support import Device, Service

# --- modules


class Module(NamedTuple):
    """A registered module, as its own program knows it."""

    device_id: str
    id: str
    key: str

    @property
    def path(self) -> str:
        """Its path below `/devices` or `/twins`, and its part of a topic and of an audience."""
        return f"{self.device_id}/modules/{self.id}"

    @property
    def events(self) -> str:
        """Its telemetry topic."""
        return f"devices/{self.path}/messages/events/"


def put_module(service: Service, device_id: str, module_id: str = "camera") -> Module:
    """Create a module."""
    body = {"deviceId": device_id, "moduleId": module_id}
    response = service.request("PUT", f"/devices/{device_id}/modules/{module_id}", json=body)
    assert response.status_code == 200, response.text
    key = response.json()["authentication"]["symmetricKey"]["primaryKey"]
    return Module(device_id, module_id, key)


def greet_module(emulator: Emulator, module: Module) -> bytes:
    """Build the CONNECT of a module."""
    return greeting(emulator.host_name, f"{module.device_id}/{module.id}", module.key)


# --- device-to-cloud


def read_events(service: Service, device_id: str) -> list[dict[str, Any]]:
    """Read what the log holds of a device and its modules."""
    response = service.request("GET", "/_emulator/events", params={"device": device_id})
    assert response.status_code == 200, response.text
    events: list[dict[str, Any]] = response.json()
    return events


def bodies(service: Service, device_id: str) -> list[Any]:
    """Read the bodies of what the log holds of a device and its modules."""
    return [event["body"] for event in read_events(service, device_id)]


# --- cloud-to-device


def try_to_send(service: Service, device: Device, **members: Any) -> requests.Response:
    """Send a message to a device, or be refused."""
    return service.request("POST", f"/_emulator/devices/{device.id}/messages", json=members)


def send(service: Service, device: Device, body: str = "", **members: Any) -> None:
    """Send a message to a device."""
    response = try_to_send(service, device, body=body, **members)
    assert response.status_code == 204, response.text


def pending(service: Service, device: Device) -> int:
    """Count the messages of a device; its identity and its twin must agree."""

    def count(part: str) -> int:
        document = service.request("GET", f"/{part}/{device.id}").json()
        return int(document["cloudToDeviceMessageCount"])

    for _ in range(10):  # the device may take one between the two
        in_identity, in_twin = count("devices"), count("twins")
        if in_identity == in_twin:
            return in_twin
    raise AssertionError(f"{in_identity} in the identity, {in_twin} in the twin")


def take_feedback(service: Service, device: Device) -> list[tuple[str | None, str]]:
    """Take all feedback that there is; gives message id and outcome of those of a device."""
    path = "/messages/serviceBound/feedback"
    records = []
    while (batch := service.request("GET", path)).status_code == 200:
        records += batch.json()
        lock = batch.headers["iothub-messagelocktoken"]
        assert service.request("DELETE", f"{path}/{lock}").status_code == 204
    assert batch.status_code == 204, batch.text
    return [
        (record["originalMessageId"], record["statusCode"])
        for record in records
        if record["deviceId"] == device.id
    ]
