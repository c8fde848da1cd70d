"""Job logs over HTTP: what an instance sends, and what of it has arrived; also in the words of Galaxy's uploader.

Its requests are those of scripts/grt/upload.py in Galaxy's source. It ignores what it is answered, so that whatever is
refused is told in the quarantine, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from knockem_dagster.accounts.tokens import token_record
from knockem_dagster.api.http.bodies import described_body, read_body
from knockem_dagster.api.http.callers import Administrator, User
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
from knockem_dagster.api.http.report_form import FORM, ReportForm
from knockem_dagster.api.http.site import Site, site_of
from knockem_dagster.errors import Conflict, InvalidInput, NotFound
from knockem_dagster.joblogs.instances import (
    InstanceView,
    instance_by,
    register,
    reports_of,
    revoke,
    view_instance,
    view_instances,
)
from knockem_dagster.joblogs.ledger import SCRATCH, Ledger, check_name, is_beside
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.questions import QUESTIONS, answer
from knockem_dagster.joblogs.recommendations import recommend
from knockem_dagster.joblogs.tpv import TOOLS_FILE, fragment
from knockem_dagster.records.accounts import Scope
from knockem_dagster.records.joblogs import InstanceRecord, QuarantineValue, ReportRecord, ReportState
from knockem_dagster.records.record import Value

MOST_AT_ONCE = 4
"""Reports that an instance may be sending."""
UPLOADS = re.compile(r"/api/v2/upload|/v1/jobLogs/instances/[^/]+/reports")
"""Paths of bodies that are not bounded as others are."""
UNNAMED = "unnamed"
"""How a report is called that was refused before its name had arrived."""
_log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/jobLogs", tags=["job logs"])
galaxy = APIRouter(include_in_schema=False)
InstanceId = Annotated[str, Path(alias="instance", max_length=100)]
_OF_ALL = (name for name, each in QUESTIONS.items() if not each.of_an_instance)
TableName = Annotated[str, Path(max_length=100, description=f"one of {', '.join(QUESTIONS)}")]
TableOfAll = Annotated[str, Path(alias="table", max_length=100, description=f"one of {', '.join(_OF_ALL)}")]
State = Annotated[ReportState | None, Query(description="only reports in this state")]
Tool = Annotated[str, Query(max_length=1000, description="a tool's id, for tables about one")]


class NewInstance(Value):
    """An instance to be registered."""

    name: str = Field(min_length=1, max_length=200, description="a UUID is the instance's id, too")


class InstanceModel(Value):
    """An instance: what it has sent, and what of it is in use."""

    id: str
    name: str
    may_upload: bool = Field(description="whether it has a token")
    reports: dict[ReportState, int] = Field(description="how many, by state")
    jobs: int
    last_generated: float | None = Field(description="when its last good report was made, seconds since 1970")
    usual_interval: float | None = Field(description="median of the seconds between its good reports")
    is_late: bool = Field(description="its last good report is older than twice the usual interval")
    marts: str | None = Field(description="what its tables are made of: another one where any may be another")


class MartsModel(Value):
    """What the tables of all instances are made of."""

    generation: str = Field(description="another one where any table may be another")


class RegisteredInstance(Value):
    """A registered instance and its token, which is told nowhere else."""

    id: str
    name: str
    token: str


class ReportModel(Value):
    """A report, and what became of it."""

    id: str
    name: str
    state: ReportState
    arrived: str = Field(description="ISO 8601, UTC")
    generated: float | None = Field(description="when it was made, seconds since 1970")
    kept: dict[str, int] = Field(description="rows in use, by member")
    rejected: dict[str, int] = Field(description="rows left out, by member")
    quarantine: str | None = Field(description="what is wrong, where, and what the sender must do")


class Whoami(Value):
    """What Galaxy's uploader asks for: the instance's name, and the reports that need not be sent again."""

    galaxy: str
    uploaded_reports: tuple[str, ...] = Field(alias="uploaded_reports")


@dataclass(frozen=True, slots=True)
class _Sender:
    """Somebody who may see an instance, and send its reports: itself, or an administrator."""

    site: Site
    instance: InstanceRecord


async def _sender(request: Request, instance: InstanceId) -> _Sender:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        token = ""
    return await _admitted(site_of(request), instance, token.strip())


async def _uploader(request: Request) -> _Sender:
    instance, _, token = request.headers.get("authorization", "").partition(":")
    return await _admitted(site_of(request), instance.strip(), token.strip())


async def _admitted(site: Site, id: str, token: str) -> _Sender:
    """Return who may send the reports of this instance. Others are not told whether there is one."""
    found = await asyncio.to_thread(_find, site, id, token)
    if found is None:
        why = "A token is needed: the instance's, as it was told when it was registered, or an administrator's."
        raise HTTPException(HTTPStatus.UNAUTHORIZED, why, headers={"WWW-Authenticate": "Bearer"})
    return _Sender(site, found)


def _find(site: Site, id: str, token: str) -> InstanceRecord | None:
    user = token_record(site.records, token)
    if user is None or user.scope is not Scope.ADMINISTRATOR:
        return instance_by(site.records, id, token)
    found = site.records.job_log_instances.find_one(id)
    if found is None:
        raise NotFound(f"There is no instance {id!r}.")
    return found


Sender = Annotated[_Sender, Depends(_sender)]
Uploader = Annotated[_Sender, Depends(_uploader)]


@router.post(
    "/instances",
    status_code=HTTPStatus.CREATED,
    openapi_extra=described_body("NewInstance"),
    operation_id="register_instance",
)
async def create(request: Request, caller: Administrator) -> RegisteredInstance:
    """Let an instance upload its job logs, with a token of its own."""
    new = await read_body(request, NewInstance)
    instance, token = await asyncio.to_thread(register, caller.site.records, new.name)
    return RegisteredInstance(id=instance.id, name=instance.name, token=token)


@router.get("/instances", operation_id="list_instances")
async def list_instances(caller: Administrator, at: At) -> Page[InstanceModel]:
    """Return the instances, by id."""
    views = await asyncio.to_thread(view_instances, caller.site.records)
    in_use = await asyncio.to_thread(_marts(caller.site).in_use)
    return page_of_all({view.instance.id: _model(view, in_use) for view in views}, at)


@router.get("/instances/{instance}", operation_id="get_instance")
async def get(sender: Sender) -> InstanceModel:
    """Return an instance, to itself and to administrators."""
    return await asyncio.to_thread(_view, sender.site, sender.instance)


@router.delete("/instances/{instance}/token", operation_id="revoke_instance_token")
async def delete_token(instance: InstanceId, caller: Administrator) -> InstanceModel:
    """Let an instance upload nothing any more; what it has sent stays."""
    records = caller.site.records
    found = await asyncio.to_thread(records.job_log_instances.find_one, instance)
    if found is None:
        raise NotFound(f"There is no instance {instance!r}.")
    without = await asyncio.to_thread(revoke, records, found)
    return await asyncio.to_thread(_view, caller.site, without)


@router.get("/instances/{instance}/reports", operation_id="list_reports")
async def list_reports(sender: Sender, at: At, state: State = None) -> Page[ReportModel]:
    """Return what has arrived of an instance, by name: what is not here, or quarantined, is to be sent."""
    where = {"instanceId": sender.instance.id} | ({} if state is None else {"state": state})
    found = await asyncio.to_thread(page_of, sender.site.records.job_log_reports, where, at, field="name")
    return Page(items=tuple(map(_report, found.items)), next=found.next)


@router.get("/instances/{instance}/tables/{table}", operation_id="get_instance_table")
async def instance_table(sender: Sender, table: TableName, at: At, tool: Tool = "") -> TableModel:
    """Return rows of a table of an instance's jobs, to itself and to administrators."""
    return await asyncio.to_thread(_table, sender.site, table, at, instance=sender.instance.id, tool=tool)


@router.get(
    "/instances/{instance}/tools.yml",
    operation_id="get_recommended_tools",
    response_class=Response,
    responses={HTTPStatus.OK: {"content": {"application/yaml": {"schema": {"type": "string"}}}}},
)
async def recommended_tools(sender: Sender) -> Response:
    """Return what is recommended for the tools of an instance, as a fragment for the Total Perspective Vortex.

    Answers 404 where no report of it is in use.
    """
    found = await asyncio.to_thread(_tools, sender.site, sender.instance)
    return Response(found, media_type="application/yaml")


@router.get("/marts", operation_id="get_job_log_marts")
async def marts(caller: User) -> MartsModel:
    """Tell what the tables of all instances are made of, for who has read them and wants to know whether to again."""
    in_use = await asyncio.to_thread(_marts(caller.site).in_use)
    return MartsModel(generation=hashlib.sha256(repr(sorted(in_use.items())).encode()).hexdigest()[:32])


@router.get("/tables/{table}", operation_id="get_job_log_table")
async def table(caller: User, table: TableOfAll, at: At, tool: Tool = "") -> TableModel:
    """Return rows of a table of the jobs of all instances: no tool that few run is in it."""
    return await asyncio.to_thread(_table, caller.site, table, at, tool=tool)


@router.post(
    "/instances/{instance}/reports",
    status_code=HTTPStatus.CREATED,
    openapi_extra=FORM,
    operation_id="upload_report",
)
async def upload(request: Request, response: Response, sender: Sender) -> ReportModel:
    """Send a report of an instance. The same once more changes nothing, and is answered with 200.

    Answers 409 where something else is in use under its name. It is read later; see the list of reports.
    """
    report = await _take_in(request, sender)
    if is_beside(report):
        raise Conflict(str(report.quarantine))
    if report.state is not ReportState.RECEIVED:
        response.status_code = HTTPStatus.OK
    return _report(report)


@galaxy.post("/api/whoami")
async def whoami(sender: Uploader) -> Whoami:
    """Tell Galaxy's uploader what need not be sent again: all but what is quarantined, and in use nowhere."""
    reports = await asyncio.to_thread(reports_of, sender.site.records, sender.instance.id)
    used = {each.archive_digest for each in reports if each.state is ReportState.LOADED}
    there = {each.name for each in reports if each.state is not ReportState.QUARANTINED or each.archive_digest in used}
    return Whoami(galaxy=sender.instance.name, uploaded_reports=tuple(sorted(there)))


@galaxy.post("/api/v2/upload", status_code=HTTPStatus.CREATED)
async def upload_from_galaxy(request: Request, response: Response, sender: Uploader) -> ReportModel:
    """Take in a report from Galaxy's uploader, as `upload` does."""
    return await upload(request, response, sender)


async def _take_in(request: Request, sender: _Sender) -> ReportRecord:
    site, instance = sender.site, sender.instance
    ledger = Ledger(site.records, site.platform.objects)
    with _one_more(site, instance), tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        path = FilePath(scratch) / "archive"
        with path.open("wb") as file:
            form = ReportForm(file)
            try:
                await form.read(request)
                check_name(form.name)
            except ClientDisconnect as error:
                _log.warning("%s went away amid its report %s", instance.id, form.name)
                raise HTTPException(HTTPStatus.BAD_REQUEST, "The report was cut off.") from error
            except InvalidInput as error:
                await _refuse(ledger, instance, form.name, "; ".join(map(str, error.faults)))
                raise
            except HTTPException as error:
                await _refuse(ledger, instance, form.name, str(error.detail))
                raise
        return await asyncio.to_thread(ledger.store, instance.id, form.name, path, form.metadata, digest=form.digest)


async def _refuse(ledger: Ledger, instance: InstanceRecord, name: str, what: str) -> None:
    why = QuarantineValue(
        what=f"It was refused as it arrived: {what.removesuffix('.')}", remedy="send it again as it says"
    )
    try:
        check_name(name)
    except InvalidInput:
        name = UNNAMED
    await asyncio.to_thread(ledger.refuse, instance.id, name, why)


@contextmanager
def _one_more(site: Site, instance: InstanceRecord) -> Generator[None]:
    if site.uploading[instance.id] >= MOST_AT_ONCE:
        why = f"{MOST_AT_ONCE} reports of this instance are on their way: wait until one has arrived."
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, why, headers={"Retry-After": "10"})
    site.uploading[instance.id] += 1
    try:
        yield
    finally:
        site.uploading[instance.id] -= 1


def _marts(site: Site) -> Marts:
    return Marts(site.records, site.platform.objects)


def _view(site: Site, instance: InstanceRecord) -> InstanceModel:
    return _model(view_instance(site.records, instance), _marts(site).in_use())


def _model(view: InstanceView, in_use: Mapping[str, str]) -> InstanceModel:
    return InstanceModel(
        id=view.instance.id,
        name=view.instance.name,
        may_upload=view.instance.token_digest is not None,
        reports=view.reports,
        jobs=view.jobs,
        last_generated=view.last_generated,
        usual_interval=view.usual_interval,
        is_late=view.is_late,
        marts=in_use.get(view.instance.id),
    )


def _table(site: Site, name: str, at: PlaceInList, *, tool: str, instance: str | None = None) -> TableModel:
    begin = first_row(at)
    found = answer(_marts(site), name, instance=instance, tool=tool)
    end = begin + at.limit
    return TableModel(
        name=name,
        columns=found.question.columns,
        rows=found.rows[begin:end],
        number=len(found.rows),
        next=cursor_of(str(end)) if end < len(found.rows) else None,
    )


def _tools(site: Site, instance: InstanceRecord) -> bytes:
    """Return the fragment that the instance's run in Dagster has kept, or, where it was not there yet, another."""
    marts = _marts(site)
    marts.generation_of(instance.id)
    try:
        return marts.kept(instance.id, TOOLS_FILE)
    except NotFound:
        with marts.opened([instance.id]) as found:
            return fragment(recommend(found), name=instance.name).encode()


def _report(report: ReportRecord) -> ReportModel:
    is_told = report.quarantine is not None and report.state is ReportState.QUARANTINED
    return ReportModel(
        id=report.id,
        name=report.name,
        state=report.state,
        arrived=report.datetime,
        generated=report.generated,
        kept=report.kept,
        rejected=report.rejected,
        quarantine=str(report.quarantine) if is_told else None,
    )


MODELS = (NewInstance,)
"""What bodies that are read as they are hold."""
