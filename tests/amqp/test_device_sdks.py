"""Devices as the SDKs for C#, Java and C speak AMQP: what they send, as transcripts.

The sources are the SDKs' code and its issues; Node's SDK runs for real, in tests/node.
"""

from __future__ import annotations

import itertools
import json
import uuid

from emulator.amqp.encoder import encode_binary
from emulator.amqp.message import BATCH_FORMAT, Message
from emulator.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    SECOND,
    SENDER,
    SETTLED,
    Attach,
    Disposition,
    Properties,
    Source,
    Target,
    Transfer,
)
from emulator.amqp.types import Int, Symbol
from tests.amqp.devices import CHANNEL, commands, connect, telemetry
from tests.amqp.lab import HOST, AmqpClient, Lab, RemoteLink, device_token
from tests.amqp.playbook import write

M_KEY = "M" * 43 + "="  # of d2


class CSharpDevice:
    """A device of C#: a session of its own, and links with the same names for every device."""

    def __init__(self, client: AmqpClient, device_id: str, channel: int) -> None:
        self.client, self.device_id, self.channel = client, device_id, channel
        self._handles = itertools.count()
        client.session(channel)
        self.telemetry = self.attach("TelemetrySenderLink", SENDER, "messages/events/")
        self.commands = self.attach(
            "TelemetryReceiverLink", RECEIVER, "messages/deviceBound", rcv=SECOND
        )
        self.method_responses = self.attach(
            "MethodSenderLink", SENDER, "methods/deviceBound", pair="methods:1", snd=SETTLED
        )
        self.method_requests = self.attach(
            "MethodReceiverLink", RECEIVER, "methods/deviceBound", pair="methods:1", snd=SETTLED
        )
        self.twin_requests = self.attach(
            "TwinSenderLink", SENDER, "twin", pair="twin:1", snd=SETTLED
        )
        self.twin_replies = self.attach(
            "TwinReceiverLink", RECEIVER, "twin", pair="twin:1", snd=SETTLED
        )

    def attach(
        self, name: str, role: bool, path: str, *, pair: str = "", snd: int = 0, rcv: int = 0
    ) -> RemoteLink:
        address = f"amqps://{HOST}/devices/{self.device_id}/{path}"
        properties = {
            Symbol("com.microsoft:client-version"): ".NET",
            Symbol("com.microsoft:api-version"): "2021-04-12",
        }
        if pair:
            properties[Symbol(CHANNEL)] = f"{pair}{self.device_id}"
        sends = role == SENDER
        attach = Attach(
            name,
            next(self._handles),
            role,
            snd,
            rcv,
            Source(self.device_id if sends else address),
            Target(address if sends else self.device_id),
            properties=properties,
        )
        return self.client.attach(attach, self.channel)


async def test_csharp_with_two_devices_in_a_pool(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab, "d1"))
    client.put_token(device_token(lab, "d2", M_KEY))
    devices = [CSharpDevice(client, name, 1 + i) for i, name in enumerate(("d1", "d2"))]
    for device in devices:
        name = device.device_id
        # Telemetry
        assert device.telemetry.send(Message(name.encode())) == ACCEPTED
        assert lab.bodies(name) == [name]
        # A cloud-to-device message: the outcome is confirmed
        device.commands.grant(1)
        lab.send(f"to {name}", name)
        assert device.commands.take().body == f"to {name}".encode()
        assert len(device.commands.tags[0]) == 16
        device.commands.settle(ACCEPTED, settled=False)
        number = device.commands.ids[0]
        assert client.take() == (
            device.channel, Disposition(SENDER, number, number, True, ACCEPTED), b"",
        )  # fmt: skip
        # A method
        device.method_requests.grant(10)
        call = await lab.invoked(name, "reboot", {"in": 5})
        request = device.method_requests.take()
        response = Message(
            b"{}",
            Properties(correlation_id=request.properties.correlation_id),
            {"IoThub-status": Int(200)},
        )
        device.method_responses.post(response, settled=True)
        assert (await call).status == 200
        # The twin; C# tells the kinds of replies by the beginning of the correlation id
        device.twin_replies.grant(10)
        reply = _ask(device, "Get", {"operation": "GET"})
        assert json.loads(bytes(reply.body))["reported"] == {"$version": 1}  # type: ignore[arg-type]
        patch = {"operation": "PATCH", "resource": "/properties/reported", "version": None}
        assert _ask(device, "Patch", patch, b'{"a": 1}').message_annotations["version"] == 2
        _ask(
            device,
            "Put",
            {"operation": "PUT", "resource": "/notifications/twin/properties/desired"},
        )
        lab.patch_desired(name, a=1)
        notification = device.twin_replies.take()
        assert notification.properties.correlation_id is None
    client.expect_nothing()
    assert [lab.pending(name) for name in ("d1", "d2")] == [0, 0]


def _ask(
    device: CSharpDevice, kind: str, annotations: dict[str, object], body: bytes = b""
) -> Message:
    correlation_id = f"{kind}{uuid.uuid4()}"
    message = Message(
        body, Properties(correlation_id=correlation_id), message_annotations=dict(annotations)
    )
    device.twin_requests.post(message, settled=True)
    reply = device.twin_replies.take()
    assert reply.properties.correlation_id == correlation_id
    assert reply.message_annotations["status"] < 400
    return reply


def test_java_takes_frames_of_4096_bytes(lab: Lab) -> None:
    client = AmqpClient(lab).open(max_frame_size=4096)
    client.put_token(device_token(lab))
    link = telemetry(client)
    payload = Message(b"x" * 100_000).to_bytes()
    number, parts = client.next_number(), range(0, len(payload), 4_000)
    for start in parts:
        more = start != parts[-1]
        transfer = Transfer(link.handle, number, b"1", more=more)
        client.send(write(0, transfer, payload[start : start + 4_000]))
    assert client.take()[1] == Disposition(RECEIVER, number, number, True, ACCEPTED)
    assert len(lab.bodies()[0]) == 100_000
    lab.send("y" * 60_000)
    assert commands(client).take().body == b"y" * 60_000


def test_c_sends_all_telemetry_in_batches(lab: Lab) -> None:
    client = connect(lab)
    link = telemetry(client)
    messages = [
        Message(b"%d" % number, Properties(message_id=str(number)), {"key": "value"})
        for number in range(3)
    ]
    batch = b"".join(b"\0\x53\x75" + encode_binary(each.to_bytes()) for each in messages)
    assert link.send(batch, message_format=BATCH_FORMAT) == ACCEPTED
    assert [each["systemProperties"]["message-id"] for each in lab.events()] == ["0", "1", "2"]
