"""Checks of the model of scores: what is as it says passes, and each departure fails the check named for it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from benchmarks.conditions import CONDITIONS, Organism
from benchmarks.whole_study import ERROR_RATE, RESOLUTION
from knockem_dagster.knockout.allotment import Allotment
from knockem_dagster.knockout.assays.found_sets import FoundSets, table_of_sets
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings, measure_null_distribution
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.assays.weighing import WeighingSettings, weigh_sites
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimates import Evidence, estimate
from knockem_dagster.knockout.estimators.residuals import ResidualSummary
from knockem_dagster.knockout.model_checks import failed_checks
from tests.knockout.worlds import seeded

NORMAL, INDEPENDENT, EVEN = (
    "scores scatter normally",
    "competitions are independent",
    "scatter does not grow with the effect",
)


def weighed(condition: str, *, seed: int = 1) -> tuple[NullDistribution, SiteWeights]:
    rng = seeded(seed)
    genome = CONDITIONS[condition].draw(rng)
    organism = Organism(genome, CONDITIONS[condition].kind, seed=seed)

    async def weigh() -> tuple[NullDistribution, SiteWeights]:
        found = await measure_null_distribution(genome.genome, organism.compete, rng, NullSettings())
        settings = WeighingSettings(Allotment(genome.num_sites, RESOLUTION, ERROR_RATE, None).weighing_error)
        null = found.distribution()
        return null, await weigh_sites(genome.genome, organism.compete, rng, settings, null=null)

    return asyncio.run(weigh())


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("the usual", set[str]()),
        ("strong selection (d1 = 5)", set[str]()),
        ("only lethal sites", set[str]()),
        ("skewed scores", {NORMAL}),
        ("a null that drifts", {INDEPENDENT}),
        ("spread grows with the effect", {EVEN}),
    ],
)
def test_each_departure_from_the_model_fails_its_check(condition: str, names: set[str]) -> None:
    _, weights = weighed(condition)
    failed = {check.name for check in failed_checks(weights)}
    assert names <= failed
    assert names or not failed


@pytest.mark.parametrize(("condition", "name"), [("skewed scores", NORMAL), ("a null that drifts", INDEPENDENT)])
def test_a_failed_check_takes_intervals_away_and_says_why(condition: str, name: str) -> None:
    null, weights = weighed(condition)
    assert weights.residuals is not None
    weights = SiteWeights.from_table(weights.table, weights.numbers)
    found = FoundSets(table_of_sets([], []), True, 0)
    table = estimate(Evidence(len(weights.table), null, weights=weights, sets=found))
    declined = table[table["method"].str.contains("declined")]
    assert set(declined["quantity"]) == {
        "epistatic sets",
        "functional sites",
        "functional sites above the resolution",
        "sites with effect above the resolution",
    }
    assert declined["value"].isna().all()
    assert declined["method"].str.contains(name).all()
    assert table.loc[table["quantity"] == "additive sites", "low"].notna().all()


def test_residuals_that_are_normal_and_independent_sum_up_as_such() -> None:
    summary = ResidualSummary.of(seeded(1).standard_normal(20_000), np.zeros(20_000, dtype=np.int64), growth=0.0)
    assert summary.upper_tail == pytest.approx(1, abs=4 * summary.tail_error)
    assert summary.lower_tail == pytest.approx(1, abs=4 * summary.tail_error)
    assert summary.correlation == pytest.approx(0, abs=4 * summary.correlation_error)


def test_competitions_of_different_waves_are_not_neighbours() -> None:
    waves = np.repeat([0, 1], 500)
    deviations = np.where(np.arange(1000) < 500, 1.0, -1.0)
    assert ResidualSummary.of(deviations, waves, growth=0.0).correlation == pytest.approx(1)
    assert ResidualSummary.of(np.zeros(0), np.zeros(0, dtype=np.int64), growth=0.0).correlation == 0
