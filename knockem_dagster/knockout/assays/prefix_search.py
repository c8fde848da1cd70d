"""One skeleton by prefix search: greedy deletion in a fixed order, without asking about every site.

Greedy deletion passes over many sites before the next critical one, the first site whose deletion on top of all
before it matters. Prefixes of the order find it by bisection (`boundary`). Sites that are more likely critical than
not are left out of the prefixes and confirmed one by one, each on top of what is before it: that assumes that all
others pass, and one passing prefix verifies it for many of them. Where effects are monotone - once critical,
always critical - and answers exact, the result is that of one-pass greedy deletion in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.boundary import Boundary
from knockem_dagster.knockout.assays.critical_rates import RunningRate, SitePrior
from knockem_dagster.knockout.assays.group_tests import GroupTests, Question
from knockem_dagster.knockout.assays.sequential import SequentialBounds, Verdict, test_sequentially
from knockem_dagster.knockout.competitions import Untestable
from knockem_dagster.knockout.knockouts import KnockoutSet

_SUSPECT = 0.5
"""A site at least as likely critical as not is confirmed alone: in a prefix it would only make it fail."""
_PASSED_BEFORE = 0.2
_CRITICAL_BEFORE = 1000.0
"""Odds, now, of a site that passed or was critical on a slightly smaller background, relative to before."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How a search decides.

    `resolution` is the smallest effect it looks for (thresholds), and `error_rate` the wrong confirmations a skeleton
    may expect, spread over `expected_confirmations` of sites that are not critical. A boundary is found at
    probability `certainty`, and the rest of the order passes at `tail_certainty`; what is absorbed without a boundary
    may hold one with probability `overlooked`. Looking for one boundary ends after competitions worth `patience`
    (expected log likelihood ratio), one confirmation after `cap` competitions. `width` questions are asked at a time.
    """

    resolution: float = 0.4
    error_rate: float = 0.05
    expected_confirmations: float = 20.0
    certainty: float = 0.9
    tail_certainty: float = 0.98
    overlooked: float = 0.02
    patience: float = 25.0
    cap: int = 120
    width: int = 1

    @property
    def bounds(self) -> SequentialBounds:
        """Return the bounds of a confirmation."""
        return SequentialBounds.for_error_rate(
            self.error_rate, expected_tests=self.expected_confirmations, cap=self.cap
        ).confirming()


@dataclass(frozen=True, slots=True, eq=False)
class SearchState:
    """How far a search has come: what is deleted, kept and untested, and the `remaining` sites in their order.

    `odds` (shape (num_sites,)) multiplies those of being critical by what was seen on a smaller background.
    """

    deleted: KnockoutSet
    kept: tuple[int, ...]
    untested: tuple[int, ...]
    remaining: NDArray[np.int64]
    odds: NDArray[np.float64]
    rate: RunningRate

    @classmethod
    def start(cls, order: NDArray[np.int64], prior: SitePrior) -> SearchState:
        """Return the state of a search that has not begun, over all sites in this order."""
        return cls(KnockoutSet.none(order.size), (), (), order, np.ones(order.size), prior.rate)


@dataclass(frozen=True, slots=True)
class _Found:
    """The first site that is critical or untestable, as a position among the candidates, or one that just passed.

    Everything before it passes; `verdict` is NO_EFFECT where it does so, too. No position: all of them pass.
    """

    position: int | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Probed:
    num_competitions: int
    lost: bool


class PrefixSearch:
    """Finds what one skeleton keeps. `purpose` is recorded with every competition."""

    def __init__(
        self, tests: GroupTests, settings: SearchSettings, *, num_sites: int, prior: SitePrior, purpose: str
    ) -> None:
        self._tests = tests
        self._settings = settings
        self._num_sites = num_sites
        self._prior = prior
        self._purpose = purpose

    async def advance(self, state: SearchState) -> SearchState:
        """Return the state after the next critical or absorbed stretch of the order."""
        sites = state.remaining
        chances = self._prior.chances(sites, state.rate, odds=state.odds[sites])
        is_suspect = chances >= _SUSPECT
        candidates = sites[~is_suspect]
        found = await self._first_critical(state.deleted, candidates, chances[~is_suspect])
        end = sites.size
        verdicts: dict[int, Verdict] = {}
        if found.position is not None:
            end = int(np.flatnonzero(~is_suspect)[found.position]) + 1
            verdicts[int(candidates[found.position])] = found.verdict
        suspects = frozenset(sites[is_suspect].tolist())
        return await self._settle(state, end, suspects, verdicts)

    async def _settle(
        self, state: SearchState, end: int, suspects: frozenset[int], verdicts: dict[int, Verdict]
    ) -> SearchState:
        """Go through the stretch before `end`, of which all but suspects and those with a verdict pass.

        Each suspect is confirmed on top of what is before it. When one passes after all, the rest of the stretch has
        been judged on too small a background, and is searched again with what was learned.
        """
        settled: dict[int, Verdict] = {}
        deleted, odds = state.deleted, state.odds.copy()
        stretch: list[int] = state.remaining[:end].tolist()
        unsettled: list[int] = []
        for place, site in enumerate(stretch, start=1):
            settled[site] = verdicts.get(site, Verdict.NO_EFFECT)
            if site in suspects:
                settled[site] = await self.confirm(deleted, site)
            if settled[site] is Verdict.NO_EFFECT:
                deleted = deleted.with_site(site)
                if site in suspects:
                    unsettled = stretch[place:]
                    break
        for site in unsettled:
            if site not in suspects:
                passed = verdicts.get(site, Verdict.NO_EFFECT) is Verdict.NO_EFFECT
                odds[site] *= _PASSED_BEFORE if passed else _CRITICAL_BEFORE
        critical = tuple(site for site, verdict in settled.items() if verdict is Verdict.EFFECT)
        untested = tuple(site for site, verdict in settled.items() if verdict is Verdict.UNTESTABLE)
        weighed = [site for site in settled if site not in untested]
        return SearchState(
            deleted=deleted,
            kept=state.kept + critical,
            untested=state.untested + untested,
            remaining=np.concatenate([np.array(unsettled, dtype=np.int64), state.remaining[end:]]),
            odds=odds,
            rate=state.rate.after(len(critical), float(self._prior.weights[weighed].sum())),
        )

    async def confirm(self, background: KnockoutSet, site: int) -> Verdict:
        """Return EFFECT, NO_EFFECT (also when the cap was reached: it is below the resolution) or UNTESTABLE."""
        question = Question(background, self._set([site]), f"{self._purpose}/confirm")
        settings = self._settings
        result = await test_sequentially(
            self._tests, question, resolution=settings.resolution, bounds=settings.bounds, width=settings.width
        )
        return Verdict.NO_EFFECT if result.verdict is Verdict.UNDECIDED else result.verdict

    async def _first_critical(
        self, deleted: KnockoutSet, candidates: NDArray[np.int64], chances: NDArray[np.float64]
    ) -> _Found:
        """Find the first candidate that is critical on top of `deleted` and all candidates before it."""
        boundary = Boundary(chances)
        patience = self._patience()
        while True:
            probed = await self._probe(boundary, deleted, candidates, patience)
            patience -= probed.num_competitions
            if boundary.best == boundary.none and (self._is_found(boundary) or not candidates.size):
                return _Found(None, Verdict.NO_EFFECT)
            position = boundary.best_site
            if self._tests.model.is_exact and not probed.lost:
                return _Found(position, Verdict.EFFECT)
            background = deleted | self._set(candidates[:position])
            verdict = await self.confirm(background, int(candidates[position]))
            if verdict is not Verdict.NO_EFFECT:
                return _Found(position, verdict)
            # Small effects add up in a prefix without any site being critical: then a background that holds them
            # already shows the next site more clearly than more competitions on the old one would.
            passing = boundary.passing(self._settings.overlooked) if boundary.rule_out(position) else position + 1
            if passing > position or patience <= 0:
                return _Found(passing - 1 if passing else position, verdict)

    def _patience(self) -> float:
        """Return how many competitions finding one boundary may take."""
        if self._tests.model.is_exact:
            return math.inf
        return self._settings.patience / self._tests.model.information(self._settings.resolution)

    async def _probe(
        self, boundary: Boundary, deleted: KnockoutSet, candidates: NDArray[np.int64], patience: float
    ) -> _Probed:
        """Ask about prefixes of the candidates until the boundary is found or patience is at its end."""
        spent, lost = 0, False
        while spent < patience and not self._is_found(boundary):
            lengths = boundary.probes(self._settings.width)
            answers = await self._tests.evidence(
                [Question(deleted, self._set(candidates[:length]), self._purpose) for length in lengths],
                effect=self._settings.resolution,
            )
            for length, answer in zip(lengths, answers, strict=True):
                spent += 1
                # A prefix that cannot be tested counts as failing, until the site that makes it so is looked at alone.
                lost = lost or isinstance(answer, Untestable)
                boundary.update(length, math.inf if isinstance(answer, Untestable) else answer)
        return _Probed(spent, lost)

    def _is_found(self, boundary: Boundary) -> bool:
        if self._tests.model.is_exact or boundary.is_certain:
            return boundary.is_certain
        position = boundary.best
        needed = self._settings.tail_certainty if position == boundary.none else self._settings.certainty
        return boundary.probability(position) >= needed

    def _set(self, sites: Sequence[int] | NDArray[np.int64]) -> KnockoutSet:
        return KnockoutSet.of(sites, self._num_sites)
