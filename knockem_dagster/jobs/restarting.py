"""Going on with a workflow that is over: what did not complete or has changed is run again, and what waited for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.errors import Conflict
from knockem_dagster.jobs.changed_inputs import InputsOfJobs
from knockem_dagster.jobs.graph_counts import GraphCounts
from knockem_dagster.jobs.job_enqueueing import settings_of
from knockem_dagster.jobs.job_records import record_unrecorded, result_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.unblocking import count_and_go_on
from knockem_dagster.jobs.workflows import PAGE, say_it_runs
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.job_graph import id_at
from knockem_dagster.records.jobs import JobRecord, JobState, ResourcesValue, ResultRecord, WorkflowRecord
from knockem_dagster.records.record import derived_id
from knockem_dagster.stores.documents import DeleteOne, Operation, Patch, PatchOne, PutNew
from knockem_dagster.stores.paging import pages

PATIENCE_SECONDS = 60.0
"""A worker hears of a cancellation after a third of its lease at most."""
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Enlargement:
    """By which factors the memory and the time are enlarged of jobs that were ended for lack of them."""

    memory: float = 1.5
    time: float = 1.5


async def restart_workflow(
    records: Records,
    queue: Queue,
    workflow: str,
    enlargement: Enlargement = Enlargement(),
    *,
    patience: float = PATIENCE_SECONDS,
) -> int:
    """Run again the jobs that did not complete or read what has changed, and those that waited for them.

    Returns how many these are. Results of earlier runs are kept. Waits, for so many seconds, until workers have ended
    what was canceled. Raises Conflict when they have not by then, while the workflow is going, or when there is nothing
    to run again.
    """
    counts = GraphCounts(queue, workflow)
    if not await counts.begin(anew=False):
        raise Conflict("Somebody else lets it go on at this moment; try again in two minutes.")
    try:
        _check_it_is_over(await asyncio.to_thread(records.workflows.get, workflow))
        await _wait_for_workers(records, queue, workflow, patience)
        return await _restart(records, queue, workflow, enlargement, counts)
    finally:
        await counts.end()


def _check_it_is_over(workflow: WorkflowRecord) -> None:
    if not workflow.is_over:
        raise Conflict("It is still going: `./knockem workflow cancel` ends it.")


async def _wait_for_workers(records: Records, queue: Queue, workflow: str, patience: float) -> None:
    """Wait until no worker runs, or has still to record, anything of a workflow that is over.

    What a worker left unrecorded that was given up is recorded here.
    """
    until = time.monotonic() + patience
    while busy := await _busy_workers(queue, workflow):
        if time.monotonic() > until:
            told = ", ".join(sorted(busy))
            raise Conflict(f"Jobs of it are still being ended by {told}; try again when that is over.")
        await asyncio.sleep(LOOK_SECONDS)
    await record_unrecorded(records, queue, workflow)


async def _busy_workers(queue: Queue, workflow: str) -> set[str]:
    """Return the workers that have still to end jobs of a workflow, or to record what came of others."""
    views = QueueViews(queue)
    ending = await views.ending(workflow)
    recording = {result_of(workflow, entry).compute_node for entry in await queue.outcomes(workflow)}
    return ending | (recording & (await views.workers()).keys() if recording else set())


async def _restart(records: Records, queue: Queue, id: str, enlargement: Enlargement, counts: GraphCounts) -> int:
    workflow = await asyncio.to_thread(records.workflows.get, id)
    _check_it_is_over(workflow)
    again = await asyncio.to_thread(_to_run_again, records, id)
    if not again:
        raise Conflict("All its jobs completed, and what they read is as it was: there is nothing to run again.")
    await queue.cancel(id, forget=True)
    await asyncio.to_thread(_reset, records, again, enlargement)
    await say_it_runs(records, workflow)
    await queue.enqueue(id, settings=settings_of(workflow))
    await count_and_go_on(records, queue, id, counts)
    return len(again)


def _to_run_again(records: Records, workflow: str) -> set[str]:
    """Return the jobs that did not complete, those that read what has changed since, and all that waited for these.

    What they read and is gone is made again, too.
    """
    jobs = {job.id: job for job in records.jobs.find({"workflowId": workflow})}
    completed = {id: job for id, job in jobs.items() if job.state is JobState.COMPLETED}
    inputs = InputsOfJobs.of(records, workflow)
    dependents: dict[str, list[str]] = {}
    for edge in records.blocks.find({"workflowId": workflow}):
        dependents.setdefault(id_at(edge.origin), []).append(id_at(edge.target))
    again = (jobs.keys() - completed.keys()) | inputs.changed(records, completed)
    pending = list(again)
    while pending:
        job = jobs[pending.pop()]
        # Nothing depends on what an action does.
        follow = [] if job.is_action else dependents.get(job.id, [])
        new = {*follow, *inputs.makers_of_missing(job)} - again
        again |= new
        pending += new
    return again


def _reset(records: Records, jobs: Iterable[str], enlargement: Enlargement) -> None:
    """Let jobs be as if they had never run, but for their earlier results, which get ids of their own."""
    for page in pages(sorted(jobs), PAGE):
        operations: list[Operation] = []
        results = records.results.get_many(page)
        for job, result in results.items():
            earlier = result.model_copy(update={"id": derived_id(job, "run", result.datetime), "final": False})
            operations.append(PutNew(ResultRecord.collection.name, earlier.to_document()))
            operations.append(DeleteOne(ResultRecord.collection.name, job))
        for job in records.jobs.get_many(page).values():
            resources = _enlarged(job.resources, results.get(job.id), enlargement)
            changes = {"state": JobState.BLOCKED.value, "resources": resources.model_dump(by_alias=True)}
            operations.append(PatchOne(JobRecord.collection.name, job.id, Patch(set=changes)))
        records.documents.bulk(operations)


def _enlarged(resources: ResourcesValue, last: ResultRecord | None, enlargement: Enlargement) -> ResourcesValue:
    """Return what a job may use next time."""
    if last is not None and last.outcome is Outcome.OUT_OF_MEMORY:
        return resources.model_copy(update={"memory_mib": math.ceil(resources.memory_mib * enlargement.memory)})
    if last is not None and last.outcome is Outcome.TIMED_OUT:
        return resources.model_copy(update={"seconds": resources.seconds * enlargement.time})
    return resources
