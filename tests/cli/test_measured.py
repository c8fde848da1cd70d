"""What was measured is offered to whoever submits again, and never in the way of a submission."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from knockem_dagster.cli.measured import measured_of, offer
from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.joblogs.instances import PLATFORM
from knockem_dagster.joblogs.own_jobs import archive_own_jobs, own_instance
from knockem_dagster.joblogs.tool_names import COMMAND
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import ResourcesValue
from knockem_dagster.stores.documents import Patch
from tests.joblogs.test_own_jobs import a_workflow, ran
from tests.services.job_play import record_in

TOOL = ("python fit.py", COMMAND)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    nobody = "postgresql://someone@127.0.0.1:1/nothing"
    with record_in(tmp_path / "home", warehouse_url=nobody) as opened:
        yield opened


def run_20_jobs(platform: Platform) -> None:
    workflow = a_workflow(platform)
    for number in range(20):
        ran(platform, workflow, number)


def test_the_second_submission_is_offered_what_the_first_used_without_daemon_or_warehouse(platform: Platform) -> None:
    assert measured_of(platform, [TOOL], anew=False) == {}
    run_20_jobs(platform)
    assert measured_of(platform, [TOOL], anew=False)[TOOL].jobs == 20
    run_20_jobs(platform)
    assert measured_of(platform, [TOOL], anew=True)[TOOL].jobs == 40


@pytest.mark.parametrize("much", ["FEW_REPORTS", "FEW_TRIES", "KNOWN_JOBS", "KNOWN_REPORTS"])
def test_who_asks_for_nothing_waits_for_little(platform: Platform, much: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_20_jobs(platform)
    measured_of(platform, [TOOL], anew=True)
    run_20_jobs(platform)
    monkeypatch.setattr(f"knockem_dagster.joblogs.own_jobs.{much}", 0)
    assert measured_of(platform, [TOOL], anew=False)[TOOL].jobs == 20
    assert len(list(platform.records.job_log_reports.find({}))) == 1
    assert measured_of(platform, [TOOL], anew=True)[TOOL].jobs == 40


def test_what_others_have_archived_is_not_read_before_they_do(platform: Platform) -> None:
    run_20_jobs(platform)
    archive_own_jobs(platform.records, platform.objects)
    assert measured_of(platform, [TOOL], anew=False) == {}
    assert measured_of(platform, [TOOL], anew=True)[TOOL].jobs == 20


def test_what_cannot_be_told_is_said_in_a_sentence(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    run_20_jobs(platform)
    measured_of(platform, [TOOL], anew=False)
    instance = own_instance(platform.records)
    assert instance is not None
    platform.records.job_log_instances.patch(instance, Patch(set={"unwanted": "2026-11-20T10:00:00+00:00"}))
    run_20_jobs(platform)
    for anew in (False, True):
        capsys.readouterr()
        assert measured_of(platform, [TOOL], anew=anew) == {}
        told = capsys.readouterr().err
        assert told == f"What earlier jobs used cannot be told now: The instance {PLATFORM} is being removed.\n"


def test_where_nothing_can_be_written_it_is_said_in_a_sentence(
    platform: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_20_jobs(platform)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    for anew in (False, True):
        assert measured_of(platform, [TOOL], anew=anew) == {}
        told = capsys.readouterr().err
        assert told.startswith("What earlier jobs used cannot be told now: [Errno 2] No such file or directory")


def test_the_offer_counts_those_at_their_limit_apart(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    run_20_jobs(platform)
    given = ResourcesValue(cpus=1.0, memoryMiB=64)
    ran(platform, a_workflow(platform), 0, outcome=Outcome.OUT_OF_MEMORY, peak_memory=60 << 20, given=given)
    found = measured_of(platform, [TOOL], anew=False)[TOOL]
    offer(platform, TOOL[0], given, found, accepted=False)
    told = capsys.readouterr().err
    assert "fit.py: 20 jobs from 2026-11-20 to 2026-11-20 used 69 MiB at most; 1 more was at its limit. " in told
    assert "`--measured` gives each 128 MiB and 1 CPU instead of 64 MiB and 1 CPU" in told
