"""From assay results to the table `sites`: what is known of each site, and what may be said of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.assays.frames import typed_frame
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimates import Evidence
from knockem_dagster.knockout.site_findings import (
    SiteFinding,
    findings_of_screen_and_skeletons,
    findings_of_weighing,
)

COLUMNS = {
    "site": "int64",
    "effect": "float64",
    "low": "float64",
    "high": "float64",
    "probability": "float64",
    "set": "int64",
    "finding": "str",
}
SORT_KEY = ("site",)

_LEVEL = 0.95
_NO_SET = -1


def describe_sites(evidence: Evidence) -> pd.DataFrame:
    """Return the evidence of each site (COLUMNS): effect in thresholds, how likely it has one, its set, the finding.

    Without weighing, the effect is that of a screen, and the share of skeletons keeping the site stands for how likely
    it matters. An effect is missing where the site was not tested, or where nothing tells how large one threshold is.
    """
    if evidence.weights is not None:
        known = {name: evidence.weights.table[name].to_numpy() for name in ("effect", "low", "high", "probability")}
    else:
        known = _evidence_of_screen_and_skeletons(evidence)
    return typed_frame(
        COLUMNS,
        {
            "site": range(evidence.num_sites),
            **known,
            "set": _set_of_each_site(evidence),
            "finding": [finding.value for finding in _findings(evidence)],
        },
        sort_by=SORT_KEY,
    )


def _findings(evidence: Evidence) -> list[SiteFinding]:
    if evidence.weights is not None:
        return findings_of_weighing(evidence.weights, evidence.sets, error_rate=evidence.error_rate)
    screen, sample = evidence.screen, evidence.skeleton_sample
    kept = np.zeros((0, evidence.num_sites), dtype=bool) if (known := _kept(evidence)) is None else known
    return findings_of_screen_and_skeletons(
        evidence.num_sites,
        detected=() if screen is None else np.flatnonzero(screen.table["detected"]).tolist(),
        kept=np.flatnonzero(kept.any(axis=0)).tolist(),
        epistatic=() if sample is None else sample.epistatic.tolist(),
        untested=np.flatnonzero(~_tested(evidence)).tolist(),
    )


def _tested(evidence: Evidence) -> NDArray[np.bool_]:
    """Return which sites a screen or any skeleton tested, shape (num_sites,)."""
    tested = np.zeros(evidence.num_sites, dtype=bool)
    if evidence.screen is not None:
        tested |= np.isfinite(evidence.screen.scores)
    if evidence.skeletons is not None:
        tested |= len(evidence.skeletons.kept) > 0
    if evidence.prefix_skeletons is not None:
        for skeleton in evidence.prefix_skeletons.skeletons:
            tested |= skeleton.tested
    return tested


def _kept(evidence: Evidence) -> NDArray[np.bool_] | None:
    """Return which sites each skeleton keeps, shape (skeletons, num_sites), or None where there is no skeleton.

    A site that a prefix search could not test is no finding.
    """
    if evidence.skeletons is not None:
        kept = evidence.skeletons.kept
    elif evidence.prefix_skeletons is not None:
        kept = np.array([each.kept & each.tested for each in evidence.prefix_skeletons.skeletons], dtype=bool)
    else:
        return None
    return kept if len(kept) else None


def _evidence_of_screen_and_skeletons(evidence: Evidence) -> dict[str, NDArray[np.float64]]:
    missing = np.full(evidence.num_sites, np.nan)
    effect, reach = missing, missing
    if evidence.screen is not None:
        scores = evidence.screen.scores
        null = evidence.null.with_unit_from(scores)
        effect = null.in_thresholds(scores)
        reach = np.full(evidence.num_sites, _interval_reach(null))
    kept = _kept(evidence)
    probability = missing if kept is None else kept.mean(axis=0)
    return {"effect": effect, "low": effect - reach, "high": effect + reach, "probability": probability}


def _set_of_each_site(evidence: Evidence) -> NDArray[np.int64]:
    """Return the number of each site's set, shape (num_sites,); of a site in several, the first."""
    numbers = np.full(evidence.num_sites, _NO_SET)
    if evidence.sets is not None:
        table = evidence.sets.table
        sizes = table.groupby("set")["site"].transform("size")
        for number, site in table.loc[sizes > 1, ["set", "site"]].iloc[::-1].to_numpy(dtype=np.int64).tolist():
            numbers[site] = number
    return numbers


def _interval_reach(null: NullDistribution) -> float:
    """Return half the width of the interval of one score, in detection thresholds, from the null's spread.

    Missing (NaN) without noise: such an organism hides what lies below the threshold, so its zero is no measurement.
    """
    if null.sd == 0:
        return math.nan
    return float(stats.t.isf((1 - _LEVEL) / 2, null.n - 1)) * null.sd * math.sqrt(1 + 1 / null.n) / null.unit
