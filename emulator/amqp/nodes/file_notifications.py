"""Services receive notifications of files from `/messages/serviceBound/filenotifications`."""

from __future__ import annotations

from emulator.amqp.message import Message
from emulator.amqp.nodes.messages import timestamp
from emulator.amqp.nodes.node import Receives
from emulator.amqp.nodes.service_bound import Receiver
from emulator.amqp.performatives import Properties
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import dumps
from emulator.hub.hub import IotHub
from emulator.hub.uploads.notifications import (
    CONTENT_TYPE,
    FileNotification,
    FileNotificationQueued,
)


class _FileNotifications:
    """The queue of file notifications: see `Lender`."""

    queued = FileNotificationQueued

    def __init__(self, hub: IotHub) -> None:
        queue = hub.file_notifications
        self.receive, self.complete, self.abandon = queue.receive, queue.complete, queue.abandon

    def message(self, notification: FileNotification) -> Message:
        return Message(
            dumps(notification.document()),
            Properties(content_type=CONTENT_TYPE),
            message_annotations={"iothub-enqueuedtime": timestamp(notification.enqueued)},
        )


NODES = (
    Receives(
        "/messages/serviceBound/filenotifications",
        Operation.USE_FILE_NOTIFICATIONS,
        lambda request: request.link.accept(Receiver(request, _FileNotifications(request.hub))),
    ),
)
