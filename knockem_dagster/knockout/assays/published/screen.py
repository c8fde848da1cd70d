"""The screen: every site knocked out alone, to find those that are detectable by themselves.

The false discovery rate over all sites is controlled (Benjamini and Hochberg 1995) instead of subtracting an
expected number of false positives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.assays.asking import require_tolerable
from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.competitions import Compete, Competition, Counts, Untestable, score
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet

COLUMNS = {"site": "int64", "score": "float64", "p": "float64", "q": "float64", "detected": "bool"}
SORT_KEY = ("site",)


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """`false_discovery_rate` among detected sites; share of untestable sites that is `tolerated_untested`."""

    false_discovery_rate: float = 0.05
    tolerated_untested: float = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """Every site alone against the wild type, one row each (COLUMNS); an untestable site has no score."""

    table: pd.DataFrame

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Screen:
        """Rebuild the result from its stored table. Raises ValueError when columns are missing."""
        return cls(checked_frame(COLUMNS, table, sort_by=SORT_KEY))

    @property
    def scores(self) -> NDArray[np.float64]:
        """Return the score (1/update) of each site, shape (num_sites,); missing where untestable."""
        return self.table["score"].to_numpy(dtype=np.float64)

    @property
    def untested_sites(self) -> NDArray[np.int64]:
        """Return the sites whose knockout could not be tested, ascending."""
        return np.flatnonzero(np.isnan(self.scores))

    @property
    def undetected_sites(self) -> NDArray[np.int64]:
        """Return the sites that were tested and not detected, ascending: the candidates for small effects."""
        detected = self.table["detected"].to_numpy(dtype=bool)
        return np.flatnonzero(~detected & ~np.isnan(self.scores))

    def num_beneficial(self, null: NullDistribution) -> int:
        """Return how many single knockouts score as detectably beneficial, each at the null's level."""
        return int(np.count_nonzero(self.scores <= null.beneficial_threshold))


async def screen_sites(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: ScreenSettings,
    *,
    null: NullDistribution,
) -> Screen:
    """Knock out every site alone. Raises AssayError when more sites than tolerated are untestable."""
    wild_type = KnockoutSet.none(genome.num_sites)
    answers = await compete(
        [Competition(wild_type, wild_type.with_site(site), "screen") for site in range(genome.num_sites)]
    )
    untested = [answer for answer in answers if isinstance(answer, Untestable)]
    require_tolerable(untested, asked=genome.num_sites, tolerated=settings.tolerated_untested, assay="screen")
    scores = np.array([score(answer) if isinstance(answer, Counts) else np.nan for answer in answers])
    p = null.p_values(scores)
    tested = ~np.isnan(p)
    q = np.full(genome.num_sites, np.nan)
    if tested.any():
        q[tested] = stats.false_discovery_control(p[tested])
    return Screen(
        typed_frame(
            COLUMNS,
            {
                "site": range(genome.num_sites),
                "score": scores,
                "p": p,
                "q": q,
                "detected": q <= settings.false_discovery_rate,
            },
            sort_by=SORT_KEY,
        )
    )
