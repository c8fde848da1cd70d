from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from knockem_dagster.reports import figures
from knockem_dagster.reports.figure_files import to_svg
from knockem_dagster.reports.figure_style import BLUE, NEUTRAL, ORANGE, PAPER
from knockem_dagster.reports.inputs import NegativeBinomialFit, NullFacts, ReportInputs
from tests.reports import synthetic

EXACT = NullFacts(mean=0.0, sd=0.0, threshold=0.25, unit=0.25, symmetry_p=float("nan"))

FIGURES: dict[str, Callable[[ReportInputs], Figure]] = {
    "null distribution": lambda given: figures.null_distribution(given.tables["null_distribution"], given.null),
    "dose response": lambda given: figures.dose_response(
        calibration=given.tables["calibration"], titration=given.tables["titration"], fit=given.dose_fit
    ),
    "calibration only": lambda given: figures.dose_response(calibration=given.tables["calibration"]),
    "titration only": lambda given: figures.dose_response(titration=given.tables["titration"]),
    "skeleton composition": lambda given: figures.skeleton_composition(given.tables["skeletons"]),
    "site evidence": lambda given: figures.site_evidence(given.tables["sites"], given.truth),
    "jackknife severity": lambda given: figures.jackknife_severity(
        skeletons=given.tables["skeletons"], jackknife=given.tables["jackknife"], null=given.null, truth=given.truth
    ),
}


@functools.cache
def given(num_sites: int) -> ReportInputs:
    return synthetic.inputs(num_sites=num_sites)


def axis_titles(figure: Figure) -> list[str]:
    return [title for axes in figure.axes for title in (axes.get_xlabel(), axes.get_ylabel())]


@pytest.mark.parametrize("num_sites", [20, 1_000, 10_000])
@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_is_titled_with_its_unit(name: str, num_sites: int) -> None:
    titles = axis_titles(FIGURES[name](given(num_sites)))
    assert titles
    assert [title for title in titles if not re.fullmatch(r"\S.* ?\n?\([^()]+\)", title, re.DOTALL)] == []


@pytest.mark.parametrize("name", FIGURES)
def test_figures_stay_light_at_ten_thousand_sites(name: str) -> None:
    assert len(to_svg(FIGURES[name](given(10_000)))) < 500_000


def test_threshold_is_in_view_when_all_null_scores_are_equal() -> None:
    table = given(20).tables["null_distribution"].assign(score=0.0)
    axes = figures.null_distribution(table, EXACT).axes[0]
    low, high = axes.get_xlim()
    assert low < 0 < EXACT.threshold < high
    assert axes.get_ylim()[1] >= len(table)


def test_null_scores_that_are_all_missing_give_an_empty_histogram() -> None:
    table = given(20).tables["null_distribution"].assign(score=np.nan)
    assert axis_titles(figures.null_distribution(table, None))[0].startswith("Score")


def doses(hits: int, tries: int, untestable: int) -> pd.DataFrame:
    detected = [True] * hits + [False] * (tries - hits + untestable)
    scores = [0.1] * tries + [np.nan] * untestable
    return pd.DataFrame(
        {"dose": 8, "replicate": range(len(scores)), "knockout": "", "score": scores, "detected": detected}
    )


def test_dose_response_shows_the_wilson_interval_of_tested_knockouts() -> None:
    axes = figures.dose_response(titration=doses(30, 120, untestable=40)).axes[0]
    (container,) = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    (segment,) = container.lines[2][0].get_segments()
    z, n, p = 1.959963985, 120, 0.25
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert container.lines[0].get_ydata() == pytest.approx([p])
    assert segment[:, 1] == pytest.approx([centre - half, centre + half])


@pytest.mark.parametrize(("hits", "tries"), [(0, 10), (10, 10), (1, 1)])
def test_dose_response_draws_unanimous_doses(hits: int, tries: int) -> None:
    assert to_svg(figures.dose_response(titration=doses(hits, tries, untestable=0)))


def test_dose_response_of_nothing_testable_is_empty() -> None:
    untested = doses(0, 0, untestable=12)
    nothing = NegativeBinomialFit(r=float("nan"), p=0.0)
    axes = figures.dose_response(calibration=untested, titration=untested, fit=nothing).axes[0]
    assert "fit" not in axes.get_legend_handles_labels()[1]


def test_skeletons_that_kept_nothing_are_drawn_as_such() -> None:
    skeletons = given(20).tables["skeletons"].assign(kept=False)
    upper, lower = figures.skeleton_composition(skeletons).axes
    assert {bar.get_height() for bar in [*upper.patches, *lower.patches]} == {0}
    jackknife = given(20).tables["jackknife"].head(0)
    assert to_svg(figures.jackknife_severity(skeletons=skeletons, jackknife=jackknife, truth=given(20).truth))


def test_skeleton_composition_counts_kept_sites() -> None:
    table = pd.DataFrame(
        {
            "skeleton": [0, 0, 0, 1, 1, 1],
            "site": [0, 1, 2, 0, 1, 2],
            "kept": [True, True, False, True, False, False],
            "order": [0, 1, 2, 2, 1, 0],
        }
    )
    upper, lower = figures.skeleton_composition(table).axes
    assert [bar.get_height() for bar in upper.patches] == [2, 1]
    assert [bar.get_height() for bar in lower.patches] == [1, 1]


def test_site_evidence_leaves_out_what_was_not_measured() -> None:
    sites = given(1_000).tables["sites"]
    assert len(figures.site_evidence(sites).axes) == 2
    assert len(figures.site_evidence(sites.assign(effect=np.nan)).axes) == 1


def test_severity_is_in_thresholds_with_a_null_and_per_update_without() -> None:
    tables, null = given(1_000).tables, given(1_000).null
    assert null is not None
    drawn = [
        figures.jackknife_severity(skeletons=tables["skeletons"], jackknife=tables["jackknife"], null=each).axes[0]
        for each in (replace(null, mean=0.0), None)
    ]
    thresholds, scores = (np.asarray(axes.lines[0].get_ydata()) for axes in drawn)
    assert thresholds * null.unit == pytest.approx(scores)
    assert "(detection thresholds)" in drawn[0].get_ylabel()
    assert "(1/update)" in drawn[1].get_ylabel()


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("colour", [BLUE, ORANGE, NEUTRAL])
@pytest.mark.parametrize("paper", [PAPER, "#171d24"])
def test_colours_stand_out_on_light_and_dark_paper(colour: str, paper: str) -> None:
    darker, lighter = sorted([luminance(colour), luminance(paper)])
    assert (lighter + 0.05) / (darker + 0.05) >= 3


@pytest.mark.parametrize("num_sites", [20, 1_000, 10_000])
@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_legible_in_a_column_of_85_millimetres(name: str, num_sites: int) -> None:
    svg = to_svg(FIGURES[name](given(num_sites)))
    root = ElementTree.fromstring(svg)
    points = float(root.attrib["width"].removesuffix("pt"))
    assert points / 72 * 25.4 == pytest.approx(85, abs=0.1)
    assert float(root.attrib["viewBox"].split()[2]) == points  # so that a unit within is a point on paper
    texts = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
    assert len(texts) >= len(re.findall("<text ", svg)) > 3
    assert min(texts) >= 6
    assert min(float(width) for width in re.findall(r"stroke-width: ([\d.]+)", svg)) >= 0.5


@pytest.mark.parametrize("name", FIGURES)
def test_named_series_differ_by_more_than_colour(name: str) -> None:
    for axes in FIGURES[name](given(1_000)).axes:
        named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        looks = [(str(line.get_marker()), line.get_linestyle(), line.get_markerfacecolor() == PAPER) for line in named]
        assert len(set(looks)) == len(looks)


def test_threshold_shows_on_the_bars_without_colour() -> None:
    table = given(1_000).tables["null_distribution"]
    axes = figures.null_distribution(table).axes[0]
    tallest = max(axes.patches, key=lambda bar: bar.get_height())
    middle, half = tallest.get_x() + tallest.get_width() / 2, tallest.get_height() / 2
    null = NullFacts(mean=0.0, sd=0.0, threshold=middle, unit=1.0, symmetry_p=float("nan"))
    figure = figures.null_distribution(table, null)
    printed = io.BytesIO()
    figure.savefig(printed, dpi=300)
    with Image.open(printed) as opened:
        grey = np.asarray(opened.convert("L"), dtype=np.float64)
    x, y = figure.axes[0].transData.transform((middle, half)) * 300 / figure.dpi
    across = grey[grey.shape[0] - round(y), round(x) - 7 : round(x) + 8]
    assert across[7] < 130
    assert across[:7].max() > 200
    assert across[8:].max() > 200


def test_kinds_of_sites_differ_by_more_than_colour() -> None:
    axes = figures.site_evidence(given(1_000).tables["sites"], given(1_000).truth).axes[0]
    looks = {str(line.get_label()): (line.get_marker(), line.get_markersize()) for line in axes.lines}
    kinds = [look for label, look in looks.items() if label.startswith("truly")]
    assert len(kinds) == len(set(kinds)) == 3


def test_without_a_truth_markers_tell_what_was_found() -> None:
    sites = synthetic.inputs(num_sites=200).tables["sites"].assign(finding="not resolved")
    assert not figures.site_evidence(sites).legends
    sites.loc[[3, 5], "finding"] = ["additive", "additive, in a set"]
    figure = figures.site_evidence(sites)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "not resolved",
        "found additive",
        "found in a set",
    ]
    drawn = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert (drawn["found additive"], drawn["found in a set"]) == ([3], [5])


@pytest.mark.parametrize("with_truth", [True, False])
def test_no_legend_leaves_its_figure(with_truth: bool) -> None:
    given = synthetic.inputs(num_sites=200, with_truth=with_truth)
    sites = given.tables["sites"].assign(finding="additive")
    drawn = [
        figures.site_evidence(sites, given.truth),
        figures.jackknife_severity(
            skeletons=given.tables["skeletons"], jackknife=given.tables["jackknife"], truth=given.truth
        ),
        figures.dose_response(
            calibration=given.tables["calibration"], titration=given.tables["titration"], fit=given.dose_fit
        ),
    ]
    for figure in drawn:
        figure.draw_without_rendering()
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert figure.bbox.x0 <= box.x0 + 1
            assert box.x1 <= figure.bbox.x1 + 1
