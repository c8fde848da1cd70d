"""The jackknife: each site a skeleton kept is knocked out on top of it, to see how much it would cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.asking import require_tolerable, side_by_side
from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.assays.published.skeletons import Skeletons
from knockem_dagster.knockout.competitions import Answer, Compete, Competition, Counts, Untestable, score
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet

COLUMNS = {"skeleton": "int64", "site": "int64", "score": "float64", "detected": "bool"}
SORT_KEY = ("skeleton", "site")


@dataclass(frozen=True, slots=True)
class JackknifeSettings:
    """Share of untestable knockouts that is `tolerated_untested`."""

    tolerated_untested: float = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Jackknife:
    """Each kept site of each skeleton knocked out on top of it, one row each (COLUMNS)."""

    table: pd.DataFrame

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Jackknife:
        """Rebuild the result from its stored table. Raises ValueError when columns are missing."""
        return cls(checked_frame(COLUMNS, table, sort_by=SORT_KEY))

    def severity(self, null: NullDistribution, skeletons: Skeletons) -> NDArray[np.float64]:
        """Return what each kept site costs, in detection thresholds, shape (skeletons, num_sites).

        Missing where a skeleton did not keep the site or its knockout was untestable. An undetected knockout counts
        as 1: a skeleton's site is critical, so it is at the threshold.
        """
        severity = np.full(skeletons.kept.shape, np.nan)
        scores = self.table["score"].to_numpy(dtype=np.float64)
        detected = self.table["detected"].to_numpy(dtype=bool)
        effects = null.with_unit_from(scores).in_thresholds(scores)
        tested = np.isfinite(scores)
        rows = self.table["skeleton"].to_numpy(dtype=np.int64)
        sites = self.table["site"].to_numpy(dtype=np.int64)
        severity[rows[tested], sites[tested]] = np.where(detected, effects, 1.0)[tested]
        return severity


async def jackknife_skeletons(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: JackknifeSettings,
    *,
    null: NullDistribution,
    skeletons: Skeletons,
) -> Jackknife:
    """Knock out each kept site on top of its skeleton, against the wild type, as published (Moreno 2024).

    Raises AssayError when more knockouts than tolerated are untestable.
    """
    wild_type = KnockoutSet.none(genome.num_sites)
    questions = [
        [
            Competition(wild_type, deleted.with_site(site), f"jackknife {number}")
            for site in np.flatnonzero(kept).tolist()
        ]
        for number, (deleted, kept) in enumerate(zip(skeletons.knockouts, skeletons.kept, strict=True))
    ]
    batches = await side_by_side([_ask(compete, batch) for batch in questions])
    answers = [answer for batch in batches for answer in batch]
    untested = [answer for answer in answers if isinstance(answer, Untestable)]
    require_tolerable(untested, asked=len(answers), tolerated=settings.tolerated_untested, assay="jackknife")
    scores = [score(answer) if isinstance(answer, Counts) else np.nan for answer in answers]
    rows, sites = np.nonzero(skeletons.kept)
    return Jackknife(
        typed_frame(
            COLUMNS,
            {"skeleton": rows, "site": sites, "score": scores, "detected": [null.detects(each) for each in scores]},
            sort_by=SORT_KEY,
        )
    )


async def _ask(compete: Compete, batch: list[Competition]) -> list[Answer]:
    return await compete(batch) if batch else []
