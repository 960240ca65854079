"""What every request at the service passes: faults that are on, and the throttles."""

from __future__ import annotations

from emulator.hub.access.operations import Operation
from emulator.hub.faults.fault import Fault
from emulator.hub.faults.refusals import refusal
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey


class Meter:
    """Refuses requests, and counts them.

    Args:
        hub: the hub whose faults and throttles count.
    """

    def __init__(self, hub: IotHub) -> None:
        self._faults = hub.faults
        self._throttles = hub.gate.throttles

    def enter(self, operation: Operation, registration_id: str = "") -> None:
        """Count a request whose credentials are right.

        Args:
            operation: the operation.
            registration_id: the device that it is about; "" for other requests of services.

        Raises:
            ThrottlingException: the throttle of the operation is used up.
            HubError: a fault refuses the request.
        """
        key = IdentityKey(registration_id) if registration_id else None
        if self._faults.active and (error := refusal(self._faults, key, operation, connects=False)):
            raise error
        self._throttles.charge(operation, device=registration_id.lower())

    def fault(self, kind: str, registration_id: str) -> Fault | None:
        """Return the fault of a kind that happens to a device now."""
        if not self._faults.active:
            return None
        return self._faults.match(kind, IdentityKey(registration_id))
