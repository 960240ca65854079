"""The server's side of SASL (section 5.3 of AMQP 1.0): which credentials a peer names.

SASL alone authorizes nothing: what a peer may do is decided when it attaches a link. So each
mechanism succeeds at once, if its response can be parsed.
"""

from __future__ import annotations

from msgspec import Struct

from emulator.amqp.performatives import SaslInit, SaslMechanisms

# MSSBCBS is the mechanism of uamqp: the tokens follow on links to `$cbs`.
MECHANISMS = SaslMechanisms(("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"))

# The codes of an outcome (section 5.3.3.6).
OK = 0
REFUSED = 1


class Credentials(Struct, frozen=True):
    """What a peer has sent in SASL.

    Args:
        mechanism: one of `MECHANISMS`.
        user_name: with PLAIN.
        password: with PLAIN.
    """

    mechanism: str
    user_name: str = ""
    password: str = ""


def parse_init(init: SaslInit) -> Credentials | None:
    """Parse the mechanism and the response of a peer; None refuses them.

    A response to another mechanism than PLAIN is ignored: @azure/event-hubs sends the name of its
    policy with ANONYMOUS.
    """
    if init.mechanism not in MECHANISMS.mechanisms:
        return None
    if init.mechanism != "PLAIN":
        return Credentials(init.mechanism)
    try:
        parts = (init.initial_response or b"").decode().split("\0")
    except UnicodeDecodeError:
        return None
    if len(parts) != 3:  # authorization identity, user name, password (RFC 4616)
        return None
    return Credentials("PLAIN", parts[1], parts[2])
