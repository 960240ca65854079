"""What the emulator offers beyond a hub's REST API, under `/_emulator/`: the events that devices
sent, which a real hub gives out over AMQP, and the sending of cloud-to-device messages, likewise.
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import quote

from aiohttp.web_response import Response, StreamResponse

from emulator.http.requests import Request, read_json
from emulator.http.responses import json_response, no_content
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import dumps
from emulator.hub.hub import IotHub
from emulator.hub.messages.event_log import Event
from emulator.hub.messages.message import Message

# How often a quiet stream says that it is alive, so that neither end takes it for dead.
_STREAM_ALIVE_SECONDS = 15

# Members of a message to send, and the system properties that they are.
_SYSTEM = {
    "messageId": "message-id",
    "correlationId": "correlation-id",
    "userId": "user-id",
    "contentType": "content-type",
    "contentEncoding": "content-encoding",
    "expiryTimeUtc": "absolute-expiry-time",
}


async def read_events(hub: IotHub, request: Request) -> StreamResponse:
    """`GET /_emulator/events?from=n&device=id`: the events from sequence number n on.

    200 with a JSON array; or, asked for `text/event-stream`, with server-sent events, live, whose
    ids are the sequence numbers (`Last-Event-ID` goes on after one).
    """
    start, device_id = _start(request), request.query.get("device")
    if "text/event-stream" in request.headers.get("Accept", ""):
        return await _stream_events(hub, request, start, device_id)
    return json_response([event.document() for event in hub.events.read(start, device_id)])


async def _stream_events(
    hub: IotHub, request: Request, start: int, device_id: str | None
) -> StreamResponse:
    response = StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the reader has left
        await response.write(b": events follow\n\n")
        while True:
            try:
                events = hub.events.follow(start, device_id)
                while event := await asyncio.wait_for(anext(events), _STREAM_ALIVE_SECONDS):
                    start = event.sequence_number + 1
                    await response.write(_server_sent(event))
            except TimeoutError:
                await response.write(b": alive\n\n")
    return response


async def send_command(hub: IotHub, request: Request) -> Response:
    """`POST /_emulator/devices/{id}/messages`: queue a cloud-to-device message; 204.

    The body is `{"body", "properties", "ack", "messageId", "correlationId", "userId",
    "contentType", "contentEncoding", "expiryTimeUtc"}`; a `body` that is not a string is sent as
    JSON. All but `body` may be left out.
    """
    device_id = request.names["device_id"]
    hub.cloud_to_device.send(device_id, _message(device_id, await read_json(request)))
    return no_content()


def _start(request: Request) -> int:
    last = request.headers.get("Last-Event-ID")
    text = request.query.get("from", "0") if last is None else last
    if not (text.isascii() and text.isdigit()):
        raise ArgumentInvalid(f"Not a sequence number: {text}")
    return int(text[:18]) + (last is not None)


def _server_sent(event: Event) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (event.sequence_number, dumps(event.document()))


def _message(device_id: str, body: object) -> Message:
    given = members.document(body)
    for name in (*_SYSTEM, "properties", "ack"):
        if given.get(name, "") is None:
            raise ArgumentInvalid(f"{name} is null: leave it out, or use a string")
    system = {"to": f"/devices/{quote(device_id, safe='')}/messages/deviceBound"}
    system |= {
        name: value
        for member, name in _SYSTEM.items()
        if (value := members.text(given, member)) is not None
    }
    properties: dict[str, str | None] = dict(members.texts(given, "properties") or {})
    if (ack := members.text(given, "ack")) is not None:
        properties["iothub-ack"] = ack
    content = given.get("body", "")
    payload = content.encode() if isinstance(content, str) else dumps(content)
    return Message(payload, system, properties)


ROUTES = (
    Route("GET", "/_emulator/events", Operation.READ_EVENTS, read_events, versioned=False),
    Route(
        "POST",
        "/_emulator/devices/{device_id}/messages",
        Operation.SEND_COMMAND,
        send_command,
        versioned=False,
    ),
)
