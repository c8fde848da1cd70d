"""Peaks that were cut off by a limit: what they would have been, as far as the others tell.

The logarithm of a peak is taken to be normal about a line in the logarithm of the size, with peaks at a limit known
only to be larger (Tobin 1958, fitted by the EM algorithm of Dempster, Laird and Rubin 1977).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from knockem_dagster.joblogs.sizing.history import Floats, History

_STEPS = 50
_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, less what is whole of them, are spread evenly between 0 and 1, and in no order."""
_LEAST_SPREAD = 0.05
"""Of the logarithm: a history of equal peaks says little of those that were cut off."""


def completed(history: History) -> History:
    """Return the history with each censored peak replaced by one that it may have been; the others are as they were.

    Several censored jobs get evenly spread quantiles of what is beyond their limits, so that together they are
    distributed as such jobs are.
    """
    cut = history.is_censored
    if not cut.any() or cut.all():
        return history
    at_limit = np.log(np.maximum(history.peaks, 1.0))
    design = _design(history.sizes)
    fit = np.linalg.pinv(design)
    known, spread = at_limit.copy(), 1.0
    middle = at_limit
    for _ in range(_STEPS):
        middle = design @ (fit @ known)
        residual = known - middle
        beyond = (at_limit[cut] - middle[cut]) / spread
        hazard = _hazard(beyond)
        unexplained = np.sum(1 + beyond * hazard - hazard**2)  # of what is beyond, in units of spread squared
        total = np.sum(residual**2) + spread**2 * max(float(unexplained), 0.0)
        spread = max(float(np.sqrt(total / len(history))), _LEAST_SPREAD)
        known[cut] = middle[cut] + spread * _hazard(beyond)
    beyond = (at_limit[cut] - middle[cut]) / spread
    shares = np.empty(beyond.size)
    shares[np.argsort(middle[cut], kind="stable")] = (np.arange(beyond.size) * _GOLDEN + 0.5) % 1
    guessed = middle[cut] + spread * -ndtri(ndtr(-beyond) * (1 - shares))
    peaks = history.peaks.copy()
    peaks[cut] = np.maximum(np.exp(np.minimum(guessed, at_limit.max() + np.log(16))), history.peaks[cut])
    return replace(history, peaks=peaks)


def _hazard(beyond: Floats) -> Floats:
    """Return the density of the standard normal distribution there, over what is beyond."""
    return np.exp(-0.5 * beyond**2 - log_ndtr(-beyond)) / np.sqrt(2 * np.pi)


def _design(sizes: Floats) -> Floats:
    """Return what the line is made of, shape (n, 1 to 3): a constant, the size's logarithm, whether it is known."""
    known = ~np.isnan(sizes)
    logs = np.where(known, np.log(np.maximum(np.nan_to_num(sizes), 1.0)), 0.0)
    columns = [np.ones(sizes.size)]
    if known.any() and np.ptp(logs[known]) > 0:
        columns.append(logs)
    if len(columns) > 1 and not known.all():
        columns.append(known.astype(float))
    return np.stack(columns, axis=1)
