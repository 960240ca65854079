"""Every node of the hub."""

from __future__ import annotations

from emulator.amqp import cbs
from emulator.amqp.nodes import commands, events, feedback, management
from emulator.amqp.nodes.node import AnyNode

_FAMILIES = (cbs, commands, feedback, events, management)

NODES: tuple[AnyNode, ...] = tuple(node for family in _FAMILIES for node in family.NODES)
