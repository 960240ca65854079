"""The admission of a device that has sent a CONNECT."""

from __future__ import annotations

from typing import cast

from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import (
    ConnectionForcefullyClosedOnFaultInjection,
    HubError,
    IotHubUnauthorizedAccess,
)
from emulator.hub.gate import DeviceCaller
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Admission
from emulator.mqtt.frame import Connect, ProtocolError, ReturnCode
from emulator.mqtt.topics import UserName


def admit(
    hub: IotHub, connect: Connect, user: UserName | None, certificate: ClientCertificate | None
) -> Admission:
    """Let the gate check the password or the certificate of a device.

    Args:
        hub: the hub.
        connect: the CONNECT.
        user: its user name, parsed; None if that does not agree with the client id.
        certificate: the certificate of the TLS handshake.

    Raises:
        HubError: see `Gate.enter`.
    """
    if user is None:
        raise IotHubUnauthorizedAccess("The user name does not agree with the client id")
    try:
        token = None if connect.password is None else connect.password.decode()
    except UnicodeDecodeError as error:
        raise IotHubUnauthorizedAccess from error
    model_id = user.parameters.get("model-id", "")
    caller = DeviceCaller(user.key, token, user.host, certificate, model_id)
    return cast("Admission", hub.gate.enter(caller, Operation.CONNECT))


def return_code(error: HubError | ProtocolError) -> ReturnCode | None:
    """Return the code by which a CONNECT is refused; None ends the connection without an answer."""
    if isinstance(error, IotHubUnauthorizedAccess | ProtocolError):
        return ReturnCode.NOT_AUTHORIZED
    if isinstance(error, ConnectionForcefullyClosedOnFaultInjection):
        return None
    return ReturnCode.SERVER_UNAVAILABLE  # of a throttle or a fault
