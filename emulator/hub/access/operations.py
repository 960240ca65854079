"""The operations of a hub: what a caller can do, which right it needs, and what throttles it.

Each route and each topic names its operation where it is declared, and the gate reads the rest here
(IoT Hub docs: access control and permissions; quotas and throttling).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from emulator.hub.access.policies import Right


class Throttle(enum.StrEnum):
    """What is counted together; the values are the names that settings use."""

    REGISTRY = "registry"
    D2C_SENDS = "d2c-sends"
    C2D_SENDS = "c2d-sends"
    C2D_RECEIVES = "c2d-receives"
    METHODS = "methods"
    QUERIES = "queries"
    TWIN_READS = "twin-reads"
    TWIN_UPDATES = "twin-updates"
    JOBS = "jobs"
    CONFIGURATIONS = "configurations"


class Rule(NamedTuple):
    """What the gate knows of an operation.

    Args:
        right: what a service's policy must allow; of several rights, one is enough. A device acts
            for itself, and its admission is its right.
        throttle: what it is charged to; None where the docs have no throttle for it.
        name: how a refusal names it. `CRUD` and `ConfigurationWrite` were seen on a real hub, the
            other names are ours.
    """

    right: Right
    throttle: Throttle | None = None
    name: str = ""


class Operation(enum.StrEnum):
    """What a caller does."""

    # Devices and modules, for themselves
    CONNECT = "connect"
    SUBSCRIBE = "subscribe"
    SEND_EVENT = "send-event"
    READ_OWN_TWIN = "read-own-twin"
    REPORT = "report"
    RESPOND_TO_METHOD = "respond-to-method"
    RECEIVE_COMMAND = "receive-command"
    SETTLE_COMMAND = "settle-command"

    # Services
    READ_IDENTITY = "read-identity"
    WRITE_IDENTITY = "write-identity"
    READ_STATISTICS = "read-statistics"
    READ_TWIN = "read-twin"
    UPDATE_TWIN = "update-twin"
    INVOKE_METHOD = "invoke-method"
    QUERY = "query"
    USE_JOB = "use-job"
    READ_TRANSFER = "read-transfer"
    WRITE_TRANSFER = "write-transfer"
    READ_CONFIGURATION = "read-configuration"
    WRITE_CONFIGURATION = "write-configuration"
    SEND_COMMAND = "send-command"
    PURGE_COMMANDS = "purge-commands"
    USE_FEEDBACK = "use-feedback"
    READ_EVENTS = "read-events"


_DEVICE, _SERVICE = Right.DEVICE_CONNECT, Right.SERVICE_CONNECT
_READ, _WRITE = Right.REGISTRY_READ, Right.REGISTRY_WRITE

RULES: Mapping[Operation, Rule] = MappingProxyType(
    {
        Operation.CONNECT: Rule(_DEVICE),
        Operation.SUBSCRIBE: Rule(_DEVICE),
        Operation.SEND_EVENT: Rule(_DEVICE, Throttle.D2C_SENDS, "DeviceToCloudSend"),
        Operation.READ_OWN_TWIN: Rule(_DEVICE, Throttle.TWIN_READS, "TwinRead"),
        Operation.REPORT: Rule(_DEVICE, Throttle.TWIN_UPDATES, "TwinUpdate"),
        Operation.RESPOND_TO_METHOD: Rule(_DEVICE),
        Operation.RECEIVE_COMMAND: Rule(_DEVICE, Throttle.C2D_RECEIVES, "CloudToDeviceReceive"),
        Operation.SETTLE_COMMAND: Rule(_DEVICE),
        Operation.READ_IDENTITY: Rule(_READ, Throttle.REGISTRY, "CRUD"),
        Operation.WRITE_IDENTITY: Rule(_WRITE, Throttle.REGISTRY, "CRUD"),
        # That ServiceConnect is enough is not documented: a query shows it the same counts.
        Operation.READ_STATISTICS: Rule(_READ | _SERVICE, Throttle.REGISTRY, "CRUD"),
        Operation.READ_TWIN: Rule(_SERVICE, Throttle.TWIN_READS, "TwinRead"),
        Operation.UPDATE_TWIN: Rule(_SERVICE, Throttle.TWIN_UPDATES, "TwinUpdate"),
        Operation.INVOKE_METHOD: Rule(_SERVICE, Throttle.METHODS, "DirectMethod"),
        Operation.QUERY: Rule(_SERVICE, Throttle.QUERIES, "Query"),
        Operation.USE_JOB: Rule(_SERVICE, Throttle.JOBS, "Job"),
        Operation.READ_TRANSFER: Rule(_READ, Throttle.JOBS, "Job"),
        Operation.WRITE_TRANSFER: Rule(_WRITE, Throttle.JOBS, "Job"),
        # Which of the two rights a real hub wants is unknown: the docs name both.
        Operation.READ_CONFIGURATION: Rule(
            _READ | _SERVICE, Throttle.CONFIGURATIONS, "ConfigurationRead"
        ),
        Operation.WRITE_CONFIGURATION: Rule(
            _WRITE | _SERVICE, Throttle.CONFIGURATIONS, "ConfigurationWrite"
        ),
        Operation.SEND_COMMAND: Rule(_SERVICE, Throttle.C2D_SENDS, "CloudToDeviceSend"),
        Operation.PURGE_COMMANDS: Rule(_SERVICE),
        Operation.USE_FEEDBACK: Rule(_SERVICE),
        Operation.READ_EVENTS: Rule(_SERVICE),
    }
)
