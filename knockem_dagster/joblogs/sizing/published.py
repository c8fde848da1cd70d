"""Published ways to size a job from those before it, to compare with. None of them knows of censored peaks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from knockem_dagster.joblogs.sizing.history import History
from knockem_dagster.joblogs.sizing.quantile_line import quantile_line
from knockem_dagster.joblogs.sizing.rule import Rule, cost

WITT_SHARES = (0.5, 0.75, 0.9, 0.95, 0.99)


def percentile(history: History, share: float = 0.95) -> Rule:
    """Give each job what this share of those before it needed at most; the common practice."""
    return Rule(float(np.quantile(history.peaks, share)))


def tovar(history: History) -> Rule:
    """Give what would have wasted least, had those that needed more been given the largest peak at once.

    The first allocation of Tovar et al., "A Job Sizing Strategy for High-Throughput Scientific Workflows" (2018, IEEE
    Transactions on Parallel and Distributed Systems 29).
    """
    order = np.argsort(history.peaks, kind="stable")
    peaks, seconds = history.peaks[order], history.runtimes[order]
    largest = peaks[-1]
    # Wasted is what was given in all but the peaks, which are the same for every choice.
    first, fails = peaks * seconds.sum(), seconds.sum() - np.cumsum(seconds)
    best = float(peaks[np.argmin(first + largest * fails)])
    return Rule(best, growth=float(largest / best) if largest > best else 2.0)


def witt(history: History) -> Rule:
    """Give what the line in the size of the inputs tells that would have wasted least, of several quantiles' lines.

    The low-wastage regression of Witt, van Santen and Leser, "Learning Low-Wastage Memory Allocations for Scientific
    Workflows at IceCube" (HPCS 2019).
    """
    otherwise = percentile(history)
    known = history.of(~np.isnan(history.sizes))
    if len(known) < 2 or np.ptp(known.sizes) == 0:
        return otherwise
    least = float(known.peaks.min())
    lines = [quantile_line(known.sizes, known.peaks, share) for share in WITT_SHARES]
    rules = [Rule(base, factor, least=least, otherwise=otherwise.base) for base, factor in lines]
    return min(rules, key=lambda rule: cost(rule, known).wasted_gb_hours)


PUBLISHED: dict[str, Callable[[History], Rule]] = {"percentile": percentile, "tovar": tovar, "witt": witt}
