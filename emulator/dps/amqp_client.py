"""A device that registers over AMQP, at the other end of a connection.

It attaches a link both ways. A request and its answer are messages; application properties say
what a request is for (SDKs for C# and Node).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.incoming import IncomingDelivery, IncomingLink
from emulator.amqp.message import Message
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import Properties
from emulator.amqp.refusals import amqp_error
from emulator.amqp.sasl import Answer, Credentials
from emulator.amqp.types import Int
from emulator.dps import bodies, limits
from emulator.dps.access import Proof
from emulator.dps.errors import Unauthorized, is_transient
from emulator.dps.names import ADDRESS, ID_SCOPE, TPM_MECHANISM
from emulator.dps.registration import ASSIGNING
from emulator.dps.service import ProvisioningService
from emulator.dps.tpm_exchange import TpmExchange
from emulator.hub.core import errors
from emulator.hub.core.errors import ArgumentInvalid, HubError
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.printable import printable

_OPERATION, _OPERATION_ID = "iotdps-operation-type", "iotdps-operation-id"
_REGISTER = "iotdps-register"
_STATUS = "iotdps-get-operationstatus"
_LOOK_UP = "iotdps-get-registration"

# Node's SDK reads the first name, the SDK for C# the second one.
_RETRY_AFTER = {name: Int(limits.RETRY_AFTER) for name in ("retry-after", "Retry-After")}

# How many requests of a link can be on their way, and the size of one, with its properties.
_CREDIT = 10
_MAX_REQUEST_BYTES = limits.MESSAGE_BYTES + 4 * 1024


class ProvisioningClient:
    """A device, or several that share a connection.

    Args:
        service: the service.
        proof: the certificates of its handshake.
        authorized: called when a device has shown that it may register.
    """

    def __init__(
        self, service: ProvisioningService, proof: Proof, authorized: Callable[[], None]
    ) -> None:
        self.service = service
        self.proof = proof
        self.authorized = authorized
        self.repliers: dict[str, list[OutgoingLink]] = {}
        """By the id of a device, the links by which it receives answers."""
        self._exchange: TpmExchange | None = None

    def authenticate(self, credentials: Credentials) -> Answer:
        """Keep the token of PLAIN, which each request is checked by; or begin with a TPM."""
        if credentials.mechanism != TPM_MECHANISM:
            self.proof = self.proof._replace(token=credentials.password or None)
            return True
        self._exchange = TpmExchange(self.service)
        return self._exchange.begin(credentials.response)

    def respond(self, response: bytes) -> Answer:
        """Go on with a TPM."""
        if self._exchange is None:
            return False
        answer = self._exchange.respond(response)
        if answer is True and self._exchange.proof is not None:
            self.proof = self._exchange.proof
        return answer

    def attach(self, link: IncomingLink | OutgoingLink) -> None:
        """Accept a link of a device that has some credentials, as over MQTT.

        Raises:
            AmqpError: the id scope is wrong.
            Unauthorized: it has none.
        """
        match = ADDRESS.fullmatch(link.address)
        scope, registration_id = (unquote(each) for each in match.groups()) if match else ("", "")
        if scope.lower() != ID_SCOPE.lower():
            raise AmqpError(Condition.NOT_FOUND, f"The id scope is {scope!r}, not {ID_SCOPE}")
        if self.proof.token is None and self.proof.certificate is None:
            raise Unauthorized from ValueError("neither a SAS token nor a certificate")
        if isinstance(link, IncomingLink):
            requests = _Requests(self, registration_id, link)
            link.accept(requests, credit=_CREDIT, max_message_size=_MAX_REQUEST_BYTES)
        else:
            link.accept(_Replies(self.repliers, registration_id, link))


class _Replies:
    """A link by which a device receives answers."""

    def __init__(
        self, repliers: dict[str, list[OutgoingLink]], registration_id: str, link: OutgoingLink
    ) -> None:
        self._repliers = repliers
        self._id = registration_id
        self._link = link
        repliers.setdefault(registration_id, []).append(link)

    def on_credit(self) -> None:
        """Nothing waits: answers without credit wait in the link."""

    def on_detached(self, _: AmqpError | None) -> None:
        """See `Handler.on_detached`."""
        links = self._repliers[self._id]
        links.remove(self._link)
        if not links:  # a connection can have links for very many ids, one after the other
            del self._repliers[self._id]


class _Requests:
    """A link by which a device sends requests."""

    def __init__(
        self, client: ProvisioningClient, registration_id: str, link: IncomingLink
    ) -> None:
        self._client = client
        self._id = registration_id
        self._link = link

    def on_message(self, delivery: IncomingDelivery) -> None:
        """Answer a request.

        Raises:
            AmqpError: it is refused; the description is the error as JSON (SDK for C#).
        """
        for message in delivery.messages():
            try:
                answer = self._carry_out(message)
            except HubError as error:
                raise self._refusal(error) from error
            self._client.authorized()
            delivery.settle()
            self._reply(message, answer)

    def on_detached(self, error: AmqpError | None) -> None:
        """Nothing is kept for the link."""

    def _carry_out(self, message: Message) -> JsonObject:
        registrations, proof = self._client.service.registrations, self._client.proof
        operation = message.application_properties.get(_OPERATION)
        if operation == _STATUS:
            operation_id = str(message.application_properties.get(_OPERATION_ID, ""))
            return registrations.status(self._id, proof, operation_id)
        body = bodies.parse(message.body if isinstance(message.body, bytes) else b"")
        if operation == _REGISTER:
            return registrations.register(self._id, proof, body)
        if operation == _LOOK_UP:
            return registrations.look_up(self._id, proof, body)
        raise ArgumentInvalid(
            f"Invalid {_OPERATION}: {operation!r:.100}. Use {_REGISTER}, {_STATUS} or {_LOOK_UP}"
        )

    def _refusal(self, error: HubError) -> AmqpError:
        service = self._client.service
        reason = error.__cause__ or error
        service.registrations.refusals.info(
            "Refused the registration of %r: %s", self._id, printable(reason), error=error
        )
        refusal = amqp_error(error, service.clock.now())
        if is_transient(error):
            refusal.info = {**(refusal.info or {}), **_RETRY_AFTER}
        if isinstance(error, errors.ConnectionForcefullyClosedOnFaultInjection):
            self._link.session.connection.close(refusal)
        return refusal

    def _reply(self, message: Message, answer: JsonObject) -> None:
        """Send an answer by the newest link of the device."""
        properties: dict[str, Any] = dict(_RETRY_AFTER) if answer["status"] == ASSIGNING else {}
        reply = Message(
            dumps(answer),
            # The same value is in the same type of AMQP.
            Properties(correlation_id=message.properties.correlation_id),
            properties,
        )
        for link in self._client.repliers.get(self._id, [])[-1:]:
            link.send(reply.to_bytes())
