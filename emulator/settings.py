"""Every knob of the emulator, in one place."""

from __future__ import annotations

import base64
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emulator.net.certificates import default_folder

# MQTT's registered port for TLS; Azure's device SDKs dial no other.
MQTT_PORT = 8883
# Service SDKs take a port in `HostName`, so this one needs no privilege, as 443 would.
HTTPS_PORT = 8443
# The tutorial's device.
DEVICE_ID = "myDeviceId"

# Where a storage emulator, such as Azurite, serves blobs unless it is told otherwise.
LOCAL_STORAGE_HOSTS = ("localhost:10000", "127.0.0.1:10000", "[::1]:10000")

# The keys of every policy and of every device that the emulator registers at its start, while it
# listens on loopback alone. They are no secret: like the storage emulator's account key, they can
# stand in a README or a test.
WELL_KNOWN_PRIMARY_KEY = base64.b64encode(b"this local IoT Hub key is public").decode()
WELL_KNOWN_SECONDARY_KEY = base64.b64encode(b"the 2nd local IoT Hub key is too").decode()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an emulator is set up.

    Args:
        host: the address or name to listen on; `localhost` is IPv4's and IPv6's loopback.
        mqtt_port: where devices connect; 0 picks a free port.
        https_port: where services connect; 0 picks a free port.
        devices: the ids of the devices that are registered at the start.
        keys: base64 keys, by policy name or device id, instead of the usual ones.
        authorities: PEM files of the CAs that are registered: devices whose certificates they
            signed may connect.
        cert_dir: the folder of the certificates.
        data_dir: the folder where MQTT sessions outlive a restart; None keeps them in memory.
        throttle: what callers may ask for in a time: a tier, such as `S1`, and rates that stand
            above the tier's, such as `queries=20/min`; without any, as much as they like.
        storage: the folder whose folders are containers for import and export jobs, as
            `file:///NAME`; None has none.
        storage_hosts: the storage accounts and emulators that these jobs may use, `host` or
            `host:port`. On loopback, a storage emulator on this machine's port 10000 always is one.
    """

    host: str = "localhost"
    mqtt_port: int = MQTT_PORT
    https_port: int = HTTPS_PORT
    devices: tuple[str, ...] = (DEVICE_ID,)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorities: tuple[Path, ...] = ()
    cert_dir: Path = field(default_factory=default_folder)
    data_dir: Path | None = None
    throttle: tuple[str, ...] = ()
    storage: Path | None = None
    storage_hosts: tuple[str, ...] = ()

    @property
    def on_loopback(self) -> bool:
        """Whether nothing but this machine can reach the emulator."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def host_name(self) -> str:
        """The name that connection strings carry: this machine's, where `host` is no name."""
        return socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104

    @property
    def allowed_storage_hosts(self) -> tuple[str, ...]:
        """The storage accounts and emulators that import and export jobs may use.

        Where others can reach this emulator, they can't reach through it what serves this machine
        alone.
        """
        return (*(LOCAL_STORAGE_HOSTS if self.on_loopback else ()), *self.storage_hosts)

    def key_pair(self, name: str) -> tuple[str, str]:
        """Choose the primary and secondary key of a policy or device: given, well known, random."""
        if name in self.keys:
            return self.keys[name], self.keys[name]
        if self.on_loopback:
            return WELL_KNOWN_PRIMARY_KEY, WELL_KNOWN_SECONDARY_KEY
        return _random_key(), _random_key()


def _random_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
