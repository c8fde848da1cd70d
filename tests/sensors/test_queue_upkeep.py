"""The queue and the record are kept in step: lost workers, submissions that are over, jobs nobody can run."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import dagster as dg
import orjson
import pytest

from knockem_dagster.jobs.opening import queue_of
from knockem_dagster.jobs.queue import OwnerSettings, Queue, Wanted
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobRecord, WorkflowRecord
from sensors.queue_upkeep import queue_upkeep
from tests.services.platforms import tick
from tests.services.queues import QueueServer, running_queue

NEEDS = Requirement(cpus=1, memory_mib=1, runtime="command")
LEASE_SECONDS = 0.2


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueServer]:
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_LEASE_SECONDS", str(LEASE_SECONDS))
    with running_queue(tmp_path / "home") as running:
        yield running


def told(home: Path) -> str:
    """Evaluate the sensor once and return what it tells."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = tick(queue_upkeep, home, instance)
    assert isinstance(result, dg.SkipReason)
    return result.skip_message or ""


def told_in_time(home: Path, expected: str) -> str:
    """Evaluate the sensor until it tells this: a server that has just started is given time first."""
    deadline = time.monotonic() + 30
    while expected not in (said := told(home)):
        assert time.monotonic() < deadline, said
    return said


def on_queue(server: QueueServer, work: Callable[[Platform, Queue], Awaitable[object]]) -> None:
    async def run() -> None:
        platform = Platform(server.settings)
        async with queue_of(platform) as queue:
            await work(platform, queue)
        platform.close()

    asyncio.run(run())


def workflow(platform: Platform) -> WorkflowRecord:
    record = WorkflowRecord(
        id=str(uuid.uuid4()), name="a", max_active=5, state="running", user_email="someone@example.org"
    )
    platform.records.workflows.add(record)
    return record


def description(host: str) -> bytes:
    """Return what a worker says of itself, one whose process ended long ago."""
    said = {"host": host, "owner": "gone~0~0~1~1", "cpus": 1, "memoryMiB": 10, "gpus": 0, "secondsLeft": None}
    return orjson.dumps({**said, "runtimes": ["command"], "only": "", "leaseSeconds": LEASE_SECONDS})


def test_without_a_queue_there_is_nothing_to_tend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    assert told(tmp_path) == "there is no queue: each run works alone"


def test_jobs_of_a_lost_worker_go_to_others_and_what_it_cannot_do_is_named(server: QueueServer) -> None:
    async def lose_a_worker(platform: Platform, queue: Queue) -> None:
        owner = workflow(platform).id
        job = JobRecord(id=str(uuid.uuid4()), workflow_id=owner, name="j", command=("true",))
        platform.records.jobs.add(job)
        settings = OwnerSettings(max_active=5, recorded_by="worker")
        await queue.enqueue(owner, [uuid.UUID(job.id).bytes], requirement=NEEDS, settings=settings)
        await queue.beat("w", lease_seconds=LEASE_SECONDS, description=description("elsewhere"))
        assert await queue.claim("w", "w/0", Wanted([NEEDS.name])) is not None

    async def look(_platform: Platform, queue: Queue) -> None:
        [view] = (await QueueViews(queue).owners()).values()
        assert (sum(view.ready.values()), view.active, view.retrying) == (1, 0, 1)

    on_queue(server, lose_a_worker)
    said = told_in_time(server.settings.home, "workers lost: 1 with 1 jobs")
    assert "no worker is there" in said
    on_queue(server, look)


def test_owners_that_are_over_or_unknown_are_taken_out(server: QueueServer) -> None:
    async def leave_rests(platform: Platform, queue: Queue) -> None:
        for owner in (workflow(platform).id, "purged"):
            await queue.enqueue(owner, [uuid.uuid4().bytes], requirement=NEEDS, settings=OwnerSettings(max_active=5))

    async def look(_platform: Platform, queue: Queue) -> None:
        assert "purged" not in await QueueViews(queue).owners()

    on_queue(server, leave_rests)
    assert "taken out: 1" in told(server.settings.home)
    on_queue(server, look)


def test_workflow_of_which_the_queue_knows_nothing_is_put_again_and_one_without_jobs_left_is_completed(
    server: QueueServer,
) -> None:
    owners: list[str] = []

    async def record_only(platform: Platform, _queue: Queue) -> None:
        lost, over = workflow(platform), workflow(platform)
        owners.extend([lost.id, over.id])
        platform.records.jobs.add(JobRecord(id=str(uuid.uuid4()), workflow_id=lost.id, name="j", command=("true",)))

    async def look(platform: Platform, queue: Queue) -> None:
        assert list(await QueueViews(queue).owners()) == owners[:1]
        assert [platform.records.workflows.get(owner).state for owner in owners] == ["running", "completed"]

    on_queue(server, record_only)
    told_in_time(server.settings.home, "jobs put again: 1")
    on_queue(server, look)
