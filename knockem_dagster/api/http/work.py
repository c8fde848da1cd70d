"""The calls of workers: what they would do with the queue and the record, for those who reach neither.

A worker does what its token permits: it works under names that begin with the token's id, for jobs of its user or, if
an administrator said so, of everybody; nothing of others is told to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.exceptions import HTTPException

from knockem_dagster.accounts.tokens import is_in_force
from knockem_dagster.api.http.bodies import described_body, read_body
from knockem_dagster.api.http.callers import Caller, Worker
from knockem_dagster.errors import NotFound, NotPermitted
from knockem_dagster.jobs.attempt_records import attempt_id_of, job_of
from knockem_dagster.jobs.http_source import worker_prefix
from knockem_dagster.jobs.job_records import record_outcomes_of
from knockem_dagster.jobs.work_messages import (
    OVER_HTTP,
    Asked,
    AttemptModel,
    Attempts,
    Beat,
    Canceled,
    Claimed,
    Claiming,
    Classes,
    Done,
    Finished,
    Finishing,
    Jobs,
    Leaving,
    Notes,
    RequirementModel,
    Study,
    Waiting,
    WorkerActions,
)
from knockem_dagster.records.jobs import ComputeNodeRecord, EventRecord

router = APIRouter(prefix="/v1/work", tags=["work"])
LOOK_SECONDS = 2.0
"""How often a token is looked at again while its worker waits."""


@router.post("/beats", openapi_extra=described_body("Beat"), operation_id="beat")
async def beat(request: Request, caller: Worker) -> Canceled:
    """Register, or renew a lease; return jobs that the worker must end, until it says that it has."""
    told = await read_body(request, Beat)
    _check_name(caller, told.worker)
    queue = await caller.site.queue()
    said = told.description
    if said is not None:
        # What it says of its process is not to be believed: nobody looks for it on the platform's own machine.
        said = said.model_copy(update={"host": f"{said.host}{OVER_HTTP}"})
    canceled = await queue.beat(
        told.worker,
        lease_seconds=told.lease_seconds,
        description=b"" if said is None else said.to_json(),
        ended=[job_of(job) for job in told.ended],
        held=None if told.held is None else [job_of(job) for job in told.held],
    )
    if said is not None:
        node = ComputeNodeRecord(
            id=told.worker,
            host=said.host,
            cpus=said.cpus,
            memoryMiB=said.memory_mib,
            gpus=said.gpus,
            runtimes=tuple(sorted(said.runtimes)),
        )
        await caller.site.stored.joined(node)
    return Canceled(jobs=tuple(map(attempt_id_of, canceled)))


@router.post("/departures", openapi_extra=described_body("Leaving"), operation_id="leave")
async def leave(request: Request, caller: Worker) -> Done:
    """Leave; what the worker still holds is ready again."""
    told = await read_body(request, Leaving)
    _check_name(caller, told.worker)
    await (await caller.site.queue()).leave(told.worker)
    await caller.site.stored.left(told.worker)
    return Done()


@router.post("/claims", openapi_extra=described_body("Claiming"), operation_id="claim")
async def claim(request: Request, caller: Worker) -> Claimed:
    """Take jobs of one owner and one class; none where there are none for this worker."""
    told = await read_body(request, Claiming)
    _check_name(caller, told.worker)
    _check_name(caller, told.waiter)
    queue = await caller.site.queue()
    permitted = None if caller.token.for_all else sorted(await _permitted(caller, await queue.owner_names()))
    claimed = await queue.claim(told.worker, told.waiter, told.wanted(permitted), wait=told.wait)
    return Claimed.of(claimed)


@router.post("/waits", openapi_extra=described_body("Waiting"), operation_id="wait")
async def wait(request: Request, caller: Worker) -> Done:
    """Wait until there may be work for a waiter whose claim asked to be woken."""
    told = await read_body(request, Waiting)
    _check_name(caller, told.waiter)
    until = time.monotonic() + told.seconds
    while (left := until - time.monotonic()) > 0:
        if await caller.site.wait_for_work(told.waiter, min(left, LOOK_SECONDS)):
            break
        token = await asyncio.to_thread(caller.site.records.tokens.find_one, caller.token.id)
        if token is None or not is_in_force(token):
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "The token was revoked, or has expired.")
    return Done()


@router.post("/results", openapi_extra=described_body("Finishing"), operation_id="finish")
async def finish(request: Request, caller: Worker) -> Finished:
    """End held jobs and record what came of them."""
    told = await read_body(request, Finishing)
    _check_name(caller, told.worker)
    queue = await caller.site.queue()
    reports = [each.to_report(told.worker) for each in told.reports]
    entries = await queue.finish(told.worker, reports)
    # Also of jobs that are not held any more: a worker hands in again what it was not answered.
    jobs = {report.job for report in reports}
    owners = await _permitted(caller, {report.owner for report in reports})
    records = caller.site.records
    for workflow in await asyncio.to_thread(records.workflows.get_many, sorted(owners)):
        await record_outcomes_of(records, queue, workflow, jobs)
    return Finished(entries=tuple(None if entry is None else entry.decode() for entry in entries))


@router.get("/classes", operation_id="list_classes")
async def classes(caller: Worker) -> Classes:
    """Return the resource classes there are."""
    found = await (await caller.site.queue()).classes()
    return Classes(classes={name: RequirementModel.of(requirement) for name, requirement in found.items()})


@router.post("/jobs", openapi_extra=described_body("Asked"), operation_id="read_jobs")
async def jobs(request: Request, caller: Worker) -> Jobs:
    """Return the commands of jobs."""
    asked = await read_body(request, Asked)
    found = (await caller.site.stored.jobs(asked.ids)).values()
    permitted = await _permitted(caller, {job.workflow_id for job in found})
    there = tuple(job for job in found if job.workflow_id in permitted)
    queue = await caller.site.queue()
    retried = [await queue.retries(job.workflow_id, job_of(job.id)) if job.failure_rules else 0 for job in there]
    return Jobs(jobs=there, retries=tuple(retried))


@router.get("/workflows/{workflow}/actions", operation_id="read_worker_actions")
async def worker_actions(workflow: Annotated[str, Path(max_length=100)], caller: Worker) -> WorkerActions:
    """Return what each worker runs for a workflow, in its order."""
    if not await _permitted(caller, [workflow]):
        return WorkerActions(actions=())
    return WorkerActions(actions=tuple(await caller.site.stored.worker_actions(workflow)))


@router.post("/attempts", openapi_extra=described_body("Asked"), operation_id="read_attempts")
async def attempts(request: Request, caller: Worker) -> Attempts:
    """Return what competitions are to be tried."""
    asked = await read_body(request, Asked)
    found = await caller.site.stored.attempts(asked.ids)
    permitted = await _permitted(caller, {attempt.submission_id for attempt in found})
    return Attempts(attempts=tuple(AttemptModel.of(each) for each in found if each.submission_id in permitted))


@router.get("/studies/{submission}", operation_id="read_study")
async def study(submission: Annotated[str, Path(max_length=100)], caller: Worker) -> Study:
    """Return what must be known of a submission to run its competitions."""
    if not await _permitted(caller, [submission]):
        raise NotFound(f"There is no submission {submission!r}.")
    found, genome = await caller.site.stored.study(submission)
    return Study(submission=found, genome=genome)


@router.post("/events", openapi_extra=described_body("Notes"), operation_id="note")
async def note(request: Request, caller: Worker) -> Done:
    """Tell what happened on a worker."""
    told = await read_body(request, Notes)
    _check_name(caller, told.worker)
    permitted = await _permitted(caller, {each.subject for each in told.events}) | {told.worker}
    events = [
        EventRecord(
            id=each.id,
            datetime=each.datetime,
            subject=each.subject,
            source=told.worker,
            kind=each.kind,
            data=each.data,
        )
        for each in told.events
        if each.subject in permitted
    ]
    await asyncio.to_thread(caller.site.records.events.add_many, events)
    return Done()


def _check_name(caller: Caller, name: str) -> None:
    prefix = worker_prefix(caller.token.id)
    if not name.startswith(prefix):
        raise NotPermitted(f"Workers that come by this token have names that begin with {prefix}.")


async def _permitted(caller: Caller, owners: Iterable[str]) -> set[str]:
    """Return those of these owners for whom the caller may work; owners that are not in the record are nobody's."""
    records, asked = caller.site.records, sorted(owners)
    found = {
        **await asyncio.to_thread(records.workflows.get_many, asked),
        **await asyncio.to_thread(records.submissions.get_many, asked),
    }
    for_all = caller.token.for_all
    return {owner for owner, record in found.items() if for_all or record.user_email == caller.email}


MODELS = (Beat, Leaving, Claiming, Waiting, Finishing, Asked, Notes)
"""What bodies that are read as they are hold."""
