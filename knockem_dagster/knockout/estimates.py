"""From assay results to the table `estimates` that a submission is about. What is said of each site is in sites.py.

Whichever results are there are used; what rests on a missing one is left out. The methods are in estimators/;
here their answers are named and put in rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knockem_dagster.knockout.assays.found_sets import FoundSets
from knockem_dagster.knockout.assays.found_skeletons import PrefixSkeletons
from knockem_dagster.knockout.assays.frames import typed_frame
from knockem_dagster.knockout.assays.published.doses import Calibration, Titration
from knockem_dagster.knockout.assays.published.jackknife import Jackknife
from knockem_dagster.knockout.assays.published.screen import Screen
from knockem_dagster.knockout.assays.published.skeletons import Skeletons
from knockem_dagster.knockout.assays.site_weights import SiteWeights
from knockem_dagster.knockout.detection import NullDistribution
from knockem_dagster.knockout.estimators.mark_recapture import PopulationEstimate, estimate_population
from knockem_dagster.knockout.estimators.negative_binomial import NegativeBinomialFit, fit_negative_binomial
from knockem_dagster.knockout.estimators.skeleton_sample import SkeletonSample, find_epistatic_sites
from knockem_dagster.knockout.minimal_genomes import effect_of_deletions, size_of_skeletons
from knockem_dagster.knockout.model_checks import FailedCheck, failed_checks, too_coarse
from knockem_dagster.knockout.quantities import unit_of
from knockem_dagster.knockout.weighed_counts import (
    Count,
    count_additive,
    count_functional,
    count_sets,
    share_of_sets_seen,
)

ESTIMATE_COLUMNS = {
    "quantity": "str",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "unit": "str",
    "level": "float64",
    "method": "str",
    "n": "int64",
}
ESTIMATE_SORT_KEY = ("quantity", "method")

DETECTED_ALONE = "sites detected alone"
ADDITIVE_SITES = "additive sites"
MEAN_ADDITIVE_EFFECT = "mean effect of additive sites"
EPISTATIC_SITES = "epistatic sites"
FUNCTIONAL_SITES = "functional sites"
ADDITIVE_SITES_NAMED = "additive sites named"
SITES_ABOVE_RESOLUTION = "sites with effect above the resolution"
EPISTATIC_SETS = "epistatic sets"
FUNCTIONAL_ABOVE_RESOLUTION = "functional sites above the resolution"
SITES_OF_MINIMAL_GENOME = "sites of a minimal genome"
EFFECT_OF_DELETIONS = "effect of all deletions together"

_LEVEL = 0.95
_LEAST_TESTED = 0.95
_LEAST_SEEN = 0.5
_TOO_FEW = "too few sites could be weighed"
_WEIGHING, _BOTH = "weighing", "weighing and enumeration of sets"
_PRIORS = "interval over three priors of small effects"


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
    prefix_skeletons: PrefixSkeletons | None = None
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
    coverage: float = _LEVEL

    @property
    def level(self) -> float:
        return math.nan if math.isnan(self.low) else self.coverage

    @property
    def unit(self) -> str:
        return unit_of(self.quantity)


def estimate(evidence: Evidence) -> pd.DataFrame:
    """Return the estimates, one row per quantity and method (ESTIMATE_COLUMNS).

    A method without an interval has no low, high and level. `n` counts the answered competitions a row rests on,
    those of the null distribution included.
    """
    rows = [
        *_weighed(evidence),
        *_enumerated(evidence),
        *_minimal(evidence),
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


def _weighed(evidence: Evidence) -> list[_Row]:
    weights = evidence.weights
    if weights is None:
        return []
    n = evidence.null.n + weights.num_competitions
    if not _is_weighed(evidence):
        return [_declined(quantity, _WEIGHING, _TOO_FEW, n) for quantity in (ADDITIVE_SITES, SITES_ABOVE_RESOLUTION)]
    rng = np.random.default_rng(evidence.num_sites)
    counts = count_additive(weights, rng, above=[evidence.resolution])
    effects = np.array(list(weights.additive(evidence.error_rate).values()))
    doubt = _doubt(failed_checks(weights))
    coarse, coarse_above = too_coarse(weights), too_coarse(weights, above=evidence.resolution)
    return [
        _row(ADDITIVE_SITES, f"{_WEIGHING}; {_PRIORS}", counts.total, n, doubt=coarse),
        _row(ADDITIVE_SITES, f"{_WEIGHING}; room for many small effects", counts.with_small, n, doubt=coarse),
        _row(SITES_ABOVE_RESOLUTION, _WEIGHING, counts.above[0], n, doubt=doubt or coarse_above),
        _Row(ADDITIVE_SITES_NAMED, effects.size, _WEIGHING, n),
        _Row(
            MEAN_ADDITIVE_EFFECT, float(effects.mean()) if effects.size else math.nan, f"{_WEIGHING}; of those named", n
        ),
    ]


def _enumerated(evidence: Evidence) -> list[_Row]:
    weights, found = evidence.weights, evidence.sets
    if weights is None or found is None:
        return []
    n = evidence.null.n + weights.num_competitions + found.num_competitions
    rng = np.random.default_rng(evidence.num_sites + 1)
    functional = count_functional(weights, found, rng, above=evidence.resolution)
    doubt = _doubt_about_sets(evidence, weights, found)
    coarse, coarse_above = too_coarse(weights), too_coarse(weights, above=evidence.resolution)
    return [
        _Row(EPISTATIC_SITES, len({site for each in found.sets for site in each}), f"{_BOTH}; of those found", n),
        _row(EPISTATIC_SETS, _BOTH, count_sets(weights, found, rng), n, doubt=doubt),
        _row(FUNCTIONAL_SITES, f"{_BOTH}; {_PRIORS}", functional.total, n, doubt=doubt or coarse),
        _row(FUNCTIONAL_ABOVE_RESOLUTION, _BOTH, functional.above, n, doubt=doubt or coarse_above),
    ]


def _is_weighed(evidence: Evidence) -> bool:
    """Tell whether nearly all sites were weighed; else nothing is said of their number."""
    return evidence.weights is not None and bool(evidence.weights.table["tested"].mean() >= _LEAST_TESTED)


def _doubt_about_sets(evidence: Evidence, weights: SiteWeights, found: FoundSets) -> str:
    """Return why the number of sets cannot be relied on; empty if it can."""
    if not _is_weighed(evidence):
        return _TOO_FEW
    if not found.is_complete:
        return "the budget ended before all sets were searched for"
    if found.ran_out:
        return "some costs could not be made visible with the additive sites that are left, or lie beyond the scale"
    if share_of_sets_seen(weights, found) < _LEAST_SEEN:
        return "so many sites are additive that most sets with several of them would be missed"
    return _doubt(failed_checks(weights))


def _doubt(failed: Iterable[FailedCheck]) -> str:
    """Return why what rests on these checks cannot be relied on; empty if none failed."""
    return " and ".join(f'the check "{each.name}" failed: {each.reason}' for each in failed)


def _row(quantity: str, method: str, count: Count, n: int, *, doubt: str) -> _Row:
    """Return the row of a count, or of why it is not given."""
    if doubt:
        return _declined(quantity, method, doubt, n)
    return _Row(quantity, count.value, method, n, count.low, count.high)


def _declined(quantity: str, method: str, reason: str, n: int) -> _Row:
    return _Row(quantity, math.nan, f"{method}; declined: {reason}", n)


def _minimal(evidence: Evidence) -> list[_Row]:
    found = evidence.prefix_skeletons
    if found is None:
        return []
    n, method = evidence.null.n + found.num_competitions, "skeletons by prefix search"
    if not found.skeletons:
        return [_Row(SITES_OF_MINIMAL_GENOME, math.nan, f"{method}; declined: the budget ended before one was made", n)]
    size, effect = size_of_skeletons(found), effect_of_deletions(found)
    rows = [_Row(SITES_OF_MINIMAL_GENOME, size.value, method, n, size.low, size.high, size.level)]
    if effect is not None:
        rows.append(_Row(EFFECT_OF_DELETIONS, effect.value, method, n, effect.low, effect.high))
    return rows


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
