"""The settings of an emulator, each with its default, its names and its help text.

A setting stands once, as a field of `Settings`. The command's options and the environment variables
are made from these fields; the keys are for a configuration file.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import ipaddress
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from msgspec import Struct

from emulator.errors import StartError
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.throttles import Throttles
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.notifications.sources import SOURCES

# MQTT's registered port for TLS; Azure's device SDKs dial no other.
MQTT_PORT = 8883
# Service SDKs take a port in `HostName`, so this one needs no privilege, as 443 would.
HTTPS_PORT = 8443
# AMQP's registered ports, with TLS and without. The SDKs of IoT Hub dial the first one, and clients
# of Event Hubs the second one if their connection string has UseDevelopmentEmulator=true.
AMQPS_PORT = 5671
AMQP_PORT = 5672
# The tutorial's device.
DEVICE_ID = "myDeviceId"

# Every kind of events that is not telemetry.
ALL_EVENTS = "all"
# The only value of `entra`, besides the empty default.
ACCEPT = "accept"

# Where a storage emulator, such as Azurite, serves blobs by default.
LOCAL_STORAGE_HOSTS = ("localhost:10000", "127.0.0.1:10000", "[::1]:10000")

# The keys of every policy and of every device that the emulator registers at its start, while it
# listens on loopback alone. They are public, as the storage emulator's account key is: they can
# stand in a README or a test.
WELL_KNOWN_PRIMARY_KEY = base64.b64encode(b"this local IoT Hub key is public").decode()
WELL_KNOWN_SECONDARY_KEY = base64.b64encode(b"the 2nd local IoT Hub key is too").decode()

_TIME_UNITS = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}
_SIZE_UNITS = {"KB": 1024, "MB": 1024**2, "GB": 1024**3}
# A real hub's rules for a name (Event Hubs docs: resource names), and `$Default`.
_CONSUMER_GROUP = re.compile(
    rf"\$Default|[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.CONSUMER_GROUP_LENGTH - 1}}}", re.ASCII
)

_VARIABLE_PREFIX = "IOTHUB_EMULATOR_"
_LAST_PORT = 65535
# An option in an error, with its value: `--data-dir DIR`, `--host 127.0.0.2`.
_OPTION = re.compile(r"(?P<option>--[a-z]+(-[a-z]+)*)( (?P<value>[A-Z]+\b|127[.\d]*\d))?")
_ON, _OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class SettingError(ValueError):
    """An option or a variable has an invalid value; the text is one line that names it."""


class Setting(Struct, frozen=True):
    """How the world outside names, explains and writes a setting.

    Args:
        key: the name in a configuration file; option and variable are made from it.
        metavar: what the value is; empty for an option without a value.
        help: what the setting does.
        default: the default, as `--help` shows it.
        parse: makes the value from its text. It raises ValueError with one line of text.
        many: whether there can be several values.
    """

    key: str
    metavar: str
    help: str
    default: str
    parse: Callable[[str], Any] = str
    many: bool = False

    @property
    def option(self) -> str:
        """The name on the command line."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return _VARIABLE_PREFIX + self.key.upper().replace("-", "_")

    def read(self, option: Sequence[str] | None, variable: str | None) -> Any:
        """Parse the option, or else the variable; return None if both are missing.

        A variable with several values is split at spaces, or as PATH is if they are paths.

        Raises:
            SettingError: the value is invalid.
            StartError: the file can't be used.
        """
        source, texts = self.option, option
        if not texts and variable:
            separator = os.pathsep if self.parse is Path else None
            source, texts = self.variable, variable.split(separator) if self.many else [variable]
        if not texts:
            return None
        try:
            values = tuple(self.parse(text) for text in texts)
        except ValueError as error:
            raise SettingError(f"{source}: {error}") from None
        return values if self.many else values[-1]


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _LAST_PORT:
        raise ValueError(f"Invalid port {text!r}: use a number from 0 to {_LAST_PORT}.")
    return int(text)


def flag(text: str) -> bool:
    """Parse a setting that is on or off."""
    if text.lower() not in _ON + _OFF:
        raise ValueError(f"Invalid value {text!r}: use {' or '.join(_ON[:1] + _OFF[:1])}.")
    return text.lower() in _ON


def _throttle(text: str) -> str:
    Throttles.parse([text])
    return text


def _partitions(text: str) -> int:
    allowed = limits.EVENT_LOG_PARTITIONS_ALLOWED
    if not text.isascii() or not text.isdigit() or int(text[:9]) not in allowed:
        raise ValueError(
            f"Invalid number of partitions {text!r}: use {allowed.start} to {allowed.stop - 1}."
        )
    return int(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})(s|m|h|d)", text, re.ASCII)
    if found is None or not int(found[1]):
        raise ValueError(f"Invalid time {text!r}: use a number and a unit, such as 90s, 12h or 7d.")
    return int(found[1]) * _TIME_UNITS[found[2]]


def _log_size(text: str) -> str:
    _parse_log_size(text)
    return text


def _parse_log_size(text: str) -> tuple[str, int]:
    """Return which bound of the event log a text is, and its value."""
    found = re.fullmatch(r"(\d{1,12})(KB|MB|GB)?", text, re.ASCII)
    if found is None or not int(found[1]):
        raise ValueError(
            f"Invalid size of the event log {text!r}: use a number of events, such as 50000, or a "
            "size in memory, such as 256MB."
        )
    if found[2] is None:
        return "events", int(found[1])
    return "size", int(found[1]) * _SIZE_UNITS[found[2]]


def _consumer_group(text: str) -> str:
    if not _CONSUMER_GROUP.fullmatch(text):
        raise ValueError(
            f"Invalid consumer group {text!r}: use letters, digits, '.', '-' and '_', at most "
            f"{limits.CONSUMER_GROUP_LENGTH}; a letter or digit is first."
        )
    return text


def _events(text: str) -> str:
    for source in text.split(","):
        if source not in (*SOURCES, ALL_EVENTS):
            raise ValueError(
                f"Invalid kind of events {source!r}: use {', '.join(SOURCES)} or {ALL_EVENTS}."
            )
    return text


def _entra(text: str) -> str:
    if text != ACCEPT:
        raise ValueError(f"Invalid value {text!r}: use {ACCEPT}.")
    return text


def _read_keys(text: str) -> Mapping[str, str]:
    file = Path(text)
    try:
        keys = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"Can't read the keys in {file}: {error.strerror or error}.") from None
    except ValueError as error:
        raise StartError(f"Can't read the keys in {file}: {error}.") from None
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise StartError(f'{file} is not of the form {{"policy or device id": "<base64 key>"}}.')
    for name, key in keys.items():
        try:
            SymmetricKeys(key, key)
        except ArgumentInvalid as error:
            raise StartError(
                f"Invalid key of {name} in {file}: {error.text}. Use 16 to 64 bytes in base64."
            ) from None
    return keys


def _field(default: Any, row: Setting) -> Any:
    """Declare a field of `Settings`, with its row of the table."""
    if isinstance(default, dict):  # of keys, which must not be shown
        return field(default_factory=lambda: default, repr=False, metadata={"setting": row})
    return field(default=default, metadata={"setting": row})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an emulator is set up; the text of each setting says what it does."""

    # fmt: off
    host: str = _field("localhost", Setting(
        "host", "HOST", "address or name to listen on", "localhost, this machine alone",
    ))
    names: tuple[str, ...] = _field((), Setting(
        "name", "NAME",
        "name or address by which clients reach the hub, such as the name of a container; the "
        "first one stands in connection strings", "the host, or this machine's name", many=True,
    ))
    mqtt_port: int = _field(MQTT_PORT, Setting(
        "mqtt-port", "PORT", "port for devices; 0 chooses a free one",
        f"{MQTT_PORT}, the only one that Azure's SDKs dial", _port,
    ))
    https_port: int = _field(HTTPS_PORT, Setting(
        "https-port", "PORT", "port for services; 0 chooses a free one", str(HTTPS_PORT), _port,
    ))
    amqps_port: int | None = _field(None, Setting(
        "amqps-port", "PORT", "port for AMQP over TLS; 0 chooses a free one",
        f"{AMQPS_PORT}, if it is free", _port,
    ))
    amqp_port: int | None = _field(None, Setting(
        "amqp-port", "PORT", "port for AMQP without TLS; 0 chooses a free one",
        f"{AMQP_PORT}, if it is free and only this machine can reach it", _port,
    ))
    devices: tuple[str, ...] = _field((DEVICE_ID,), Setting(
        "device", "ID", "register this device at the start", DEVICE_ID, many=True,
    ))
    keys: Mapping[str, str] = _field({}, Setting(
        "keys", "FILE", "JSON file of base64 keys, by policy or device id",
        "well-known keys on loopback, random keys elsewhere", _read_keys,
    ))
    authorities: tuple[Path, ...] = _field((), Setting(
        "client-ca", "FILE", "PEM file of a CA that signs the certificates of devices", "no CA",
        Path, many=True,
    ))
    entra: str = _field("", Setting(
        "entra", ACCEPT,
        "accept every well-formed bearer token of Entra ID, unchecked, on service routes; only on "
        "loopback", "bearer tokens are refused", _entra,
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
        "over a rate, such as queries=20/min", "no limit", _throttle, many=True,
    ))
    storage: Path | None = _field(None, Setting(
        "storage", "DIR",
        "folder of the containers of import and export jobs: file:///NAME is its folder NAME",
        "no folder", Path,
    ))
    storage_hosts: tuple[str, ...] = _field((), Setting(
        "storage-host", "HOST[:PORT]", "storage account or emulator that these jobs can use",
        "a storage emulator on port 10000 of this machine", many=True,
    ))
    partitions: int = _field(limits.EVENT_LOG_PARTITIONS, Setting(
        "partitions", "NUMBER", "partitions of the built-in endpoint",
        str(limits.EVENT_LOG_PARTITIONS), _partitions,
    ))
    consumer_groups: tuple[str, ...] = _field((), Setting(
        "consumer-group", "NAME", "consumer group of the built-in endpoint, beside $Default",
        "$Default alone", _consumer_group, many=True,
    ))
    retention: float = _field(limits.EVENT_LOG_RETENTION, Setting(
        "retention", "TIME", "how long an event is kept, such as 90s, 12h or 7d", "1d", _seconds,
    ))
    event_log_size: tuple[str, ...] = _field((), Setting(
        "event-log-size", "NUMBER|BYTES",
        "how many events are kept, such as 50000, or how many bytes in memory, such as 256MB",
        f"{limits.EVENT_LOG_EVENTS} and {limits.EVENT_LOG_BYTES // 1024**2}MB", _log_size,
        many=True,
    ))
    events: tuple[str, ...] = _field((), Setting(
        "events", "KIND", "events that the built-in endpoint has beside telemetry: "
        f"{', '.join(SOURCES)}, or {ALL_EVENTS}; several have commas between them",
        "telemetry alone", _events, many=True,
    ))
    fault_messages: bool = _field(False, Setting(
        "fault-messages", "on|off",
        "let devices ask for faults by messages with AzIoTHub_FaultOperationType, as Microsoft's "
        "test hubs do", "off, as on a real hub", flag,
    ))
    # fmt: on

    def __post_init__(self) -> None:
        """Refuse a text in place of several, a port out of range, or an unsafe `entra`.

        Raises:
            StartError
        """
        for name, each in table().items():
            value = getattr(self, name)
            if each.many and isinstance(value, str):
                raise StartError(f"{name} is the text {value!r}. Use a tuple: {name}=({value!r},).")
        for name, port in self.ports.items():
            if port is None and name in ("amqps_port", "amqp_port"):
                continue
            if not isinstance(port, int) or port not in range(_LAST_PORT + 1):
                raise StartError(f"Invalid {name} {port!r}: use a number from 0 to {_LAST_PORT}.")
        try:
            _partitions(str(self.partitions))
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
        if self.entra not in ("", ACCEPT):
            raise StartError(f"Invalid entra {self.entra!r}: use {ACCEPT!r}.")
        if self.entra and not self.on_loopback:
            raise StartError(
                f"Bearer tokens are not checked, so entra is not allowed on host {self.host!r}. "
                "Use a loopback address such as localhost, or leave entra out."
            )

    @property
    def ports(self) -> dict[str, int | None]:
        """The ports, by the names of their fields; None is the default of AMQP, if it is free."""
        names = ("mqtt_port", "https_port", "amqps_port", "amqp_port")
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
        return socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104

    @property
    def allowed_storage_hosts(self) -> tuple[str, ...]:
        """The storage accounts and emulators that import and export jobs can use.

        An emulator that other machines can reach does not call what serves this machine alone.
        """
        return (*(LOCAL_STORAGE_HOSTS if self.on_loopback else ()), *self.storage_hosts)

    @property
    def event_log_bounds(self) -> dict[str, int]:
        """The bounds of the event log, as the arguments of `EventLog`."""
        return dict(_parse_log_size(text) for text in self.event_log_size)

    @property
    def event_sources(self) -> frozenset[str]:
        """The events that the built-in endpoint has beside telemetry."""
        named = {source for text in self.events for source in text.split(",")}
        return frozenset(SOURCES if ALL_EVENTS in named else named)

    def chooses_key(self, name: str) -> bool:
        """Return whether `key_pair` returns the same keys at each start."""
        return name in self.keys or self.on_loopback

    def key_pair(self, name: str) -> tuple[str, str]:
        """Choose the primary and secondary key of a policy or device: given, well known, random."""
        if name in self.keys:
            return self.keys[name], self.keys[name]
        if self.on_loopback:
            return WELL_KNOWN_PRIMARY_KEY, WELL_KNOWN_SECONDARY_KEY
        return _random_key(), _random_key()


@functools.cache
def table() -> Mapping[str, Setting]:
    """Return every setting, by the name of its field."""
    return {each.name: each.metadata["setting"] for each in fields(Settings)}


def read(options: Mapping[str, Sequence[str] | None], environ: Mapping[str, str]) -> Settings:
    """Make settings from texts: an option beats a variable, and a variable beats the default.

    Args:
        options: the texts of each option, by the name of its field.
        environ: the environment variables. An empty one counts as missing.

    Raises:
        SettingError: a value is invalid.
        StartError: a file can't be used.
    """
    values = {
        name: setting.read(options.get(name), environ.get(setting.variable))
        for name, setting in table().items()
    }
    return Settings(**{name: value for name, value in values.items() if value is not None})


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
