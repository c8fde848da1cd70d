"""Submissions: what a user asked for, how far it is, and who is working on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field

from knockem_dagster.records.assays import AssayResultRecord, AssayType
from knockem_dagster.records.record import Record, Repository, Value, now
from knockem_dagster.records.stages import StageValue, WeighingGoalValue, stage_of_result
from knockem_dagster.settings import RuntimeName
from knockem_dagster.stores.documents import Collection, Documents, Index, Patch


class State(StrEnum):
    """How far a submission is. The last three are final, but `resume` takes up the last two again, and `extend` all."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        """Tell whether nothing further happens by itself."""
        return self in {State.COMPLETED, State.FAILED, State.CANCELED}


_COUNTERS_OF_WORK = (
    "counters.submissionNumActiveAssays",
    "counters.submissionNumPendingAssays",
    "counters.submissionNumActiveCompetitions",
    "counters.submissionNumPendingCompetitions",
)


_REOPENED = {"state": State.ACCEPTED.value, "vainRuns": 0, "vainStarts": 0}


class LimitsValue(Value):
    """What one container of the submission may use."""

    cpus: float = Field(default=1.0, description="CPUs")
    memory_mib: int = Field(default=1024, alias="memoryMiB", description="MiB")


class LeaseValue(Value):
    """Who works on a submission, and until when unless renewed (seconds since the epoch)."""

    owner: str
    until: float


class CountersValue(Value):
    """The seed's six progress counters."""

    submission_num_pending_assays: int = 0
    submission_num_active_assays: int = 0
    submission_num_completed_assays: int = 0
    submission_num_pending_competitions: int = 0
    submission_num_active_competitions: int = 0
    submission_num_completed_competitions: int = 0


class SubmissionRecord(Record):
    """A submission. Fields beyond the seed's tell what was resolved, and how far it is."""

    collection: ClassVar[Collection] = Collection(
        "submissions", (Index(("state",)), Index(("datetime",)), Index(("finished",)), Index(("userEmail", "datetime")))
    )

    assay_types: tuple[AssayType, ...]
    assay_ids: tuple[str, ...]
    container_image: str
    container_env: dict[str, str]
    genome_id: str
    max_active: int
    max_fail: int
    user_email: str
    timeout_seconds: float
    seed: int
    limits: LimitsValue = LimitsValue()
    skeletons: int
    tolerated_untested: float = Field(description="share of sites that may stay untested")
    resolution: float = Field(default=0.1, description="smallest effect to be found (detection thresholds)")
    budget: int | None = Field(default=None, description="competitions that may be asked for in all")
    error_rate: float = Field(default=0.02, description="sites without effect that may be named, in expectation")
    skeleton_resolution: float = Field(
        default=0.4, description="smallest effect that keeps a site in a skeleton by prefix search, under noise"
    )
    container_runtime: RuntimeName
    image_digest: str
    stated_unit: float | None = Field(
        default=None, description="score of one detection threshold, if the organism states it"
    )
    stages: tuple[StageValue, ...] = Field(default=(), description="what was asked for before it was extended")
    weighing: WeighingGoalValue | None = Field(default=None, description="what weighing aims at, once it has begun")
    num_sites: int
    content_digest: str = Field(description="SHA-256 of the submission's canonical form")
    state: State = State.ACCEPTED
    reason: str | None = Field(default=None, description="why it failed or was canceled")
    lease: LeaseValue = LeaseValue(owner="", until=0.0)
    interruptions: int = Field(default=0, description="how often a run of it died, or its user resumed or extended it")
    resumed: str | None = Field(
        default=None, description="when its user last resumed or extended it: what had failed is tried again"
    )
    vain_starts: int = Field(default=0, description="runs in a row that ended before they began to work")
    vain_runs: int = Field(default=0, description="runs in a row that were killed without a new answer")
    started: str | None = Field(default=None, description="when the latest run of it began")
    completed_before: int = Field(default=0, description="competitions completed before the latest run began")
    finished: str | None = None
    expected_competitions: int | None = None
    counters: CountersValue = CountersValue()
    untestable_competitions: int = 0
    cpu_seconds: float | None = Field(default=None, description="used by all attempts, once it is over and was asked")

    @property
    def stage(self) -> int:
        """The number of the current stage: how often the submission was extended."""
        return len(self.stages)

    def stands(self, result: AssayResultRecord) -> bool:
        """Tell whether a result of the submission needs not be found again since it was extended."""
        return result.stage >= stage_of_result(result.assay_type, (*self.stages, self))


class SubmissionRepository(Repository[SubmissionRecord]):
    """Submissions, with the changes of state and the lease."""

    def __init__(self, documents: Documents) -> None:
        super().__init__(documents, SubmissionRecord)

    def acquire_lease(self, id: str, owner: str, seconds: float) -> SubmissionRecord | None:
        """Take or renew the lease and start the submission; None when another owner holds it or it is final."""
        moment = time.time()
        patch = Patch(set={"lease": {"owner": owner, "until": moment + seconds}, "state": State.RUNNING.value})
        open_states: dict[str, Any] = {"$in": [State.ACCEPTED.value, State.RUNNING.value]}
        for holder in ({"lease.owner": owner}, {"lease.until": {"$lt": moment}}):
            document = self.documents.claim(self.name, {"_id": id, "state": open_states, **holder}, patch)
            if document is not None:
                return SubmissionRecord.from_document(document)
        return None

    def release_lease(self, id: str, owner: str) -> None:
        """Give the lease back; nothing happens if another holds it by now."""
        patch = Patch(set={"lease": {"owner": "", "until": 0.0}})
        self.documents.claim(self.name, {"_id": id, "lease.owner": owner}, patch)

    def note_start(self, id: str, *, completed_before: int) -> None:
        """Note that a run of the submission begins now."""
        self.patch(id, Patch(set={"started": now(), "completedBefore": completed_before, "vainStarts": 0}))

    def move(
        self, id: str, state: State, *, sources: tuple[State, ...], reason: str | None = None, owner: str | None = None
    ) -> bool:
        """Change the state if it is one of `sources` and, where given, `owner` holds the lease; tell whether it was.

        In a final state nothing is active or pending any more.
        """
        changes: dict[str, Any] = {"state": state.value}
        if state.is_final:
            changes |= {"finished": now(), **dict.fromkeys(_COUNTERS_OF_WORK, 0)}
        if reason:
            changes["reason"] = reason
        where: dict[str, Any] = {"_id": id, "state": {"$in": [source.value for source in sources]}}
        if owner is not None:
            where["lease.owner"] = owner
        patch = Patch(set=changes, unset=() if reason else ("reason",))
        return self.documents.claim(self.name, where, patch) is not None

    def reopen(self, id: str) -> bool:
        """Accept a failed or canceled submission again, forgiving what failed before; tell whether it was one."""
        # Dagster runs a request only once for the same key, and the key of a submission's run counts interruptions.
        patch = Patch(
            set={**_REOPENED, "resumed": now()},
            unset=("reason", "finished", "cpuSeconds"),
            increment={"interruptions": 1},
        )
        closed = {"$in": [State.FAILED.value, State.CANCELED.value]}
        return self.documents.claim(self.name, {"_id": id, "state": closed}, patch) is not None

    def open_stage(self, seen: SubmissionRecord, stage: StageValue, changes: Mapping[str, Any]) -> bool:
        """Accept a submission that is over again, in a new stage; tell whether it was still as `seen`.

        `stage` is what the one that ends was; `changes` go to the submission, by the names of stored fields.
        """
        stages = [each.model_dump(by_alias=True, exclude_none=True, mode="json") for each in (*seen.stages, stage)]
        patch = Patch(
            set={**_REOPENED, **changes, "stages": stages, "resumed": now()},
            unset=("reason", "finished", "weighing", "cpuSeconds"),
            increment={"interruptions": 1},
        )
        over = {"$in": [state.value for state in State if state.is_final]}
        where = {"_id": seen.id, "state": over, "interruptions": seen.interruptions}
        return self.documents.claim(self.name, where, patch) is not None

    def resolve(self, prefix: str) -> SubmissionRecord:
        """Return the one submission whose id starts with `prefix`. Raises NotFound for none or several."""
        return self.starting_with(prefix, what="submission", listing="list")
