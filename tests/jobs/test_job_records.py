"""Command jobs between the record and the queue: submitted once, put again exactly when missing, recorded once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs.attempt_records import attempt_id_of, job_of
from knockem_dagster.jobs.commands.command import CommandEnded
from knockem_dagster.jobs.job_enqueueing import requirement_of_command
from knockem_dagster.jobs.job_records import (
    command_of,
    put_missing,
    record_unrecorded,
    result_of,
    submit_jobs,
    to_payload,
)
from knockem_dagster.jobs.queue import Claim, Entry, Queue, Report, Verdict, Wanted
from knockem_dagster.jobs.unblocking import complete_if_over
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobRecord, ResourcesValue, ResultRecord, WorkflowRecord
from tests.services.job_play import new_job, new_workflow, record_in, results_of
from tests.services.queue_play import join, play, tally
from tests.services.queues import QueueServer

WORKER = "w1"
ENDED = CommandEnded(Outcome.SUCCEEDED, 0, "", peak_memory=9_000_000, cpu_seconds=0.25, wall_seconds=0.5)
FAILED = CommandEnded(Outcome.FAILED, 3, "no", peak_memory=8_000_000, cpu_seconds=0.125, wall_seconds=0.25)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with record_in(tmp_path_factory.mktemp("home")) as opened:
        yield opened


def some_jobs(workflow: WorkflowRecord, number: int) -> list[JobRecord]:
    return [new_job(workflow, "true", f"{index}") for index in range(number)]


async def claimed(queue: Queue, jobs: Sequence[JobRecord], most: int) -> Claim:
    wanted = Wanted([requirement_of_command(jobs[0].resources).name], most)
    claim = await queue.claim(WORKER, f"{WORKER}/1", wanted)
    assert claim is not None
    return claim


async def hand_in(queue: Queue, claim: Claim, jobs: Sequence[bytes], ended: CommandEnded) -> list[bytes | None]:
    verdict = Verdict.SUCCEEDED if ended.outcome is Outcome.SUCCEEDED else Verdict.FAILED
    payload = to_payload(ended, worker=WORKER)
    return await queue.finish(
        WORKER, [Report(claim.owner, job, claim.token, verdict, ended.wall_seconds, payload) for job in jobs]
    )


def test_submitting_twice_adds_nothing(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    jobs = some_jobs(workflow, 40)

    async def scenario(queue: Queue) -> None:
        await submit_jobs(platform.records, queue, workflow, jobs)
        await submit_jobs(platform.records, queue, workflow, jobs)

    play(queue_server, scenario)
    assert tally(queue_server.client(), workflow.id).in_lists == 40
    stored = {job.id for job in platform.records.jobs.find({"workflowId": workflow.id})}
    assert stored == {job.id for job in jobs}


def test_submitting_again_after_a_crash_in_between_makes_all_ready(
    queue_server: QueueServer, platform: Platform
) -> None:
    workflow = new_workflow()
    jobs = some_jobs(workflow, 40)
    platform.records.workflows.add(workflow)
    platform.records.jobs.add_many(jobs[:25])

    async def scenario(queue: Queue) -> set[bytes]:
        await submit_jobs(platform.records, queue, workflow, jobs)
        ready, _ = await queue.jobs_of(workflow.id)
        return ready

    assert play(queue_server, scenario) == {job_of(job.id) for job in jobs}
    assert tally(queue_server.client(), workflow.id).in_lists == 40


@settings(max_examples=20)
@given(fates=st.lists(st.sampled_from(["ready", "held", "failed", "unrecorded", "recorded"]), min_size=1, max_size=30))
def test_exactly_the_missing_jobs_are_put_again(
    shared_queue_server: QueueServer, platform: Platform, fates: list[str]
) -> None:
    client = shared_queue_server.client()
    client.flushall()
    workflow = new_workflow(max_fail=3)
    jobs = some_jobs(workflow, len(fates))
    fate_of = {job_of(job.id): fate for job, fate in zip(jobs, fates, strict=True)}
    claimable = [job for job in fate_of if fate_of[job] != "ready"]

    def with_fate(*names: str) -> list[bytes]:
        return [job for job in fate_of if fate_of[job] in names]

    async def scenario(queue: Queue) -> tuple[int, int, set[bytes], int]:
        await join(queue, WORKER)
        order = sorted(jobs, key=lambda job: fate_of[job_of(job.id)] == "ready")
        await submit_jobs(platform.records, queue, workflow, order)
        if claimable:
            claim = await claimed(queue, jobs, len(claimable))
            assert set(claim.jobs) == set(claimable)
            await hand_in(queue, claim, with_fate("recorded"), ENDED)
            await record_unrecorded(platform.records, queue, workflow.id)
            await hand_in(queue, claim, with_fate("failed"), FAILED)
            await hand_in(queue, claim, with_fate("unrecorded"), ENDED)
        put = await put_missing(platform.records, queue, workflow)
        client.flushall()
        put_after_loss = await put_missing(platform.records, queue, workflow)
        ready, _ = await queue.jobs_of(workflow.id)
        return put, put_after_loss, ready, await put_missing(platform.records, queue, workflow)

    put, put_after_loss, ready, put_again = play(shared_queue_server, scenario)
    missing = set(fate_of) - set(with_fate("recorded"))
    assert put == 0
    assert ready == missing
    assert put_after_loss == len(missing) == tally(client, workflow.id).in_lists
    assert put_again == 0


def test_who_restores_a_workflow_at_the_same_time_puts_no_job_twice(
    queue_server: QueueServer, platform: Platform
) -> None:
    """`queue rebuild` and the sensor of upkeep begin at the same moment after the queue has lost its file."""
    workflow = new_workflow()
    jobs = some_jobs(workflow, 40)

    async def scenario(queue: Queue) -> tuple[list[int], int]:
        await submit_jobs(platform.records, queue, workflow, jobs)
        queue_server.client().flushall()
        put = await asyncio.gather(*(put_missing(platform.records, queue, workflow) for _ in range(3)))
        return sorted(put), await put_missing(platform.records, queue, workflow)

    assert play(queue_server, scenario) == ([0, 0, 40], 0)
    assert tally(queue_server.client(), workflow.id).in_lists == 40


def test_the_same_outcomes_recorded_twice_are_one_result_each(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow(max_fail=2)
    jobs = some_jobs(workflow, 10)

    async def scenario(queue: Queue) -> tuple[list[Entry], int, int]:
        await join(queue, WORKER)
        await submit_jobs(platform.records, queue, workflow, jobs)
        claim = await claimed(queue, jobs, 10)
        await hand_in(queue, claim, claim.jobs[:6], ENDED)
        await hand_in(queue, claim, claim.jobs[6:], FAILED)
        entries = await queue.outcomes(workflow.id)
        # As a worker that died after writing, before it told the queue.
        platform.records.results.add_many(result_of(workflow.id, entry) for entry in entries)
        first = await record_unrecorded(platform.records, queue, workflow.id)
        return entries, first, await record_unrecorded(platform.records, queue, workflow.id)

    entries, first, second = play(queue_server, scenario)
    assert (len(entries), first, second) == (10, 10, 0)
    results = results_of(platform, workflow)
    assert len(results) == 10
    assert {result.id for result in results if result.final} == {attempt_id_of(each.job) for each in entries[:6]}
    assert {result.job_id for result in results if not result.final} == {
        attempt_id_of(each.job) for each in entries[6:]
    }
    assert {result.exit_code for result in results if not result.final} == {3}
    assert platform.records.workflows.get(workflow.id).state == "running"  # only upkeep knows that nothing is left


def test_first_of_two_last_results_stays(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    jobs = some_jobs(workflow, 1)
    client = queue_server.client()

    async def scenario(queue: Queue) -> None:
        await submit_jobs(platform.records, queue, workflow, jobs)
        for ended in (ENDED, FAILED):  # the queue was lost in between, and with it that the job is done
            await join(queue, WORKER)
            claim = await claimed(queue, jobs, 1)
            await hand_in(queue, claim, claim.jobs, ended)
            copies = await queue.outcomes(workflow.id)
            client.flushall()
            await put_missing(platform.records, queue, workflow)
            platform.records.results.add_many(result_of(workflow.id, entry) for entry in copies)

    play(queue_server, scenario)
    [result] = results_of(platform, workflow)
    assert (result.id, result.outcome, result.exit_code) == (jobs[0].id, Outcome.SUCCEEDED, 0)


def test_result_says_what_the_try_could_use(queue_server: QueueServer, platform: Platform) -> None:
    """Its job may be given more afterwards."""
    workflow = new_workflow()
    jobs = some_jobs(workflow, 1)

    async def scenario(queue: Queue) -> None:
        await join(queue, WORKER)
        await submit_jobs(platform.records, queue, workflow, jobs)
        await hand_in(queue, await claimed(queue, jobs, 1), [job_of(jobs[0].id)], ENDED)
        await record_unrecorded(platform.records, queue, workflow.id)

    play(queue_server, scenario)
    [result] = results_of(platform, workflow)
    assert result.given == jobs[0].resources
    early = {name: value for name, value in result.to_document().items() if name != "given"}
    assert ResultRecord.from_document(early) == result.model_copy(update={"given": None})


def test_result_says_what_the_try_used_and_where_it_was() -> None:
    workflow = new_workflow()
    job = new_job(workflow, "true")
    entry = Entry(b"1-0", job_of(job.id), True, to_payload(FAILED, worker=WORKER))
    result = result_of(workflow.id, entry)
    assert result == result_of(workflow.id, entry).model_copy(update={"datetime": result.datetime})
    assert (result.id, result.job_id, result.workflow_id, result.final) == (job.id, job.id, workflow.id, True)
    assert (result.outcome, result.exit_code, result.tail) == (Outcome.FAILED, 3, "no")
    assert (result.peak_memory, result.cpu_seconds, result.wall_seconds) == (8_000_000, 0.125, 0.25)
    assert result.compute_node == WORKER


def test_job_asks_for_what_its_record_says() -> None:
    job = JobRecord(
        id="0" * 32,
        workflow_id="w",
        name="n",
        command=("a", "b"),
        environment={"X": "1"},
        folder="/tmp",
        resources=ResourcesValue(cpus=2, memory_mib=100, gpus=1, seconds=60),
    )
    command, needs = command_of(job), requirement_of_command(job.resources)
    assert (command.arguments, command.environment, command.folder) == (("a", "b"), {"X": "1"}, Path("/tmp"))
    assert (command.timeout_seconds, command.memory_mib) == (60, 100)
    assert (needs.cpus, needs.memory_mib, needs.gpus, needs.seconds, needs.runtime) == (2, 100, 1, 60, "command")
    assert command_of(job.model_copy(update={"resources": ResourcesValue()})).timeout_seconds is None


def test_queue_is_idle_when_everything_is_recorded(queue_server: QueueServer, platform: Platform) -> None:
    workflow = new_workflow()
    jobs = some_jobs(workflow, 3)

    async def scenario(queue: Queue) -> list[Entry]:
        await join(queue, WORKER)
        await submit_jobs(platform.records, queue, workflow, jobs)
        claim = await claimed(queue, jobs, 3)
        await hand_in(queue, claim, claim.jobs, ENDED)
        assert await record_unrecorded(platform.records, queue, workflow.id) == 3
        return await queue.outcomes(workflow.id)

    assert play(queue_server, scenario) == []
    counted = tally(queue_server.client(), workflow.id)
    assert (counted.pending, counted.active, counted.completed) == (0, 0, 3)


def test_upkeep_completes_what_has_every_last_result_and_nothing_else(
    queue_server: QueueServer, platform: Platform
) -> None:
    workflow = new_workflow()
    jobs = some_jobs(workflow, 2)

    async def scenario(queue: Queue) -> list[str]:
        await join(queue, WORKER)
        await submit_jobs(platform.records, queue, workflow, jobs)
        found: list[str] = []
        for _ in jobs:
            claim = await claimed(queue, jobs, 1)
            await complete_if_over(platform.records, workflow.id)
            found.append(platform.records.workflows.get(workflow.id).state)
            await hand_in(queue, claim, claim.jobs, ENDED)
            await record_unrecorded(platform.records, queue, workflow.id)
        await complete_if_over(platform.records, workflow.id)
        return [*found, platform.records.workflows.get(workflow.id).state]

    assert play(queue_server, scenario) == ["running", "running", "completed"]
