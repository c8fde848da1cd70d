"""What happens by the clock: the summary over all submissions, and the removal of old runs from Dagster's storage."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from resources.dagster_storage import delete_run
from resources.platform import PlatformResource

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
MOST_AT_ONCE = 500

summary_schedule = dg.ScheduleDefinition(
    name="summary_schedule",
    target=dg.AssetSelection.assets("submission_summary"),
    cron_schedule="*/15 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Materializes the summary over all submissions every quarter of an hour.",
)


@dg.op(
    pool="retention",
    description="Deletes finished runs older than KNOCKEM_KEEP_RUNS_DAYS; results live in documents and objects.",
)
def delete_old_runs(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
    """Delete old finished runs with their events. The event log has no retention of its own."""
    before = datetime.now(UTC) - timedelta(days=platform.settings.keep_runs_days)
    old = context.instance.get_runs(dg.RunsFilter(statuses=FINISHED, created_before=before), limit=MOST_AT_ONCE)
    for run in old:
        delete_run(context.instance, run.run_id)
    context.log.info(f"{len(old)} runs from before {before:%Y-%m-%d} deleted")


@dg.job(executor_def=dg.in_process_executor, description="Removes old runs from Dagster's storage.")
def retention() -> None:
    """Delete old runs."""
    delete_old_runs()


retention_schedule = dg.ScheduleDefinition(
    name="retention_schedule",
    target=retention,
    cron_schedule="17 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night.",
)
