"""Which estimate of a quantity is quoted where there is room for one only, and how it is quoted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from knockem_dagster.reports.wording import number

NO_INTERVAL = "no interval: the method gives none"

_OWN_METHODS = ("weighing", "skeletons by prefix search")
"""Methods of these names are quoted, published ones beside them are in the table only."""
DECLINED = "; declined: "
"""Between the name of a method and why it gave no value, or no interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate as it is quoted: `value` and the ends of its interval are NaN where there are none."""

    quantity: str
    value: float
    low: float
    high: float
    level: float
    method: str
    n: int

    @property
    def has_value(self) -> bool:
        """Tell whether there is a value."""
        return math.isfinite(self.value)

    @property
    def has_interval(self) -> bool:
        """Tell whether both ends of the interval are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def reason(self) -> str:
        """Why the method declined to give a value or an interval; empty where it did not."""
        return self.method.partition(DECLINED)[2]

    @property
    def ends(self) -> str:
        """The interval as text, empty without one."""
        return interval_text(self.low, self.high)

    @property
    def interval(self) -> str:
        """The interval with its nominal coverage, or that there is none."""
        return f"{coverage_text(self.level)} interval {self.ends}".strip() if self.ends else NO_INTERVAL

    @property
    def brief(self) -> str:
        """Value and interval for a cell of a table."""
        return f"{number(self.value)} ({self.ends})" if self.ends else number(self.value)


def interval_text(low: float, high: float) -> str:
    """Return an interval as text, empty when an end is missing."""
    return f"{number(low)} to {number(high)}" if math.isfinite(low) and math.isfinite(high) else ""


def coverage_text(level: float) -> str:
    """Return the nominal coverage of an interval as text, empty when it is missing."""
    return f"{100 * level:.3g}%" if math.isfinite(level) else ""


def estimates_of(table: pd.DataFrame) -> dict[str, list[Estimate]]:
    """Return the estimates by quantity; of each the one to be quoted first.

    Our own methods come before the published ones, even where they have declined: what they declined is not to be had
    from a method that does not check. Among published ones, one that gave a value comes first.
    """
    found: dict[str, list[Estimate]] = {}
    for row in table.to_dict("records"):
        one = Estimate(
            quantity=str(row["quantity"]),
            value=float(row["value"]),
            low=float(row["low"]),
            high=float(row["high"]),
            level=float(row["level"]),
            method=str(row["method"]),
            n=int(row["n"]),
        )
        found.setdefault(one.quantity, []).append(one)
    for each in found.values():
        each.sort(key=lambda one: (not one.method.startswith(_OWN_METHODS), not one.has_value))
    return found
