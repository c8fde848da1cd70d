"""The redundant sets that a search found, as its table, and what it costs to lose each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.score_model import Effect

COLUMNS = {"set": "int64", "site": "int64", "penalty": "float64", "low": "float64", "high": "float64"}
SORT_KEY = ("set", "site")

_COMPLETE, _COMPETITIONS = "searched to the end", "competitions of the search"
_RESOLUTION, _RAN_OUT = "resolution of the search (thresholds)", "additive sites ran out"


@dataclass(frozen=True, slots=True, eq=False)
class FoundSets:
    """What was enumerated, one row per set and site (COLUMNS), with what losing the set costs (thresholds).

    A set of one is a site that costs something by itself on some background, without any mate being found: an effect
    of its own that weighing did not see, or mates that were not found. The search `is_complete` unless its budget ended
    before; `num_competitions` were asked for. Sets that cost less than `resolution` (thresholds) may have been missed,
    and others where additive sites `ran_out` that make costs visible.
    """

    table: pd.DataFrame
    is_complete: bool
    num_competitions: int
    resolution: float = 0.0
    ran_out: bool = False

    @classmethod
    def from_table(cls, table: pd.DataFrame, numbers: Mapping[str, float]) -> FoundSets:
        """Rebuild the result from its stored table and `numbers`. Raises ValueError when columns are missing."""
        frame = checked_frame(COLUMNS, table, sort_by=SORT_KEY)
        complete, competitions = bool(numbers[_COMPLETE]), int(numbers[_COMPETITIONS])
        resolution, ran_out = float(numbers.get(_RESOLUTION, 0.0)), bool(numbers.get(_RAN_OUT, 0))
        return cls(frame, complete, competitions, resolution, ran_out)

    @property
    def numbers(self) -> dict[str, float]:
        """Return what belongs to the result beside its table."""
        return {
            _COMPLETE: int(self.is_complete),
            _COMPETITIONS: self.num_competitions,
            _RESOLUTION: self.resolution,
            _RAN_OUT: int(self.ran_out),
        }

    @property
    def costs(self) -> dict[frozenset[int], Effect]:
        """Return what each set costs (thresholds), those of one site included; the table does not tell its `n`."""
        groups = self.table.groupby("set")
        costs = groups[["penalty", "low", "high"]].first().itertuples(index=False, name=None)
        return {sites: Effect(*cost, n=0) for sites, cost in zip(groups["site"].agg(frozenset), costs, strict=True)}

    @property
    def sets(self) -> tuple[frozenset[int], ...]:
        """Return the sets of two and more sites."""
        return tuple(sites for sites in self.costs if len(sites) > 1)

    @property
    def lone(self) -> tuple[int, ...]:
        """Return the sites that are sets of one."""
        return tuple(site for sites in self.costs if len(sites) == 1 for site in sites)


def table_of_sets(groups: Sequence[Sequence[int]], penalties: Sequence[Effect]) -> pd.DataFrame:
    """Return one row per set and site (COLUMNS), from the members of each set and what it costs (thresholds)."""
    rows = [
        (number, site, penalty.value, penalty.low, penalty.high)
        for number, (group, penalty) in enumerate(zip(groups, penalties, strict=True))
        for site in group
    ]
    columns = zip(*rows, strict=True) if rows else [[] for _ in COLUMNS]
    return typed_frame(COLUMNS, dict(zip(COLUMNS, columns, strict=True)), sort_by=SORT_KEY)
