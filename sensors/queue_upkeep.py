"""Upkeep of the queue: lost workers, lost jobs, submissions that are over, and jobs that no worker can run."""

import asyncio

import dagster as dg

from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.tending import Tended, tend
from knockem_dagster.jobs.working import runtimes_here
from knockem_dagster.platform import Platform
from resources.platform import PlatformResource


@dg.sensor(
    name="queue_upkeep",
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Gives the jobs of lost workers to others, and keeps the queue in step with the record.",
)
def queue_upkeep(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SkipReason:
    """Tend the queue once, and say what was found."""
    opened = platform.open()
    if not opened.has_queue:
        return dg.SkipReason("there is no queue: each run works alone")
    try:
        tended = asyncio.run(_tend(opened, context))
    except QueueAway as away:
        return dg.SkipReason(str(away))
    for owner, hindrance in tended.hindrances.items():
        context.log.warning(f"Nothing of {owner} is claimed: {hindrance}")
    waiting = "; ".join(f"{owner[:8]} waits: {hindrance}" for owner, hindrance in tended.hindrances.items())
    lost = sum(each.jobs for each in tended.reaped)
    return dg.SkipReason(
        f"workers lost: {len(tended.reaped)} with {lost} jobs; jobs put again: {tended.put_again}; "
        f"taken out: {len(tended.taken_out)}" + (f"; {waiting}" if waiting else "")
    )


async def _tend(platform: Platform, context: dg.SensorEvaluationContext) -> Tended:
    async with queue_of(platform) as queue:
        return await tend(
            queue,
            platform.records,
            runtimes_here(platform),
            lease_seconds=platform.settings.lease_seconds,
            say=context.log.warning,
        )
