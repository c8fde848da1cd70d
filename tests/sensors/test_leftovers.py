"""What runs and purges leave behind is removed, and nothing that is still needed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import SUBMISSION_JOB
from knockem_dagster.containers.marked_processes import MARK, mark_of
from knockem_dagster.containers.owners import current_owner
from knockem_dagster.definitions import build_definitions
from resources.dagster_storage import runs_of
from resources.names import SUBMISSION_TAG, SUBMISSIONS
from sensors.upkeep import leftovers
from tests.services.organisms import serving, write_organism
from tests.services.platforms import platform_of, run_in_dagster, study, submitted, tick

PURGED = "0badc0de-0000-5000-8000-000000000000"
NAME_OWNER = "from knockem_dagster.containers.owners import current_owner; print(current_owner())"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_organism(tmp_path / "organisms" / "tiny", {"knockem_serve": serving("pass")})
    monkeypatch.setenv("KNOCKEM_ENVIRONMENT", "testing")
    monkeypatch.setenv("KNOCKEM_ORGANISMS", str(tmp_path / "organisms"))
    return tmp_path / "home"


def said(home: Path, instance: dg.DagsterInstance) -> str:
    """Evaluate the sensor once and return what it tells."""
    result = tick(leftovers, home, instance)
    assert isinstance(result, dg.SensorResult)
    assert result.skip_reason is not None
    return result.skip_reason.skip_message or ""


def started(owner: str) -> subprocess.Popen[str]:
    """Start a process that bears the owner's mark, and wait until it does."""
    environment = {MARK: mark_of(owner, 1, "a submission")}
    process = subprocess.Popen(["/bin/sh", "-c", "echo; exec sleep 600"], env=environment, stdout=-1, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_process_of_a_dead_owner_is_ended_and_that_of_a_living_one_is_not(
    home: Path, instance: dg.DagsterInstance
) -> None:
    dead = subprocess.run([sys.executable, "-c", NAME_OWNER], capture_output=True, text=True, check=True).stdout.strip()
    with started(dead) as left, started(str(current_owner())) as needed:
        assert "process: 1" in said(home, instance)
        assert left.wait(timeout=10) == -9
        assert needed.poll() is None
        needed.kill()


def requested_too_late(instance: dg.DagsterInstance, *, status: dg.DagsterRunStatus) -> None:
    """Do what a tick under way does after its submission was purged: add the partition, make the run."""
    instance.add_dynamic_partitions(SUBMISSIONS, [PURGED])
    job = build_definitions().resolve_job_def(SUBMISSION_JOB)
    instance.create_run_for_job(job, status=status, tags={SUBMISSION_TAG: PURGED})


def test_partition_that_came_back_after_a_purge_is_forgotten_once_its_run_is_over(
    home: Path, instance: dg.DagsterInstance
) -> None:
    id = submitted(home, study())
    instance.add_dynamic_partitions(SUBMISSIONS, [id])
    requested_too_late(instance, status=dg.DagsterRunStatus.STARTED)
    assert "purged submissions: 0" in said(home, instance)
    [run] = runs_of(instance, PURGED)
    instance.report_run_failed(run)
    assert "purged submissions: 1" in said(home, instance)
    assert instance.get_dynamic_partitions(SUBMISSIONS) == [id]
    assert runs_of(instance, PURGED) == []


def test_history_of_a_submission_that_is_missing_from_the_record_is_kept(home: Path, tmp_path: Path) -> None:
    id = submitted(home, study(assayTypes=["nulldist"]))
    with dg.DagsterInstance.local_temp() as instance:
        assert run_in_dagster(home, instance, id).success
        assert "purged submissions: 0" in said(tmp_path / "another home", instance)
        assert instance.has_dynamic_partition(SUBMISSIONS, id)
        assert len(runs_of(instance, id)) == 1
    platform_of(home).close()


def test_what_was_deleted_while_somebody_reads_is_erased_later(home: Path, instance: dg.DagsterInstance) -> None:
    submitted(home, study())
    platform = platform_of(home)
    with closing(sqlite3.connect(platform.settings.folder / "documents.sqlite")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM submissions").fetchone()
        platform.records.documents.delete("submissions", {})
        assert "stays in the log" in said(home, instance)
    assert "stays in the log" not in said(home, instance)
    platform.close()
