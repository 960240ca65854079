"""The operations of a hub, each with the right that it needs and the throttle that counts it.

Each route and each topic names its operation where it is declared (IoT Hub docs: access control and
permissions; quotas and throttling).
"""

from __future__ import annotations

import enum

from emulator.hub.access.policies import Right


class Throttle(enum.StrEnum):
    """A counter of operations; the values are the names in settings."""

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


_DEVICE, _SERVICE = Right.DEVICE_CONNECT, Right.SERVICE_CONNECT
_READ, _WRITE = Right.REGISTRY_READ, Right.REGISTRY_WRITE


class Operation(enum.Enum):
    """An operation of a device or of a service.

    Attributes:
        right: the right that a service's policy needs; of several rights, one is enough. A device
            needs no right for its own operations.
        throttle: the throttle that counts it; None if the docs have no throttle for it.
        title: its name in a refusal. `CRUD` and `ConfigurationWrite` were seen on a real hub, the
            other names are ours.
    """

    right: Right
    throttle: Throttle | None
    title: str

    # Devices and modules, for themselves
    CONNECT = "connect", _DEVICE
    SUBSCRIBE = "subscribe", _DEVICE
    SEND_EVENT = "send-event", _DEVICE, Throttle.D2C_SENDS, "DeviceToCloudSend"
    READ_OWN_TWIN = "read-own-twin", _DEVICE, Throttle.TWIN_READS, "TwinRead"
    REPORT = "report", _DEVICE, Throttle.TWIN_UPDATES, "TwinUpdate"
    RESPOND_TO_METHOD = "respond-to-method", _DEVICE
    RECEIVE_COMMAND = "receive-command", _DEVICE, Throttle.C2D_RECEIVES, "CloudToDeviceReceive"
    SETTLE_COMMAND = "settle-command", _DEVICE

    # Services
    READ_IDENTITY = "read-identity", _READ, Throttle.REGISTRY, "CRUD"
    WRITE_IDENTITY = "write-identity", _WRITE, Throttle.REGISTRY, "CRUD"
    # The docs do not allow ServiceConnect here, but with it a query returns the same numbers.
    READ_STATISTICS = "read-statistics", _READ | _SERVICE, Throttle.REGISTRY, "CRUD"
    READ_TWIN = "read-twin", _SERVICE, Throttle.TWIN_READS, "TwinRead"
    UPDATE_TWIN = "update-twin", _SERVICE, Throttle.TWIN_UPDATES, "TwinUpdate"
    INVOKE_METHOD = "invoke-method", _SERVICE, Throttle.METHODS, "DirectMethod"
    QUERY = "query", _SERVICE, Throttle.QUERIES, "Query"
    USE_JOB = "use-job", _SERVICE, Throttle.JOBS, "Job"
    READ_TRANSFER = "read-transfer", _READ, Throttle.JOBS, "Job"
    WRITE_TRANSFER = "write-transfer", _WRITE, Throttle.JOBS, "Job"
    # The docs name both rights; the right that a real hub needs is unknown.
    READ_CONFIGURATION = (
        "read-configuration",
        _READ | _SERVICE,
        Throttle.CONFIGURATIONS,
        "ConfigurationRead",
    )
    WRITE_CONFIGURATION = (
        "write-configuration",
        _WRITE | _SERVICE,
        Throttle.CONFIGURATIONS,
        "ConfigurationWrite",
    )
    SEND_COMMAND = "send-command", _SERVICE, Throttle.C2D_SENDS, "CloudToDeviceSend"
    PURGE_COMMANDS = "purge-commands", _SERVICE
    USE_FEEDBACK = "use-feedback", _SERVICE
    READ_EVENTS = "read-events", _SERVICE

    def __new__(
        cls, value: str, right: Right, throttle: Throttle | None = None, title: str = ""
    ) -> Operation:
        """Create a member with the attributes in its definition."""
        operation = object.__new__(cls)
        operation._value_ = value
        operation.right, operation.throttle, operation.title = right, throttle, title
        return operation
