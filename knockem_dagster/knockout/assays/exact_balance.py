"""What knockouts cost an organism without noise, to the last digit.

Such an organism hides what costs less than one threshold. Together with a filler - known sites that cost a threshold or
a little more - nothing stays hidden: what a knockout adds to the filler's cost is its own, until the scale ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.asking import Budget, ask_with_replacement
from knockem_dagster.knockout.assays.group_tests import Question
from knockem_dagster.knockout.competitions import Compete, Competition, Counts, Untestable, score
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import Effect, ScoreModel

LIGHT, HEAVY = (1.02, 1.7), (2.0, 2.9)
"""What a filler may cost (thresholds): enough to be seen, and no more, since the rest of the scale is for questions.

A heavy one makes room for benefits instead.
"""
_END_OF_SCALE = 0.99
_GRAINS = 2
_SMALLEST_LOSS = 0.005
"""Less is not told from the rounding of several known effects (thresholds)."""
_MOST_ASKS = 3
_MOST_FILLERS = 5


def choose_filler(
    effects: Mapping[int, float], *, avoid: KnockoutSet, bounds: tuple[float, float] = LIGHT
) -> KnockoutSet | None:
    """Return a few sites whose effects add up to a filler, none of them to `avoid`; None if there are too few."""
    rising = sorted((effect, site) for site, effect in effects.items() if effect > 0 and site not in avoid)
    least, most = bounds
    chosen: list[int] = []
    cost = 0.0
    while rising:
        last = next((site for effect, site in rising if least <= cost + effect <= most), None)
        if last is not None:
            return KnockoutSet.of([*chosen, last], avoid.num_sites)
        effect, site = rising.pop()
        if cost + effect < least:
            chosen.append(site)
            cost += effect
    return None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a knockout costs beyond the filler (thresholds), to within `grain`; infinite beyond `room`."""

    value: float
    grain: float
    room: float = math.inf

    @property
    def is_nothing(self) -> bool:
        """Tell whether it is no more than rounding."""
        return abs(self.value) <= self.grain


NO_FILLER = Untestable("no known sites are left that could fill the scale up to one threshold")
CONTRADICTION = (
    "the wild type answers without noise, but one and the same competition was answered in two ways, with an effect of "
    "{first:.3g} thresholds and of {second:.3g}: let the organism answer the same always, or with noise for the wild "
    "type too, and make sure that it never exchanges alpha and beta; then submit it again"
)
HIDDEN = Untestable("benefits hide what it costs, and no known sites are left that could outweigh them")


class ExactBalance:
    """Asks for costs, each once: with `filler`, or, where a question holds some of its sites, one of other sites.

    `effects` (thresholds) are those of sites known to be additive, of which fillers are made. A filler that does not
    cost what its sites do is not used again. A knockout for which no filler is left is untestable. Fillers
    `ran_out` then, where the usual one had to do since no other was left that stands apart, and where the scale did.
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
        self.ran_out = False
        self._compete = compete
        self._effects = dict(effects)
        self._usual = filler
        self._asked: dict[KnockoutSet, Cost | Untestable] = {}

    def filling(self, apart: KnockoutSet | None = None) -> frozenset[int]:
        """Return the sites of the usual filler (none before the first question), or of the one apart from these."""
        filler = self._usual if apart is None else self._filler_of(apart, apart=apart)
        return frozenset() if filler is None else frozenset(filler.sites.tolist())

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
        return await self._costs([(knockout, None) for knockout in knockouts], purpose)

    async def costs_alone(self, knockouts: Sequence[KnockoutSet], purpose: str) -> list[Cost | Untestable]:
        """Return what knockouts cost that need no filler to be seen."""
        await self._ask(knockouts, purpose)
        return [self._asked[knockout] for knockout in knockouts]

    async def _losses(self, questions: Sequence[Question]) -> list[Cost | Untestable]:
        """Return what each question's group costs beyond what is known; sides beyond the scale are asked alone."""
        sides = [(side, question.apart) for question in questions for side in (question.fitter, question.weaker)]
        purpose = questions[0].purpose if questions else ""
        costs = await self._costs(sides, purpose)
        beyond = [place for place, cost in enumerate(costs) if isinstance(cost, Cost) and math.isinf(cost.value)]
        seen = await self.costs_alone([sides[place][0] for place in beyond], purpose)
        for place, alone in zip(beyond, seen, strict=True):
            if isinstance(alone, Cost) and not alone.is_nothing:
                costs[place] = replace(alone, room=self._end_of_scale)
        return [
            self._lost(question, fitter, weaker)
            for question, fitter, weaker in zip(questions, costs[::2], costs[1::2], strict=True)
        ]

    def _lost(self, question: Question, fitter: Cost | Untestable, weaker: Cost | Untestable) -> Cost | Untestable:
        """Return what a question's group costs; nothing where both sides are beyond the scale and it was given back."""
        if question.restores and isinstance(fitter, Cost) and isinstance(weaker, Cost) and math.isinf(fitter.value):
            self.ran_out = True
            return Cost(0.0, 0.0)
        return _loss(fitter, weaker, question.known)

    async def _costs(
        self, cases: Sequence[tuple[KnockoutSet, KnockoutSet | None]], purpose: str
    ) -> list[Cost | Untestable]:
        """Return what knockouts cost, each apart from some sites; hidden by benefits, once more on a heavy filler."""
        costs = await self._filled(cases, purpose, LIGHT)
        hidden = [place for place, cost in enumerate(costs) if cost is HIDDEN]
        if hidden:
            again = await self._filled([cases[place] for place in hidden], purpose, HEAVY)
            for place, cost in zip(hidden, again, strict=True):
                costs[place] = cost
        return costs

    async def _filled(
        self, cases: Sequence[tuple[KnockoutSet, KnockoutSet | None]], purpose: str, bounds: tuple[float, float]
    ) -> list[Cost | Untestable]:
        for _ in range(_MOST_FILLERS):
            fillers = [self._filler_of(knockout, apart=apart, bounds=bounds) for knockout, apart in cases]
            await self._ask([each for each in fillers if each is not None], purpose)
            if not self._distrusts(fillers):
                break
        else:
            fillers = [None] * len(cases)
        together = [
            filler | knockout
            for filler, (knockout, _) in zip(fillers, cases, strict=True)
            if filler is not None and not knockout.is_wild_type
        ]
        await self._ask(together, purpose)
        return [self._cost(filler, knockout) for filler, (knockout, _) in zip(fillers, cases, strict=True)]

    def _filler_of(
        self, knockout: KnockoutSet, *, apart: KnockoutSet | None, bounds: tuple[float, float] = LIGHT
    ) -> KnockoutSet | None:
        """Return the filler that goes with a knockout: where possible always the same, unless it must stand `apart`.

        Then it has no site of the usual filler, with which the knockout may have something in common, nor of these.
        Where no such filler is left, the usual one must do.
        """
        if self._usual is None:
            self._usual = choose_filler(self._effects, avoid=KnockoutSet.none(knockout.num_sites))
        usual = self._usual
        if usual is None:
            return None
        fits = bounds is LIGHT and not usual.mask & knockout.mask
        if apart is not None:
            other = choose_filler(self._effects, avoid=knockout | usual | apart, bounds=bounds)
            self.ran_out |= other is None
            return usual if other is None and fits else other
        return usual if fits else choose_filler(self._effects, avoid=knockout, bounds=bounds)

    def _distrusts(self, fillers: Sequence[KnockoutSet | None]) -> bool:
        """Forget the effects of fillers that do not cost what their sites do; tell whether there was one."""
        found = False
        for filler in dict.fromkeys(fillers):
            if filler is None or self._is_sound(filler):
                continue
            found = True
            for site in filler.sites.tolist():
                self._effects.pop(site, None)
            if filler == self._usual:
                self._usual = None
        return found

    def _is_sound(self, filler: KnockoutSet) -> bool:
        cost = self._asked[filler]
        if isinstance(cost, Untestable) or cost.is_nothing or math.isinf(cost.value):
            return False
        sites = filler.sites.tolist()
        if any(site not in self._effects for site in sites):
            return True  # a prefix that was found to cost a threshold; of its sites nothing is known
        return abs(cost.value - sum(self._effects[site] for site in sites)) <= _SMALLEST_LOSS

    def _cost(self, filler: KnockoutSet | None, knockout: KnockoutSet) -> Cost | Untestable:
        if knockout.is_wild_type:
            return Cost(0.0, 0.0)
        if filler is None:
            self.ran_out = True
            return NO_FILLER
        alone, together = self._asked[filler], self._asked[filler | knockout]
        if isinstance(alone, Untestable) or isinstance(together, Untestable):
            return together if isinstance(together, Untestable) else alone
        if together.is_nothing:
            return HIDDEN
        return Cost(together.value - alone.value, together.grain + alone.grain, self._end_of_scale - alone.value)

    @property
    def _end_of_scale(self) -> float:
        return _END_OF_SCALE * (self.model.null.bound - self.model.null.mean) / self.model.null.unit

    async def _ask(self, knockouts: Sequence[KnockoutSet], purpose: str) -> None:
        """Ask for the costs of knockouts as they are, of each that was not asked for before."""
        new = [each for each in dict.fromkeys(knockouts) if each not in self._asked]

        self.budget.spend(len(new))

        def draw(slot: int, attempt: int) -> Competition:
            if attempt:
                self.budget.spend(1)
            return Competition(KnockoutSet.none(new[slot].num_sites), new[slot], purpose, attempt)

        asked = await ask_with_replacement(self._compete, draw, slots=len(new), most_asks_per_slot=_MOST_ASKS)
        costs = [self._as_cost(one.answer) if isinstance(one.answer, Counts) else one.answer for one in asked]
        self._asked |= dict(zip(new, costs, strict=True))
        await self._repeat([each for each, cost in zip(new, costs, strict=True) if _is_benefit(cost)], purpose)

    async def _repeat(self, knockouts: Sequence[KnockoutSet], purpose: str) -> None:
        """Ask once more what was to the benefit of who lost sites: so does a result whose sides were exchanged.

        Raises AssayError when the second answer is another one.
        """
        self.budget.spend(len(knockouts))
        nothing = KnockoutSet.none(knockouts[0].num_sites) if knockouts else None
        again = [Competition(nothing, each, purpose, _MOST_ASKS) for each in knockouts if nothing is not None]
        for knockout, answer in zip(knockouts, await self._compete(again) if again else [], strict=True):
            first = self._asked[knockout]
            if isinstance(answer, Counts) and isinstance(first, Cost):
                second = self._as_cost(answer)
                if second.value != first.value and abs(second.value - first.value) > first.grain + second.grain:
                    raise AssayError(CONTRADICTION.format(first=first.value, second=second.value))

    def _as_cost(self, counts: Counts) -> Cost:
        null = self.model.null
        value = score(counts)
        grain = _GRAINS / (counts.num_alpha + counts.num_beta) / counts.updates_elapsed / null.unit
        if abs(value) >= _END_OF_SCALE / counts.updates_elapsed:
            return Cost(math.copysign(math.inf, value), grain)
        return Cost((value - null.mean) / null.unit, grain)


def _is_benefit(cost: Cost | Untestable) -> bool:
    return isinstance(cost, Cost) and cost.value < -cost.grain


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
    """Return what is lost from one to the other, beyond what is known.

    Where the weaker side is beyond the scale, it is lost if the scale would have held what is known.
    """
    if isinstance(fitter, Untestable):
        return fitter
    if isinstance(weaker, Untestable):
        return weaker
    if math.isinf(fitter.value):
        return Untestable("the scale ended before the question")
    if math.isinf(weaker.value) and weaker.room - fitter.value - known <= _SMALLEST_LOSS:
        return Untestable("the scale ends within what is known")
    return Cost(weaker.value - fitter.value - known, fitter.grain + weaker.grain)
