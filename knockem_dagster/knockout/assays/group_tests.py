"""Asking what a group of sites does on a background, one independent competition at a time.

Under noise the background itself is the opponent: no effect of the group then is no effect at all, however much the
background has lost before. Without noise the opponent is the wild type, since an exact organism hides what stays
below one threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from knockem_dagster.knockout.assays.asking import Budget, ask_with_replacement
from knockem_dagster.knockout.competitions import Compete, Competition, Counts, Untestable, score
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import Effect, ScoreModel

_MOST_ASKS = 3


@dataclass(frozen=True, slots=True)
class Question:
    """Does knocking out `group` matter where `background` is knocked out already? `purpose` is recorded with it.

    One that `restores` asks whether giving the group back to the background helps. Of the difference, `known`
    (thresholds) is explained already: what matters is what is lost beyond it. Where `apart` is given, neither
    those sites nor what fills the scale of other questions may fill the scale of this one.
    """

    background: KnockoutSet
    group: KnockoutSet
    purpose: str
    restores: bool = False
    known: float = 0.0
    apart: KnockoutSet | None = None

    @property
    def fitter(self) -> KnockoutSet:
        """Return the side that lacks less."""
        return self.background - self.group if self.restores else self.background

    @property
    def weaker(self) -> KnockoutSet:
        """Return the side that lacks more."""
        return self.background if self.restores else self.background | self.group


class Tests(Protocol):
    """What searches ask: evidence (log likelihood ratios) that groups matter by `effect` (thresholds)."""

    @property
    def model(self) -> ScoreModel:
        """Return how scores speak for effects."""
        ...

    @property
    def budget(self) -> Budget:
        """Return what may still be asked for; questions raise BudgetSpent when nothing is left."""
        ...

    @property
    def ran_out(self) -> bool:
        """Tell whether some question could not be asked as it should be, for lack of known sites to fill the scale."""
        ...

    def filling(self, apart: KnockoutSet | None = None) -> frozenset[int]:
        """Return the sites that are knocked out with most questions, or with those that must stand apart.

        They make visible what is small; where there is noise there are none.
        """
        ...

    async def evidence(self, questions: Sequence[Question], *, effect: float) -> list[float | Untestable]:
        """Ask every question once, together."""
        ...

    async def measured(self, questions: Sequence[Question], competitions: int) -> list[Effect]:
        """Measure what each question's group costs beyond what is known, with so many competitions each."""
        ...


class GroupTests:
    """The competitions of one search: asks, numbers replicates, and counts what was spent.

    Asking a question again is a new, independent competition with the next replicate number. An untestable one is
    replaced up to twice. `num_beneficial` counts scores that are detected benefits.
    """

    def __init__(self, compete: Compete, model: ScoreModel, budget: Budget | None = None) -> None:
        self.model = model
        self.budget = budget or Budget()
        self.ran_out = False
        self.num_competitions = 0
        self.num_beneficial = 0
        self._last_untestable = Untestable("no reason given")
        self._compete = compete
        self._next_replicate: defaultdict[tuple[KnockoutSet, KnockoutSet, str], int] = defaultdict(int)

    def filling(self, apart: KnockoutSet | None = None) -> frozenset[int]:
        """Return no sites: questions are asked as they are."""
        del apart
        return frozenset()

    async def scores(self, questions: Sequence[Question]) -> list[float | Untestable]:
        """Ask every question once, together; scores (1/update) in the order asked."""

        self.budget.spend(len(questions))

        def draw(slot: int, attempt: int) -> Competition:
            if attempt:
                self.budget.spend(1)
            return self._next_competition(questions[slot])

        asked = await ask_with_replacement(self._compete, draw, slots=len(questions), most_asks_per_slot=_MOST_ASKS)
        values = [score(one.answer) if isinstance(one.answer, Counts) else one.answer for one in asked]
        self._last_untestable = next((each for each in values if isinstance(each, Untestable)), self._last_untestable)
        self.num_beneficial += sum(isinstance(each, float) and self.model.null.detects_benefit(each) for each in values)
        return values

    async def evidence(self, questions: Sequence[Question], *, effect: float) -> list[float | Untestable]:
        """Ask every question once, together; log likelihood ratios of `effect` (thresholds) against no effect."""
        return [
            answer if isinstance(answer, Untestable) else self._evidence(question, answer, effect)
            for question, answer in zip(questions, await self.scores(questions), strict=True)
        ]

    async def measured(self, questions: Sequence[Question], competitions: int) -> list[Effect]:
        """Measure what each question's group costs beyond what is known, with so many competitions each.

        One is enough without noise.
        """
        number = 1 if self.model.is_exact else competitions
        answers = await self.scores([question for question in questions for _ in range(number)])
        effects: list[Effect] = []
        for place, question in enumerate(questions):
            own = answers[place * number : (place + 1) * number]
            scores = [each for each in own if not isinstance(each, Untestable)]
            effect = self.model.measured_effect(np.array(scores)) if scores else Effect.unknown()
            effects.append(effect.minus(question.known))
        return effects

    def untestable(self, count: int) -> list[Untestable]:
        """Return so many lost answers, with the reason of the last one that was lost."""
        return [self._last_untestable] * count

    def _evidence(self, question: Question, answer: float, effect: float) -> float:
        evidence = self.model.log_likelihood_ratio(answer, effect=question.known + effect, known=question.known)
        return -evidence if self.model.is_exact and question.restores else evidence

    def _next_competition(self, question: Question) -> Competition:
        """Return the next competition of a question. An exact organism is asked about the side that is in doubt."""
        self.num_competitions += 1
        sides = question.fitter, question.weaker
        if self.model.is_exact:
            sides = KnockoutSet.none(question.background.num_sites), sides[0 if question.restores else 1]
        key = (*sides, question.purpose)
        replicate = self._next_replicate[key]
        self._next_replicate[key] += 1
        return Competition(*key, replicate)
