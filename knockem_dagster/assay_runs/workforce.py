"""Who works for a submission's run: a worker inside it, alone or beside the others that the queue brings."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence

import psutil

from knockem_dagster.assay_runs.ledger import record_ended
from knockem_dagster.containers.attempts import Attempt
from knockem_dagster.containers.contract import Organism
from knockem_dagster.errors import KnockemError, QueueAway
from knockem_dagster.jobs.attempt_records import AttemptReader, attempt_id_of, from_payload
from knockem_dagster.jobs.compute_node import ComputeNode, worker_name
from knockem_dagster.jobs.in_process import InProcessSource
from knockem_dagster.jobs.lanes import AttemptLane
from knockem_dagster.jobs.opening import open_queue
from knockem_dagster.jobs.organisms import organism_of, requirement_of
from knockem_dagster.jobs.queue import AssayCounts, Entry, Queue
from knockem_dagster.jobs.queue_source import QueueSource, own_worker, take_stock
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.requirements import Capacity, Requirement
from knockem_dagster.jobs.sources import AttemptSource
from knockem_dagster.jobs.worker import Worker
from knockem_dagster.platform import Platform
from knockem_dagster.records.genomes import GenomeRecord
from knockem_dagster.records.submissions import SubmissionRecord

AWAY_PAUSE_SECONDS = 1.0
NO_WORKERS = (
    "KNOCKEM_LEAVE_TO_WORKERS leaves this to workers, but there is no queue to reach them by: name a server in "
    "KNOCKEM_QUEUE_URL, or unset it."
)
_LOG = logging.getLogger(__name__)


class Workforce:
    """A source of attempts, and the task of the worker inside this run that works on them.

    `under_way`: attempts of an earlier run that others still work on. `stop` it.
    """

    source: AttemptSource
    task: asyncio.Task[None]
    under_way: frozenset[str] = frozenset()

    async def note_assays(self, counts: AssayCounts) -> None:
        """Tell others how far the submission is, if there are others."""

    async def in_work(self) -> int | None:
        """Return how many competitions workers have, by the queue's counter; None where there is no queue."""
        return None

    async def stop(self, *, forget: bool) -> None:
        """End the worker with its containers; `forget`: nobody else is to go on with what was asked."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Alone(Workforce):
    """The run has all to itself: no server, nothing outlives it."""

    def __init__(self, organism: Organism, *, slots: int, max_active: int) -> None:
        self.source = self._source = InProcessSource(workers=slots)
        worker = Worker(self._source, organism, slots=slots, most_in_flight=max_active)
        self.task = asyncio.create_task(worker.run())

    async def stop(self, *, forget: bool) -> None:
        """End the worker with its containers."""
        await self._source.close()
        await super().stop(forget=forget)


class OnQueue(Workforce):
    """The run's attempts go through the queue: its own worker, where it has one, takes what no other worker takes."""

    def __init__(self, platform: Platform, submission: SubmissionRecord, queue: Queue) -> None:
        self._platform = platform
        self._submission = submission
        self._queue = queue
        self._reader = AttemptReader(platform.records)
        self.source = self._source = QueueSource(
            queue,
            submission.id,
            requirement_of(submission),
            max_active=submission.max_active,
            lease_seconds=platform.settings.lease_seconds,
            on_stray=self._record,
        )

    async def begin(self, genome: GenomeRecord) -> None:
        """Record what an earlier run left unrecorded, and start the worker of this one, unless others do all."""
        left = await take_stock(self._queue, self._submission.id)
        await asyncio.to_thread(self._record, left.ended, left.lost)
        await self._queue.acknowledge(self._submission.id, [entry.id for entry in left.ended])
        known = await asyncio.to_thread(self._platform.records.attempt_results.get_many, list(left.under_way))
        if known:  # what is left is of a time when the run went on without the queue
            await self._queue.cancel(self._submission.id)
        else:
            self.under_way = left.under_way
        self.task = asyncio.create_task(self._work(genome))

    async def note_assays(self, counts: AssayCounts) -> None:
        """Tell the queue how far the submission is."""
        await self._source.note_assays(counts)

    async def in_work(self) -> int | None:
        """Return how many competitions workers have, by the queue's counter."""
        try:
            views = await QueueViews(self._queue).one_owner(self._submission.id)
        except QueueAway:
            return None
        return sum(view.active for view in views.values())

    async def stop(self, *, forget: bool) -> None:
        """End the worker; what others work on is left to the next run, unless all is to be forgotten."""
        await super().stop(forget=forget)
        await self._source.close(forget=forget)
        await self._queue.close()

    async def _work(self, genome: GenomeRecord) -> None:
        """Work until cancelled."""
        if self._platform.settings.leave_to_workers:
            await asyncio.Event().wait()
        else:
            await self._node(organism_of(self._platform, self._submission, genome)).run()

    def _node(self, organism: Organism) -> ComputeNode:
        async def same(_owner: str) -> Organism:
            return organism

        submission, requirement = self._submission, requirement_of(self._submission)
        name = worker_name(own_worker(submission.id))
        capacity = _capacity_for(requirement, cpus=self._platform.settings.cpus)
        slots = max(1, min(submission.max_active, int(capacity.cpus / requirement.cpus)))
        return ComputeNode(
            self._queue,
            {requirement.runtime: AttemptLane(same, self._read, worker=name)},
            capacity,
            name=name,
            lease_seconds=self._platform.settings.lease_seconds,
            say=_LOG.warning,
            only=submission.id,
            keep_warm=math.inf,
            most_held=max(1, submission.max_active // slots),
            drain_seconds=0.0,
        )

    async def _read(self, jobs: Sequence[bytes]) -> Sequence[Attempt]:
        expected = self._source.expected(jobs)
        if len(expected) == len(jobs):
            return expected
        return await asyncio.to_thread(self._reader.read, [attempt_id_of(job) for job in jobs])

    def _record(self, entries: Sequence[Entry], lost: frozenset[str] = frozenset()) -> None:
        """Record outcomes of attempts that an earlier run put.

        Those lost with its own worker blame nobody, or the one that was alone.
        """
        if not entries:
            return
        payloads = {attempt_id_of(entry.job): entry.payload for entry in entries}
        attempts = self._reader.read(list(payloads))
        outcomes = [from_payload(attempt, payloads[attempt.id]) for attempt in attempts]
        records = self._platform.records
        blameless = frozenset(id for id, made in records.attempts.get_many(list(lost)).items() if not made.alone)
        record_ended(records, outcomes, user_email=self._submission.user_email, blameless=blameless)


async def hire(platform: Platform, submission: SubmissionRecord, genome: GenomeRecord) -> Workforce:
    """Return the workforce of a run that holds the submission's lease: on the queue where there is one.

    Raises KnockemError where all is left to workers, and there is no queue to reach them by.
    """
    if not platform.has_queue:
        if platform.settings.leave_to_workers:
            raise KnockemError(NO_WORKERS)
        organism = organism_of(platform, submission, genome)
        slots = max(1, min(submission.max_active, platform.settings.cpus))
        return Alone(organism, slots=slots, max_active=submission.max_active)
    while True:
        try:
            queue = await open_queue(platform)
            force = OnQueue(platform, submission, queue)
            try:
                await force.begin(genome)
            except BaseException:
                await queue.close()
                raise
        except QueueAway as away:
            _LOG.warning("%s Waiting for it.", away)
            await asyncio.sleep(AWAY_PAUSE_SECONDS)
        else:
            return force


def _capacity_for(requirement: Requirement, *, cpus: int) -> Capacity:
    """Return what this machine gives a run: at least one container's worth, however small it is."""
    memory = psutil.virtual_memory().total >> 20
    return Capacity(
        cpus=max(float(cpus), requirement.cpus),
        memory_mib=max(memory, requirement.memory_mib),
        runtimes=frozenset({requirement.runtime}),
    )
