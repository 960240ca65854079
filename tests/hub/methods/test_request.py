"""The request of a direct method, and the payload of a response."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core import errors, limits
from emulator.hub.core.json import loads
from emulator.hub.methods.request import MethodRequest, response_payload


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        (b'{"methodName":"reboot"}', MethodRequest("reboot", b"", 30, 0)),
        (b'{"methodName":"m","payload":null}', MethodRequest("m", b"", 30, 0)),
        (b'{"methodName":"m","payload":""}', MethodRequest("m", b'""', 30, 0)),
        (b'{"methodName":"m","payload":"null"}', MethodRequest("m", b'"null"', 30, 0)),
        (b'{"methodName":"m","payload":[null]}', MethodRequest("m", b"[null]", 30, 0)),
        (
            b'{"methodName":"Re boot","payload":{"a":[1.0,1e5,null]},"other":1,'
            b'"responseTimeoutInSeconds":300,"connectTimeoutInSeconds":299}',
            MethodRequest("Re boot", b'{"a":[1.0,1e5,null]}', 300, 299),
        ),
    ],
)
def test_a_request_is_parsed(body: bytes, request_: MethodRequest) -> None:
    assert MethodRequest.parse(loads(body)) == request_


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
        lambda values: (
            st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3)
        ),
        max_leaves=10,
    )
)
def test_any_json_value_is_a_payload(payload: object) -> None:
    request = MethodRequest.parse({"methodName": "m", "payload": payload})
    assert (json.loads(request.payload) if request.payload else None) == payload


@pytest.mark.parametrize(
    ("response", "connect"), [(5, 0), (5, 5), (300, 300), (30, None), (None, 30), (None, None)]
)
def test_time_outs_within_their_ranges_are_accepted(
    response: int | None, connect: int | None
) -> None:
    time_outs = {"responseTimeoutInSeconds": response, "connectTimeoutInSeconds": connect}
    request = MethodRequest.parse({"methodName": "n" * 100, **time_outs})
    assert (request.response_timeout, request.connect_timeout) == (response or 30, connect or 0)


RESPONSE, CONNECT = "responseTimeoutInSeconds", "connectTimeoutInSeconds"


@pytest.mark.parametrize(
    ("response", "connect", "seconds"),
    [("30", "30", (30, 30)), ("5", 0, (5, 0)), (300, "0", (300, 0)), ("+7", "007", (7, 7))],
)
def test_a_time_out_can_be_a_text(response: object, connect: object, seconds: object) -> None:
    request = MethodRequest.parse({"methodName": "m", RESPONSE: response, CONNECT: connect})
    assert (request.response_timeout, request.connect_timeout) == seconds


TOO_LONG = (
    "Device connection timeout (00:00:31) cannot be longer than an overall call timeout (00:00:30)."
)


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        *((body, errors.DeserializationError, "") for body in (None, [], "m", 1, True)),
        *(
            ({**name}, errors.ArgumentNull, "")
            for name in ({}, {"methodName": None}, {"methodName": ""})
        ),
        *(({"methodName": name}, errors.ArgumentInvalid, "") for name in ("n" * 101, 7, ["m"])),
        *(
            (
                {"methodName": "m", RESPONSE: seconds},
                errors.ArgumentInvalid,
                "must be within [5; 300]",
            )
            for seconds in (4, 301, -1, 5.5, True, "", "4", "301", "5.0", "3e1", "soon", "٣٠", [30])
        ),
        *(
            (
                {"methodName": "m", CONNECT: seconds},
                errors.ArgumentInvalid,
                "must be within [0; 300]",
            )
            for seconds in (-1, 301, [], "-1", "9" * 5000)
        ),
        ({"methodName": "m", CONNECT: 31}, errors.ArgumentInvalid, TOO_LONG),
    ],
)
def test_an_invalid_request_is_refused(
    body: object, error: type[errors.HubError], text: str
) -> None:
    with pytest.raises(error) as refusal:
        MethodRequest.parse(body)
    assert text in refusal.value.text


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
def test_a_payload_is_measured_in_utf_8(character: str) -> None:
    # Two bytes are the quotes.
    fits = character * ((limits.METHOD_PAYLOAD_BYTES - 2) // len(character.encode()))
    body: dict[str, Any] = {"methodName": "m", "payload": fits}
    assert len(MethodRequest.parse(body).payload) <= limits.METHOD_PAYLOAD_BYTES
    with pytest.raises(errors.MessageTooLarge):
        MethodRequest.parse({**body, "payload": fits + character})


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"", b"null"),
        (b" ", b"null"),
        (b"\xef\xbb\xbf[1]", b"[1]"),
        *((text, text) for text in (b"null", b"  7 ", b'{ "a" : 1.50 }', b"{'a':1}", b"1e400")),
    ],
)
def test_a_response_keeps_its_text(body: bytes, payload: bytes) -> None:
    assert response_payload(body) == payload


@pytest.mark.parametrize("body", [b"fine <thanks", b"text", b"{", b"\xff{", b"1 2"])
def test_a_response_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(errors.InvalidResponseWhileProxying) as refusal:
        response_payload(body)
    assert refusal.value.code == 502101
    assert refusal.value.text == "Payload is not a valid document of type application/json"
