"""Where in an order of sites does a knockout of everything so far first matter? A posterior over that boundary.

Knocking out a prefix of the order matters from some site on, if monotone. Every answer about a prefix says on which
side of it the boundary lies: with certainty, or by a likelihood ratio (Burnashev and Zigangirov 1974; Karp and
Kleinberg 2007). The next prefix to ask about is the one whose probability of holding the boundary is 1/2.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_SMALLEST_WEIGHT = 1e-200


class Boundary:
    """The probability of each site to be the first critical one, given `chances` of each to be critical at all.

    Positions are zero-based; the position after the last means that no site is. A prefix of length j holds the
    boundary when its position is below j.
    """

    def __init__(self, chances: NDArray[np.float64]) -> None:
        passing = np.concatenate([[1.0], np.cumprod(1 - chances)])
        self._weights = np.maximum(passing * np.append(chances, 1.0), _SMALLEST_WEIGHT)
        self._normalize()

    @property
    def none(self) -> int:
        """Return the position that means that no site is critical."""
        return self._weights.size - 1

    @property
    def best(self) -> int:
        """Return the most probable position."""
        return int(self._weights.argmax())

    @property
    def best_site(self) -> int:
        """Return the most probable position of a site."""
        return int(self._weights[:-1].argmax())

    @property
    def is_certain(self) -> bool:
        """Tell whether only one position is left possible."""
        return int(np.count_nonzero(self._weights)) == 1

    def probability(self, position: int) -> float:
        """Return the probability of this position."""
        return float(self._weights[position])

    def probability_before(self, position: int) -> float:
        """Return the probability that the boundary lies before this position."""
        return float(self._weights[:position].sum())

    def passing(self, overlooked: float) -> int:
        """Return the length of the longest prefix that holds the boundary with at most this probability."""
        before = np.cumsum(self._weights)[:-1]
        return int(np.searchsorted(before, overlooked, side="right"))

    def probes(self, width: int) -> list[int]:
        """Return up to `width` prefix lengths, ascending, that cut the probability into equal parts.

        Each separates possible positions; there is none when one position is certain.
        """
        possible = np.flatnonzero(self._weights)
        shortest, longest = int(possible[0]) + 1, int(possible[-1])
        if longest < shortest:
            return []
        within = np.cumsum(self._weights)[:-1]
        shares = np.arange(1, width + 1) / (width + 1)
        nearest = [int(np.abs(within - share).argmin()) + 1 for share in shares]
        return sorted({min(max(length, shortest), longest) for length in nearest})

    def update(self, length: int, evidence: float) -> None:
        """Take the log likelihood ratio that the prefix of this length holds the boundary; infinite when certain."""
        if evidence >= 0:
            self._weights[length:] *= math.exp(-evidence)
        else:
            self._weights[:length] *= math.exp(evidence)
        self._normalize()

    def rule_out(self, position: int) -> bool:
        """Take that the boundary is not at this position; False when no other was possible."""
        self._weights[position] = 0.0
        if not self._weights.any():
            return False
        self._normalize()
        return True

    def _normalize(self) -> None:
        self._weights /= self._weights.sum()
