"""What a study may say of each site: what it was found to be, or that it is not resolved, or that it was not tested.

No experiment shows that a site has no effect. A site without a finding is not resolved, at the resolution that the
study reached.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.site_weights import SiteWeights


class SiteFinding(StrEnum):
    """What is said of a site; NOT_RESOLVED and NOT_TESTED are what is said of all others."""

    ADDITIVE = "additive"
    IN_A_SET = "in a set"
    ADDITIVE_AND_IN_A_SET = "additive, in a set"
    WITHOUT_MATES = "matters, no mates found"
    DETECTED_ALONE = "detected alone"
    EPISTATIC = "epistatic"
    KEPT = "kept by a skeleton"
    NOT_RESOLVED = "not resolved"
    NOT_TESTED = "not tested"


def findings_of_weighing(weights: SiteWeights, sets: FoundSets | None, *, error_rate: float) -> list[SiteFinding]:
    """Return what weighing, and the enumeration of sets where it ran, say of each site, shape (num_sites,).

    `error_rate` is the number of sites without effect that may be called additive, in expectation.
    """
    found = [
        SiteFinding.NOT_RESOLVED if tested else SiteFinding.NOT_TESTED for tested in weights.table["tested"].tolist()
    ]
    for site in weights.additive(error_rate):
        found[site] = SiteFinding.ADDITIVE
    for site in () if sets is None else sets.lone:
        if found[site] is not SiteFinding.ADDITIVE:
            found[site] = SiteFinding.WITHOUT_MATES
    for site in set[int]().union(*(() if sets is None else sets.sets)):
        is_additive = found[site] is SiteFinding.ADDITIVE
        found[site] = SiteFinding.ADDITIVE_AND_IN_A_SET if is_additive else SiteFinding.IN_A_SET
    return found


def findings_of_screen_and_skeletons(
    num_sites: int,
    *,
    detected: Iterable[int],
    kept: Iterable[int],
    epistatic: Iterable[int],
    untested: Iterable[int],
) -> list[SiteFinding]:
    """Return what assays other than weighing say of each site, shape (num_sites,).

    Given are the sites `detected` when knocked out alone, those `kept` by a skeleton, those of them that a sample of
    skeletons points out as `epistatic`, and those `untested` by all assays.
    """
    found = [SiteFinding.NOT_RESOLVED] * num_sites
    for finding, sites in (
        (SiteFinding.NOT_TESTED, untested),
        (SiteFinding.KEPT, kept),
        (SiteFinding.EPISTATIC, epistatic),
        (SiteFinding.DETECTED_ALONE, detected),
    ):
        for site in sites:
            found[site] = finding
    return found
