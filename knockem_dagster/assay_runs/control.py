"""Stopping a submission and taking it up again, from whatever process the user is in."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from knockem_dagster.assay_runs.status import is_leased
from knockem_dagster.errors import ContainerError, KnockemError, QueueAway, SubmissionBusy
from knockem_dagster.jobs.opening import take_out
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State, SubmissionRecord

CANCEL_SECONDS = 8.0
"""How long a cancellation waits for the run to notice; containers are killed at once and again until it has."""
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class EndedContainers:
    """How many containers were ended on this machine, and why none could be looked for, if so."""

    number: int
    unseen: str | None = None


async def cancel(
    platform: Platform, submission: SubmissionRecord, *, reason: str = "canceled by the user"
) -> EndedContainers:
    """Cancel a submission, end its containers, and wait until its run has let go.

    Raises KnockemError when the submission is over already.
    """
    moved = await asyncio.to_thread(
        platform.records.submissions.move,
        submission.id,
        State.CANCELED,
        reason=reason,
        sources=(State.ACCEPTED, State.RUNNING),
    )
    if not moved:
        current = await asyncio.to_thread(platform.records.submissions.get, submission.id)
        raise KnockemError(f"Submission {submission.id} is {current.state.value} already; there is nothing to cancel.")
    return await end_containers(platform, submission)


async def end_containers(platform: Platform, submission: SubmissionRecord) -> EndedContainers:
    """End a submission's containers until its run has let go, at most CANCEL_SECONDS.

    A run that has not noticed yet may start one more container after each look, hence the repetition. A
    machine without the submission's runtime still waits for the run, which is on another one.
    """
    deadline = time.monotonic() + CANCEL_SECONDS
    ended = 0
    with contextlib.suppress(QueueAway):  # then upkeep takes its jobs out
        await take_out(platform, submission.id)
    while True:
        current = await asyncio.to_thread(platform.records.submissions.find_one, submission.id)
        is_over = current is None or not is_leased(current) or time.monotonic() > deadline
        unseen: str | None = None
        try:
            ended += await platform.runtime(submission.container_runtime).remove_leftovers(submission.id)
        except ContainerError as error:
            unseen = str(error)
        if is_over:
            return EndedContainers(ended, unseen)
        await asyncio.sleep(_LOOK_SECONDS)


def resume(platform: Platform, submission: SubmissionRecord) -> SubmissionRecord:
    """Open a failed, canceled or interrupted submission again: what is recorded is kept, the rest is asked.

    Raises SubmissionBusy while a run works on it, KnockemError when it is completed.
    """
    if submission.state is State.COMPLETED:
        raise KnockemError(
            f"Submission {submission.id} is completed; `./knockem report {submission.id[:8]}` shows its report. "
            "To ask more of it, `./knockem extend` it; to repeat the study, submit its file with another seed."
        )
    if is_leased(submission):
        raise SubmissionBusy(
            f"A run works on submission {submission.id}; `./knockem status {submission.id[:8]}` shows how far it is."
        )
    submissions = platform.records.submissions
    submissions.reopen(submission.id)
    return submissions.get(submission.id)
