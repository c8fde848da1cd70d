"""How every figure looks: size, palette, axes. Nothing here knows what is drawn.

The two series colours keep a contrast of 3:1 on light and on dark paper and stay apart under the
common colour blindnesses (after Okabe and Ito, 2008). Their greys are close: figures tell series apart by marker too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

PAPER = "#ffffff"
INK = "#27303b"
GRID = "#e3e7ec"
NEUTRAL = "#8b939e"
BLUE = "#2a7fb8"
ORANGE = "#d55e00"

# Figures are drawn at the width they are printed at, one column of a journal: what is in points here is so on paper.
WIDTH_MILLIMETRES = 85.0
WIDTH_INCHES = WIDTH_MILLIMETRES / 25.4
TEXT_POINTS = 7.0
SMALL_TEXT_POINTS = 6.5
SMALLEST_NAMED_MARKER = 2.2

# More points than this are drawn as one picture inside the vector figure, which keeps it light.
MOST_VECTOR_POINTS = 1_500


def new_figure(height_inches: float) -> Figure:
    """Return an empty figure one journal column (85 mm) wide."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), facecolor=PAPER, layout="constrained")


def dress(axes: Axes, *, x_title: str, y_title: str) -> None:
    """Title both axes, units in parentheses, and leave only the ink that carries information."""
    axes.set_facecolor("none")
    axes.set_xlabel(x_title, fontsize=TEXT_POINTS, color=INK)
    axes.set_ylabel(y_title, fontsize=TEXT_POINTS, color=INK)
    axes.tick_params(which="both", labelsize=SMALL_TEXT_POINTS, colors=INK, length=2.3, width=0.55)
    axes.tick_params(which="minor", length=1.4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
        axes.spines[side].set_linewidth(0.55)
    axes.grid(axis="y", color=GRID, linewidth=0.55)
    axes.set_axisbelow(True)


def whole_numbers(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Put ticks at whole numbers only, with thousands separated."""
    for axis in ([axes.xaxis] if x else []) + ([axes.yaxis] if y else []):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def apart() -> list[AbstractPathEffect]:
    """Return the effects that leave paper beside a line: it shows on whatever it crosses, without colour too."""
    return [withStroke(linewidth=2.2, foreground=PAPER)]


def legend_above(figure: Figure, axes: Axes) -> None:
    """Name the series of `axes` in one line above the figure."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=len(labels),
        frameon=False,
        fontsize=SMALL_TEXT_POINTS,
        labelcolor=INK,
        handletextpad=0.4,
        columnspacing=1.2,
        borderpad=0.1,
        markerscale=1.2,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D):  # what is a pale dot in a crowd must be seen where it stands alone
            handle.set_alpha(1)
            handle.set_markersize(max(handle.get_markersize(), SMALLEST_NAMED_MARKER))


def label_line(axes: Axes, *, x: float, text: str) -> None:
    """Write above the frame what the vertical line at `x` marks."""
    axes.text(
        x,
        1.02,
        text,
        transform=axes.get_xaxis_transform(),
        ha="center",
        va="bottom",
        fontsize=SMALL_TEXT_POINTS,
        color=ORANGE,
    )


def floats(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Return a column as floats, missing values as NaN, shape (rows,)."""
    return table[column].to_numpy(dtype=np.float64, na_value=np.nan)


def integers(table: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """Return a column without missing values as integers, shape (rows,)."""
    return table[column].to_numpy(dtype=np.int64)


def flags(table: pd.DataFrame, column: str) -> NDArray[np.bool_]:
    """Return a column without missing values as booleans, shape (rows,)."""
    return table[column].to_numpy(dtype=np.bool_)


def spread(points: int, width: float) -> NDArray[np.float64]:
    """Return offsets within +-width/2 that keep equal points apart, the same at every call, shape (points,)."""
    golden = (5**0.5 - 1) / 2
    return ((np.arange(points, dtype=np.float64) * golden) % 1 - 0.5) * width


def has_values(values: Sequence[float] | NDArray[np.float64]) -> bool:
    """Tell whether any value is a finite number."""
    return bool(np.isfinite(np.asarray(values, dtype=np.float64)).any())
