"""How soon jobs go on that waited for others, and how long large workflows take: beside the limits they are to keep.

A worker process runs real commands, with an embedded queue server and record of their own. Times are those of the
record: a job's result, and the event of the next one's start.

    python -m benchmarks.graph [--scale 1.0] [--seed 1] [--json]
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import orjson

from benchmarks.measurement import Measurement, command
from benchmarks.workplace import Workplace, until
from knockem_dagster.accounts.tokens import issue_token
from knockem_dagster.accounts.users import add_user
from knockem_dagster.errors import KnockemError
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.reading import spec_of
from knockem_dagster.jobs.workflow_views import view_jobs, view_workflow
from knockem_dagster.jobs.workflows import Submitter, start_workflow, store_workflow
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.jobs import WorkflowRecord

CHAIN, BEHIND_BARRIER, MANY = 1000, 1000, 100_000
MEDIAN_LIMIT_MS, BARRIER_LIMIT_MS, SUBMIT_LIMIT_S, LOOK_LIMIT_S = 50.0, 500.0, 30.0, 1.0
PATIENCE_SECONDS = 600.0
USER = "bench@example.org"


def run(scale: float, seed: int) -> list[Measurement]:
    """Measure everything, at `scale` times the full number of jobs. Nothing is random: `seed` changes nothing."""
    del seed
    with (
        tempfile.TemporaryDirectory(prefix="knockem-graph-") as folder,
        Workplace(Path(folder), lease_seconds=15.0) as workplace,
    ):
        workplace.start_server()
        worker = workplace.start_worker()
        until(lambda: workplace.is_registered(worker), "a worker")
        return [
            *_chain(workplace, max(10, round(CHAIN * scale))),
            *_barrier(workplace, max(10, round(BEHIND_BARRIER * scale))),
            *_many(workplace, max(100, round(MANY * scale))),
            *_many_over_http(workplace, max(100, round(MANY * scale))),
        ]


def _chain(workplace: Workplace, number: int) -> list[Measurement]:
    """Let each job wait for the one before, and tell what lies between a result and the next start."""
    names = [f"j{each}" for each in range(number)]
    jobs = [_job(name, depends_on=names[place - 1 : place]) for place, name in enumerate(names)]
    workflow = _submit(workplace, jobs)
    _wait(workplace, workflow)
    ended, begun = _times(workplace, workflow)
    between = [1000 * (begun[after] - ended[before]) for before, after in pairwise(names)]
    if min(between) < 0:
        raise KnockemError("a job was begun before the one that it waits for was recorded")
    median, name = statistics.median(between), "result to start of the next, median"
    return [
        Measurement(name, median, "ms", number, "limit", MEDIAN_LIMIT_MS),
        Measurement("the same, 95% are below", sorted(between)[int(0.95 * len(between))], "ms", number),
    ]


def _barrier(workplace: Workplace, number: int) -> list[Measurement]:
    """Let many jobs wait for one, which waits for many; tell how long after its result all of them are ready."""
    sweep = {"i": f"1:{number}"}
    jobs = [
        _job("a_{i}", parameters=sweep),
        _job("barrier", depends_on_regexes=["^a_"]),
        _job("b_{i}", parameters=sweep, depends_on=["barrier"]),
    ]
    workflow = _submit(workplace, jobs)
    unblocked = _seen_unblocked(workplace, workflow, number)
    _wait(workplace, workflow)
    ended, _ = _times(workplace, workflow)
    took = 1000 * (unblocked - ended["barrier"])
    name = "all jobs behind a barrier ready after its result"
    return [Measurement(name, took, "ms", number, "limit", BARRIER_LIMIT_MS)]


def _seen_unblocked(workplace: Workplace, workflow: WorkflowRecord, number: int) -> float:
    """Return when all jobs behind the barrier are seen to be ready, running or over (seconds since the epoch)."""

    async def watch(queue: Queue) -> float:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            view = await view_workflow(workplace.platform.records, queue, workflow)
            if not view.jobs.get("blocked", 0) and view.number == 2 * number + 1:
                return time.time()
            await asyncio.sleep(0.002)
        raise KnockemError("the jobs behind a barrier never became ready")

    return workplace.on_queue(watch)


def _many(workplace: Workplace, number: int) -> list[Measurement]:
    """Submit many jobs at once, look at their status, and at a page of them."""
    records = workplace.platform.records
    began = time.perf_counter()
    workflow = _submit(workplace, [_job("j_{i}", parameters={"i": f"1:{number}"})])
    submitted = time.perf_counter() - began

    async def look(queue: Queue) -> tuple[float, float]:
        began = time.perf_counter()
        await view_workflow(records, queue, workflow)
        seen = time.perf_counter()
        await view_jobs(records, queue, workflow)
        return seen - began, time.perf_counter() - seen

    status, page = workplace.on_queue(look)
    return [
        Measurement("jobs submitted at once", submitted, "s", number, "limit", SUBMIT_LIMIT_S),
        Measurement("their status", status, "s", number, "limit", LOOK_LIMIT_S),
        Measurement("a page of them", page, "s", number, "limit", LOOK_LIMIT_S),
    ]


def _many_over_http(workplace: Workplace, number: int) -> list[Measurement]:
    """Do the same over HTTP, with every job in one request."""
    records = workplace.platform.records
    token = issue_token(records, add_user(records, USER).user_email, Scope.USER)[1]
    body = orjson.dumps({"name": "bench", "jobs": [_job(f"j_{each}") for each in range(number)]})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with httpx.Client(base_url=workplace.start_api().url, headers=headers, timeout=PATIENCE_SECONDS) as client:

        def timed(method: str, path: str, **more: Any) -> tuple[float, dict[str, Any]]:
            began = time.perf_counter()
            answer = client.request(method, path, **more).raise_for_status().json()
            return time.perf_counter() - began, answer

        submitted, workflow = timed("POST", "/v1/workflows", content=body)
        status, _ = timed("GET", f"/v1/workflows/{workflow['id']}")
        page, _ = timed("GET", f"/v1/workflows/{workflow['id']}/jobs")
    return [
        Measurement("jobs submitted in one request over HTTP", submitted, "s", number, "limit", SUBMIT_LIMIT_S),
        Measurement("their status over HTTP", status, "s", number, "limit", LOOK_LIMIT_S),
        Measurement("a page of them over HTTP", page, "s", number, "limit", LOOK_LIMIT_S),
    ]


def _job(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "command": "true", **fields}


def _submit(workplace: Workplace, jobs: Sequence[Mapping[str, Any]]) -> WorkflowRecord:
    graph = graph_of(spec_of({"name": "bench", "jobs": list(jobs)}))
    submitter = Submitter(user_email=USER, folder=str(workplace.folder))
    workflow = store_workflow(workplace.platform.records, graph, submitter)
    workplace.on_queue(lambda queue: start_workflow(workplace.platform.records, queue, workflow))
    return workflow


def _wait(workplace: Workplace, workflow: WorkflowRecord) -> None:
    records = workplace.platform.records
    what = "the end of a workflow"
    until(lambda: records.workflows.get(workflow.id).state == "completed", what, seconds=PATIENCE_SECONDS)


def _times(workplace: Workplace, workflow: WorkflowRecord) -> tuple[dict[str, float], dict[str, float]]:
    """Return when each job's result was recorded, and when it was started (seconds since the epoch)."""
    records = workplace.platform.records
    names = {job.id: job.name for job in records.jobs.find({"workflowId": workflow.id})}
    ended = {names[each.job_id]: _seconds(each.datetime) for each in workplace.results(workflow.id)}

    def starts() -> dict[str, float]:
        events = records.events.find({"subject": workflow.id})
        return {names[each.data["job"]]: _seconds(each.datetime) for each in events if each.kind == "jobStarted"}

    until(lambda: len(starts()) == len(names), "the events of all starts")
    return ended, starts()


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    command(run, about=__doc__, title="How soon jobs go on that waited for others")
