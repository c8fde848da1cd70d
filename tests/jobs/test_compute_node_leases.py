"""A worker and its lease: it starts nothing that may be another's by now, and what it never heard of goes back."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from knockem_dagster.jobs import compute_node, desk
from knockem_dagster.jobs.compute_node import LEAVING_SECONDS, TOO_LATE, ComputeNode
from knockem_dagster.jobs.desk import Desk, JobReport
from knockem_dagster.jobs.queue import Queue, Verdict, Wanted
from knockem_dagster.jobs.requirements import Capacity, Requirement
from tests.services.queue_play import (
    MANY,
    SMALL,
    Clock,
    jobs,
    join,
    numbers,
    play,
    take,
    tally,
    until,
    until_lapsed,
)
from tests.services.queues import QueueServer

LEASE_SECONDS = 0.3


class QuickLane:
    """Does jobs in no time. `before` is called before each, and may block the whole worker."""

    keeps_warm = False

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.before = before
        self.done: list[int] = []

    async def run(self, desk: Desk, *, most: int) -> None:
        while claimed := await desk.claim(most):
            for job in claimed:
                self.before()
                if await desk.may_start(job):
                    self.done += numbers([job])
                    await desk.finish([JobReport(job, Verdict.SUCCEEDED, 0.001)])


def node_of(
    queue: Queue, lane: QuickLane, *, seconds_left: float | None = None, idle_seconds: float = math.inf
) -> ComputeNode:
    capacity = Capacity(cpus=1, memory_mib=100, seconds_left=seconds_left, runtimes=frozenset({SMALL.runtime}))
    return ComputeNode(
        queue,
        {SMALL.runtime: lane},
        capacity,
        name="w",
        lease_seconds=LEASE_SECONDS,
        say=lambda line: None,
        keep_warm=0.0,
        idle_seconds=idle_seconds,
    )


def test_a_job_whose_claim_was_never_answered_is_ready_again(queue_server: QueueServer) -> None:
    lane = QuickLane()

    async def scenario(queue: Queue) -> None:
        node = node_of(queue, lane)
        working = asyncio.create_task(node.run())
        await node.registered.wait()
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        # As if the server had been killed between the claim and its answer: the worker holds what it does not know of.
        unheard = await queue.claim("w", "w/lost", Wanted([SMALL.name]))
        if unheard is not None:  # else the worker was quicker
            assert lane.done == []

        async def is_done() -> bool:
            return lane.done == [1]

        await until(is_done)
        node.stop()
        await working

    play(queue_server, scenario)
    counted = tally(queue_server.client(), "o")
    assert (counted.pending, counted.active, counted.completed) == (0, 0, 1)


def test_a_worker_that_was_paused_beyond_its_lease_starts_nothing_of_what_it_held(queue_server: QueueServer) -> None:
    """Its jobs were given to others meanwhile; it must not begin the next of them before it hears that."""
    began: list[list[int]] = []

    def pause_once() -> None:
        if not began:
            elsewhere = threading.Thread(target=play, args=(queue_server, reap))
            elsewhere.start()
            elsewhere.join()  # the worker's loop stands still
            began.append(list(lane.done))

    async def reap(queue: Queue) -> None:
        await until_lapsed(queue, "w")
        assert await queue.reap(["w"]) != [-1]

    lane = QuickLane(pause_once)

    async def scenario(queue: Queue) -> None:
        node = node_of(queue, lane)
        await queue.enqueue("o", jobs(range(6)), requirement=SMALL, settings=MANY)
        working = asyncio.create_task(node.run())

        async def all_done() -> bool:
            return len(await queue.outcomes("o")) >= 6 and tally(queue_server.client(), "o").completed == 6

        await until(all_done)
        node.stop()
        await working

    play(queue_server, scenario)
    assert began == [[]]
    assert sorted(lane.done) == list(range(6)), "one was begun that was not its own any more"


def test_a_worker_ends_when_its_time_is_over_and_starts_nothing_too_late(
    queue_server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, time_left = Clock(), 3600.0
    for module in (compute_node, desk):
        monkeypatch.setattr(module, "time", clock)
    lane = QuickLane()

    def pass_time_after_three() -> None:
        if len(lane.done) == 3:
            clock.now += time_left - LEAVING_SECONDS

    async def scenario(queue: Queue) -> None:
        node = node_of(queue, lane, seconds_left=time_left)
        lane.before = pass_time_after_three
        await queue.enqueue("o", jobs(range(100)), requirement=SMALL, settings=MANY)
        await node.run()

    play(queue_server, scenario)
    assert lane.done == [0, 1, 2]
    counted = tally(queue_server.client(), "o")
    assert (counted.pending, counted.active, counted.completed) == (97, 0, 3)


def ended_alone(queue: Queue, lane: QuickLane) -> ComputeNode:
    """Return a node with little time left, that ends when it is idle for a moment."""
    return node_of(queue, lane, seconds_left=60, idle_seconds=0.3)


@pytest.mark.parametrize(("seconds", "inability"), [(0.0, ""), (3600.0, TOO_LATE)])
@pytest.mark.parametrize("shorter_before", [False, True])
def test_a_worker_that_comes_too_late_for_any_job_says_so(
    queue_server: QueueServer, seconds: float, inability: str, shorter_before: bool
) -> None:
    async def scenario(queue: Queue) -> tuple[str, Sequence[str]]:
        if shorter_before:
            await queue.enqueue("other", jobs([2]), requirement=SMALL, settings=MANY)
            await queue.cancel("other", forget=True)
        await queue.enqueue("o", jobs([1]), requirement=replace(SMALL, seconds=seconds), settings=MANY)
        node = ended_alone(queue, QuickLane())
        await node.run()
        return node.inability, node.unable_for

    assert play(queue_server, scenario) == (inability, ("o",) if inability else ())
    counted = tally(queue_server.client(), "o")
    assert (counted.in_lists, counted.in_hands) == ((1, 0) if inability else (0, 0)), "it holds nothing any more"


@pytest.mark.parametrize(
    "requirement", [replace(SMALL, seconds=3600), replace(SMALL, seconds=3600, cpus=2), replace(SMALL, seconds=1)]
)
def test_a_worker_for_which_nothing_is_ready_did_not_come_too_late(
    queue_server: QueueServer, requirement: Requirement
) -> None:
    """Its job was taken by somebody else, or it was never one for this worker."""

    async def scenario(queue: Queue) -> str:
        await queue.enqueue("o", jobs([1]), requirement=requirement, settings=MANY)
        if requirement.cpus == 1:
            await join(queue, "quicker")
            assert await take(queue, "quicker", requirement=requirement) is not None
        node = ended_alone(queue, QuickLane())
        await node.run()
        return node.inability

    assert play(queue_server, scenario) == ""
