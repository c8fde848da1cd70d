"""Upkeep: runs whose process died are settled, their submissions go on, and leftovers are removed.

Dagster's own run monitoring looks after runs in containers and pods only. A run that was killed with
its process would stay "started" for ever; here the lapsed lease of its submission, or the missing
process, tells that it is dead.
"""

import asyncio
import time

import dagster as dg
from dagster._core.storage.tags import RUN_KEY_TAG

from assets.partitions import SUBMISSION_JOB, submissions
from knockem_dagster.assay_runs.platform import Platform
from knockem_dagster.errors import ContainerError
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.stores.documents import Patch
from resources.names import SUBMISSION_TAG
from resources.platform import PlatformResource
from resources.run_processes import Life, life_of
from sensors.arrivals import run_request

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,  # for good, if the daemon died between making a run and queueing it
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
WAITING = dg.DagsterRunStatus.QUEUED
SECONDS_TO_START = 60.0
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
    requests: list[dg.RunRequest] = []
    new: list[str] = []
    known = set(context.instance.get_dynamic_partitions(submissions.name or ""))
    for submission in opened.records.submissions.find({"state": {"$in": [State.ACCEPTED.value, State.RUNNING.value]}}):
        if _is_worked_on(context.instance, submission):
            continue
        if submission.state is State.ACCEPTED and not _came_to_nothing(context.instance, opened, submission):
            continue
        if submission.state is State.RUNNING and _is_in_vain(opened, submission):
            continue
        again = opened.records.submissions.patch(submission.id, Patch(increment={"interruptions": 1}))
        if again is not None:
            requests.append(run_request(again))
            new.extend([submission.id] if submission.id not in known else [])
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[submissions.build_add_request(new)] if new else [],
        skip_reason=None if requests else f"nothing to go on with; {settled} dead runs settled",
    )


def settle_dead_runs(instance: dg.DagsterInstance, platform: Platform) -> int:
    """Report every run as failed whose process is gone; return how many there were."""
    settled = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if is_dead(instance, platform, run):
            instance.report_run_failed(
                run, "The process of this run ended without a word: it was killed, or the machine went down."
            )
            _release_lease_of(run, platform)
            settled += 1
    return settled


def _release_lease_of(run: dg.DagsterRun, platform: Platform) -> None:
    """Free the submission that a dead run held, so that nobody waits for the lease to lapse."""
    submission = platform.records.submissions.find_one(run.tags.get(SUBMISSION_TAG, ""))
    if submission is not None and submission.lease.owner.endswith(f":{run.run_id}"):
        platform.records.submissions.release_lease(submission.id, submission.lease.owner)


def is_dead(instance: dg.DagsterInstance, platform: Platform, run: dg.DagsterRun) -> bool:
    """Tell whether a run is unfinished in Dagster's eyes but has no process any more.

    A run on this machine is judged by its process, one elsewhere by the lease of its submission. One
    that never came to name its process has a minute to do so.
    """
    life = life_of(run)
    if life is Life.UNKNOWN:
        return _seconds_since_update(instance, run) > SECONDS_TO_START
    if life is not Life.ELSEWHERE:
        return life is Life.GONE
    submission = platform.records.submissions.find_one(run.tags.get(SUBMISSION_TAG, ""))
    return submission is not None and not _lease_is_live(submission)


def _seconds_since_update(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float:
    record = instance.get_run_record_by_id(run.run_id)
    return 0.0 if record is None else time.time() - record.update_timestamp.timestamp()


def _lease_is_live(submission: SubmissionRecord) -> bool:
    return submission.lease.until > time.time()


def _is_worked_on(instance: dg.DagsterInstance, submission: SubmissionRecord) -> bool:
    """Tell whether somebody holds the lease, or a run for it is waiting or under way."""
    if _lease_is_live(submission):
        return True
    active = dg.RunsFilter(tags={SUBMISSION_TAG: submission.id}, statuses=[*UNFINISHED, WAITING])
    return bool(instance.get_runs(active, limit=1))


def _came_to_nothing(instance: dg.DagsterInstance, platform: Platform, submission: SubmissionRecord) -> bool:
    """Tell whether the run that was requested for an accepted submission ended before it took it up.

    Where one run after the other does, the submission fails.
    """
    if not instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: str(run_request(submission).run_key)}), limit=1):
        return False
    if submission.interruptions < MOST_VAIN_STARTS:
        return True
    reason = (
        f"{MOST_VAIN_STARTS} runs ended before they began to work; the Dagster UI shows why. "
        f"`./knockem resume {submission.id[:8]}` tries again."
    )
    platform.records.submissions.move(submission.id, State.FAILED, reason=reason, sources=(State.ACCEPTED,))
    return False


def _is_in_vain(platform: Platform, submission: SubmissionRecord) -> bool:
    """Tell whether one run after the other died without a single new answer; then the submission fails."""
    if submission.counters.submission_num_completed_competitions > submission.completed_before:
        platform.records.submissions.patch(submission.id, Patch(set={"vainRuns": 0}))
        return False
    counted = platform.records.submissions.patch(submission.id, Patch(increment={"vainRuns": 1}))
    if counted is None or counted.vain_runs <= MOST_VAIN_RUNS:
        return False
    reason = (
        f"{MOST_VAIN_RUNS} runs in a row were killed before they had one new answer; is the machine short of memory? "
        f"`./knockem resume {submission.id[:8]}` tries again."
    )
    platform.records.submissions.move(submission.id, State.FAILED, reason=reason, sources=(State.RUNNING,))
    return True


@dg.sensor(
    name="leftovers",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Removes containers and processes whose run died.",
)
def leftovers(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SkipReason:
    """Remove what runs that died left behind, under every runtime that can be used here."""
    opened = platform.open()
    removed: list[str] = []
    for name in ("process", "docker"):
        try:
            number = asyncio.run(opened.runtime(name).remove_leftovers())
        except ContainerError as error:
            context.log.debug(f"{name}: {error}")
            continue
        removed.append(f"{name}: {number}")
    return dg.SkipReason(f"leftovers removed: {', '.join(removed)}")
