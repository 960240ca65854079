"""The errors of the Device Provisioning Service that a hub does not have.

The service has codes of its own. Those of a missing enrollment or group and of a certificate were
seen on the real service, and 400208 stands in the SDK for C. The other numbers follow their order:
the real ones are unknown.
"""

from __future__ import annotations

from emulator.hub.core.errors import HubError

_TOO_MANY_REQUESTS = 429


def is_transient(error: HubError) -> bool:
    """Return whether a device tries again: then it is told when (the SDKs for C# and Node)."""
    return error.status >= _TOO_MANY_REQUESTS


class CustomAllocationFailed(HubError, code=400207):
    """The webhook of a custom allocation failed."""


class NoHub(HubError, code=400208):
    """The allocation found no hub."""

    text = "The custom allocation names no IoT hub."


class HubRefused(HubError, code=400209):
    """The hub refused the device."""


class Unauthorized(HubError, code=401000):
    """The credentials of a device are missing or wrong, or its enrollment is unknown."""

    text = "Unauthorized"


class InvalidCertificate(HubError, code=401002):
    """No enrollment accepts the certificate of a device."""

    text = "Invalid certificate."


class UnverifiedAuthority(InvalidCertificate, code=401002):
    """The CA of a device is registered, and its owner has not proved to have its key.

    The registration of the device fails, with this text (seen on the service).
    """

    text = "Invalid certificate"


class TpmChallenge(Unauthorized, code=401000):
    """A device with a TPM sends no token yet: it gets the key for one, sealed for its TPM.

    Args:
        sealed: the key.
    """

    def __init__(self, sealed: bytes) -> None:
        super().__init__()
        self.sealed = sealed


class EnrollmentNotFound(HubError, code=404201):
    """The individual enrollment is unknown."""

    text = "Enrollment not found."


class EnrollmentGroupNotFound(HubError, code=404202):
    """The enrollment group is unknown."""

    text = "Enrollment group not found."


class RegistrationNotFound(HubError, code=404203):
    """The device has not registered."""

    text = "Device registration not found."


class OperationNotFound(HubError, code=404204):
    """The registration has no operation of this id."""

    text = "Operation not found."


class EnrollmentAlreadyExists(HubError, code=409201):
    """A new individual enrollment has the id of an existing one."""

    text = "Enrollment already exists."


class EnrollmentGroupAlreadyExists(HubError, code=409202):
    """A new enrollment group has the id of an existing one."""

    text = "Enrollment group already exists."


class StaleEtag(HubError, code=412201):
    """The etag of an enrollment or of a registration is stale."""

    text = "ETag is invalid."
