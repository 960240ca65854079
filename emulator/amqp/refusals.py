"""The hub's errors as AMQP's: a condition, a text and an info map."""

from __future__ import annotations

from datetime import datetime

from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.types import Int
from emulator.hub.core import errors
from emulator.hub.core.errors import HubError, error_document
from emulator.hub.core.json import dumps

# Where the condition is not that of the status (C# SDK: AmqpErrorMapper).
_BY_ERROR: dict[type[HubError], str] = {
    errors.DeviceMaximumQueueDepthExceeded: Condition.RESOURCE_LIMIT_EXCEEDED,
    errors.DeviceMaximumQueueSizeExceeded: Condition.RESOURCE_LIMIT_EXCEEDED,
    errors.InvalidMessageExpiryTime: "com.microsoft:argument-error",
    errors.DeviceMessageLockLost: "com.microsoft:message-lock-lost",
    errors.IotHubQuotaExceeded: "com.microsoft:quota-exceeded",
    errors.ConnectionForcefullyClosedOnFaultInjection: Condition.CONNECTION_FORCED,
    errors.DeviceAlreadyExists: "com.microsoft:device-already-exists",
    errors.ConnectionForcefullyClosedOnNewConnection: Condition.STOLEN,
}
_BY_STATUS: dict[int, str] = {
    400: "com.microsoft:argument-error",
    401: Condition.UNAUTHORIZED_ACCESS,
    403: Condition.NOT_ALLOWED,
    404: Condition.NOT_FOUND,
    405: Condition.NOT_ALLOWED,
    412: "com.microsoft:precondition-failed",
    413: Condition.MESSAGE_SIZE_EXCEEDED,
    429: "com.microsoft:device-container-throttled",
    503: Condition.CONNECTION_FORCED,
    504: "com.microsoft:timeout",
}


def amqp_error(error: HubError, now: datetime) -> AmqpError:
    """Return an error of the hub as AMQP has it (C# SDK: AmqpErrorMapper; logs of issues)."""
    condition = _BY_ERROR.get(type(error)) or _BY_STATUS.get(error.status, Condition.INTERNAL_ERROR)
    document = error_document(error, now)
    info = {
        "com.microsoft:tracking-id": document["trackingId"],
        "com.microsoft:error-code": Int(error.code),
    }
    return AmqpError(condition, dumps(document).decode(), info)
