"""The built-in endpoint, as an Event Hub: receivers of the events in a partition.

The rules are from Event Hubs docs: AMQP protocol guide, event consumers; and from what the SDKs
send.
"""

from __future__ import annotations

import logging

from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.nodes.event_messages import runtime_metrics
from emulator.amqp.nodes.node import Callers, LinkRequest, Receives
from emulator.amqp.nodes.selectors import start_of
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import Source
from emulator.hub.access.operations import Operation
from emulator.hub.hub import IotHub
from emulator.hub.messages.consumer_groups import ReaderRefused, Refusal
from emulator.hub.messages.event import Event
from emulator.hub.messages.event_log import ENTITY, Partition

log = logging.getLogger(__name__)

_EPOCH = "com.microsoft:epoch"
_NAME = "com.microsoft:receiver-name"
_METRICS = "com.microsoft:enable-receiver-runtime-metric"

# Ours: after so many events, other readers have their turn. They take as long as a turn.
_AT_ONCE = 16
_SHOWN = 100  # how much of a name is shown, in characters


class _Receiver:
    """A receiver of a partition's events, in a consumer group."""

    def __init__(self, request: LinkRequest[OutgoingLink], group: str, partition: Partition):
        link = request.link
        level, name = link.properties.get(_EPOCH), link.properties.get(_NAME)
        self.level = level if isinstance(level, int) else None
        self.name = name[:64] if isinstance(name, str) else "nil"
        source = link.attach.source
        self._next = start_of(source.filter if isinstance(source, Source) else None, partition)
        self._metrics = _METRICS in link.attach.desired_capabilities
        self._hub = request.hub
        self._link = link
        self._group = group
        self._partition = partition
        self._encoded = request.client.encoded_events
        self._waits = False  # for its turn
        self._warned = False

    def accept(self) -> None:
        self._hub.readers.join(self._group, self._partition.id, self)
        self._partition.listeners.append(self._wake)
        self._link.accept(self, offered_capabilities=(_METRICS,) if self._metrics else ())

    # --- what the hub calls

    def displaced(self, reason: str) -> None:
        self._stop()
        self._link.detach(AmqpError(Condition.STOLEN, reason))

    def _wake(self) -> None:
        """Send soon: the device whose events these are does not wait for their readers."""
        if not self._waits:
            self._waits = self._link.has_more = True
            self._hub.shared_turn.call_soon(self._send_more)

    # --- what the link calls

    def on_credit(self) -> None:
        if self._waits or self._hub.shared_turn.over:
            self._wake()
        else:
            self._send()

    def on_detached(self, error: AmqpError | None) -> None:
        self._hub.readers.leave(self._group, self._partition.id, self)
        self._stop()

    def _stop(self) -> None:
        if self._wake in self._partition.listeners:
            self._partition.listeners.remove(self._wake)

    def _send_more(self) -> None:
        self._waits = False
        self._link.pump()  # which also ends a drain, behind the last event

    def _send(self) -> None:
        link = self._link
        link.has_more = False
        credit = link.credit
        events = self._partition.read(self._next, min(credit, _AT_ONCE)) if credit else []
        if not events:
            return
        self._note_gap(events[0])
        metrics = runtime_metrics(self._partition, self._hub.clock.now()) if self._metrics else b""
        for event in events:
            if not link.credit:
                return
            link.send(metrics + self._encoded.encode(event))
            self._next = event.sequence_number + 1
        if self._next < self._partition.end and link.credit:
            self._wake()

    def _note_gap(self, event: Event) -> None:
        """Warn once of a receiver that reads more slowly than the events come."""
        missed = event.sequence_number - self._next
        if missed > 0 and not self._warned:
            self._warned = True
            log.warning(
                "A receiver of partition %r in consumer group %r is too slow: it misses %d events. "
                "Keep more: --event-log-size, --retention.",
                self._partition.id,
                self._group,
                missed,
            )


def _receive(request: LinkRequest[OutgoingLink]) -> None:
    group, number = request.names["group"], request.names["partition"]
    partition = request.hub.events.find_partition(number)
    if partition is None or not request.hub.events.has_group(group):
        entity = f"sb://{request.client.host}/{'/'.join(request.resource)}"
        text = f"The messaging entity '{entity}' could not be found."
        # The cause is for the log: Python's SDK does not show its user the error.
        raise AmqpError(Condition.NOT_FOUND, text) from _missing(request.hub, group, number)
    try:
        _Receiver(request, group, partition).accept()
    except ReaderRefused as error:
        is_owned = error.refusal is Refusal.OWNED
        condition = Condition.STOLEN if is_owned else Condition.RESOURCE_LIMIT_EXCEEDED
        raise AmqpError(condition, error.reason) from error


def _missing(hub: IotHub, group: str, partition: str) -> ValueError:
    """Return what a receiver names that does not exist, and what to do."""
    events = hub.events
    if not events.has_group(group):
        return ValueError(
            f"There is no consumer group '{group[:_SHOWN]}'. The groups are "
            f"{', '.join(events.groups.values())}. Start the hub with --consumer-group "
            f"{group[:_SHOWN]}."
        )
    return ValueError(
        f"There is no partition '{partition[:_SHOWN]}'. The partitions are 0 to "
        f"{len(events.partitions) - 1}."
    )


NODES = (
    Receives(
        f"/{ENTITY}/ConsumerGroups/{{group}}/Partitions/{{partition}}",
        Operation.READ_EVENTS,
        _receive,
        Callers.EVENT_HUBS,
    ),
)
