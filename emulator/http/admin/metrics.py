"""What a hub does, for Prometheus: `/_emulator/metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from aiohttp.web_response import Response

from emulator.http.admin.counts import Counts
from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import Identity
from emulator.hub.links.link import DeviceLink

if TYPE_CHECKING:
    from emulator.http.admin.prometheus import Metric

# The protocols that a connected device can have.
_PROTOCOLS = ("MQTT", "AMQP")


def routes(
    counts: Counts, connections: Callable[[], Mapping[str, int]], requests: Callable[[], int]
) -> tuple[Route, ...]:
    """Return the route of the metrics.

    Args:
        counts: the counts of this process.
        connections: returns the number of open connections, by the head.
        requests: returns the number of requests over HTTPS.
    """

    async def read(hub: IotHub, request: Request) -> Response:
        """`GET /_emulator/metrics`: 200 with the metrics as text."""
        # Imported here: most hubs are not watched, and a start would take longer.
        from emulator.http.admin.prometheus import CONTENT_TYPE, Metric, write
        from emulator.http.admin.this_process import measure

        check_parameters(request)
        metrics = [
            *_of_hub(hub, await _count_identities(hub)),
            *_counted(counts),
            Metric(
                "iothub_open_connections",
                "Open connections, by the port; a WebSocket counts at its protocol too.",
                connections(),
                "port",
            ),
            Metric("iothub_http_requests_total", "Requests over HTTPS.", requests()),
            *measure(),
        ]
        return Response(body=write(metrics), headers={"Content-Type": CONTENT_TYPE})

    return (Route("GET", "/_emulator/metrics", Operation.READ_INFO, read, versioned=False),)


async def _count_identities(hub: IotHub) -> Counter[str]:
    """Return the numbers of `enabled` and `disabled` devices, and of `modules`."""
    numbers: Counter[str] = Counter()
    work = await hub.slices.begin()
    for identity in hub.store.scan(Identity):
        if identity.key.module_id is not None:
            numbers["modules"] += 1
        else:
            numbers["enabled" if identity.enabled else "disabled"] += 1
        if work.over:
            await work.rest()
    return numbers


def _of_hub(hub: IotHub, identities: Mapping[str, int]) -> Iterator[Metric]:
    """Measure what a hub is now."""
    from importlib.metadata import version

    from emulator.http.admin.prometheus import Metric

    links = hub.links.links()
    yield Metric("iothub_build_info", "The version.", {version("local-iot-hub"): 1}, "version")
    devices = {each: identities[each] for each in ("enabled", "disabled")}
    yield Metric("iothub_devices", "Registered devices, by the status.", devices, "status")
    yield Metric("iothub_modules", "Registered modules.", identities["modules"])
    yield Metric(
        "iothub_connected_devices",
        "Connected devices, by the protocol.",
        _by_protocol(each for each in links if each.key.module_id is None),
        "protocol",
    )
    yield Metric(
        "iothub_connected_modules",
        "Connected modules, by the protocol.",
        _by_protocol(each for each in links if each.key.module_id is not None),
        "protocol",
    )
    kept = hub.events.end - hub.events.begin
    yield Metric("iothub_event_log_events", "Events that the event log holds.", kept)
    yield Metric("iothub_active_faults", "Faults that are on.", len(hub.faults.list()))
    yield Metric(
        "iothub_clock_ahead_seconds",
        "How far the clock of the hub is ahead of the machine's.",
        hub.clock.ahead,
    )


def _by_protocol(links: Iterable[DeviceLink]) -> dict[str, int]:
    return dict.fromkeys(_PROTOCOLS, 0) | Counter(each.protocol for each in links)


def _counted(counts: Counts) -> Iterator[Metric]:
    """Return what was counted since the start of the process."""
    from emulator.http.admin.prometheus import Metric

    events = counts.events
    yield Metric(
        "iothub_device_to_cloud_messages_total",
        "Messages of devices and modules that were stored.",
        sum(events.values()) - counts.notifications,
    )
    yield Metric(
        "iothub_events_total",
        "Events that were put into the event log: these messages, and events of the hub itself.",
        events,
        "partition",
    )
    yield Metric(
        "iothub_device_connections_total",
        "Connections of devices and modules that began.",
        counts.connections,
    )
    yield Metric(
        "iothub_device_disconnections_total",
        "Connections of devices and modules that ended; DeviceNotOnline: the device closed it.",
        counts.disconnections,
        "reason",
    )
    yield Metric(
        "iothub_cloud_to_device_messages_sent_total",
        "Messages to devices that were queued.",
        counts.commands_sent,
    )
    yield Metric(
        "iothub_cloud_to_device_messages_ended_total",
        "Messages to devices that have left their queue, by the outcome.",
        counts.commands_ended,
        "outcome",
    )
    yield Metric(
        "iothub_direct_methods_in_flight",
        "Direct methods that wait for a device.",
        counts.methods_called - counts.methods_ended.total(),
    )
    yield Metric(
        "iothub_direct_methods_total",
        "Direct methods that were sent and have ended, by the outcome.",
        counts.methods_ended,
        "outcome",
    )
    yield Metric(
        "iothub_twin_writes_total",
        "Writes of twins, by the part that was written.",
        counts.twins,
        "part",
    )
    yield Metric(
        "iothub_identity_changes_total",
        "Devices and modules that were created, updated or deleted.",
        counts.identities,
        "change",
    )
    yield Metric(
        "iothub_refusals_total",
        "Requests, connections and links that were refused, by the error.",
        counts.refusals,
        "error",
    )
