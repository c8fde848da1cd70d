"""What a worker and the HTTP API say to each other: the calls of a worker on the queue and the record, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, ValidationError, model_validator

from knockem_dagster.containers.attempts import Attempt, GenomeVariant, Outcome
from knockem_dagster.jobs.attempt_records import attempt_id_of, job_of
from knockem_dagster.jobs.queue import MOST_CLAIMED, Claim, Report, Verdict, Wanted
from knockem_dagster.jobs.requirements import Requirement
from knockem_dagster.knockout.knockouts import KnockoutSet
from knockem_dagster.mapping_file import storable_json
from knockem_dagster.records.genomes import GenomeRecord
from knockem_dagster.records.job_graph import WorkerActionRecord
from knockem_dagster.records.jobs import MOST_READ_FILES, JobRecord
from knockem_dagster.records.record import Value
from knockem_dagster.records.submissions import SubmissionRecord
from knockem_dagster.settings import RuntimeName

OVER_HTTP = " (over HTTP)"
"""What the platform puts behind the host of a worker that it knows over HTTP only."""
MOST_TAIL = 1 << 20
MOST_WORDS = 2000
MOST_NAMED = 100_000
"""Owners, classes or jobs that one message may name."""
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Ids = Annotated[tuple[Id, ...], Field(max_length=MOST_CLAIMED)]
WorkerName = Annotated[str, Field(min_length=10, max_length=400, pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$")]
ClassName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^,\s]+$")]
Owner = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9-]*$")]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, lt=1 << 62)]
Mark = Annotated[str, Field(pattern=r"^(gone|unknown|\d{1,20}:-?\d{1,20}:([0-9a-f]{16})?)$")]


class Done(Value):
    """It is done."""


class Description(Value):
    """What a worker says of itself."""

    host: str = Field(max_length=255)
    owner: str = Field(max_length=400, description="which process of the host it is")
    cpus: float = Field(gt=0, le=1e6)
    memory_mib: int = Field(alias="memoryMiB", ge=0, lt=1 << 40)
    gpus: int = Field(ge=0, lt=1 << 20)
    seconds_left: float | None = Field(default=None, description="until it ends; null: for ever")
    runtimes: tuple[Literal["command", RuntimeName], ...]
    only: Literal[""] = ""
    lease_seconds: float = Field(gt=0, le=86400)
    started: str = Field(max_length=50)

    def to_json(self) -> bytes:
        """Return the form that the queue keeps."""
        return orjson.dumps(self.model_dump(by_alias=True))


class Beat(Value):
    """A sign of life. `description` registers the worker; `held`: all jobs that it knows to hold."""

    worker: WorkerName
    lease_seconds: float = Field(gt=0, le=86400)
    description: Description | None = None
    ended: tuple[Id, ...] = Field(default=(), max_length=MOST_NAMED, description="canceled jobs that it has ended")
    held: tuple[Id, ...] | None = Field(default=None, max_length=MOST_NAMED)


class Canceled(Value):
    """Jobs that a worker must end."""

    jobs: tuple[str, ...]


class Leaving(Value):
    """A worker leaves; what it still holds is ready again."""

    worker: WorkerName


class Claiming(Value):
    """What a worker asks for. `waiter`: who is woken when there is work, if `wait`."""

    worker: WorkerName
    waiter: WorkerName
    classes: tuple[ClassName, ...] = Field(max_length=MOST_NAMED)
    most: int = Field(default=1, ge=1, le=MOST_CLAIMED)
    only: Owner = ""
    preferred: Owner = ""
    excluded: tuple[Owner, ...] = Field(default=(), max_length=MOST_NAMED)
    lead_seconds: Number = 5.0
    wait: bool = False

    def wanted(self, permitted: Sequence[str] | None) -> Wanted:
        """Return it in the queue's terms, of the permitted owners only; None: of all."""
        return Wanted(
            self.classes,
            self.most,
            only=self.only,
            preferred=self.preferred,
            excluded=self.excluded,
            permitted=permitted,
            lead_seconds=self.lead_seconds,
        )


class Claimed(Value):
    """Jobs of one owner and one class that a worker holds by one token; without jobs where there are none."""

    owner: str = ""
    class_name: str = ""
    jobs: tuple[str, ...] = ()
    token: str = ""

    @classmethod
    def of(cls, claim: Claim | None) -> Claimed:
        """Return a claim as a message."""
        if claim is None:
            return cls()
        jobs = tuple(map(attempt_id_of, claim.jobs))
        return cls(owner=claim.owner, class_name=claim.class_name, jobs=jobs, token=claim.token.decode())

    def to_claim(self) -> Claim | None:
        """Return what the message says."""
        if not self.jobs:
            return None
        return Claim(self.owner, self.class_name, tuple(map(job_of, self.jobs)), self.token.encode())


class Waiting(Value):
    """Who waits for work, and how long at most."""

    waiter: WorkerName
    seconds: float = Field(gt=0, le=60)


class Ended(Value):
    """What came of a try."""

    outcome: Outcome
    counts: tuple[Number, Bytes, Bytes] | None = Field(
        default=None, description="of a competition: updates elapsed, alpha, beta"
    )
    command: str = Field(default="", max_length=10_000)
    exit_code: int | None = Field(default=None, ge=-1024, le=1024)
    tail: str = Field(default="", max_length=MOST_TAIL)
    peak_memory: Bytes | None = None
    cpu_seconds: Number | None = None
    wall_seconds: Number | None = None
    began: AwareDatetime | None = None
    marks: tuple[Mark, ...] = Field(
        default=(), max_length=MOST_READ_FILES, description="of a command: what the files it reads were"
    )

    @classmethod
    def from_payload(cls, payload: bytes) -> Ended:
        """Read what a worker hands in. Raises ValidationError."""
        fields: dict[str, Any] = orjson.loads(payload)
        fields.pop("worker", None)
        return cls.model_validate(fields)

    def to_payload(self, worker: str) -> bytes:
        """Return it as whoever records it reads it."""
        fields = self.model_dump(by_alias=True, mode="json", exclude_none=True)
        return orjson.dumps({**fields, "worker": worker})


class Reported(Value):
    """What came of a held job."""

    owner: Owner
    job: Id
    token: str = Field(max_length=100, pattern=r"^[A-Za-z0-9]*$")
    verdict: Verdict
    seconds: Number = 0.0
    ended: Ended | None = Field(default=None, description="what came of it; nothing for one that is handed back")

    @model_validator(mode="after")
    def _check_what_came_of_it(self) -> Reported:
        if (self.ended is None) != (self.verdict is Verdict.RETURNED):
            raise ValueError("what came of a job is told, but for one that is handed back")
        if self.ended is not None and (self.ended.outcome is Outcome.SUCCEEDED) != (self.verdict is Verdict.SUCCEEDED):
            raise ValueError("verdict and outcome contradict each other")
        return self

    @classmethod
    def of(cls, report: Report) -> Reported:
        """Return a report as a message: a bad result where what came of the job cannot be told."""
        verdict = report.verdict
        try:
            ended = None if verdict is Verdict.RETURNED else Ended.from_payload(report.payload)
        except ValidationError as error:
            verdict, ended = Verdict.FAILED, Ended(outcome=Outcome.BAD_RESULT, tail=str(error)[:MOST_WORDS])
        job, token = attempt_id_of(report.job), report.token.decode()
        return cls(owner=report.owner, job=job, token=token, verdict=verdict, seconds=report.seconds, ended=ended)

    def to_report(self, worker: str) -> Report:
        """Return what the message says."""
        payload = b"" if self.ended is None else self.ended.to_payload(worker)
        return Report(self.owner, job_of(self.job), self.token.encode(), self.verdict, self.seconds, payload)


class Finishing(Value):
    """A worker ends jobs that it holds."""

    worker: WorkerName
    reports: tuple[Reported, ...] = Field(max_length=MOST_CLAIMED)


class Finished(Value):
    """For each report the entry of its outcome; empty for a job handed back, null for one that was not held."""

    entries: tuple[str | None, ...]


class RequirementModel(Value):
    """What jobs of a class need."""

    cpus: float
    memory_mib: int = Field(alias="memoryMiB")
    gpus: int
    seconds: float
    runtime: str

    @classmethod
    def of(cls, requirement: Requirement) -> RequirementModel:
        """Return a requirement as a message."""
        return cls.model_validate_json(requirement.to_json())

    def to_requirement(self) -> Requirement:
        """Return it in the queue's terms."""
        return Requirement(
            cpus=self.cpus, memory_mib=self.memory_mib, gpus=self.gpus, seconds=self.seconds, runtime=self.runtime
        )


class Classes(Value):
    """The resource classes there are."""

    classes: dict[str, RequirementModel]


class Asked(Value):
    """Which jobs or attempts are asked for."""

    ids: Ids


class Jobs(Value):
    """Commands to run, and how often each was tried again because its worker said so."""

    jobs: tuple[JobRecord, ...]
    retries: tuple[int, ...]


class WorkerActions(Value):
    """What each worker runs for a workflow, in its order."""

    actions: tuple[WorkerActionRecord, ...]


class VariantModel(Value):
    """One side of a competition."""

    id: str
    knockout_bitset: str = Field(description="base64, little-endian bits, site 0 lowest")
    num_sites: int

    @classmethod
    def of(cls, variant: GenomeVariant) -> VariantModel:
        """Return a variant as a message."""
        knockout = variant.knockout
        return cls(id=variant.id, knockout_bitset=knockout.bitset, num_sites=knockout.num_sites)

    def to_variant(self) -> GenomeVariant:
        """Return what the message says."""
        return GenomeVariant(self.id, KnockoutSet.from_bitset(self.knockout_bitset, self.num_sites))


class AttemptModel(Value):
    """One try at a competition."""

    id: str
    competition_id: str
    assay_id: str
    submission_id: str
    alpha: VariantModel
    beta: VariantModel
    seed: int

    @classmethod
    def of(cls, attempt: Attempt) -> AttemptModel:
        """Return an attempt as a message."""
        return cls(
            id=attempt.id,
            competition_id=attempt.competition_id,
            assay_id=attempt.assay_id,
            submission_id=attempt.submission_id,
            alpha=VariantModel.of(attempt.alpha),
            beta=VariantModel.of(attempt.beta),
            seed=attempt.seed,
        )

    def to_attempt(self) -> Attempt:
        """Return what the message says."""
        return Attempt(
            id=self.id,
            competition_id=self.competition_id,
            assay_id=self.assay_id,
            submission_id=self.submission_id,
            alpha=self.alpha.to_variant(),
            beta=self.beta.to_variant(),
            seed=self.seed,
        )


class Attempts(Value):
    """Tries at competitions."""

    attempts: tuple[AttemptModel, ...]


class Study(Value):
    """What a worker must know of a submission to run its competitions."""

    submission: SubmissionRecord
    genome: GenomeRecord


class Inability(Value):
    """What a worker says at its end that could do nothing: why, and of which owners."""

    inability: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    owners: tuple[Owner, ...] = Field(default=(), max_length=MOST_NAMED)


class Noted(Value):
    """Something that happened on a worker."""

    id: Id
    datetime: str = Field(max_length=50)
    subject: str = Field(max_length=400, description="a workflow or submission, or the worker itself")
    kind: str = Field(min_length=1, max_length=200)
    data: Annotated[dict[str, Any], AfterValidator(storable_json)]


class Notes(Value):
    """What happened on a worker."""

    worker: WorkerName
    events: tuple[Noted, ...] = Field(max_length=10_000)
