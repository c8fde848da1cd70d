"""What tests of the queue share: opening it, jobs to put in, workers that join, and a look at what it holds."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import redis

from knockem_dagster.jobs.queue import Claim, OwnerSettings, Queue, Report, Verdict, Wanted
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.stores.queue_connection import open_async_queue
from tests.services.queues import QueueServer

T = TypeVar("T")

SMALL = Requirement(cpus=1, memory_mib=10)
LARGE = Requirement(cpus=4, memory_mib=4000)
MANY = OwnerSettings(max_active=1000)
LONG_SECONDS = 600.0
"""A lease that no test outlives."""


def play(server: QueueServer, scenario: Callable[[Queue], Awaitable[T]]) -> T:
    """Run a scenario on a queue that is open for as long as it takes."""

    async def opened() -> T:
        queue = Queue(await open_async_queue(server.settings))
        try:
            return await scenario(queue)
        finally:
            await queue.close()

    return asyncio.run(opened())


def jobs(numbers: Iterable[int]) -> list[bytes]:
    """Return 16 bytes for each number."""
    return [struct.pack(">QQ", 0xABCDEF, number) for number in numbers]


def numbers(of: Iterable[bytes]) -> list[int]:
    """Return the numbers behind jobs."""
    return [struct.unpack(">QQ", job)[1] for job in of]


async def join(queue: Queue, *workers: str, lease_seconds: float = LONG_SECONDS) -> None:
    """Register workers."""
    for worker in workers:
        await queue.beat(worker, lease_seconds=lease_seconds, description=b'{"host":"here"}')


async def take(queue: Queue, worker: str, most: int = 1, requirement: Requirement = SMALL) -> Claim | None:
    """Claim jobs of one class for a worker, who is nobody's in particular."""
    return await queue.claim(worker, f"{worker}/1", Wanted([requirement.name], most))


async def took(queue: Queue, worker: str, most: int = 1) -> Claim:
    """Claim where there must be something to claim."""
    claim = await take(queue, worker, most)
    assert claim is not None
    return claim


def reports(claim: Claim, verdict: Verdict = Verdict.SUCCEEDED, seconds: float = 1.0) -> list[Report]:
    """Return the same verdict on all jobs of a claim."""
    return [Report(claim.owner, job, claim.token, verdict, seconds, b"what it said") for job in claim.jobs]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what the server, or a task beside this one, makes true."""
    deadline = time.monotonic() + 30
    while not await condition():
        assert time.monotonic() < deadline, "waited 30 s in vain"
        await asyncio.sleep(0.005)


async def until_lapsed(queue: Queue, *workers: str) -> None:
    """Wait until the server's clock has passed the leases of these workers."""

    async def lapsed() -> bool:
        return set(workers) <= set(await queue.lapsed_workers())

    await until(lapsed)


class Clock:
    """The monotonic clock, in place of a module's `time`: it stands unless it is put forward."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0

    def monotonic(self) -> float:
        """Return the seconds."""
        self.asked += 1
        return self.now


@dataclass(frozen=True, slots=True)
class Tally:
    """An owner's counters, and how many jobs are really where they count them."""

    pending: int
    active: int
    completed: int
    in_lists: int
    in_hands: int


def tally(client: redis.Redis, owner: str) -> Tally:
    """Read the counters of an owner, and count."""
    base = f"knockem:{{{owner}}}"
    names = [f"submissionNum{state}Competitions" for state in ("Pending", "Active", "Completed")]
    counters = [int(value or 0) for value in client.hmget(base, names)]
    lists = [
        client.llen(f"{base}:pendingCompetitionAttempts:{name.decode()}") for name in client.smembers(f"{base}:classes")
    ]
    return Tally(*counters, sum(lists), client.hlen(f"{base}:activeCompetitionAttempts"))


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    """Return a dump of every key, to compare what the server holds."""
    return {key: client.dump(key) for key in client.scan_iter()}
