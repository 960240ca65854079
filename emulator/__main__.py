"""`python -m emulator`."""

import sys

from emulator.cli.main import end_on_ctrl_c, main

end_on_ctrl_c()
sys.exit(main())
