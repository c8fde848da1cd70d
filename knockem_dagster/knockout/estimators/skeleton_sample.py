"""Which sites are epistatic: often left out of skeletons, yet costly where kept (Moreno 2024, arXiv 2404.10854).

A redundant set leaves any one of its members, so each is in few skeletons, but then it carries the whole penalty.
A site with a small effect of its own is in most skeletons, and costs little more than the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SkeletonSample:
    """The evidence of each site and the `epistatic` sites (ascending) it points to.

    `exclusion_frequency` is the share of skeletons without the site, `severity` its mean jackknife cost in detection
    thresholds (missing where no skeleton kept it), both shape (num_sites,).
    """

    epistatic: NDArray[np.int64]
    exclusion_frequency: NDArray[np.float64]
    severity: NDArray[np.float64]
    severity_threshold: float


def find_epistatic_sites(
    kept: NDArray[np.bool_],
    severity: NDArray[np.float64],
    *,
    most_excluded: float = 0.3,
    severity_quantile: float = 0.2,
) -> SkeletonSample:
    """Pick the sites missing from more than the share `most_excluded` of skeletons, and costly.

    `kept` and `severity` (detection thresholds, missing where not tested) have shape (skeletons, num_sites). Costly is
    at least the quantile of the severity among sites rarely excluded; 1 where there are none to compare with.
    """
    num_skeletons, num_sites = kept.shape
    exclusion = 1 - kept.mean(axis=0) if num_skeletons else np.ones(num_sites)
    tested = np.isfinite(severity)
    times = tested.sum(axis=0)
    mean = np.full(num_sites, np.nan)
    np.divide(np.where(tested, severity, 0.0).sum(axis=0), times, out=mean, where=times > 0)
    # A frequency is a multiple of 1 / skeletons: rounding in 1 - mean must not push it over the border.
    rare = (exclusion <= most_excluded + 1e-9) & (times > 0)
    threshold = float(np.quantile(mean[rare], severity_quantile)) if rare.any() else 1.0
    often = (exclusion > most_excluded + 1e-9) & (times > 0)
    costly = np.greater_equal(mean, threshold, where=times > 0, out=np.zeros(num_sites, dtype=bool))
    return SkeletonSample(np.flatnonzero(often & costly), exclusion, mean, threshold)
