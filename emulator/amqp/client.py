"""A client of the hub over AMQP: its credentials, and the nodes that its links are for.

It is the endpoint behind a `Connection`, without I/O.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

from emulator.amqp.connection import Connection
from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.incoming import IncomingLink
from emulator.amqp.link import LinkState
from emulator.amqp.nodes.event_messages import EncodedEvents
from emulator.amqp.nodes.node import Callers, Grant, LinkRequest, Sends
from emulator.amqp.nodes.nodes import NODES
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import Open
from emulator.amqp.refusals import amqp_error
from emulator.amqp.sasl import MECHANISMS, Answer, Credentials
from emulator.amqp.tokens import EXPIRED, FEW, MANY, Token, Tokens
from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.operations import Operation
from emulator.hub.core.clock import Timer
from emulator.hub.core.errors import (
    AmqpAddressNotFound,
    HubError,
    IotHubUnauthorized,
    IotHubUnauthorizedAccess,
)
from emulator.hub.core.printable import printable
from emulator.hub.gate import Caller, DeviceCaller, EventHubsCaller, ServiceCaller
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.addresses import segments
from emulator.hub.messages.event_log import ENTITY
from emulator.net.router import Router

if TYPE_CHECKING:
    from emulator.amqp.nodes.device import Device
    from emulator.amqp.other_service import OtherClient, OtherService
    from emulator.net.streams import Stream

log = logging.getLogger(__name__)

Link: TypeAlias = IncomingLink | OutgoingLink

_CONTAINER = "iothub-emulator"  # the name of this server for its peers

_SENDS, _RECEIVES = "sends", "receives"

# Link property with the model of a device (C# SDK: AmqpIotConstants).
_MODEL_ID = "com.microsoft:model-id"

_SHOWN = 200  # how much of an address is shown, in characters

# Ours: how often a client without links is looked at, in seconds. Its device can be deleted.
_LOOK_AGAIN = 60


class Client:
    """A client at the other end of a connection.

    Args:
        hub: the hub.
        tls_port: see `AmqpServer`.
        certificate: the certificate of its TLS handshake; None if it sent none.
        peer: its address, for the log.
        wake: see `Connection`.
        trust: called when the client has shown a right to something.
        encoded_events: the events that were encoded for other clients of the hub.
        slow: paces the connection to bytes per second; None ends that.
        cut: called to cut the connection.
        other: another service that shares the port, and the stream of the connection; None if the
            hub has the port for itself.
    """

    def __init__(
        self,
        hub: IotHub,
        tls_port: int,
        certificate: ClientCertificate | None = None,
        peer: str = "an unknown address",
        wake: Callable[[], None] = lambda: None,
        trust: Callable[[], None] = lambda: None,
        encoded_events: EncodedEvents | None = None,
        slow: Callable[[int | None], None] = lambda _: None,
        cut: Callable[[], None] = lambda: None,
        other: tuple[OtherService, Stream] | None = None,
    ) -> None:
        self.hub = hub
        self.tls_port = tls_port
        self.encoded_events = encoded_events or EncodedEvents()
        self.peer = peer
        self.tokens = Tokens()
        self.devices: dict[IdentityKey, Device] = {}
        """The devices that are connected by this connection; the nodes of devices keep it."""
        self._other = other
        self._other_client: OtherClient | None = None
        self.connection = Connection(
            self,
            _CONTAINER,
            hub.clock.machine.monotonic(),
            wake=wake,
            mechanisms=MECHANISMS if other is None else (*MECHANISMS, *other[0].mechanisms),
        )
        self.put_off: list[Callable[[], None]] = []
        """What `rest` calls."""
        self.repliers: dict[str, list[OutgoingLink]] = {}
        """By the path of a node of requests, the links that receive its replies."""
        self._certificate = certificate
        self._trust = trust
        self.slow = slow
        self.cut = cut
        self.host = ""
        """The name by which the client calls the hub."""
        self._right: LinkRequest[Any] | None = None
        """The newest link that the client had a right to; None if it has no right to anything."""
        self._logged = False
        self._timer: Timer | None = None
        self._look: Timer | None = None
        self._due = math.inf

    # --- the endpoint

    def authenticate(self, credentials: Credentials) -> Answer:
        """Keep the token of PLAIN; whether it allows anything is decided at an attach.

        The user name is `{device}@sas.{hub}` or `{policy}@sas.root.{hub}`, with any name of a hub:
        the Azure CLI sends the name up to its first dot, or the port too.
        """
        if (other := self._of_other(credentials)) is not None:
            return other.authenticate(credentials)
        if credentials.mechanism != "PLAIN":
            return True
        try:
            token = self.put_token(credentials.password)
        except HubError:
            return False
        name, _, rest = credentials.user_name.partition("@sas.")
        return not rest.startswith("root.") or name == token.policy

    def respond(self, response: bytes) -> Answer:
        """Take the response to a challenge: only the other service sends any."""
        return self._other_client is not None and self._other_client.respond(response)

    def opened(self, peer: Open) -> None:
        """Note the host that the client dialled, which tokens can name."""
        self.host = (peer.hostname or "").partition("/")[0]

    def attach(self, link: Link) -> None:
        """Find the node of a link, check the caller, and let the node accept the link.

        Raises:
            AmqpError: the address is unknown, or the caller is not allowed to use it.
        """
        try:
            self._attach(link)
        except HubError as error:
            self._log_refusal(error, link)
            raise amqp_error(error, self.hub.clock.now()) from error
        except AmqpError as error:
            # Python's SDK for Event Hubs tries again without end, and does not show the error.
            if error.condition != Condition.REDIRECT:
                self._log_refusal(error, link)
            raise

    def _log_refusal(self, error: Exception, link: Link | None = None) -> None:
        """Log the first refusal on a connection, of a link or a token: a client can try again."""
        if self._logged:
            return
        self._logged = True
        reason = error.__cause__ or error
        if link is None:
            self.hub.refusals.info(
                "Refused a token of %s: %s", self.peer, printable(reason), error=error
            )
        else:
            address = link.address[:_SHOWN]
            self.hub.refusals.info(
                "Refused a link of %s to %r: %s", self.peer, address, printable(reason), error=error
            )

    def rest(self) -> None:
        """Do what links have put off: see `put_off`."""
        if self.put_off:
            calls, self.put_off = self.put_off, []
            for call in calls:
                call()

    def closed(self) -> None:
        """Note that the connection and its links have ended."""
        self._right = None
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()

    # --- credentials

    def put_token(self, text: str) -> Token:
        """Keep a SAS token for links, those that are attached too.

        Raises:
            IotHubUnauthorizedAccess: it is malformed, or has expired; or it is for Event Hubs, and
                its signature is wrong.
            AmqpAddressNotFound: it is for an unknown entity of Event Hubs.
            IotHubMaxCbsTokenExceeded: there are too many.
        """
        try:
            token = Token.parse(text, self.hub.token_time)
            if token.entity is not None and token.resource is None:
                # azure-eventhub takes a refusal of a link for a lost connection, and tries again.
                caller = EventHubsCaller(token.text, token.entity)
                self.hub.gate.check(caller, Operation.READ_EVENTS)
                _check_entity(token)
            self.tokens.put(token, FEW if self._right is None else MANY)
        except HubError as error:
            self._log_refusal(error)
            raise
        return token

    def _of_other(self, claimed: Credentials | str) -> OtherClient | None:
        """Return this client of the other service, if something that it sent is for that."""
        if self._other is None or not self._other[0].owns(claimed):
            return None
        if self._other_client is None:
            service, stream = self._other
            self._other_client = service.client(stream, self._authorize_other)
        return self._other_client

    def _authorize_other(self) -> None:
        self.connection.authorized()
        self._trust()

    def _attach(self, link: Link) -> None:
        try:
            request = self._find(link)
        except AmqpAddressNotFound:
            # The hub comes first: one of its devices can be named `registrations`.
            if (other := self._of_other(link.address)) is None:
                raise
            other.attach(link)
            return
        if request.node.callers is not Callers.ALL:
            request.grant = self._check(request)
            self._authorize(request)
            self._watch(request.grant.expires)
        if admission := request.grant.admission:
            known = admission.key in self.devices
            self.hub.gate.enter(admission, Operation.SUBSCRIBE if known else Operation.CONNECT)
        link.context = request
        request.node.open(request)

    def _authorize(self, request: LinkRequest[Any]) -> None:
        """Let the client send more: it has shown a right to something."""
        if self._right is None:
            self.connection.authorized()
            self._trust()
        self._right = request

    def _find(self, link: Link) -> LinkRequest[Any]:
        """Find the node of a link by its address and its direction."""
        verb = _SENDS if isinstance(link, IncomingLink) else _RECEIVES
        parts = tuple(map(unquote, segments(link.address)))
        for found in _router().find(parts):
            if node := found.verbs.get(verb):
                resource = node.resource or _resource(node.path, found.names)
                return LinkRequest(self, node, link, found.names, resource)
        raise AmqpAddressNotFound(
            f"The link address '{link.address[:_SHOWN]}' did not match any of the expected formats."
        )

    def _check(self, request: LinkRequest[Any]) -> Grant:
        """Find the credentials that allow a link.

        Raises:
            IotHubUnauthorizedAccess: none do; the error is that of the credentials that are for the
                resource itself.
        """
        refused: HubError | None = None
        now = self.hub.clock.now().timestamp()
        node = request.node
        for_event_hubs = node.callers is Callers.EVENT_HUBS
        tokens: list[Token | None] = [
            *self.tokens.find(request.resource, for_event_hubs=for_event_hubs)
        ]
        for token in tokens or (None,):  # without a token, the certificate counts
            caller = self._caller(request, token and token.text)
            try:
                if token is not None and token.expires <= now:
                    raise IotHubUnauthorizedAccess(EXPIRED)  # the gate takes it for a new one
                admission = self.hub.gate.check(caller, node.operation)
            except HubError as error:
                refused = refused or error
                continue
            return Grant(caller, admission, token.expires if token else math.inf)
        if not tokens and self._certificate is None and (others := self.tokens.audiences):
            reason = f"no SAS token for it; the client has sent tokens for {', '.join(others)}"
            raise IotHubUnauthorizedAccess from ValueError(reason)
        raise refused or IotHubUnauthorizedAccess

    def _caller(self, request: LinkRequest[Any], token: str | None) -> Caller:
        if request.node.callers is Callers.EVENT_HUBS:
            return EventHubsCaller(token, request.resource)
        if request.node.callers is Callers.SERVICES:
            return ServiceCaller(token, self.host, request.resource)
        key = IdentityKey(request.names["device_id"], request.names.get("module_id"))
        model_id = request.link.properties.get(_MODEL_ID)
        model_id = model_id if isinstance(model_id, str) else ""
        return DeviceCaller(key, token, self.host, self._certificate, model_id)

    # --- expiry

    def look_again(self) -> None:
        """Look soon whether the client has a right to anything: links of it have ended."""
        self._watch(self.hub.clock.now().timestamp())

    def _watch(self, expires: float) -> None:
        """Look at all links when a token expires."""
        if expires < self._due:
            self._due = expires
            if self._timer is not None:
                self._timer.cancel()
            seconds = expires - self.hub.clock.now().timestamp()
            self._timer = self.hub.clock.call_later(seconds, self._expire)

    def _expire(self) -> None:
        """Detach the links whose token has expired, unless a newer one allows them."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf
        now = self.hub.clock.now().timestamp()
        in_use = False
        for link in self.connection.all_links():
            # A link of a device may still wait to be attached: see `Device.open`.
            if link.context is None or link.state is LinkState.DETACHED:
                continue
            request: LinkRequest[Any] = link.context
            if request.node.callers is Callers.ALL:
                continue
            if request.grant.expires <= now:
                try:
                    request.grant = self._check(request)
                except HubError:
                    if link.attached:  # else it is checked when its turn comes
                        self._drop(link)
                    continue
            in_use = True
            self._watch(request.grant.expires)
        if not in_use:
            self._look_for_a_right()

    def _drop(self, link: Link) -> None:
        log.info("Detached a link of %s to %r: its token expired", self.peer, link.address)
        link.drop(amqp_error(IotHubUnauthorized(), self.hub.clock.now()))

    def _look_for_a_right(self) -> None:
        """Take back what the client was allowed, if its last right to a link has ended."""
        if self._right is None:
            return
        machine = self.hub.clock.machine
        try:
            grant = self._check(self._right)
        except HubError:
            self._right = None
            self.connection.unauthorized(machine.monotonic())
        else:
            self._watch(grant.expires)
            if self._look is not None:
                self._look.cancel()
            self._look = machine.call_later(_LOOK_AGAIN, self._expire)


def _check_entity(token: Token) -> None:
    """Check that the entity of a token for Event Hubs exists.

    A real one refuses the token (microsoft/MCW-Cosmos-DB-Real-Time-Advanced-Analytics#25).

    Raises:
        AmqpAddressNotFound
    """
    if token.entity and token.entity[0] != ENTITY:
        raise AmqpAddressNotFound(
            f"The messaging entity '{unquote(token.audience)[:_SHOWN]}' could not be found. "
            f"It is {ENTITY}."
        ) from ValueError(
            f"There is no Event Hub '{token.entity[0][:_SHOWN]}'. Use EntityPath={ENTITY} in the "
            "connection string."
        )


def _resource(path: str, names: Mapping[str, str]) -> Sequence[str]:
    """Return a path with the values of its names, in the letter case that tokens have."""
    return tuple(names.get(part.strip("{}"), part) for part in path.strip("/").split("/"))


@functools.cache
def _router() -> Router[Any]:
    router: Router[Any] = Router()
    for node in NODES:
        router.add(_SENDS if isinstance(node, Sends) else _RECEIVES, node.path, node)
    return router
