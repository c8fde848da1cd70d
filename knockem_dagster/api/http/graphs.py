"""The nodes and edges of a workflow, and what happened to it, as documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, Field

from knockem_dagster.api.http.bodies import described_body, read_body
from knockem_dagster.api.http.callers import Caller, User
from knockem_dagster.api.http.json_paths import JsonPath
from knockem_dagster.api.http.paging import At, Page, PlaceInList, page_of
from knockem_dagster.api.http.workflows import WorkflowId
from knockem_dagster.errors import Conflict, NotFound
from knockem_dagster.jobs.graph_pictures import draw_graph
from knockem_dagster.mapping_file import storable_json
from knockem_dagster.records.job_graph import (
    EdgeRecord,
    FileRecord,
    ResourceRequirementsRecord,
    SchedulerConfigurationRecord,
    UserDataRecord,
    place_of,
)
from knockem_dagster.records.jobs import ComputeNodeRecord, EventRecord, JobRecord, ResultRecord
from knockem_dagster.records.record import Repository, Value, new_id, now
from knockem_dagster.stores.documents import Patch

router = APIRouter(prefix="/v1/workflows/{workflow}", tags=["graphs"])
EdgeKind = Literal["blocks", "needs", "produces", "requires", "scheduled_by", "stores", "executed", "returned"]
_INERT = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
Filter = Annotated[
    str,
    Query(max_length=1000, description="JSONPath (RFC 9535): only those in whose data it finds anything, as $.host"),
]


class EdgeModel(Value):
    """An edge from one node to another, both as "collection/id"."""

    kind: str
    origin: str = Field(alias="_from")
    target: str = Field(alias="_to")


class NewEvent(Value):
    """An event to be posted."""

    kind: str = Field(min_length=1, max_length=200)
    data: Annotated[dict[str, Any], AfterValidator(storable_json)] = Field(default_factory=dict[str, Any])


class NewData(Value):
    """What user data is to hold."""

    data: Annotated[Any, AfterValidator(storable_json)]


class Svg(Response):
    """A picture."""

    media_type = "image/svg+xml"


@router.get("/graph", response_class=Svg, operation_id="get_graph")
async def graph(workflow: WorkflowId, caller: User) -> Svg:
    """Return a picture of which job waits for which, with the states of jobs; like jobs are one node."""
    found = await caller.workflow(workflow)
    site = caller.site
    if found.state == "uninitialized":
        raise Conflict("The workflow is still being stored.")
    view = await site.graph_of(found.id)
    return Svg(await draw_graph(site.records, await site.queue_if_any(), found, view), headers=_INERT)


@router.get("/files", operation_id="list_files")
async def files(workflow: WorkflowId, caller: User, at: At) -> Page[FileRecord]:
    """Return the files that jobs read or write."""
    return await _of_workflow(caller, workflow, caller.site.records.files, at)


@router.get("/resourceRequirements", operation_id="list_resource_requirements")
async def resource_requirements(workflow: WorkflowId, caller: User, at: At) -> Page[ResourceRequirementsRecord]:
    """Return what jobs need while they run."""
    return await _of_workflow(caller, workflow, caller.site.records.resource_requirements, at)


@router.get("/schedulerConfigurations", operation_id="list_scheduler_configurations")
async def scheduler_configurations(workflow: WorkflowId, caller: User, at: At) -> Page[SchedulerConfigurationRecord]:
    """Return how nodes are asked of schedulers."""
    return await _of_workflow(caller, workflow, caller.site.records.scheduler_configurations, at)


@router.get("/results", operation_id="list_job_results")
async def results(workflow: WorkflowId, caller: User, at: At) -> Page[ResultRecord]:
    """Return what came of the tries at jobs."""
    found = await caller.workflow(workflow)
    where = {"workflowId": found.id}
    repository = caller.site.records.results
    return await asyncio.to_thread(page_of, repository, where, at, field="jobId")


@router.get("/userData", operation_id="list_user_data")
async def user_data(workflow: WorkflowId, caller: User, at: At, where: Filter = "") -> Page[UserDataRecord]:
    """Return JSON that jobs read or write; with a filter a page may have fewer items than there are further on."""
    path = JsonPath(where)
    page = await _of_workflow(caller, workflow, caller.site.records.user_data, at)
    return await asyncio.to_thread(lambda: Page(items=tuple(path.chosen(page.items)), next=page.next))


@router.put("/userData/{data}", openapi_extra=described_body("NewData"), operation_id="put_user_data")
async def put_user_data(
    workflow: WorkflowId, data: Annotated[str, Path(max_length=100)], request: Request, caller: User
) -> UserDataRecord:
    """Let user data hold something else."""
    found = await caller.workflow(workflow)
    new = await read_body(request, NewData)
    repository = caller.site.records.user_data
    there = await asyncio.to_thread(repository.find_one, data)
    if there is None or there.workflow_id != found.id:
        raise NotFound(f"Workflow {found.id} has no user data {data!r}.")
    if json.dumps(new.data, sort_keys=True) == json.dumps(there.data, sort_keys=True):
        return there
    given = {"data": new.data} if new.data is not None else {}
    change = Patch(set={**given, "changed": now()}, unset=() if given else ("data",))
    async with caller.site.taking(caller.email, size=len(await request.body())):
        return await asyncio.to_thread(repository.patch, there.id, change) or there


@router.get("/edges/{kind}", operation_id="list_edges")
async def edges(workflow: WorkflowId, kind: EdgeKind, caller: User, at: At) -> Page[EdgeModel]:
    """Return the edges of a kind. Which job returned a result, and which compute node executed it, its record tells."""
    records = caller.site.records
    if kind in ("executed", "returned"):
        page = await results(workflow, caller, at)
        make = _executed if kind == "executed" else _returned
        return Page(items=tuple(make(each) for each in page.items), next=page.next)
    repositories: Mapping[str, Repository[Any]] = {
        "blocks": records.blocks,
        "needs": records.needs,
        "produces": records.produces,
        "requires": records.requires,
        "scheduled_by": records.scheduled_by,
        "stores": records.stores,
    }
    stored: Page[EdgeRecord] = await _of_workflow(caller, workflow, repositories[kind], at)
    items = tuple(_edge(kind, each.origin, each.target) for each in stored.items)
    return Page(items=items, next=stored.next)


@router.get("/events", operation_id="list_events")
async def events(workflow: WorkflowId, caller: User, at: At, where: Filter = "") -> Page[EventRecord]:
    """Return what happened, the earliest first; with a filter a page may have fewer items than there are further on."""
    found = await caller.workflow(workflow)
    path = JsonPath(where)
    repository = caller.site.records.events
    subject = {"subject": found.id}
    page = await asyncio.to_thread(page_of, repository, subject, at, field="datetime")
    return await asyncio.to_thread(lambda: Page(items=tuple(path.chosen(page.items)), next=page.next))


@router.post(
    "/events",
    status_code=HTTPStatus.CREATED,
    openapi_extra=described_body("NewEvent"),
    operation_id="create_event",
)
async def post_event(workflow: WorkflowId, request: Request, caller: User) -> EventRecord:
    """Post an event of one's own."""
    found = await caller.workflow(workflow)
    new = await read_body(request, NewEvent)
    event = EventRecord(id=new_id(), subject=found.id, source=caller.email, kind=new.kind, data=new.data)
    async with caller.site.taking(caller.email, size=len(await request.body())):
        await asyncio.to_thread(caller.site.records.events.add, event)
    return event


async def _of_workflow(caller: Caller, workflow: str, repository: Repository[Any], at: PlaceInList) -> Page[Any]:
    found = await caller.workflow(workflow)
    where = {"workflowId": found.id}
    return await asyncio.to_thread(page_of, repository, where, at, field="_id")


def _edge(kind: str, origin: str, target: str) -> EdgeModel:
    return EdgeModel.model_validate({"kind": kind, "_from": origin, "_to": target})


def _executed(result: ResultRecord) -> EdgeModel:
    node, job = place_of(ComputeNodeRecord, result.compute_node), place_of(JobRecord, result.job_id)
    return _edge("executed", node, job)


def _returned(result: ResultRecord) -> EdgeModel:
    job, itself = place_of(JobRecord, result.job_id), place_of(ResultRecord, result.id)
    return _edge("returned", job, itself)


MODELS = (NewData, NewEvent)
"""What bodies that are read as they are hold."""
