"""What a connection can take up."""

from __future__ import annotations

import math

from msgspec import Struct


class Limits(Struct, frozen=True):
    """What a connection can take up.

    Args:
        sessions: how many sessions are open.
        links: how many links are attached, in all sessions.
        buffered_bytes: of messages that are incomplete, or not settled here, or wait for credit;
            and of what peers send when they attach.
        sent_bytes: what is sent before the peer reads it; then links have no credit. The frames
            of one message can go beyond it.
        seconds: how long these limits hold before the connection closes.
    """

    sessions: int
    links: int
    buffered_bytes: int
    sent_bytes: int = 256 * 1024
    seconds: float = math.inf


# Ours. A peer that has not shown a right to anything needs few links: a pair to `$cbs`, and the
# ones that wait for the tokens.
UNAUTHORIZED = Limits(sessions=16, links=64, buffered_bytes=128 * 1024, seconds=60)
AUTHORIZED = Limits(sessions=1_024, links=4_096, buffered_bytes=16 * 1024 * 1024)
