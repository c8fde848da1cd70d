"""A worker as a process of its own: what this machine offers, what it can run, and what it leaves in the record."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Sequence

import psutil

from knockem_dagster.containers.attempts import Attempt
from knockem_dagster.containers.processes import ProcessRuntime
from knockem_dagster.containers.runtime import Runtime
from knockem_dagster.containers.runtimes import runtime_names_here
from knockem_dagster.containers.warden import ensure_warden
from knockem_dagster.errors import ContainerError, QueueAway
from knockem_dagster.jobs.attempt_records import attempt_id_of
from knockem_dagster.jobs.commands.launcher import CommandLauncher
from knockem_dagster.jobs.compute_node import ComputeNode, Lane, worker_name
from knockem_dagster.jobs.lanes import AttemptLane, CommandLane
from knockem_dagster.jobs.organisms import Organisms
from knockem_dagster.jobs.queue import Verdict
from knockem_dagster.jobs.recovery import Recovery
from knockem_dagster.jobs.requirements import Capacity
from knockem_dagster.jobs.work_messages import Inability
from knockem_dagster.jobs.worker_actions import ActionRunner
from knockem_dagster.jobs.worker_sources import Say, WorkSource
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import ComputeNodeRecord
from knockem_dagster.settings import RUNTIMES


def capacity_here(
    platform: Platform,
    *,
    cpus: float | None = None,
    memory_mib: int | None = None,
    gpus: int = 0,
    seconds_left: float | None = None,
) -> Capacity:
    """Return what a worker on this machine offers: all of it where nothing else is said."""
    return Capacity(
        cpus=float(platform.settings.cpus) if cpus is None else cpus,
        memory_mib=psutil.virtual_memory().total >> 20 if memory_mib is None else memory_mib,
        gpus=gpus,
        seconds_left=seconds_left,
        runtimes=frozenset({"command", *runtime_names_here()}),
    )


def runtimes_here(platform: Platform) -> list[Runtime]:
    """Return the runtimes that this machine has."""
    found: list[Runtime] = []
    for name in runtime_names_here():
        with contextlib.suppress(ContainerError):
            found.append(platform.runtime(name))
    return found


class WorkerProcess:
    """A compute node with all that this machine can do. `run` it; `stop` drains it."""

    def __init__(
        self,
        platform: Platform,
        source: WorkSource,
        capacity: Capacity,
        *,
        say: Say,
        idle_seconds: float | None = None,
    ) -> None:
        """`platform` gives the runtimes of this machine; all else comes from the source.

        `idle_seconds`: it ends after so long without anything to do; None: never.
        """
        self.name = worker_name(source.prefix)
        self._platform = platform
        self._source = source
        self._capacity = capacity
        self._say = say
        self._launcher = CommandLauncher()
        self._actions = ActionRunner(source.record, self._launcher, source.journal, worker=self.name, say=say)
        self._node = ComputeNode(
            source.queue,
            self._lanes(),
            capacity,
            name=self.name,
            lease_seconds=platform.settings.lease_seconds,
            say=say,
            idle_seconds=math.inf if idle_seconds is None else idle_seconds,
            do_last=self._actions.end,
        )

    @property
    def tally(self) -> str:
        """How many jobs ended how, in words."""
        words = {
            Verdict.SUCCEEDED: "done",
            Verdict.FAILED: "failed",
            Verdict.RETRIED: "tried again",
            Verdict.LOST: "lost",
            Verdict.RETURNED: "returned",
        }
        counts = {word: self._node.verdicts.get(verdict, 0) for verdict, word in words.items()}
        return ", ".join(f"{number:,} {word}" for word, number in counts.items() if number or word == "done")

    async def registered(self) -> None:
        """Wait until the queue knows this worker."""
        await self._node.registered.wait()

    @property
    def is_ending(self) -> asyncio.Event:
        """Set once it takes nothing more."""
        return self._node.is_ending

    def stop(self) -> None:
        """Claim nothing more, finish what is in work or hand it back, and end `run`."""
        self._node.stop()

    async def run(self) -> None:
        """Work until stopped, or until the time left is over. Raises StoreError when the record cannot be written."""
        ensure_warden()
        await ProcessRuntime(()).remove_leftovers()
        journal = self._source.journal
        await self._source.record.joined(self._record())
        journal.note(self.name, source=self.name, kind="workerStarted", host=socket.gethostname())
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(journal.run()), group.create_task(self._reap())]
                await self._node.run()
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        finally:
            self._launcher.close()
            inability = self._node.inability
            said = Inability(inability=inability, owners=self._node.unable_for) if inability else None
            told = {} if said is None else said.model_dump(mode="json")
            journal.note(self.name, source=self.name, kind="workerEnded", host=socket.gethostname(), **told)
            with contextlib.suppress(QueueAway):  # the record is written; the queue forgets what is recorded later
                await journal.flush()
            await self._source.record.left(self.name)

    def _lanes(self) -> dict[str, Lane]:
        source = self._source
        organisms = Organisms(self._platform, source.record)
        attempts = AttemptLane(organisms.of, self._read, worker=self.name)
        recovery = Recovery(source.queue, self._launcher)
        commands = CommandLane(source.record, self._launcher, source.journal, recovery, self._actions, worker=self.name)
        return {**dict.fromkeys(RUNTIMES, attempts), "command": commands}

    async def _read(self, jobs: Sequence[bytes]) -> Sequence[Attempt]:
        return await self._source.record.attempts([attempt_id_of(job) for job in jobs])

    async def _reap(self) -> None:
        """Look after other workers: nobody else may be there to."""
        seconds = self._platform.settings.lease_seconds
        while True:
            await asyncio.sleep(seconds / 2)
            with contextlib.suppress(QueueAway):
                runtimes = await asyncio.to_thread(runtimes_here, self._platform)
                await self._source.look_after_others(runtimes, lease_seconds=seconds, say=self._say)

    def _record(self) -> ComputeNodeRecord:
        return ComputeNodeRecord(
            id=self.name,
            host=socket.gethostname(),
            cpus=self._capacity.cpus,
            memoryMiB=self._capacity.memory_mib,
            gpus=self._capacity.gpus,
            runtimes=tuple(sorted(self._capacity.runtimes)),
        )
