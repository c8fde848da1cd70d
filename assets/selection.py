"""Which assets a submission needs: those of its assay types, their prerequisites, the estimates and the report."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from knockem_dagster.records.assays import AssayType, with_needs

ASSET_OF = {
    AssayType.NULLDIST: "null_distribution",
    AssayType.SCREEN_CRITICAL: "screen",
    AssayType.DOSE_CALIBRATION: "calibration",
    AssayType.DOSE_TITRATION: "titration",
    AssayType.SKELETONIZATION: "skeletons",
    AssayType.JACKKNIFE_KNOCKOUT: "jackknife",
    AssayType.SKELETON_SAMPLE_AND_JACKKNIFE: "estimates",
    AssayType.SKELETON_MARK_RECAPTURE: "estimates",
    AssayType.WEIGHING: "weights",
    AssayType.SET_ENUMERATION: "sets",
    AssayType.PREFIX_SKELETONS: "prefix_skeletons",
}
"""The asset that holds the result of each assay type."""

ALWAYS = ("genome", "estimates", "report")


def selection_of(assay_types: Iterable[AssayType]) -> list[dg.AssetKey]:
    """Return the assets of these assay types with all they need."""
    wanted = with_needs(frozenset(assay_types))
    names = dict.fromkeys([*ALWAYS, *(ASSET_OF[assay_type] for assay_type in AssayType if assay_type in wanted)])
    return [dg.AssetKey(name) for name in names]
