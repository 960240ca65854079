"""Twins over AMQP."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from emulator.amqp.message import Message
from emulator.amqp.performatives import Properties
from emulator.amqp.types import Int
from emulator.hub.notifications.sources import TWIN_CHANGES
from tests.amqp.devices import TwinPair, connect, telemetry
from tests.amqp.lab import AmqpClient, Lab, device_token


def _json(message: Message) -> Any:
    assert isinstance(message.body, bytes)
    return json.loads(message.body)


def test_a_device_reads_its_twin(lab: Lab) -> None:
    lab.patch_desired(color="blue")
    reply = TwinPair(connect(lab)).get()
    assert reply.message_annotations == {"status": 200}
    assert type(reply.message_annotations["status"]) is Int  # the SDK for C# reads an int
    assert _json(reply) == {
        "desired": {"color": "blue", "$version": 2},
        "reported": {"$version": 1},
    }


@pytest.mark.parametrize("correlation_id", ["Get1", uuid4()])
def test_the_correlation_id_keeps_its_type(lab: Lab, correlation_id: Any) -> None:
    reply = TwinPair(connect(lab)).request("GET", correlation_id=correlation_id)
    assert type(reply.properties.correlation_id) is type(correlation_id)


def test_a_device_reports(lab: Lab) -> None:
    pair = TwinPair(connect(lab))
    reply = pair.report(b'{"a": 1}')
    assert reply.message_annotations == {"status": 204, "version": 2}
    assert type(reply.message_annotations["version"]) is int  # a long
    assert reply.body == b""
    assert lab.twin()["properties"]["reported"]["a"] == 1
    assert pair.report(b'{"a": 2}', version=None).message_annotations["status"] == 204  # C#
    assert pair.report(b'{"a": 3}', version=3).message_annotations["version"] == 4


@pytest.mark.parametrize(
    ("operation", "resource", "body", "more", "status"),
    [
        ("PATCH", "/properties/reported", b"{", {}, 400),
        ("PATCH", "/properties/reported", b"[]", {}, 400),
        ("PATCH", "/properties/reported", b'{"a.b": 1}', {}, 400),
        ("PATCH", "/properties/reported", b"{}", {"version": 9}, 412),
        ("PATCH", "/properties/reported", b"{}", {"version": "x"}, 400),
        ("PATCH", "/properties/desired", b"{}", {}, 400),
        ("PUT", "/properties/reported", b"{}", {}, 400),
        ("PUT", None, b"", {}, 400),
        ("POST", None, b"", {}, 400),
        ("", None, b"", {}, 400),
    ],
)
def test_failures_have_a_json_body(
    lab: Lab, operation: str, resource: str | None, body: bytes, more: dict[str, Any], status: int
) -> None:
    reply = TwinPair(connect(lab)).request(operation, resource, body, **more)
    assert reply.message_annotations == {"status": status}
    assert _json(reply)["errorCode"] // 1000 == status
    assert lab.twin()["properties"]["reported"] == {
        "$metadata": lab.twin()["properties"]["reported"]["$metadata"],
        "$version": 1,
    }


def test_the_event_of_a_change_is_in_order_with_telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab = Lab(event_sources=(TWIN_CHANGES,))
    client = connect(lab)
    link, pair = telemetry(client), TwinPair(client)
    pieces: list[bytes] = []
    with monkeypatch.context() as patches:
        patches.setattr(client, "send", pieces.append)
        for number in range(3):
            link.post(Message(b"%d" % number))
            annotations = {"operation": "PATCH", "resource": "/properties/reported"}
            report = Message(b'{"a": %d}' % number, message_annotations=annotations)
            pair.requests.post(report, settled=True)
    client.send(b"".join(pieces))
    bodies = [each["body"] for each in lab.events()]
    assert [isinstance(each, str) or each["properties"]["reported"]["a"] for each in bodies] == [
        *(True, 0, True, 1, True, 2),
    ]


def test_requests_over_the_rate_fail() -> None:
    pair = TwinPair(connect(Lab("twin-reads=1/min")))
    assert pair.get().message_annotations["status"] == 200
    assert pair.get().message_annotations["status"] == 429


def test_notifications_begin_and_end(lab: Lab) -> None:
    pair = TwinPair(connect(lab))
    lab.patch_desired(a=1)
    pair.client.expect_nothing()
    assert pair.notify().message_annotations == {"status": 200}
    lab.patch_desired(a=2)
    notification = pair.replies.take()
    assert notification.properties == Properties()  # C# tells it from a reply by that
    assert notification.message_annotations == {"resource": "/properties/desired", "version": 3}
    assert _json(notification) == {"a": 2, "$version": 3}
    assert pair.notify("DELETE").message_annotations == {"status": 200}
    lab.patch_desired(a=3)
    pair.client.expect_nothing()


def test_replies_go_to_the_link_of_the_same_pair(lab: Lab) -> None:
    client = connect(lab)
    first, second = TwinPair(client, pair="twin:1"), TwinPair(client, pair="twin:2")
    first.get()
    second.get()
    second.notify()
    lab.patch_desired(a=1)
    second.replies.take()
    client.expect_nothing()


def test_a_reply_waits_for_credit(lab: Lab) -> None:
    pair = TwinPair(connect(lab), credit=0)
    pair.requests.post(
        Message(b" ", Properties(correlation_id="1"), message_annotations={"operation": "GET"}),
        settled=True,
    )
    pair.client.expect_nothing()
    pair.replies.grant(1)
    assert pair.replies.take().properties.correlation_id == "1"


def test_a_request_without_a_correlation_id_has_no_reply(lab: Lab) -> None:
    pair = TwinPair(connect(lab))
    annotations = {"operation": "PATCH", "resource": "/properties/reported"}
    pair.requests.post(Message(b'{"a": 1}', message_annotations=annotations), settled=True)
    pair.client.expect_nothing()
    assert lab.twin()["properties"]["reported"]["a"] == 1


def test_a_module_has_a_twin_of_its_own(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab, "d1/camera", "Q" * 43 + "="))
    TwinPair(client, "d1/camera").report(b'{"a": 1}')
    assert lab.twin("d1/camera")["properties"]["reported"]["a"] == 1
    assert "a" not in lab.twin("d1")["properties"]["reported"]
