"""The emulator, as a program or a test uses it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from emulator import connection_strings, event_loop
from emulator.clock import EmulatorClock
from emulator.disk import snapshot
from emulator.dps.names import ID_SCOPE, POLICY
from emulator.errors import StartError
from emulator.faults import EmulatorFaults
from emulator.hub.core.errors import ArgumentInvalid, HubError
from emulator.hub.hub import IotHub
from emulator.hub.messages.event_log import ENTITY
from emulator.net.certificates import CertificateError
from emulator.net.listeners import ListenError
from emulator.ports import DEFAULT_PORTS
from emulator.running import Running
from emulator.settings import Settings, in_program
from emulator.storage.container import StorageError
from emulator.testing.environment import set_variables
from emulator.testing.kit import Kit
from emulator.thread import BlockThread

_T = TypeVar("_T")

# The policy that a service connection string is made for: it has every right.
_OWNER = "iothubowner"

# The policy that a connection string for Event Hubs is made for: it can read events.
_READER = "service"

# Why a start fails. Their texts name options of the command.
_START_ERRORS = CertificateError, ListenError, StorageError, HubError, StartError


class Emulator(Kit):
    """A local IoT hub.

    It runs in a thread of its own, as `with Emulator(settings)` or, without blocking the caller's
    event loop at its start and end, `async with Emulator(settings)`. What it offers exists within
    the block only; before and after it, each property and method raises RuntimeError.

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
        super().__init__(settings or Settings(), lambda: self._running)
        self._port_443 = port_443
        self._state: Running | None = None

    # --- what a program needs to reach it

    @property
    def hub(self) -> IotHub:
        """The hub itself; it belongs to the event loop that the emulator runs in."""
        return self._running.hub

    @property
    def clock(self) -> EmulatorClock:
        """The time of the hub, which can be advanced."""
        return EmulatorClock(self._running.hub.clock, self._running.loop)

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
    def http_port(self) -> int | None:
        """Where the CA and the health check are, without TLS; None if this port is not served."""
        return self._running.ports.get("http_port")

    @property
    def uploads_port(self) -> int | None:
        """Where devices upload files; None if the emulator serves no folder for them."""
        return self._running.ports.get("uploads_port")

    @property
    def uploads_folder(self) -> Path | None:
        """The folder with the files that devices upload; None if the emulator serves none.

        The file of device `d1` and blob `photo.jpg` is `d1/photo.jpg`. Names that are not valid on
        every system are changed: see docs/uploads.md.
        """
        return self._running.uploads.folder

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

    @property
    def faults(self) -> EmulatorFaults:
        """Faults on demand: turns them on and off."""
        return EmulatorFaults(partial(_call, self._running))

    def policy_connection_string(self, policy: str) -> str:
        """Return a service's connection string with the rights of a shared access policy.

        Raises:
            ArgumentInvalid: the hub has no policy of this name.
        """
        policies = self._running.policies
        if policy not in policies:
            raise ArgumentInvalid(f"Unknown policy: {policy!r}. Use {', '.join(policies)}")
        key = policies[policy].keys.primary
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
            self.host_name, ports[name], default=DEFAULT_PORTS.get(name)
        )
        return connection_strings.for_event_hubs(
            host,
            _READER,
            self._running.policies[_READER].keys.primary,
            entity=ENTITY,
            plain=name == "amqp_port",
        )

    @property
    def dps_id_scope(self) -> str | None:
        """The id scope of the Device Provisioning Service; None if the service is left out."""
        return ID_SCOPE if self._running.has_dps else None

    @property
    def dps_connection_string(self) -> str | None:
        """A connection string for programs of the service's owner; None if it is left out."""
        return self.policy_connection_string(POLICY) if self._running.has_dps else None

    def environment(self, device_id: str | None = None) -> dict[str, str]:
        """Return the environment variables for the SDKs and the tutorial's scripts.

        Args:
            device_id: the device of the variables for a device; None leaves these out.

        Raises:
            DeviceNotFound
        """
        device = None
        if device_id is not None:
            device = device_id, self.device_connection_string(device_id)
        dps = self.dps_connection_string
        return connection_strings.environment(
            bundle=self.ca_bundle,
            host=self.host_name,
            service=self.service_connection_string,
            event_hubs=self.event_hubs_connection_string,
            dps=(ID_SCOPE, dps) if dps else None,
            device=device,
        )

    @contextmanager
    def patch_environment(self, device_id: str | None = None) -> Iterator[dict[str, str]]:
        """Set the variables of `environment` in this process, and restore the old ones at the end.

        Raises:
            DeviceNotFound
        """
        variables = self.environment(device_id)
        with set_variables(variables):
            yield variables

    # --- the whole state

    def reset(self, *, events_only: bool = False) -> None:
        """Begin a new hub, with the devices of the settings. Addresses, certificates, keys stay.

        Connections end, and calls that are open fail. It takes milliseconds. It can be called in
        any thread except that of the emulator's event loop.

        Args:
            events_only: drop the events of the event log, and keep all else. Their numbers
                continue.

        Raises:
            StartError, ServiceUnavailable: the file of the hub can't be written; nothing has
                changed.
        """
        self._wait(lambda running: running.reset(events_only=events_only))

    def snapshot(self, file: Path | str) -> None:
        """Write the state of the hub into a file that only this user can read: it has keys.

        The file can be restored in any emulator, and it can be the file of a hub (`data_dir`).

        Raises:
            SnapshotError: the file can't be written.
        """
        snapshot.write(Path(file), event_loop.call(self._running.loop, self._running.snapshot))

    def restore(self, file: Path | str) -> None:
        """Begin a new hub with the state in a file. For all else, see `reset`.

        Raises:
            SnapshotError: the file can't be read, or it is damaged, newer, or not a snapshot.
                Nothing has changed.
            StartError, ServiceUnavailable: see `reset`.
        """
        self._wait(lambda running: running.restore(snapshot.read(Path(file))))

    def follow(self, call: Callable[[IotHub], object]) -> None:
        """Call a function with the hub, and after each reset or restore with the new one.

        It is called on the event loop of the hub.
        """
        running = self._running
        running.on_new_hub.append(call)
        event_loop.call(running.loop, lambda: call(running.hub))

    def _wait(self, begin: Callable[[Running], Coroutine[Any, Any, None]]) -> None:
        """Carry out work on the event loop of the hub, and wait for its end."""
        running = self._running
        if event_loop.is_running_here(running.loop):
            raise RuntimeError("The hub runs in this event loop, which this call would block.")
        event_loop.wait(running.loop, begin(running))

    @property
    def _running(self) -> Running:
        if self._state is None:
            raise RuntimeError(
                "The emulator is not running. Use it inside its block: with Emulator() as hub."
            )
        return self._state

    # --- in a thread of its own: code in the caller's event loop can block, and not hold up the hub

    def __enter__(self) -> Self:
        self._thread = BlockThread(self.in_this_loop())
        self._thread.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.leave()

    async def __aenter__(self) -> Self:
        self._thread = BlockThread(self.in_this_loop())
        await self._thread.enter_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._thread.leave_async()

    # --- in the caller's event loop

    @asynccontextmanager
    async def in_this_loop(self) -> AsyncIterator[Self]:
        """Run in the caller's event loop, for a program that does nothing else, as the command.

        Raises:
            StartError
        """
        running = Running(self.settings, self._port_443)
        try:
            await running.start()
        except _START_ERRORS as error:
            raise StartError(in_program(str(error)), command=str(error)) from error
        self._state = running
        try:
            yield self
        finally:
            self._state = None
            await running.stop()


def _call(running: Running, function: Callable[[IotHub], _T]) -> _T:
    return event_loop.call(running.loop, lambda: function(running.hub))
