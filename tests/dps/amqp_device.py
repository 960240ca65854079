"""A device that registers over AMQP, frame by frame."""

from __future__ import annotations

import json
import ssl
from typing import Any

from emulator import Emulator
from emulator.amqp import frame
from emulator.amqp.message import Message, Value, decode_message
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    Error,
    Flow,
    Open,
    Properties,
    Rejected,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
    Source,
    Target,
    Transfer,
)
from tests.amqp.playbook import write
from tests.amqp.wire import BEGIN, AmqpWire
from tests.dps.support import ID_SCOPE
from tests.support import trust

_FRAME_BYTES = 32 * 1024

REGISTER = {"iotdps-operation-type": "iotdps-register", "iotdps-forceRegistration": False}


def status(operation_id: str) -> dict[str, Any]:
    """Return the properties of a request for the state of an operation."""
    return {
        "iotdps-operation-type": "iotdps-get-operationstatus",
        "iotdps-operation-id": operation_id,
    }


class RefusedError(Exception):
    """The service has rejected a request, or refused a link.

    Attributes:
        condition: the condition of the error.
        info: its map.
        body: its description, which is JSON, or text.
    """

    def __init__(self, error: Error | None) -> None:
        assert error is not None
        super().__init__(error.condition)
        self.condition, self.info = error.condition, error.info or {}
        self.body: Any = error.description
        if str(error.description).startswith("{"):
            self.body = json.loads(str(error.description))


class AmqpDevice(AmqpWire):
    """A device with a connection."""

    def __init__(
        self,
        emulator: Emulator,
        registration_id: str,
        *,
        tls: ssl.SSLContext | None = None,
        scope: str = ID_SCOPE,
    ) -> None:
        super().__init__((emulator.host_name, emulator.amqps_port), tls or trust(emulator))
        self.address = f"{scope}/registrations/{registration_id}"
        self._deliveries = 0
        self.mechanisms: tuple[str, ...] = ()
        """Those that the service offers."""

    # --- SASL

    def sasl(self, mechanism: str, response: bytes) -> SaslChallenge | SaslOutcome:
        """Begin with SASL."""
        self.send(frame.SASL_HEADER)
        assert self.header() == frame.SASL_HEADER
        offered = self._take_sasl()
        assert isinstance(offered, SaslMechanisms)
        self.mechanisms = offered.mechanisms
        self.send(frame.write(0, SaslInit(mechanism, response), frame.SASL))
        return self._take_sasl()

    def respond(self, response: bytes) -> SaslChallenge | SaslOutcome:
        """Respond to a challenge."""
        self.send(frame.write(0, SaslResponse(response), frame.SASL))
        return self._take_sasl()

    def plain(self, token: str) -> None:
        """Send a token."""
        outcome = self.sasl("PLAIN", f"\0{self.address}\0{token}".encode())
        assert outcome == SaslOutcome(0)

    def _take_sasl(self) -> Any:
        while (found := self._frames.frame(frame.SASL, 2**32)) is None:
            self._more()
        return found[1]

    # --- links

    def attach(self) -> None:
        """Open the connection, and attach a link each way.

        Raises:
            RefusedError: the first link was refused.
        """
        self.send(
            frame.AMQP_HEADER
            + frame.write(0, Open("device", self.host))
            + frame.write(0, BEGIN)
            + write(0, Attach("r", 0, RECEIVER, source=Source(self.address)))
        )
        assert self.header() == frame.AMQP_HEADER
        self.take_until(Begin)
        answer = self.take_until(Attach)
        if answer.source is None:
            raise RefusedError(self.take_until(Detach).error)
        self.send(
            write(0, Attach("s", 1, SENDER, target=Target(self.address)))
            + write(0, Flow(0, 1000, 0, 1000, handle=0, delivery_count=0, link_credit=100))
        )
        self.take_until(Attach)

    def request(
        self, properties: dict[str, Any], body: bytes | Value = b""
    ) -> tuple[dict[str, Any], Any]:
        """Send a request, and return the properties and the JSON of the answer.

        Raises:
            RefusedError: it is rejected.
        """
        number, self._deliveries = self._deliveries, self._deliveries + 1
        message = Message(body, Properties(correlation_id=str(number)), properties)
        data = message.to_bytes()
        for start in range(0, len(data), _FRAME_BYTES):
            part, more = data[start : start + _FRAME_BYTES], start + _FRAME_BYTES < len(data)
            self.send(write(0, Transfer(1, number, b"%d" % number, more=more), part))
        outcome, answer = None, None
        while outcome is None or answer is None:
            while (found := self._frames.frame(frame.AMQP, 2**32)) is None:
                self._more()
            _, performative, payload = found
            if isinstance(performative, Close):
                raise ConnectionResetError(str(performative.error))
            if isinstance(performative, Disposition):
                outcome = performative.state
                if isinstance(outcome, Rejected):
                    raise RefusedError(outcome.error)
            elif isinstance(performative, Transfer):
                answer = decode_message(bytes(payload))
        assert answer.properties.correlation_id == str(number)
        assert isinstance(answer.body, bytes)
        return answer.application_properties, json.loads(answer.body)

    def register(self, body: bytes = b"") -> dict[str, Any]:
        """Register, and return the last answer."""
        properties, pending = self.request(REGISTER, body)
        assert properties == {"retry-after": 3, "Retry-After": 3}
        assert pending == {"operationId": pending["operationId"], "status": "assigning"}
        properties, final = self.request(status(pending["operationId"]), Value("status"))
        assert properties == {}
        return dict(final)
