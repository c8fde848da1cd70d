"""What a workflow wants run on each worker: before the worker's first job of it, and when the worker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.errors import SpawnerLost
from knockem_dagster.jobs.commands.command import Command, CommandEnded
from knockem_dagster.jobs.commands.launcher import CommandLauncher
from knockem_dagster.jobs.worker_sources import Journal, Say, WorkerRecord
from knockem_dagster.records.job_graph import WorkerActionRecord
from knockem_dagster.records.jobs import JobRecord

AT_A_TIME = 8
"""Workflows for which commands run at a time when a worker leaves."""


@dataclass(slots=True)
class _Known:
    """What a worker knows of a workflow. All its actions may use the memory of the first job."""

    memory_mib: int
    beginning: asyncio.Lock = field(default_factory=asyncio.Lock)
    has_begun: bool = False
    last: Sequence[WorkerActionRecord] = ()


class ActionRunner:
    """Runs the actions of one worker, each once. One that fails stops nothing: it is told, and jobs go on."""

    def __init__(
        self, record: WorkerRecord, launcher: CommandLauncher, journal: Journal, *, worker: str, say: Say
    ) -> None:
        self._record = record
        self._launcher = launcher
        self._journal = journal
        self._worker = worker
        self._say = say
        self._workflows: dict[str, _Known] = {}

    async def begin(self, job: JobRecord) -> None:
        """Run what comes before the first job of a workflow, or wait while another slot does; return if that was done.

        Cancelled, it leaves that to the next slot.
        """
        if job.state is None:
            return  # only workflow files have actions
        known = self._workflows.setdefault(job.workflow_id, _Known(job.resources.memory_mib))
        if known.has_begun:
            return
        async with known.beginning:
            if known.has_begun:
                return
            actions = await self._record.worker_actions(job.workflow_id)
            known.last = [each for each in actions if each.trigger == "on_worker_complete"]
            for each in actions:
                if each.trigger == "on_worker_start":
                    await self._run(each, known.memory_mib)
            known.has_begun = True

    async def end(self) -> None:
        """Run what comes last, for every workflow of which there were jobs."""
        room = asyncio.Semaphore(AT_A_TIME)

        async def end_one(known: _Known) -> None:
            async with room:
                for each in known.last:
                    await self._run(each, known.memory_mib)

        async with asyncio.TaskGroup() as group:
            for known in self._workflows.values():
                group.create_task(end_one(known))

    async def _run(self, action: WorkerActionRecord, memory_mib: int) -> None:
        command = Command(
            arguments=action.command,
            environment=action.environment,
            folder=None if action.folder is None else Path(action.folder),
            memory_mib=memory_mib,
            keep_output=True,
        )
        self._note("actionStarted", action)
        try:
            ended = await self._launcher.run(command)
        except SpawnerLost as lost:
            ended = CommandEnded.lost(str(lost))
        except asyncio.CancelledError:
            self._note("actionInterrupted", action)
            raise
        outcome = ended.outcome.value
        self._note("actionEnded", action, outcome=outcome, exitCode=ended.exit_code, tail=ended.tail)
        if ended.outcome is not Outcome.SUCCEEDED:
            what = f"{action.name} of workflow {action.workflow_id}: {outcome}, exit code {ended.exit_code}"
            self._say(f"{what}. {ended.tail}".strip())

    def _note(self, kind: str, action: WorkerActionRecord, **data: str | int) -> None:
        told = {"action": action.name, "trigger": action.trigger, **data}
        self._journal.note(action.workflow_id, source=self._worker, kind=kind, **told)
