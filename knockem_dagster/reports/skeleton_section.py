"""What a report says of skeletons by prefix search: how small they are, at which resolution, what is lost with them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from knockem_dagster.reports.figure_style import flags, floats, integers
from knockem_dagster.reports.inputs import ReportInputs
from knockem_dagster.reports.section import Section
from knockem_dagster.reports.skeleton_figures import skeletons_with_residuals
from knockem_dagster.reports.wording import counted, number, share

TITLE = "Skeletons by prefix search"


def prefix_skeleton_section(inputs: ReportInputs) -> Section | None:
    """Explain what the skeletons are made of, and tell resolution and residual effect of each."""
    table, summary = inputs.table("prefix_skeletons"), inputs.table("prefix_skeleton_summary")
    if table is None or summary is None:
        return None
    skeletons, sizes = counted(len(summary), "skeleton"), integers(summary, "kept")
    sentences = [
        "A skeleton is a minimal genome: what is left when no further site can be deleted at a cost above the "
        "resolution, on top of all deletions before.",
        f"{skeletons}, each in an order of its own, kept {number(round(float(sizes.mean()), 1))} sites on average "
        f"({sizes.min():,} to {sizes.max():,}).",
        *_on_sites(table, len(summary), inputs.submission.num_sites),
        *_on_resolution(summary),
        *_on_residuals(summary),
    ]
    untested = int(integers(summary, "untested").sum())
    if untested:
        sentences.append(f"{counted(untested, 'deletion')} could not be tested, and the sites stayed.")
    return Section(
        name="prefix-skeletons",
        title=TITLE,
        explanation=" ".join(sentences),
        figure=skeletons_with_residuals(table, summary),
        description=f"The sites kept by each of {skeletons}, and the effect of all other sites' deletion together.",
    )


def _on_sites(table: pd.DataFrame, skeletons: int, num_sites: int) -> list[str]:
    times = np.unique(integers(table[flags(table, "kept")], "site"), return_counts=True)[1]
    always, never = int((times == skeletons).sum()), num_sites - times.size
    return [
        f"{counted(always, 'site')} stayed in every one; {counted(never, 'site')} ({share(never, num_sites)}) in none.",
        "A site that only some skeletons kept can be replaced by others.",
    ]


def _on_resolution(summary: pd.DataFrame) -> list[str]:
    if not integers(summary, "n").any():
        return ["This organism answers without noise: its resolution is one detection threshold."]
    resolution = floats(summary, "resolution")
    coarsest = float(resolution.max())
    sentences = [f"Resolution: {number(coarsest)} detection thresholds; smaller single effects were deleted."]
    finer = [
        f"{place} at {number(each)}"
        for place, each in zip(integers(summary, "skeleton").tolist(), resolution.tolist(), strict=True)
        if each < coarsest
    ]
    if finer:
        named = ", ".join(finer)
        sentences.append(f"Where that had lost too much, the search went on at a finer one: skeleton {named}.")
    return sentences


def _on_residuals(summary: pd.DataFrame) -> list[str]:
    measured = summary[integers(summary, "n") > 0]
    if measured.empty:
        return ["All deletions of a skeleton together cost less than that."]
    rows = zip(
        integers(measured, "skeleton").tolist(),
        *(floats(measured, column).tolist() for column in ("residual", "low", "high")),
        strict=True,
    )
    told = [f"{place}: {number(value)} ({_interval(low, high)})" for place, value, low, high in rows]
    competitions = counted(int(integers(measured, "n").max()), "competition")
    return [
        "What all deletions of a skeleton cost together is its residual effect, measured against the wild type by "
        f"{competitions} (detection thresholds, with 95% intervals). By skeleton: {'; '.join(told)}."
    ]


def _interval(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}" if math.isfinite(high) else f"at least {number(low)}"
