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

    def __init_subclass__(cls, *, code: int) -> None:
        cls.code = code

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


class GenericBadRequest(HubError, code=400000):
    """The request is invalid, and no other code describes the reason."""


class InvalidProtocolVersion(HubError, code=400001):
    """The api-version is missing or malformed."""

    text = "BadRequest"


class ArgumentInvalid(HubError, code=400004):
    """A value is out of its range, or has the wrong type."""

    text = "BadRequest"


class ArgumentNull(HubError, code=400005):
    """A required value is missing."""


class IotHubFormatError(HubError, code=400006):
    """A text does not have the form that the hub expects."""


class BlobContainerValidationError(HubError, code=400008):
    """An import or export job cannot use its blob container."""


class DeviceDefinedMultipleTimes(HubError, code=400011):
    """A bulk call names the same identity twice."""


class DeserializationError(HubError, code=400012):
    """The body is not JSON, or not a JSON object."""

    text = "BadRequest"


class BulkRegistryOperationFailure(HubError, code=400013):
    """Some items of a bulk call failed; the body of the answer lists them."""


class DefaultStorageEndpointNotConfigured(HubError, code=400014):
    """The hub has no storage for the files of devices."""

    text = "The hub has no storage for file uploads."


class InvalidFileUploadCorrelationId(HubError, code=400015):
    """No active upload of the device has this correlation id."""

    text = "The correlation id is unknown: the device has no active file upload with this id."


class ExpiredFileUploadCorrelationId(HubError, code=400016):
    """The upload with this correlation id was not reported in time."""

    text = "The correlation id has expired. Start the file upload again."


class InvalidFileUploadCompletionStatus(HubError, code=400019):
    """The report on an upload says neither success nor failure."""


class InvalidStorageEndpointOrBlob(HubError, code=400020):
    """The storage refuses the hub, or does not have the blob."""


class ConnectionForcefullyClosedOnNewConnection(HubError, code=400027):
    """The same identity connected again; the newer connection stays."""

    text = "The connection was closed because the same identity connected again."


class InvalidDeviceScope(HubError, code=400028):
    """A device scope or a parent scope is not the scope of an IoT Edge device."""


class ConnectionForcefullyClosedOnFaultInjection(HubError, code=400029):
    """A fault that a test put into the hub closes the connection."""

    text = "The connection was closed by a fault."


class ManagedIdentityNotEnabled(HubError, code=400032):
    """A job asks for the managed identity of the hub, which the emulator does not have."""


class InvalidPolicyKey(HubError, code=400035):
    """A call for new keys does not name which of the keys to replace."""


class BulkRegenerateDeviceKeyOperationFailure(HubError, code=400036):
    """A call for new keys replaced none."""


class InvalidConfigurationTargetCondition(HubError, code=400401):
    """The target condition of a configuration is invalid."""


class InvalidConfigurationContent(HubError, code=400402):
    """The content of a configuration is invalid."""


class InvalidConfigurationCustomMetricsQuery(HubError, code=400404):
    """A metric of a configuration is not a valid query."""


class InvalidDigitalTwinJsonPatch(HubError, code=400505):
    """A patch of a digital twin is not a JSON patch."""


class InvalidDigitalTwinPatch(HubError, code=400507):
    """A patch of a digital twin has an operation that is not allowed."""


class InvalidDigitalTwinPatchPath(HubError, code=400508):
    """A path in a patch of a digital twin is unknown."""


class IotHubUnauthorizedAccess(HubError, code=401002):
    """The credentials are missing or wrong, or do not allow the operation."""

    text = "Unauthorized"


class IotHubUnauthorized(HubError, code=401003):
    """The credentials of a connected device expired, or a principal of Entra ID has no role."""

    text = "Authentication failed for this device, renew token or certificate and reconnect"


class SystemModuleModifyUnauthorizedAccess(HubError, code=401100):
    """Only the hub changes a module of the IoT Edge runtime."""

    text = "Unauthorized to modify reserved module."


class GenericForbidden(HubError, code=403000):
    """The request is not allowed, and no other code describes the reason."""

    text = "Forbidden"


class IotHubQuotaExceeded(HubError, code=403002):
    """The messages of the day are used up; here, only a fault says so."""

    text = "Total number of messages on IotHub exceeded the allocated quota."


class JobQuotaExceeded(HubError, code=403003):
    """Another import or export job is running."""


class DeviceMaximumQueueDepthExceeded(HubError, code=403004):
    """The queue of cloud-to-device messages of the device is full."""

    text = "Device Queue depth cannot exceed 50 messages"


class IotHubMaxCbsTokenExceeded(HubError, code=403005):
    """A connection has sent SAS tokens for too many audiences."""

    text = "Too many SAS tokens on one connection. Use more connections."


class DeviceMaximumActiveFileUploadLimitExceeded(HubError, code=403006):
    """Too many uploads of the device are active."""

    text = "Number of active file upload requests cannot exceed 10"


class DeviceMaximumQueueSizeExceeded(HubError, code=403007):
    """The messages in the queue of the device take too much memory."""

    text = "The messages that wait for the device are too large. Receive or purge them first."


class InvalidMessageExpiryTime(HubError, code=403009):
    """The expiry time of a message is in the past, or later than the hub allows."""


class DeviceDisabled(HubError, code=403012):
    """A connected identity was disabled."""

    text = "The device is disabled."


class DeviceModelMaxPropertiesExceeded(HubError, code=403100):
    """The tags, the desired or the reported properties of a twin are too large."""


class DeviceMaximumInflightMethodExceeded(HubError, code=403800):
    """Too many direct methods wait for one device."""

    text = "Too many direct method calls are in flight on this device."


class GenericNotFound(HubError, code=404000):
    """The path is unknown."""


class DeviceNotFound(HubError, code=404001):
    """The identity is not registered."""


class JobNotFound(HubError, code=404002):
    """The job is unknown."""


class AmqpAddressNotFound(HubError, code=404006):
    """The address of a link is unknown."""


class ModuleNotFound(HubError, code=404010):
    """The device does not have this module."""


class DeviceNotOnline(HubError, code=404103):
    """The device is not connected, or not subscribed to direct methods."""

    text = (
        "The operation failed because the requested device isn't online. "
        "To learn more, see https://aka.ms/iothub404103"
    )


class ConfigurationNotFound(HubError, code=404301):
    """The configuration is unknown."""


class GenericMethodNotAllowed(HubError, code=405000):
    """The path does not have this method."""


class OperationNotAllowedInCurrentState(HubError, code=405102):
    """The job runs or has ended, so it cannot be cancelled."""


class DeviceAlreadyExists(HubError, code=409001):
    """A new device has the id of an existing one."""


class JobAlreadyExists(HubError, code=409104):
    """A new job has the id of an existing one."""


class ModuleAlreadyExistsOnDevice(HubError, code=409301):
    """A new module has the id of an existing one."""


class ConfigurationAlreadyExists(HubError, code=409401):
    """A new configuration has the id of an existing one."""


class PreconditionFailed(HubError, code=412001):
    """An etag is stale, or missing where one is required."""

    text = "PreconditionFailed, ETag may be invalid."


class DeviceMessageLockLost(HubError, code=412002):
    """The lock on a message expired or was released, or the message is gone."""

    text = "Invalid lock token: the lock expired or was released."


class JobRunPreconditionFailed(HubError, code=412003):
    """The time of a job ended before the device did its part."""

    text = (
        "The job did not start within specified period: either device did not come online or "
        "invalid endTime specified."
    )


class MessageTooLarge(HubError, code=413001):
    """A body or a payload is too large."""


class TooManyDevices(HubError, code=413002):
    """The hub has reached its limit of devices."""

    text = "The hub has reached its limit of devices. Delete devices before you create more."


class TooManyModulesOnDevice(HubError, code=413003):
    """The device has reached its limit of modules."""

    text = "The device has reached its limit of modules. Delete modules before you create more."


class ConfigurationCountLimitExceeded(HubError, code=413101):
    """The hub has reached its limit of configurations."""


class GenericUnsupportedMediaType(HubError, code=415000):
    """The operation does not accept the content type of the body."""


class ThrottlingException(HubError, code=429001):
    """The allowance of a throttle is used up.

    Attributes:
        delay: how many seconds a message has to wait that a head can't refuse.
    """

    delay: float = 0


class ThrottlingMaxActiveJobCountExceeded(HubError, code=429004):
    """The hub has reached its limit of active and scheduled jobs."""


class ClientClosedRequest(HubError, code=499000):
    """The client disconnected before the end of its request; the answer is never sent."""

    text = "The client closed the request."


class ServerError(HubError, code=500001):
    """The emulator itself failed; please report this defect."""

    text = "InternalServerError"


class InvalidResponseWhileProxying(HubError, code=502101):
    """The device answered a direct method with a payload that is not JSON."""

    text = "Payload is not a valid document of type application/json"


class ServiceUnavailable(HubError, code=503001):
    """The hub is stopping, or can't store a change."""

    text = "ServiceUnavailable"


class GatewayTimeout(HubError, code=504101):
    """The device received the direct method and did not answer in time."""

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
