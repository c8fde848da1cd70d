"""The figure of a comparison."""

from __future__ import annotations

import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports.comparison import ComparedSubmission, comparison_table
from knockem_dagster.reports.comparison_figure import comparison_figure
from knockem_dagster.reports.figure_files import to_print_png, to_svg
from knockem_dagster.reports.figure_style import PAPER, WIDTH_INCHES

NAN = math.nan
METHOD = "mark-recapture, interpolated jackknife (Burnham-Overton 1979)"
QUANTITIES = ("functional sites", "additive sites", "sites with effect > 0.1", "epistatic sites", "epistatic sets")


def figure_of(*estimates: list[tuple[str, float, float, float]], organism: str = "explicit") -> Figure:
    """Draw submissions "0", "1" ... with estimates (quantity, value, low, high), told apart by their seed."""
    columns = [column.name for column in TABLES["estimates"].columns]
    submissions = [
        ComparedSubmission(
            id=f"{index:08}-and-more",
            state="completed",
            organism=organism.format(index),
            organism_digest="sha256:1",
            genome_digest="0" * 64,
            num_sites=1_000,
            settings={"seed": str(index)},
            estimates=pd.DataFrame([(*row, "", NAN if math.isnan(row[2]) else 0.95, METHOD, 9) for row in rows])
            .reindex(columns=range(8))
            .set_axis(columns, axis=1),
        )
        for index, rows in enumerate(estimates)
    ]
    return comparison_figure(comparison_table(submissions))


def points(axes: Axes, *, is_open: bool) -> set[tuple[float, float]]:
    """Return the points drawn in one panel, (value, height)."""
    lines = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    fills = [line for line in lines if (line.get_markerfacecolor() == PAPER) is is_open]
    return {(float(x), float(y)) for line in fills for x, y in zip(*line.get_data(), strict=True)}


def bars(axes: Axes) -> set[tuple[float, float, float]]:
    """Return the intervals drawn in one panel, (low, high, height)."""
    segments = [segment for drawn in axes.collections for segment in drawn.get_segments()]  # type: ignore[attr-defined]
    return {(float(low), float(high), float(y)) for (low, y), (high, _) in segments}


def test_points_and_bars_are_the_estimates_and_intervals() -> None:
    figure = figure_of(
        [("additive sites", 52, 44, 61)], [("additive sites", 40, NAN, NAN)], [("additive sites", 30, 31, 35)]
    )
    (axes,) = figure.axes
    assert points(axes, is_open=False) == {(52, 0), (30, 2)}
    assert points(axes, is_open=True) == {(40, 1)}
    assert bars(axes) == {(44, 61, 0), (31, 35, 2)}
    low, high = axes.get_ylim()
    assert low > high, "the first submission is on top"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "estimate, 95% interval",
        "estimate without interval",
    ]


def test_a_panel_per_quantity_titled_with_its_unit() -> None:
    rows = [(quantity, 5.0, 4.0, 6.0) for quantity in (*QUANTITIES, "mean effect of additive sites")]
    titles = [axes.get_xlabel() for axes in figure_of(rows, rows).axes]
    assert [title.replace("\n", " ") for title in titles] == [
        f"{quantity.capitalize()} (count)" for quantity in QUANTITIES[:4]
    ]
    (effect,) = figure_of(rows[-1:], rows[-1:]).axes
    assert re.fullmatch(r"Mean effect of additive\s+sites\s+\(detection thresholds\)", effect.get_xlabel())


def test_above_each_panel_stands_the_method_that_gave_its_points() -> None:
    both = [("additive sites", 52.0, 44.0, 61.0), ("epistatic sets", 3.0, 2.0, 4.0)]
    figure = figure_of(both, both[:1])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.replace("-\n", "-").replace("\n", " ") for title in titles] == [METHOD, METHOD]


def test_what_a_submission_lacks_is_written_where_its_point_would_be() -> None:
    figure = figure_of(
        [("additive sites", 5, 4, 6), ("functional sites", 9, 8, 11)], [("additive sites", NAN, NAN, NAN)]
    )
    functional, additive = figure.axes
    for axes, told in ((functional, "not estimated"), (additive, "no value")):
        (text,) = axes.texts
        assert (text.get_text(), text.get_position()[1]) == (told, 1)


def test_submissions_are_named_by_id_and_what_sets_them_apart_while_they_are_few() -> None:
    row = [("additive sites", 5.0, 4.0, 6.0)]
    few, many = figure_of(row, row).axes[0], figure_of(*[row] * 12).axes[0]
    assert [label.get_text() for label in few.get_yticklabels()] == ["00000000\nseed 0", "00000001\nseed 1"]
    assert many.get_yticklabels()[11].get_text() == "00000011"


def test_nothing_to_draw_is_said() -> None:
    nothing = [("additive sites", NAN, NAN, NAN)]
    (axes,) = figure_of(nothing, nothing).axes
    assert [text.get_text() for text in axes.texts] == ["No submission has a value to draw."]
    assert to_print_png(axes.get_figure())  # type: ignore[arg-type]


@pytest.mark.parametrize("submissions", [2, 3, 10, 25])
@pytest.mark.parametrize("panels", [1, 2, 3, 4])
def test_no_text_leaves_the_figure_or_covers_another(submissions: int, panels: int) -> None:
    rows = [(quantity, 1234.0 * (1 + rank), 900.0, 19_000.0) for rank, quantity in enumerate(QUANTITIES[:panels])]
    figure = figure_of(*[rows] * submissions, organism="laboratory/an-evolved-organism-{}")
    figure.draw_without_rendering()
    page = figure.bbox
    texts: list[Text] = []
    for axes in figure.axes:
        if axes.axison:
            texts.append(axes._left_title)  # type: ignore[attr-defined]
            for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, sorted(axes.get_ylim()))):
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                texts += [axis.label, *(tick.label1 for tick in ticks if tick.label1.get_visible())]
    boxes = np.array([text.get_window_extent().extents for text in texts if text.get_text()])
    assert boxes[:, :2].min() >= page.x0 - 1
    assert boxes[:, 2].max() <= page.x1 + 1
    assert boxes[:, 3].max() <= page.y1 + 1
    for index, box in enumerate(boxes):
        others = boxes[index + 1 :]
        apart = (
            (others[:, 0] >= box[2]) | (others[:, 2] <= box[0]) | (others[:, 1] >= box[3]) | (others[:, 3] <= box[1])
        )
        assert apart.all(), texts[index].get_text()


def test_dollar_signs_are_no_formula() -> None:
    row = [("additive sites", 5.0, 4.0, 6.0)]
    root = ElementTree.fromstring(to_svg(figure_of(row, row, organism="$a_{}$")))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert any("$a_0$" in (text or "") for text in texts)


def test_the_png_is_for_print() -> None:
    row = [("additive sites", 5.0, 4.0, 6.0)]
    with Image.open(io.BytesIO(to_print_png(figure_of(row, row)))) as picture:
        assert picture.width == pytest.approx(600 * WIDTH_INCHES, abs=1)
