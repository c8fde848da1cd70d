"""Workflows as people see them: how many jobs are in which state, and single jobs with what came of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from knockem_dagster.jobs.attempt_records import attempt_id_of, job_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import OwnerView, QueueViews
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import JobRecord, JobState, ResultRecord, WorkflowRecord

READY, RUNNING = "ready", "running"
STATES = (JobState.BLOCKED.value, READY, RUNNING, *(state.value for state in JobState if state.is_over))
"""The states of jobs, in the order of their lives."""
MOST_BY_ID = 1000
"""Jobs in the queue that are read one by one; of more, the first are sooner found among all that are not over."""


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """A workflow and how many of its jobs are in which state; states without jobs are left out."""

    workflow: WorkflowRecord
    jobs: dict[str, int]

    @property
    def number(self) -> int:
        """How many jobs there are."""
        return sum(self.jobs.values())

    @property
    def number_over(self) -> int:
        """How many jobs are over."""
        return sum(self.jobs.get(state.value, 0) for state in JobState if state.is_over)

    @property
    def has_failed(self) -> bool:
        """Tell whether a job that is over did not complete, or no job goes on though not all completed."""
        expected = self.number if self.workflow.is_over else self.number_over
        return self.jobs.get(JobState.COMPLETED.value, 0) < expected


@dataclass(frozen=True, slots=True)
class JobView:
    """A job, its state, and its last result if it has one."""

    job: JobRecord
    state: str
    result: ResultRecord | None


async def view_workflow(records: Records, queue: Queue | None, workflow: WorkflowRecord) -> WorkflowView:
    """Return how far a workflow is. Without a queue, jobs that could be begun count as blocked."""
    owner: OwnerView | None = None
    if queue is not None:
        owner = (await QueueViews(queue).one_owner(workflow.id)).get(workflow.id)
    counts = await asyncio.to_thread(_counts, records, workflow.id)
    if owner is not None:
        going = counts.get(JobState.BLOCKED.value, 0)
        running = min(owner.active, going)
        ready = min(sum(owner.ready.values()), going - running)
        counts |= {JobState.BLOCKED.value: going - running - ready, READY: ready, RUNNING: running}
    return WorkflowView(workflow, {state: counts[state] for state in STATES if counts.get(state)})


def any_failed(records: Records, workflow: str) -> bool:
    """Tell whether any job of a workflow is over and did not complete."""
    states = (state.value for state in JobState if state.is_over and state is not JobState.COMPLETED)
    return any(next(records.jobs.find({"workflowId": workflow, "state": each}, limit=1), None) for each in states)


async def view_jobs(
    records: Records,
    queue: Queue | None,
    workflow: WorkflowRecord,
    *,
    states: Sequence[str] = (),
    begins: str = "",
    after: str = "",
    most: int = 50,
) -> list[JobView]:
    """Return jobs by name, at most so many: those in any of these states (all if none is named).

    `begins`: what their names begin with; `after`: the name after which to begin.
    """
    ready, running = await _in_queue(queue, workflow.id)

    def recorded(where: dict[str, Any]) -> Iterator[JobRecord]:
        names = ({"$gte": begins, "$lt": f"{begins}\uffff"} if begins else {}) | ({"$gt": after} if after else {})
        return records.jobs.find(where | ({"name": names} if names else {}), sort=[("name", 1)])

    def in_queue(jobs: Collection[bytes]) -> list[JobRecord]:
        found = records.jobs.get_many([attempt_id_of(job) for job in jobs]).values()
        return sorted((job for job in found if job.name.startswith(begins) and job.name > after), key=_name)

    def streams() -> Iterator[Iterable[JobRecord]]:
        if not states:
            yield recorded({"workflowId": workflow.id})
            return
        there = {state for state in states if state not in (READY, RUNNING)}
        asked = {job for state, jobs in ((READY, ready), (RUNNING, running)) if state in states for job in jobs}
        if len(asked) > MOST_BY_ID:
            there.add(JobState.BLOCKED.value)  # as which the record has those in the queue, too
        elif JobState.BLOCKED.value not in there:
            yield in_queue(asked)
        for state in there:
            yield recorded({"workflowId": workflow.id, "state": state})

    def look() -> list[JobView]:
        merged = ((job, _state(job, ready, running)) for job in heapq.merge(*streams(), key=_name))
        found = list(islice(((job, state) for job, state in merged if not states or state in states), most))
        results = records.results.get_many([job.id for job, _ in found])
        return [JobView(job, state, results.get(job.id)) for job, state in found]

    return await asyncio.to_thread(look)


def _name(job: JobRecord) -> str:
    return job.name


async def job_states(records: Records, queue: Queue | None, workflow: WorkflowRecord) -> dict[str, str]:
    """Return the state of every job of a graph. Reads them all."""
    ready, running = await _in_queue(queue, workflow.id)

    def look() -> dict[str, str]:
        found = records.jobs.find({"workflowId": workflow.id})
        return {job.id: _state(job, ready, running) for job in found}

    return await asyncio.to_thread(look)


def _state(job: JobRecord, ready: Collection[bytes], running: Collection[bytes]) -> str:
    if job.state is None or job.state.is_over:
        return "" if job.state is None else job.state.value
    number = job_of(job.id)
    return RUNNING if number in running else READY if number in ready else JobState.BLOCKED.value


async def _in_queue(queue: Queue | None, workflow: str) -> tuple[Collection[bytes], Collection[bytes]]:
    """Return the jobs that are ready, and those in work, as the queue names them."""
    if queue is None:
        return (), ()
    ready, held = await queue.jobs_of(workflow)
    return ready, held.keys()


def _counts(records: Records, workflow: str) -> dict[str, int]:
    return {
        state.value: records.documents.count(records.jobs.name, {"workflowId": workflow, "state": state.value})
        for state in JobState
    }
