"""One skeleton by prefix search: greedy deletion in a fixed order, without asking about every site.

Greedy deletion passes over many sites before the next critical one, the first site whose deletion on top of all
before it matters. Prefixes of the order find it by bisection (`boundary`). Sites that are more likely critical than
not are left out of the prefixes and confirmed one by one, each on top of what is before it: that assumes that all
others pass, and one passing prefix verifies it for many of them. Where effects are monotone - once critical,
always critical - and answers exact, the result is that of one-pass greedy deletion in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.boundary_search import BoundarySearch, SearchSettings
from knockem_dagster.knockout.assays.critical_rates import RunningRate, SitePrior
from knockem_dagster.knockout.assays.group_tests import Question, Tests
from knockem_dagster.knockout.assays.sequential import Verdict
from knockem_dagster.knockout.knockouts import KnockoutSet

_SUSPECT = 0.5
"""A site at least as likely critical as not is confirmed alone: in a prefix it would only make it fail."""
_PASSED_BEFORE = 0.2
_CRITICAL_BEFORE = 1000.0
"""Odds, now, of a site that passed or was critical on a slightly smaller background, relative to before."""


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


class PrefixSearch:
    """Finds what one skeleton keeps. `purpose` is recorded with every competition."""

    def __init__(
        self, tests: Tests, settings: SearchSettings, *, num_sites: int, prior: SitePrior, purpose: str
    ) -> None:
        self._search = BoundarySearch(tests, settings)
        self._num_sites = num_sites
        self._prior = prior
        self._purpose = purpose

    async def advance(self, state: SearchState) -> SearchState:
        """Return the state after the next critical or absorbed stretch of the order."""
        sites = state.remaining
        chances = self._prior.chances(sites, state.rate, odds=state.odds[sites])
        is_suspect = chances >= _SUSPECT
        candidates = sites[~is_suspect]
        found = await self._search.first(
            candidates,
            chances[~is_suspect],
            lambda prefix: Question(state.deleted, self._set(prefix), self._purpose),
            lambda place: self.confirm(state.deleted | self._set(candidates[:place]), int(candidates[place])),
        )
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
        return await self._search.confirm(Question(background, self._set([site]), f"{self._purpose}/confirm"))

    def _set(self, sites: Sequence[int] | NDArray[np.int64]) -> KnockoutSet:
        return KnockoutSet.of(sites, self._num_sites)
