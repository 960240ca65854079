"""Assignment: what a registration writes in a hub (DPS docs: reprovisioning)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import NamedTuple

from emulator.dps.allocation import Allocation
from emulator.dps.enrollment import Enrollment
from emulator.dps.errors import HubRefused
from emulator.dps.registration import INITIAL, MIGRATED, RESET, Registration
from emulator.hub.core.errors import DeviceNotFound, HubError
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry.identities import Identities

_ANY = IfMatch("*")


class Assigned(NamedTuple):
    """Where a device is now, and how it came there."""

    hub: str
    device_id: str
    substatus: str


class Assignments:
    """Assigns devices to hubs.

    Args:
        identities: the identities of the hub that is linked with the service.
        hosts: the names of this hub. An assignment to another host writes nothing there.
    """

    def __init__(self, identities: Identities, hosts: Collection[str]) -> None:
        self._identities = identities
        self._hosts = {host.lower() for host in hosts}

    def assign(
        self,
        registration_id: str,
        found: Enrollment,
        authentication: JsonObject,
        allocation: Allocation,
        before: Registration | None,
    ) -> Assigned:
        """Assign a device: create its identity in the hub, or update it.

        Args:
            registration_id: the id of the device.
            found: its enrollment.
            authentication: how it authenticates at the hub.
            allocation: the hub that was chosen for it.
            before: its registration until now; None if it has none.

        Raises:
            HubRefused: the hub did not accept it.
        """
        device_id = found.device_id or registration_id
        if before is None or before.hub is None or before.device_id is None:
            self._write(allocation.hub, device_id, found, authentication, allocation, reset=True)
            return Assigned(allocation.hub, device_id, INITIAL)
        substatus = before.substatus or INITIAL
        if not found.update_assignment:
            hub, device_id = before.hub, before.device_id
            self._write(hub, device_id, found, authentication, allocation, reset=False)
            return Assigned(hub, device_id, substatus)
        moved = before.hub.lower() != allocation.hub.lower()
        if moved:
            substatus = MIGRATED if found.migrate_data else RESET
        self._write(
            allocation.hub,
            device_id,
            found,
            authentication,
            allocation,
            reset=moved and not found.migrate_data,
        )
        if moved and self._is_here(before.hub) and not self._is_here(allocation.hub):
            self._remove(before.device_id)
        return Assigned(allocation.hub, device_id, substatus)

    def _is_here(self, hub: str) -> bool:
        return hub.lower() in self._hosts

    def _write(
        self,
        hub: str,
        device_id: str,
        found: Enrollment,
        authentication: JsonObject,
        allocation: Allocation,
        *,
        reset: bool,
    ) -> None:
        """Write an identity; a new one has the initial twin, one that exists only with `reset`."""
        if not self._is_here(hub):
            return
        key, twin = IdentityKey(device_id), allocation.initial_twin
        credentials: JsonObject = {"deviceId": device_id, "authentication": authentication}
        if found.iot_edge:  # else a device of the hub stays what it is
            credentials["capabilities"] = {"iotEdge": True}
        try:
            if self._identities.has(key):
                body = {**self._identities.get(key), **credentials}
                self._identities.update(key, body, _ANY, twin=twin if reset else None)
            else:
                self._identities.create(key, credentials, twin=twin)
        except HubError as error:
            raise HubRefused(f"ErrorCode:{error.name};{error.text}") from error

    def _remove(self, device_id: str) -> None:
        """Delete the identity of a device that has moved away."""
        with contextlib.suppress(DeviceNotFound):  # a service has deleted it before
            self._identities.delete(IdentityKey(device_id), _ANY)
