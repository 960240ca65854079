from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime

import pytest

from emulator.hub.core import errors
from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeviceNotFound,
    DeviceNotOnline,
    GatewayTimeout,
    HubError,
    InvalidProtocolVersion,
    IotHubUnauthorizedAccess,
    PreconditionFailed,
    error_document,
    error_text,
)

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
CLASSES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, HubError) and error is not HubError
]

# IoT Hub docs: error codes.
CODES = {
    "GenericBadRequest": 400000,
    "InvalidProtocolVersion": 400001,
    "ArgumentInvalid": 400004,
    "ArgumentNull": 400005,
    "BlobContainerValidationError": 400008,
    "DeviceDefinedMultipleTimes": 400011,
    "DeserializationError": 400012,
    "BulkRegistryOperationFailure": 400013,
    "ConnectionForcefullyClosedOnNewConnection": 400027,
    "InvalidDeviceScope": 400028,
    "ManagedIdentityNotEnabled": 400032,
    "InvalidConfigurationTargetCondition": 400401,
    "InvalidConfigurationContent": 400402,
    "InvalidConfigurationCustomMetricsQuery": 400404,
    "InvalidDigitalTwinJsonPatch": 400505,
    "InvalidDigitalTwinPatch": 400507,
    "InvalidDigitalTwinPatchPath": 400508,
    "IotHubUnauthorizedAccess": 401002,
    "IotHubUnauthorized": 401003,
    "SystemModuleModifyUnauthorizedAccess": 401100,
    "JobQuotaExceeded": 403003,
    "DeviceMaximumQueueDepthExceeded": 403004,
    "InvalidMessageExpiryTime": 403009,
    "DeviceDisabled": 403012,
    "DeviceMaximumInflightMethodExceeded": 403800,
    "GenericNotFound": 404000,
    "DeviceNotFound": 404001,
    "JobNotFound": 404002,
    "ModuleNotFound": 404010,
    "DeviceNotOnline": 404103,
    "ConfigurationNotFound": 404301,
    "GenericMethodNotAllowed": 405000,
    "OperationNotAllowedInCurrentState": 405102,
    "DeviceAlreadyExists": 409001,
    "JobAlreadyExists": 409104,
    "ModuleAlreadyExistsOnDevice": 409301,
    "ConfigurationAlreadyExists": 409401,
    "PreconditionFailed": 412001,
    "DeviceMessageLockLost": 412002,
    "JobRunPreconditionFailed": 412003,
    "MessageTooLarge": 413001,
    "TooManyDevices": 413002,
    "TooManyModulesOnDevice": 413003,
    "ConfigurationCountLimitExceeded": 413101,
    "GenericUnsupportedMediaType": 415000,
    "ThrottlingException": 429001,
    "ThrottlingMaxActiveJobCountExceeded": 429004,
    "ClientClosedRequest": 499000,
    "ServerError": 500001,
    "ServiceUnavailable": 503001,
    "GatewayTimeout": 504101,
}


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_an_error_has_the_documented_code_and_name(error: type[HubError]) -> None:
    raised = error()
    assert raised.code == CODES[raised.name]
    assert raised.status == CODES[raised.name] // 1000
    assert raised.name == error.__name__


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidProtocolVersion, "BadRequest"),
        (IotHubUnauthorizedAccess, "Unauthorized"),
        (PreconditionFailed, "PreconditionFailed, ETag may be invalid."),
        (
            DeviceNotOnline,
            "The operation failed because the requested device isn't online. "
            "To learn more, see https://aka.ms/iothub404103",
        ),
        (GatewayTimeout, "Timed out waiting for the response from device."),
    ],
)
def test_an_error_has_the_text_that_was_seen_on_a_real_hub(
    error: type[HubError], text: str
) -> None:
    assert error().text == text


def test_an_error_has_one_line_for_the_log() -> None:
    assert str(DeviceNotFound("myDevice")) == "DeviceNotFound: myDevice"
    assert str(DeviceNotFound()) == "DeviceNotFound"
    assert str(ArgumentInvalid()) == "ArgumentInvalid: BadRequest"


def test_an_error_has_a_document() -> None:
    document = error_document(GatewayTimeout(info={"timeout": "00:00:30"}), NOW)
    tracking = document.pop("trackingId")
    assert re.fullmatch(r"[0-9A-F]{32}-G2:-TimeStamp:2026-01-31T14:46:08.12Z", tracking)
    assert document == {
        "errorCode": 504101,
        "message": "Timed out waiting for the response from device.",
        "timestampUtc": "2026-01-31T14:46:08.12Z",
        "info": {"timeout": "00:00:30"},
    }
    assert error_document(DeviceNotOnline(), NOW)["info"] is None


def test_each_document_has_its_own_tracking_id() -> None:
    error = DeviceNotOnline()
    assert len({error_document(error, NOW)["trackingId"] for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DeviceNotFound("myDevice"), "myDevice"),
        (DeviceNotFound(), "DeviceNotFound"),  # a text is never empty
        # aiohttp reads a header that is not UTF-8 as surrogates.
        (ArgumentInvalid("not a number: \udcff"), "not a number: ?"),
    ],
)
def test_the_text_of_an_error_can_be_written(error: HubError, text: str) -> None:
    assert error_text(error) == error_document(error, NOW)["message"] == text
