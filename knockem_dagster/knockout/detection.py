"""When is a score a detection? The null distribution of a submission and what follows from it.

Everything here comes from the submission's own wild-type competitions, and, for organisms without
noise, from the unit such an organism states. Which competitions to run is the assays' affair.

Scores are differences of two fractions per update, so they are bounded, and drift makes them
less spread near the bounds. The angle arcsin(score / bound) is close to normal instead, at every
length of competition, and its t prediction interval keeps the false-positive rate at its nominal value
however few null competitions there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.errors import AssayError

_SMALLEST_SPREAD = 1e-12
"""Relative to the bound: scores are ratios of counts, so what differs by less differs by rounding alone."""
_TOLERANCE = 1e-6
"""Relative slack of the stated unit: counts are integers, so an effect of exactly one unit may score a hair less."""


@dataclass(frozen=True, slots=True)
class NullDistribution:
    """Scores (1/update) of the wild type against itself, and the thresholds they set.

    `threshold` is the least score that is a detection, `beneficial_threshold` the greatest that is
    a detected benefit; `unit` is one detection threshold as a score above the mean. `sd` is 0
    for an organism without noise; its unit is the one it states, and where it states none every score
    above the mean is a detection and `unit` is missing (NaN) until `with_unit_from` finds one.
    `symmetry_p` is the two-sided p value that both sides of a competition are alike (mean score zero).
    """

    mean: float
    sd: float
    n: int
    symmetry_p: float
    level: float
    bound: float
    angle_mean: float
    angle_sd: float
    threshold: float
    beneficial_threshold: float
    unit: float

    @classmethod
    def from_scores(
        cls,
        scores: Sequence[float] | NDArray[np.float64],
        *,
        bound: float,
        level: float = 0.01,
        stated_unit: float | None = None,
    ) -> NullDistribution:
        """Fit the null to `scores` (1/update) of wild-type competitions.

        `bound` is the largest score a competition can have (1 / updates elapsed); `level` the nominal
        one-sided false-positive rate. `stated_unit` counts only when the scores have no spread.
        Raises AssayError for fewer than two scores.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.size < 2:
            raise AssayError(
                f"{values.size} null competitions cannot tell noise from effect: ask for at least 2 (100 are usual)"
            )
        if float(values.std(ddof=1)) == 0 or float(np.ptp(values / bound)) < _SMALLEST_SPREAD:
            return cls._without_noise(values, bound=bound, level=level, stated_unit=stated_unit)
        angles = np.arcsin(np.clip(values / bound, -1.0, 1.0))
        angle_mean, angle_sd = float(angles.mean()), float(angles.std(ddof=1))
        reach = float(stats.t.isf(level, values.size - 1)) * angle_sd * math.sqrt(1 + 1 / values.size)
        mean = float(values.mean())
        threshold = _score_of_angle(angle_mean + reach, bound)
        return cls(
            mean=mean,
            sd=float(values.std(ddof=1)),
            n=values.size,
            symmetry_p=_p_value_of_zero_mean(values),
            level=level,
            bound=bound,
            angle_mean=angle_mean,
            angle_sd=angle_sd,
            threshold=threshold,
            beneficial_threshold=-_score_of_angle(reach - angle_mean, bound),
            unit=threshold - mean,
        )

    @classmethod
    def _without_noise(
        cls, values: NDArray[np.float64], *, bound: float, level: float, stated_unit: float | None
    ) -> NullDistribution:
        mean = float(values[0])
        slack = None if stated_unit is None else stated_unit * (1 - _TOLERANCE)
        return cls(
            mean=mean,
            sd=0.0,
            n=values.size,
            symmetry_p=1.0 if mean == 0 else 0.0,
            level=level,
            bound=bound,
            angle_mean=math.asin(max(-1.0, min(1.0, mean / bound))),
            angle_sd=0.0,
            threshold=math.nextafter(mean, math.inf) if slack is None else mean + slack,
            beneficial_threshold=math.nextafter(mean, -math.inf) if slack is None else mean - slack,
            unit=math.nan if stated_unit is None else stated_unit,
        )

    def detects(self, score: float) -> bool:
        """Tell whether the challenger of this score (1/update) is detectably worse."""
        return score >= self.threshold

    def detects_benefit(self, score: float) -> bool:
        """Tell whether the challenger of this score (1/update) is detectably better."""
        return score <= self.beneficial_threshold

    def angle(self, score: float) -> float:
        """Return the angle of a score (1/update), in which noise is close to normal."""
        return math.asin(max(-1.0, min(1.0, score / self.bound)))

    def p_values(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the one-sided p value of each score, same shape; a missing score has a missing p value."""
        if self.sd == 0:
            return np.where(np.isnan(scores), np.nan, np.where(scores >= self.threshold, 0.0, 1.0))
        angles = np.arcsin(np.clip(scores / self.bound, -1.0, 1.0))
        deviations = (angles - self.angle_mean) / (self.angle_sd * math.sqrt(1 + 1 / self.n))
        return np.asarray(stats.t.sf(deviations, self.n - 1), dtype=np.float64)

    def in_thresholds(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scores (1/update) as effects, in detection thresholds above the null mean; same shape."""
        return (scores - self.mean) / self.unit

    def with_unit(self, unit: float) -> NullDistribution:
        """Return this null with a unit (1/update), where none is known."""
        return replace(self, unit=unit) if math.isnan(self.unit) else self

    def with_unit_from(self, scores: NDArray[np.float64]) -> NullDistribution:
        """Return this null with a unit: where none is known, the smallest of these scores above the mean.

        A null without noise and without a stated unit detects every score above its mean, so the smallest one seen
        is the nearest to one detection threshold. When no score is above the mean the unit stays missing.
        """
        above = scores[scores > self.mean]
        if not math.isnan(self.unit) or above.size == 0:
            return self
        return replace(self, unit=float(above.min()) - self.mean)


def _score_of_angle(angle: float, bound: float) -> float:
    """Return the score at this angle; beyond a quarter turn, the first score no null competition can reach."""
    return bound * math.sin(angle) if angle < math.pi / 2 else math.nextafter(bound, math.inf)


def _p_value_of_zero_mean(values: NDArray[np.float64]) -> float:
    """Return the two-sided p value of Student's t test that the mean of these values is zero."""
    statistic = float(values.mean()) / (float(values.std(ddof=1)) / math.sqrt(values.size))
    return float(2 * stats.t.sf(abs(statistic), values.size - 1))
