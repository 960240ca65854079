"""The emulator as one object: it starts and stops the heads round one hub."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import re
import socket
import sqlite3
import threading
import warnings
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from emulator.http import (
    admin,
    configurations,
    devices,
    digital_twins,
    jobs,
    messages,
    methods,
    modules,
    query,
    statistics,
    twins,
)
from emulator.http import import_export as transfers
from emulator.http.route import DeviceRoute, Route
from emulator.http.server import HttpServer
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import DEFAULT_RIGHTS, Policy
from emulator.hub.access.throttles import ThrottleError, Throttles
from emulator.hub.core import limits
from emulator.hub.core.errors import HubError
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.mqtt.server import MqttServer
from emulator.mqtt.sessions import Sessions
from emulator.net import certificates
from emulator.net import listeners as sockets
from emulator.net.certificates import CertificateError
from emulator.net.listeners import ListenError
from emulator.net.tls import Handshakes
from emulator.net.web_sockets import upgrade_handler
from emulator.settings import Settings
from emulator.storage.storage import Storage, StorageError

_T = TypeVar("_T")

# Where MQTT is spoken over a WebSocket, on the services' port (IoT Hub docs: MQTT support).
_WEB_SOCKET = "/$iothub/websocket"

ROUTES: tuple[Route | DeviceRoute, ...] = (
    *devices.ROUTES,
    *modules.ROUTES,
    *statistics.ROUTES,
    *twins.ROUTES,
    *methods.ROUTES,
    *query.ROUTES,
    *jobs.ROUTES,
    *transfers.ROUTES,
    *configurations.ROUTES,
    *digital_twins.ROUTES,
    *messages.ROUTES,
    *admin.ROUTES,
)

# The policy that a service connection string is made for: it may do everything.
_OWNER = "iothubowner"


class StartError(Exception):
    """The emulator can't start; the text is one line that says what to do."""


class Emulator:
    """A local IoT hub.

    It runs in the caller's event loop as `async with Emulator(settings)`, or in a thread of its
    own as `with Emulator(settings)`. What it offers is there once the block is entered.

    Raises:
        StartError: on entry; a port is taken, a folder can't be written, a key is malformed, a
            throttle or the storage is none.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- what a program needs to reach it

    @property
    def host_name(self) -> str:
        """The host that connection strings name."""
        return self.settings.host_name

    @property
    def mqtt_port(self) -> int:
        """Where devices connect."""
        return self._mqtt_port

    @property
    def https_port(self) -> int:
        """Where services connect."""
        return self._https_port

    @property
    def https_host(self) -> str:
        """Host and port of the services' end, as a service connection string names them."""
        return self._with_port(self._https_port, default=443)

    @property
    def mqtt_host(self) -> str:
        """Host and port of the devices' end."""
        return self._with_port(self._mqtt_port)

    def _with_port(self, port: int, default: int | None = None) -> str:
        host = f"[{self.host_name}]" if ":" in self.host_name else self.host_name
        return host if port == default else f"{host}:{port}"

    def environment(self, device_id: str) -> dict[str, str]:
        """The environment variables with which the SDKs and the tutorial's scripts reach it.

        Raises:
            DeviceNotFound
        """
        return {
            "SSL_CERT_FILE": str(self.ca_bundle),
            "REQUESTS_CA_BUNDLE": str(self.ca_bundle),
            "IOTHUB_DEVICE_CONNECTION_STRING": self.device_connection_string(device_id),
            "IOTHUB_CONNECTION_STRING": self.service_connection_string,
            "IOTHUB_DEVICE_ID": device_id,
        }

    @property
    def ca_file(self) -> Path:
        """The local CA's certificate alone, PEM."""
        return self._certificates.ca

    @property
    def ca_bundle(self) -> Path:
        """The public roots and the local CA, PEM: for SSL_CERT_FILE and REQUESTS_CA_BUNDLE."""
        return self._certificates.bundle

    @property
    def service_connection_string(self) -> str:
        """What a service connects with."""
        return self.policy_connection_string(_OWNER)

    def policy_connection_string(self, policy: str) -> str:
        """What a service connects with that has the rights of a shared access policy."""
        key = self._policies[policy].keys.primary
        return f"HostName={self.https_host};SharedAccessKeyName={policy};SharedAccessKey={key}"

    def device_connection_string(self, device_id: str) -> str:
        """What a device connects with.

        Raises:
            DeviceNotFound
        """
        device = self._on_loop(lambda: self.hub.identities.get_device(device_id))
        key = device["authentication"]["symmetricKey"]["primaryKey"]
        proof = f"SharedAccessKey={key}" if key else "x509=true"
        return f"HostName={self.host_name};DeviceId={device_id};{proof}"

    def register_device(self, device_id: str) -> str:
        """Register a device, with the keys that its settings choose; gives its connection string.

        Raises:
            DeviceAlreadyExists, ArgumentInvalid
        """
        primary, secondary = self.settings.key_pair(device_id)
        keys = {"primaryKey": primary, "secondaryKey": secondary}
        body = {"deviceId": device_id, "authentication": {"type": "sas", "symmetricKey": keys}}
        self._on_loop(lambda: self.hub.identities.put_device(device_id, body, IfMatch(None)))
        return self.device_connection_string(device_id)

    # --- in the caller's event loop

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every listener; they accept when this returns.

        Raises:
            StartError
        """
        async with AsyncExitStack() as stack:
            stack.callback(setattr, self, "_loop", None)
            try:
                await self._start(stack)
            except (CertificateError, ListenError, ThrottleError, StorageError, HubError) as error:
                raise StartError(str(error)) from error
            self._running = stack.pop_all()

    async def stop(self) -> None:
        """Close every connection and listener."""
        await self._running.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        self._loop = asyncio.get_running_loop()
        names = certificates.local_names(settings.host)
        self._certificates = certificates.prepare(settings.cert_dir, names)
        mqtt_sockets = _listen(stack, settings.host, settings.mqtt_port, "--mqtt-port")
        https_sockets = _listen(stack, settings.host, settings.https_port, "--https-port")
        self._mqtt_port: int = mqtt_sockets[0].getsockname()[1]
        self._https_port: int = https_sockets[0].getsockname()[1]

        self._policies = {
            name: Policy(name, rights, SymmetricKeys(*settings.key_pair(name)))
            for name, rights in DEFAULT_RIGHTS.items()
        }
        self.hub = IotHub(
            store=MemoryStore(),
            policies=self._policies.values(),
            hosts=names,
            blobs=Storage(settings.storage, settings.allowed_storage_hosts),
            throttles=Throttles.parse(settings.throttle),
        )
        for device_id in dict.fromkeys(settings.devices):
            self.register_device(device_id)

        handshakes = Handshakes(
            self._certificates,
            authorities=settings.authorities,
            thumbprints=self.hub.thumbprints,
            clock=self.hub.clock,
        )
        sessions = _open_sessions(settings)
        stack.callback(sessions.close)
        mqtt_server = MqttServer(self.hub, sessions, handshakes.client_certificate)
        subprotocols = {"mqtt": mqtt_server.serve}
        http_server = HttpServer(
            self.hub,
            ROUTES,
            handshakes.client_certificate,
            {_WEB_SOCKET: upgrade_handler(subprotocols, max_message=limits.MQTT_PACKET_BYTES)},
        )
        await mqtt_server.start(mqtt_sockets, handshakes.context)
        stack.push_async_callback(mqtt_server.stop)
        await http_server.start(https_sockets, handshakes.context)
        stack.push_async_callback(http_server.stop)
        # Links first: their open calls are answered, and only then are the callers cut off.
        stack.push_async_callback(self.hub.stop)

    # --- in a thread of its own

    def __enter__(self) -> Emulator:
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: run(self._serve(started)), name="emulator", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._running_loop().call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _serve(self, started: concurrent.futures.Future[None]) -> None:
        """Run until `__exit__`; a start that fails is raised in the thread that waits for it."""
        self._stopping = asyncio.Event()
        try:
            await self.start()
        except BaseException as error:  # noqa: BLE001 - it is raised by the one who waits
            started.set_exception(error)
            return
        started.set_result(None)
        await self._stopping.wait()
        await self.stop()

    def _on_loop(self, function: Callable[[], _T]) -> _T:
        """Call into the hub from whichever thread: it belongs to its event loop alone."""
        loop = self._running_loop()
        try:
            if asyncio.get_running_loop() is loop:
                return function()
        except RuntimeError:
            pass  # this thread has no loop

        async def call() -> _T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), loop).result()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("The emulator is not running.")
        return self._loop


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end in a new event loop: uvloop's where it has a build."""
    loop = _new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        # A connection that is still in its TLS handshake has no owner yet; it ends with the loop,
        # and asyncio's own objects of it with the garbage.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop.close()
            if isinstance(loop, asyncio.BaseEventLoop):
                gc.collect()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _listen(stack: AsyncExitStack, host: str, port: int, option: str) -> list[socket.socket]:
    opened = sockets.listen(host, port, option=option)
    for each in opened:
        stack.callback(each.close)
    return opened


def _open_sessions(settings: Settings) -> Sessions:
    """Open the sessions of this address: a device that reconnects dials the same one again."""
    if settings.data_dir is None or settings.mqtt_port == 0:
        return Sessions()
    address = re.sub(r"[^\w.-]", "_", settings.host)
    file = settings.data_dir / f"sessions-{address}-{settings.mqtt_port}.sqlite"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        return Sessions(file)
    except (OSError, sqlite3.Error) as error:
        raise StartError(
            f"Can't keep sessions in {file}: {error}. Choose another folder with --data-dir."
        ) from error
