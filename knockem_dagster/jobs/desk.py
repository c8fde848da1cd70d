"""Where one slot of a worker claims jobs from the queue and hands in what came of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from knockem_dagster.containers.attempts import Attempt, AttemptOutcome, Outcome
from knockem_dagster.jobs.attempt_records import job_of, to_payload
from knockem_dagster.jobs.connection import Connection
from knockem_dagster.jobs.queue import Claim, Entry, Report, Verdict, Wanted

WAIT_SECONDS = 5.0
"""The longest wait for a wake-up call before the queue is asked anyway."""
GONE = b'{"outcome":"lost","tail":"it is not in the record any more"}'
CANCELLED_CLAIM_SECONDS = 5.0
"""How long a slot that is ended waits for the answer to its last claim; what it gives would be nobody's."""


@dataclass(frozen=True, slots=True)
class JobReport:
    """What a slot says of a job it held: the verdict, seconds of slot time, and a payload for whoever records it."""

    job: bytes
    verdict: Verdict
    seconds: float = 0.0
    payload: bytes = b""


ReadAttempts = Callable[[Sequence[bytes]], Awaitable[Sequence[Attempt]]]


class Desk:
    """Claims jobs of one class, rather of one owner, for one slot; knows what the slot holds.

    When the queue hands out another owner's jobs, `claim` answers that there is no more, and `next` holds them.
    """

    def __init__(
        self,
        connection: Connection,
        first: Claim,
        *,
        waiter: str,
        only: str,
        keep_warm: float,
        over: asyncio.Event,
        latest_start: float = math.inf,
    ) -> None:
        """`keep_warm`: seconds to wait for more work; `over`: set when nothing more shall be claimed.

        `latest_start`: by the monotonic clock, when a job of this class can no longer finish in the time left.
        """
        self.owner = first.owner
        self.class_name = first.class_name
        self.next: Claim | None = None
        self.held: dict[bytes, bytes] = {}
        self._first: Claim | None = first
        self._claimed: Sequence[bytes] = ()
        self._connection = connection
        self._waiter = waiter
        self._only = only
        self._keep_warm = keep_warm
        self._over = over
        self._latest_start = latest_start
        for job in first.jobs:
            self.held[job] = first.token

    async def claim(self, most: int) -> Sequence[bytes]:
        """Wait for jobs; at most `most`. Empty when there are none for this owner any more."""
        if self._first is not None:
            first, self._first = self._first, None
            return first.jobs
        wanted = Wanted([self.class_name], most, only=self._only, preferred=self.owner)
        until = min(time.monotonic() + self._keep_warm, self._latest_start)
        while not self._over.is_set() and time.monotonic() < self._latest_start:
            left = until - time.monotonic()
            self._claimed = ()
            await self._ask(wanted, wait=left > 0)
            if self._claimed or self.next is not None or left <= 0:
                return self._claimed
            await self._connection.wait_for_work(self._waiter, min(left, WAIT_SECONDS), self._over)
        return ()

    async def may_start(self, job: bytes) -> bool:
        """Tell whether a claimed job may be started now: still held, by a lease that is in force, and in time."""
        await self._connection.hold_lease()
        return job in self.held and time.monotonic() < self._latest_start

    async def finish(self, reports: Sequence[JobReport]) -> list[bytes | None]:
        """Hand in jobs. For each the id of its outcome's entry; None for one that is not held (any more)."""
        known = [report for report in reports if report.job in self.held]
        answers = await self._connection.finish(
            [
                Report(self.owner, each.job, self.held[each.job], each.verdict, each.seconds, each.payload)
                for each in known
            ]
        )
        for each in known:
            self.held.pop(each.job, None)
        entries = dict(zip((each.job for each in known), answers, strict=True))
        return [entries.get(report.job) for report in reports]

    async def outcome(self, id: bytes) -> Entry | None:
        """Return an outcome that was handed in here and is not acknowledged yet."""
        return await self._connection.outcome(self.owner, id)

    async def put_back(self, jobs: Sequence[bytes]) -> None:
        """Hand these back, untouched, as far as they are held here."""
        tokens = {job: self.held.pop(job) for job in jobs if job in self.held}
        await self._return([Report(self.owner, job, token, Verdict.RETURNED) for job, token in tokens.items()])

    async def give_back(self) -> None:
        """Hand back, untouched, whatever is still held here."""
        reports = [Report(self.owner, job, token, Verdict.RETURNED) for job, token in self.held.items()]
        if self.next is not None:
            reports += [Report(self.next.owner, job, self.next.token, Verdict.RETURNED) for job in self.next.jobs]
        self.held, self.next = {}, None
        await self._return(reports)

    async def _return(self, reports: Sequence[Report]) -> None:
        if reports:
            await self._connection.hand_back(reports)

    async def _ask(self, wanted: Wanted, *, wait: bool) -> None:
        """Claim, and note what was given even if whoever waits for it is cancelled meanwhile."""
        asking = asyncio.ensure_future(self._connection.claim(self._waiter, wanted, wait=wait))
        try:
            claim = await asyncio.shield(asking)
        except asyncio.CancelledError:
            await asyncio.wait([asking], timeout=CANCELLED_CLAIM_SECONDS)
            if asking.done() and not asking.exception():
                self._note(asking.result())
            asking.cancel()
            raise
        self._note(claim)

    def _note(self, claim: Claim | None) -> None:
        if claim is not None and claim.owner == self.owner:
            self.held.update(dict.fromkeys(claim.jobs, claim.token))
            self._claimed = claim.jobs
        else:
            self.next = claim


class QueueDesk:
    """An AttemptDesk over a Desk: attempts instead of 16 bytes, outcomes instead of verdicts."""

    def __init__(self, desk: Desk, read: ReadAttempts, *, worker: str) -> None:
        self._desk = desk
        self._read = read
        self._worker = worker

    async def claim(self, most: int) -> Sequence[Attempt]:
        """Wait for attempts; empty when there are none for this owner any more."""
        while jobs := await self._desk.claim(most):
            attempts = await self._read(jobs)
            known = {job_of(attempt.id) for attempt in attempts}
            # What is not in the record was purged meanwhile: nobody waits for it.
            await self._desk.finish([JobReport(job, Verdict.FAILED, payload=GONE) for job in jobs if job not in known])
            startable = [attempt for attempt in attempts if await self._desk.may_start(job_of(attempt.id))]
            if startable:
                return startable
        return ()

    async def finish(self, outcomes: Sequence[AttemptOutcome]) -> None:
        """Hand in outcomes. One that is refused is somebody else's by now, and is dropped."""
        await self._desk.finish([self._report(ended) for ended in outcomes])

    def _report(self, ended: AttemptOutcome) -> JobReport:
        verdict = {Outcome.SUCCEEDED: Verdict.SUCCEEDED, Outcome.LOST: Verdict.LOST}.get(ended.outcome, Verdict.FAILED)
        payload = to_payload(replace(ended, worker=self._worker))
        return JobReport(job_of(ended.attempt.id), verdict, ended.wall_seconds or 0.0, payload)
