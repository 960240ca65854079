"""The values of settings as JSON has them, and their fingerprints.

The file of a running hub has the fingerprints: a command sees which settings of a configuration
file the hub does not have, and no key is written down for that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.settings import Settings, table

if TYPE_CHECKING:
    from emulator.config.file import ConfigFile

POLICIES = "policies"
"""What a running hub can't change, beside settings."""

_MASK = "***"
_LENGTH = 16  # characters of a fingerprint


def document(value: object, *, shows_keys: bool) -> Any:
    """Return the value of a setting as JSON has it."""
    if isinstance(value, Mapping):  # of keys
        return {name: key if shows_keys else _MASK for name, key in value.items()}
    if isinstance(value, tuple):
        return [document(each, shows_keys=shows_keys) for each in value]
    return str(value) if isinstance(value, Path) else value


def of_hub(settings: Settings) -> dict[str, list[str]]:
    """Return the fingerprints of a hub: of each value in effect, and of that in its file.

    They differ where an option has priority over the file.
    """
    of_its_file = of_file(settings.config)
    in_effect = {
        setting.key: _fingerprint(getattr(settings, name)) for name, setting in table().items()
    }
    return {key: [each, in_effect.get(key, each)] for key, each in of_its_file.items()}


def of_file(config: ConfigFile | None) -> dict[str, str]:
    """Return the fingerprints of what a file says; of the default, where it says nothing."""
    own, default = ({} if config is None else config.settings), Settings()
    found = {
        setting.key: _fingerprint(own[name] if name in own else getattr(default, name))
        for name, setting in table().items()
        if name != "config"
    }
    policies = () if config is None else config.content.policies
    return {**found, POLICIES: _fingerprint(tuple(each.members() for each in policies))}


def _fingerprint(value: object) -> str:
    text = json.dumps(document(value, shows_keys=True), sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:_LENGTH]
