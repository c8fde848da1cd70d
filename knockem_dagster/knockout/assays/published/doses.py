"""Random knockouts of many sites: finding the doses that matter (calibration), then measuring them (titration).

The published procedure (Moreno 2024, arXiv 2404.10854): one random knockout at each of 250 doses on a geometric
grid tells where detection sets in; the sensitivity is then measured at five doses across that window. Sites
detectable alone are left out of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.asking import (
    Asked,
    ask_with_replacement,
    require_answers,
    require_tolerable,
)
from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.competitions import Compete, Competition, Counts, Untestable, score
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet

COLUMNS = {"dose": "int64", "replicate": "int64", "knockout": "str", "score": "float64", "detected": "bool"}
SORT_KEY = ("dose", "replicate")
_MOST_ASKS_PER_CALIBRATION_DOSE = 3


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """`smear` doses tested once each, to choose `num_doses` from; untestable share that is `tolerated_untested`."""

    smear: int = 250
    num_doses: int = 5
    tolerated_untested: float = 0.05


@dataclass(frozen=True, slots=True)
class TitrationSettings:
    """`replicates` random knockouts at each dose."""

    replicates: int = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """One random knockout at each of many doses (COLUMNS), drawn from `num_candidates` sites."""

    table: pd.DataFrame
    num_candidates: int

    @classmethod
    def from_table(cls, table: pd.DataFrame, num_candidates: int) -> Calibration:
        """Rebuild the result from its stored table. Raises ValueError when columns are missing."""
        return cls(checked_frame(COLUMNS, table, sort_by=SORT_KEY), num_candidates)

    def doses(self, num_doses: int = 5) -> NDArray[np.int64]:
        """Return at most `num_doses` doses (sites), ascending: from the least detected to the largest undetected.

        The whole range where everything or nothing was detected; none where there is no candidate site.
        """
        if self.num_candidates == 0:
            return np.zeros(0, dtype=np.int64)
        tested = self.table[self.table["score"].notna()]
        dose = tested["dose"].to_numpy(dtype=np.int64)
        detected = tested["detected"].to_numpy(dtype=bool)
        first, last = 1, self.num_candidates
        if detected.any() and not detected.all():
            first, last = self._widened(int(dose[detected].min()), int(dose[~detected].max()), num_doses)
        return np.unique(np.linspace(first, last, num_doses, dtype=np.int64))

    def _widened(self, first: int, last: int, num_doses: int) -> tuple[int, int]:
        while last - first < num_doses and (last < self.num_candidates or first > 1):
            last += last < self.num_candidates
            first -= first > 1 and last - first < num_doses
        return first, last


@dataclass(frozen=True, slots=True, eq=False)
class Titration:
    """Many random knockouts at each of a few doses (COLUMNS), drawn from `num_candidates` sites."""

    table: pd.DataFrame
    num_candidates: int

    @classmethod
    def from_table(cls, table: pd.DataFrame, num_candidates: int) -> Titration:
        """Rebuild the result from its stored table. Raises ValueError when columns are missing."""
        return cls(checked_frame(COLUMNS, table, sort_by=SORT_KEY), num_candidates)

    @property
    def doses(self) -> NDArray[np.int64]:
        """Return the doses (sites), ascending, shape (doses,)."""
        return np.unique(self.table["dose"].to_numpy(dtype=np.int64))

    @property
    def sensitivities(self) -> NDArray[np.float64]:
        """Return the detected fraction at each dose, shape (doses,)."""
        dose = self.table["dose"].to_numpy(dtype=np.int64)
        detected = self.table["detected"].to_numpy(dtype=bool)
        return np.array([detected[dose == each].mean() for each in self.doses], dtype=np.float64)

    def num_beneficial(self, null: NullDistribution) -> int:
        """Return how many of the random knockouts score as detectably beneficial."""
        return int(np.count_nonzero(self.table["score"].to_numpy(dtype=np.float64) <= null.beneficial_threshold))


async def calibrate_doses(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: CalibrationSettings,
    *,
    null: NullDistribution,
    candidates: NDArray[np.int64],
) -> Calibration:
    """Test one random knockout of `candidates` (sites) at each dose of a geometric grid.

    A dose that stays untestable has no score. Raises AssayError when these are more than tolerated.
    """
    doses = geometric_doses(len(candidates), settings.smear)
    asked = await _ask_random_knockouts(
        genome,
        compete,
        rng,
        doses=doses.tolist(),
        candidates=candidates,
        purpose="calibration",
        most_asks_per_slot=_MOST_ASKS_PER_CALIBRATION_DOSE,
    )
    untested = [one.answer for one in asked if isinstance(one.answer, Untestable)]
    require_tolerable(untested, asked=len(asked), tolerated=settings.tolerated_untested, assay="dose calibration")
    return Calibration(_knockout_table(asked, null), len(candidates))


async def titrate(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: TitrationSettings,
    *,
    null: NullDistribution,
    candidates: NDArray[np.int64],
    doses: NDArray[np.int64],
) -> Titration:
    """Test `settings.replicates` random knockouts of `candidates` (sites) at each of `doses` (sites).

    Raises AssayError when replacements run out.
    """
    asked = await _ask_random_knockouts(
        genome,
        compete,
        rng,
        doses=np.repeat(doses, settings.replicates).tolist(),
        candidates=candidates,
        purpose="titration",
    )
    require_answers(asked, "dose titration")
    return Titration(_knockout_table(asked, null), len(candidates))


def geometric_doses(num_sites: int, count: int) -> NDArray[np.int64]:
    """Return up to `count` different doses from 1 to `num_sites`, evenly spaced on a log scale, ascending.

    Where the grid is finer than one site its doses move up to the next free number.
    """
    if num_sites == 0:
        return np.zeros(0, dtype=np.int64)
    grid = np.geomspace(1, num_sites, count).astype(np.int64)
    distinct = np.maximum(grid, 1 + np.arange(grid.size))
    return distinct[distinct <= num_sites]


async def _ask_random_knockouts(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    *,
    doses: Sequence[int],
    candidates: NDArray[np.int64],
    purpose: str,
    most_asks_per_slot: int | None = None,
) -> list[Asked]:
    wild_type = KnockoutSet.none(genome.num_sites)
    position = [place for _, same in groupby(doses) for place, _ in enumerate(same)]
    step = max(position, default=0) + 1

    def draw(slot: int, attempt: int) -> Competition:
        sites = rng.choice(candidates, doses[slot], replace=False, shuffle=False)
        replicate = position[slot] + attempt * step
        return Competition(wild_type, KnockoutSet.of(sites, genome.num_sites), purpose, replicate)

    return await ask_with_replacement(compete, draw, slots=len(doses), most_asks_per_slot=most_asks_per_slot)


def _knockout_table(asked: Sequence[Asked], null: NullDistribution) -> pd.DataFrame:
    scores = [score(one.answer) if isinstance(one.answer, Counts) else np.nan for one in asked]
    return typed_frame(
        COLUMNS,
        {
            "dose": [one.competition.challenger.dose for one in asked],
            "replicate": [one.competition.replicate for one in asked],
            "knockout": [one.competition.challenger.bitset for one in asked],
            "score": scores,
            "detected": [null.detects(each) for each in scores],
        },
        sort_by=SORT_KEY,
    )
