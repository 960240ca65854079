"""Cloud-to-device messages to devices: credit, outcomes, locks."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from emulator.amqp.performatives import (
    ACCEPTED,
    SECOND,
    SENDER,
    SETTLED,
    Detach,
    Disposition,
    Modified,
    Outcome,
    Rejected,
    Released,
)
from emulator.amqp.types import Timestamp, UByte, ULong
from tests.amqp.devices import commands, connect, telemetry
from tests.amqp.lab import AmqpClient, Lab, device_token
from tests.amqp.playbook import write

MODIFIED = Modified(delivery_failed=True)


def test_a_message_as_the_sdks_read_it(lab: Lab) -> None:
    link = commands(connect(lab))
    lab.send("hello", message_id="m1", expiry="2026-01-31T15:00:00Z", color="blue", ack="full")
    message = link.take()
    assert message.body == b"hello"
    assert message.properties.message_id == "m1"
    assert message.properties.absolute_expiry_time == 1769871600000
    assert message.application_properties == {"color": "blue", "iothub-ack": "full"}
    annotations = message.message_annotations
    # The SDK for C# reads values by their exact type.
    assert type(annotations["x-opt-sequence-number"]) is ULong
    assert type(annotations["iothub-deliverycount"]) is UByte
    assert type(annotations["iothub-enqueuedtime"]) is Timestamp
    token = annotations["x-opt-lock-token"]
    assert link.tags == [UUID(token).bytes_le]


@pytest.mark.parametrize(
    ("outcome", "pending", "feedback"),
    [
        (ACCEPTED, 0, [("m1", "Success")]),
        (Rejected(), 0, [("m1", "Rejected")]),
        (Released(), 1, []),
        (MODIFIED, 1, []),
    ],
    ids=["complete", "reject", "abandon", "abandon with a reason"],
)
@pytest.mark.parametrize("is_second", [False, True], ids=["Node", "C#"])
def test_outcomes(
    lab: Lab, outcome: Outcome, pending: int, feedback: list[Any], is_second: bool
) -> None:
    link = commands(connect(lab), credit=1, rcv_settle_mode=SECOND if is_second else 0)
    lab.send("hello", message_id="m1", ack="full")
    link.take()
    link.settle(outcome, settled=not is_second)
    if is_second:  # the device waits until the hub has settled the message
        disposition = link.client.take()[1]
        assert disposition == Disposition(SENDER, link.ids[0], link.ids[0], True, outcome)
    link.client.expect_nothing()
    assert lab.pending() == pending
    assert lab.feedback() == feedback


def test_messages_wait_for_credit(lab: Lab) -> None:
    link = commands(connect(lab), credit=0)
    for text in "abc":
        lab.send(text)
    link.client.expect_nothing()
    link.grant(2)
    assert [link.take().body for _ in range(2)] == [b"a", b"b"]
    link.client.expect_nothing()
    link.grant(1)
    assert link.take().body == b"c"


def test_an_abandoned_message_comes_again_and_ends_after_the_tenth_time(lab: Lab) -> None:
    link = commands(connect(lab), credit=100)
    lab.send("hello", message_id="m1", ack="full")
    for count in range(10):
        assert link.take().message_annotations["iothub-deliverycount"] == count
        link.settle(Released())
    link.client.expect_nothing()
    assert lab.feedback() == [("m1", "DeliveryCountExceeded")]


def test_a_message_that_is_sent_settled_is_completed(lab: Lab) -> None:
    link = commands(connect(lab), snd_settle_mode=SETTLED)
    lab.send("hello")
    link.take()
    assert lab.pending() == 0


def test_a_lock_lapses_after_a_minute(lab: Lab) -> None:
    link = commands(connect(lab), rcv_settle_mode=SECOND)
    lab.send("hello")
    first = link.take()
    lab.clock.advance(59)
    link.client.expect_nothing()
    lab.clock.advance(1)
    again = link.take()
    assert again.message_annotations["iothub-deliverycount"] == 0
    tokens = [each.message_annotations["x-opt-lock-token"] for each in (first, again)]
    assert tokens[0] != tokens[1]
    link.settle(ACCEPTED, settled=False, number=link.ids[0])  # too late
    late = link.client.take()[1]
    assert isinstance(late, Disposition)
    assert isinstance(late.state, Rejected)
    assert late.state.error is not None
    assert late.state.error.condition == "com.microsoft:message-lock-lost"
    assert lab.pending() == 1
    link.settle(ACCEPTED)
    assert lab.pending() == 0


def test_what_is_out_returns_when_its_link_ends(lab: Lab) -> None:
    client = connect(lab)
    telemetry(client)
    link = commands(client)
    lab.send("hello")
    link.take()
    link.detach()
    assert lab.state() == "Connected"
    again = commands(client)
    assert again.take().message_annotations["iothub-deliverycount"] == 0


def test_what_is_out_returns_when_the_connection_is_lost(lab: Lab) -> None:
    client = connect(lab)
    link = commands(client)
    lab.send("hello")
    link.take()
    client.connection.lost()
    assert lab.state() == "Disconnected"
    assert commands(connect(lab)).take().body == b"hello"


def test_a_newer_link_takes_the_place_of_an_older_one(lab: Lab) -> None:
    client = connect(lab)
    old = commands(client)
    lab.send("hello")
    old.take()
    new = client.receiver("/devices/d1/messages/devicebound")
    detach = client.take()[1]
    assert isinstance(detach, Detach)
    assert detach.handle == old.handle
    assert detach.error is not None
    assert detach.error.condition == "amqp:link:stolen"
    client.send(write(0, Detach(old.handle, closed=True)))
    new.grant(1)
    assert new.take().body == b"hello"
    assert lab.state() == "Connected"


def test_a_module_can_attach_and_gets_nothing(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab, "d1/camera", "Q" * 43 + "="))
    link = commands(client, "d1/camera")
    client.receiver("/devices/d1/modules/camera/messages/events", credit=10)
    lab.send("hello")
    link.client.expect_nothing()


def test_a_content_type_that_is_no_symbol_does_not_stop_the_queue(lab: Lab) -> None:
    from emulator.hub.messages.message import Message

    lab.hub.cloud_to_device.send("d1", Message(b"x", {"content-type": "tëxt"}))
    lab.send("next")
    link = commands(connect(lab))
    assert link.take().properties.content_type == "t?xt"
    assert link.take().body == b"next"
