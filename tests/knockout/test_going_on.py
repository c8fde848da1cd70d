"""Going on where an assay ended: what was asked then is asked first, and what was found stays unless explained."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference_organism import EpistaticSet, ReferenceGenome, ReferenceOrganism
from knockem_dagster.knockout.assays.asking import Budget
from knockem_dagster.knockout.assays.exact_balance import ExactBalance
from knockem_dagster.knockout.assays.exact_weighing import ExactWeighingSettings, weigh_exactly
from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeletons
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings, search_skeletons
from knockem_dagster.knockout.assays.published.jackknife import Jackknife, JackknifeSettings, jackknife_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.published.skeletons import SkeletonSettings, skeletonize
from knockem_dagster.knockout.assays.set_search import SetSearchSettings, enumerate_sets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingGoal, WeighingSettings, weigh_sites
from knockem_dagster.knockout.competitions import Competition
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.score_model import ScoreModel
from tests.knockout.worlds import Losing, Recording, exact_null, seeded

NOISY = ReferenceGenome.draw(seeded(5), num_sites=60, num_additive=6)
LIGHT = dict(enumerate([0.5, 0.41, 0.33, 0.62, 0.27, 0.35, 0.44, 0.51, 0.3, 0.2]))
TWO_SETS = (EpistaticSet((10, 20, 30), 1.0), EpistaticSet((11, 21), 0.5))
GENOME = ReferenceGenome(40, LIGHT, TWO_SETS)


@pytest.fixture(scope="module")
def null() -> NullDistribution:
    organism = ReferenceOrganism(NOISY, mode="wright-fisher")
    found = measure_null_distribution(NOISY.genome, organism.compete, seeded(), NullSettings(50))
    return asyncio.run(found).distribution()


def weighing_questions(null: NullDistribution, *goals: WeighingGoal) -> list[Competition]:
    organism = Recording(ReferenceOrganism(NOISY, mode="wright-fisher"))
    *earlier, last = goals
    chosen = WeighingSettings(last.error, last.most_competitions, dose_tests=8, first_wave=60)
    asyncio.run(weigh_sites(NOISY.genome, organism, seeded(), chosen, null=null, earlier=earlier))
    return organism.asked


goals = st.builds(WeighingGoal, st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.5]), st.integers(0, 400))


@settings(max_examples=25, deadline=None)
@given(st.lists(goals, min_size=1, max_size=3), goals)
def test_weighing_with_further_goals_asks_first_what_it_asked_without(
    null: NullDistribution, first: list[WeighingGoal], further: WeighingGoal
) -> None:
    before, after = weighing_questions(null, *first), weighing_questions(null, *first, further)
    assert after[: len(before)] == before
    assert len(after) <= max(goal.most_competitions for goal in (*first, further))
    if not further.error:
        assert len(after) == max(len(before), further.most_competitions)
    assert len(set(after)) == len(after)


def exact_weighing_questions(genome: ReferenceGenome, most: int) -> list[Competition]:
    organism = Recording(ReferenceOrganism(genome))
    chosen = ExactWeighingSettings(most_competitions=most)
    asyncio.run(weigh_exactly(genome.genome, organism, seeded(2), chosen, model=ScoreModel.fit(exact_null())))
    return organism.asked


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(0, 60))
def test_exact_weighing_with_a_larger_budget_asks_first_what_it_asked_with_less(
    seed: int, less: int, more: int
) -> None:
    genome = ReferenceGenome.draw(seeded(seed), num_sites=50, num_additive=12)
    small = exact_weighing_questions(genome, less)
    large = exact_weighing_questions(genome, less + more)
    assert large[: len(small)] == small
    assert len(large) <= less + more


def test_more_published_skeletons_begin_with_the_fewer_and_so_do_their_jackknives() -> None:
    async def made(number: int) -> tuple[list[Competition], Jackknife]:
        organism = Recording(ReferenceOrganism(GENOME))
        found = await skeletonize(GENOME.genome, organism, seeded(), SkeletonSettings(number), null=exact_null())
        jackknife = await jackknife_skeletons(
            GENOME.genome, organism, seeded(), JackknifeSettings(), null=exact_null(), skeletons=found
        )
        return organism.asked, jackknife

    (fewer, first), (more, all_) = asyncio.run(made(3)), asyncio.run(made(5))
    assert set(fewer) < set(more)
    assert all_.table[all_.table["skeleton"] < 3].equals(first.table)


@pytest.mark.parametrize(("fewer", "more"), [(1, 2), (3, 9), (4, 5), (6, 10)])
def test_more_skeletons_by_prefix_search_begin_with_the_fewer(fewer: int, more: int) -> None:
    async def made(number: int) -> tuple[list[Competition], PrefixSkeletons]:
        organism = Recording(ReferenceOrganism(GENOME))
        chosen = PrefixSkeletonSettings(skeletons=number)
        model = ScoreModel.fit(exact_null())
        return organism.asked, await search_skeletons(GENOME.genome, organism, seeded(), chosen, model=model)

    (asked, found), (asked_more, found_more) = asyncio.run(made(fewer)), asyncio.run(made(more))
    assert set(asked) < set(asked_more)
    assert [each.kept.tolist() for each in found.skeletons] == [
        each.kept.tolist() for each in found_more.skeletons[:fewer]
    ]


def sets_found(
    *known: set[int],
    effects: dict[int, float] = LIGHT,
    most: int = 10**6,
    asked: list[Competition] | None = None,
    untestable: frozenset[int] = frozenset(),
) -> FoundSets:
    organism = Recording(ReferenceOrganism(GENOME))
    losing = Losing(organism, lambda each: bool(untestable) and untestable <= set(each.challenger.sites.tolist()))
    tests = ExactBalance(losing, ScoreModel.fit(exact_null()), effects=effects, budget=Budget(most))
    groups = [frozenset(each) for each in known]
    search = enumerate_sets(40, seeded(), SetSearchSettings(), tests=tests, effects=effects, known=groups)
    found = asyncio.run(search)
    if asked is not None:
        asked += organism.asked
    return found


TRUE_SETS = {frozenset(each.sites) for each in TWO_SETS}


def test_known_sets_stay_and_the_others_are_found() -> None:
    found = sets_found({10, 20, 30})
    assert set(found.sets) == TRUE_SETS
    assert found.lone == ()


def test_a_search_that_knows_all_sets_asks_less() -> None:
    cold: list[Competition] = []
    warm: list[Competition] = []
    assert sets_found(asked=cold).table.equals(sets_found(*map(set, TRUE_SETS), asked=warm).table)
    assert len(warm) < 0.85 * len(cold)


def test_a_site_without_mates_that_is_additive_by_now_is_none_and_another_stays() -> None:
    found = sets_found({3}, {33})
    assert found.lone == (33,)
    assert set(found.sets) == TRUE_SETS


def test_a_set_that_its_members_explain_by_now_is_dropped_and_one_with_too_many_members_shrinks() -> None:
    found = sets_found({1, 2}, {4, 10, 20, 30})
    assert set(found.sets) == TRUE_SETS


def test_a_known_set_that_cannot_be_looked_at_again_stays() -> None:
    assert frozenset({4, 33}) in sets_found({4, 33}, untestable=frozenset({4, 33})).sets


@pytest.mark.parametrize("most", [0, 20, 60, 120])
def test_a_search_whose_budget_ended_asks_the_same_with_a_larger_one(most: int) -> None:
    before: list[Competition] = []
    after: list[Competition] = []
    assert not sets_found(most=most, asked=before).is_complete
    assert sets_found(asked=after).is_complete
    assert len(before) <= most
    assert set(before) <= set(after)


def test_a_weighing_that_began_with_a_handful_is_as_good_as_another() -> None:
    """A fit to a few dose tests is no place to start from, and is made anew when there are more of them."""
    genome = ReferenceGenome.draw(seeded(3), num_sites=200, num_additive=6)

    def weighed(*goals: int) -> SiteWeights:
        organism = ReferenceOrganism(genome, mode="wright-fisher", seed=5)

        async def weigh() -> SiteWeights:
            measured = await measure_null_distribution(genome.genome, organism.compete, seeded(1), NullSettings())
            earlier, last = [WeighingGoal(0.0, each) for each in goals[:-1]], WeighingSettings(0.0, goals[-1])
            null = measured.distribution()
            return await weigh_sites(genome.genome, organism.compete, seeded(5), last, null=null, earlier=earlier)

        return asyncio.run(weigh())

    assert len(weighed(10, 30).table) == 200
    for goals in ((10, 700), (10, 30, 700)):
        assert set(weighed(*goals).additive(0.02)) <= genome.additive_sites
