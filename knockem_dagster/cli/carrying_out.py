"""Bringing a submission to its end: in this process, or by waiting for the daemon that works on it."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import typer

from knockem_dagster.assay_runs.status import is_leased
from knockem_dagster.cli.progress import ProgressView
from knockem_dagster.cli.terminal import INTERRUPTED, aside, short
from knockem_dagster.cli.up_lock import is_up
from knockem_dagster.errors import KnockemError
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State, SubmissionRecord

LOOK_SECONDS = 0.5
DAEMON_LOOKS = 10
"""Every how manieth look asks whether a daemon still runs."""


def daemon_is_running(platform: Platform) -> bool:
    """Tell whether a daemon will take submissions up: that of `up` here, or one that shares a served record."""
    if is_up(platform.settings):
        return True
    if platform.settings.documents_url is None:
        return False
    from knockem_dagster import definitions  # here, because importing Dagster takes more than a second

    return definitions.daemon_is_running(platform.settings)


def carry_through(platform: Platform, submission_id: str, *, again: str) -> SubmissionRecord:
    """Run a submission here, or wait for whoever runs it; show progress; return it as it is at its end.

    `again` is the command that goes on with it, told when the user interrupts, which exits 130.
    """
    with _interruptible(again), ProgressView(platform, submission_id):
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
    except KnockemError:
        # How it ended is recorded, and the caller reads it there; or another run was quicker and goes on.
        submission = platform.records.submissions.get(submission_id)
        if not submission.state.is_final and not is_leased(submission):
            raise


def _wait(platform: Platform, submission_id: str) -> None:
    """Wait until the submission is over or nobody works on it, a few seconds at least."""
    for _ in range(DAEMON_LOOKS):
        time.sleep(LOOK_SECONDS)
        submission = platform.records.submissions.get(submission_id)
        if submission.state.is_final:
            return


@contextmanager
def _interruptible(again: str) -> Generator[None]:
    """Turn Ctrl-C and SIGTERM into an orderly end with exit code 130, and tell the user how to go on."""
    with _noticed_signals() as noticed:
        try:
            yield
        except BaseException as error:
            if not noticed() and not isinstance(error, KeyboardInterrupt):
                raise
            aside().print(f"\nInterrupted. What is recorded is kept; `{again}` goes on with it.", soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _noticed_signals() -> Generator[Callable[[], bool]]:
    """Give a function that tells whether SIGINT or SIGTERM came while the block lasted.

    Dagster handles both itself while a run executes and turns them into errors of its own, so handlers of ours
    would not hear of them; the wake-up descriptor is told of every signal, whoever handles it.
    """
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        descriptor = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)

        def noticed() -> bool:
            try:
                return bool({signal.SIGINT, signal.SIGTERM} & set(here.recv(1024)))
            except BlockingIOError:
                return False

        try:
            yield noticed
        finally:
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGTERM, before)
