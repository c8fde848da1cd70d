"""Leases: what a worker holds is its own for as long as it renews them by the server's clock, and no longer."""

from __future__ import annotations

import asyncio

import pytest

from knockem_dagster.errors import LeaseLapsed
from knockem_dagster.jobs.queue import OwnerSettings, Queue, Verdict, lost_with
from knockem_dagster.jobs.queue_views import QueueViews
from tests.services.queue_play import (
    LONG_SECONDS,
    MANY,
    SMALL,
    everything,
    jobs,
    join,
    numbers,
    play,
    reports,
    take,
    tally,
    took,
    until,
    until_lapsed,
)
from tests.services.queues import QueueServer

SHORT_SECONDS = 0.001


def test_a_worker_without_a_lease_must_register_first(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        with pytest.raises(LeaseLapsed):
            await take(queue, "w")
        with pytest.raises(LeaseLapsed):
            await queue.beat("w", lease_seconds=LONG_SECONDS)
        await join(queue, "w")
        assert await queue.beat("w", lease_seconds=LONG_SECONDS) == []
        assert await take(queue, "w") is not None

    play(queue_server, scenario)


def test_a_living_worker_is_not_reaped(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        claim = await took(queue, "w")
        before = everything(queue_server.client())
        assert await queue.lapsed_workers() == []
        assert await queue.reap(["w", "never registered"]) == [-1, -1]
        assert everything(queue_server.client()) == before
        assert None not in await queue.finish("w", reports(claim))

    play(queue_server, scenario)


def test_one_that_beats_again_before_it_is_reaped_keeps_what_it_holds(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w", lease_seconds=SHORT_SECONDS)
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        claim = await took(queue, "w")
        await until_lapsed(queue, "w")
        assert await queue.reap(["w"], patience_seconds=LONG_SECONDS) == [-1], "it is to be given more time"
        await queue.beat("w", lease_seconds=LONG_SECONDS)
        assert await queue.reap(["w"]) == [-1]
        assert None not in await queue.finish("w", reports(claim))

    play(queue_server, scenario)


def test_what_a_lost_worker_held_is_first_in_line_again_in_order(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "dead", lease_seconds=SHORT_SECONDS)
        await queue.enqueue("o", jobs(range(8)), requirement=SMALL, settings=MANY)
        await took(queue, "dead", 3)
        await until_lapsed(queue, "dead")
        assert await queue.reap(["dead"]) == [3]
        assert await queue.reap(["dead"]) == [-1], "it is gone"
        await join(queue, "w")
        assert numbers((await took(queue, "w", 9)).jobs) == list(range(8))
        entries = await queue.outcomes("o")
        assert [(entry.final, entry.payload) for entry in entries] == [(False, lost_with("dead"))] * 3

    play(queue_server, scenario)


def test_a_reaped_workers_late_result_is_refused_and_the_others_counts(queue_server: QueueServer) -> None:
    """A paused worker wakes up: whether its jobs are ready again, in other hands, or done, it records nothing."""

    async def scenario(queue: Queue) -> None:
        await join(queue, "paused", lease_seconds=SHORT_SECONDS)
        await queue.enqueue("o", jobs(range(3)), requirement=SMALL, settings=MANY)
        claim = await took(queue, "paused", 3)
        await until_lapsed(queue, "paused")
        await queue.reap(["paused"])
        await join(queue, "w")
        second = await took(queue, "w", 2)  # of two workers one leaves something to the other
        await queue.finish("w", reports(second)[:1])
        with pytest.raises(LeaseLapsed):
            await take(queue, "paused")
        await join(queue, "paused")
        before = everything(queue_server.client())
        assert await queue.finish("paused", reports(claim)) == [None] * 3
        assert everything(queue_server.client()) == before

    play(queue_server, scenario)
    counted = tally(queue_server.client(), "o")
    assert counted.completed == 1
    assert counted.active == 1 and counted.pending == 1


def test_a_worker_with_the_same_name_cannot_use_an_old_token(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        old = await took(queue, "w")
        await queue.reap(["w"], now=True)
        await join(queue, "w")
        new = await took(queue, "w")
        assert new.jobs == old.jobs
        assert await queue.finish("w", reports(old)) == [None]
        assert None not in await queue.finish("w", reports(new))

    play(queue_server, scenario)


def test_a_job_that_kills_its_workers_is_given_up_at_the_cap_and_the_others_go_on(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        allowed = OwnerSettings(max_active=100, max_fail=1, max_lost=5)
        await queue.enqueue("o", jobs(range(100)), requirement=SMALL, settings=allowed)
        killed, number = 0, 0
        while True:
            number += 1
            worker = f"w{number}"
            await join(queue, worker)
            claim = await take(queue, worker, 7)
            if claim is None:
                break
            if 0 in numbers(claim.jobs):
                killed += 1
                await queue.reap([worker], now=True)
            else:
                await queue.finish(worker, reports(claim))
                await queue.leave(worker)
        assert killed == 5
        entries = await queue.outcomes("o")
        lost = {lost_with(f"w{each}") for each in range(1, number + 1)}
        over = [(entry.job, entry.payload) for entry in entries if entry.final and entry.payload in lost]
        done = [entry.job for entry in entries if entry.payload not in lost]
        assert jobs([0])[0] in [job for job, _ in over]
        assert len(over) + len(done) == len({job for job, _ in over} | set(done)) == 100

    play(queue_server, scenario)


def test_leaving_gives_back_what_is_held_and_counts_nowhere(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await queue.enqueue("o", jobs(range(6)), requirement=SMALL, settings=OwnerSettings(max_active=9, max_lost=1))
        untouched = everything(queue_server.client())
        await join(queue, "w")
        claim = await took(queue, "w", 4)
        await queue.leave("w")
        assert await queue.finish("w", reports(claim)) == [None] * 4
        assert numbers(
            queue_server.client().lrange(f"knockem:{{o}}:pendingCompetitionAttempts:{SMALL.name}", 0, -1)
        ) == [*range(6)]
        assert everything(queue_server.client()).keys() - untouched.keys() <= {b"knockem:clock"}
        await queue.leave("w")

    play(queue_server, scenario)


def test_canceling_removes_all_of_an_owner_and_tells_who_works_for_it(queue_server: QueueServer) -> None:
    def keys() -> set[bytes]:
        return everything(queue_server.client()).keys() - {b"knockem:clock"}

    async def scenario(queue: Queue) -> None:
        await queue.enqueue("other", jobs(range(100, 103)), requirement=SMALL, settings=MANY)
        without = keys()
        await join(queue, "w", "idle")
        await queue.enqueue("o", jobs(range(9)), requirement=SMALL, settings=OwnerSettings(max_active=9, max_fail=2))
        claims = [claim for _ in range(8) if (claim := await take(queue, "w", 2))]
        mine = [report for claim in claims if claim.owner == "o" for report in reports(claim, Verdict.FAILED)]
        await queue.finish("w", mine[:1])
        held = {report.job for report in mine[1:]}
        theirs = [report for claim in claims if claim.owner == "other" for report in reports(claim)]
        assert held and theirs
        assert await queue.cancel("o") == 9
        assert await queue.cancel("o") == 0
        assert await queue.finish("w", mine[1:]) == [None] * len(held)
        assert set(await queue.beat("w", lease_seconds=LONG_SECONDS)) == held
        first, *rest = held
        assert await queue.beat("w", lease_seconds=LONG_SECONDS, ended=rest) == [first], "it is told until it is done"
        assert await QueueViews(queue).ending("o") == {"w"}
        assert await queue.beat("w", lease_seconds=LONG_SECONDS, ended=[first]) == []
        assert await queue.beat("idle", lease_seconds=LONG_SECONDS) == []
        assert len(await queue.outcomes("o")) == 1, "what was not recorded yet is still to be"
        await queue.cancel("o", forget=True)
        assert None not in await queue.finish("w", theirs)
        for worker in ("w", "idle"):
            await queue.leave(worker)
        emptied = {f"knockem:{{other}}:pendingCompetitionAttempts:{SMALL.name}".encode(), b"knockem:ready"}
        assert keys() == (without - emptied) | {b"knockem:{other}:outcomes"}

    play(queue_server, scenario)


def test_a_job_asked_again_after_canceling_is_not_ended(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        for _ in range(2):
            await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
            claim = await took(queue, "w")
            if not await queue.outcomes("o"):
                await queue.cancel("o")
                await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
                claim = await took(queue, "w")
                assert await queue.beat("w", lease_seconds=LONG_SECONDS) == []
            await queue.finish("w", reports(claim))

    play(queue_server, scenario)


def test_a_claim_whose_answer_was_lost_is_given_back_while_its_worker_lives(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(5)), requirement=SMALL, settings=OwnerSettings(max_active=9, max_lost=1))
        untouched = tally(queue_server.client(), "o")
        unheard, known = await took(queue, "w", 2), await took(queue, "w", 2)

        async def beat_gives_back() -> bool:
            await queue.beat("w", lease_seconds=SHORT_SECONDS, held=known.jobs)
            return tally(queue_server.client(), "o").active == 2

        assert await queue.beat("w", lease_seconds=LONG_SECONDS, held=known.jobs) == []
        assert tally(queue_server.client(), "o").active == 4, "the answer may be under way"
        await queue.beat("w", lease_seconds=SHORT_SECONDS)
        assert tally(queue_server.client(), "o").active == 4, "it did not say what it holds"
        await until(beat_gives_back)
        assert await queue.finish("w", reports(unheard)) == [None, None]
        assert numbers((await took(queue, "w", 9)).jobs) == [0, 1, 4]
        assert None not in await queue.finish("w", reports(known))
        assert await queue.leave("w") is None
        counted = tally(queue_server.client(), "o")
        assert (counted.completed, counted.pending) == (2, untouched.pending - 2)

    play(queue_server, scenario)


def test_beats_and_reaping_agree_whatever_order_they_come_in(queue_server: QueueServer) -> None:
    """Every lapsed worker is either reaped or lives on; no job is lost or doubled in between."""

    async def scenario(queue: Queue) -> None:
        workers = [f"w{number}" for number in range(20)]
        await queue.enqueue("o", jobs(range(20)), requirement=SMALL, settings=MANY)
        await join(queue, *workers, lease_seconds=SHORT_SECONDS)
        claims = {worker: await took(queue, worker) for worker in workers}
        await until_lapsed(queue, *workers)

        async def beat(worker: str) -> bool:
            try:
                await queue.beat(worker, lease_seconds=LONG_SECONDS)
            except LeaseLapsed:
                return False
            return True

        answers = await asyncio.gather(*(call for worker in workers for call in (beat(worker), queue.reap([worker]))))
        living, reaped = answers[0::2], answers[1::2]
        for worker, lives, taken in zip(workers, living, reaped, strict=True):
            assert taken == ([-1] if lives else [1])
            accepted = await queue.finish(worker, reports(claims[worker]))
            assert (None not in accepted) == lives
        counted = tally(queue_server.client(), "o")
        assert counted.completed == sum(map(bool, living))
        assert counted.pending == counted.in_lists == 20 - counted.completed

    play(queue_server, scenario)


def test_a_worker_whose_lease_was_ended_gives_nothing_and_its_jobs_wait_until_it_is_reaped(
    queue_server: QueueServer,
) -> None:
    """While what it runs is being killed it must not hand that in as failed, nor may anybody else begin it."""

    async def scenario(queue: Queue) -> None:
        await join(queue, "slow", lease_seconds=SHORT_SECONDS)
        await join(queue, "w")
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        claim = await took(queue, "slow")
        assert await queue.end_leases(["w", "nobody"]) == [-1, -1]
        await until_lapsed(queue, "slow")
        assert await queue.end_leases(["slow"]) == [1]
        assert await queue.end_leases(["slow"]) == [1], "another may have begun to end it, and died"
        assert await queue.lapsed_workers() == ["slow"]
        assert await queue.finish("slow", reports(claim, Verdict.FAILED)) == [None]
        for call in (lambda: take(queue, "slow"), lambda: queue.beat("slow", lease_seconds=LONG_SECONDS)):
            with pytest.raises(LeaseLapsed):
                await call()
        assert await take(queue, "w") is None
        assert await queue.reap(["slow"]) == [1]
        assert (await took(queue, "w")).jobs == claim.jobs

    play(queue_server, scenario)


def test_a_worker_whose_lease_was_ended_registers_with_empty_hands(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "slow", lease_seconds=SHORT_SECONDS)
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        claim = await took(queue, "slow")
        await until_lapsed(queue, "slow")
        await queue.end_leases(["slow"])
        await join(queue, "slow")
        assert await queue.reap(["slow"]) == [-1], "it has a new lease"
        assert await queue.finish("slow", reports(claim)) == [None]
        again = await took(queue, "slow")
        assert again.jobs == claim.jobs
        assert None not in await queue.finish("slow", reports(again))

    play(queue_server, scenario)
