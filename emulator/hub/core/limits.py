"""Every quota and size limit, once, with its source."""

from __future__ import annotations

from collections.abc import Mapping

# Ours: long work has its turn on the event loop for this time, then other work has.
SLICE_SECONDS = 0.005

# Ours: busy connections work for this time in each turn of the event loop, all together.
TURN_SECONDS = 0.000_2

# Identities (IoT Hub docs: identity registry).
ID_LENGTH = 128
STATUS_REASON_LENGTH = 128
MANAGED_BY_LENGTH = 128  # ours
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
TWIN_NUMBER_LENGTH = 24  # the longest text of a double in .NET; a longer number counts in full
# Ours: the documented size counts no punctuation, no empty values and no control characters, so it
# bounds no memory. These are bounds of JSON text, as multiples of the limit of a section.
TWIN_TEXT_FACTOR = 4  # of a section: the usual text has less than twice its documented size
TWIN_PATCH_FACTOR = 16  # of a patch: the removal of a member can have ten times the member's size
TWIN_INTEGER_MIN = -4503599627370496
TWIN_INTEGER_MAX = 4503599627370495

# Digital twins. Ours: each operation of a patch copies the desired properties.
DIGITAL_TWIN_OPERATIONS = 1_000

# Direct methods (IoT Hub docs: direct methods; the name's length from EdgeHub).
METHOD_NAME_LENGTH = 100
METHOD_PAYLOAD_BYTES = 128 * 1024
METHOD_RESPONSE_TIMEOUT = range(5, 301)
METHOD_RESPONSE_TIMEOUT_DEFAULT = 30
METHOD_CONNECT_TIMEOUT = range(301)
# Ours: the number of a real hub is unknown.
METHODS_IN_FLIGHT_PER_DEVICE = 1_000
# Ours: the memory of all calls of a hub that wait for a device or for its response. A call takes
# its payload and this much; the rest is its task and its connection.
METHODS_IN_FLIGHT_BYTES = 64 * 1024 * 1024
METHOD_CALL_BYTES = 4 * 1024
# Ours: how many of the latest calls are kept for tests, and their memory.
METHOD_CALLS_KEPT = 1_000
METHOD_CALLS_BYTES = 16 * 1024 * 1024

# Ours: how long a test waits, in real seconds, and what it can choose.
WAIT_SECONDS_DEFAULT = 10.0
WAIT_SECONDS = 600.0

# Bulk calls on the registry (swagger of the service API).
BULK_ITEMS = 100

# Queries (IoT Hub docs: query language).
QUERY_TEXT_LENGTH = 8192
QUERY_PAGE = 100
QUERY_DEPTH = 100  # nested brackets and operators; ours: the number of a real hub is unknown
# Ours: what a query can cost. A step takes about 0.3 µs.
QUERY_ROW_STEPS = 20_000  # for one row
QUERY_STEPS = 5_000_000  # for one page: 5 for each device of the largest hub
QUERY_CELLS = 100_000  # groups times members of a group
QUERY_PAGE_BYTES = 4 * 1024 * 1024  # a page with more has fewer rows
QUERY_ANSWERS_HELD = 8  # aggregations whose next page may follow
QUERY_ANSWER_BYTES = 16 * 1024 * 1024  # of an aggregation

# Jobs (IoT Hub docs: jobs; the start, and the characters of an id, as seen on a real hub).
JOB_ID_LENGTH = 64
JOB_START_AHEAD = 168 * 60 * 60  # seconds
JOB_HISTORY = 30 * 24 * 60 * 60  # seconds
JOB_EXECUTION_TIME = range(1, 2**31)  # seconds; the end is ours: the maximum of a timer
# Ours: a payload of a method, or a whole twin, which a service can send back.
JOB_CONTENT_BYTES = 256 * 1024
JOB_EXECUTION_TIME_DEFAULT = 60 * 60  # seconds; as in samples, the service's own is unknown
# Ours.
JOB_METHODS_AT_ONCE = 100
JOB_SLICE = 20  # devices in one commit
JOBS_ACTIVE = 10  # without throttles: the number of the largest hub
JOBS_ACTIVE_BY_TIER: Mapping[str, int] = {"S1": 1, "S2": 5, "S3": 10}

# Import and export jobs (Azure Storage docs: the name of a blob; IoT Edge docs: the layers). The
# rest is ours: the hub holds a file in memory and parses it line by line.
BLOB_NAME_LENGTH = 1024
EDGE_LAYERS = 5
TRANSFER_BLOB_BYTES = 256 * 1024 * 1024
IMPORT_LINE_BYTES = 1024 * 1024

# The blobs of uploads (Azure Storage docs: scalability targets, Put Blob, Put Block, Put Block
# List): of versions from 2019-12-12 on.
UPLOAD_BLOB_BYTES = 5_000 * 1024 * 1024  # in one request
UPLOAD_BLOCK_BYTES = 4_000 * 1024 * 1024
UPLOAD_BLOCKS = 50_000  # of one blob
UPLOAD_UNCOMMITTED_BLOCKS = 100_000
UPLOAD_BLOCK_ID_BYTES = 64
UPLOAD_BLOCK_LIFE = 7 * 24 * 60 * 60  # seconds after the latest block, if they are not committed
UPLOAD_METADATA_BYTES = 8 * 1024
# Ours: a block list of this many ids at their longest.
UPLOAD_BLOCK_LIST_BYTES = 8 * 1024 * 1024

# Configurations (IoT Hub docs: quotas and throttling).
CONFIGURATIONS_PER_HUB = 100
CONFIGURATION_ID_LENGTH = 128
CONFIGURATION_PRIORITY = range(2**31)  # an int in the SDKs; the service's own limit is unknown
CONFIGURATION_METRICS = 5  # custom metrics (IoT Hub docs: automatic device management)
CONFIGURATION_MODULES = 20  # of one deployment, without `$edgeAgent` and `$edgeHub`
# Ours: bounds of JSON text. A device, or a module, can have as much content as its desired
# properties; the rest has room for 5 metrics, a target condition and labels.
CONFIGURATION_CONTENT_BYTES = TWIN_TEXT_FACTOR * TWIN_DESIRED_BYTES
CONFIGURATION_OTHER_BYTES = 64 * 1024
# Ours: the twins of the modules of one deployment, with all their desired properties.
CONFIGURATION_BYTES = 1024 * 1024
# Ours: what all configurations of a hub can cost for one twin, in steps as those of a query. Each
# change of a twin takes this time.
CONFIGURATION_STEPS = 50_000

# Messages (IoT Hub docs: quotas and throttling, create and read messages).
D2C_MESSAGE_BYTES = 256 * 1024
C2D_MESSAGE_BYTES = 64 * 1024
MESSAGE_ID_LENGTH = 128  # also of a correlation id

# Cloud-to-device messages and their feedback (IoT Hub docs: cloud-to-device messages): the default
# values of a hub. Times are in seconds.
C2D_QUEUE_DEPTH = 50
# Ours: all these messages at their largest, in memory.
C2D_QUEUE_BYTES = 4 * 1024 * 1024
C2D_TIME_TO_LIVE = 60 * 60
C2D_TIME_TO_LIVE_MAX = 2 * 24 * 60 * 60
C2D_LOCK = 60
C2D_DELIVERIES = 10
FEEDBACK_BATCH_RECORDS = 64
FEEDBACK_BATCH_WAIT = 15
FEEDBACK_TIME_TO_LIVE = 60 * 60
FEEDBACK_LOCK = 60
# Ours: above this number, the hub deletes the oldest batches.
FEEDBACK_BATCHES = 1_000
FEEDBACK_DELIVERIES = 10

# File uploads (IoT Hub docs: upload files, quotas and throttling; Azure Storage docs: the name of a
# blob), with the default values of a hub. Times are in seconds.
UPLOADS_PER_DEVICE = 10  # active at a time
UPLOAD_TIME_TO_LIVE = 60 * 60
BLOB_NAME_SEGMENTS = 254
FILE_NOTIFICATION_TIME_TO_LIVE = 60 * 60
FILE_NOTIFICATION_LOCK = 60
FILE_NOTIFICATION_DELIVERIES = 10
# Ours: above this number, the hub deletes the oldest notifications.
FILE_NOTIFICATIONS = 1_000
UPLOADS_KEPT = 1_000  # ours: how many of the latest reported uploads are kept for tests

# The event log (IoT Hub docs: read device-to-cloud messages). A real hub keeps all events of the
# retention time; ours keeps them within a number and a size.
EVENT_LOG_PARTITIONS = 4  # of a new hub
EVENT_LOG_PARTITIONS_ALLOWED = range(1, 129)  # a real hub has at least 2
EVENT_LOG_RETENTION = 24 * 60 * 60  # seconds, of a new hub
EVENT_LOG_EVENTS = 10_000
EVENT_LOG_BYTES = 64 * 1024 * 1024  # of memory
# Readers of a partition in one consumer group, without an owner level (Event Hubs docs: quotas).
EVENT_READERS = 5
CONSUMER_GROUPS = 20  # of a hub (IoT Hub docs: quotas), with `$Default`
CONSUMER_GROUP_LENGTH = 50

# MQTT (IoT Hub docs: MQTT support, direct methods).
MQTT_SUBSCRIPTIONS = 5
MQTT_KEEP_ALIVE_MAX = 1767  # seconds: 1.5 times 1,177, the largest keep-alive that has an effect
# The longest message body and the longest topic: 64 KB (MQTT 3.1.1, 1.5.3).
MQTT_PACKET_BYTES = D2C_MESSAGE_BYTES + 64 * 1024
# Ours: a SUBSCRIBE or UNSUBSCRIBE of every topic of a hub has five. Their decoding is slow.
MQTT_FILTERS = 1_000
# Ours: a TLS handshake on one machine takes milliseconds, and a slow one holds an open file.
TLS_HANDSHAKE_TIMEOUT = 10  # seconds
# Ours: a client that has not connected may send this much, with its will.
MQTT_CONNECT_BYTES = 32 * 1024
# EdgeHub's: for a client that opens a connection and never sends its CONNECT.
MQTT_CONNECT_TIMEOUT = 60  # seconds
# Ours: if more bytes than this wait for a device that does not read, its connection is closed.
MQTT_WRITE_BUFFER_BYTES = 1024 * 1024

# AMQP. Ours: the longest encoded message of a device; above it, its link ends. A message between
# the documented limit and this one is rejected.
AMQP_MESSAGE_BYTES = 1024 * 1024

# Certificates of CAs (IoT Hub docs: quotas and throttling). Ours: how long one is, as text.
AUTHORITIES = 25
AUTHORITY_CHARACTERS = 32 * 1024

# Files of the user. Ours: a configuration of 100,000 devices with small twins; and of certificates.
CONFIG_FILE_BYTES = 32 * 1024 * 1024
CERTIFICATES_FILE_BYTES = 1024 * 1024

# HTTP. Ours: the largest body of the service API is a bulk call.
HTTP_BODY_BYTES = 4 * 1024 * 1024
# Ours: a snapshot of 1,000,000 devices.
SNAPSHOT_BYTES = 1024**3
# Ours: a request without its body. A real hub's front end, HTTP.sys, has 16 KB by default, and the
# same time for a connection without a complete request.
HTTP_HEAD_BYTES = 64 * 1024
HTTP_REQUEST_TIMEOUT = 120  # seconds
# Of its first line. A character in the name of a blob has up to 12 bytes, escaped.
HTTP_LINE_BYTES = 16 * 1024

# Throttles: by tier, the operations and the seconds in which a hub of one unit allows them (IoT Hub
# docs: quotas and throttling). They are off by default. The docs count direct methods in KB per
# second (160, 480, 24 * 1024), in steps of 4 KB; the hub counts these steps.
THROTTLE_METER_BYTES = 4 * 1024
THROTTLES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "connections": {"S1": (100, 1), "S2": (120, 1), "S3": (6_000, 1)},
    "registry": {"S1": (100, 60), "S2": (100, 60), "S3": (5_000, 60)},
    "d2c-sends": {"S1": (100, 1), "S2": (120, 1), "S3": (6_000, 1)},
    "c2d-sends": {"S1": (100, 60), "S2": (100, 60), "S3": (5_000, 60)},
    "c2d-receives": {"S1": (1_000, 60), "S2": (1_000, 60), "S3": (50_000, 60)},
    "upload-starts": {"S1": (100, 60), "S2": (100, 60), "S3": (5_000, 60)},
    "methods": {"S1": (40, 1), "S2": (120, 1), "S3": (6_144, 1)},
    "queries": {"S1": (20, 60), "S2": (20, 60), "S3": (1_000, 60)},
    "twin-reads": {"S1": (100, 1), "S2": (100, 1), "S3": (500, 1)},
    "twin-updates": {"S1": (50, 1), "S2": (50, 1), "S3": (250, 1)},
    "jobs": {"S1": (100, 60), "S2": (100, 60), "S3": (5_000, 60)},
    "job-devices": {"S1": (10, 1), "S2": (10, 1), "S3": (50, 1)},
    "configurations": {"S1": (20, 60), "S2": (20, 60), "S3": (20, 60)},
    # A provisioning service has one tier (DPS docs: quotas and limits).
    "registrations": {"S1": (1_000, 60), "S2": (1_000, 60), "S3": (1_000, 60)},
    "registration-polls": {"S1": (5, 10), "S2": (5, 10), "S3": (5, 10)},  # of one device
    "enrollments": {"S1": (1_000, 60), "S2": (1_000, 60), "S3": (1_000, 60)},
}
