"""What happens by the clock: old runs are removed, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from assets.partitions import SUBMISSION_JOB
from knockem_dagster.definitions import build_definitions
from resources.platform import PlatformResource
from sensors.schedules import retention_schedule, summary_schedule


def run_from(instance: dg.DagsterInstance, *, days_ago: float, status: dg.DagsterRunStatus) -> str:
    """Record a run as it was made some days ago, and return its id."""
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    run = dg.DagsterRun(job_name=SUBMISSION_JOB, status=status)
    storage.add_historical_run(run, datetime.now(UTC) - timedelta(days=days_ago))
    return run.run_id


def test_retention_removes_finished_runs_that_are_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_KEEP_RUNS_DAYS", "10")
    platform = PlatformResource(home=str(tmp_path))
    definitions = build_definitions(resource_overrides={"platform": platform})
    with dg.DagsterInstance.ephemeral() as instance:
        old = [
            run_from(instance, days_ago=11, status=status)
            for status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
        ]
        recent = run_from(instance, days_ago=9, status=dg.DagsterRunStatus.SUCCESS)
        unfinished = run_from(instance, days_ago=11, status=dg.DagsterRunStatus.STARTED)
        result = definitions.resolve_job_def("retention").execute_in_process(instance=instance)
        left = {run.run_id for run in instance.get_runs()}
    assert left == {recent, unfinished, result.run_id}
    assert not left & set(old)


@pytest.mark.parametrize("schedule", [summary_schedule, retention_schedule], ids=lambda each: each.name)
def test_schedules_run_without_being_switched_on(schedule: dg.ScheduleDefinition) -> None:
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC))
        tick = build_definitions().resolve_schedule_def(schedule.name).evaluate_tick(context)
    assert len(tick.run_requests or []) == 1
