"""Shared access policies, and the rights that they give (IoT Hub docs: control access with SAS)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from emulator.hub.access.keys import SymmetricKeys


class Right(enum.Flag):
    """What a shared access policy can allow (IoT Hub docs: access control and permissions)."""

    REGISTRY_READ = enum.auto()
    REGISTRY_WRITE = enum.auto()
    SERVICE_CONNECT = enum.auto()
    DEVICE_CONNECT = enum.auto()


# The policies that every hub has from the start (IoT Hub docs: access control and permissions).
DEFAULT_RIGHTS: Mapping[str, Right] = MappingProxyType(
    {
        "iothubowner": (
            Right.REGISTRY_READ
            | Right.REGISTRY_WRITE
            | Right.SERVICE_CONNECT
            | Right.DEVICE_CONNECT
        ),
        "service": Right.SERVICE_CONNECT,
        "device": Right.DEVICE_CONNECT,
        "registryRead": Right.REGISTRY_READ,
        "registryReadWrite": Right.REGISTRY_READ | Right.REGISTRY_WRITE,
    }
)


class Policy(Struct, frozen=True):
    """A shared access policy: whoever has one of its keys has its rights."""

    name: str
    rights: Right
    keys: SymmetricKeys

    def allows(self, right: Right) -> bool:
        """Whether it has this right; of several, one will do."""
        # On the values: the operator of Flag makes a new Flag each time.
        return self.rights.value & right.value != 0
