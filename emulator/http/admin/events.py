"""The events of the event log, without AMQP: `/_emulator/events`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from aiohttp.web_response import StreamResponse

from emulator.http.admin.parameters import check_parameters, number
from emulator.http.requests import Request
from emulator.http.responses import stream_array
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import ArgumentInvalid, DeviceNotFound, ServiceUnavailable
from emulator.hub.core.json import dumps
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.event_log import Partition

# A stream without events sends a comment after this time, so that both ends keep it open.
_STREAM_ALIVE_SECONDS = 15

# How many events an answer holds: the log drops the others even if the client reads slowly.
_AT_ONCE = 20


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

    `from=end` means the events that come. 200 with a JSON array; `top` makes it a page, and the
    next page begins behind its last number.
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
    # The client disconnected, or the hub stops.
    with contextlib.suppress(ConnectionError, ServiceUnavailable):
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


def _query(hub: IotHub, request: Request) -> _Query:
    check_parameters(request, "from", "device", "partition", "top")
    last = request.headers.get("Last-Event-ID")
    text = request.query.get("from", "0") if last is None else last
    if last is None and text == "end":
        start = hub.events.end
    else:
        start = number("sequence number", text) + (last is not None)
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
    return _Query(start, device_id, partition, None if top is None else number("top", top))


def _check_device(hub: IotHub, device_id: str) -> None:
    """Check that a device is registered, or was so when it sent an event of the log."""
    if not hub.identities.has(IdentityKey(device_id)) and not hub.events.read(0, device_id, 1):
        raise DeviceNotFound(device_id)


ROUTES = (Route("GET", "/_emulator/events", Operation.READ_EVENTS, read_events, versioned=False),)
