"""Weighing the sites of an organism without noise: groups on a filler, halved while they weigh something.

An effect beyond the scale stands as the end of the scale. Nothing can be weighed where all sites together cost less
than a threshold, or no few of them fill the scale.

A group that adds nothing to the filler's cost holds no additive site. One that does is halved: what one half costs
tells what the other does. The first filler is the shortest prefix of a random order that costs a threshold; its own
sites are weighed on a filler of sites known by then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.asking import Budget, BudgetSpent, require_tolerable
from knockem_dagster.knockout.assays.boundary_search import BoundarySearch, SearchSettings
from knockem_dagster.knockout.assays.exact_balance import (
    HIDDEN,
    NO_FILLER,
    Cost,
    ExactBalance,
    choose_filler,
    light_groups,
)
from knockem_dagster.knockout.assays.group_tests import GroupTests, Question
from knockem_dagster.knockout.assays.sequential import Verdict
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.competitions import Compete, Untestable
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet
from knockem_dagster.knockout.score_model import ScoreModel

_CHANCE = 0.02
_MOST_FAILURES = 3
_HEAVIEST_FILLER = 2.2
"""A first filler of sites below one threshold costs no more than two, unless it holds a set."""
_LARGEST_SUM = 1.8
"""Known sites are checked together while they cost no more (thresholds)."""


@dataclass(frozen=True, slots=True)
class ExactWeighingSettings:
    """The share `tolerated_untested` of sites may be untestable; at most `most_competitions` are asked for."""

    most_competitions: int = 1_000_000
    tolerated_untested: float = 0.05


async def weigh_exactly(
    genome: Genome, compete: Compete, rng: Generator, settings: ExactWeighingSettings, *, model: ScoreModel
) -> SiteWeights:
    """Weigh every site. Raises AssayError when too many sites are untestable.

    When the budget is spent before the end, what is not known by then is untested.
    """
    weighing = _Weighing(compete, model, genome.num_sites, Budget(settings.most_competitions))
    try:
        await weighing.weigh_all(rng.permutation(genome.num_sites))
    except BudgetSpent:
        return weighing.result()
    lost = list(weighing.lost.values())
    require_tolerable(lost, asked=genome.num_sites, tolerated=settings.tolerated_untested, assay="weighing")
    return weighing.result()


class _Weighing:
    def __init__(self, compete: Compete, model: ScoreModel, num_sites: int, budget: Budget) -> None:
        self.effects: dict[int, float] = {}
        self.tested: set[int] = set()
        self.lost: dict[int, Untestable] = {}
        self._budget = budget
        self._most_competitions = budget.left
        self._compete = compete
        self._model = model
        self._num_sites = num_sites

    async def weigh_all(self, order: NDArray[np.int64]) -> None:
        """Find a filler, weigh all other sites on it, then its own on one of others, and check what was found."""
        filler = await self.first_filler(order)
        if filler is None:
            return
        inside = np.isin(order, filler.sites)
        size = max(1, filler.dose)
        await self.weigh(filler, _chunks(order[~inside], size), "outside the filler")
        own = choose_filler(self.effects, avoid=filler)
        if own is not None:
            await self.weigh(own, _chunks(order[inside], max(1, size // 2)), "inside the filler")
            hidden = [site for site in order.tolist() if site not in self.tested and site not in self.lost]
            await self.weigh(own, _chunks(np.array(hidden, dtype=np.int64), 1), "hidden by benefits")
        await self.check_sums()

    async def first_filler(self, order: NDArray[np.int64]) -> KnockoutSet | None:
        """Return the shortest prefix that costs a threshold, without sites that do so alone: these are weighed here."""
        tests = GroupTests(self._compete, self._model, self._budget)
        search = BoundarySearch(tests, SearchSettings())
        rest, failures = order, 0
        answers: list[float | Untestable] = []
        while failures < _MOST_FAILURES:
            found = await search.first(rest, np.full(rest.size, _CHANCE), self._loss, _believed)
            if found.position is None:
                return None
            prefix, site = rest[: found.position + 1], int(rest[found.position])
            answers = await tests.scores([self._loss(prefix), self._loss(np.array([site]))])
            self._take_unit(answers)
            together, alone = (self._cost(answer) for answer in answers)
            if together <= _HEAVIEST_FILLER:
                return self._set(prefix)
            if alone >= 1:
                self._note(site, Cost(alone, 0.0))
            else:
                failures += 1
            rest = rest[rest != site]
        for answer in answers:
            if isinstance(answer, Untestable):
                raise AssayError(
                    f"weighing: {answer.reason}. If what made competitions fail has passed, resume the study; else run "
                    "`./knockem check`, mend the organism and submit it again"
                )
        return None

    async def weigh(self, filler: KnockoutSet, groups: Sequence[NDArray[np.int64]], purpose: str) -> None:
        """Weigh groups of sites on a filler, and halve those that weigh something, down to single sites."""
        balance = ExactBalance(self._compete, self._model, effects=self.effects, filler=filler, budget=self._budget)
        costs = await balance.costs([self._set(group) for group in groups], purpose)
        weighed = list(zip(groups, costs, strict=True))
        while weighed := [each for each in weighed if not self._is_settled(*each)]:
            halves = [np.array_split(group, 2) for group, _ in weighed]
            firsts = await balance.costs([self._set(first) for first, _ in halves], purpose)
            seconds = [_rest(whole, first) for (_, whole), first in zip(weighed, firsts, strict=True)]
            unknown = [number for number, cost in enumerate(seconds) if cost is None]
            asked = await balance.costs([self._set(halves[number][1]) for number in unknown], purpose)
            answers = dict(zip(unknown, asked, strict=True))
            weighed = [
                each
                for number, (first, second) in enumerate(halves)
                for each in ((first, firsts[number]), (second, seconds[number] or answers[number]))
            ]
        await self._weigh_alone(balance, purpose)

    async def _weigh_alone(self, balance: ExactBalance, purpose: str) -> None:
        """Weigh sites that were beyond the scale together with the filler without it: they are seen alone."""
        sites = [site for site, effect in self.effects.items() if math.isinf(effect)]
        costs = await balance.costs_alone([self._set(np.array([site])) for site in sites], f"{purpose}, alone")
        for site, cost in zip(sites, costs, strict=True):
            seen = isinstance(cost, Cost) and math.isfinite(cost.value) and not cost.is_nothing
            self.effects[site] = cost.value if seen and isinstance(cost, Cost) else self._end_of_scale

    async def check_sums(self) -> None:
        """Let known sites cost together what each costs, on one filler and again on one that shares no site with it.

        A site that completes a set together with a filler seems to cost what the set does. Such a cost would often be
        seen alone, so that what costs a threshold or more is not asked for together with others. Where no filler is
        left to check a site with, nothing is claimed of it.
        """
        balance = self._balance(self.effects)
        checked = await self._check_sums(balance, "sums")
        apart = {site: effect for site, effect in self.effects.items() if site not in balance.filling()}
        checked |= await self._check_sums(self._balance(apart), "sums again")
        for site in self.effects.keys() - checked:
            self.effects.pop(site)
            self.tested.discard(site)

    async def _check_sums(self, balance: ExactBalance, purpose: str) -> set[int]:
        """Ask for the cost of a few sites at a time; where it is not their sum, weigh each alone. The least counts.

        Returns the sites of which something was seen, or which lie beyond the scale.
        """
        checked = {site for site, effect in self.effects.items() if effect >= 0.99 * self._end_of_scale}
        light = {site: effect for site, effect in self.effects.items() if effect < 1}
        heavy = [site for site, effect in self.effects.items() if 1 <= effect < 0.99 * self._end_of_scale]
        groups = [*light_groups(light, _LARGEST_SUM), *([site] for site in heavy)]
        costs = await balance.costs([self._set(np.array(group)) for group in groups], purpose)
        for group, cost in zip(groups, costs, strict=True):
            expected = sum(self.effects[site] for site in group)
            if isinstance(cost, Cost) and abs(cost.value - expected) <= (1 + len(group)) * cost.grain:
                checked.update(group)
                continue
            alone = await balance.costs([self._set(np.array([site])) for site in group], f"{purpose}, alone")
            for site, own in zip(group, alone, strict=True):
                if isinstance(own, Cost):
                    checked.add(site)
                    if own.value < self.effects[site] + own.grain:
                        self.effects.pop(site)
                        self._note(site, own)
        await self._weigh_alone(balance, purpose)
        return checked

    def _balance(self, effects: Mapping[int, float]) -> ExactBalance:
        return ExactBalance(self._compete, self._model, effects=effects, budget=self._budget)

    def result(self) -> SiteWeights:
        """Return what was found; no site is tested where there was no filler."""
        effects = np.array([self.effects.get(site, 0.0) for site in range(self._num_sites)])
        effects[np.isinf(effects)] = self._end_of_scale
        errors = np.array([0.0 if site in self.tested else math.inf for site in range(self._num_sites)])
        return SiteWeights.of(
            effects,
            errors,
            (effects != 0).astype(np.float64),
            angle_sd=0.0,
            drift=math.nan,
            unit_error=0.0,
            num_competitions=self._num_asked,
            unit=self._model.null.unit,
        )

    @property
    def _num_asked(self) -> int:
        return self._most_competitions - self._budget.left

    def _is_settled(self, group: NDArray[np.int64], cost: Cost | Untestable) -> bool:
        """Note what a group's cost decides; tell whether nothing of it is left to be weighed."""
        if isinstance(cost, Untestable):
            if group.size == 1 and cost not in (NO_FILLER, HIDDEN):
                self.lost[int(group[0])] = cost
            return group.size == 1
        if cost.is_nothing:
            self.tested.update(group.tolist())
            return True
        if group.size == 1:
            self._note(int(group[0]), cost)
            return True
        return group.size == 0

    def _note(self, site: int, cost: Cost) -> None:
        self.tested.add(site)
        if not cost.is_nothing:
            self.effects[site] = cost.value

    def _take_unit(self, answers: Sequence[float | Untestable]) -> None:
        """Where an organism states no unit, one threshold is the least that was seen."""
        scores = np.array([each for each in answers if isinstance(each, float)])
        self._model = replace(self._model, null=self._model.null.with_unit_from(scores))

    @property
    def _end_of_scale(self) -> float:
        return (self._model.null.bound - self._model.null.mean) / self._model.null.unit

    def _loss(self, sites: NDArray[np.int64]) -> Question:
        return Question(KnockoutSet.none(self._num_sites), self._set(sites), "filler")

    def _cost(self, answer: float | Untestable) -> float:
        """Return the cost (thresholds) of a score; infinite at the end of the scale, missing without an answer."""
        if isinstance(answer, Untestable):
            return math.nan
        cost = (answer - self._model.null.mean) / self._model.null.unit
        return cost if cost < 0.99 * self._end_of_scale else math.inf

    def _set(self, sites: NDArray[np.int64]) -> KnockoutSet:
        return KnockoutSet.of(sites, self._num_sites)


async def _believed(_: int) -> Verdict:
    return Verdict.EFFECT


def _rest(whole: Cost | Untestable, first: Cost | Untestable) -> Cost | None:
    """Return what the other half costs, where that follows: roundings add up, and may hide a small cost."""
    if isinstance(whole, Untestable) or isinstance(first, Untestable):
        return None
    if math.isinf(whole.value) or math.isinf(first.value):
        return None
    rest = Cost(whole.value - first.value, whole.grain + first.grain)
    return None if rest.is_nothing and abs(rest.value) > first.grain else rest


def _chunks(sites: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [sites[start : start + size] for start in range(0, sites.size, size)]
