"""Epistatic sets by enumeration: what can be lost only together, found one set after another.

Sites with an effect of their own are known by now and stay out of the background. What remains is deleted in a random
order until nothing more can be: the site kept for a set is the last of it in the order, and on the background that
lacks it, too, exactly the other members can restore what is lost ("rescue"; a search on prefixes of sites given back).
Later passes delete known members first, so that sets hidden behind others show themselves. At last each additive site
is deleted on that background: one that costs more there than alone is a member of a set as well ("unmask").

Every set that is claimed is lost as a whole and by no member less, with everything else intact.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.asking import Budget, BudgetSpent, side_by_side
from knockem_dagster.knockout.assays.boundary_search import BoundarySearch, SearchSettings
from knockem_dagster.knockout.assays.critical_rates import RunningRate, SitePrior
from knockem_dagster.knockout.assays.exact_balance import ExactBalance, choose_filler, light_groups
from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.assays.group_tests import GroupTests, Question, Tests
from knockem_dagster.knockout.assays.prefix_search import PrefixSearch, SearchState
from knockem_dagster.knockout.assays.sequential import Verdict
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.competitions import Compete
from knockem_dagster.knockout.knockouts import Genome, KnockoutSet
from knockem_dagster.knockout.score_model import Effect, ScoreModel

COLUMNS = {"set": "int64", "site": "int64", "penalty": "float64", "low": "float64", "high": "float64"}
SORT_KEY = ("set", "site")

_COMPLETE, _COMPETITIONS = "searched to the end", "competitions of the search"
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


@dataclass(frozen=True, slots=True, eq=False)
class FoundSets:
    """What was enumerated, one row per set and site (COLUMNS), with what losing the set costs (thresholds).

    A set of one is a site that costs something by itself on some background, without any mate being found: an effect
    of its own that weighing did not see, or mates that were not found. The search `is_complete` unless its budget ended
    before; `num_competitions` were asked for.
    """

    table: pd.DataFrame
    is_complete: bool
    num_competitions: int

    @classmethod
    def from_table(cls, table: pd.DataFrame, numbers: Mapping[str, int]) -> FoundSets:
        """Rebuild the result from its stored table and `numbers`. Raises ValueError when columns are missing."""
        frame = checked_frame(COLUMNS, table, sort_by=SORT_KEY)
        return cls(frame, bool(numbers[_COMPLETE]), int(numbers[_COMPETITIONS]))

    @property
    def numbers(self) -> dict[str, int]:
        """Return what belongs to the result beside its table."""
        return {_COMPLETE: int(self.is_complete), _COMPETITIONS: self.num_competitions}

    @property
    def sets(self) -> tuple[frozenset[int], ...]:
        """Return the sets of two and more sites."""
        return tuple(members for members in self._groups() if len(members) > 1)

    @property
    def lone(self) -> tuple[int, ...]:
        """Return the sites that are sets of one."""
        return tuple(site for members in self._groups() if len(members) == 1 for site in members)

    def _groups(self) -> list[frozenset[int]]:
        return [frozenset(group["site"].tolist()) for _, group in self.table.groupby("set")]


async def find_sets(
    genome: Genome,
    compete: Compete,
    rng: Generator,
    settings: SetSearchSettings,
    *,
    model: ScoreModel,
    weights: SiteWeights,
    budget: Budget | None = None,
) -> FoundSets:
    """Find the sets of a genome that was weighed, in the way that suits the organism.

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
    return await enumerate_sets(genome.num_sites, rng, settings, tests=tests, effects=effects)


async def enumerate_sets(
    num_sites: int, rng: Generator, settings: SetSearchSettings, *, tests: Tests, effects: Mapping[int, float]
) -> FoundSets:
    """Find the sets of a genome whose additive sites have these `effects` (thresholds)."""
    return await _SetSearch(num_sites, rng, settings, tests, effects).run()


class _SetSearch:
    def __init__(
        self, num_sites: int, rng: Generator, settings: SetSearchSettings, tests: Tests, effects: Mapping[int, float]
    ) -> None:
        self._num_sites = num_sites
        self._rng = rng
        self._settings = settings
        self._tests = tests
        self._search = BoundarySearch(tests, settings.search)
        self._effects = effects
        self._plain = np.array([site for site in range(num_sites) if site not in effects], dtype=np.int64)
        self._sets: list[frozenset[int]] = []
        self._lone: list[int] = []
        self._is_complete = True

    async def run(self) -> FoundSets:
        allowed = self._tests.budget.left
        try:
            await self._enumerate()
        except BudgetSpent:
            self._is_complete = False
        groups = sorted([sorted(each) for each in [*self._sets, *({site} for site in self._lone)]])
        return FoundSets(await self._table(groups), self._is_complete, allowed - self._tests.budget.left)

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
                new = await self._new_sets(group.union(found), purpose)
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
            if mates and mates != each and self._set(mates).issubset(background):
                background = background - self._set([min(mates)])
        return background

    async def _matter(self, cases: Sequence[tuple[KnockoutSet, frozenset[int]]], purpose: str) -> list[bool]:
        """Tell, by competitions of its own, of each group whether it costs more on its background than is known of."""
        questions = [self._loss(background, sorted(group), purpose) for background, group in cases]
        return [each is Verdict.EFFECT for each in await self._search.confirm_all(questions)]

    async def _mates(self, background: KnockoutSet, group: frozenset[int], purpose: str) -> list[int]:
        """Return the sites of the background that, given back alone, restore something of what is lost with a group."""
        lost = background | self._set(group)
        mates: list[int] = []
        rest = self._rng.permutation((background - self._set(group)).sites)

        def gain(sites: NDArray[np.int64]) -> Question:
            return Question(lost, self._set(sites), purpose, restores=True, known=self._known(sites))

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

    async def _new_sets(self, sites: frozenset[int], purpose: str) -> list[frozenset[int]]:
        """Return the sets not known yet among these sites, and those that fill the scale where they have a part."""
        if len(sites) < 2:
            return []
        found = await self._minimal(sites, purpose)
        if not found and (filling := self._tests.filling()):
            found = await self._minimal(sites | filling, purpose)
        if filling := self._tests.filling(self._set(sites)):
            sure: list[frozenset[int]] = []
            for each in found:
                if await self._is_lost(each, purpose, sites | filling):
                    sure.append(each)
                else:
                    sure += await self._minimal(each | filling, purpose)
            found = sure
        return [each for each in dict.fromkeys(found) if each not in self._sets]

    async def _minimal(
        self, sites: frozenset[int], purpose: str, apart: frozenset[int] | None = None
    ) -> list[frozenset[int]]:
        """Return the smallest sets among these sites that cost something as a whole, with everything else intact."""
        apart = apart or sites
        if len(sites) < 2 or not await self._is_lost(sites, purpose, apart):
            return []
        found: list[frozenset[int]] = []
        ordered = sorted(sites)
        without = await self._are_lost([sites - {site} for site in ordered], purpose, apart)
        for site, is_lost in zip(ordered, without, strict=True):
            if is_lost and not any(site not in each for each in found):
                found += [each for each in await self._minimal(sites - {site}, purpose, apart) if each not in found]
        return found or [sites]

    async def _is_lost(self, sites: frozenset[int], purpose: str, apart: frozenset[int]) -> bool:
        [is_lost] = await self._are_lost([sites], purpose, apart)
        return is_lost

    async def _are_lost(self, groups: Sequence[frozenset[int]], purpose: str, apart: frozenset[int]) -> list[bool]:
        """Tell of each group whether losing it costs more than its members', with everything else intact."""
        nothing, far = KnockoutSet.none(self._num_sites), self._set(apart)
        questions = [replace(self._loss(nothing, sorted(group), f"{purpose}/alone"), apart=far) for group in groups]
        return [each is Verdict.EFFECT for each in await self._search.confirm_all(questions)]

    async def _unmask(self, background: KnockoutSet, purpose: str) -> None:
        """Find the sets that additive sites complete on this background: a few together where nothing is noisy."""
        if not self._tests.model.is_exact:
            await self._explain(background, await self._masked(background, sorted(self._effects), purpose), purpose)
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
        questions = [self._loss(KnockoutSet.none(self._num_sites), group, "penalty") for group in groups]
        try:
            penalties = await self._tests.measured(questions, self._settings.penalty_competitions)
        except BudgetSpent:
            penalties = [Effect.unknown()] * len(questions)
        rows = [
            (number, site, penalty.value, penalty.low, penalty.high)
            for number, (group, penalty) in enumerate(zip(groups, penalties, strict=True))
            for site in group
        ]
        columns = zip(*rows, strict=True) if rows else [[] for _ in COLUMNS]
        return typed_frame(COLUMNS, dict(zip(COLUMNS, columns, strict=True)), sort_by=SORT_KEY)

    def _loss(self, background: KnockoutSet, sites: Sequence[int], purpose: str) -> Question:
        return Question(background, self._set(sites), purpose, known=self._known(sites))

    def _known(self, sites: Sequence[int] | NDArray[np.int64]) -> float:
        return sum(self._effects.get(int(site), 0.0) for site in sites)

    def _set(self, sites: Sequence[int] | frozenset[int] | NDArray[np.int64]) -> KnockoutSet:
        return KnockoutSet.of(sites, self._num_sites)
