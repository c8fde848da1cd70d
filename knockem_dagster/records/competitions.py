"""Competitions, their results, the attempts at them, and what came of each attempt: four collections."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from pydantic import Field

from knockem_dagster.containers.attempts import AttemptOutcome, Outcome
from knockem_dagster.knockout.competitions import Competition, Counts
from knockem_dagster.records.record import Record, Value, derived_id
from knockem_dagster.stores.documents import Collection, Index

_BY_SUBMISSION = Index(("submissionId", "assayId"))


class CountsValue(Value):
    """The seed's `result` of a competition."""

    updates_elapsed: float
    num_alpha: int
    num_beta: int

    @classmethod
    def of(cls, counts: Counts) -> CountsValue:
        """Return the stored form of an answer."""
        return cls(updates_elapsed=counts.updates_elapsed, num_alpha=counts.num_alpha, num_beta=counts.num_beta)

    def to_counts(self) -> Counts:
        """Return the answer as assays see it."""
        return Counts(self.updates_elapsed, self.num_alpha, self.num_beta)


class CompetitionRecord(Record):
    """A question that an assay asked. Its id is derived from what was asked: see `competition_id`."""

    collection: ClassVar[Collection] = Collection("competitions", (_BY_SUBMISSION,))

    submission_id: str
    assay_id: str
    genome_id_alpha: str = Field(description="the background")
    genome_id_beta: str = Field(description="the challenger")
    num_knockout_sites: int = Field(description="dose of beta")
    purpose: str
    replicate: int
    seed: int
    user_email: str


class CompetitionResultRecord(Record):
    """The recorded answer: the first successful attempt's. Its id is the competition's."""

    collection: ClassVar[Collection] = Collection("competitionResults", (_BY_SUBMISSION,))

    submission_id: str
    assay_id: str
    competition_attempt_id: str
    genome_id_beta: str
    num_knockout_sites: int
    result: CountsValue
    user_email: str


class CompetitionAttemptRecord(Record):
    """One try at a competition, written before it starts."""

    collection: ClassVar[Collection] = Collection("competitionAttempts", (_BY_SUBMISSION,))

    submission_id: str
    assay_id: str
    competition_id: str
    number: int = Field(description="the how-manieth try, from 1")
    alone: bool = Field(default=False, description="tried with nothing beside it, to see what it kills")
    genome_id_alpha: str = Field(default="", description="the background; empty in attempts of early versions")
    genome_id_beta: str = Field(default="", description="the challenger")
    seed: int = 0
    user_email: str


class CompetitionAttemptResultRecord(Record):
    """What came of an attempt. Its id is the attempt's; `result` is there only on success."""

    collection: ClassVar[Collection] = Collection(
        "competitionAttemptResults", (_BY_SUBMISSION, Index(("submissionId", "outcome")))
    )

    submission_id: str
    assay_id: str
    competition_id: str
    outcome: Outcome
    blameless: bool = Field(default=False, description="lost with its run, not by its own doing: counts nowhere")
    command: str = ""
    exit_code: int | None = None
    tail: str = ""
    peak_memory: int | None = Field(default=None, description="bytes")
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    worker: str = Field(default="", description="name of the worker that ran it; empty within a run alone")
    result: CountsValue | None = None
    user_email: str

    @classmethod
    def of(cls, ended: AttemptOutcome, *, user_email: str, blameless: bool = False) -> CompetitionAttemptResultRecord:
        """Return the record of an ended attempt."""
        attempt = ended.attempt
        return cls(
            id=attempt.id,
            submission_id=attempt.submission_id,
            assay_id=attempt.assay_id,
            competition_id=attempt.competition_id,
            outcome=ended.outcome,
            blameless=blameless,
            command=ended.command,
            exit_code=ended.exit_code,
            tail=ended.tail,
            peak_memory=ended.peak_memory,
            cpu_seconds=ended.cpu_seconds,
            wall_seconds=ended.wall_seconds,
            worker=ended.worker,
            result=None if ended.counts is None else CountsValue.of(ended.counts),
            user_email=user_email,
        )


def competition_id(assay_id: str, competition: Competition) -> str:
    """Return the id that an assay's question determines.

    The assay's id stands for its submission too, as it is derived from it.
    """
    return derived_id(
        assay_id,
        competition.background.to_bytes(),
        competition.challenger.to_bytes(),
        competition.purpose,
        competition.replicate,
    )


def competition_seed(submission_seed: int, assay_type: str, competition: Competition) -> int:
    """Return the first 63 bits of SHA-256(submission seed, assay, competition key): the same for every attempt."""
    digest = hashlib.sha256(f"{submission_seed}\x1f{assay_type}\x1f{competition.purpose}\x1f".encode())
    digest.update(f"{competition.replicate}\x1f".encode())
    digest.update(competition.background.to_bytes())
    digest.update(competition.challenger.to_bytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def attempt_id(competition_id: str, number: int) -> str:
    """Return the id of the how-manieth try at a competition."""
    return derived_id(competition_id, "attempt", number)
