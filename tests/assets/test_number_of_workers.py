"""A study's results are the same whatever the number of competitions at a time: real workers, real competitions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from knockem_dagster.assay_runs.tables import read_table
from knockem_dagster.records.assays import AssayType
from tests.services.platforms import platform_of, run_in_dagster, study, submitted

GENOME = {
    "sites": 40,
    "effects": {"2": 1.5, "5": 0.6, "9": 0.5, "17": 0.6, "30": 2.0},
    "sets": [{"sites": [11, 14], "penalty": 1.5}],
}
OWN = (AssayType.NULLDIST, AssayType.WEIGHING, AssayType.SET_ENUMERATION, AssayType.PREFIX_SKELETONS)
TABLES = ("null_distribution", "weights", "sets", "prefix_skeletons", "prefix_skeleton_summary", "estimates", "sites")


def tables_of(home: Path, monkeypatch: pytest.MonkeyPatch, *, cpus: int) -> Mapping[str, pd.DataFrame | None]:
    """Run the study with so many competitions at a time, and return its tables."""
    monkeypatch.setenv("KNOCKEM_CPUS", str(cpus))
    options = {"assayTypes": [each.value for each in OWN], "skeletons": 3, "resolution": 0.3}
    id = submitted(home, study(containerImage="explicit", genome=json.dumps(GENOME), **options))
    with dg.DagsterInstance.ephemeral() as instance:
        assert run_in_dagster(home, instance, id).success
    platform = platform_of(home)
    found = {name: read_table(platform.objects, id, name) for name in TABLES}
    platform.close()
    return found


def test_one_worker_and_five_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(Path(__file__).parents[2] / "deploy" / "organisms"))
    alone, together = (tables_of(tmp_path / f"{cpus}", monkeypatch, cpus=cpus) for cpus in (1, 5))
    for name in TABLES:
        one, other = alone[name], together[name]
        assert one is not None, name
        assert other is not None, name
        assert len(one) or name == "sets"
        pd.testing.assert_frame_equal(one, other, check_exact=True)
