"""A setting: its names, and how its value is made from text.

The functions parse the texts of one setting each. They raise ValueError with one line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from emulator.errors import StartError
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.throttles import Throttles
from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.notifications.sources import SOURCES
from emulator.net import files

# Every kind of events that is not telemetry.
ALL_EVENTS = "all"
# The only value of `entra`, besides the empty default.
ACCEPT = "accept"
LAST_PORT = 65535

_TIME_UNITS = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}
_SIZE_UNITS = {"KB": 1024, "MB": 1024**2, "GB": 1024**3}
# A real hub's rules for a name (Event Hubs docs: resource names), and `$Default`.
_CONSUMER_GROUP = re.compile(
    rf"\$Default|[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.CONSUMER_GROUP_LENGTH - 1}}}", re.ASCII
)

# What a path leads to, by how `--help` names it.
_PATHS = {"FILE": "file", "DIR": "folder"}

_VARIABLE_PREFIX = "IOTHUB_EMULATOR_"
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
            return self._parse_all(texts)
        except ValueError as error:
            raise SettingError(f"{source}: {error}") from None

    @property
    def types_in_file(self) -> tuple[type, ...]:
        """The types that a configuration file can have for one value."""
        if not self.metavar:
            return (bool,)
        return (str, int) if self.metavar.startswith(("PORT", "NUMBER")) else (str,)

    def read_in_file(self, value: object, folder: Path) -> Any:
        """Parse the value that a configuration file has; several are a list.

        Args:
            value: a text; or a number, if the text is one; or true or false for a flag.
            folder: the folder of the file, in which a path begins.

        Raises:
            ValueError: the value is invalid.
            StartError: a file that it names can't be used.
        """
        values = value if self.many and isinstance(value, list) else [value]
        for each in values:
            if type(each) not in self.types_in_file:
                form = "a text" if self.metavar else "true or false"
                raise ValueError(f"Invalid value {each!r}: use {form}.")
        return self._parse_all([str(each) for each in values], folder)

    def _parse_all(self, texts: Sequence[str], folder: Path = Path()) -> Any:
        if self.metavar in ("FILE", "DIR"):
            if "" in texts:  # it would be the present folder
                raise ValueError(f"Invalid path '': use that of a {_PATHS[self.metavar]}.")
            texts = [str(folder / text) for text in texts]
        values = tuple(self.parse(text) for text in texts)
        return values if self.many else values[-1]


def parse_device_id(text: str) -> str:
    """Check the id of a device."""
    # Imported here, as the next one: a command that asks a hub needs none of it.
    from emulator.hub.identities.identity import check_id

    try:
        check_id(text)
    except ArgumentInvalid as error:
        raise ValueError(f"{error.text}.") from None
    return text


def parse_host(text: str) -> str:
    """Check a host name or an address."""
    from emulator.net import certificates

    try:
        certificates.local_names("localhost", (text,))
    except certificates.CertificateError as error:
        raise ValueError(str(error)) from None
    return text


def parse_port(text: str) -> int:
    """Parse a port."""
    if not text.isascii() or not text.isdigit() or int(text) > LAST_PORT:
        raise ValueError(f"Invalid port {text!r}: use a number from 0 to {LAST_PORT}.")
    return int(text)


def flag(text: str) -> bool:
    """Parse a setting that is on or off."""
    if text.lower() not in _ON + _OFF:
        raise ValueError(f"Invalid value {text!r}: use {' or '.join(_ON[:1] + _OFF[:1])}.")
    return text.lower() in _ON


def parse_throttle(text: str) -> str:
    """Check a throttle: a tier, or a rate."""
    Throttles.parse([text])
    return text


def parse_partitions(text: str) -> int:
    """Parse a number of partitions."""
    allowed = limits.EVENT_LOG_PARTITIONS_ALLOWED
    if not text.isascii() or not text.isdigit() or int(text[:9]) not in allowed:
        raise ValueError(
            f"Invalid number of partitions {text!r}: use {allowed.start} to {allowed.stop - 1}."
        )
    return int(text)


def parse_seconds(text: str) -> float:
    """Parse a time; return seconds."""
    seconds = parse_tolerance(text)
    if not seconds:
        raise ValueError(f"Invalid time {text!r}: use more than 0.")
    return seconds


def parse_tolerance(text: str) -> float:
    """Parse a time that can be 0s; return seconds."""
    found = re.fullmatch(r"(\d{1,9})(s|m|h|d)", text, re.ASCII)
    if found is None:
        raise ValueError(f"Invalid time {text!r}: use a number and a unit, such as 90s, 12h or 7d.")
    return float(int(found[1]) * _TIME_UNITS[found[2]])


def parse_log_size(text: str) -> str:
    """Check a bound of the event log."""
    log_bound(text)
    return text


def log_bound(text: str) -> tuple[str, int]:
    """Return which bound of the event log a text is, and its value."""
    found = re.fullmatch(r"(\d{1,12})(KB|MB|GB)?", text, re.ASCII)
    if found is not None and not int(found[1]):
        raise ValueError(f"Invalid size of the event log {text!r}: use more than 0.")
    if found is None:
        raise ValueError(
            f"Invalid size of the event log {text!r}: use a number of events, such as 50000, or a "
            "size in memory, such as 256MB."
        )
    if found[2] is None:
        return "events", int(found[1])
    return "size", int(found[1]) * _SIZE_UNITS[found[2]]


def parse_consumer_group(text: str) -> str:
    """Check the name of a consumer group."""
    if not _CONSUMER_GROUP.fullmatch(text):
        raise ValueError(
            f"Invalid consumer group {text!r}: use letters, digits, '.', '-' and '_', at most "
            f"{limits.CONSUMER_GROUP_LENGTH}; a letter or digit is first."
        )
    return text


def parse_events(text: str) -> str:
    """Check kinds of events."""
    for source in text.split(","):
        if source not in (*SOURCES, ALL_EVENTS):
            raise ValueError(
                f"Invalid kind of events {source!r}: use {', '.join(SOURCES)} or {ALL_EVENTS}."
            )
    return text


def parse_entra(text: str) -> str:
    """Check how bearer tokens are treated."""
    if text != ACCEPT:
        raise ValueError(f"Invalid value {text!r}: use {ACCEPT}.")
    return text


def read_keys(text: str) -> Mapping[str, str]:
    """Read a file of keys.

    Raises:
        StartError: it can't be read, or has an invalid key.
    """
    file = Path(text)
    try:
        content = files.read_named(file, limits.CONFIG_FILE_BYTES, any_kind=True)
        keys = json.loads(content.decode())
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
