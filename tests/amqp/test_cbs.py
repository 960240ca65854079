"""Tokens on `$cbs`."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from emulator.amqp.types import ULong
from tests.amqp.lab import AmqpClient, Lab, service_token


@pytest.mark.parametrize(
    "message_id",
    [ULong(0), uuid.UUID(int=7), "text", b"\x01\x02"],
    ids=["ulong of uamqp", "uuid of azure-eventhub", "string of Node", "binary"],
)
def test_the_reply_has_the_message_id_in_its_own_type(lab: Lab, message_id: Any) -> None:
    client = AmqpClient(lab).open()
    reply = client.put_token(service_token(lab), message_id)
    assert type(reply.application_properties["status-code"]).__name__ == "Int"


def test_an_expired_token_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    reply = client.put_token(service_token(lab, lifetime=-1), status=401)
    assert "expired" in reply.application_properties["status-description"]


def test_an_unknown_address_is_refused(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    assert client.refused(client.sender("/x")) == ("amqp:not-found", 404006)
