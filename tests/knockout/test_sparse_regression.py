"""The sparse regression: drifts of sites from angles of competitions, their errors, and the link between both."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from knockem_dagster.knockout.estimators.sparse_regression import DriftLink, SparseFit, fit_effects
from tests.knockout.worlds import seeded

SITES, DOSE, ROWS, SD = 200, 25, 1500, 0.3
Fits = list[tuple[SparseFit, NDArray[np.float64]]]


class Simulated:
    """Competitions of random knockouts whose angles follow a link, in waves of equal size."""

    def __init__(
        self,
        seed: int,
        effects: NDArray[np.float64],
        *,
        link: DriftLink | None = None,
        offsets: tuple[float, ...] = (0.0,),
        exchanged: float = 0.0,
    ) -> None:
        rng = seeded(seed)
        link = link or DriftLink(SD)
        sides = np.repeat(np.array([1, -1], dtype=np.int8), DOSE)
        self.effects = effects
        self.design = np.zeros((ROWS, effects.size), dtype=np.int8)
        for row in self.design:
            row[rng.permutation(effects.size)[: 2 * DOSE]] = sides
        self.waves = np.arange(ROWS) * len(offsets) // ROWS
        drift = self.design @ effects
        noise = np.sqrt(link.variance(drift)) * rng.standard_normal(ROWS)
        angles = link.mean(drift) + np.array(offsets)[self.waves] + noise
        angles = np.where(rng.random(ROWS) < exchanged, -angles, angles)
        self.angles = np.clip(angles, -math.pi / 2, math.pi / 2)

    def fit(self, *, start: SparseFit | None = None) -> SparseFit:
        return fit_effects(self.design, self.angles, self.waves, null_sd=SD, num_null=100, start=start)


def few(seed: int, *, largest: float = 0.6) -> NDArray[np.float64]:
    """Return effects of which twenty are not zero."""
    effects = np.zeros(SITES)
    effects[:20] = seeded(seed).uniform(0, largest, 20)
    return effects


@pytest.fixture(scope="module")
def fits() -> Fits:
    """Return fits of eight simulated organisms, and the true effects."""
    worlds = [Simulated(seed, few(seed)) for seed in range(8)]
    return [(world.fit(), world.effects) for world in worlds]


def test_known_drifts_are_recovered(fits: Fits) -> None:
    deviations = np.array([(fit.estimate - effects)[:20] for fit, effects in fits])
    assert deviations.std() < 0.03
    assert abs(deviations.mean()) < 0.015
    for fit, effects in fits:
        assert (fit.probability[:20][effects[:20] > 0.15] > 0.99).all()
        assert (fit.probability[20:] > 0.5).sum() <= 2


def test_errors_say_how_far_estimates_are_from_the_truth(fits: Fits) -> None:
    deviates = np.array([(fit.estimate - effects) / fit.error for fit, effects in fits])
    assert deviates[:, 20:].std() == pytest.approx(1, abs=0.06)
    assert abs(deviates[:, 20:].mean()) < 0.1
    assert np.sqrt((deviates[:, :20] ** 2).mean()) < 1.35


def test_the_spread_is_that_of_the_competitions_not_of_the_null(fits: Fits) -> None:
    assert np.mean([fit.link.sd for fit, _ in fits]) == pytest.approx(SD, rel=0.03)
    world = Simulated(1, few(1), link=DriftLink(0.45))
    assert world.fit().link.sd == pytest.approx(0.45, rel=0.06)


def test_the_link_is_fitted() -> None:
    truth = DriftLink(SD, curvature=-0.15, narrowing=0.5)
    fits = [Simulated(seed, few(seed, largest=1.0), link=truth).fit() for seed in range(6)]
    assert np.mean([fit.link.curvature for fit in fits]) == pytest.approx(-0.15, abs=0.06)
    assert np.mean([fit.link.narrowing for fit in fits]) == pytest.approx(0.5, abs=0.15)


def test_each_wave_has_an_offset_of_its_own() -> None:
    world = Simulated(3, few(3), offsets=(0.2, 0.0, -0.3))
    fit = world.fit()
    assert fit.offsets == pytest.approx([0.2, 0.0, -0.3], abs=0.06)
    assert (np.abs(fit.estimate - world.effects) < 5 * fit.error).all()


def test_a_few_exchanged_sides_ruin_nothing() -> None:
    world = Simulated(4, few(4), exchanged=0.02)
    fit, calm = world.fit(), Simulated(4, few(4)).fit()
    assert fit.num_outlying > calm.num_outlying
    assert np.sqrt(((fit.estimate - world.effects) ** 2).mean()) < 1.35 * np.sqrt(
        ((calm.estimate - world.effects) ** 2).mean()
    )
    assert ((fit.estimate - world.effects) / fit.error)[20:].std() == pytest.approx(1, abs=0.2)


def test_a_site_that_was_in_no_competition_has_an_infinite_error() -> None:
    world = Simulated(5, few(5))
    taking_part = ~(world.design[:, [0, 50]] != 0).any(axis=1)
    fit = fit_effects(
        world.design[taking_part], world.angles[taking_part], world.waves[taking_part], null_sd=SD, num_null=100
    )
    assert np.flatnonzero(np.isinf(fit.error)).tolist() == [0, 50]
    assert fit.estimate[[0, 50]].tolist() == [0, 0]
    assert fit.probability[[0, 50]].tolist() == [0, 0]


def test_without_competitions_nothing_is_known() -> None:
    fit = fit_effects(
        np.zeros((0, 7), dtype=np.int8), np.zeros(0), np.zeros(0, dtype=np.int64), null_sd=SD, num_null=100
    )
    assert np.isinf(fit.error).all()
    assert not fit.mean.any()
    assert fit.link.sd == pytest.approx(SD)


def test_going_on_from_an_earlier_fit_ends_at_the_same_effects() -> None:
    world = Simulated(6, few(6))
    cold = world.fit()
    warm = world.fit(start=cold)
    assert np.abs(warm.estimate - cold.estimate).max() < 0.5 * cold.error.max()


def test_scaling_the_noise_and_the_effects_scales_the_estimates() -> None:
    """The widths of the slabs are no scale of their own: effects far below the narrowest are found as well."""
    small = few(7) / 30
    world = Simulated(7, small, link=DriftLink(SD / 30))
    fit = fit_effects(world.design, world.angles, world.waves, null_sd=SD / 30, num_null=100)
    deviates = (fit.estimate - small) / fit.error
    assert deviates[20:].std() == pytest.approx(1, abs=0.15)
    assert (fit.probability[:20][small[:20] > 0.2 / 30] > 0.99).all()


def test_the_link_is_its_own_derivative_and_finds_its_threshold() -> None:
    link, drift = DriftLink(0.3, curvature=0.2, narrowing=0.4), np.linspace(-3, 3, 61)
    step = 1e-6
    numeric = (link.mean(drift + step) - link.mean(drift - step)) / (2 * step)
    assert link.slope(drift) == pytest.approx(numeric, abs=1e-6)
    at = np.array([DriftLink(0.3).threshold(0.01)])
    seen = np.sin(DriftLink(0.3).mean(at) + 0.3 * seeded().standard_normal(400_000)).mean()
    assert seen == pytest.approx(math.sin(2.3263 * 0.3), abs=0.002)
