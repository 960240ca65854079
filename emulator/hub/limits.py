"""Every quota and size limit, once, with its source."""

from __future__ import annotations

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
