"""Errors as the REST API writes them: in one of four forms, which the route chooses."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime

from emulator.hub.core import errors
from emulator.hub.core.json import JsonObject, dumps

ErrorForm = Callable[[errors.HubError, datetime], JsonObject]


def message_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the usual form (seen on a real hub).

    Returns:
        `{"Message": "ErrorCode:<name>;<text>", "ExceptionMessage": "Tracking ID:…"}`; Node's SDK
        needs both parts of `Message` to be non-empty.
    """
    tracking = f"{secrets.token_hex(16)}-G:0-TimeStamp:{now:%m/%d/%Y %H:%M:%S}"
    return {
        "Message": f"ErrorCode:{error.name};{errors.error_text(error)}",
        "ExceptionMessage": f"Tracking ID:{tracking}",
    }


def twin_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of twins: the usual one, but its tracking id names no gateway (seen on a real
    hub).
    """
    body = message_body(error, now)
    return {**body, "ExceptionMessage": body["ExceptionMessage"].replace("-G:0-", "-")}


def nested_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of direct methods: the error's document, as text within the usual form.

    Returns:
        `{"Message": "<document as JSON text>", "ExceptionMessage": ""}` (seen on a real hub)
    """
    return {"Message": dumps(errors.error_document(error, now)).decode(), "ExceptionMessage": ""}


def module_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of module identities: the error's document (seen on a real hub).

    That the module's device can't be used is written in the nested form.
    """
    form = (
        nested_body if isinstance(error, errors.IotHubUnauthorizedAccess) else errors.error_document
    )
    return form(error, now)
