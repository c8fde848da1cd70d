"""The queue hands out jobs in order, never more than an owner may have, and tries none more often than it may."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from knockem_dagster.errors import LeaseLapsed
from knockem_dagster.jobs.queue import AssayCounts, OwnerSettings, Queue, Report, Verdict, Wanted
from tests.services.queue_play import (
    LARGE,
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
)
from tests.services.queues import QueueServer


def test_jobs_are_handed_out_in_the_order_they_came(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(9_000)), requirement=SMALL, settings=MANY)
        await queue.enqueue("o", jobs(range(9_000, 9_010)), requirement=SMALL)
        handed: list[int] = []
        while claim := await take(queue, "w", most=700):
            handed += numbers(claim.jobs)
            await queue.finish("w", reports(claim))
        assert handed == list(range(9_010))

    play(queue_server, scenario)


def test_those_put_first_go_before_the_others_in_their_own_order(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(3)), requirement=SMALL, settings=OwnerSettings(max_active=10_000))
        await queue.enqueue("o", jobs(range(10, 5_010)), requirement=SMALL, first=True)
        handed = [number for _ in range(6) for number in numbers((await took(queue, "w", 1_000)).jobs)]
        assert handed == [*range(10, 5_010), 0, 1, 2]

    play(queue_server, scenario)


def test_never_more_than_max_active_whoever_asks(queue_server: QueueServer) -> None:
    """Twenty slots claim and finish side by side; how many hold a job is counted by the holders themselves."""
    in_work, most_seen, done = set[bytes](), 0, list[bytes]()

    async def slot(queue: Queue, name: str) -> None:
        nonlocal most_seen
        while len(done) < 300:
            claim = await take(queue, name, most=2)
            if claim is None:
                await asyncio.sleep(0)
                continue
            assert not in_work & set(claim.jobs)
            in_work.update(claim.jobs)
            most_seen = max(most_seen, len(in_work))
            await asyncio.sleep(0)
            in_work.difference_update(claim.jobs)
            assert None not in await queue.finish(name, reports(claim))
            done.extend(claim.jobs)

    async def scenario(queue: Queue) -> None:
        workers = [f"w{number}" for number in range(20)]
        await join(queue, *workers)
        await queue.enqueue("o", jobs(range(300)), requirement=SMALL, settings=OwnerSettings(max_active=3))
        await asyncio.gather(*(slot(queue, worker) for worker in workers))

    play(queue_server, scenario)
    assert most_seen == 3
    assert sorted(numbers(done)) == list(range(300))


def test_max_active_is_one_cap_over_all_classes_and_can_be_changed(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(4)), requirement=SMALL, settings=OwnerSettings(max_active=3))
        await queue.enqueue("o", jobs(range(4, 8)), requirement=LARGE)
        first = await took(queue, "w", 2)
        assert len(first.jobs) == 2
        second = await take(queue, "w", 2, LARGE)
        assert second is not None and len(second.jobs) == 1
        assert await take(queue, "w") is None and await take(queue, "w", 1, LARGE) is None
        await queue.enqueue("o", settings=OwnerSettings(max_active=4))
        assert await take(queue, "w") is not None
        await queue.enqueue("o", settings=OwnerSettings(max_active=1))
        await queue.finish("w", [*reports(first), *reports(second)])
        assert await take(queue, "w") is None

    play(queue_server, scenario)


@pytest.mark.parametrize("max_fail", [1, 2, 5])
def test_a_job_that_always_fails_is_tried_max_fail_times(queue_server: QueueServer, max_fail: int) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([7]), requirement=SMALL, settings=OwnerSettings(max_active=9, max_fail=max_fail))
        for _ in range(max_fail):
            await queue.finish("w", reports(await took(queue, "w"), Verdict.FAILED))
        assert await take(queue, "w") is None
        entries = await queue.outcomes("o")
        assert [entry.final for entry in entries] == [False] * (max_fail - 1) + [True]
        assert {entry.payload for entry in entries} == {b"what it said"}

    play(queue_server, scenario)
    counted = tally(queue_server.client(), "o")
    assert (counted.pending, counted.active, counted.completed) == (0, 0, 0)
    assert not queue_server.client().exists("knockem:{o}:tries")


def test_losses_and_failures_are_counted_apart(queue_server: QueueServer) -> None:
    verdicts = [Verdict.LOST, Verdict.FAILED, Verdict.LOST, Verdict.FAILED, Verdict.LOST]

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        allowed = OwnerSettings(max_active=9, max_fail=3, max_lost=3)
        await queue.enqueue("o", jobs([7]), requirement=SMALL, settings=allowed)
        for verdict in verdicts:
            await queue.finish("w", reports(await took(queue, "w"), verdict))
        assert await take(queue, "w") is None
        assert [entry.final for entry in await queue.outcomes("o")] == [False, False, False, False, True]

    play(queue_server, scenario)


def test_a_job_that_succeeds_at_last_starts_anew_when_asked_again(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([7]), requirement=SMALL, settings=OwnerSettings(max_active=9, max_fail=2))
        for verdict in (Verdict.FAILED, Verdict.SUCCEEDED):
            await queue.finish("w", reports(await took(queue, "w"), verdict))
        await queue.enqueue("o", jobs([7]), requirement=SMALL)
        await queue.finish("w", reports(await took(queue, "w"), Verdict.FAILED))
        assert await take(queue, "w") is not None

    play(queue_server, scenario)


def test_a_failed_job_waits_behind_the_others_and_a_lost_one_goes_first(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        allowed = OwnerSettings(max_active=9, max_fail=3)
        await queue.enqueue("o", jobs(range(4)), requirement=SMALL, settings=allowed)
        await queue.finish("w", reports(await took(queue, "w"), Verdict.FAILED))
        await queue.finish("w", reports(await took(queue, "w"), Verdict.LOST))
        assert numbers((await took(queue, "w", 9)).jobs) == [1, 2, 3, 0]

    play(queue_server, scenario)


def test_what_a_worker_does_not_hold_is_refused_and_changes_nothing(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w", "other")
        await queue.enqueue("o", jobs(range(6)), requirement=SMALL, settings=MANY)
        claim = await took(queue, "w", 2)
        job = claim.jobs[0]
        before = everything(queue_server.client())
        for verdict in Verdict:
            foreign = Report("o", job, claim.token, verdict, 1.0, b"")
            forged = Report("o", job, b"0" * 16, verdict, 1.0, b"")
            waiting = Report("o", jobs([5])[0], claim.token, verdict, 1.0, b"")
            unknown = Report("o", jobs([77])[0], claim.token, verdict, 1.0, b"")
            nobodys = Report("nobody", job, claim.token, verdict, 1.0, b"")
            assert await queue.finish("other", [foreign]) == [None]
            assert await queue.finish("w", [forged, waiting, unknown, nobodys]) == [None] * 4
            assert await queue.finish("never registered", [foreign]) == [None]
        assert everything(queue_server.client()) == before
        once = await queue.finish("w", reports(claim))
        assert None not in once
        assert await queue.finish("w", reports(claim)) == [None, None]

    play(queue_server, scenario)
    counted = tally(queue_server.client(), "o")
    assert (counted.pending, counted.active, counted.completed) == (4, 0, 2)


def test_a_batch_may_hold_what_is_accepted_beside_what_is_not(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(3)), requirement=SMALL, settings=MANY)
        claim = await took(queue, "w", 3)
        good, bad, back = reports(claim)
        bad = Report("o", bad.job, b"not it", Verdict.SUCCEEDED)
        back = Report("o", back.job, back.token, Verdict.RETURNED)
        answers = await queue.finish("w", [good, bad, back, good])
        entries = await queue.outcomes("o")
        assert answers == [entries[0].id, None, b"", None]
        assert [entry.job for entry in entries] == [good.job]

    play(queue_server, scenario)


def test_returned_jobs_come_first_again_in_order_and_count_nowhere(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(8)), requirement=SMALL, settings=OwnerSettings(max_active=9, max_fail=1))
        untouched = tally(queue_server.client(), "o")
        for _ in range(4):
            claim = await took(queue, "w", 5)
            assert numbers(claim.jobs) == [0, 1, 2, 3, 4]
            assert await queue.finish("w", reports(claim, Verdict.RETURNED, seconds=0.0)) == [b""] * 5
        assert tally(queue_server.client(), "o") == untouched
        assert await queue.outcomes("o") == []
        assert not queue_server.client().exists("knockem:{o}:tries", "knockem:tally")
        assert float(queue_server.client().hget("knockem:{o}", "served") or -1) == 0.0

    play(queue_server, scenario)


def test_a_job_that_is_twice_in_the_queue_is_in_one_hand_only(queue_server: QueueServer) -> None:
    """It is put again when the server was away and nobody knows whether it had come."""

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([1, 1, 2]), requirement=SMALL, settings=MANY)
        claim = await took(queue, "w", 9)
        assert numbers(claim.jobs) == [1, 2]
        await queue.enqueue("o", jobs([1, 2]), requirement=SMALL)
        await queue.enqueue("o", jobs([3]), requirement=SMALL)
        assert numbers((await took(queue, "w")).jobs) == [3]
        await queue.finish("w", reports(claim))

    play(queue_server, scenario)
    counted = tally(queue_server.client(), "o")
    assert (counted.pending, counted.active, counted.completed) == (0, 1, 2)
    assert (counted.in_lists, counted.in_hands) == (0, 1)


def test_one_round_trip_hands_in_and_claims(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(5)), requirement=SMALL, settings=OwnerSettings(max_active=1))
        claim = await took(queue, "w")
        for number in range(1, 6):
            answers, following = await queue.finish_and_claim("w", "w/1", reports(claim), Wanted([SMALL.name]))
            assert len(answers) == 1 and answers[0]
            assert (following is None) == (number == 5)
            claim = following or claim
        with pytest.raises(LeaseLapsed):
            await queue.finish_and_claim("stranger", "s/1", reports(claim), Wanted([SMALL.name]))

    play(queue_server, scenario)


def test_tokens_are_never_given_twice(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        tokens = set[bytes]()
        for number in itertools.count():
            claim = await took(queue, "w")
            tokens.add(claim.token)
            if number == 200:
                break
            await queue.finish("w", reports(claim, Verdict.RETURNED))
        assert len(tokens) == 201

    play(queue_server, scenario)


def test_structures_and_counters_have_the_names_of_the_design(queue_server: QueueServer) -> None:
    """What a person finds in the server: activeSubmissions, the assays, the attempts, and six counters."""

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        counts = AssayCounts(pending=["p1", "p2", "p3"], active=["a1", "a2"], completed=4, completed_competitions=6)
        await queue.enqueue("o", jobs(range(5)), requirement=SMALL, settings=MANY, assays=counts)
        claim = await took(queue, "w", 2)
        await queue.finish("w", reports(claim)[:1])

    play(queue_server, scenario)
    client = queue_server.client()
    assert client.smembers("knockem:activeSubmissions") == {b"o"}
    assert client.smembers("knockem:{o}:pendingAssays") == {b"p1", b"p2", b"p3"}
    assert client.smembers("knockem:{o}:activeAssays") == {b"a1", b"a2"}
    assert numbers(client.lrange(f"knockem:{{o}}:pendingCompetitionAttempts:{SMALL.name}", 0, -1)) == [2, 3, 4]
    assert numbers(client.hkeys("knockem:{o}:activeCompetitionAttempts")) == [1]
    fields = client.hgetall("knockem:{o}")
    assert {name: int(value) for name, value in fields.items() if name.startswith(b"submissionNum")} == {
        b"submissionNumPendingAssays": 3,
        b"submissionNumActiveAssays": 2,
        b"submissionNumCompletedAssays": 4,
        b"submissionNumPendingCompetitions": 3,
        b"submissionNumActiveCompetitions": 1,
        b"submissionNumCompletedCompetitions": 7,
    }
