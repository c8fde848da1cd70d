"""The figure of skeletons by prefix search: which sites each kept, and what its deletions cost together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockem_dagster.reports.figure_style import (
    BLUE,
    INK,
    MOST_VECTOR_POINTS,
    ORANGE,
    PAPER,
    dress,
    flags,
    floats,
    has_values,
    integers,
    new_figure,
    whole_numbers,
)

_MOST_INCHES = 4.5


def skeletons_with_residuals(table: pd.DataFrame, summary: pd.DataFrame | None = None) -> Figure:
    """Draw a row for each skeleton: the sites it kept along the genome, and its residual effect with its interval.

    The tables are `prefix_skeletons` and `prefix_skeleton_summary`. Residuals (detection thresholds) that were not
    measured have no panel.
    """
    kept = table[flags(table, "kept")]
    number = len(np.unique(integers(table, "skeleton")))
    figure = new_figure(min(_MOST_INCHES, 1.3 + 0.13 * number))
    if summary is None or not has_values(floats(summary, "residual")):
        _draw_sites(figure.add_subplot(), kept, number)
        return figure
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.5, 1))
    _draw_sites(left, kept, number)
    _draw_residuals(right, summary)
    return figure


def _draw_sites(axes: Axes, kept: pd.DataFrame, number: int) -> None:
    axes.plot(
        integers(kept, "site"),
        integers(kept, "skeleton"),
        "|",
        color=BLUE,
        markersize=max(2.0, min(6.0, 90.0 / max(number, 1))),
        markeredgewidth=0.6,
        rasterized=len(kept) > MOST_VECTOR_POINTS,
    )
    dress(axes, x_title="Position in the genome (site)", y_title="Skeleton (number, from 0)")
    axes.set_ylim(max(number, 1) - 0.4, -0.6)
    whole_numbers(axes, x=True, y=True)
    axes.locator_params(axis="x", nbins=4)
    axes.margins(x=0.03)


def _draw_residuals(axes: Axes, summary: pd.DataFrame) -> None:
    place, value = integers(summary, "skeleton"), floats(summary, "residual")
    low, high = floats(summary, "low"), floats(summary, "high")
    drawn, closed = np.isfinite(value), np.isfinite(low) & np.isfinite(high)
    axes.axvline(1.0, color=ORANGE, linewidth=0.9, linestyle=(0, (5, 2)), zorder=1)
    axes.hlines(place[closed], low[closed], high[closed], color=INK, linewidth=0.8)
    axes.plot(
        value[drawn],
        place[drawn],
        "o",
        color=BLUE,
        markerfacecolor=PAPER,
        markersize=3.4,
        markeredgewidth=0.9,
    )
    dress(axes, x_title="Residual effect\n(detection thresholds)", y_title="")
    axes.locator_params(axis="x", nbins=4)
    axes.margins(x=0.08)
