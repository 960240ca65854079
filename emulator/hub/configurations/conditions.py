"""The queries of a configuration: its target condition and its metrics.

The rules are those of IoT Hub docs: automatic device management, and of what was seen on a real
hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from emulator.hub import query
from emulator.hub.configurations.content import AGENT, Kind
from emulator.hub.core import errors
from emulator.hub.query import tree
from emulator.hub.query.expressions import compile_condition, steps
from emulator.hub.registry.documents import QUERY_MEMBERS, TwinRow

EVERY_DEVICE = "*"
_DEVICES = "select deviceId from devices"
_MODULES = "select deviceId from devices.modules"
_FROM = re.compile(r"\s*FROM\b", re.IGNORECASE)
# A real hub accepts this as a metric, although the grammar does not.
_BARE_SELECT = re.compile(r"\s*select\s+\*\s*", re.IGNORECASE)


def targets(text: str, kind: Kind) -> Callable[[TwinRow], bool]:
    """Return the function that decides whether a configuration targets a twin.

    An empty condition targets no twin (seen on a real hub). A deployment targets IoT Edge devices
    only.

    Raises:
        InvalidConfigurationTargetCondition
    """
    if not text.strip():
        return lambda row: False
    condition = check_condition(text)
    if kind is Kind.MODULE:
        if condition.source is not query.Source.MODULES:
            raise _invalid(f"That of {kind.value} must begin with FROM devices.modules")
    elif _FROM.match(text):
        raise _invalid(f"That of {kind.value} must be the condition alone, without FROM")
    matches = compile_condition(condition, QUERY_MEMBERS)
    if kind is Kind.EDGE:
        return lambda row: row.identity.iot_edge and matches(row)
    return matches


def condition_steps(text: str) -> int:
    """Return what a target condition costs for one twin, in steps as those of a query."""
    where = check_condition(text).where if text.strip() else None
    return 1 + (0 if where is None else steps(where))


def _invalid(why: str) -> errors.InvalidConfigurationTargetCondition:
    return errors.InvalidConfigurationTargetCondition(f"Invalid targetCondition. {why}")


def check_condition(text: str) -> query.Query:
    """Parse a target condition: `*`, a WHERE clause without the word, or `FROM devices.modules …`.

    Raises:
        InvalidConfigurationTargetCondition: the condition is invalid. Or it has an IN, which a real
            hub accepts in queries only. Or it reads a member other than `deviceId`, `moduleId`,
            tags and reported properties.
    """
    try:
        condition = query.parse_condition(text)
    except errors.HubError as error:
        raise errors.InvalidConfigurationTargetCondition(error.text) from None
    if condition.source is query.Source.JOBS:
        raise errors.InvalidConfigurationTargetCondition("BadRequest: devices.jobs has no twins")
    parts = [] if condition.where is None else list(tree.walk(condition.where))
    paths = [tuple(map(str, part.parts)) for part in parts if isinstance(part, tree.Path)]
    for path in sorted(paths):
        if not _allowed(path, condition.source):
            raise not_a_condition(".".join(path))
    if any(isinstance(part, tree.Membership) for part in parts):
        raise errors.InvalidConfigurationTargetCondition(
            "BadRequest: a targetCondition can't have IN"
        )
    return condition


def not_a_condition(found: str) -> errors.InvalidConfigurationTargetCondition:
    """Return the error for a member that a target condition must not have (text of a real hub)."""
    return _invalid(
        "It must be a filter condition based on 'deviceId', 'tags', or 'properties.reported'. It "
        f"contains: {found}"
    )


def _allowed(path: tuple[str, ...], source: query.Source) -> bool:
    root = path[0].lower()  # root members match in any case
    if root == "properties":
        return path[1:2] == ("reported",)
    return root in ("deviceid", "tags") or (root == "moduleid" and source is query.Source.MODULES)


def metric_query(text: str) -> str:
    """Return the query whose rows a metric counts.

    Raises:
        InvalidConfigurationCustomMetricsQuery: the query is invalid.
    """
    found = f"{text.strip()} from devices" if _BARE_SELECT.fullmatch(text) else text
    try:
        query.parse(found)
    except errors.HubError as error:
        raise errors.InvalidConfigurationCustomMetricsQuery(error.text) from None
    return found


def system_queries(configuration_id: str, kind: Kind, condition: str) -> dict[str, str]:
    """Return the queries of the system metrics (seen on a real hub).

    The queries for modules were not seen: they follow those for devices.
    """
    every = condition.strip() == EVERY_DEVICE
    targeted = _DEVICES if every else f"{_DEVICES} where {condition}"
    applied = f"configurations.[[{configuration_id}]].status = 'Applied'"
    if kind is Kind.MODULE:
        select = "select deviceId, moduleId"
        targeted = f"{select} {condition}"
        applied = f"{select} from devices.modules where {applied}"
    elif kind is Kind.DEVICE:
        applied = f"{_DEVICES} where {applied}"
    else:
        edge = f"{_DEVICES} where capabilities.iotEdge = true"
        targeted = edge if every else f"{edge} and {condition}"
        applied = f"{_MODULES} where moduleId = '{AGENT}' and {applied}"
    found = {"targetedCount": targeted if condition.strip() else "", "appliedCount": applied}
    if kind is Kind.EDGE:
        reported = "properties.reported.lastDesired"
        current = f"{applied} and properties.desired.$version = {reported}Version"
        found["reportedSuccessfulCount"] = f"{current} and {reported}Status.code = 200"
        found["reportedFailedCount"] = f"{current} and {reported}Status.code != 200"
    return found
