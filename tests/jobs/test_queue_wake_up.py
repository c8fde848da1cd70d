"""Workers that wait are woken when there is work for them, and left alone when there is none."""

from __future__ import annotations

import asyncio
import time

import pytest

from knockem_dagster.jobs.queue import OwnerSettings, Queue, Verdict, Wanted
from tests.services.queue_play import LARGE, MANY, SMALL, jobs, join, play, reports, take, took
from tests.services.queues import QueueServer

AT_ONCE_SECONDS = 10.0
"""Far below the time for which the waiters here wait, far above what a wake-up call takes."""


async def wait_as(queue: Queue, waiter: str, wanted: Wanted) -> None:
    """Ask, get nothing, and be noted as one who waits. The worker is what comes before the stroke."""
    assert await queue.claim(waiter.partition("/")[0], waiter, wanted, wait=True) is None


async def woken(queue: Queue, *waiters: str) -> list[str]:
    """Return those of the waiters who have been called, taking the calls."""
    return [waiter for waiter in waiters if await queue.server.lpop(f"knockem:wake:{waiter}") is not None]


def test_a_waiting_worker_is_woken_by_work(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> float:
        await join(queue, "w")
        await queue.enqueue("o", jobs([0]), requirement=SMALL, settings=MANY)
        await queue.finish("w", reports(await took(queue, "w")))
        await wait_as(queue, "w/1", Wanted([SMALL.name]))
        began = time.monotonic()
        waiting = asyncio.ensure_future(queue.wait_for_work("w/1", 15.0))
        await queue.enqueue("o", jobs([1]), requirement=SMALL)
        await waiting
        assert await take(queue, "w") is not None
        return time.monotonic() - began

    assert play(queue_server, scenario) < AT_ONCE_SECONDS


def test_waiting_ends_by_itself(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> bool:
        await join(queue, "w")
        await wait_as(queue, "w/1", Wanted([SMALL.name]))
        await queue.wait_for_work("w/1", 0.01)
        return await take(queue, "w") is None

    assert play(queue_server, scenario), "there was nothing to wait for"


def test_a_call_that_comes_between_asking_and_waiting_is_not_lost(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> float:
        await join(queue, "w")
        await wait_as(queue, "w/1", Wanted([SMALL.name]))
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        began = time.monotonic()
        await queue.wait_for_work("w/1", 15.0)
        return time.monotonic() - began

    assert play(queue_server, scenario) < AT_ONCE_SECONDS


def test_only_those_are_woken_whom_class_and_owner_fit(queue_server: QueueServer) -> None:
    waiters = {
        "w/small": Wanted([SMALL.name]),
        "w/large": Wanted([LARGE.name]),
        "w/both": Wanted([LARGE.name, SMALL.name]),
        "w/mine": Wanted([SMALL.name], only="o"),
        "w/other": Wanted([SMALL.name], only="p"),
        "w/none": Wanted([]),
    }

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        for requirement in (SMALL, LARGE):
            await queue.enqueue("o", jobs([0]), requirement=requirement, settings=MANY)
            await queue.finish("w", reports(claim) if (claim := await take(queue, "w", 1, requirement)) else [])
        for waiter, wanted in waiters.items():
            await wait_as(queue, waiter, wanted)
        await queue.enqueue("o", jobs(range(10)), requirement=SMALL)
        assert await woken(queue, *waiters) == ["w/small", "w/both", "w/mine"]
        await queue.enqueue("o", jobs(range(10, 20)), requirement=LARGE)
        assert await woken(queue, *waiters) == ["w/large"]

    play(queue_server, scenario)


def test_those_who_may_not_work_for_all_take_nobodys_call(queue_server: QueueServer) -> None:
    limited = {
        "w/others": Wanted([SMALL.name], permitted=["p"]),
        "w/nobodys": Wanted([SMALL.name], permitted=[]),
        "w/unable": Wanted([SMALL.name], excluded=["o"]),
        "w/mine": Wanted([SMALL.name], permitted=["o"]),
    }

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([0]), requirement=SMALL, settings=MANY)
        await queue.finish("w", reports(await took(queue, "w")))
        for waiter, wanted in {**limited, "w/free": Wanted([SMALL.name])}.items():
            await wait_as(queue, waiter, wanted)
        await queue.enqueue("o", jobs([1]), requirement=SMALL)
        assert "w/free" in await woken(queue, *limited, "w/free")
        await queue.finish("w", reports(await took(queue, "w")))
        for waiter, wanted in limited.items():
            await wait_as(queue, waiter, wanted)
        await queue.enqueue("o", jobs([2]), requirement=SMALL)
        assert "w/mine" in await woken(queue, *limited)

    play(queue_server, scenario)


def test_as_many_are_woken_as_there_are_jobs(queue_server: QueueServer) -> None:
    waiters = [f"w/{number}" for number in range(1_000)]

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([0]), requirement=SMALL, settings=MANY)
        await queue.finish("w", reports(await took(queue, "w")))
        for waiter in waiters:
            await wait_as(queue, waiter, Wanted([SMALL.name]))
        first = first_left = 0
        for number in (1, 3, 250):
            await queue.enqueue("o", jobs(range(first, first + number)), requirement=SMALL)
            assert len(await woken(queue, *waiters)) == number
            first += number
            first_left = 1_000 - first
        await queue.enqueue("o", jobs(range(10_000, 15_000)), requirement=SMALL)
        assert len(await woken(queue, *waiters)) == first_left

    play(queue_server, scenario)


def test_a_new_class_wakes_everybody(queue_server: QueueServer) -> None:
    """Who waits named the classes that it knew; whether the new one fits it can only tell by itself."""

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await wait_as(queue, "w/1", Wanted([]))
        await wait_as(queue, "w/2", Wanted([SMALL.name]))
        await queue.enqueue("o", jobs([0]), requirement=LARGE, settings=MANY)
        assert await woken(queue, "w/1", "w/2") == ["w/1", "w/2"]

    play(queue_server, scenario)


@pytest.mark.parametrize("verdict", Verdict)
def test_a_job_that_ends_makes_room_under_max_active(queue_server: QueueServer, verdict: Verdict) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w", "x")
        await queue.enqueue("o", jobs(range(3)), requirement=SMALL, settings=OwnerSettings(max_active=1))
        claim = await took(queue, "w")
        for waiter in ("x/1", "x/2"):
            await wait_as(queue, waiter, Wanted([SMALL.name]))
        await wait_as(queue, "x/3", Wanted([LARGE.name]))
        await queue.finish("w", reports(claim, verdict))
        assert len(await woken(queue, "x/1", "x/2", "x/3")) == 1

    play(queue_server, scenario)


def test_room_is_made_for_an_owners_jobs_of_other_classes_too(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w", "x")
        await queue.enqueue("o", jobs([0]), requirement=SMALL, settings=OwnerSettings(max_active=1))
        claim = await took(queue, "w")
        await queue.enqueue("o", jobs([1]), requirement=LARGE)
        await wait_as(queue, "x/1", Wanted([LARGE.name]))
        await queue.finish("w", reports(claim))
        assert await woken(queue, "x/1") == ["x/1"]

    play(queue_server, scenario)


def test_leaving_and_reaping_wake_who_can_go_on(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "left", "lost", "x")
        await queue.enqueue("o", jobs(range(2)), requirement=SMALL, settings=OwnerSettings(max_active=2))
        for worker in ("left", "lost"):
            await took(queue, worker)
        for waiter in ("x/1", "x/2"):
            await wait_as(queue, waiter, Wanted([SMALL.name]))
        await queue.leave("left")
        assert len(await woken(queue, "x/1", "x/2")) == 1
        await queue.reap(["lost"], now=True)
        assert len(await woken(queue, "x/1", "x/2")) == 1

    play(queue_server, scenario)


def test_calls_are_not_wasted_on_workers_that_are_gone(queue_server: QueueServer) -> None:
    gone = [f"gone{number}" for number in range(300)]

    async def scenario(queue: Queue) -> None:
        await queue.enqueue("o", jobs([0]), requirement=SMALL, settings=MANY)
        await join(queue, *gone, "w")
        await queue.finish("w", reports(await took(queue, "w")))
        for worker in (*gone, "w"):
            await wait_as(queue, f"{worker}/1", Wanted([SMALL.name]))
        await queue.reap(gone, now=True)
        await queue.enqueue("o", jobs([1]), requirement=SMALL)
        assert await woken(queue, "w/1") == ["w/1"]

    play(queue_server, scenario)


def test_a_worker_that_leaves_is_named_nowhere(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> list[bytes]:
        await join(queue, "leaver", "stayer")
        await queue.enqueue("o", jobs([0]), requirement=SMALL, settings=MANY)
        await queue.finish("leaver", reports(await took(queue, "leaver")))
        for waiter in ("leaver/0", "leaver/1", "stayer/0"):
            await wait_as(queue, waiter, Wanted([SMALL.name]))
        await queue.leave("leaver")
        keys = [key async for key in queue.server.scan_iter("*")]
        return [key for key in keys if b"leaver" in key or b"leaver" in await queue.server.dump(key)]

    assert play(queue_server, scenario) == []
