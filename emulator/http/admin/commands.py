"""Cloud-to-device messages, without AMQP: `/_emulator/devices/{id}/messages`."""

from __future__ import annotations

from urllib.parse import quote

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import dumps
from emulator.hub.hub import IotHub
from emulator.hub.messages.addresses import device_ids
from emulator.hub.messages.message import Message

# The members of a message to send, with their system properties.
_SYSTEM = {
    "messageId": "message-id",
    "correlationId": "correlation-id",
    "userId": "user-id",
    "contentType": "content-type",
    "contentEncoding": "content-encoding",
    "expiryTimeUtc": "absolute-expiry-time",
}
# A misspelled member or parameter is an error: nothing is to be silently left out.
_FORM = members.Form("body", "properties", "ack", "to", *_SYSTEM, closed=True)


async def send_command(hub: IotHub, request: Request) -> None:
    """`POST /_emulator/devices/{id}/messages`: queue a cloud-to-device message; 204.

    The body is `{"body", "properties", "ack", "to", "messageId", "correlationId", "userId",
    "contentType", "contentEncoding", "expiryTimeUtc"}`. A `body` that is not a string is sent as
    JSON. A property that is null has no value. `to` is the address of the device, in the letter
    case that the sender wants. Every member is optional, and unknown members are an error.
    """
    check_parameters(request)
    device_id = request.names["device_id"]
    hub.cloud_to_device.send(device_id, _message(device_id, await read_json(request)))


def _message(device_id: str, body: object) -> Message:
    document = members.document(body, _FORM)
    for name in (*_SYSTEM, "properties", "ack", "to"):
        if document.get(name, "") is None:
            raise ArgumentInvalid(f"{name} is null. Leave it out, or set a value")
    system = {"to": _address(device_id, members.text(document, "to"))}
    system |= {
        name: value
        for member, name in _SYSTEM.items()
        if (value := members.text(document, member)) is not None
    }
    properties = dict(members.block(document, "properties"))
    for name, value in properties.items():
        if not isinstance(value, str | None):
            raise ArgumentInvalid(f"The property {name} is not a string. Use a string, or null")
    if (ack := members.text(document, "ack")) is not None:
        properties["iothub-ack"] = ack
    content = document.get("body", "")
    payload = content.encode() if isinstance(content, str) else dumps(content)
    return Message(payload, system, properties)


def _address(device_id: str, given: str | None) -> str:
    """Return the address of a message; one that is given must be the device's, as over AMQP."""
    address = f"/devices/{quote(device_id, safe='')}/messages/deviceBound"
    if given is not None and device_id not in device_ids(given):
        raise ArgumentInvalid(f"Invalid to: {given}. Use {address}, or leave it out")
    return given or address


_MESSAGES = "/_emulator/devices/{device_id}/messages"

ROUTES = (Route("POST", _MESSAGES, Operation.SEND_COMMAND, send_command, versioned=False),)
