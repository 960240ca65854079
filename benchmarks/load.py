"""The process that measures, so that nothing else has a part in it: `python -m benchmarks.load N`.

It does the measure of that number, reads what it is given to work with as JSON on stdin, and writes
a line of JSON for each round: the samples of its figures.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.bench import Bench, Round
from benchmarks.measures import MEASURES
from benchmarks.processes import allow_files
from benchmarks.table import Sample, Work


def read_round(line: str) -> Round:
    """Read the samples of one round."""
    return tuple(
        Sample(
            each["value"],
            each["peer"],
            each["work"] and Work(**each["work"]),
            each["peer_work"] and Work(**each["peer_work"]),
        )
        for each in json.loads(line)
    )


def main() -> None:
    """Measure, and write the rounds."""
    signal.signal(signal.SIGTERM, _end)
    measure = MEASURES[int(sys.argv[1])]
    allow_files(measure.devices)
    for samples in measure.run(Bench.from_json(sys.stdin.read())):
        print(json.dumps([asdict(sample) for sample in samples]), flush=True)


def _end(*_: Any) -> None:
    """End as after an error, so that what was started ends as well."""
    sys.exit(1)


if __name__ == "__main__":
    main()
