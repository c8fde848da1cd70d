"""The figure of a comparison: a panel per quantity, a row per submission, estimates with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from knockem_dagster.reports.comparison import SEPARATOR, Outcome
from knockem_dagster.reports.figure_style import (
    BLUE,
    GRID,
    INK,
    PAPER,
    SMALL_TEXT_POINTS,
    dress,
    floats,
    legend_above,
    new_figure,
    whole_numbers,
)
from knockem_dagster.reports.spoken import DECLINED

_MOST_NAMED_SUBMISSIONS = 10
_LABEL_CHARACTERS = 20
_TITLE_CHARACTERS = 24
_METHOD_CHARACTERS, _MOST_METHOD_LINES = 20, 4
_METHOD_LINE_INCHES = 0.11
# Between ticks: more of them, with five digits each, would run into one another.
_MOST_INTERVALS = 3
_COUNTED = {"sites", "sets"}
# Ends are taller than points, so that an interval shows that is narrower than its point.
_POINT_SIZE, _END_SIZE, _LINE_WIDTH = 3.2, 5.4, 0.9


def comparison_figure(table: pd.DataFrame) -> Figure:
    """Draw the rows of a comparison (its table) that are marked as drawn.

    Above each panel stands the method. A filled point has an interval, drawn as a bar; an open one has none. Ids name
    the submissions; where they are at most ten, what sets each apart stands below its id.
    """
    drawn = table[table["drawn"].to_numpy(dtype=np.bool_)]
    quantities = [str(quantity) for quantity in drawn["quantity"].unique()]
    submissions = table.drop_duplicates("submission")
    ids = submissions["submission"].tolist()
    is_named = len(ids) <= _MOST_NAMED_SUBMISSIONS
    columns = min(2, max(1, len(quantities)))
    lines = max(1, -(-len(quantities) // columns))
    titles = _MOST_METHOD_LINES * _METHOD_LINE_INCHES
    figure = new_figure(0.25 + lines * (0.55 + titles + len(ids) * (0.27 if is_named else 0.15)))
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten().tolist()
    for axes, quantity in zip(panels, quantities, strict=False):
        _draw(axes, drawn[drawn["quantity"] == quantity], ids)
    for axes in panels[len(quantities) :]:
        axes.set_axis_off()
    if not quantities:
        panels[0].text(0.5, 0.5, "No submission has a value to draw.", ha="center", color=INK)
        return figure
    labels = [
        _label(id, distinction if is_named else "")
        for id, distinction in zip(ids, submissions["distinction"], strict=True)
    ]
    panels[0].set_yticks(range(len(ids)), labels)
    panels[0].set_ylim(len(ids) - 0.5, -0.5)
    _explain(figure, panels[0], drawn)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, ids: Sequence[str]) -> None:
    """Draw one quantity: the values and intervals of `rows` at the height of their submissions."""
    height = np.array([ids.index(id) for id in rows["submission"]], dtype=np.float64)
    value, low, high = floats(rows, "value"), floats(rows, "low"), floats(rows, "high")
    bounded = _bounded(rows)
    axes.hlines(height[bounded], low[bounded], high[bounded], color=BLUE, linewidth=_LINE_WIDTH)
    for ends in (low, high):
        axes.plot(ends[bounded], height[bounded], "|", color=BLUE, markersize=_END_SIZE, markeredgewidth=_LINE_WIDTH)
    _points(axes, value[bounded], height[bounded], fill=BLUE)
    _points(axes, value[~bounded], height[~bounded], fill=PAPER)
    for at, outcome in zip(height.tolist(), rows["outcome"].tolist(), strict=True):
        if outcome != Outcome.ESTIMATED:
            _say(axes, at, outcome)
    unit = str(rows["unit"].iloc[0])
    quantity = str(rows["quantity"].iloc[0])
    name = textwrap.fill(f"{quantity[:1].upper()}{quantity[1:]}", _TITLE_CHARACTERS)
    shown_unit = "count" if unit in _COUNTED else unit or "unit not known"
    dress(axes, x_title=_plain(f"{name}\n({shown_unit})"), y_title="")
    axes.set_title(_plain(_method(str(rows["method"].iloc[0]))), loc="left", fontsize=SMALL_TEXT_POINTS, color=INK)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID, linewidth=0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.1)
    if unit in _COUNTED:
        whole_numbers(axes, x=True)
    axes.locator_params(axis="x", nbins=_MOST_INTERVALS)


def _method(method: str) -> str:
    """Return the name of a method in a few lines, without why it gave no value to one of the submissions."""
    name = method.partition(DECLINED)[0]
    lines = textwrap.wrap(name, _METHOD_CHARACTERS, max_lines=_MOST_METHOD_LINES, placeholder=" …")
    return "\n".join(lines)


def _points(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], *, fill: str) -> None:
    axes.plot(x, y, "o", color=BLUE, markersize=_POINT_SIZE, markeredgewidth=_LINE_WIDTH, markerfacecolor=fill)


def _say(axes: Axes, height: float, what: str) -> None:
    """Write in a row without a point why there is none."""
    text = axes.text(0.04, height, what, transform=axes.get_yaxis_transform(), va="center", color=INK)
    text.set_fontsize(SMALL_TEXT_POINTS)
    text.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.8})


def _explain(figure: Figure, axes: Axes, drawn: pd.DataFrame) -> None:
    """Say above the figure what filled and open points are, as far as there are any."""
    bounded, valued = _bounded(drawn), np.isfinite(floats(drawn, "value"))
    if bounded.any():
        levels = np.unique(floats(drawn, "level")[bounded])
        name = (
            f"estimate, {100 * levels[0]:.3g}% interval" if levels.size == 1 else "estimate, interval (levels differ)"
        )
        axes.plot([], [], "o-", color=BLUE, markersize=_POINT_SIZE, linewidth=_LINE_WIDTH, label=name)
    if (valued & ~bounded).any():
        _points(axes, np.empty(0), np.empty(0), fill=PAPER)
        axes.lines[-1].set_label("estimate without interval")
    legend_above(figure, axes)


def _bounded(rows: pd.DataFrame) -> NDArray[np.bool_]:
    return np.isfinite(floats(rows, "low")) & np.isfinite(floats(rows, "high"))


def _label(id: str, distinction: str) -> str:
    """Return an id's beginning, and in a second line as many of the distinctions as there is room for."""
    first, *others = distinction.split(SEPARATOR)
    line = first if len(first) <= _LABEL_CHARACTERS else f"{first[: _LABEL_CHARACTERS - 1]}…"
    for each in others:
        if len(line) + len(SEPARATOR) + len(each) > _LABEL_CHARACTERS:
            break
        line += SEPARATOR + each
    return f"{id[:8]}\n{_plain(line)}" if line else id[:8]


def _plain(text: str) -> str:
    """Return a text that matplotlib shows as it is: a pair of dollar signs would be taken for a formula."""
    return text.replace("$", r"\$")
