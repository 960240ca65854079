"""The names of the service that its owner and its devices need."""

from __future__ import annotations

# The form is that of Azure: `0ne` and eight hexadecimal digits. It is the same everywhere, so it
# can stand in a README or a test.
ID_SCOPE = "0ne00010CA1"

# The policy of a new service. It has every right (DPS docs: control access).
POLICY = "provisioningserviceowner"
