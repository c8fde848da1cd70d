"""How many sites are functional at all: skeletons as trapping occasions, kept sites as animals caught.

The jackknife of Burnham and Overton (Ecology 60:927, 1979) for populations whose members are not equally easy to
catch, for any number of occasions t and any order up to t. Its order-k estimate is the generalized jackknife
(1/k!) sum_j (-1)^j C(k,j) (t-j)^k E[S_(t-j)], where S_(t-j) is the number of animals seen in t-j occasions; an
animal caught i times is missed by a random t-j of them with probability C(j,i) / C(t,i).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True, slots=True)
class PopulationEstimate:
    """A number of animals (here: sites) with its interval; `order` is the highest jackknife order in it."""

    value: float
    low: float
    high: float
    order: int


@dataclass(frozen=True, slots=True)
class MarkRecapture:
    """Both estimates of Burnham and Overton: at the selected order, and interpolated below it."""

    selected: PopulationEstimate
    interpolated: PopulationEstimate


def estimate_population(captures: Sequence[int] | NDArray[np.int64], *, alpha: float = 0.05) -> MarkRecapture:
    """Estimate how many animals there are, caught or not, with intervals of level 1 - alpha.

    `captures[i]` is the number of animals caught exactly i + 1 times, its length the number of occasions. Orders rise
    from 1 while the next one differs significantly at `alpha`; the interpolated estimate lies between the last two by
    their p values. Intervals do not reach below the number of animals seen.
    Raises ValueError for no occasion or a negative number.
    """
    frequencies = np.asarray(captures, dtype=np.float64)
    if frequencies.size == 0 or frequencies.min() < 0:
        raise ValueError("captures must be one non-negative number for each of at least one occasion")
    occasions = frequencies.size
    order, p_value, previous_p_value = 1, _p_value_of_next(frequencies, 1), math.nan
    while p_value <= alpha and order < occasions:
        order += 1
        previous_p_value, p_value = p_value, _p_value_of_next(frequencies, order)
    coefficients = jackknife_coefficients(order, occasions)
    selected = _estimate(frequencies, coefficients, order=order, alpha=alpha)
    if order == 1:
        return MarkRecapture(selected, selected)
    weight = (alpha - previous_p_value) / (p_value - previous_p_value)
    between = (1 - weight) * jackknife_coefficients(order - 1, occasions) + weight * coefficients
    return MarkRecapture(selected, _estimate(frequencies, between, order=order, alpha=alpha))


@lru_cache(maxsize=4096)
def jackknife_coefficients(order: int, occasions: int) -> NDArray[np.float64]:
    """Return the exact weights of animals caught 1, 2, ... `occasions` times in the jackknife of this order.

    Shape (occasions,). Raises ValueError for an order outside 0 .. occasions.
    """
    if not 0 <= order <= occasions:
        raise ValueError(f"the jackknife of {occasions} occasions has orders 0 to {occasions}, not {order}")
    terms = [
        Fraction((-1) ** left_out * math.comb(order, left_out) * (occasions - left_out) ** order)
        for left_out in range(order + 1)
    ]
    weights = [
        1
        - sum(
            (
                terms[left_out] * Fraction(math.comb(left_out, times), math.comb(occasions, times))
                for left_out in range(times, order + 1)
            ),
            Fraction(0),
        )
        / math.factorial(order)
        for times in range(1, occasions + 1)
    ]
    coefficients = np.array([float(weight) for weight in weights])
    coefficients.flags.writeable = False
    return coefficients


def _p_value_of_next(frequencies: NDArray[np.float64], order: int) -> float:
    """Return the p value that the next order differs by chance; 1 where there is no next order or no animal."""
    occasions, seen = frequencies.size, float(frequencies.sum())
    if order >= occasions or seen == 0:
        return 1.0
    steps = jackknife_coefficients(order + 1, occasions) - jackknife_coefficients(order, occasions)
    difference = float(steps @ frequencies)
    if difference == 0 or seen == 1:
        return 1.0
    # As sum f (b - mean b)^2, which cannot turn negative: all animals alike leave no chance in the difference.
    variance = seen / (seen - 1) * float(np.square(steps - difference / seen) @ frequencies)
    if variance == 0:
        return 0.0
    return float(2 * stats.norm.sf(abs(difference) / math.sqrt(variance)))


def _estimate(
    frequencies: NDArray[np.float64], coefficients: NDArray[np.float64], *, order: int, alpha: float
) -> PopulationEstimate:
    value = float(coefficients @ frequencies)
    variance = max(0.0, float(np.square(coefficients) @ frequencies) - value)
    reach = float(stats.norm.isf(alpha / 2)) * math.sqrt(variance)
    return PopulationEstimate(value, max(value - reach, min(value, float(frequencies.sum()))), value + reach, order)
