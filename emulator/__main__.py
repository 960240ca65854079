"""`python -m emulator`."""

import gc
import sys

# A start makes nothing that is garbage soon, and looking for some takes a fiftieth of it. The hub
# has its collector when it is ready: see `_collect_garbage` in cli.py.
gc.disable()

from emulator.cli.main import main  # noqa: E402

sys.exit(main())
