"""How likely is each site to be critical? What earlier skeletons and the running one tell; it changes cost alone.

A chance is the product of a weight per site, frozen before a skeleton starts, and a running rate of critical sites
per weight, in which what was found lately counts most: nothing is critical until a background has used up what may
be lost unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SMALLEST_CHANCE = 1e-5
_LARGEST_CHANCE = 0.98


@dataclass(frozen=True, slots=True)
class RunningRate:
    """Critical sites found per weight passed, both decayed by `memory` at every critical site."""

    critical: float
    weight: float
    memory: float

    @property
    def value(self) -> float:
        """Return the rate, at most 1."""
        return min(1.0, self.critical / self.weight)

    def after(self, num_critical: int, weight: float) -> RunningRate:
        """Return the rate after a stretch of this weight with so many critical sites, spread evenly."""
        if num_critical == 0:
            return RunningRate(self.critical, self.weight + weight, self.memory)
        faded = self.memory**num_critical
        share = (1 - faded) / (1 - self.memory) / num_critical
        return RunningRate(
            self.critical * faded + num_critical * share, self.weight * faded + weight * share, self.memory
        )


@dataclass(frozen=True, slots=True, eq=False)
class SitePrior:
    """A weight for each site, shape (num_sites,), and the rate a skeleton starts with."""

    weights: NDArray[np.float64]
    rate: RunningRate

    @classmethod
    def uninformed(cls, num_sites: int) -> SitePrior:
        """Return the prior where nothing is known: all sites alike, one in sixty critical, soon forgotten."""
        return cls(np.ones(num_sites), RunningRate(0.5, 30.0, 0.98))

    @classmethod
    def from_kept(cls, kept: NDArray[np.bool_]) -> SitePrior:
        """Learn from earlier skeletons, shape (skeletons, num_sites), how often a site kept so often is kept again.

        Empirical Bayes, leaving one out: each skeleton is predicted by how many of the others keep a site. Needs at
        least two skeletons; fewer teach nothing of a single site.
        """
        count, num_sites = kept.shape
        if count < 2:
            return cls.uninformed(num_sites)
        times_kept = kept.sum(axis=0)
        again, sites = np.zeros(count), np.zeros(count)
        for each in kept:
            others = times_kept - each
            again += np.bincount(others[each], minlength=count)[:count]
            sites += np.bincount(others, minlength=count)[:count]
        chance_by_times = (again + 0.5) / (sites + 1)
        rescaled = times_kept * (count - 1) / count
        return cls(np.interp(rescaled, np.arange(count), chance_by_times), RunningRate(0.5, 3.0, 0.6))

    def chances(self, sites: NDArray[np.int64], rate: RunningRate, *, odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the chance of each of these sites to be critical, its odds multiplied by `odds`; same shape."""
        prior = np.clip(self.weights[sites] * rate.value, _SMALLEST_CHANCE, _LARGEST_CHANCE)
        return np.clip(prior * odds / (1 - prior + prior * odds), _SMALLEST_CHANCE, _LARGEST_CHANCE)
