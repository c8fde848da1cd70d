"""Who sees to the nodes does so alone, and ends in time whatever becomes of the queue meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.errors import QueueAway
from knockem_dagster.jobs import alone as locks
from knockem_dagster.jobs import queue as queues
from knockem_dagster.jobs.alone import SeenToElsewhere, alone
from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import OwnerSettings, Queue
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.nodes.tending import tend_nodes
from knockem_dagster.platform import Platform
from knockem_dagster.stores.queue_connection import open_async_queue
from tests.services.job_play import new_workflow
from tests.services.queue_play import jobs, play, until
from tests.services.queues import QueueServer, running_queue

KEY = "knockem:nodes"
NEEDS = Requirement(cpus=1, memory_mib=10, seconds=60, runtime="command")
POOL = {"name": "p", "scheduler": "slurm", "cpus": 1, "memory": "1g", "walltime": "10", "max_nodes": 1}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QueueServer]:
    with running_queue(tmp_path / "home") as server:
        yield server


class Watched(Queue):
    """A queue that tells when it was away."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.was_away = asyncio.Event()

    async def guarded(self, answer: Any) -> Any:
        try:
            return await super().guarded(answer)
        except QueueAway:
            self.was_away.set()
            raise


def test_the_lock_is_released_and_nobody_else_has_it_meanwhile(server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        async with alone(queue, "nodes"):
            with pytest.raises(SeenToElsewhere):
                async with alone(queue, "nodes"):
                    pass
        async with alone(queue, "nodes"):
            pass
        assert not await queue.server.exists(KEY)

    play(server, scenario)


def test_a_lock_that_has_lapsed_ends_the_look_and_leaves_the_next_in_peace(
    server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.4)

    async def scenario(queue: Queue) -> None:
        with pytest.raises(QueueAway, match="next look"):
            async with alone(queue, "nodes"):
                await queue.server.set(KEY, b"of somebody else")
                await asyncio.Event().wait()
        assert await queue.server.get(KEY) == b"of somebody else"

    play(server, scenario)


def test_the_lock_is_renewed_after_the_queue_was_away(server: QueueServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCK_SECONDS", 20.0)
    far = 3_600_000

    async def scenario() -> None:
        queue = Watched(await open_async_queue(server.settings))

        async def is_renewed() -> bool:
            return 0 < await queue.server.pttl(KEY) <= 20_000

        async with alone(queue, "nodes"):
            monkeypatch.setattr(locks, "LOCK_SECONDS", 0.4)
            server.kill()
            await queue.was_away.wait()
            await asyncio.to_thread(server.start)
            assert await queue.server.pexpire(KEY, far)
            await until(is_renewed)
        await queue.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
def test_a_queue_that_dies_or_hangs_in_a_look_is_away(
    server: QueueServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals
) -> None:
    monkeypatch.setattr(queues, "ANSWER_SECONDS", 1.0)
    assert server.process is not None
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "sbatch").write_text(f"#!/bin/sh\nkill -{ending.value} {server.process.pid}\necho 1\n")
    (commands / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    platform = Platform(server.settings)
    whole = {"url": "http://here", "pools": [{**POOL, "max_node_hours": 1}]}
    (platform.settings.folder / "nodes.yaml").write_text(json.dumps(whole))
    workflow = new_workflow()
    platform.records.workflows.add(workflow)
    settings = OwnerSettings(max_active=8)

    async def put() -> None:
        async with queue_of(platform) as queue:
            await queue.enqueue(workflow.id, jobs([1]), requirement=NEEDS, settings=settings)

    async def look() -> None:
        async with asyncio.timeout(30):
            await tend_nodes(platform)

    try:
        asyncio.run(put())
        with pytest.raises(QueueAway):
            asyncio.run(look())
    finally:
        platform.close()
