"""Upkeep: dead runs are settled, their submissions go on, living ones are left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from assets.partitions import SUBMISSION_JOB
from knockem_dagster.definitions import build_definitions
from knockem_dagster.records.submissions import State, SubmissionRecord
from resources.names import SUBMISSION_TAG, SUBMISSIONS
from resources.run_processes import PROCESS_TAG, this_process
from sensors.upkeep import interrupted_submissions, leftovers
from tests.services.organisms import write_organism
from tests.services.platforms import platform_of, study, submitted, tick


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_organism(tmp_path / "organisms" / "tiny")
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(tmp_path / "organisms"))
    return tmp_path / "home"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


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
def test_run_on_another_machine_is_judged_by_its_lease(
    home: Path, instance: dg.DagsterInstance, lease_seconds: float, is_settled: bool
) -> None:
    id = running(home, lease_seconds=lease_seconds)
    run = begun(instance, id, process="another-machine 1 1.00")
    assert bool(requested(home, instance)) is is_settled
    assert (status_of(instance, run) is dg.DagsterRunStatus.FAILURE) is is_settled


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
    monkeypatch.setattr("sensors.upkeep.SECONDS_TO_START", -1.0)
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


def test_leftovers_are_looked_for_under_every_runtime_that_is_there(home: Path, instance: dg.DagsterInstance) -> None:
    result = tick(leftovers, home, instance)
    assert isinstance(result, dg.SkipReason)
    assert "leftovers removed: process: " in (result.skip_message or "")
