"""Reads a configuration file: JSON or TOML, its settings, and its content."""

from __future__ import annotations

import base64
import json
import math
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import date, time
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from emulator.config.content import ENTRIES, Content, DeviceEntry, IdentityEntry
from emulator.config.mistakes import ConfigError, Mistake, convert, shown, unknown
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import DEFAULT_RIGHTS, PROVISIONING_RIGHTS, Right
from emulator.hub.core import limits
from emulator.hub.core.errors import HubError
from emulator.hub.core.json import JsonObject, check_writable, loads
from emulator.hub.faults.fault import Fault
from emulator.net import files

# Editors find the schema of a JSON file by this member.
SCHEMA = "$schema"


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file that has been read.

    Args:
        path: the file.
        settings: the values of its settings, by the names of the fields of `Settings`.
        content: what it says of a hub's content.
    """

    path: Path
    settings: Mapping[str, Any]
    content: Content

    @cached_property
    def device_ids(self) -> tuple[str, ...]:
        """The devices of the file."""
        return tuple(each.id for each in self.content.devices)

    @cached_property
    def rights(self) -> Mapping[str, Right]:
        """The rights of the policies for which the file names them."""
        named = ((each.name, each.right) for each in self.content.policies)
        return {name: right for name, right in named if right is not None}

    @cached_property
    def policy_keys(self) -> Mapping[str, SymmetricKeys]:
        """The keys of the policies for which the file has them."""
        named = ((each.name, each.keys) for each in self.content.policies)
        return {name: keys for name, keys in named if keys is not None}


# Parses the value of a setting in a file in some folder; it raises ValueError.
ParseSetting = Callable[[str, object, Path], tuple[str, Any]]


def read(path: Path, keys: Collection[str], parse_setting: ParseSetting) -> ConfigFile:
    """Read a configuration file.

    Args:
        path: the file.
        keys: the keys of all settings.
        parse_setting: returns the name of a setting's field and its value, from its key, its value
            in the file, and the folder of the file.

    Raises:
        ConfigError: the file can't be read, or has mistakes.
    """
    document = load(path)
    mistakes: list[Mistake] = []
    settings = {}
    for key in [each for each in document if each in keys]:
        try:
            name, value = parse_setting(key, document.pop(key), path.parent)
        except ValueError as error:
            mistakes.append(Mistake(key, str(error)))
        else:
            settings[name] = value
    content = _content(document, [*ENTRIES, *keys], mistakes)
    if mistakes:
        raise ConfigError(mistakes, path)
    return ConfigFile(path, settings, content)


def parse(document: object) -> Content:
    """Parse the content of a file that came in a request: a document without settings.

    Raises:
        ConfigError: it has mistakes.
    """
    mistakes: list[Mistake] = []
    if not isinstance(document, dict):
        raise ConfigError([Mistake("", f"Invalid value {shown(document)}: use an object.")])
    content = _content(dict(document), ENTRIES, mistakes)
    if mistakes:
        raise ConfigError(mistakes)
    return content


def load(path: Path) -> JsonObject:
    """Return the document in a file.

    Raises:
        ConfigError: the file can't be read, or is neither JSON nor TOML.
    """

    def wrong(text: str) -> ConfigError:
        return ConfigError([Mistake("", text)], path)

    suffix = path.suffix.lower()
    if suffix not in (".json", ".toml"):
        raise wrong(f"Unknown kind of file {path.suffix!r}: use .json or .toml.")
    try:
        text = files.read_named(path, limits.CONFIG_FILE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise wrong(f"Can't read the file: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise wrong("Can't read the file: it is not UTF-8. Save it as UTF-8.") from None
    mistakes: list[Mistake] = []
    try:
        if suffix == ".json":
            document = loads(text)
            json.loads(text, object_pairs_hook=partial(_check_members, mistakes))
        else:
            document = _as_json(tomllib.loads(text), "", mistakes)
            if not mistakes:
                check_writable(document)
    except RecursionError:
        raise wrong(f"Not {suffix[1:].upper()}: it nests too deep.") from None
    except ValueError as error:
        raise wrong(f"Not {suffix[1:].upper()}: {error}.") from None
    if not isinstance(document, dict):
        raise wrong(f"Invalid value {shown(document)}: use an object.")
    _read_certificates(document, path.parent, mistakes)
    if mistakes:
        raise ConfigError(mistakes, path)
    return document


def _read_certificates(document: JsonObject, folder: Path, mistakes: list[Mistake]) -> None:
    """Put the content of each certificate's file in the place of its path."""
    entries = document.get("certificates")
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str) or "certificate" in entry:
            continue  # noted later
        try:
            content = files.read_named(folder / path, limits.CERTIFICATES_FILE_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            text = f"Can't read {shown(path)}: {reason}. Use a file with a certificate."
            mistakes.append(Mistake(f"certificates[{number}].path", text))
        else:
            del entry["path"]
            entry["certificate"] = base64.b64encode(content).decode()


def _check_members(mistakes: list[Mistake], members: list[tuple[str, object]]) -> None:
    """Note each member of an object of JSON that is there twice; TOML refuses it."""
    for name, count in Counter(name for name, _ in members).items():
        if count > 1:
            text = f"The member {shown(name)} is there {count} times in one object. Use it once."
            mistakes.append(Mistake("", text))


def _as_json(value: Any, place: str, mistakes: list[Mistake]) -> Any:
    """Return a value of TOML as `loads` reads it from JSON.

    Noted is what JSON does not have: a date, a time, an infinite number.
    """
    if isinstance(value, dict):
        start = f"{place}." if place else ""
        return {name: _as_json(each, start + name, mistakes) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each, f"{place}[{number}]", mistakes) for number, each in enumerate(value)]
    if isinstance(value, date | time):
        text = f"Invalid value {value.isoformat()}: write it in quotes, as a text."
        mistakes.append(Mistake(place, text))
    elif type(value) is float and not math.isfinite(value):
        mistakes.append(Mistake(place, f"Invalid value {value}: use a finite number."))
    elif type(value) is int:
        return loads(str(value))  # a number of many digits keeps its text
    return value


def _content(document: JsonObject, known: Collection[str], mistakes: list[Mistake]) -> Content:
    """Convert the lists of a document entry by entry, so that each wrong one is noted."""
    document.pop(SCHEMA, None)
    entries: dict[str, tuple[Any, ...]] = {}
    for name, value in document.items():
        if name not in ENTRIES:
            mistakes.append(Mistake("", unknown(name, known)))
        elif not isinstance(value, list):
            mistakes.append(Mistake(name, f"Invalid value {shown(value)}: use a list."))
        else:
            entries[name] = tuple(
                convert(each, ENTRIES[name], f"{name}[{number}]", mistakes)
                for number, each in enumerate(value)
            )
    if mistakes:  # then an entry can be missing
        return Content()
    content = Content(**entries)
    _check_policies(content, mistakes)
    _check_names("policies", "name", [each.name for each in content.policies], mistakes)
    _check_names("devices", "id", [each.id for each in content.devices], mistakes)
    for number, device in enumerate(content.devices):
        _check_modules(f"devices[{number}].modules", device, mistakes)
    for place, _, entry in content.identities():
        _check_credentials(place, entry, mistakes)
    _check_certificates(content, mistakes)
    for number, fault in enumerate(content.faults):
        try:
            Fault.parse(fault)
        except HubError as error:
            mistakes.append(Mistake(f"faults[{number}]", f"{error.text}."))
    ids = [each.id for each in content.configurations]
    _check_names("configurations", "id", ids, mistakes)
    return content


def _check_policies(content: Content, mistakes: list[Mistake]) -> None:
    for number, policy in enumerate(content.policies):
        try:
            _ = policy.keys
        except HubError as error:
            text = f"{error.text}. Use 16 to 64 bytes in base64."
            mistakes.append(Mistake(f"policies[{number}]", text))
        known = policy.name in DEFAULT_RIGHTS or policy.name in PROVISIONING_RIGHTS
        if policy.right is None and not known:
            text = f"The new policy {shown(policy.name)} has no rights. Add 'rights'."
            mistakes.append(Mistake(f"policies[{number}]", text))


def _check_certificates(content: Content, mistakes: list[Mistake]) -> None:
    for number, each in enumerate(content.certificates):
        if each.certificate and not each.path:
            continue
        text = "Use either 'certificate' or, in a file, 'path'."
        mistakes.append(Mistake(f"certificates[{number}]", text))
    names = [each.name.lower() for each in content.certificates]
    _check_names("certificates", "name", names, mistakes)


def _check_credentials(place: str, entry: IdentityEntry, mistakes: list[Mistake]) -> None:
    """Note credentials that an identity of this kind would not use."""
    has_key, has_thumbprint = bool(entry.primary_key or entry.secondary_key), entry.thumbprints
    kind = entry.authentication or ("selfSigned" if has_thumbprint else "sas")
    if has_key and kind != "sas":
        text = f"The authentication {kind} has no keys. Remove the keys, or use sas."
        mistakes.append(Mistake(place, text))
    if has_thumbprint and kind != "selfSigned":
        text = f"The authentication {kind} has no thumbprints. Remove them, or use selfSigned."
        mistakes.append(Mistake(place, text))


def _check_modules(place: str, device: DeviceEntry, mistakes: list[Mistake]) -> None:
    _check_names(place, "id", [each.id for each in device.modules], mistakes)


def _check_names(place: str, member: str, names: list[str], mistakes: list[Mistake]) -> None:
    """Note each name that stands twice."""
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        seen[name] += 1
        if name and seen[name] == 2:
            first = f"{place}[{names.index(name)}]"
            text = f"{shown(name)} is also the {member} of {first}. Remove one of them."
            mistakes.append(Mistake(f"{place}[{number}].{member}", text))
