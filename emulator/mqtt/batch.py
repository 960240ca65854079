"""What the packets of one read bring: telemetry on its way to the hub, and answers behind it.

The hub gets the telemetry of a read together. Its acknowledgements wait for that, and so does what
is written behind them. All of it goes out in one piece.
"""

from __future__ import annotations

from emulator.hub.core import limits
from emulator.hub.messages.message import Message
from emulator.mqtt.frame import PUBACK_HEAD, PUBLISH, TEXT_BYTES
from emulator.mqtt.property_bag import Bag

# A PUBLISH with QoS 1, and no other flag.
_QOS_1 = PUBLISH | 0x02

# A device sends to one topic again and again: its properties are remembered, up to this length.
_REMEMBERED_TOPIC = 512

# So many bytes of answers go out together.
_HELD_BYTES = 64 * 1024

# A packet up to this size has no message over the limit: properties take more bytes in the topic
# than are counted.
_SMALL = limits.D2C_MESSAGE_BYTES - TEXT_BYTES


class Batch:
    """Telemetry and answers, until `close`."""

    def __init__(self) -> None:
        self.is_open = False
        """Whether packets are taken at the moment: then answers wait."""
        self._size = 0  # the bytes of the answers, without acknowledgements of telemetry
        self._messages: list[Message] = []
        self._answers: list[bytes] = []
        # How a PUBLISH to the topic of the last message begins, and its properties.
        self._topic = b""
        self._system, self._properties = Bag()

    @property
    def is_full(self) -> bool:
        """Whether the answers are so large that they do not wait for more."""
        return self._size > _HELD_BYTES

    @property
    def has_messages(self) -> bool:
        """Whether it has telemetry."""
        return bool(self._messages)

    def again(self, first_byte: int, data: bytes, start: int = 0) -> tuple[Message, bytes] | None:
        """Parse a packet, if it is one more message to the topic of the last one.

        Most packets are, and this takes half the time of parsing them by all rules.

        Args:
            first_byte: the first byte of the packet.
            data: the packet, or its body.
            start: where its body begins.

        Returns:
            the message, and its acknowledgement, which can be empty; None if the packet is anything
            else, also if it is malformed.
        """
        topic = self._topic
        if not topic or not data.startswith(topic, start) or len(data) > _SMALL:
            return None
        end, acknowledgement = start + len(topic), b""
        if first_byte == _QOS_1:
            packet_id = data[end : end + 2]
            if len(packet_id) < 2 or packet_id == b"\0\0":
                return None
            acknowledgement = PUBACK_HEAD + packet_id
            end += 2
        elif first_byte != PUBLISH:
            return None
        return Message(data[end:], self._system, self._properties), acknowledgement

    def take(self, message: Message, acknowledgement: bytes) -> None:
        """Take a message, with its acknowledgement, which can be empty."""
        self._messages.append(message)
        if acknowledgement:
            self._answers.append(acknowledgement)

    def remember(self, topic: str, bag: Bag) -> None:
        """Note the topic of the last message, and its properties."""
        encoded = topic.encode()
        if len(encoded) <= _REMEMBERED_TOPIC:
            self._topic = len(encoded).to_bytes(2, "big") + encoded
            self._system, self._properties = bag

    def answer(self, data: bytes) -> None:
        """Hold an answer back."""
        self._answers.append(data)
        self._size += len(data)

    def close(self) -> tuple[list[Message], bytes]:
        """Return the messages and the answers; the next ones begin another batch."""
        messages, answers = self._messages, b"".join(self._answers)
        self._messages, self._answers = [], []
        self._size, self.is_open = 0, False
        return messages, answers
