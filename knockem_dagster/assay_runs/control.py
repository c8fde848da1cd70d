"""Stopping a submission and taking it up again, from whatever process the user is in."""

from __future__ import annotations

import asyncio
import time

from knockem_dagster.assay_runs.platform import Platform
from knockem_dagster.assay_runs.status import is_leased
from knockem_dagster.errors import KnockemError, SubmissionBusy
from knockem_dagster.records.submissions import State, SubmissionRecord

CANCEL_SECONDS = 8.0
"""How long a cancellation waits for the run to notice; containers are killed at once and again until it has."""
_LOOK_SECONDS = 0.2


async def cancel(platform: Platform, submission: SubmissionRecord, *, reason: str = "canceled by the user") -> int:
    """Cancel a submission, end its containers, and wait until its run has let go; return how many were ended.

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


async def end_containers(platform: Platform, submission: SubmissionRecord) -> int:
    """End a submission's containers until its run has let go, at most CANCEL_SECONDS; return how many were ended.

    A run that has not noticed yet may start one more container after each look, hence the repetition.
    """
    runtime = platform.runtime(submission.container_runtime)
    deadline = time.monotonic() + CANCEL_SECONDS
    ended = await runtime.remove_leftovers(submission.id)
    while time.monotonic() < deadline:
        current = await asyncio.to_thread(platform.records.submissions.find_one, submission.id)
        if current is None or not is_leased(current):
            break
        await asyncio.sleep(_LOOK_SECONDS)
        ended += await runtime.remove_leftovers(submission.id)
    return ended + await runtime.remove_leftovers(submission.id)


def resume(platform: Platform, submission: SubmissionRecord) -> SubmissionRecord:
    """Open a failed, canceled or interrupted submission again: what is recorded is kept, the rest is asked.

    Raises SubmissionBusy while a run works on it, KnockemError when it is completed.
    """
    if submission.state is State.COMPLETED:
        raise KnockemError(
            f"Submission {submission.id} is completed; `./knockem report {submission.id[:8]}` shows its report. "
            "To repeat the study, submit its file with another seed."
        )
    if is_leased(submission):
        raise SubmissionBusy(
            f"A run works on submission {submission.id}; `./knockem status {submission.id[:8]}` shows how far it is."
        )
    submissions = platform.records.submissions
    submissions.reopen(submission.id)
    return submissions.get(submission.id)
