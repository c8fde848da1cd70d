"""Skeletons by prefix search: independent ones side by side, later waves knowing what earlier waves kept.

Beside the search of each (`prefix_search`) this is what makes its result whole: the final test of what was deleted
against the wild type, going on from a checkpoint at a finer resolution when that has lost too much, and the
repair of what beneficial sites have hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.assays.asking import Budget, BudgetSpent, require_tolerable, side_by_side
from knockem_dagster.knockout.assays.boundary_search import SearchSettings
from knockem_dagster.knockout.assays.critical_rates import SitePrior
from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeleton, PrefixSkeletons
from knockem_dagster.knockout.assays.group_tests import GroupTests, Question
from knockem_dagster.knockout.assays.prefix_search import PrefixSearch, SearchState
from knockem_dagster.knockout.assays.sequential import Verdict
from knockem_dagster.knockout.competitions import Compete
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet
from knockem_dagster.knockout.score_model import Effect, ScoreModel

_CHECKPOINTS = 16
_LEAST_SURPRISING_BENEFIT = 0.001
_AMPLE_PER_SITE = 20
"""A skeleton takes fewer competitions for each site at the usual resolution, a refinement included."""


@dataclass(frozen=True, slots=True)
class PrefixSkeletonSettings:
    """Number of independent `skeletons`, `wave` of them side by side, each decided by `search`.

    Under noise `final_competitions` measure what a skeleton's deletions cost against the wild type, or as many each of
    several steps where that is off the scale of scores. When it is above `largest_residual` (thresholds), the search
    goes on from a checkpoint at half the resolution, at most `refinements` times. `repair` tests all kept sites again,
    by default where benefits were seen. The share `tolerated_untested` of sites may be untestable.
    """

    skeletons: int = 5
    wave: int = 4
    search: SearchSettings = field(default_factory=SearchSettings)
    final_competitions: int = 20
    largest_residual: float = 5.0
    refinements: int = 1
    repair: Literal["never", "if beneficial", "always"] = "if beneficial"
    tolerated_untested: float = 0.05


async def search_skeletons(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: PrefixSkeletonSettings,
    *,
    model: ScoreModel,
    budget: Budget | None = None,
) -> PrefixSkeletons:
    """Make skeletons in random orders, a wave at a time, until all are there or the budget is spent.

    What a skeleton asks and finds is the same with any budget that suffices for it; one that was not finished is left
    out. Raises AssayError when too many sites are untestable.
    """
    budget = budget or Budget()
    orders = [child.permutation(genome.num_sites) for child in rng.spawn(settings.skeletons)]
    done: list[PrefixSkeleton] = []
    for start in range(0, len(orders), settings.wave):
        prior = SitePrior.from_kept(np.array([each.kept for each in done]).reshape(-1, genome.num_sites))
        wave = range(start, min(start + settings.wave, len(orders)))

        async def make(number: int, purse: Budget, prior: SitePrior = prior) -> PrefixSkeleton | None:
            tests = GroupTests(compete, model, purse)
            try:
                return await _Skeleton(tests, orders[number], settings, prior, f"skeleton {number}").make()
            except BudgetSpent:
                return None

        made = await _make_wave(make, wave, budget, ample=_ample(genome, settings.search))
        done += [each for each in made if each is not None]
        if len(done) < wave.stop:
            break
    return PrefixSkeletons(tuple(done), genome.num_sites, settings.skeletons)


def _ample(genome: Genome, search: SearchSettings) -> int:
    """Return a number of competitions that one skeleton hardly ever needs."""
    finer = max(1.0, SearchSettings().resolution / search.resolution)
    return round(_AMPLE_PER_SITE * genome.num_sites * finer**2)


async def _make_wave(
    make: Callable[[int, Budget], Coroutine[Any, Any, PrefixSkeleton | None]],
    wave: Sequence[int],
    budget: Budget,
    *,
    ample: int,
) -> list[PrefixSkeleton | None]:
    """Make skeletons side by side, each with its share of the budget, if that is ample; else one after the other.

    Were they to share a budget that ends among them, which of them got how far would be chance.
    """
    if budget.left < ample * len(wave):
        made: list[PrefixSkeleton | None] = []
        for number in wave:
            made.append(await make(number, budget))
            if made[-1] is None:
                break
        return made
    purses = [Budget(budget.left // len(wave)) for _ in wave]
    whole = sum(purse.left for purse in purses)
    made = await side_by_side([make(number, purse) for number, purse in zip(wave, purses, strict=True)])
    budget.spend(whole - sum(purse.left for purse in purses))
    return made


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
        residual = await self._residual(state.deleted, "final", checkpoints)
        refinements = 0
        while self._is_too_large(residual) and refinements < self._settings.refinements:
            refinements += 1
            search = replace(search, resolution=search.resolution / 2)
            checkpoints = await self._tolerable(checkpoints)
            state = await self._search(self._searcher(search, f"/refinement {refinements}"), checkpoints)
            residual = await self._residual(state.deleted, "final", checkpoints)
        if self._needs_repair():
            repaired = await self._repair(self._searcher(search), state)
            if repaired.deleted != state.deleted:
                residual = await self._residual(repaired.deleted, "repaired", checkpoints)
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
            resolution=1.0 if self._tests.model.is_exact else search.resolution,
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

    async def _residual(self, deleted: KnockoutSet, name: str, checkpoints: Sequence[SearchState] = ()) -> Effect:
        """Measure what these deletions cost; an exact search has seen already that it is below one threshold."""
        if self._tests.model.is_exact or deleted.is_wild_type:
            return Effect.below(1.0)
        between = [each.deleted for each in checkpoints[1:] if each.deleted != deleted]
        return await self._cost_of([KnockoutSet.none(deleted.num_sites), *between, deleted], name)

    async def _cost_of(self, stages: Sequence[KnockoutSet], name: str) -> Effect:
        """Measure what the last stage of deletions costs the first, in two steps where that is off the scale."""
        question = Question(stages[0], stages[-1] - stages[0], f"{self._purpose}/{name}")
        [effect] = await self._tests.measured([question], self._settings.final_competitions)
        if math.isfinite(effect.high) or effect.n == 0 or len(stages) < 3:
            return effect
        middle = len(stages) // 2
        first = await self._cost_of(stages[: middle + 1], name)
        return first.plus(await self._cost_of(stages[middle:], name))

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
