"""Which of some sites are a redundant set: what costs something as a whole, and can spare none of its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.boundary_search import BoundarySearch
from knockem_dagster.knockout.assays.group_tests import Question, Tests
from knockem_dagster.knockout.assays.sequential import Verdict
from knockem_dagster.knockout.knockouts import KnockoutSet


@dataclass(frozen=True, slots=True)
class SetQuestions:
    """What to ask about sets on a genome of `num_sites` sites, the additive ones of which have these `effects`."""

    num_sites: int
    effects: Mapping[int, float]

    def loss(self, background: KnockoutSet, sites: Sequence[int] | frozenset[int], purpose: str) -> Question:
        """Ask what losing these sites on a background costs beyond their own effects."""
        return Question(background, self.set_of(sites), purpose, known=self._known(sites))

    def gain(self, background: KnockoutSet, sites: NDArray[np.int64], purpose: str) -> Question:
        """Ask what giving these sites back to a background restores beyond their own effects."""
        return Question(background, self.set_of(sites), purpose, restores=True, known=self._known(sites))

    def alone(
        self, group: Sequence[int] | frozenset[int], purpose: str, *, apart: frozenset[int] | None = None
    ) -> Question:
        """Ask what a group costs with everything else intact; `apart` as Question has it."""
        far = None if apart is None else self.set_of(apart)
        nothing = KnockoutSet.none(self.num_sites)
        return Question(nothing, self.set_of(group), purpose, known=self._known(group), apart=far)

    def set_of(self, sites: Sequence[int] | frozenset[int] | NDArray[np.int64]) -> KnockoutSet:
        """Return these sites as a knockout."""
        return KnockoutSet.of(sites, self.num_sites)

    def _known(self, sites: Sequence[int] | frozenset[int] | NDArray[np.int64]) -> float:
        return sum(self.effects.get(int(site), 0.0) for site in sorted(sites))


class MinimalSets:
    """Finds the redundant sets among a few sites, by competitions of their own."""

    def __init__(self, tests: Tests, search: BoundarySearch, ask: SetQuestions) -> None:
        self._tests = tests
        self._search = search
        self._ask = ask

    async def among(self, sites: frozenset[int], purpose: str) -> list[frozenset[int]]:
        """Return the sets among these sites, and those that fill the scale where they have a part."""
        if len(sites) < 2:
            return []
        found = await self.minimal(sites, purpose)
        if not found and (filling := self._tests.filling()):
            found = await self.minimal(sites | filling, purpose)
        if filling := self._tests.filling(self._ask.set_of(sites)):
            found = await self._sure(found, purpose, sites, filling)
        return list(dict.fromkeys(found))

    async def _sure(
        self, found: Sequence[frozenset[int]], purpose: str, sites: frozenset[int], filling: frozenset[int]
    ) -> list[frozenset[int]]:
        """Return which of the sets found with this filling are sets with another and the usual one as well.

        A set of which a member fills the scale would else be taken for one without it.
        """
        is_another = filling.isdisjoint(self._tests.filling())
        sure: list[frozenset[int]] = []
        for each in found:
            if is_another and await self.minimal(each, purpose, sites | filling) == [each]:
                sure.append(each)
            else:
                sure += await self.minimal(each | filling, purpose)
        questions = [self._ask.alone(each, f"{purpose}/usual") for each in sure]
        verdicts = await self._search.confirm_all(questions)
        return [each for each, verdict in zip(sure, verdicts, strict=True) if verdict is not Verdict.NO_EFFECT]

    async def minimal(
        self, sites: frozenset[int], purpose: str, apart: frozenset[int] | None = None
    ) -> list[frozenset[int]]:
        """Return the smallest sets among these sites that cost something as a whole, with everything else intact.

        A set is one only if it was seen that none of its members can be spared. Where less than it costs something that
        no smaller set explains, what fills the scale has a part in that, and nothing is claimed.
        """
        apart = apart or sites
        if len(sites) < 2 or not await self._is_lost(sites, purpose, apart):
            return []
        found: list[frozenset[int]] = []
        ordered = sorted(sites)
        without = await self._verdicts([sites - {site} for site in ordered], purpose, apart)
        for site, verdict in zip(ordered, without, strict=True):
            if verdict is Verdict.EFFECT and not any(site not in each for each in found):
                found += [each for each in await self.minimal(sites - {site}, purpose, apart) if each not in found]
        return found or ([sites] if all(each is Verdict.NO_EFFECT for each in without) else [])

    async def _is_lost(self, sites: frozenset[int], purpose: str, apart: frozenset[int]) -> bool:
        [verdict] = await self._verdicts([sites], purpose, apart)
        return verdict is Verdict.EFFECT

    async def _verdicts(self, groups: Sequence[frozenset[int]], purpose: str, apart: frozenset[int]) -> list[Verdict]:
        """Tell of each group whether losing it costs more than its members', with everything else intact."""
        return await self._search.confirm_all(
            [self._ask.alone(group, f"{purpose}/alone", apart=apart) for group in groups]
        )
