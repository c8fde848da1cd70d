"""Competitions that stayed without an answer: what they have in common, and which of them that does not explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from knockem_dagster.knockout.competitions import Untestable
from knockem_dagster.knockout.knockouts import KnockoutSet

_OFTEN = 10


class Losses:
    """Competitions without an answer, and which sites they have in common."""

    def __init__(self, num_sites: int) -> None:
        self.reasons: list[Untestable] = []
        self._knockouts: list[KnockoutSet] = []
        self._num_sites = num_sites

    def add(self, knockout: KnockoutSet, reason: Untestable) -> None:
        """Note a competition without an answer, in which one side or the other lacked these sites."""
        self._knockouts.append(knockout)
        self.reasons.append(reason)

    def culprits(self, took_part: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sites that took part often and in no competition with an answer (`took_part`: in how many)."""
        lost = np.zeros(self._num_sites, dtype=np.int64)
        for knockout in self._knockouts:
            lost[knockout.sites] += 1
        return np.flatnonzero((took_part == 0) & (lost >= _OFTEN))

    def without(self, sites: NDArray[np.int64]) -> list[Untestable]:
        """Return the losses that none of these sites explains."""
        explained = KnockoutSet.of(sites, self._num_sites).mask
        return [reason for lost, reason in zip(self._knockouts, self.reasons, strict=True) if not lost.mask & explained]
