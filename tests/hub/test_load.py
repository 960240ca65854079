"""Expensive requests: while the hub works on them, other work has its turn.

A heartbeat on the event loop measures how much time of the processor passes between two turns. So
other programs on the machine do not change the result.
"""

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.slices import Slices
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.message import Message
from tests.clock import TickingClock
from tests.hub.fakes import ANY, CREATE, make_hub, put

DEVICES = 50
# A healthy device waits 250 ms at most; a slice has 5 ms.
LONGEST = 0.25


def long_text(start: str, part: str, end: str = "") -> str:
    """Return the longest query that repeats a part."""
    room = limits.QUERY_TEXT_LENGTH - len(start) - len(end)
    return start + part * (room // len(part)) + end


SUM = long_text("SELECT deviceId FROM devices WHERE 1", "+1", " = 0")
COUNTS = long_text("SELECT COUNT() AS n", ", MAX(tags.n)", " FROM devices GROUP BY deviceId")
STATUSES = long_text("SELECT * FROM devices WHERE a = 1", " OR configurations.c0.status = 1")
NAMES = "abcdefghij"


def body(name: str, condition: str = "*", **metrics: str) -> dict[str, Any]:
    content = {"deviceContent": {f"properties.desired.{name}{n}": n for n in range(500)}}
    return {
        "id": name,
        "content": content,
        "targetCondition": condition,
        "metrics": {"queries": metrics},
    }


def ask(text: str) -> Callable[[IotHub], Awaitable[object]]:
    return lambda hub: hub.queries.run(text, size=100, continuation=None)


async def pages(hub: IotHub) -> None:
    text, token = "SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId", None
    for _ in range(DEVICES):
        page = await hub.queries.run(text, size=1, continuation=token)
        token = page.continuation


async def many_queries(hub: IotHub) -> None:
    await asyncio.gather(*(ask(f"{SUM[:-200]} OR {n} = 0")(hub) for n in range(5)))


async def metrics(hub: IotHub) -> None:
    texts = {name: SUM.replace("+1", f"+{n}") for n, name in enumerate(NAMES[:5])}
    await hub.configurations.put("metrics", body("metrics", **texts), CREATE)
    assert (await hub.configurations.get("metrics"))["metrics"]["results"].keys() == texts.keys()


def in_capitals(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document with its names in capitals, which are names of the same members."""
    return {
        name.upper(): in_capitals(value) if name == "metrics" else value
        for name, value in document.items()
    }


async def metrics_in_capitals(hub: IotHub) -> None:
    start = "SELECT deviceId FROM devices WHERE tags.x = 1"
    texts = {name: long_text(start, f" OR tags.{name} > 1") for name in NAMES[:5]}
    given = body("capitals", long_text("tags.x = 1", " OR tags.y > 1"), **texts)
    await hub.configurations.put("capitals", in_capitals(given), CREATE)
    assert "capitals" in [each["id"] async for each in hub.configurations.all()]


async def configurations(hub: IotHub) -> None:
    for name in NAMES:
        await hub.configurations.put(name, body(name, f"tags.n != '{name}'"), CREATE)
    assert len([each async for each in hub.configurations.all()]) == len(NAMES)
    await ask(STATUSES)(hub)


async def checks(hub: IotHub) -> None:
    texts = {str(n): SUM.replace("+1", f"+{n % 10}") + " " * n for n in range(20)}
    await hub.configurations.check_queries({"customMetricQueries": texts})


async def content(hub: IotHub) -> None:
    put(hub, IdentityKey("edge"), capabilities={"iotEdge": True})
    module = {f"properties.desired.p{n}": n for n in range(1_500)}
    names = ("$edgeAgent", *(f"m{n}" for n in range(19)))
    given = {"modulesContent": dict.fromkeys(names, module)}
    await hub.configurations.apply_content("edge", given)


async def content_of_a_configuration(hub: IotHub) -> None:
    module = {f"properties.desired.p{n}": n for n in range(3_000)}
    names = ("$edgeAgent", *(f"m{n}" for n in range(19)))
    given = {"id": "edge", "content": {"modulesContent": dict.fromkeys(names, module)}}
    await hub.configurations.put("edge", given, CREATE)


async def bulk(hub: IotHub) -> None:
    desired = {f"p{n}": n for n in range(1_000)}
    items = [{"id": f"new{n}", "properties": {"desired": desired}} for n in range(100)]
    assert (await hub.bulk.run(items))["isSuccessful"]


ATTACKS: dict[str, Callable[[IotHub], Awaitable[object]]] = {
    "arithmetic": ask(SUM),
    "comparisons": ask(long_text("SELECT * FROM devices WHERE a = 1", " OR tags.x > 1")),
    "an array": ask(long_text("SELECT * FROM devices WHERE deviceId IN ['x'", ",'y'", "]")),
    "an invalid query": ask(long_text("SELECT * FROM devices WHERE a", " OR a") + " x y"),
    "aggregates": ask(COUNTS),
    "pages of groups": pages,
    "many queries": many_queries,
    "metrics": metrics,
    "metrics in capitals": metrics_in_capitals,
    "content of a configuration": content_of_a_configuration,
    "configurations": configurations,
    "checks": checks,
    "content": content,
    "bulk": bulk,
    "a list": lambda hub: hub.identities.list_devices(),
    "statistics": lambda hub: hub.identities.device_statistics(),
    "a condition": lambda hub: hub.queries.find(SUM.partition(" WHERE ")[2]),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_no_request_stops_the_hub(attack: Callable[[IotHub], Awaitable[object]]) -> None:
    hub = make_hub(clock=Clock())
    for number in range(DEVICES):
        put(hub, IdentityKey(f"d{number}"))
        hub.twins.patch(IdentityKey(f"d{number}"), {"tags": {"n": number}}, CREATE)
    await ask("SELECT * FROM devices")(hub)  # loads the parser
    gc.collect()
    gc.freeze()  # as the command does after its start
    longest, turns, ended = 0.0, 0, False

    async def heartbeat() -> None:
        nonlocal longest, turns
        while not ended:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest, turns = max(longest, time.thread_time() - before), turns + 1

    beating = asyncio.ensure_future(heartbeat())
    try:
        await attack(hub)
    except errors.HubError:
        pass  # a refusal is quick as well
    finally:
        ended = True
        await beating
        gc.unfreeze()
    print(f"{1000 * longest:.0f} ms in {turns} turns")
    assert longest < LONGEST


# --- slices


async def test_work_rests_after_each_slice() -> None:
    hub = make_hub(clock=TickingClock())
    for number in range(100):
        put(hub, IdentityKey(f"d{number:02}"))
    asking = asyncio.ensure_future(
        hub.queries.run("SELECT * FROM devices", size=100, continuation=None)
    )
    turns = 0
    while not asking.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(asking.result().rows) == 100
    assert turns >= 20  # 1 ms for each row, and 5 ms for each slice


async def test_one_slice_runs_in_each_turn_and_new_work_is_first() -> None:
    slices, order = Slices(TickingClock()), []

    async def work(name: str, steps: int) -> None:
        mine = await slices.begin()
        for _ in range(steps):
            order.append(name)
            await mine.rest()

    old = [asyncio.ensure_future(work(name, 4)) for name in "ab"]
    while order.count("a") < 2:
        before = len(order)
        await asyncio.sleep(0)
        assert len(order) <= before + 1
    new = asyncio.ensure_future(work("c", 1))
    await asyncio.gather(*old, new)
    assert order.index("c") <= 5
    assert sorted(order) == [*"aaaabbbbc"]


async def test_cancelled_work_does_not_stop_the_others() -> None:
    slices = Slices(TickingClock())
    leaving, staying = (asyncio.ensure_future(slices.begin()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await asyncio.wait_for(staying, 5)).slices == 1
    assert (await asyncio.wait_for(slices.begin(), 5)).slices == 1


# --- what a scan sees while the hub changes


async def test_a_page_has_each_row_as_it_is_when_the_scan_reaches_it() -> None:
    clock = TickingClock()
    hub = make_hub(clock=clock)
    for number in range(40):
        clock.advance(1)
        put(hub, IdentityKey(f"d{number:02}"))
    text = "SELECT deviceId, tags.x FROM devices"
    asking = asyncio.ensure_future(hub.queries.run(text, size=50, continuation=None))
    for _ in range(4):  # the first slice has ended
        await asyncio.sleep(0)
    assert not asking.done()
    for number in (0, 30):
        hub.twins.patch(IdentityKey(f"d{number:02}"), {"tags": {"x": 1}}, CREATE)
    for number in (1, 31):
        hub.identities.remove(IdentityKey(f"d{number:02}"), ANY)
    clock.advance(1)
    put(hub, IdentityKey("new"))
    rows = (await asking).items
    ids = [row["deviceId"] for row in rows]
    assert ids == [*(f"d{number:02}" for number in range(40) if number != 31), "new"]
    assert [row["deviceId"] for row in rows if "x" in row] == ["d30"]


# --- budgets


@pytest.mark.parametrize(
    "text",
    [
        long_text("SELECT * FROM devices WHERE 1 = 2", " OR 1 IN tags.x"),
        long_text("SELECT * FROM devices WHERE 1 = 2", " OR ARRAY_CONTAINS(tags.x, 1)"),
        "SELECT " + ", ".join(f"properties a{n}" for n in range(400)) + " FROM devices",
    ],
    ids=["searches", "calls", "sections"],
)
async def test_an_expression_that_is_too_expensive_for_one_row_is_refused(text: str) -> None:
    with pytest.raises(errors.ArgumentInvalid, match=r"steps for each row. 20000 are allowed"):
        await ask(text)(make_hub())


async def test_a_query_over_its_budget_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub()
    for number in range(10):
        put(hub, IdentityKey(f"d{number}"))
    monkeypatch.setattr("emulator.hub.query.queries.Budget.__init__.__defaults__", (9 * 4_100,))
    with pytest.raises(errors.ArgumentInvalid, match="more than 5000000 steps"):
        await ask(SUM)(hub)
    with pytest.raises(errors.ArgumentInvalid, match="steps"):
        await hub.queries.find(SUM.partition(" WHERE ")[2])
    assert (await hub.queries.run("SELECT * FROM devices", size=9, continuation=None)).rows


async def test_an_answer_with_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub()
    for number in range(10):
        put(hub, IdentityKey(f"d{number}"))
    text = "SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId"
    monkeypatch.setattr(limits, "QUERY_CELLS", 20)
    await ask(text)(hub)
    monkeypatch.setattr(limits, "QUERY_CELLS", 19)
    with pytest.raises(errors.ArgumentInvalid, match="more than 19 values"):
        await ask(text)(hub)


@pytest.mark.parametrize("count", [1, 5, 20])
async def test_a_page_of_large_rows_has_fewer_rows(count: int) -> None:
    hub = make_hub()
    for number in range(count):
        key = IdentityKey(f"d{number:02}")
        put(hub, key)
        values = {f"p{n}": "x" * 4_000 for n in range(7)}
        hub.twins.patch(key, {"properties": {"desired": values}}, CREATE)
    names = ", ".join(f"properties.desired AS a{n}" for n in range(30))
    text, token, seen = f"SELECT deviceId, {names} FROM devices", None, []
    while True:
        page = await hub.queries.run(text, size=100, continuation=token)
        assert sum(map(len, page.rows)) < limits.QUERY_PAGE_BYTES + 1_000_000
        seen += [json.loads(row)["deviceId"] for row in page.rows]
        token = page.continuation
        if token is None:
            break
    assert seen == [f"d{number:02}" for number in range(count)]


async def test_a_row_larger_than_a_page_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub()
    put(hub, IdentityKey("d"))
    monkeypatch.setattr(limits, "QUERY_PAGE_BYTES", 100)
    with pytest.raises(errors.ArgumentInvalid, match="Select fewer members"):
        await ask("SELECT * FROM devices")(hub)
    assert (await ask("SELECT deviceId FROM devices")(hub)).rows == [b'{"deviceId":"d"}']  # type: ignore[attr-defined]


async def test_the_configurations_of_a_hub_have_a_bound() -> None:
    hub = make_hub()
    put(hub, IdentityKey("d"))
    condition = SUM.partition(" WHERE ")[2]
    for number in range(10):
        await hub.configurations.put(f"c{number}", body(f"c{number}", condition), CREATE)
    with pytest.raises(errors.ConfigurationCountLimitExceeded, match="50000 are allowed"):
        await hub.configurations.put("c", body("c", condition), CREATE)
    await hub.configurations.put("c", body("c"), CREATE)


async def test_the_next_page_of_groups_needs_no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub()
    for number in range(5):
        put(hub, IdentityKey(f"d{number}"))
    scans = []
    scan = hub.queries._scan
    monkeypatch.setattr(hub.queries, "_scan", lambda *given: scans.append(1) or scan(*given))
    text, token, seen = "SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId", None, []
    while True:
        page = await hub.queries.run(text, size=2, continuation=token)
        seen += [row["deviceId"] for row in page.items]
        if (token := page.continuation) is None:
            break
        hub.queries._answers.clear() if len(seen) == 4 else None  # others pushed it out
    assert (seen, len(scans)) == (["d0", "d1", "d2", "d3", "d4"], 2)


async def test_the_next_page_reads_only_the_rows_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub()
    for number in range(50):
        put(hub, IdentityKey(f"d{number:02}"))
    first = await hub.queries.run("SELECT * FROM devices", size=40, continuation=None)
    read, pending = [], hub.cloud_to_device.pending
    monkeypatch.setattr(
        hub.cloud_to_device, "pending", lambda name: read.append(name) or pending(name)
    )
    await hub.queries.run("SELECT * FROM devices", size=40, continuation=first.continuation)
    assert read == [f"d{number}" for number in range(40, 50)]


async def test_the_queue_of_a_device_is_bounded_by_memory() -> None:
    hub = make_hub()
    put(hub, IdentityKey("d"))
    properties = {str(number): "" for number in range(10_000)}
    message = Message(b"", {}, properties)
    for _ in range(limits.C2D_QUEUE_BYTES // message.memory):
        hub.cloud_to_device.send("d", message)
    with pytest.raises(errors.DeviceMaximumQueueSizeExceeded):
        hub.cloud_to_device.send("d", message)
    assert 1 <= hub.cloud_to_device.pending("d") < 10
    hub.cloud_to_device.purge("d")
    for _ in range(50):
        hub.cloud_to_device.send("d", Message(bytes(limits.C2D_MESSAGE_BYTES)))
