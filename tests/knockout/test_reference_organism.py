"""The ground truth itself: costs, counts, noise, and the genome's written form."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference_organism import (
    EpistaticSet,
    ReferenceGenome,
    ReferenceOrganism,
    exact_counts,
    wright_fisher,
)
from knockem_dagster.knockout.competitions import Competition, score
from knockem_dagster.knockout.knockouts import KnockoutSet
from tests.knockout.worlds import seeded

GENOME = ReferenceGenome.draw(seeded(3), num_sites=60, num_additive=20, num_sets=6, set_size=3, overlapping=True)
NONE = KnockoutSet.none(60)


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 59)), min_size=1, max_size=8), st.sets(st.integers(0, 59), max_size=4))
def test_following_knockouts_one_after_another_gives_their_defined_cost(
    knockouts: list[set[int]], near: set[int]
) -> None:
    organism = ReferenceOrganism(GENOME)
    for sites in [*knockouts, knockouts[-1] | near, knockouts[-1] - near]:
        knockout = KnockoutSet.of(sites, 60)
        assert organism.answer(Competition(NONE, knockout, "test")) == exact_counts(GENOME.effect(knockout))


def test_a_competition_between_two_knockouts_scores_their_difference() -> None:
    genome = ReferenceGenome(4, {0: 0.5, 1: 3.0}, (EpistaticSet((2, 3), 2.0),))
    organism = ReferenceOrganism(genome)
    background, challenger = KnockoutSet.of([0], 4), KnockoutSet.of([0, 2, 3], 4)
    [forth, back] = asyncio.run(
        organism.compete([Competition(background, challenger, "test"), Competition(challenger, background, "test")])
    )
    assert score(forth) == pytest.approx(0.5)
    assert score(back) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("effect", "expected"), [(0.0, 0.0), (0.99, 0.0), (1.0, 0.25), (-1.0, -0.25), (2.4, 0.6), (-0.5, 0.0)]
)
def test_exact_counts_score_a_quarter_of_the_effect(effect: float, expected: float) -> None:
    assert score(exact_counts(effect)) == pytest.approx(expected, abs=1e-6)


def test_an_exact_effect_never_wipes_a_side_out() -> None:
    assert exact_counts(50.0).num_beta > 0
    assert exact_counts(-50.0).num_alpha > 0


def test_wright_fisher_has_the_documented_spread_and_shift() -> None:
    null = 2 * wright_fisher(np.zeros(20_000), seeded(1)) / 1000 - 1
    shifted = 2 * wright_fisher(np.ones(20_000), seeded(2)) / 1000 - 1
    assert null.std() == pytest.approx(0.309, abs=0.006)
    assert null.mean() == pytest.approx(0, abs=0.01)
    assert shifted.mean() / null.std() == pytest.approx(2.25, abs=0.05)


def test_a_noisy_answer_depends_only_on_the_competition_and_the_seed() -> None:
    questions = [Competition(NONE, KnockoutSet.of([site], 60), "test", site) for site in range(6)]
    first = ReferenceOrganism(GENOME, mode="wright-fisher", seed=1)
    second = ReferenceOrganism(GENOME, mode="wright-fisher", seed=1)
    other = ReferenceOrganism(GENOME, mode="wright-fisher", seed=2)
    answers = [first.answer(each) for each in questions]
    assert answers == [second.answer(each) for each in reversed(questions)][::-1]
    assert answers != [other.answer(each) for each in questions]


@pytest.mark.parametrize("draw", ["additive", "epistatic", "any_effect", "demo"])
def test_drawn_genomes_survive_their_written_form(draw: str) -> None:
    genome: ReferenceGenome = getattr(ReferenceGenome, draw)(seeded(1))
    assert ReferenceGenome.from_json(genome.to_json()) == genome
    assert genome.functional_sites == genome.additive_sites | genome.epistatic_sites


def test_the_paper_settings_have_their_numbers() -> None:
    any_effect = ReferenceGenome.any_effect(seeded(1))
    assert (any_effect.num_sites, len(any_effect.effects), len(any_effect.epistatic_sites)) == (10_000, 400, 160)
    epistatic = ReferenceGenome.epistatic(seeded(1))
    assert (epistatic.num_sites, len(epistatic.effects), len(epistatic.sets)) == (4000, 200, 20)
    assert all(len(each.sites) == 5 and 0.7 <= each.penalty <= 1.6 for each in epistatic.sets)
