"""The limits of the Device Provisioning Service (DPS docs: quotas and limits)."""

from __future__ import annotations

ENROLLMENTS = 1_000_000
GROUPS_OF_A_KIND = 100  # with symmetric keys; as many with certificates
IOT_HUBS = 50
ENROLLMENT_BYTES = 1024 * 1024  # ours, as JSON: a page of a query has room for the largest one
BULK_ENROLLMENTS = 10  # DPS REST docs: run bulk operation
QUERY_PAGE = 100  # also if a client asks for more (azure-iot-sdk-node#813)
ID_LENGTH = 128

# Of a message from a device (DPS docs: quotas and limits).
MESSAGE_BYTES = 96 * 1024

# Seconds until a device asks again (DPS docs: communicate with DPS using MQTT); ours, for one that
# was refused for the moment.
RETRY_AFTER = 3

# Ours. A webhook answers with the name of a hub, an initial twin and a payload.
WEBHOOK_SECONDS = 10
WEBHOOK_BYTES = 1024 * 1024

# Ours. A chain has a root, a few intermediates and the certificate of the device.
CHAIN_LENGTH = 10
ISSUED_DAYS = 30
