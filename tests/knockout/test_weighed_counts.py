"""Counts: intervals that hold the truth for effects of any family, and all that may have been missed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.conditions import beneficial
from benchmarks.effect_families import FAMILIES
from knockem_dagster.knockout.assays.found_sets import FoundSets, table_of_sets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.score_model import Effect
from knockem_dagster.knockout.weighed_counts import (
    Count,
    count_additive,
    count_functional,
    count_sets,
    share_of_sets_seen,
)
from tests.knockout.worlds import seeded

ERROR = 0.015


def weights_of(effects: NDArray[np.float64], *, untested: tuple[int, ...] = ()) -> SiteWeights:
    errors = np.full(effects.size, ERROR)
    errors[list(untested)] = math.inf
    known = np.abs(effects) > 6 * ERROR
    return SiteWeights.of(
        effects, errors, known * 1.0, angle_sd=0.3, drift=0.8, unit_error=0.02, num_competitions=1, unit=0.1
    )


def measured(
    family: str, *, seed: int, sites: int = 400, additive: int = 20
) -> tuple[SiteWeights, NDArray[np.float64]]:
    rng = seeded(seed)
    effects = np.zeros(sites)
    effects[:additive] = (beneficial if family == "beneficial" else FAMILIES[family])(rng, additive)
    return weights_of(effects + ERROR * rng.standard_normal(sites)), effects


@pytest.mark.parametrize("family", [*FAMILIES, "beneficial"])
def test_intervals_hold_the_truth_whatever_effects_are_like(family: str) -> None:
    """Of 20 intervals at .95, 16 or more hold the truth in 997 of 1,000 tests."""
    total = above = 0
    for seed in range(20):
        weights, effects = measured(family, seed=seed)
        counts = count_additive(weights, seeded(seed), above=[0.1])
        total += counts.total.low <= (effects != 0).sum() <= counts.total.high
        above += counts.above[0].low <= (np.abs(effects) > 0.1).sum() <= counts.above[0].high
    assert above >= 16
    assert total >= (14 if family == "beta" else 16)  # half of these effects lie below what can be seen


def test_effects_that_are_alike_are_no_sign_of_smaller_ones() -> None:
    weights, _ = measured("constant", seed=1)
    assert count_additive(weights, seeded(1)).total.value == pytest.approx(20, abs=0.3)


def test_untested_sites_may_all_count() -> None:
    effects = np.zeros(100)
    effects[:5] = 0.5
    some = count_additive(weights_of(effects, untested=(50, 51, 52)), seeded(1), above=[0.1])
    assert (some.above[0].low, some.above[0].high) == (5, 8)
    assert some.total.high >= 8
    found = FoundSets(table_of_sets([[50, 60]], [Effect(1.0, 0.9, 1.1, 20)]), True, 10, 0.5)
    with_set = count_functional(weights_of(effects, untested=(50, 51, 52)), found, seeded(1), above=0.1)
    assert with_set.above.high == 5 + 2 + 2  # of the untested sites, one is in the set


def test_sets_count_if_they_cost_the_resolution() -> None:
    weights = weights_of(np.zeros(100))
    costs = [Effect(1.2, 1.0, 1.4, 20), Effect(0.2, 0.1, 0.3, 20), Effect.unknown(), Effect(0.5, 0.3, 0.7, 20)]
    groups = [[0, 1], [2, 3], [4, 5], [6, 7]]
    found = FoundSets(table_of_sets(groups, costs), True, 10, 0.5)
    assert count_sets(weights, found, seeded(1)).value == pytest.approx(2.5, abs=0.1)
    assert count_functional(weights, found, seeded(1), above=0.1).above.value == pytest.approx(5, abs=0.2)
    every = FoundSets(table_of_sets(groups, costs), True, 10)
    assert count_sets(weights, every, seeded(1)).value == pytest.approx(4, abs=0.1)


def test_a_count_spans_others() -> None:
    assert Count(5, 4, 7).spanning(Count(6, 5, 9)) == Count(5, 4, 9)


def test_counts_stay_within_the_genome() -> None:
    weights = weights_of(np.full(30, 0.04))
    counts = count_additive(weights, seeded(1), above=[0.1])
    assert counts.total.high <= 30
    found = FoundSets(table_of_sets([[0, 1, 2]], [Effect(1.0, 0.9, 1.1, 20)]), True, 10, 0.5)
    assert count_functional(weights, found, seeded(1), above=0.1).total.high <= 30


def test_benefits_count_by_their_size() -> None:
    effects = np.zeros(100)
    effects[:10] = -0.5
    assert count_additive(weights_of(effects), seeded(1), above=[0.1]).above[0].value == pytest.approx(10, abs=0.1)


def test_sets_among_many_additive_sites_are_said_to_be_missed() -> None:
    effects = np.zeros(100)
    found = FoundSets(table_of_sets([[0, 1, 2, 3]], [Effect(1.0, 0.9, 1.1, 20)]), True, 10, 0.5)
    assert share_of_sets_seen(weights_of(effects), found) == pytest.approx(1)
    effects[:60] = 0.5
    assert share_of_sets_seen(weights_of(effects), found) < 0.5
    effects[:] = 0.5
    assert 0 < share_of_sets_seen(weights_of(effects), found) < 0.1
