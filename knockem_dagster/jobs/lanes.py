"""What a slot does with the jobs of one owner: competition attempts in containers, or plain commands."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.errors import SpawnerLost
from knockem_dagster.jobs.attempt_records import attempt_id_of, job_of
from knockem_dagster.jobs.commands.command import CommandEnded
from knockem_dagster.jobs.commands.launcher import CommandLauncher
from knockem_dagster.jobs.desk import GONE, Desk, JobReport, QueueDesk, ReadAttempts
from knockem_dagster.jobs.file_marks import mark_files
from knockem_dagster.jobs.job_records import command_of, to_payload
from knockem_dagster.jobs.queue import Entry, Verdict
from knockem_dagster.jobs.recovery import ATTEMPT, Recovery
from knockem_dagster.jobs.slots import Pace, Slot
from knockem_dagster.jobs.worker_actions import ActionRunner
from knockem_dagster.jobs.worker_sources import Journal, WorkerRecord
from knockem_dagster.records.jobs import JobRecord
from knockem_dagster.records.record import now

HANDED_IN_SECONDS = 0.1
"""How long a command's result may wait to be handed in with others, and a claimed command for one before it."""


class AttemptLane:
    """Runs attempts with the organism of their submission, in one container at a time."""

    keeps_warm = True

    def __init__(self, organism: Callable[[str], Awaitable[Organism]], read: ReadAttempts, *, worker: str) -> None:
        self._organism = organism
        self._read = read
        self._worker = worker

    async def run(self, desk: Desk, *, most: int) -> None:
        """Work until the desk has no more. Raises ContainerError when the organism cannot be used here."""
        organism = await self._organism(desk.owner)
        await Slot(QueueDesk(desk, self._read, worker=self._worker), organism, most).run()


@dataclass(slots=True)
class _Batch:
    """Jobs that a slot has claimed: those that wait for their turn, and what came of those that had it."""

    waiting: deque[JobRecord]
    reports: list[tuple[JobRecord, JobReport]] = field(default_factory=list[tuple[JobRecord, JobReport]])
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def take_reports(self) -> list[tuple[JobRecord, JobReport]]:
        """Return the reports that were not taken before, each with its job."""
        taken = list(self.reports)
        self.reports.clear()
        return taken

    def take_waiting(self) -> list[JobRecord]:
        """Return the jobs that wait, which are somebody else's concern from here on."""
        taken = list(self.waiting)
        self.waiting.clear()
        return taken


class CommandLane:
    """Runs plain commands, one after the other."""

    keeps_warm = False

    def __init__(
        self,
        record: WorkerRecord,
        launcher: CommandLauncher,
        journal: Journal,
        recovery: Recovery,
        actions: ActionRunner,
        *,
        worker: str,
    ) -> None:
        self._record = record
        self._launcher = launcher
        self._journal = journal
        self._worker = worker
        self._recovery = recovery
        self._actions = actions

    async def run(self, desk: Desk, *, most: int) -> None:
        """Work until the desk has no more."""
        pace = Pace(most)
        while claimed := await desk.claim(pace.window):
            await self._run_all(desk, await self._read(desk, claimed), pace)

    async def _read(self, desk: Desk, claimed: Sequence[bytes]) -> list[JobRecord]:
        found = await self._record.jobs([attempt_id_of(job) for job in claimed])
        # What is not in the record was removed meanwhile: nobody waits for it.
        gone = [job for job in claimed if attempt_id_of(job) not in found]
        await desk.finish([JobReport(job, Verdict.FAILED, payload=GONE) for job in gone])
        return [found[attempt_id_of(job)] for job in claimed if attempt_id_of(job) in found]

    async def _run_all(self, desk: Desk, jobs: Sequence[JobRecord], pace: Pace) -> None:
        batch = _Batch(deque(jobs))
        tending = asyncio.create_task(self._tend(desk, batch))
        try:
            while batch.waiting:
                job = batch.waiting.popleft()
                await self._actions.begin(job)
                if not await desk.may_start(job_of(job.id)):
                    continue  # canceled while others were running, or too late
                pace.began()
                report = await self._run(job)
                batch.reports.append((job, report))
                pace.answered(1)
                if job.num_dependents:
                    await self._hand_in(desk, batch.take_reports())
        finally:
            batch.over.set()
            await tending
            await self._hand_in(desk, batch.take_reports())

    async def _tend(self, desk: Desk, batch: _Batch) -> None:
        """Hand results in while others are in work; put back what waits behind a job that turns out to be long."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANDED_IN_SECONDS):
                    await batch.over.wait()
                return
            reports = batch.take_reports()
            await self._hand_in(desk, reports)
            if not reports:
                await desk.put_back([job_of(job.id) for job in batch.take_waiting()])

    async def _run(self, job: JobRecord) -> JobReport:
        self._note("jobStarted", job)
        began = now()
        try:
            marks = await _mark_what_it_reads(job)
            ended, verdict = await self._try(job)
        except SpawnerLost as lost:
            self._note("jobLost", job)
            payload = to_payload(CommandEnded.lost(str(lost)), worker=self._worker)
            return JobReport(job_of(job.id), Verdict.LOST, 0.0, payload)
        except asyncio.CancelledError:
            self._note("jobInterrupted", job)
            raise
        self._note("jobEnded", job, outcome=ended.outcome.value)
        payload = to_payload(ended, worker=self._worker, began=began, marks=marks)
        return JobReport(job_of(job.id), verdict, ended.wall_seconds, payload)

    async def _try(self, job: JobRecord) -> tuple[CommandEnded, Verdict]:
        """Run a job's command, and after a failure what its handler says."""
        command, number = command_of(job), 1
        if job.failure_rules:
            number = await self._recovery.number_of_try(job)
            command = replace(command, environment={**command.environment, ATTEMPT: str(number)})
        ended = await self._launcher.run(command)
        if ended.outcome is Outcome.SUCCEEDED:
            return ended, Verdict.SUCCEEDED
        again = await self._recovery.is_worth_another_try(job, command, ended, number=number)
        return ended, Verdict.RETRIED if again else Verdict.FAILED

    def _note(self, kind: str, job: JobRecord, **data: str) -> None:
        self._journal.note(job.workflow_id, source=self._worker, kind=kind, job=job.id, **data)

    async def _hand_in(self, desk: Desk, reports: Sequence[tuple[JobRecord, JobReport]]) -> None:
        """Hand results in, and record those that were still ours to give."""
        if not reports:
            return
        finished = await desk.finish([report for _, report in reports])
        for (job, report), id in zip(reports, finished, strict=True):
            if id is None:
                continue
            entry: Entry | None = Entry(id, report.job, True, report.payload)
            if report.verdict is not Verdict.SUCCEEDED:  # the queue knows whether it is tried again
                entry = await desk.outcome(id)
            if entry is not None:  # else upkeep was quicker to record it
                self._journal.record(job, entry)


async def _mark_what_it_reads(job: JobRecord) -> tuple[str, ...]:
    if job.folder is None or not job.reads:
        return ()
    return await asyncio.to_thread(mark_files, Path(job.folder), job.reads)
