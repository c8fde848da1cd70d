"""The job of a submission, on a Dagster instance of its own and with real competitions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets.checks import interval_contains_estimate
from assets.conclusions import SUMMARY_KEY, submission_summary
from assets.selection import selection_of
from knockem_dagster.assay_runs.tables import read_table, report_key, table_key, write_table
from knockem_dagster.records.assays import AssayType
from knockem_dagster.records.submissions import State
from resources.platform import PlatformResource
from tests.services.organisms import serving, write_organism
from tests.services.platforms import platform_of, run_in_dagster, study, submitted

GENOME = {
    "sites": 30,
    "effects": {"2": 1.5, "5": 0.6, "9": 0.5, "17": 0.6},
    "sets": [{"sites": [11, 14], "penalty": 1.2}],
}
ASSETS = (
    "genome",
    "null_distribution",
    "screen",
    "calibration",
    "titration",
    "skeletons",
    "jackknife",
    "weights",
    "sets",
    "prefix_skeletons",
    "estimates",
    "report",
)
PICTURED = {"null_distribution", "calibration", "titration", "skeletons", "weights", "prefix_skeletons", "estimates"}
TABLED = set(ASSETS) - {"genome", "report", "estimates"}


@pytest.fixture(scope="module")
def organisms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Add the tiny organism, served, and a broken one to the bundled ones."""
    folder = tmp_path_factory.mktemp("organisms")
    write_organism(folder / "tiny", {"knockem_serve": serving("pass")})
    write_organism(folder / "broken", {"knockem_serve": serving("answer = {'error': 'out of order'}")})
    bundled = Path(__file__).parents[2] / "deploy" / "organisms"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNOCKEM_ENVIRONMENT", "testing")
        patch.setenv("KNOCKEM_ORGANISMS", f"{folder}:{bundled}")
        yield patch


@dataclass(frozen=True)
class Finished:
    """A submission that ran from its genome to its report, and the instance that saw it."""

    home: Path
    id: str
    instance: dg.DagsterInstance
    result: dg.ExecuteInProcessResult

    def materialization(self, asset: str) -> dg.AssetMaterialization:
        [event] = self.result.asset_materializations_for_node(asset)
        return event


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, organisms: pytest.MonkeyPatch) -> Iterator[Finished]:
    home = tmp_path_factory.mktemp("home")
    content = study(
        containerImage="explicit",
        genome=json.dumps(GENOME),
        containerEnv={"EXPLICIT_MODE": "exact"},
        assayTypes=[assay_type.value for assay_type in AssayType],
    )
    id = submitted(home, content)
    with dg.DagsterInstance.local_temp() as instance:
        yield Finished(home, id, instance, run_in_dagster(home, instance, id))


@pytest.fixture
def home(tmp_path: Path, organisms: pytest.MonkeyPatch) -> Path:
    return tmp_path / "home"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def reason_of(home: Path, id: str) -> tuple[State, str]:
    platform = platform_of(home)
    submission = platform.records.submissions.get(id)
    platform.close()
    return submission.state, submission.reason or ""


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return what the UI shows of each failed step."""
    return {
        event.step_key or "": event.step_failure_data.error_display_string
        for event in result.all_events
        if event.is_step_failure
    }


def test_one_run_of_at_most_15_steps_materializes_every_asset(finished: Finished) -> None:
    assert finished.result.success
    keys = {event.asset_key.to_user_string() for event in finished.result.get_asset_materialization_events()}
    assert keys == set(ASSETS)
    [run] = finished.instance.get_runs()
    assert run.status is dg.DagsterRunStatus.SUCCESS
    steps = {event.step_key for event in finished.result.all_events if event.is_step_start}
    assert len(steps) <= 15
    for asset in ASSETS:
        partitions = finished.instance.get_materialized_partitions(dg.AssetKey(asset))
        assert partitions == {finished.id}


def test_submission_is_completed_and_its_lease_given_back(finished: Finished) -> None:
    platform = platform_of(finished.home)
    submission = platform.records.submissions.get(finished.id)
    assert (submission.state, submission.reason, submission.lease.owner) == (State.COMPLETED, None, "")
    assert platform.objects.exists(report_key(finished.id))
    assert all(
        platform.objects.exists(table_key(finished.id, name)) for name in (*TABLED, "estimates", "sites", "study")
    )
    asked = platform.records.documents.count("competitions", {"submissionId": finished.id})
    assert submission.counters.submission_num_completed_competitions == asked
    platform.close()


def test_every_check_ran_and_passed(finished: Finished) -> None:
    checks = finished.result.get_asset_check_evaluations()
    assert {(check.asset_key.to_user_string(), check.check_name) for check in checks} == {
        *((asset, "every_competition_accounted_for") for asset in TABLED),
        ("null_distribution", "null_is_symmetric"),
        ("skeletons", "every_site_decided"),
        ("prefix_skeletons", "every_site_decided"),
        ("estimates", "interval_contains_estimate"),
    }
    assert all(check.passed for check in checks)


@pytest.mark.parametrize("asset", sorted(TABLED))
def test_asset_shows_numbers_a_table_and_where_it_is(finished: Finished, asset: str) -> None:
    metadata = finished.materialization(asset).metadata
    assert isinstance(metadata["competitions"].value, int)
    assert metadata["untestable competitions"].value == 0
    assert metadata["dagster/row_count"].value > 0
    assert isinstance(metadata["table"], dg.MarkdownMetadataValue)
    assert "|" in metadata["table"].md_str
    assert str(metadata["stored at"].value).startswith("file://")
    schema = metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    assert all("[" in (column.description or "") for column in schema.schema.columns)


@pytest.mark.parametrize("asset", sorted(PICTURED))
def test_pictures_in_the_event_log_are_small(finished: Finished, asset: str) -> None:
    plot = finished.materialization(asset).metadata["plot"]
    assert isinstance(plot, dg.MarkdownMetadataValue)
    assert plot.md_str.startswith("![")
    assert "data:image/" in plot.md_str
    assert len(plot.md_str) * 3 / 4 <= 20_000


def test_report_asset_links_the_report(finished: Finished) -> None:
    metadata = finished.materialization("report").metadata
    assert isinstance(metadata["report"], dg.UrlMetadataValue)
    path = Path(metadata["report"].url.removeprefix("file://"))
    assert path.read_text().startswith("<!")


def test_run_of_a_completed_submission_says_so_and_changes_nothing(finished: Finished) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_in_dagster(finished.home, instance, finished.id)
    assert not result.success
    assert "is completed already" in failures(result)["genome"]
    assert reason_of(finished.home, finished.id) == (State.COMPLETED, "")


def test_summary_tells_every_submission(finished: Finished) -> None:
    id = submitted(finished.home, study(seed=99))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [submission_summary], resources={"platform": PlatformResource(home=str(finished.home))}, instance=instance
        )
    [event] = result.asset_materializations_for_node("submission_summary")
    assert (event.metadata["submissions"].value, event.metadata["completed"].value) == (2, 1)
    platform = platform_of(finished.home)
    page = platform.objects.get(SUMMARY_KEY).decode()
    platform.close()
    assert finished.id[:8] in page
    assert id[:8] in page


def test_second_run_on_a_leased_submission_ends_without_failing_it(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study())
    platform = platform_of(home)
    assert platform.records.submissions.acquire_lease(id, "elsewhere:1:first", 600) is not None
    result = run_in_dagster(home, instance, id)
    assert not result.success
    assert "Another run (elsewhere:1:first) works on submission" in failures(result)["genome"]
    submission = platform.records.submissions.get(id)
    assert (submission.state, submission.reason) == (State.RUNNING, None)
    assert submission.lease.owner == "elsewhere:1:first"
    assert platform.records.documents.count("competitions", {}) == 0
    platform.close()


def test_failing_assay_fails_submission_and_run(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study(containerImage="broken", maxFail=1))
    result = run_in_dagster(home, instance, id)
    assert not result.success
    state, reason = reason_of(home, id)
    assert state is State.FAILED
    assert "out of order" in reason
    assert reason in failures(result)["null_distribution"]
    assert instance.get_runs()[0].status is dg.DagsterRunStatus.FAILURE


def test_failed_blocking_check_stops_what_would_rest_on_it(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study())
    assert run_in_dagster(home, instance, id, assets=["genome", "null_distribution"]).success
    platform = platform_of(home)
    lost = next(iter(platform.records.competition_results.find({"submissionId": id})))
    platform.records.documents.delete("competitionResults", {"_id": lost.id})
    platform.close()
    result = run_in_dagster(home, instance, id)
    assert not result.success
    [failed] = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert (failed.asset_key, failed.check_name) == (
        dg.AssetKey("null_distribution"),
        "every_competition_accounted_for",
    )
    assert (failed.metadata["asked"].value, failed.metadata["answered"].value) == (100, 99)
    assert result.asset_materializations_for_node("screen") == []
    state, reason = reason_of(home, id)
    assert state is State.FAILED
    assert "every_competition_accounted_for failed (asked: 100, answered: 99, untestable: 0)" in reason
    assert "purge" in reason


def test_estimate_outside_its_interval_is_found() -> None:
    estimates = pd.DataFrame({"quantity": ["additive sites"], "value": [5.0], "low": [6.0], "high": [7.0]})
    outside = interval_contains_estimate.result(estimates)
    assert not outside.passed
    assert outside.metadata["outside"].value == "additive sites"


def test_half_decided_skeleton_stops_the_run(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study(assayTypes=["skeletonization", "jackknifeKnockout"]))
    assert run_in_dagster(home, instance, id, assets=["genome", "null_distribution", "skeletons"]).success
    platform = platform_of(home)
    table = read_table(platform.objects, id, "skeletons")
    assert table is not None
    write_table(platform.objects, id, "skeletons", table.iloc[1:])
    platform.close()
    result = run_in_dagster(home, instance, id)
    assert [check.check_name for check in result.get_asset_check_evaluations() if not check.passed] == [
        "every_site_decided"
    ]
    assert result.asset_materializations_for_node("jackknife") == []
    assert reason_of(home, id)[0] is State.FAILED


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["nulldist"], {"null_distribution"}),
        (["screenCritical"], {"null_distribution", "screen"}),
        (["doseCalibration"], {"null_distribution", "screen", "calibration"}),
        (["doseTitration"], {"null_distribution", "screen", "calibration", "titration"}),
        (["skeletonization"], {"null_distribution", "skeletons"}),
        (["jackknifeKnockout"], {"null_distribution", "skeletons", "jackknife"}),
        (["prefixSkeletons"], {"null_distribution", "prefix_skeletons"}),
        ([assay_type.value for assay_type in AssayType], set(ASSETS)),
    ],
)
def test_selection_has_what_is_asked_and_all_it_needs(chosen: list[str], expected: set[str]) -> None:
    keys = selection_of([AssayType(name) for name in chosen])
    assert len(keys) == len(set(keys))
    assert {key.to_user_string() for key in keys} == expected | {"genome", "estimates", "report"}


def test_run_of_some_assay_types_makes_only_theirs(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study(assayTypes=["nulldist"]))
    result = run_in_dagster(home, instance, id)
    assert result.success
    keys = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert keys == {"genome", "null_distribution", "estimates", "report"}
    assert reason_of(home, id) == (State.COMPLETED, "")


def test_a_store_that_is_away_interrupts_a_submission_and_fails_none(
    tmp_path: Path, organisms: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    id = submitted(home, study(assayTypes=["nulldist"]))

    def state() -> State:
        platform = platform_of(home)
        found = platform.records.submissions.get(id).state
        platform.close()
        return found

    in_the_way = home / "testing" / "objects" / "submissions"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.touch()
    with dg.DagsterInstance.ephemeral() as instance:
        assert not run_in_dagster(home, instance, id).success
        assert state() is State.RUNNING
        in_the_way.unlink()
        assert run_in_dagster(home, instance, id).success
    assert state() is State.COMPLETED
