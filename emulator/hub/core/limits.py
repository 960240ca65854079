"""Every quota and size limit, once, with its source."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Identities (IoT Hub docs: identity registry).
ID_LENGTH = 128
STATUS_REASON_LENGTH = 128
DEVICES_PER_HUB = 1_000_000
MODULES_PER_DEVICE = 20
LIST_DEVICES = 1_000
KEY_BYTES = range(16, 65)  # decoded; seen on a real hub

# Twins (IoT Hub docs: device twins).
TWIN_TAGS_BYTES = 8 * 1024
TWIN_DESIRED_BYTES = 32 * 1024
TWIN_REPORTED_BYTES = 32 * 1024
TWIN_KEY_BYTES = 1024
TWIN_STRING_BYTES = 4096
TWIN_DEPTH = 10
TWIN_INTEGER_MIN = -4503599627370496
TWIN_INTEGER_MAX = 4503599627370495

# Direct methods (IoT Hub docs: direct methods; the name's length from EdgeHub).
METHOD_NAME_LENGTH = 100
METHOD_PAYLOAD_BYTES = 128 * 1024
METHOD_RESPONSE_TIMEOUT = range(5, 301)
METHOD_RESPONSE_TIMEOUT_DEFAULT = 30
METHOD_CONNECT_TIMEOUT = range(301)
# The number is undocumented: high enough for any test, and still a bound.
METHODS_IN_FLIGHT_PER_DEVICE = 1_000

# Bulk calls on the registry (swagger of the service API).
BULK_ITEMS = 100

# Queries (IoT Hub docs: query language).
QUERY_TEXT_LENGTH = 8192
QUERY_PAGE = 100
QUERY_DEPTH = 100  # ours: of brackets and the like; the service's is not known

# Jobs (IoT Hub docs: jobs; the start, and the characters of an id, as seen on a real hub).
JOB_ID_LENGTH = 64
JOB_START_AHEAD = 168 * 60 * 60  # seconds
JOB_HISTORY = 30 * 24 * 60 * 60  # seconds
JOB_EXECUTION_TIME = range(1, 2**31)  # seconds; the end is ours: what a timer can be set to
JOB_EXECUTION_TIME_DEFAULT = 60 * 60  # seconds; the samples' own, the service's is not known
# Ours: a job is one of many things that the hub does at the time.
JOB_METHODS_AT_ONCE = 100
JOB_SLICE = 100  # the devices that are noted in one step
JOBS_ACTIVE = 10  # where nothing is throttled: as many as the largest hub allows
JOBS_ACTIVE_BY_TIER: Mapping[str, int] = MappingProxyType({"S1": 1, "S2": 5, "S3": 10})

# Import and export jobs. The blob's name is of Azure Storage docs, and how deep IoT Edge devices
# nest of IoT Edge docs; the rest is ours: a file is held in memory, and read line by line.
BLOB_NAME_LENGTH = 1024
EDGE_LAYERS = 5
TRANSFER_BLOB_BYTES = 256 * 1024 * 1024
IMPORT_LINE_BYTES = 1024 * 1024
TRANSFER_SLICE = 50  # lines, before other work has its turn

# Configurations (IoT Hub docs: quotas and throttling).
CONFIGURATIONS_PER_HUB = 100
CONFIGURATION_ID_LENGTH = 128
CONFIGURATION_PRIORITY = range(2**31)  # the SDKs have an int; the service's own is unknown
CONFIGURATION_METRICS = 5  # custom ones (IoT Hub docs: automatic device management)
CONFIGURATION_MODULES = 20  # of one deployment, `$edgeAgent` and `$edgeHub` not counted
# Ours: how many twins are looked at for a configuration before other work has its turn.
CONFIGURATION_SLICE = 50

# Messages (IoT Hub docs: quotas and throttling, create and read messages).
D2C_MESSAGE_BYTES = 256 * 1024
C2D_MESSAGE_BYTES = 64 * 1024
MESSAGE_ID_LENGTH = 128  # also of a correlation id

# Cloud-to-device messages and their feedback (IoT Hub docs: cloud-to-device messages). Where a hub
# can be configured, this is its default. Times are in seconds.
C2D_QUEUE_DEPTH = 50
C2D_TIME_TO_LIVE = 60 * 60
C2D_TIME_TO_LIVE_MAX = 2 * 24 * 60 * 60
C2D_LOCK = 60
C2D_DELIVERIES = 10
FEEDBACK_BATCH_RECORDS = 64
FEEDBACK_BATCH_WAIT = 15
FEEDBACK_TIME_TO_LIVE = 60 * 60
FEEDBACK_LOCK = 60
# Ours: what nobody reads within the hour is bounded all the same; the oldest batches go first.
FEEDBACK_BATCHES = 1_000
FEEDBACK_DELIVERIES = 10

# The event log. A real hub keeps a day of events or more; ours keeps what fits, and a megabyte or
# two of them is what a test looks at.
EVENT_LOG_EVENTS = 10_000
EVENT_LOG_BYTES = 64 * 1024 * 1024

# MQTT (IoT Hub docs: MQTT support, direct methods).
MQTT_SUBSCRIPTIONS = 5
MQTT_KEEP_ALIVE_MAX = 1767  # seconds: 1.5 times 1,177, the largest keep-alive of use
# A topic is 64 KB at most by MQTT itself; with the body's limit this bounds any packet.
MQTT_PACKET_BYTES = D2C_MESSAGE_BYTES + 64 * 1024
# Ours: a SUBSCRIBE or UNSUBSCRIBE for all that a hub knows has 2 KB. Their decoding is slow.
MQTT_FILTERS_BYTES = 8 * 1024
# Ours: a TLS handshake on one machine takes milliseconds, and each that is half done holds a file.
TLS_HANDSHAKE_TIMEOUT = 10  # seconds
# EdgeHub's: a client that opens a connection and never sends its CONNECT.
MQTT_CONNECT_TIMEOUT = 60  # seconds
# Ours: what may wait to be written to one device that doesn't read; above it the connection closes.
MQTT_WRITE_BUFFER_BYTES = 1024 * 1024

# HTTP. The largest body of the service API is a full twin; this leaves room for bulk calls.
HTTP_BODY_BYTES = 4 * 1024 * 1024

# Throttles: the operations in so many seconds that a hub of one unit allows, by its tier (IoT Hub
# docs: quotas and throttling). Off unless they are asked for. Direct methods are metered there in
# KB a second (160, 480, 24 * 1024), in steps of the meter's size, which are what is counted here.
THROTTLE_METER_BYTES = 4 * 1024
THROTTLES: Mapping[str, Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "registry": {"S1": (100, 60), "S2": (100, 60), "S3": (5_000, 60)},
        "d2c-sends": {"S1": (100, 1), "S2": (120, 1), "S3": (6_000, 1)},
        "c2d-sends": {"S1": (100, 60), "S2": (100, 60), "S3": (5_000, 60)},
        "c2d-receives": {"S1": (1_000, 60), "S2": (1_000, 60), "S3": (50_000, 60)},
        "methods": {"S1": (40, 1), "S2": (120, 1), "S3": (6_144, 1)},
        "queries": {"S1": (20, 60), "S2": (20, 60), "S3": (1_000, 60)},
        "twin-reads": {"S1": (100, 1), "S2": (100, 1), "S3": (500, 1)},
        "twin-updates": {"S1": (50, 1), "S2": (50, 1), "S3": (250, 1)},
        "jobs": {"S1": (100, 60), "S2": (100, 60), "S3": (5_000, 60)},
        "configurations": {"S1": (20, 60), "S2": (20, 60), "S3": (20, 60)},
    }
)
