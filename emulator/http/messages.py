"""Messages over HTTPS: what a device sends and receives for itself, and what a service may do about
cloud-to-device messages. There is no route to send those: a service does it over AMQP.

The headers are those of the C# SDK (IoT Hub docs: send and receive over HTTPS).
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.requests import Request, read_body
from emulator.http.responses import json_response, no_content
from emulator.http.route import DeviceRoute, Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, MessageTooLarge
from emulator.hub.core.json import dumps
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Admission, Delivery
from emulator.hub.messages.message import Message

_APPLICATION = "iothub-app-"
# Headers, and the system properties that they carry.
_SYSTEM = {
    "iothub-messageid": "message-id",
    "iothub-correlationid": "correlation-id",
    "iothub-userid": "user-id",
    "iothub-to": "to",
    "iothub-contenttype": "content-type",
    "iothub-contentencoding": "content-encoding",
}


async def send_event(hub: IotHub, request: Request, device: Admission) -> Response:
    """`POST /devices/{id}/messages/events`: a device-to-cloud message; 204."""
    headers = request.headers
    system = {name: headers[header] for header, name in _SYSTEM.items() if header in headers}
    properties: dict[str, str | None] = {
        name[len(_APPLICATION) :]: value
        for name, value in headers.items()
        if name.lower().startswith(_APPLICATION)
    }
    message = Message(await read_body(request), system, properties)
    _check_text(*system.values(), *properties.values())
    if message.size > limits.D2C_MESSAGE_BYTES:
        raise MessageTooLarge(
            f"The message is {message.size} bytes; {limits.D2C_MESSAGE_BYTES} are allowed."
        )
    hub.telemetry.ingest(device, [message])
    return no_content()


async def receive_command(hub: IotHub, request: Request, device: Admission) -> Response:
    """`GET /devices/{id}/messages/deviceBound`: 200 with a locked message, 204 if none waits."""
    delivery = hub.cloud_to_device.receive(device.key.device_id)
    if delivery is None:
        return no_content()
    return Response(body=delivery.body, headers=_headers(delivery))


async def end_command(hub: IotHub, request: Request, device: Admission) -> Response:
    """`DELETE …/deviceBound/{lock}`: complete it, or with the query `reject` reject it; 204."""
    end = hub.cloud_to_device.reject if "reject" in request.query else hub.cloud_to_device.complete
    end(device.key.device_id, request.names["lock"])
    return no_content()


async def abandon_command(hub: IotHub, request: Request, device: Admission) -> Response:
    """`POST …/deviceBound/{lock}/abandon`: give it back; 204."""
    hub.cloud_to_device.abandon(device.key.device_id, request.names["lock"])
    return no_content()


async def purge_commands(hub: IotHub, request: Request) -> Response:
    """`DELETE /devices/{id}/commands`: 200 with how many messages were ended."""
    device_id = request.names["device_id"]
    purged = hub.cloud_to_device.purge(device_id)
    return json_response({"totalMessagesPurged": purged, "deviceId": device_id, "moduleId": None})


async def receive_feedback(hub: IotHub, request: Request) -> Response:
    """`GET /messages/serviceBound/feedback`: 200 with a locked batch, 204 if there is none."""
    batch = hub.cloud_to_device.receive_feedback()
    if batch is None or batch.lock is None:
        return no_content()
    headers = {
        "Content-Type": "application/vnd.microsoft.iothub.feedback.json",
        "ETag": f'"{batch.lock.token}"',
        "iothub-messagelocktoken": batch.lock.token,
        "iothub-enqueuedtime": iso(batch.enqueued),
    }
    return Response(body=dumps(batch.records), headers=headers)


async def complete_feedback(hub: IotHub, request: Request) -> Response:
    """`DELETE /messages/serviceBound/feedback/{lock}`: 204."""
    hub.cloud_to_device.complete_feedback(request.names["lock"])
    return no_content()


async def abandon_feedback(hub: IotHub, request: Request) -> Response:
    """`POST /messages/serviceBound/feedback/{lock}/abandon`: 204."""
    hub.cloud_to_device.abandon_feedback(request.names["lock"])
    return no_content()


def _check_text(*values: str | None) -> None:
    try:
        "".join(value or "" for value in values).encode()
    except UnicodeEncodeError:
        raise ArgumentInvalid("A header is not UTF-8") from None


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


_DEVICE_BOUND = "/devices/{device_id}/messages/deviceBound"
_FEEDBACK = "/messages/serviceBound/feedback"

ROUTES = (
    DeviceRoute("POST", "/devices/{device_id}/messages/events", Operation.SEND_EVENT, send_event),
    DeviceRoute("GET", _DEVICE_BOUND, Operation.RECEIVE_COMMAND, receive_command),
    DeviceRoute("DELETE", _DEVICE_BOUND + "/{lock}", Operation.SETTLE_COMMAND, end_command),
    DeviceRoute(
        "POST", _DEVICE_BOUND + "/{lock}/abandon", Operation.SETTLE_COMMAND, abandon_command
    ),
    Route("DELETE", "/devices/{device_id}/commands", Operation.PURGE_COMMANDS, purge_commands),
    Route("GET", _FEEDBACK, Operation.USE_FEEDBACK, receive_feedback),
    Route("DELETE", _FEEDBACK + "/{lock}", Operation.USE_FEEDBACK, complete_feedback),
    Route("POST", _FEEDBACK + "/{lock}/abandon", Operation.USE_FEEDBACK, abandon_feedback),
)
