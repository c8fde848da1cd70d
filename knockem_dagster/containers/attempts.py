"""Attempts, the tries at a competition that containers carry out, and how they end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from knockem_dagster.knockout.competitions import Counts
from knockem_dagster.knockout.knockouts import KnockoutSet


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    FAILED = "failed"
    BAD_RESULT = "bad result"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class GenomeVariant:
    """One side of a competition: the id of its genome record and what is knocked out of the wild type."""

    id: str
    knockout: KnockoutSet


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a competition, with all a worker needs beside the submission it belongs to."""

    id: str
    competition_id: str
    assay_id: str
    submission_id: str
    alpha: GenomeVariant
    beta: GenomeVariant
    seed: int


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """What came of an attempt. `counts` is there exactly when the outcome is SUCCEEDED.

    `tail` holds the last lines of its output; times are seconds, `peak_memory` bytes, None where
    the runtime cannot tell. A request served by a warm container has no process of its own: its CPU time is not known,
    and its `peak_memory` is that of the container so far. `worker` is the name of the one that ran it, empty within a
    run alone.
    """

    attempt: Attempt
    outcome: Outcome
    counts: Counts | None = None
    command: str = ""
    exit_code: int | None = None
    tail: str = ""
    peak_memory: int | None = None
    cpu_seconds: float | None = None
    wall_seconds: float | None = None
    worker: str = ""
