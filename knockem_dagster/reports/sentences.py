"""What was found, a plain sentence per topic: a number, its interval, and at which resolution it holds.

What was not found, not tested or not asked is told in caveats.py. No sentence says that a site has no effect: of sites
without a finding it says that they are not resolved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from knockem_dagster.knockout.site_findings import SiteFinding
from knockem_dagster.reports.inputs import Quantity, ReportInputs
from knockem_dagster.reports.spoken import Estimate
from knockem_dagster.reports.study_facts import (
    ERROR_RATE,
    NULL_SD,
    POWER,
    SET_RESOLUTION,
    SETS_FOUND,
    SURELY_NAMED,
    StudyFacts,
)
from knockem_dagster.reports.wording import counted, number, plural

Estimates = Mapping[str, Sequence[Estimate]]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that begins with its number; `aside` is the evidence behind it.

    One that `warns` tells what a reader must know before trusting the others.
    """

    number: str
    text: str
    aside: str = ""
    warns: bool = False

    @property
    def plain(self) -> str:
        """The sentence as text."""
        return f"{self.number} {self.text}"


def functional_sentence(inputs: ReportInputs, estimates: Estimates, truth: Mapping[str, float]) -> Sentence | None:
    """Say how many sites have an effect of any kind; of their own, one above the resolution where that is counted."""
    found, above = (
        _first(estimates, quantity) for quantity in (Quantity.FUNCTIONAL_SITES, Quantity.FUNCTIONAL_ABOVE_RESOLUTION)
    )
    told = above or found
    if told is None:
        return None
    sites = counted(inputs.submission.num_sites, "site")
    limit = f" above {number(inputs.submission.resolution)} detection thresholds" if above is not None else ""
    text = (
        f"of {sites} are functional ({told.interval}): they have an effect of their own{limit}, or belong to a "
        "redundant set, or both"
    )
    if above is not None and found is not None and found.value != above.value:
        text += f"; with all smaller effects, {number(found.value)} ({found.ends})"
    return Sentence(number(told.value), f"{text}.", _aside(told, truth))


def additive_sentence(inputs: ReportInputs, estimates: Estimates, truth: Mapping[str, float]) -> Sentence | None:
    """Say how many sites have an effect of their own, under each prior."""
    found = _first(estimates, Quantity.ADDITIVE_SITES)
    if found is None:
        return None
    inner = [found.interval]
    if inputs.table("weights") is not None:
        others = [each for each in estimates[Quantity.ADDITIVE_SITES] if each is not found and each.has_interval]
        inner += [f"{_prior(each)}: {number(each.value)}, {each.ends}" for each in others[:1]]
    sites = counted(inputs.submission.num_sites, "site")
    text = f"of {sites} are additive, each with an effect of its own ({'; '.join(inner)})."
    return Sentence(number(found.value), text, _aside(found, truth))


def named_sentence(inputs: ReportInputs, estimates: Estimates, truth: Mapping[str, float]) -> Sentence | None:
    """Say how many additive sites are named, and how many have an effect above the resolution."""
    named, facts = _first(estimates, Quantity.ADDITIVE_SITES_NAMED), StudyFacts(inputs.table("study"))
    if named is None:
        return None
    words = plural(round(named.value), "additive site is", "additive sites are")
    text = f"{words} named one by one"
    rate = facts.number(ERROR_RATE)
    if rate > 0:
        text += f", at most {number(rate)} of them by mistake in expectation"
    mean = _first(estimates, Quantity.MEAN_EFFECT)
    if mean is not None and named.value > 0:
        text += f" (mean effect {number(mean.value)} detection thresholds)"
    above = _first(estimates, Quantity.SITES_ABOVE_RESOLUTION)
    if above is not None:
        resolution = number(inputs.submission.resolution)
        text += (
            f"; {number(above.value)} sites ({above.interval}) have an effect above {resolution} detection thresholds, "
            "the resolution asked for"
        )
    return Sentence(number(named.value), f"{text}.", _aside(above or named, truth, of=" above the resolution"))


def set_sentence(inputs: ReportInputs, estimates: Estimates, truth: Mapping[str, float]) -> Sentence | None:
    """Say how many redundant sets there are, and how many of them, with which sites, were found."""
    sets, sites = _first(estimates, Quantity.EPISTATIC_SETS), _first(estimates, Quantity.EPISTATIC_SITES)
    facts = StudyFacts(inputs.table("study"))
    found = facts.number(SETS_FOUND)
    members = "" if sites is None or not sites.value else f" with {counted(round(sites.value), 'site')} in all"
    if sets is None and found >= 0:
        words = plural(found, "redundant set", "redundant sets")
        were = plural(found, "was", "were")
        return Sentence(number(found), f"{words}{members} {were} found; how many there are is not told.")
    if sets is None:
        return None if sites is None else _epistatic_sentence(inputs, sites, truth)
    known = f"; {number(found)}{members} {plural(found, 'was', 'were')} found" if found > 0 else ""
    words = plural(sets.value, "redundant set", "redundant sets")
    if SET_RESOLUTION in facts and facts.number(NULL_SD) > 0:
        least = f"{facts.shown(SET_RESOLUTION)} detection thresholds or more"
        words += f" that {plural(sets.value, 'costs', 'cost')} {least}"
    text = f"{words} ({sets.interval}){known}. What a set does is lost only when all its sites are."
    return Sentence(number(sets.value), text, _aside(sets, truth))


def _epistatic_sentence(inputs: ReportInputs, found: Estimate, truth: Mapping[str, float]) -> Sentence:
    sites = counted(inputs.submission.num_sites, "site")
    text = f"of {sites} are epistatic, members of redundant sets that matter together ({found.interval})."
    return Sentence(number(found.value), text, _aside(found, truth))


def alone_sentence(inputs: ReportInputs, estimates: Estimates, truth: Mapping[str, float]) -> Sentence | None:
    """Say how many sites a single knockout shows; of a weighed genome that is known better."""
    found = _first(estimates, Quantity.DETECTED_ALONE)
    if found is None or inputs.table("weights") is not None:
        return None
    sites = counted(inputs.submission.num_sites, "site")
    return Sentence(
        number(found.value), f"of {sites} are detected when knocked out alone ({found.interval}).", _aside(found, truth)
    )


def minimal_sentence(inputs: ReportInputs, estimates: Estimates, truth: Mapping[str, float]) -> Sentence | None:
    """Say how many sites a minimal genome keeps, in which range those made lie, and what all deletions cost."""
    size, cost = (
        _first(estimates, quantity) for quantity in (Quantity.SITES_OF_MINIMAL_GENOME, Quantity.EFFECT_OF_DELETIONS)
    )
    made = inputs.table("prefix_skeleton_summary")
    if size is None or made is None:
        return None
    those = f"{size.ends} in the {len(made):,} that were made" if size.ends else "only one was made"
    sites = counted(inputs.submission.num_sites, "site")
    text = f"of {sites} are left in a minimal genome, on average ({those})"
    if cost is not None:
        text += f"; all other sites together cost {number(cost.value)} detection thresholds ({cost.interval})"
    return Sentence(number(size.value), f"{text}.", _aside(size, truth))


def unresolved_sentence(inputs: ReportInputs) -> Sentence | None:
    """Say of how many tested sites nothing was found, and what could have been overlooked there."""
    sites = inputs.table("sites")
    count = 0 if sites is None else int((sites["finding"] == SiteFinding.NOT_RESOLVED.value).sum())
    if not count:
        return None
    facts = StudyFacts(inputs.table("study"))
    text = f"{plural(count, 'other site is', 'other sites are')} not resolved: {_overlooked(inputs, facts)}."
    return Sentence(f"{count:,}", text)


def _overlooked(inputs: ReportInputs, facts: StudyFacts) -> str:
    surely = facts.number(SURELY_NAMED)
    if surely == 0:
        return "answers without noise show no effect of any of them alone, nor a set that was found to hold one"
    if surely > 0:
        return (
            f"an effect above {number(surely)} detection thresholds would have been named with a probability of "
            f"{facts.shown(POWER)}, a smaller one may have been missed"
        )
    if inputs.table("weights") is not None or inputs.table("screen") is not None:
        return "one knockout shows an effect of about one detection threshold, a smaller one may have been missed"
    return "no skeleton kept them, but others may have stood in for them"


def further_sentences(estimates: Estimates) -> list[Sentence]:
    """Quote estimates of quantities that no other sentence tells."""
    known = {quantity.value for quantity in Quantity}
    spoken = [_first(estimates, quantity) for quantity in estimates if quantity not in known]
    found = [each for each in spoken if each is not None]
    return [
        Sentence(number(each.value), f"is the estimate of “{each.quantity}” ({each.interval}).", _aside(each, {}))
        for each in found
    ]


def _first(estimates: Estimates, quantity: str) -> Estimate | None:
    """Return the estimate to be quoted, or None where it has no value."""
    found = estimates.get(quantity, ())
    return found[0] if found and found[0].has_value else None


def _prior(estimate: Estimate) -> str:
    return f"with {words}" if (words := estimate.method.partition("; ")[2]) else "otherwise"


def _aside(estimate: Estimate, truth: Mapping[str, float], *, of: str = "") -> str:
    true = truth.get(estimate.quantity, math.nan)
    known = f"; truth{of}: {number(true)}" if math.isfinite(true) else ""
    return f"n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{counted(estimate.n, 'competition')}{known}"
