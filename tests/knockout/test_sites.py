"""What may be said of each site."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.published.screen import Screen
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.estimates import Evidence
from knockem_dagster.knockout.site_findings import SiteFinding
from knockem_dagster.knockout.sites import describe_sites
from knockem_dagster.records.tables import TABLES
from tests.knockout.worlds import exact_null


def weights(effects: NDArray[np.float64], errors: NDArray[np.float64], *, angle_sd: float = 0.3) -> SiteWeights:
    """Return weights in which every clear effect has a probability of one."""
    return SiteWeights.of(
        effects,
        errors,
        np.where(np.abs(effects) > 5 * errors, 1.0, 0.1),
        angle_sd=angle_sd,
        drift=0.1,
        unit_error=0.0,
        num_competitions=100,
        unit=0.01,
    )


def sets(*groups: tuple[int, ...]) -> FoundSets:
    rows = [(number, site, 1.0, 0.9, 1.1) for number, group in enumerate(groups) for site in group]
    return FoundSets(pd.DataFrame(rows, columns=["set", "site", "penalty", "low", "high"]), True, 100)


def test_each_site_of_a_weighed_genome_has_its_finding() -> None:
    effects = np.array([0.5, 0.0, 0.5, 0.01, 0.0, 0.6, math.nan, -0.4])
    errors = np.where(np.isnan(effects), np.inf, 0.02)
    evidence = Evidence(8, exact_null(), weights=weights(effects, errors), sets=sets((1, 2), (3,), (5,)))
    table = describe_sites(evidence)
    assert list(table.columns) == [column.name for column in TABLES["sites"].columns]
    assert table["finding"].tolist() == [
        SiteFinding.ADDITIVE,
        SiteFinding.IN_A_SET,
        SiteFinding.ADDITIVE_AND_IN_A_SET,
        SiteFinding.WITHOUT_MATES,
        SiteFinding.NOT_RESOLVED,
        SiteFinding.ADDITIVE,
        SiteFinding.NOT_TESTED,
        SiteFinding.ADDITIVE,
    ]


def test_sites_that_no_assay_tested_are_not_tested_rather_than_not_resolved() -> None:
    assert set(describe_sites(Evidence(5, exact_null()))["finding"]) == {SiteFinding.NOT_TESTED}


def test_a_screen_tells_what_is_detected_alone_and_what_it_could_not_test() -> None:
    screen = Screen(
        pd.DataFrame(
            {
                "site": range(3),
                "score": [0.5, 0.0, math.nan],
                "p": [0.0, 0.5, math.nan],
                "q": [0.0, 0.9, math.nan],
                "detected": [True, False, False],
            }
        )
    )
    found = describe_sites(Evidence(3, exact_null(), screen=screen))["finding"]
    assert found.tolist() == [SiteFinding.DETECTED_ALONE, SiteFinding.NOT_RESOLVED, SiteFinding.NOT_TESTED]
