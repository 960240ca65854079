"""Every node of the hub."""

from __future__ import annotations

from emulator.amqp import cbs
from emulator.amqp.nodes import device_commands, device_methods, device_telemetry, device_twins
from emulator.amqp.nodes.node import AnyNode

_DEVICES = (device_telemetry, device_commands, device_methods, device_twins)

_FAMILIES = (cbs, *_DEVICES)

NODES: tuple[AnyNode, ...] = tuple(node for family in _FAMILIES for node in family.NODES)
