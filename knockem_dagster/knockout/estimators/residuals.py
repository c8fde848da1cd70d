"""What a fit leaves over, summed up: do competitions scatter as the model of scores has it?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_TAIL = 0.01
_LAGS = 10


@dataclass(frozen=True, slots=True)
class ResidualSummary:
    """How `n` competitions differ from what was fitted, in the standard deviations that the model expects.

    `upper_tail` and `lower_tail` are the deviations that 1% of competitions exceed, 1 where they are a normal
    deviate's; `correlation` is that of competitions asked one after the other, averaged over ten lags; `growth` is how
    much more variance there is at the end of the scale than in its middle, as a share of the latter.
    """

    n: int
    upper_tail: float
    lower_tail: float
    correlation: float
    growth: float

    @classmethod
    def of(cls, deviations: NDArray[np.float64], waves: NDArray[np.int64], *, growth: float) -> ResidualSummary:
        """Sum up deviations, shape (n,), in the order asked, of which those of one wave were asked together."""
        normal = float(stats.norm.isf(_TAIL))
        lower, upper = np.quantile(deviations, [_TAIL, 1 - _TAIL]) / normal if deviations.size else (-1.0, 1.0)
        return cls(deviations.size, float(upper), float(-lower), _correlation(deviations, waves), growth)

    @property
    def tail_error(self) -> float:
        """Return the standard error of both tails if deviations are normal; infinite without competitions."""
        density = float(stats.norm.pdf(stats.norm.isf(_TAIL))) * float(stats.norm.isf(_TAIL))
        return math.sqrt(_TAIL * (1 - _TAIL) / self.n) / density if self.n else math.inf

    @property
    def correlation_error(self) -> float:
        """Return the standard error of the correlation if there is none; infinite without competitions."""
        return 1 / math.sqrt(_LAGS * self.n) if self.n else math.inf


def _correlation(deviations: NDArray[np.float64], waves: NDArray[np.int64]) -> float:
    """Return the mean product of a competition's deviation with those up to ten before it in its wave."""
    total, count = 0.0, 0
    for lag in range(1, _LAGS + 1):
        together = waves[lag:] == waves[:-lag]
        total += float((deviations[lag:] * deviations[:-lag])[together].sum())
        count += int(together.sum())
    variance = float(np.square(deviations).mean()) if deviations.size else 0.0
    return total / count / variance if count and variance else 0.0
