"""Cloud-to-device messages, without AMQP: `/_emulator/devices/{id}/messages`."""

from __future__ import annotations

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub
from emulator.hub.messages.command_document import read_command


async def send_command(hub: IotHub, request: Request) -> None:
    """`POST /_emulator/devices/{id}/messages`: queue a cloud-to-device message; 204.

    `read_command` has the members of the body.
    """
    check_parameters(request)
    device_id = request.names["device_id"]
    hub.cloud_to_device.send(device_id, read_command(device_id, await read_json(request)))


_MESSAGES = "/_emulator/devices/{device_id}/messages"

ROUTES = (Route("POST", _MESSAGES, Operation.SEND_COMMAND, send_command, versioned=False),)
