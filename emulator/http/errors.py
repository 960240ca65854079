"""The bodies of errors in the REST API: four forms, and each route has one of them."""

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
    """Return the form of twins: the tracking id has no gateway (seen on a real hub)."""
    body = message_body(error, now)
    return {**body, "ExceptionMessage": body["ExceptionMessage"].replace("-G:0-", "-")}


def nested_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of direct methods: the document of the error, as text in the usual form.

    Returns:
        `{"Message": "<document as JSON text>", "ExceptionMessage": ""}` (seen on a real hub)
    """
    return {"Message": dumps(errors.error_document(error, now)).decode(), "ExceptionMessage": ""}


def module_body(error: errors.HubError, now: datetime) -> JsonObject:
    """Return the form of module identities: the document of the error (seen on a real hub).

    If the device of the module is missing or disabled, the form is nested.
    """
    if isinstance(error, errors.IotHubUnauthorizedAccess):
        return nested_body(error, now)
    return errors.error_document(error, now)
