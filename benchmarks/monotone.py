"""Random monotone organisms: a knockout is detected when it holds one of a few smallest sets. Truth for greedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.competitions import Answer, Competition, Counts
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import ScoreModel

_DETECTED = Counts(1, 1000, 0)
_UNDETECTED = Counts(1, 500, 500)


@dataclass(frozen=True, slots=True)
class MonotoneOrganism:
    """Detects every knockout that holds one of the sets in `smallest` (masks), on `num_sites` sites."""

    num_sites: int
    smallest: tuple[int, ...]

    @classmethod
    def draw(
        cls, rng: Generator, *, most_sites: int = 40, most_sets: int = 25, most_members: int = 5
    ) -> MonotoneOrganism:
        """Draw its size, the number of smallest sets and their members."""
        num_sites = int(rng.integers(1, most_sites + 1))
        return cls(
            num_sites,
            tuple(
                KnockoutSet.of(rng.integers(0, num_sites, int(rng.integers(1, most_members + 1))), num_sites).mask
                for _ in range(int(rng.integers(0, most_sets + 1)))
            ),
        )

    @staticmethod
    def model() -> ScoreModel:
        """Return the score model of such an organism."""
        return ScoreModel.fit(NullDistribution.from_scores([0.0, 0.0], bound=1.0, stated_unit=1.0))

    def detects(self, knockout: KnockoutSet) -> bool:
        """Tell whether this knockout is detected."""
        return any(each & ~knockout.mask == 0 for each in self.smallest)

    async def compete(self, competitions: Sequence[Competition]) -> list[Answer]:
        """Answer every competition, in order."""
        return [_DETECTED if self.detects(each.challenger) else _UNDETECTED for each in competitions]

    def greedy(self, order: NDArray[np.int64]) -> set[int]:
        """Return what one pass of greedy deletion in this order keeps."""
        deleted, kept = KnockoutSet.none(self.num_sites), set[int]()
        for site in order.tolist():
            trial = deleted.with_site(site)
            if self.detects(trial):
                kept.add(site)
            else:
                deleted = trial
        return kept
