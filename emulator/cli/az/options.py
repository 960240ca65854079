"""The options of these commands, each once: its names, its value and its help.

Names and short forms are those of azure-iot-cli-extension (source: _params.py, iothub/params.py).
"""

from __future__ import annotations

import argparse
from typing import Any

from msgspec import Struct

from emulator.cli.az import values
from emulator.cli.parser import encodable, named, named_path


class Option(Struct, frozen=True):
    """An option.

    Args:
        flags: its names, the long one first.
        settings: what `add_argument` of argparse takes.
    """

    flags: tuple[str, ...]
    settings: dict[str, Any]

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add it to a parser; what can be chosen is in its help."""
        settings = self.settings
        if "choices" in settings and settings["help"] != argparse.SUPPRESS:
            settings = {**settings, "help": f"{', '.join(settings['choices'])}: {settings['help']}"}
        parser.add_argument(*self.flags, **settings)

    @property
    def form(self) -> str:
        """How a line of usage shows it, if it must be given."""
        if not self.settings.get("required", self.is_argument):
            return ""
        flag = "" if self.is_argument else f" {self.flags[-1]}"
        return f"{flag} {self.settings['metavar']}"

    @property
    def is_argument(self) -> bool:
        """Whether it is a value without a name: the file of `restore FILE`."""
        return not self.flags[0].startswith("-")

    @property
    def destination(self) -> str:
        """The name of its value."""
        return self.flags[0].lstrip("-").replace("-", "_")

    def but(self, **settings: Any) -> Option:
        """Return this option with other settings."""
        return Option(self.flags, {**self.settings, **settings})


def option(*flags: str, help: str, **settings: Any) -> Option:  # noqa: A002 - argparse's name
    """Describe an option."""
    # Of choices, too: a list of them would fill several lines, so it is in the help.
    settings = {"metavar": flags[0].rpartition("-")[2].upper(), **settings, "help": help}
    if not {"type", "choices"} & settings.keys():
        settings["type"] = encodable if "default" in settings else named
    return Option(flags, settings)


def argument(name: str, **settings: Any) -> Option:
    """Describe a value without a name."""
    return Option((name,), {"metavar": name.upper(), **settings})


def switch(*flags: str, help: str) -> Option:  # noqa: A002
    """Describe an option that is on, or off: `--ee`, `--ee true`, `--ee false`."""
    settings = {"nargs": "?", "const": True, "type": values.flag, "metavar": "true|false"}
    return Option(flags, {"help": help, **settings})


_JSON = {"type": values.json_value, "metavar": "JSON"}
_OBJECT = {"type": values.json_object, "metavar": "JSON"}

# --- of every command
_IGNORED: dict[str, Any] = {"help": argparse.SUPPRESS}
COMMON = (
    option(
        "--output",
        "-o",
        choices=("json", "jsonc", "table", "tsv", "none"),
        default="json",
        help="the form of the output (default: json; jsonc has colours)",
    ),
    option("--query", metavar="JMESPATH", help="a JMESPath query over the output"),
    # Scripts for az name these. Here is one group, one way to authenticate, and nothing to confirm.
    Option(("--resource-group", "-g"), _IGNORED),
    Option(("--auth-type",), {**_IGNORED, "choices": ["key"]}),
    Option(("--only-show-errors",), {**_IGNORED, "action": "store_true"}),
    *(Option(each, {**_IGNORED, "nargs": "?"}) for each in (("--yes", "-y"), ("--repair", "-r"))),
    Option(("--no-progress",), {**_IGNORED, "nargs": "?"}),
)

# --- identities
DEVICE = option("--device-id", "-d", required=True, help="the device")
ANY_DEVICE = option("--device-id", "-d", help="the device")
MODULE = option("--module-id", "-m", required=True, help="the module")
ANY_MODULE = option("--module-id", "-m", help="the module")
ETAG = option(
    *("--etag", "-e"), type=values.etag, help="change it only in this state (default: in any)"
)
EDGE = switch("--edge-enabled", "--ee", help="whether it is an IoT Edge device")
AUTH = option(
    "--auth-method",
    "--am",
    choices=("shared_private_key", "x509_thumbprint", "x509_ca"),
    help="how it authenticates (default: shared_private_key)",
)
KEYS_AND_THUMBPRINTS = (
    option("--primary-key", "--pk", help="the primary key, base64"),
    option("--secondary-key", "--sk", help="the secondary key, base64"),
    option("--primary-thumbprint", "--ptp", help="the primary thumbprint of a certificate"),
    option("--secondary-thumbprint", "--stp", help="the secondary thumbprint"),
)
SELF_SIGNED = (
    option("--output-dir", "--od", type=named_path, help="write a self-signed certificate there"),
    option("--valid-days", "--vd", type=values.whole(1), help="its validity (default: 365)"),
)
STATUS = option("--status", "--sta", choices=("enabled", "disabled"), help="whether it can connect")
REASON = option("--status-reason", "--star", type=encodable, help="a text about the status")
SCOPE = option("--device-scope", type=encodable, help="the scope of its parent, an IoT Edge device")
KEY_TYPE = option(
    "--key-type",
    "--kt",
    choices=("primary", "secondary"),
    default="primary",
    help="which key (default: primary)",
)
RENEW_TYPE = KEY_TYPE.but(
    choices=("primary", "secondary", "both", "swap"),
    default=None,
    required=True,
    help="which key becomes a new one; swap exchanges the two",
)
MODULES = switch("--include-modules", "--im", help="also the keys of the devices' modules")
TOP = option(
    "--top", type=values.top, default=1000, help="how many at most (default: 1000; -1 is all)"
)

# --- updates in general, as every `update` of az has them
UPDATES = (
    option(
        "--set",
        metavar="PAIR",
        nargs="+",
        action="extend",
        default=[],
        type=values.pair,
        help="set a member: PATH=VALUE, such as tags.floor=1",
    ),
    option(
        "--remove",
        metavar="PATH",
        nargs="+",
        action="extend",
        default=[],
        help="remove a member, such as tags.floor",
    ),
)
TAGS = option("--tags", help="the tags to merge: JSON or a file", **_OBJECT)
DESIRED = option("--desired", help="the desired properties to merge: JSON or a file", **_OBJECT)
TWIN = option("--json", "-j", required=True, help="the new twin: JSON or a file", **_OBJECT)

# --- direct methods
METHOD = option("--method-name", "--mn", required=True, help="the method")
PAYLOAD = option("--method-payload", "--mp", help="its payload: JSON or a file", **_JSON)
METHOD_TIMEOUT = option(
    "--timeout",
    "--to",
    type=values.whole(5, 300),  # direct methods in the docs of IoT Hub
    default=30,
    help="how long it may take, 5 to 300 s (default: 30)",
)

# --- jobs
JOB = option("--job-id", required=True, help="the job")
JOB_TYPES = ("scheduleUpdateTwin", "scheduleDeviceMethod")
JOB_TYPE = option("--job-type", "--jt", choices=(*JOB_TYPES, "export", "import"), help="the type")
JOB_STATUSES = (
    *("unknown", "enqueued", "running", "completed", "failed", "cancelled", "scheduled", "queued"),
)
JOB_STATUS = option("--job-status", "--js", choices=JOB_STATUSES, help="the status")
NEW_JOB = (
    JOB_TYPE.but(choices=JOB_TYPES, required=True, help="what the job does"),
    option("--query-condition", "-q", required=True, help="which devices; * is all"),
    option("--start-time", "--start", help="when it starts, ISO 8601 (default: now)"),
    option("--ttl", type=values.whole(1), default=3600, help="how many s it may run"),
    option("--twin-patch", "--patch", help="the patch of twins: JSON or a file", **_OBJECT),
    METHOD.but(required=False),
    PAYLOAD,
    option("--method-connect-timeout", "--mct", type=values.whole(0), default=30, help="in s"),
    option("--method-response-timeout", "--mrt", type=values.whole(5), default=30, help="in s"),
    switch("--wait", "-w", help="return when the job has ended"),
    option("--poll-interval", "--interval", type=values.whole(1), default=10, help="in s"),
    option("--poll-duration", "--duration", type=values.whole(1), default=600, help="in s"),
)

# --- import and export
INCLUDE_KEYS = switch("--include-keys", "--ik", help="export the keys as well")
_BLOBS: dict[str, Any] = {"required": True, "metavar": "URI", "type": values.text_or_file}
BLOBS = option("--blob-container-uri", "--bcu", help="the container, or a file of it", **_BLOBS)
INPUT_BLOBS = option(
    "--input-blob-container-uri", "--ibcu", help="the container with devices.txt", **_BLOBS
)
OUTPUT_BLOBS = option(
    "--output-blob-container-uri", "--obcu", help="the container for the log", **_BLOBS
)
STORAGE_IDENTITY = option("--identity", help="a managed identity; [system] is that of the hub")

# --- configurations
CONFIGURATION = option("--config-id", "-c", required=True, help="the configuration")
NEW_CONFIGURATION = (
    option("--content", "-k", required=True, help="what it writes: JSON or a file", **_OBJECT),
    option("--target-condition", "--tc", "-t", default="", help="which devices or modules"),
    option("--priority", "--pri", type=values.whole(0), default=0, help="the highest wins"),
    option("--metrics", "-m", help="its metrics: JSON or a file", **_OBJECT),
    option(
        "--custom-metric-queries",
        "--cmq",
        metavar="PAIR",
        nargs="+",
        type=values.pair,
        help="its metrics: NAME=QUERY",
    ),
    option("--labels", "--lab", help="its labels: JSON or a file", **_OBJECT),
    option(
        "--custom-labels",
        "--cl",
        metavar="PAIR",
        nargs="+",
        type=values.pair,
        help="its labels: NAME=TEXT",
    ),
)
METRIC = option("--metric-id", "-m", required=True, help="the metric")
METRIC_TYPE = option(
    "--metric-type", "--mt", choices=("user", "system"), default="user", help="(default: user)"
)
ALL_TOP = TOP.but(default=None, help="how many at most (default: all)")

# --- digital twins
PATCH = option("--json-patch", "--patch", required=True, help="JSON Patch, or a file", **_JSON)
COMMAND = (
    option("--command-name", "--cn", required=True, help="the command"),
    option("--component-path", help="the component that has it"),
    option("--payload", help="its payload: JSON or a file", **_JSON),
    option("--connect-timeout", "--cto", type=values.whole(0, 300), help="in s"),
    option("--response-timeout", "--rto", type=values.whole(5, 300), help="in s"),
)

# --- messages
DATA = option("--data", "--da", default="Ping from the command line", help="the body, a text")
DATA_FILE = option("--data-file-path", "--dfp", type=values.content_of, help="a file as body")
PROPERTIES = option(
    "--properties",
    "--props",
    "-p",
    metavar="PAIRS",
    type=values.pairs,
    default={},
    help="application properties: NAME=TEXT;NAME=TEXT",
)
C2D_SYSTEM = (
    option("--message-id", "--mid", help="the message id (default: a new one)"),
    option("--correlation-id", "--cid", help="the correlation id"),
    option("--user-id", "--uid", help="the user id"),
    option("--content-type", "--ct", help="the content type, such as application/json"),
    option("--content-encoding", "--ce", default="utf-8", help="(default: utf-8)"),
    option("--expiry-time-utc", "--expiry", type=values.whole(0), help="in ms since 1970"),
    option("--ack", choices=("positive", "negative", "full"), help="which feedback is wanted"),
)
WAIT_FEEDBACK = switch("--wait", "-w", help="return with the feedback of the device")
LOCK = option(
    "--etag", "-e", required=True, type=values.etag, help="the etag with which it was received"
)
RECEIVE = (
    option("--lock-timeout", "--lt", type=values.whole(1, 300), default=60, help="the lock, in s"),
    *(
        switch(f"--{each}", help=f"{each} the message when it is received")
        for each in ("complete", "abandon", "reject")
    ),
)

# --- monitors
MONITOR = (
    option(
        "--properties",
        "--props",
        "-p",
        nargs="*",
        choices=("sys", "app", "anno", "all"),
        default=[],
        metavar="KIND",
        help="show properties: system, application, annotations, or all",
    ),
    option("--content-type", "--ct", help="read bodies as this type, such as application/json"),
    option(
        "--timeout",
        "--to",
        "-t",
        type=values.seconds,
        default=300.0,
        help="end after so many s without an event (default: 300; 0 is never)",
    ),
    option("--consumer-group", "--cg", "-c", default="$Default", help="(default: $Default)"),
    option(
        "--enqueued-time", "--et", "-e", type=values.whole(0), help="from then on: ms since 1970"
    ),
    option("--message-count", "--mc", type=values.whole(1), help="end after so many events"),
    option("--interface", "-i", help="events of this interface only, such as dtmi:x:y;1"),
    option("--device-query", "-q", help="events of the devices of this query only"),
)
WAIT_ON = option("--wait-on-msg", "-w", help="end with the feedback of this message id")

# --- a device that is simulated, or that registers
SYMMETRIC_KEY = option(
    "--symmetric-key", "--key", type=values.key, help="the key, base64 (default: it is read)"
)
SIMULATE = (
    option(
        "--count",
        type=values.whole(1, 10_000),
        help="so many devices, ID-1 to ID-N; the missing ones are created",
    ),
    option(
        "--msg-count",
        "--mc",
        type=values.whole(0),
        default=100,
        help="messages of each device (default: 100; 0 is without an end)",
    ),
    option("--msg-interval", "--mi", type=values.seconds, default=3.0, help="in s (default: 3)"),
    option("--method-response-code", "--mrc", type=int, default=200, help="(default: 200)"),
    option("--method-response-payload", "--mrp", help="JSON or a file", **_JSON),
    option("--init-reported-properties", "--irp", help="reported at first", **_OBJECT),
    SYMMETRIC_KEY.but(help="the key of the device, base64 (default: the hub has it)"),
    option("--certificate-file-path", "--cp", metavar="FILE", help="the device's certificate"),
    option("--key-file-path", "--kp", metavar="FILE", help="the private key of the certificate"),
    option("--passphrase", "--pass", type=encodable, help="the passphrase of the private key"),
    option("--model-id", "--dtmi", help="the IoT Plug and Play model"),
    option("--protocol", "--proto", choices=("mqtt",), default="mqtt", help="(default: mqtt)"),
)

# --- queries and tokens
QUERY = option("--query-command", "-q", required=True, help="the query")
DURATION = option("--duration", "--du", type=values.whole(1), default=3600, help="in s")
CONNECTION_STRING = option("--connection-string", "--cs", help="sign with this one, without a hub")
POLICY = option("--policy-name", "--pn", help="the policy of the connection string")
