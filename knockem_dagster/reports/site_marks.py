"""How figures tell sites apart: three marks, for what an organism says its sites truly are, or for what was found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from knockem_dagster.knockout.site_findings import SiteFinding
from knockem_dagster.reports.inputs import TruthFacts
from knockem_dagster.reports.truth import SiteKind, site_kinds

_KIND_OF = {
    SiteFinding.ADDITIVE: SiteKind.ADDITIVE,
    SiteFinding.DETECTED_ALONE: SiteKind.ADDITIVE,
    SiteFinding.IN_A_SET: SiteKind.EPISTATIC,
    SiteFinding.ADDITIVE_AND_IN_A_SET: SiteKind.EPISTATIC,
    SiteFinding.EPISTATIC: SiteKind.EPISTATIC,
}
_TRUE_LABELS = {kind: f"truly {kind.value}" for kind in SiteKind}
_FOUND_LABELS = {
    SiteKind.WITHOUT_EFFECT: "not resolved",
    SiteKind.ADDITIVE: "found additive",
    SiteKind.EPISTATIC: "found in a set",
}


@dataclass(frozen=True, slots=True, eq=False)
class SiteMarks:
    """The kind by which each site is marked, shape (sites,), and what a legend calls each kind."""

    kinds: NDArray[np.object_]
    labels: dict[SiteKind, str]

    def of(self, kind: SiteKind) -> NDArray[np.bool_]:
        """Return which sites are of a kind, shape (sites,)."""
        return self.kinds == kind.value


def true_marks(sites: NDArray[np.int64], truth: TruthFacts | None) -> SiteMarks | None:
    """Return the marks of what these sites truly are, or None without a truth."""
    kinds = site_kinds(sites, truth)
    return None if kinds is None else SiteMarks(np.array([kind.value for kind in kinds], dtype=object), _TRUE_LABELS)


def found_marks(sites: pd.DataFrame) -> SiteMarks | None:
    """Return the marks of what was found, from the table `sites`; None where that tells nothing of any site."""
    if "finding" not in sites:
        return None
    kinds = [_KIND_OF.get(SiteFinding(finding), SiteKind.WITHOUT_EFFECT) for finding in sites["finding"]]
    if set(kinds) <= {SiteKind.WITHOUT_EFFECT}:
        return None
    return SiteMarks(np.array([kind.value for kind in kinds], dtype=object), _FOUND_LABELS)
