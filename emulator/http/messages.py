"""Messages over HTTPS: a device sends and receives them; a service reads feedback and deletes
messages. A service sends cloud-to-device messages only over AMQP.

Headers and batches are those of Azure's SDKs (IoT Hub docs: send and receive over HTTPS; the source
of the SDKs for C, C#, Java and Node).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

from aiohttp.web_response import Response

from emulator.http.requests import Request, parse_json, read_body
from emulator.http.responses import lent_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid, DeserializationError, MessageTooLarge
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Delivery
from emulator.hub.messages import feedback
from emulator.hub.messages.message import Message

_APPLICATION = "iothub-app-"
# Headers, and their system properties.
_SYSTEM = {
    "iothub-messageid": "message-id",
    "iothub-correlationid": "correlation-id",
    "iothub-userid": "user-id",
    "iothub-to": "to",
    "iothub-contenttype": "content-type",
    "iothub-contentencoding": "content-encoding",
}
# Headers that only a device sends.
_SENT = {
    **_SYSTEM,
    "iothub-expiry": "absolute-expiry-time",
    "iothub-messageschema": "iothub-message-schema",
    "iothub-interface-id": "iothub-interface-id",
    "dt-subject": "dt-subject",
}
# Headers with a name of their own that are application properties (seen on a real hub, over MQTT).
_SENT_APPLICATION = {
    "iothub-ack": "iothub-ack",
    "iothub-creationtimeutc": "iothub-creation-time-utc",
}
# Headers that only a device receives. They are not the headers of HTTP: a client must not decode
# the body (seen on a real hub). Clients compare the names with letter case.
_RECEIVED = {**_SYSTEM, "ContentType": "content-type", "ContentEncoding": "content-encoding"}

_BATCH = "application/vnd.microsoft.iothub.json"
_ITEM = members.Form("body", "base64Encoded", "properties")


async def send_event(hub: IotHub, request: Request) -> None:
    """`POST /devices/{id}/messages/events`: send device-to-cloud messages, one or a batch; 204.

    The content type tells a batch: a JSON array of `{"body", "base64Encoded", "properties"}`. Each
    item is an event of its own. If one of them is invalid, none is stored.
    """
    body = await read_body(request)
    if request.content_type == _BATCH:
        messages = await _batch(body)
    else:
        messages = [_message(body, request.headers.items())]
    hub.telemetry.sender(request.device).ingest(messages)


def _message(body: bytes, headers: Iterable[tuple[str, str | None]]) -> Message:
    """Make a message of its body and of headers, or of the properties of an item, by their names.

    Of names that differ in letter case only, the last one counts: a real hub passes one of them on
    (IoT Hub docs: message routing).

    Raises:
        ArgumentInvalid, MessageTooLarge
    """
    system: dict[str, str] = {}
    application: dict[str, tuple[str, str | None]] = {}
    for header, value in headers:
        name = header.lower()
        if name.startswith(_APPLICATION) and name != _APPLICATION:
            application[name] = header[len(_APPLICATION) :], value
        elif name in _SENT_APPLICATION:
            application[name] = _SENT_APPLICATION[name], value
        elif name in _SENT and value is not None:
            system[_SENT[name]] = value
    message = Message(body, system, dict(application.values()))
    try:
        size = message.size
    except UnicodeEncodeError:
        raise ArgumentInvalid("A header is not UTF-8") from None
    _check_size(size)
    return message


def _check_size(size: int) -> None:
    if size > limits.D2C_MESSAGE_BYTES:
        raise MessageTooLarge(
            f"The message has {size} bytes. {limits.D2C_MESSAGE_BYTES} are allowed."
        )


async def _batch(body: bytes) -> list[Message]:
    """Parse the messages of a batch, whose limit is that of one message.

    Raises:
        DeserializationError: the body is not an array of objects.
        ArgumentInvalid: the body of an item is missing, or not base64; a property is invalid.
        MessageTooLarge
    """
    _check_size(len(body))
    items = await parse_json(body)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DeserializationError("A batch is an array of objects")
    return [_message(_item_body(item), _item_headers(item)) for item in map(_ITEM.read, items)]


def _item_body(item: JsonObject) -> bytes:
    body, encoded = members.text(item, "body"), item.get("base64Encoded")
    if body is None:
        raise ArgumentInvalid("An item of the batch has no body")
    if encoded is not None and not isinstance(encoded, bool):
        raise ArgumentInvalid("base64Encoded is not a boolean")
    if encoded is False:
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except ValueError:
        raise ArgumentInvalid(
            "The body of an item is not base64. Send base64, or set base64Encoded to false"
        ) from None


def _item_headers(item: JsonObject) -> Iterator[tuple[str, str | None]]:
    """Return the properties of an item; a number or a boolean becomes its JSON text."""
    for name, value in members.block(item, "properties").items():
        if isinstance(value, dict | list):
            raise ArgumentInvalid(f"The property {name} is not a string")
        yield name, value if isinstance(value, str | None) else dumps(value).decode()


async def receive_command(hub: IotHub, request: Request) -> Response | None:
    """`GET /devices/{id}/messages/deviceBound`: 200 with a locked message, or 204."""
    delivery = hub.cloud_to_device.receive(request.names["device_id"])
    if delivery is None:
        return None
    return Response(body=delivery.body, headers=_headers(delivery))


async def end_command(hub: IotHub, request: Request) -> None:
    """`DELETE …/deviceBound/{lock}`: complete a message, or with `?reject` reject it; 204."""
    end = hub.cloud_to_device.reject if "reject" in request.query else hub.cloud_to_device.complete
    end(request.names["device_id"], request.names["lock"])


async def abandon_command(hub: IotHub, request: Request) -> None:
    """`POST …/deviceBound/{lock}/abandon`: return a message to the queue; 204."""
    hub.cloud_to_device.abandon(request.names["device_id"], request.names["lock"])


async def purge_commands(hub: IotHub, request: Request) -> JsonObject:
    """`DELETE /devices/{id}/commands`: delete all messages; 200 with their number."""
    device_id = request.names["device_id"]
    purged = hub.cloud_to_device.purge(device_id)
    return {"totalMessagesPurged": purged, "deviceId": device_id, "moduleId": None}


async def receive_feedback(hub: IotHub, _: Request) -> Response | None:
    """`GET /messages/serviceBound/feedback`: 200 with a locked batch, or 204."""
    batch = hub.cloud_to_device.receive_feedback()
    return None if batch is None else lent_response(batch, batch.records, feedback.CONTENT_TYPE)


async def complete_feedback(hub: IotHub, request: Request) -> None:
    """`DELETE /messages/serviceBound/feedback/{lock}`: 204."""
    hub.cloud_to_device.complete_feedback(request.names["lock"])


async def abandon_feedback(hub: IotHub, request: Request) -> None:
    """`POST /messages/serviceBound/feedback/{lock}/abandon`: 204."""
    hub.cloud_to_device.abandon_feedback(request.names["lock"])


def _headers(delivery: Delivery) -> dict[str, str]:
    headers = {
        "ETag": f'"{delivery.lock_token}"',
        "iothub-messagelocktoken": delivery.lock_token,
        "iothub-sequencenumber": str(delivery.sequence_number),
        "iothub-enqueuedtime": iso(delivery.enqueued),
        "iothub-expiry": iso(delivery.expires),
        "iothub-deliverycount": str(delivery.delivery_count),
        "iothub-ack": delivery.ack,
    }
    system = delivery.system
    headers |= {header: system[name] for header, name in _RECEIVED.items() if name in system}
    for name, value in delivery.properties.items():
        if name != "iothub-ack":
            headers[_APPLICATION + name] = value or ""
    return headers


_DEVICE = "/devices/{device_id}"
_DEVICE_BOUND = _DEVICE + "/messages/deviceBound"
_FEEDBACK = "/messages/serviceBound/feedback"
_SETTLE = Operation.SETTLE_COMMAND

ROUTES = (
    Route("POST", _DEVICE + "/messages/events", Operation.SEND_EVENT, send_event, for_device=True),
    Route("GET", _DEVICE_BOUND, Operation.RECEIVE_COMMAND, receive_command, for_device=True),
    Route("DELETE", _DEVICE_BOUND + "/{lock}", _SETTLE, end_command, for_device=True),
    Route("POST", _DEVICE_BOUND + "/{lock}/abandon", _SETTLE, abandon_command, for_device=True),
    Route("DELETE", _DEVICE + "/commands", Operation.PURGE_COMMANDS, purge_commands),
    Route("GET", _FEEDBACK, Operation.USE_FEEDBACK, receive_feedback),
    Route("DELETE", _FEEDBACK + "/{lock}", Operation.USE_FEEDBACK, complete_feedback),
    Route("POST", _FEEDBACK + "/{lock}/abandon", Operation.USE_FEEDBACK, abandon_feedback),
)
