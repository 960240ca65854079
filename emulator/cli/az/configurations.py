"""`configuration`: automatic device management."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az import updates
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub, precondition
from emulator.cli.parser import UsageError
from emulator.errors import ClientError

_COLUMNS = ("id", "priority", "targetCondition", "createdTimeUtc")
_CONTENTS = ("deviceContent", "moduleContent")
_WRITTEN = (
    *("id", "schemaVersion", "labels", "content", "metrics", "targetCondition", "priority"),
)


def create(hub: Hub, options: argparse.Namespace) -> Any:
    """Create a configuration; return it."""
    content = options.content.get("content", options.content)
    kept = {name: content[name] for name in _CONTENTS if name in content}
    if not kept:
        raise UsageError(f"--content has no {' or '.join(_CONTENTS)}")
    metrics = options.metrics or {"queries": dict(options.custom_metric_queries or ())}
    metrics = metrics.get("metrics", metrics)
    if "queries" not in metrics:
        raise UsageError("--metrics has no queries")
    labels = options.labels if options.labels is not None else dict(options.custom_labels or ())
    document = {
        "id": options.config_id.lower(),
        "schemaVersion": "2.0",
        "labels": labels,
        "content": kept,
        "metrics": {"queries": metrics["queries"]},
        "targetCondition": options.target_condition,
        "priority": options.priority,
    }
    return hub.send("PUT", "configurations", document["id"], body=document).json()


def show(hub: Hub, options: argparse.Namespace) -> Any:
    """Return a configuration."""
    return hub.get("configurations", options.config_id)


def list_configurations(hub: Hub, options: argparse.Namespace) -> Any:
    """Return the configurations of devices and modules; those of IoT Edge have other content."""
    found = hub.get("configurations")
    return [each for each in found if any(each["content"].get(name) for name in _CONTENTS)][
        : options.top
    ]


def update(hub: Hub, options: argparse.Namespace) -> Any:
    """Change a configuration; return it."""
    if not options.set and not options.remove:
        raise UsageError("Nothing to change. Use --set or --remove")
    document = updates.apply(show(hub, options), options.set, options.remove)
    written = {name: document[name] for name in _WRITTEN if name in document}
    where, headers = ("configurations", options.config_id), precondition(options.etag)
    return hub.send("PUT", *where, body=written, headers=headers).json()


def delete(hub: Hub, options: argparse.Namespace) -> None:
    """Delete a configuration."""
    headers = precondition(options.etag)
    hub.send("DELETE", "configurations", options.config_id, headers=headers)


def show_metric(hub: Hub, options: argparse.Namespace) -> Any:
    """Run the query of a metric; return its rows."""
    kind = "systemMetrics" if options.metric_type == "system" else "metrics"
    queries = (show(hub, options).get(kind) or {}).get("queries") or {}
    if options.metric_id not in queries:
        known = ", ".join(queries) or "no metric"
        text = f"Unknown {options.metric_type} metric {options.metric_id!r}. There is {known}."
        raise ClientError(text, status=404, code="MetricNotFound")
    text = queries[options.metric_id]
    return {"metric": options.metric_id, "query": text, "result": hub.query(text)}


_OF = (o.CONFIGURATION,)
_EXAMPLE = "-c heating"

COMMANDS: tuple[Command, ...] = (
    Command(
        "configuration create",
        "create a configuration of devices or modules",
        create,
        (*_OF, *o.NEW_CONFIGURATION),
        f'{_EXAMPLE} --content heating.json \\\n      --tc "tags.floor = 1" --pri 10',
        _COLUMNS,
    ),
    Command("configuration show", "show a configuration", show, _OF, _EXAMPLE, _COLUMNS),
    Command(
        "configuration list",
        "list configurations",
        list_configurations,
        (o.ALL_TOP,),
        "-o table",
        _COLUMNS,
    ),
    Command(
        "configuration update",
        "change a configuration",
        update,
        (*_OF, *o.UPDATES, o.ETAG),
        f"{_EXAMPLE} --set priority=20",
        _COLUMNS,
    ),
    Command("configuration delete", "delete a configuration", delete, (*_OF, o.ETAG), _EXAMPLE),
    Command(
        "configuration show-metric",
        "run a metric of a configuration",
        show_metric,
        (*_OF, o.METRIC, o.METRIC_TYPE),
        f"{_EXAMPLE} -m appliedCount --mt system",
    ),
)
