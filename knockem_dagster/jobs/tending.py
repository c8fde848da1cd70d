"""Keeping the queue and the record in step: lost workers, lost jobs, owners that are over, jobs nobody can run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from knockem_dagster.containers.runtime import Runtime
from knockem_dagster.jobs.inspection import owner_states
from knockem_dagster.jobs.job_records import put_missing, record_unrecorded
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.reaping import Reaped, reap_lapsed
from knockem_dagster.jobs.unblocking import complete_if_over
from knockem_dagster.jobs.worker_sources import Say
from knockem_dagster.jobs.workflows import take_back
from knockem_dagster.records.catalog import Records

HALF_STORED_AFTER = timedelta(hours=1)
"""No submission takes so long to store a workflow."""


@dataclass(frozen=True, slots=True)
class Tended:
    """What was found and mended: lost workers, jobs put again, owners taken out; and why some owners' jobs wait."""

    reaped: Sequence[Reaped]
    put_again: int
    taken_out: Sequence[str]
    hindrances: dict[str, str]


async def look_after_workers(
    queue: Queue, records: Records, runtimes: Sequence[Runtime], *, lease_seconds: float, say: Say
) -> list[Reaped]:
    """Give up workers whose lease has lapsed, and record what workers left unrecorded when they died."""
    reaped = await reap_lapsed(queue, runtimes, lease_seconds=lease_seconds)
    for each in reaped:
        say(f"Worker {each.worker} on {each.host} is gone; its jobs ({each.jobs}) go to others.")
    if reaped:
        for owner, view in (await QueueViews(queue).owners()).items():
            if view.unrecorded and view.fields.get("recordedBy") == "worker":
                await record_unrecorded(records, queue, owner)
    return reaped


async def tend(
    queue: Queue, records: Records, runtimes: Sequence[Runtime], *, lease_seconds: float, say: Say
) -> Tended:
    """Do all that upkeep does for the queue. Safe at any time, by several at once."""
    reaped = await look_after_workers(queue, records, runtimes, lease_seconds=lease_seconds, say=say)
    # A server that has just started may have lost what workers still work on: they must hear of it first.
    has_settled = not await QueueViews(queue).unsettled_seconds(lease_seconds=lease_seconds)
    put_again = await restore_workflows(queue, records) if has_settled else 0
    await asyncio.to_thread(_take_back_half_stored, records)
    taken_out = await _take_out_what_is_over(queue, records)
    states = await owner_states(queue, records)
    hindrances = {state.owner: state.hindrance for state in states if state.hindrance and not state.running}
    return Tended(reaped, put_again, taken_out, hindrances)


async def restore_workflows(queue: Queue, records: Records, *, all_of_them: bool = False) -> int:
    """Put jobs again that the queue should have and has not; return how many.

    Only workflows of which the queue knows nothing to do are compared with the record, unless `all_of_them`. A workflow
    without anything left to do is completed. Competitions are put again by the runs that asked for them.
    """
    number = 0
    owners = await QueueViews(queue).owners()
    for workflow in await asyncio.to_thread(lambda: list(records.workflows.find({"state": "running"}))):
        view = owners.get(workflow.id)
        is_idle = view is None or not (view.active or sum(view.ready.values()))
        if is_idle and view is not None and view.unrecorded:
            await record_unrecorded(records, queue, workflow.id)
        elif is_idle or all_of_them:
            number += await put_missing(records, queue, workflow)
            await complete_if_over(records, workflow.id)
    return number


def _take_back_half_stored(records: Records) -> None:
    """Remove workflows whose submission died before all of them was stored: they never ran, and never will."""
    since = (datetime.now(UTC) - HALF_STORED_AFTER).isoformat()
    for workflow in list(records.workflows.find({"state": "uninitialized"})):
        if workflow.is_graph and workflow.datetime < since:
            take_back(records, workflow.id)


async def _take_out_what_is_over(queue: Queue, records: Records) -> list[str]:
    """Take submissions out of the queue that are over, purged, or were never in this record."""
    owners = list(await QueueViews(queue).owners())
    submissions = await asyncio.to_thread(records.submissions.get_many, owners)
    workflows = await asyncio.to_thread(records.workflows.get_many, owners)
    going = {
        *(id for id, submission in submissions.items() if not submission.state.is_final),
        *(id for id, workflow in workflows.items() if not workflow.is_over),
    }
    over = [owner for owner in owners if owner not in going]
    for owner in over:
        if owner in workflows:  # its workers may have died before they recorded what they had
            await record_unrecorded(records, queue, owner)
        await queue.cancel(owner, forget=True)
    return over
