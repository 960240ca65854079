"""What the feed publishes about direct methods."""

from __future__ import annotations

from emulator.hub.core.errors import HubError
from emulator.hub.feed import Change
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.methods.request import MethodRequest, MethodResult


class MethodCalled(Change, frozen=True):
    """A direct method was sent to a device.

    Args:
        request_id: unique among the calls of the hub.
    """

    key: IdentityKey
    request_id: str
    request: MethodRequest


class MethodEnded(Change, frozen=True):
    """A call of a direct method has ended.

    Args:
        outcome: the device's response, or an error; None where the caller left first.
    """

    key: IdentityKey
    request_id: str
    name: str
    outcome: MethodResult | HubError | None
