import inspect
import json
import re
from datetime import UTC, datetime

import pytest

from emulator.http.responses import message_body, module_body, nested_body, twin_body
from emulator.hub.core import errors
from emulator.hub.core.errors import HubError, error_document
from emulator.hub.core.json import JsonObject

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
CLASSES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, HubError) and error is not HubError
]
GATEWAY_TIMEOUT = errors.GatewayTimeout(info={"timeout": "00:00:30"})


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_the_sdk_for_node_can_parse_the_usual_form(error: type[HubError]) -> None:
    # It splits Message at ';', takes the name behind ':' in the first part and the text of the
    # second, and neither may be empty.
    code, text, *lost = message_body(error(), NOW)["Message"].split(";")
    assert code.split(":") == ["ErrorCode", error.__name__]
    assert text
    assert lost == []


@pytest.mark.parametrize(("form", "gateway"), [(message_body, r"-G:\d+"), (twin_body, "")])
def test_the_usual_form_names_an_error_and_tracks_it(form, gateway):
    bodies = [form(errors.DeviceNotFound("myDevice"), NOW) for _ in range(50)]
    assert list(bodies[0]) == ["Message", "ExceptionMessage"]
    assert bodies[0]["Message"] == "ErrorCode:DeviceNotFound;myDevice"
    tracking = rf"Tracking ID:[0-9a-f]{{32}}{gateway}-TimeStamp:01/31/2026 14:46:08"
    assert re.fullmatch(tracking, bodies[0]["ExceptionMessage"])
    assert len({body["ExceptionMessage"] for body in bodies}) == 50


def check_document(document: JsonObject, error: HubError) -> None:
    expected = error_document(error, NOW)
    assert list(document) == list(expected)
    assert document | {"trackingId": ""} == expected | {"trackingId": ""}


@pytest.mark.parametrize("error", [GATEWAY_TIMEOUT, errors.ArgumentInvalid("not a number: \udcff")])
def test_the_nested_form_is_the_document_as_text(error: HubError) -> None:
    body = nested_body(error, NOW)
    assert (list(body), body["ExceptionMessage"]) == (["Message", "ExceptionMessage"], "")
    check_document(json.loads(body["Message"]), error)


def test_the_form_of_modules_is_the_document_and_nested_where_the_device_is_unusable() -> None:
    check_document(module_body(GATEWAY_TIMEOUT, NOW), GATEWAY_TIMEOUT)
    unusable = errors.IotHubUnauthorizedAccess()
    check_document(json.loads(module_body(unusable, NOW)["Message"]), unusable)
