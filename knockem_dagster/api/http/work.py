"""The calls of workers: what they would do with the queue and the record, for those who reach neither.

A worker does what its token permits: it works under names that begin with the token's id, for jobs of its user or, if
an administrator said so, of everybody; nothing of others is told to it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.exceptions import HTTPException

from knockem_dagster.accounts.tokens import is_in_force
from knockem_dagster.api.http.bodies import described_body, read_body
from knockem_dagster.api.http.callers import Caller, Worker
from knockem_dagster.errors import NotFound, NotPermitted
from knockem_dagster.jobs.attempt_records import AttemptReader, attempt_id_of, job_of
from knockem_dagster.jobs.http_source import worker_prefix
from knockem_dagster.jobs.job_records import JobJournal
from knockem_dagster.jobs.queue import Entry, Queue, Report, Verdict
from knockem_dagster.jobs.work_messages import (
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
)
from knockem_dagster.records.jobs import ComputeNodeRecord, EventRecord
from knockem_dagster.records.record import now
from knockem_dagster.stores.documents import Patch

router = APIRouter(prefix="/v1/work", tags=["work"])
OVER_HTTP = "(over HTTP)"
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
        said = said.model_copy(update={"host": f"{said.host} {OVER_HTTP}"})
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
        await asyncio.to_thread(caller.site.records.compute_nodes.add, node)
    return Canceled(jobs=tuple(map(attempt_id_of, canceled)))


@router.post("/departures", openapi_extra=described_body("Leaving"), operation_id="leave")
async def leave(request: Request, caller: Worker) -> Done:
    """Leave; what the worker still holds is ready again."""
    told = await read_body(request, Leaving)
    _check_name(caller, told.worker)
    await (await caller.site.queue()).leave(told.worker)
    nodes = caller.site.records.compute_nodes
    await asyncio.to_thread(nodes.patch, told.worker, Patch(set={"ended": now()}))
    return Done()


@router.post("/claims", openapi_extra=described_body("Claiming"), operation_id="claim")
async def claim(request: Request, caller: Worker) -> Claimed:
    """Take jobs of one owner and one class; none where there are none for this worker."""
    told = await read_body(request, Claiming)
    _check_name(caller, told.worker)
    _check_name(caller, told.waiter)
    queue = await caller.site.queue()
    owners = await queue.owner_names()
    permitted = await _permitted(caller, owners)
    if told.only and told.only not in permitted:
        return Claimed()
    excluded = tuple(sorted(owners - permitted))
    if told.preferred not in permitted:
        told = told.model_copy(update={"preferred": ""})
    claimed = await queue.claim(told.worker, told.waiter, told.wanted(excluded=excluded), wait=told.wait)
    if claimed is not None and claimed.owner not in permitted and not await _permitted(caller, [claimed.owner]):
        # It came to the queue after we had looked who is there.
        back = [Report(claimed.owner, job, claimed.token, Verdict.RETURNED) for job in claimed.jobs]
        await queue.finish(told.worker, back)
        return Claimed()
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
    await _record(caller, queue, reports, entries)
    await _record_what_is_left(
        caller, queue, [report for report, id in zip(reports, entries, strict=True) if id is None]
    )
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
    found = (await asyncio.to_thread(caller.site.records.jobs.get_many, asked.ids)).values()
    permitted = await _permitted(caller, {job.workflow_id for job in found})
    there = tuple(job for job in found if job.workflow_id in permitted)
    queue = await caller.site.queue()
    retried = [await queue.retries(job.workflow_id, job_of(job.id)) if job.failure_rules else 0 for job in there]
    return Jobs(jobs=there, retries=tuple(retried))


@router.post("/attempts", openapi_extra=described_body("Asked"), operation_id="read_attempts")
async def attempts(request: Request, caller: Worker) -> Attempts:
    """Return what competitions are to be tried."""
    asked = await read_body(request, Asked)
    found = await asyncio.to_thread(AttemptReader(caller.site.records).read, asked.ids)
    permitted = await _permitted(caller, {attempt.submission_id for attempt in found})
    return Attempts(attempts=tuple(AttemptModel.of(each) for each in found if each.submission_id in permitted))


@router.get("/studies/{submission}", operation_id="read_study")
async def study(submission: Annotated[str, Path(max_length=100)], caller: Worker) -> Study:
    """Return what must be known of a submission to run its competitions."""
    records = caller.site.records
    if not await _permitted(caller, [submission]):
        raise NotFound(f"There is no submission {submission!r}.")
    found = await asyncio.to_thread(records.submissions.get, submission)
    return Study(submission=found, genome=await asyncio.to_thread(records.genomes.get, found.genome_id))


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


async def _record(caller: Caller, queue: Queue, reports: Sequence[Report], entries: Sequence[bytes | None]) -> None:
    """Record what came of jobs of workflows; what came of competitions is recorded by who asked for them."""
    accepted = {report.job: (report, id) for report, id in zip(reports, entries, strict=True) if id}
    found = await asyncio.to_thread(caller.site.records.jobs.get_many, [attempt_id_of(job) for job in accepted])
    journal = JobJournal(caller.site.records, queue)
    for job in found.values():
        report, id = accepted[job_of(job.id)]
        entry: Entry | None = Entry(id, report.job, True, report.payload)
        if report.verdict is not Verdict.SUCCEEDED:  # the queue knows whether it is tried again
            entry = await queue.outcome(report.owner, id)
        if entry is not None:
            journal.record(job, entry)
    await journal.flush()


async def _record_what_is_left(caller: Caller, queue: Queue, reports: Sequence[Report]) -> None:
    """Record what came of jobs of workflows that are not held any more, if it was handed in and nobody has recorded it.

    A worker hands in again what it was not answered: the server may have died after the queue had taken it.
    """
    mine = await _permitted(caller, {report.owner for report in reports})
    workflows = await asyncio.to_thread(caller.site.records.workflows.get_many, sorted(mine))
    journal = JobJournal(caller.site.records, queue)
    for owner in workflows:
        wanted = {report.job for report in reports if report.owner == owner}
        left = [entry for entry in await queue.outcomes(owner) if entry.job in wanted]
        jobs = await asyncio.to_thread(caller.site.records.jobs.get_many, [attempt_id_of(entry.job) for entry in left])
        for entry in left:
            if attempt_id_of(entry.job) in jobs:
                journal.record(jobs[attempt_id_of(entry.job)], entry)
    await journal.flush()


MODELS = (Beat, Leaving, Claiming, Waiting, Finishing, Asked, Notes)
"""What bodies that are read as they are hold."""
