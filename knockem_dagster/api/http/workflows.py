"""Workflows over HTTP: submitting one, seeing its jobs, canceling it and running again what failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from knockem_dagster.api.http.bodies import described_body
from knockem_dagster.api.http.callers import Caller, User
from knockem_dagster.api.http.paging import At, Page, cursor_of, page_of, place_at
from knockem_dagster.errors import Conflict, Fault, InvalidInput, NotFound, QueueAway
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.queue_views import QueueViews
from knockem_dagster.jobs.queue_views import Worker as WorkerView
from knockem_dagster.jobs.restarting import Enlargement, restart_workflow
from knockem_dagster.jobs.sharing import check_sharing
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.job_graph import JobGraph
from knockem_dagster.jobs.specs.reading import read_workflow_file
from knockem_dagster.jobs.specs.workflow_spec import WorkflowSpec
from knockem_dagster.jobs.work_messages import OVER_HTTP
from knockem_dagster.jobs.workflow_views import JobView, any_failed, view_jobs, view_workflow
from knockem_dagster.jobs.workflows import MOST_ACTIVE, Submitter, cancel_workflow, start_workflow, store_workflow
from knockem_dagster.mapping_file import shown
from knockem_dagster.nodes.opening import has_workflow_limits
from knockem_dagster.records.jobs import JobRecord, ResultRecord, WorkflowRecord
from knockem_dagster.records.record import Value

router = APIRouter(prefix="/v1/workflows", tags=["workflows"])
WorkflowId = Annotated[str, Path(alias="workflow", max_length=100)]
Folder = Annotated[
    str | None,
    Query(pattern=r"^/[^\x00]*$", max_length=4096, description="where commands run; default: the worker's folder"),
]
MaxActive = Annotated[int, Query(alias="maxActive", ge=1, le=1_000_000, description="jobs that may run at a time")]
JobState = Literal["blocked", "ready", "running", "completed", "failed", "canceled", "terminated", "disabled"]
_JSON5 = "application/json5"
_FORMATS = {
    "application/json": "w.json",
    "application/yaml": "w.yaml",
    "text/yaml": "w.yaml",
    _JSON5: "w.json5",
    "application/x-www-form-urlencoded": "w.json",  # what `curl -d` says of whatever it sends
}
"""By the type of a body, the name of a file that is read likewise."""


class WorkflowLine(Value):
    """A workflow in a list."""

    id: str
    name: str
    state: str = Field(description="uninitialized, running, completed or canceled")
    submitted: str
    user_email: str
    has_failed: bool = Field(description="a job did not complete, and will not by itself")


class WorkflowModel(WorkflowLine):
    """A workflow at one moment."""

    description: str
    max_active: int = Field(description="jobs that may run at a time")
    number: int = Field(description="jobs in all")
    jobs: dict[str, int] = Field(description="jobs by state; states without jobs are left out")
    without_effect: tuple[str, ...] = Field(default=(), description="keys of the file that change nothing so far")


class CheckedModel(Value):
    """What a workflow file stands for."""

    name: str
    jobs: int
    dependencies: int
    ready_at_once: int
    files: int
    user_data: int
    without_effect: tuple[str, ...]


class JobModel(Value):
    """A job, how far it is, and its last try if it has ended."""

    job: JobRecord
    state: str
    result: ResultRecord | None


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    openapi_extra=described_body("WorkflowSpec", "application/yaml", _JSON5),
    operation_id="create_workflow",
)
async def create(
    request: Request,
    response: Response,
    caller: User,
    folder: Folder = None,
    max_active: MaxActive = MOST_ACTIVE,
) -> WorkflowModel:
    """Submit a workflow. The body is a workflow file: JSON, YAML or JSON5.

    All of it is checked before anything is stored.
    """
    graph = await _graph_in(request)
    queue, records = await caller.site.answering_queue(), caller.site.records
    if folder is None:
        await _check_sharing(graph, caller, queue)
    async with caller.site.taking(caller.email, jobs=len(graph.jobs), size=len(await request.body())):
        submitter = Submitter(user_email=caller.email, folder=folder, max_active=max_active)
        workflow = await asyncio.to_thread(store_workflow, records, graph, submitter)
    with suppress(QueueAway):  # it is stored, and runs as soon as the queue is back: upkeep looks after that
        await start_workflow(records, queue, workflow)
    response.headers["Location"] = f"/v1/workflows/{workflow.id}"
    return await _model(caller, workflow.id, without_effect=await _without_effect(caller, graph))


@router.post(
    "/check", openapi_extra=described_body("WorkflowSpec", "application/yaml", _JSON5), operation_id="check_workflow"
)
async def check(request: Request, caller: User) -> CheckedModel:
    """Check a workflow file as for being submitted without a `folder`, and tell what it stands for; store nothing."""
    graph = await _graph_in(request)
    queue = await caller.site.queue_if_any()
    if queue is not None:
        await _check_sharing(graph, caller, queue)
    return CheckedModel(
        name=graph.spec.name,
        jobs=len(graph.jobs),
        dependencies=graph.num_dependencies,
        ready_at_once=graph.num_ready_at_once,
        files=len(graph.files),
        user_data=len(graph.user_data),
        without_effect=tuple(await _without_effect(caller, graph)),
    )


async def _check_sharing(graph: JobGraph, caller: Caller, queue: Queue) -> None:
    """Refuse files that would not pass from job to job, among the workers that may do the caller's jobs."""
    workers = await QueueViews(queue).workers()
    check_sharing(graph, await asyncio.to_thread(_workers_for, caller, workers))


def _workers_for(caller: Caller, workers: Mapping[str, WorkerView]) -> dict[str, WorkerView]:
    """Return the workers that may do the caller's jobs: over HTTP, those of their token's user, or everybody's."""

    def may(name: str, worker: WorkerView) -> bool:
        if not worker.description["host"].endswith(OVER_HTTP):
            return True
        tokens = caller.site.records.tokens.beginning_with(name.partition("-")[0], most=1)
        return not tokens or tokens[0].for_all or tokens[0].user_email == caller.email

    return {name: worker for name, worker in workers.items() if may(name, worker)}


@router.get("", operation_id="list_workflows")
async def list_them(caller: User, at: At) -> Page[WorkflowLine]:
    """Return the caller's workflows, the newest first; an administrator's are everybody's."""
    where = {"isGraph": True} if caller.sees_all else {"userEmail": caller.email, "isGraph": True}
    records = caller.site.records

    def look() -> Page[WorkflowLine]:
        found = page_of(records.workflows, where, at, field="datetime", newest_first=True)
        return Page(items=tuple(_line(each, any_failed(records, each.id)) for each in found.items), next=found.next)

    return await asyncio.to_thread(look)


@router.get("/{workflow}", operation_id="get_workflow")
async def get(workflow: WorkflowId, caller: User) -> WorkflowModel:
    """Tell how far a workflow is."""
    return await _model(caller, workflow)


@router.post("/{workflow}/cancel", operation_id="cancel_workflow")
async def cancel(workflow: WorkflowId, caller: User) -> WorkflowModel:
    """End a workflow: what runs is ended, nothing more is begun. What is recorded is kept.

    409 for one that is completed; one that is canceled already stays so.
    """
    found = await caller.workflow(workflow)
    if found.state == "completed":
        raise Conflict(f"Workflow {found.id} is completed already.")
    await cancel_workflow(caller.site.records, await caller.site.queue(), found)
    return await _model(caller, workflow)


@router.post("/{workflow}/restart", operation_id="restart_workflow")
async def restart(
    workflow: WorkflowId,
    caller: User,
    memory_factor: Annotated[float, Query(alias="memoryFactor", ge=1, le=100)] = 1.5,
    time_factor: Annotated[float, Query(alias="timeFactor", ge=1, le=100)] = 1.5,
) -> WorkflowModel:
    """Run again what did not complete or read what has changed, and all that waited for these.

    Where memory or time ran out, there is more.
    """
    found = await caller.workflow(workflow)
    enlargement = Enlargement(memory=memory_factor, time=time_factor)
    records, queue = caller.site.records, await caller.site.answering_queue()
    seen = await view_workflow(records, None, found)
    again = seen.number - seen.jobs.get("completed", 0)
    async with caller.site.taking(found.user_email, jobs=again):
        await restart_workflow(records, queue, found.id, enlargement)
    return await _model(caller, workflow)


@router.get("/{workflow}/jobs", operation_id="list_jobs")
async def jobs(
    workflow: WorkflowId,
    caller: User,
    at: At,
    state: Annotated[tuple[JobState, ...], Query(description="only jobs in these states")] = (),
    name: Annotated[str, Query(max_length=500, description="what names begin with")] = "",
) -> Page[JobModel]:
    """Return jobs, by name."""
    found = await caller.workflow(workflow)
    place = place_at(at.cursor, 1)
    views = await view_jobs(
        caller.site.records,
        await caller.site.queue_if_any(),
        found,
        states=state,
        begins=name,
        after="" if place is None else place[0],
        most=at.limit + 1,
    )
    there = views[: at.limit]
    return Page(
        items=tuple(_job(each) for each in there),
        next=cursor_of(there[-1].job.name) if len(views) > at.limit else None,
    )


@router.get("/{workflow}/jobs/{job}", operation_id="get_job")
async def job(workflow: WorkflowId, job: Annotated[str, Path(max_length=100)], caller: User) -> JobModel:
    """Return a job by its id."""
    found = await caller.workflow(workflow)
    record = await asyncio.to_thread(caller.site.records.jobs.find_one, job)
    if record is None or record.workflow_id != found.id:
        raise NotFound(f"Workflow {found.id} has no job {job!r}.")
    queue = await caller.site.queue_if_any()
    views = await view_jobs(caller.site.records, queue, found, begins=record.name, most=1)
    return _job(views[0])


@router.get("/{workflow}/jobs/{job}/tries", operation_id="list_tries")
async def tries(
    workflow: WorkflowId,
    job: Annotated[str, Path(max_length=100)],
    caller: User,
    at: At,
) -> Page[ResultRecord]:
    """Return what came of each try at a job."""
    found = await caller.workflow(workflow)
    where = {"workflowId": found.id, "jobId": job}
    results = caller.site.records.results
    return await asyncio.to_thread(page_of, results, where, at, field="_id")


async def _graph_in(request: Request) -> JobGraph:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in _FORMATS:
        fault = Fault("Content-Type", shown(kind), "application/json, application/yaml and application/json5 are")
        raise InvalidInput("The workflow cannot be read.", [fault])
    body = await request.body()
    return await asyncio.to_thread(lambda: graph_of(read_workflow_file(body, name=_FORMATS[kind])))


async def _without_effect(caller: Caller, graph: JobGraph) -> list[str]:
    acquires = await asyncio.to_thread(has_workflow_limits, caller.site.platform.settings)
    return graph.without_effect(acquires_nodes=acquires)


async def _model(caller: Caller, id: str, *, without_effect: Sequence[str] = ()) -> WorkflowModel:
    workflow = await caller.workflow(id)
    view = await view_workflow(caller.site.records, await caller.site.queue_if_any(), workflow)
    return WorkflowModel(
        **_line(workflow, view.has_failed).model_dump(),
        description=workflow.description,
        max_active=workflow.max_active,
        number=view.number,
        jobs=view.jobs,
        without_effect=tuple(without_effect),
    )


def _line(workflow: WorkflowRecord, has_failed: bool) -> WorkflowLine:
    return WorkflowLine(
        id=workflow.id,
        name=workflow.name,
        state=workflow.state,
        submitted=workflow.datetime,
        user_email=workflow.user_email,
        has_failed=has_failed,
    )


def _job(view: JobView) -> JobModel:
    return JobModel(job=view.job, state=view.state, result=view.result)


MODELS = (WorkflowSpec,)
"""What bodies that are read as they are hold."""
