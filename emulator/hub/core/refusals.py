"""The log of refusals: what the hub refuses, with the reason that the client does not get.

It is a logger of its own, because the command shows it also where it shows warnings only.
"""

from __future__ import annotations

import logging

refusals = logging.getLogger("emulator.refusals")
