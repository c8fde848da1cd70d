"""What every assay of our own obeys: its result depends on its answers, not on when, by whom or in how many runs.

Answers come in any order from any number of workers; a run dies at any question, and the next one goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference_organism import Mode, ReferenceGenome, ReferenceOrganism
from knockem_dagster.knockout.assays.exact_weighing import ExactWeighingSettings, weigh_exactly
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings, search_skeletons
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.set_search import SetSearchSettings, find_sets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingSettings, weigh_sites
from knockem_dagster.knockout.competitions import Compete, Competition
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.score_model import ScoreModel
from tests.knockout.worlds import Crash, Remembering, Workers, exact_null, seeded

GENOME = ReferenceGenome.draw(seeded(3), num_sites=90, num_additive=12, num_sets=3, set_size=3, penalties=(1.2, 1.6))
COARSE = WeighingSettings(error=0.08)


def organism(mode: Mode) -> ReferenceOrganism:
    return ReferenceOrganism(GENOME, mode=mode, seed=5)


@cache
def null_of(mode: Mode) -> NullDistribution:
    if mode == "exact":
        return exact_null()
    ask = measure_null_distribution(GENOME.genome, organism(mode).compete, seeded(), NullSettings(200))
    return asyncio.run(ask).distribution()


async def weigh(compete: Compete, mode: Mode) -> SiteWeights:
    if mode == "exact":
        model = ScoreModel.fit(null_of(mode))
        return await weigh_exactly(GENOME.genome, compete, seeded(), ExactWeighingSettings(), model=model)
    return await weigh_sites(GENOME.genome, compete, seeded(), COARSE, null=null_of(mode))


@cache
def weights_of(mode: Mode) -> SiteWeights:
    null_of(mode)
    return asyncio.run(weigh(organism(mode).compete, mode))


async def weighed(compete: Compete, mode: Mode) -> list[pd.DataFrame]:
    found = await weigh(compete, mode)
    return [found.table, pd.DataFrame([found.numbers])]


async def enumerated(compete: Compete, mode: Mode) -> list[pd.DataFrame]:
    weights = weights_of(mode)
    model = ScoreModel.fit(null_of(mode).with_unit(weights.unit))
    found = await find_sets(GENOME.genome, compete, seeded(2), SetSearchSettings(), model=model, weights=weights)
    return [found.table, pd.DataFrame([found.numbers])]


async def skeletonized(compete: Compete, mode: Mode) -> list[pd.DataFrame]:
    chosen = PrefixSkeletonSettings(skeletons=4, wave=2)
    found = await search_skeletons(GENOME.genome, compete, seeded(4), chosen, model=ScoreModel.fit(null_of(mode)))
    return [found.table, found.summary]


Assay = Callable[[Compete, Mode], Awaitable[list[pd.DataFrame]]]
EVERY = pytest.mark.parametrize("assay", [weighed, enumerated, skeletonized])
BOTH = pytest.mark.parametrize("mode", ["exact", "wright-fisher"])


@dataclass(frozen=True)
class Calm:
    """What an assay finds and asks when every answer comes at once."""

    tables: list[pd.DataFrame]
    asked: frozenset[Competition]


@cache
def calm(assay: Assay, mode: Mode) -> Calm:
    world = Remembering(organism(mode))
    tables = performed(assay, world, mode)
    return Calm(tables, frozenset(world.known))


def performed(assay: Assay, compete: Compete, mode: Mode) -> list[pd.DataFrame]:
    """Run an assay to its end; what it needs of others is known before."""
    null_of(mode)
    if assay is enumerated:
        weights_of(mode)
    return asyncio.run(_awaited(assay, compete, mode))


async def _awaited(assay: Assay, compete: Compete, mode: Mode) -> list[pd.DataFrame]:
    return await assay(compete, mode)


def assert_same(found: list[pd.DataFrame], expected: list[pd.DataFrame]) -> None:
    for one, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def is_worth_a_test(assay: Assay, mode: Mode) -> bool:
    return len(calm(assay, mode).asked) > 30


@EVERY
@BOTH
@settings(max_examples=15, deadline=None)
@given(number=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_answers_in_any_order_from_any_number_of_workers_change_nothing(
    assay: Assay, mode: Mode, number: int, seed: int
) -> None:
    expected = calm(assay, mode)
    assert is_worth_a_test(assay, mode)
    workers = Workers(organism(mode), number=number, rng=seeded(seed))
    assert_same(performed(assay, workers, mode), expected.tables)
    assert len(workers.asked) == len(set(workers.asked)), "no competition is asked twice"
    assert set(workers.asked) == expected.asked


@EVERY
@BOTH
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_run_that_dies_at_any_question_is_finished_by_the_next(assay: Assay, mode: Mode, data: Any) -> None:
    expected = calm(assay, mode)
    places = st.integers(0, len(expected.asked) - 1)
    world = Remembering(organism(mode))
    for place in sorted(data.draw(st.sets(places, min_size=1, max_size=3), label="crashes after")):
        world.crash_after = place
        with pytest.raises(Crash):
            performed(assay, world, mode)
        assert len(world.known) == place
    world.crash_after = None
    assert_same(performed(assay, world, mode), expected.tables)
    assert frozenset(world.known) == expected.asked, "what the dead runs asked was asked by the others, too"
