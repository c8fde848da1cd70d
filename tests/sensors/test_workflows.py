"""Workflows in Dagster: each has a partition, and each time that it is over, what became of its jobs is reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.restarting import restart_workflow
from knockem_dagster.jobs.workflows import start_workflow
from knockem_dagster.platform import Platform
from knockem_dagster.stores.documents import Patch
from resources.names import WORKFLOWS
from sensors.workflows import MARGIN, watch_workflows
from tests.services.graph_play import completed, job, run, stored
from tests.services.job_play import record_in, worker_on
from tests.services.platforms import tick
from tests.services.queue_play import play, until
from tests.services.queues import QueueServer


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home", lease_seconds=3.0) as opened:
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


def test_one_that_was_restarted_and_over_again_between_two_looks_is_reported_again(
    queue_server: QueueServer, platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, {"name": "bad", "command": "test -e mended"})
    run(queue_server, platform, workflow)
    first = watched(platform, instance)
    assert ended_in(first) == [workflow.id]
    (tmp_path / "mended").touch()

    async def again(queue: Queue) -> None:
        await restart_workflow(platform.records, queue, workflow.id)
        async with worker_on(platform, queue):
            await until(completed(platform, workflow))

    play(queue_server, again)
    second = watched(platform, instance, first.cursor)
    [event] = second.asset_events
    assert isinstance(event, dg.AssetMaterialization)
    assert event.metadata["completed share"].value == 1.0
    assert ended_in(watched(platform, instance, second.cursor)) == []


def test_ends_by_clocks_that_differ_are_each_reported_once(
    platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    fast, here = (over_at(platform, tmp_path, seconds) for seconds in (3600, 0))
    slow = stored(platform, tmp_path, job("a")).id
    first = watched(platform, instance)
    assert ended_in(first) == [here, fast]
    over_at(platform, tmp_path, -MARGIN.total_seconds() / 2, slow)
    second = watched(platform, instance, first.cursor)
    assert ended_in(second) == [slow]
    assert ended_in(watched(platform, instance, second.cursor)) == []


def test_many_are_taken_up_and_told_of_in_turns(
    platform: Platform, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensors.workflows.MOST_NEW", 2)
    ids = [over_at(platform, tmp_path, number / 1000 - 1) for number in range(5)]
    told: list[str] = []
    cursor = None
    for most in (2, 4, 5, 5):
        found = watched(platform, instance, cursor)
        told += ended_in(found)
        assert told == ids[:most]
        cursor = found.cursor
    assert sorted(instance.get_dynamic_partitions(WORKFLOWS)) == sorted(ids)


def test_one_that_takes_long_to_store_has_a_partition_once_it_is_stored(
    queue_server: QueueServer, platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    large = stored(platform, tmp_path, job("a"))
    long_ago = (datetime.now(UTC) - 10 * MARGIN).isoformat()
    platform.records.workflows.patch(large.id, Patch(set={"datetime": long_ago}))
    small = over_at(platform, tmp_path, 0)
    first = watched(platform, instance)
    assert instance.get_dynamic_partitions(WORKFLOWS) == [small]
    play(queue_server, lambda queue: start_workflow(platform.records, queue, large))
    second = watched(platform, instance, first.cursor)
    assert set(instance.get_dynamic_partitions(WORKFLOWS)) == {small, large.id}
    assert second.cursor is not None
    assert json.loads(second.cursor)["new"] > long_ago


def test_the_cursor_of_an_earlier_version_begins_anew(
    platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    workflow = over_at(platform, tmp_path, 0)
    earlier = json.dumps({"after": datetime.now(UTC).isoformat(), "going": [workflow]})
    found = watched(platform, instance, earlier)
    assert ended_in(found) == [workflow]
    assert ended_in(watched(platform, instance, found.cursor)) == []


def over_at(platform: Platform, folder: Path, seconds: float, id: str = "") -> str:
    """Let a workflow, or a new one, be over so many seconds from now, by some machine's clock; return its id."""
    id = id or stored(platform, folder, job("a")).id
    ended = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    platform.records.workflows.patch(id, Patch(set={"state": "completed", "ended": ended}))
    return id


def ended_in(found: dg.SensorResult) -> list[str | None]:
    """Return the workflows whose ends a look reported, in order."""
    return [event.partition for event in found.asset_events if isinstance(event, dg.AssetMaterialization)]
