"""The kinds of events that are not telemetry (IoT Hub docs: message routing)."""

from __future__ import annotations

from collections.abc import Mapping

TWIN_CHANGES = "twinChangeEvents"
LIFECYCLE = "deviceLifecycleEvents"
CONNECTIONS = "deviceConnectionStateEvents"
JOBS = "deviceJobLifecycleEvents"
DIGITAL_TWIN_CHANGES = "digitalTwinChangeEvents"
SCHEMAS: Mapping[str, str] = {
    TWIN_CHANGES: "twinChangeNotification",
    LIFECYCLE: "deviceLifecycleNotification",
    CONNECTIONS: "deviceConnectionStateNotification",
    JOBS: "deviceJobLifecycleNotification",  # ours: not seen on a real hub
    DIGITAL_TWIN_CHANGES: "digitalTwinChangeNotification",
}
"""Of each kind, the value of `iothub-message-schema`."""

SOURCES = tuple(SCHEMAS)
"""The kinds of events, by their names in a message route."""
