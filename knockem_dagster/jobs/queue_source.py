"""The asker's side of the queue: an assay run's attempts go in, their outcomes come out, whoever works on them.

An asker outlives the server: while that is away it waits, and when it comes back having forgotten attempts, these are
put again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, Outcome
from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs.attempt_records import attempt_id_of, from_payload, job_of
from knockem_dagster.jobs.queue import AssayCounts, Entry, OwnerSettings, Queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.requirements import Requirement

WAIT_SECONDS = 1.0
COMPARE_SECONDS = 5.0
"""How often the queue's jobs are compared with those that must be there."""
AWAY_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LeftOver:
    """What an earlier run of a submission left in the queue.

    `ended`: outcomes that are not recorded; `lost`: those of attempts lost with its own worker; `under_way`: the rest.
    """

    ended: Sequence[Entry]
    lost: frozenset[str]
    under_way: frozenset[str]


def own_worker(submission_id: str) -> str:
    """Return what the names of the workers inside a submission's runs begin with."""
    return f"run-{submission_id}-"


async def take_stock(queue: Queue, submission_id: str) -> LeftOver:
    """Return what an earlier run left, taking from its own worker, which died with it, what that held.

    Only for who holds the submission's lease: nobody else may be asking for it.
    """
    ready, held = await queue.jobs_of(submission_id)
    own = own_worker(submission_id)
    await queue.reap(sorted({worker for worker in held.values() if worker.startswith(own)}), now=True)
    ended: list[Entry] = []
    while entries := await queue.outcomes(submission_id, after=ended[-1].id if ended else b"0"):
        ended += entries
    lost = frozenset(attempt_id_of(entry.job) for entry in ended if _is_lost_with(own, entry))
    over = {entry.job for entry in ended}
    left = {attempt_id_of(job) for job in (ready | held.keys()) - over}
    return LeftOver(ended, lost, frozenset(left - lost))


def _is_lost_with(own: str, entry: Entry) -> bool:
    """Tell whether an attempt was lost with a submission's own worker, whoever gave that up."""
    said = orjson.loads(entry.payload)
    return said["outcome"] == Outcome.LOST and said.get("worker", "").startswith(own)


class QueueSource:
    """An AttemptSource over the queue, for one submission whose lease the caller holds."""

    def __init__(
        self,
        queue: Queue,
        submission_id: str,
        requirement: Requirement,
        *,
        max_active: int,
        lease_seconds: float,
        on_stray: Callable[[Sequence[Entry]], object],
    ) -> None:
        """`on_stray` is given outcomes nobody here asked for, to record them; it may block.

        `lease_seconds`: of the workers, which may not have heard yet that a server has lost what they work on.
        """
        self._queue = queue
        self._owner = submission_id
        self._requirement = requirement
        # The asker decides what is tried again: it knows the competition behind the attempts.
        self._settings = OwnerSettings(max_active=max_active, max_fail=1, max_lost=1)
        self._views = QueueViews(queue)
        self._lease_seconds = lease_seconds
        self._on_stray = on_stray
        self._expected: dict[bytes, Attempt] = {}
        self._heard: list[bytes] = []
        self._last = b"0"
        self._compared = time.monotonic()

    def expected(self, jobs: Sequence[bytes]) -> list[Attempt]:
        """Return the attempts behind jobs, as far as they were asked for here."""
        return [self._expected[job] for job in jobs if job in self._expected]

    async def put(self, attempts: Sequence[Attempt]) -> None:
        """Make attempts ready to be claimed, waiting while the server is away."""
        jobs = {job_of(attempt.id): attempt for attempt in attempts}
        self._expected.update(jobs)
        try:
            await self._enqueue(list(jobs))
        except QueueAway:
            await self._until_answered()

    async def adopt(self, attempts: Sequence[Attempt]) -> None:
        """Expect attempts that are in the queue already."""
        self._expected.update((job_of(attempt.id), attempt) for attempt in attempts)

    async def note_assays(self, counts: AssayCounts) -> None:
        """Tell the queue how far the submission is."""
        await self._queue.enqueue(self._owner, settings=self._settings, assays=counts)

    async def outcomes(self) -> Sequence[AttemptOutcome]:
        """Wait for outcomes; those heard before are recorded by now and dropped from the queue."""
        while True:
            try:
                heard, self._heard = self._heard, []
                await self._queue.acknowledge(self._owner, heard)
                entries = await self._queue.outcomes(self._owner, after=self._last, wait=WAIT_SECONDS)
                if time.monotonic() - self._compared > COMPARE_SECONDS:
                    await self._put_again()
            except QueueAway:
                await self._until_answered()
                continue
            outcomes = await self._take(entries)
            if outcomes:
                return outcomes

    async def close(self, *, forget: bool) -> None:
        """Acknowledge what was recorded; `forget` what is still in the queue too, else the next run adopts it."""
        try:
            await self._queue.acknowledge(self._owner, self._heard)
            if forget:
                await self._queue.cancel(self._owner, forget=True)
        except QueueAway:
            return  # upkeep removes what a submission that is over has left

    async def _take(self, entries: Sequence[Entry]) -> list[AttemptOutcome]:
        outcomes: list[AttemptOutcome] = []
        strays: list[Entry] = []
        for entry in entries:
            self._last = entry.id
            attempt = self._expected.pop(entry.job, None)
            if attempt is None:
                strays.append(entry)
            else:
                outcomes.append(from_payload(attempt, entry.payload))
        if strays:
            await asyncio.to_thread(self._on_stray, strays)
        self._heard += [entry.id for entry in entries]
        return outcomes

    async def _enqueue(self, jobs: Sequence[bytes]) -> None:
        await self._queue.enqueue(self._owner, jobs, requirement=self._requirement, settings=self._settings)

    async def _put_again(self) -> None:
        """Put again what must be in the queue and is not: the server lost it, or a call's fate is unknown.

        Not before its workers have ended what it has lost, or more would run than maxActive allows.
        """
        self._compared = time.monotonic()
        if await self._views.unsettled_seconds(lease_seconds=self._lease_seconds):
            return
        expected = set(self._expected)
        ready, held = await self._queue.jobs_of(self._owner)
        missing = expected - ready - held.keys()
        if missing:
            # An outcome is in the stream before its job is in nobody's hands: look there last.
            ended = await self._queue.outcomes(self._owner, after=self._last)
            missing -= {entry.job for entry in ended}
            await self._enqueue([job for job in self._expected if job in missing])

    async def _until_answered(self) -> None:
        """Wait for the server to come back, and put again what it does not know."""
        while True:
            await asyncio.sleep(AWAY_PAUSE_SECONDS)
            try:
                await self._put_again()
            except QueueAway:
                continue
            return
