"""What a worker needs of the platform: the queue, the record, and a place for results; near the stores or over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from knockem_dagster.containers.attempts import Attempt
from knockem_dagster.containers.runtime import Runtime
from knockem_dagster.jobs.queue import Claim, Entry, Report, Wanted
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.records.genomes import GenomeRecord
from knockem_dagster.records.job_graph import WorkerActionRecord
from knockem_dagster.records.jobs import ComputeNodeRecord, JobRecord
from knockem_dagster.records.submissions import SubmissionRecord

Say = Callable[[str], object]
"""Tells people something, a line at a time."""


class WorkerQueue(Protocol):
    """The queue as a worker uses it. Methods raise QueueAway while it does not answer."""

    async def claim(self, worker: str, waiter: str, wanted: Wanted, *, wait: bool = False) -> Claim | None:
        """Take jobs; None when there are none. Raises LeaseLapsed."""
        ...

    async def finish(self, worker: str, reports: Sequence[Report]) -> list[bytes | None]:
        """End held jobs; for each the id of its outcome's entry, None for one that is not held."""
        ...

    async def wait_for_work(self, waiter: str, seconds: float) -> None:
        """Wait until there may be work, at most so long."""
        ...

    async def beat(
        self,
        worker: str,
        *,
        lease_seconds: float,
        description: bytes = b"",
        ended: Collection[bytes] = (),
        held: Collection[bytes] | None = None,
    ) -> list[bytes]:
        """Renew the lease; return jobs that must be ended. Raises LeaseLapsed."""
        ...

    async def leave(self, worker: str) -> None:
        """Take a worker off the list."""
        ...

    async def outcome(self, owner: str, id: bytes) -> Entry | None:
        """Return an outcome that is still to be recorded."""
        ...

    async def retries(self, owner: str, job: bytes) -> int:
        """Return how often a job was tried again because its worker said so."""
        ...

    async def classes(self) -> dict[str, Requirement]:
        """Return the resource classes there are."""
        ...


class Journal(Protocol):
    """Where what happens on a worker, and what comes of its jobs, is written."""

    def note(self, subject: str, *, source: str, kind: str, **data: Any) -> None:
        """Post an event."""
        ...

    def record(self, job: JobRecord, entry: Entry) -> None:
        """Record what came of a try at a job."""
        ...

    async def run(self) -> None:
        """Write whatever comes, until cancelled."""
        ...

    async def flush(self) -> None:
        """Write what there is."""
        ...


class WorkerRecord(Protocol):
    """The record as a worker uses it."""

    async def jobs(self, ids: Sequence[str]) -> Mapping[str, JobRecord]:
        """Return those of the jobs that are there."""
        ...

    async def worker_actions(self, workflow: str) -> Sequence[WorkerActionRecord]:
        """Return what each worker runs for a workflow, in its order."""
        ...

    async def attempts(self, ids: Sequence[str]) -> Sequence[Attempt]:
        """Return those of the attempts that are there, in this order."""
        ...

    async def study(self, id: str) -> tuple[SubmissionRecord, GenomeRecord]:
        """Return a submission and its wild type. Raises NotFound."""
        ...

    async def joined(self, node: ComputeNodeRecord) -> None:
        """Note that a worker is there."""
        ...

    async def left(self, name: str) -> None:
        """Note that a worker has left."""
        ...


class WorkSource(Protocol):
    """All that a worker needs of the platform."""

    @property
    def queue(self) -> WorkerQueue:
        """The queue."""
        ...

    @property
    def record(self) -> WorkerRecord:
        """The record."""
        ...

    @property
    def journal(self) -> Journal:
        """Where results and events go."""
        ...

    @property
    def prefix(self) -> str:
        """What the names of its workers begin with."""
        ...

    async def look_after_others(self, runtimes: Sequence[Runtime], *, lease_seconds: float, say: Say) -> None:
        """Give up other workers whose lease has lapsed: nobody else may be there to."""
        ...
