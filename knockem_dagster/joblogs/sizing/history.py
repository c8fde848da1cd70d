"""What is known of a tool's jobs, in the order of their creation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class History:
    """Arrays of one shape (n,), the oldest job first: bytes of inputs (NaN: unknown), peak memory in bytes, seconds.

    `is_censored`: the job was at its own limit; it would have used its peak, or more.
    """

    sizes: Floats
    peaks: Floats
    runtimes: Floats
    is_censored: Bools

    def __len__(self) -> int:
        return self.peaks.size

    def part(self, begin: int, end: int) -> History:
        """Return the jobs from `begin` on and before `end`."""
        there = slice(begin, end)
        return History(self.sizes[there], self.peaks[there], self.runtimes[there], self.is_censored[there])

    def of(self, wanted: Bools) -> History:
        """Return the jobs where `wanted`, shape (n,), is true."""
        return History(self.sizes[wanted], self.peaks[wanted], self.runtimes[wanted], self.is_censored[wanted])
