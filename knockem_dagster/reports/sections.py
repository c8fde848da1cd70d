"""The figures of a report with their explanations: one function per section, None when its tables are missing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from knockem_dagster.reports import figures
from knockem_dagster.reports.figure_style import flags, floats, integers
from knockem_dagster.reports.inputs import NullFacts, ReportInputs
from knockem_dagster.reports.section import Section
from knockem_dagster.reports.site_marks import found_marks
from knockem_dagster.reports.skeleton_section import prefix_skeleton_section
from knockem_dagster.reports.wording import counted, listed, number, share

# A p value below this makes the report doubt that both sides of a competition are treated alike.
_DOUBTFUL_P = 0.01
_MOST_SITES_NAMED = 12
_MOST_SETS_NAMED = 40


def site_section(inputs: ReportInputs) -> Section | None:
    """Explain what is known about each site."""
    table = inputs.table("sites")
    if table is None:
        return None
    weighed = inputs.table("weights") is not None
    second = "how likely it has one at all" if weighed else "the share of skeletons that kept it"
    sentences = [
        "What the competitions say about each site: the effect of knocking it out alone "
        f"(the dashed line is one detection threshold) and {second}."
    ]
    beneficial = integers(table[floats(table, "effect") <= -1.0], "site")
    if beneficial.size:
        named = listed([str(site) for site in beneficial], _MOST_SITES_NAMED)
        sentences.append(
            f"Better without: the genome gained from the loss of {counted(int(beneficial.size), 'site')} ({named}), "
            "a beneficial effect of at least one threshold, drawn below zero."
        )
    if inputs.null is not None and inputs.null.sd == 0 and not weighed:
        sentences.append("This organism answers without noise and hides what is below one threshold: 0 means below 1.")
    if inputs.truth is not None:
        sentences.append("This organism tells its truth, and the markers show it. The estimates never see it.")
    elif found_marks(table) is not None:
        sentences.append("Markers show what was found; of all other sites nothing can be said at this resolution.")
    return Section(
        name="sites",
        title="Evidence by site",
        explanation=" ".join(sentences),
        figure=figures.site_evidence(table, inputs.truth, weighed=weighed),
        description=f"Along the genome, each site’s effect alone and {second}.",
    )


def set_section(inputs: ReportInputs) -> Section | None:
    """List the redundant sets, and what losing each costs."""
    table = inputs.table("sets")
    if table is None:
        return None
    groups = [integers(group, "site").tolist() for _, group in table.groupby("set")]
    sets = [group for group in groups if len(group) > 1]
    lone = [str(group[0]) for group in groups if len(group) == 1]
    sentences = [
        f"{counted(len(sets), 'redundant set')}: each is lost as a whole and by no member less, all else intact."
    ]
    if lone:
        sentences.append(
            f"{counted(len(lone), 'more site')} ({listed(lone, _MOST_SITES_NAMED)}) cost something where others were "
            "lost already, without a mate being found: a small effect of its own, or a set not resolved."
        )
    named = [f"{number}: {', '.join(map(str, group))}" for number, group in enumerate(groups) if len(group) > 1]
    if named:
        sentences.append(
            f"Sites by set: {'; '.join(named[:_MOST_SETS_NAMED])}{'; ...' if len(named) > _MOST_SETS_NAMED else '.'}"
        )
    return Section(
        name="sets",
        title="Redundant sets",
        explanation=" ".join(sentences),
        figure=figures.set_penalties(table),
        description=f"What losing each of {counted(len(groups), 'set')} costs, in detection thresholds.",
    )


def dose_section(inputs: ReportInputs) -> Section | None:
    """Explain how detection rises with the number of sites knocked out."""
    calibration, titration = inputs.table("calibration"), inputs.table("titration")
    if calibration is None and titration is None:
        return None
    sentences = ["Random sites were knocked out together; the more of them, the more often the loss is detected."]
    if calibration is not None:
        sentences.append(
            f"Calibration: {counted(len(calibration), 'knockout')} over the whole range of doses, "
            "each a tick at the top where it was detected, at the bottom where not."
        )
    if titration is not None:
        levels = np.unique(integers(titration, "dose")).size
        sentences.append(
            f"Titration: {counted(len(titration), 'knockout')} at {counted(levels, 'dose')}; "
            "circles are the detected fraction with its 95% Wilson interval."
        )
    if inputs.dose_fit is not None and inputs.dose_fit.has_curve:
        sentences.append(
            "The dashed curve is the negative binomial fit: a knocked-out site is additive with probability "
            f"{number(inputs.dose_fit.p)}, and {number(inputs.dose_fit.r)} of those together are detected."
        )
    return Section(
        name="dose",
        title="Dose response",
        explanation=" ".join(sentences),
        figure=figures.dose_response(calibration=calibration, titration=titration, fit=inputs.dose_fit),
        description="Share of knockouts detected against the number of sites knocked out.",
    )


def skeleton_section(inputs: ReportInputs) -> Section | None:
    """Explain what the skeletons are made of."""
    table = inputs.table("skeletons")
    if table is None:
        return None
    sizes = table.groupby("skeleton")["kept"].sum().to_numpy(dtype=np.int64)
    times = np.unique(integers(table[flags(table, "kept")], "site"), return_counts=True)[1]
    always, never = int((times == sizes.size).sum()), inputs.submission.num_sites - times.size
    skeletons = counted(int(sizes.size), "skeleton")
    sentences = [
        "A skeleton is what is left when no further site can be knocked out without a detectable loss.",
        f"{skeletons}, each found in an order of its own, kept "
        f"{number(round(float(sizes.mean()), 1))} sites on average ({sizes.min():,} to {sizes.max():,}).",
        f"{counted(always, 'site')} stayed in every skeleton; {counted(never, 'site')} "
        f"({share(never, inputs.submission.num_sites)}) stayed in none and are not drawn.",
        "A site that only some skeletons kept can be replaced by others.",
    ]
    return Section(
        name="skeletons",
        title="Skeletons",
        explanation=" ".join(sentences),
        figure=figures.skeleton_composition(table),
        description=f"Above, the sites kept by each of {skeletons}; below, how many sites were kept how often.",
    )


def jackknife_section(inputs: ReportInputs) -> Section | None:
    """Explain how sites that others can replace are told from those that nothing replaces."""
    skeletons, jackknife = inputs.table("skeletons"), inputs.table("jackknife")
    if skeletons is None or jackknife is None:
        return None
    sentences = [
        "Every site that a skeleton kept was knocked out on top of it.",
        "A site that some skeletons did without (right) and whose loss is severe all the same (high) "
        "is a member of a redundant set: elsewhere another member had taken its part.",
        "Points are spread sideways by at most a quarter of a skeleton so that equal ones show.",
    ]
    return Section(
        name="jackknife",
        title="Redundancy",
        explanation=" ".join(sentences),
        figure=figures.jackknife_severity(
            skeletons=skeletons, jackknife=jackknife, null=inputs.null, truth=inputs.truth
        ),
        description="Mean severity of the loss of each site against the share of skeletons that did without it.",
    )


def null_section(inputs: ReportInputs) -> Section | None:
    """Explain where detection starts."""
    table = inputs.table("null_distribution")
    if table is None:
        return None
    competitions = counted(_tested(table), "competition")
    sentences = [
        f"The wild type competed against itself in {competitions}.",
        "The score is the background’s fraction minus the challenger’s, per update; "
        "without a knockout it varies around zero by chance alone.",
        *([] if inputs.null is None else _null_sentences(inputs.null)),
    ]
    return Section(
        name="null",
        title="Null distribution",
        explanation=" ".join(sentences),
        figure=figures.null_distribution(table, inputs.null),
        description=f"Scores of {competitions} of the wild type against itself, with the detection threshold.",
    )


def _null_sentences(null: NullFacts) -> list[str]:
    sentences = [f"A knockout counts as detected from a score of {number(null.threshold)} per update (solid line)."]
    if null.unit > 0:
        sentences.append(
            f"Effects are given in units of {number(null.unit)} per update above the mean: one detection threshold."
        )
    if null.sd == 0:
        return [*sentences, "All scores are equal: this organism answers exactly, so there is no noise to measure."]
    sentences.append(
        f"Mean {number(null.mean)}, standard deviation {number(null.sd)} per update; "
        "the dashed curve is the normal law with both."
    )
    if math.isfinite(null.symmetry_p):
        verdict = (
            "One side seems to be favoured: find out why before trusting the estimates"
            if null.symmetry_p < _DOUBTFUL_P
            else "Neither side is favoured"
        )
        sentences.append(f"{verdict} (symmetry check, p = {number(null.symmetry_p)}).")
    return sentences


def _tested(table: pd.DataFrame) -> int:
    return int(np.isfinite(floats(table, "score")).sum())


_SECTIONS: tuple[Callable[[ReportInputs], Section | None], ...] = (
    site_section,
    set_section,
    prefix_skeleton_section,
    dose_section,
    skeleton_section,
    jackknife_section,
    null_section,
)


def sections(inputs: ReportInputs) -> list[Section]:
    """Return the sections that the tables allow, in reading order."""
    return [section for build in _SECTIONS if (section := build(inputs)) is not None]
