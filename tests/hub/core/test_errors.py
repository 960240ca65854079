import inspect
import re
from datetime import UTC, datetime

import pytest

from emulator.hub.core import errors
from emulator.hub.core.errors import HubError, error_document, error_text

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
CLASSES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, HubError) and error is not HubError
]

# IoT Hub docs: error codes; 502101 was seen on a real hub.
DOCUMENTED = """
400000 GenericBadRequest  400001 InvalidProtocolVersion  400004 ArgumentInvalid
400005 ArgumentNull  400006 IotHubFormatError  400008 BlobContainerValidationError
400011 DeviceDefinedMultipleTimes
400012 DeserializationError  400013 BulkRegistryOperationFailure
400014 DefaultStorageEndpointNotConfigured  400015 InvalidFileUploadCorrelationId
400016 ExpiredFileUploadCorrelationId  400019 InvalidFileUploadCompletionStatus
400020 InvalidStorageEndpointOrBlob
400027 ConnectionForcefullyClosedOnNewConnection  400028 InvalidDeviceScope
400029 ConnectionForcefullyClosedOnFaultInjection
400032 ManagedIdentityNotEnabled  400035 InvalidPolicyKey
400036 BulkRegenerateDeviceKeyOperationFailure  400401 InvalidConfigurationTargetCondition
400402 InvalidConfigurationContent  400404 InvalidConfigurationCustomMetricsQuery
400505 InvalidDigitalTwinJsonPatch  400507 InvalidDigitalTwinPatch
400508 InvalidDigitalTwinPatchPath  401002 IotHubUnauthorizedAccess  401003 IotHubUnauthorized
401100 SystemModuleModifyUnauthorizedAccess  403000 GenericForbidden  403002 IotHubQuotaExceeded
403003 JobQuotaExceeded
403004 DeviceMaximumQueueDepthExceeded  403005 IotHubMaxCbsTokenExceeded
403006 DeviceMaximumActiveFileUploadLimitExceeded
403007 DeviceMaximumQueueSizeExceeded
403009 InvalidMessageExpiryTime  403012 DeviceDisabled
403100 DeviceModelMaxPropertiesExceeded  403800 DeviceMaximumInflightMethodExceeded
404000 GenericNotFound
404001 DeviceNotFound  404002 JobNotFound  404006 AmqpAddressNotFound  404010 ModuleNotFound
404103 DeviceNotOnline  404301 ConfigurationNotFound
405000 GenericMethodNotAllowed  405102 OperationNotAllowedInCurrentState
409001 DeviceAlreadyExists  409104 JobAlreadyExists  409301 ModuleAlreadyExistsOnDevice
409401 ConfigurationAlreadyExists  412001 PreconditionFailed  412002 DeviceMessageLockLost
412003 JobRunPreconditionFailed  413001 MessageTooLarge  413002 TooManyDevices
413003 TooManyModulesOnDevice  413101 ConfigurationCountLimitExceeded
415000 GenericUnsupportedMediaType  429001 ThrottlingException
429004 ThrottlingMaxActiveJobCountExceeded  499000 ClientClosedRequest  500001 ServerError
502101 InvalidResponseWhileProxying  503001 ServiceUnavailable  504101 GatewayTimeout
"""
CODES = {name: int(code) for code, name in re.findall(r"(\d+) (\w+)", DOCUMENTED)}


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_an_error_has_the_documented_code_and_name(error: type[HubError]) -> None:
    raised = error()
    assert raised.code == CODES[raised.name]
    assert raised.status == CODES[raised.name] // 1000
    assert raised.name == error.__name__


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.InvalidProtocolVersion, "BadRequest"),
        (errors.IotHubUnauthorizedAccess, "Unauthorized"),
        (errors.PreconditionFailed, "PreconditionFailed, ETag may be invalid."),
        (
            errors.DeviceNotOnline,
            "The operation failed because the requested device isn't online. "
            "To learn more, see https://aka.ms/iothub404103",
        ),
        (errors.ServerError, "InternalServerError"),
        (errors.GatewayTimeout, "Timed out waiting for the response from device."),
    ],
)
def test_an_error_has_the_text_that_was_seen_on_a_real_hub(
    error: type[HubError], text: str
) -> None:
    assert error().text == text


def test_an_error_has_one_line_for_the_log() -> None:
    assert str(errors.DeviceNotFound("myDevice")) == "DeviceNotFound: myDevice"
    assert str(errors.DeviceNotFound()) == "DeviceNotFound"
    assert str(errors.ArgumentInvalid()) == "ArgumentInvalid: BadRequest"


def test_an_error_has_a_document() -> None:
    document = error_document(errors.GatewayTimeout(info={"timeout": "00:00:30"}), NOW)
    tracking = document.pop("trackingId")
    assert re.fullmatch(r"[0-9A-F]{32}-G2:-TimeStamp:2026-01-31T14:46:08.12Z", tracking)
    assert document == {
        "errorCode": 504101,
        "message": "Timed out waiting for the response from device.",
        "timestampUtc": "2026-01-31T14:46:08.12Z",
        "info": {"timeout": "00:00:30"},
    }
    assert error_document(errors.DeviceNotOnline(), NOW)["info"] is None


def test_each_document_has_its_own_tracking_id() -> None:
    error = errors.DeviceNotOnline()
    assert len({error_document(error, NOW)["trackingId"] for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.DeviceNotFound("myDevice"), "myDevice"),
        (errors.DeviceNotFound(), "DeviceNotFound"),  # a text is never empty
        # aiohttp reads a header that is not UTF-8 as surrogates.
        (errors.ArgumentInvalid("not a number: \udcff"), "not a number: ?"),
    ],
)
def test_the_text_of_an_error_can_be_written(error: HubError, text: str) -> None:
    assert error_text(error) == error_document(error, NOW)["message"] == text
