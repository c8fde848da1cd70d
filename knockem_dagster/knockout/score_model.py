"""How a score speaks for or against an effect: the model of scores that sequential decisions rest on.

Everything here comes from a submission's own competitions: the spread of the null, the threshold it sets, and, where
sites were weighed, what that told of both (estimators/sparse_regression.py). Which to run is the assays' affair.

Selection changes the log odds of the two sides at a constant rate: an effect e (in thresholds) is a drift of rate * e,
half the log odds after one competition. The angle arcsin(score / bound) is close to normal around gd(drift), as in the
detection of single scores. One threshold is the effect whose mean score is the null's 99th percentile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.errors import AssayError
from knockem_dagster.knockout.detection import NullDistribution

_ASYMMETRIC = 0.001
"""Below this p value both sides are not alike, and the null mean is taken as measured instead of as zero."""
_LEVEL = 0.95
_WIDEST_ANGLE = 1.5


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect in detection thresholds with its 95% interval, from `n` competitions; NaN where unmeasured."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def below(cls, limit: float) -> Effect:
        """Return an effect of which only a limit is known, without competitions of its own."""
        return cls(math.nan, math.nan, limit, 0)

    @classmethod
    def unknown(cls) -> Effect:
        """Return an effect that no competition could measure."""
        return cls(math.nan, math.nan, math.nan, 0)

    def plus(self, other: Effect) -> Effect:
        """Return the sum of two effects; its interval, which adds both, holds the truth at least as often."""
        return Effect(self.value + other.value, self.low + other.low, self.high + other.high, self.n + other.n)

    def minus(self, known: float) -> Effect:
        """Return what is left of it when so much (thresholds) is explained."""
        return Effect(self.value - known, self.low - known, self.high - known, self.n)


@dataclass(frozen=True, slots=True)
class ScoreModel:
    """Scores of a submission as a function of effect: angles around `angle_mean` + gd(`rate` * effect), sd `angle_sd`.

    gd is the Gudermannian function, arcsin(tanh(x)). Without noise `angle_sd` is 0, `rate` means nothing, and one
    score decides.
    """

    null: NullDistribution
    angle_mean: float
    angle_sd: float
    rate: float

    @classmethod
    def fit(cls, null: NullDistribution) -> ScoreModel:
        """Fit the model to a null.

        Raises AssayError when noise is so large that no score can be a detection.
        """
        if null.sd == 0:
            return cls(null, null.angle_mean, 0.0, math.nan)
        if null.threshold >= null.bound:
            raise AssayError(
                "the wild type's own competitions scatter over the whole range of scores, so that no score can tell an "
                "effect from noise: let competitions have more individuals, or fewer updates, and submit again"
            )
        mean = 0.0 if null.symmetry_p >= _ASYMMETRIC else null.angle_mean
        return cls(null, mean, null.angle_sd, threshold_drift(null.angle_sd, null.level))

    def recalibrated(self, *, angle_sd: float, rate: float) -> ScoreModel:
        """Return the model with what weighing told of its noise and its unit."""
        return replace(self, angle_sd=angle_sd, rate=rate)

    @property
    def is_exact(self) -> bool:
        """Tell whether the organism answers without noise, so that one competition decides."""
        return self.angle_sd == 0

    def log_likelihood_ratio(self, score: float, *, effect: float, known: float = 0.0) -> float:
        """Return ln P(score | effect) - ln P(score | known), of one score (1/update); infinite without noise.

        Both effects are in thresholds.
        """
        if self.is_exact:
            return math.inf if self.null.detects(score) else -math.inf
        deviation = (self._angle(score) - self.angle_mean) / self.angle_sd
        less, more = self._shift(known), self._shift(effect)
        return (more - less) * (deviation - (more + less) / 2)

    def information(self, effect: float) -> float:
        """Return the expected log likelihood ratio of one competition of this effect; infinite without noise."""
        return math.inf if self.is_exact else self._shift(effect) ** 2 / 2

    def measured_effect(self, scores: NDArray[np.float64]) -> Effect:
        """Return the effect that repeated competitions (scores in 1/update, shape (n,)) of one question measure.

        The interval holds the noise of these scores and that of the null, which sets the unit. Where the mean is at
        the edge of the scale its upper end is infinite. Without noise there is no interval. Raises ValueError when
        there is no score.
        """
        if scores.size == 0:
            raise ValueError("an effect is measured from at least one score")
        if self.is_exact:
            value = float(scores.mean() - self.null.mean) / self.null.unit
            return Effect(value, math.nan, math.nan, scores.size)
        angles = np.arcsin(np.clip(scores / self.null.bound, -1.0, 1.0)) - self.angle_mean
        deviates = float(stats.norm.isf((1 - _LEVEL) / 2))
        reach = deviates * self.angle_sd / math.sqrt(scores.size)
        mean = float(angles.mean())
        low, value, high = (self._effect_at(angle) for angle in (mean - reach, mean, mean + reach))
        if math.isinf(value):
            return Effect(value, low, high, scores.size)
        unit_reach = deviates * value / math.sqrt(2 * (self.null.n - 1))
        return Effect(
            value,
            value - math.hypot(value - low, unit_reach),
            value + math.hypot(high - value, unit_reach),
            scores.size,
        )

    def _shift(self, effect: float) -> float:
        return _gudermannian(self.rate * effect) / self.angle_sd

    def _angle(self, score: float) -> float:
        return math.asin(max(-1.0, min(1.0, score / self.null.bound)))

    def _effect_at(self, angle: float) -> float:
        if abs(angle) >= math.pi / 2:
            return math.copysign(math.inf, angle)
        return math.atanh(math.sin(angle)) / self.rate


def threshold_drift(angle_sd: float, level: float) -> float:
    """Return the drift of one detection threshold: its mean score is what the null exceeds with probability `level`.

    Noise pulls mean scores towards zero by exp(-sd^2 / 2). Where no drift has so large a mean score, it is the drift
    whose angle is the threshold's.
    """
    reach = min(float(stats.norm.isf(level)) * angle_sd, _WIDEST_ANGLE)
    mean = math.sin(reach) * math.exp(angle_sd**2 / 2)
    return math.atanh(mean if mean < 1 else math.sin(reach))


def _gudermannian(drift: float) -> float:
    return math.asin(math.tanh(drift))
