"""The server's side of SASL (section 5.3 of AMQP 1.0): which credentials a peer names.

SASL alone authorizes nothing: what a peer may do is decided when it attaches a link. So each
mechanism of the hub succeeds at once, if its response can be parsed.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from msgspec import Struct

from emulator.amqp.composite import Composite
from emulator.amqp.errors import AmqpError, Condition
from emulator.amqp.performatives import SaslChallenge, SaslInit, SaslOutcome, SaslResponse

# MSSBCBS is the mechanism of uamqp: the tokens follow on links to `$cbs`.
MECHANISMS = ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL")

# The codes of an outcome (section 5.3.3.6).
OK = 0
REFUSED = 1


class Credentials(Struct, frozen=True):
    """What a peer has sent in SASL.

    Args:
        mechanism: one of those that the server offers.
        user_name: with PLAIN.
        password: with PLAIN.
        response: what came with another mechanism. The hub ignores it: @azure/event-hubs sends the
            name of its policy with ANONYMOUS.
    """

    mechanism: str
    user_name: str = ""
    password: str = ""
    response: bytes = b""


Answer: TypeAlias = bool | bytes
"""Whether credentials are accepted; or a challenge, to which the peer responds."""


class Authenticator(Protocol):
    """Takes the credentials of a peer, and accepts or refuses them."""

    def authenticate(self, credentials: Credentials) -> Answer:
        """Take what the peer sent in SASL; False refuses it. Not called without SASL."""

    def respond(self, response: bytes) -> Answer:
        """Take the response to a challenge. Called only after a challenge."""


class Exchange:
    """One exchange of SASL frames.

    Args:
        authenticator: takes the credentials.
        mechanisms: those that the server offers.
    """

    def __init__(self, authenticator: Authenticator, mechanisms: tuple[str, ...]) -> None:
        self._authenticator = authenticator
        self._mechanisms = mechanisms
        self._challenged = False

    def take(self, performative: Composite) -> SaslChallenge | SaslOutcome:
        """Take a frame of the peer, and return the answer.

        Raises:
            AmqpError: the frame is another one than the exchange needs.
        """
        answer: Answer
        if self._challenged and isinstance(performative, SaslResponse):
            answer = self._authenticator.respond(performative.response)
        elif not self._challenged and isinstance(performative, SaslInit):
            credentials = _parse_init(performative, self._mechanisms)
            answer = credentials is not None and self._authenticator.authenticate(credentials)
        else:
            wanted = "response" if self._challenged else "init"
            reason = f"{performative.NAME} in place of a SASL {wanted}"
            raise AmqpError(Condition.NOT_ALLOWED, reason)
        if isinstance(answer, bytes):
            self._challenged = True
            return SaslChallenge(answer)
        return SaslOutcome(OK if answer else REFUSED)


def _parse_init(init: SaslInit, mechanisms: tuple[str, ...]) -> Credentials | None:
    """Parse the mechanism and the response of a peer; None refuses them."""
    if init.mechanism not in mechanisms:
        return None
    response = init.initial_response or b""
    if init.mechanism != "PLAIN":
        return Credentials(init.mechanism, response=response)
    try:
        parts = response.decode().split("\0")
    except UnicodeDecodeError:
        return None
    if len(parts) != 3:  # authorization identity, user name, password (RFC 4616)
        return None
    return Credentials("PLAIN", parts[1], parts[2])
