"""How far a submission is: its progress, its losses, and what came of its attempts. Reads only."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from pydantic import Field

from knockem_dagster.assay_runs.compete import LOSSES_ALLOWED
from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.records.assays import with_needs
from knockem_dagster.records.catalog import Records
from knockem_dagster.records.competitions import CompetitionAttemptResultRecord
from knockem_dagster.records.record import Value
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.stores.paging import pages

_PAGE = 200
_MOST_BAD_ATTEMPTS = 5_000
_MOST_GIVEN_UP = 5


class GivenUp(Value):
    """A competition that could not be tested: its assay type, purpose and replicate, and what its last attempt said."""

    assay_type: str
    purpose: str
    replicate: int
    reason: str


class SubmissionStatus(Value):
    """A submission at one moment. Competitions are counted; `rate` is per second, times are seconds.

    `rate` and the seconds left are null while nothing can be said about them.
    """

    id: str
    state: State
    reason: str | None
    organism: str
    runtime: str
    sites: int
    assay_types: tuple[str, ...]
    assays_done: int
    assays_total: int = Field(description="the requested ones, with all that they need")
    done: int = Field(description="competitions completed")
    active: int
    total: int = Field(description="competitions expected in all")
    untestable: int
    given_up: tuple[GivenUp, ...] = Field(description="some of the untestable competitions")
    rate: float | None
    seconds_left: float | None
    attempts: Mapping[str, int] = Field(description="ended attempts by outcome")
    interruptions: int
    is_worked_on: bool
    submitted: str
    started: str | None
    finished: str | None
    user_email: str

    @property
    def exit_code(self) -> int:
        """0 for completed, 1 for failed or canceled, 3 for still going."""
        return {State.COMPLETED: 0, State.FAILED: 1, State.CANCELED: 1}.get(self.state, 3)

    def to_json(self) -> dict[str, object]:
        """Return the form for programs: the fields of this class, in snake_case."""
        return {**self.model_dump(mode="json"), "exit_code": self.exit_code}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLog:
    """An ended attempt and what it left behind. `exit_code` is negative for a signal; times are seconds."""

    attempt_id: str
    assay_type: str
    purpose: str
    replicate: int
    number: int
    outcome: str
    exit_code: int | None
    command: str
    tail: str
    wall_seconds: float | None
    peak_memory: int | None
    ended: str


def is_leased(submission: SubmissionRecord) -> bool:
    """Tell whether a living run works on the submission."""
    return bool(submission.lease.owner) and submission.lease.until > time.time()


def expected_total(submission: SubmissionRecord) -> int:
    """Return how many competitions the submission will have made at its end, as far as is known now."""
    counters = submission.counters
    done = counters.submission_num_completed_competitions
    if submission.state is State.COMPLETED:
        return done
    asked = done + counters.submission_num_active_competitions + counters.submission_num_pending_competitions
    return max(submission.expected_competitions or 0, asked)


def submission_status(records: Records, submission: SubmissionRecord) -> SubmissionStatus:
    """Return where a submission stands. Counts its attempts, so it is not for a hot path."""
    counters = submission.counters
    done, total = counters.submission_num_completed_competitions, expected_total(submission)
    assays = len(with_needs(frozenset(submission.assay_types)))
    is_worked_on = is_leased(submission)
    rate = _mean_rate(submission, done) if is_worked_on or submission.state.is_final else None
    return SubmissionStatus(
        id=submission.id,
        state=submission.state,
        reason=submission.reason,
        organism=submission.container_image,
        runtime=submission.container_runtime,
        sites=submission.num_sites,
        assay_types=tuple(assay_type.value for assay_type in submission.assay_types),
        assays_done=assays if submission.state is State.COMPLETED else counters.submission_num_completed_assays,
        assays_total=assays,
        done=done,
        active=counters.submission_num_active_competitions if is_worked_on else 0,
        total=total,
        untestable=submission.untestable_competitions,
        given_up=_given_up(records, submission) if submission.untestable_competitions else (),
        rate=rate,
        seconds_left=None if not rate or submission.state.is_final else (total - done) / rate,
        attempts=_attempts_by_outcome(records, submission.id),
        interruptions=submission.interruptions,
        is_worked_on=is_worked_on,
        submitted=submission.datetime,
        started=submission.started,
        finished=submission.finished,
        user_email=submission.user_email,
    )


def attempt_logs(records: Records, submission: SubmissionRecord, *, failed_only: bool, limit: int) -> list[AttemptLog]:
    """Return up to `limit` ended attempts, in the order in which they ended; those that failed only, if asked."""
    where: dict[str, object] = {"submissionId": submission.id}
    if failed_only:
        where["outcome"] = {"$in": [outcome.value for outcome in Outcome if outcome is not Outcome.SUCCEEDED]}
    found = islice(records.attempt_results.find(where), limit)
    logs: list[AttemptLog] = []
    for page in pages(found, _PAGE):
        logs.extend(_logs_of(records, page))
    return sorted(logs, key=lambda log: log.ended)


def _logs_of(records: Records, page: list[CompetitionAttemptResultRecord]) -> Iterator[AttemptLog]:
    attempts = records.attempts.get_many([result.id for result in page])
    competitions = records.competitions.get_many([result.competition_id for result in page])
    assays = records.assays.get_many(list({result.assay_id for result in page}))
    for result in page:
        competition = competitions[result.competition_id]
        attempt = attempts.get(result.id)
        yield AttemptLog(
            attempt_id=result.id,
            assay_type=assays[result.assay_id].assay_type.value,
            purpose=competition.purpose,
            replicate=competition.replicate,
            number=0 if attempt is None else attempt.number,
            outcome=result.outcome.value,
            exit_code=result.exit_code,
            command=result.command,
            tail=result.tail,
            wall_seconds=result.wall_seconds,
            peak_memory=result.peak_memory,
            ended=result.datetime,
        )


def _given_up(records: Records, submission: SubmissionRecord) -> tuple[GivenUp, ...]:
    """Return some of the competitions that were given up, found among the attempts that brought nothing."""
    bad = [outcome.value for outcome in Outcome if outcome is not Outcome.SUCCEEDED]
    where = {"submissionId": submission.id, "outcome": {"$in": bad}}
    tries: dict[str, Counter[bool]] = defaultdict(Counter)
    last: dict[str, CompetitionAttemptResultRecord] = {}
    for result in islice(records.attempt_results.find(where), _MOST_BAD_ATTEMPTS):
        if not result.blameless:
            tries[result.competition_id][result.outcome is Outcome.LOST] += 1
            last[result.competition_id] = result
    over = [id for id, had in tries.items() if had[True] >= LOSSES_ALLOWED or had[False] >= submission.max_fail]
    answered = records.competition_results.get_many(over)
    named = [id for id in over if id not in answered][:_MOST_GIVEN_UP]
    competitions = records.competitions.get_many(named)
    assays = records.assays.get_many([competition.assay_id for competition in competitions.values()])
    return tuple(
        GivenUp(
            assay_type=assays[competition.assay_id].assay_type.value,
            purpose=competition.purpose,
            replicate=competition.replicate,
            reason=_why(tries[id], last[id]),
        )
        for id, competition in competitions.items()
    )


def _why(tries: Counter[bool], last: CompetitionAttemptResultRecord) -> str:
    number = "lost" if tries[True] >= LOSSES_ALLOWED else "failed"
    words = last.tail.strip().rsplit("\n", 1)[-1][:200]
    return f"{max(tries.values())} attempts {number}; the last: {last.outcome.value}{f': {words}' if words else ''}"


def _attempts_by_outcome(records: Records, submission_id: str) -> dict[str, int]:
    collection = records.attempt_results.name
    counts = {
        outcome.value: records.documents.count(collection, {"submissionId": submission_id, "outcome": outcome.value})
        for outcome in Outcome
    }
    return {outcome: number for outcome, number in counts.items() if number}


def _mean_rate(submission: SubmissionRecord, done: int) -> float | None:
    """Return competitions per second since the latest start; None without a start or an answer since."""
    done_since = done - submission.completed_before
    if submission.started is None or done_since <= 0:
        return None
    ended = datetime.now(UTC) if submission.finished is None else datetime.fromisoformat(submission.finished)
    seconds = (ended - datetime.fromisoformat(submission.started)).total_seconds()
    return done_since / seconds if seconds > 0 else None
