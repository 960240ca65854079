"""Requests for scheduled jobs, for their tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
REBOOT = {"methodName": "reboot", "payload": {"delay": 1.0}}
METHOD: dict[str, Any] = {
    "jobId": "j",
    "type": "scheduleDeviceMethod",
    "cloudToDeviceMethod": REBOOT,
    "queryCondition": "*",
}
PATCH = {"etag": "*", "tags": {"a": 1}, "properties": {"desired": {"b": 2}}}
TWIN: dict[str, Any] = {
    "jobId": "j",
    "type": "scheduleUpdateTwin",
    "updateTwin": PATCH,
    "queryCondition": "*",
}


def later(**time: float) -> str:
    """Return a time after the start of a test, as a request has it."""
    return (NOW + timedelta(**time)).isoformat()
