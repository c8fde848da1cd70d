"""Workflows in Dagster: each has a partition, and each time that it is over, what became of its jobs is reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from knockem_dagster.jobs.restarting import restart_workflow
from knockem_dagster.jobs.workflows import start_workflow
from knockem_dagster.platform import Platform
from resources.names import WORKFLOWS
from sensors.workflows import watch_workflows
from tests.services.graph_play import completed, job, run, stored
from tests.services.job_play import record_in, worker_on
from tests.services.platforms import tick
from tests.services.queue_play import play, until
from tests.services.queues import QueueServer, running_queue


@pytest.fixture
def queue_server(tmp_path: Path) -> Iterator[QueueServer]:
    with running_queue(tmp_path / "queue") as server:
        yield server


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home", lease_seconds=3.0) as opened:
        yield opened


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def watched(platform: Platform, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    found = tick(watch_workflows, platform.settings.home, instance, cursor=cursor)
    assert isinstance(found, dg.SensorResult)
    for request in found.dynamic_partitions_requests or ():
        instance.add_dynamic_partitions(WORKFLOWS, list(request.partition_keys))
    return found


def test_a_workflow_has_a_partition_and_its_end_is_reported_each_time(
    queue_server: QueueServer, platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, job("good"), {"name": "bad", "command": "test -e mended || exit 6"})
    play(queue_server, lambda queue: start_workflow(platform.records, queue, workflow))
    begun = watched(platform, instance)
    assert instance.get_dynamic_partitions(WORKFLOWS) == [workflow.id]
    assert not begun.asset_events

    async def finish(queue: object) -> None:
        async with worker_on(platform, queue):  # type: ignore[arg-type]
            await until(completed(platform, workflow))

    play(queue_server, finish)
    over = watched(platform, instance, begun.cursor)
    [event] = over.asset_events
    assert isinstance(event, dg.AssetMaterialization)
    metadata = {name: value.value for name, value in event.metadata.items()}
    assert (event.partition, metadata["state"], metadata["jobs failed"]) == (workflow.id, "completed", 1)
    assert metadata["completed share"] == 0.5
    assert "| `bad` | 6 |" in str(metadata["failed jobs"])
    assert not watched(platform, instance, over.cursor).asset_events, "it is reported once"

    (tmp_path / "mended").touch()
    play(queue_server, lambda queue: restart_workflow(platform.records, queue, workflow.id))
    again = watched(platform, instance, over.cursor)
    assert not again.asset_events
    play(queue_server, finish)
    [last] = watched(platform, instance, again.cursor).asset_events
    assert isinstance(last, dg.AssetMaterialization)
    assert last.metadata["completed share"].value == 1.0


def test_one_that_was_over_before_the_first_look_is_reported(
    queue_server: QueueServer, platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, job("a"))
    run(queue_server, platform, workflow)
    [event] = watched(platform, instance).asset_events
    assert isinstance(event, dg.AssetMaterialization)
    assert event.partition == workflow.id
