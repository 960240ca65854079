"""The Device Provisioning Service: its parts, built in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from emulator.dps import certificates
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
        authorities: PEM files of the CAs that enrollments can refer to.
    """

    def __init__(
        self,
        hub: IotHub,
        policies: Mapping[str, Policy],
        *,
        id_scope: str,
        hosts: Collection[str],
        linked: str,
        authorities: Sequence[Path],
    ) -> None:
        store = hub.store
        self.clock = hub.clock
        self.meter = Meter(hub)
        self.access = Access(store, policies, hosts, id_scope, _by_name(authorities), hub.clock)
        self.enrollments = Enrollments(store, hub.clock, hub.slices)
        assignments = Assignments(hub.identities, {*hosts, linked})
        self.registrations = Registrations(
            store, self.access, assignments, hub.clock, linked, hub.refusals, self.meter
        )


def _by_name(files: Sequence[Path]) -> Mapping[str, Sequence[bytes]]:
    """Return CAs by the names of enrollments: the name of the file, or the subject's common name.

    On a real service the owner chooses the name with the upload of a CA.
    """
    found: dict[str, list[bytes]] = {}
    for file in files:
        for each in x509.load_pem_x509_certificates(file.read_bytes()):
            names = {file.stem, certificates.common_name(each.subject)}
            for name in names - {None}:
                found.setdefault(str(name), []).append(each.public_bytes(Encoding.DER))
    return found
