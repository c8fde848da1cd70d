"""What effects of sites are like: none for most, some spread over a range. The prior of the sparse regression.

A mixture of a spike at zero and slabs, each uniform from zero to some width on the harmful or the beneficial side
(spike and slab: Mitchell and Beauchamp 1988; mixtures of uniforms: Stephens 2017). The weights are learned; the
widths are given, since data hardly tell effects far below their standard error from none at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import special

_SMALLEST_DIFFERENCE = 1e-15
_SMALLEST_MASS = 1e-100
_PRIOR_SITES = 1.0
"""The weights' prior counts for so many sites, spread evenly over the components."""


@dataclass(frozen=True, slots=True, eq=False)
class EffectPosterior:
    """What is known of each of n sites: mean and variance of its effect, and the probability that it has one."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    probability: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class EffectMixture:
    """A spike at zero (weights[0]) and slabs uniform on [lows[k], highs[k]], with weights[k + 1]."""

    lows: NDArray[np.float64]
    highs: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of_widths(cls, widths: Sequence[float], *, upper_halves: bool = False, spike: float = 0.9) -> EffectMixture:
        """Return a mixture with a harmful and a beneficial slab of each width, all of equal weight.

        With `upper_halves`, there is a slab from half of each width to all of it as well: effects may be alike.
        """
        highs = np.array([*widths, *(widths if upper_halves else ())], dtype=np.float64)
        lows = np.array([0.0] * len(widths) + [width / 2 for width in widths if upper_halves])
        count = 2 * highs.size
        weights = np.array([spike, *[(1 - spike) / count] * count])
        return cls(np.concatenate([lows, -highs]), np.concatenate([highs, -lows]), weights)

    def posterior(self, estimates: NDArray[np.float64], errors: NDArray[np.float64]) -> EffectPosterior:
        """Return what independent estimates, shape (n,), with these standard errors tell."""
        shares = self.responsibilities(estimates, errors)
        if not shares.size:
            return EffectPosterior(np.zeros(0), np.zeros(0), np.zeros(0))
        estimate, error = estimates[:, None], errors[:, None]
        low, high = (self.lows - estimate) / error, (self.highs - estimate) / error
        mass = np.exp(_log_mass(low, high))
        # Far outside a slab its posterior is at the nearer end.
        weight = np.divide(1, mass, out=np.zeros_like(mass), where=mass > _SMALLEST_MASS)
        density_low, density_high = _density(low), _density(high)
        step = (density_low - density_high) * weight
        mean = np.clip(estimate + error * step, self.lows, self.highs)
        spread = 1 + (low * density_low - high * density_high) * weight - step**2
        variance = np.where(weight > 0, np.clip(spread, 0.0, 1.0), 0.0) * error**2
        slab = shares[:, 1:]
        overall = (slab * mean).sum(axis=1)
        second = (slab * (variance + mean**2)).sum(axis=1)
        return EffectPosterior(overall, np.maximum(second - overall**2, 0.0), slab.sum(axis=1))

    def responsibilities(self, estimates: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of each site to belong to each component, shape (n, slabs + 1)."""
        weighted = self.likelihoods(estimates, errors) * self.weights
        return weighted / weighted.sum(axis=1, keepdims=True)

    def likelihoods(self, estimates: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how likely each component makes each estimate, shape (n, slabs + 1), relative to the likeliest."""
        estimate, error = estimates[:, None], errors[:, None]
        spike = _log_density(estimate / error) - np.log(error)
        slabs = _log_mass((self.lows - estimate) / error, (self.highs - estimate) / error)
        likelihood = np.hstack([spike, slabs - np.log(self.highs - self.lows)])
        return np.exp(likelihood - likelihood.max(axis=1, keepdims=True))

    def learned(self, estimates: NDArray[np.float64], errors: NDArray[np.float64], *, rounds: int = 3) -> EffectMixture:
        """Return the mixture with weights that fit the estimates better (expectation maximization)."""
        likelihoods, weights = self.likelihoods(estimates, errors), self.weights
        for _ in range(rounds):
            weighted = likelihoods * weights
            counts = (weighted / weighted.sum(axis=1, keepdims=True)).sum(axis=0) + _PRIOR_SITES / weights.size
            weights = counts / counts.sum()
        return replace(self, weights=weights)

    def sampled_counts(
        self,
        estimates: NDArray[np.float64],
        errors: NDArray[np.float64],
        rng: Generator,
        *,
        above: Sequence[float],
        among: NDArray[np.bool_],
        within: float = 0.0,
        unit_error: float = 0.0,
        sweeps: int = 1000,
    ) -> NDArray[np.int64]:
        """Return posterior samples of how many sites have any effect, one of at most `within`, one above each limit.

        The shape is (sweeps, 2 + limits); only sites `among` those of the mask, shape (n,), are counted, while all
        tell what effects are like. `unit_error` is the relative standard error of the unit. Gibbs sampling: components
        of sites, then weights, then effects; a fifth as many sweeps again come first and are forgotten.
        """
        likelihoods, weights = self.likelihoods(estimates, errors), self.weights
        low, high = np.concatenate([[0.0], self.lows]), np.concatenate([[0.0], self.highs])
        samples = np.zeros((sweeps, 2 + len(above)), dtype=np.int64)
        for sweep in range(-(sweeps // 5), sweeps):
            shares = (likelihoods * weights).cumsum(axis=1)
            chosen = (shares < shares[:, -1:] * rng.random(estimates.size)[:, None]).sum(axis=1).clip(max=low.size - 1)
            weights = rng.dirichlet(np.bincount(chosen, minlength=low.size) + _PRIOR_SITES / low.size)
            slab = (chosen > 0) & among
            estimate, error, component = estimates[slab], errors[slab], chosen[slab]
            start = special.ndtr((low[component] - estimate) / error)
            end = special.ndtr((high[component] - estimate) / error)
            quantile = np.clip(start + (end - start) * rng.random(estimate.size), 1e-12, 1 - 1e-12)
            effect = np.clip(estimate + error * special.ndtri(quantile), low[component], high[component])
            if sweep >= 0:
                unit = max(0.0, 1 + unit_error * rng.standard_normal())
                small = (np.abs(effect) <= within).sum()
                samples[sweep] = [effect.size, small, *[(np.abs(effect) > limit * unit).sum() for limit in above]]
        return samples


def _density(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(_log_density(x))


def _log_density(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return -0.5 * np.square(x) - 0.5 * math.log(2 * math.pi)


def _log_mass(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log probability of a normal deviate between two limits, also where both are far in one tail."""
    is_upper = low > 0
    start, end = np.where(is_upper, -high, low), np.where(is_upper, -low, high)
    larger, smaller = special.log_ndtr(end), special.log_ndtr(start)
    return larger + np.log1p(-np.exp(np.minimum(smaller - larger, -_SMALLEST_DIFFERENCE)))
