"""Laws of job graphs, on random ones: order, states, cancel and restart, by claims and results of a real queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs.attempt_records import attempt_id_of
from knockem_dagster.jobs.commands.command import CommandEnded
from knockem_dagster.jobs.job_records import JobJournal, to_payload
from knockem_dagster.jobs.queue import Entry, Queue, Report, Verdict, Wanted
from knockem_dagster.jobs.restarting import restart_workflow
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.reading import spec_of
from knockem_dagster.jobs.workflows import Submitter, cancel_workflow, start_workflow, store_workflow
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobState, WorkflowRecord
from tests.services.queue_play import play
from tests.services.queues import QueueServer


@dataclass(frozen=True, slots=True)
class Drawn:
    """Which job waits for which earlier ones, which fail, and which are canceled when one before did not complete."""

    waits: Mapping[int, frozenset[int]]
    failing: frozenset[int]
    cautious: frozenset[int]

    def expected(self, failing: frozenset[int]) -> dict[str, JobState]:
        """Return the states in which the jobs end when these fail."""
        states: dict[int, JobState] = {}
        for job, blockers in self.waits.items():
            spoiled = any(states[each] is not JobState.COMPLETED for each in blockers)
            if spoiled and job in self.cautious:
                states[job] = JobState.CANCELED
            else:
                states[job] = JobState.FAILED if job in failing else JobState.COMPLETED
        return {f"j{job}": state for job, state in states.items()}


@st.composite
def graphs(draw: st.DrawFn) -> Drawn:
    number = draw(st.integers(1, 10))
    waits = {
        job: draw(st.frozensets(st.integers(0, job - 1), max_size=3)) if job else frozenset[int]()
        for job in range(number)
    }
    some = st.frozensets(st.integers(0, number - 1))
    return Drawn(waits, draw(some), draw(some))


class Play:
    """A workflow in a queue, with workers that claim one job after the other and end it as they are told."""

    def __init__(self, platform: Platform, queue: Queue, drawn: Drawn, random: Random) -> None:
        self._platform = platform
        self._queue = queue
        self._random = random
        jobs = [
            {
                "name": f"j{job}",
                "command": "true",
                "depends_on": [f"j{each}" for each in blockers],
                "cancel_on_blocking_job_failure": job in drawn.cautious,
            }
            for job, blockers in drawn.waits.items()
        ]
        graph = graph_of(spec_of({"name": "w", "jobs": jobs}))
        submitter = Submitter(user_email="someone@example.org", folder="/")
        self.workflow = store_workflow(platform.records, graph, submitter)
        self._blockers = {f"j{job}": {f"j{each}" for each in blockers} for job, blockers in drawn.waits.items()}
        self.ran: list[str] = []

    @property
    def states(self) -> dict[str, JobState | None]:
        found = self._platform.records.jobs.find({"workflowId": self.workflow.id})
        return {job.name: job.state for job in found}

    @property
    def record(self) -> WorkflowRecord:
        return self._platform.records.workflows.get(self.workflow.id)

    async def run(self, failing: frozenset[int], *, most: int | None = None) -> None:
        """Let two workers take turns until there is nothing to claim, or so many jobs were run."""
        workers = ("a", "b")
        for worker in workers:
            await self._queue.beat(worker, lease_seconds=60, description=b"{}")
        journals = {worker: JobJournal(self._platform.records, self._queue) for worker in workers}
        left = len(self._blockers) if most is None else most
        while left:
            worker = self._random.choice(workers)
            classes = list(await self._queue.classes())
            claim = await self._queue.claim(worker, worker, Wanted(classes, only=self.workflow.id))
            if claim is None:
                break
            [job] = claim.jobs
            record = self._platform.records.jobs.get(attempt_id_of(job))
            states = self.states
            assert all(states[each] is not JobState.BLOCKED for each in self._blockers[record.name]), "begun too soon"
            failed = record.name in {f"j{each}" for each in failing}
            outcome, verdict = (Outcome.FAILED, Verdict.FAILED) if failed else (Outcome.SUCCEEDED, Verdict.SUCCEEDED)
            payload = to_payload(CommandEnded(outcome, int(failed), "", 0, 0.0, 0.0), worker=worker)
            [id] = await self._queue.finish(worker, [Report(claim.owner, job, claim.token, verdict, 0.0, payload)])
            assert id
            journals[worker].record(record, Entry(id, job, True, payload))
            await journals[worker].flush()
            self.ran.append(record.name)
            left -= 1


LAW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LAW
@given(drawn=graphs(), random=st.randoms(use_true_random=False))
def test_every_job_is_run_once_after_those_it_waits_for(
    queue_server: QueueServer, platform: Platform, drawn: Drawn, random: Random
) -> None:
    async def scenario(queue: Queue) -> None:
        story = Play(platform, queue, drawn, random)
        await start_workflow(platform.records, queue, story.workflow)
        await story.run(drawn.failing)
        expected = drawn.expected(drawn.failing)
        assert story.states == expected
        assert sorted(story.ran) == sorted(name for name, state in expected.items() if state is not JobState.CANCELED)
        assert story.record.state == "completed"

    play(queue_server, scenario)


@LAW
@given(drawn=graphs(), most=st.integers(0, 10), random=st.randoms(use_true_random=False))
def test_cancel_and_restart_at_any_moment_end_as_if_nothing_had_failed(
    queue_server: QueueServer, platform: Platform, drawn: Drawn, most: int, random: Random
) -> None:
    async def scenario(queue: Queue) -> None:
        story = Play(platform, queue, drawn, random)
        await start_workflow(platform.records, queue, story.workflow)
        await story.run(drawn.failing, most=most)
        if story.record.state == "running":
            going = [name for name, state in story.states.items() if state is JobState.BLOCKED]
            assert await cancel_workflow(platform.records, queue, story.workflow) == len(going)
            await story.run(frozenset())
            assert len(story.ran) <= most
        completed = {name for name, state in story.states.items() if state is JobState.COMPLETED}
        if completed == set(story.states):
            return
        number = await restart_workflow(platform.records, queue, story.workflow.id)
        ran = len(story.ran)
        await story.run(frozenset())
        assert set(story.states.values()) == {JobState.COMPLETED}
        assert len(story.ran) - ran == number >= len(story.states) - len(completed)
        assert story.record.state == "completed"

    play(queue_server, scenario)
