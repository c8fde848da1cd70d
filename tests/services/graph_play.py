"""What tests of job graphs share: workflows in a record of their own, run to their end by a worker inside the test."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.restarting import Enlargement, restart_workflow
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.reading import spec_of
from knockem_dagster.jobs.workflows import Submitter, start_workflow, store_workflow
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobRecord, JobState, WorkflowRecord
from tests.services.job_play import worker_on
from tests.services.queue_play import play, until
from tests.services.queues import QueueServer


def job(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "command": f"echo {name} >> done.txt", **fields}


def stored(platform: Platform, folder: Path, *jobs: dict[str, Any], **fields: Any) -> WorkflowRecord:
    graph = graph_of(spec_of({"name": "w", "jobs": list(jobs), **fields}))
    return store_workflow(platform.records, graph, Submitter(user_email="someone@example.org", folder=str(folder)))


def jobs_of(platform: Platform, workflow: WorkflowRecord) -> dict[str, JobRecord]:
    return {each.name: each for each in platform.records.jobs.find({"workflowId": workflow.id})}


def states(platform: Platform, workflow: WorkflowRecord) -> dict[str, JobState | None]:
    return {name: each.state for name, each in jobs_of(platform, workflow).items()}


def completed(platform: Platform, workflow: WorkflowRecord) -> Any:
    async def is_completed() -> bool:
        found = await asyncio.to_thread(platform.records.workflows.get, workflow.id)
        return found.state == "completed"

    return is_completed


def run(server: QueueServer, platform: Platform, workflow: WorkflowRecord) -> None:
    """Start a workflow and let a worker run it to its end."""

    async def scenario(queue: Queue) -> None:
        await start_workflow(platform.records, queue, workflow)
        async with worker_on(platform, queue):
            await until(completed(platform, workflow))

    play(server, scenario)


def run_again(
    server: QueueServer, platform: Platform, workflow: WorkflowRecord, enlargement: Enlargement | None = None
) -> int:
    """Restart a workflow and let a worker run it to its end; return how many jobs went again."""

    async def scenario(queue: Queue) -> int:
        number = await restart_workflow(platform.records, queue, workflow.id, enlargement or Enlargement())
        async with worker_on(platform, queue):
            await until(completed(platform, workflow))
        return number

    return play(server, scenario)


def lines(folder: Path) -> list[str]:
    return (folder / "done.txt").read_text().split()
