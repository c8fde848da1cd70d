"""The platform's own jobs as an instance: what its workers measured is archived as any server's is, and read the same.

Each workflow and submission that is over, and of which anything was tried, is a report. A tool is an image, by its
digest, or the program of a command: what else a command says may be anything, and is left out.

Who archives the same at the same time writes the same bytes: results come in a fixed order, and nothing depends on
when, where or by which version of this code it is done.
"""

from __future__ import annotations

import hashlib
import heapq
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby, islice
from pathlib import Path

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.joblogs.instances import PLATFORM, local_instance, reports_of
from knockem_dagster.joblogs.ledger import SCRATCH, Ledger
from knockem_dagster.joblogs.tool_names import COMMAND, tool_of_command, tool_of_image
from knockem_dagster.joblogs.writing import RanJob, write_report
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.jobs import ResultRecord
from knockem_dagster.records.record import derived_id
from knockem_dagster.records.submissions import State
from knockem_dagster.stores.objects import Objects
from knockem_dagster.stores.paging import pages

MOST_AT_ONCE = 200
"""Reports made by one call, unless it asks for others."""
FEW_REPORTS, FEW_TRIES = 20, 5_000
"""What is archived and read within a few seconds."""
KNOWN_REPORTS, KNOWN_JOBS = 1_000, 100_000
"""Those in use, likewise: the marts are computed from all of them."""
_STATES = {Outcome.SUCCEEDED: "ok", Outcome.LOST: "stopped"}
_PAGE = 1000
_BEFORE = timedelta(hours=1)
"""What was over so long before the last that is archived is looked at once more: clocks of machines differ."""
_SETTLED_AFTER = timedelta(minutes=1)
"""Workers hear of a cancellation, and have recorded what became of their jobs, sooner than that."""


@dataclass(frozen=True, slots=True, order=True)
class _Over:
    """A workflow or a submission that is over, since when, and by which revision it was recorded."""

    moment: str
    kind: str
    id: str
    revision: str
    is_completed: bool

    @property
    def report(self) -> str:
        """The name of its report: another one where it goes on and is over again."""
        return f"{self.kind}-{derived_id('ownJobs', self.id, self.moment)}"

    @property
    def is_settled(self) -> bool:
        """Tell whether all results are there: what was canceled may still be about to end.

        What ends in the future, by the clock of its machine, waits until then: such reports are quarantined.
        """
        age = datetime.now(UTC) - datetime.fromisoformat(self.moment)
        return age >= (timedelta(0) if self.is_completed else _SETTLED_AFTER)


def archive_own_jobs(records: Records, objects: Objects, *, most: int | None = MOST_AT_ONCE) -> str | None:
    """Archive the jobs of what is over by now, the oldest first; return the instance's id, None where there is none.

    `most`: reports that are made; None for all.
    """
    ledger, instance = Ledger(records, objects), own_instance(records)
    ran = ((over, jobs) for over in _new(records, ledger, instance) if (jobs := _jobs_of(records, over)) is not None)
    for over, jobs in islice(ran, most):
        instance = instance or local_instance(records, PLATFORM).id
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as folder:
            generated = datetime.fromisoformat(over.moment)
            written = write_report(Path(folder), jobs, generated=generated, revision=over.revision)
            ledger.receive(instance, over.report, *written)
    return instance


def has_little_new(records: Records, objects: Objects) -> bool:
    """Tell whether what is not archived yet is so little that somebody can wait until it is, and is read.

    What is archived and was not read, whoever archived it has in work.
    """
    ledger, instance = Ledger(records, objects), own_instance(records)
    if instance is not None:
        known = ledger.in_use(instance)
        is_much = len(known) > KNOWN_REPORTS or sum(each.jobs for each in known) > KNOWN_JOBS
        if is_much or ledger.unread(instance):
            return False
    new = list(islice(_new(records, ledger, instance), MOST_AT_ONCE))
    tries = [number for over in new if (number := _number_of_tries(records, over))]
    return len(new) < MOST_AT_ONCE and len(tries) <= FEW_REPORTS and sum(tries) <= FEW_TRIES


def own_instance(records: Records) -> str | None:
    """Return the id of the platform's own instance, if it has archived any job."""
    found = next(records.job_log_instances.find({"name": PLATFORM}, limit=1), None)
    return None if found is None else found.id


def _new(records: Records, ledger: Ledger, instance: str | None) -> Iterator[_Over]:
    """Yield what is over and not archived yet, the first first."""
    after, now = "", datetime.now(UTC)
    if instance is not None:
        made = [each.generated for each in reports_of(records, instance) if each.generated is not None]
        # What is of tomorrow by the clock of its machine hides nothing of today.
        last = max((each for each in made if each <= now.timestamp()), default=None)
        after = "" if last is None else (datetime.fromtimestamp(last, UTC) - _BEFORE).isoformat()
    for over in _over(records, after):
        if over.is_settled and (instance is None or not ledger.has(instance, over.report)):
            yield over


def _over(records: Records, after: str) -> Iterator[_Over]:
    """Yield what was over after a moment, the first first."""
    later = {"$gt": after}
    workflows = records.workflows.find({"isGraph": True, "ended": later}, sort=[("ended", 1)])
    submissions = records.submissions.find({"finished": later}, sort=[("finished", 1)])
    yield from heapq.merge(
        (
            _Over(each.ended or "", "workflow", each.id, each.revision_knockem, each.state == "completed")
            for each in workflows
        ),
        (
            _Over(each.finished or "", "submission", each.id, each.revision_knockem, each.state is State.COMPLETED)
            for each in submissions
        ),
    )


def _number_of_tries(records: Records, over: _Over) -> int:
    if over.kind == "workflow":
        return records.documents.count(records.results.name, {"workflowId": over.id})
    return records.documents.count(records.attempt_results.name, {"submissionId": over.id})


def _jobs_of(records: Records, over: _Over) -> Iterator[RanJob] | None:
    """Return the tries at jobs of what is over, always in the same order; None where nothing was tried."""
    jobs = _jobs_of_workflow(records, over.id) if over.kind == "workflow" else _attempts(records, over.id)
    first = next(jobs, None)
    return None if first is None else chain([first], jobs)


def _results_of(records: Records, workflow: str) -> Iterator[ResultRecord]:
    """Yield results by job and time: their ids, and so the order of these, are others after a restart."""
    found = records.results.find({"workflowId": workflow}, sort=[("jobId", 1)])
    for _, tries in groupby(found, key=lambda result: result.job_id):
        yield from sorted(tries, key=lambda result: result.datetime)


def _jobs_of_workflow(records: Records, workflow: str) -> Iterator[RanJob]:
    for page in pages(_results_of(records, workflow), _PAGE):
        jobs = records.jobs.get_many([each.job_id for each in page])
        for result in page:
            job = jobs.get(result.job_id)
            if job is None or job.is_action:
                continue
            given = result.given or job.resources
            yield RanJob(
                id=_number(result.job_id, result.datetime),
                tool_id=tool_of_command(job.command),
                tool_version=COMMAND,
                state=_STATES.get(result.outcome, "error"),
                created=datetime.fromisoformat(result.began or result.datetime),
                cores=given.cpus,
                memory_mib=given.memory_mib,
                runtime=result.wall_seconds,
                cpu=result.cpu_seconds,
                peak_memory=result.peak_memory,
                is_out_of_memory=result.outcome is Outcome.OUT_OF_MEMORY,
            )


def _attempts(records: Records, submission: str) -> Iterator[RanJob]:
    whose = records.submissions.find_one(submission)
    if whose is None:
        return
    for result in records.attempt_results.find({"submissionId": submission}, sort=[("_id", 1)]):
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


def _number(*parts: str) -> int:
    """Return the id of a job as a number, as Galaxy's are, by what stays when a result moves aside for a restart."""
    return int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:8]) % 10**18
