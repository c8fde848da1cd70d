"""Actions of a workflow: commands that run when it begins, when jobs get so far, and when all is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.restarting import restart_workflow
from knockem_dagster.jobs.specs.action_jobs import jobs_with_actions
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.reading import spec_of
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobState
from tests.services.graph_play import job, lines, run, states, stored
from tests.services.queue_play import play
from tests.services.queues import QueueServer


def action(trigger: str, *commands: str, **fields: Any) -> dict[str, Any]:
    return {"trigger_type": trigger, "action_type": "run_commands", "commands": list(commands), **fields}


def blockers(*jobs: dict[str, Any], actions: list[dict[str, Any]]) -> dict[str, set[str]]:
    graph = graph_of(spec_of({"name": "w", "jobs": list(jobs), "actions": actions}))
    return {name: set(each.blockers) for name, each in jobs_with_actions(graph).items()}


def test_actions_stand_where_their_triggers_say() -> None:
    found = blockers(
        job("a"),
        job("b"),
        job("c", depends_on=["a", "b"]),
        actions=[
            action("on_workflow_start", "true"),
            action("on_jobs_ready", "true", jobs=["c"]),
            action("on_jobs_complete", "true", job_name_regexes=["^[ab]$"]),
            action("on_workflow_complete", "true"),
            action("on_worker_start", "true"),
        ],
    )
    start = "action 0: on_workflow_start"
    assert found == {
        "a": {start},
        "b": {start},
        "c": {"a", "b"},
        start: set(),
        "action 1: on_jobs_ready": {"a", "b"},
        "action 2: on_jobs_complete": {"a", "b"},
        "action 3: on_workflow_complete": {"c", start, "action 1: on_jobs_ready", "action 2: on_jobs_complete"},
    }


def test_an_action_has_a_name_of_its_own() -> None:
    name = "action 0: on_workflow_start"
    assert blockers(job(name), actions=[action("on_workflow_start", "true")]) == {name: {f"{name}'"}, f"{name}'": set()}


def test_what_is_neither_run_nor_asks_for_nodes_is_named_as_without_effect() -> None:
    nodes = {"trigger_type": "on_workflow_start", "action_type": "schedule_nodes", "scheduler": "here"}
    nodes["scheduler_type"] = "local"
    of_workers = [action("on_worker_start", "true"), action("on_worker_complete", "true")]
    spec = {"name": "w", "jobs": [job("a")], "actions": [nodes, *of_workers]}
    graph = graph_of(spec_of({**spec, "slurm_schedulers": [{"name": "s"}]}))
    assert graph.without_effect(acquires_nodes=True) == ["schedule_nodes on_workflow_start"]
    assert list(jobs_with_actions(graph)) == ["a"]


def test_actions_run_in_order_and_their_failure_stops_nothing(
    queue_server: QueueServer, platform: Platform, tmp_path: Path
) -> None:
    workflow = stored(
        platform,
        tmp_path,
        job("a", cancel_on_blocking_job_failure=True),
        job("b", depends_on=["a"], cancel_on_blocking_job_failure=True),
        actions=[
            action("on_workflow_start", "echo begin >> done.txt", "false", "echo never >> done.txt"),
            action("on_workflow_complete", "echo end >> done.txt"),
        ],
    )
    run(queue_server, platform, workflow)
    assert lines(tmp_path) == ["begin", "a", "b", "end"]
    assert states(platform, workflow) == {
        "a": JobState.COMPLETED,
        "b": JobState.COMPLETED,
        "action 0: on_workflow_start": JobState.FAILED,
        "action 1: on_workflow_complete": JobState.COMPLETED,
    }

    async def again(queue: Queue) -> int:
        return await restart_workflow(platform.records, queue, workflow.id)

    assert play(queue_server, again) == 1  # only what failed: nothing depends on what an action does
