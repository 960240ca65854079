"""A local Azure IoT Hub: unmodified Azure SDK programs run against it, without a subscription."""

from __future__ import annotations

# Not that of typing: its import takes a part of the time in which Ctrl-C finds no handler.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from emulator.emulator import Emulator
    from emulator.errors import StartError
    from emulator.settings import Settings

__all__ = ["Emulator", "Settings", "StartError"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: the command has something to do before that."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from emulator import emulator

    return getattr(emulator, name)
