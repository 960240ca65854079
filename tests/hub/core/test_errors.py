from __future__ import annotations

import inspect
import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    flat_body,
    message_body,
    nested_body,
)

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
CLASSES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, HubError) and error is not HubError
]

# IoT Hub docs: error codes. More than the emulator has, so that a new error finds its number here.
CODES = {
    "GenericBadRequest": 400000,
    "InvalidProtocolVersion": 400001,
    "InvalidOperation": 400003,
    "ArgumentInvalid": 400004,
    "ArgumentNull": 400005,
    "IotHubFormatError": 400006,
    "BlobContainerValidationError": 400008,
    "DeviceDefinedMultipleTimes": 400011,
    "DeserializationError": 400012,
    "BulkRegistryOperationFailure": 400013,
    "DefaultStorageEndpointNotConfigured": 400014,
    "InvalidFileUploadCorrelationId": 400015,
    "RequestCanceled": 400021,
    "RequestTimedOut": 400024,
    "NullMessage": 400026,
    "ConnectionForcefullyClosedOnNewConnection": 400027,
    "InvalidDeviceScope": 400028,
    "ManagedIdentityNotEnabled": 400032,
    "InvalidConfigurationTargetCondition": 400401,
    "InvalidConfigurationContent": 400402,
    "CannotModifyImmutableConfigurationContent": 400403,
    "InvalidConfigurationCustomMetricsQuery": 400404,
    "InvalidDigitalTwinJsonPatch": 400505,
    "InvalidDigitalTwinPayload": 400506,
    "InvalidDigitalTwinPatch": 400507,
    "InvalidDigitalTwinPatchPath": 400508,
    "GenericUnauthorized": 401000,
    "IotHubNotFound": 401001,
    "IotHubUnauthorizedAccess": 401002,
    "IotHubUnauthorized": 401003,
    "SystemModuleModifyUnauthorizedAccess": 401100,
    "GenericForbidden": 403000,
    "IotHubQuotaExceeded": 403002,
    "JobQuotaExceeded": 403003,
    "DeviceMaximumQueueDepthExceeded": 403004,
    "DeviceMaximumActiveFileUploadLimitExceeded": 403006,
    "DeviceMaximumQueueSizeExceeded": 403007,
    "InvalidMessageExpiryTime": 403009,
    "DeviceDisabled": 403012,
    "DeviceMaximumInflightMethodExceeded": 403800,
    "GenericNotFound": 404000,
    "DeviceNotFound": 404001,
    "JobNotFound": 404002,
    "AmqpAddressNotFound": 404006,
    "ModuleNotFound": 404010,
    "DeviceNotOnline": 404103,
    "DeviceConnectionClosedRemotely": 404104,
    "ConfigurationNotFound": 404301,
    "GenericMethodNotAllowed": 405000,
    "OperationNotAllowedInCurrentState": 405102,
    "GenericConflict": 409000,
    "DeviceAlreadyExists": 409001,
    "LinkCreationConflict": 409002,
    "JobAlreadyExists": 409104,
    "ModuleAlreadyExistsOnDevice": 409301,
    "ConfigurationAlreadyExists": 409401,
    "GenericPreconditionFailed": 412000,
    "PreconditionFailed": 412001,
    "DeviceMessageLockLost": 412002,
    "JobRunPreconditionFailed": 412003,
    "GenericRequestEntityTooLarge": 413000,
    "MessageTooLarge": 413001,
    "TooManyDevices": 413002,
    "TooManyModulesOnDevice": 413003,
    "ConfigurationCountLimitExceeded": 413101,
    "GenericUnsupportedMediaType": 415000,
    "GenericTooManyRequests": 429000,
    "ThrottlingException": 429001,
    "ThrottlingBacklogTimeout": 429003,
    "ThrottlingMaxActiveJobCountExceeded": 429004,
    "ClientClosedRequest": 499000,
    "ServerError": 500001,
    "GenericTimeout": 500008,
    "ServiceUnavailable": 503001,
    "ServerBusy": 503005,
    "ConnectionUnavailable": 503101,
    "DeviceUnavailable": 503102,
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


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_node_sdk_can_read_the_usual_form(error: type[HubError]) -> None:
    # It splits Message at ';', takes the name behind ':' in the first part and the text of the
    # second, and neither may be empty.
    code, text, *lost = message_body(error(), NOW)["Message"].split(";")
    assert code.split(":") == ["ErrorCode", error.__name__]
    assert text
    assert lost == []


def test_an_error_tells_itself_in_a_log_line() -> None:
    assert str(DeviceNotFound("myDevice")) == "DeviceNotFound: myDevice"
    assert str(DeviceNotFound()) == "DeviceNotFound"
    assert str(ArgumentInvalid()) == "ArgumentInvalid: BadRequest"


def test_the_usual_form() -> None:
    body = message_body(DeviceNotFound("myDevice"), NOW)
    assert list(body) == ["Message", "ExceptionMessage"]
    assert body["Message"] == "ErrorCode:DeviceNotFound;myDevice"
    assert re.fullmatch(
        r"Tracking ID:[0-9a-f]{32}-G:\d+-TimeStamp:01/31/2026 14:46:08", body["ExceptionMessage"]
    )


def test_the_flat_form() -> None:
    body = flat_body(GatewayTimeout(info={"timeout": "00:00:30"}), NOW)
    tracking = body.pop("trackingId")
    assert re.fullmatch(r"[0-9A-F]{32}-G2:-TimeStamp:2026-01-31T14:46:08.12Z.*", tracking)
    assert body == {
        "errorCode": 504101,
        "message": "Timed out waiting for the response from device.",
        "timestampUtc": "2026-01-31T14:46:08.12Z",
        "info": {"timeout": "00:00:30"},
    }
    assert flat_body(DeviceNotOnline(), NOW)["info"] is None


def test_each_error_has_a_tracking_id_of_its_own() -> None:
    error = DeviceNotOnline()
    assert len({flat_body(error, NOW)["trackingId"] for _ in range(50)}) == 50
    assert len({message_body(error, NOW)["ExceptionMessage"] for _ in range(50)}) == 50


@given(st.text(min_size=1), st.none() | st.dictionaries(st.text(), st.text()))
def test_the_nested_form_is_the_flat_one_as_text(text: str, info: dict[str, str] | None) -> None:
    error = ArgumentInvalid(text, info=info)
    body = nested_body(error, NOW)
    assert list(body) == ["Message", "ExceptionMessage"]
    assert isinstance(body["Message"], str)
    inner, flat = json.loads(body["Message"]), flat_body(error, NOW)
    del inner["trackingId"], flat["trackingId"]
    assert inner == flat
    assert (inner["message"], inner["info"]) == (text, info)


def test_a_message_is_never_empty() -> None:
    assert (
        message_body(DeviceNotFound(), NOW)["Message"] == "ErrorCode:DeviceNotFound;DeviceNotFound"
    )
    assert flat_body(DeviceNotFound(), NOW)["message"] == "DeviceNotFound"


def test_a_text_that_is_not_unicode_is_written_all_the_same() -> None:
    # aiohttp reads such a header with surrogates in it.
    error = ArgumentInvalid("not a number: \udcff")
    assert message_body(error, NOW)["Message"] == "ErrorCode:ArgumentInvalid;not a number: ?"
    assert flat_body(error, NOW)["message"] == "not a number: ?"
    assert "not a number: ?" in nested_body(error, NOW)["Message"]
