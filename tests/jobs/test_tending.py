"""Upkeep of the queue: what it takes out has been recorded before."""

from __future__ import annotations

from pathlib import Path

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.jobs.attempt_records import attempt_id_of
from knockem_dagster.jobs.commands.command import CommandEnded
from knockem_dagster.jobs.job_records import to_payload
from knockem_dagster.jobs.queue import Queue, Report, Verdict, Wanted
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.tending import Tended, tend
from knockem_dagster.jobs.workflows import cancel_workflow, start_workflow
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobState
from tests.services.graph_play import job, states, stored
from tests.services.job_play import results_of
from tests.services.queue_play import play
from tests.services.queues import QueueServer


@pytest.mark.parametrize("verdict", [Verdict.SUCCEEDED, Verdict.FAILED])
def test_what_came_of_a_canceled_workflow_is_recorded_before_it_is_taken_out(
    queue_server: QueueServer, platform: Platform, tmp_path: Path, verdict: Verdict
) -> None:
    """A worker died after it handed in how a job ended, and before it recorded that; then somebody cancels."""
    outcome, state = {
        Verdict.SUCCEEDED: (Outcome.SUCCEEDED, JobState.COMPLETED),
        Verdict.FAILED: (Outcome.OUT_OF_MEMORY, JobState.FAILED),
    }[verdict]
    workflow = stored(platform, tmp_path, job("a"), job("b", depends_on=["a"]))

    async def scenario(queue: Queue) -> Tended:
        await start_workflow(platform.records, queue, workflow)
        await queue.beat("w", lease_seconds=60, description=b"{}")
        claim = await queue.claim("w", "w", Wanted(list(await queue.classes())))
        assert claim is not None
        payload = to_payload(CommandEnded(outcome, 7, "its last words", 1 << 20, 1.5, 2.0), worker="w")
        await queue.finish("w", [Report(workflow.id, claim.jobs[0], claim.token, verdict, 0.0, payload)])
        await queue.leave("w")
        await cancel_workflow(platform.records, queue, platform.records.workflows.get(workflow.id))
        assert (results_of(platform, workflow), states(platform, workflow)["a"]) == ([], JobState.CANCELED)
        tended = await tend(queue, platform.records, [], lease_seconds=0.1, say=lambda line: None)
        assert not await QueueViews(queue).owners()
        assert not await queue.outcomes(workflow.id)
        [result] = results_of(platform, workflow)
        assert (result.id, result.outcome, result.tail) == (attempt_id_of(claim.jobs[0]), outcome, "its last words")
        return tended

    assert play(queue_server, scenario).taken_out == [workflow.id]
    assert states(platform, workflow) == {"a": state, "b": JobState.CANCELED}
    assert platform.records.workflows.get(workflow.id).state == "canceled"
