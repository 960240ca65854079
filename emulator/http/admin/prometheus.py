"""The text format of Prometheus, version 0.0.4 (Prometheus docs: exposition formats)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """A metric, with its values.

    Args:
        name: the name. A counter ends with `_total`; all others are gauges.
        help: what it measures, in one line.
        values: the value; or with a label, the value by the value of the label.
        label: the name of the label; "" if the metric has none.
    """

    name: str
    help: str
    values: float | Mapping[str, float]
    label: str = ""

    def lines(self) -> list[str]:
        """Return the metric as lines of text."""
        kind = "counter" if self.name.endswith("_total") else "gauge"
        lines = [f"# HELP {self.name} {_escape(self.help)}", f"# TYPE {self.name} {kind}"]
        if not isinstance(self.values, Mapping):
            return [*lines, f"{self.name} {self.values}"]
        for label, value in self.values.items():
            text = _escape(label).replace('"', r"\"")
            lines.append(f'{self.name}{{{self.label}="{text}"}} {value}')
        return lines


def write(metrics: Iterable[Metric]) -> bytes:
    """Write metrics as text."""
    return "\n".join([*(line for each in metrics for line in each.lines()), ""]).encode()


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
