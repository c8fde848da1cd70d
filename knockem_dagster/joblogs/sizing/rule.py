"""A rule that says how much a job is given, by the size of its inputs, and what it costs to follow it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from knockem_dagster.joblogs.sizing.history import Floats, History

BYTE_SECONDS = 3.6e12
"""Of a GB hour (10^9 bytes, 3,600 s)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`base + factor * size ** power`, from `least` to `most`; `otherwise` where the size is unknown or 0.

    Bytes, or seconds.
    `growth`: how many times as much the second try of a job is given, more than 1; each one after it gets double.
    """

    base: float
    factor: float = 0.0
    power: float = 1.0
    least: float = 0.0
    most: float = np.inf
    otherwise: float = 0.0
    growth: float = 2.0

    @property
    def depends_on_size(self) -> bool:
        """Whether it is another for other sizes."""
        return self.factor != 0

    def of(self, sizes: Floats) -> Floats:
        """Return what jobs with inputs of these sizes are given, shape (n,)."""
        if not self.depends_on_size:
            return np.full(sizes.shape, max(self.base, self.least))
        given = np.clip(self.base + self.factor * np.nan_to_num(sizes) ** self.power, self.least, self.most)
        return np.where(sizes > 0, given, self.otherwise)


@dataclass(frozen=True, slots=True)
class Cost:
    """What came of a rule: jobs, GB hours that were allocated and not used, tries that failed, jobs with any."""

    jobs: int
    wasted_gb_hours: float
    failed_tries: int
    failed_jobs: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.jobs + other.jobs,
            self.wasted_gb_hours + other.wasted_gb_hours,
            self.failed_tries + other.failed_tries,
            self.failed_jobs + other.failed_jobs,
        )


NOTHING = Cost(0, 0.0, 0, 0)


def cost(rule: Rule, history: History) -> Cost:
    """Return what it costs to give these jobs memory by a rule: their peaks, shape (n,), are taken for the truth.

    A try that is given less than its peak fails, after the whole runtime of its job, and all it was given is wasted.
    The next ones are given more, as the rule says, until it is enough.
    """
    [found] = costs_of(rule.of(history.sizes)[None], np.array([rule.growth]), history)
    return found


def costs_of(given: Floats, growth: Floats, history: History) -> list[Cost]:
    """Return the same for k rules, of which is known what each gives at first, shape (k, n), and its growth, (k,)."""
    first = np.maximum(given, 1.0)
    peaks, seconds = history.peaks, history.runtimes
    fails = first < peaks
    second = first * growth[:, None]
    doublings = np.where(fails, np.ceil(np.log2(np.maximum(peaks / second, 1.0))), 0.0)
    last = np.where(fails, second * 2**doublings, first)
    lost = np.where(fails, first + second * (2**doublings - 1), 0.0)
    wasted = (lost + last - peaks) @ seconds / BYTE_SECONDS
    tries, failed = np.sum(fails * (1 + doublings), axis=1).astype(int), np.sum(fails, axis=1)
    return [Cost(peaks.size, *each) for each in zip(wasted.tolist(), tries.tolist(), failed.tolist(), strict=True)]
