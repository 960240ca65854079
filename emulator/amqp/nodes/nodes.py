"""Every node of the hub."""

from __future__ import annotations

from emulator.amqp import cbs
from emulator.amqp.nodes import events, management
from emulator.amqp.nodes.node import AnyNode

_FAMILIES = (cbs, events, management)

NODES: tuple[AnyNode, ...] = tuple(node for family in _FAMILIES for node in family.NODES)
