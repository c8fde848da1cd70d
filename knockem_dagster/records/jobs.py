"""Jobs, their results, the compute nodes that executed them, and events: collections of the seed's job database.

What jobs wait for, read and make is in job_graph.py. Two kinds of edges are no documents of their own, since a field
names the other end and there is one for every result: its job (returned) and its compute node (executed).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import Field

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.records.record import Record, Value
from knockem_dagster.stores.documents import Collection, Index

WorkflowState: TypeAlias = Literal["uninitialized", "running", "completed", "canceled"]
WORKFLOW_STATES: tuple[WorkflowState, ...] = get_args(WorkflowState)
MOST_READ_FILES = 1000
"""Files of a job that a restart compares: those that no job makes first."""


class ResourcesValue(Value):
    """What a job needs while it runs."""

    cpus: float = Field(default=1.0, description="CPUs")
    memory_mib: int = Field(default=256, alias="memoryMiB", description="MiB, over its process tree")
    gpus: int = 0
    seconds: float = Field(default=0.0, description="at most; 0: no limit")


class FailureRuleValue(Value):
    """What is done when a job ends with one of these exit codes: at most so many more tries, after a script if any."""

    exit_codes: tuple[int, ...] = ()
    match_all_exit_codes: bool = False
    recovery_script: str | None = None
    max_retries: int = 3


class JobState(StrEnum):
    """How far a job of a graph is, as the record has it: which of those not over are in work, the queue knows."""

    BLOCKED = "blocked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    TERMINATED = "terminated"
    DISABLED = "disabled"

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more becomes of the job by itself."""
        return self is not JobState.BLOCKED


class WorkflowRecord(Record):
    """Jobs that were submitted together, and how they are handed out."""

    collection: ClassVar[Collection] = Collection(
        "workflows",
        (
            Index(("state",)),
            Index(("isGraph", "datetime")),
            Index(("isGraph", "ended")),
            Index(("userEmail", "isGraph", "datetime")),
        ),
    )

    name: str
    max_active: int = Field(description="jobs that may run at a time")
    max_fail: int = Field(default=1, description="failed tries of a job allowed; 1: no retry")
    weight: float = Field(default=1.0, description="its share of slot time beside others")
    state: WorkflowState = Field(
        default="uninitialized", description="running once all its jobs are in the record, completed when all are over"
    )
    user_email: str
    cpu_seconds: float | None = Field(default=None, description="used by all tries, once it is over and was asked")
    description: str = ""
    is_graph: bool = Field(default=False, description="its jobs have states, and may wait for one another")
    ended: str | None = Field(default=None, description="when it was last over; none while it is going")

    @property
    def is_over(self) -> bool:
        """Tell whether nothing of it goes on, unless it is restarted."""
        return self.state in ("completed", "canceled")


class JobRecord(Record):
    """A command to run. Its id is also its 16 bytes in the queue."""

    collection: ClassVar[Collection] = Collection(
        "jobs", (Index(("workflowId", "state", "name")), Index(("workflowId", "name")))
    )

    workflow_id: str
    name: str
    command: tuple[str, ...] = Field(description="the program and its arguments")
    environment: dict[str, str] = Field(default_factory=dict[str, str], description="beside PATH, HOME and LANG")
    folder: str | None = Field(default=None, description="where it runs; default: where the worker was started")
    keep_output: bool = False
    resources: ResourcesValue = ResourcesValue()
    state: JobState | None = Field(default=None, description="only of the jobs of a graph")
    num_dependents: int = Field(default=0, description="jobs that wait for this one")
    cancel_on_blocking_job_failure: bool = Field(
        default=False, description="canceled when one that it waits for does not complete; else it runs then as well"
    )
    priority: int = 0
    is_action: bool = Field(default=False, description="of the workflow itself: what waits for it never depends on it")
    failure_rules: tuple[FailureRuleValue, ...] = Field(default=(), description="of its failure handler, in order")
    reads: tuple[str, ...] = Field(default=(), description="paths of files that a restart compares with what they were")


class ResultRecord(Record):
    """What came of a try at a job. The last try's has the job's id, so that a job has one result for good."""

    collection: ClassVar[Collection] = Collection("results", (Index(("workflowId", "jobId")),))

    workflow_id: str
    job_id: str
    final: bool = Field(description="the job is not tried again")
    outcome: Outcome
    exit_code: int | None = Field(default=None, description="negative for a signal")
    tail: str = ""
    peak_memory: int | None = Field(default=None, description="bytes, over the process tree")
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    compute_node: str = ""
    began: str | None = Field(default=None, description="ISO 8601, UTC, by the clock of its worker")
    marks: tuple[str, ...] = Field(default=(), description="what the files it `reads` were when it began")
    given: ResourcesValue | None = Field(
        default=None, description="what the try could use; none in results of early versions: then what its job may use"
    )


class ComputeNodeRecord(Record):
    """A worker: what it offered and how long it was there."""

    collection: ClassVar[Collection] = Collection("computeNodes", (Index(("datetime",)),))

    host: str
    cpus: float
    memory_mib: int = Field(alias="memoryMiB")
    gpus: int = 0
    runtimes: tuple[str, ...] = ()
    ended: str | None = Field(default=None, description="when it left; none for one that runs or was lost")


class EventRecord(Record):
    """Something that happened: `source` posted it, about `subject` (a workflow, a submission or a compute node)."""

    collection: ClassVar[Collection] = Collection("events", (Index(("subject", "datetime")),))

    subject: str
    source: str
    kind: str
    data: dict[str, Any] = Field(default_factory=dict[str, Any])
