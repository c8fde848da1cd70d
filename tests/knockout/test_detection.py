"""Detection keeps its nominal error with noise, and the stated unit without."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from benchmarks.published import false_positive_rates
from benchmarks.reference_organism import exact_counts, wright_fisher
from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.competitions import score
from knockem_dagster.knockout.detection import NullDistribution


def wright_fisher_null(seed: int, count: int = 100) -> NullDistribution:
    survivors = wright_fisher(np.zeros(count), default_rng(seed))
    return NullDistribution.from_scores((2 * survivors / 1000 - 1) / 100, bound=1 / 100)


def test_the_false_positive_rate_is_nominal_with_wright_fisher_noise() -> None:
    rates = false_positive_rates(default_rng(11), num_sets=300, num_null=100, num_tests=300)
    # Three standard errors of the mean over sets are about .0014; pooling with factors 1, 0, -1 gives .0194.
    assert 0.0080 < rates.mean() < 0.0120


@pytest.mark.parametrize("count", [5, 20, 100])
def test_the_false_positive_rate_is_nominal_however_few_null_competitions(count: int) -> None:
    rng = default_rng(count)
    rates = [
        np.mean(fresh >= NullDistribution.from_scores(null, bound=100.0).threshold)
        for null, fresh in ((rng.normal(0.1, 1, count), rng.normal(0.1, 1, 200)) for _ in range(1500))
    ]
    assert 0.007 < np.mean(rates) < 0.013


def test_p_values_agree_with_detection_and_are_uniform_under_the_null() -> None:
    null = wright_fisher_null(3, 400)
    scores = (2 * wright_fisher(np.zeros(4000), default_rng(4)) / 1000 - 1) / 100
    p_values = null.p_values(scores)
    np.testing.assert_array_equal(p_values <= null.level, scores >= null.threshold)
    assert np.histogram(p_values, bins=5, range=(0, 1))[0] == pytest.approx(800, rel=0.25)


def test_a_noisy_threshold_is_one_unit_above_the_mean_and_benefits_mirror_it() -> None:
    null = wright_fisher_null(5)
    assert null.in_thresholds(np.array([null.threshold])) == pytest.approx([1.0])
    assert null.beneficial_threshold < null.mean < null.threshold
    mirrored = NullDistribution.from_scores([-0.3, 0.1, 0.2], bound=1.0)
    original = NullDistribution.from_scores([0.3, -0.1, -0.2], bound=1.0)
    assert mirrored.beneficial_threshold == pytest.approx(-original.threshold)


def test_an_asymmetric_null_is_told() -> None:
    assert wright_fisher_null(6).symmetry_p > 0.001
    assert NullDistribution.from_scores(default_rng(1).normal(0.5, 0.1, 50), bound=1.0).symmetry_p < 1e-6
    assert NullDistribution.from_scores([0.0, 0.0], bound=1.0).symmetry_p == 1.0
    assert NullDistribution.from_scores([0.1, 0.1], bound=1.0).symmetry_p == 0.0


def test_without_noise_the_stated_unit_is_the_threshold() -> None:
    null = NullDistribution.from_scores([0.0] * 3, bound=1.0, stated_unit=0.25)
    assert null.sd == 0
    assert null.detects(score(exact_counts(1.0)))
    assert not null.detects(score(exact_counts(0.999999)))
    assert null.detects_benefit(score(exact_counts(-1.0)))
    assert null.p_values(np.array([0.0, 0.25, math.nan])).tolist()[:2] == [1.0, 0.0]
    assert null.with_unit_from(np.array([0.1])).unit == 0.25


def test_without_noise_and_unit_any_positive_score_is_detected() -> None:
    null = NullDistribution.from_scores([0.0] * 3, bound=1.0)
    assert null.detects(1e-12)
    assert not null.detects(0.0)
    assert math.isnan(null.unit)
    assert null.with_unit_from(np.array([0.0, 0.3, 0.2, math.nan])).unit == pytest.approx(0.2)
    assert math.isnan(null.with_unit_from(np.array([0.0, -0.3])).unit)


def test_a_stated_unit_gives_way_to_measured_noise() -> None:
    scores = [0.1, -0.1, 0.2]
    with_unit = NullDistribution.from_scores(scores, bound=1.0, stated_unit=0.001)
    assert with_unit == NullDistribution.from_scores(scores, bound=1.0)


@pytest.mark.parametrize("scores", [[], [0.1]])
def test_too_few_null_competitions_are_refused(scores: list[float]) -> None:
    with pytest.raises(AssayError, match="at least 2"):
        NullDistribution.from_scores(scores, bound=1.0)


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30), st.floats(-1, 1))
def test_detection_is_total_and_never_both_ways(scores: list[float], tried: float) -> None:
    null = NullDistribution.from_scores(scores, bound=1.0)
    assert not (null.detects(tried) and null.detects_benefit(tried))
    assert not null.detects(null.mean)
    assert math.isfinite(null.threshold)


def test_when_nulls_are_fixed_either_way_nothing_is_detected() -> None:
    null = NullDistribution.from_scores([1.0, -1.0] * 50, bound=1.0)
    assert not null.detects(1.0)
