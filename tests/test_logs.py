"""No client can forge a line of the log, or send escape codes to the terminal that shows it."""

from __future__ import annotations

import logging
import ssl

import pytest

from emulator import Emulator
from tests.http import support
from tests.http.test_common import exchange
from tests.mqtt import raw
from tests.support import API_VERSION, sas_token, wait_until

_FORGED = "2026-01-01 00:00:00,000 ERROR emulator: the disk is full"
_TEXTS = [f"a\n{_FORGED}", f"a\r\n{_FORGED}\r\n", f"\x1b[2J\x1b[H{_FORGED}", "a\u2028b\x9b2J", "\0"]


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "emulator")


def _check(caplog: pytest.LogCaptureFixture, count: int) -> None:
    wait_until(lambda: len(caplog.messages) >= count)
    assert [text for text in caplog.messages if not text.isprintable()] == []


_REQUESTS = {
    "the path": "GET /devices/{}?api-version=2021-04-12 HTTP/1.1\r\nHost: x\r\n",
    "the path of a device": "GET /devices/{}/messages/deviceBound HTTP/1.1\r\nHost: x\r\n",
    "the query": "GET /devices?api-version={} HTTP/1.1\r\nHost: x\r\n",
    "the policy of a token": "GET /devices HTTP/1.1\r\nHost: x\r\n"
    "Authorization: SharedAccessSignature sr=x&sig=AAAA&se=99999999999&skn={}\r\n",
    "the audience of a token": "GET /devices HTTP/1.1\r\nHost: x\r\n"
    "Authorization: SharedAccessSignature sr={}&sig=AAAA&se=9999999999\r\n",
}


@pytest.mark.parametrize("text", _TEXTS, ids=ascii)
@pytest.mark.parametrize("request_", _REQUESTS.values(), ids=_REQUESTS)
def test_a_request_cannot_forge_a_line(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, request_: str, text: str
) -> None:
    exchange(emulator, request_.format(_percent(text)) + "Connection: close\r\n\r\n")
    _check(caplog, 1)


def test_a_token_that_is_valid_elsewhere_cannot_forge_a_line(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    for text in _TEXTS:
        token = support.policy_token(emulator, "iothubowner", resource=f"x/devices/{text}")
        exchange(
            emulator,
            f"GET /devices?api-version={API_VERSION} HTTP/1.1\r\nHost: {text!a}\r\n"
            f"Authorization: {token}\r\nConnection: close\r\n\r\n",
        )
    _check(caplog, len(_TEXTS))


@pytest.mark.parametrize("garbage", ["\x1b[2J\r\n\r\n", f"GET / HTTP/1.1\r\n{_FORGED}\r\n\r\n"])
def test_what_is_not_http_cannot_forge_a_line(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, garbage: str
) -> None:
    exchange(emulator, garbage)
    _check(caplog, 1)


@pytest.mark.parametrize("text", _TEXTS[:-1], ids=ascii)  # MQTT itself forbids U+0000
@pytest.mark.parametrize("where", ["client id", "user name", "both", "password"])
def test_a_connect_cannot_forge_a_line(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, where: str, text: str
) -> None:
    host = emulator.host_name
    client_id = text if where in ("client id", "both") else "d"
    user = f"{host}/{text}/" if where in ("user name", "both") else f"{host}/d/"
    password = text if where == "password" else sas_token(f"{host}/devices/{text}", "AAAA" * 11)
    trust = ssl.create_default_context(cafile=str(emulator.ca_file))
    with raw.Wire((host, emulator.mqtt_port), trust) as wire:
        wire.send(raw.connect(client_id, f"{user}?api-version={API_VERSION}", password))
        _check(caplog, 1)


@pytest.mark.parametrize("text", _TEXTS[:-1], ids=ascii)
@pytest.mark.parametrize("kind", ["topic", "filter", "bag"])
def test_a_topic_cannot_forge_a_line(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, kind: str, text: str
) -> None:
    device = support.register(emulator, support.new_id())
    host = emulator.host_name
    trust = ssl.create_default_context(cafile=str(emulator.ca_file))
    token = sas_token(f"{host}/devices/{device.id}", device.key)
    packet = {
        "topic": raw.publish(f"devices/{text}"),
        "filter": raw.subscribe(1, f"devices/{text}"),
        "bag": raw.publish(f"devices/{device.id}/messages/events/$.{text}=%zz&="),
    }[kind]
    with raw.Wire((host, emulator.mqtt_port), trust) as wire:
        wire.begin(raw.connect(device.id, f"{host}/{device.id}/?api-version={API_VERSION}", token))
        wire.send(packet, raw.DISCONNECT)
    _check(caplog, 2)
