"""Actions of workers: commands that each runs before its first job of a workflow, and when it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from knockem_dagster.jobs import compute_node
from knockem_dagster.jobs.commands.launcher import CommandLauncher
from knockem_dagster.jobs.compute_node import ComputeNode
from knockem_dagster.jobs.near_source import NearSource
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.requirements import Capacity
from knockem_dagster.jobs.worker_actions import ActionRunner
from knockem_dagster.jobs.workflow_views import view_jobs, view_workflow
from knockem_dagster.jobs.workflows import cancel_workflow, start_workflow
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import EventRecord, JobState, WorkflowRecord
from tests.jobs.test_actions import action
from tests.services.graph_play import completed, job, jobs_of, lines, run, states, stored
from tests.services.job_play import SLOTS, Gate, events_of, opened_at_last, record_in, worker_on
from tests.services.queue_play import play, until
from tests.services.queues import QueueServer

BEGIN = action("on_worker_start", "echo begin >> done.txt")
END = action("on_worker_complete", "echo end >> done.txt")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home", lease_seconds=3.0) as opened:
        yield opened


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def held(queue: Queue, workflow: WorkflowRecord, number: int) -> Callable[[], Awaitable[bool]]:
    """Return a condition: so many jobs are in the hands of workers."""

    async def are_held() -> bool:
        return len((await queue.jobs_of(workflow.id))[1]) == number

    return are_held


def there(path: Path) -> Callable[[], Awaitable[bool]]:
    async def is_there() -> bool:
        return path.exists()

    return is_there


def written(path: Path) -> Callable[[], Awaitable[bool]]:
    async def is_written() -> bool:
        return path.exists() and path.read_text().endswith("\n")

    return is_written


def told(platform: Platform, workflow: WorkflowRecord, kind: str) -> list[EventRecord]:
    return [each for each in events_of(platform, workflow.id) if each.kind == kind]


def test_slots_that_begin_together_wait_for_one_start(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, gate: Gate
) -> None:
    staging = action("on_worker_start", "echo begin >> done.txt", "cat gate", "echo staged >> done.txt")
    workflow = stored(platform, tmp_path, job("a"), job("b"), job("c"), actions=[END, staging])

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        async with worker_on(platform, queue), opened_at_last(gate):
            await until(held(queue, workflow, SLOTS))
            await until(written(tmp_path / "done.txt"))
            assert lines(tmp_path) == ["begin"]
            gate.open()
            await until(completed(platform, workflow))
            assert sorted(lines(tmp_path)[2:]) == ["a", "b", "c"]

    play(queue_server, scenario)
    found = lines(tmp_path)
    assert (found[:2], sorted(found[2:5]), found[5:]) == (["begin", "staged"], ["a", "b", "c"], ["end"])


def test_they_are_no_jobs(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    workflow = stored(platform, tmp_path, job("a"), actions=[BEGIN, END])
    run(queue_server, platform, workflow)

    async def look(queue: Queue) -> tuple[dict[str, int], list[str]]:
        jobs = await view_jobs(platform.records, queue, workflow)
        return (await view_workflow(platform.records, queue, workflow)).jobs, [each.job.name for each in jobs]

    assert play(queue_server, look) == ({"completed": 1}, ["a"])
    assert list(jobs_of(platform, workflow)) == ["a"]


def test_they_run_in_order_in_the_folder_and_the_environment_of_the_workflow(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("of data\n")
    order = [action("on_worker_start", f"echo {number} >> done.txt") for number in range(11)]
    workflow = stored(
        platform,
        tmp_path,
        job("a", env={"WHO": "the job"}),
        env={"WHO": "anybody"},
        files=[{"name": "data", "path": "data.csv"}],
        actions=[
            *order,
            action("on_worker_start", "cp ${files.input.data} here.csv"),
            action("on_worker_complete", 'cat here.csv > end.txt; echo "$WHO $TORC_WORKFLOW_ID $PWD" >> end.txt'),
            action("on_worker_complete", 'echo "$TORC_OUTPUT_DIR ${TORC_JOB_ID-none}" >> end.txt'),
        ],
    )
    run(queue_server, platform, workflow)
    assert lines(tmp_path) == [*map(str, range(11)), "a"]
    said = ["of data", f"anybody {workflow.id} {tmp_path}", f"{tmp_path} none"]
    assert (tmp_path / "end.txt").read_text().splitlines() == said


def test_one_that_fails_is_told_and_stops_nothing(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    failing = action("on_worker_start", "echo no data; (exit 3)", "echo never >> done.txt")
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]), actions=[failing, BEGIN])
    said: list[str] = []

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        async with worker_on(platform, queue, say=said.append):
            await until(completed(platform, workflow))

    play(queue_server, scenario)
    assert lines(tmp_path) == ["begin", "a", "b"]
    assert set(states(platform, workflow).values()) == {JobState.COMPLETED}
    name = "action 0: on_worker_start"
    assert [event.data for event in told(platform, workflow, "actionEnded")] == [
        {"action": name, "trigger": "on_worker_start", "outcome": "failed", "exitCode": 3, "tail": "no data"},
        {
            "action": "action 1: on_worker_start",
            "trigger": "on_worker_start",
            "outcome": "succeeded",
            "exitCode": 0,
            "tail": "",
        },
    ]
    assert [line for line in said if name in line] == [
        f"{name} of workflow {workflow.id}: failed, exit code 3. no data"
    ]


def test_each_worker_runs_its_own(queue_server: QueueServer, platform: Platform, tmp_path: Path, gate: Gate) -> None:
    names = [f"job{number}" for number in range(2 * SLOTS)]
    waiting = [job(name, command=f"cat gate; echo {name} >> done.txt") for name in names]
    workflow = stored(platform, tmp_path, *waiting, actions=[BEGIN, END])

    async def scenario(queue: Queue) -> set[str]:
        await start_workflow(platform.records, queue, workflow)
        async with worker_on(platform, queue) as one, worker_on(platform, queue) as other, opened_at_last(gate):
            await until(held(queue, workflow, 2 * SLOTS))
            gate.open()
            await until(completed(platform, workflow))
        return {one.name, other.name}

    workers = play(queue_server, scenario)
    assert sorted(lines(tmp_path)) == ["begin", "begin", "end", "end", *names]
    for trigger in ("on_worker_start", "on_worker_complete"):
        ended = [event for event in told(platform, workflow, "actionEnded") if event.data["trigger"] == trigger]
        assert {event.source for event in ended} == workers


def test_a_worker_that_had_no_job_of_a_workflow_runs_nothing(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, job("a"), actions=[BEGIN, END])

    async def scenario(queue: Queue) -> None:
        async with worker_on(platform, queue):
            pass
        await start_workflow(platform.records, queue, workflow)

    play(queue_server, scenario)
    assert not (tmp_path / "done.txt").exists()


def test_a_worker_that_is_told_to_stop_ends_its_jobs_first(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, gate: Gate
) -> None:
    long = job("long", command="touch begun; cat gate; echo long >> done.txt")
    workflow = stored(platform, tmp_path, long, actions=[BEGIN, END])

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        async with worker_on(platform, queue) as worker, opened_at_last(gate):
            await until(there(tmp_path / "begun"))
            worker.stop()
            gate.open()

    play(queue_server, scenario)
    assert lines(tmp_path) == ["begin", "long", "end"]


def test_an_idle_worker_leaves_when_its_last_commands_are_over(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, gate: Gate
) -> None:
    last = action("on_worker_complete", "touch ending", "cat gate", "echo end >> done.txt")
    workflow = stored(platform, tmp_path, job("a"), actions=[last])

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        async with worker_on(platform, queue, idle_seconds=0.5) as worker, opened_at_last(gate):
            await until(there(tmp_path / "ending"))
            assert worker.is_ending.is_set()
            assert worker.name in await QueueViews(queue).workers()
            assert lines(tmp_path) == ["a"]
            gate.open()

            async def has_left() -> bool:
                return worker.name not in await QueueViews(queue).workers()

            await until(has_left)
            assert lines(tmp_path) == ["a", "end"]

    play(queue_server, scenario)


def test_a_canceled_workflow_ends_what_a_worker_runs_before_its_first_job(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, gate: Gate
) -> None:
    staging = action("on_worker_start", "touch begun", "cat gate", "echo never >> done.txt")
    canceled = stored(platform, tmp_path, job("a"), job("b"), actions=[staging, END])
    kept = stored(platform, tmp_path, job("kept"))

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, canceled)
        async with worker_on(platform, queue), opened_at_last(gate):
            await until(held(queue, canceled, SLOTS))
            await until(there(tmp_path / "begun"))
            assert await cancel_workflow(platform.records, queue, canceled) == 2
            await start_workflow(platform.records, queue, kept)
            await until(completed(platform, kept))

    play(queue_server, scenario)
    assert lines(tmp_path) == ["kept", "end"]  # what was begun is cleared away
    kinds = [event.kind for event in events_of(platform, canceled.id)]
    assert "jobStarted" not in kinds
    assert "actionInterrupted" in kinds


def test_a_slot_that_is_ended_leaves_the_start_to_the_next(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, gate: Gate
) -> None:
    staging = action("on_worker_start", "touch begun", "cat gate", "echo staged >> done.txt")
    workflow = stored(platform, tmp_path, job("a"), actions=[staging])
    first = jobs_of(platform, workflow)["a"]

    async def scenario(queue: Queue) -> None:
        source, launcher = NearSource(platform.records, queue), CommandLauncher()
        actions = ActionRunner(source.record, launcher, source.journal, worker="w", say=lambda line: None)
        try:
            one, other = (asyncio.create_task(actions.begin(first)) for _ in range(2))
            await until(there(tmp_path / "begun"))
            one.cancel()
            await asyncio.wait([one])
            gate.open()
            await other
            await actions.begin(first)
        finally:
            launcher.close()

    play(queue_server, scenario)
    assert lines(tmp_path) == ["staged"]


def node_of(queue: Queue, do_last: Callable[[], Coroutine[Any, Any, None]]) -> ComputeNode:
    """Return a worker that is idle at once, and drained in no time."""
    return ComputeNode(
        queue,
        {},
        Capacity(cpus=1, memory_mib=100, runtimes=frozenset()),
        name="w",
        lease_seconds=3.0,
        say=lambda line: None,
        drain_seconds=0.0,
        idle_seconds=0.05,
        do_last=do_last,
    )


@pytest.mark.parametrize("is_stopped", [True, False])
def test_what_is_done_last_is_cut_short_only_when_the_worker_is_told_to_stop(
    queue_server: QueueServer, monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    monkeypatch.setattr(compute_node, "LAST_SECONDS", 0.0)
    doing, may_end, done = asyncio.Event(), asyncio.Event(), list[str]()

    async def take_long() -> None:
        doing.set()
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            done.append("cut short")
            raise
        done.append("whole")

    async def scenario(queue: Queue) -> None:
        node = node_of(queue, take_long)
        working = asyncio.create_task(node.run())
        await doing.wait()
        if is_stopped:
            node.stop()
        else:
            for _ in range(10):  # round trips, in each of which it could be cut short
                await queue.classes()
            may_end.set()
        await working

    play(queue_server, scenario)
    assert done == ["cut short" if is_stopped else "whole"]
