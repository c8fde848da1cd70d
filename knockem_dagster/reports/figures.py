"""The figures of a report: tables in, a matplotlib Figure out. How they look is in figure_style.

Every axis is titled with its unit in parentheses. Figures have no title of their own: whoever shows one names it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.reports.figure_style import (
    BLUE,
    INK,
    MOST_VECTOR_POINTS,
    NEUTRAL,
    ORANGE,
    PAPER,
    apart,
    dress,
    flags,
    floats,
    has_values,
    integers,
    label_line,
    legend_above,
    new_figure,
    spread,
    whole_numbers,
)
from knockem_dagster.reports.inputs import NegativeBinomialFit, NullFacts, TruthFacts
from knockem_dagster.reports.site_marks import SiteMarks, found_marks, true_marks
from knockem_dagster.reports.truth import SiteKind

_MOST_BINS = 40
# Up to this many sites can be told apart: they get intervals and large markers.
_MOST_SETS_LABELLED = 24
_MOST_DISTINCT_SITES = 200
_UNDER_LINES = 1.9


def null_distribution(table: pd.DataFrame, null: NullFacts | None = None) -> Figure:
    """Draw the histogram of the scores of wild-type competitions (1/update), and where detection starts."""
    scores = floats(table, "score")
    scores = scores[np.isfinite(scores)]
    figure = new_figure(2.2)
    axes = figure.add_subplot()
    edges = _histogram_edges(scores, null)
    axes.hist(scores, bins=edges.tolist(), color=BLUE, edgecolor=PAPER, linewidth=0.5)
    if null is not None and null.sd > 0:
        positions = np.linspace(min(edges[0], null.mean - 3 * null.sd), max(edges[-1], null.mean + 3 * null.sd), 200)
        expected = stats.norm.pdf(positions, null.mean, null.sd) * scores.size * (edges[1] - edges[0])
        axes.plot(positions, expected, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    if null is not None and np.isfinite(null.threshold):
        axes.axvline(null.threshold, color=ORANGE, linewidth=1.2, path_effects=apart())
        label_line(axes, x=null.threshold, text=f"detected from {null.threshold:.3g}")
    dress(axes, x_title="Score without a knockout (1/update)", y_title="Competitions (count)")
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=6)
    whole_numbers(axes, y=True)
    return figure


def _histogram_edges(scores: NDArray[np.float64], null: NullFacts | None) -> NDArray[np.float64]:
    if scores.size == 0:
        return np.array([-0.5, 0.5])
    if np.ptp(scores) == 0:
        reach = abs(null.threshold) if null is not None and np.isfinite(null.threshold) and null.threshold else 1.0
        return scores[0] + np.array([-0.03, 0.03]) * reach
    edges = np.histogram_bin_edges(scores, bins="auto")
    return edges if edges.size <= _MOST_BINS + 1 else np.histogram_bin_edges(scores, bins=_MOST_BINS)


def dose_response(
    *,
    calibration: pd.DataFrame | None = None,
    titration: pd.DataFrame | None = None,
    fit: NegativeBinomialFit | None = None,
) -> Figure:
    """Draw the fraction of knockouts detected against their dose (sites).

    Calibration knockouts are ticks above (detected) and below (not). Titration doses are points with
    their 95% Wilson interval. Knockouts that could not be tested are left out.
    """
    figure = new_figure(2.5)
    axes = figure.add_subplot()
    doses: list[NDArray[np.int64]] = []
    if calibration is not None:
        tested = calibration[np.isfinite(floats(calibration, "score"))]
        dose, detected = integers(tested, "dose"), flags(tested, "detected")
        doses.append(dose)
        heights = np.where(detected, 1.07, -0.07)
        axes.plot(dose, heights, "|", color=NEUTRAL, markersize=4.5, markeredgewidth=0.6, label="single knockout")
    if titration is not None:
        tested = titration[np.isfinite(floats(titration, "score"))]
        dose, fraction, below, above = _detected_fractions(tested)
        doses.append(dose)
        axes.errorbar(
            dose,
            fraction,
            yerr=np.vstack([below, above]),
            fmt="o",
            color=BLUE,
            markerfacecolor=PAPER,
            markersize=3.8,
            markeredgewidth=0.9,
            capsize=2,
            elinewidth=0.9,
            label="detected, 95% interval",
        )
    every = np.concatenate(doses) if doses else np.array([], dtype=np.int64)
    lowest, highest = (max(int(every.min()), 1), int(every.max())) if every.size else (1, 10)
    if fit is not None and fit.has_curve:
        grid = np.unique(np.round(np.geomspace(lowest, highest, 300)))
        expected = np.asarray(stats.nbinom.cdf(grid - fit.r, fit.r, fit.p), dtype=np.float64)
        axes.plot(grid, expected, color=ORANGE, linewidth=1.2, linestyle=(0, (5, 2)), label="fit")
    axes.set_xscale("log")
    axes.set_xlim(lowest / 1.15, highest * 1.15)
    axes.set_ylim(-0.13, 1.13)
    dress(axes, x_title="Dose (sites knocked out, log scale)", y_title="Knockouts detected (%)")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    if axes.get_legend_handles_labels()[1]:
        legend_above(figure, axes)
    return figure


def _detected_fractions(
    tested: pd.DataFrame,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    dose, detected = integers(tested, "dose"), flags(tested, "detected")
    levels = np.unique(dose)
    hits = np.array([int(detected[dose == level].sum()) for level in levels])
    tries = np.array([int((dose == level).sum()) for level in levels])
    intervals = [
        stats.binomtest(int(hit), int(number)).proportion_ci(method="wilson")
        for hit, number in zip(hits, tries, strict=True)
    ]
    fraction = hits / np.maximum(tries, 1)
    below = np.array([interval.low for interval in intervals], dtype=np.float64)
    above = np.array([interval.high for interval in intervals], dtype=np.float64)
    # Rounding can put a bound of 0 or 1 on the wrong side of the fraction by 1e-17.
    return levels, fraction, np.maximum(fraction - below, 0), np.maximum(above - fraction, 0)


def skeleton_composition(skeletons: pd.DataFrame) -> Figure:
    """Draw how many sites each skeleton kept, and how often each site was kept."""
    kept = skeletons[flags(skeletons, "kept")]
    names = np.unique(integers(skeletons, "skeleton"))
    sizes = [int((integers(kept, "skeleton") == name).sum()) for name in names]
    times = np.unique(integers(kept, "site"), return_counts=True)[1]
    how_often = np.bincount(times, minlength=names.size + 1)[1:]
    figure = new_figure(3.2)
    upper, lower = figure.subplots(2, 1)
    upper.bar(names, sizes, width=0.7, color=BLUE)
    dress(upper, x_title="Skeleton (number, from 0)", y_title="Sites kept (count)")
    lower.bar(np.arange(1, names.size + 1), how_often, width=0.7, color=NEUTRAL, edgecolor=INK, linewidth=0.5)
    dress(lower, x_title="Times a site was kept (skeletons)", y_title="Sites (count)")
    for axes in (upper, lower):
        whole_numbers(axes, x=True, y=True)
    return figure


def site_evidence(sites: pd.DataFrame, truth: TruthFacts | None = None, *, weighed: bool = False) -> Figure:
    """Draw, along the genome, each site's effect (detection thresholds) and how often skeletons kept it (%).

    Where sites were `weighed`, it is the probability of having an effect instead. A panel whose values are all missing
    is left out. Markers tell what each site truly is, with a truth, or what it was found to be.
    """
    panels = [column for column in ("effect", "probability") if has_values(floats(sites, column))] or ["effect"]
    position = integers(sites, "site")
    marks = true_marks(position, truth) or found_marks(sites)
    figure = new_figure(2.2 if len(panels) == 1 else 3.35)
    drawn = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, column in zip(drawn, panels, strict=True):
        values = floats(sites, column)
        if column == "effect":
            if len(sites) <= _MOST_DISTINCT_SITES and has_values(floats(sites, "low")):
                axes.vlines(position, floats(sites, "low"), floats(sites, "high"), color=NEUTRAL, linewidth=0.5)
            axes.axhline(1.0, color=ORANGE, linewidth=0.9, linestyle=(0, (5, 2)), path_effects=apart())
            dress(axes, x_title="Position in the genome (site)", y_title="Effect alone\n(detection thresholds)")
            axes.margins(y=0.12)
        else:
            values = values * 100
            title = "Probability of\nan effect (%)" if weighed else "Skeletons that\nkept the site (%)"
            dress(axes, x_title="Position in the genome (site)", y_title=title)
            axes.set_ylim(-5, 105)
        _scatter(axes, position.astype(np.float64), values, marks)
        whole_numbers(axes, x=True)
        axes.margins(x=0.02)
    if marks is not None:
        legend_above(figure, drawn[0])
    return figure


def set_penalties(sets: pd.DataFrame) -> Figure:
    """Draw what losing each set costs (detection thresholds) with its interval, from the costliest down."""
    each = sets.drop_duplicates("set").sort_values("penalty", ascending=False, kind="stable")
    penalty, place = floats(each, "penalty"), np.arange(len(each), dtype=np.float64)
    figure = new_figure(2.2)
    axes = figure.subplots()
    axes.vlines(place, floats(each, "low"), floats(each, "high"), color=NEUTRAL, linewidth=0.9)
    axes.plot(place, penalty, marker="s", linestyle="none", markersize=3, color=ORANGE)
    axes.set_xticks(place, [str(number) for number in each["set"]])
    if len(each) > _MOST_SETS_LABELLED:
        axes.set_xticks([])
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    dress(axes, x_title="Redundant set (number)", y_title="Cost of losing the set\n(detection thresholds)")
    return figure


def jackknife_severity(
    *,
    skeletons: pd.DataFrame,
    jackknife: pd.DataFrame,
    null: NullFacts | None = None,
    truth: TruthFacts | None = None,
) -> Figure:
    """Draw, for every site a skeleton kept, how bad its loss is against how often skeletons did without it.

    The severity is the mean score over the skeletons that kept the site: in detection thresholds with a
    null, else in 1/update. Points are spread sideways by at most a quarter of a skeleton so that equal ones show.
    """
    number = np.unique(integers(skeletons, "skeleton")).size
    kept = skeletons[flags(skeletons, "kept")]
    times = kept.groupby("site").size()
    severity = jackknife.dropna(subset=["score"]).groupby("site")["score"].mean()
    table = pd.DataFrame({"times": times, "severity": severity}).dropna().reset_index()
    scores = floats(table, "severity")
    unit = "1/update"
    if null is not None and null.unit > 0:
        scores, unit = (scores - null.mean) / null.unit, "detection thresholds"
    excluded = 100 * (1 - floats(table, "times") / number)
    marks = true_marks(integers(table, "site"), truth)
    figure = new_figure(2.45)
    axes = figure.add_subplot()
    _scatter(axes, excluded + spread(len(table), 50 / number), scores, marks)
    dress(axes, x_title="Skeletons that did without the site (%)", y_title=f"Mean severity of its loss\n({unit})")
    axes.set_xlim(-25 / number - 2, 102)
    if len(table) and scores.min() >= 0:
        axes.set_ylim(bottom=0)
    if marks is not None:
        legend_above(figure, axes)
    return figure


def _scatter(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], marks: SiteMarks | None) -> None:
    rasterized = x.size > MOST_VECTOR_POINTS
    scale = 0.7 if rasterized else 1.3 if x.size <= _MOST_DISTINCT_SITES else 1.0
    if marks is None:
        axes.plot(
            x,
            y,
            "o",
            color=BLUE,
            markersize=2.2 * scale,
            markeredgewidth=0,
            alpha=0.8,
            rasterized=rasterized,
            zorder=_UNDER_LINES,
        )
        return
    for of_kind, marker, size, fill, edge, edge_width in (
        (SiteKind.WITHOUT_EFFECT, "o", 1.7, NEUTRAL, NEUTRAL, 0.0),
        (SiteKind.ADDITIVE, "D", 3.0, BLUE, BLUE, 0.0),
        (SiteKind.EPISTATIC, "^", 4.0, PAPER, ORANGE, 0.8),
    ):
        chosen = marks.of(of_kind)
        axes.plot(
            x[chosen],
            y[chosen],
            marker,
            markersize=size * scale,
            markerfacecolor=fill,
            markeredgecolor=edge,
            markeredgewidth=edge_width,
            # Only the sites without effect are many: a pale cloud of dots. The others stay sharp at any magnification.
            rasterized=rasterized and of_kind is SiteKind.WITHOUT_EFFECT,
            alpha=0.5 if rasterized and of_kind is SiteKind.WITHOUT_EFFECT else 1.0,
            zorder=_UNDER_LINES if of_kind is SiteKind.WITHOUT_EFFECT else 2,
            label=marks.labels[of_kind],
        )
