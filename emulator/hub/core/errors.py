"""Every error of the hub, once: its numeric code, its name and its usual text.

A code is the HTTP status times 1,000 plus an index, and the name is the name of the class (IoT Hub
docs: error codes). The hub raises the errors; each head renders them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso


class HubError(Exception):
    """An error that the hub returns to the caller of an operation.

    Args:
        text: the message; None stands for the usual text of the class.
        info: details, where the service sends them: `{"timeout": "00:00:30"}`.
    """

    code: ClassVar[int]
    text: str = ""

    def __init__(self, text: str | None = None, *, info: Mapping[str, Any] | None = None) -> None:
        self.text = self.text if text is None else text
        self.info = info
        super().__init__(f"{self.name}: {self.text}" if self.text else self.name)

    @property
    def name(self) -> str:
        """The symbolic name: the `iothub-errorcode` header and `ErrorCode:` in a body."""
        return type(self).__name__

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.code // 1000


class GenericBadRequest(HubError):
    """The request is invalid, and no other code describes the reason."""

    code = 400000
    text = "BadRequest"


class InvalidProtocolVersion(HubError):
    """The api-version is missing or malformed."""

    code = 400001
    text = "BadRequest"


class ArgumentInvalid(HubError):
    """A value is out of its range, or has the wrong type."""

    code = 400004
    text = "BadRequest"


class ArgumentNull(HubError):
    """A required value is missing."""

    code = 400005
    text = "BadRequest"


class BlobContainerValidationError(HubError):
    """An import or export job cannot use its blob container."""

    code = 400008


class DeviceDefinedMultipleTimes(HubError):
    """A bulk call names the same identity twice."""

    code = 400011


class DeserializationError(HubError):
    """The body is not JSON, or not a JSON object."""

    code = 400012
    text = "BadRequest"


class BulkRegistryOperationFailure(HubError):
    """Some items of a bulk call failed; the body of the answer lists them."""

    code = 400013


class ConnectionForcefullyClosedOnNewConnection(HubError):
    """The same identity connected again; the newer connection stays."""

    code = 400027
    text = "The connection was closed because the same identity connected again."


class InvalidDeviceScope(HubError):
    """A device scope or a parent scope is not the scope of an IoT Edge device."""

    code = 400028


class ManagedIdentityNotEnabled(HubError):
    """A job asks for the managed identity of the hub, which the emulator does not have."""

    code = 400032


class InvalidConfigurationTargetCondition(HubError):
    """The target condition of a configuration is invalid."""

    code = 400401


class InvalidConfigurationContent(HubError):
    """The content of a configuration is invalid."""

    code = 400402


class InvalidConfigurationCustomMetricsQuery(HubError):
    """A metric of a configuration is not a valid query."""

    code = 400404


class InvalidDigitalTwinJsonPatch(HubError):
    """A patch of a digital twin is not a JSON patch."""

    code = 400505


class InvalidDigitalTwinPatch(HubError):
    """A patch of a digital twin has an operation that is not allowed."""

    code = 400507


class InvalidDigitalTwinPatchPath(HubError):
    """A path in a patch of a digital twin is unknown."""

    code = 400508


class IotHubUnauthorizedAccess(HubError):
    """The credentials are missing or wrong, or do not allow the operation."""

    code = 401002
    text = "Unauthorized"


class IotHubUnauthorized(HubError):
    """The credentials of a connected device expired."""

    code = 401003
    text = "Authentication failed for this device, renew token or certificate and reconnect"


class SystemModuleModifyUnauthorizedAccess(HubError):
    """Only the hub changes a module of the IoT Edge runtime."""

    code = 401100
    text = "Unauthorized to modify reserved module."


class JobQuotaExceeded(HubError):
    """Another import or export job is running."""

    code = 403003


class DeviceMaximumQueueDepthExceeded(HubError):
    """The queue of cloud-to-device messages of the device is full."""

    code = 403004
    text = "Device Queue depth cannot exceed 50 messages"


class InvalidMessageExpiryTime(HubError):
    """The expiry time of a message is in the past, or later than the hub allows."""

    code = 403009


class DeviceDisabled(HubError):
    """A connected identity was disabled."""

    code = 403012
    text = "The device is disabled."


class DeviceMaximumInflightMethodExceeded(HubError):
    """Too many direct methods wait for one device."""

    code = 403800
    text = "Too many direct method calls are in flight on this device."


class GenericNotFound(HubError):
    """The route is unknown."""

    code = 404000
    text = "Not found"


class DeviceNotFound(HubError):
    """The identity is not registered."""

    code = 404001


class JobNotFound(HubError):
    """The job is unknown."""

    code = 404002


class ModuleNotFound(HubError):
    """The device does not have this module."""

    code = 404010


class DeviceNotOnline(HubError):
    """The device is not connected, or not subscribed to direct methods."""

    code = 404103
    text = (
        "The operation failed because the requested device isn't online. "
        "To learn more, see https://aka.ms/iothub404103"
    )


class ConfigurationNotFound(HubError):
    """The configuration is unknown."""

    code = 404301


class GenericMethodNotAllowed(HubError):
    """The route does not allow this HTTP method."""

    code = 405000
    text = "MethodNotAllowed"


class OperationNotAllowedInCurrentState(HubError):
    """The job runs or has ended, so it cannot be cancelled."""

    code = 405102


class DeviceAlreadyExists(HubError):
    """A new device has the id of an existing one."""

    code = 409001


class JobAlreadyExists(HubError):
    """A new job has the id of an existing one."""

    code = 409104


class ModuleAlreadyExistsOnDevice(HubError):
    """A new module has the id of an existing one."""

    code = 409301


class ConfigurationAlreadyExists(HubError):
    """A new configuration has the id of an existing one."""

    code = 409401


class PreconditionFailed(HubError):
    """An etag is stale, or missing where one is required."""

    code = 412001
    text = "PreconditionFailed, ETag may be invalid."


class DeviceMessageLockLost(HubError):
    """The lock on a message expired or was released, or the message is gone."""

    code = 412002
    text = "Invalid lock token: the lock expired or was released."


class JobRunPreconditionFailed(HubError):
    """The time of a job ended before the device did its part."""

    code = 412003
    text = (
        "The job did not start within specified period: either device did not come online or "
        "invalid endTime specified."
    )


class MessageTooLarge(HubError):
    """A body or a payload is too large."""

    code = 413001
    text = "The message is too large."


class TooManyDevices(HubError):
    """The hub has reached its limit of devices."""

    code = 413002
    text = "The hub has reached its limit of devices. Delete devices before you create more."


class TooManyModulesOnDevice(HubError):
    """The device has reached its limit of modules."""

    code = 413003
    text = "The device has reached its limit of modules. Delete modules before you create more."


class ConfigurationCountLimitExceeded(HubError):
    """The hub has reached its limit of configurations."""

    code = 413101


class GenericUnsupportedMediaType(HubError):
    """The operation does not accept the content type of the body."""

    code = 415000


class ThrottlingException(HubError):
    """The allowance of a throttle is used up."""

    code = 429001


class ThrottlingMaxActiveJobCountExceeded(HubError):
    """The hub has reached its limit of active and scheduled jobs."""

    code = 429004


class ClientClosedRequest(HubError):
    """The client disconnected before the end of its request; the answer is never sent."""

    code = 499000
    text = "The client closed the request."


class ServerError(HubError):
    """The emulator itself failed; please report this defect."""

    code = 500001
    text = "An internal error occurred."


class ServiceUnavailable(HubError):
    """The hub is stopping."""

    code = 503001
    text = "ServiceUnavailable"


class GatewayTimeout(HubError):
    """The device received the direct method and did not answer in time."""

    code = 504101
    text = "Timed out waiting for the response from device."


def error_document(error: HubError, now: datetime) -> JsonObject:
    """Return an error as a JSON document: REST and MQTT send it in some of their answers.

    Returns:
        `{"errorCode", "trackingId", "message", "timestampUtc", "info"}` (seen on a real hub)
    """
    stamp = iso(now)
    return {
        "errorCode": error.code,
        "trackingId": f"{secrets.token_hex(16).upper()}-G2:-TimeStamp:{stamp}",
        "message": error_text(error),
        "timestampUtc": stamp,
        "info": error.info,
    }


def error_text(error: HubError) -> str:
    """Return the text of an error as valid UTF-8: a header that it quotes can be invalid UTF-8."""
    return (error.text or error.name).encode("utf-8", "replace").decode()
