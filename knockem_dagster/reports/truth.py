"""What the estimates should have been, for organisms that tell: used by reports only, never by an assay."""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knockem_dagster.reports.inputs import Quantity, TruthFacts

# The effect, in detection thresholds, from which a site is detected by its knockout alone.
DETECTABLE_EFFECT = 1.0


class SiteKind(StrEnum):
    """What a site truly is; a site that is additive and in a set counts as in a set."""

    WITHOUT_EFFECT = "without effect"
    ADDITIVE = "additive"
    EPISTATIC = "in a set"


def additive_effects(truth: TruthFacts) -> dict[int, float]:
    """Return the sites whose knockout alone costs fitness or brings some, with the cost in detection thresholds."""
    return {site: effect for site, effect in truth.effects.items() if effect != 0}


def true_values(truth: TruthFacts, resolution: float = math.nan) -> dict[str, float]:
    """Return the true value of every quantity; the mean effect is NaN where no site is additive.

    The sites above the `resolution` (detection thresholds) are counted where that is known.
    """
    effects = additive_effects(truth)
    above = {site for site, effect in effects.items() if abs(effect) > resolution}
    in_sets = {site for members in truth.sets for site in members}
    return {
        Quantity.ADDITIVE_SITES.value: float(len(effects)),
        Quantity.MEAN_EFFECT.value: float(np.mean(list(effects.values()))) if effects else float("nan"),
        Quantity.EPISTATIC_SITES.value: float(len(in_sets)),
        Quantity.DETECTED_ALONE.value: float(sum(effect >= DETECTABLE_EFFECT for effect in effects.values())),
        Quantity.FUNCTIONAL_SITES.value: float(len(in_sets | effects.keys())),
        Quantity.EPISTATIC_SETS.value: float(len(truth.sets)),
        Quantity.SITES_ABOVE_RESOLUTION.value: math.nan if math.isnan(resolution) else float(len(above)),
        Quantity.FUNCTIONAL_ABOVE_RESOLUTION.value: math.nan if math.isnan(resolution) else float(len(in_sets | above)),
    }


def with_truth(estimates: pd.DataFrame, truth: TruthFacts | None, *, resolution: float = math.nan) -> pd.DataFrame:
    """Return the estimates with one more column, `truth`: NaN without a truth or for an unknown quantity."""
    values = {} if truth is None else true_values(truth, resolution)
    column = [values.get(str(quantity), float("nan")) for quantity in estimates["quantity"]]
    return estimates.assign(truth=np.asarray(column, dtype=np.float64))


def site_kinds(sites: NDArray[np.int64], truth: TruthFacts | None) -> list[SiteKind] | None:
    """Return what each of these sites truly is, shape (sites,), or None without a truth."""
    if truth is None:
        return None
    additive = additive_effects(truth).keys()
    in_sets = {site for members in truth.sets for site in members}
    return [
        SiteKind.EPISTATIC if site in in_sets else SiteKind.ADDITIVE if site in additive else SiteKind.WITHOUT_EFFECT
        for site in sites.tolist()
    ]
