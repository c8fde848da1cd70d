"""Jobs that write when they start and end (timed_job.py), and what their own words tell: who ran beside whom."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timed_job import LOG
from knockem_dagster.records.jobs import JobRecord, ResourcesValue, WorkflowRecord
from knockem_dagster.records.record import new_id

SCRIPT = Path(__file__).with_name("timed_job.py")
USER = "bench@example.org"


@dataclass(frozen=True, slots=True)
class Execution:
    """A job's start at a worker (seconds of the monotonic clock), and its end, if it came that far."""

    job: str
    workflow: str
    worker: str
    began: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class JobLog:
    """What jobs wrote: executions in the order of their starts, and lines about places beyond a cap."""

    executions: Sequence[Execution]
    beyond: Sequence[str]

    def of_job(self, job: str) -> list[Execution]:
        """Return the executions of one job."""
        return [each for each in self.executions if each.job == job]


def a_workflow(name: str, *, max_active: int, max_fail: int = 1) -> WorkflowRecord:
    """Return a new workflow."""
    return WorkflowRecord(id=new_id(), name=name, max_active=max_active, max_fail=max_fail, user_email=USER)


def timed_job(
    folder: Path,
    workflow: WorkflowRecord,
    *,
    seconds: float,
    seconds_again: float | None = None,
    exit_code: int = 0,
    leaves_a_daemon: bool = False,
    cpus: int = 1,
    seconds_at_most: float = 0.0,
) -> JobRecord:
    """Return a job that writes to `folder` and takes so long, or so long when it was begun before.

    `cpus` is how many such jobs a worker may run at a time.
    """
    id = new_id()
    length = f"{seconds:.4f}" if seconds_again is None else f"{seconds:.4f},{seconds_again:.4f}"
    arguments = (folder, id, workflow.id, workflow.max_active, cpus, length, exit_code, int(leaves_a_daemon))
    return JobRecord(
        id=id,
        workflow_id=workflow.id,
        name=f"{seconds:.2f} s",
        command=(sys.executable, "-I", "-S", str(SCRIPT), *map(str, arguments)),
        resources=ResourcesValue(seconds=seconds_at_most),
    )


def read_log(folder: Path) -> JobLog:
    """Read what jobs wrote to `folder` so far."""
    path = folder / LOG
    if not path.exists():
        return JobLog((), ())
    beyond: list[str] = []
    begun: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    ended: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in path.read_text().splitlines():
        what, job, of, worker, nanoseconds = line.split(" ")
        moment = int(nanoseconds) / 1e9
        if what == "start":
            begun[job, worker].append((of, moment))
        elif what == "end":
            ended[job, worker].append(moment)
        else:
            beyond.append(line)
    executions = [
        Execution(job, workflow, worker, began, _first_in(ended[job, worker], began, starts))
        for (job, worker), starts in begun.items()
        for workflow, began in starts
    ]
    return JobLog(sorted(executions, key=lambda each: each.began), beyond)


def most_at_once(executions: Sequence[Execution]) -> int:
    """Return how many of those that came to their end ran at a time."""
    moments = [(each.began, 1) for each in executions if each.ended is not None]
    moments += [(each.ended, -1) for each in executions if each.ended is not None]
    most = running = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most


def _first_in(ends: Sequence[float], began: float, starts: Sequence[tuple[str, float]]) -> float | None:
    """Return the end that belongs to a start: the first after it, and before the next one at the same worker."""
    later = [moment for _, moment in starts if moment > began]
    limit = min(later, default=float("inf"))
    return next((moment for moment in sorted(ends) if began <= moment <= limit), None)
