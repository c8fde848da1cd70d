"""The first screen of a report: what was found, and what was lost, in plain sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from knockem_dagster.reports.inputs import LossFacts, Quantity, ReportInputs, SubmissionFacts
from knockem_dagster.reports.wording import counted, duration, listed, number, share

NO_INTERVAL = "no interval: the method gives none"
_MOST_SITES_NAMED = 12

_WEIGHED = "weighing"
"""Methods of this name speak first."""

_MEANING = {
    Quantity.FUNCTIONAL_SITES: "of {sites} are functional: additive, epistatic or both.",
    Quantity.ADDITIVE_SITES: "of {sites} are additive: each has a small effect of its own.",
    Quantity.SITES_ABOVE_RESOLUTION: "of {sites} have an effect of more than {resolution} detection thresholds.",
    Quantity.ADDITIVE_SITES_NAMED: "additive sites are named one by one, beyond reasonable doubt.",
    Quantity.EPISTATIC_SETS: "redundant sets: their members matter only together.",
    Quantity.EPISTATIC_SITES: "of {sites} are epistatic: members of redundant sets, which matter together.",
    Quantity.MEAN_EFFECT: "detection thresholds: the mean effect of an additive site.",
    Quantity.DETECTED_ALONE: "of {sites} are detected when knocked out alone.",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """One estimate as a sentence that starts with its value, and the evidence behind it."""

    value: str
    sentence: str
    interval: str
    evidence: str
    truth: str


@dataclass(frozen=True, slots=True)
class Losses:
    """What was lost: one sentence that says it all, then what it consists of and what it costs."""

    any: bool
    verdict: str
    details: tuple[str, ...]


def interval_text(low: float, high: float) -> str:
    """Return an interval as text, empty when an end is missing."""
    return f"{number(low)} to {number(high)}" if math.isfinite(low) and math.isfinite(high) else ""


def coverage_text(level: float) -> str:
    """Return the nominal coverage of an interval as text, empty when it is missing."""
    return f"{100 * level:.3g}%" if math.isfinite(level) else ""


def headlines(estimates: pd.DataFrame, submission: SubmissionFacts) -> list[Headline]:
    """Return one headline per quantity in the order of `Quantity`, from estimates with their `truth` column.

    Where several methods estimate one quantity, the first that gave a value speaks, weighing before the published ones;
    the table shows all.
    """
    spoken: list[Headline] = []
    for quantity in Quantity:
        rows = [row for row in estimates.to_dict("records") if row["quantity"] == quantity.value]
        if not rows:
            continue
        rows.sort(key=lambda row: (math.isnan(float(row["value"])), not str(row["method"]).startswith(_WEIGHED)))
        row = rows[0]
        value, truth = float(row["value"]), float(row["truth"])
        sites = counted(submission.num_sites, "site")
        meaning = _MEANING[quantity].format(sites=sites, resolution=number(submission.resolution))
        ends, coverage = interval_text(float(row["low"]), float(row["high"])), coverage_text(float(row["level"]))
        interval = f"{coverage} interval {ends}".strip() if ends else NO_INTERVAL
        if not math.isfinite(value):
            meaning, interval = f"No estimate of {quantity.value} was possible.", ""
        spoken.append(
            Headline(
                value=number(value),
                sentence=meaning,
                interval=interval,
                evidence=f"n = {counted(int(row['n']), 'competition')}",
                truth=f"truth: {number(truth)}" if math.isfinite(truth) else "",
            )
        )
    return spoken


def limits(inputs: ReportInputs) -> str:
    """Say what the assays did not look for; empty where nothing was weighed."""
    if inputs.table("weights") is None:
        return ""
    resolution = number(inputs.submission.resolution)
    sentences = [
        f"Single effects below {resolution} detection thresholds were not looked for: they are counted, not named."
    ]
    if "setEnumeration" not in inputs.submission.assay_types:
        sentences.append("Redundant sets were not asked for.")
    elif not inputs.sets_complete:
        sentences.append("The budget ended before all redundant sets were searched for: there may be more.")
    else:
        sentences.append(
            "Nor were sets that cost little as a whole. Sets of which several members have effects of their own can be "
            "missed; the interval of functional sites allows for that."
        )
    return " ".join(sentences)


def losses(facts: LossFacts) -> Losses:
    """Say what was lost and what that costs the estimates and the time."""
    missing, untested = facts.untestable + facts.unfinished, len(facts.untested_sites)
    competitions = counted(facts.asked, "competition")
    if not (missing or untested or facts.failed_attempts):
        verdict = f"Nothing: {competitions} asked, all answered at the first try."
        return Losses(any=False, verdict=verdict, details=())
    if missing:
        verdict = f"{missing:,} of {competitions} ({share(missing, facts.asked)}) gave no answer."
    elif untested:
        verdict = f"{counted(untested, 'site')} could not be tested."
    else:
        verdict = f"No answer: all {competitions} were answered, some only at a later try."
    return Losses(any=True, verdict=verdict, details=tuple(_loss_details(facts)))


def _loss_details(facts: LossFacts) -> list[str]:
    details: list[str] = []
    if facts.untestable:
        details.append(
            f"{counted(facts.untestable, 'competition')} stayed untestable after every retry: "
            "replicates were replaced, single sites were not."
        )
    if facts.unfinished:
        details.append(f"{counted(facts.unfinished, 'competition')} never finished: the estimates lack them.")
    if facts.failed_attempts:
        failed, attempts = facts.failed_attempts, sum(facts.attempts.values())
        lost, worked = facts.failed_slot_seconds, facts.slot_seconds
        details.append(
            f"{failed:,} of {counted(attempts, 'attempt')} ({share(failed, attempts)}) failed. They cost "
            f"{share(lost, worked)} of the workers’ time ({duration(lost)} of {duration(worked)})."
        )
    if facts.untested_sites:
        count = len(facts.untested_sites)
        named = listed([str(site) for site in sorted(facts.untested_sites)], _MOST_SITES_NAMED)
        details.append(
            f"{counted(count, 'untested site')} ({named}): any of them may be functional or not, "
            f"so every count of sites may be off by up to {count:,}."
        )
    return details
