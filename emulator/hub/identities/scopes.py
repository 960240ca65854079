"""Device scopes: the parents of devices (IoT Hub docs: IoT Edge as a gateway).

The hub creates a scope for each IoT Edge device. A child has the scope of its parent: a leaf device
as its device scope, an IoT Edge device as its parent scope. The rules were seen on a real hub, if
the text does not say otherwise.
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
        device: the own scope of an IoT Edge device; the parent's scope of a leaf device, None if it
            has no parent.
        parents: the scope of its parent; empty without a parent.
    """

    device: str | None = None
    parents: tuple[str, ...] = ()


NO_SCOPES = Scopes()


def asked(body: JsonObject) -> Scopes:
    """Parse the scopes in a request: `deviceScope`, `parentScopes`; "" counts as missing.

    Raises:
        ArgumentInvalid: a scope is not a string, or there are several parents.
    """
    device, parents = members.text(body, "deviceScope"), body.get("parentScopes")
    parents = [] if parents is None else parents
    if not isinstance(parents, list) or not all(isinstance(each, str) for each in parents):
        raise ArgumentInvalid("parentScopes is not an array of strings")
    if len(parents) > 1:
        raise ArgumentInvalid(f"parentScopes has {len(parents)} scopes. One parent is allowed")
    return Scopes(device or None, tuple(each for each in parents if each))


def of_new_device(
    device_id: str, generation_id: str, requested: Scopes, *, iot_edge: bool
) -> Scopes:
    """Return the scopes of a new device.

    The requested device scope of an IoT Edge device is ignored, and so are the requested parent
    scopes of a leaf device.
    """
    if iot_edge:
        return Scopes(f"{_PREFIX}{device_id}-{generation_id}", requested.parents)
    return _of_leaf(requested)


def of_updated_device(
    device_id: str, before: Scopes, requested: Scopes, *, was_edge: bool, iot_edge: bool
) -> Scopes:
    """Return the scopes of a device after an update, which replaces everything.

    Raises:
        ArgumentInvalid: the request for an IoT Edge device does not repeat its own scope.
        InvalidDeviceScope: a leaf device becomes an IoT Edge device, and the request has a scope. A
            real hub answers 503, and then clients repeat the request without an effect.
    """
    if was_edge and iot_edge:
        if requested.device != before.device:
            raise ArgumentInvalid("Device scope is immutable")
        return Scopes(before.device, requested.parents)
    if was_edge:
        return NO_SCOPES  # a parent needs another update
    if iot_edge:
        if requested.device is not None:
            raise InvalidDeviceScope(f"The hub creates the scope of {device_id}. Leave it out")
        return Scopes(f"{_PREFIX}{device_id}-", requested.parents)  # without the generation
    return _of_leaf(requested)


def device_of(scope: str) -> str:
    """Return the id of the IoT Edge device in a scope."""
    return scope.removeprefix(_PREFIX).rpartition("-")[0]


def _of_leaf(requested: Scopes) -> Scopes:
    return Scopes(requested.device, () if requested.device is None else (requested.device,))
