"""What a slot does with the jobs of one owner: competition attempts in containers, or plain commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.containers.contract import Organism
from knockem_dagster.errors import SpawnerLost
from knockem_dagster.jobs.attempt_records import attempt_id_of, job_of
from knockem_dagster.jobs.commands.command import CommandEnded
from knockem_dagster.jobs.commands.launcher import CommandLauncher
from knockem_dagster.jobs.desk import GONE, Desk, JobReport, QueueDesk, ReadAttempts
from knockem_dagster.jobs.job_records import JobJournal, command_of, to_payload
from knockem_dagster.jobs.queue import Entry, Verdict
from knockem_dagster.jobs.slots import Pace, Slot
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import JobRecord

HANDED_IN_SECONDS = 0.1
"""How long a command's result may wait to be handed in with others."""


class AttemptLane:
    """Runs attempts with the organism of their submission, in one container at a time."""

    def __init__(self, organism: Callable[[str], Awaitable[Organism]], read: ReadAttempts, *, worker: str) -> None:
        self._organism = organism
        self._read = read
        self._worker = worker

    async def run(self, desk: Desk, *, most: int) -> None:
        """Work until the desk has no more. Raises ContainerError when the organism cannot be used here."""
        organism = await self._organism(desk.owner)
        await Slot(QueueDesk(desk, self._read, worker=self._worker), organism, most).run()


class CommandLane:
    """Runs plain commands, one after the other."""

    def __init__(self, records: Records, launcher: CommandLauncher, journal: JobJournal, *, worker: str) -> None:
        self._records = records
        self._launcher = launcher
        self._journal = journal
        self._worker = worker

    async def run(self, desk: Desk, *, most: int) -> None:
        """Work until the desk has no more."""
        pace = Pace(most)
        while claimed := await desk.claim(pace.window):
            found = await asyncio.to_thread(self._records.jobs.get_many, [attempt_id_of(job) for job in claimed])
            # What is not in the record was removed meanwhile: nobody waits for it.
            gone = [job for job in claimed if attempt_id_of(job) not in found]
            await desk.finish([JobReport(job, Verdict.FAILED, payload=GONE) for job in gone])
            await self._run_all(desk, list(found.values()), pace)

    async def _run_all(self, desk: Desk, jobs: Sequence[JobRecord], pace: Pace) -> None:
        reports: list[JobReport] = []
        handed_in = time.monotonic()
        try:
            for job in jobs:
                if job_of(job.id) not in desk.held:
                    continue  # canceled while others were running
                pace.began()
                reports.append(await self._run(job))
                pace.answered(1)
                if time.monotonic() - handed_in > HANDED_IN_SECONDS:
                    ready, reports = reports, []
                    await self._hand_in(desk, ready)
                    handed_in = time.monotonic()
        finally:
            await self._hand_in(desk, reports)

    async def _run(self, job: JobRecord) -> JobReport:
        self._journal.note(job.workflow_id, source=self._worker, kind="jobStarted", job=job.id)
        try:
            ended = await self._launcher.run(command_of(job))
        except SpawnerLost as lost:
            self._journal.note(job.workflow_id, source=self._worker, kind="jobLost", job=job.id)
            return JobReport(job_of(job.id), Verdict.LOST, 0.0, to_payload(_lost(str(lost)), worker=self._worker))
        self._journal.note(
            job.workflow_id, source=self._worker, kind="jobEnded", job=job.id, outcome=ended.outcome.value
        )
        verdict = Verdict.SUCCEEDED if ended.outcome is Outcome.SUCCEEDED else Verdict.FAILED
        return JobReport(job_of(job.id), verdict, ended.wall_seconds, to_payload(ended, worker=self._worker))

    async def _hand_in(self, desk: Desk, reports: Sequence[JobReport]) -> None:
        """Hand results in, and record those that were still ours to give."""
        if not reports:
            return
        for report, id in zip(reports, await desk.finish(reports), strict=True):
            if id is None:
                continue
            entry = Entry(id, report.job, True, report.payload)
            if report.verdict is not Verdict.SUCCEEDED:  # the queue knows whether it is tried again
                entry = await desk.outcome(id) or entry
            self._journal.record(desk.owner, entry)


def _lost(reason: str) -> CommandEnded:
    return CommandEnded(
        outcome=Outcome.LOST, exit_code=-9, tail=reason, peak_memory=0, cpu_seconds=0.0, wall_seconds=0.0
    )
