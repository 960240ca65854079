"""The error of AMQP: a condition with a text, as a peer gets it. Section numbers: AMQP 1.0."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any


class Condition(enum.StrEnum):
    """The conditions that the standard names (sections 2.8.15 to 2.8.18), where they are used."""

    INTERNAL_ERROR = "amqp:internal-error"
    NOT_FOUND = "amqp:not-found"
    UNAUTHORIZED_ACCESS = "amqp:unauthorized-access"
    DECODE_ERROR = "amqp:decode-error"
    RESOURCE_LIMIT_EXCEEDED = "amqp:resource-limit-exceeded"
    NOT_ALLOWED = "amqp:not-allowed"
    INVALID_FIELD = "amqp:invalid-field"
    NOT_IMPLEMENTED = "amqp:not-implemented"
    ILLEGAL_STATE = "amqp:illegal-state"
    CONNECTION_FORCED = "amqp:connection:forced"
    FRAMING_ERROR = "amqp:connection:framing-error"
    WINDOW_VIOLATION = "amqp:session:window-violation"
    HANDLE_IN_USE = "amqp:session:handle-in-use"
    UNATTACHED_HANDLE = "amqp:session:unattached-handle"
    TRANSFER_LIMIT_EXCEEDED = "amqp:link:transfer-limit-exceeded"
    MESSAGE_SIZE_EXCEEDED = "amqp:link:message-size-exceeded"
    REDIRECT = "amqp:link:redirect"
    STOLEN = "amqp:link:stolen"


class AmqpError(Exception):
    """An error with a condition, for a delivery, a link, a session or a connection.

    Args:
        condition: a symbol, of the standard or of a service such as `com.microsoft:timeout`.
        description: what is wrong, for people.
        info: more, by symbol.
    """

    def __init__(
        self, condition: str, description: str = "", info: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = str(condition)
        self.description = description
        self.info = info


class DecodeError(AmqpError):
    """Bytes are not a value of AMQP, or not the value that is needed here."""

    def __init__(self, description: str) -> None:
        super().__init__(Condition.DECODE_ERROR, description)


class UnknownHeader(AmqpError):  # noqa: N818 - what it is
    """A connection begins with another protocol header than one of AMQP 1.0 (section 2.2)."""

    def __init__(self, header: bytes) -> None:
        super().__init__(Condition.FRAMING_ERROR, f"Unknown protocol header {header!r}")
        self.header = header
