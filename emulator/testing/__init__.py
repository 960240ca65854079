"""The test kit: what `Emulator` offers to tests, and the plugin for pytest."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from emulator.hub.waits import WaitTimeout
    from emulator.testing.values import Event, MethodAnswer, MethodCall, Upload

__all__ = ["Event", "MethodAnswer", "MethodCall", "Upload", "WaitTimeout"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is: pytest imports the plugin in runs without a hub too."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from emulator.testing import aio

    return getattr(aio, name)
