"""Skeletons: what is left when no further site can be knocked out without a detectable loss.

The published procedure (Moreno 2024, arXiv 2404.10854) deletes sites greedily in random order and starts over
after each deletion. A site whose deletion is detectable stays critical as more sites go, so one pass over a
random order has the same result with exactly one test a site. As published, each test is against the wild
type, which suits organisms without noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.asking import require_tolerable, side_by_side
from knockem_dagster.knockout.assays.frames import checked_frame
from knockem_dagster.knockout.competitions import Compete, Competition, Untestable, score
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet

COLUMNS = {"skeleton": "int64", "site": "int64", "kept": "bool", "order": "int64"}
SORT_KEY = ("skeleton", "site")


@dataclass(frozen=True, slots=True)
class SkeletonSettings:
    """Number of independent `skeletons`; share of untestable deletions that is `tolerated_untested`."""

    skeletons: int = 20
    tolerated_untested: float = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Skeletons:
    """Independent skeletons, one row per skeleton and site (COLUMNS).

    `num_beneficial` deletions scored as detectably beneficial and were made; `num_untested` could not be tested
    and their sites were kept. Neither is in the table.
    """

    table: pd.DataFrame
    num_sites: int
    num_beneficial: int = 0
    num_untested: int = 0

    @classmethod
    def from_table(
        cls, table: pd.DataFrame, num_sites: int, *, num_beneficial: int = 0, num_untested: int = 0
    ) -> Skeletons:
        """Rebuild the result from its stored table. Raises ValueError when columns or rows are missing."""
        frame = checked_frame(COLUMNS, table, sort_by=SORT_KEY)
        if len(frame) % num_sites:
            raise ValueError(f"{len(frame)} rows are not whole skeletons of {num_sites} sites")
        return cls(frame, num_sites, num_beneficial, num_untested)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Return which sites each skeleton keeps, shape (skeletons, num_sites)."""
        return self.table["kept"].to_numpy(dtype=bool).reshape(-1, self.num_sites)

    @property
    def knockouts(self) -> list[KnockoutSet]:
        """Return what each skeleton deleted."""
        return [KnockoutSet.of(np.flatnonzero(~kept), self.num_sites) for kept in self.kept]


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    kept: NDArray[np.bool_]
    order: NDArray[np.int64]
    num_beneficial: int
    num_untested: int


async def skeletonize(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: SkeletonSettings,
    *,
    null: NullDistribution,
) -> Skeletons:
    """Make independent skeletons side by side, each in one pass over its own random order.

    A beneficial deletion is made and counted; an untestable one keeps its site. Raises AssayError as soon as a
    skeleton has more untestable deletions than tolerated.
    """
    passes = await side_by_side(
        [
            _one_pass(genome, compete, child, settings, null=null, purpose=f"skeleton {number}")
            for number, child in enumerate(rng.spawn(settings.skeletons))
        ]
    )
    count, num_sites = len(passes), genome.num_sites
    table = pd.DataFrame(
        {
            "skeleton": np.repeat(np.arange(count, dtype=np.int64), num_sites),
            "site": np.tile(np.arange(num_sites, dtype=np.int64), count),
            "kept": np.concatenate([each.kept for each in passes] or [np.zeros(0, dtype=bool)]),
            "order": np.concatenate([each.order for each in passes] or [np.zeros(0, dtype=np.int64)]),
        }
    )
    return Skeletons(
        table,
        num_sites,
        num_beneficial=sum(each.num_beneficial for each in passes),
        num_untested=sum(each.num_untested for each in passes),
    )


async def _one_pass(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: SkeletonSettings,
    *,
    null: NullDistribution,
    purpose: str,
) -> _Pass:
    wild_type = deleted = KnockoutSet.none(genome.num_sites)
    sequence = rng.permutation(genome.num_sites)
    kept = np.ones(genome.num_sites, dtype=bool)
    untested: list[Untestable] = []
    num_beneficial = 0
    for site in sequence.tolist():
        trial = deleted.with_site(site)
        [answer] = await compete([Competition(wild_type, trial, purpose)])
        if isinstance(answer, Untestable):
            untested.append(answer)
            require_tolerable(untested, asked=genome.num_sites, tolerated=settings.tolerated_untested, assay=purpose)
            continue
        value = score(answer)
        if null.detects(value):
            continue
        num_beneficial += null.detects_benefit(value)
        deleted = trial
        kept[site] = False
    order = np.empty(genome.num_sites, dtype=np.int64)
    order[sequence] = np.arange(genome.num_sites)
    return _Pass(kept, order, num_beneficial, len(untested))
