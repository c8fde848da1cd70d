"""Planning: what studies of imagined genomes take is what real ones take, and budgets are kept."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.reference_organism import Mode, ReferenceGenome, ReferenceOrganism
from knockem_dagster.knockout.allotment import Allotment
from knockem_dagster.knockout.assays.asking import Budget
from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings, search_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.set_search import SetSearchSettings, find_sets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingSettings, weigh_sites
from knockem_dagster.knockout.planning import SHARES, Wanted, plan_study
from knockem_dagster.knockout.score_model import ScoreModel
from tests.knockout.worlds import seeded


def studied(genome: ReferenceGenome, budget: int | None, *, seed: int = 1) -> tuple[int, SiteWeights, FoundSets]:
    """Run a noisy study as a submission does; return what was asked, and what was found."""
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=seed)
    allotment, rng = Allotment(genome.num_sites, 0.1, 0.02, budget), seeded(seed)

    async def study() -> tuple[SiteWeights, FoundSets]:
        measured = await measure_null_distribution(genome.genome, organism.compete, rng, allotment.null_settings)
        null, most = measured.distribution(), allotment.for_weighing(organism.num_asked, sets_follow=True)
        settings = WeighingSettings(allotment.weighing_error, most)
        weights = await weigh_sites(genome.genome, organism.compete, rng, settings, null=null)
        sets = await find_sets(
            genome.genome,
            organism.compete,
            rng,
            SetSearchSettings(),
            model=ScoreModel.fit(null),
            weights=weights,
            budget=Budget(allotment.left(organism.num_asked)),
        )
        return weights, sets

    weights, sets = asyncio.run(study())
    return organism.num_asked, weights, sets


def test_a_demo_genome_takes_what_was_planned() -> None:
    plan = asyncio.run(plan_study(Allotment(1000, 0.1, 0.02, None), seeded(), Wanted(), is_exact=False))
    assert [need.share for need in plan] == list(SHARES)
    assert plan[0].low < plan[1].low < plan[2].low
    for seed in range(3):
        asked, _, found = studied(ReferenceGenome.demo(seeded(seed)), None, seed=seed)
        assert plan[2].low <= asked <= plan[2].high
        assert found.is_complete


@pytest.mark.parametrize("budget", [200, 1000, 5000])
def test_a_budget_is_kept_and_more_of_it_tells_more(budget: int) -> None:
    genome = ReferenceGenome.demo(seeded(3))
    asked, weights, _ = studied(genome, budget)
    assert asked <= budget
    again, finer, _ = studied(genome, 2 * budget)
    assert again <= 2 * budget
    assert finer.error < weights.error


def test_a_plan_within_a_budget_says_so() -> None:
    plan = asyncio.run(plan_study(Allotment(300, 0.1, 0.02, 700), seeded(), Wanted(), is_exact=False))
    assert max(need.high for need in plan) == 700


@pytest.mark.parametrize("mode", ["exact", "wright-fisher"])
def test_skeletons_by_prefix_search_take_what_was_planned(mode: Mode) -> None:
    settings, genome = PrefixSkeletonSettings(skeletons=9), ReferenceGenome.demo(seeded(1))
    wanted = Wanted(weighing=False, sets=False, skeletons=settings)
    plan = asyncio.run(plan_study(Allotment(1000, 0.1, 0.02, None), seeded(), wanted, is_exact=mode == "exact"))
    organism = ReferenceOrganism(genome, mode=mode, seed=1)

    async def study() -> None:
        null = await measure_null_distribution(genome.genome, organism.compete, seeded(), NullSettings())
        model = ScoreModel.fit(null.distribution(stated_unit=organism.stated_unit))
        await search_skeletons(genome.genome, organism.compete, seeded(), settings, model=model)

    asyncio.run(study())
    assert plan[0].high < plan[1].low < plan[2].low <= organism.num_asked <= plan[2].high


def test_with_a_budget_skeletons_have_a_share_that_nothing_else_takes() -> None:
    allotment = Allotment(1000, 0.1, 0.02, 10_000, skeletons_follow=True)
    assert allotment.for_weighing(100, sets_follow=False) == 6900
    assert allotment.for_weighing(100, sets_follow=True) == int(0.6 * 6900)
    assert allotment.for_sets(4240) == 2760
    assert allotment.left(7000) == 3000
    assert allotment.for_sets(9000) == 0
    alone = Allotment(1000, 0.1, 0.02, 10_000)
    assert alone.for_sets(4240) == alone.left(4240) == 5760


def test_exact_organisms_are_planned_too() -> None:
    plan = asyncio.run(plan_study(Allotment(500, 0.1, 0.02, None), seeded(), Wanted(), is_exact=True))
    assert all(0 < need.low < need.high < 5000 for need in plan)
