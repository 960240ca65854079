"""The arithmetic and the table of the benchmarks; one row is measured, its value is not judged."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import https, mqtt
from benchmarks.bench import Bench
from benchmarks.measures import MEASURES
from benchmarks.servers import Program, ProgramError
from benchmarks.table import Cpu, Line, Reading, Row, Sample, percentile, render, summarize
from tests.processes import PATIENCE, Console, clean_environment, posix_only

RATE = Row("messages", "/s", "mosquitto", ">= 1 x")
TIME = Row("calls", "ms", "hello", "<= 1.5 x")
GROWTH = Row("growth", "x", "mosquitto", "<= 1.2")
BARE = Row("queries", "ms", reach="<= 100")
SHOWN = Row("shown", "ms", "hello")


def samples(*pairs: tuple[float, float | None]) -> list[Sample]:
    return [(Reading(value), None if peer is None else Reading(peer)) for value, peer in pairs]


# --- the arithmetic


def test_the_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    line = summarize(TIME, samples((1, 1), (4, 2), (30, 5)))
    # The ratio is not 4 / 2 because these are the medians: it is the middle one of 1, 2 and 6.
    assert (line.value, line.peer, line.ratio, line.ratios) == (4, 2, 2, [1, 2, 6])
    assert summarize(TIME, samples((10, 1), (4, 4), (3, 5))).ratio == 1


def test_the_median_of_an_even_number_of_rounds_is_between_the_middle_two() -> None:
    line = summarize(TIME, samples((1, 1), (2, 1), (4, 1), (9, 1)))
    assert (line.value, line.ratio) == (3, 3)


@pytest.mark.parametrize(
    ("row", "value", "peer", "verdict"),
    [
        (TIME, 1.5, 1.0, "reached"),
        (TIME, 1.51, 1.0, "missed"),
        (RATE, 100, 100, "reached"),
        (RATE, 99, 100, "missed"),
        (BARE, 100, None, "reached"),
        (BARE, 101, None, "missed"),
        (GROWTH, 1.2, 0.5, "reached"),
        (GROWTH, 1.3, 2.0, "missed"),
        (SHOWN, 9, 1, "-"),
        (TIME, 1.0, None, "-"),
    ],
)
def test_the_verdict_compares_the_ratio_or_the_value_with_the_bound(
    row: Row, value: float, peer: float | None, verdict: str
) -> None:
    assert summarize(row, samples((value, peer))).verdict == verdict


@given(st.lists(st.floats(allow_nan=False), min_size=1), st.floats(0.001, 1))
def test_a_percentile_has_its_share_of_the_values_at_or_below_it(
    values: list[float], share: float
) -> None:
    found, count = percentile(values, share), len(values)
    assert sum(value <= found for value in values) >= share * count
    assert sum(value < found for value in values) < share * count


@pytest.mark.parametrize(("number", "order"), [(0, "abc"), (1, "cba"), (2, "abc")])
def test_each_second_round_measures_in_the_opposite_order(number: int, order: str) -> None:
    called: list[str] = []

    def side(name: str) -> str:
        called.append(name)
        return name.upper()

    nothing: Any = None  # this test needs no connections
    bench = Bench({}, nothing, Path(), number, quick=False)
    results = bench.in_turns(**{name: partial(side, name) for name in "abc"})
    assert results == {"a": "A", "b": "B", "c": "C"}
    assert "".join(called) == order


# --- the text


def cells(text: str) -> list[str]:
    return re.split(r" {2,}", text)


def test_a_line_of_the_table_shows_all_results_of_a_row() -> None:
    line = summarize(
        RATE,
        [
            (Reading(12_345.6, Cpu(0.98, 0.31, 0.02)), Reading(10_000, Cpu(0.4, 0.35, 0))),
            (Reading(12_345.6, Cpu(0.96, 0.31, 0.02)), Reading(5_000, Cpu(0.4, 0.35, 0))),
        ],
    )
    heading, text = render([line]).splitlines()
    assert cells(heading)[0] == "measure"
    assert cells(text) == [
        *("messages", "12,346 /s", "7,500 /s mosquitto", "1.85", "1.23..2.47", ">= 1 x", "reached"),
        *("97% 31% 2%", "40% 35% 0%"),
    ]


def test_a_row_without_its_peer_says_so() -> None:
    _, text = render([summarize(RATE, samples((1, None)))]).splitlines()
    assert cells(text)[:4] == ["messages", "1 /s", "mosquitto: not installed", "-"]


def test_the_table_says_why_a_row_was_not_measured() -> None:
    text = render([Line(RATE, why="it broke"), summarize(TIME, samples((1, 2)))])
    assert cells(text.splitlines()[1])[-3:] == ["not measured", "-", "-"]
    assert text.endswith("\n\nnot measured: messages: it broke")


def test_each_row_has_its_own_name() -> None:
    names = [row.name for measure in MEASURES for row in measure.rows]
    assert len(names) == len(set(names))


# --- what the clients read


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_packet_is_whole_when_its_last_byte_is_there(body: bytes, cut: int) -> None:
    packet = mqtt.packet(0x30, body)
    assert mqtt.whole(packet + b"more") == len(packet)
    assert mqtt.whole(packet[: min(cut, len(packet) - 1)]) == 0


def test_a_device_answers_the_method_that_it_received() -> None:
    request = mqtt.publish(b"$iothub/methods/POST/reboot/?$rid=7f", b"x" * 200)
    expected = mqtt.publish(b"$iothub/methods/res/200/?$rid=7f", b"done")
    assert mqtt.method_answer(request, b"done") == expected


def test_an_answer_is_whole_when_its_body_is_there() -> None:
    answer = b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello"
    assert https.whole(answer) == len(answer)
    assert https.whole(answer[:-1]) == 0
    assert https.whole(answer[:20]) == 0


def test_an_error_of_the_server_is_not_measured() -> None:
    with pytest.raises(ValueError, match="404"):
        https.whole(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


# --- the command


def test_a_server_that_does_not_start_raises_what_it_wrote(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no port')"]
    with (
        Program(command, tmp_path / "log") as program,
        pytest.raises(ProgramError, match="no port"),
    ):
        program.wait_for(lambda _: False)


def test_help_lists_the_options_and_the_rows() -> None:
    with Console("-m", "benchmarks", "--help") as command:
        assert command.wait() == 0
        text = command.output
    names = [row.name for measure in MEASURES for row in measure.rows]
    for word in ("--rounds", "--only", "--quick", "mosquitto", "Examples:", *names):
        assert word in text


@pytest.mark.parametrize("wrong", [["--only", "no such thing"], ["--rounds", "0"]])
def test_a_wrong_option_is_an_error(wrong: list[str]) -> None:
    with Console("-m", "benchmarks", *wrong) as command:
        assert command.wait() == 2
        assert command.lines == []
        assert command.errors


def running_in(folder: Path) -> list[str]:
    """Return the commands of the programs that have a file of a folder as an argument."""
    commands = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            commands.append(" ".join(process.cmdline()))
    return [command for command in commands if str(folder) in command]


def test_a_row_is_measured_and_all_servers_end(tmp_path: Path) -> None:
    environment = clean_environment(TMPDIR=str(tmp_path))
    options = ("--quick", "--only", "Twin READ")
    with Console("-m", "benchmarks", *options, environment=environment) as command:
        assert command.wait() == 0, command.output
        row = cells(command.lines[-1])
    assert row[0] == "twin read, p50"
    assert re.fullmatch(r"\d\S* ms", row[1])
    assert re.fullmatch(r"\d\S* ms hello", row[2])
    assert row[6] in ("reached", "missed")
    assert running_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@posix_only
@pytest.mark.parametrize(
    ("way", "status"), [(Console.press_ctrl_c, 130), (Console.terminate, 1)], ids=["^C", "TERM"]
)
def test_all_servers_end_when_the_command_is_interrupted(
    way: Callable[[Console], int], status: int, tmp_path: Path
) -> None:
    environment = clean_environment(TMPDIR=str(tmp_path))
    options = ("--rounds", "10000", "--only", "twin read")
    with Console("-m", "benchmarks", *options, environment=environment) as command:
        deadline = time.monotonic() + PATIENCE
        while len(running_in(tmp_path)) < 2:  # the emulator and the bare server
            assert command.running, command.output
            assert time.monotonic() < deadline, command.output
            time.sleep(0.05)
        assert way(command) == status
        assert not any("Traceback" in line for line in command.errors), command.output
    assert running_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
