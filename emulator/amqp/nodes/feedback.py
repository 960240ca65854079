"""Services receive the feedback on their messages from `/messages/serviceBound/feedback`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from emulator.amqp.message import Message
from emulator.amqp.nodes.messages import timestamp
from emulator.amqp.nodes.node import Receives
from emulator.amqp.nodes.service_bound import Receiver, Watcher
from emulator.amqp.performatives import Properties
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import dumps
from emulator.hub.hub import IotHub
from emulator.hub.messages.cloud_to_device import CommandEnded, CommandSent
from emulator.hub.messages.feedback import CONTENT_TYPE, Batch

# The property user-id of feedback is the name of the hub (IoT Hub docs: cloud-to-device).
_USER_ID = b"iothub-emulator"


class _Feedback:
    """The queue of feedback: see `Lender`."""

    def __init__(self, hub: IotHub) -> None:
        self._hub = hub

    def receive(self) -> Batch | None:
        return self._hub.cloud_to_device.receive_feedback()

    def complete(self, token: str) -> None:
        self._hub.cloud_to_device.complete_feedback(token)

    def abandon(self, token: str) -> None:
        self._hub.cloud_to_device.abandon_feedback(token)

    def next_due(self) -> datetime | None:
        return self._hub.cloud_to_device.next_feedback(self._hub.clock.now())

    def message(self, batch: Batch) -> Message:
        return Message(
            dumps(batch.records),
            Properties(user_id=_USER_ID, content_type=CONTENT_TYPE),
            message_annotations={"iothub-enqueuedtime": timestamp(batch.enqueued)},
        )

    def watch(self, watcher: Watcher) -> Sequence[Callable[[], object]]:
        """Notify a receiver of each message: its end makes feedback, and so does its expiry."""

        def on_end(change: CommandEnded) -> None:
            if change.outcome.wanted:
                watcher.look_soon()

        feed = self._hub.feed
        return (
            feed.subscribe(CommandSent, lambda change: watcher.look_at(change.command.expires)),
            feed.subscribe(CommandEnded, on_end),
        )


NODES = (
    Receives(
        "/messages/serviceBound/feedback",
        Operation.USE_FEEDBACK,
        lambda request: request.link.accept(Receiver(request, _Feedback(request.hub))),
    ),
)
