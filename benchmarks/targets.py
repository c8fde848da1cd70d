"""A measured quantity beside its target and what the published procedure achieves, with an honest verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import stats

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
    decided: Verdict | None = None

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

    @classmethod
    def rmse(
        cls,
        name: str,
        errors: Sequence[float],
        *,
        most: float | None = None,
        published: float | None = None,
        source: str = "",
    ) -> TargetRow:
        """Return the row of the root of the mean square of these errors; its standard error by the delta method."""
        squares = np.square(np.asarray(errors, dtype=np.float64))
        value = math.sqrt(float(squares.mean()))
        error = (
            float(squares.std(ddof=1)) / math.sqrt(squares.size) / (2 * value) if squares.size > 1 and value else 0.0
        )
        return cls(name, value, error, squares.size, None, most, published, source)

    @classmethod
    def coverage(
        cls, name: str, covered: Sequence[bool], *, published: float | None = None, source: str = ""
    ) -> TargetRow:
        """Return the row of a share that should be .95: its binomial interval reaches that, and excludes .90."""
        share = TargetRow.of(name, covered, least=0.9, published=published, source=source)
        interval = stats.binomtest(int(np.sum(covered)), len(covered)).proportion_ci()
        verdict = (
            "reached"
            if interval.low > 0.9 and interval.high >= 0.95
            else "missed"
            if interval.high < 0.95
            else "undecided"
        )
        return replace(share, decided=verdict)

    @property
    def verdict(self) -> Verdict:
        """Tell whether the target is reached: undecided within two standard errors, or with too small an n."""
        if self.decided is not None:
            return self.decided
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


def row_to_fields(row: TargetRow) -> dict[str, Any]:
    """Return the row's fields and verdict for a JSON object; what is missing is null."""
    fields = {**asdict(row), "verdict": row.verdict}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in fields.items()}


def row_from_fields(fields: dict[str, Any]) -> TargetRow:
    """Return the row of such an object. Raises KeyError or TypeError when it is none."""
    given = {name: value for name, value in fields.items() if name != "verdict"}
    given |= {name: math.nan for name in ("value", "standard_error") if fields[name] is None}
    return TargetRow(**given)


def as_json(rows: Sequence[TargetRow]) -> str:
    """Return the rows as a JSON list of their fields and verdict."""
    return json.dumps([row_to_fields(row) for row in rows], indent=2)


HEADINGS = ("quantity", "target", "measured", "standard error", "n", "published", "verdict", "published figure")
NUMERIC = ("target", "measured", "standard error", "n", "published")
"""The headings of numbers, which stand to the right."""


def cells(row: TargetRow) -> tuple[str, ...]:
    """Return the row in words, one for each of HEADINGS."""
    return (
        row.name,
        row.target,
        _number(row.value),
        "" if math.isnan(row.standard_error) else _number(float(f"{row.standard_error:.2g}")),
        f"{row.n:,}",
        "" if row.published is None else _number(row.published),
        row.verdict,
        row.source,
    )


def print_table(rows: Sequence[TargetRow], *, title: str, console: Console | None = None) -> None:
    """Print the rows as a table for people."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in NUMERIC else "left")
    for row in rows:
        table.add_row(*cells(row))
    (console or Console()).print(table)


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
