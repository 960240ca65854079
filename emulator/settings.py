"""The settings of an emulator, each with its default, its names and its help text.

A setting stands once, as a field of `Settings`. The command's options and the environment variables
are made from these fields; the keys are for a configuration file.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import ipaddress
import math
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from emulator.errors import StartError
from emulator.hub.access.policies import DEFAULT_RIGHTS, Right
from emulator.hub.access.throttles import Throttles
from emulator.hub.core import limits
from emulator.hub.notifications.sources import SOURCES
from emulator.setting import (
    ACCEPT,
    ALL_EVENTS,
    LAST_PORT,
    Setting,
    flag,
    log_bound,
    parse_consumer_group,
    parse_device_id,
    parse_entra,
    parse_events,
    parse_host,
    parse_log_size,
    parse_partitions,
    parse_port,
    parse_seconds,
    parse_throttle,
    parse_tolerance,
    read_keys,
)

if TYPE_CHECKING:
    from emulator.config.file import ConfigFile

# MQTT's registered port for TLS; Azure's device SDKs dial no other.
MQTT_PORT = 8883
# Service SDKs take a port in `HostName`, so this one needs no privilege, as 443 would.
HTTPS_PORT = 8443
# AMQP's registered ports, with TLS and without. The SDKs of IoT Hub dial the first one, and clients
# of Event Hubs the second one if their connection string has UseDevelopmentEmulator=true.
AMQPS_PORT = 5671
AMQP_PORT = 5672
# Where devices upload files: beside the port of services.
UPLOADS_PORT = 8444
# The tutorial's device.
DEVICE_ID = "myDeviceId"

# Where a storage emulator, such as Azurite, serves blobs by default.
LOCAL_STORAGE_HOSTS = ("localhost:10000", "127.0.0.1:10000", "[::1]:10000")

# The keys of every policy and of every device that the emulator registers at its start, while it
# listens on loopback alone. They are public, as the storage emulator's account key is: they can
# stand in a README or a test.
WELL_KNOWN_PRIMARY_KEY = base64.b64encode(b"this local IoT Hub key is public").decode()
WELL_KNOWN_SECONDARY_KEY = base64.b64encode(b"the 2nd local IoT Hub key is too").decode()

# The ports that a hub can do without.
_OPTIONAL_PORTS = ("amqps_port", "amqp_port", "http_port", "uploads_port")

_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - a user's choice

# The settings that can have keys, beside those that are mappings.
_WITH_KEYS = ("config", "upload-storage")

# An option in an error, with its value: `--data-dir DIR`, `--host 127.0.0.2`.
_OPTION = re.compile(r"(?P<option>--[a-z]+(-[a-z]+)*)( (?P<value>[A-Z]+\b|127[.\d]*\d))?")


def _read_config(path: str) -> ConfigFile:
    """Read a configuration file.

    Raises:
        ConfigError: it can't be read, or has mistakes; one line for each.
    """
    # Imported here: most hubs have no configuration file.
    from emulator.config.file import read as read_file

    fields_by_key = {setting.key: name for name, setting in table().items() if name != "config"}

    def parse(key: str, value: object, folder: Path) -> tuple[str, Any]:
        name = fields_by_key[key]
        return name, table()[name].read_in_file(value, folder)

    return read_file(Path(path), fields_by_key, parse)


def parse_upload_storage(text: str) -> str:
    """Check the connection string of a storage account."""
    # Imported here, as the next one: most hubs use no account.
    from emulator.storage import connection_string

    connection_string.parse(text)
    return text


def parse_storage_host(text: str) -> str:
    """Check the host of a storage account."""
    from emulator.storage.account import addresses

    addresses(text)
    return text


def _field(default: Any, row: Setting) -> Any:
    """Declare a field of `Settings`, with its row of the table."""
    metadata = {"setting": row}
    if isinstance(default, dict):
        return field(default_factory=lambda: default, repr=False, metadata=metadata)
    # Keys must not be shown.
    return field(default=default, repr=row.key not in _WITH_KEYS, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an emulator is set up; the text of each setting says what it does."""

    # fmt: off
    config: ConfigFile | None = _field(None, Setting(
        "config", "FILE", "JSON or TOML file of settings, policies, devices and configurations",
        "no file", _read_config,
    ))
    host: str = _field("localhost", Setting(
        "host", "HOST", "address or name to listen on", "localhost, this machine alone",
        parse_host,
    ))
    names: tuple[str, ...] = _field((), Setting(
        "name", "NAME",
        "name or address by which clients reach the hub, such as the name of a container; the "
        "first one stands in connection strings", "the host, or this machine's name", parse_host,
        many=True,
    ))
    mqtt_port: int = _field(MQTT_PORT, Setting(
        "mqtt-port", "PORT", "port for devices; 0 chooses a free one",
        f"{MQTT_PORT}, the only one that Azure's SDKs dial", parse_port,
    ))
    https_port: int = _field(HTTPS_PORT, Setting(
        "https-port", "PORT", "port for services; 0 chooses a free one",
        f"{HTTPS_PORT}, and 443 where it is allowed", parse_port,
    ))
    amqps_port: int | None = _field(None, Setting(
        "amqps-port", "PORT", "port for AMQP over TLS; 0 chooses a free one",
        f"{AMQPS_PORT}, if it is free", parse_port,
    ))
    amqp_port: int | None = _field(None, Setting(
        "amqp-port", "PORT", "port for AMQP without TLS; 0 chooses a free one",
        f"{AMQP_PORT}, if it is free and only this machine can reach it", parse_port,
    ))
    http_port: int | None = _field(None, Setting(
        "http-port", "PORT",
        "port without TLS for the certificate of the local CA and the health check; 0 chooses a "
        "free one", "no such port", parse_port,
    ))
    uploads_port: int | None = _field(None, Setting(
        "uploads-port", "PORT", "port for the files that devices upload; 0 chooses a free one",
        f"{UPLOADS_PORT}, if it is free", parse_port,
    ))
    devices: tuple[str, ...] = _field((DEVICE_ID,), Setting(
        "device", "ID", "register this device at the start", DEVICE_ID, parse_device_id,
        many=True,
    ))
    keys: Mapping[str, str] = _field({}, Setting(
        "keys", "FILE", "JSON file of base64 keys, by policy or device id",
        "well-known keys on loopback, random keys elsewhere", read_keys,
    ))
    authorities: tuple[Path, ...] = _field((), Setting(
        "client-ca", "FILE", "PEM file of a CA that signs the certificates of devices", "no CA",
        Path, many=True,
    ))
    entra: str = _field("", Setting(
        "entra", ACCEPT,
        "accept every well-formed bearer token of Entra ID, unchecked, on service routes; only on "
        "loopback", "bearer tokens are refused", parse_entra,
    ))
    sas_tolerance: float = _field(0.0, Setting(
        "sas-tolerance", "TIME",
        "how long a SAS token is accepted after its expiry; 300s is what a real hub does", "0s",
        parse_tolerance,
    ))
    data_dir: Path | None = _field(None, Setting(
        "data-dir", "DIR", "folder for the state of the hub: one file for each host",
        "a folder of this user", Path,
    ))
    recover: bool = _field(False, Setting(
        "recover", "", "if the file of the hub is damaged, move it aside, and begin a new hub",
        "the hub does not start", flag,
    ))
    cert_dir: Path | None = _field(None, Setting(
        "cert-dir", "DIR", "folder for the local CA and its certificates", "the data folder", Path,
    ))
    throttle: tuple[str, ...] = _field((), Setting(
        "throttle", "TIER|OPERATION=RATE",
        "refuse what a hub of this tier (S1, S2, S3) refuses as too much in a time, or what is "
        "over a rate, such as queries=20/min", "no limit", parse_throttle, many=True,
    ))
    storage: Path | None = _field(None, Setting(
        "storage", "DIR",
        "folder of the containers of import and export jobs: file:///NAME is its folder NAME",
        "no folder", Path,
    ))
    storage_hosts: tuple[str, ...] = _field((), Setting(
        "storage-host", "HOST[:PORT]", "storage account or emulator that these jobs can use",
        "a storage emulator on port 10000 of this machine", parse_storage_host, many=True,
    ))
    upload_storage: str = _field("", Setting(
        "upload-storage", "CONNECTION_STRING",
        "storage account or emulator for the files that devices upload, such as "
        "UseDevelopmentStorage=true", "a folder of the hub", parse_upload_storage,
    ))
    no_uploads: bool = _field(False, Setting(
        "no-uploads", "", "leave out the upload of files", "devices can upload files", flag,
    ))
    partitions: int | None = _field(None, Setting(
        "partitions", "NUMBER", "partitions of the built-in endpoint of a new hub",
        str(limits.EVENT_LOG_PARTITIONS), parse_partitions,
    ))
    consumer_groups: tuple[str, ...] = _field((), Setting(
        "consumer-group", "NAME", "consumer group of the built-in endpoint, beside $Default",
        "$Default alone", parse_consumer_group, many=True,
    ))
    retention: float = _field(limits.EVENT_LOG_RETENTION, Setting(
        "retention", "TIME", "how long an event is kept, such as 90s, 12h or 7d", "1d",
        parse_seconds,
    ))
    event_log_size: tuple[str, ...] = _field((), Setting(
        "event-log-size", "NUMBER|BYTES",
        "how many events are kept, such as 50000, or how many bytes in memory, such as 256MB",
        f"{limits.EVENT_LOG_EVENTS} and {limits.EVENT_LOG_BYTES // 1024**2}MB", parse_log_size,
        many=True,
    ))
    events: tuple[str, ...] = _field((), Setting(
        "events", "KIND", "events that the built-in endpoint has beside telemetry: "
        f"{', '.join(SOURCES)}, or {ALL_EVENTS}; several have commas between them",
        "telemetry alone", parse_events, many=True,
    ))
    fault_messages: bool = _field(False, Setting(
        "fault-messages", "on|off",
        "let devices ask for faults by messages with AzIoTHub_FaultOperationType, as Microsoft's "
        "test hubs do", "off, as on a real hub", flag,
    ))
    no_dps: bool = _field(False, Setting(
        "no-dps", "", "leave out the Device Provisioning Service", "it shares the hub's ports",
        flag,
    ))
    # fmt: on

    def __post_init__(self) -> None:
        """Refuse a text in place of several, a value out of range, or two that contradict.

        Raises:
            StartError
        """
        if isinstance(self.config, str | Path):
            raise StartError(
                f"config is the name {str(self.config)!r}. Use Settings.from_file({self.config!r})."
            )
        for name, each in table().items():
            value = getattr(self, name)
            if each.many and isinstance(value, str):
                raise StartError(f"{name} is the text {value!r}. Use a tuple: {name}=({value!r},).")
        options: dict[int, str] = {}
        for name, port in self.ports.items():
            if port is None and name in _OPTIONAL_PORTS:
                continue
            if not isinstance(port, int) or port not in range(LAST_PORT + 1):
                raise StartError(f"Invalid {name} {port!r}: use a number from 0 to {LAST_PORT}.")
            option = table()[name].option
            if port and (first := options.setdefault(port, option)) != option:
                text = f"Port {port} is that of {first} already. Use another one: {option} PORT."
                raise StartError(in_program(text), command=text)
        try:
            parse_host(self.host)
            Throttles.parse(self.throttle)
            if self.partitions is not None:
                parse_partitions(str(self.partitions))
            if self.upload_storage:
                parse_upload_storage(self.upload_storage)
            for name in ("consumer_groups", "event_log_size", "events"):
                for text in getattr(self, name):
                    table()[name].parse(text)
        except ValueError as error:
            raise StartError(str(error)) from None
        if len({"$default", *map(str.lower, self.consumer_groups)}) > limits.CONSUMER_GROUPS:
            most = limits.CONSUMER_GROUPS - 1
            raise StartError(f"{len(self.consumer_groups)} consumer groups: use {most} at most.")
        if not self.retention > 0:
            raise StartError(f"Invalid retention {self.retention!r}: use seconds above 0.")
        if not 0 <= self.sas_tolerance < math.inf:
            raise StartError(f"Invalid sas_tolerance {self.sas_tolerance!r}: use 0 or more.")
        if self.entra not in ("", ACCEPT):
            raise StartError(f"Invalid entra {self.entra!r}: use {ACCEPT!r}.")
        if self.entra and not self.on_loopback:
            raise StartError(
                f"Bearer tokens are not checked, so entra is not allowed on host {self.host!r}. "
                "Use a loopback address such as localhost, or leave entra out."
            )

    @classmethod
    def from_file(cls, path: str | Path, **others: Any) -> Settings:
        """Return the settings in a configuration file; its content is applied to the hub.

        Args:
            path: the file.
            others: settings that win over those of the file.

        Raises:
            StartError: the file can't be used.
        """
        config = _read_config(str(path))
        return cls(**{"config": config, **_of_file(config), **others})

    @property
    def rights(self) -> Mapping[str, Right]:
        """The rights of each shared access policy."""
        named = {} if self.config is None else self.config.rights
        return {**DEFAULT_RIGHTS, **named}

    @property
    def new_devices(self) -> tuple[str, ...]:
        """The devices to register that are not in the configuration file."""
        in_file = frozenset(() if self.config is None else self.config.device_ids)
        return tuple(each for each in dict.fromkeys(self.devices) if each not in in_file)

    @property
    def ports(self) -> dict[str, int | None]:
        """The ports, by the names of their fields.

        None is the default one, if it is free; and no port for HTTP without TLS.
        """
        uploads = () if self.no_uploads or self.upload_storage else ("uploads_port",)
        names = ("mqtt_port", "https_port", "amqps_port", "amqp_port", "http_port", *uploads)
        return {name: getattr(self, name) for name in names}

    @property
    def host_in_file_names(self) -> str:
        """The host, for the names of files that belong to one address."""
        return re.sub(r"[^\w.-]", "_", self.host)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the emulator."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def host_name(self) -> str:
        """The name in connection strings: this machine's, where `host` is every address."""
        if self.names:
            return self.names[0].strip("[]")
        return socket.gethostname() if self.host in _EVERY_ADDRESS else self.host

    @property
    def own_host(self) -> str:
        """A host that programs of this machine can always resolve, unlike a name of `names`."""
        return "localhost" if self.host in _EVERY_ADDRESS else self.host

    @property
    def allowed_storage_hosts(self) -> tuple[str, ...]:
        """The storage accounts and emulators that import and export jobs can use.

        An emulator that other machines can reach does not call what serves this machine alone.
        """
        return (*(LOCAL_STORAGE_HOSTS if self.on_loopback else ()), *self.storage_hosts)

    @property
    def event_log_bounds(self) -> dict[str, int]:
        """The bounds of the event log, as the arguments of `EventLog`."""
        return dict(log_bound(text) for text in self.event_log_size)

    @property
    def event_sources(self) -> frozenset[str]:
        """The events that the built-in endpoint has beside telemetry."""
        named = {source for text in self.events for source in text.split(",")}
        return frozenset(SOURCES if ALL_EVENTS in named else named)

    def chooses_key(self, name: str) -> bool:
        """Return whether `key_pair` returns the same keys at each start."""
        in_file = self.config is not None and name in self.config.policy_keys
        return name in self.keys or in_file or self.on_loopback

    def key_pair(self, name: str) -> tuple[str, str]:
        """Choose the primary and secondary key of a policy or device: given, well known, random."""
        if name in self.keys:
            return self.keys[name], self.keys[name]
        if self.config is not None and (pair := self.config.policy_keys.get(name)) is not None:
            return pair.primary, pair.secondary
        if self.on_loopback:
            return WELL_KNOWN_PRIMARY_KEY, WELL_KNOWN_SECONDARY_KEY
        return _random_key(), _random_key()


@functools.cache
def table() -> Mapping[str, Setting]:
    """Return every setting, by the name of its field."""
    return {each.name: each.metadata["setting"] for each in fields(Settings)}


class Found(NamedTuple):
    """The value of a setting, and where it is from: an option, a variable, a file, the default."""

    value: Any
    source: str


def read(options: Mapping[str, Sequence[str] | None], environ: Mapping[str, str]) -> Settings:
    """Make settings from texts: see `find`.

    Raises:
        SettingError: a value is invalid.
        StartError: a file can't be used.
    """
    return Settings(**{name: each.value for name, each in find(options, environ).items()})


def find(
    options: Mapping[str, Sequence[str] | None], environ: Mapping[str, str]
) -> dict[str, Found]:
    """Find each setting that is not the default.

    An option beats a variable, a variable beats the configuration file, and this the default.

    Args:
        options: the texts of each option, by the name of its field.
        environ: the environment variables. An empty one counts as missing.

    Returns:
        the settings by the names of their fields.

    Raises:
        SettingError: a value is invalid.
        StartError: a file can't be used.
    """
    found = {}
    for name, setting in table().items():
        value = setting.read(options.get(name), environ.get(setting.variable))
        if value is not None:
            found[name] = Found(value, setting.option if options.get(name) else setting.variable)
    if "config" in found:
        config: ConfigFile = found["config"].value
        of_file = {name: Found(value, str(config.path)) for name, value in _of_file(config).items()}
        found = {**of_file, **found}
    return found


def _of_file(config: ConfigFile) -> dict[str, Any]:
    """Return the settings of a configuration file. Its devices stand for the tutorial's."""
    devices = {"devices": config.device_ids} if config.device_ids else {}
    return {**devices, **config.settings}


def in_program(text: str) -> str:
    """Replace the options in a text, such as `--data-dir DIR`, by the fields of `Settings`."""
    names = {setting.option: name for name, setting in table().items()}

    def field_of(match: re.Match[str]) -> str:
        name, value = names.get(match["option"]), match["value"]
        if name is None:
            return match[0]
        if value is None:
            return name
        return f"Settings({name}={'...' if value.isupper() else repr(value)})"

    return _OPTION.sub(field_of, text)


def user_folder() -> Path:
    """Return this user's own folder for our data; it need not exist yet.

    Raises:
        StartError: the user has no home folder.
    """
    # Imported here: a program that chooses its folders does without it.
    import platformdirs

    with contextlib.suppress(RuntimeError):
        folder = platformdirs.user_data_path("local-iot-hub", appauthor=False)
        if folder.is_absolute():
            return folder
    raise StartError("This user has no home folder. Choose a folder: --data-dir DIR.")


def _random_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
