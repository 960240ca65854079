"""Shared access policies and their rights (IoT Hub docs: control access with SAS)."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from msgspec import Struct

from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.core.store import Key


class Right(enum.Flag):
    """A right of a shared access policy (IoT Hub docs: access control and permissions)."""

    REGISTRY_READ = enum.auto()
    REGISTRY_WRITE = enum.auto()
    SERVICE_CONNECT = enum.auto()
    DEVICE_CONNECT = enum.auto()
    # Of the Device Provisioning Service (DPS docs: control access)
    SERVICE_CONFIG = enum.auto()
    ENROLLMENT_READ = enum.auto()
    ENROLLMENT_WRITE = enum.auto()
    REGISTRATION_STATUS_READ = enum.auto()
    REGISTRATION_STATUS_WRITE = enum.auto()


OF_THE_HUB = (
    Right.REGISTRY_READ | Right.REGISTRY_WRITE | Right.SERVICE_CONNECT | Right.DEVICE_CONNECT
)
OF_PROVISIONING = ~OF_THE_HUB

# The policies of every new hub (IoT Hub docs: access control and permissions).
DEFAULT_RIGHTS: Mapping[str, Right] = {
    "iothubowner": OF_THE_HUB,
    "service": Right.SERVICE_CONNECT,
    "device": Right.DEVICE_CONNECT,
    "registryRead": Right.REGISTRY_READ,
    "registryReadWrite": Right.REGISTRY_READ | Right.REGISTRY_WRITE,
}

# The policy of a new Device Provisioning Service (DPS docs: control access).
PROVISIONING_RIGHTS: Mapping[str, Right] = {"provisioningserviceowner": OF_PROVISIONING}


class PolicyKeys(Struct, frozen=True):
    """The keys of a policy, as a store has them; its rights are those of the settings."""

    name: str
    keys: SymmetricKeys

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return (self.name,)


class Policy(Struct, frozen=True):
    """A shared access policy: a caller with one of its keys has its rights."""

    name: str
    rights: Right
    keys: SymmetricKeys

    def allows(self, right: Right) -> bool:
        """Return whether it has this right; of several rights, one is enough."""
        # With the values, because the operator of Flag creates a new Flag each time.
        return self.rights.value & right.value != 0
