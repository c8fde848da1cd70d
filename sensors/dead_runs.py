"""Runs that are unfinished in Dagster's eyes but have no process any more.

Dagster's own run monitoring looks after runs in containers and pods only. A run that was killed with
its process would stay "started" for ever; here the missing process, the lapsed lease of its submission,
or a long silence tells that it is dead.
"""

import time

import dagster as dg

from knockem_dagster.assay_runs.status import is_leased
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import SubmissionRecord
from resources.run_processes import Life, life_of
from sensors.rounds import submission_of

UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,  # for good, if the daemon died between making a run and queueing it
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
SECONDS_TO_START = 60.0
"""How long a run may take to name its process."""
SECONDS_OF_SILENCE = 3600.0
"""How long a run on another machine may go without news and without a lease: before it takes one, and after."""


def settle_dead_runs(instance: dg.DagsterInstance, platform: Platform) -> int:
    """Report every run as failed whose process is gone; return how many there were."""
    settled = 0
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        run = record.dagster_run
        submission = platform.records.submissions.find_one(submission_of(run) or "")
        if is_dead(record, submission):
            instance.report_run_failed(
                run, "The process of this run ended without a word: it was killed, or the machine went down."
            )
            if submission is not None and _holds_lease(run, submission):
                # Freed, so that nobody waits for the lease to lapse.
                platform.records.submissions.release_lease(submission.id, submission.lease.owner)
            settled += 1
    return settled


def is_dead(record: dg.RunRecord, submission: SubmissionRecord | None) -> bool:
    """Tell whether an unfinished run, of this submission or of none, has no process any more.

    A run on this machine is judged by its process. One elsewhere is judged by its lease while it holds
    one, and else by how long it has been silent. One that never came to name its process has a minute to.
    """
    life = life_of(record.dagster_run)
    if life is Life.UNKNOWN:
        return _seconds_of_silence(record) > SECONDS_TO_START
    if life is not Life.ELSEWHERE:
        return life is Life.GONE
    if submission is not None and _holds_lease(record.dagster_run, submission):
        return not is_leased(submission)
    return _seconds_of_silence(record) > SECONDS_OF_SILENCE


def _holds_lease(run: dg.DagsterRun, submission: SubmissionRecord) -> bool:
    """Tell whether the submission's lease, lapsed or not, names this run."""
    return submission.lease.owner.endswith(f":{run.run_id}")


def _seconds_of_silence(record: dg.RunRecord) -> float:
    return time.time() - record.update_timestamp.timestamp()
