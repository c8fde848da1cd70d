"""How many additive sites, and how large: a negative binomial fit to the dose response (Moreno 2024, arXiv 2404.10854).

Sites are drawn until enough additive ones are among them to be seen: with a share p of additive sites and r of
them needed, the dose at first detection is negative binomial. It gives no interval, and detections alone
cannot separate the number of sites from the spread of their effects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True, slots=True)
class NegativeBinomialFit:
    """The fitted curve: `needed` additive sites (r) are seen, a share `prevalence` (p) of `num_candidates` is additive.

    `needed` and the mean effect are missing (NaN) when no dose was ever detected: then nothing is additive.
    """

    needed: float
    prevalence: float
    num_candidates: int
    error: float

    @property
    def num_additive_sites(self) -> float:
        """Return the estimated number of additive sites."""
        return self.prevalence * self.num_candidates

    @property
    def mean_effect(self) -> float:
        """Return the estimated mean effect of an additive site, in detection thresholds."""
        return 1 / self.needed

    def sensitivity(self, doses: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the fitted probability of detection at each dose (sites), same shape."""
        if math.isnan(self.needed):
            return np.zeros(len(doses))
        return np.asarray(stats.nbinom.cdf(doses - self.needed, self.needed, self.prevalence), dtype=np.float64)


def fit_negative_binomial(
    doses: NDArray[np.int64],
    sensitivities: NDArray[np.float64],
    *,
    num_candidates: int,
    most_needed: int = 100,
    steps: int = 100,
    most_prevalence: float = 1.0,
) -> NegativeBinomialFit:
    """Fit the detected fraction at each dose (sites) by least squares over a grid.

    The grid holds r = 1 .. `most_needed` and `steps` prevalences up to `most_prevalence`; the published one is
    100 x 100 up to 1, so that 1,000 sites are counted in tens.
    """
    if not sensitivities.any():
        return NegativeBinomialFit(math.nan, 0.0, num_candidates, 0.0)
    needed = np.arange(1, most_needed + 1)[:, None, None]
    prevalence = (most_prevalence * np.arange(1, steps + 1) / steps)[None, :, None]
    curves = stats.nbinom.cdf(doses - needed, needed, prevalence)
    errors = np.square(curves - sensitivities).sum(axis=-1)
    row, column = np.unravel_index(int(np.argmin(errors)), errors.shape)
    return NegativeBinomialFit(
        needed=float(row + 1),
        prevalence=float(prevalence[0, column, 0]),
        num_candidates=num_candidates,
        error=float(errors[row, column]),
    )
