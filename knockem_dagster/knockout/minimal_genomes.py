"""How many sites a minimal genome of this organism has, and what all deletions together cost it, from skeletons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeletons
from knockem_dagster.knockout.score_model import Effect


@dataclass(frozen=True, slots=True)
class PredictedRange:
    """A mean, and the range in which one more lies with probability `level`; the range is missing where n < 2."""

    value: float
    low: float
    high: float
    level: float


def size_of_skeletons(found: PrefixSkeletons) -> PredictedRange:
    """Return how many sites a skeleton keeps on average, and the range of those that were made.

    Orders are drawn alike, so that one more skeleton is as likely the smallest or the largest as any: of n, it lies in
    their range with probability (n - 1) / (n + 1) at least (Wilks 1941). All is missing where no skeleton was made.
    """
    sizes = found.kept.sum(axis=1)
    if sizes.size < 2:
        return PredictedRange(float(sizes[0]) if sizes.size else math.nan, math.nan, math.nan, math.nan)
    level = (sizes.size - 1) / (sizes.size + 1)
    return PredictedRange(float(sizes.mean()), float(sizes.min()), float(sizes.max()), level)


def effect_of_deletions(found: PrefixSkeletons) -> Effect | None:
    """Return the mean over skeletons of the effect of all their deletions together (thresholds).

    The interval is the mean of their intervals, which have the unit's error in common: it holds the truth at least as
    often. None where no effect was measured, as without noise, or where one is beyond the scale of scores.
    """
    measured = [each.residual for each in found.skeletons if each.residual.n]
    if not measured or not all(math.isfinite(each.value) for each in measured):
        return None
    low, value, high = np.mean([(each.low, each.value, each.high) for each in measured], axis=0).tolist()
    return Effect(value, low, high, sum(each.n for each in measured))
