"""The line below which a share of values is, whatever their sizes: linear quantile regression."""

from __future__ import annotations

import numpy as np

from knockem_dagster.joblogs.sizing.history import Floats

_SAME = 1e-12
"""Of the largest: sizes, and values, that differ by less are taken to be equal."""


def quantile_line(sizes: Floats, values: Floats, share: float) -> tuple[float, float]:
    """Return intercept and slope of a line in the sizes, both arrays of shape (n,), that has the least loss.

    The loss is that of Koenker and Bassett, "Regression Quantiles" (Econometrica 46, 1978). Some best line is through
    two of the points, so that the descent of Wesolowsky, "A new descent algorithm for the least absolute value
    regression problem" (Communications in Statistics B 10, 1981), finds one: turn the line about a point on it to where
    the loss is least, go on from the point met there, and end when this is of no use about any point on the line. At
    least two sizes differ.
    """
    x_scale, y_scale = float(np.abs(sizes).max()) or 1.0, float(np.abs(values).max()) or 1.0
    x, y = sizes / x_scale, values / y_scale
    pivots = [int(np.argsort(y, kind="stable")[min(int(share * y.size), y.size - 1)])]
    best, intercept, slope = np.inf, 0.0, 0.0
    while pivots:
        pivot = pivots.pop()
        turned, met = _turned(x, y, pivot, share)
        above = (y - y[pivot]) - turned * (x - x[pivot])
        loss = float(np.sum(np.maximum(share * above, (share - 1) * above)))
        if loss < best - _SAME:
            best, slope, intercept = loss, turned, float(y[pivot] - turned * x[pivot])
            pivots = [*np.flatnonzero(np.abs(above) <= _SAME).tolist(), met]
    return intercept * y_scale, slope * y_scale / x_scale


def _turned(x: Floats, y: Floats, pivot: int, share: float) -> tuple[float, int]:
    """Return the slope of the best line through a point, and another point that it is through.

    Turned from straight down to straight up, a line loses less at first, by `falling`, and with each point that it
    passes the less the further away that is.
    """
    right, up = x - x[pivot], y - y[pivot]
    others = np.flatnonzero(np.abs(right) > _SAME)
    slopes, away = up[others] / right[others], np.abs(right[others])
    order = np.argsort(slopes, kind="stable")
    falling = float(np.sum(np.where(right[others] > 0, share, 1 - share) * away))
    met = order[min(int(np.searchsorted(np.cumsum(away[order]), falling)), order.size - 1)]
    return float(slopes[met]), int(others[met])
