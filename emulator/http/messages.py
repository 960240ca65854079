"""Messages over HTTPS: a device sends and receives them; a service reads feedback and deletes
messages. A service sends cloud-to-device messages only over AMQP.

The headers are those of the C# SDK (IoT Hub docs: send and receive over HTTPS).
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request, read_body
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, MessageTooLarge
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Delivery
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


async def send_event(hub: IotHub, request: Request) -> None:
    """`POST /devices/{id}/messages/events`: send a device-to-cloud message; 204."""
    headers = request.headers
    system = {name: headers[header] for header, name in _SYSTEM.items() if header in headers}
    properties: dict[str, str | None] = {
        name[len(_APPLICATION) :]: value
        for name, value in headers.items()
        if name.lower().startswith(_APPLICATION)
    }
    message = Message(await read_body(request), system, properties)
    try:
        "".join(value or "" for value in (*system.values(), *properties.values())).encode()
    except UnicodeEncodeError:
        raise ArgumentInvalid("A header is not UTF-8") from None
    if message.size > limits.D2C_MESSAGE_BYTES:
        raise MessageTooLarge(
            f"The message has {message.size} bytes. {limits.D2C_MESSAGE_BYTES} are allowed."
        )
    hub.telemetry.ingest(request.device, [message])


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
    if batch is None or batch.lock is None:
        return None
    headers = {
        "Content-Type": "application/vnd.microsoft.iothub.feedback.json",
        "ETag": f'"{batch.lock.token}"',
        "iothub-messagelocktoken": batch.lock.token,
        "iothub-enqueuedtime": iso(batch.enqueued),
    }
    return Response(body=dumps(batch.records), headers=headers)


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
    names = {**_SYSTEM, "Content-Type": "content-type", "Content-Encoding": "content-encoding"}
    headers |= {header: system[name] for header, name in names.items() if name in system}
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
