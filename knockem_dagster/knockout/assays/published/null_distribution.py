"""The null distribution: the wild type against itself, to learn what no effect looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator

from knockem_dagster.knockout.assays.asking import ask_with_replacement, require_answers
from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.competitions import Compete, Competition, score
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet

COLUMNS = {"replicate": "int64", "updates": "float64", "alpha": "int64", "beta": "int64", "score": "float64"}
SORT_KEY = ("replicate",)


@dataclass(frozen=True, slots=True)
class NullSettings:
    """`replicates` wild-type competitions, at least 2."""

    replicates: int = 100


@dataclass(frozen=True, slots=True, eq=False)
class NullCompetitions:
    """The wild-type competitions, one row each (COLUMNS)."""

    table: pd.DataFrame

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> NullCompetitions:
        """Rebuild the result from its stored table. Raises ValueError when columns are missing."""
        return cls(checked_frame(COLUMNS, table, sort_by=SORT_KEY))

    def distribution(self, *, level: float = 0.01, stated_unit: float | None = None) -> NullDistribution:
        """Return the null distribution at a nominal one-sided false-positive rate.

        `stated_unit` is the score (1/update) of one detection threshold, as an organism without noise states it.
        """
        return NullDistribution.from_scores(
            self.table["score"].to_numpy(dtype=np.float64),
            bound=float(1 / self.table["updates"].min()),
            level=level,
            stated_unit=stated_unit,
        )


async def measure_null_distribution(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: NullSettings,
) -> NullCompetitions:
    """Let the wild type compete with itself. Raises AssayError when too many competitions are untestable."""
    wild_type = KnockoutSet.none(genome.num_sites)

    def draw(slot: int, attempt: int) -> Competition:
        return Competition(wild_type, wild_type, "null", slot + attempt * settings.replicates)

    asked = await ask_with_replacement(compete, draw, slots=settings.replicates)
    answered = require_answers(asked, "null distribution")
    return NullCompetitions(
        typed_frame(
            COLUMNS,
            {
                "replicate": [competition.replicate for competition, _ in answered],
                "updates": [counts.updates_elapsed for _, counts in answered],
                "alpha": [counts.num_alpha for _, counts in answered],
                "beta": [counts.num_beta for _, counts in answered],
                "score": [score(counts) for _, counts in answered],
            },
            sort_by=SORT_KEY,
        )
    )
