"""The benchmarks' table, and that a row of it can be measured: no figure is looked at."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import https, mqtt
from benchmarks.load import read_round
from benchmarks.measures import MEASURES
from benchmarks.processes import Program, python
from benchmarks.table import (
    Figure,
    Line,
    Reach,
    Sample,
    Work,
    percentile,
    render,
    summarize,
)
from tests.processes import PATIENCE, Console, clean_environment, posix_only

RATE = Figure("messages", "/s", "mosquitto", Reach(1.0, at_most=False))
TIME = Figure("calls", "ms", "hello", Reach(1.5))
BARE = Figure("queries", "ms", reach=Reach(100, of_peer=False))
SHOWN = Figure("shown", "ms", "hello")


def samples(*pairs: tuple[float, float | None]) -> list[Sample]:
    return [Sample(value, peer) for value, peer in pairs]


# --- the arithmetic


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    line = summarize(TIME, samples((1, 1), (4, 2), (30, 5)))
    assert (line.rounds, line.value, line.peer) == (3, 4, 2)
    # Not 4 / 2 because those are the medians, but as the middle one of 1, 2 and 6.
    assert (line.ratio, line.spread) == (2, (1, 6))
    assert summarize(TIME, samples((10, 1), (4, 4), (3, 5))).ratio == 1


def test_of_an_even_number_of_rounds_the_middle_two_count() -> None:
    line = summarize(TIME, samples((1, 1), (2, 1), (4, 1), (9, 1)))
    assert (line.value, line.ratio) == (3, 3)


@pytest.mark.parametrize(
    ("figure", "value", "peer", "verdict"),
    [
        (TIME, 1.5, 1.0, "reached"),
        (TIME, 1.51, 1.0, "missed"),
        (TIME, 0.1, 1.0, "reached"),
        (RATE, 100, 100, "reached"),
        (RATE, 99, 100, "missed"),
        (RATE, 300, 100, "reached"),
        (BARE, 100, None, "reached"),
        (BARE, 101, None, "missed"),
        (BARE, 99, 1, "reached"),
        (SHOWN, 9, 1, "-"),
        (TIME, 1.0, None, "mosquitto isn't installed"),
    ],
)
def test_the_verdict_compares_the_ratio_or_the_figure_with_its_reach(
    figure: Figure, value: float, peer: float | None, verdict: str
) -> None:
    line = summarize(figure, samples((value, peer)), missing="mosquitto isn't installed")
    assert line.verdict == verdict


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1), (0.501, 51)]
)
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile(reversed(range(1, 101)), share) == value


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0.001, 1))
def test_a_percentile_has_enough_below_it_and_not_more(values: list[float], share: float) -> None:
    found = percentile(values, share)
    count = len(values)
    assert sum(value <= found for value in values) >= share * count
    assert sum(value < found for value in values) < share * count


@pytest.mark.parametrize(
    ("server", "client", "others", "bound"),
    [
        (0.99, 0.40, 0.0, "server"),
        (0.40, 0.99, 0.0, "client"),
        (0.99, 0.99, 0.0, "server and client"),
        (0.50, 0.49, 0.0, "latency"),
        (0.50, 0.49, 1.0, "others"),
        (0.99, 0.49, 0.5, "server"),
        (0.10, 0.10, 0.9, "latency"),
    ],
)
def test_who_works_all_the_time_is_the_bound(
    server: float, client: float, others: float, bound: str
) -> None:
    assert Work(server, client, others, cores=2).bound == bound


# --- the text


def test_the_table_says_it_all_in_a_line() -> None:
    work, peer_work = Work(0.98, 0.31, 0.02, 2), Work(0.4, 0.35, 0.02, 2)
    line = summarize(RATE, [Sample(12_345.6, 10_000, work, peer_work)])
    heading, text = render([line]).splitlines()
    assert heading.split("  ")[0] == "measure"
    assert [cell.strip() for cell in text.split("  ") if cell.strip()] == [
        "messages",
        "12,346 /s",
        "10,000 /s mosquitto",
        "1.23",
        "1.23..1.23",
        ">= 1 x",
        "reached",
        "server (98% 31% 2%)",
        "latency (40% 35% 2%)",
    ]


def test_the_table_says_why_something_was_not_measured() -> None:
    text = render([Line(RATE, why="it broke"), summarize(TIME, samples((1, 2)))])
    assert text.splitlines()[1].split()[-4:] == ["not", "measured", "-", "-"]
    assert text.endswith("\n\nnot measured: messages: it broke")


def test_rounds_pass_from_process_to_process_unchanged() -> None:
    measured = (Sample(1.5, 2.0, Work(0.9, 0.1, 0.0, 2)), Sample(3.0))
    written = json.dumps([dataclasses.asdict(sample) for sample in measured])
    assert read_round(written) == measured


def test_each_figure_has_a_name_of_its_own() -> None:
    names = [figure.name for measure in MEASURES for figure in measure.figures]
    assert len(names) == len(set(names))


# --- what the clients read


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_packet_is_whole_when_its_last_byte_is_there(body: bytes, cut: int) -> None:
    packet = mqtt.packet(0x30, body)
    assert mqtt.whole(packet + b"more") == len(packet)
    assert mqtt.whole(packet[: min(cut, len(packet) - 1)]) == 0


def test_a_device_answers_the_method_that_it_was_sent() -> None:
    request = mqtt.publish("$iothub/methods/POST/reboot/?$rid=7f", b"x" * 200)
    answer = mqtt.method_answer(request, b"done")
    assert mqtt.topic_and_payload(answer) == (b"$iothub/methods/res/200/?$rid=7f", b"done")


def test_an_answer_is_whole_when_its_body_is_there() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello"
    assert https.whole(answer) == len(answer)
    assert https.whole(answer[:-1]) == 0
    assert https.whole(answer[:20]) == 0


def test_an_error_is_no_answer_to_measure() -> None:
    with pytest.raises(ValueError, match="404"):
        https.check(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


# --- the command


def test_help_teaches() -> None:
    with Console("-m", "benchmarks", "--help") as command:
        assert command.wait() == 0
        text = command.output
    for word in ("--json", "--rounds", "--only", "--quick", "mosquitto", "examples:"):
        assert word in text
    for measure in MEASURES:
        for figure in measure.figures:
            assert figure.name in text


@pytest.mark.parametrize("wrong", [["--only", "no such thing"], ["--rounds", "0"]])
def test_what_can_not_be_measured_is_said_in_a_line(wrong: list[str]) -> None:
    with Console("-m", "benchmarks", *wrong) as command:
        assert command.wait() == 2
        assert command.lines == []
        assert command.errors


def running_in(folder: Path) -> list[str]:
    """Find the programs that were started with files in a folder."""
    commands = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            commands.append(" ".join(process.cmdline()))
    return [command for command in commands if str(folder) in command]


def test_a_row_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    options = ("--quick", "--json", "--only", "Twin READ")
    environment = clean_environment(TMPDIR=str(tmp_path))
    with Console("-m", "benchmarks", *options, environment=environment) as command:
        assert command.wait() == 0, command.output
        (line,) = json.loads("\n".join(command.lines))["lines"]
    assert line["measure"] == "twin read, p50"
    assert line["value"] > 0
    assert line["peer"]["value"] > 0
    assert line["ratio"] == line["value"] / line["peer"]["value"]
    assert line["verdict"] in ("reached", "missed")
    assert running_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@posix_only
@pytest.mark.parametrize(
    ("way", "status"), [(Console.press_ctrl_c, 130), (Console.terminate, 1)], ids=["^C", "TERM"]
)
def test_nothing_is_left_when_it_is_interrupted(
    way: Callable[[Console], int], status: int, tmp_path: Path
) -> None:
    options = ("--rounds", "10000", "--only", "twin read")
    environment = clean_environment(TMPDIR=str(tmp_path))
    with Console("-m", "benchmarks", *options, environment=environment) as command:
        deadline = time.monotonic() + PATIENCE
        while len(running_in(tmp_path)) < 2:  # the hub, and the bare server beside it
            assert command.running, command.output
            assert time.monotonic() < deadline, command.output
            time.sleep(0.05)
        assert way(command) == status
        assert not any("Traceback" in line for line in command.errors), command.output
    assert running_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_start_leaves_nothing_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Timer.start

    def interrupted(timer: threading.Timer) -> None:
        start(timer)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Timer, "start", interrupted)
    before = set(threading.enumerate())
    command = python("-c", "input()")
    with pytest.raises(KeyboardInterrupt), Program(command, tmp_path / "log") as program:
        program.line("ready")
    # Python waits at its end for threads that are no daemons.
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)
    assert program.process.poll() is not None
