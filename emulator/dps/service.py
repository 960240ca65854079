"""The Device Provisioning Service: its parts, built in order."""

from __future__ import annotations

from collections.abc import Collection

from emulator.dps.access import Access
from emulator.dps.assignment import Assignments
from emulator.dps.enrollments import Enrollments
from emulator.dps.registrations import Registrations
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.hub import IotHub


class ProvisioningService:
    """A service with one linked hub.

    Args:
        hub: the hub.
        keys: the keys of its policy.
        id_scope: its id scope.
        hosts: the names of the service and of the hub.
        linked: the host name of the hub, as devices are told.
    """

    def __init__(
        self,
        hub: IotHub,
        keys: SymmetricKeys,
        *,
        id_scope: str,
        hosts: Collection[str],
        linked: str,
    ) -> None:
        store = hub.store
        self.clock = hub.clock
        self.access = Access(store, keys, hosts, id_scope, hub.authorities, hub.clock)
        self.enrollments = Enrollments(store, hub.clock, hub.slices)
        assignments = Assignments(hub.identities, {*hosts, linked})
        self.registrations = Registrations(
            store, self.access, assignments, hub.clock, linked, hub.refusals
        )
