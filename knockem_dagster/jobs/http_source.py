"""The platform over HTTP, for workers that share no store and no file system with it: one URL, one token."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeVar

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from knockem_dagster.containers.attempts import Attempt
from knockem_dagster.containers.runtime import Runtime
from knockem_dagster.errors import KnockemError, LeaseLapsed, NotFound, QueueAway
from knockem_dagster.jobs.attempt_records import attempt_id_of, job_of
from knockem_dagster.jobs.queue import MOST_CLAIMED, Claim, Entry, Report, Wanted
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.jobs.work_messages import (
    Asked,
    Attempts,
    Beat,
    Canceled,
    Claimed,
    Claiming,
    Classes,
    Description,
    Done,
    Finished,
    Finishing,
    Jobs,
    Leaving,
    Noted,
    Notes,
    Reported,
    Study,
    Waiting,
    WorkerActions,
)
from knockem_dagster.jobs.worker_sources import Say
from knockem_dagster.records.genomes import GenomeRecord
from knockem_dagster.records.job_graph import WorkerActionRecord
from knockem_dagster.records.jobs import ComputeNodeRecord, JobRecord
from knockem_dagster.records.record import new_id, now
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.stores.paging import pages

ANSWER_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 20.0
FLUSH_SECONDS = 1.0
PAUSE_SECONDS = 1.0
PAGE = 1000
LEASE_LAPSED = "about:lease-lapsed"
"""The type of the problem that a worker is told whose lease has lapsed."""

ModelT = TypeVar("ModelT", bound=BaseModel)


class TokenRefused(KnockemError):
    """The platform does not accept the token: nothing can be done with it."""


class HttpConnection:
    """Calls of the HTTP API by one token."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self.client = httpx.AsyncClient(base_url=url, headers=headers, timeout=ANSWER_SECONDS)

    async def call(self, path: str, body: BaseModel | None, answer: type[ModelT], *, seconds: float = 0.0) -> ModelT:
        """POST a message, or GET without one; the answer may take so many seconds longer than others.

        Raises QueueAway while the platform does not answer, LeaseLapsed, NotFound, TokenRefused, and KnockemError for
        any other refusal.
        """
        content = None if body is None else body.model_dump_json(by_alias=True, exclude_none=True)
        method = "GET" if body is None else "POST"
        try:
            found = await self.client.request(
                method,
                path,
                content=content,
                headers={"Content-Type": "application/json"},
                timeout=ANSWER_SECONDS + seconds,
            )
        except httpx.TransportError as error:
            raise QueueAway(f"{self.client.base_url} does not answer: {error or type(error).__name__}.") from error
        if not found.is_success:
            raise _refused(found)
        try:
            return answer.model_validate_json(found.content)
        except ValidationError as error:
            what = f"{found.request.url} answers, but not as this platform does"
            raise KnockemError(f"{what}: is it the URL that `./knockem up` tells?") from error


def _refused(answer: httpx.Response) -> KnockemError:
    try:
        content = answer.json()
    except json.JSONDecodeError:
        content = None
    said: dict[str, Any] = content if isinstance(content, dict) else {}
    why = str(said.get("detail", answer.reason_phrase))
    if answer.status_code >= 500:
        return QueueAway(why)
    if said.get("type") == LEASE_LAPSED:
        return LeaseLapsed(why)
    if answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return TokenRefused(f"{answer.request.url.host} refuses the token: {why}")
    if answer.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(why)
    return KnockemError(f"The platform refused: {why} {said.get('faults', '')}")


class HttpQueue:
    """The queue, over HTTP: a WorkerQueue."""

    def __init__(self, connection: HttpConnection) -> None:
        self._call = connection.call

    async def claim(self, worker: str, waiter: str, wanted: Wanted, *, wait: bool = False) -> Claim | None:
        """Take jobs; None when there are none."""
        asked = Claiming(
            worker=worker,
            waiter=waiter,
            classes=tuple(wanted.classes),
            most=max(1, min(wanted.most, MOST_CLAIMED)),
            only=wanted.only,
            preferred=wanted.preferred,
            excluded=tuple(wanted.excluded),
            lead_seconds=wanted.lead_seconds,
            wait=wait,
        )
        return (await self._call("/v1/work/claims", asked, Claimed)).to_claim()

    async def finish(self, worker: str, reports: Sequence[Report]) -> list[bytes | None]:
        """End held jobs; the platform records what came of them."""
        entries: list[bytes | None] = []
        for page in pages(reports, MOST_CLAIMED):
            told = Finishing(worker=worker, reports=tuple(map(Reported.of, page)))
            answer = await self._call("/v1/work/results", told, Finished)
            entries += [None if entry is None else entry.encode() for entry in answer.entries]
        return entries

    async def wait_for_work(self, waiter: str, seconds: float) -> None:
        """Wait until there may be work for this waiter, at most so long."""
        longest = min(seconds, LONGEST_WAIT_SECONDS)
        await self._call("/v1/work/waits", Waiting(waiter=waiter, seconds=longest), Done, seconds=longest)

    async def beat(
        self,
        worker: str,
        *,
        lease_seconds: float,
        description: bytes = b"",
        ended: Collection[bytes] = (),
        held: Collection[bytes] | None = None,
    ) -> list[bytes]:
        """Renew the lease; return jobs that must be ended."""
        told = Beat(
            worker=worker,
            lease_seconds=lease_seconds,
            description=Description.model_validate(orjson.loads(description)) if description else None,
            ended=tuple(map(attempt_id_of, ended)),
            held=None if held is None else tuple(map(attempt_id_of, held)),
        )
        return [job_of(job) for job in (await self._call("/v1/work/beats", told, Canceled)).jobs]

    async def leave(self, worker: str) -> None:
        """Take the worker off the list; what it still holds is ready again."""
        await self._call("/v1/work/departures", Leaving(worker=worker), Done)

    async def outcome(self, owner: str, id: bytes) -> Entry | None:
        """Return None: the platform has recorded it."""
        return None

    async def retries(self, owner: str, job: bytes) -> int:
        """Return how often a job was tried again because its worker said so."""
        found = await self._call("/v1/work/jobs", Asked(ids=(attempt_id_of(job),)), Jobs)
        return sum(found.retries)

    async def classes(self) -> dict[str, Requirement]:
        """Return the resource classes there are."""
        found = await self._call("/v1/work/classes", None, Classes)
        return {name: model.to_requirement() for name, model in found.classes.items()}


class HttpRecord:
    """The record, over HTTP: a WorkerRecord."""

    def __init__(self, connection: HttpConnection) -> None:
        self._call = connection.call

    async def jobs(self, ids: Sequence[str]) -> Mapping[str, JobRecord]:
        """Return those of the jobs that are there."""
        found: dict[str, JobRecord] = {}
        for page in pages(ids, PAGE):
            answer = await self._call("/v1/work/jobs", Asked(ids=tuple(page)), Jobs)
            found |= {job.id: job for job in answer.jobs}
        return found

    async def worker_actions(self, workflow: str) -> Sequence[WorkerActionRecord]:
        """Return what each worker runs for a workflow, in its order."""
        return (await self._call(f"/v1/work/workflows/{workflow}/actions", None, WorkerActions)).actions

    async def attempts(self, ids: Sequence[str]) -> Sequence[Attempt]:
        """Return those of the attempts that are there, in this order."""
        found: list[Attempt] = []
        for page in pages(ids, PAGE):
            answer = await self._call("/v1/work/attempts", Asked(ids=tuple(page)), Attempts)
            found += [each.to_attempt() for each in answer.attempts]
        return found

    async def study(self, id: str) -> tuple[SubmissionRecord, GenomeRecord]:
        """Return a submission and its wild type. Raises NotFound."""
        found = await self._call(f"/v1/work/studies/{id}", None, Study)
        return found.submission, found.genome

    async def joined(self, node: ComputeNodeRecord) -> None:
        """Do nothing: the platform notes it when the worker registers."""

    async def left(self, name: str) -> None:
        """Do nothing: the platform notes it when the worker leaves."""


class HttpJournal:
    """Events, told over HTTP some at a time; results are recorded by the platform when they are handed in."""

    def __init__(self, connection: HttpConnection) -> None:
        self._call = connection.call
        self._noted: list[Noted] = []
        self._worker = ""

    def note(self, subject: str, *, source: str, kind: str, **data: Any) -> None:
        """Post an event."""
        self._worker = source
        self._noted.append(Noted(id=new_id(), datetime=now(), subject=subject, kind=kind, data=data))

    def record(self, job: JobRecord, entry: Entry) -> None:
        """Do nothing: the platform has recorded it."""

    async def run(self) -> None:
        """Tell whatever comes, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except QueueAway:
                continue  # told with what comes later

    async def flush(self) -> None:
        """Tell what there is."""
        while self._noted:
            page = self._noted[:PAGE]
            await self._call("/v1/work/events", Notes(worker=self._worker, events=tuple(page)), Done)
            del self._noted[: len(page)]


class _Self(BaseModel):
    tokenId: str  # noqa: N815  # as the API spells it


class HttpSource:
    """All that a worker needs of the platform, over HTTP."""

    def __init__(self, connection: HttpConnection, prefix: str) -> None:
        self.queue = HttpQueue(connection)
        self.record = HttpRecord(connection)
        self.journal = HttpJournal(connection)
        self.prefix = prefix

    async def look_after_others(self, runtimes: Sequence[Runtime], *, lease_seconds: float, say: Say) -> None:
        """Do nothing: that is for those who reach the queue."""


@asynccontextmanager
async def source_at(url: str, token: str, *, patience_seconds: float = 0.0) -> AsyncGenerator[HttpSource]:
    """Give the platform at this URL. Raises TokenRefused, or QueueAway where nobody answers for so long."""
    connection = HttpConnection(url, token)
    until = time.monotonic() + patience_seconds
    async with connection.client:
        while True:
            try:
                itself = await connection.call("/v1/self", None, _Self)
                break
            except QueueAway:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
        yield HttpSource(connection, worker_prefix(itself.tokenId))


def worker_prefix(token_id: str) -> str:
    """Return what the names of workers begin with that come by this token."""
    return f"{token_id[:8]}-"
