"""The command: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import json
import os
import platform
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import FULL, QUICK, Effort, Measure, Round
from benchmarks.load import read_round
from benchmarks.measures import MEASURES
from benchmarks.peers import find_mosquitto, serving
from benchmarks.processes import (
    CLIENTS_CORE,
    Program,
    ProgramError,
    allow_files,
    kill_children,
    python,
)
from benchmarks.table import Figure, Line, render, summarize
from benchmarks.wires import SELECTABLE

_DESCRIPTION = """\
How fast the emulator is, beside what it is compared with, measured in the same run. Everything that
is needed is started on a loopback address of its own, and ends with the run. It takes some minutes
and wants a quiet machine with two cores: one for a server, one for who measures.
"""

_EPILOG = """\
peers:
  mosquitto   what MQTT over TLS costs; where it isn't installed, its columns are empty
  hello       what HTTPS costs: bare aiohttp with the emulator's event loop and TLS settings
  nod         what an answer over TLS costs in Python: the emulator's event loop and TLS settings,
              which acknowledges each packet unread

columns:
  emulator, peer   the median of the rounds
  ratio            emulator by peer, the median of the rounds' own ratios; then the least and
                   the greatest of them
  reach            what the ratio, or the figure itself, should be
  bound            who had no more to give, server or client; others: other programs left them
                   too little; latency: they waited for one another. Then the share of a core that
                   each of the three used

Messages have 100 bytes, so have a method's payload and its answer. A figure that its client bounds
says how fast the client is.

measures:
{measures}

examples:
  python -m benchmarks                            everything
  python -m benchmarks --quick                    see that it works: its figures mean little
  python -m benchmarks --only method --only query what has "method" or "query" in its name
  python -m benchmarks --json > figures.json      for a program to read
"""

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table; gives the exit status: 0, or 1 if something failed."""
    options = _parser().parse_args(arguments)
    wanted = [name.lower() for name in options.only]
    chosen = [
        (number, figures)
        for number, measure in enumerate(MEASURES)
        if (figures := [each for each in measure.figures if _matches(each, wanted)])
    ]
    if not chosen:
        print("benchmarks: nothing has such a name. --help shows all.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as after an error: servers end as well
    effort = QUICK if options.quick else FULL
    rounds = options.rounds or (1 if options.quick else 5)
    machine = _machine()
    lines: list[Line] = []
    try:
        for number, figures in chosen:
            print(f"{figures[0].name} ...", file=sys.stderr, flush=True)
            lines += _measure(number, figures, rounds, effort)
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return _INTERRUPTED
    if options.json:
        document = {
            "machine": machine,
            "quick": options.quick,
            "lines": [line.document() for line in lines],
        }
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(f"{name}: {value}" for name, value in machine.items()))
        if options.quick:
            print(f"quick: a few messages, and of many devices {effort.share:.0%}. Not to compare.")
        print(f"\n{render(lines)}")
    return 1 if any(line.why for line in lines) else 0


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {figure.name}" for measure in MEASURES for figure in measure.figures)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(measures=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument(
        "--rounds",
        type=_rounds,
        metavar="N",
        help="how often to measure each figure and its peer, in turns (default: 5; 1 if quick; "
        "less for what takes long)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="measure what has this in its name, in any case; * stands for anything; may be "
        "repeated",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round with few devices, for a smoke test"
    )
    return parser


def _rounds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


def _matches(figure: Figure, wanted: Sequence[str]) -> bool:
    name = figure.name.lower()
    return not wanted or any(fnmatch.fnmatchcase(name, f"*{each}*") for each in wanted)


def _measure(number: int, figures: Sequence[Figure], rounds: int, effort: Effort) -> list[Line]:
    """Do one measure; gives the lines of the figures that are wanted of it."""
    measure = MEASURES[number]
    rounds = min(rounds, measure.most_rounds or rounds)
    why = _obstacle(measure, effort)
    measured: list[Round] = []
    if not why:
        try:
            measured = list(_run(number, measure, rounds, effort))
        except (ProgramError, OSError) as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            why = str(error).splitlines()[-1]
    if why:
        return [Line(figure, why=why) for figure in figures]
    samples = dict(zip(measure.figures, zip(*measured, strict=True), strict=True))
    installed = find_mosquitto() is not None
    missing = "no peer" if installed else "mosquitto isn't installed"
    return [summarize(figure, samples[figure], missing=missing) for figure in figures]


def _obstacle(measure: Measure, effort: Effort) -> str:
    """Tell why this system can't do a measure; empty if it can."""
    devices = effort.devices(measure.devices)
    if SELECTABLE is not None and devices > SELECTABLE:
        return f"Windows watches no more than {SELECTABLE} connections"
    # What a server opens for itself counts as well.
    if (room := allow_files(devices)) < devices:
        return f"{devices} connections, and the system has room for {room} (ulimit -n)"
    return ""


def _run(number: int, measure: Measure, rounds: int, effort: Effort) -> Iterator[Round]:
    runs = [1] * rounds if measure.fresh else [rounds]
    for each in runs:
        with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
            yield from _load(number, measure, Path(name), each, effort)


def _load(
    number: int, measure: Measure, folder: Path, rounds: int, effort: Effort
) -> Iterator[Round]:
    """Run the process that measures, between the start and the end of its servers."""
    command = python("-m", "benchmarks.load", str(number))
    with (
        serving(measure, folder, rounds, effort) as bench,
        Program(command, folder / "load.log", bench.to_json(), core=CLIENTS_CORE) as load,
    ):
        for line in load.process.stdout or ():
            yield read_round(line)
        if load.process.wait() != 0:
            raise ProgramError(load.errors or "The measuring process ended without a word.")


def _machine() -> dict[str, Any]:
    """Tell what the figures were measured on."""
    versions = [f"Python {platform.python_version()}", ssl.OPENSSL_VERSION]
    for library in ("aiohttp", "amqtt", "uvloop"):
        try:
            versions.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {library}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "versions": ", ".join(versions),
        "mosquitto": find_mosquitto() or "not installed",
        "load before": load if load is None else round(load, 2),
    }


if __name__ == "__main__":
    try:
        status = main()
    finally:
        kill_children()
    sys.exit(status)
