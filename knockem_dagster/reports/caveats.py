"""What stands between a reader and the findings: intervals that are not given, what was not tested, what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from knockem_dagster.knockout.site_findings import SiteFinding
from knockem_dagster.reports.inputs import LossFacts, Quantity, ReportInputs
from knockem_dagster.reports.sentences import Sentence
from knockem_dagster.reports.spoken import Estimate
from knockem_dagster.reports.study_facts import BUDGET, SET_RESOLUTION, StudyFacts
from knockem_dagster.reports.wording import counted, duration, enumerated, listed, plural, share

_MOST_SITES_NAMED = 12
_WEIGHING, _SETS = "weighing", "setEnumeration"


def declined_sentence(estimates: Mapping[str, Sequence[Estimate]]) -> Sentence | None:
    """Say of which quantities no number or no interval is given, and why; None where all are."""
    quantities: dict[str, list[str]] = {}
    for quantity, found in estimates.items():
        reason = _reason(found[0])
        if reason:
            quantities.setdefault(reason, []).append(quantity)
    if not quantities:
        return None
    declined = [found[0] for found in estimates.values() if _reason(found[0])]
    what = "interval is" if all(each.has_value for each in declined) else "estimate and no interval is"
    told = [f"{enumerated(names)}: {reason}" for reason, names in quantities.items()]
    return Sentence("No", f"{what} given for {'; nor for '.join(told)}.", warns=True)


def _reason(estimate: Estimate) -> str:
    """Return why there is no number or interval. A mean effect of no site is missing without a reason."""
    if estimate.has_value or estimate.quantity == Quantity.MEAN_EFFECT:
        return estimate.reason
    return estimate.reason or "the method found none"


def untested_sentence(inputs: ReportInputs) -> Sentence | None:
    """Say which sites were not tested and what was not looked for; None where no assay tests any site."""
    facts, sites = inputs.losses, sorted(inputs.losses.untested_sites)
    missing = _not_looked_for(inputs)
    if not sites and not missing:
        return None
    table = inputs.table("sites")
    if not sites and table is not None and (table["finding"] == SiteFinding.NOT_TESTED).all():
        told = f"{plural(len(table), 'site was', 'sites were')} not tested, for no assay that was asked for tests any"
        return Sentence(f"{len(table):,}", f"{'; '.join([told, *missing])}.", warns=not inputs.sets_complete)
    were = plural(len(sites), "site", "sites")
    text = f"{were} could not be tested" if sites else f"{were} were left untested"
    if sites:
        named = listed([str(site) for site in sites], _MOST_SITES_NAMED)
        text += f" ({named}): any may be functional or not, "
        is_weighed = inputs.table("weights") is not None
        text += "which intervals allow for" if is_weighed else f"so counts may be off by up to {len(sites):,}"
    if missing:
        text += f"; {'; '.join(missing)}"
    return Sentence(f"{len(facts.untested_sites):,}", f"{text}.", warns=bool(sites) or not inputs.sets_complete)


def _not_looked_for(inputs: ReportInputs) -> list[str]:
    asked, facts = inputs.submission.assay_types, StudyFacts(inputs.table("study"))
    if inputs.table("sites") is None:
        return []
    if inputs.table("weights") is None:
        return [f"effects below one threshold were not looked for site by site: ask for {_WEIGHING}"]
    if _SETS not in asked:
        return [f"redundant sets were not looked for: ask for {_SETS}"]
    missing: list[str] = []
    if not inputs.sets_complete:
        budget = facts.number(BUDGET)
        of = f" of {counted(int(budget), 'competition')}" if budget > 0 else ""
        missing.append(f"the budget{of} ended before all redundant sets were searched for, so there may be more")
    if SET_RESOLUTION in facts:
        missing.append(
            f"sets that cost less than {facts.shown(SET_RESOLUTION)} detection thresholds were not looked for"
        )
    missing.append(
        "sets of which several members have effects of their own can be missed, which the intervals allow for"
    )
    return missing


def cost_sentence(facts: LossFacts, by_assay: Mapping[str, int]) -> Sentence:
    """Say what the study took, and how much of that was lost."""
    missing, failed = facts.untestable + facts.unfinished, facts.failed_attempts
    text = f"{plural(facts.asked, 'competition was', 'competitions were')} asked for{_largest_part(facts, by_assay)}"
    if not missing and not failed:
        return Sentence(f"{facts.asked:,}", f"{text}, and all were answered at the first attempt.")
    if missing:
        text += f"; {missing:,} ({share(missing, facts.asked)}) gave no answer"
    else:
        text += ", and all were answered"
    if failed:
        attempts = sum(facts.attempts.values())
        text += (
            f"; {failed:,} of {counted(attempts, 'attempt')} ({share(failed, attempts)}) failed, "
            f"at {share(facts.failed_slot_seconds, facts.slot_seconds)} of the workers’ time"
        )
    return Sentence(f"{facts.asked:,}", f"{text}.", warns=True)


def _largest_part(facts: LossFacts, by_assay: Mapping[str, int]) -> str:
    if not facts.asked or not by_assay:
        return ""
    assay, most = max(by_assay.items(), key=lambda each: each[1])
    return f", {most:,} of them by {assay}" if 0 < most < facts.asked else ""


def loss_details(facts: LossFacts) -> list[str]:
    """Say what became of competitions and attempts that failed, a sentence each."""
    details: list[str] = []
    if facts.untestable:
        details.append(
            f"{counted(facts.untestable, 'competition')} stayed untestable after every retry: "
            "replicates were replaced, single sites were not."
        )
    if facts.unfinished:
        details.append(f"{counted(facts.unfinished, 'competition')} never finished: the estimates lack them.")
    details.append(
        f"All attempts together occupied workers for {duration(facts.slot_seconds)}; "
        f"{duration(facts.failed_slot_seconds)} of it brought no result."
    )
    return details
