"""What prefix search found: skeletons, with their resolution and what all their deletions cost together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import Effect

COLUMNS = {"skeleton": "int64", "site": "int64", "kept": "bool", "tested": "bool", "order": "int64"}
SORT_KEY = ("skeleton", "site")
SUMMARY_COLUMNS = {
    "skeleton": "int64",
    "kept": "int64",
    "untested": "int64",
    "competitions": "int64",
    "beneficial": "int64",
    "resolution": "float64",
    "residual": "float64",
    "low": "float64",
    "high": "float64",
    "n": "int64",
}
SUMMARY_SORT_KEY = ("skeleton",)

_WANTED = "skeletons asked for"


@dataclass(frozen=True, slots=True, eq=False)
class PrefixSkeleton:
    """One skeleton: what its search deleted and kept, in which `order` (sites), and what that took.

    `kept` and `tested` have shape (num_sites,); an untested site is kept. `residual` is the effect of all deletions
    together; `resolution` (thresholds) the finest the search used, below which single effects were deleted.
    """

    order: NDArray[np.int64]
    deleted: KnockoutSet
    kept: NDArray[np.bool_]
    tested: NDArray[np.bool_]
    num_competitions: int
    num_beneficial: int
    resolution: float
    residual: Effect


@dataclass(frozen=True, slots=True, eq=False)
class PrefixSkeletons:
    """Skeletons of one genome in the order of their waves: fewer than `num_wanted` where the budget ended before."""

    skeletons: tuple[PrefixSkeleton, ...]
    num_sites: int
    num_wanted: int

    @classmethod
    def from_tables(
        cls, table: pd.DataFrame, summary: pd.DataFrame, numbers: Mapping[str, int], *, num_sites: int
    ) -> PrefixSkeletons:
        """Rebuild the result from its stored tables and `numbers`.

        Raises ValueError when columns are missing, or when the two tables tell of different skeletons.
        """
        sites = checked_frame(COLUMNS, table, sort_by=SORT_KEY)
        sums = checked_frame(SUMMARY_COLUMNS, summary, sort_by=SUMMARY_SORT_KEY)
        if sites["skeleton"].drop_duplicates().tolist() != sums["skeleton"].tolist():
            raise ValueError("the skeletons and their summary are not of the same skeletons; make their asset again")
        skeletons = tuple(
            _skeleton(group, sums.iloc[place]) for place, (_, group) in enumerate(sites.groupby("skeleton"))
        )
        return cls(skeletons, num_sites, int(numbers[_WANTED]))

    @property
    def numbers(self) -> dict[str, int]:
        """Return what belongs to the result beside its tables."""
        return {_WANTED: self.num_wanted}

    @property
    def is_complete(self) -> bool:
        """Tell whether all skeletons were made that were asked for."""
        return len(self.skeletons) == self.num_wanted

    @property
    def num_competitions(self) -> int:
        """Return what the skeletons took, without those that were not finished."""
        return sum(each.num_competitions for each in self.skeletons)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Return which sites each skeleton keeps, shape (skeletons, num_sites)."""
        return np.array([each.kept for each in self.skeletons], dtype=bool).reshape(-1, self.num_sites)

    @property
    def table(self) -> pd.DataFrame:
        """Return one row per skeleton and site (COLUMNS); `order` is the site's place in the skeleton's order."""
        count = len(self.skeletons)
        return typed_frame(
            COLUMNS,
            {
                "skeleton": np.repeat(np.arange(count), self.num_sites),
                "site": np.tile(np.arange(self.num_sites), count),
                "kept": [kept for each in self.skeletons for kept in each.kept],
                "tested": [tested for each in self.skeletons for tested in each.tested],
                "order": [place for each in self.skeletons for place in np.argsort(each.order)],
            },
            sort_by=SORT_KEY,
        )

    @property
    def summary(self) -> pd.DataFrame:
        """Return one row per skeleton (SUMMARY_COLUMNS): what it cost, its resolution, its residual effect."""
        return typed_frame(
            SUMMARY_COLUMNS,
            {
                "skeleton": range(len(self.skeletons)),
                "kept": [int(each.kept.sum()) for each in self.skeletons],
                "untested": [int((~each.tested).sum()) for each in self.skeletons],
                "competitions": [each.num_competitions for each in self.skeletons],
                "beneficial": [each.num_beneficial for each in self.skeletons],
                "resolution": [each.resolution for each in self.skeletons],
                "residual": [each.residual.value for each in self.skeletons],
                "low": [each.residual.low for each in self.skeletons],
                "high": [each.residual.high for each in self.skeletons],
                "n": [each.residual.n for each in self.skeletons],
            },
            sort_by=SUMMARY_SORT_KEY,
        )


def _skeleton(sites: pd.DataFrame, row: pd.Series[float]) -> PrefixSkeleton:
    kept = sites["kept"].to_numpy(dtype=bool)
    return PrefixSkeleton(
        order=np.argsort(sites["order"].to_numpy(dtype=np.int64)),
        deleted=KnockoutSet.of(np.flatnonzero(~kept), len(sites)),
        kept=kept,
        tested=sites["tested"].to_numpy(dtype=bool),
        num_competitions=int(row["competitions"]),
        num_beneficial=int(row["beneficial"]),
        resolution=float(row["resolution"]),
        residual=Effect(float(row["residual"]), float(row["low"]), float(row["high"]), int(row["n"])),
    )
