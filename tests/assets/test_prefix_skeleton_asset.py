"""Skeletons by prefix search, asked for by a submission: with and without noise, and within a budget."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from knockem_dagster.assay_runs.tables import read_table, report_key
from knockem_dagster.records.submissions import State
from tests.services.platforms import platform_of, run_in_dagster, study, submitted

EFFECTS = {2: 1.5, 5: 0.6, 9: 0.5, 17: 0.6, 30: 2.0}
SET = [11, 14]
GENOME = {
    "sites": 40,
    "effects": {str(site): effect for site, effect in EFFECTS.items()},
    "sets": [{"sites": SET, "penalty": 1.5}],
}
LARGE = {2, 30}


@dataclass(frozen=True)
class Finished:
    """A study that has ended, with its tables and its report."""

    state: State
    asked: int
    assets: set[str]
    checks: dict[tuple[str, str], bool]
    tables: Mapping[str, pd.DataFrame | None]
    report: str
    metadata: Mapping[str, dg.MetadataValue]

    def table(self, name: str) -> pd.DataFrame:
        found = self.tables[name]
        assert found is not None, name
        return found


def finished(home: Path, **changes: object) -> Finished:
    """Run a study of the reference organism to its end, as a Dagster run of this process."""
    options: dict[str, object] = {"assayTypes": ["nulldist", "prefixSkeletons"], "skeletons": 5, **changes}
    id = submitted(home, study(containerImage="explicit", genome=json.dumps(GENOME), **options))
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_in_dagster(home, instance, id)
    assert result.success, [
        event.step_failure_data.error_display_string for event in result.all_events if event.is_step_failure
    ]
    platform = platform_of(home)
    names = ("prefix_skeletons", "prefix_skeleton_summary", "estimates", "sites")
    found = Finished(
        platform.records.submissions.get(id).state,
        platform.records.documents.count("competitions", {"submissionId": id}),
        {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()},
        {
            (each.asset_key.to_user_string(), each.check_name): each.passed
            for each in result.get_asset_check_evaluations()
        },
        {name: read_table(platform.objects, id, name) for name in names},
        platform.objects.get(report_key(id)).decode(),
        result.asset_materializations_for_node("prefix_skeletons")[0].metadata,
    )
    platform.close()
    return found


@pytest.fixture(autouse=True)
def bundled_organisms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(Path(__file__).parents[2] / "deploy" / "organisms"))
    yield


@pytest.mark.parametrize("mode", ["exact", "wright-fisher"])
def test_a_study_of_skeletons_keeps_what_matters_and_says_what_it_lost(tmp_path: Path, mode: str) -> None:
    found = finished(tmp_path / "home", containerEnv={"EXPLICIT_MODE": mode})
    assert found.state is State.COMPLETED
    assert found.assets == {"genome", "null_distribution", "prefix_skeletons", "estimates", "report"}
    assert found.checks == {
        ("null_distribution", "every_competition_accounted_for"): True,
        ("null_distribution", "null_is_symmetric"): True,
        ("prefix_skeletons", "every_competition_accounted_for"): True,
        ("prefix_skeletons", "every_site_decided"): True,
        ("estimates", "interval_contains_estimate"): True,
    }
    skeletons, summary = found.table("prefix_skeletons"), found.table("prefix_skeleton_summary")
    for number, each in skeletons.groupby("skeleton"):
        kept = set(each.loc[each["kept"], "site"].tolist())
        assert LARGE <= kept <= {*EFFECTS, *SET}, number
        assert kept & set(SET), number
        assert summary.loc[summary["skeleton"] == number, "kept"].item() == len(kept)
    assert summary["competitions"].sum() == found.asked - 100

    estimates = found.table("estimates").set_index("quantity")
    size = estimates.loc["sites of a minimal genome"]
    assert (size["value"], size["low"], size["high"]) == pytest.approx(
        (summary["kept"].mean(), summary["kept"].min(), summary["kept"].max())
    )
    assert size["level"] == pytest.approx(4 / 6)
    assert size["n"] == found.asked
    assert ("effect of all deletions together" in estimates.index) == (mode == "wright-fisher")
    if mode == "wright-fisher":
        residual = estimates.loc["effect of all deletions together"]
        lost = [_effect(each) for _, each in skeletons.groupby("skeleton")]
        assert residual["low"] <= np.mean(lost) <= residual["high"]
    sites = found.table("sites").set_index("site")
    assert sites.loc[sorted(LARGE), "probability"].tolist() == [1.0, 1.0]

    assert "Skeletons by prefix search" in found.report
    assert "answers without noise" in found.report or "residual effect" in found.report
    assert found.metadata["skeletons"].value == 5
    plot = found.metadata["plot"]
    assert isinstance(plot, dg.MarkdownMetadataValue)
    assert plot.md_str.startswith("![")


def _effect(skeleton: pd.DataFrame) -> float:
    """Return the true cost of a skeleton's deletions."""
    deleted = set(skeleton.loc[~skeleton["kept"], "site"].tolist())
    return sum(effect for site, effect in EFFECTS.items() if site in deleted) + 1.5 * deleted.issuperset(SET)


@pytest.mark.parametrize(("budget", "made"), [(60, 0), (240, None)])
def test_a_budget_ends_with_the_skeletons_that_are_done(tmp_path: Path, budget: int, made: int | None) -> None:
    found = finished(tmp_path / "home", containerEnv={"EXPLICIT_MODE": "wright-fisher"}, budget=budget)
    assert found.state is State.COMPLETED
    assert found.asked <= budget
    summary = found.table("prefix_skeleton_summary")
    assert len(summary) < 5
    assert made is None or len(summary) == made
    assert found.metadata["skeletons asked for"].value == 5
    assert all(found.checks.values())
    size = found.table("estimates").set_index("quantity").loc["sites of a minimal genome"]
    assert np.isnan(size["value"]) == (len(summary) == 0)
    assert ("budget ended" in size["method"]) == (len(summary) == 0)


def test_with_a_budget_skeletons_have_their_share_beside_weighing_and_sets(tmp_path: Path) -> None:
    everything = ["nulldist", "weighing", "setEnumeration", "prefixSkeletons"]
    found = finished(tmp_path / "home", assayTypes=everything, budget=2000, skeletons=2)
    assert found.asked <= 2000
    assert len(found.table("prefix_skeleton_summary")) == 2
