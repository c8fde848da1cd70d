"""From assay results to the two tables a submission is about: `estimates` and `sites`.

Whichever results are there are used; what rests on a missing one is left out. The methods are in estimators/;
here their answers are named and put in rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from knockem_dagster.knockout.assays.frames import typed_frame
from knockem_dagster.knockout.assays.published.doses import Calibration, Titration
from knockem_dagster.knockout.assays.published.jackknife import Jackknife
from knockem_dagster.knockout.assays.published.screen import Screen
from knockem_dagster.knockout.assays.published.skeletons import Skeletons
from knockem_dagster.knockout.assays.set_search import FoundSets
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimators.mark_recapture import PopulationEstimate, estimate_population
from knockem_dagster.knockout.estimators.negative_binomial import NegativeBinomialFit, fit_negative_binomial
from knockem_dagster.knockout.estimators.skeleton_sample import SkeletonSample, find_epistatic_sites
from knockem_dagster.knockout.weighed_counts import SMALL_WIDTHS, count_additive, count_functional, count_sets

ESTIMATE_COLUMNS = {
    "quantity": "str",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "level": "float64",
    "method": "str",
    "n": "int64",
}
ESTIMATE_SORT_KEY = ("quantity", "method")
SITE_COLUMNS = {
    "site": "int64",
    "effect": "float64",
    "low": "float64",
    "high": "float64",
    "probability": "float64",
    "set": "int64",
}
SITE_SORT_KEY = ("site",)

DETECTED_ALONE = "sites detected alone"
ADDITIVE_SITES = "additive sites"
MEAN_ADDITIVE_EFFECT = "mean effect of additive sites"
EPISTATIC_SITES = "epistatic sites"
FUNCTIONAL_SITES = "functional sites"
ADDITIVE_SITES_NAMED = "additive sites named"
SITES_ABOVE_RESOLUTION = "sites with effect above the resolution"
EPISTATIC_SETS = "epistatic sets"

_LEVEL = 0.95
_NO_SET = -1
_LEAST_TESTED = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the assays of one submission found, on a genome of `num_sites` sites; None where an assay did not run."""

    num_sites: int
    null: NullDistribution
    screen: Screen | None = None
    calibration: Calibration | None = None
    titration: Titration | None = None
    skeletons: Skeletons | None = None
    jackknife: Jackknife | None = None
    weights: SiteWeights | None = None
    sets: FoundSets | None = None
    resolution: float = 0.1
    error_rate: float = 0.02

    @property
    def dose_response(self) -> NegativeBinomialFit | None:
        """Return the curve fitted to the titration; None where that did not run."""
        if self.titration is None:
            return None
        return fit_negative_binomial(
            self.titration.doses, self.titration.sensitivities, num_candidates=self.titration.num_candidates
        )

    @property
    def skeleton_sample(self) -> SkeletonSample | None:
        """Return which sites are epistatic, and why; None where skeletons or their jackknife did not run."""
        if self.skeletons is None or self.jackknife is None:
            return None
        return find_epistatic_sites(self.skeletons.kept, self.jackknife.severity(self.null, self.skeletons))


@dataclass(frozen=True, slots=True)
class _Row:
    quantity: str
    value: float
    method: str
    n: int
    low: float = math.nan
    high: float = math.nan

    @property
    def level(self) -> float:
        return math.nan if math.isnan(self.low) else _LEVEL


def estimate(evidence: Evidence) -> pd.DataFrame:
    """Return the estimates, one row per quantity and method (ESTIMATE_COLUMNS).

    A method without an interval has no low, high and level. `n` counts the answered competitions a row rests on,
    those of the null distribution included.
    """
    rows = [
        *_weighed(evidence),
        *_enumerated(evidence),
        *_detected_alone(evidence),
        *_additive(evidence),
        *_epistatic(evidence),
        *_functional(evidence),
    ]
    return typed_frame(
        ESTIMATE_COLUMNS,
        {name: [getattr(row, name) for row in rows] for name in ESTIMATE_COLUMNS},
        sort_by=ESTIMATE_SORT_KEY,
    )


def describe_sites(evidence: Evidence) -> pd.DataFrame:
    """Return the evidence of each site (SITE_COLUMNS): effect in thresholds, how likely it has one, and its set.

    Without weighing, the effect is that of a screen, and the share of skeletons keeping the site stands for how likely
    it matters. An effect is missing where the site was not tested, or where nothing tells how large one threshold is.
    """
    if evidence.weights is not None:
        known = {name: evidence.weights.table[name].to_numpy() for name in ("effect", "low", "high", "probability")}
    else:
        known = _evidence_of_screen_and_skeletons(evidence)
    return typed_frame(
        SITE_COLUMNS,
        {"site": range(evidence.num_sites), **known, "set": _set_of_each_site(evidence)},
        sort_by=SITE_SORT_KEY,
    )


def _evidence_of_screen_and_skeletons(evidence: Evidence) -> dict[str, NDArray[np.float64]]:
    missing = np.full(evidence.num_sites, np.nan)
    effect, reach = missing, missing
    if evidence.screen is not None:
        scores = evidence.screen.scores
        null = evidence.null.with_unit_from(scores)
        effect = null.in_thresholds(scores)
        reach = np.full(evidence.num_sites, _interval_reach(null))
    kept = None if evidence.skeletons is None else evidence.skeletons.kept
    probability = missing if kept is None or len(kept) == 0 else kept.mean(axis=0)
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


def _is_weighed(evidence: Evidence) -> bool:
    """Tell whether nearly all sites were weighed; else nothing is said of their number."""
    return evidence.weights is not None and bool(evidence.weights.table["tested"].mean() >= _LEAST_TESTED)


def _weighed(evidence: Evidence) -> list[_Row]:
    weights = evidence.weights
    if weights is None:
        return []
    n = evidence.null.n + weights.num_competitions
    if not _is_weighed(evidence):
        return [_Row(ADDITIVE_SITES, math.nan, "weighing; too few sites could be weighed", n)]
    rng = np.random.default_rng(evidence.num_sites)
    total, above = count_additive(weights, rng, above=[evidence.resolution])
    [total_small] = count_additive(weights, rng, widths=SMALL_WIDTHS)
    effects = np.array(list(weights.additive(evidence.error_rate).values()))
    return [
        _Row(ADDITIVE_SITES, total.value, "weighing; effects spread evenly", n, total.low, total.high),
        _Row(
            ADDITIVE_SITES,
            total_small.value,
            "weighing; room for many small effects",
            n,
            total_small.low,
            total_small.high,
        ),
        _Row(SITES_ABOVE_RESOLUTION, above.value, "weighing", n, above.low, above.high),
        _Row(ADDITIVE_SITES_NAMED, effects.size, "weighing", n),
        _Row(MEAN_ADDITIVE_EFFECT, float(effects.mean()) if effects.size else math.nan, "weighing; of those named", n),
    ]


def _enumerated(evidence: Evidence) -> list[_Row]:
    weights, found = evidence.weights, evidence.sets
    if weights is None or found is None:
        return []
    n = evidence.null.n + weights.num_competitions + found.num_competitions
    rng = np.random.default_rng(evidence.num_sites + 1)
    sets, functional = count_sets(weights, found, rng), count_functional(weights, found, rng)
    members = {site for each in found.sets for site in each}
    method = "weighing and enumeration of sets"
    if not _is_weighed(evidence):
        return [_Row(FUNCTIONAL_SITES, math.nan, "weighing; too few sites could be weighed", n)]
    return [
        _Row(EPISTATIC_SETS, sets.value, method, n, sets.low, sets.high),
        _Row(EPISTATIC_SITES, len(members), method, n),
        _Row(FUNCTIONAL_SITES, functional.value, method, n, functional.low, functional.high),
    ]


def _detected_alone(evidence: Evidence) -> list[_Row]:
    if evidence.screen is None:
        return []
    detected = int(evidence.screen.table["detected"].sum())
    n = evidence.null.n + _num_answered(evidence.screen.table)
    return [_Row(DETECTED_ALONE, detected, "screen with controlled false discovery rate (Benjamini-Hochberg 1995)", n)]


def _additive(evidence: Evidence) -> list[_Row]:
    fit = evidence.dose_response
    if fit is None or evidence.titration is None:
        return []
    others = [part.table for part in (evidence.screen, evidence.calibration) if part is not None]
    n = evidence.null.n + sum(_num_answered(table) for table in [*others, evidence.titration.table])
    method = "negative binomial fit to the dose response (Moreno 2024)"
    return [
        _Row(ADDITIVE_SITES, fit.num_additive_sites, method, n),
        _Row(MEAN_ADDITIVE_EFFECT, fit.mean_effect, method, n),
    ]


def _epistatic(evidence: Evidence) -> list[_Row]:
    sample = evidence.skeleton_sample
    if sample is None or evidence.skeletons is None or evidence.jackknife is None:
        return []
    n = evidence.null.n + _num_tested(evidence.skeletons) + _num_answered(evidence.jackknife.table)
    return [_Row(EPISTATIC_SITES, len(sample.epistatic), "skeleton sample and jackknife (Moreno 2024)", n)]


def _functional(evidence: Evidence) -> list[_Row]:
    if evidence.skeletons is None or len(evidence.skeletons.kept) == 0:
        return []
    result = estimate_population(capture_frequencies(evidence.skeletons.kept), alpha=1 - _LEVEL)
    n = evidence.null.n + _num_tested(evidence.skeletons)

    def row(found: PopulationEstimate, method: str) -> _Row:
        return _Row(FUNCTIONAL_SITES, found.value, method, n, found.low, found.high)

    return [
        row(result.interpolated, "mark-recapture, interpolated jackknife (Burnham-Overton 1979)"),
        row(result.selected, "mark-recapture, jackknife of selected order (Burnham-Overton 1979)"),
    ]


def capture_frequencies(kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many sites exactly 1, 2, ... all skeletons keep, from `kept` of shape (skeletons, num_sites)."""
    return np.bincount(kept.sum(axis=0), minlength=len(kept) + 1)[1:].astype(np.int64)


def _num_answered(table: pd.DataFrame) -> int:
    return int(table["score"].notna().sum())


def _num_tested(skeletons: Skeletons) -> int:
    return int((skeletons.table["order"] >= 0).sum()) - skeletons.num_untested
