"""Epistatic sets by enumeration: what can be lost only together, found one set after another.

Sites with an effect of their own are known by now and stay out of the background. What remains is deleted in a random
order until nothing more can be: the site kept for a set is the last of it in the order, and on the background that
lacks it, too, exactly the other members can restore what is lost ("rescue"; a search on prefixes of sites given back).
Later passes delete known members first, so that sets hidden behind others show themselves. At last each additive site
is deleted on that background: one that costs more there than alone is a member of a set as well ("unmask").

Every set that is claimed is lost as a whole and by no member less, with everything else intact.

A search that goes on after better weighing starts from the sets and sites without mates that are known. What is
explained by effects that are known by now is dropped: a site that is additive, a set that costs what its members do.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.asking import Budget, BudgetSpent, side_by_side
from knockem_dagster.knockout.assays.boundary_search import BoundarySearch, SearchSettings
from knockem_dagster.knockout.assays.critical_rates import RunningRate, SitePrior
from knockem_dagster.knockout.assays.exact_balance import ExactBalance, choose_filler, light_groups
from knockem_dagster.knockout.assays.found_sets import FoundSets, table_of_sets
from knockem_dagster.knockout.assays.group_tests import GroupTests, Question, Tests
from knockem_dagster.knockout.assays.minimal_sets import MinimalSets, SetQuestions
from knockem_dagster.knockout.assays.prefix_search import PrefixSearch, SearchState
from knockem_dagster.knockout.assays.sequential import Verdict
from knockem_dagster.knockout.assays.site_weights import LETHAL, SiteWeights
from knockem_dagster.knockout.competitions import Compete
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet
from knockem_dagster.knockout.score_model import Effect, ScoreModel

_EXPECTED_MATES = 3.0
_SEEN_WEIGHT, _UNSEEN_WEIGHT = 0.25, 0.002
_MOST_SETS_OF_A_SITE = 8
_AMPLE = 1000
"""A search for the mates of a site takes fewer competitions."""


@dataclass(frozen=True, slots=True)
class SetSearchSettings:
    """`search` decides; at most `passes` backgrounds are made, until one shows nothing new.

    Sites are taken for additive at this `error_rate` (see SiteWeights.additive).

    What a set costs is measured by `penalty_competitions`, or one without noise. There, additive sites are unmasked a
    few together, while they cost at most `largest_batch` (thresholds), again and again in other company: two of a set
    that are together by chance show it. About `unmask_tests` are spent on that for each of two backgrounds.
    """

    error_rate: float = 0.02
    passes: int = 4
    search: SearchSettings = field(
        default_factory=lambda: SearchSettings(resolution=0.5, tail_certainty=0.995, overlooked=0.005)
    )
    penalty_competitions: int = 20
    unmask_tests: int = 750
    largest_batch: float = 2.6


async def find_sets(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: SetSearchSettings,
    *,
    model: ScoreModel,
    weights: SiteWeights,
    budget: Budget | None = None,
    known: Sequence[frozenset[int]] = (),
) -> FoundSets:
    """Find the sets of a genome that was weighed, in the way that suits the organism; `known` ones to begin with.

    Without noise, costs are asked with fillers. Where weighing found too few sites for one, every site is searched, and
    only what costs a threshold is seen.
    """
    effects = weights.additive(settings.error_rate)
    tests: Tests
    if not model.is_exact:
        calibrated = model.recalibrated(angle_sd=weights.angle_sd, rate=weights.drift)
        tests = GroupTests(compete, calibrated, budget)
    elif choose_filler(effects, avoid=KnockoutSet.none(genome.num_sites)) is not None:
        tests = ExactBalance(compete, model, effects=effects, budget=budget)
    else:
        effects, tests = {}, GroupTests(compete, model, budget)
        tests.ran_out = True
    return await enumerate_sets(genome.num_sites, rng, settings, tests=tests, effects=effects, known=known)


async def enumerate_sets(
    num_sites: int,
    rng: Generator,
    settings: SetSearchSettings,
    *,
    tests: Tests,
    effects: Mapping[int, float],
    known: Sequence[frozenset[int]] = (),
) -> FoundSets:
    """Find the sets of a genome whose additive sites have these `effects` (thresholds).

    `known` are sets found before, those of one being sites without mates.
    """
    return await _SetSearch(num_sites, rng, settings, tests, effects).run(known)


class _SetSearch:
    def __init__(
        self, num_sites: int, rng: Generator, settings: SetSearchSettings, tests: Tests, effects: Mapping[int, float]
    ) -> None:
        self._num_sites = num_sites
        self._rng = rng
        self._settings = settings
        self._tests = tests
        self._search = BoundarySearch(tests, settings.search)
        self._ask = SetQuestions(num_sites, effects)
        self._minimal = MinimalSets(tests, self._search, self._ask)
        self._effects = effects
        self._plain = np.array([site for site in range(num_sites) if site not in effects], dtype=np.int64)
        self._sets: list[frozenset[int]] = []
        self._lone: list[int] = []
        self._is_complete = True

    async def run(self, known: Sequence[frozenset[int]]) -> FoundSets:
        allowed = self._tests.budget.left
        self._sets = [each for each in known if len(each) > 1]
        self._lone = [site for each in known if len(each) == 1 for site in each if site not in self._effects]
        try:
            await self._review()
            await self._enumerate()
        except BudgetSpent:
            self._is_complete = False
        # Of two sets one of which holds the other, the smaller was seen with what fills the scale in place of the rest.
        sets = [each for each in self._sets if not any(each < other for other in self._sets)]
        groups = sorted([sorted(each) for each in [*sets, *({site} for site in self._lone)]])
        resolution = 0.0 if self._tests.model.is_exact else self._settings.search.resolution
        table = await self._table(groups)
        num_competitions, ran_out = allowed - self._tests.budget.left, self._tests.ran_out
        return FoundSets(table, self._is_complete, num_competitions, resolution, ran_out)

    async def _review(self) -> None:
        """Look again at known sets with members that are additive: what these explain is no set."""
        for each in tuple(self._sets):
            if each.isdisjoint(self._effects):
                continue
            verdict = await self._search.confirm(self._ask.alone(each, "known/alone", apart=each))
            if verdict is Verdict.UNTESTABLE:
                continue
            found = [] if verdict is Verdict.NO_EFFECT else await self._minimal.minimal(each, "known/members") or [each]
            self._sets.remove(each)
            self._sets += [one for one in found if one not in self._sets]

    async def _enumerate(self) -> None:
        backgrounds: list[KnockoutSet] = []
        for number in range(1, self._settings.passes + 1):
            known = len(self._sets) + len(self._lone)
            state = await self._background(f"background {number}")
            backgrounds.append(state.deleted)
            await self._explain(state.deleted, [frozenset([site]) for site in state.kept], f"rescue {number}")
            if len(self._sets) + len(self._lone) == known:
                break
        for number, background in enumerate(dict.fromkeys([backgrounds[0], backgrounds[-1]]), start=1):
            await self._unmask(background, f"unmask {number}")

    async def _background(self, purpose: str) -> SearchState:
        """Delete all plain sites that can be, those in known sets first."""
        seen = frozenset(site for each in self._sets for site in each)
        shuffled = [site for site in self._rng.permutation(self._plain).tolist() if site not in self._lone]
        order = np.array(sorted(shuffled, key=lambda site: site not in seen), dtype=np.int64)
        prior = SitePrior.uninformed(self._num_sites)
        if seen:
            weights = np.full(self._num_sites, _UNSEEN_WEIGHT)
            weights[list(seen)] = _SEEN_WEIGHT
            prior = SitePrior(weights, RunningRate(3.0, 3.0, 0.9))
        search = PrefixSearch(
            self._tests, self._settings.search, num_sites=self._num_sites, prior=prior, purpose=purpose
        )
        state = SearchState(KnockoutSet.none(self._num_sites), (), (), order, np.ones(self._num_sites), prior.rate)
        while state.remaining.size:
            state = await search.advance(state)
        return state

    async def _explain(self, background: KnockoutSet, groups: Sequence[frozenset[int]], purpose: str) -> None:
        """Find the sets that these groups complete on this background, on which each costs more than is known of."""
        for _ in range(_MOST_SETS_OF_A_SITE):
            backgrounds = [self._free_of_known_sets(background, group) for group in groups]
            explained = [place for place, free in enumerate(backgrounds) if free != background]
            still = await self._matter([(backgrounds[each], groups[each]) for each in explained], f"{purpose}/more")
            settled = {each for each, matters in zip(explained, still, strict=True) if not matters}
            pending = [(backgrounds[each], groups[each]) for each in range(len(groups)) if each not in settled]
            mates = await self._side_by_side([self._mates(free, group, purpose) for free, group in pending])
            groups = []
            for (free, group), found in zip(pending, mates, strict=True):
                sets = await self._minimal.among(group.union(found), purpose)
                new = [each for each in sets if each not in self._sets]
                self._sets.extend(new)
                if new:
                    groups.append(group)
                elif free == background and group.isdisjoint(self._effects):
                    await self._note_lone(free, group, purpose)

    async def _note_lone(self, background: KnockoutSet, group: frozenset[int], purpose: str) -> None:
        """Look again at what costs something without mates, and note it if it does so still."""
        [matters] = await self._matter([(background, group)], f"{purpose}/again")
        if matters:
            self._lone.extend(group)

    async def _side_by_side(self, searches: Sequence[Coroutine[Any, Any, list[int]]]) -> list[list[int]]:
        """Run searches side by side, unless the budget might end among them: then which got how far would be chance."""
        if self._tests.budget.left > _AMPLE * len(searches):
            return await side_by_side(searches)
        try:
            return [await search for search in searches]
        finally:
            for search in searches:
                search.close()

    def _free_of_known_sets(self, background: KnockoutSet, sites: frozenset[int]) -> KnockoutSet:
        """Give one mate back of each known set that these sites complete."""
        for each in self._sets:
            mates = each - sites
            if mates and mates != each and self._ask.set_of(mates).issubset(background):
                background = background - self._ask.set_of([min(mates)])
        return background

    async def _matter(self, cases: Sequence[tuple[KnockoutSet, frozenset[int]]], purpose: str) -> list[bool]:
        """Tell, by competitions of its own, of each group whether it costs more on its background than is known of."""
        questions = [self._ask.loss(background, group, purpose) for background, group in cases]
        return [each is Verdict.EFFECT for each in await self._search.confirm_all(questions)]

    async def _mates(self, background: KnockoutSet, group: frozenset[int], purpose: str) -> list[int]:
        """Return the sites of the background that, given back alone, restore something of what is lost with a group."""
        lost = background | self._ask.set_of(group)
        mates: list[int] = []
        rest = self._rng.permutation((background - self._ask.set_of(group)).sites)

        def gain(sites: NDArray[np.int64]) -> Question:
            return self._ask.gain(lost, sites, purpose)

        while rest.size:
            candidates = rest

            async def confirm(place: int, candidates: NDArray[np.int64] = candidates) -> Verdict:
                return await self._search.confirm(gain(candidates[place : place + 1]))

            found = await self._search.first(
                candidates, np.full(rest.size, min(0.5, _EXPECTED_MATES / rest.size)), gain, confirm
            )
            if found.position is None:
                break
            if found.verdict is Verdict.EFFECT:
                mates.append(int(rest[found.position]))
            rest = rest[found.position + 1 :]
        return mates

    async def _unmask(self, background: KnockoutSet, purpose: str) -> None:
        """Find the sets that additive sites complete on this background: a few together where nothing is noisy.

        Under noise, what else is lost with a lethal site is not seen.
        """
        if not self._tests.model.is_exact:
            visible = sorted(site for site, effect in self._effects.items() if abs(effect) < LETHAL)
            await self._explain(background, await self._masked(background, visible, purpose), purpose)
            return
        spent, number = 0, 0
        while self._effects and spent < self._settings.unmask_tests:
            order = self._rng.permutation(sorted(self._effects)).tolist()
            batches = list(light_groups({site: self._effects[site] for site in order}, self._settings.largest_batch))
            spent, number = spent + max(1, len(batches)), number + 1
            free = self._free_of_known_sets(background, frozenset(self._effects))
            matters = await self._matter([(free, frozenset(batch)) for batch in batches], f"{purpose}/{number}")
            for batch, does in zip(batches, matters, strict=True):
                if does:
                    await self._explain_batch(background, batch, purpose)

    async def _explain_batch(self, background: KnockoutSet, batch: Sequence[int], purpose: str) -> None:
        """Find the sets of which one or several of these additive sites are members."""
        await self._explain(background, await self._masked(background, batch, purpose), purpose)
        free, whole = self._free_of_known_sets(background, frozenset(batch)), frozenset(batch)
        [matters, *without] = await self._matter(
            [(free, whole), *((free, whole - {site}) for site in batch)], f"{purpose}/together"
        )
        members = frozenset(site for site, does in zip(batch, without, strict=True) if not does)
        if matters and members:
            await self._explain(free, [members], purpose)

    async def _masked(self, background: KnockoutSet, sites: Sequence[int], purpose: str) -> list[frozenset[int]]:
        """Return the sites, each as a group, that cost more on this background, free of known sets, than alone."""
        free = self._free_of_known_sets(background, frozenset(self._effects))
        groups = [frozenset([site]) for site in sites]
        matters = await self._matter([(free, group) for group in groups], f"{purpose}/site")
        return [group for group, does in zip(groups, matters, strict=True) if does]

    async def _table(self, groups: Sequence[Sequence[int]]) -> pd.DataFrame:
        """Measure what each group costs, and return the rows of all."""
        questions = [self._ask.alone(group, "penalty") for group in groups]
        try:
            penalties = await self._tests.measured(questions, self._settings.penalty_competitions)
        except BudgetSpent:
            penalties = [Effect.unknown()] * len(questions)
        return table_of_sets(groups, penalties)
