"""The sequential test and the score model: what is asked, when it stops, and how often it errs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism, wright_fisher
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.assays.group_tests import GroupTests, Question
from knockem_dagster.knockout.assays.sequential import SequentialBounds, SequentialResult, Verdict, test_sequentially
from knockem_dagster.knockout.competitions import Answer, Competition, Untestable
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import ScoreModel
from tests.knockout.worlds import exact_null, seeded

test_sequentially.__test__ = False  # type: ignore[attr-defined]  # named for the field's term, not for pytest
NUM_SITES = 8
BOUNDS = SequentialBounds.for_error_rate(0.05, expected_tests=5)


def scores_of(effect: float, n: int, seed: int) -> np.ndarray:
    return (2 * wright_fisher(np.full(n, effect), seeded(seed)) / 1000 - 1) / 100


def noisy_model(n: int = 4000, seed: int = 1) -> ScoreModel:
    return ScoreModel.fit(NullDistribution.from_scores(scores_of(0, n, seed), bound=1 / 100))


class Remembering:
    """Passes questions on to an organism and remembers them; answers nothing for some."""

    def __init__(self, organism: ReferenceOrganism, lost_replicates: range = range(0)) -> None:
        self.asked: list[Competition] = []
        self._organism = organism
        self._lost = lost_replicates

    async def __call__(self, competitions: Sequence[Competition]) -> list[Answer]:
        self.asked.extend(competitions)
        answers = await self._organism.compete(competitions)
        return [
            Untestable("killed") if competition.replicate in self._lost else answer
            for competition, answer in zip(competitions, answers, strict=True)
        ]


def organism_of(effect: float, *, exact: bool = False, seed: int = 0) -> ReferenceOrganism:
    """Return an organism whose site 1 has this effect and whose site 0 costs 2 thresholds."""
    genome = ReferenceGenome(NUM_SITES, {0: 2.0, 1: effect})
    return ReferenceOrganism(genome, mode="exact" if exact else "wright-fisher", seed=seed)


def question(background: Sequence[int] = (0,), purpose: str = "test") -> Question:
    return Question(KnockoutSet.of(background, NUM_SITES), KnockoutSet.of([1], NUM_SITES), purpose)


def decide(
    compete: Remembering, model: ScoreModel, asked: Question, *, bounds: SequentialBounds = BOUNDS, width: int = 1
) -> SequentialResult:
    return asyncio.run(test_sequentially(GroupTests(compete, model), asked, resolution=0.4, bounds=bounds, width=width))


@pytest.mark.parametrize(("effect", "wrong"), [(0.0, Verdict.EFFECT), (0.4, Verdict.NO_EFFECT)])
def test_either_error_stays_within_its_budget(effect: float, wrong: Verdict) -> None:
    model, asked = noisy_model(), question()
    results = [decide(Remembering(organism_of(effect, seed=seed)), model, asked) for seed in range(400)]
    # One in a hundred is the budget; more than ten of 400 would happen once in 500 at that rate.
    assert sum(each.verdict is wrong for each in results) <= 10
    assert sum(each.verdict is Verdict.UNDECIDED for each in results) == 0
    assert np.mean([each.num_answers for each in results]) < 20


def test_the_background_is_the_opponent_under_noise_so_its_own_loss_does_not_count() -> None:
    world = Remembering(organism_of(0.0))
    assert decide(world, noisy_model(), question()).verdict is Verdict.NO_EFFECT
    assert {(each.background, each.challenger) for each in world.asked} == {
        (KnockoutSet.of([0], NUM_SITES), KnockoutSet.of([0, 1], NUM_SITES))
    }
    assert [each.replicate for each in world.asked] == list(range(len(world.asked)))


@pytest.mark.parametrize(("effect", "verdict"), [(1.0, Verdict.EFFECT), (0.9, Verdict.NO_EFFECT)])
def test_one_competition_against_the_wild_type_decides_without_noise(effect: float, verdict: Verdict) -> None:
    world = Remembering(organism_of(effect, exact=True))
    assert decide(world, ScoreModel.fit(exact_null()), question([])).verdict is verdict
    [only] = world.asked
    assert only.background.is_wild_type


@pytest.mark.parametrize("width", [1, 7])
def test_the_cap_is_never_exceeded(width: int) -> None:
    world = Remembering(organism_of(0.2))
    result = decide(world, noisy_model(), question(), bounds=SequentialBounds(1e9, -1e9, cap=20), width=width)
    assert result.verdict is Verdict.UNDECIDED
    assert result.num_answers == len(world.asked) == 20


def test_an_untestable_competition_is_replaced_and_only_a_lasting_loss_is_a_verdict() -> None:
    lucky = Remembering(organism_of(1.5), range(0, 2))
    assert decide(lucky, noisy_model(), question()).verdict is Verdict.EFFECT
    unlucky = Remembering(organism_of(1.5), range(0, 100))
    assert decide(unlucky, noisy_model(), question()).verdict is Verdict.UNTESTABLE
    assert [each.replicate for each in unlucky.asked] == [0, 1, 2]


def test_a_confirmation_needs_more_evidence_than_a_test() -> None:
    assert BOUNDS.upper == pytest.approx(math.log(100))
    assert BOUNDS.confirming() == SequentialBounds(BOUNDS.upper + 2, BOUNDS.lower, BOUNDS.cap)
    with pytest.raises(ValueError, match="lower < 0 < upper"):
        SequentialBounds(1, 1)


def test_an_answer_speaks_for_the_effect_it_has() -> None:
    model = noisy_model()
    for effect, sign in ((0.0, -1), (0.4, 1)):
        evidence = [model.log_likelihood_ratio(each, effect=0.4) for each in scores_of(effect, 4000, 2)]
        assert np.mean(evidence) == pytest.approx(sign * model.information(0.4), rel=0.2)


def test_effects_are_measured_on_the_scale_of_thresholds() -> None:
    model = noisy_model()
    unit = model.measured_effect(scores_of(1.0, 4000, 3)).value
    assert unit == pytest.approx(1.0, abs=0.1)
    for effect in (0.25, 0.5, 1.5):
        assert model.measured_effect(scores_of(effect, 4000, 4)).value / unit == pytest.approx(effect, rel=0.07)
    saturated = model.measured_effect(np.full(10, 1 / 100))
    assert saturated.value == saturated.high == math.inf
    assert saturated.low > 2


def test_a_null_that_covers_the_whole_scale_is_refused() -> None:
    scores = np.tile([1 / 100, -1 / 100], 10)
    with pytest.raises(AssayError, match="no score can tell"):
        ScoreModel.fit(NullDistribution.from_scores(scores, bound=1 / 100))


def test_a_null_that_favours_one_side_is_not_taken_for_an_effect() -> None:
    favoured = ScoreModel.fit(NullDistribution.from_scores(scores_of(0.3, 1000, 9), bound=1 / 100))
    assert favoured.measured_effect(scores_of(0.3, 1000, 10)).value == pytest.approx(0, abs=0.05)


def test_benefits_and_competitions_are_counted() -> None:
    organism = ReferenceOrganism(ReferenceGenome(NUM_SITES, {1: -1.5}))
    tests = GroupTests(organism.compete, ScoreModel.fit(exact_null()))
    [answer] = asyncio.run(tests.scores([question([])]))
    assert isinstance(answer, float) and answer < 0
    assert (tests.num_beneficial, tests.num_competitions) == (1, 1)
