"""An emulator that runs: its state, and the heads round it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING, Protocol

from emulator import ports
from emulator.amqp.server import AmqpServer
from emulator.blobs.server import BlobServer
from emulator.connection_strings import host_with_port
from emulator.disk.snapshot import pack, unpack
from emulator.dps.entrance import Entrance
from emulator.dps.names import ID_SCOPE, POLICY
from emulator.http.admin import config, info, metrics
from emulator.http.admin import state as admin
from emulator.http.admin.counts import Counts
from emulator.http.routes import ROUTES
from emulator.http.server import HttpServer
from emulator.http.web.page import Page, Provisioning
from emulator.hub.access.policies import OF_THE_HUB, Policy
from emulator.hub.core import limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.store import MemoryStore, Store
from emulator.hub.hub import IotHub
from emulator.mqtt.server import MqttServer
from emulator.mqtt.sessions import Sessions
from emulator.net import certificates, client_authorities
from emulator.net.tls import Handshakes
from emulator.net.web_sockets import upgrade_handler
from emulator.settings import WELL_KNOWN_PRIMARY_KEY, Settings, user_folder
from emulator.state import (
    State,
    apply_config,
    first_keys,
    open_state,
    open_store,
    register_first,
    replaced,
    starting,
)
from emulator.storage.upload_folder import FolderUploads
from emulator.uploads import Uploads

if TYPE_CHECKING:
    from emulator.http.plain import PlainServer

# Where MQTT and AMQP are spoken over WebSockets, on the services' port: the subprotocol tells them
# apart (IoT Hub docs: MQTT support; the SDKs). Clients of Event Hubs use the second path.
_WEB_SOCKET = "/$iothub/websocket"
_EVENT_HUBS_WEB_SOCKET = "/$servicebus/websocket"
_MQTT, _AMQP = "mqtt", "AMQPWSB10"


class Head(Protocol):
    """A server of one protocol, which turns what clients send into calls on the hub."""

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on sockets that are bound already."""

    async def stop(self) -> None:
        """Stop accepting, and close every connection."""

    def use(self, hub: IotHub) -> None:
        """Serve another hub from now on, and close the connections to the last one."""

    @property
    def open_connections(self) -> int:
        """How many connections are open."""


class Running:
    """An emulator between its start and its end.

    Args:
        settings: how it is set up.
        port_443: sockets on that port, where services and WebSockets come in as well.
    """

    def __init__(self, settings: Settings, port_443: Sequence[socket.socket]) -> None:
        self._settings = settings
        self._port_443 = port_443
        self._host = info.Host(settings.host_name)
        self._stack = AsyncExitStack()
        self._switching = asyncio.Lock()
        self.loop = asyncio.get_running_loop()
        self.ports: Mapping[str, int] = {}
        """The ports that are served, by the names of their settings."""
        self._heads: dict[str, Head] = {}
        self._counts = Counts()
        self._dps: Entrance | None = None
        self.on_new_hub: list[Callable[[IotHub], object]] = []
        """Called with each new hub after a reset or a restore, on the event loop."""
        self.host_name = settings.host_name
        """The host that device connection strings name."""

    @property
    def hub(self) -> IotHub:
        """The hub itself."""
        return self._state.hub

    def uploads_of_folder(self) -> FolderUploads:
        """Return the uploads of the present hub, where a folder is served."""
        storage = self._state.upload_storage
        assert isinstance(storage, FolderUploads)  # noqa: S101 - so it is served
        return storage

    @property
    def has_dps(self) -> bool:
        """Whether the Device Provisioning Service shares the ports of the hub."""
        return self._dps is not None

    @property
    def policies(self) -> Mapping[str, Policy]:
        """The shared access policies by name."""
        return self._state.policies

    async def start(self) -> None:
        """Build the hub, and start every head: they accept connections when this returns.

        Raises:
            CertificateError, ListenError, StorageError, HubError, StartError
        """
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Close every connection and listener, and the store."""
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        names = certificates.local_names(settings.host, settings.names)
        extra = certificates.machine_names()
        # A start that fails, such as that of a second hub, must not make a new CA. And a port that
        # accepts connections shows that the certificates are there. So the ports are tried first.
        ports.check(settings)
        self.certificates = certificates.prepare(
            settings.cert_dir or user_folder(), names, extra=extra
        )
        self._authorities = client_authorities.read(settings.authorities)
        bound = ports.listen_all(stack, settings)
        bound["https_port"] += self._port_443
        for each in self._port_443:
            stack.callback(each.close)
        self._store = open_store(settings)
        stack.callback(lambda: self._store.close())
        # The first one is the name of the hub in its notifications.
        self._hosts = tuple(dict.fromkeys((settings.host_name, *names, *extra)))
        self.ports = {name: found[0].getsockname()[1] for name, found in bound.items() if found}
        self.uploads = Uploads(settings, self.certificates, self.ports.get("uploads_port"))
        stack.push_async_callback(self.uploads.stop)
        with starting(settings):
            self._state = self._open_state(self._store, Clock())
            self._counts.follow(self.hub)
            register_first(self.hub, settings, {})
            _take_sessions(settings, self._store)
            self.hub.resume()
            await apply_config(self.hub, settings)
        self._handshakes = Handshakes(
            self.certificates,
            authorities=lambda: self.hub.authorities.trusted,
            thumbprints=self.hub.thumbprints,
            clock=self.hub.clock,
            amqp_port=self.ports.get("amqp_port"),
        )
        if not settings.no_dps:
            self._dps = dps = self._open_dps()
            stack.push_async_callback(dps.stop)
        mqtt, https, amqp = self._make_heads()
        # At the end the hub stops before its heads: it fails the open calls, and the heads still
        # answer them before they cut off the callers.
        started = await stack.enter_async_context(AsyncExitStack())
        stack.push_async_callback(lambda: self.hub.stop())
        if bound["http_port"]:
            plain = self._make_plain()
            await plain.start(bound["http_port"])
            started.push_async_callback(plain.stop)
        await amqp.start_plain(bound["amqp_port"])
        # The last head stops first: its WebSockets end with those of HTTPS.
        self._heads = {"mqtt_port": mqtt, "https_port": https, "amqps_port": amqp}
        if "uploads_port" in self.ports:
            self._heads["uploads_port"] = BlobServer(
                self.hub, self.uploads_of_folder, self._handshakes
            )
        for name, head in self._heads.items():
            await head.start(bound[name])
            started.push_async_callback(head.stop)
        self.uploads.prepare()
        self._host.set_started(self.ports, self.hub.clock.machine.now())
        started.callback(self._host.set_stopping)

    def _open_state(
        self, store: Store, clock: Clock, policies: Mapping[str, Policy] | None = None
    ) -> State:
        return open_state(
            self._settings,
            store,
            self._hosts,
            clock,
            policies,
            authorities=self._authorities,
            upload_storage=self.uploads.storage_for(clock, store),
        )

    # --- another hub in the place of this one

    async def reset(self, *, events_only: bool = False) -> None:
        """Begin a new hub with what the settings say; ports, certificates and keys stay.

        Args:
            events_only: keep the hub, and drop the events of its log.

        Raises:
            ServiceUnavailable: the file of the hub can't be written; nothing has changed.
        """
        if events_only:
            self.hub.events.clear()
            return
        async with self._switching:
            keys = first_keys(self._store, self._settings)
            with replaced(self._store, None) as store:
                # Its time is the machine's again.
                state = self._open_state(store, Clock(), self.policies)
                register_first(state.hub, self._settings, keys)
            await self._switch(store, state)
            await self.uploads.clear()
            await apply_config(self.hub, self._settings)

    def snapshot(self) -> bytes:
        """Return the state of the hub: the content of a file as the hub has one on disk."""
        return pack(self._store, self.hub.events.entries())

    async def restore(self, snapshot: bytes) -> None:
        """Begin a new hub with the state of a snapshot.

        Raises:
            SnapshotError: it is damaged, newer, or not a snapshot; nothing has changed.
            ServiceUnavailable: see `reset`.
        """
        async with self._switching:
            with closing(unpack(snapshot)) as content, replaced(self._store, content) as store:
                state = self._open_state(store, self.hub.clock)
            await self._switch(store, state)

    async def _switch(self, store: MemoryStore, state: State) -> None:
        """Serve a new hub. As at the end of the process, the old one cuts off its devices first."""
        old, old_uploads = self.hub, self._state.upload_storage
        self._store, self._state = store, state
        self._counts.follow(self.hub)
        if isinstance(old_uploads, FolderUploads):
            old_uploads.stop()
        old.links.stop()
        for head in self._heads.values():
            head.use(self.hub)
        self._handshakes.use(self.hub.thumbprints)
        if self._dps is not None:
            await self._dps.use(self.hub, self.policies)
        await old.stop()
        self.hub.resume()
        for follow in tuple(self.on_new_hub):
            follow(self.hub)

    # --- the heads

    def _open_dps(self) -> Entrance:
        """Return the entrance of the Device Provisioning Service, which builds the rest later."""
        return Entrance(
            self.hub,
            self.policies,
            self._handshakes,
            hosts=self._hosts,
            linked=self.host_name,
        )

    def _make_plain(self) -> PlainServer:
        # Imported here: most hubs have no such port.
        from emulator.http.plain import BUNDLE, CA, PlainServer

        files = {CA: self.certificates.ca, BUNDLE: self.certificates.bundle}
        return PlainServer(
            self.hub.clock.machine,
            {path: file.read_bytes() for path, file in files.items()},
            self._host.health,
            self._services,
        )

    @property
    def _services(self) -> str:
        where = host_with_port(self.host_name, self.ports["https_port"], default=443)
        return f"https://{where}"

    def _make_heads(self) -> tuple[MqttServer, HttpServer, AmqpServer]:
        hub = self.hub
        handshakes, dps = self._handshakes, self._dps
        # The HTTPS port has AMQP too.
        tls_port = self.ports.get("amqps_port", self.ports["https_port"])
        places = {
            "HTTP": self._services,
            "MQTT": f"port {self.ports['mqtt_port']}",
            "AMQP": f"port {tls_port}",
            "TLS": f"port {tls_port} for TLS",
        }
        mqtt = MqttServer(hub, handshakes, dps.channel if dps else None, places)
        amqp = AmqpServer(hub, handshakes, tls_port, dps, places)
        web_sockets = {
            path: upgrade_handler(
                served,
                first_message=limits.MQTT_CONNECT_BYTES,
                max_message=limits.MQTT_PACKET_BYTES,
            )
            for path, served in (
                (_WEB_SOCKET, {_MQTT: mqtt.serve, _AMQP: amqp.serve}),
                (_EVENT_HUBS_WEB_SOCKET, {_AMQP: amqp.serve}),
            )
        }
        if dps is not None:
            dps.web_socket = web_sockets[_WEB_SOCKET]
        page = Page(
            lambda: {n: each for n, each in self.policies.items() if each.rights & OF_THE_HUB},
            self._hosts,
            host_name=self.host_name,
            known_key=WELL_KNOWN_PRIMARY_KEY if self._settings.on_loopback else None,
            provisioning=Provisioning(ID_SCOPE, lambda: self.policies[POLICY]) if dps else None,
        )
        if dps is not None:
            dps.session_token = page.provisioning_token
        self.on_new_hub.append(page.follow)
        own = (
            *info.routes(self._host),
            *config.routes(self._settings.key_pair),
            *admin.routes(self),
            *metrics.routes(self._counts, self._open_connections, lambda: https.requests),
        )
        https = HttpServer(
            hub,
            (*ROUTES, *own, *page.routes),
            handshakes,
            web_sockets,
            # Node's service SDK speaks AMQP to the port of its HostName.
            {b"AMQP": amqp.protocol},
            page.token,
            dps.handler if dps else None,
        )
        return mqtt, https, amqp

    def _open_connections(self) -> dict[str, int]:
        return {
            name.removesuffix("_port"): head.open_connections for name, head in self._heads.items()
        }


def _take_sessions(settings: Settings, store: Store) -> None:
    """Drop the MQTT sessions of unknown devices; take those of the file in which they were once."""
    sessions = Sessions(store)
    sessions.forget_unknown()
    if settings.data_dir is not None:
        name = f"sessions-{settings.host_in_file_names}-{settings.mqtt_port}.sqlite"
        if (older := settings.data_dir / name).is_file():
            sessions.adopt(older)
