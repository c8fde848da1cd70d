"""Which assets a submission needs: those of its assay types, their prerequisites, the estimates and the report."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from knockem_dagster.assay_runs.findings import TABLE_OF
from knockem_dagster.records.assays import AssayType, with_needs

ASSET_OF = dict.fromkeys(AssayType, "estimates") | TABLE_OF
"""The asset that holds the result of each assay type: one that runs no competitions is part of the estimates."""

ALWAYS = ("genome", "estimates", "report")


def selection_of(assay_types: Iterable[AssayType]) -> list[dg.AssetKey]:
    """Return the assets of these assay types with all they need."""
    wanted = with_needs(frozenset(assay_types))
    names = dict.fromkeys([*ALWAYS, *(ASSET_OF[assay_type] for assay_type in AssayType if assay_type in wanted)])
    return [dg.AssetKey(name) for name in names]
