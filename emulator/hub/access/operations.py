"""The operations of a hub, each with the right that it needs and the throttle that counts it.

Each route and each topic names its operation where it is declared (IoT Hub docs: access control and
permissions; quotas and throttling).
"""

from __future__ import annotations

import enum

from emulator.hub.access.policies import Right


class Throttle(enum.StrEnum):
    """A counter of operations; the values are the names in settings."""

    CONNECTIONS = "connections"
    REGISTRY = "registry"
    D2C_SENDS = "d2c-sends"
    C2D_SENDS = "c2d-sends"
    C2D_RECEIVES = "c2d-receives"
    UPLOAD_STARTS = "upload-starts"
    METHODS = "methods"
    QUERIES = "queries"
    TWIN_READS = "twin-reads"
    TWIN_UPDATES = "twin-updates"
    JOBS = "jobs"
    JOB_DEVICES = "job-devices"
    CONFIGURATIONS = "configurations"
    REGISTRATIONS = "registrations"
    REGISTRATION_POLLS = "registration-polls"
    ENROLLMENTS = "enrollments"


OF_ONE_DEVICE = frozenset({Throttle.REGISTRATION_POLLS})
"""Each device has an allowance of its own."""


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
    CONNECT = _DEVICE, Throttle.CONNECTIONS, "Connect"
    SUBSCRIBE = _DEVICE
    SEND_EVENT = _DEVICE, Throttle.D2C_SENDS, "DeviceToCloudSend"
    READ_OWN_TWIN = _DEVICE, Throttle.TWIN_READS, "TwinRead"
    REPORT = _DEVICE, Throttle.TWIN_UPDATES, "TwinUpdate"
    RESPOND_TO_METHOD = _DEVICE
    RECEIVE_COMMAND = _DEVICE, Throttle.C2D_RECEIVES, "CloudToDeviceReceive"
    SETTLE_COMMAND = _DEVICE
    START_UPLOAD = _DEVICE, Throttle.UPLOAD_STARTS, "FileUploadStart"
    END_UPLOAD = _DEVICE

    # Services
    READ_IDENTITY = _READ, Throttle.REGISTRY, "CRUD"
    WRITE_IDENTITY = _WRITE, Throttle.REGISTRY, "CRUD"
    # The docs do not allow ServiceConnect here, but with it a query returns the same numbers.
    READ_STATISTICS = _READ | _SERVICE, Throttle.REGISTRY, "CRUD"
    READ_TWIN = _SERVICE, Throttle.TWIN_READS, "TwinRead"
    UPDATE_TWIN = _SERVICE, Throttle.TWIN_UPDATES, "TwinUpdate"
    INVOKE_METHOD = _SERVICE, Throttle.METHODS, "DirectMethod"
    # Refused with every role of Entra ID (seen on a real hub).
    INVOKE_COMMAND = _SERVICE, Throttle.METHODS, "DirectMethod"
    QUERY = _SERVICE, Throttle.QUERIES, "Query"
    USE_JOB = _SERVICE, Throttle.JOBS, "Job"
    # What a job does to one of its devices; the hub itself does it.
    WORK_ON_DEVICE = _SERVICE, Throttle.JOB_DEVICES, "JobDeviceOperation"
    READ_TRANSFER = _READ, Throttle.JOBS, "Job"
    WRITE_TRANSFER = _WRITE, Throttle.JOBS, "Job"
    # The docs name both rights; the right that a real hub needs is unknown.
    READ_CONFIGURATION = _READ | _SERVICE, Throttle.CONFIGURATIONS, "ConfigurationRead"
    WRITE_CONFIGURATION = _WRITE | _SERVICE, Throttle.CONFIGURATIONS, "ConfigurationWrite"
    SEND_COMMAND = _SERVICE, Throttle.C2D_SENDS, "CloudToDeviceSend"
    PURGE_COMMANDS = _SERVICE
    USE_FEEDBACK = _SERVICE
    USE_FILE_NOTIFICATIONS = _SERVICE
    READ_EVENTS = _SERVICE
    # At the Device Provisioning Service: of devices, which need no right, and of services
    REGISTER = Right(0), Throttle.REGISTRATIONS, "Registration"
    POLL_REGISTRATION = Right(0), Throttle.REGISTRATION_POLLS, "RegistrationStatus"
    READ_ENROLLMENT = Right.ENROLLMENT_READ, Throttle.ENROLLMENTS, "Enrollment"
    WRITE_ENROLLMENT = Right.ENROLLMENT_WRITE, Throttle.ENROLLMENTS, "Enrollment"
    READ_REGISTRATION = Right.REGISTRATION_STATUS_READ, Throttle.ENROLLMENTS, "Enrollment"
    DELETE_REGISTRATION = Right.REGISTRATION_STATUS_WRITE, Throttle.ENROLLMENTS, "Enrollment"
    READ_CLOCK = _SERVICE
    ADVANCE_CLOCK = _SERVICE
    # Ours: what a person needs to run an emulator.
    READ_INFO = _READ | _SERVICE
    APPLY_CONFIG = _WRITE
    MANAGE_FAULTS = _SERVICE
    # On a real hub, these are operations of Azure Resource Manager.
    READ_AUTHORITIES = _READ
    WRITE_AUTHORITIES = _WRITE
    # A snapshot has every key.
    TAKE_SNAPSHOT = _WRITE
    REPLACE_STATE = _WRITE
    # The emulator's own: to wait for what devices do, and to read which methods were called.
    OBSERVE = _SERVICE

    def __new__(cls, right: Right, throttle: Throttle | None = None, title: str = "") -> Operation:
        """Create a member; its value is its number, because several have the same attributes."""
        operation = object.__new__(cls)
        operation._value_ = len(cls.__members__)
        operation.right, operation.throttle, operation.title = right, throttle, title
        return operation


OF_THE_EMULATOR = frozenset(
    {
        *(Operation.READ_CLOCK, Operation.ADVANCE_CLOCK),
        *(Operation.READ_INFO, Operation.APPLY_CONFIG, Operation.MANAGE_FAULTS),
        *(Operation.READ_AUTHORITIES, Operation.WRITE_AUTHORITIES),
        *(Operation.TAKE_SNAPSHOT, Operation.REPLACE_STATE, Operation.OBSERVE),
    }
)
"""What a real hub does not have: no fault is injected into it."""
