"""A measured quantity beside its target and what the published procedure achieves, with an honest verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

Verdict = Literal["reached", "missed", "undecided", ""]
_STANDARD_ERRORS = 2


@dataclass(frozen=True, slots=True)
class TargetRow:
    """A `value` with its `standard_error` from `n` repetitions, to lie between `least` and `most` where given.

    `published` is what the published procedure achieves; `source` tells whether that was measured by this very command.
    Below `needed` repetitions nothing is decided.
    """

    name: str
    value: float
    standard_error: float
    n: int
    least: float | None = None
    most: float | None = None
    published: float | None = None
    source: str = ""
    needed: int = 2

    @classmethod
    def of(
        cls,
        name: str,
        values: Sequence[float],
        *,
        least: float | None = None,
        most: float | None = None,
        published: float | None = None,
        source: str = "",
        needed: int = 2,
    ) -> TargetRow:
        """Return the row of the mean of these values; its standard error is missing for a single one."""
        sample = np.asarray(values, dtype=np.float64)
        error = float(sample.std(ddof=1)) / math.sqrt(sample.size) if sample.size > 1 else math.nan
        return cls(name, float(sample.mean()), error, sample.size, least, most, published, source, needed)

    @property
    def verdict(self) -> Verdict:
        """Tell whether the target is reached: undecided within two standard errors, or with too small an n."""
        limits = [limit for limit in (self.least, self.most) if limit is not None]
        if not limits:
            return ""
        nearest = min(abs(self.value - limit) for limit in limits)
        if self.n < self.needed or 0 < nearest <= _STANDARD_ERRORS * self.standard_error:
            return "undecided"
        inside = (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)
        return "reached" if inside else "missed"

    @property
    def target(self) -> str:
        """Return the target in words."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.most is not None:
            return f"<= {self.most:,g}"
        return "" if self.least is None else f">= {self.least:,g}"


def as_json(rows: Sequence[TargetRow]) -> str:
    """Return the rows as a JSON list of their fields and verdict; what is missing is null."""
    fields = [{**asdict(row), "verdict": row.verdict} for row in rows]
    clean = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in each.items()}
        for each in fields
    ]
    return json.dumps(clean, indent=2)


def print_table(rows: Sequence[TargetRow], *, title: str, console: Console | None = None) -> None:
    """Print the rows as a table for people."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("quantity")
    for name in ("target", "measured", "standard error", "n", "published"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("published figure")
    for row in rows:
        table.add_row(
            row.name,
            row.target,
            f"{row.value:,.4g}" if abs(row.value) < 1000 else f"{row.value:,.0f}",
            "" if math.isnan(row.standard_error) else f"{row.standard_error:,.2g}",
            f"{row.n:,}",
            "" if row.published is None else f"{row.published:,.5g}",
            row.verdict,
            row.source,
        )
    (console or Console()).print(table)
