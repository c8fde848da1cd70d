"""How many sites matter, from what weighing and the enumeration of sets found, with intervals.

Effects far below their standard error cannot be told from none, so the total number of additive sites depends on what
such effects are taken to be like; it is given under two priors. The number of sites above a limit of a few standard
errors does not depend on that. Sets can be missed when several members have effects of their own: how many were is
inferred from how often a site has one, and from the sets that were found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.assays.set_search import FoundSets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.estimators.effect_mixture import EffectMixture

LEVEL = 0.95
EVEN_WIDTHS = (0.33, 0.45, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0)
"""Slabs that spread effects evenly from zero to at least a third of a threshold."""
SMALL_WIDTHS = (0.1, 0.2, *EVEN_WIDTHS)
"""The same, with room for a heap of small effects."""
_SWEEPS = 2000
_LEARNING_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Count:
    """A number of sites or sets with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_samples(cls, samples: NDArray[np.int64]) -> Count:
        """Return the posterior mean and the interval between the outer quantiles of posterior samples.

        Counts are whole: the interval holds those on either side of the mean.
        """
        mean = float(samples.mean())
        low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="closest_observation")
        return cls(mean, min(float(low), math.floor(mean)), max(float(high), math.ceil(mean)))


def count_additive(
    weights: SiteWeights, rng: Generator, *, widths: Sequence[float] = EVEN_WIDTHS, above: Sequence[float] = ()
) -> list[Count]:
    """Count the sites with any effect, then those with an effect above each limit (thresholds), under one prior."""
    samples = sample_additive(weights, rng, widths=widths, above=above, among=np.ones(len(weights.table), dtype=bool))
    return [Count.of_samples(each) for each in samples.T]


def sample_additive(
    weights: SiteWeights,
    rng: Generator,
    *,
    among: NDArray[np.bool_],
    widths: Sequence[float] = EVEN_WIDTHS,
    above: Sequence[float] = (),
) -> NDArray[np.int64]:
    """Return posterior samples, shape (samples, 1 + limits): sites with any effect, then above each limit (thresholds).

    Only sites `among` those of the mask, shape (num_sites,), are counted.
    """
    table = weights.table[weights.table["tested"] & among]
    effects = table["effect"].to_numpy(dtype=np.float64)
    if weights.is_exact:
        return np.array([[(effects != 0).sum(), *[(effects > limit).sum() for limit in above]]])
    tested = weights.table[weights.table["tested"]]
    every_effect, every_error = (tested[name].to_numpy(dtype=np.float64) for name in ("effect", "error"))
    mixture = EffectMixture.of_widths(widths).learned(every_effect, every_error, rounds=_LEARNING_ROUNDS)
    return mixture.sampled_counts(
        every_effect,
        every_error,
        rng,
        above=above,
        among=among[tested["site"].to_numpy(dtype=np.int64)],
        unit_error=weights.unit_error,
        sweeps=_SWEEPS,
    )


def count_functional(weights: SiteWeights, found: FoundSets, rng: Generator) -> Count:
    """Count the sites with an effect of any kind: additive ones, members of sets found, and of sets missed."""
    members = np.zeros(len(weights.table), dtype=bool)
    members[[site for each in found.sets for site in each]] = True
    members[list(found.lone)] = True
    others = sample_additive(weights, rng, among=~members)[:, 0]
    missed = sample_missed_sets(weights, found, rng, size=_SWEEPS)
    return Count.of_samples(rng.choice(others, _SWEEPS) + int(members.sum()) + missed[:, 1])


def count_sets(weights: SiteWeights, found: FoundSets, rng: Generator) -> Count:
    """Count the sets, those included that the enumeration is likely to have missed."""
    return Count.of_samples(len(found.sets) + sample_missed_sets(weights, found, rng, size=_SWEEPS)[:, 0])


def sample_missed_sets(weights: SiteWeights, found: FoundSets, rng: Generator, *, size: int) -> NDArray[np.int64]:
    """Return samples of how many sets were missed, and how many sites without effects they hold; shape (size, 2).

    Enumeration finds a set with at most one additive member. If additive sites are in sets as often as other sites,
    the number with more of them follows from the number found.
    """
    sets = found.sets
    tested = weights.table[weights.table["tested"]]
    if not sets or not len(tested):
        return np.zeros((size, 2), dtype=np.int64)
    share = float(tested["probability"].mean())
    sizes = np.array([len(each) for each in sets])
    seen = np.asarray(stats.binom.cdf(1, sizes, share), dtype=np.float64)
    odds = float(np.sum((1 - seen) / seen))
    number = rng.poisson(odds * rng.gamma(len(sets), 1 / len(sets), size))
    mates = rng.choice(sizes, size) - 2
    return np.column_stack([number, number * np.maximum(mates, 0)]).astype(np.int64)
