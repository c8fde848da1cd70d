"""Effects of sites from competitions between random knockouts: a sparse regression on which sites each side lacked.

The angle of a score, arcsin(score / bound), follows the difference of both sides' drifts (log odds per competition,
halved) through the Gudermannian function, if selection changes log odds at a constant rate. How the organism departs
from that - curvature of this link, spread that changes with the drift, sides that are not alike - is fitted from the
same competitions. Effects are posterior means under a mixture prior whose weights are learned (empirical Bayes), found
by coordinate ascent on blocks of sites; competitions far from their expectation count less (Huber).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from knockem_dagster.knockout.estimators.effect_mixture import EffectMixture

_WIDTHS = (0.3, 0.42, 0.6, 0.8, 1.2, 2.4, 4.8)
_BLOCK = 32
_ROUNDS = 6
_SWEEPS = 25
_SETTLED = 0.02
"""A sweep that changes no effect by more than this many standard errors is the last one."""
_LARGEST_RESIDUAL = 3.0
_LARGEST_DRIFT = 4.0
_LARGEST_ANGLE = 1.3


@dataclass(frozen=True, slots=True)
class DriftLink:
    """From drift to angle: mean gd(drift) * (1 + curvature * tanh(drift)^2), sd `sd` * (1 - narrowing * tanh^2)^.5."""

    sd: float
    curvature: float = 0.0
    narrowing: float = 0.0

    def mean(self, drift: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean angle at each drift."""
        level = np.tanh(drift)
        return np.arcsin(level) * (1 + self.curvature * level**2)

    def slope(self, drift: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the change of the mean angle with the drift."""
        level = np.tanh(drift)
        bend = 1 + self.curvature * level**2
        return bend / np.cosh(drift) + np.arcsin(level) * 2 * self.curvature * level * (1 - level**2)

    def variance(self, drift: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the variance of the angle at each drift."""
        return self.sd**2 * (1 - self.narrowing * np.tanh(drift) ** 2)

    def threshold(self, level: float) -> float:
        """Return the drift of one detection threshold: its mean score is what the null exceeds at this `level`.

        Where the scale ends before, it is the drift whose mean angle is the threshold's.
        """
        angle = min(float(stats.norm.isf(level)) * self.sd, _LARGEST_ANGLE)

        def excess(drift: float) -> float:
            at = np.array([drift])
            mean = np.sin(np.minimum(self.mean(at), math.pi / 2)) * np.exp(-self.variance(at) / 2)
            return float(mean[0]) - math.sin(angle)

        if excess(_LARGEST_DRIFT) <= 0:
            return math.atanh(math.sin(angle))
        return float(optimize.brentq(excess, 0.0, _LARGEST_DRIFT))


@dataclass(frozen=True, slots=True, eq=False)
class SparseFit:
    """Effects of sites as drifts, shape (num_sites,): posterior `mean`, `probability` of having one.

    `estimate` and `error` are what the competitions alone say of each site, all others at their means: an estimate
    that is normal around the truth. A site that was in no competition has an infinite error. `offsets` are the angles
    of no difference, a wave each; `num_outlying` competitions were far from what all others let expect. `deviations`
    are the residuals of all competitions, in the standard deviations of the link.
    """

    mean: NDArray[np.float64]
    probability: NDArray[np.float64]
    estimate: NDArray[np.float64]
    error: NDArray[np.float64]
    mixture: EffectMixture
    link: DriftLink
    offsets: NDArray[np.float64]
    num_outlying: int
    deviations: NDArray[np.float64]


def fit_effects(
    design: NDArray[np.int8],
    angles: NDArray[np.float64],
    waves: NDArray[np.int64],
    *,
    null_sd: float,
    num_null: int,
    start: SparseFit | None = None,
) -> SparseFit:
    """Fit the effects to n competitions: `design` (n, sites) is 1 where beta lacks a site, -1 where alpha does.

    `null_sd` is that of the null's angles, from `num_null` competitions; `start` an earlier fit of the same sites.
    """
    return _Regression(np.asfortranarray(design), angles, waves, null_sd, num_null).fit(start)


class _Regression:
    def __init__(
        self,
        design: NDArray[np.int8],
        angles: NDArray[np.float64],
        waves: NDArray[np.int64],
        null_sd: float,
        num_null: int,
    ) -> None:
        self._design = design
        self._angles = angles
        self._waves = waves
        self._null_sd = null_sd
        self._num_null = num_null
        num_sites = design.shape[1]
        scattered = np.random.default_rng(num_sites).permutation(num_sites)
        self._blocks = np.array_split(scattered, max(1, num_sites // _BLOCK))
        self._unscattered = np.argsort(scattered)

    def fit(self, start: SparseFit | None) -> SparseFit:
        num_sites = self._design.shape[1]
        fit = start or SparseFit(
            mean=np.zeros(num_sites),
            probability=np.zeros(num_sites),
            estimate=np.zeros(num_sites),
            error=np.full(num_sites, np.inf),
            mixture=EffectMixture.of_widths(_WIDTHS),
            link=DriftLink(self._null_sd),
            offsets=np.zeros(0),
            num_outlying=0,
            deviations=np.zeros(0),
        )
        for number in range(_ROUNDS if self._angles.size else 0):
            fit = self._round(fit, linear=start is None and number == 0)
        return replace(fit, deviations=self._deviations(fit))

    def _round(self, fit: SparseFit, *, linear: bool) -> SparseFit:
        """Take the link as straight around the present fit, and fit again; at first, without any fit, around zero."""
        if linear:
            drift = np.zeros(self._angles.size)
            response = np.arctanh(np.sin(np.clip(self._angles, -_LARGEST_ANGLE, _LARGEST_ANGLE)))
            weights = np.full(self._angles.size, 0.5 / self._null_sd**2)
            link, offsets, num_outlying = fit.link, np.zeros(self._waves.max(initial=0) + 1), 0
        else:
            drift = np.clip(self._product(fit.mean), -_LARGEST_DRIFT, _LARGEST_DRIFT)
            link, offsets, trust = self._calibrated(fit, drift)
            slope = np.maximum(link.slope(drift), 1e-3)
            response = drift + (self._angles - offsets[self._waves] - link.mean(drift)) / slope
            weights = trust * slope**2 / link.variance(drift)
            num_outlying = int((trust < 1).sum())
        return self._ascend(replace(fit, link=link, offsets=offsets, num_outlying=num_outlying), response, weights)

    def _deviations(self, fit: SparseFit) -> NDArray[np.float64]:
        if not self._angles.size:
            return np.zeros(0)
        drift = np.clip(self._product(fit.mean), -_LARGEST_DRIFT, _LARGEST_DRIFT)
        residual = self._angles - fit.link.mean(drift) - fit.offsets[self._waves]
        return residual / np.sqrt(fit.link.variance(drift))

    def _calibrated(
        self, fit: SparseFit, drift: NDArray[np.float64]
    ) -> tuple[DriftLink, NDArray[np.float64], NDArray[np.float64]]:
        """Fit the link and the offsets to what the effects leave over; return also how far each answer is trusted."""
        link = fit.link
        level = np.tanh(drift) ** 2
        count = np.bincount(self._waves)
        trust = np.ones(self._angles.size)
        offsets = np.zeros(count.size)
        effective = self._num_null + self._angles.size - self._num_fitted(fit)
        for _ in range(3):
            precision = trust / link.variance(drift)
            bare = self._angles - offsets[self._waves] - np.arcsin(np.tanh(drift))
            lever = np.arcsin(np.tanh(drift)) * level
            leverage = float((precision * lever**2).sum()) + 100.0
            curvature = float((precision * lever * bare).sum()) / leverage
            link = replace(link, curvature=float(np.clip(curvature, -0.5, 0.5)))
            residual = self._angles - link.mean(drift)
            sums = np.bincount(self._waves, weights=precision * residual)
            offsets = sums / (np.bincount(self._waves, weights=precision) + 1 / self._null_sd**2)
            residual = residual - offsets[self._waves]
            square = trust * residual**2 / link.sd**2
            centred = level - level.mean()
            narrowing = -float((centred * square).sum()) / (float((centred**2).sum()) + 10.0)
            link = replace(link, narrowing=float(np.clip(narrowing, -3.0, 0.9)))
            shape = link.variance(drift) / link.sd**2
            total = self._num_null * self._null_sd**2 + float((trust * residual**2 / shape).sum())
            link = replace(link, sd=math.sqrt(total / max(1.0, effective)))
            deviation = np.abs(residual) / np.sqrt(link.variance(drift))
            trust = np.minimum(1.0, _LARGEST_RESIDUAL / np.maximum(deviation, 1e-12))
        return link, offsets, trust

    def _num_fitted(self, fit: SparseFit) -> float:
        """Return the effective number of effects that were fitted: how much estimates move the means."""
        known = np.isfinite(fit.error)
        posterior = fit.mixture.posterior(fit.estimate[known], fit.error[known])
        return min(float((posterior.variance / fit.error[known] ** 2).sum()), 0.9 * self._angles.size)

    def _ascend(self, fit: SparseFit, response: NDArray[np.float64], weights: NDArray[np.float64]) -> SparseFit:
        mean, mixture = fit.mean.copy(), fit.mixture
        information = np.concatenate([weights @ np.abs(self._design[:, block]) for block in self._blocks])[
            self._unscattered
        ]
        shares = information > 0
        error = np.full(mean.size, np.inf)
        error[shares] = information[shares] ** -0.5
        residual = response - self._product(mean)
        estimate = np.zeros(mean.size)
        for _ in range(_SWEEPS):
            largest = 0.0
            for block in self._blocks:
                sites = block[shares[block]]
                columns = self._design[:, sites].astype(np.float64)
                estimate[sites] = mean[sites] + (columns.T @ (weights * residual)) / information[sites]
                change = mixture.posterior(estimate[sites], error[sites]).mean - mean[sites]
                residual -= columns @ change
                mean[sites] += change
                largest = max(largest, float(np.abs(change / error[sites]).max(initial=0.0)))
            mixture = mixture.learned(estimate[shares], error[shares])
            if largest < _SETTLED:
                break
        probability = np.zeros(mean.size)
        for block in self._blocks:
            sites = block[shares[block]]
            columns = self._design[:, sites].astype(np.float64)
            estimate[sites] = mean[sites] + (columns.T @ (weights * residual)) / information[sites]
        probability[shares] = mixture.posterior(estimate[shares], error[shares]).probability
        return replace(fit, mean=mean, probability=probability, estimate=estimate, error=error, mixture=mixture)

    def _product(self, effects: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the drift difference of every competition under these effects."""
        sites = np.flatnonzero(effects)
        total = np.zeros(self._design.shape[0])
        for part in np.array_split(sites, max(1, sites.size // 256)):
            total += self._design[:, part].astype(np.float64) @ effects[part]
        return total
