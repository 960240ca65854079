"""The content of a configuration: the desired properties that it writes.

Content for devices or modules is a merge patch: members that it does not name stay, and a null
removes one. Content for the modules of IoT Edge devices replaces the values at its paths: this
removes the modules that a new deployment does not name (IoT Hub docs: automatic device management;
IoT Edge docs: deployments).
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeviceModelMaxPropertiesExceeded,
    InvalidConfigurationContent,
)
from emulator.hub.core.json import UNDEFINED, JsonObject, dumps, equal
from emulator.hub.core.members import Form
from emulator.hub.core.slices import at_once
from emulator.hub.core.times import NEVER
from emulator.hub.identities.identity import IdentityKey, check_id
from emulator.hub.twins import twin as twins
from emulator.hub.twins import writes

AGENT = "$edgeAgent"
_HUB = "$edgeHub"
_DESIRED = "properties.desired"
# The start of the text is a real hub's, which does not name the mistake.
_INVALID = "The content provided for configuration is invalid. Please check and try again"


_BYTES_PER_STEP = 20
# How many characters of a path an error repeats.
_SHOWN = 200


class Kind(enum.Enum):
    """The target of a configuration; the value is the member of its content that names it."""

    DEVICE = "deviceContent"
    MODULE = "moduleContent"
    EDGE = "modulesContent"


CONTENT = Form(*(kind.value for kind in Kind))


class Setting(NamedTuple):
    """One member of content: `"properties.desired.a.b": value` has the path `("a", "b")`."""

    path: tuple[str, ...]
    value: Any


Settings = tuple[Setting, ...]


class Content(Struct, frozen=True):
    """The content of a configuration.

    Args:
        given: the content as the service sent it.
        settings: the same, by module id; by None for the twin of the target itself.
    """

    kind: Kind
    given: JsonObject
    settings: Mapping[str | None, Settings]

    @classmethod
    def parse(cls, value: object) -> Content:
        """Parse the `content` member of a request; members of other names are ignored.

        Raises:
            InvalidConfigurationContent: its form is invalid, or no twin could hold it.
        """
        return at_once(cls.parsing(value))

    @classmethod
    def parsing(cls, value: object) -> Generator[None, None, Content]:
        """Do the same module by module, as a part of long work."""
        members = CONTENT.read(_object(value, "content"))
        kinds = [kind for kind in Kind if members.get(kind.value) is not None]
        if len(kinds) != 1:
            names = ", ".join(kind.value for kind in Kind)
            raise _invalid(f"it must have one of {names}")
        kind = kinds[0]
        given = _object(members[kind.value], kind.value)
        if (size := len(dumps(given))) > limits.CONFIGURATION_BYTES:
            raise _invalid(f"it has {size} bytes. {limits.CONFIGURATION_BYTES} are allowed")
        if kind is Kind.EDGE:
            _check_modules(given)
        for name, part in given.items() if kind is Kind.EDGE else [(kind.value, given)]:
            if len(dumps(part)) > limits.CONFIGURATION_CONTENT_BYTES:
                raise _invalid(f"{name} has more than {limits.CONFIGURATION_CONTENT_BYTES} bytes")
        if kind is Kind.EDGE:
            settings: dict[str | None, Settings] = {
                name: _settings(module, name) for name, module in given.items()
            }
        else:
            settings = {None: _settings(given, kind.value)}
        for each in settings.values():
            yield
            _check_twin(patch_of([each]) if kind is not Kind.EDGE else replaced({}, each))
        return cls(kind, given, settings)

    def document(self) -> JsonObject:
        """Return it as a service sees it."""
        return {self.kind.value: self.given}

    @property
    def steps(self) -> int:
        """What it costs to compare it with a twin, in steps as those of a query."""
        return len(dumps(self.given)) // _BYTES_PER_STEP

    @property
    def is_base(self) -> bool:
        """Whether a deployment is a base; any other one is a layer over a base.

        A base has the whole of `$edgeAgent`, a layer names paths in it (IoT Edge docs).
        """
        return any(not path for path, _ in self.settings.get(AGENT, ()))


# --- for devices and modules


def patch_of(contents: Iterable[Settings]) -> JsonObject:
    """Return one merge patch for several contents; a later content wins.

    If several contents name one path, the last one counts (IoT Hub docs). A path within another
    path is merged into it. A value that the other contents override completely is removed, so that
    the order in which they were created makes no difference.
    """
    made = [setting for settings in contents for setting in settings]
    by_path: dict[tuple[str, ...], Any] = {}
    for path, value in made:
        by_path.pop(path, None)  # so that it comes last
        by_path[path] = value
    patch = _overlaid(by_path.items())
    for setting in made:
        _clear(patch, _overlaid([setting]))
    return patch


def missing(values: JsonObject, patch: JsonObject, *, whole: bool = False) -> JsonObject:
    """Return the part of a merge patch that would change these values.

    Args:
        values: the values.
        patch: the patch.
        whole: whether the patch also removes the values that it does not name.
    """
    result: JsonObject = {name: None for name in values if whole and name not in patch}
    for name, value in patch.items():
        present = values.get(name, UNDEFINED)
        if isinstance(value, dict) and isinstance(present, dict):
            below = missing(present, value, whole=whole)
            if below:
                result[name] = below
        elif present is not UNDEFINED if value is None else not equal(present, value):
            result[name] = value
    return result


def kept(patch: JsonObject, whole: JsonObject) -> JsonObject:
    """Return the part of a merge patch that is left in a whole one which includes it."""
    result: JsonObject = {}
    for name, value in patch.items():
        there = whole.get(name, UNDEFINED)
        if isinstance(value, dict) and isinstance(there, dict):
            below = kept(value, there)
            if below or not value:
                result[name] = below
        elif equal(there, value):
            result[name] = value
    return result


def _overlaid(settings: Iterable[tuple[tuple[str, ...], Any]]) -> JsonObject:
    patch: JsonObject = {}
    for path, value in settings:
        for name in reversed(path):
            value = {name: value}
        _overlay(patch, value)
    return patch


def _overlay(patch: JsonObject, over: JsonObject) -> None:
    """Merge another patch into a patch; unlike in a document, a null stays."""
    for name, value in over.items():
        if isinstance(value, dict):
            if not isinstance(patch.get(name), dict):
                patch[name] = {}
            _overlay(patch[name], value)
        else:
            patch[name] = value


def _clear(patch: JsonObject, part: JsonObject) -> None:
    """Let a merge patch also remove the members of a part which it lacks."""
    for name, value in part.items():
        there = patch.setdefault(name, None)
        if isinstance(value, dict) and isinstance(there, dict):
            _clear(there, value)


# --- for the modules of IoT Edge devices


def replaced(values: JsonObject, settings: Iterable[Setting]) -> JsonObject:
    """Replace the value at the path of each setting, one after the other."""
    result: JsonObject = _without_nulls(values)
    for path, value in settings:
        if not path:
            result = _without_nulls(value)
            continue
        at = result
        for name in path[:-1]:
            if not isinstance(at.get(name), dict):
                at[name] = {}
            at = at[name]
        if value is None:
            at.pop(path[-1], None)
        else:
            at[path[-1]] = _without_nulls(value)
    return result


def _without_nulls(value: Any) -> Any:
    """Leave out nulls in objects, which a twin cannot hold."""
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(each) for name, each in value.items() if each is not None}


# --- parsing


def _settings(given: JsonObject, where: str) -> Settings:
    return tuple(Setting(_path(name, value, where), value) for name, value in given.items())


def _path(name: str, value: object, where: str) -> tuple[str, ...]:
    if name == _DESIRED:
        _object(value, f"{name} of {where}")
        return ()
    start, path = name[: len(_DESIRED) + 1], tuple(name[len(_DESIRED) + 1 :].split("."))
    if start != f"{_DESIRED}." or not all(path) or len(path) > limits.TWIN_DEPTH:
        raise _invalid(
            f"{name[:_SHOWN]} of {where} is not {_DESIRED}, or a path of at most "
            f"{limits.TWIN_DEPTH} names below it"
        )
    return path


def _check_modules(modules: JsonObject) -> None:
    if AGENT not in modules:
        raise _invalid(f"{Kind.EDGE.value} has no {AGENT}")
    for name, module in modules.items():
        _object(module, name)
        if name not in (AGENT, _HUB):
            try:
                check_id(name)
            except ArgumentInvalid as error:
                raise _invalid(error.text) from None
            if name.startswith("$"):
                raise _invalid(f"{name} is not a system module")
    if len(modules.keys() - {AGENT, _HUB}) > limits.CONFIGURATION_MODULES:
        raise _invalid(f"more than {limits.CONFIGURATION_MODULES} modules")


def _check_twin(desired: JsonObject) -> None:
    """Refuse what a twin refuses. When a real hub does so is unknown; here it is at once."""
    empty = twins.create(IdentityKey("content"), NEVER)
    try:
        writes.patch(empty, {"properties": {"desired": desired}}, NEVER)
    except (ArgumentInvalid, DeviceModelMaxPropertiesExceeded) as error:
        raise _invalid(error.text) from None


def _object(value: object, what: str) -> JsonObject:
    if not isinstance(value, dict):
        raise _invalid(f"{what} is not an object")
    return value


def _invalid(why: str) -> InvalidConfigurationContent:
    return InvalidConfigurationContent(f"{_INVALID}: {why}")
