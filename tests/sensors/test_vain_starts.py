"""A run that ends before it takes its submission up is replaced; when run after run does, the submission fails."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.tags import RUN_KEY_TAG

from assets.partitions import SUBMISSION_JOB
from knockem_dagster.definitions import build_definitions
from knockem_dagster.records.submissions import State, SubmissionRecord
from knockem_dagster.stores.documents import Patch
from resources.names import SUBMISSION_TAG, SUBMISSIONS
from sensors.arrivals import new_submissions
from sensors.upkeep import MOST_VAIN_RUNS, MOST_VAIN_STARTS, interrupted_submissions
from tests.services.organisms import write_organism
from tests.services.platforms import platform_of, study, submitted, tick


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_organism(tmp_path / "organisms" / "tiny")
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(tmp_path / "organisms"))
    return tmp_path / "home"


def requests_of(sensor: dg.SensorDefinition, home: Path, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    result = tick(sensor, home, instance)
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or [])


def run_of(request: dg.RunRequest, instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> None:
    """Record the run that the daemon makes of a request."""
    id = str(request.partition_key)
    instance.add_dynamic_partitions(SUBMISSIONS, [id])
    tags = {SUBMISSION_TAG: id, RUN_KEY_TAG: str(request.run_key)}
    instance.create_run_for_job(build_definitions().resolve_job_def(SUBMISSION_JOB), status=status, tags=tags)


def submission(home: Path, id: str) -> SubmissionRecord:
    platform = platform_of(home)
    found = platform.records.submissions.get(id)
    platform.close()
    return found


def test_run_that_failed_before_it_began_to_work_is_replaced(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study())
    [first] = requests_of(new_submissions, home, instance)
    assert requests_of(interrupted_submissions, home, instance) == []
    run_of(first, instance, dg.DagsterRunStatus.NOT_STARTED)  # has a minute to start
    assert requests_of(interrupted_submissions, home, instance) == []
    instance.delete_run(instance.get_runs()[0].run_id)
    run_of(first, instance, dg.DagsterRunStatus.FAILURE)
    [second] = requests_of(interrupted_submissions, home, instance)
    assert second.partition_key == id
    assert second.run_key != first.run_key
    assert [again.run_key for again in requests_of(new_submissions, home, instance)] == [second.run_key]


def test_submission_whose_runs_never_begin_fails_with_what_to_do(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study())
    [request] = requests_of(new_submissions, home, instance)
    for _ in range(MOST_VAIN_STARTS):
        run_of(request, instance, dg.DagsterRunStatus.FAILURE)
        [request] = requests_of(interrupted_submissions, home, instance)
    run_of(request, instance, dg.DagsterRunStatus.FAILURE)
    assert requests_of(interrupted_submissions, home, instance) == []
    ended = submission(home, id)
    assert ended.state is State.FAILED
    assert f"./knockem resume {id[:8]}" in str(ended.reason)


def test_interruptions_of_work_are_no_vain_starts(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study())
    platform = platform_of(home)
    platform.records.submissions.patch(id, Patch(set={"interruptions": 5 * MOST_VAIN_STARTS}))
    platform.close()
    [request] = requests_of(new_submissions, home, instance)
    run_of(request, instance, dg.DagsterRunStatus.FAILURE)
    assert len(requests_of(interrupted_submissions, home, instance)) == 1
    assert submission(home, id).vain_starts == 1
    platform = platform_of(home)
    platform.records.submissions.note_start(id, completed_before=0)
    platform.close()
    assert submission(home, id).vain_starts == 0


def test_run_terminated_while_it_waits_cancels_its_submission(home: Path, instance: dg.DagsterInstance) -> None:
    id = submitted(home, study())
    [request] = requests_of(new_submissions, home, instance)
    run_of(request, instance, dg.DagsterRunStatus.CANCELED)
    assert requests_of(interrupted_submissions, home, instance) == []
    assert submission(home, id).state is State.CANCELED


def test_submission_whose_runs_die_without_a_new_answer_fails_and_progress_forgives(
    home: Path, instance: dg.DagsterInstance
) -> None:
    id = submitted(home, study())
    platform = platform_of(home)
    submissions = platform.records.submissions
    assert submissions.acquire_lease(id, "a run that is killed", -1) is not None
    for _ in range(MOST_VAIN_RUNS):
        assert len(requests_of(interrupted_submissions, home, instance)) == 1
    submissions.patch(id, Patch(set={"counters.submissionNumCompletedCompetitions": 5, "completedBefore": 4}))
    assert len(requests_of(interrupted_submissions, home, instance)) == 1
    submissions.note_start(id, completed_before=5)
    for _ in range(MOST_VAIN_RUNS):
        assert len(requests_of(interrupted_submissions, home, instance)) == 1
    assert requests_of(interrupted_submissions, home, instance) == []
    ended = submissions.get(id)
    platform.close()
    assert ended.state is State.FAILED
    assert "resume" in (ended.reason or "")
