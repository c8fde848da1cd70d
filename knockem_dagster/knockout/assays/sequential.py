"""The sequential probability ratio test (Wald 1945): as many competitions as the answer needs, and no more.

It decides whether one group has an effect of at least the resolution on top of a background. Where evidence from
several groups bears on one another, prefix search weighs it together; this test is for a single question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from knockem_dagster.knockout.assays.group_tests import Question, Tests
from knockem_dagster.knockout.competitions import Untestable


class Verdict(Enum):
    """What a test found: an effect, none of the size asked for, no decision within the cap, or no answers at all."""

    EFFECT = "effect"
    NO_EFFECT = "no effect"
    UNDECIDED = "undecided"
    UNTESTABLE = "untestable"


@dataclass(frozen=True, slots=True)
class SequentialBounds:
    """When to stop: log likelihood ratio at least `upper`, at most `lower`, or `cap` competitions spent."""

    upper: float
    lower: float
    cap: int = 120

    def __post_init__(self) -> None:
        if not self.lower < 0 < self.upper or self.cap < 1:
            raise ValueError("a sequential test needs lower < 0 < upper, and a cap of at least one competition")

    @classmethod
    def for_error_rate(cls, error_rate: float, *, expected_tests: float, cap: int = 120) -> SequentialBounds:
        """Return bounds that spend `error_rate` (expected wrong decisions) over `expected_tests` tests.

        Both bounds are ln(expected_tests / error_rate), so either kind of error has this budget.
        """
        bound = math.log(expected_tests / error_rate)
        return cls(bound, -bound, cap)

    def confirming(self) -> SequentialBounds:
        """Return the bounds of an independent confirmation: an effect needs evidence e^2 times as strong."""
        return SequentialBounds(self.upper + 2, self.lower, self.cap)


@dataclass(frozen=True, slots=True)
class SequentialResult:
    """The verdict, the log likelihood ratio it rests on, and how many competitions had an answer."""

    verdict: Verdict
    log_likelihood_ratio: float
    num_answers: int


async def test_sequentially(
    tests: Tests, question: Question, *, resolution: float, bounds: SequentialBounds, width: int = 1
) -> SequentialResult:
    """Ask until a bound is reached: H0 no effect, H1 an effect of `resolution` (thresholds).

    `width` competitions are asked at a time. An exact organism is asked once.
    """
    [result] = await test_together(tests, [question], resolution=resolution, bounds=bounds, width=width)
    return result


async def test_together(
    tests: Tests, questions: Sequence[Question], *, resolution: float, bounds: SequentialBounds, width: int = 1
) -> list[SequentialResult]:
    """Test several questions side by side, in step: what is asked next depends on answers, not on when they come."""
    results = [SequentialResult(Verdict.UNDECIDED, 0.0, 0)] * len(questions)
    pending = list(range(len(questions)))
    while pending:
        answered = results[pending[0]].num_answers
        wave = 1 if tests.model.is_exact else min(width, bounds.cap - answered)
        asked = [questions[place] for place in pending for _ in range(wave)]
        evidence = await tests.evidence(asked, effect=resolution)
        for number, place in enumerate(pending):
            results[place] = _after(results[place], evidence[number * wave : (number + 1) * wave], bounds)
        pending = [
            place
            for place in pending
            if results[place].verdict is Verdict.UNDECIDED and results[place].num_answers < bounds.cap
        ]
    return results


def _after(
    result: SequentialResult, evidence: Sequence[float | Untestable], bounds: SequentialBounds
) -> SequentialResult:
    """Return the result after one more wave of evidence."""
    total, answers = result.log_likelihood_ratio, result.num_answers
    for each in evidence:
        if isinstance(each, Untestable):
            return SequentialResult(Verdict.UNTESTABLE, total, answers)
        total += each
        answers += 1
    if total >= bounds.upper:
        return SequentialResult(Verdict.EFFECT, total, answers)
    if total <= bounds.lower:
        return SequentialResult(Verdict.NO_EFFECT, total, answers)
    return SequentialResult(Verdict.UNDECIDED, total, answers)
