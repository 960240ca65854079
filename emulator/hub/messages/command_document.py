"""A cloud-to-device message as a JSON document, for senders without AMQP."""

from __future__ import annotations

import base64
from urllib.parse import quote

from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject, dumps
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
_FORM = members.Form("body", "bodyBase64", "properties", "ack", "to", *_SYSTEM, closed=True)


def read_command(device_id: str, body: object) -> Message:
    """Return the message to a device that a document stands for.

    Args:
        device_id: the device.
        body: `{"body", "properties", "ack", "to", "messageId", "correlationId", "userId",
            "contentType", "contentEncoding", "expiryTimeUtc"}`. A `body` that is not a string is
            sent as JSON; `bodyBase64` in its place has any bytes. A property that is null has no
            value. `to` is the address of the device, in the letter case that the sender wants.
            Every member is optional.

    Raises:
        DeserializationError: it is not an object.
        GenericBadRequest: it has an unknown member.
        ArgumentInvalid: a member is null or has the wrong type, or the address is another one.
    """
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
    return Message(_payload(document), system, properties)


def _payload(document: JsonObject) -> bytes:
    encoded = members.text(document, "bodyBase64")
    if encoded is None:
        content = document.get("body", "")
        return content.encode() if isinstance(content, str) else dumps(content)
    if "body" in document:
        raise ArgumentInvalid("body and bodyBase64 are both there. Use one of them")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise ArgumentInvalid("bodyBase64 is not base64") from None


def _address(device_id: str, given: str | None) -> str:
    """Return the address of a message; one that is given must be the device's, as over AMQP."""
    address = f"/devices/{quote(device_id, safe='')}/messages/deviceBound"
    if given is not None and device_id not in device_ids(given):
        raise ArgumentInvalid(f"Invalid to: {given}. Use {address}, or leave it out")
    return given or address
