"""What is asked of the server itself: whether it is well, and numbers for those who watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Gauge, generate_latest

from knockem_dagster.api.http.callers import Administrator, User
from knockem_dagster.api.http.paging import At, Page, page_of_all
from knockem_dagster.api.http.site import Site, site_of
from knockem_dagster.errors import NotFound, StoreError
from knockem_dagster.jobs.inspection import WorkerState, owner_states, worker_states
from knockem_dagster.records.jobs import WORKFLOW_STATES, ComputeNodeRecord
from knockem_dagster.records.record import Value
from knockem_dagster.records.submissions import State

router = APIRouter(tags=["service"])


class Health(Value):
    """Whether the server can do what it is asked for."""

    documents: bool
    queue: bool


@router.get("/v1/workers", operation_id="list_workers")
async def list_workers(caller: Administrator, at: At) -> Page[WorkerState]:
    """Return the registered workers, by name."""
    found = await worker_states(await caller.site.queue(), caller.site.records)
    return page_of_all({each.name: each for each in found}, at)


@router.get("/v1/computeNodes/{node}", operation_id="get_compute_node")
async def compute_node(node: Annotated[str, Path(max_length=400)], caller: User) -> ComputeNodeRecord:
    """Return a worker, there or gone, by the name that results tell."""
    found = await asyncio.to_thread(caller.site.records.compute_nodes.find_one, node)
    if found is None:
        raise NotFound(f"There is no compute node {node!r}.")
    return found


@router.get("/healthz", operation_id="get_health")
async def healthz(request: Request) -> Health:
    """Tell whether the stores answer. Answers 503 when one does not."""
    site = site_of(request)
    health = Health(documents=await _has_documents(site), queue=await _has_queue(site))
    if not (health.documents and health.queue):
        missing = " and ".join(name for name, is_there in health.model_dump().items() if not is_there)
        raise StoreError(f"These do not answer: {missing}.")
    return health


@router.get("/metrics", response_class=PlainTextResponse, operation_id="get_metrics")
async def metrics(caller: Administrator) -> PlainTextResponse:
    """Return numbers in the text format of Prometheus."""
    return PlainTextResponse(await _metrics(caller.site), media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _has_documents(site: Site) -> bool:
    try:
        await asyncio.to_thread(site.records.users.find_one, "nobody")
    except StoreError:
        return False
    return True


async def _has_queue(site: Site) -> bool:
    try:
        await site.answering_queue()
    except StoreError:
        return False
    return True


async def _metrics(site: Site) -> str:
    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"knockem_{name}", meaning, labels, registry=registry)

    queue = await site.queue()
    owners, workers = await owner_states(queue, site.records), await worker_states(queue, site.records)
    gauge("queue_ready_jobs", "jobs that could be begun").set(sum(owner.ready for owner in owners))
    gauge("queue_running_jobs", "jobs in work").set(sum(owner.running for owner in owners))
    waits = [owner.oldest_wait for owner in owners if owner.oldest_wait is not None]
    gauge("queue_oldest_wait_seconds", "how long the oldest ready job has waited").set(max(waits, default=0.0))
    gauge("queue_owners", "submissions and workflows with anything in the queue").set(len(owners))
    gauge("workers", "registered workers").set(len(workers))
    done = gauge("worker_jobs", "jobs that registered workers have ended", "outcome")
    done.labels("done").set(sum(worker.done for worker in workers))
    done.labels("failed").set(sum(worker.failed for worker in workers))
    states = {site.records.submissions.name: tuple(State), site.records.workflows.name: WORKFLOW_STATES}
    for name, counts in (await asyncio.to_thread(_counts, site, states)).items():
        by_state = gauge(name, f"{name} by state", "state")
        for state, number in counts.items():
            by_state.labels(state).set(number)
    return generate_latest(registry).decode()


def _counts(site: Site, states: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Return how many records of each collection are in each of its states."""
    count = site.records.documents.count
    return {name: {state: count(name, {"state": state}) for state in each} for name, each in states.items()}
