"""Receivers of events at the built-in endpoint."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from emulator.amqp.decoder import decode
from emulator.amqp.message import Message as AmqpMessage
from emulator.amqp.performatives import ACCEPTED, MIXED, SETTLED, UNSETTLED, Flow
from emulator.amqp.types import Symbol, Timestamp
from emulator.hub.core import limits
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.messages.event import TELEMETRY, Origin
from emulator.hub.messages.event_log import ENTITY, EventLog
from emulator.hub.messages.message import Message
from tests.amqp.lab import HOST, AmqpClient, Lab, service_token
from tests.amqp.nodes.event_hubs import (
    PARTITION,
    address,
    event_hubs_token,
    open_client,
    partition_of,
    receiver,
    send,
)
from tests.clock import TickingClock

_EPOCH = Symbol("com.microsoft:epoch")


def bodies(messages: list[AmqpMessage]) -> list[Any]:
    return [each.body for each in messages]


def take(link: Any, count: int) -> list[Any]:
    return bodies([link.take() for _ in range(count)])


# --- what an event is


def test_an_event_has_all_properties_and_annotations_in_their_types(lab: Lab) -> None:
    system = {
        "message-id": "m",
        "correlation-id": "c",
        "user-id": "u",
        "to": "/t",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2026-01-31T15:46:08Z",
        "dt-subject": "thermostat1",
        "iothub-interface-id": "i",
    }
    send(lab, Message(b"{}", system, {"a": "1", "b": "", "c": None}))
    client = open_client(lab)
    message = receiver(client, credit=1).take()
    time = int(lab.clock.now().timestamp() * 1000)
    assert {key: (type(value), value) for key, value in message.message_annotations.items()} == {
        "x-opt-sequence-number": (int, 0),
        "x-opt-offset": (str, partition_of(lab).read(0, 1)[0].offset),
        "x-opt-enqueued-time": (Timestamp, time),
        "iothub-connection-device-id": (str, "d1"),
        "iothub-connection-auth-method": (str, '{"scope":"device"}'),
        "iothub-connection-auth-generation-id": (str, "42"),
        "iothub-message-source": (str, "Telemetry"),
        "iothub-enqueuedtime": (Timestamp, time),
        "dt-subject": (str, "thermostat1"),
        "iothub-interface-id": (str, "i"),
    }
    properties = message.properties
    assert (properties.message_id, properties.correlation_id) == ("m", "c")
    assert (properties.user_id, properties.to) == (b"u", "/t")
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert properties.absolute_expiry_time == 1769874368000
    assert message.application_properties == {"a": "1", "b": "", "c": None}
    assert message.body == b"{}"


def test_the_event_of_a_module_names_it(lab: Lab) -> None:
    send(lab, b"x", module="camera")
    annotations = receiver(open_client(lab), credit=1).take().message_annotations
    assert annotations["iothub-connection-module-id"] == "camera"


def test_a_text_without_an_encoding_does_not_stop_the_readers(lab: Lab) -> None:
    bad = {"content-type": "é", "message-id": "\ud800", "absolute-expiry-time": "soon"}
    send(lab, Message(b"1", bad, {"\ud800": "\ud800"}), b"2")
    assert take(receiver(open_client(lab), credit=2), 2) == [b"1", b"2"]


def test_metrics_of_the_partition_are_delivery_annotations(lab: Lab) -> None:
    wanted = (Symbol("com.microsoft:enable-receiver-runtime-metric"),)
    send(lab, b"1", b"2")
    link = receiver(open_client(lab), credit=1, desired_capabilities=wanted)
    assert link.answer.offered_capabilities == wanted
    time, last = int(lab.clock.now().timestamp() * 1000), partition_of(lab).last
    payload = link.take_bytes()
    assert payload[:3] == b"\x00\x53\x71"  # delivery annotations
    annotations = decode(payload, 3)[0]
    assert {key: (type(value), value) for key, value in annotations.items()} == {
        "last_enqueued_sequence_number": (int, 1),
        "last_enqueued_offset": (str, last and last.offset),
        "last_enqueued_time_utc": (Timestamp, time),
        "runtime_info_retrieval_time_utc": (Timestamp, time),
    }


# --- where it is


@pytest.mark.parametrize(
    "where",
    [
        f"amqps://{HOST}/{ENTITY}/ConsumerGroups/$Default/Partitions/{PARTITION}",
        f"{ENTITY}/ConsumerGroups/$Default/Partitions/{PARTITION}",
        f"sb://{HOST}/{ENTITY}/consumergroups/$default/partitions/{PARTITION}/",
        f"/{ENTITY.upper()}/ConsumerGroups/%24Default/Partitions/{PARTITION}",
    ],
    ids=["azure-eventhub", "@azure/event-hubs", "lower case", "encoded"],
)
def test_the_address_of_a_partition_has_several_forms(lab: Lab, where: str) -> None:
    send(lab, b"x")
    assert take(receiver(open_client(lab), where, credit=1), 1) == [b"x"]


@pytest.mark.parametrize(
    "where",
    [
        address(group="unknown"),
        address("4"),
        address("02"),
        address("-1"),
        f"amqps://{HOST}/another/ConsumerGroups/$Default/Partitions/0",
        f"amqps://{HOST}/{ENTITY}",
    ],
)
def test_an_unknown_group_partition_or_entity_is_refused(lab: Lab, where: str) -> None:
    link = receiver(open_client(lab), where)
    assert link.error is not None
    assert link.error.condition == "amqp:not-found"


def test_a_named_consumer_group_reads_too(lab: Lab) -> None:
    lab.hub.events = EventLog(clock=lab.clock, consumer_groups=["mine"])
    send(lab, b"x")
    assert take(receiver(open_client(lab), address(group="Mine"), credit=1), 1) == [b"x"]


def test_a_drain_sends_all_events_there_are(lab: Lab) -> None:
    send(lab, *(b"%d" % number for number in range(200)))
    client = open_client(lab)
    link = receiver(client)
    link.grant(300, drain=True)
    lab.clock.advance(1)
    assert take(link, 200) == [b"%d" % number for number in range(200)]
    flow = client.take()[1]
    assert isinstance(flow, Flow)
    assert (flow.delivery_count, flow.link_credit) == (300, 0)
    client.expect_nothing()


def test_a_drain_waits_for_an_event_that_has_just_come(lab: Lab) -> None:
    client = open_client(lab)
    link = receiver(client)
    send(lab, b"x")
    link.grant(5, drain=True)
    lab.clock.advance(1)
    assert take(link, 1) == [b"x"]
    flow = client.take()[1]
    assert isinstance(flow, Flow)
    assert (flow.delivery_count, flow.link_credit) == (5, 0)


# --- rights


@pytest.mark.parametrize("policy", ["iothubowner", "service"])
def test_a_policy_with_service_connect_reads(lab: Lab, policy: str) -> None:
    client = AmqpClient(lab).open()
    client.put_token(event_hubs_token(lab, policy))
    assert receiver(client).error is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{ENTITY}/ConsumerGroups/$Default/Partitions/3", 200),
        ("another", 404),
        (f"{ENTITY}x", 404),
    ],
)
def test_a_token_for_something_else_does_not_read(lab: Lab, path: str, status: int) -> None:
    client = AmqpClient(lab).open()
    client.put_token(event_hubs_token(lab, path=path), status=status)
    assert client.refused(receiver(client))[0] == "amqp:unauthorized-access"


def test_a_token_of_another_right_or_another_key_is_refused_at_once(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(event_hubs_token(lab, "device"), status=401)
    client.put_token(event_hubs_token(lab).replace("sig=", "sig=A"), status=401)
    assert client.refused(receiver(client))[0] == "amqp:unauthorized-access"


def test_without_a_token_for_event_hubs_no_reader_is_allowed(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    assert client.refused(receiver(client))[0] == "amqp:unauthorized-access"
    client.put_token(service_token(lab))
    assert client.refused(receiver(client))[0] == "amqp:unauthorized-access"


# --- which events


@pytest.mark.parametrize(
    "descriptor", [Symbol("apache.org:selector-filter:string"), 0x468C00000004]
)
def test_a_selector_is_known_by_name_and_by_code(lab: Lab, descriptor: Any) -> None:
    send(lab, b"0", b"1", b"2")
    selector = "amqp.annotation.x-opt-sequence-number > '1'"
    link = receiver(open_client(lab), selector=selector, descriptor=descriptor, credit=3)
    assert take(link, 1) == [b"2"]
    link.client.expect_nothing()


@pytest.mark.parametrize(
    ("selector", "first"),
    [
        ("amqp.annotation.x-opt-offset > '-1'", 0),
        ("amqp.annotation.x-opt-offset > '@latest'", 4),
        ("amqp.annotation.x-opt-offset >= '@latest'", 3),
        ("amqp.annotation.x-opt-offset > '{offset}'", 2),
        ("amqp.annotation.x-opt-offset >= '{offset}'", 1),
        ("amqp.annotation.x-opt-offset > '5'", 0),
        ("amqp.annotation.x-opt-sequence-number > '1'", 2),
        ("amqp.annotation.x-opt-sequence-number >= '1'", 1),
        ("amqp.annotation.x-opt-sequence-number > '-1'", 0),
        ("amqp.annotation.x-opt-enqueued-time > '{time}'", 2),
        ("amqp.annotation.x-opt-enqueued-time >= '{time}'", 1),
        ("amqp.annotation.x-opt-enqueued-time > '{time}.25'", 2),
        ("amqp.annotation.x-opt-enqueuedtimeutc > {time}", 2),
        (None, 0),
    ],
)
def test_a_reader_starts_where_its_selector_says(
    lab: Lab, selector: str | None, first: int
) -> None:
    for body in (b"0", b"1", b"2", b"3"):
        send(lab, body)
        lab.clock.advance(1)
    event = partition_of(lab).read(1, 1)[0]
    text = selector and selector.format(offset=event.offset, time=event.enqueued_ms)
    link = receiver(open_client(lab), selector=text, credit=9)
    assert take(link, 4 - first) == [b"%d" % number for number in range(first, 4)]
    link.client.expect_nothing()
    send(lab, b"4")
    assert take(link, 1) == [b"4"]


@pytest.mark.parametrize("selector", ["", "x-opt-offset > '1'", "1 = 1", 7])
def test_an_unknown_selector_is_refused(lab: Lab, selector: Any) -> None:
    link = receiver(open_client(lab), selector=selector)
    assert link.error is not None
    assert link.error.condition == "com.microsoft:argument-error"


# --- how they come


def test_a_reader_gets_what_its_credit_allows(lab: Lab) -> None:
    send(lab, b"1", b"2", b"3")
    link = receiver(open_client(lab))
    link.client.expect_nothing()
    link.grant(2)
    assert take(link, 2) == [b"1", b"2"]
    link.client.expect_nothing()
    link.grant(5)
    assert take(link, 1) == [b"3"]
    send(lab, b"4")
    assert take(link, 1) == [b"4"]


def test_events_of_other_partitions_do_not_come(lab: Lab) -> None:
    link = receiver(open_client(lab), credit=9)
    send(lab, b"other", device="d2")
    send(lab, b"own")
    assert take(link, 1) == [b"own"]
    link.client.expect_nothing()


def test_many_events_come_in_parts_so_that_others_have_their_turn(lab: Lab) -> None:
    send(lab, *[b"%d" % number for number in range(200)])
    link = receiver(open_client(lab), credit=1000)
    assert take(link, 16) == [b"%d" % number for number in range(16)]
    link.client.expect_nothing()
    for _ in range(12):
        lab.clock.advance(0)
    assert take(link, 184) == [b"%d" % number for number in range(16, 200)]


class Crowd:
    """Many readers of a partition, on a machine where each of them uses up a turn."""

    def __init__(self) -> None:
        self.lab = Lab(clock=TickingClock())
        groups = [f"group{number}" for number in range(4)]
        self.lab.hub.events = EventLog(clock=self.lab.clock, consumer_groups=groups)
        self.links = [
            receiver(open_client(self.lab), address(group=group))
            for group in groups
            for _ in range(limits.EVENT_READERS)
        ]
        self.lab.clock.advance(0)

    def sent(self) -> int:
        """Return how many readers have sent something since the last call."""
        pieces = [(link.client, link.client.connection.data_to_send()) for link in self.links]
        for client, data in pieces:
            client._frames.append(data)
        return sum(bool(data) for _, data in pieces)

    def serve(self) -> list[int]:
        """Serve all readers; return how many have sent at each turn of another connection."""
        counts: list[int] = []

        def look() -> None:
            counts.append(self.sent())
            if len(counts) < 2 * len(self.links):
                self.lab.clock.call_later(0, look)

        self.lab.clock.call_later(0, look)
        self.lab.clock.advance(0)
        return counts


def test_one_of_many_readers_sends_in_each_turn_of_the_event_loop() -> None:
    crowd = Crowd()
    for link in crowd.links:
        link.grant(9)
    crowd.lab.clock.advance(0)
    sender = Admission(IdentityKey("d1"), math.inf, "42", "{}", "")
    crowd.lab.hub.events.extend(Origin(sender.key, TELEMETRY, sender), [Message(b"x")])
    assert crowd.sent() == 0
    assert crowd.serve() == [1] * 20 + [0] * 20
    for link in crowd.links:
        assert take(link, 1) == [b"x"]
        link.client.expect_nothing()


def test_readers_that_grant_credit_in_one_turn_send_in_different_ones() -> None:
    crowd = Crowd()
    send(crowd.lab, *[b"%d" % number for number in range(20)])
    for link in crowd.links:
        link.grant(30)
    assert crowd.sent() == 1
    assert crowd.serve() == [1] * 39 + [0]  # each sends 16 events, and later 4
    for link in crowd.links:
        assert take(link, 20) == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize(("mode", "settled"), [(MIXED, False), (UNSETTLED, False), (SETTLED, True)])
def test_events_are_settled_if_the_reader_asks(lab: Lab, mode: int, settled: bool) -> None:
    client = open_client(lab)
    link = receiver(client, credit=1, snd_settle_mode=mode)
    send(lab, b"1", b"2")
    transfer = client.take()[1]
    assert transfer.settled is settled
    link.ids.append(transfer.delivery_id)
    link.settle(ACCEPTED)  # azure-eventhub does so later, or never
    client.expect_nothing()


def test_a_reader_that_is_too_slow_continues_at_the_oldest_event_with_one_warning(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.hub.events = EventLog(events=3, clock=lab.clock)
    link = receiver(open_client(lab), credit=1)
    send(lab, b"0")
    assert take(link, 1) == [b"0"]
    with caplog.at_level(logging.WARNING):
        for round_ in range(2):
            send(lab, *[b"%d-%d" % (round_, number) for number in range(9)])
            link.grant(1)
            assert take(link, 1) == [b"%d-6" % round_]
    (record,) = caplog.records
    assert "too slow: it misses 6 events" in record.getMessage()


def test_a_reader_that_ends_leaves_nothing_behind(lab: Lab) -> None:
    client = open_client(lab)
    link = receiver(client, credit=9)
    assert len(partition_of(lab).listeners) == 1
    link.detach()
    assert partition_of(lab).listeners == []
    receiver(client, credit=9)
    client.connection.lost()
    assert partition_of(lab).listeners == []
    send(lab, b"x")


# --- owner levels


def epoch(level: int) -> dict[str, Any]:
    return {"properties": {_EPOCH: level}}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_reader_takes_a_partition_from_a_lower_or_equal_level(lab: Lab, level: int) -> None:
    old = receiver(open_client(lab), credit=1, **epoch(0))
    new = receiver(open_client(lab), credit=1, **epoch(level))
    assert new.error is None
    error = old.detached()
    assert error is not None
    assert error.condition == "amqp:link:stolen"
    assert f"higher epoch of '{level}'" in (error.description or "")
    send(lab, b"x")
    assert take(new, 1) == [b"x"]
    old.client.expect_nothing()


def test_a_reader_with_a_lower_level_is_refused(lab: Lab) -> None:
    old = receiver(open_client(lab), **epoch(5))
    new = receiver(open_client(lab), **epoch(4))
    assert new.error is not None
    assert new.error.condition == "amqp:link:stolen"
    assert "'5'" in (new.error.description or "")
    old.client.expect_nothing()


def test_a_level_of_0_is_a_level(lab: Lab) -> None:
    shared = [receiver(open_client(lab)) for _ in range(2)]
    owner = receiver(open_client(lab), **epoch(0))
    for each in shared:
        error = each.detached()
        assert error is not None
        assert error.condition == "amqp:link:stolen"
    late = receiver(open_client(lab))
    assert late.error is not None
    assert late.error.condition == "amqp:link:stolen"
    assert "epoch of '0'" in (late.error.description or "")
    owner.detach()
    assert receiver(open_client(lab)).error is None


def test_five_readers_share_a_partition(lab: Lab) -> None:
    client = open_client(lab)
    links = [receiver(client) for _ in range(limits.EVENT_READERS)]
    sixth = receiver(client)
    assert sixth.error is not None
    assert sixth.error.condition == "amqp:resource-limit-exceeded"
    assert receiver(client, address("0")).error is None
    links[0].detach()
    assert receiver(client).error is None


def test_a_lost_connection_frees_its_partition(lab: Lab) -> None:
    client = open_client(lab)
    receiver(client, **epoch(9))
    client.connection.lost()
    assert receiver(open_client(lab), **epoch(0)).error is None


def test_the_levels_of_another_group_do_not_count(lab: Lab) -> None:
    lab.hub.events = EventLog(clock=lab.clock, consumer_groups=["mine"])
    receiver(open_client(lab), **epoch(9))
    assert receiver(open_client(lab), address(group="mine")).error is None


def test_decoding_reads_all_of_a_message(lab: Lab) -> None:
    """The map of annotations counts its keys and values."""
    send(lab, b"x")
    client = open_client(lab)
    receiver(client, credit=1)
    _, _, payload = client.take()
    annotations, end = decode(payload, 3, len(payload))
    assert len(annotations) == 8
    assert payload[end : end + 3] == b"\x00\x53\x75"
