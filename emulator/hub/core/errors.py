"""Every error of the hub, once: its numeric code, its name and its usual text.

A code is the HTTP status times 1,000 plus an index, and the name is the class's own (IoT Hub docs:
error codes). The hub raises them; each head renders them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso


class HubError(Exception):
    """What the hub answers instead of a result.

    Args:
        text: the message; the class's own when left out.
        info: more about it, where the service sends that (`{"timeout": "00:00:30"}`).
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
    """The request is wrong in a way that has no code of its own."""

    code = 400000
    text = "BadRequest"


class InvalidProtocolVersion(HubError):
    """The api-version is missing or malformed."""

    code = 400001
    text = "BadRequest"


class ArgumentInvalid(HubError):
    """A value is out of its range, or the wrong type."""

    code = 400004
    text = "BadRequest"


class ArgumentNull(HubError):
    """A value that is required is not there."""

    code = 400005
    text = "BadRequest"


class BlobContainerValidationError(HubError):
    """A blob container of an import or export job can't be used."""

    code = 400008


class DeviceDefinedMultipleTimes(HubError):
    """A bulk call names the same identity twice."""

    code = 400011


class DeserializationError(HubError):
    """The body is not JSON, or not a JSON object."""

    code = 400012
    text = "BadRequest"


class BulkRegistryOperationFailure(HubError):
    """Some of a bulk call's items could not be applied; the answer's body says which."""

    code = 400013


class ConnectionForcefullyClosedOnNewConnection(HubError):
    """The same identity connected again; the newer connection wins."""

    code = 400027
    text = "The connection was closed because the same identity connected again."


class InvalidDeviceScope(HubError):
    """A device scope or a parent scope names no IoT Edge device."""

    code = 400028


class ManagedIdentityNotEnabled(HubError):
    """A job asks for the identity of the hub, which has none."""

    code = 400032


class InvalidConfigurationTargetCondition(HubError):
    """A configuration's target condition can't be evaluated."""

    code = 400401


class InvalidConfigurationContent(HubError):
    """A configuration's content is not of the form that it must have."""

    code = 400402


class InvalidConfigurationCustomMetricsQuery(HubError):
    """A configuration's metric is no query."""

    code = 400404


class InvalidDigitalTwinJsonPatch(HubError):
    """A patch of a digital twin is no JSON patch."""

    code = 400505


class InvalidDigitalTwinPatch(HubError):
    """A patch of a digital twin writes what can't be written."""

    code = 400507


class InvalidDigitalTwinPatchPath(HubError):
    """A patch of a digital twin names a path that isn't there."""

    code = 400508


class IotHubUnauthorizedAccess(HubError):
    """No credentials, wrong ones, or ones without the right that the operation needs."""

    code = 401002
    text = "Unauthorized"


class IotHubUnauthorized(HubError):
    """A device's credentials ran out while it was connected."""

    code = 401003
    text = "Authentication failed for this device, renew token or certificate and reconnect"


class SystemModuleModifyUnauthorizedAccess(HubError):
    """A module of the IoT Edge runtime is the hub's to change."""

    code = 401100
    text = "Unauthorized to modify reserved module."


class JobQuotaExceeded(HubError):
    """An import or export job is running already."""

    code = 403003


class DeviceMaximumQueueDepthExceeded(HubError):
    """The device's queue holds as many cloud-to-device messages as it may."""

    code = 403004
    text = "Device Queue depth cannot exceed 50 messages"


class InvalidMessageExpiryTime(HubError):
    """A message would expire in the past, or later than the hub allows."""

    code = 403009
    text = "The message's expiry time is not valid."


class DeviceDisabled(HubError):
    """The identity was disabled while it was connected."""

    code = 403012
    text = "The device is disabled."


class DeviceMaximumInflightMethodExceeded(HubError):
    """Too many direct methods are open on one device."""

    code = 403800
    text = "Too many direct method calls are in flight on this device."


class GenericNotFound(HubError):
    """No such route."""

    code = 404000
    text = "Not found"


class DeviceNotFound(HubError):
    """No identity of that name is registered."""

    code = 404001


class JobNotFound(HubError):
    """No job of that id is known."""

    code = 404002


class ModuleNotFound(HubError):
    """No such module on the device."""

    code = 404010


class DeviceNotOnline(HubError):
    """The device is not connected, or not subscribed to direct methods."""

    code = 404103
    text = (
        "The operation failed because the requested device isn't online. "
        "To learn more, see https://aka.ms/iothub404103"
    )


class ConfigurationNotFound(HubError):
    """No configuration of that id is there."""

    code = 404301


class GenericMethodNotAllowed(HubError):
    """The route exists, but not with this verb."""

    code = 405000
    text = "MethodNotAllowed"


class OperationNotAllowedInCurrentState(HubError):
    """A job that runs or has ended can't be cancelled."""

    code = 405102


class DeviceAlreadyExists(HubError):
    """Create, for an identity that is there already."""

    code = 409001


class JobAlreadyExists(HubError):
    """A job of that id is there already."""

    code = 409104


class ModuleAlreadyExistsOnDevice(HubError):
    """Create, for a module that is there already."""

    code = 409301


class ConfigurationAlreadyExists(HubError):
    """Create, for a configuration that is there already."""

    code = 409401


class PreconditionFailed(HubError):
    """An etag is stale, or missing where one is required."""

    code = 412001
    text = "PreconditionFailed, ETag may be invalid."


class DeviceMessageLockLost(HubError):
    """The lock on a message has lapsed or was given back, or the message is gone."""

    code = 412002
    text = "The lock token is not valid: the lock was lost."


class JobRunPreconditionFailed(HubError):
    """A job's time was over before the device's part in it was done."""

    code = 412003
    text = (
        "The job did not start within specified period: either device did not come online or "
        "invalid endTime specified."
    )


class MessageTooLarge(HubError):
    """A body or payload is over its limit."""

    code = 413001
    text = "The message is too large."


class TooManyDevices(HubError):
    """The hub's device limit is reached."""

    code = 413002
    text = "The hub holds as many devices as it may."


class TooManyModulesOnDevice(HubError):
    """The device has as many modules as it may."""

    code = 413003
    text = "The device has as many modules as it may."


class ConfigurationCountLimitExceeded(HubError):
    """The hub has as many configurations as it may."""

    code = 413101


class GenericUnsupportedMediaType(HubError):
    """The body is of a content type that the operation doesn't take."""

    code = 415000


class ThrottlingException(HubError):
    """The caller has used up what it may ask for in this time."""

    code = 429001


class ThrottlingMaxActiveJobCountExceeded(HubError):
    """As many jobs are active or scheduled as may be."""

    code = 429004


class ClientClosedRequest(HubError):
    """The caller left before it had sent its request: nobody reads this answer."""

    code = 499000
    text = "The client closed the request."


class ServerError(HubError):
    """The emulator itself failed: a defect to report."""

    code = 500001
    text = "An internal error occurred."


class ServiceUnavailable(HubError):
    """The hub is stopping."""

    code = 503001
    text = "ServiceUnavailable"


class GatewayTimeout(HubError):
    """The device got the direct method, and didn't answer in time."""

    code = 504101
    text = "Timed out waiting for the response from device."


def error_document(error: HubError, now: datetime) -> JsonObject:
    """Return an error as a document: REST and MQTT each send it in some of their answers.

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
    """Return an error's text as valid UTF-8: it may quote a header, which need not be UTF-8."""
    return (error.text or error.name).encode("utf-8", "replace").decode()
