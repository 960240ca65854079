"""The table: the medians of the rounds, the ratio to a peer, and whether a bound holds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Args:
        name: what is measured.
        unit: the unit of both values.
        peer: what the emulator is compared with; empty without a peer.
        reach: the promised bound. `<= 1.25 x` is a bound of the ratio to the peer, `<= 100` a
            bound of the emulator's value. Empty without a bound.
    """

    name: str
    unit: str
    peer: str = ""
    reach: str = ""


class Cpu(NamedTuple):
    """How busy the processors were, as shares of one core.

    Args:
        server: the measured server; the busiest, if there were several.
        client: the process that measured.
        others: everything else on the machine.
    """

    server: float
    client: float
    others: float

    def __str__(self) -> str:
        return f"{self.server:.0%} {self.client:.0%} {self.others:.0%}"


class Reading(NamedTuple):
    """One value of one server in one round."""

    value: float
    cpu: Cpu | None = None


# The readings of one row in one round: the emulator's, and the peer's if there is a peer.
Sample = tuple[Reading, Reading | None]


@dataclass(frozen=True)
class Line:
    """A row with its results.

    Args:
        value: the median of the emulator's values.
        peer: the median of the peer's values.
        ratios: value by peer of each round, in ascending order; empty without a peer.
        why: why the results are missing; empty if they are not.
    """

    row: Row
    value: float | None = None
    peer: float | None = None
    ratios: Sequence[float] = ()
    cpu: Cpu | None = None
    peer_cpu: Cpu | None = None
    why: str = ""

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' own ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def verdict(self) -> str:
        """Whether the bound holds: reached, missed, or `-` if that cannot be told."""
        if self.why:
            return "not measured"
        judged = self.ratio if self.row.reach.endswith("x") else self.value
        if not self.row.reach or judged is None:
            return "-"
        sign, bound = self.row.reach.split()[:2]
        holds = judged <= float(bound) if sign == "<=" else judged >= float(bound)
        return "reached" if holds else "missed"


def summarize(row: Row, samples: Sequence[Sample]) -> Line:
    """Return the line of a row from the samples of its rounds."""
    readings = [reading for reading, _ in samples]
    peers = [peer for _, peer in samples if peer is not None]
    return Line(
        row,
        value=statistics.median(each.value for each in readings),
        peer=statistics.median(each.value for each in peers) if peers else None,
        ratios=sorted(ours.value / peer.value for ours, peer in samples if peer is not None),
        cpu=_middle(each.cpu for each in readings),
        peer_cpu=_middle(each.cpu for each in peers),
    )


def _middle(shares: Iterable[Cpu | None]) -> Cpu | None:
    known = [each for each in shares if each is not None]
    return Cpu(*map(statistics.median, zip(*known, strict=True))) if known else None


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that this share of all values does not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(rank, 1) - 1]


_HEAD = (
    *("measure", "emulator", "peer", "ratio", "of the rounds", "reach", "verdict"),
    *("CPU: server client others", "CPU beside the peer"),
)


def render(lines: Sequence[Line]) -> str:
    """Return the table as text, and below it why a row was not measured."""
    rows = [_HEAD, *map(_cells, lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    reasons = [f"not measured: {line.row.name}: {line.why}" for line in lines if line.why]
    return "\n".join([*text, *([""] if reasons else []), *reasons])


def _cells(line: Line) -> tuple[str, ...]:
    row = line.row
    peer = f"{_quantity(line.peer, row.unit)} {row.peer}"
    if row.peer and line.peer is None and not line.why:
        peer = f"{row.peer}: not installed"
    return (
        row.name,
        _quantity(line.value, row.unit),
        peer if row.peer else "-",
        "-" if line.ratio is None else f"{line.ratio:.2f}",
        f"{line.ratios[0]:.2f}..{line.ratios[-1]:.2f}" if line.ratios else "-",
        row.reach or "-",
        line.verdict,
        str(line.cpu or "-"),
        str(line.peer_cpu or "-"),
    )


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"
