"""Services receive the feedback on their messages from `/messages/serviceBound/feedback`.

The queue is one for the hub: several receivers share it.
"""

from __future__ import annotations

import uuid
from functools import partial

from emulator.amqp.errors import AmqpError
from emulator.amqp.message import Message
from emulator.amqp.nodes.messages import timestamp
from emulator.amqp.nodes.node import LinkRequest, Receives
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import SETTLED, Modified, Outcome, Properties, Released
from emulator.hub.access.operations import Operation
from emulator.hub.core.clock import Timer
from emulator.hub.core.json import dumps
from emulator.hub.messages.cloud_to_device import CommandEnded
from emulator.hub.messages.feedback import Batch

# C# throws on another content type (C# SDK: AmqpFeedbackReceiver).
_CONTENT_TYPE = "application/vnd.microsoft.iothub.feedback.json"

# The property user-id of feedback is the name of the hub (IoT Hub docs: cloud-to-device).
_USER_ID = b"iothub-emulator"

# How often a receiver that waits looks for messages that have expired and locks that have lapsed,
# in seconds. All else it is notified of.
_LOOK_SECONDS = 5.0


class _Feedback:
    """A link by which a service receives feedback."""

    def __init__(self, request: LinkRequest[OutgoingLink]) -> None:
        self._link = request.link
        self._request = request
        self._hub = request.hub
        self._timer: Timer | None = None
        self._unsubscribe = self._hub.feed.subscribe(CommandEnded, self._on_command_ended)

    def on_credit(self) -> None:
        """Send what waits, and wait for more."""
        self._cancel()
        while self._link.credit:
            batch = self._hub.cloud_to_device.receive_feedback()
            if batch is None:
                self._look_again(_LOOK_SECONDS)
                return
            self._send(batch)

    def on_detached(self, error: AmqpError | None) -> None:
        """Wait no more; what was not settled stays locked until its lock lapses."""
        self._unsubscribe()
        self._cancel()

    def _on_command_ended(self, change: CommandEnded) -> None:
        if change.outcome.wanted and self._timer is not None:
            self._cancel()
            self._look_again(0)  # later: the hub is in the middle of its work

    def _look_again(self, seconds: float) -> None:
        self._timer = self._hub.clock.call_later(seconds, self.on_credit)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self, batch: Batch) -> None:
        token = batch.lock_token
        message = Message(
            dumps(batch.records),
            Properties(user_id=_USER_ID, content_type=_CONTENT_TYPE),
            message_annotations={"iothub-enqueuedtime": timestamp(batch.enqueued)},
        )
        # In .NET's order of bytes: C# makes the lock token of the tag.
        payload, tag = message.to_bytes(), uuid.UUID(token).bytes_le
        if self._link.attach.snd_settle_mode == SETTLED:
            self._hub.cloud_to_device.complete_feedback(token)
            self._link.send(payload, tag)
        else:
            self._link.send(payload, tag, on_settled=partial(self._settle, token))

    def _settle(self, token: str, outcome: Outcome | None) -> None:
        """Complete or abandon a batch; one that is rejected is deleted too."""
        with self._request.amqp_errors():
            if outcome is None or isinstance(outcome, Released | Modified):
                self._hub.cloud_to_device.abandon_feedback(token)
                if self._timer is not None:
                    self._cancel()
                    self._look_again(0)
            else:
                self._hub.cloud_to_device.complete_feedback(token)


NODES = (
    Receives(
        "/messages/serviceBound/feedback",
        Operation.USE_FEEDBACK,
        lambda request: request.link.accept(_Feedback(request)),
    ),
)
