"""Submissions over HTTP: asking for a study, seeing how far it is, and reading what came of it."""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse

from knockem_dagster.accounts.quotas import check_quotas
from knockem_dagster.api.http.bodies import described_body
from knockem_dagster.api.http.callers import Caller, User
from knockem_dagster.api.http.paging import (
    At,
    Page,
    PlaceInList,
    TableModel,
    cursor_of,
    first_row,
    page_of,
    page_of_all,
)
from knockem_dagster.assay_runs import control
from knockem_dagster.assay_runs.intake import examine, store, time_competitions
from knockem_dagster.assay_runs.status import SubmissionStatus, submission_status
from knockem_dagster.assay_runs.submission_file import SubmissionFile, read_submission_file
from knockem_dagster.assay_runs.tables import read_table, report_key, table_key
from knockem_dagster.errors import Fault, InvalidInput, NotFound
from knockem_dagster.records.record import Value
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.records.tables import TABLES

router = APIRouter(prefix="/v1/submissions", tags=["submissions"])
SubmissionId = Annotated[str, Path(alias="submission", max_length=100)]
_NO_ORIGIN = {"Content-Security-Policy": "sandbox allow-scripts allow-popups", "X-Content-Type-Options": "nosniff"}
"""A report's scripts must not act in the name of whoever reads it."""


class SubmissionLine(Value):
    """A submission in a list."""

    id: str
    state: State
    submitted: str
    container_image: str
    num_sites: int
    assay_types: tuple[str, ...]
    user_email: str


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    openapi_extra=described_body("SubmissionFile", "application/yaml"),
    operation_id="create_submission",
)
async def create(request: Request, response: Response, caller: User) -> SubmissionStatus:
    """Ask for a study. The body is a submission file, JSON or YAML, with the genome's content in it.

    It is checked, and three competitions are tried, before it is stored. `userEmail` is the caller's where left out.
    """
    body = await request.body()
    platform = caller.site.platform
    file = await asyncio.to_thread(lambda: read_submission_file(body, folder=None, sender=caller.email))
    if not caller.owns(file.user_email):
        allowed = f"{caller.email}, to whom the token belongs, is"
        raise InvalidInput("The submission has faults.", [Fault("userEmail", file.user_email, allowed)])
    # Whose quotas are used up is told before competitions are tried, which takes its time.
    await asyncio.to_thread(check_quotas, platform.records, file.user_email, jobs=file.max_active, size=len(body))
    accepted = await examine(platform, file)
    await time_competitions(platform, accepted)
    async with caller.site.taking(file.user_email, jobs=file.max_active, size=len(body)):
        submission = await asyncio.to_thread(store, platform, accepted)
    response.headers["Location"] = f"/v1/submissions/{submission.id}"
    return await _view(caller, submission)


@router.get("", operation_id="list_submissions")
async def list_them(caller: User, at: At) -> Page[SubmissionLine]:
    """Return the caller's submissions, the newest first; an administrator's are everybody's."""
    where = {} if caller.sees_all else {"userEmail": caller.email}
    found = await asyncio.to_thread(
        page_of,
        caller.site.records.submissions,
        where,
        at,
        field="datetime",
        newest_first=True,
    )
    lines = (SubmissionLine.model_validate({**each.model_dump(), "submitted": each.datetime}) for each in found.items)
    return Page(items=tuple(lines), next=found.next)


@router.get("/{submission}", operation_id="get_submission")
async def get(submission: SubmissionId, caller: User) -> SubmissionStatus:
    """Tell how far a submission is."""
    return await _view(caller, await caller.submission(submission))


@router.post("/{submission}/cancel", operation_id="cancel_submission")
async def cancel(submission: SubmissionId, caller: User) -> SubmissionStatus:
    """End a submission and its containers; what is recorded is kept."""
    await control.cancel(caller.site.platform, await caller.submission(submission))
    return await _view(caller, await caller.submission(submission))


@router.post("/{submission}/resume", operation_id="resume_submission")
async def resume(submission: SubmissionId, caller: User) -> SubmissionStatus:
    """Go on with a failed, canceled or interrupted submission: recorded answers are kept."""
    found = await caller.submission(submission)
    taking = caller.site.taking(found.user_email, jobs=found.max_active) if found.state.is_final else nullcontext()
    async with taking:  # one that is not over has taken its part already
        again = await asyncio.to_thread(control.resume, caller.site.platform, found)
    return await _view(caller, again)


@router.get("/{submission}/report", response_class=HTMLResponse, operation_id="get_report")
async def report(submission: SubmissionId, caller: User) -> HTMLResponse:
    """Return the report's page."""
    found = await caller.submission(submission)
    objects, key = caller.site.platform.objects, report_key(found.id)
    if not await asyncio.to_thread(objects.exists, key):
        raise NotFound(f"Submission {found.id} ({found.state.value}) has no report yet.")
    return HTMLResponse(await asyncio.to_thread(objects.get, key), headers=_NO_ORIGIN)


@router.get("/{submission}/results", operation_id="list_results")
async def results(submission: SubmissionId, caller: User, at: At) -> Page[str]:
    """Return the names of the tables there are."""
    found = await caller.submission(submission)
    names = await asyncio.to_thread(_tables_of, caller, found)
    return page_of_all({name: name for name in names}, at)


@router.get("/{submission}/results/{table}", operation_id="get_result")
async def result(
    submission: SubmissionId,
    table: Annotated[str, Path(max_length=100)],
    caller: User,
    at: At,
) -> TableModel:
    """Return rows of a table, in its order."""
    found = await caller.submission(submission)
    return await asyncio.to_thread(_table, caller, found, table, at)


async def _view(caller: Caller, submission: SubmissionRecord) -> SubmissionStatus:
    return await asyncio.to_thread(submission_status, caller.site.records, submission)


def _tables_of(caller: Caller, submission: SubmissionRecord) -> tuple[str, ...]:
    objects = caller.site.platform.objects
    return tuple(name for name in TABLES if objects.exists(table_key(submission.id, name)))


def _table(caller: Caller, submission: SubmissionRecord, name: str, at: PlaceInList) -> TableModel:
    begin = first_row(at)
    frame = read_table(caller.site.platform.objects, submission.id, name) if name in TABLES else None
    if frame is None:
        raise NotFound(f"Submission {submission.id} ({submission.state.value}) has no table {name!r}.")
    end = begin + at.limit
    rows = frame.iloc[begin:end].itertuples(index=False, name=None)
    return TableModel(
        name=name,
        columns=TABLES[name].columns,
        rows=tuple(tuple(map(_cell, row)) for row in rows),
        number=len(frame),
        next=cursor_of(str(end)) if end < len(frame) else None,
    )


def _cell(value: Any) -> str | bool | int | float | None:
    """Return a value of a frame as JSON has it."""
    plain = value.item() if hasattr(value, "item") else value
    return None if plain is None or (isinstance(plain, float) and not math.isfinite(plain)) else plain


MODELS = (SubmissionFile,)
"""What bodies that are read as they are hold."""
