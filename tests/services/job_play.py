"""What tests of command jobs share: a workflow with its jobs, a record of their own, and a worker inside the test."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from knockem_dagster.jobs.job_records import submit_jobs
from knockem_dagster.jobs.near_source import NearSource
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.requirements import Capacity
from knockem_dagster.jobs.worker_sources import Say
from knockem_dagster.jobs.working import WorkerProcess
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import EventRecord, JobRecord, ResourcesValue, ResultRecord, WorkflowRecord
from knockem_dagster.records.record import new_id
from knockem_dagster.settings import load_settings
from tests.services.queue_play import until

SLOTS = 2


@contextmanager
def record_in(home: Path, **settings: Any) -> Iterator[Platform]:
    """Give a platform with a record of its own; its queue is another's."""
    platform = Platform(load_settings(home=home, documents_url=None, queue_url=None, **settings))
    try:
        yield platform
    finally:
        platform.close()


class Gate:
    """Something that jobs wait for, until it is opened: a named pipe, which nobody writes to before."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gate"
        os.mkfifo(self.path)

    def job(self, workflow: WorkflowRecord) -> JobRecord:
        return new_job(workflow, "cat", str(self.path))

    def open(self) -> None:
        """Let go all that wait, and whoever comes later."""
        self.path.rename(self.path.with_name("old gate"))
        self.path.write_bytes(b"")
        os.close(os.open(self.path.with_name("old gate"), os.O_RDWR | os.O_NONBLOCK))


@asynccontextmanager
async def opened_at_last(gate: Gate) -> AsyncIterator[None]:
    """Open a gate whatever happens, so that no failure has to wait for a worker's patience."""
    try:
        yield
    finally:
        if gate.path.is_fifo():
            gate.open()


def new_workflow(*, max_fail: int = 1) -> WorkflowRecord:
    """Return a workflow whose jobs may all be in work at once."""
    return WorkflowRecord(id=new_id(), name="w", max_active=1000, max_fail=max_fail, user_email="someone@example.org")


def new_job(
    workflow: WorkflowRecord, *command: str, keep_output: bool = False, cpus: float = 1.0, seconds: float = 0.0
) -> JobRecord:
    """Return a job of a workflow that runs this command."""
    return JobRecord(
        id=new_id(),
        workflow_id=workflow.id,
        name=" ".join(command),
        command=command,
        keep_output=keep_output,
        resources=ResourcesValue(cpus=cpus, memory_mib=64, seconds=seconds),
    )


@asynccontextmanager
async def worker_on(
    platform: Platform, queue: Queue, *, idle_seconds: float | None = None, say: Say = lambda line: None
) -> AsyncIterator[WorkerProcess]:
    """Give a worker with two slots that is at work; it is drained at the end."""
    capacity = Capacity(cpus=SLOTS, memory_mib=4096, runtimes=frozenset({"command"}))
    source = NearSource(platform.records, queue)
    worker = WorkerProcess(platform, source, capacity, say=say, idle_seconds=idle_seconds)
    working = asyncio.create_task(worker.run())
    try:
        await _unless_over(working, worker.registered())
        yield worker
    finally:
        worker.stop()
        await working


async def run_to_the_end(
    platform: Platform, queue: Queue, workflow: WorkflowRecord, jobs: Sequence[JobRecord]
) -> WorkerProcess:
    """Submit jobs, let a worker run them all, drain it, and return it."""
    await submit_jobs(platform.records, queue, workflow, jobs)
    async with worker_on(platform, queue) as worker:
        await until(recorded(platform, jobs))
    return worker


def recorded(platform: Platform, jobs: Sequence[JobRecord]) -> Callable[[], Awaitable[bool]]:
    """Return a condition: each of these jobs has its last result."""

    async def all_recorded() -> bool:
        found = await asyncio.to_thread(platform.records.results.get_many, [job.id for job in jobs])
        return len(found) == len(jobs)

    return all_recorded


def started(platform: Platform, workflow: WorkflowRecord, number: int) -> Callable[[], Awaitable[bool]]:
    """Return a condition: so many starts of jobs are in the record."""

    async def all_started() -> bool:
        kinds = await asyncio.to_thread(lambda: Counter(each.kind for each in events_of(platform, workflow.id)))
        return kinds["jobStarted"] >= number

    return all_started


def results_of(platform: Platform, workflow: WorkflowRecord) -> list[ResultRecord]:
    """Return all results of a workflow, oldest first."""
    found = platform.records.results.find({"workflowId": workflow.id})
    return sorted(found, key=lambda result: result.datetime)


def events_of(platform: Platform, subject: str) -> list[EventRecord]:
    """Return the events about a workflow or a worker, oldest first."""
    return list(platform.records.events.find({"subject": subject}, sort=[("datetime", 1)]))


async def _unless_over(working: asyncio.Task[None], condition: Awaitable[object]) -> None:
    """Wait for a condition; if the worker ends first, raise what ended it."""
    waiting = asyncio.ensure_future(condition)
    await asyncio.wait([waiting, working], return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        waiting.cancel()
        working.result()
