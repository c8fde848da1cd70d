"""The queue's server may forget its scripts, be killed and come back: nothing is lost, doubled or mixed up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.errors import LeaseLapsed, QueueAway
from knockem_dagster.jobs.queue import OwnerSettings, Queue, Verdict, Wanted
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
)
from tests.services.queues import QueueServer, running_queue


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[QueueServer]:
    with running_queue(tmp_path) as server:
        yield server


async def start_again(queue: Queue, server: QueueServer, *, forgetful: bool = False) -> None:
    """Kill the server and start it again, with its files or without; connections that died with it are noticed."""
    server.kill()
    if forgetful:
        server.forget()
    server.start()

    async def answers() -> bool:
        try:
            await queue.lapsed_workers()
        except QueueAway:
            return False
        return True

    await until(answers)


def test_a_server_that_forgot_the_scripts_is_told_them_again(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        client = queue_server.client()
        for number in range(3):
            client.script_flush()
            await join(queue, "w")
            client.script_flush()
            await queue.enqueue("o", jobs([2 * number, 2 * number + 1]), requirement=SMALL, settings=MANY)
            client.script_flush()
            claim = await took(queue, "w")
            client.script_flush()
            answers, second = await queue.finish_and_claim("w", "w/1", reports(claim), Wanted([SMALL.name]))
            assert None not in answers and second is not None
            client.script_flush()
            await queue.finish("w", reports(second))
            client.script_flush()
            assert await queue.reap(["w"]) == [-1]
            client.script_flush()
            assert await queue.cancel("o") == 0

    play(queue_server, scenario)


def test_one_script_forgotten_is_not_reason_to_run_the_other_twice(queue_server: QueueServer) -> None:
    """A batch whose first script ran must not hand in its jobs again because the second was not known."""

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(2)), requirement=SMALL, settings=MANY)
        claim = await took(queue, "w")
        await queue.finish("w", reports(claim, Verdict.RETURNED))
        claim = await took(queue, "w")
        scripts = queue._scripts  # pyright: ignore[reportPrivateUsage]
        queue_server.client().script_flush()
        queue_server.client().script_load(scripts["finish"].text)
        answers, second = await queue.finish_and_claim("w", "w/1", reports(claim), Wanted([SMALL.name]))
        assert answers == [(await queue.outcomes("o"))[0].id]
        assert second is not None

    play(queue_server, scenario)


def test_a_killed_server_is_away_and_comes_back_with_everything(own_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        allowed = OwnerSettings(max_active=50, max_fail=3)
        for owner in ("o", "p"):
            await queue.enqueue(owner, jobs(range(500)), requirement=SMALL, settings=allowed)
        await join(queue, "w", "v")
        claims = [claim for worker in ("w", "v") for _ in range(4) if (claim := await take(queue, worker, 7))]
        await queue.finish("w", reports(claims[0]))
        await queue.finish("w", reports(claims[1], Verdict.FAILED))
        await queue.finish("w", reports(claims[2], Verdict.RETURNED))
        before = everything(own_server.client())
        own_server.kill()
        for call in (
            lambda: take(queue, "w"),
            lambda: queue.finish("w", reports(claims[3])),
            lambda: queue.finish_and_claim("w", "w/1", reports(claims[3]), Wanted([SMALL.name])),
            lambda: queue.beat("w", lease_seconds=LONG_SECONDS),
            lambda: queue.outcomes("o", wait=1.0),
            lambda: queue.wait_for_work("w/1", 1.0),
            lambda: queue.jobs_of("o"),
            queue.lapsed_workers,
        ):
            with pytest.raises(QueueAway):
                await call()
        own_server.start()
        assert everything(own_server.client()) == before
        assert None not in await queue.finish("w", reports(claims[3]))
        assert await queue.finish("w", reports(claims[0])) == [None] * len(claims[0].jobs)
        assert len(await queue.outcomes(claims[0].owner)) >= len(claims[0].jobs)

    play(own_server, scenario)


def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(own_server: QueueServer) -> None:
    finished: list[int] = []
    tokens: list[bytes] = []

    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(60)), requirement=SMALL, settings=MANY)
        for _ in range(3):
            for _ in range(4):
                claim = await took(queue, "w", 5)
                tokens.append(claim.token)
                if len(tokens) % 4 == 2:
                    await start_again(queue, own_server)
                assert None not in await queue.finish("w", reports(claim))
                finished.extend(numbers(claim.jobs))
        assert await take(queue, "w") is None
        recorded = [number for entry in await queue.outcomes("o") for number in numbers([entry.job])]
        assert recorded == finished

    play(own_server, scenario)
    assert finished == list(range(60))
    assert len(set(tokens)) == len(tokens) == 12
    counted = tally(own_server.client(), "o")
    assert (counted.pending, counted.active, counted.completed) == (0, 0, 60)


def test_after_losing_its_files_workers_register_again_and_results_are_refused(own_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        await join(queue, "w")
        await queue.enqueue("o", jobs(range(4)), requirement=SMALL, settings=MANY)
        claim = await took(queue, "w", 2)
        await start_again(queue, own_server, forgetful=True)
        with pytest.raises(LeaseLapsed):
            await queue.beat("w", lease_seconds=LONG_SECONDS)
        await join(queue, "w")
        assert await queue.finish("w", reports(claim)) == [None, None]
        await queue.enqueue("o", jobs(range(4)), requirement=SMALL, settings=MANY)
        again = await took(queue, "w", 4)
        assert again.token != claim.token
        assert await queue.finish("w", reports(claim)) == [None, None], "an old token for a job that it holds again"
        assert None not in await queue.finish("w", reports(again))

    play(own_server, scenario)
