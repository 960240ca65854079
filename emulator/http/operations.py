"""Which operation each route is, as throttles count them (IoT Hub docs: quotas and throttling)."""

from __future__ import annotations

from emulator.hub.access.throttles import Operation


def operation_of(verb: str, path: str) -> Operation | None:
    """Name what a route asks for; None where the docs have no throttle for it.

    These are the completion of a message, feedback, and the purge of a queue; and what only the
    emulator has, but for the sending of messages, which a real hub throttles over AMQP.

    Args:
        verb: of HTTP.
        path: as the route has it, such as `/devices/{device_id}`.
    """
    match (verb, *path.strip("/").split("/")):
        case ("POST", "_emulator", "devices", _, "messages"):
            return Operation.SEND_COMMAND
        case ("POST", "devices", _, "messages", "events"):
            return Operation.SEND_EVENT
        case ("GET", "devices", _, "messages", "deviceBound"):
            return Operation.RECEIVE_COMMAND
        case (_, "_emulator" | "messages", *_) | (_, "devices", _, "messages" | "commands", *_):
            return None
        case (_, "devices", "query"):
            return Operation.QUERY
        case (_, "devices", _, "applyConfigurationContent"):
            return Operation.WRITE_CONFIGURATION
        case (_, "devices" | "statistics", *_):
            return Operation.REGISTRY
        case ("POST", "twins" | "digitaltwins", *_):
            return Operation.INVOKE_METHOD
        case ("GET", "twins" | "digitaltwins", *_):
            return Operation.READ_TWIN
        case (_, "twins" | "digitaltwins", *_):
            return Operation.UPDATE_TWIN
        case ("GET", "configurations", *_) | (_, "configurations", "testQueries"):
            return Operation.READ_CONFIGURATION
        case (_, "configurations", *_):
            return Operation.WRITE_CONFIGURATION
        case (_, "jobs", *_):
            return Operation.JOB
    return None
