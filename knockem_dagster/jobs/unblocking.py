"""What follows when jobs of a graph are over: those that waited only for them are ready, or are canceled in their turn.

The record comes first: a job is over there before anything follows from it. Counting is done in the queue, each job
once; whoever dies in between leaves work that `recount` finds again by the record alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs.attempt_records import attempt_id_of, job_of
from knockem_dagster.jobs.graph_counts import Blocked, CountingLost, Ended, GraphCounts
from knockem_dagster.jobs.job_enqueueing import enqueue_jobs
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.job_graph import id_at, place_of
from knockem_dagster.records.jobs import JobRecord, JobState, ResultRecord
from knockem_dagster.records.record import now
from knockem_dagster.stores.documents import Patch, PatchOne
from knockem_dagster.stores.paging import pages

PAGE = 1000


def state_after(result: ResultRecord) -> JobState:
    """Return the state of a job after its last try."""
    return JobState.COMPLETED if result.outcome is Outcome.SUCCEEDED else JobState.FAILED


def state_changes(states: Mapping[str, JobState]) -> list[PatchOne]:
    """Return the operations that tell the record of these jobs' states."""
    return [PatchOne(JobRecord.collection.name, id, Patch(set={"state": state.value})) for id, state in states.items()]


async def follow_up(records: Records, queue: Queue, workflow: str, over: Mapping[str, JobState]) -> None:
    """Make ready what waited only for these jobs, which are over in the record; cancel what must not run any more.

    Telling the same again changes nothing. A workflow without anything left to do is completed.
    """
    while over:
        dependents = await asyncio.to_thread(_dependents, records, list(over))
        spoiling = await asyncio.to_thread(_spoiling, records, over)
        ended = [
            Ended(job_of(id), id not in spoiling, [job_of(each) for each in dependents.get(id, ())]) for id in over
        ]
        released = await GraphCounts(queue, workflow).release(ended)
        spoiled = {attempt_id_of(each.job) for each in released if each.spoiled}
        jobs = await asyncio.to_thread(records.jobs.get_many, [attempt_id_of(each.job) for each in released])
        over = await _go_on(records, queue, workflow, list(jobs.values()), spoiled)
    await complete_if_over(records, workflow)


async def complete_if_over(records: Records, workflow: str) -> None:
    """Complete a workflow that is running, and of which all jobs are over."""
    if not await asyncio.to_thread(_has_more, records, workflow):
        running, completed = {"_id": workflow, "state": "running"}, {"state": "completed", "ended": now()}
        await asyncio.to_thread(records.documents.claim, records.workflows.name, running, Patch(set=completed))


async def recount(records: Records, queue: Queue, workflow: str) -> int:
    """Count anew and go on, unless anything of the workflow is ready, in work, or not followed up yet."""
    counts = GraphCounts(queue, workflow)
    if not await counts.begin():
        return 0
    try:
        return await count_and_go_on(records, queue, workflow, counts)
    except CountingLost:
        return 0
    finally:
        await counts.end()


async def count_and_go_on(records: Records, queue: Queue, workflow: str, counts: GraphCounts) -> int:
    """Note, by the record, who waits for how many, and make ready what waits for nothing; return how many.

    For who has begun to count (GraphCounts.begin), of a workflow that runs. Raises CountingLost.
    """
    counted = await asyncio.to_thread(_counted, records, workflow)
    # Whoever tells of these later (a worker that was paused, say) must not have them counted again.
    await counts.release([Ended(job_of(id), True, ()) for id in counted.over])
    for ids in pages(counted.waiting, PAGE):
        blocked = [Blocked(job_of(id), counted.blockers.get(id, 0), id in counted.spoiled) for id in ids]
        await counts.expect(blocked)
    free = [id for id in counted.waiting if not counted.blockers.get(id)]
    over: dict[str, JobState] = {}
    for ids in pages(free, PAGE):
        jobs = await asyncio.to_thread(records.jobs.get_many, ids)
        over |= await _go_on(records, queue, workflow, list(jobs.values()), counted.spoiled)
    await follow_up(records, queue, workflow, over)
    # Who cancels tells the record first, and then empties the queue: one of the two sees what the other did.
    if free and (await asyncio.to_thread(records.workflows.get, workflow)).state != "running":
        await queue.cancel(workflow)
    return len(free) - len(over)


async def _go_on(
    records: Records, queue: Queue, workflow: str, jobs: Sequence[JobRecord], spoiled: set[str]
) -> dict[str, JobState]:
    """Make jobs ready that wait for nothing, but for those that are canceled by what was before; return these."""
    canceled = {job.id: job.state for job in jobs if job.id in spoiled and job.cancel_on_blocking_job_failure}
    blocked = [job for job in jobs if job.state is JobState.BLOCKED]
    changes = {job.id: JobState.CANCELED for job in blocked if job.id in canceled}
    if changes:
        await asyncio.to_thread(records.documents.bulk, state_changes(changes))
    await enqueue_jobs(queue, workflow, [job for job in blocked if job.id not in canceled], counted=True)
    # One that is canceled already may be so by somebody who died before telling what follows.
    return {id: JobState.CANCELED for id, state in canceled.items() if state in (JobState.BLOCKED, JobState.CANCELED)}


def _dependents(records: Records, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the jobs that wait for each of these."""
    found: dict[str, list[str]] = {}
    for page in pages(ids, PAGE):
        places = [place_of(JobRecord, id) for id in page]
        for edge in records.blocks.find({"_from": {"$in": places}}):
            found.setdefault(id_at(edge.origin), []).append(id_at(edge.target))
    return found


def _spoiling(records: Records, over: Mapping[str, JobState]) -> set[str]:
    """Return those of these jobs that others may depend on, and that did not complete."""
    ids = [id for id, state in over.items() if state is not JobState.COMPLETED]
    return {job.id for job in records.jobs.get_many(ids).values() if not job.is_action} if ids else set()


def _has_more(records: Records, workflow: str) -> bool:
    """Tell whether any job of a workflow is not over: by its state, or where it has none by its last result."""
    where = {"workflowId": workflow, "state": JobState.BLOCKED.value}
    if next(records.jobs.find(where, limit=1), None) is not None:
        return True
    stateless = records.jobs.find({"workflowId": workflow, "state": None})
    return any(len(records.results.get_many([job.id for job in page])) < len(page) for page in pages(stateless, PAGE))


@dataclass(slots=True)
class _Counted:
    """The jobs that are not over, and those that are; for how many each waits; of which a blocker did not complete."""

    waiting: list[str] = field(default_factory=list[str])
    over: list[str] = field(default_factory=list[str])
    blockers: dict[str, int] = field(default_factory=dict[str, int])
    spoiled: set[str] = field(default_factory=set[str])


def _counted(records: Records, workflow: str) -> _Counted:
    """Read the whole graph. A job with a last result is over, whether the record of the job says so already or not."""
    counted, not_completed = _Counted(), set[str]()
    for page in pages(records.jobs.find({"workflowId": workflow}), PAGE):
        ended = records.results.get_many([job.id for job in page if job.state is JobState.BLOCKED])
        states = {id: state_after(result) for id, result in ended.items()}
        if states:
            records.documents.bulk(state_changes(states))
        for job in page:
            state = states.get(job.id, job.state)
            if state is JobState.BLOCKED:
                counted.waiting.append(job.id)
                continue
            counted.over.append(job.id)
            if state is not JobState.COMPLETED and not job.is_action:
                not_completed.add(job.id)
    open_jobs = set(counted.waiting)
    for edge in records.blocks.find({"workflowId": workflow}):
        origin, target = id_at(edge.origin), id_at(edge.target)
        if origin in open_jobs:
            counted.blockers[target] = counted.blockers.get(target, 0) + 1
        elif origin in not_completed:
            counted.spoiled.add(target)
    return counted
