"""What handing out a job costs: CPU of client and server for each, how fast many come in, and what they take of memory.

The queue's server is the embedded one, started for this in a folder of its own. CPU time is what counts, not the
clock on the wall: the machine may have other work.

    python -m benchmarks.queue [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.random import Generator as RandomGenerator
from numpy.random import default_rng

from benchmarks.measurement import Measurement, command
from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.queue import Claim, OwnerSettings, Queue, Report, Verdict, Wanted
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.settings import Settings, load_settings
from knockem_dagster.stores.queue_connection import embedded_queue_answers, open_async_queue
from knockem_dagster.stores.queue_server import server_command

BATCHES = {1: 4_000, 8: 24_000, 50: 50_000}
"""Jobs to claim and finish for each number of jobs at a time."""
LIMITED_BATCH = 8
FEW, MANY = 1_000, 1_000_000
CLAIMS = 2_000
ENQUEUED_AT_ONCE = 1_000
CPU_LIMIT_MS = 0.15
RATE_LIMIT = 20_000.0
MEMORY_LIMIT_MB = 60.0
START_SECONDS = 30.0
PAYLOAD = b'{"outcome": "succeeded", "exitCode": 0, "wallSeconds": 0.0123, "memoryMiB": 12.5, "cpuSeconds": 0.0101}'
SMALL = Requirement(cpus=1, memory_mib=100)
WORKER, OWNER = "worker", "owner"


def run(scale: float, seed: int) -> list[Measurement]:
    """Measure everything, at `scale` times the full number of jobs. KnockemError if any is lost or doubled."""
    return asyncio.run(_measure(scale, default_rng(seed)))


async def _measure(scale: float, rng: RandomGenerator) -> list[Measurement]:
    with _server() as settings:
        study = _Study(Queue(await open_async_queue(settings)), rng)
        try:
            measured: list[Measurement] = []
            for batch, number in BATCHES.items():
                measured += await study.claim_and_finish(batch, max(10 * batch, round(number * scale)))
            measured += await study.many_ready(FEW, max(10 * FEW, round(MANY * scale)))
            return measured
        finally:
            await study.queue.close()


@dataclass(frozen=True, slots=True)
class _Cpu:
    """CPU seconds of this process and of the server."""

    client: float
    server: float

    def __sub__(self, other: _Cpu) -> _Cpu:
        return _Cpu(self.client - other.client, self.server - other.server)


class _Study:
    """A queue with one worker and one owner."""

    def __init__(self, queue: Queue, rng: RandomGenerator) -> None:
        self.queue = queue
        self._rng = rng

    async def claim_and_finish(self, batch: int, number: int) -> list[Measurement]:
        """Claim and finish jobs, a batch in each round trip."""
        await self._empty()
        jobs = self._jobs(number)
        await self._enqueue(jobs)
        wanted = Wanted([SMALL.name], batch)
        done: list[bytes] = []
        before = await self._cpu()
        claim = await self.queue.claim(WORKER, "1", wanted)
        while claim is not None:
            done += claim.jobs
            answers, claim = await self.queue.finish_and_claim(WORKER, "1", _reports(claim), wanted)
            if None in answers:
                raise KnockemError("the queue refused the result of a job that its worker held")
        spent = (await self._cpu()) - before
        await self._expect(pending=0, completed=number)
        if done != jobs:
            raise KnockemError(f"{number} jobs were enqueued, and {len(done)} came out, or in another order")
        each = 1e3 / number
        reference, limit = ("limit", CPU_LIMIT_MS) if batch == LIMITED_BATCH else ("", None)
        name = f"claim + finish, {batch} at a time: CPU per job"
        return [
            Measurement(
                f"{name}, client and server", each * (spent.client + spent.server), "ms", number, reference, limit
            ),
            Measurement(f"{name}, client", each * spent.client, "ms", number),
            Measurement(f"{name}, server", each * spent.server, "ms", number),
        ]

    async def many_ready(self, few: int, many: int) -> list[Measurement]:
        """Enqueue many jobs, and claim while few and while many are ready."""
        await self._empty()
        jobs = self._jobs(many)
        await self._enqueue(jobs[:few])
        claims = max(200, round(CLAIMS * many / MANY))
        with_few = await self._claim_and_return(claims)
        await self._empty()
        memory_before = await self._memory()
        before, began = await self._cpu(), time.perf_counter()
        await self._enqueue(jobs)
        seconds, spent = time.perf_counter() - began, (await self._cpu()) - before
        memory = await self._memory() - memory_before
        with_many = await self._claim_and_return(claims)
        with_few_again = await self._claims_after_removing(jobs[:few], claims)
        await self._expect(pending=few, completed=0)
        few_ms = 1e3 * (with_few + with_few_again) / 2 / claims
        return [
            Measurement("enqueue: rate", many / seconds, "1/s", many, "at least", RATE_LIMIT),
            Measurement(
                "enqueue: CPU per job, client and server", 1e6 * (spent.client + spent.server) / many, "us", many
            ),
            Measurement(
                "memory of the server for ready jobs", memory / 1e6, "MB", many, "limit", MEMORY_LIMIT_MB * many / MANY
            ),
            Measurement(f"server CPU per claim and return, {few:,} ready", few_ms, "ms", claims),
            Measurement(
                f"server CPU per claim and return, {many:,} ready", 1e3 * with_many / claims, "ms", claims,
                f"{few:,} ready", few_ms,
            ),
        ]  # fmt: skip

    async def _claim_and_return(self, claims: int) -> float:
        """Claim a job and hand it back, so often; return the server's CPU seconds."""
        wanted = Wanted([SMALL.name])
        claim = await self.queue.claim(WORKER, "1", wanted)
        before = await self._cpu()
        for _ in range(claims):
            if claim is None:
                raise KnockemError("there were jobs ready, and none was handed out")
            _, claim = await self.queue.finish_and_claim(WORKER, "1", _reports(claim, Verdict.RETURNED), wanted)
        spent = (await self._cpu()) - before
        await self.queue.finish(WORKER, _reports(claim, Verdict.RETURNED) if claim else [])
        return spent.server

    async def _claims_after_removing(self, few: Sequence[bytes], claims: int) -> float:
        """Do the same with few again: whatever the server's age and the machine's mood add, both sides have it."""
        if await self.queue.cancel(OWNER, forget=True) < len(few):
            raise KnockemError("jobs were ready, and are not in the queue")
        await self._enqueue(few)
        return await self._claim_and_return(claims)

    async def _empty(self) -> None:
        await self._command("FLUSHALL")
        await self.queue.beat(WORKER, lease_seconds=24 * 3600.0, description=b"{}")

    async def _enqueue(self, jobs: Sequence[bytes]) -> None:
        settings = OwnerSettings(max_active=1_000)
        for first in range(0, len(jobs), ENQUEUED_AT_ONCE):
            part = jobs[first : first + ENQUEUED_AT_ONCE]
            await self.queue.enqueue(OWNER, part, requirement=SMALL, settings=settings)
        await self._expect(pending=len(jobs), completed=0)

    async def _expect(self, *, pending: int, completed: int) -> None:
        """Raise KnockemError unless the queue accounts for every job."""
        fields = ("Pending", "Active", "Completed")
        counted = await self._command(
            "HMGET", f"knockem:{{{OWNER}}}", *(f"submissionNum{name}Competitions" for name in fields)
        )
        listed = await self._command("LLEN", f"knockem:{{{OWNER}}}:pendingCompetitionAttempts:{SMALL.name}")
        found = (*(int(value or 0) for value in counted), listed)
        if found != (pending, 0, completed, pending):
            raise KnockemError(f"of {pending + completed} jobs {pending} should be ready and {completed} completed; "
                               f"the queue counts {found[0]} ready, {found[1]} active, {found[2]} completed, and has "
                               f"{found[3]} in its list")  # fmt: skip

    async def _memory(self) -> int:
        return (await self.queue.server.info("memory"))["used_memory"]

    async def _command(self, *words: Any) -> Any:
        return await self.queue.server.execute_command(*words)

    def _jobs(self, number: int) -> list[bytes]:
        drawn = self._rng.bytes(16 * number)
        return [drawn[place : place + 16] for place in range(0, 16 * number, 16)]

    async def _cpu(self) -> _Cpu:
        server = await self.queue.server.info("cpu")
        return _Cpu(time.process_time(), server["used_cpu_user"] + server["used_cpu_sys"])


def _reports(claim: Claim, verdict: Verdict = Verdict.SUCCEEDED) -> list[Report]:
    return [Report(claim.owner, job, claim.token, verdict, 1.0, PAYLOAD) for job in claim.jobs]


@contextmanager
def _server() -> Generator[Settings]:
    """Give the settings with which an embedded server is reached."""
    with tempfile.TemporaryDirectory(prefix="knockem-bench-") as folder:
        settings = load_settings(home=Path(folder), queue_url=None)
        command = server_command(settings)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + START_SECONDS
                while not embedded_queue_answers(settings):
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise KnockemError(f"the queue's server does not start: {' '.join(command)}")
                    time.sleep(0.01)
                yield settings
            finally:
                process.kill()


if __name__ == "__main__":
    command(run, about=__doc__, title="What handing out a job costs")
