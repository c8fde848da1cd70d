"""How small an effect would have been named."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.estimators.effect_mixture import EffectMixture
from knockem_dagster.knockout.resolving_power import effect_surely_named
from knockem_dagster.knockout.weighed_counts import EVEN_WIDTHS
from tests.knockout.worlds import seeded

ERROR_RATE = 0.02


def weighed(
    estimates: NDArray[np.float64],
    errors: NDArray[np.float64],
    *,
    mixture: EffectMixture | None = None,
    angle_sd: float = 0.3,
) -> SiteWeights:
    """Return what weighing tells when these are its estimates; probabilities are by a mixture learned, or given."""
    known = np.isfinite(errors)
    spread = np.maximum(errors, 1e-9)
    probabilities = np.zeros(estimates.size)
    mixture = mixture or learned(estimates[known], spread[known])
    probabilities[known] = mixture.posterior(estimates[known], spread[known]).probability
    return SiteWeights.of(
        estimates,
        errors,
        probabilities,
        angle_sd=angle_sd,
        drift=0.1,
        unit_error=0.0,
        num_competitions=100,
        unit=0.01,
    )


def learned(estimates: NDArray[np.float64], errors: NDArray[np.float64]) -> EffectMixture:
    return EffectMixture.of_widths(EVEN_WIDTHS).learned(estimates, errors, rounds=50)


def genome(rng: Generator, num_sites: int) -> NDArray[np.float64]:
    """Return effects: those of a site in twenty spread evenly up to .7, no other has any."""
    return np.where(rng.random(num_sites) < 0.05, rng.uniform(0, 0.7, num_sites), 0.0)


@pytest.mark.parametrize("num_sites", [100, 1_000, 5_000])
@pytest.mark.parametrize("error", [0.015, 0.06])
def test_a_site_of_that_effect_is_named_with_its_probability(num_sites: int, error: float) -> None:
    rng, errors = seeded(3), np.full(num_sites, error)
    estimates = rng.normal(genome(rng, num_sites), errors)
    surely = effect_surely_named(weighed(estimates, errors), ERROR_RATE)
    mixture = learned(estimates, errors)
    named = [
        len(weighed(rng.normal(surely, errors), errors, mixture=mixture).additive(ERROR_RATE)) / num_sites
        for _ in range(20_000 // num_sites)
    ]
    assert np.mean(named) == pytest.approx(0.977, abs=0.006)


def test_it_is_the_effect_that_the_least_known_site_without_a_name_needs() -> None:
    rng = seeded(5)
    effects, errors = genome(rng, 1_000), np.full(1_000, 0.02)
    effects[:3], errors[:3] = [5.0, 0.0, math.nan], [0.2, 0.05, math.inf]
    known = weighed(effects, errors)
    errors[1] = 0.02
    assert 0 in known.additive(ERROR_RATE)
    assert effect_surely_named(known, ERROR_RATE) == pytest.approx(
        2.5 * effect_surely_named(weighed(effects, errors), ERROR_RATE), rel=0.1
    )


def test_without_noise_any_effect_is_named_and_without_other_sites_there_is_none() -> None:
    exact = weighed(np.array([0.5, 0.0]), np.zeros(2), angle_sd=0.0)
    assert effect_surely_named(exact, ERROR_RATE) == 0
    all_named = weighed(np.array([0.5, 0.5]), np.full(2, 0.02))
    assert math.isnan(effect_surely_named(all_named, ERROR_RATE))
