"""The emulator: it starts and stops the heads round one hub."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec import Struct

from emulator import connection_strings, event_loop
from emulator.amqp.server import AmqpServer
from emulator.errors import StartError
from emulator.http.routes import ROUTES
from emulator.http.server import HttpServer
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import DEFAULT_RIGHTS, Policy
from emulator.hub.access.throttles import ThrottleError, Throttles
from emulator.hub.core import limits
from emulator.hub.core.clock import SystemClock
from emulator.hub.core.errors import HubError
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.printable import printable
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.event_log import ENTITY, EventLog
from emulator.mqtt.server import MqttServer
from emulator.mqtt.sessions import Sessions
from emulator.net import certificates, listeners
from emulator.net.certificates import CertificateError, Certificates
from emulator.net.listeners import ListenError
from emulator.net.tls import Handshakes
from emulator.net.web_sockets import upgrade_handler
from emulator.settings import (
    ACCEPT,
    AMQP_PORT,
    AMQPS_PORT,
    Settings,
    in_program,
    table,
    user_folder,
)
from emulator.storage.container import StorageError
from emulator.storage.storage import Storage
from emulator.thread import BlockThread

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Where MQTT and AMQP are spoken over WebSockets, on the services' port: the subprotocol tells them
# apart (IoT Hub docs: MQTT support; the SDKs). Clients of Event Hubs use the second path.
_WEB_SOCKET = "/$iothub/websocket"
_EVENT_HUBS_WEB_SOCKET = "/$servicebus/websocket"
_MQTT, _AMQP = "mqtt", "AMQPWSB10"

# The ports that AMQP has by default, if they are free.
_DEFAULT_PORTS = {"amqps_port": AMQPS_PORT, "amqp_port": AMQP_PORT}

# The policy that a service connection string is made for: it has every right.
_OWNER = "iothubowner"

# The policy that a connection string for Event Hubs is made for: it can read events.
_READER = "service"

# Why a start fails. Their texts name options of the command.
_START_ERRORS = CertificateError, ListenError, ThrottleError, StorageError, HubError, StartError


class Head(Protocol):
    """A server of one protocol, which turns what clients send into calls on the hub."""

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on sockets that are bound already."""

    async def stop(self) -> None:
        """Stop accepting, and close every connection."""


class _Running(Struct, frozen=True, kw_only=True):
    """What an emulator has while it runs."""

    loop: asyncio.AbstractEventLoop
    certificates: Certificates
    policies: Mapping[str, Policy]
    hub: IotHub
    host_name: str
    ports: Mapping[str, int]


class Emulator:
    """A local IoT hub.

    It runs in the caller's event loop as `async with Emulator(settings)`, or in a thread of its
    own as `with Emulator(settings)`. What it offers exists within the block only; before and after
    it, each property and method raises RuntimeError.

    Args:
        settings: how the emulator is set up; the defaults if None.
        port_443: sockets on that port, where services and WebSockets come in as well. The command
            opens them; in a program, two emulators would be in each other's way.

    Raises:
        StartError: on entry. A port is in use, a folder can't be written, or a setting is invalid.
    """

    def __init__(
        self, settings: Settings | None = None, *, port_443: Sequence[socket.socket] = ()
    ) -> None:
        self.settings = settings or Settings()
        self._port_443 = port_443
        self._state: _Running | None = None
        self._stack = AsyncExitStack()

    # --- what a program needs to reach it

    @property
    def hub(self) -> IotHub:
        """The hub itself; it belongs to the event loop that the emulator runs in."""
        return self._running.hub

    @property
    def mqtt_port(self) -> int:
        """Where devices connect."""
        return self._running.ports["mqtt_port"]

    @property
    def https_port(self) -> int:
        """Where services connect."""
        return self._running.ports["https_port"]

    @property
    def amqps_port(self) -> int | None:
        """Where services and devices connect over AMQP; None if this port is not served."""
        return self._running.ports.get("amqps_port")

    @property
    def amqp_port(self) -> int | None:
        """As `amqps_port`, without TLS."""
        return self._running.ports.get("amqp_port")

    @property
    def host_name(self) -> str:
        """The host that device connection strings name."""
        return self._running.host_name

    @property
    def mqtt_host(self) -> str:
        """Host and port for devices."""
        return connection_strings.host_with_port(self.host_name, self.mqtt_port)

    @property
    def https_host(self) -> str:
        """Host and port for services, as a service connection string names them."""
        port = 443 if self._port_443 else self.https_port
        return connection_strings.host_with_port(self.host_name, port, default=443)

    @property
    def ca_file(self) -> Path:
        """The local CA's certificate alone, PEM."""
        return self._running.certificates.ca

    @property
    def ca_bundle(self) -> Path:
        """The public roots and the local CA, PEM: for SSL_CERT_FILE and REQUESTS_CA_BUNDLE."""
        return self._running.certificates.bundle

    @property
    def service_connection_string(self) -> str:
        """A service's connection string, with every right."""
        return self.policy_connection_string(_OWNER)

    def policy_connection_string(self, policy: str) -> str:
        """Return a service's connection string with the rights of a shared access policy."""
        key = self._running.policies[policy].keys.primary
        return connection_strings.for_service(self.https_host, policy, key)

    @property
    def event_hubs_connection_string(self) -> str:
        """A connection string for clients of Event Hubs, which read what devices send.

        If the hub has plain AMQP, it has UseDevelopmentEmulator=true: the client needs no
        certificate.
        """
        ports = self._running.ports
        name = next(each for each in ("amqp_port", "amqps_port", "https_port") if each in ports)
        host = connection_strings.host_with_port(
            self.host_name, ports[name], default=_DEFAULT_PORTS.get(name)
        )
        return connection_strings.for_event_hubs(
            host,
            _READER,
            self._running.policies[_READER].keys.primary,
            entity=ENTITY,
            plain=name == "amqp_port",
        )

    def device_connection_string(self, device_id: str) -> str:
        """Return a device's connection string.

        Raises:
            DeviceNotFound
        """
        device = self._call(lambda hub: hub.identities.get(IdentityKey(device_id)))
        key = device["authentication"]["symmetricKey"]["primaryKey"]
        return connection_strings.for_device(self.host_name, device_id, key)

    def environment(self, device_id: str) -> dict[str, str]:
        """Return the environment variables for the SDKs and the tutorial's scripts.

        Raises:
            DeviceNotFound
        """
        return connection_strings.environment(
            bundle=self.ca_bundle,
            host=self.host_name,
            device_id=device_id,
            device=self.device_connection_string(device_id),
            service=self.service_connection_string,
            event_hubs=self.event_hubs_connection_string,
        )

    def register_device(self, device_id: str) -> str:
        """Register a device with the keys that the settings choose; return its connection string.

        Raises:
            DeviceAlreadyExists, ArgumentInvalid
        """
        self._call(lambda hub: _register(hub, self.settings, device_id))
        return self.device_connection_string(device_id)

    def _call(self, function: Callable[[IotHub], _T]) -> _T:
        """Call into the hub from any thread: the hub belongs to its event loop."""
        running = self._running
        return event_loop.call(running.loop, lambda: function(running.hub))

    @property
    def _running(self) -> _Running:
        if self._state is None:
            raise RuntimeError(
                "The emulator is not running. Use it inside its block: with Emulator() as hub."
            )
        return self._state

    # --- in a thread of its own

    def __enter__(self) -> Emulator:
        self._thread = BlockThread(self)
        self._thread.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.leave()

    # --- in the caller's event loop

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every head; they accept connections when this returns.

        Raises:
            StartError
        """
        async with AsyncExitStack() as stack:
            try:
                self._state = await self._start(stack)
            except _START_ERRORS as error:
                raise StartError(in_program(str(error)), command=str(error)) from error
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Close every connection and listener."""
        self._state = None
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> _Running:
        settings = self.settings
        names = certificates.local_names(settings.host, settings.names)
        extra = certificates.machine_names()
        # A start that fails, such as that of a second hub, must not make a new CA. And a port that
        # accepts connections shows that the certificates are there. So the ports are tried first.
        with ExitStack() as trial:
            for name in settings.ports:
                _listen(trial, settings, name, report=log.debug)
        files = certificates.prepare(settings.cert_dir or user_folder(), names, extra=extra)
        bound = {name: _listen(stack, settings, name) for name in settings.ports}
        bound["https_port"] += self._port_443
        for each in self._port_443:
            stack.callback(each.close)
        ports = {name: found[0].getsockname()[1] for name, found in bound.items() if found}
        policies = {
            name: Policy(name, rights, SymmetricKeys(*settings.key_pair(name)))
            for name, rights in DEFAULT_RIGHTS.items()
        }
        hub = _open_hub(settings, policies, (*names, *extra))
        handshakes = Handshakes(
            files, authorities=settings.authorities, thumbprints=hub.thumbprints, clock=hub.clock
        )
        sessions = _open_sessions(settings)
        stack.callback(sessions.close)

        mqtt = MqttServer(hub, sessions, handshakes)
        # The HTTPS port has AMQP too.
        amqp = AmqpServer(hub, handshakes, ports.get("amqps_port", ports["https_port"]))
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
        # Node's service SDK speaks AMQP to the port of its HostName.
        https = HttpServer(hub, ROUTES, handshakes, web_sockets, {b"AMQP": amqp.protocol})
        # Of the heads, the last one stops first: its WebSockets end with those of HTTPS.
        heads: dict[str, Head] = {"mqtt_port": mqtt, "https_port": https, "amqps_port": amqp}
        # At the end the hub stops before its heads: it fails the open calls, and the heads still
        # answer them before they cut off the callers.
        started = await stack.enter_async_context(AsyncExitStack())
        stack.push_async_callback(hub.stop)
        await amqp.start_plain(bound["amqp_port"])
        for name, head in heads.items():
            await head.start(bound[name])
            started.push_async_callback(head.stop)
        return _Running(
            loop=asyncio.get_running_loop(),
            certificates=files,
            policies=policies,
            hub=hub,
            host_name=settings.host_name,
            ports=ports,
        )


def _open_hub(settings: Settings, policies: Mapping[str, Policy], names: Sequence[str]) -> IotHub:
    """Build the hub, and register its first devices."""
    clock = SystemClock()
    hub = IotHub(
        store=MemoryStore(),
        clock=clock,
        policies=policies.values(),
        hosts=names,
        blobs=Storage(settings.storage, settings.allowed_storage_hosts),
        throttles=Throttles.parse(settings.throttle, clock=clock),
        events=EventLog(
            clock=clock,
            partitions=settings.partitions,
            retention=settings.retention,
            consumer_groups=settings.consumer_groups,
            **settings.event_log_bounds,
        ),
        event_sources=settings.event_sources,
        accepts_entra=settings.entra == ACCEPT,
    )
    for device_id in dict.fromkeys(settings.devices):
        try:
            _register(hub, settings, device_id)
        except HubError as error:
            raise StartError(f"--device: {error.text}") from error
    return hub


def _register(hub: IotHub, settings: Settings, device_id: str) -> None:
    primary, secondary = settings.key_pair(device_id)
    keys = {"primaryKey": primary, "secondaryKey": secondary}
    body = {"deviceId": device_id, "authentication": {"type": "sas", "symmetricKey": keys}}
    hub.identities.put(IdentityKey(device_id), body, IfMatch(None))


def _open_sessions(settings: Settings) -> Sessions:
    """Open the MQTT sessions of this address: a device that reconnects dials the same one again."""
    if settings.data_dir is None or settings.mqtt_port == 0:
        return Sessions()
    name = f"sessions-{settings.host_in_file_names}-{settings.mqtt_port}.sqlite"
    file = settings.data_dir / name
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        return Sessions(file)
    except (OSError, sqlite3.Error) as error:
        raise StartError(
            f"Can't keep sessions in {file}: {error}. Choose another folder: --data-dir DIR."
        ) from error


def _listen(
    stack: ExitStack | AsyncExitStack,
    settings: Settings,
    name: str,
    report: Callable[..., None] = log.warning,
) -> list[socket.socket]:
    """Open the sockets of a port.

    Another program, such as RabbitMQ, can have a default port of AMQP: then the hub does without.
    So does it without plain AMQP where other machines could read it.
    """
    option, port = table()[name].option, settings.ports[name]
    if port is None and name == "amqp_port" and not settings.on_loopback:
        return []
    chosen = _DEFAULT_PORTS[name] if port is None else port
    if port is None and chosen in settings.ports.values():
        return []  # the user has given it to another head
    try:
        bound = listeners.listen(settings.host, chosen, option=option)
    except ListenError as error:
        if port is not None or not error.in_use:
            raise
        report(
            "Port %d is in use on %s, so the hub does not serve AMQP there. Stop the other "
            "program, or use another port: %s PORT.",
            chosen,
            printable(settings.host),
            printable(option),
        )
        return []
    for each in bound:
        stack.callback(each.close)
    return bound
