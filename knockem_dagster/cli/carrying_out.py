"""Bringing a submission to its end: in this process, or by waiting for the daemon that works on it."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import typer

from knockem_dagster.assay_runs.platform import Platform
from knockem_dagster.assay_runs.status import is_leased
from knockem_dagster.cli.progress import ProgressView
from knockem_dagster.cli.terminal import INTERRUPTED, aside, short
from knockem_dagster.errors import SubmissionBusy
from knockem_dagster.records.submissions import State, SubmissionRecord

LOOK_SECONDS = 0.5
DAEMON_LOOKS = 10
"""Every how manieth look asks whether a daemon still runs."""


def daemon_is_running(platform: Platform) -> bool:
    """Tell whether a daemon will take submissions up."""
    from knockem_dagster import definitions  # here, because importing Dagster takes more than a second

    return definitions.daemon_is_running(platform.settings)


def carry_through(platform: Platform, submission_id: str, *, again: str) -> SubmissionRecord:
    """Run a submission here, or wait for whoever runs it; show progress; return it as it is at its end.

    `again` is the command that goes on with it, told when the user interrupts, which exits 130.
    """
    with _interruptible(platform, submission_id, again), ProgressView(platform, submission_id):
        while not (submission := platform.records.submissions.get(submission_id)).state.is_final:
            if is_leased(submission) or daemon_is_running(platform):
                _wait(platform, submission_id)
            else:
                _run_here(platform, submission_id)
    return submission


def tell_end(submission: SubmissionRecord) -> None:
    """Say on standard error how a submission ended and what to do next."""
    id = short(submission.id)
    if submission.state is State.COMPLETED:
        aside().print(f"Submission {id} is completed. `./knockem report {id}` shows its report.", soft_wrap=True)
    else:
        reason = submission.reason or "no reason is recorded"
        aside().print(f"Submission {id} is {submission.state.value}: {reason}", markup=False, soft_wrap=True)
        aside().print(
            f"`./knockem logs {id} --failed` shows what went wrong; `./knockem resume {id}` goes on with it.",
            soft_wrap=True,
        )


def _run_here(platform: Platform, submission_id: str) -> None:
    from knockem_dagster import definitions  # here, because importing Dagster takes more than a second

    logging.getLogger("dagster").setLevel(logging.WARNING)
    try:
        definitions.run_submission(platform.settings, submission_id)
    except SubmissionBusy:
        _wait(platform, submission_id)  # another run was quicker; carry_through looks what comes of it


def _wait(platform: Platform, submission_id: str) -> None:
    """Wait until the submission is over or nobody works on it, a few seconds at least."""
    for _ in range(DAEMON_LOOKS):
        time.sleep(LOOK_SECONDS)
        submission = platform.records.submissions.get(submission_id)
        if submission.state.is_final:
            return


@contextmanager
def _interruptible(platform: Platform, submission_id: str, again: str) -> Generator[None]:
    """Turn Ctrl-C and SIGTERM into an orderly end: whatever the run makes of it, the user hears how to go on."""
    signalled: list[int] = []

    def note(number: int, _frame: FrameType | None) -> NoReturn:
        signalled.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException as error:
        interrupted = signalled or isinstance(error, KeyboardInterrupt) or _by_dagster(error)
        if not interrupted:
            raise
        aside().print(f"\nInterrupted. What is recorded is kept; `{again}` goes on with it.", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _by_dagster(error: BaseException) -> bool:
    return type(error).__name__ == "DagsterExecutionInterruptedError"
