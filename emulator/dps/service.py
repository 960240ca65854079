"""The Device Provisioning Service: its parts, built in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from emulator.dps.access import Access
from emulator.dps.assignment import Assignments
from emulator.dps.enrollments import Enrollments
from emulator.dps.meter import Meter
from emulator.dps.registrations import Registrations
from emulator.hub.access.policies import Policy
from emulator.hub.hub import IotHub


class ProvisioningService:
    """A service with one linked hub.

    Args:
        hub: the hub.
        policies: the shared access policies by name.
        id_scope: its id scope.
        hosts: the names of the service and of the hub.
        linked: the host name of the hub, as devices are told.
    """

    def __init__(
        self,
        hub: IotHub,
        policies: Mapping[str, Policy],
        *,
        id_scope: str,
        hosts: Collection[str],
        linked: str,
    ) -> None:
        store = hub.store
        self.clock = hub.clock
        self.meter = Meter(hub)
        self.access = Access(
            store,
            policies,
            hosts,
            id_scope,
            hub.authorities,
            hub.token_time,
            hub.clock.machine,
        )
        self.enrollments = Enrollments(store, hub.feed, hub.clock, hub.slices)
        assignments = Assignments(hub.identities, {*hosts, linked})
        self.registrations = Registrations(
            store,
            self.access,
            assignments,
            hub.feed,
            hub.clock,
            linked,
            hub.refusals,
            self.meter,
            hub.turns,
        )
