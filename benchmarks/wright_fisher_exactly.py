"""The distribution of a Wright-Fisher competition's outcome without sampling: what thresholds and power really are."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from benchmarks.reference_organism import INDIVIDUALS, SELECTION_PER_EFFECT, UPDATES


def survivors(effect: float) -> NDArray[np.float64]:
    """Return the probability of each number of survivors of the background, shape (individuals + 1,)."""
    number = np.arange(INDIVIDUALS + 1)
    rivals = (INDIVIDUALS - number) * math.exp(-SELECTION_PER_EFFECT * effect)
    share = number / (number + rivals)
    transition = stats.binom.pmf(number[None, :], INDIVIDUALS, share[:, None])
    state = np.zeros(INDIVIDUALS + 1)
    state[INDIVIDUALS // 2] = 1.0
    for _ in range(UPDATES):
        state = state @ transition
    return state


@cache
def effect_of_one_threshold(level: float = 0.01) -> float:
    """Return the effect (simulator's unit) whose mean score is the one that the null exceeds at this level."""
    difference = 2 * np.arange(INDIVIDUALS + 1) / INDIVIDUALS - 1
    tail = survivors(0.0)[::-1].cumsum()[::-1]
    threshold = float(difference[tail <= level][0])
    return float(optimize.brentq(lambda effect: float(survivors(effect) @ difference) - threshold, 0.1, 3.0, xtol=1e-4))
