"""Epistatic sets by enumeration: what can be lost only together, found one set after another.

Sites with an effect of their own are known by now and stay out of the background. What remains is deleted in a random
order until nothing more can be: the site kept for a set is the last of it in the order, and on the background that
lacks it, too, exactly the other members can restore what is lost ("rescue"; a search on prefixes of sites given back).
Later passes delete known members first, so that sets hidden behind others show themselves. At last each additive site
is deleted on that background: one that costs more there than alone is a member of a set as well ("unmask").

Every set that is claimed is lost as a whole and by no member less, with everything else intact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.asking import side_by_side
from knockem_dagster.knockout.assays.boundary_search import BoundarySearch, SearchSettings
from knockem_dagster.knockout.assays.critical_rates import RunningRate, SitePrior
from knockem_dagster.knockout.assays.exact_balance import light_groups
from knockem_dagster.knockout.assays.frames import checked_frame, typed_frame
from knockem_dagster.knockout.assays.group_tests import Question, Tests
from knockem_dagster.knockout.assays.prefix_search import PrefixSearch, SearchState
from knockem_dagster.knockout.assays.sequential import Verdict
from knockem_dagster.knockout.knockouts import KnockoutSet

COLUMNS = {"set": "int64", "site": "int64", "penalty": "float64", "low": "float64", "high": "float64"}
SORT_KEY = ("set", "site")

_EXPECTED_MATES = 3.0
_SEEN_WEIGHT, _UNSEEN_WEIGHT = 0.25, 0.002
_MOST_SETS_OF_A_SITE = 8


@dataclass(frozen=True, slots=True)
class SetSearchSettings:
    """`search` decides; at most `passes` backgrounds are made, until one shows nothing new.

    What a set costs is measured by `penalty_competitions`, or one without noise. There, additive sites are unmasked a
    few together, while they cost at most `largest_batch` (thresholds), in `rounds` of other company each: two of a set
    that are together by chance show it.
    """

    passes: int = 4
    search: SearchSettings = field(
        default_factory=lambda: SearchSettings(resolution=0.5, tail_certainty=0.995, overlooked=0.005)
    )
    penalty_competitions: int = 20
    rounds: int = 15
    largest_batch: float = 2.6


@dataclass(frozen=True, slots=True, eq=False)
class FoundSets:
    """What was enumerated, one row per set and site (COLUMNS), with what losing the set costs (thresholds).

    A set of one is a site that costs something by itself on some background, without any mate being found: an effect
    of its own that weighing did not see, or mates that were not found. `passes` backgrounds were made; `num_background`
    is the dose of the last.
    """

    table: pd.DataFrame
    passes: int
    num_background: int

    @classmethod
    def from_table(cls, table: pd.DataFrame, *, passes: int, num_background: int) -> FoundSets:
        """Rebuild the result from its stored table. Raises ValueError when columns are missing."""
        return cls(checked_frame(COLUMNS, table, sort_by=SORT_KEY), passes, num_background)

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

    async def run(self) -> FoundSets:
        backgrounds: list[KnockoutSet] = []
        for number in range(1, self._settings.passes + 1):
            known = len(self._sets) + len(self._lone)
            state = await self._background(f"background {number}")
            backgrounds.append(state.deleted)
            for site in state.kept:
                await self._explain(state.deleted, frozenset([site]), f"rescue {number}")
            if len(self._sets) + len(self._lone) == known:
                break
        for number, background in enumerate(dict.fromkeys([backgrounds[0], backgrounds[-1]]), start=1):
            await self._unmask(background, f"unmask {number}")
        groups = sorted([sorted(each) for each in [*self._sets, *({site} for site in self._lone)]])
        return FoundSets(await self._table(groups), len(backgrounds), backgrounds[-1].dose)

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

    async def _explain(self, background: KnockoutSet, sites: frozenset[int], purpose: str) -> None:
        """Find the sets that these sites complete on this background, on which they cost more than is known of."""
        for _ in range(_MOST_SETS_OF_A_SITE):
            free = self._free_of_known_sets(background, sites)
            if free != background and not await self._matters(free, sites, f"{purpose}/more"):
                return
            mates = await self._mates(free | self._set(sites), sites, purpose)
            new = await self._new_sets(sites.union(mates), purpose)
            if not new:
                is_known = free != background or not sites.isdisjoint(self._effects)
                if not is_known and await self._matters(free, sites, f"{purpose}/again"):
                    self._lone.extend(sites)
                return
            self._sets.extend(new)

    def _free_of_known_sets(self, background: KnockoutSet, sites: frozenset[int]) -> KnockoutSet:
        """Give one mate back of each known set that these sites complete."""
        for each in self._sets:
            mates = each - sites
            if mates and mates != each and self._set(mates).issubset(background):
                background = background - self._set([min(mates)])
        return background

    async def _matters(self, background: KnockoutSet, sites: frozenset[int], purpose: str) -> bool:
        """Tell, by competitions of its own, whether sites cost more on this background than is known of."""
        return await self._search.confirm(self._loss(background, sorted(sites), purpose)) is Verdict.EFFECT

    async def _mates(self, lost: KnockoutSet, sites: frozenset[int], purpose: str) -> list[int]:
        """Return the sites that, given back alone, restore something of what is lost with these."""
        mates: list[int] = []
        rest = self._rng.permutation((lost - self._set(sites)).sites)

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
        without = await side_by_side([self._is_lost(sites - {site}, purpose, apart) for site in ordered])
        for site, is_lost in zip(ordered, without, strict=True):
            if is_lost and not any(site not in each for each in found):
                found += [each for each in await self._minimal(sites - {site}, purpose, apart) if each not in found]
        return found or [sites]

    async def _is_lost(self, sites: frozenset[int], purpose: str, apart: frozenset[int]) -> bool:
        nothing = KnockoutSet.none(self._num_sites)
        question = self._loss(nothing, sorted(sites), f"{purpose}/alone")
        return await self._search.confirm(replace(question, apart=self._set(apart))) is Verdict.EFFECT

    async def _unmask(self, background: KnockoutSet, purpose: str) -> None:
        """Find the sets that additive sites complete on this background: a few together where nothing is noisy."""
        if not self._tests.model.is_exact:
            for site in await self._masked(background, sorted(self._effects), purpose):
                await self._explain(background, frozenset([site]), f"{purpose}/rescue")
            return
        for number in range(self._settings.rounds):
            order = self._rng.permutation(sorted(self._effects)).tolist()
            batches = list(light_groups({site: self._effects[site] for site in order}, self._settings.largest_batch))
            free = self._free_of_known_sets(background, frozenset(self._effects))
            answers = await self._tests.evidence(
                [self._loss(free, batch, f"{purpose}/{number}") for batch in batches],
                effect=self._settings.search.resolution,
            )
            for batch, answer in zip(batches, answers, strict=True):
                if answer == math.inf:
                    await self._explain_batch(background, batch, purpose)

    async def _explain_batch(self, background: KnockoutSet, batch: Sequence[int], purpose: str) -> None:
        """Find the sets of which one or several of these additive sites are members."""
        for site in await self._masked(background, batch, purpose):
            await self._explain(background, frozenset([site]), f"{purpose}/rescue")
        free = self._free_of_known_sets(background, frozenset(batch))
        whole = frozenset(batch)
        if not await self._matters(free, whole, purpose):
            return
        without = await side_by_side([self._matters(free, whole - {site}, purpose) for site in batch])
        members = frozenset(site for site, matters in zip(batch, without, strict=True) if not matters)
        if members:
            await self._explain(free, members, f"{purpose}/rescue")

    async def _masked(self, background: KnockoutSet, sites: Sequence[int], purpose: str) -> list[int]:
        """Return the sites that cost more on this background, free of known sets, than alone."""
        free = self._free_of_known_sets(background, frozenset(self._effects))
        matters = await side_by_side([self._matters(free, frozenset([site]), f"{purpose}/site") for site in sites])
        return [site for site, does in zip(sites, matters, strict=True) if does]

    async def _table(self, groups: Sequence[Sequence[int]]) -> pd.DataFrame:
        """Measure what each group costs, and return the rows of all."""
        questions = [self._loss(KnockoutSet.none(self._num_sites), group, "penalty") for group in groups]
        penalties = await self._tests.measured(questions, self._settings.penalty_competitions)
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
