"""Owners share slot time by their weights, whatever the length of their jobs, and many workers cost each no more.

The clock is simulated: the scripts know slot time only from what finished jobs report.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import redis

from knockem_dagster.jobs.queue import LEAD_SECONDS, Claim, OwnerSettings, Queue, Wanted
from tests.services.queue_play import MANY, SMALL, jobs, join, play, reports, take, took
from tests.services.queues import QueueServer

CLASSES = [SMALL.name]


@dataclass
class Simulation:
    """Workers with one slot each, on a clock that jumps from the end of one job to that of the next."""

    queue: Queue
    job_seconds: Mapping[str, float]
    workers: int
    lead_seconds: float = 0.0
    moment: float = 0.0
    starts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _ends: list[tuple[float, int, Claim]] = field(default_factory=list[tuple[float, int, Claim]])

    async def begin(self) -> None:
        await join(self.queue, *map(str, range(self.workers)))

    async def run(self, until: float) -> None:
        """Go on until this moment; jobs that are in work then stay so."""
        busy = {worker for _, worker, _ in self._ends}
        for worker in range(self.workers):
            if worker not in busy:
                self._start(worker, await self.queue.claim(str(worker), f"{worker}/1", Wanted(CLASSES)))
        while self._ends and self._ends[0][0] <= until:
            self.moment, worker, claim = heapq.heappop(self._ends)
            wanted = Wanted(CLASSES, preferred=claim.owner, lead_seconds=self.lead_seconds)
            ended = reports(claim, seconds=self.job_seconds[claim.owner])
            answers, following = await self.queue.finish_and_claim(str(worker), f"{worker}/1", ended, wanted)
            assert None not in answers
            self._start(worker, following)
        self.moment = until

    def slot_seconds(self, owner: str, since: float = 0.0) -> float:
        """Return the slot time that an owner had from a moment until now."""
        length = self.job_seconds[owner]
        return sum(max(0.0, min(start + length, self.moment) - max(start, since)) for start in self.starts[owner])

    def _start(self, worker: int, claim: Claim | None) -> None:
        if claim is not None:
            self.starts[claim.owner].append(self.moment)
            heapq.heappush(self._ends, (self.moment + self.job_seconds[claim.owner], worker, claim))


async def fill(queue: Queue, owner: str, number: int, weight: float = 1.0) -> None:
    await queue.enqueue(
        owner, jobs(range(number)), requirement=SMALL, settings=OwnerSettings(max_active=100, weight=weight)
    )


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize(
    ("long_weight", "short_weight", "lead_seconds"), [(1, 1, 0.0), (2, 1, 0.0), (1, 2, 0.0), (1, 1, LEAD_SECONDS)]
)
def test_owners_of_long_and_short_jobs_share_by_weight(
    queue_server: QueueServer, workers: int, long_weight: int, short_weight: int, lead_seconds: float
) -> None:
    seconds = 7_200 / workers

    async def scenario(queue: Queue) -> Simulation:
        simulation = Simulation(queue, {"long": 60.0, "short": 1.0}, workers, lead_seconds)
        await simulation.begin()
        await fill(queue, "long", 250, long_weight)
        await fill(queue, "short", 8_000, short_weight)
        await simulation.run(seconds)
        return simulation

    simulation = play(queue_server, scenario)
    long, short = simulation.slot_seconds("long"), simulation.slot_seconds("short")
    assert long + short == pytest.approx(workers * seconds), "no slot was idle"
    assert long / short == pytest.approx(long_weight / short_weight, rel=0.1)


@pytest.mark.parametrize("lead_seconds", [0.0, LEAD_SECONDS], ids=["fair", "warm"])
@pytest.mark.parametrize("workers", [1, 8])
def test_a_newcomers_first_job_starts_within_one_job_length(
    queue_server: QueueServer, workers: int, lead_seconds: float
) -> None:
    newcomers = {f"z{number}": 7.0 for number in range(8)}

    async def scenario(queue: Queue) -> None:
        simulation = Simulation(queue, {"long": 60.0, "short": 1.0, **newcomers}, workers, lead_seconds)
        await simulation.begin()
        await fill(queue, "long", 1_000)
        await fill(queue, "short", 20_000)
        for number, newcomer in enumerate(newcomers):
            await simulation.run(101.5 + 137 * number)
            came = simulation.moment
            await fill(queue, newcomer, 5)
            await simulation.run(came + 60)
            assert simulation.starts[newcomer][0] - came <= 60

    play(queue_server, scenario)


def test_a_newcomer_does_not_wait_for_arrears_that_a_workers_own_owner_made(queue_server: QueueServer) -> None:
    """A run's own worker serves nobody else. How far its owner is ahead is no measure for those who come."""

    async def scenario(queue: Queue) -> None:
        await join(queue, "own", "shared")
        for owner in ("ahead", "other"):
            await fill(queue, owner, 500)
        for _ in range(300):
            claim = await queue.claim("own", "own/1", Wanted(CLASSES, only="ahead"))
            assert claim is not None
            await queue.finish("own", reports(claim))
        await fill(queue, "newcomer", 100)
        owners: list[str] = []
        for _ in range(20):
            claim = await took(queue, "shared")
            owners.append(claim.owner)
            await queue.finish("shared", reports(claim))
        assert sorted(owners) == ["newcomer"] * 10 + ["other"] * 10

    play(queue_server, scenario)


@pytest.mark.parametrize("worked_before", [False, True])
def test_an_idle_owner_claims_no_arrears(queue_server: QueueServer, worked_before: bool) -> None:
    async def scenario(queue: Queue) -> None:
        simulation = Simulation(queue, {"busy": 3.0, "idle": 2.0}, 4)
        await simulation.begin()
        await fill(queue, "busy", 5_000)
        if worked_before:
            await fill(queue, "idle", 10)
        await simulation.run(1_000.0)
        await fill(queue, "idle", 5_000)
        await simulation.run(1_300.0)
        busy, idle = simulation.slot_seconds("busy", since=1_000.0), simulation.slot_seconds("idle", since=1_000.0)
        assert busy + idle == pytest.approx(4 * 300)
        assert busy / idle == pytest.approx(1.0, rel=0.1)

    play(queue_server, scenario)


def test_one_that_returns_jobs_or_loses_workers_is_not_charged_for_them(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        for owner in ("o", "p"):
            await fill(queue, owner, 20)
            await queue.finish("w", reports(await took(queue, "w"), seconds=30.0))
        before = served(queue_server.client(), "o", "p")
        for _ in range(3):
            await took(queue, "w", 4)
            await queue.leave("w")
            await join(queue, "w")
            await took(queue, "w", 4)
            await queue.reap(["w"], now=True)
            await join(queue, "w")
        assert served(queue_server.client(), "o", "p") == pytest.approx(before)

    play(queue_server, scenario)


def test_a_thousand_workers_that_join_at_once_cost_each_no_more(queue_server: QueueServer) -> None:
    """Counted in commands that the server ran, those inside the scripts included."""
    client = queue_server.client()
    workers = [f"w{number}" for number in range(1_000)]

    async def scenario(queue: Queue) -> None:
        for number in range(20):
            await queue.enqueue(f"o{number}", jobs(range(45)), requirement=SMALL, settings=MANY)
        await queue.enqueue("single", jobs(range(100)), requirement=SMALL, settings=OwnerSettings(max_active=1))
        most, claims, asked_in_vain = 0, dict[str, Claim](), 0
        for worker in workers:
            before = commands(client)
            await join(queue, worker)
            claim = await queue.claim(worker, f"{worker}/1", Wanted(CLASSES), wait=True)
            most = max(most, commands(client) - before)
            if claim is None:
                asked_in_vain += 1
            else:
                claims[worker] = claim
        assert len(claims) == 901 and asked_in_vain == 99
        assert most <= 60
        worker, claim = next((worker, claim) for worker, claim in claims.items() if claim.owner == "single")
        before = commands(client)
        await queue.finish(worker, reports(claim))
        assert commands(client) - before <= 60, "it makes room for one, and wakes one of 99"
        assert await take(queue, worker) is not None
        before = commands(client)
        await queue.enqueue("o0", jobs([1_000]), requirement=SMALL)
        assert commands(client) - before <= 60

    play(queue_server, scenario)


def served(client: redis.Redis, *owners: str) -> list[float]:
    return [float(client.hget(f"knockem:{{{owner}}}", "served") or 0) for owner in owners]


def commands(client: redis.Redis) -> int:
    """Return how many commands the server has run."""
    return sum(each["calls"] for each in client.info("commandstats").values())
