"""The admission of a device that has sent a CONNECT."""

from __future__ import annotations

import logging
from typing import cast

from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import (
    ConnectionForcefullyClosedOnFaultInjection,
    HubError,
    IotHubUnauthorizedAccess,
)
from emulator.hub.core.printable import printable
from emulator.hub.gate import DeviceCaller
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Admission
from emulator.mqtt import messages
from emulator.mqtt.frame import Connect, ProtocolError, ReturnCode
from emulator.mqtt.topics import UserName

log = logging.getLogger(__name__)


def admit(
    hub: IotHub, connect: Connect, user: UserName | None, certificate: ClientCertificate | None
) -> Admission:
    """Let the gate check the password or the certificate of a device; check its will, too.

    Args:
        hub: the hub.
        connect: the CONNECT.
        user: its user name, parsed; None if that does not agree with the client id.
        certificate: the certificate of the TLS handshake.

    Raises:
        HubError: see `Gate.enter`.
        ProtocolError: the will is not valid. What a real hub answers to it is unknown; a refusal
            ends the attempts.
    """
    if user is None:
        raise IotHubUnauthorizedAccess("The user name does not agree with the client id")
    try:
        token = None if connect.password is None else connect.password.decode()
    except UnicodeDecodeError as error:
        raise IotHubUnauthorizedAccess from error
    model_id = user.parameters.get("model-id", "")
    caller = DeviceCaller(user.key, token, user.host, certificate, model_id)
    admission = cast("Admission", hub.gate.enter(caller, Operation.CONNECT))
    if connect.will is not None:
        messages.will(connect.will, admission.key)
    return admission


def refusal(hub: IotHub, error: Exception, client: str, peer: str) -> ReturnCode | None:
    """Log why a CONNECT is refused.

    Args:
        hub: the hub.
        error: why `admit` failed.
        client: the client id, without a key.
        peer: the address of the client.

    Returns:
        the code of the answer; None ends the connection without an answer.
    """
    if not isinstance(error, HubError | ProtocolError):
        log.error("The authentication of %r at %s failed", client, printable(peer), exc_info=error)
        return ReturnCode.SERVER_UNAVAILABLE
    reason = error.__cause__ or error
    hub.refusals.info(
        "Refused %r at %s: %s", client, printable(peer), printable(reason), error=error
    )
    if isinstance(error, IotHubUnauthorizedAccess | ProtocolError):
        return ReturnCode.NOT_AUTHORIZED
    if isinstance(error, ConnectionForcefullyClosedOnFaultInjection):
        return None
    return ReturnCode.SERVER_UNAVAILABLE  # of a throttle or a fault
