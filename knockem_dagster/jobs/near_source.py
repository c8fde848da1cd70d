"""The stores themselves, for workers that reach them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from knockem_dagster.containers.attempts import Attempt
from knockem_dagster.containers.runtime import Runtime
from knockem_dagster.jobs.attempt_records import AttemptReader
from knockem_dagster.jobs.job_records import JobJournal
from knockem_dagster.jobs.queue import Queue
from knockem_dagster.jobs.tending import look_after_workers
from knockem_dagster.jobs.worker_sources import Say
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.genomes import GenomeRecord
from knockem_dagster.records.job_graph import WorkerActionRecord
from knockem_dagster.records.jobs import ComputeNodeRecord, JobRecord
from knockem_dagster.records.record import now
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.stores.documents import Patch


class StoredRecord:
    """The record itself: a WorkerRecord."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._reader = AttemptReader(records)

    async def jobs(self, ids: Sequence[str]) -> Mapping[str, JobRecord]:
        """Return those of the jobs that are there."""
        return await asyncio.to_thread(self._records.jobs.get_many, ids)

    async def worker_actions(self, workflow: str) -> Sequence[WorkerActionRecord]:
        """Return what each worker runs for a workflow, in its order."""
        found = await asyncio.to_thread(lambda: list(self._records.worker_actions.find({"workflowId": workflow})))
        return sorted(found, key=lambda action: action.number)

    async def attempts(self, ids: Sequence[str]) -> Sequence[Attempt]:
        """Return those of the attempts that are there, in this order."""
        return await asyncio.to_thread(self._reader.read, ids)

    async def study(self, id: str) -> tuple[SubmissionRecord, GenomeRecord]:
        """Return a submission and its wild type. Raises NotFound."""
        submission = await asyncio.to_thread(self._records.submissions.get, id)
        return submission, await asyncio.to_thread(self._records.genomes.get, submission.genome_id)

    async def joined(self, node: ComputeNodeRecord) -> None:
        """Note that a worker is there."""
        await asyncio.to_thread(self._records.compute_nodes.add, node)

    async def left(self, name: str) -> None:
        """Note that a worker has left."""
        await asyncio.to_thread(self._records.compute_nodes.patch, name, Patch(set={"ended": now()}))


class NearSource:
    """All that a worker needs of the platform: a WorkSource."""

    def __init__(self, records: Records, queue: Queue) -> None:
        self._records = records
        self.queue = queue
        self.record = StoredRecord(records)
        self.journal = JobJournal(records, queue)
        self.prefix = ""

    async def look_after_others(self, runtimes: Sequence[Runtime], *, lease_seconds: float, say: Say) -> None:
        """Give up other workers whose lease has lapsed: nobody else may be there to."""
        await look_after_workers(self.queue, self._records, runtimes, lease_seconds=lease_seconds, say=say)
