"""What came back of an instance of job logs that was removed: by a tick or run under way, or one that was killed."""

from itertools import islice

import dagster as dg

from knockem_dagster.joblogs.removal import remove_strays, removed
from knockem_dagster.platform import Platform
from resources.dagster_storage import forget, runs_of
from resources.names import INSTANCES
from resources.platform import PlatformResource
from sensors.rounds import START

MOST_LOOKED_AT = 500
"""Partitions looked at in one tick, and reports."""


@dg.sensor(
    name="removed_instances",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Removes what came back of an instance of job logs while that was removed.",
)
def removed_instances(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Remove what came back of removed instances; look at some of the partitions and reports at a time."""
    opened = platform.open()
    partition, _, report = (context.cursor or "").partition(" ")
    found = opened.records.job_log_reports.find(
        {"_id": {"$gt": report or START}}, sort=[("_id", 1)], limit=MOST_LOOKED_AT
    )
    reports = list(found)
    swept = remove_strays(opened.records, opened.objects, reports)
    forgotten, end = _forget_removed(context.instance, opened, after=partition or START)
    last = reports[-1].id if len(reports) == MOST_LOOKED_AT else START
    told = f"removed instances that had come back: {swept} in the stores, {forgotten} in Dagster"
    return dg.SensorResult(skip_reason=told, cursor=f"{end} {last}")


def _forget_removed(instance: dg.DagsterInstance, platform: Platform, *, after: str) -> tuple[int, str]:
    """Forget partitions of removed instances; return how many there were, and where the next look goes on."""
    waiting = (id for id in sorted(instance.get_dynamic_partitions(INSTANCES)) if id > after)
    part = list(islice(waiting, MOST_LOOKED_AT))
    over = [id for id in removed(platform.records, part) if all(run.is_finished for run in runs_of(instance, id))]
    for id in over:
        forget(instance, id, of=INSTANCES)
    return len(over), part[-1] if len(part) == MOST_LOOKED_AT else START
