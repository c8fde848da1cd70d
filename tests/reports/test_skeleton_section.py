"""What a report tells of skeletons by prefix search: each one's sites, resolution and residual effect."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeleton, PrefixSkeletons
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.knockout.score_model import Effect
from knockem_dagster.reports.figure_files import to_svg
from knockem_dagster.reports.inputs import ReportInputs
from knockem_dagster.reports.page import report_page
from knockem_dagster.reports.sections import sections
from knockem_dagster.reports.skeleton_figures import skeletons_with_residuals
from knockem_dagster.reports.skeleton_section import TITLE, prefix_skeleton_section
from tests.reports import synthetic

MEASURED = [Effect(1.5, 1.0, 2.2, 20), Effect(2.5, 1.75, 3.5, 40), Effect(3.0, 2.25, math.inf, 20)]
RESOLUTIONS = [0.4, 0.4, 0.2]


def made(
    residuals: list[Effect], resolutions: list[float], *, num_sites: int = 100, share: float = 0.1, untested: int = 0
) -> PrefixSkeletons:
    """Return skeletons that keep every site in turn with this share, the first one always."""
    rng = np.random.default_rng(1)

    def skeleton(residual: Effect, resolution: float) -> PrefixSkeleton:
        kept, tested = rng.random(num_sites) < share, np.ones(num_sites, dtype=bool)
        kept[0] = True
        tested[:untested], kept[:untested] = False, True
        deleted = KnockoutSet.of(np.flatnonzero(~kept), num_sites)
        return PrefixSkeleton(rng.permutation(num_sites), deleted, kept, tested, 300, 0, resolution, residual)

    return PrefixSkeletons(tuple(map(skeleton, residuals, resolutions)), num_sites, len(residuals))


def inputs(found: PrefixSkeletons) -> ReportInputs:
    given = synthetic.inputs(num_sites=found.num_sites)
    tables = {"prefix_skeletons": found.table, "prefix_skeleton_summary": found.summary}
    return replace(given, tables={**given.tables, **tables})


def explanation(found: PrefixSkeletons) -> str:
    section = prefix_skeleton_section(inputs(found))
    assert section is not None
    return section.explanation


def test_the_section_tells_size_resolution_and_residual_of_each_skeleton() -> None:
    found = made(MEASURED, RESOLUTIONS)
    text, sizes = explanation(found), found.kept.sum(axis=1)
    assert f"({sizes.min()} to {sizes.max()})" in text
    assert "Resolution: 0.4 detection thresholds" in text
    assert "at a finer one: skeleton 2 at 0.2" in text
    assert "0: 1.5 (1 to 2.2); 1: 2.5 (1.75 to 3.5); 2: 3 (at least 2.25)" in text
    assert "neutral" not in text


def test_without_noise_it_tells_the_threshold_instead() -> None:
    text = explanation(made([Effect.below(1.0)] * 2, [1.0, 1.0]))
    assert "without noise: its resolution is one detection threshold" in text
    assert "cost less than that" in text
    assert "By skeleton" not in text


def test_sites_that_could_not_be_tested_are_told() -> None:
    assert "2 deletions could not be tested" in explanation(made(MEASURED[:1], [0.4], untested=2))


def test_a_report_has_the_section_where_prefix_search_ran_and_not_elsewhere() -> None:
    with_skeletons = inputs(made(MEASURED, RESOLUTIONS))
    assert TITLE in [each.title for each in sections(with_skeletons)]
    assert TITLE in report_page(with_skeletons)
    others = {name: table for name, table in with_skeletons.tables.items() if not name.startswith("prefix")}
    assert TITLE not in [each.title for each in sections(replace(with_skeletons, tables=others))]
    assert prefix_skeleton_section(inputs(made([], []))) is None


def test_the_figure_draws_a_row_for_each_skeleton_and_its_interval() -> None:
    found = made(MEASURED, RESOLUTIONS)
    figure = skeletons_with_residuals(found.table, found.summary)
    left, right = figure.axes
    [bars] = left.lines
    assert np.array_equal(np.unique(np.asarray(bars.get_ydata())), [0, 1, 2])
    assert len(np.asarray(bars.get_xdata())) == found.kept.sum()
    [threshold, points] = right.lines
    assert list(threshold.get_xdata()) == [1.0, 1.0]
    assert np.asarray(points.get_xdata()).tolist() == [1.5, 2.5, 3.0]
    [intervals] = right.collections
    assert len(intervals.get_segments()) == 2
    assert "(detection thresholds)" in right.get_xlabel()
    assert "(site)" in left.get_xlabel()


def test_the_figure_without_residuals_has_one_panel_and_without_skeletons_is_empty() -> None:
    exact, none = made([Effect.below(1.0)], [1.0]), made([], [])
    assert len(skeletons_with_residuals(exact.table, exact.summary).axes) == 1
    assert len(skeletons_with_residuals(none.table, none.summary).axes) == 1


@pytest.mark.parametrize("number", [1, 20, 50])
def test_the_figure_stays_light_at_ten_thousand_sites(number: int) -> None:
    found = made([Effect(1.5, 1.0, 2.2, 20)] * number, [0.4] * number, num_sites=10_000, share=0.05)
    figure = skeletons_with_residuals(found.table, found.summary)
    assert len(to_svg(figure)) < 500_000
    assert figure.get_figheight() < 5
