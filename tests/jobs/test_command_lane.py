"""A worker with command jobs: each is run, recorded with what it used, and tried again as often as allowed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs import compute_node
from knockem_dagster.jobs.attempt_records import job_of
from knockem_dagster.jobs.desk import WAIT_SECONDS
from knockem_dagster.jobs.job_records import record_unrecorded, submit_jobs
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobRecord, WorkflowRecord
from knockem_dagster.stores.documents import DeleteOne
from tests.services.job_play import (
    SLOTS,
    Gate,
    events_of,
    new_job,
    new_workflow,
    opened_at_last,
    record_in,
    recorded,
    results_of,
    run_to_the_end,
    started,
    worker_on,
)
from tests.services.queue_play import Clock, play, tally, until
from tests.services.queues import QueueServer

LEAST_MEMORY = 1 << 20


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def quick_jobs(workflow: WorkflowRecord, number: int) -> list[JobRecord]:
    return [new_job(workflow, "true") for _ in range(number)]


def test_every_job_is_run_once_and_recorded_with_what_it_used(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    jobs = quick_jobs(workflow, 200)
    worker = play(queue_server, lambda queue: run_to_the_end(platform, queue, workflow, jobs))

    results = results_of(platform, workflow)
    assert {result.id for result in results} == {result.job_id for result in results} == {job.id for job in jobs}
    assert len(results) == len(jobs)
    for result in results:
        assert (result.final, result.outcome, result.exit_code) == (True, Outcome.SUCCEEDED, 0)
        assert result.peak_memory is not None and result.peak_memory > LEAST_MEMORY
        assert result.cpu_seconds is not None and result.cpu_seconds >= 0
        assert result.wall_seconds is not None and result.wall_seconds > 0
        assert result.compute_node == worker.name
    counted = tally(queue_server.client(), workflow.id)
    assert (counted.pending, counted.active, counted.completed) == (0, 0, 200)
    assert worker.tally == "200 done"


def test_starts_and_ends_of_jobs_and_of_the_worker_are_events(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    jobs = quick_jobs(workflow, 20)
    worker = play(queue_server, lambda queue: run_to_the_end(platform, queue, workflow, jobs))

    told: dict[str, list[str]] = {}
    for event in events_of(platform, workflow.id):
        assert event.source == worker.name
        told.setdefault(event.data["job"], []).append(event.kind)
    assert told == {job.id: ["jobStarted", "jobEnded"] for job in jobs}
    assert [event.kind for event in events_of(platform, worker.name)] == ["workerStarted", "workerEnded"]
    node = platform.records.compute_nodes.get(worker.name)
    assert node.cpus == SLOTS
    assert node.ended is not None and node.ended > node.datetime


def test_ways_to_end_are_told_apart(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    ends = {
        (Outcome.SUCCEEDED, 0): new_job(workflow, "true"),
        (Outcome.FAILED, 3): new_job(workflow, "sh", "-c", "exit 3"),
        (Outcome.FAILED, -9): new_job(workflow, "sh", "-c", "kill -9 $$"),
        (Outcome.FAILED, 127): new_job(workflow, "no-such-program"),
        (Outcome.TIMED_OUT, -9): new_job(workflow, "sleep", "600", seconds=0.2),
    }
    play(queue_server, lambda queue: run_to_the_end(platform, queue, workflow, list(ends.values())))
    found = platform.records.results.get_many([job.id for job in ends.values()])
    assert {(found[job.id].outcome, found[job.id].exit_code): job for job in ends.values()} == ends
    told = {event.data["outcome"] for event in events_of(platform, workflow.id) if event.kind == "jobEnded"}
    assert told == {outcome.value for outcome, _ in ends}


def test_output_is_kept_where_it_is_asked_for(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    kept = new_job(workflow, "echo", "hear this", keep_output=True)
    dropped = new_job(workflow, "echo", "not this")
    play(queue_server, lambda queue: run_to_the_end(platform, queue, workflow, [kept, dropped]))
    assert platform.records.results.get(kept.id).tail == "hear this"
    assert platform.records.results.get(dropped.id).tail == ""


def test_job_that_always_fails_is_tried_three_times(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow(max_fail=3)
    job = new_job(workflow, "sh", "-c", "exit 7")
    play(queue_server, lambda queue: run_to_the_end(platform, queue, workflow, [job]))
    results = results_of(platform, workflow)
    assert [result.final for result in results] == [False, False, True]
    assert [result.id == job.id for result in results] == [False, False, True]
    assert {(result.job_id, result.exit_code) for result in results} == {(job.id, 7)}
    assert len({result.id for result in results}) == 3


def test_job_that_fails_twice_succeeds_at_its_third_try(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = new_workflow(max_fail=3)
    job = counting_job(workflow, tmp_path / "tries", succeeds_at=3)
    play(queue_server, lambda queue: run_to_the_end(platform, queue, workflow, [job]))
    results = results_of(platform, workflow)
    assert [(result.final, result.outcome, result.tail) for result in results] == [
        (False, Outcome.FAILED, "1"),
        (False, Outcome.FAILED, "2"),
        (True, Outcome.SUCCEEDED, "3"),
    ]


def test_upkeep_that_records_beside_the_worker_changes_no_result(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = new_workflow(max_fail=2)
    jobs = [counting_job(workflow, tmp_path / f"tries{index}", succeeds_at=9) for index in range(60)]

    async def scenario(queue: Queue) -> int:
        upkeep = Queue(queue.server)
        over = asyncio.Event()

        async def keep_recording() -> int:
            number = 0
            while not over.is_set():
                number += await record_unrecorded(platform.records, upkeep, workflow.id)
            return number

        recording = asyncio.create_task(keep_recording())
        await run_to_the_end(platform, queue, workflow, jobs)
        over.set()
        return await recording

    assert play(queue_server, scenario) > 0
    tries = {(result.job_id, result.final): result.tail for result in results_of(platform, workflow)}
    assert tries == {(job.id, final): "2" if final else "1" for job in jobs for final in (False, True)}


def test_long_job_keeps_nothing_that_was_claimed_with_it(
    queue_server: QueueServer, platform: Platform, gate: Gate
) -> None:
    workflow = new_workflow()
    long_job, others = gate.job(workflow), quick_jobs(workflow, 80)

    async def scenario(queue: Queue) -> None:
        await submit_jobs(platform.records, queue, workflow, [*others[:40], long_job, *others[40:]])
        async with worker_on(platform, queue), opened_at_last(gate):
            await until(recorded(platform, others))
            assert platform.records.results.find_one(long_job.id) is None
            gate.open()
            await until(recorded(platform, [long_job]))

    play(queue_server, scenario)
    starts = Counter(event.data["job"] for event in events_of(platform, workflow.id) if event.kind == "jobStarted")
    assert starts == dict.fromkeys((job.id for job in [long_job, *others]), 1)


def test_job_that_needs_the_whole_worker_starts_when_the_one_before_it_has_ended(
    queue_server: QueueServer, platform: Platform, gate: Gate
) -> None:
    workflow = new_workflow()
    first, whole = gate.job(workflow), new_job(workflow, "true", cpus=SLOTS)

    async def scenario(queue: Queue) -> None:
        async with worker_on(platform, queue), opened_at_last(gate):
            await submit_jobs(platform.records, queue, workflow, [first, whole])
            await until(started(platform, workflow, 1))
            gate.open()
            await until(recorded(platform, [first, whole]))

    play(queue_server, scenario)
    told = {(event.kind, event.data["job"]): event for event in events_of(platform, workflow.id)}
    ended, began = told["jobEnded", first.id].datetime, told["jobStarted", whole.id].datetime
    waited = datetime.fromisoformat(began) - datetime.fromisoformat(ended)
    # It is told, and does not look again after its usual time.
    assert timedelta(0) < waited < timedelta(seconds=WAIT_SECONDS / 2)


def test_worker_that_is_stopped_finishes_what_is_in_work_and_leaves_the_rest(
    queue_server: QueueServer, platform: Platform, gate: Gate
) -> None:
    workflow = new_workflow()
    jobs = [*(gate.job(workflow) for _ in range(SLOTS)), *quick_jobs(workflow, 50)]
    client = queue_server.client()

    async def scenario(queue: Queue) -> None:
        await submit_jobs(platform.records, queue, workflow, jobs)
        async with worker_on(platform, queue) as worker, opened_at_last(gate):
            await until(started(platform, workflow, SLOTS))
            worker.stop()
            gate.open()
        assert {result.id for result in results_of(platform, workflow)} == {job.id for job in jobs[:SLOTS]}
        left = tally(client, workflow.id)
        assert (left.in_lists, left.pending, left.active, left.completed) == (50, 50, 0, SLOTS)
        async with worker_on(platform, queue):
            await until(recorded(platform, jobs))

    play(queue_server, scenario)
    assert len(results_of(platform, workflow)) == len(jobs)
    kinds = Counter((event.kind, event.data["job"]) for event in events_of(platform, workflow.id))
    assert kinds == {(kind, job.id): 1 for kind in ("jobStarted", "jobEnded") for job in jobs}


def test_worker_that_is_stopped_among_short_jobs_loses_none(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    jobs = quick_jobs(workflow, 300)
    client = queue_server.client()

    async def scenario(queue: Queue) -> int:
        await submit_jobs(platform.records, queue, workflow, jobs)
        async with worker_on(platform, queue) as worker:
            await until(started(platform, workflow, 30))
            worker.stop()
        done, left = len(results_of(platform, workflow)), tally(client, workflow.id)
        assert (left.in_lists, left.active, left.in_hands, left.completed) == (300 - done, 0, 0, done)
        async with worker_on(platform, queue):
            await until(recorded(platform, jobs))
        return done

    assert 0 < play(queue_server, scenario) < 300
    assert len(results_of(platform, workflow)) == 300
    starts = Counter(event.data["job"] for event in events_of(platform, workflow.id) if event.kind == "jobStarted")
    assert starts == dict.fromkeys((job.id for job in jobs), 1)


def test_canceled_workflow_is_ended_and_the_worker_goes_on(
    queue_server: QueueServer, tmp_path: Path, gate: Gate
) -> None:
    canceled, kept = new_workflow(), new_workflow()
    jobs, others = [gate.job(canceled) for _ in range(3)], quick_jobs(kept, 5)

    async def scenario(queue: Queue, platform: Platform) -> None:
        await submit_jobs(platform.records, queue, canceled, jobs)
        async with worker_on(platform, queue), opened_at_last(gate):
            await until(started(platform, canceled, SLOTS))
            assert await queue.cancel(canceled.id) == len(jobs)
            await submit_jobs(platform.records, queue, kept, others)
            await until(recorded(platform, others))

    # It hears of it with the renewal of its lease.
    with record_in(tmp_path / "home", lease_seconds=3.0) as platform:
        play(queue_server, lambda queue: scenario(queue, platform))
        assert results_of(platform, canceled) == []
        kinds = Counter(event.kind for event in events_of(platform, canceled.id))
    assert kinds == {"jobStarted": SLOTS, "jobInterrupted": SLOTS}


def test_short_jobs_now_and_then_keep_a_worker_from_ending(
    queue_server: QueueServer, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, idle_seconds = Clock(), 1.0
    monkeypatch.setattr(compute_node, "time", clock)

    async def until_it_has_looked() -> None:
        asked = clock.asked

        async def is_asked() -> bool:
            return clock.asked > asked

        await until(is_asked)

    async def scenario(queue: Queue) -> None:
        async with worker_on(platform, queue, idle_seconds=idle_seconds) as worker:
            for _ in range(6):
                clock.now += 0.6 * idle_seconds
                workflow = new_workflow()
                jobs = quick_jobs(workflow, 1)
                await submit_jobs(platform.records, queue, workflow, jobs)
                await until(recorded(platform, jobs))
                await until_it_has_looked()
                assert not worker.is_ending.is_set()
            clock.now += idle_seconds
            await worker.is_ending.wait()

    play(queue_server, scenario)


def test_job_that_was_removed_from_the_record_is_dropped(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    jobs = quick_jobs(workflow, 6)
    client = queue_server.client()

    async def scenario(queue: Queue) -> None:
        await submit_jobs(platform.records, queue, workflow, jobs)
        platform.records.documents.bulk([DeleteOne("jobs", job.id) for job in jobs[:3]])
        async with worker_on(platform, queue):
            await until(recorded(platform, jobs[3:]))
            await until(lambda: is_idle(queue))
        assert job_of(jobs[0].id) not in (await queue.jobs_of(workflow.id))[0]

    async def is_idle(queue: Queue) -> bool:
        ready, held = await queue.jobs_of(workflow.id)
        return not ready and not held

    play(queue_server, scenario)
    assert tally(client, workflow.id).pending == 0
    assert {event.data["job"] for event in events_of(platform, workflow.id)} == {job.id for job in jobs[3:]}


def counting_job(workflow: WorkflowRecord, tries: Path, *, succeeds_at: int) -> JobRecord:
    """Return a job that writes which of its tries this is, and fails until the one named."""
    script = f'echo x >>"$0"; number=$(wc -l <"$0"); echo $number; [ $number -ge {succeeds_at} ]'
    return new_job(workflow, "sh", "-c", script, str(tries), keep_output=True)
