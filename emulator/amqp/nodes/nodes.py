"""Every node of the hub."""

from __future__ import annotations

from emulator.amqp import cbs
from emulator.amqp.nodes import (
    commands,
    device_commands,
    device_methods,
    device_telemetry,
    device_twins,
    events,
    feedback,
    file_notifications,
    management,
)
from emulator.amqp.nodes.node import AnyNode

_SERVICES = (cbs, commands, feedback, file_notifications, events, management)
_DEVICES = (device_telemetry, device_commands, device_methods, device_twins)

NODES: tuple[AnyNode, ...] = tuple(
    node for family in (*_SERVICES, *_DEVICES) for node in family.NODES
)
