"""A local Azure IoT Hub: unmodified Azure SDK programs run against it, without a subscription."""

from emulator.server import Emulator, StartError
from emulator.settings import Settings

__all__ = ["Emulator", "Settings", "StartError"]
