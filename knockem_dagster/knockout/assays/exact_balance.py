"""What knockouts cost an organism without noise, to the last digit.

Such an organism hides what costs less than one threshold. Together with a filler - known sites that cost a threshold or
a little more - nothing stays hidden: what a knockout adds to the filler's cost is its own, until the scale ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from knockem_dagster.knockout.assays.asking import Budget, ask_with_replacement
from knockem_dagster.knockout.assays.group_tests import Question
from knockem_dagster.knockout.competitions import Compete, Competition, Counts, Untestable, score
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import Effect, ScoreModel

LEAST_FILL, MOST_FILL = 1.02, 1.7
"""What a filler may cost (thresholds): enough to be seen, and no more, since the rest of the scale is for questions."""
_END_OF_SCALE = 0.99
_GRAINS = 2
_SMALLEST_LOSS = 0.005
"""Less is not told from the rounding of several known effects (thresholds)."""
_MOST_ASKS = 3


def choose_filler(effects: Mapping[int, float], *, avoid: KnockoutSet) -> KnockoutSet | None:
    """Return a few sites of these effects that make a filler, none of them to `avoid`; None if there are too few."""
    rising = sorted((effect, site) for site, effect in effects.items() if effect > 0 and site not in avoid)
    chosen: list[int] = []
    cost = 0.0
    while rising:
        last = next((site for effect, site in rising if LEAST_FILL <= cost + effect <= MOST_FILL), None)
        if last is not None:
            return KnockoutSet.of([*chosen, last], avoid.num_sites)
        effect, site = rising.pop()
        if cost + effect < LEAST_FILL:
            chosen.append(site)
            cost += effect
    return None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a knockout costs beyond the filler (thresholds), to within `grain`; infinite beyond the scale."""

    value: float
    grain: float

    @property
    def is_nothing(self) -> bool:
        """Tell whether it is no more than rounding."""
        return abs(self.value) <= self.grain


class ExactBalance:
    """Asks for costs, each once: with `filler`, or, where a question holds some of its sites, one of other sites.

    `effects` (thresholds) are those of sites known to be additive, of which fillers are made. A knockout for which no
    filler is left is untestable.
    """

    def __init__(
        self,
        compete: Compete,
        model: ScoreModel,
        *,
        effects: Mapping[int, float],
        filler: KnockoutSet | None = None,
        budget: Budget | None = None,
    ) -> None:
        if not model.is_exact:
            raise ValueError("an organism with noise has no exact costs")
        self.model = model
        self.budget = budget or Budget()
        self._compete = compete
        self._effects = effects
        self._filler = filler
        self._asked: dict[KnockoutSet, Cost | Untestable] = {}

    def filling(self, apart: KnockoutSet | None = None) -> frozenset[int]:
        """Return the sites of the usual filler (none before the first question), or of the one apart from these."""
        filler = self._filler if apart is None else self.filler_of(apart, apart=apart)
        return frozenset() if filler is None else frozenset(filler.sites.tolist())

    def filler_of(self, knockout: KnockoutSet, *, apart: KnockoutSet | None = None) -> KnockoutSet | None:
        """Return the filler that goes with a knockout: where possible always the same, unless it must stand `apart`.

        Then it has no site of the usual filler, with which the knockout may have something in common, nor of these.
        """
        nothing = KnockoutSet.none(knockout.num_sites)
        if self._filler is None:
            self._filler = choose_filler(self._effects, avoid=nothing) or nothing
        usual = self._filler
        if usual.is_wild_type:
            return None
        if apart is not None:
            return choose_filler(self._effects, avoid=knockout | usual | apart)
        return choose_filler(self._effects, avoid=knockout) if usual.mask & knockout.mask else usual

    async def evidence(self, questions: Sequence[Question], *, effect: float) -> list[float | Untestable]:
        """Tell for each question whether anything is lost beyond what is known: infinitely for or against.

        `effect` is what noisy organisms are asked about; here whatever can be seen counts.
        """
        del effect
        return [
            lost if isinstance(lost, Untestable) else math.inf if lost.value > _SMALLEST_LOSS else -math.inf
            for lost in await self._losses(questions)
        ]

    async def measured(self, questions: Sequence[Question], competitions: int) -> list[Effect]:
        """Measure what each question's group costs beyond what is known; one competition of each side is enough."""
        del competitions
        return [
            Effect.unknown() if isinstance(lost, Untestable) else Effect(lost.value, math.nan, math.nan, 1)
            for lost in await self._losses(questions)
        ]

    async def costs(self, knockouts: Sequence[KnockoutSet], purpose: str) -> list[Cost | Untestable]:
        """Return what these knockouts cost, asking together for those not asked before."""
        return await self._costs_with([(self.filler_of(knockout), knockout) for knockout in knockouts], purpose)

    async def _costs_with(
        self, pairs: Sequence[tuple[KnockoutSet | None, KnockoutSet]], purpose: str
    ) -> list[Cost | Untestable]:
        """Return what knockouts cost beside their fillers."""
        new = dict.fromkeys(
            knockout
            for filler, own in pairs
            if filler is not None and not own.is_wild_type
            for knockout in (filler, filler | own)
            if knockout not in self._asked
        )
        await self._ask(list(new), purpose)
        return [self._cost(filler, own) for filler, own in pairs]

    async def _losses(self, questions: Sequence[Question]) -> list[Cost | Untestable]:
        """Return what each question's group costs beyond what is known."""
        sides = [
            (self.filler_of(side, apart=question.apart), side)
            for question in questions
            for side in (question.fitter, question.weaker)
        ]
        costs = await self._costs_with(sides, questions[0].purpose if questions else "")
        return [
            _loss(fitter, weaker, question.known)
            for question, fitter, weaker in zip(questions, costs[::2], costs[1::2], strict=True)
        ]

    def _cost(self, filler: KnockoutSet | None, knockout: KnockoutSet) -> Cost | Untestable:
        if knockout.is_wild_type:
            return Cost(0.0, 0.0)
        if filler is None:
            return Untestable("no known sites are left that could fill the scale up to one threshold")
        return _loss(self._asked[filler], self._asked[filler | knockout], 0.0)

    async def _ask(self, knockouts: Sequence[KnockoutSet], purpose: str) -> None:
        def draw(slot: int, attempt: int) -> Competition:
            self.budget.spend(1)
            knockout = knockouts[slot]
            return Competition(KnockoutSet.none(knockout.num_sites), knockout, purpose, attempt)

        asked = await ask_with_replacement(self._compete, draw, slots=len(knockouts), most_asks_per_slot=_MOST_ASKS)
        for knockout, one in zip(knockouts, asked, strict=True):
            answer = one.answer
            self._asked[knockout] = self._as_cost(answer) if isinstance(answer, Counts) else answer

    def _as_cost(self, counts: Counts) -> Cost:
        null = self.model.null
        value = score(counts)
        grain = _GRAINS / (counts.num_alpha + counts.num_beta) / counts.updates_elapsed / null.unit
        if abs(value) >= _END_OF_SCALE / counts.updates_elapsed:
            return Cost(math.copysign(math.inf, value), grain)
        return Cost((value - null.mean) / null.unit, grain)


def light_groups(effects: Mapping[int, float], largest_sum: float) -> Iterator[list[int]]:
    """Yield groups of these sites, in order, that cost at most so much together; one that costs more is in none."""
    group: list[int] = []
    total = 0.0
    for site, effect in effects.items():
        if abs(effect) > largest_sum:
            continue
        if group and total + abs(effect) > largest_sum:
            yield group
            group, total = [], 0.0
        group.append(site)
        total += abs(effect)
    if group:
        yield group


def _loss(fitter: Cost | Untestable, weaker: Cost | Untestable, known: float) -> Cost | Untestable:
    """Return what is lost from one to the other; where the scale ended before, nothing more can be seen."""
    if isinstance(fitter, Untestable):
        return fitter
    if isinstance(weaker, Untestable):
        return weaker
    if math.isinf(fitter.value):
        return Cost(0.0, fitter.grain)
    return Cost(weaker.value - fitter.value - known, fitter.grain + weaker.grain)
