"""The emulator's own routes, under `/_emulator/`: the events of devices, and the sending of
cloud-to-device messages. A real hub has both over AMQP.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import quote

from aiohttp.web_response import StreamResponse

from emulator.http.requests import Request, read_json
from emulator.http.responses import stream_array
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import members
from emulator.hub.core.digits import whole_number
from emulator.hub.core.errors import ArgumentInvalid, DeviceNotFound
from emulator.hub.core.json import dumps
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.addresses import device_ids
from emulator.hub.messages.event_log import Partition
from emulator.hub.messages.message import Message

# A stream without events sends a comment after this time, so that both ends keep it open.
_STREAM_ALIVE_SECONDS = 15

# How many events an answer holds: the log drops the others even if the client reads slowly.
_AT_ONCE = 20

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


class _Query(NamedTuple):
    """Which events a request asks for.

    Args:
        start: the number of the first event.
        device_id: the device; None is all.
        partition: the partition; None is all.
        top: how many events at most; None is all.
    """

    start: int
    device_id: str | None
    partition: Partition | None
    top: int | None


async def read_events(hub: IotHub, request: Request) -> StreamResponse:
    """`GET /_emulator/events?from=n&device=id&partition=id&top=m`: the events from number n on.

    200 with a JSON array; `top` makes it a page, and the next page begins behind its last number.
    If the request accepts `text/event-stream`: live server-sent events, with the numbers as ids.
    The stream continues after the event in `Last-Event-ID`. 404 if the device is unknown, and no
    event is from it.
    """
    query = _query(hub, request)
    if "text/event-stream" in request.headers.get("Accept", ""):
        return await _stream_events(hub, request, query)
    return await stream_array(request, _events(hub, query))


async def _events(hub: IotHub, query: _Query) -> AsyncIterator[bytes]:
    """Return the present events as JSON text; those that the log drops meanwhile are missing."""
    start, device_id, partition, top = query
    work, end = await hub.slices.begin(), hub.events.end
    left = hub.events.end if top is None else top
    while events := hub.events.read(start, device_id, min(_AT_ONCE, left), partition):
        for event in events:
            start = event.number + 1
            if start > end:
                return
            left -= 1
            yield dumps(event.document())
            if work.over:
                await work.rest()


async def _stream_events(hub: IotHub, request: Request, query: _Query) -> StreamResponse:
    start, device_id, partition, _ = query
    response = StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client disconnected
        await response.write(b": events follow\n\n")
        work = await hub.slices.begin()
        while True:
            events = await hub.events.wait(
                *(start, device_id),
                seconds=_STREAM_ALIVE_SECONDS,
                most=_AT_ONCE,
                partition=partition,
            )
            for event in events:
                if work.over:
                    await work.rest()
                data = dumps(event.document())
                await response.write(b"id: %d\ndata: %s\n\n" % (event.number, data))
                start = event.number + 1
            if not events:
                await response.write(b": alive\n\n")
    return response


async def send_command(hub: IotHub, request: Request) -> None:
    """`POST /_emulator/devices/{id}/messages`: queue a cloud-to-device message; 204.

    The body is `{"body", "properties", "ack", "to", "messageId", "correlationId", "userId",
    "contentType", "contentEncoding", "expiryTimeUtc"}`. A `body` that is not a string is sent as
    JSON. A property that is null has no value. `to` is the address of the device, in the letter
    case that the sender wants. Every member is optional, and unknown members are an error.
    """
    _check_parameters(request)
    device_id = request.names["device_id"]
    hub.cloud_to_device.send(device_id, _message(device_id, await read_json(request)))


def _query(hub: IotHub, request: Request) -> _Query:
    _check_parameters(request, "from", "device", "partition", "top")
    last = request.headers.get("Last-Event-ID")
    text = request.query.get("from", "0") if last is None else last
    start = _number("sequence number", text) + (last is not None)
    device_id, partition_id = request.query.get("device"), request.query.get("partition")
    top = request.query.get("top")
    if device_id is not None:
        _check_device(hub, device_id)
    partition = None
    if partition_id is not None:
        partition = hub.events.find_partition(partition_id)
        if partition is None:
            raise ArgumentInvalid(
                f"Unknown partition: {partition_id}. Use 0 to {len(hub.events.partitions) - 1}"
            )
    return _Query(start, device_id, partition, None if top is None else _number("top", top))


def _number(name: str, text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise ArgumentInvalid(f"Invalid {name}: {text}. Use a whole number from 0 up")
    return number


def _check_device(hub: IotHub, device_id: str) -> None:
    """Check that a device is registered, or was so when it sent an event of the log."""
    if not hub.identities.has(IdentityKey(device_id)) and not hub.events.read(0, device_id, 1):
        raise DeviceNotFound(device_id)


def _check_parameters(request: Request, *names: str) -> None:
    """Check that each parameter in the query of the URL is known, and is there once."""
    known = (*names, "api-version")
    for name in request.query:
        if name not in known:
            raise ArgumentInvalid(f"Unknown parameter: {name}. Use one of {', '.join(known)}")
        if len(request.query.getall(name)) > 1:
            raise ArgumentInvalid(f"The parameter {name} is repeated. Use it once")


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

ROUTES = (
    Route("GET", "/_emulator/events", Operation.READ_EVENTS, read_events, versioned=False),
    Route("POST", _MESSAGES, Operation.SEND_COMMAND, send_command, versioned=False),
)
