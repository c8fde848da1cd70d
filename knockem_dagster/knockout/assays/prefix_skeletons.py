"""Skeletons by prefix search: independent ones side by side, later waves knowing what earlier waves kept.

Beside the search of each (`prefix_search`) this is what makes its result whole: the final test of what was deleted
against the wild type, going on from a checkpoint at a finer resolution when that has lost too much, and the
repair of what beneficial sites have hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.assays.asking import require_tolerable, side_by_side
from knockem_dagster.knockout.assays.boundary_search import SearchSettings
from knockem_dagster.knockout.assays.critical_rates import SitePrior
from knockem_dagster.knockout.assays.frames import typed_frame
from knockem_dagster.knockout.assays.group_tests import GroupTests, Question
from knockem_dagster.knockout.assays.prefix_search import PrefixSearch, SearchState
from knockem_dagster.knockout.assays.sequential import Verdict
from knockem_dagster.knockout.competitions import Compete, Untestable
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet
from knockem_dagster.knockout.score_model import Effect, ScoreModel

COLUMNS = {"skeleton": "int64", "site": "int64", "kept": "bool", "tested": "bool", "order": "int64"}
SORT_KEY = ("skeleton", "site")
SUMMARY_COLUMNS = {
    "skeleton": "int64",
    "competitions": "int64",
    "resolution": "float64",
    "residual": "float64",
    "low": "float64",
    "high": "float64",
}
SUMMARY_SORT_KEY = ("skeleton",)

_CHECKPOINTS = 16
_LEAST_SURPRISING_BENEFIT = 0.001


@dataclass(frozen=True, slots=True)
class PrefixSkeletonSettings:
    """Number of independent `skeletons`, `wave` of them side by side, each decided by `search`.

    Under noise `final_competitions` measure what a skeleton's deletions cost against the wild type; when that is above
    `largest_residual` (thresholds), about the most that scores can tell, the search goes on from a checkpoint at half
    the resolution, at most `refinements` times. `repair` tests all kept sites again, by default where benefits were
    seen. The share `tolerated_untested` of sites may be untestable.
    """

    skeletons: int = 5
    wave: int = 4
    search: SearchSettings = field(default_factory=SearchSettings)
    final_competitions: int = 20
    largest_residual: float = 5.0
    refinements: int = 1
    repair: Literal["never", "if beneficial", "always"] = "if beneficial"
    tolerated_untested: float = 0.05


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
    """Skeletons of one genome in the order of their waves."""

    skeletons: tuple[PrefixSkeleton, ...]
    num_sites: int

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
                "kept": self.kept.ravel(),
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
                "competitions": [each.num_competitions for each in self.skeletons],
                "resolution": [each.resolution for each in self.skeletons],
                "residual": [each.residual.value for each in self.skeletons],
                "low": [each.residual.low for each in self.skeletons],
                "high": [each.residual.high for each in self.skeletons],
            },
            sort_by=SUMMARY_SORT_KEY,
        )


async def search_skeletons(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: PrefixSkeletonSettings,
    *,
    model: ScoreModel,
) -> PrefixSkeletons:
    """Make skeletons in random orders, a wave at a time. Raises AssayError when too many sites are untestable."""
    children = rng.spawn(settings.skeletons)
    done: list[PrefixSkeleton] = []
    while len(done) < len(children):
        prior = SitePrior.from_kept(np.array([each.kept for each in done]).reshape(-1, genome.num_sites))
        wave = range(len(done), min(len(done) + settings.wave, len(children)))
        done += await side_by_side(
            [
                search_skeleton(
                    compete,
                    children[number].permutation(genome.num_sites),
                    settings,
                    model=model,
                    prior=prior,
                    purpose=f"skeleton {number}",
                )
                for number in wave
            ]
        )
    return PrefixSkeletons(tuple(done), genome.num_sites)


async def search_skeleton(
    compete: Compete,
    order: NDArray[np.int64],
    settings: PrefixSkeletonSettings,
    *,
    model: ScoreModel,
    prior: SitePrior,
    purpose: str,
) -> PrefixSkeleton:
    """Make one skeleton in this order of all sites. Raises AssayError when too many sites are untestable."""
    return await _Skeleton(GroupTests(compete, model), order, settings, prior, purpose).make()


class _Skeleton:
    def __init__(
        self,
        tests: GroupTests,
        order: NDArray[np.int64],
        settings: PrefixSkeletonSettings,
        prior: SitePrior,
        purpose: str,
    ) -> None:
        self._tests = tests
        self._order = order
        self._settings = settings
        self._prior = prior
        self._purpose = purpose

    async def make(self) -> PrefixSkeleton:
        search = self._settings.search
        checkpoints = [SearchState.start(self._order, self._prior)]
        state = await self._search(self._searcher(search), checkpoints)
        residual = await self._residual(state.deleted, "final")
        refinements = 0
        while self._is_too_large(residual) and refinements < self._settings.refinements:
            refinements += 1
            search = replace(search, resolution=search.resolution / 2)
            checkpoints = await self._tolerable(checkpoints)
            state = await self._search(self._searcher(search, f"/refinement {refinements}"), checkpoints)
            residual = await self._residual(state.deleted, "final")
        if self._needs_repair():
            repaired = await self._repair(self._searcher(search), state)
            if repaired.deleted != state.deleted:
                residual = await self._residual(repaired.deleted, "repaired")
            state = repaired
        num_sites = self._order.size
        kept, tested = np.zeros(num_sites, dtype=bool), np.ones(num_sites, dtype=bool)
        kept[[*state.kept, *state.untested]] = True
        tested[list(state.untested)] = False
        return PrefixSkeleton(
            order=self._order,
            deleted=state.deleted,
            kept=kept,
            tested=tested,
            num_competitions=self._tests.num_competitions,
            num_beneficial=self._tests.num_beneficial,
            resolution=search.resolution,
            residual=residual,
        )

    def _searcher(self, settings: SearchSettings, suffix: str = "") -> PrefixSearch:
        return PrefixSearch(
            self._tests,
            settings,
            num_sites=self._order.size,
            prior=self._prior,
            purpose=self._purpose + suffix,
        )

    async def _search(self, search: PrefixSearch, checkpoints: list[SearchState]) -> SearchState:
        """Search from the last checkpoint to the end of the order, and add checkpoints on the way."""
        state = checkpoints[-1]
        while state.remaining.size:
            state = await search.advance(state)
            require_tolerable(
                self._tests.untestable(len(state.untested)),
                asked=self._order.size,
                tolerated=self._settings.tolerated_untested,
                assay=self._purpose,
            )
            if checkpoints[-1].remaining.size - state.remaining.size >= self._order.size / _CHECKPOINTS:
                checkpoints.append(state)
        return state

    async def _residual(self, deleted: KnockoutSet, name: str) -> Effect:
        """Measure what these deletions cost; an exact search has seen already that it is below one threshold."""
        if self._tests.model.is_exact or deleted.is_wild_type:
            return Effect.below(1.0)
        question = Question(KnockoutSet.none(deleted.num_sites), deleted, f"{self._purpose}/{name}")
        answers = await self._tests.scores([question] * self._settings.final_competitions)
        scores = [each for each in answers if not isinstance(each, Untestable)]
        return self._tests.model.measured_effect(np.array(scores)) if scores else Effect.unknown()

    def _is_too_large(self, residual: Effect) -> bool:
        return residual.value > self._settings.largest_residual

    async def _tolerable(self, checkpoints: Sequence[SearchState]) -> list[SearchState]:
        """Return the checkpoints up to the last one that has not lost too much, by bisection; the first never has."""
        low, high = 0, len(checkpoints)
        while high - low > 1:
            middle = (low + high) // 2
            residual = await self._residual(checkpoints[middle].deleted, "checkpoint")
            low, high = (low, middle) if self._is_too_large(residual) else (middle, high)
        return list(checkpoints[: low + 1])

    def _needs_repair(self) -> bool:
        """Tell whether kept sites may have become removable, since more benefits were seen than chance makes."""
        if self._settings.repair != "if beneficial":
            return self._settings.repair == "always"
        seen, asked = self._tests.num_beneficial, self._tests.num_competitions
        if self._tests.model.is_exact or seen == 0:
            return seen > 0
        by_chance = stats.binomtest(seen, asked, self._tests.model.null.level, alternative="greater")
        return float(by_chance.pvalue) < _LEAST_SURPRISING_BENEFIT

    async def _repair(self, search: PrefixSearch, state: SearchState) -> SearchState:
        """Delete kept sites that are not critical any more, until every one that is left is critical."""
        changed = True
        while changed:
            changed = False
            for site in state.kept:
                if await search.confirm(state.deleted, site) is Verdict.NO_EFFECT:
                    kept = tuple(each for each in state.kept if each != site)
                    state = replace(state, deleted=state.deleted.with_site(site), kept=kept)
                    changed = True
        return state
