"""The faults by which the hub refuses an operation, each with the error of a real hub."""

from __future__ import annotations

from collections.abc import Callable

from emulator.hub.access.operations import Operation
from emulator.hub.access.throttles import throttled
from emulator.hub.core import errors
from emulator.hub.faults.fault import Fault
from emulator.hub.faults.faults import Faults
from emulator.hub.identities.identity import IdentityKey

# By the status that a fault names.
_BY_STATUS: dict[int, Callable[[Operation], errors.HubError]] = {
    400: lambda _: errors.ArgumentInvalid(),
    403: lambda _: errors.DeviceModelMaxPropertiesExceeded(),
    412: lambda _: errors.PreconditionFailed(),
    429: throttled,
    500: lambda _: errors.ServerError(),
    502: lambda _: errors.InvalidResponseWhileProxying(),
    503: lambda _: errors.ServiceUnavailable(),
    504: lambda _: errors.GatewayTimeout(),
}
# Where a direct method has another error for a status.
_OF_METHODS: dict[int, Callable[[Operation], errors.HubError]] = {
    403: lambda _: errors.DeviceMaximumInflightMethodExceeded(),
    404: lambda _: errors.DeviceNotOnline(),
}


def refusal(
    faults: Faults, key: IdentityKey | None, operation: Operation, *, connects: bool
) -> errors.HubError | None:
    """Return the error by which a fault refuses an operation, or None if it passes.

    Args:
        faults: the faults.
        key: the identity that sends the request, or that it is about; None for another one.
        operation: the operation.
        connects: whether a device authenticates itself by this request.
    """
    for kind, error in _REFUSALS.items():
        if (connects or kind != "refuse-connection") and (
            fault := faults.match(kind, key, operation)
        ):
            return error(fault, operation, connects)
    return None


def method_error(status: int) -> errors.HubError:
    """Return the error of a direct method for a status."""
    return (_OF_METHODS.get(status) or _BY_STATUS[status])(Operation.INVOKE_METHOD)


def _throttled(fault: Fault, operation: Operation, _: bool) -> errors.HubError:
    error = throttled(operation)
    error.delay = fault.delay
    return error


def _expired(_: Fault, __: Operation, connects: bool) -> errors.HubError:
    return errors.IotHubUnauthorizedAccess() if connects else errors.IotHubUnauthorized()


# The first that happens is the answer.
_REFUSALS: dict[str, Callable[[Fault, Operation, bool], errors.HubError]] = {
    "drop-connection": lambda *_: errors.ConnectionForcefullyClosedOnFaultInjection(),
    "refuse-connection": lambda *_: errors.ServiceUnavailable(),
    "expire-token": _expired,
    "twin-status": lambda fault, operation, _: _BY_STATUS[fault.status](operation),
    "throttle": _throttled,
    "quota-exceeded": lambda *_: errors.IotHubQuotaExceeded(),
    "server-error": lambda *_: errors.ServerError(),
    "service-unavailable": lambda *_: errors.ServiceUnavailable(),
}
