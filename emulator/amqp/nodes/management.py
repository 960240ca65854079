"""`$management`: what the built-in endpoint is, for its readers; and the way there from the hub.

The operation is READ (AMQP management, working draft 15); members and types are those that
azure-eventhub and @azure/event-hubs read.
"""

from __future__ import annotations

from typing import Any

from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.incoming import IncomingLink
from emulator.amqp.message import Message
from emulator.amqp.nodes.event_messages import last_enqueued
from emulator.amqp.nodes.messages import timestamp
from emulator.amqp.nodes.node import Callers, LinkRequest, Receives, Sends
from emulator.amqp.nodes.requests import Reply, request_nodes
from emulator.amqp.types import Array, Int
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import AmqpAddressNotFound, ArgumentInvalid
from emulator.hub.hub import IotHub
from emulator.hub.messages.event_log import ENTITY

_HUB, _PARTITION = "com.microsoft:eventhub", "com.microsoft:partition"


def _read(request: LinkRequest[IncomingLink], message: Message) -> Reply:
    properties = message.application_properties
    if properties.get("operation") != "READ":
        raise ArgumentInvalid("Unknown operation. $management has the operation READ.")
    name, kind = properties.get("name"), properties.get("type")
    if not isinstance(name, str) or name.lower() != ENTITY:
        raise AmqpAddressNotFound(
            f"The messaging entity '{str(name)[:100]}' could not be found. It is {ENTITY}."
        )
    if kind == _HUB:
        return Reply(_hub(request.hub))
    if kind == _PARTITION:
        return Reply(_partition(request.hub, str(properties.get("partition"))))
    raise ArgumentInvalid(f"Unknown type. Use {_HUB} or {_PARTITION}.")


def _hub(hub: IotHub) -> dict[str, Any]:
    ids = [each.id for each in hub.events.partitions]
    return {
        "name": ENTITY,
        "type": _HUB,
        "created_at": timestamp(hub.events.created),
        "partition_count": Int(len(ids)),
        "partition_ids": Array(str, ids),
        "georeplication_factor": Int(1),
    }


def _partition(hub: IotHub, partition_id: str) -> dict[str, Any]:
    partition = hub.events.find_partition(partition_id)
    if partition is None:
        raise AmqpAddressNotFound(f"Unknown partition '{partition_id[:100]}'.")
    return {
        "name": ENTITY,
        "type": _PARTITION,
        "partition": partition.id,
        "begin_sequence_number": partition.begin,
        **last_enqueued(partition),
        "is_partition_empty": partition.begin == partition.end,
    }


def _redirect(request: LinkRequest[Any]) -> None:
    """Send a reader to the endpoint, as a real hub does (Azure CLI; IoT Hub docs: AMQP support)."""
    name, path = _without_port(request.client.host), "/".join(request.resource[2:])
    port = request.client.tls_port
    host = f"[{name}]" if ":" in name else name
    address = f"amqps://{host}:{port}/{ENTITY}"
    raise AmqpError(
        Condition.REDIRECT,
        f"Use the Event Hubs-compatible endpoint {ENTITY}.",
        {
            "hostname": name,
            "network-host": name,
            "port": Int(port),
            "address": f"{address}/{path}" if path else address,
        },
    )


def _without_port(host: str) -> str:
    """Return the name or the address in `name:port`, `[::1]:port`, `[::1]` or `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


_AT_THE_HUB = (
    "/messages/events",
    "/messages/events/$management",
    "/messages/events/ConsumerGroups/{group}/Partitions/{partition}",
)

NODES = (
    *request_nodes(
        "/$management", Operation.READ_EVENTS, _read, Callers.EVENT_HUBS, (ENTITY, "$management")
    ),
    *(
        kind(path, Operation.READ_EVENTS, _redirect)
        for path in _AT_THE_HUB
        for kind in (Sends, Receives)
    ),
)
