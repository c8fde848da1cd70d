"""Making command jobs ready: what a job needs and how its workflow's jobs are handed out, in the queue's terms."""

from __future__ import annotations

from collections.abc import Sequence

from knockem_dagster.jobs.attempt_records import job_of
from knockem_dagster.jobs.queue import OwnerSettings, Queue
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.records.jobs import JobRecord, ResourcesValue, WorkflowRecord


def requirement_of_command(needs: ResourcesValue) -> Requirement:
    """Return what a job needs that may use so much."""
    return Requirement(
        cpus=needs.cpus, memory_mib=needs.memory_mib, gpus=needs.gpus, seconds=needs.seconds, runtime="command"
    )


def settings_of(workflow: WorkflowRecord) -> OwnerSettings:
    """Return how a workflow's jobs are handed out."""
    return OwnerSettings(
        max_active=workflow.max_active, max_fail=workflow.max_fail, weight=workflow.weight, recorded_by="worker"
    )


async def enqueue_jobs(
    queue: Queue,
    workflow: str,
    jobs: Sequence[JobRecord],
    *,
    settings: OwnerSettings | None = None,
    counted: bool = False,
) -> None:
    """Make jobs ready, those of higher priority first; `settings` are known to the queue already unless given.

    `counted`: only those that wait for nothing any more, each once (Queue.enqueue).
    """
    by_requirement: dict[Requirement, list[bytes]] = {}
    for job in sorted(jobs, key=lambda job: -job.priority):
        by_requirement.setdefault(requirement_of_command(job.resources), []).append(job_of(job.id))
    for requirement, ready in by_requirement.items():
        await queue.enqueue(workflow, ready, requirement=requirement, settings=settings, counted=counted)
