"""What launching a short job costs: 10,000 times `true` in two slots, beside xargs, HyperQueue and bare posix_spawn.

Ours is the whole way: jobs that are in the record and in the queue, one `knockem worker` with two CPUs, and for every
job a result with exit code, memory and CPU time in the record, and an event at its start and its end. Start-ups are
excluded: the time is from the first job's start, as its event says, to when the last result is seen in the record.
CPU is from when all wait for the first job to when the queue has forgotten the last. Rounds are interleaved, in an
order drawn anew for each, and every ratio is the median of those within a round: the machine may have other work.

    python -m benchmarks.jobs [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
from numpy.random import default_rng

from benchmarks.launchers import AT_A_TIME, COMMAND, ROOT, Launched, hyperqueue, spawn_loop, xargs
from benchmarks.measurement import Measurement, command
from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.job_records import submit_jobs
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobRecord, WorkflowRecord
from knockem_dagster.records.record import new_id
from tests.services.queues import running_queue

JOBS = 10_000
FEWEST_JOBS = 200
ROUNDS = 5
LIMIT_MS = 1.0
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Cpu:
    """CPU seconds of the worker's event loop, its other threads, its spawner, and of the queue's server."""

    loop: float
    threads: float
    spawner: float
    server: float

    def __sub__(self, other: _Cpu) -> _Cpu:
        return _Cpu(
            self.loop - other.loop,
            self.threads - other.threads,
            self.spawner - other.spawner,
            self.server - other.server,
        )

    @property
    def worker(self) -> float:
        return self.loop + self.threads + self.spawner


@dataclass(frozen=True, slots=True)
class _Worked:
    """One round of ours: seconds from first start to last result, our CPU, and what the jobs themselves used."""

    seconds: float
    cpu: _Cpu
    jobs_cpu_seconds: float


def run(scale: float, seed: int) -> list[Measurement]:
    """Measure `scale` times 10,000 jobs in up to five rounds. KnockemError if any result lacks what it must have."""
    rng = default_rng(seed)
    number, rounds = max(FEWEST_JOBS, round(JOBS * scale)), max(1, round(ROUNDS * min(1.0, scale)))
    contestants: list[Callable[[int], Launched | _Worked]] = [_work, xargs, hyperqueue, spawn_loop]
    taken: dict[str, list[Launched | _Worked]] = {each.__name__: [] for each in contestants}
    for _ in range(rounds):
        for place in rng.permutation(len(contestants)):
            contestant = contestants[place]
            taken[contestant.__name__].append(contestant(number))
    return _measurements(taken, number)


def _measurements(taken: dict[str, list[Launched | _Worked]], number: int) -> list[Measurement]:
    ours = [each for each in taken["_work"] if isinstance(each, _Worked)]
    others = {name: [each for each in rows if isinstance(each, Launched)] for name, rows in taken.items()}
    rounds = len(ours)

    def rate(rows: Sequence[Launched | _Worked]) -> float:
        return number / statistics.median(each.seconds for each in rows)

    def over(name: str) -> float:
        pairs = zip(others[name], ours, strict=True)
        return statistics.median(theirs.seconds / mine.seconds for theirs, mine in pairs)

    def cpu(values: Sequence[float]) -> float:
        return 1e3 * statistics.median(values) / number

    return [
        Measurement("knockem worker, two slots", rate(ours), "1/s", rounds),
        Measurement("xargs -P2", rate(others["xargs"]), "1/s", rounds),
        Measurement("HyperQueue", rate(others["hyperqueue"]), "1/s", rounds),
        Measurement("posix_spawn, two at a time", rate(others["spawn_loop"]), "1/s", rounds),
        Measurement("knockem over HyperQueue, in a round", over("hyperqueue"), "ratio", rounds, "at least", 1.0),
        Measurement("knockem over xargs, in a round", over("xargs"), "ratio", rounds, "at least", 0.5),
        Measurement("knockem over posix_spawn, in a round", over("spawn_loop"), "ratio", rounds),
        Measurement("worker: own CPU per job", cpu([each.cpu.worker for each in ours]), "ms", number,
                    "limit", LIMIT_MS),
        Measurement("worker: its event loop", cpu([each.cpu.loop for each in ours]), "ms", number),
        Measurement("worker: its spawner", cpu([each.cpu.spawner for each in ours]), "ms", number),
        Measurement("worker: its other threads, SQLite's writing and reading", cpu([each.cpu.threads for each in ours]),
                    "ms", number),
        Measurement("queue server: CPU per job", cpu([each.cpu.server for each in ours]), "ms", number),
        Measurement("HyperQueue: own CPU per job", cpu([each.own_cpu_seconds for each in others["hyperqueue"]]), "ms",
                    number),
        Measurement("CPU per job, all and the job", cpu(
            [each.cpu.worker + each.cpu.server + each.jobs_cpu_seconds for each in ours]), "ms", number,
            "xargs", cpu([each.cpu_seconds for each in others["xargs"]])),
    ]  # fmt: skip


def _work(number: int) -> _Worked:
    """Let a worker of its own platform run so many jobs, and look at all that it left in the record."""
    with (
        tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder,
        running_queue(Path(folder), environment="testing", documents_url=None) as server,
        closing(Platform(server.settings)) as platform,
    ):
        assert server.process is not None
        return asyncio.run(_Study(platform, server.process.pid, number).measure())


class _Study:
    """One workflow of its own platform, and the worker that runs it."""

    def __init__(self, platform: Platform, server: int, number: int) -> None:
        self._platform = platform
        self._server = psutil.Process(server)
        self._number = number
        self._workflow = WorkflowRecord(id=new_id(), name="bench", max_active=1_000, user_email="bench@example.org")

    async def measure(self) -> _Worked:
        workflow = self._workflow
        jobs = [
            JobRecord(id=new_id(), workflow_id=workflow.id, name=f"{index}", command=(COMMAND,))
            for index in range(self._number)
        ]
        async with queue_of(self._platform) as queue, self._worker(queue) as worker:
            before = self._cpu(worker)
            await submit_jobs(self._platform.records, queue, workflow, jobs)
            last = await self._last_result(queue, worker)
            await _until(lambda: self._is_forgotten(queue), worker)
            spent = self._cpu(worker) - before
        return self._checked(last, spent)

    @asynccontextmanager
    async def _worker(self, queue: Queue) -> AsyncGenerator[psutil.Popen]:
        """Give a worker that waits for jobs; drain it afterwards."""
        settings = self._platform.settings
        said = settings.folder / "worker.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KNOCKEM_")} | {
            "KNOCKEM_HOME": str(settings.home),
            "KNOCKEM_ENVIRONMENT": settings.environment,
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-P", "-m", "knockem_dagster", "worker", "--cpus", str(AT_A_TIME)]
        with said.open("wb") as output:
            worker = psutil.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            await _until(lambda: _waits(queue), worker)
            yield worker
            worker.send_signal(signal.SIGTERM)
            if await asyncio.to_thread(worker.wait, PATIENCE_SECONDS) != 0:
                raise KnockemError(f"the worker failed:\n{said.read_text()}")
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()

    async def _last_result(self, queue: Queue, worker: psutil.Popen) -> float:
        """Wait until all results are in the record; return when that was seen. The queue is asked first: cheaper."""

        async def completed() -> bool:
            counted = await queue.server.hget(queue.base(self._workflow.id), "submissionNumCompletedCompetitions")
            return int(counted or 0) == self._number

        async def recorded() -> bool:
            documents = self._platform.records.documents
            found = await asyncio.to_thread(documents.count, "results", {"workflowId": self._workflow.id})
            return found == self._number

        await _until(completed, worker)
        await _until(recorded, worker)
        return time.time()

    async def _is_forgotten(self, queue: Queue) -> bool:
        return await queue.server.xlen(f"{queue.base(self._workflow.id)}:outcomes") == 0

    def _cpu(self, worker: psutil.Popen) -> _Cpu:
        loop = sum(each.user_time + each.system_time for each in worker.threads() if each.id == worker.pid)
        return _Cpu(loop, _seconds(worker) - loop, _spawner_seconds(worker.pid), _seconds(self._server))

    def _checked(self, last: float, spent: _Cpu) -> _Worked:
        """Return the round. Raises KnockemError unless each job has a whole result and its events."""
        records = self._platform.records
        results = list(records.results.find({"workflowId": self._workflow.id}))
        whole = {
            each.job_id
            for each in results
            if each.final and each.exit_code == 0 and each.peak_memory and each.cpu_seconds is not None
        }
        if len(whole) != self._number or len(results) != self._number:
            raise KnockemError(f"{self._number:,} jobs left {len(results):,} results, of which {len(whole):,} have "
                               "an exit code of 0, memory and CPU time")  # fmt: skip
        events = list(records.events.find({"subject": self._workflow.id}))
        kinds = Counter(event.kind for event in events)
        if kinds != {"jobStarted": self._number, "jobEnded": self._number}:
            raise KnockemError(f"{self._number:,} jobs left the events {dict(kinds)}")
        first = min(datetime.fromisoformat(event.datetime).timestamp() for event in events)
        return _Worked(last - first, spent, sum(each.cpu_seconds or 0.0 for each in results))


def _spawner_seconds(worker: int) -> float:
    """Return the CPU seconds of a worker's spawner, which names its worker; 0 before the first job."""
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "jobs.commands.spawner" in line and f"~{worker}~" in line:
            return _seconds(process)
    return 0.0


def _seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


async def _waits(queue: Queue) -> bool:
    return await queue.server.hlen(f"{queue.prefix}:waiting") > 0


async def _until(condition: Callable[[], Awaitable[bool]], worker: psutil.Popen) -> None:
    """Wait for what the worker makes true, for as long as it lives."""
    while not await condition():
        if worker.poll() is not None:
            raise KnockemError(f"the worker ended with {worker.returncode} before the jobs did")
        await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    command(run, about=__doc__, title="What launching a short job costs")
