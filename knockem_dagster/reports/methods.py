"""The methods paragraph: plain text to copy into a paper, about the assays that ran and no others.

Every number in it is a value of the table `study`, shown as the report shows numbers. A sentence whose facts are not
there is left out.
"""

from __future__ import annotations

from itertools import count, takewhile

from knockem_dagster.reports import study_facts as fact
from knockem_dagster.reports.study_facts import Fact, StudyFacts
from knockem_dagster.reports.wording import enumerated

_NULL, _WEIGHING, _SETS = "nulldist", "weighing", "setEnumeration"
_SCREEN, _CALIBRATION, _TITRATION = "screenCritical", "doseCalibration", "doseTitration"
_SKELETONS, _JACKKNIFE, _PREFIX = "skeletonization", "jackknifeKnockout", "prefixSkeletons"


def methods_paragraph(facts: StudyFacts) -> str:
    """Return the paragraph; empty where the table `study` is not there."""
    if fact.SITES not in facts:
        return ""
    sentences = [
        _material(facts),
        _scores(facts),
        _null(facts),
        _weighing(facts),
        _sets(facts),
        _prefix_skeletons(facts),
        _screen(facts),
        _doses(facts),
        _skeletons(facts),
        _stages(facts),
        _cost(facts),
        _software(facts),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _ran(facts: StudyFacts, assay_type: str) -> bool:
    return fact.asked_by(assay_type) in facts


def _count(facts: StudyFacts, known: Fact, thing: str) -> str:
    return f"{facts.shown(known)} {thing}" if facts.number(known) == 1 else f"{facts.shown(known)} {thing}s"


def _competitions(facts: StudyFacts, assay_type: str) -> str:
    return _count(facts, fact.asked_by(assay_type), "competition")


def _material(facts: StudyFacts) -> str:
    where = "as processes" if facts.text(fact.RUNTIME) == "process" else "in containers"
    return (
        f"A genome of {_count(facts, fact.SITES, 'site')} (SHA-256 {facts.text(fact.GENOME_DIGEST)}) of the organism "
        f"{facts.text(fact.ORGANISM)} (digest {facts.text(fact.IMAGE_DIGEST)}, run {where}) was studied by "
        "competitions between genomes in which sets of sites were knocked out."
    )


def _scores(facts: StudyFacts) -> str:
    return (
        "The score of a competition is the background’s final fraction minus the challenger’s, divided by the updates "
        "elapsed."
    )


def _null(facts: StudyFacts) -> str:
    if fact.NULL_SD not in facts:
        return ""
    told = f"In {_count(facts, fact.NULL_COMPETITIONS, 'competition')} of the wild type with itself "
    if facts.number(fact.NULL_SD) == 0:
        told += "all scores were equal, so answers were taken as free of noise"
    else:
        told += (
            f"the score had a mean of {facts.shown(fact.NULL_MEAN)} and a standard deviation of "
            f"{facts.shown(fact.NULL_SD)} per update (two-sided t test of a zero mean, "
            f"p = {facts.shown(fact.NULL_P)}); a knockout counted as detected from the prediction limit of the next "
            f"score at a nominal one-sided rate of {facts.percent(fact.NULL_LEVEL)}, {facts.shown(fact.THRESHOLD)} per "
            "update"
        )
    if fact.UNIT in facts:
        told += f". Effects are in units of one detection threshold, {facts.shown(fact.UNIT)} per update above the mean"
    return f"{told}."


def _weighing(facts: StudyFacts) -> str:
    if not _ran(facts, _WEIGHING):
        return ""
    told = f"The effect of each site was estimated from {_competitions(facts, _WEIGHING)}"
    if facts.number(fact.NULL_SD) == 0:
        return (
            f"{told} on backgrounds that lacked known sites worth a threshold, where what a group of sites cost was "
            "read off the answer and groups with a cost were halved until each site’s was known."
        )
    told += (
        " between two disjoint random knockouts each (a chemical balance), the first "
        f"{facts.shown(fact.DOSE_TESTS)} of which sought the dose by stochastic approximation; no side lacked more "
        f"than {facts.percent(fact.LARGEST_SHARE)} of the sites. Scores were regressed on membership with a "
        "spike-and-slab mixture prior whose weights were learned from the same data, with a curvature of the link, "
        "a spread that changes with the effect and an offset for each wave fitted beside. "
        f"The smallest effect that was to be found was {facts.shown(fact.RESOLUTION)} detection thresholds; the median "
        f"standard error of a site reached {facts.shown(fact.STANDARD_ERROR)}. A site was named additive when its "
        f"posterior probability of an effect exceeded {facts.shown(fact.SURE)} and its estimate was farther from zero "
        f"than is expected of {facts.shown(fact.ERROR_RATE)} sites without effect in the genome"
    )
    if fact.SURELY_NAMED in facts:
        told += (
            f"; at any other site, an effect above {facts.shown(fact.SURELY_NAMED)} would have been named "
            f"with a probability of {facts.shown(fact.POWER)}"
        )
    return (
        f"{told}. Sites were counted by sampling the posterior; the interval of a total spans three priors of small "
        "effects: spread as evenly as larger ones, with room for many, and crowded near zero."
    )


def _sets(facts: StudyFacts) -> str:
    if not _ran(facts, _SETS):
        return ""
    told = (
        f"Redundant sets were enumerated with {_competitions(facts, _SETS)}: sites without an effect of their own were "
        "deleted in random orders until nothing more could be, each site kept was deleted as well, and the sites whose "
        "return restored the loss were searched for by bisection; additive sites were then deleted on that background "
        "to unmask sets that hold one. A set was claimed only when it was lost as a whole and with no member less"
    )
    if facts.number(fact.NULL_SD) == 0:
        told += ", on independent backgrounds"
    else:
        told += (
            ", by sequential probability ratio tests against a loss of "
            f"{facts.shown(fact.SET_RESOLUTION)} detection thresholds, and what it cost was measured in "
            f"{_count(facts, fact.SET_COMPETITIONS, 'further competition')}"
        )
    if facts.text(fact.SETS_COMPLETE) == "no":
        told += "; the budget ended before the search did"
    return f"{told}. Sets with several additive members can be missed: how many were is inferred from the sets found."


def _prefix_skeletons(facts: StudyFacts) -> str:
    if not _ran(facts, _PREFIX):
        return ""
    told = (
        f"{_count(facts, fact.PREFIX_MADE, 'skeleton')}, what is left of the genome when no further site can be "
        "deleted at a loss, came from random orders by bisecting prefixes of what was left of an order "
        f"({_competitions(facts, _PREFIX)})"
    )
    if fact.PREFIX_RESOLUTION in facts:
        told += (
            ", each deletion being tested against the genome before it at a resolution of "
            f"{facts.shown(fact.PREFIX_RESOLUTION)} detection thresholds, finer where all deletions together cost too "
            "much"
        )
    return f"{told}."


def _screen(facts: StudyFacts) -> str:
    if not _ran(facts, _SCREEN):
        return ""
    return (
        f"Each site was knocked out alone ({_competitions(facts, _SCREEN)}), and the false discovery rate among "
        f"detected sites was controlled at {facts.percent(fact.DISCOVERY_RATE)} by the procedure of Benjamini and "
        "Hochberg."
    )


def _doses(facts: StudyFacts) -> str:
    if not _ran(facts, _CALIBRATION):
        return ""
    told = (
        f"Sites not detected alone were knocked out at random, once at each of {_count(facts, fact.SMEAR, 'dose')} "
        f"({_competitions(facts, _CALIBRATION)})"
    )
    if _ran(facts, _TITRATION):
        told += (
            f" and then {facts.shown(fact.TITRATION_REPLICATES)} times at each of "
            f"{_count(facts, fact.TITRATION_DOSES, 'dose')} ({_competitions(facts, _TITRATION)}); the number of "
            "additive sites and their mean effect follow from a negative binomial fit to the shares detected"
        )
    return f"{told}."


def _skeletons(facts: StudyFacts) -> str:
    if not _ran(facts, _SKELETONS):
        return ""
    told = (
        f"{_count(facts, fact.SKELETONS_MADE, 'skeleton')}, what is left when no further site can be deleted without a "
        f"detectable loss, came from greedy deletion in random orders ({_competitions(facts, _SKELETONS)}); the number "
        "of functional sites was extrapolated from how often sites were kept, by the jackknife estimator of mark and "
        "recapture"
    )
    if _ran(facts, _JACKKNIFE):
        told += (
            f". Each site that a skeleton kept was knocked out on top of it ({_competitions(facts, _JACKKNIFE)}), and "
            "sites that were often left out and costly where kept were taken as epistatic"
        )
    return f"{told}."


def _stages(facts: StudyFacts) -> str:
    earlier = "; then for ".join(takewhile(bool, (facts.text(fact.stage(number)) for number in count(1))))
    if not earlier:
        return ""
    return f"The study was extended, going on with the competitions it had; before, it was asked for {earlier}."


def _cost(facts: StudyFacts) -> str:
    limit = f", at most {facts.shown(fact.BUDGET)} being allowed" if fact.BUDGET in facts else ""
    levels = f" Intervals are at {facts.percent(fact.LEVEL)}." if fact.LEVEL in facts else ""
    return (
        f"Of {_count(facts, fact.ASKED, 'competition')} in all{limit}, {facts.shown(fact.UNTESTABLE)} could not be "
        f"completed, and {_count(facts, fact.UNTESTED, 'site')} remained untested.{levels}"
    )


def _software(facts: StudyFacts) -> str:
    libraries = [
        f"{name} {facts.text(known)}"
        for name, known in (("Python", fact.PYTHON), ("NumPy", fact.NUMPY), ("SciPy", fact.SCIPY))
        if known in facts
    ]
    return (
        f"All was done with knockem_dagster {facts.text(fact.VERSION)} (revision {facts.text(fact.REVISION)}; "
        f"{enumerated(libraries)}), with the random seed {facts.text(fact.SEED)}; the submission is "
        f"{facts.text(fact.SUBMISSION)}."
    )
