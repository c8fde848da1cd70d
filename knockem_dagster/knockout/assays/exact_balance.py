"""What knockouts cost an organism without noise, to the last digit.

Such an organism hides what costs less than one threshold. Together with a filler - known sites that cost a threshold or
a little more - nothing stays hidden: what a knockout adds to the filler's cost is its own, until the scale ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from knockem_dagster.knockout.assays.asking import ask_with_replacement
from knockem_dagster.knockout.assays.group_tests import Question
from knockem_dagster.knockout.competitions import Compete, Competition, Counts, Untestable, score
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import Effect, ScoreModel

LEAST_FILL, MOST_FILL = 1.02, 1.7
"""What a filler may cost (thresholds): enough to be seen, and no more, since the rest of the scale is for questions."""
_END_OF_SCALE = 0.99
_GRAINS = 2
_MOST_ASKS = 3


def choose_filler(effects: Mapping[int, float], *, avoid: KnockoutSet) -> KnockoutSet | None:
    """Return the fewest of these sites that make a filler, none of them to `avoid`; None if there are too few."""
    chosen: list[int] = []
    cost = 0.0
    for site, effect in sorted(effects.items(), key=lambda each: (-each[1], each[0])):
        if site not in avoid and effect > 0 and cost + effect <= MOST_FILL:
            chosen.append(site)
            cost += effect
        if cost >= LEAST_FILL:
            return KnockoutSet.of(chosen, avoid.num_sites)
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
    """Asks for costs, each once: with `filler`, or, where a question holds some of its sites, one of other `effects`.

    `effects` (thresholds) are those of sites known to be additive. A knockout for which no filler is left is
    untestable.
    """

    def __init__(
        self, compete: Compete, model: ScoreModel, *, effects: Mapping[int, float], filler: KnockoutSet | None = None
    ) -> None:
        if not model.is_exact:
            raise ValueError("an organism with noise has no exact costs")
        self.model = model
        self.num_competitions = 0
        self._compete = compete
        self._effects = effects
        self._filler = filler
        self._costs: dict[tuple[KnockoutSet, KnockoutSet], Cost | Untestable] = {}

    async def evidence(self, questions: Sequence[Question], *, effect: float) -> list[float | Untestable]:
        """Tell for each question whether anything is lost beyond what is known: infinitely for or against.

        `effect` is what noisy organisms are asked about; here every effect counts.
        """
        del effect
        sides = [side for question in questions for side in (question.fitter, question.weaker)]
        costs = await self.costs(sides, questions[0].purpose if questions else "")
        return [
            _evidence(fitter, weaker, question.known)
            for question, fitter, weaker in zip(questions, costs[::2], costs[1::2], strict=True)
        ]

    async def measured(self, questions: Sequence[Question], competitions: int) -> list[Effect]:
        """Measure what each question's group costs beyond what is known; one competition of each side is enough."""
        del competitions
        sides = [side for question in questions for side in (question.fitter, question.weaker)]
        costs = await self.costs(sides, questions[0].purpose if questions else "")
        return [
            Effect.unknown()
            if isinstance(fitter, Untestable) or isinstance(weaker, Untestable)
            else Effect(weaker.value - fitter.value, math.nan, math.nan, 1).minus(question.known)
            for question, fitter, weaker in zip(questions, costs[::2], costs[1::2], strict=True)
        ]

    async def costs(
        self, knockouts: Sequence[KnockoutSet], purpose: str, *, avoid: KnockoutSet | None = None
    ) -> list[Cost | Untestable]:
        """Return what these knockouts cost, asking together for those not asked before; no filler holds `avoid`."""
        asked = [(self._filler_for(knockout, avoid), knockout) for knockout in knockouts]
        new = list(
            dict.fromkeys(
                (filler, knockout)
                for filler, whole in asked
                for knockout in (KnockoutSet.none(whole.num_sites), whole)
                if filler is not None and not whole.is_wild_type and (filler, knockout) not in self._costs
            )
        )
        await self._ask(new, purpose)
        return [self._cost(filler, knockout) for filler, knockout in asked]

    def _cost(self, filler: KnockoutSet | None, knockout: KnockoutSet) -> Cost | Untestable:
        if knockout.is_wild_type:
            return Cost(0.0, 0.0)
        if filler is None:
            return Untestable("no known sites are left that could fill the scale up to one threshold")
        alone, together = self._costs[filler, KnockoutSet.none(knockout.num_sites)], self._costs[filler, knockout]
        if isinstance(alone, Untestable) or isinstance(together, Untestable):
            return together if isinstance(together, Untestable) else alone
        return Cost(together.value - alone.value, together.grain + alone.grain)

    def _filler_for(self, knockout: KnockoutSet, avoid: KnockoutSet | None) -> KnockoutSet | None:
        shunned = knockout if avoid is None else knockout | avoid
        if self._filler is not None and not self._filler.mask & shunned.mask:
            return self._filler
        return choose_filler(self._effects, avoid=shunned)

    async def _ask(self, wanted: Sequence[tuple[KnockoutSet, KnockoutSet]], purpose: str) -> None:
        def draw(slot: int, attempt: int) -> Competition:
            self.num_competitions += 1
            filler, knockout = wanted[slot]
            return Competition(KnockoutSet.none(knockout.num_sites), filler | knockout, purpose, attempt)

        asked = await ask_with_replacement(self._compete, draw, slots=len(wanted), most_asks_per_slot=_MOST_ASKS)
        for (filler, knockout), one in zip(wanted, asked, strict=True):
            answer = one.answer
            self._costs[filler, knockout] = self._as_cost(answer) if isinstance(answer, Counts) else answer

    def _as_cost(self, counts: Counts) -> Cost:
        null = self.model.null
        value = score(counts)
        grain = _GRAINS / (counts.num_alpha + counts.num_beta) / counts.updates_elapsed / null.unit
        if abs(value) >= _END_OF_SCALE / counts.updates_elapsed:
            return Cost(math.copysign(math.inf, value), grain)
        return Cost((value - null.mean) / null.unit, grain)


def light_groups(effects: Mapping[int, float], largest_sum: float) -> Iterator[list[int]]:
    """Yield groups of these sites that cost at most so much together; a site that costs more is in none."""
    group: list[int] = []
    total = 0.0
    for site, effect in sorted(effects.items()):
        if abs(effect) > largest_sum:
            continue
        if group and total + abs(effect) > largest_sum:
            yield group
            group, total = [], 0.0
        group.append(site)
        total += abs(effect)
    if group:
        yield group


def _evidence(fitter: Cost | Untestable, weaker: Cost | Untestable, known: float) -> float | Untestable:
    if isinstance(fitter, Untestable):
        return fitter
    if isinstance(weaker, Untestable):
        return weaker
    if math.isinf(fitter.value):
        return -math.inf  # the scale ended before: nothing more can be seen
    lost = weaker.value - fitter.value - known
    return math.inf if lost > fitter.grain + weaker.grain else -math.inf
