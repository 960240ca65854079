"""The table: what rounds say of a figure, its ratio to a peer, and whether that is within reach."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A process that works for this share of the time has no time left worth the name: the rest of it
# goes to switches between processes.
_BUSY = 0.85


@dataclass(frozen=True)
class Reach:
    """What a figure should reach.

    Args:
        number: a multiple of the peer's figure, or a figure itself.
        at_most: whether less is better.
        of_peer: whether the number is a multiple.
    """

    number: float
    at_most: bool = True
    of_peer: bool = True

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{sign} {self.number:g}{' x' if self.of_peer else ''}"

    def is_met(self, value: float) -> bool:
        """Whether a ratio, or a figure, is within reach."""
        return value <= self.number if self.at_most else value >= self.number


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Args:
        name: what is measured.
        unit: of the value and of the peer's.
        peer: what it is compared with; empty without one.
        reach: None where the figure is only shown.
    """

    name: str
    unit: str
    peer: str = ""
    reach: Reach | None = None


@dataclass(frozen=True)
class Work:
    """How busy the processors were while something was measured, as shares of one core.

    Args:
        server: of several servers, the busiest.
        client: the process that measured.
        others: what else ran on the machine, all of it.
        cores: how many cores there are.
    """

    server: float
    client: float
    others: float
    cores: int

    @property
    def bound(self) -> str:
        """Name who had no more to give."""
        busy = [
            name
            for name, share in (("server", self.server), ("client", self.client))
            if share >= _BUSY
        ]
        if not busy and self._full:
            return "others"
        return " and ".join(busy) or "latency"

    @property
    def _full(self) -> bool:
        """Whether programs that have no part in this kept server and client from their cores."""
        total = self.server + self.client + self.others
        return self.others >= 1 - _BUSY and total >= self.cores * _BUSY

    def __str__(self) -> str:
        return f"{self.bound} ({self.server:.0%} {self.client:.0%} {self.others:.0%})"


@dataclass(frozen=True)
class Sample:
    """What one round says of a figure.

    Args:
        peer: the peer's value in the same round; None if there is none.
        work: None where nothing served.
    """

    value: float
    peer: float | None = None
    work: Work | None = None
    peer_work: Work | None = None


@dataclass(frozen=True)
class Line:
    """A figure over all rounds.

    Args:
        ratio: the median of the rounds' own ratios, value by peer; None without a peer.
        spread: the least and the greatest of these ratios.
        missing: where there is no peer, why.
        why: in place of figures, why there are none.
    """

    figure: Figure
    rounds: int = 0
    value: float | None = None
    peer: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    work: Work | None = None
    peer_work: Work | None = None
    missing: str = ""
    why: str = ""

    @property
    def verdict(self) -> str:
        """Say whether the figure reaches what it should."""
        if self.why:
            return "not measured"
        reach = self.figure.reach
        if reach is None:
            return "-"
        judged = self.ratio if reach.of_peer else self.value
        if judged is None:
            return self.missing
        return "reached" if reach.is_met(judged) else "missed"

    def document(self) -> dict[str, Any]:
        """Write the line as JSON."""
        return {
            "measure": self.figure.name,
            "unit": self.figure.unit,
            "rounds": self.rounds,
            "value": self.value,
            "peer": {"name": self.figure.peer, "value": self.peer},
            "ratio": self.ratio,
            "spread": self.spread,
            "reach": None if self.figure.reach is None else str(self.figure.reach),
            "verdict": self.verdict,
            "why": self.why or None,
            "bound": _work_document(self.work),
            "peerBound": _work_document(self.peer_work),
        }


def summarize(figure: Figure, samples: Sequence[Sample], *, missing: str = "no peer") -> Line:
    """Make a line of at least one round's samples.

    The ratio is taken round by round, as value and peer of one round had the same machine.

    Args:
        missing: what to say where samples have no peer.
    """
    ratios = [sample.value / sample.peer for sample in samples if sample.peer]
    peers = [sample.peer for sample in samples if sample.peer is not None]
    return Line(
        figure,
        rounds=len(samples),
        value=statistics.median(sample.value for sample in samples),
        peer=statistics.median(peers) if peers else None,
        ratio=statistics.median(ratios) if ratios else None,
        spread=(min(ratios), max(ratios)) if ratios else None,
        work=_middle(sample.work for sample in samples),
        peer_work=_middle(sample.peer_work for sample in samples),
        missing=missing,
    )


def percentile(values: Iterable[float], share: float) -> float:
    """Give the value that this share of all values doesn't exceed, by the nearest rank."""
    ordered = sorted(values)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(rank, 1) - 1]


def render(lines: Sequence[Line]) -> str:
    """Write the table as text, and below it why something was not measured."""
    rows = [_HEAD, *map(_cells, lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    reasons = [f"not measured: {line.figure.name}: {line.why}" for line in lines if line.why]
    return "\n".join([*text, *([""] if reasons else []), *reasons])


_HEAD = (
    "measure",
    "emulator",
    "peer",
    "ratio",
    "of the rounds",
    "reach",
    "verdict",
    "bound (server client others)",
    "peer's bound",
)


def _cells(line: Line) -> tuple[str, ...]:
    figure = line.figure
    spread = "-" if line.spread is None else f"{line.spread[0]:.2f}..{line.spread[1]:.2f}"
    return (
        figure.name,
        _quantity(line.value, figure.unit),
        f"{_quantity(line.peer, figure.unit)} {figure.peer}" if figure.peer else "-",
        "-" if line.ratio is None else f"{line.ratio:.2f}",
        spread,
        "-" if figure.reach is None else str(figure.reach),
        line.verdict,
        "-" if line.work is None else str(line.work),
        "-" if line.peer_work is None else str(line.peer_work),
    )


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def _middle(works: Iterable[Work | None]) -> Work | None:
    known = [work for work in works if work is not None]
    if not known:
        return None
    return Work(
        statistics.median(work.server for work in known),
        statistics.median(work.client for work in known),
        statistics.median(work.others for work in known),
        known[0].cores,
    )


def _work_document(work: Work | None) -> Mapping[str, Any] | None:
    if work is None:
        return None
    shares = {"server": work.server, "client": work.client, "others": work.others}
    return {"by": work.bound, **{name: round(share, 3) for name, share in shares.items()}}
