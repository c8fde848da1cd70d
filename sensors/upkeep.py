"""Upkeep: dead runs are settled, their submissions go on, and leftovers of runs and of purges are removed."""

import asyncio
import json
from datetime import datetime
from itertools import islice

import dagster as dg
from dagster._core.storage.tags import RUN_KEY_TAG

from assets.knockout import genome
from assets.partitions import SUBMISSION_JOB
from knockem_dagster.assay_runs.status import is_leased
from knockem_dagster.containers.runtimes import runtime_names_here
from knockem_dagster.errors import ContainerError
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.stores.documents import Patch
from resources.dagster_storage import forget, runs_of
from resources.names import SUBMISSIONS
from resources.platform import PlatformResource
from sensors.arrivals import partitions_to_add, run_key, run_request
from sensors.dead_runs import settle_dead_runs
from sensors.rounds import START, next_part, runs_of_each

MOST_OF_A_STATE = 50
"""Submissions looked at in one tick, of each of two states: so many runs are requested at most."""
MOST_PARTITIONS = 500
"""Partitions looked at in one tick."""
MOST_VAIN_RUNS = 20
"""Runs of a submission that may be killed in a row without a new answer."""
MOST_VAIN_STARTS = 10
"""Runs of a submission that may end before they took it up; then the fault is not with what killed them."""


@dg.sensor(
    name="interrupted_submissions",
    job_name=SUBMISSION_JOB,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Settles runs whose process died, and requests a new run for their submissions.",
)
def interrupted_submissions(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Fail every dead run, and go on with each submission that had a run but has none now."""
    opened = platform.open()
    settled = settle_dead_runs(context.instance, opened)
    places: dict[str, str] = json.loads(context.cursor or "{}")
    again: list[SubmissionRecord] = []
    for state in (State.RUNNING, State.ACCEPTED):
        after = places.get(state.value, START)
        part = next_part(opened.records.submissions, state, after=after, most=MOST_OF_A_STATE)
        places[state.value] = part.end
        idle = [submission for submission in part.submissions if not is_leased(submission)]
        runs = runs_of_each(context.instance, [submission.id for submission in idle])
        for submission in idle:
            counted = _count_interruption(opened, submission, runs[submission.id])
            again.extend([] if counted is None else [counted])
    return dg.SensorResult(
        run_requests=[run_request(submission) for submission in again],
        dynamic_partitions_requests=partitions_to_add(context.instance, again),
        cursor=json.dumps(places),
        skip_reason=None if again else f"nothing to go on with; {settled} dead runs settled",
    )


def _count_interruption(
    platform: Platform, submission: SubmissionRecord, runs: list[dg.RunRecord]
) -> SubmissionRecord | None:
    """Count a run of the submission, without a lease, that was interrupted; None where no other is to follow it.

    `runs` are those that Dagster knows, newest first.
    """
    if any(not record.dagster_run.is_finished for record in runs):
        return None
    if submission.state is State.ACCEPTED:
        return _count_vain_start(platform, submission, runs)
    if runs and _was_terminated(runs[0]) and _is_later(runs[0], submission.started):
        _cancel(platform, submission)
        return None
    if _is_in_vain(platform, submission):
        return None
    return platform.records.submissions.patch(submission.id, Patch(increment={"interruptions": 1}))


def _count_vain_start(
    platform: Platform, submission: SubmissionRecord, runs: list[dg.RunRecord]
) -> SubmissionRecord | None:
    """Count a run that was requested for an accepted submission and ended before it took it up; None if none did.

    Where one run after the other does, the submission fails.
    """
    key = run_key(submission)
    requested = [record for record in runs if record.dagster_run.tags.get(RUN_KEY_TAG) == key]
    if not requested:
        return None
    if _was_terminated(requested[0]):
        _cancel(platform, submission)
        return None
    if submission.vain_starts < MOST_VAIN_STARTS:
        counted = Patch(increment={"interruptions": 1, "vainStarts": 1})
        return platform.records.submissions.patch(submission.id, counted)
    reason = (
        f"{MOST_VAIN_STARTS} runs ended before they began to work; the Dagster UI shows why. "
        f"`./knockem resume {submission.id[:8]}` tries again."
    )
    platform.records.submissions.move(submission.id, State.FAILED, reason=reason, sources=(State.ACCEPTED,))
    return None


def _was_terminated(record: dg.RunRecord) -> bool:
    """Tell whether a user ended the run. One that got a signal without a user's request is failed, not canceled."""
    return record.dagster_run.status is dg.DagsterRunStatus.CANCELED


def _is_later(record: dg.RunRecord, started: str | None) -> bool:
    """Tell whether a run ended after the latest start of its submission: before, the user has resumed it since."""
    return started is None or record.update_timestamp > datetime.fromisoformat(started)


def _cancel(platform: Platform, submission: SubmissionRecord) -> None:
    reason = f"terminated in the Dagster UI; `./knockem resume {submission.id[:8]}` goes on"
    platform.records.submissions.move(
        submission.id, State.CANCELED, reason=reason, sources=(submission.state,), owner=submission.lease.owner
    )


def _is_in_vain(platform: Platform, submission: SubmissionRecord) -> bool:
    """Tell whether one run after the other died without a single new answer; then the submission fails."""
    if submission.counters.submission_num_completed_competitions > submission.completed_before:
        platform.records.submissions.patch(submission.id, Patch(set={"vainRuns": 0}))
        return False
    counted = platform.records.submissions.patch(submission.id, Patch(increment={"vainRuns": 1}))
    if counted is None or counted.vain_runs <= MOST_VAIN_RUNS:
        return False
    reason = (
        f"{MOST_VAIN_RUNS} runs in a row ended before they had one new answer; the Dagster UI shows why. "
        f"`./knockem resume {submission.id[:8]}` tries again."
    )
    platform.records.submissions.move(submission.id, State.FAILED, reason=reason, sources=(State.RUNNING,))
    return True


@dg.sensor(
    name="leftovers",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Removes containers and processes whose run died, and what came back while its submission was purged.",
)
def leftovers(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
    """Remove what runs that died left behind, under every runtime that can be used here, and traces of purges."""
    opened = platform.open()
    removed: list[str] = []
    for name in runtime_names_here():
        try:
            number = asyncio.run(opened.runtime(name).remove_leftovers())
        except ContainerError as error:
            context.log.debug(f"{name}: {error}")
            continue
        removed.append(f"{name}: {number}")
    forgotten, end = _forget_purged(context.instance, opened, after=context.cursor or START)
    removed.append(f"purged submissions: {forgotten}")
    if not opened.records.documents.erase_deleted():
        removed.append("what was deleted stays in the log of the documents while others read them")
    return dg.SensorResult(skip_reason=f"leftovers removed: {', '.join(removed)}", cursor=end)


def _forget_purged(instance: dg.DagsterInstance, platform: Platform, *, after: str) -> tuple[int, str]:
    """Forget submissions that a sensor's tick brought back while they were purged.

    Returns how many there were, and where the next look goes on. Only a partition without a submission on which
    nothing was ever done is taken for one: a record that is missing because a setting is wrong costs no history.
    """
    waiting = (id for id in sorted(instance.get_dynamic_partitions(SUBMISSIONS)) if id > after)
    part = list(islice(waiting, MOST_PARTITIONS))
    known = platform.records.submissions.get_many(part)
    unknown = [id for id in part if id not in known]
    worked_on = instance.get_materialized_partitions(genome.key) if unknown else set[str]()
    purged = [id for id in unknown if id not in worked_on and all(run.is_finished for run in runs_of(instance, id))]
    for id in purged:
        forget(instance, id, of=SUBMISSIONS)
    return len(purged), part[-1] if len(part) == MOST_PARTITIONS else START
