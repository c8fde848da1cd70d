"""Upkeep: dead runs are settled, their submissions go on, living ones are left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import dagster as dg
import psutil
import pytest

from assets.partitions import SUBMISSION_JOB
from knockem_dagster.definitions import build_definitions
from knockem_dagster.records.submissions import State, SubmissionRecord
from resources.names import SUBMISSION_TAG, SUBMISSIONS
from resources.run_processes import PROCESS_TAG, this_process
from sensors.upkeep import interrupted_submissions
from tests.services.organisms import write_organism
from tests.services.platforms import platform_of, study, submitted, tick
from tests.services.submissions import a_submission

ELSEWHERE = "another-machine 1 1.00"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_organism(tmp_path / "organisms" / "tiny")
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(tmp_path / "organisms"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def dead_process() -> str:
    """The tag of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = psutil.Process(process.pid).create_time()
    return f"{socket.gethostname()} {process.pid} {started:.2f}"


def running(home: Path, *, lease_seconds: float = -1.0, owner: str = "elsewhere:1:run") -> str:
    """Accept a submission and let a run take it up; by default its lease has lapsed."""
    id = submitted(home, study())
    platform = platform_of(home)
    assert platform.records.submissions.acquire_lease(id, owner, lease_seconds) is not None
    platform.close()
    return id


def begun(
    instance: dg.DagsterInstance,
    submission_id: str,
    *,
    process: str | None,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
) -> dg.DagsterRun:
    """Record a run of the submission that names its process, as one does when it starts."""
    instance.add_dynamic_partitions(SUBMISSIONS, [submission_id])
    tags = {SUBMISSION_TAG: submission_id} | ({} if process is None else {PROCESS_TAG: process})
    job = build_definitions().resolve_job_def(SUBMISSION_JOB)
    return instance.create_run_for_job(job, status=status, tags=tags)


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def requested(home: Path, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    result = tick(interrupted_submissions, home, instance)
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or [])


def submission(home: Path, id: str) -> SubmissionRecord:
    platform = platform_of(home)
    found = platform.records.submissions.get(id)
    platform.close()
    return found


def test_run_of_a_dead_process_is_failed_and_its_submission_goes_on(
    home: Path, instance: dg.DagsterInstance, dead_process: str
) -> None:
    id = running(home)
    run = begun(instance, id, process=dead_process)
    [request] = requested(home, instance)
    assert status_of(instance, run) is dg.DagsterRunStatus.FAILURE
    assert (request.partition_key, request.tags[SUBMISSION_TAG]) == (id, id)
    assert submission(home, id).interruptions == 1
    assert submission(home, id).state is State.RUNNING


def test_each_interruption_is_requested_under_a_key_of_its_own(
    home: Path, instance: dg.DagsterInstance, dead_process: str
) -> None:
    id = running(home)
    keys: set[str | None] = set()
    for _ in range(3):
        begun(instance, id, process=dead_process)
        [request] = requested(home, instance)
        keys.add(request.run_key)
    assert len(keys) == 3


def test_run_that_waits_is_not_requested_again(home: Path, instance: dg.DagsterInstance, dead_process: str) -> None:
    id = running(home)
    begun(instance, id, process=dead_process)
    assert len(requested(home, instance)) == 1
    begun(instance, id, process=None, status=dg.DagsterRunStatus.NOT_STARTED)
    assert requested(home, instance) == []


def test_run_of_a_living_process_is_left_alone(home: Path, instance: dg.DagsterInstance) -> None:
    id = running(home)
    run = begun(instance, id, process=this_process())
    assert requested(home, instance) == []
    assert status_of(instance, run) is dg.DagsterRunStatus.STARTED


def test_process_number_used_again_is_another_process(home: Path, instance: dg.DagsterInstance) -> None:
    id = running(home)
    run = begun(instance, id, process=f"{socket.gethostname()} {os.getpid()} 1.00")
    assert len(requested(home, instance)) == 1
    assert status_of(instance, run) is dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize(("lease_seconds", "is_settled"), [(600.0, False), (-1.0, True)])
def test_run_on_another_machine_is_judged_by_the_lease_it_holds(
    home: Path, instance: dg.DagsterInstance, lease_seconds: float, is_settled: bool
) -> None:
    id = submitted(home, study())
    run = begun(instance, id, process=ELSEWHERE)
    platform = platform_of(home)
    platform.records.submissions.acquire_lease(id, f"another-machine:1:{run.run_id}", lease_seconds)
    platform.close()
    assert bool(requested(home, instance)) is is_settled
    assert (status_of(instance, run) is dg.DagsterRunStatus.FAILURE) is is_settled


@pytest.mark.parametrize("is_begun", [False, True], ids=["before it takes the lease", "after it gave it back"])
def test_run_on_another_machine_without_the_lease_is_dead_after_a_long_silence(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, is_begun: bool
) -> None:
    id = running(home, owner="") if is_begun else submitted(home, study())
    run = begun(instance, id, process=ELSEWHERE)
    assert requested(home, instance) == []
    assert status_of(instance, run) is dg.DagsterRunStatus.STARTED
    monkeypatch.setattr("sensors.dead_runs.SECONDS_OF_SILENCE", -1.0)
    requested(home, instance)
    assert status_of(instance, run) is dg.DagsterRunStatus.FAILURE


def test_run_of_no_submission_on_another_machine_is_dead_after_a_long_silence(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = build_definitions().resolve_job_def("retention")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: ELSEWHERE})
    requested(home, instance)
    assert status_of(instance, run) is dg.DagsterRunStatus.STARTED
    monkeypatch.setattr("sensors.dead_runs.SECONDS_OF_SILENCE", -1.0)
    requested(home, instance)
    assert status_of(instance, run) is dg.DagsterRunStatus.FAILURE


def test_lease_of_a_dead_run_is_freed_at_once(home: Path, instance: dg.DagsterInstance, dead_process: str) -> None:
    id = submitted(home, study())
    run = begun(instance, id, process=dead_process)
    platform = platform_of(home)
    assert platform.records.submissions.acquire_lease(id, f"here:1:{run.run_id}", 600) is not None
    platform.close()
    assert [request.partition_key for request in requested(home, instance)] == [id]
    assert submission(home, id).lease.owner == ""


def test_run_that_never_named_its_process_has_a_minute_to(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = running(home)
    run = begun(instance, id, process=None)
    assert requested(home, instance) == []
    assert status_of(instance, run) is dg.DagsterRunStatus.STARTED
    monkeypatch.setattr("sensors.dead_runs.SECONDS_TO_START", -1.0)
    assert len(requested(home, instance)) == 1
    assert status_of(instance, run) is dg.DagsterRunStatus.FAILURE


def test_running_submission_without_any_run_goes_on(home: Path, instance: dg.DagsterInstance) -> None:
    id = running(home)
    result = tick(interrupted_submissions, home, instance)
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests or []] == [id]
    assert [added.partition_keys for added in result.dynamic_partitions_requests or []] == [[id]]


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED, State.CANCELED])
def test_submission_that_is_over_stays_over(
    home: Path, instance: dg.DagsterInstance, dead_process: str, state: State
) -> None:
    id = running(home)
    run = begun(instance, id, process=dead_process)
    platform = platform_of(home)
    platform.records.submissions.move(id, state, sources=(State.RUNNING,))
    platform.close()
    assert requested(home, instance) == []
    assert status_of(instance, run) is dg.DagsterRunStatus.FAILURE


def test_running_submissions_beyond_a_tick_go_on_in_the_next(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensors.upkeep.MOST_OF_A_STATE", 2)
    platform = platform_of(home)
    ids = {f"{number:08x}" for number in range(5)}
    for id in ids:
        platform.records.submissions.add(a_submission(state=State.RUNNING).model_copy(update={"id": id}))
    platform.close()
    asked: set[str | None] = set()
    cursor = None
    for _ in range(3):
        result = tick(interrupted_submissions, home, instance, cursor=cursor)
        assert isinstance(result, dg.SensorResult)
        assert len(result.run_requests or []) <= 2
        asked |= {request.partition_key for request in result.run_requests or []}
        cursor = result.cursor
    assert asked == ids


def test_run_terminated_by_a_user_cancels_its_submission(home: Path, instance: dg.DagsterInstance) -> None:
    id = running(home)
    run = begun(instance, id, process=this_process())
    instance.report_run_canceling(run)
    assert requested(home, instance) == []
    assert submission(home, id).state is State.RUNNING
    instance.report_run_canceled(run)
    assert requested(home, instance) == []
    ended = submission(home, id)
    assert ended.state is State.CANCELED
    assert ended.reason == f"terminated in the Dagster UI; `./knockem resume {id[:8]}` goes on"


def test_termination_before_a_resumption_does_not_cancel_again(home: Path, instance: dg.DagsterInstance) -> None:
    id = running(home)
    instance.report_run_canceled(begun(instance, id, process=this_process()))
    assert requested(home, instance) == []
    platform = platform_of(home)
    assert platform.records.submissions.reopen(id)
    platform.close()
    assert requested(home, instance) == []
    assert submission(home, id).state is State.ACCEPTED
    platform = platform_of(home)
    platform.records.submissions.acquire_lease(id, "elsewhere:1:run", -1.0)
    platform.records.submissions.note_start(id, completed_before=0)
    platform.close()
    assert [request.partition_key for request in requested(home, instance)] == [id]
    assert submission(home, id).state is State.RUNNING


def test_run_that_only_got_a_signal_goes_on(home: Path, instance: dg.DagsterInstance) -> None:
    id = running(home)
    instance.report_run_failed(begun(instance, id, process=this_process()), "Execution was interrupted unexpectedly.")
    assert [request.partition_key for request in requested(home, instance)] == [id]
