"""Target conditions of configurations, and the queries of their metrics."""

import pytest

from emulator.hub.configurations.conditions import metric_query, system_queries, targets
from emulator.hub.configurations.content import Kind
from emulator.hub.core.errors import (
    InvalidConfigurationCustomMetricsQuery,
    InvalidConfigurationTargetCondition,
)

INVALID = "Invalid targetCondition. "
NOT_ALLOWED = (
    f"{INVALID}It must be a filter condition based on 'deviceId', 'tags', or "
    "'properties.reported'. It contains: "
)


@pytest.mark.parametrize(
    ("kind", "condition", "text"),
    [
        *(
            (Kind.DEVICE, condition, "BadRequest: ")
            for condition in (
                *("tags.x = ", "* AND tags.x = 1", "deviceId IN ['d']"),
                "NOT (tags.x = 1 OR deviceId NIN ['d'])",
                "is_defined(tags.x) AND tags.y + (tags.x IN [1]) = 1",
            )
        ),
        (Kind.DEVICE, "x" * 8193, "The query has 8193 characters. 8192 are allowed"),
        (Kind.DEVICE, "FROM devices.modules WHERE tags.x = 1", INVALID),
        (Kind.DEVICE, " from devices WHERE tags.x = 1", INVALID),
        (Kind.EDGE, "FROM devices.modules WHERE tags.x = 1", INVALID),
        (Kind.MODULE, "*", INVALID),
        (Kind.MODULE, "tags.x = 1", INVALID),
        (Kind.MODULE, "FROM devices WHERE tags.x = 1", INVALID),
        (Kind.MODULE, "FROM devices.jobs", "BadRequest: "),
    ],
)
def test_an_invalid_condition_is_refused(kind: Kind, condition: str, text: str) -> None:
    with pytest.raises(InvalidConfigurationTargetCondition) as caught:
        targets(condition, kind)
    assert caught.value.text.startswith(text)


@pytest.mark.parametrize(
    ("condition", "member"),
    [
        ("properties.desired.x = 1", "properties.desired.x"),
        ("properties = 1", "properties"),
        ("deviceId = edgeDeviceVM", "edgeDeviceVM"),
        ("tags.x = 1 AND connectionState = 'x'", "connectionState"),
        ("configurations.[[c]].status = 'x'", "configurations.c.status"),
        ("moduleId = 'm'", "moduleId"),
    ],
)
def test_a_condition_reads_some_members_only(condition: str, member: str) -> None:
    with pytest.raises(InvalidConfigurationTargetCondition) as caught:
        targets(condition, Kind.DEVICE)
    assert caught.value.text == NOT_ALLOWED + member


@pytest.mark.parametrize("query", ["", "SELEC nope", "select", "select * from", "select x.*"])
def test_a_metric_that_is_not_a_query_is_refused(query: str) -> None:
    with pytest.raises(InvalidConfigurationCustomMetricsQuery):
        metric_query(query)


def test_a_metric_that_is_too_long_with_its_collection_is_refused() -> None:
    assert metric_query("select *" + " " * 8_000) == "select * from devices"
    with pytest.raises(InvalidConfigurationCustomMetricsQuery):
        metric_query("select" + " " * 8_184 + "*")


def test_a_metric_needs_no_collection() -> None:
    assert metric_query("Select *") == "Select * from devices"
    whole = "select deviceId from devices.modules"
    assert metric_query(whole) == whole


DEVICES, MODULES = "select deviceId from devices", "select deviceId, moduleId from devices.modules"
APPLIED = "configurations.[[c]].status = 'Applied'"
DEPLOYED = f"{DEVICES}.modules where moduleId = '$edgeAgent' and {APPLIED}"
REPORTED = f"{DEPLOYED} and properties.desired.$version = properties.reported.lastDesiredVersion"
CODE = "properties.reported.lastDesiredStatus.code"
EDGE_APPLIED = [DEPLOYED, f"{REPORTED} and {CODE} = 200", f"{REPORTED} and {CODE} != 200"]


@pytest.mark.parametrize(
    ("kind", "condition", "queries"),
    [
        (Kind.DEVICE, "*", [DEVICES, f"{DEVICES} where {APPLIED}"]),
        (Kind.DEVICE, "a=1", [f"{DEVICES} where a=1", f"{DEVICES} where {APPLIED}"]),
        (Kind.DEVICE, "", ["", f"{DEVICES} where {APPLIED}"]),
        (
            Kind.MODULE,
            "from devices.modules WHERE tags.x=1",
            [f"{MODULES} WHERE tags.x=1", f"{MODULES} where {APPLIED}"],
        ),
        (Kind.EDGE, "*", [f"{DEVICES} where capabilities.iotEdge = true", *EDGE_APPLIED]),
        (Kind.EDGE, "a=1", [f"{DEVICES} where capabilities.iotEdge = true and a=1", *EDGE_APPLIED]),
    ],
)
def test_the_queries_of_system_metrics(kind: Kind, condition: str, queries: list[str]) -> None:
    names = ["targetedCount", "appliedCount", "reportedSuccessfulCount", "reportedFailedCount"]
    found = system_queries("c", kind, condition)
    assert [*found.items()] == [*zip(names, queries, strict=False)]
