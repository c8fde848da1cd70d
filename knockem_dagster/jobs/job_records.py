"""Command jobs on their way through the queue: into it from the record, and their results into the record."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.alone import SeenToElsewhere, alone
from knockem_dagster.jobs.attempt_records import attempt_id_of, fields_of
from knockem_dagster.jobs.commands.command import Command, CommandEnded
from knockem_dagster.jobs.job_enqueueing import enqueue_jobs, settings_of
from knockem_dagster.jobs.queue import Entry, Queue
from knockem_dagster.jobs.unblocking import follow_up, recount, state_after, state_changes
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import (
    EventRecord,
    JobRecord,
    JobState,
    ResourcesValue,
    ResultRecord,
    WorkflowRecord,
)
from knockem_dagster.records.record import derived_id, new_id
from knockem_dagster.stores.documents import Operation, Patch
from knockem_dagster.stores.paging import pages

PAGE = 5000
MOST_UNRECORDED = 100_000
FLUSH_SECONDS = 0.1
"""How long an event or a result may wait to be written with others."""


def command_of(job: JobRecord) -> Command:
    """Return what a worker runs for a job."""
    return Command(
        arguments=job.command,
        environment=job.environment,
        folder=None if job.folder is None else Path(job.folder),
        timeout_seconds=job.resources.seconds or None,
        memory_mib=job.resources.memory_mib,
        keep_output=job.keep_output,
    )


async def submit_jobs(records: Records, queue: Queue, workflow: WorkflowRecord, jobs: Sequence[JobRecord]) -> None:
    """Record a workflow with its jobs, then make them ready. Repeated after a crash it adds only what is missing."""
    await asyncio.to_thread(records.workflows.add, workflow)
    is_new = await asyncio.to_thread(records.jobs.add_many, jobs)
    if all(is_new):
        await enqueue_jobs(queue, workflow.id, jobs, settings=settings_of(workflow))
    else:
        await put_missing(records, queue, workflow)
    await asyncio.to_thread(records.workflows.patch, workflow.id, Patch(set={"state": "running"}))


async def put_missing(records: Records, queue: Queue, workflow: WorkflowRecord) -> int:
    """Make those jobs of a workflow ready that have no last result and are not in the queue; return how many.

    While somebody else does this, nothing is done.
    """
    if workflow.is_graph:
        await queue.enqueue(workflow.id, settings=settings_of(workflow))
        return await recount(records, queue, workflow.id)
    try:
        async with alone(queue, f"restoring:{workflow.id}"):
            return await _put_missing(records, queue, workflow)
    except SeenToElsewhere:
        return 0


async def _put_missing(records: Records, queue: Queue, workflow: WorkflowRecord) -> int:
    ready, held = await queue.jobs_of(workflow.id)
    queued = {attempt_id_of(job) for job in ready | held.keys()}
    number = 0
    found = pages(records.jobs.find({"workflowId": workflow.id}), PAGE)
    while page := await asyncio.to_thread(next, found, None):
        unqueued = [job for job in page if job.id not in queued]
        # The record last: what was handed in meanwhile is still in one of the two.
        unrecorded = {attempt_id_of(entry.job) for entry in await queue.outcomes(workflow.id, most=MOST_UNRECORDED)}
        ended = await asyncio.to_thread(records.results.get_many, [job.id for job in unqueued])
        known = unrecorded | ended.keys()
        missing = [job for job in unqueued if job.id not in known]
        await enqueue_jobs(queue, workflow.id, missing, settings=settings_of(workflow))
        number += len(missing)
    return number


def to_payload(ended: CommandEnded, *, worker: str, began: str | None = None, marks: Sequence[str] = ()) -> bytes:
    """Return what came of a try at a job, which found its files as they are marked, for whoever records it."""
    return orjson.dumps(
        {
            "outcome": ended.outcome.value,
            "exitCode": ended.exit_code,
            "tail": ended.tail,
            "peakMemory": ended.peak_memory,
            "cpuSeconds": ended.cpu_seconds,
            "wallSeconds": ended.wall_seconds,
            "worker": worker,
            "began": began,
            "marks": marks,
        }
    )


def result_of(workflow: str, entry: Entry, given: ResourcesValue | None = None) -> ResultRecord:
    """Return the record of a try, which could use what is given, if that is known.

    The same entry always has the same id, and the last try of a job the job's.
    """
    fields = fields_of(entry.payload)
    job = attempt_id_of(entry.job)
    return ResultRecord(
        id=job if entry.final else derived_id(job, "try", entry.id),
        workflow_id=workflow,
        job_id=job,
        final=entry.final,
        outcome=Outcome(fields["outcome"]),
        exit_code=fields.get("exitCode"),
        tail=fields.get("tail", ""),
        peak_memory=fields.get("peakMemory"),
        cpu_seconds=fields.get("cpuSeconds"),
        wall_seconds=fields.get("wallSeconds"),
        compute_node=fields.get("worker", ""),
        began=fields.get("began"),
        marks=fields.get("marks", ()),
        given=given,
    )


async def record_unrecorded(records: Records, queue: Queue, workflow: str) -> int:
    """Record outcomes that a worker left when it died between handing them in and recording them; return how many."""
    number = 0
    while entries := await queue.outcomes(workflow):
        await record_entries(records, queue, workflow, entries)
        number += len(entries)
    return number


async def record_outcomes_of(records: Records, queue: Queue, workflow: str, jobs: Collection[bytes]) -> None:
    """Record what came of these jobs, as far as it was handed in and is not recorded yet."""
    after = b"0"
    while entries := await queue.outcomes(workflow, after=after):
        theirs = [entry for entry in entries if entry.job in jobs]
        if theirs:
            await record_entries(records, queue, workflow, theirs)
        after = entries[-1].id


async def record_entries(records: Records, queue: Queue, workflow: str, entries: Sequence[Entry]) -> None:
    """Record outcomes; then what waited for these jobs goes on, and the queue may forget them.

    Whoever records the same ones changes nothing.
    """
    jobs = await asyncio.to_thread(records.jobs.get_many, [attempt_id_of(entry.job) for entry in entries])
    # A restart gives a job more only after all that came of it before is recorded.
    given = {id: job.resources for id, job in jobs.items()}
    results = [result_of(workflow, entry, given.get(attempt_id_of(entry.job))) for entry in entries]
    over = {each.job_id: state_after(each) for each in results if each.final and _has_state(jobs.get(each.job_id))}
    operations = [*records.results.additions(results), *state_changes(over)]
    await asyncio.to_thread(records.documents.bulk, operations)
    if over:
        await follow_up(records, queue, workflow, over)
    await queue.acknowledge(workflow, [entry.id for entry in entries])


def _has_state(job: JobRecord | None) -> bool:
    return job is not None and job.state is not None


@dataclass(slots=True)
class _Batch:
    """What is to be written, and what of it the queue is to be told, by workflow."""

    operations: list[Operation] = field(default_factory=list[Operation])
    over: dict[str, dict[str, JobState]] = field(default_factory=dict[str, dict[str, JobState]])
    entries: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])

    def add(self, later: _Batch) -> None:
        """Put another batch behind this one."""
        self.operations += later.operations
        for workflow, states in later.over.items():
            self.over.setdefault(workflow, {}).update(states)
        for workflow, ids in later.entries.items():
            self.entries.setdefault(workflow, []).extend(ids)


class JobJournal:
    """Writes a worker's results and events to the record, several at a time, off the event loop."""

    def __init__(self, records: Records, queue: Queue) -> None:
        self._records = records
        self._queue = queue
        self._batch = _Batch()
        self._written = _Batch()
        self._stirred = asyncio.Event()
        self._urged = asyncio.Event()
        self._writing = asyncio.Lock()

    def note(self, subject: str, *, source: str, kind: str, **data: Any) -> None:
        """Post an event."""
        event = EventRecord(id=new_id(), subject=subject, source=source, kind=kind, data=data)
        self._batch.operations += self._records.events.additions([event])
        self._stirred.set()

    def record(self, job: JobRecord, entry: Entry) -> None:
        """Record what came of a try at a job; then what waited for it goes on, and the queue may forget the try."""
        result = result_of(job.workflow_id, entry, job.resources)
        self._batch.operations += self._records.results.additions([result])
        if result.final and job.state is not None:
            state = state_after(result)
            self._batch.operations += state_changes({job.id: state})
            self._batch.over.setdefault(job.workflow_id, {})[job.id] = state
            self._urged.set()
        self._batch.entries.setdefault(job.workflow_id, []).append(entry.id)
        self._stirred.set()

    async def run(self) -> None:
        """Write whatever comes, until cancelled; `flush` afterwards."""
        while True:
            await self._stirred.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._urged.wait()
            self._stirred.clear()
            self._urged.clear()
            try:
                await self.flush()
            except QueueAway:  # what is in the record is told to the queue once it is back
                self._stirred.set()

    async def flush(self) -> None:
        """Write what there is. Raises QueueAway when all of it is written, and the queue could not be told.

        Whatever it raises, what was not written or told is so next time.
        """
        async with self._writing:
            batch, self._batch = self._batch, _Batch()
            try:
                if batch.operations:
                    await asyncio.to_thread(self._records.documents.bulk, batch.operations)
            except BaseException:
                batch.add(self._batch)
                self._batch = batch
                raise
            batch.operations = []
            self._written.add(batch)
            for workflow, states in list(self._written.over.items()):
                await follow_up(self._records, self._queue, workflow, states)
                del self._written.over[workflow]
            for workflow, ids in list(self._written.entries.items()):
                await self._queue.acknowledge(workflow, ids)
                del self._written.entries[workflow]
