"""Measures how fast the emulator is, beside its peers in the same run.

Every server listens on a loopback address of its own and ends with the run. A run takes five to ten
minutes. It needs a quiet machine with two cores: one for the servers, one for the client.

peers:
  mosquitto   the cost of MQTT over TLS; if it is not installed, its columns say so
  rabbitmq    the cost of AMQP 1.0 over TLS, with its plugin; if it is not installed, as above
  hello       the cost of HTTPS: bare aiohttp with the event loop and TLS settings of the emulator
  nod         the cost of an answer over TLS in Python: the same event loop and TLS settings; it
              acknowledges each packet unread

columns:
  emulator, peer   the median of the rounds
  ratio            the median of the rounds' own ratios, emulator by peer; then the least and the
                   greatest of them
  reach            the promised bound of the ratio (x), or of the emulator's value
  CPU              how busy the server, the client and all other programs were, in shares of one
                   core. If the client is near 100%, the value is the speed of the client. If
                   others used much, run again on a quiet machine. If neither server nor client
                   is near 100%, they wait for each other.

Examples:
  python -m benchmarks                            everything
  python -m benchmarks --quick                    check that it works; the values mean little
  python -m benchmarks --only method --only query rows with "method" or "query" in the name
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import os
import platform
import signal
import ssl
import sys
from collections.abc import Sequence

import psutil

from benchmarks.bench import Measure
from benchmarks.measures import MEASURES
from benchmarks.servers import CLIENT_CORE, ProgramError, find_mosquitto, stay_on_core
from benchmarks.table import Line, Row, render, summarize

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table.

    Returns:
        the exit status: 0; 1 if a row was not measured; 2 for a wrong option.
    """
    options = _parser().parse_args(arguments)
    chosen = [
        (measure, rows)
        for measure in MEASURES
        if (rows := [row for row in measure.rows if _matches(row, options.only)])
    ]
    if not chosen:
        print("benchmarks: No row has such a name. --help lists all rows.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end as well
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a start is measured with bytecode
    machine = _machine()
    _allow_files()
    stay_on_core(CLIENT_CORE)
    lines: list[Line] = []
    try:
        for measure, rows in chosen:
            print(f"{rows[0].name} ...", file=sys.stderr, flush=True)
            lines += _measure(measure, rows, options)
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130  # the status of a program that Ctrl-C ended, as in shells
    finally:  # a server whose start was interrupted may be left
        for process in psutil.Process().children(recursive=True):
            process.kill()
    print(machine)
    if options.quick:
        print("quick: few messages, and a tenth of the devices. Do not compare the values.")
    print(f"\n{render(lines)}")
    return 1 if any(line.why for line in lines) else 0


def _parser() -> argparse.ArgumentParser:
    names = "".join(f"\n  {row.name}" for measure in MEASURES for row in measure.rows)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"rows:{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round with few devices, as a smoke test")
    add("--rounds", type=_rounds, metavar="N", help="number of rounds (default: 5, 3 or 1)")
    text = "measure rows with this in the name; * stands for any text; may be repeated"
    add("--only", action="append", default=[], metavar="PATTERN", help=text)
    return parser


def _rounds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"Invalid number of rounds {text!r}: use 1 or more.")
    return int(text)


def _matches(row: Row, patterns: Sequence[str]) -> bool:
    name = row.name.lower()
    return not patterns or any(fnmatch.fnmatchcase(name, f"*{p.lower()}*") for p in patterns)


def _measure(measure: Measure, rows: Sequence[Row], options: argparse.Namespace) -> list[Line]:
    """Measure all rounds; return the lines of the chosen rows."""
    quick = options.quick
    rounds = options.rounds or (1 if quick else measure.rounds)
    try:
        samples = [measure.round(number, quick=quick) for number in range(rounds)]
    except (ProgramError, psutil.Error, OSError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        why = (str(error) or type(error).__name__).splitlines()[-1]
        return [Line(row, why=why) for row in rows]
    lines = map(summarize, measure.rows, zip(*samples, strict=True))
    return [line for line in lines if line.row in rows]


def _allow_files() -> None:
    """Raise the limit of open files, as far as the system allows: each connection is a file."""
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 20_000 if most == resource.RLIM_INFINITY else most
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _machine() -> str:
    """Return the facts of the machine."""
    names = ("aiohttp", "amqtt", "uvloop")
    found = (each for each in importlib.metadata.distributions() if each.name in names)
    libraries = ", ".join(sorted(f"{each.name} {each.version}" for each in found))
    return (
        f"system: {platform.platform()}, {os.cpu_count()} cores\n"
        f"versions: Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {libraries}\n"
        f"mosquitto: {find_mosquitto() or 'not installed'}\n"
        f"load before: {psutil.getloadavg()[0]:.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())
