"""The dose response fit recovers curves on its grid and answers for genomes without additive sites."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from knockem_dagster.knockout.estimators.negative_binomial import fit_negative_binomial


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(2, 40))
def test_a_curve_on_the_grid_is_recovered(needed: int, percent: int) -> None:
    spread = stats.nbinom.ppf([0.1, 0.3, 0.5, 0.7, 0.9], needed, percent / 100)
    doses = np.unique(spread.astype(np.int64)) + needed
    sensitivities = stats.nbinom.cdf(doses - needed, needed, percent / 100)
    fit = fit_negative_binomial(doses, sensitivities, num_candidates=1000)
    assert fit.error == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(fit.sensitivity(doses), sensitivities, atol=1e-6)
    if doses.size >= 4:
        assert fit.num_additive_sites == pytest.approx(10 * percent)
        assert fit.mean_effect == pytest.approx(1 / needed)


def test_the_dose_counts_all_drawn_sites_not_only_the_failures() -> None:
    doses = np.array([2, 3, 4])
    fit = fit_negative_binomial(doses, 1 - 0.5**doses * (1 + doses), num_candidates=100)
    assert (fit.needed, fit.prevalence) == (2.0, 0.5)


@pytest.mark.parametrize("doses", [np.zeros(0, dtype=np.int64), np.array([1, 500, 1000])])
def test_when_no_dose_is_detected_no_site_is_additive(doses: np.ndarray) -> None:
    fit = fit_negative_binomial(doses, np.zeros(doses.size), num_candidates=1000)
    assert fit.num_additive_sites == 0
    assert math.isnan(fit.mean_effect)
    assert not fit.sensitivity(doses).any()


def test_a_finer_grid_counts_more_finely() -> None:
    doses = np.array([20, 40, 60, 80])
    sensitivities = stats.nbinom.cdf(doses - 3, 3, 0.053)
    coarse = fit_negative_binomial(doses, sensitivities, num_candidates=1000)
    fine = fit_negative_binomial(doses, sensitivities, num_candidates=1000, most_prevalence=0.1)
    assert coarse.num_additive_sites == pytest.approx(50)
    assert fine.num_additive_sites == pytest.approx(53)
