"""Device scopes: which IoT Edge device is whose parent (IoT Hub docs: IoT Edge as a gateway).

An IoT Edge device has a scope of its own, which the hub makes. A child names its parent's: a leaf
device as its device scope, an IoT Edge device as its parent scope. All of it was seen on a real hub
unless it says otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid, InvalidDeviceScope
from emulator.hub.core.json import JsonObject

_PREFIX = "ms-azure-iot-edge://"


class Scopes(NamedTuple):
    """The scopes of a device.

    Args:
        device: an IoT Edge device's own; a leaf device's parent's, None if it has no parent.
        parents: that of its parent; empty if it has none.
    """

    device: str | None = None
    parents: tuple[str, ...] = ()


NO_SCOPES = Scopes()


def asked(body: JsonObject) -> Scopes:
    """Read what a request wants the scopes to be: `deviceScope`, `parentScopes`; "" is none.

    Raises:
        ArgumentInvalid: one is no text, or there are several parents.
    """
    device, parents = members.text(body, "deviceScope"), body.get("parentScopes")
    parents = [] if parents is None else parents
    if not isinstance(parents, list) or not all(isinstance(each, str) for each in parents):
        raise ArgumentInvalid("parentScopes is not an array of strings")
    if len(parents) > 1:
        raise ArgumentInvalid("A device has one parent at most")
    return Scopes(device or None, tuple(each for each in parents if each))


def of_new_device(device_id: str, generation_id: str, wish: Scopes, *, iot_edge: bool) -> Scopes:
    """Give a new device its scopes.

    What an IoT Edge device wishes its own to be is ignored, and so are a leaf's parent scopes.
    """
    if iot_edge:
        return Scopes(f"{_PREFIX}{device_id}-{generation_id}", wish.parents)
    return _of_leaf(wish)


def of_updated_device(
    device_id: str, before: Scopes, wish: Scopes, *, was_edge: bool, iot_edge: bool
) -> Scopes:
    """Give a device the scopes that it has after an update, which replaces everything.

    Raises:
        ArgumentInvalid: an IoT Edge device doesn't repeat its own scope.
        InvalidDeviceScope: a leaf that becomes an IoT Edge device asks for a scope. A real hub
            answers 503 to that, which clients would try again, to no avail.
    """
    if was_edge and iot_edge:
        if wish.device != before.device:
            raise ArgumentInvalid("Device scope is immutable")
        return Scopes(before.device, wish.parents)
    if was_edge:
        return NO_SCOPES  # its parent takes another write
    if iot_edge:
        if wish.device is not None:
            raise InvalidDeviceScope(f"The device scope of {device_id} is made by the hub")
        return Scopes(f"{_PREFIX}{device_id}-", wish.parents)  # without the generation
    return _of_leaf(wish)


def device_of(scope: str) -> str:
    """Name the IoT Edge device that a scope would be of."""
    return scope.removeprefix(_PREFIX).rpartition("-")[0]


def _of_leaf(wish: Scopes) -> Scopes:
    return Scopes(wish.device, () if wish.device is None else (wish.device,))
