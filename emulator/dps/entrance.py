"""The entrance of the Device Provisioning Service, on the ports of a hub.

Heads ask it whether a path or a CONNECT is the service's. The rest of the service is imported and
built for the first that is: most hubs never need it, and a start has no time for it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from aiohttp.web_response import StreamResponse

from emulator.dps.names import ADDRESS, ID_SCOPE, TPM_MECHANISM
from emulator.http.requests import Request
from emulator.hub.access.policies import Policy
from emulator.hub.hub import IotHub
from emulator.mqtt.frame import Connect, PacketBuffer
from emulator.net.streams import Stream
from emulator.net.tls import Handshakes

if TYPE_CHECKING:
    from emulator.amqp.sasl import Credentials
    from emulator.dps.amqp_client import ProvisioningClient
    from emulator.dps.channel import ProvisioningChannel
    from emulator.dps.service import ProvisioningService

# `{idScope}/registrations/{registrationId}/api-version=…` (DPS docs: MQTT). A module's user name
# can look like it, but its client id has the first two parts.
_USER_NAME = re.compile(r"(?P<scope>[^/]+)/registrations/(?P<id>[^/]+)/\??api-version=.*")
_FAMILIES = {"enrollments", "enrollmentgroups", "registrations"}


Handler = Callable[[Request], Awaitable[StreamResponse]]
FindToken = Callable[[Request], str | None]


class Entrance:
    """Finds what is for the service.

    Args:
        hub: the hub that is linked with the service.
        policies: the shared access policies by name.
        handshakes: the handshakes of TLS, with the certificates of devices.
        hosts: the names of the service.
        linked: the host name of the hub, as devices are told.
    """

    def __init__(
        self,
        hub: IotHub,
        policies: Mapping[str, Policy],
        handshakes: Handshakes,
        *,
        hosts: Collection[str],
        linked: str,
    ) -> None:
        self._hub = hub
        self._policies = policies
        self._handshakes = handshakes
        self._hosts = hosts
        self._linked = linked
        self.web_socket: Handler | None = None
        """Upgrades a request to MQTT. The SDK for C# asks for the host without a path."""
        self.session_token: FindToken = lambda _: None
        """Returns the SAS token of a request with a cookie of the page."""

    @cached_property
    def service(self) -> ProvisioningService:
        """The service itself."""
        from emulator.dps.service import ProvisioningService

        return ProvisioningService(
            self._hub,
            self._policies,
            id_scope=ID_SCOPE,
            hosts=self._hosts,
            linked=self._linked,
        )

    async def stop(self) -> None:
        """End what the service has begun."""
        built: ProvisioningService | None = self.__dict__.pop("service", None)
        if built is not None:
            await built.registrations.stop()

    async def use(self, hub: IotHub, policies: Mapping[str, Policy]) -> None:
        """Serve another hub from now on, with what its store has."""
        self._hub, self._policies = hub, policies
        await self.stop()

    def handler(self, request: Request, segments: Sequence[str]) -> Handler | None:
        """Return the handler of an HTTP request; None if its path is not the service's."""
        if segments == [""] and "Upgrade" in request.headers:
            return self.web_socket
        first, second = (*segments, "", "")[:2]
        if first.lower() not in _FAMILIES and second.lower() != "registrations":
            return None
        from emulator.dps.routes import answer

        async def handle(request: Request) -> StreamResponse:
            token = self.session_token
            return await answer(self.service, self._handshakes, token, request, segments)

        return handle

    def channel(
        self, connect: Connect, packets: PacketBuffer, stream: Stream
    ) -> ProvisioningChannel | None:
        """Return the channel of an MQTT connection; None if its user name is not the service's."""
        match = _USER_NAME.fullmatch(connect.user_name or "")
        if match is None or match["id"].lower() != connect.client_id.lower():
            return None
        from emulator.dps.access import Proof
        from emulator.dps.channel import ProvisioningChannel

        try:
            token = (connect.password or b"").decode() or None
        except UnicodeDecodeError:
            token = None
        certificate = self._handshakes.client_certificate(stream.tls)
        proof = Proof(token, certificate, self._handshakes.client_chain(stream.tls))
        return ProvisioningChannel(
            self.service.registrations,
            self._hub.clock,
            packets,
            stream,
            registration_id=match["id"],
            scope=match["scope"],
            silence=connect.allowed_silence,
            proof=proof,
        )

    # --- AMQP

    mechanisms = (TPM_MECHANISM,)

    def owns(self, claimed: Credentials | str) -> bool:
        """Return whether credentials of SASL, or the address of a link, are for the service."""
        if isinstance(claimed, str):
            return ADDRESS.fullmatch(claimed) is not None
        is_device = ADDRESS.fullmatch(claimed.user_name) is not None
        return is_device or claimed.mechanism == TPM_MECHANISM

    def client(self, stream: Stream, authorized: Callable[[], None]) -> ProvisioningClient:
        """Return a new client over AMQP."""
        from emulator.dps.access import Proof
        from emulator.dps.amqp_client import ProvisioningClient

        certificate = self._handshakes.client_certificate(stream.tls)
        proof = Proof(None, certificate, self._handshakes.client_chain(stream.tls))
        return ProvisioningClient(self.service, proof, authorized)
