"""Jobs of a graph: none begins before those it waits for are over in the record, and each is run once, whoever dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.errors import KnockemError, StoreError
from knockem_dagster.jobs.attempt_records import job_of
from knockem_dagster.jobs.commands.command import CommandEnded
from knockem_dagster.jobs.graph_counts import Blocked, CountingLost, Ended, GraphCounts
from knockem_dagster.jobs.job_records import JobJournal, put_missing, to_payload
from knockem_dagster.jobs.queue import Entry, Queue, Report, Verdict, Wanted, ready_key
from knockem_dagster.jobs.restarting import restart_workflow
from knockem_dagster.jobs.tending import restore_workflows, tend
from knockem_dagster.jobs.unblocking import follow_up
from knockem_dagster.jobs.workflow_views import view_workflow
from knockem_dagster.jobs.workflows import cancel_workflow, start_workflow, take_back
from knockem_dagster.platform import Platform
from knockem_dagster.records.catalog import OF_A_GRAPH
from knockem_dagster.records.job_graph import id_at
from knockem_dagster.records.jobs import JobRecord, JobState, ResultRecord
from knockem_dagster.stores.documents import Patch
from tests.services.graph_play import completed, job, jobs_of, lines, run, states, stored
from tests.services.job_play import events_of, record_in, results_of, worker_on
from tests.services.queue_play import SMALL, play, until
from tests.services.queues import QueueServer


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home", lease_seconds=3.0) as opened:
        yield opened


def test_a_chain_runs_in_order(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    names = [f"j{number}" for number in range(20)]
    waits = [job(name, depends_on=names[number - 1 : number] or None) for number, name in enumerate(names)]
    workflow = stored(platform, tmp_path, *reversed(waits))
    run(queue_server, platform, workflow)
    assert lines(tmp_path) == names
    assert set(states(platform, workflow).values()) == {JobState.COMPLETED}
    assert len(results_of(platform, workflow)) == 20


def test_stages_wait_for_all_of_the_one_before(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    sweep = {"i": "1:30"}
    workflow = stored(
        platform,
        tmp_path,
        job("a_{i}", parameters=sweep),
        job("barrier", depends_on_regexes=["^a_"]),
        job("b_{i}", parameters=sweep, depends_on=["barrier"]),
    )
    run(queue_server, platform, workflow)
    order = lines(tmp_path)
    assert len(order) == len(set(order)) == 61
    assert order.index("barrier") == 30
    assert all(name.startswith("a_") for name in order[:30])


def test_files_name_who_waits_for_whom(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    workflow = stored(
        platform,
        tmp_path,
        {"name": "end", "command": "wc -c < ${files.input.x} > ${files.output.y}"},
        {"name": "begin", "command": "printf $WORD > ${files.output.x}", "env": {"WORD": "twelve"}},
        files=[{"name": "x", "path": "x.txt"}, {"name": "y", "path": f"{tmp_path}/y.txt"}],
        env={"WORD": "one"},
    )
    run(queue_server, platform, workflow)
    assert (tmp_path / "y.txt").read_text().strip() == "6"
    records = platform.records
    jobs, files = jobs_of(platform, workflow), {each.id: each.name for each in records.files.find({})}
    assert [(id_at(each.origin), id_at(each.target)) for each in records.blocks.find({})] == [
        (jobs["begin"].id, jobs["end"].id)
    ]
    assert [(id_at(each.origin), files[id_at(each.target)]) for each in records.needs.find({})] == [
        (jobs["end"].id, "x")
    ]
    assert {files[id_at(each.target)] for each in records.produces.find({})} == {"x", "y"}


def test_what_waited_for_a_failed_job_runs_unless_it_is_to_be_canceled(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(
        platform,
        tmp_path,
        {"name": "bad", "command": "exit 3"},
        job("good"),
        job("anyway", depends_on=["bad", "good"]),
        job("not", depends_on=["bad", "good"], cancel_on_blocking_job_failure=True),
        job("nor", depends_on=["not"], cancel_on_blocking_job_failure=True),
        job("after", depends_on=["nor"]),
    )
    run(queue_server, platform, workflow)
    assert sorted(lines(tmp_path)) == ["after", "anyway", "good"]
    assert states(platform, workflow) == {
        "bad": JobState.FAILED,
        "good": JobState.COMPLETED,
        "anyway": JobState.COMPLETED,
        "not": JobState.CANCELED,
        "nor": JobState.CANCELED,
        "after": JobState.COMPLETED,
    }


def test_higher_priority_is_handed_out_first(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    names = {"low": -1, "middle": 0, "high": 5}
    workflow = stored(platform, tmp_path, *(job(name, priority=priority) for name, priority in names.items()))

    async def scenario(queue: Queue) -> list[bytes]:
        await start_workflow(platform.records, queue, workflow)
        [only] = await queue.classes()
        return await queue.server.lrange(f"{queue.base(workflow.id)}:pendingCompetitionAttempts:{only}", 0, -1)

    jobs = jobs_of(platform, workflow)
    assert play(queue_server, scenario) == [job_of(jobs[name].id) for name in ("high", "middle", "low")]


def test_telling_twice_that_a_job_is_over_counts_once(queue_server: QueueServer) -> None:
    a, b, end = (bytes([number]) * 16 for number in range(3))

    async def scenario(queue: Queue) -> list[list[bytes]]:
        counts = GraphCounts(queue, "o")
        assert await counts.begin()
        await counts.expect([Blocked(end, 2)])
        told = [[Ended(a, True, [end])], [Ended(a, True, [end])], [Ended(b, False, [end])], [Ended(b, False, [end])]]
        return [[each.job for each in await counts.release(each) if each.spoiled] for each in told]

    assert play(queue_server, scenario) == [[], [], [end], [end]], "whoever died before making it ready is made up for"


def test_a_job_that_waits_for_nothing_is_made_ready_once(queue_server: QueueServer) -> None:
    free, waiting = (bytes([number]) * 16 for number in range(2))

    async def scenario(queue: Queue) -> None:
        async def go_on() -> set[bytes]:
            await queue.enqueue("o", [free, waiting], requirement=SMALL, counted=True)
            ready, _ = await queue.jobs_of("o")
            await queue.server.delete(ready_key(queue.base("o"), SMALL.name))
            return ready

        counts = GraphCounts(queue, "o")
        assert await counts.begin()
        await counts.expect([Blocked(free, 0), Blocked(waiting, 1)])
        assert [await go_on(), await go_on()] == [{free}, set()]
        await counts.expect([Blocked(free, 0)])
        await queue.cancel("o")
        assert await go_on() == set()
        assert not await queue.server.exists("knockem:{o}"), "who goes on too late leaves nothing"

    play(queue_server, scenario)


def test_one_at_a_time_counts(queue_server: QueueServer) -> None:
    async def scenario(queue: Queue) -> None:
        slow, other = GraphCounts(queue, "o"), GraphCounts(queue, "o")
        assert await slow.begin()
        assert not await other.begin()
        await queue.server.delete("knockem:{o}:counting")  # its time is over
        assert await other.begin()
        with pytest.raises(CountingLost):
            await slow.expect([Blocked(b"j" * 16, 0)])
        await slow.end()
        assert not await slow.begin(anew=False), "only who counts may let others count"
        await other.expect([Blocked(b"j" * 16, 0)])
        await other.end()
        assert await slow.begin(anew=False)

    play(queue_server, scenario)


def test_who_tells_late_of_what_was_counted_already_releases_nothing(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    """A worker was paused after recording a job; meanwhile the queue was lost, and all was counted anew."""
    workflow = stored(platform, tmp_path, job("a"), job("b"), job("c", depends_on=["a", "b"]))
    jobs = jobs_of(platform, workflow)

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        platform.records.results.add(result(jobs["a"]))
        await queue.server.flushall()
        assert await put_missing(platform.records, queue, workflow) == 1
        await follow_up(platform.records, queue, workflow.id, {jobs["a"].id: JobState.COMPLETED})
        ready, _ = await queue.jobs_of(workflow.id)
        assert ready == {job_of(jobs["b"].id)}

    play(queue_server, scenario)


def test_what_a_batch_could_not_write_it_writes_next_time(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]))
    first = jobs_of(platform, workflow)["a"]

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        await queue.beat("w", lease_seconds=60, description=b"{}")
        claim = await queue.claim("w", "w", Wanted(list(await queue.classes())))
        assert claim is not None
        payload = to_payload(CommandEnded(Outcome.SUCCEEDED, 0, "", 0, 0.0, 0.0), worker="w")
        report = Report(workflow.id, job_of(first.id), claim.token, Verdict.SUCCEEDED, 0.0, payload)
        [id] = await queue.finish("w", [report])
        assert id is not None
        journal = JobJournal(platform.records, queue)
        journal.record(first, Entry(id, job_of(first.id), True, payload))
        with monkeypatch.context() as broken:
            broken.setattr(platform.records.documents, "bulk", _refuse)
            with pytest.raises(StoreError):
                await journal.flush()
        journal.note(workflow.id, source="w", kind="jobEnded")
        await journal.flush()
        assert states(platform, workflow)["a"] is JobState.COMPLETED
        assert (await queue.jobs_of(workflow.id))[0] == {job_of(jobs_of(platform, workflow)["b"].id)}
        assert [each.job_id for each in results_of(platform, workflow)] == [first.id]
        assert not await queue.outcomes(workflow.id)

    play(queue_server, scenario)


def _refuse(operations: object) -> None:
    raise StoreError("The disk is full.")


def result(job: JobRecord) -> ResultRecord:
    return ResultRecord(
        id=job.id, workflow_id=job.workflow_id, job_id=job.id, final=True, outcome=Outcome.SUCCEEDED, exit_code=0
    )


@pytest.mark.parametrize("written", ["result", "state", "count"])
def test_whoever_dies_between_record_and_release_delays_only(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, written: str
) -> None:
    """A worker recorded the first job and died: before its state was written, before it was counted, or after that."""
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]), job("c", depends_on=["b"]))
    first = jobs_of(platform, workflow)["a"]

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        await queue.cancel(workflow.id)  # as if it had been claimed, and the queue had lost all it knew
        platform.records.results.add(result(first))
        if written != "result":
            platform.records.jobs.patch(first.id, Patch(set={"state": "completed"}))
        if written == "count":
            await GraphCounts(queue, workflow.id).release([Ended(job_of(first.id), True, [])])
        assert await put_missing(platform.records, queue, workflow) == 1
        assert await put_missing(platform.records, queue, workflow) == 0
        async with worker_on(platform, queue):
            await until(completed(platform, workflow))

    play(queue_server, scenario)
    assert lines(tmp_path) == ["b", "c"]


def test_nothing_is_counted_anew_while_anything_goes_on(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    """A job is ready, in work, or handed in and not followed up: who counted then would begin others twice."""
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]))
    first = jobs_of(platform, workflow)["a"]
    platform.records.workflows.patch(workflow.id, Patch(set={"state": "running"}))

    async def scenario(queue: Queue) -> list[int]:
        async def again() -> int:
            return await put_missing(platform.records, queue, workflow)

        found = [await again(), await again()]
        await queue.beat("w", lease_seconds=60, description=b"{}")
        claim = await queue.claim("w", "w", Wanted(list(await queue.classes())))
        assert claim is not None
        found.append(await again())
        [id] = await queue.finish("w", [Report(workflow.id, job_of(first.id), claim.token, Verdict.SUCCEEDED)])
        assert id is not None
        found.append(await again())
        platform.records.results.add(result(first))
        await queue.acknowledge(workflow.id, [id])
        counts = GraphCounts(queue, workflow.id)
        assert await counts.begin()
        found.append(await again())
        await counts.end()
        return [*found, await again()]

    assert play(queue_server, scenario) == [1, 0, 0, 0, 0, 1]


def test_upkeep_completes_nothing_that_it_may_not_count(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    """Between the end of a job and the start of the next the queue is empty; what was seen of it may be old."""
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]))
    platform.records.workflows.patch(workflow.id, Patch(set={"state": "running"}))

    async def scenario(queue: Queue) -> None:
        counts = GraphCounts(queue, workflow.id)
        assert await counts.begin()
        assert await restore_workflows(queue, platform.records) == 0
        assert platform.records.workflows.get(workflow.id).state == "running"
        await counts.end()
        assert await restore_workflows(queue, platform.records) == 1

    play(queue_server, scenario)


def test_nothing_goes_on_for_a_canceled_workflow(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    """A worker has recorded a job and counted it; the user cancels before it makes the next one ready."""
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]))
    first = jobs_of(platform, workflow)["a"]

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        platform.records.results.add(result(first))
        platform.records.jobs.patch(first.id, Patch(set={"state": "completed"}))
        await cancel_workflow(platform.records, queue, workflow)
        await follow_up(platform.records, queue, workflow.id, {first.id: JobState.COMPLETED})
        assert await queue.jobs_of(workflow.id) == (set(), {})

    play(queue_server, scenario)


def test_who_counts_for_a_workflow_that_is_canceled_meanwhile_takes_it_out_again(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]))

    async def scenario(queue: Queue) -> None:
        platform.records.workflows.patch(workflow.id, Patch(set={"state": "canceled"}))
        await put_missing(platform.records, queue, workflow)
        assert await queue.jobs_of(workflow.id) == (set(), {})

    play(queue_server, scenario)


def test_a_job_that_is_run_again_waits_until_its_canceled_run_has_ended(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    alone = "flock -n lock sh -c 'echo begun >> done.txt; sleep 2' || echo twice >> done.txt"
    workflow = stored(platform, tmp_path, {"name": "long", "command": alone})

    async def scenario(queue: Queue) -> None:
        async def begun() -> bool:
            return (tmp_path / "done.txt").exists()

        await start_workflow(platform.records, queue, workflow)
        async with worker_on(platform, queue):
            await until(begun)
            await cancel_workflow(platform.records, queue, workflow)
            with pytest.raises(KnockemError, match="still being ended by"):
                await restart_workflow(platform.records, queue, workflow.id, patience=0.0)
            assert await restart_workflow(platform.records, queue, workflow.id) == 1
            await until(completed(platform, workflow))

    play(queue_server, scenario)
    assert lines(tmp_path) == ["begun", "begun"]


def test_who_cancels_again_makes_up_for_who_died_canceling(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]))

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        platform.records.workflows.patch(workflow.id, Patch(set={"state": "canceled"}))
        canceled = platform.records.workflows.get(workflow.id)
        assert (await view_workflow(platform.records, queue, canceled)).has_failed
        assert await cancel_workflow(platform.records, queue, canceled) == 2
        assert await queue.jobs_of(workflow.id) == (set(), {})

    play(queue_server, scenario)
    assert set(states(platform, workflow).values()) == {JobState.CANCELED}


def test_who_is_too_late_starts_nothing(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    workflow = stored(platform, tmp_path, job("a"))

    async def scenario(queue: Queue) -> None:
        await cancel_workflow(platform.records, queue, workflow)
        with pytest.raises(KnockemError, match="somebody else was quicker"):
            await start_workflow(platform.records, queue, workflow)
        assert await queue.jobs_of(workflow.id) == (set(), {})

    play(queue_server, scenario)
    assert platform.records.workflows.get(workflow.id).state == "canceled"


def test_upkeep_restores_a_graph_that_the_queue_has_lost(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]))
    platform.records.workflows.patch(workflow.id, Patch(set={"state": "running"}))

    async def scenario(queue: Queue) -> None:
        assert await restore_workflows(queue, platform.records) == 1
        async with worker_on(platform, queue):
            await until(completed(platform, workflow))

    play(queue_server, scenario)
    assert lines(tmp_path) == ["a", "b"]


def test_a_workflow_whose_jobs_are_all_over_is_completed(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(platform, tmp_path, job("a"))
    first = jobs_of(platform, workflow)["a"]
    platform.records.jobs.patch(first.id, Patch(set={"state": "completed"}))
    platform.records.workflows.patch(workflow.id, Patch(set={"state": "running"}))
    play(queue_server, lambda queue: follow_up(platform.records, queue, workflow.id, {first.id: JobState.COMPLETED}))
    assert platform.records.workflows.get(workflow.id).state == "completed"


def test_a_canceled_workflow_begins_nothing_more(queue_server: QueueServer, platform: Platform, tmp_path: Path) -> None:
    sleeping = {"name": "long", "command": "touch begun; sleep 60"}
    workflow = stored(platform, tmp_path, sleeping, job("first"), job("next", depends_on=["long", "first"]))

    async def scenario(queue: Queue) -> int:
        async def begun() -> bool:
            return (tmp_path / "begun").exists() and states(platform, workflow)["first"] is JobState.COMPLETED

        await start_workflow(platform.records, queue, workflow)
        async with worker_on(platform, queue) as worker:
            await until(begun)
            number = await cancel_workflow(platform.records, queue, workflow)

            async def ended() -> bool:
                kinds = [each.kind for each in events_of(platform, workflow.id)]
                return "jobInterrupted" in kinds

            await until(ended)
            assert worker.tally == "1 done"
        return number

    assert play(queue_server, scenario) == 2
    over = {"long": JobState.CANCELED, "first": JobState.COMPLETED, "next": JobState.CANCELED}
    assert states(platform, workflow) == over
    assert platform.records.workflows.get(workflow.id).state == "canceled"
    assert lines(tmp_path) == ["first"]


def test_upkeep_removes_what_a_submission_left_half_stored(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    young, old = stored(platform, tmp_path, job("a")), stored(platform, tmp_path, job("a"))
    platform.records.workflows.patch(old.id, Patch(set={"datetime": "2020-01-01T00:00:00+00:00"}))
    play(queue_server, lambda queue: tend(queue, platform.records, [], lease_seconds=0.1, say=lambda line: None))
    assert [each.id for each in platform.records.workflows.find({})] == [young.id]
    assert {each.workflow_id for each in platform.records.jobs.find({})} == {young.id}


def test_what_is_taken_back_leaves_nothing(platform: Platform, tmp_path: Path) -> None:
    kept = stored(platform, tmp_path, job("a"))
    workflow = stored(
        platform,
        tmp_path,
        job("a", output_files=["x"], resource_requirements="r"),
        job("b", input_files=["x"], output_user_data=["u"], scheduler="s"),
        files=[{"name": "x", "path": "x"}],
        user_data=[{"name": "u"}],
        resource_requirements=[{"name": "r", "num_cpus": 1, "memory": "1g"}],
        slurm_schedulers=[{"name": "s", "account": "a"}],
        actions=[{"trigger_type": "on_worker_start", "action_type": "run_commands", "commands": ["true"]}],
    )
    documents = platform.records.documents
    there = {model.collection.name: documents.count(model.collection.name, {}) for model in OF_A_GRAPH}
    assert all(there.values())
    take_back(platform.records, workflow.id)
    assert not any(documents.count(name, {}) for name in there)
    assert [each.id for each in platform.records.workflows.find({})] == [kept.id]
    assert len(list(platform.records.jobs.find({}))) == 1
