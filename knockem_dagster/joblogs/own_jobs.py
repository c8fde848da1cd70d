"""The platform's own jobs as an instance: what its workers measured is archived as any server's is, and read the same.

Each workflow and submission that is over is a report. A tool is an image, by its digest, or the program of a command:
what else a command says may be anything, and is left out.
"""

from __future__ import annotations

import hashlib
import heapq
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.joblogs.instances import PLATFORM, local_instance, reports_of
from knockem_dagster.joblogs.ledger import SCRATCH, Ledger
from knockem_dagster.joblogs.tool_names import COMMAND, tool_of_command, tool_of_image
from knockem_dagster.joblogs.writing import RanJob, write_report
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.record import derived_id
from knockem_dagster.stores.objects import Objects
from knockem_dagster.stores.paging import pages

MOST_AT_ONCE = 200
"""Reports made by one call."""
_STATES = {Outcome.SUCCEEDED: "ok", Outcome.LOST: "stopped"}
_PAGE = 1000
_BEFORE = timedelta(seconds=1)
"""What was over at about the same time as the last that is archived is looked at once more."""


@dataclass(frozen=True, slots=True, order=True)
class _Over:
    """A workflow or a submission that is over, and since when."""

    moment: str
    kind: str
    id: str

    @property
    def report(self) -> str:
        """The name of its report: another one where it goes on and is over again."""
        return f"{self.kind}-{derived_id('ownJobs', self.id, self.moment)}"


def archive_own_jobs(records: Records, objects: Objects) -> str | None:
    """Archive the jobs of what is over by now, the oldest first; return the instance's id, None where there is none."""
    instance, after = own_instance(records), ""
    if instance is not None:
        made = [each.generated for each in reports_of(records, instance) if each.generated is not None]
        after = (datetime.fromtimestamp(max(made), UTC) - _BEFORE).isoformat() if made else ""
    ledger = Ledger(records, objects)
    known = instance
    new = (over for over in _over(records, after) if known is None or not ledger.has(known, over.report))
    for over in islice(new, MOST_AT_ONCE):
        instance = instance or local_instance(records, PLATFORM).id
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
            jobs = _jobs_of_workflow(records, over.id) if over.kind == "workflow" else _attempts(records, over.id)
            archive, metadata = write_report(Path(folder), jobs, generated=datetime.fromisoformat(over.moment))
            ledger.receive(instance, over.report, archive, metadata)
    return instance


def own_instance(records: Records) -> str | None:
    """Return the id of the platform's own instance, if it has archived any job."""
    found = next(records.job_log_instances.find({"name": PLATFORM}, limit=1), None)
    return None if found is None else found.id


def _over(records: Records, after: str) -> Iterator[_Over]:
    """Yield what was over after a moment, the first first."""
    later = {"$gt": after}
    workflows = records.workflows.find({"isGraph": True, "ended": later}, sort=[("ended", 1)])
    submissions = records.submissions.find({"finished": later}, sort=[("finished", 1)])
    yield from heapq.merge(
        (_Over(each.ended or "", "workflow", each.id) for each in workflows),
        (_Over(each.finished or "", "submission", each.id) for each in submissions),
    )


def _jobs_of_workflow(records: Records, workflow: str) -> Iterator[RanJob]:
    for page in pages(records.results.find({"workflowId": workflow}), _PAGE):
        jobs = records.jobs.get_many([each.job_id for each in page])
        for result in page:
            job = jobs.get(result.job_id)
            if job is None or job.is_action:
                continue
            began = datetime.fromisoformat(result.began or result.datetime)
            yield RanJob(
                id=_number(result.id),
                tool_id=tool_of_command(job.command),
                tool_version=COMMAND,
                state=_STATES.get(result.outcome, "error"),
                created=began,
                cores=job.resources.cpus,
                memory_mib=job.resources.memory_mib,
                runtime=result.wall_seconds,
                cpu=result.cpu_seconds,
                peak_memory=result.peak_memory,
                is_out_of_memory=result.outcome is Outcome.OUT_OF_MEMORY,
            )


def _attempts(records: Records, submission: str) -> Iterator[RanJob]:
    whose = records.submissions.find_one(submission)
    if whose is None:
        return
    for result in records.attempt_results.find({"submissionId": submission}):
        yield RanJob(
            id=_number(result.id),
            tool_id=tool_of_image(whose.container_image),
            tool_version=whose.image_digest,
            state=_STATES.get(result.outcome, "error"),
            created=datetime.fromisoformat(result.datetime),
            cores=whose.limits.cpus,
            memory_mib=whose.limits.memory_mib,
            runtime=result.wall_seconds,
            cpu=result.cpu_seconds,
            peak_memory=result.peak_memory,
            is_out_of_memory=result.outcome is Outcome.OUT_OF_MEMORY,
        )


def _number(id: str) -> int:
    """Return the id of a job as a number, as Galaxy's are."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8]) % 10**18
