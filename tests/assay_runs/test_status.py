"""What is told of a submission and of its attempts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.assay_runs.status import attempt_logs, expected_total, is_leased, submission_status
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import CountersValue, LeaseValue, State
from knockem_dagster.settings import load_settings
from tests.services.submissions import a_submission, store_with_competitions


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform(load_settings(home=tmp_path))
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.COMPLETED, 0), (State.FAILED, 1), (State.CANCELED, 1), (State.RUNNING, 3), (State.ACCEPTED, 3)],
)
def test_exit_code_follows_the_state(platform: Platform, state: State, code: int) -> None:
    submission = a_submission(state=state)
    assert submission_status(platform.records, submission).exit_code == code


def test_losses_are_counted_by_outcome(platform: Platform) -> None:
    submission = a_submission()
    store_with_competitions(platform.records, submission, answered=5, failed=2)
    assert submission_status(platform.records, submission).attempts == {"succeeded": 5, "failed": 2}


def test_rate_and_time_left_come_from_the_start(platform: Platform) -> None:
    counters = CountersValue(submission_num_completed_competitions=100)
    times = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:10+00:00"}
    lease = LeaseValue(owner="a run", until=4e9)
    running = a_submission(state=State.RUNNING, lease=lease, counters=counters, expected_competitions=150, **times)
    status = submission_status(platform.records, running)
    assert (status.rate, status.seconds_left) == (10.0, 5.0)
    done = submission_status(platform.records, running.model_copy(update={"state": State.COMPLETED}))
    assert (done.total, done.seconds_left) == (100, None)


def test_total_is_what_was_asked_when_that_is_more_than_expected() -> None:
    counters = CountersValue(submission_num_completed_competitions=90, submission_num_pending_competitions=20)
    assert expected_total(a_submission(counters=counters, expected_competitions=100)) == 110


def test_a_lease_counts_only_while_it_lasts() -> None:
    assert is_leased(a_submission(lease=LeaseValue(owner="x", until=1e12)))
    assert not is_leased(a_submission(lease=LeaseValue(owner="x", until=1.0)))
    assert not is_leased(a_submission())


def test_logs_of_failed_attempts_tell_command_cause_and_last_words(platform: Platform) -> None:
    submission = a_submission()
    store_with_competitions(platform.records, submission, answered=4, failed=1)
    store_with_competitions(platform.records, a_submission("other"), answered=0, failed=3)
    (log,) = attempt_logs(platform.records, submission, failed_only=True, limit=10)
    assert (log.command, log.outcome, log.exit_code, log.tail) == ("knockem_compete_two", "failed", 3, "out of luck")
    assert (log.assay_type, log.purpose, log.number) == ("nulldist", "null", 1)
    assert len(attempt_logs(platform.records, submission, failed_only=False, limit=3)) == 3
