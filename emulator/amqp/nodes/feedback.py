"""Services receive the feedback on their messages from `/messages/serviceBound/feedback`.

The queue is one for the hub: several receivers share it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
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
from emulator.hub.messages.cloud_to_device import CommandEnded, CommandSent
from emulator.hub.messages.feedback import Batch

# C# throws on another content type (C# SDK: AmqpFeedbackReceiver).
_CONTENT_TYPE = "application/vnd.microsoft.iothub.feedback.json"

# The property user-id of feedback is the name of the hub (IoT Hub docs: cloud-to-device).
_USER_ID = b"iothub-emulator"

# How often a receiver that waits looks for batches that another receiver has returned, in seconds.
# All else it is notified of, or knows the time of.
_LOOK_SECONDS = 5.0

_FOREVER = datetime.max.replace(tzinfo=UTC)


class _Feedback:
    """A link by which a service receives feedback."""

    def __init__(self, request: LinkRequest[OutgoingLink]) -> None:
        self._link = request.link
        self._request = request
        self._hub = request.hub
        self._look: Timer | None = None  # while it waits
        self._timer: Timer | None = None
        self._due = _FOREVER  # of the timer
        self._unsubscribe: tuple[Callable[[], object], ...] = (
            self._hub.feed.subscribe(CommandSent, self._on_command_sent),
            self._hub.feed.subscribe(CommandEnded, self._on_command_ended),
        )

    def on_credit(self) -> None:
        """Send what waits, and wait for more."""
        self._cancel()
        while self._link.credit:
            batch = self._hub.cloud_to_device.receive_feedback()
            if batch is None:
                self._wait()
                return
            self._send(batch)

    def on_detached(self, error: AmqpError | None) -> None:
        """Wait no more; what was not settled stays locked until its lock lapses."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = ()  # they hold this object
        self._cancel()

    def _on_command_sent(self, change: CommandSent) -> None:
        if self._timer is not None and change.command.expires < self._due:
            self._timer.cancel()
            self._set_timer(change.command.expires)

    def _on_command_ended(self, change: CommandEnded) -> None:
        if change.outcome.wanted:
            self._look_soon()

    def _look_soon(self) -> None:
        """Look again, in a turn of its own: the hub can be in the middle of its work."""
        if self._look is not None:
            self._cancel()
            self._look = self._hub.clock.call_later(0, self.on_credit)

    def _wait(self) -> None:
        self._look = self._hub.clock.machine.call_later(_LOOK_SECONDS, self.on_credit)
        due = self._hub.cloud_to_device.next_feedback(self._hub.clock.now())
        self._set_timer(due or _FOREVER)

    def _set_timer(self, due: datetime) -> None:
        seconds = (due - self._hub.clock.now()).total_seconds()
        self._due, self._timer = due, self._hub.clock.call_later(seconds, self.on_credit)

    def _cancel(self) -> None:
        for timer in (self._look, self._timer):
            if timer is not None:
                timer.cancel()
        self._look = self._timer = None

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
                self._look_soon()
            else:
                self._hub.cloud_to_device.complete_feedback(token)


NODES = (
    Receives(
        "/messages/serviceBound/feedback",
        Operation.USE_FEEDBACK,
        lambda request: request.link.accept(_Feedback(request)),
    ),
)
