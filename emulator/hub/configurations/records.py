"""The record of a configuration: from the request of a service to its document.

The rules are those of IoT Hub docs: automatic device management, and of what was seen on a real
hub.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from emulator.hub import query
from emulator.hub.configurations import conditions
from emulator.hub.configurations.content import CONTENT, Content
from emulator.hub.core import errors, etags, limits, members
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.slices import Work
from emulator.hub.core.store import Key
from emulator.hub.core.times import iso

# Seen on a real hub; no upper case.
_ID = re.compile(rf"[a-z0-9\-+%_*!']{{1,{limits.CONFIGURATION_ID_LENGTH}}}", re.ASCII)


FORM = members.Form(
    *("id", "schemaVersion", "labels", "targetCondition", "priority", "etag"),
    content=CONTENT,
    metrics=members.Form("queries"),
)
_CHECK = members.Form("targetCondition", "customMetricQueries")
_QUERIES = members.Form("targetCondition", metrics=members.Form("queries"))


class ConfigurationKey(NamedTuple):
    """The key of a configuration."""

    id: str


class Configuration(Struct, frozen=True):
    """One configuration.

    Args:
        metrics: the queries of the custom metrics, by name.
        revision: counts the writes, from 1.
        write: names the last write among those of all configurations, also of deleted ones.
    """

    key: ConfigurationKey
    content: Content
    target_condition: str
    priority: int
    schema_version: str | None
    labels: JsonObject | None
    metrics: Mapping[str, str]
    created: datetime
    updated: datetime
    revision: int = 1
    write: str = ""

    @property
    def etag(self) -> str:
        """See `etags.of_revision`."""
        return etags.of_revision(self.revision)

    def document(self, system_results: JsonObject, results: JsonObject) -> JsonObject:
        """Return it as a service sees it, with the members in the order of a real hub.

        Args:
            system_results: the counts of the system metrics; empty before the first count.
            results: the counts of the custom metrics.
        """
        queries = conditions.system_queries(self.key.id, self.content.kind, self.target_condition)
        return {
            "id": self.key.id,
            "schemaVersion": self.schema_version,
            "labels": self.labels,
            "content": self.content.document(),
            "targetCondition": self.target_condition,
            "createdTimeUtc": iso(self.created),
            "lastUpdatedTimeUtc": iso(self.updated),
            "priority": self.priority,
            "systemMetrics": {"results": system_results, "queries": queries},
            "metrics": {"results": results, "queries": self.metrics},
            "etag": self.etag,
        }


class Deployment(Struct, frozen=True):
    """What an IoT Edge device has: the writes of its deployments."""

    device_id: str
    writes: tuple[str, ...]

    @property
    def key(self) -> Key:
        """See `Record.key`."""
        return (self.device_id,)


def create(
    key: ConfigurationKey, body: object, now: datetime, given: Content | None
) -> Configuration:
    """Create a configuration from a request body.

    Args:
        key: its key.
        body: the body.
        now: the time in UTC.
        given: the content of the body, see `parse_content`.

    Raises:
        ArgumentInvalid, DeserializationError: the id, or a member of the body, is not valid.
        InvalidConfigurationContent, InvalidConfigurationTargetCondition
        InvalidConfigurationCustomMetricsQuery
    """
    if not _ID.fullmatch(key.id):
        raise errors.ArgumentInvalid(
            f"Invalid id '{key.id[: limits.CONFIGURATION_ID_LENGTH]}': 1 to "
            f"{limits.CONFIGURATION_ID_LENGTH} of a-z, 0-9 and -+%_*!' are allowed"
        )
    write, members = secrets.token_hex(8), _read(key, body, given, None)
    return Configuration(key=key, created=now, updated=now, write=write, **members)


def update(
    configuration: Configuration, body: object, now: datetime, given: Content | None
) -> Configuration:
    """Replace the members that a service can set; members left out get their defaults.

    The content stays: the request must repeat it, and it is only checked (seen on a real hub).
    The arguments are those of `create`.

    Raises:
        ArgumentInvalid, DeserializationError, InvalidConfigurationContent
        InvalidConfigurationTargetCondition, InvalidConfigurationCustomMetricsQuery
    """
    members = _read(configuration.key, body, given, configuration.content)
    revision = configuration.revision + 1
    write = secrets.token_hex(8)
    return replace(configuration, updated=now, revision=revision, write=write, **members)


async def parse_content(body: object, work: Work) -> Content | None:
    """Parse the content of a request as a part of long work; None if it is invalid.

    The functions that check the request take it. Errors are left to them.
    """
    if isinstance(body, dict):
        with contextlib.suppress(errors.HubError):
            return await work.finish(Content.parsing(FORM.read(body).get("content")))
    return None


async def parse_queries(body: object, work: Work) -> None:
    """Parse the condition and the metrics of a request as a part of long work.

    The functions that check the request then find them parsed. Errors are left to them.
    """
    body = _QUERIES.read(body) if isinstance(body, dict) else {}
    metrics = body.get("metrics")
    queries = metrics.get("queries") if isinstance(metrics, dict) else None
    texts = list(queries.values()) if isinstance(queries, dict) else []
    if len(texts) > limits.CONFIGURATION_METRICS:
        return  # they are refused unread
    for text in (body.get("targetCondition"), *texts):
        if isinstance(text, str):
            with contextlib.suppress(errors.HubError):
                await query.parse_in(work, text, condition=text is body.get("targetCondition"))


async def check_queries(body: object, work: Work) -> JsonObject:
    """Check a target condition and metrics; nothing is stored.

    Args:
        body: `{"targetCondition", "customMetricQueries": {name: query}}`; one is required.

    Returns:
        `{"targetConditionError", "customMetricQueryErrors": {name: error}}`: null and an empty
        object without errors.

    Raises:
        DeserializationError, ArgumentInvalid: the body is not of that form.
    """
    body = members.document(body, _CHECK)
    condition = members.text(body, "targetCondition")
    queries = members.texts(body, "customMetricQueries") or {}
    if not condition and not queries:
        raise errors.ArgumentInvalid  # seen on a real hub
    found = {}
    for name, text in queries.items():
        await parse_queries({"metrics": {"queries": {name: text}}}, work)
        if error := _error(conditions.metric_query, text):
            found[name] = error
        if work.over:
            await work.rest()
    await parse_queries({"targetCondition": condition}, work)
    return {
        "targetConditionError": _error(_check_condition, condition) if condition else None,
        "customMetricQueryErrors": found,
    }


def _read(
    key: ConfigurationKey, body: object, given: Content | None, content: Content | None
) -> dict[str, Any]:
    """Parse the members that a service can set; members left out get their defaults.

    Args:
        given: see `create`; None if it is invalid.
        content: the content that stays, if the configuration exists.
    """
    body = members.document(body, FORM)
    if body.get("id") != key.id:
        raise errors.ArgumentInvalid("The id in the body is not the one in the URL")
    others = len(dumps({**body, "content": None}))
    if others > limits.CONFIGURATION_OTHER_BYTES:
        raise errors.ArgumentInvalid(
            f"The configuration has {others} bytes without its content. "
            f"{limits.CONFIGURATION_OTHER_BYTES} are allowed"
        )
    given = given or Content.parse(body.get("content"))
    content = content or given
    condition = members.text(body, "targetCondition") or ""
    conditions.targets(condition, content.kind)
    return {
        "content": content,
        "target_condition": condition,
        # A positive number by the docs; recordings have 0 as well, which is the default.
        "priority": members.number(body, "priority", limits.CONFIGURATION_PRIORITY, 0),
        "schema_version": members.text(body, "schemaVersion"),
        "labels": members.texts(body, "labels"),
        "metrics": _metrics(body),
    }


def _metrics(body: JsonObject) -> dict[str, str]:
    queries = members.texts(members.block(body, "metrics"), "queries") or {}
    if len(queries) > limits.CONFIGURATION_METRICS:
        raise errors.InvalidConfigurationCustomMetricsQuery(
            f"{len(queries)} metrics; {limits.CONFIGURATION_METRICS} are allowed"
        )
    for name, text in queries.items():
        if error := _error(conditions.metric_query, text):
            raise errors.InvalidConfigurationCustomMetricsQuery(f"{name}: {error}")
    return queries


def _check_condition(text: str) -> None:
    # A real hub accepts the condition `*`, but this check reports it as an error.
    if text.strip() == conditions.EVERY_DEVICE:
        raise conditions.not_a_condition(text)
    conditions.check_condition(text)


def _error(check: Callable[[str], object], text: str) -> str | None:
    """Return the text of the error that a check raises; None without an error."""
    try:
        check(text)
    except errors.HubError as error:
        return error.text
    return None
