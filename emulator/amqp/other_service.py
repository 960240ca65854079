"""The interface of another service on the ports of the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from emulator.amqp.incoming import IncomingLink
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.sasl import Authenticator, Credentials
from emulator.net.streams import Stream


class OtherClient(Authenticator, Protocol):
    """A client of another service: what it sends in SASL, and its links."""

    def attach(self, link: IncomingLink | OutgoingLink) -> None:
        """Accept or refuse a link to an address of the service.

        Raises:
            AmqpError, HubError: the link is refused with it.
        """


class OtherService(Protocol):
    """Another service on the ports of the hub."""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Its own mechanisms of SASL."""

    def owns(self, claimed: Credentials | str) -> bool:
        """Return whether credentials, or the address of a link, are for the service."""

    def client(self, stream: Stream, authorized: Callable[[], None]) -> OtherClient:
        """Return a new client.

        Args:
            stream: its connection.
            authorized: to be called when the client has shown a right to something.
        """
