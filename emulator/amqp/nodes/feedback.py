"""Services receive the feedback on their messages from `/messages/serviceBound/feedback`."""

from __future__ import annotations

from emulator.amqp.message import Message
from emulator.amqp.nodes.messages import timestamp
from emulator.amqp.nodes.node import Receives
from emulator.amqp.nodes.service_bound import Receiver
from emulator.amqp.performatives import Properties
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import dumps
from emulator.hub.hub import IotHub
from emulator.hub.messages.cloud_to_device import FeedbackQueued
from emulator.hub.messages.feedback import CONTENT_TYPE, Batch

# The property user-id of feedback is the name of the hub (IoT Hub docs: cloud-to-device).
_USER_ID = b"iothub-emulator"


class _Feedback:
    """The queue of feedback: see `Lender`."""

    queued = FeedbackQueued

    def __init__(self, hub: IotHub) -> None:
        commands = hub.cloud_to_device
        self.receive = commands.receive_feedback
        self.complete, self.abandon = commands.complete_feedback, commands.abandon_feedback

    def message(self, batch: Batch) -> Message:
        return Message(
            dumps(batch.records),
            Properties(user_id=_USER_ID, content_type=CONTENT_TYPE),
            message_annotations={"iothub-enqueuedtime": timestamp(batch.enqueued)},
        )


NODES = (
    Receives(
        "/messages/serviceBound/feedback",
        Operation.USE_FEEDBACK,
        lambda request: request.link.accept(Receiver(request, _Feedback(request.hub))),
    ),
)
