"""The prior of effects: posteriors against numeric integration, learned weights, sampled counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.estimators.effect_mixture import EffectMixture
from tests.knockout.worlds import seeded

MIXTURE = EffectMixture.of_widths((0.3, 1.0, 4.8))


def integrated(mixture: EffectMixture, estimate: float, error: float) -> tuple[float, float, float]:
    """Return mean, variance and probability of an effect by summing over a fine grid."""
    spike = float(stats.norm.pdf(estimate, 0, error)) * mixture.weights[0]
    total, first, second = spike, 0.0, 0.0
    for low, high, weight in zip(mixture.lows, mixture.highs, mixture.weights[1:], strict=True):
        grid = np.linspace(low, high, 40_001)
        density = stats.norm.pdf(estimate, grid, error) * weight / (high - low)
        total += np.trapezoid(density, grid)
        first += np.trapezoid(density * grid, grid)
        second += np.trapezoid(density * grid**2, grid)
    return first / total, second / total - (first / total) ** 2, 1 - spike / total


@settings(max_examples=60, deadline=None)
@given(st.floats(-6, 6), st.floats(0.01, 1))
def test_posteriors_are_what_numeric_integration_gives(estimate: float, error: float) -> None:
    # What lies far beyond every slab is the business of another test.
    estimate = float(np.clip(estimate, -4.8 - 6 * error, 4.8 + 6 * error))
    found = MIXTURE.posterior(np.array([estimate]), np.array([error]))
    mean, variance, probability = integrated(MIXTURE, estimate, error)
    assert found.mean[0] == pytest.approx(mean, abs=1e-3 * error)
    assert found.variance[0] == pytest.approx(variance, abs=1e-3 * error**2, rel=1e-3)
    assert found.probability[0] == pytest.approx(probability, abs=1e-6)


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.001, 10)), max_size=20))
def test_every_site_belongs_somewhere(sites: list[tuple[float, float]]) -> None:
    estimates, errors = np.array(sites, dtype=np.float64).reshape(-1, 2).T
    shares = MIXTURE.responsibilities(estimates, errors)
    assert shares.shape == (len(sites), 7)
    assert (shares >= 0).all()
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(sites)))


@pytest.mark.parametrize("estimate", [0.0, 1e-9, 0.3, 1.0, 4.8, 7.0, 1e6])
@pytest.mark.parametrize("error", [1e-9, 1.0, 1e6])
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_estimates_stay_finite(estimate: float, error: float, sign: int) -> None:
    found = MIXTURE.posterior(np.array([sign * estimate]), np.array([error]))
    assert np.isfinite([found.mean, found.variance, found.probability]).all()
    assert -4.8 <= found.mean[0] <= 4.8
    assert found.variance[0] >= 0
    assert 0 <= found.probability[0] <= 1
    if estimate in {0.3, 1.0} and error < 1e-6:
        assert found.mean[0] == pytest.approx(sign * estimate)
        assert found.probability[0] == pytest.approx(1)


@pytest.mark.parametrize("estimate", [-5.5, 6.0, 20.0, -20.0])
def test_an_effect_beyond_every_slab_is_an_effect(estimate: float) -> None:
    found = MIXTURE.posterior(np.array([estimate]), np.array([0.02]))
    assert found.probability[0] > 0.999
    assert found.mean[0] == pytest.approx(np.copysign(4.8, estimate), abs=0.01)


def test_harmful_and_beneficial_effects_are_treated_alike() -> None:
    estimates, errors = np.linspace(0, 4, 41), np.full(41, 0.1)
    harmful, beneficial = MIXTURE.posterior(estimates, errors), MIXTURE.posterior(-estimates, errors)
    assert harmful.mean == pytest.approx(-beneficial.mean)
    assert harmful.variance == pytest.approx(beneficial.variance)
    assert harmful.probability == pytest.approx(beneficial.probability)


def drawn(*, shares: tuple[float, float], sites: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Return effects - of these shares of sites uniform to .3 and to 1 - and estimates of them."""
    rng = seeded(2)
    kind = rng.choice(3, sites, p=[1 - sum(shares), *shares])
    effects = rng.random(sites) * np.array([0.0, 0.3, 1.0])[kind]
    return effects, effects + error * rng.standard_normal(sites)


def test_learned_weights_are_those_that_effects_were_drawn_with() -> None:
    _, estimates = drawn(shares=(0.2, 0.1), sites=10_000, error=0.02)
    weights = MIXTURE.learned(estimates, np.full(estimates.size, 0.02), rounds=400).weights
    assert weights[:3] == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    assert weights[3:].sum() < 0.03


def test_nothing_to_learn_from_leaves_a_mixture() -> None:
    learned = MIXTURE.learned(np.zeros(0), np.zeros(0))
    assert learned.weights.sum() == pytest.approx(1)
    assert MIXTURE.posterior(np.zeros(0), np.zeros(0)).mean.shape == (0,)


def test_sampled_counts_agree_with_the_posterior_of_a_known_mixture() -> None:
    """Many clear sites fix the weights, so that counts among a few unclear ones have a known distribution."""
    _, estimates = drawn(shares=(0.2, 0.1), sites=3000, error=0.02)
    unclear = np.array([0.04, 0.06, 0.1, -0.03, 0.5])
    every = np.append(estimates, unclear)
    errors = np.append(np.full(estimates.size, 0.02), np.full(unclear.size, 0.05))
    mixture = MIXTURE.learned(every, errors, rounds=200)
    among = np.arange(every.size) >= estimates.size
    samples = mixture.sampled_counts(every, errors, seeded(3), above=[0.1], within=0.1, among=among, sweeps=3000)
    assert samples.shape == (3000, 3)

    def probability(estimate: float, counts: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> float:
        spike = float(stats.norm.pdf(estimate, 0, 0.05)) * mixture.weights[0]
        total, above = spike, 0.0
        for low, high, weight in zip(mixture.lows, mixture.highs, mixture.weights[1:], strict=True):
            grid = np.linspace(low, high, 20_001)
            density = stats.norm.pdf(estimate, grid, 0.05) * weight / (high - low)
            total += np.trapezoid(density, grid)
            above += np.trapezoid(density * counts(grid), grid)
        return above / total

    any_effect = mixture.posterior(unclear, np.full(unclear.size, 0.05)).probability.sum()
    assert samples[:, 0].mean() == pytest.approx(any_effect, abs=0.1)
    within = sum(probability(each, lambda effect: np.abs(effect) <= 0.1) for each in unclear)
    assert samples[:, 1].mean() == pytest.approx(within, abs=0.1)
    above = sum(probability(each, lambda effect: effect > 0.1) for each in unclear)
    assert samples[:, 2].mean() == pytest.approx(above, abs=0.1)


def test_an_uncertain_unit_makes_counts_uncertain() -> None:
    effects = np.linspace(0.05, 0.15, 101)
    errors, among = np.full(101, 1e-4), np.full(101, True)
    sharp, vague = (
        MIXTURE.sampled_counts(effects, errors, seeded(4), above=[0.1], among=among, unit_error=error, sweeps=400)[:, 2]
        for error in (0.0, 0.1)
    )
    assert np.ptp(sharp) <= 2
    assert vague.std() == pytest.approx(10, rel=0.2)
    assert vague.mean() == pytest.approx(50, abs=3)
