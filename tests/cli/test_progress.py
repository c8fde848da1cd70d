"""What people see of a submission's progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.cli import progress
from knockem_dagster.cli.progress import Observer, ProgressView
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import CountersValue, LeaseValue, State, SubmissionRecord
from knockem_dagster.settings import load_settings
from tests.services.submissions import a_submission


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform(load_settings(home=tmp_path))
    yield opened
    opened.close()


def at_work(done: int, *, expected: int = 1000) -> SubmissionRecord:
    return a_submission(
        state=State.RUNNING,
        lease=LeaseValue(owner="somebody", until=1e12),
        expected_competitions=expected,
        counters=CountersValue(
            submission_num_completed_assays=1,
            submission_num_active_assays=1,
            submission_num_pending_assays=2,
            submission_num_completed_competitions=done,
        ),
    )


def test_rate_and_time_left_come_from_the_last_readings() -> None:
    observer = Observer()
    assert observer.see(at_work(0), 0.0).rate is None
    sight = observer.see(at_work(100), 10.0)
    assert sight.rate == 10.0
    assert sight.numbers == "100 of about 1,000 competitions, 10/s, about 1 min 30 s left"
    assert sight.what == "assay 2 of 4"


def test_old_readings_are_forgotten() -> None:
    observer = Observer()
    for second in range(100):
        sight = observer.see(at_work(second if second < 50 else 50 + 5 * (second - 50)), float(second))
    assert sight.rate == pytest.approx(5.0)


def test_a_count_that_falls_back_gives_no_negative_rate() -> None:
    observer = Observer()
    observer.see(at_work(500), 0.0)
    assert observer.see(at_work(100), 5.0).rate is None


def test_more_competitions_than_expected_raise_the_total() -> None:
    assert Observer().see(at_work(1500), 0.0).total == 1500


def test_progress_is_written_in_lines_where_nothing_can_be_redrawn(
    platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    submission = at_work(7)
    platform.records.submissions.add(submission)
    lines = ""
    with ProgressView(platform, submission.id):
        while lines.count("\n") < 3:
            lines += capsys.readouterr().err
    assert lines.startswith("assay 2 of 4: 7 of about 1,000 competitions")
