"""Whose jobs a worker is given: those that fit it, of the owner whose turn it is or of the one it asks for."""

from __future__ import annotations

from knockem_dagster.jobs.queue import OwnerSettings, Queue, Wanted
from tests.services.queue_play import (
    LARGE,
    MANY,
    SMALL,
    jobs,
    join,
    numbers,
    play,
    reports,
    take,
    took,
)
from tests.services.queues import QueueServer


def test_only_classes_that_fit_are_claimed(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([1]), requirement=LARGE, settings=MANY)
        assert await queue.claim("w", "w/1", Wanted([])) is None
        assert await take(queue, "w") is None
        claim = await queue.claim("w", "w/1", Wanted([SMALL.name, LARGE.name]))
        assert claim is not None and claim.class_name == LARGE.name
        assert await queue.classes() == {LARGE.name: LARGE}

    play(queue_server, scenario)


def test_owners_can_be_excluded_preferred_or_the_only_one(queue_server: QueueServer) -> None:
    classes = [SMALL.name]

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        owners = "abc"
        for owner in owners:
            await queue.enqueue(owner, jobs(range(50)), requirement=SMALL, settings=MANY)

        async def owner_of(wanted: Wanted) -> str | None:
            claim = await queue.claim("w", "w/1", wanted)
            if claim is None:
                return None
            await queue.finish("w", reports(claim))
            return claim.owner

        assert {await owner_of(Wanted(classes)) for _ in owners} == set(owners), "each has its turn"
        assert [await owner_of(Wanted(classes, preferred="c", lead_seconds=5.0)) for _ in range(6)] == ["c"] * 6
        assert await owner_of(Wanted(classes, preferred="c", lead_seconds=5.0)) != "c", "it leads by six"
        assert await owner_of(Wanted(classes, only="c")) == "c"
        assert await owner_of(Wanted(classes, excluded=("a", "c"))) == "b"
        assert await owner_of(Wanted(classes, excluded=tuple(owners))) is None
        assert await owner_of(Wanted(classes, permitted=("b", "nobody"))) == "b"
        assert await owner_of(Wanted(classes, permitted=("b",), excluded=("b",))) is None
        assert await owner_of(Wanted(classes, only="a", permitted=("b",))) is None
        assert {await owner_of(Wanted(classes, preferred="a", permitted=("b", "c"))) for _ in range(9)} == {"b", "c"}
        assert await owner_of(Wanted(classes, permitted=())) is None
        assert await owner_of(Wanted(classes, only="nobody")) is None
        assert await owner_of(Wanted(classes, preferred="nobody")) in owners

    play(queue_server, scenario)


def test_the_first_turn_of_a_newcomer_goes_before_a_preference(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("old", jobs(range(50)), requirement=SMALL, settings=MANY)
        wanted = Wanted([SMALL.name], preferred="old", lead_seconds=1e9)
        for _ in range(3):
            claim = await queue.claim("w", "w/1", wanted)
            assert claim is not None and claim.owner == "old"
            await queue.finish("w", reports(claim))
        await queue.enqueue("new", jobs(range(50)), requirement=SMALL, settings=MANY)
        owners = [claim.owner for _ in range(3) if (claim := await queue.claim("w", "w/1", wanted))]
        assert owners == ["new", "old", "old"]

    play(queue_server, scenario)


def test_an_owner_that_cannot_be_served_now_does_not_hide_the_preferred_one(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("blocked", jobs(range(5)), requirement=SMALL, settings=OwnerSettings(max_active=1))
        assert (await took(queue, "w")).owner == "blocked"
        for owner in ("mine", "other"):
            await queue.enqueue(owner, jobs(range(50)), requirement=SMALL, settings=MANY)
        for _ in range(40):  # both lead the blocked one by far
            await queue.finish("w", reports(await took(queue, "w")))
        wanted = Wanted([SMALL.name], preferred="mine", lead_seconds=1.5)
        assert [claim.owner for _ in range(2) if (claim := await queue.claim("w", "w/1", wanted))] == ["mine", "mine"]

    play(queue_server, scenario)


def test_more_owners_than_a_page_of_the_line_are_looked_through(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        for number in range(150):
            await queue.enqueue(f"o{number:03}", jobs([number]), requirement=LARGE, settings=MANY)
        await queue.enqueue("z", jobs([999]), requirement=SMALL, settings=MANY)
        assert numbers((await took(queue, "w")).jobs) == [999]
        handed = [
            number for _ in range(150) if (claim := await take(queue, "w", 1, LARGE)) for number in numbers(claim.jobs)
        ]
        assert sorted(handed) == list(range(150))

    play(queue_server, scenario)


def test_one_that_feeds_ahead_leaves_something_to_the_others(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "a", "b", "c", "d")
        await queue.enqueue("o", jobs(range(10)), requirement=SMALL, settings=MANY)
        assert [len((await took(queue, worker, 64)).jobs) for worker in "abcd"] == [3, 2, 2, 1]

    play(queue_server, scenario)


def test_asking_for_nothing_gives_nothing(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs([1]), requirement=SMALL, settings=MANY)
        assert await take(queue, "w", most=0) is None
        assert await queue.finish("w", []) == []

    play(queue_server, scenario)
