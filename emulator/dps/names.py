"""The names of the service that its owner and its devices need."""

from __future__ import annotations

import re

from emulator.hub.access.policies import PROVISIONING_RIGHTS

# The form is that of Azure: `0ne` and eight hexadecimal digits. It is the same everywhere, so it
# can stand in a README or a test.
ID_SCOPE = "0ne00010CA1"

# The policy of a new service. It has every right.
(POLICY,) = PROVISIONING_RIGHTS

# The address of the links of a device, and its user name in SASL (SDKs for C# and Node).
ADDRESS = re.compile(r"/?(?P<scope>[^/]+)/registrations/(?P<id>[^/]+)/?")

# The mechanism of SASL of a device with a TPM (SDKs).
TPM_MECHANISM = "TPM"
