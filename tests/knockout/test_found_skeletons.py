"""Skeletons within a budget, from their tables, and what they say of minimal genomes."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference_organism import Mode, ReferenceGenome, ReferenceOrganism
from knockem_dagster.knockout.assays.asking import Budget
from knockem_dagster.knockout.assays.boundary_search import SearchSettings
from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeleton, PrefixSkeletons
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings, search_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.competitions import Competition
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimates import Evidence, estimate
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.minimal_genomes import effect_of_deletions, size_of_skeletons
from knockem_dagster.knockout.score_model import Effect, ScoreModel
from knockem_dagster.records.tables import TABLES
from tests.knockout.worlds import Recording, exact_null, seeded

GENOME = ReferenceGenome.draw(seeded(8), num_sites=80, num_additive=10, num_sets=2)
SETTINGS = PrefixSkeletonSettings(skeletons=6, wave=3)
MODES = pytest.mark.parametrize("mode", ["exact", "wright-fisher"])


@cache
def null_of(mode: Mode) -> NullDistribution:
    if mode == "exact":
        return exact_null()
    organism = ReferenceOrganism(GENOME, mode=mode, seed=2)
    ask = measure_null_distribution(GENOME.genome, organism.compete, seeded(), NullSettings(200))
    return asyncio.run(ask).distribution()


def searched(
    mode: Mode, budget: int | None = None, *, chosen: PrefixSkeletonSettings = SETTINGS, delay: int | None = None
) -> tuple[PrefixSkeletons, list[Competition]]:
    recording = Recording(ReferenceOrganism(GENOME, mode=mode, seed=2), None if delay is None else seeded(delay))
    search = search_skeletons(
        GENOME.genome,
        recording,
        seeded(6),
        chosen,
        model=ScoreModel.fit(null_of(mode)),
        budget=None if budget is None else Budget(budget),
    )
    return asyncio.run(search), recording.asked


@cache
def unlimited(mode: Mode) -> tuple[PrefixSkeletons, frozenset[Competition]]:
    found, asked = searched(mode)
    return found, frozenset(asked)


@MODES
@settings(max_examples=12, deadline=None)
@given(share=st.floats(0, 1.2), delay=st.integers(0, 1000))
def test_a_budget_is_never_exceeded_and_ends_with_the_first_of_the_same_skeletons(
    mode: Mode, share: float, delay: int
) -> None:
    whole, questions = unlimited(mode)
    budget = round(share * len(questions))
    found, asked = searched(mode, budget, delay=delay)
    assert len(asked) <= budget
    assert set(asked) <= questions, "a larger budget asks for nothing again"
    assert found.is_complete == (budget >= len(questions))
    assert found.num_wanted == 6
    number = len(found.skeletons)
    assert sum(each.num_competitions for each in whole.skeletons[: number + 1]) > len(asked) or found.is_complete
    pd.testing.assert_frame_equal(found.summary, whole.summary.iloc[:number])
    pd.testing.assert_frame_equal(found.table, whole.table.iloc[: number * GENOME.num_sites])


@MODES
def test_with_an_ample_budget_skeletons_are_made_side_by_side(mode: Mode) -> None:
    found, asked = searched(mode, 100_000, delay=3)
    assert {each.purpose for each in asked[:9]} == {"skeleton 0", "skeleton 1", "skeleton 2"}
    pd.testing.assert_frame_equal(found.summary, unlimited(mode)[0].summary)


@MODES
def test_skeletons_survive_their_tables(mode: Mode) -> None:
    found, _ = unlimited(mode)
    shuffled = found.table.sample(frac=1, random_state=1)
    again = PrefixSkeletons.from_tables(shuffled, found.summary, found.numbers, num_sites=GENOME.num_sites)
    pd.testing.assert_frame_equal(again.table, found.table)
    pd.testing.assert_frame_equal(again.summary, found.summary)
    assert again.numbers == found.numbers
    for one, other in zip(again.skeletons, found.skeletons, strict=True):
        assert one.order.tolist() == other.order.tolist()
        assert one.deleted == other.deleted
        assert one.residual == pytest.approx(other.residual, nan_ok=True) or mode == "exact"


def test_tables_have_the_declared_columns() -> None:
    found, _ = unlimited("exact")
    for table, name in ((found.table, "prefix_skeletons"), (found.summary, "prefix_skeleton_summary")):
        declared = {column.name: column.dtype for column in TABLES[name].columns}
        assert table.dtypes.astype(str).to_dict() == declared


def test_no_skeletons_at_all_survive_their_tables_too() -> None:
    none = PrefixSkeletons((), 80, 6)
    again = PrefixSkeletons.from_tables(none.table, none.summary, none.numbers, num_sites=80)
    assert not again.is_complete
    assert again.kept.shape == (0, 80)


def test_tables_of_different_skeletons_are_refused() -> None:
    found, _ = unlimited("exact")
    with pytest.raises(ValueError, match="make their asset again"):
        PrefixSkeletons.from_tables(found.table, found.summary.iloc[1:], found.numbers, num_sites=80)
    with pytest.raises(ValueError, match="tested"):
        PrefixSkeletons.from_tables(found.table.drop(columns="tested"), found.summary, found.numbers, num_sites=80)


def test_an_exact_organism_has_a_resolution_of_one_threshold_and_a_residual_below_it() -> None:
    summary = unlimited("exact")[0].summary
    assert set(summary["resolution"]) == {1.0}
    assert summary["residual"].isna().all()
    assert set(summary["high"]) == {1.0}


def test_what_is_off_the_scale_of_scores_is_measured_in_steps() -> None:
    heavy = ReferenceGenome(300, dict.fromkeys(range(0, 40), 0.2))
    organism = ReferenceOrganism(heavy, mode="wright-fisher", seed=1)

    async def search() -> PrefixSkeletons:
        null = await measure_null_distribution(heavy.genome, organism.compete, seeded(), NullSettings(200))
        chosen = PrefixSkeletonSettings(skeletons=2, search=SearchSettings(resolution=1.5), refinements=0)
        return await search_skeletons(
            heavy.genome, organism.compete, seeded(), chosen, model=ScoreModel.fit(null.distribution())
        )

    for each in asyncio.run(search()).skeletons:
        truth = heavy.effect(each.deleted)
        assert truth > 4
        assert each.residual.n > chosen_competitions()
        assert each.residual.low <= truth <= each.residual.high < math.inf


def chosen_competitions() -> int:
    return PrefixSkeletonSettings().final_competitions


def with_sizes(sizes: list[int], residuals: list[Effect]) -> PrefixSkeletons:
    def skeleton(size: int, residual: Effect) -> PrefixSkeleton:
        kept = np.arange(50) < size
        deleted = KnockoutSet.of(np.flatnonzero(~kept), 50)
        return PrefixSkeleton(np.arange(50), deleted, kept, np.ones(50, dtype=bool), 100, 0, 0.4, residual)

    return PrefixSkeletons(tuple(map(skeleton, sizes, residuals)), 50, len(sizes))


UNMEASURED = Effect.below(1.0)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=12))
def test_the_range_of_skeletons_holds_one_more_as_often_as_it_says(sizes: list[int]) -> None:
    inside = []
    for place, left_out in enumerate(sizes):
        others = sizes[:place] + sizes[place + 1 :]
        if len(others) < 2:
            return
        found = size_of_skeletons(with_sizes(others, [UNMEASURED] * len(others)))
        assert found.value == pytest.approx(np.mean(others))
        inside.append(found.low <= left_out <= found.high)
        assert found.level == pytest.approx((len(others) - 1) / (len(others) + 1))
    assert np.mean(inside) >= (len(sizes) - 2) / len(sizes)


def test_one_skeleton_has_a_size_and_no_range() -> None:
    found = size_of_skeletons(with_sizes([7], [UNMEASURED]))
    assert found.value == 7
    assert math.isnan(found.low)
    assert math.isnan(size_of_skeletons(with_sizes([], [])).value)


def test_the_effect_of_all_deletions_is_the_mean_of_what_was_measured() -> None:
    measured = [Effect(1.0, 0.5, 1.6, 20), Effect(2.0, 1.5, 2.8, 40), Effect.unknown()]
    assert effect_of_deletions(with_sizes([3, 4, 5], measured)) == pytest.approx(Effect(1.5, 1.0, 2.2, 60), abs=1e-12)
    assert effect_of_deletions(with_sizes([3], [UNMEASURED])) is None
    assert effect_of_deletions(with_sizes([3], [Effect(math.inf, 2.0, math.inf, 20)])) is None


def estimates_of(found: PrefixSkeletons) -> pd.DataFrame:
    return estimate(Evidence(num_sites=50, null=exact_null(), prefix_skeletons=found)).set_index("quantity")


def test_estimates_tell_the_size_of_a_minimal_genome_and_what_it_lost() -> None:
    found = with_sizes([3, 5, 4], [Effect(1.0, 0.5, 1.6, 20)] * 3)
    table = estimates_of(found)
    size, lost = table.loc["sites of a minimal genome"], table.loc["effect of all deletions together"]
    assert (size["value"], size["low"], size["high"], size["level"]) == (4, 3, 5, 0.5)
    assert (lost["value"], lost["low"], lost["high"], lost["level"]) == pytest.approx((1.0, 0.5, 1.6, 0.95))
    assert size["n"] == 302


def test_where_the_budget_ended_before_one_skeleton_the_estimate_says_so() -> None:
    table = estimates_of(replace(with_sizes([], []), num_wanted=3))
    assert math.isnan(table.loc["sites of a minimal genome", "value"])
    assert "budget ended" in table.loc["sites of a minimal genome", "method"]
    assert "effect of all deletions together" not in table.index
