"""How many sites matter, from what weighing and the enumeration of sets found, with intervals.

Effects far below their standard error cannot be told from none, so the total number of additive sites depends on what
such effects are taken to be like; it is counted under three priors. The number of sites above a limit of a few standard
errors does not depend on that. Sets can be missed when several members have effects of their own: how many were is
inferred from how often a site has one, and from the sets that were found.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.site_weights import SURE, SiteWeights
from knockem_dagster.knockout.estimators.effect_mixture import EffectMixture
from knockem_dagster.knockout.score_model import Effect

LEVEL = 0.95
EVEN_WIDTHS = (0.33, 0.45, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0)
"""Slabs that spread effects evenly from zero to at least a third of a threshold."""
SMALL_WIDTHS = (0.1, 0.2, *EVEN_WIDTHS)
"""The same, with room for a heap of small effects."""
_BLIND, _CROWDING = 3.0, 3
"""Effects below so many standard errors may be so many times as crowded as larger ones let expect."""
_USUAL_SIZE = 4
"""Sites of a set, where none was found."""
_LARGEST_SHARE = 0.9
_SWEEPS = 1000
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

    def spanning(self, other: Count) -> Count:
        """Return this count with an interval that holds both."""
        return replace(self, low=min(self.low, other.low), high=max(self.high, other.high))

    def with_untested(self, number: int) -> Count:
        """Return the count with an interval that holds as many more."""
        return replace(self, high=self.high + number)


@dataclass(frozen=True, slots=True)
class AdditiveCounts:
    """The sites with any effect of their own, the same with room for many small effects, and those above each limit.

    The interval of `total` spans all priors: effects spread evenly down to zero, room for many small ones, and small
    ones crowded.
    """

    total: Count
    with_small: Count
    above: tuple[Count, ...]


@dataclass(frozen=True, slots=True)
class FunctionalCounts:
    """The sites with an effect of any kind, its interval spanning all priors, and those above a limit or in a set."""

    total: Count
    above: Count


def count_additive(weights: SiteWeights, rng: Generator, *, above: Sequence[float] = ()) -> AdditiveCounts:
    """Count additive sites, and those with an effect above each limit (thresholds).

    Untested sites are in the intervals, each as one that may count.
    """
    every = np.ones(len(weights.table), dtype=bool)
    even = _sample_additive(weights, rng, EVEN_WIDTHS, among=every, above=above)
    small = _sample_additive(weights, rng, SMALL_WIDTHS, among=every)

    def count(samples: NDArray[np.int64]) -> Count:
        return Count.of_samples(samples).with_untested(weights.num_untested)

    with_small = count(small.total)
    return AdditiveCounts(
        count(even.total).spanning(with_small).spanning(count(even.crowded)),
        with_small,
        tuple(count(samples) for samples in even.above.T),
    )


def count_functional(weights: SiteWeights, found: FoundSets, rng: Generator, *, above: float) -> FunctionalCounts:
    """Count the sites with an effect of their own, any or `above` a limit (thresholds), and the members of sets.

    Sets are those found that cost the resolution of the search or more, and sets missed. Untested sites are in the
    intervals.
    """
    costs = found.costs
    members = np.zeros((len(costs), len(weights.table)), dtype=bool)
    for place, sites in enumerate(costs):
        members[place, list(sites)] = True
    anywhere = np.asarray(members.any(axis=0), dtype=bool)
    in_present = _sample_present(costs.values(), found.resolution, rng) @ members
    is_sure = anywhere & (weights.table["probability"].to_numpy() > SURE)
    is_above = weights.table["effect"].abs().to_numpy() > above
    missed = sample_missed_sets(weights, found, rng, size=_SWEEPS)[:, 1]
    untested = int((~weights.table["tested"].to_numpy() & ~anywhere).sum())

    def count(others: NDArray[np.int64], sure: NDArray[np.bool_]) -> Count:
        inside = (in_present | sure).sum(axis=1)
        most = len(weights.table) - untested
        return Count.of_samples(np.minimum(rng.choice(others, _SWEEPS) + inside + missed, most)).with_untested(untested)

    even = _sample_additive(weights, rng, EVEN_WIDTHS, among=~anywhere, above=[above])
    small = _sample_additive(weights, rng, SMALL_WIDTHS, among=~anywhere)
    total = count(even.total, is_sure).spanning(count(small.total, is_sure)).spanning(count(even.crowded, is_sure))
    return FunctionalCounts(total, count(even.above[:, 0], is_sure & is_above))


@dataclass(frozen=True, slots=True)
class _AdditiveSamples:
    """Posterior samples of how many sites have any effect, the same if small effects are crowded, or one above limits.

    The shapes are (samples,), and (samples, limits) for `above`.
    """

    total: NDArray[np.int64]
    crowded: NDArray[np.int64]
    above: NDArray[np.int64]


def _sample_additive(
    weights: SiteWeights,
    rng: Generator,
    widths: Sequence[float],
    *,
    among: NDArray[np.bool_],
    above: Sequence[float] = (),
) -> _AdditiveSamples:
    """Count the sites `among` those of the mask, shape (num_sites,), under the prior of these widths."""
    if weights.is_exact:
        effects = weights.table.loc[weights.table["tested"] & among, "effect"].to_numpy(dtype=np.float64)
        total = np.array([(effects != 0).sum()])
        return _AdditiveSamples(total, total, np.array([[(np.abs(effects) > limit).sum() for limit in above]]))
    tested = weights.tested
    effects, errors = (tested[name].to_numpy(dtype=np.float64) for name in ("effect", "error"))
    prior = EffectMixture.of_widths(widths, upper_halves=True)
    samples = prior.learned(effects, errors, rounds=_LEARNING_ROUNDS).sampled_counts(
        effects,
        errors,
        rng,
        above=above,
        among=among[tested["site"].to_numpy(dtype=np.int64)],
        within=_BLIND * float(np.median(errors)) if errors.size else 0.0,
        unit_error=weights.unit_error,
        sweeps=_SWEEPS,
    )
    crowded = np.minimum(samples[:, 0] + (_CROWDING - 1) * samples[:, 1], int(among[tested["site"]].sum()))
    return _AdditiveSamples(samples[:, 0], crowded, samples[:, 2:])


def count_sets(weights: SiteWeights, found: FoundSets, rng: Generator) -> Count:
    """Count the sets that cost the search's resolution or more, those included that it is likely to have missed."""
    costs = [cost for sites, cost in found.costs.items() if len(sites) > 1]
    present = _sample_present(costs, found.resolution, rng)
    return Count.of_samples(present.sum(axis=1) + sample_missed_sets(weights, found, rng, size=_SWEEPS)[:, 0])


def _sample_present(costs: Collection[Effect], resolution: float, rng: Generator) -> NDArray[np.bool_]:
    """Return samples, shape (samples, sets), of which sets cost the resolution or more; one not measured does."""
    deviates = float(stats.norm.isf((1 - LEVEL) / 2))
    values = np.array([cost.value for cost in costs])
    errors = np.nan_to_num(np.array([cost.high - cost.low for cost in costs]) / (2 * deviates), posinf=0.0)
    return ~(values + errors * rng.standard_normal((_SWEEPS, len(costs))) < resolution)


def sample_missed_sets(weights: SiteWeights, found: FoundSets, rng: Generator, *, size: int) -> NDArray[np.int64]:
    """Return samples of how many sets were missed, and how many sites without effects they hold; shape (size, 2).

    Enumeration finds a set with at most one additive member. If additive sites are in sets as often as other sites,
    the number with more of them follows from the number found.
    """
    sizes = np.array([len(each) for each in found.sets] or [_USUAL_SIZE])
    number = rng.poisson(_missed_for_each_found(weights, sizes) * rng.gamma(len(found.sets) + 0.5, size=size))
    mates = rng.choice(sizes, size) - 2
    return np.column_stack([number, number * np.maximum(mates, 0)]).astype(np.int64)


def share_of_sets_seen(weights: SiteWeights, found: FoundSets) -> float:
    """Return about which share of sets like those found has at most one additive member, so that it is found."""
    sizes = np.array([len(each) for each in found.sets] or [_USUAL_SIZE])
    return 1 / (1 + _missed_for_each_found(weights, sizes))


def _missed_for_each_found(weights: SiteWeights, sizes: NDArray[np.int64]) -> float:
    share = min(_LARGEST_SHARE, float(np.nan_to_num(weights.tested["probability"].mean())))
    seen = np.asarray(stats.binom.cdf(1, sizes, share), dtype=np.float64)
    return float(np.mean((1 - seen) / seen))
