"""The platform's own jobs: archived in the format that others send, read the same, each try counted once."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from knockem_dagster.containers.attempts import Outcome
from knockem_dagster.joblogs.instances import PLATFORM
from knockem_dagster.joblogs.ledger import archive_key
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.measured import MARGIN, MARGIN_AT_LIMIT, measured
from knockem_dagster.joblogs.own_jobs import archive_own_jobs
from knockem_dagster.joblogs.report import read_report
from knockem_dagster.joblogs.report_metadata import read_metadata
from knockem_dagster.joblogs.tool_names import COMMAND, tool_of_command, tool_of_image
from knockem_dagster.joblogs.writing import RanJob, write_report
from knockem_dagster.platform import Platform
from knockem_dagster.records.jobs import JobRecord, JobState, ResourcesValue, ResultRecord, WorkflowRecord
from knockem_dagster.records.record import new_id
from knockem_dagster.stores.documents import Patch
from tests.services.job_play import record_in
from tests.services.submissions import a_submission, store_with_competitions

MIB = 1 << 20
ENDED = "2026-11-20T10:00:00.000001+00:00"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with record_in(tmp_path / "home") as opened:
        yield opened


def a_workflow(platform: Platform, *, ended: str = ENDED) -> WorkflowRecord:
    workflow = WorkflowRecord(
        id=new_id(), name="w", max_active=1, user_email="a@example.org", is_graph=True, state="completed", ended=ended
    )
    platform.records.workflows.add(workflow)
    return workflow


def ran(platform: Platform, workflow: WorkflowRecord, number: int, **said: object) -> ResultRecord:
    """Record a job of a workflow with a result."""
    job = JobRecord(
        id=new_id(),
        workflow_id=workflow.id,
        name=f"job {number}",
        command=("bash", "-c", f"python fit.py --secret {number}"),
        resources=ResourcesValue(cpus=2.0, memoryMiB=1024),
        state=JobState.COMPLETED,
        is_action=bool(said.pop("is_action", False)),
    )
    platform.records.jobs.add(job)
    usual = {"outcome": Outcome.SUCCEEDED, "peak_memory": (50 + number) * MIB, "cpu_seconds": 8.0, "wall_seconds": 10.0}
    result = ResultRecord(
        id=job.id, workflow_id=workflow.id, job_id=job.id, final=True, began="2026-11-20T09:00:00+00:00",
        **{**usual, **said},  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    platform.records.results.add(result)
    return result


def archived(platform: Platform) -> str:
    instance = archive_own_jobs(platform.records, platform.objects)
    assert instance is not None
    Marts(platform.records, platform.objects).refresh(instance)
    return instance


def rows(platform: Platform, query: str) -> list[tuple[object, ...]]:
    with Marts(platform.records, platform.objects).opened() as opened:
        return opened.sql(query).fetchall()


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        (("bash", "-c", "python fit.py --secret 1"), "python fit.py"),
        (("bash", "-c", "SEED=1 /usr/bin/python3 'my/fit.py' 2"), "python3 fit.py"),
        (("bash", "-c", "python -m fit 3"), "python"),
        (("bash", "-c", "./run.sh 3; rm x"), "run.sh"),
        (("bash", "-c", "bash run.sh"), "bash run.sh"),
        (("/opt/bin/fit", "--all"), "fit"),
        (("bash", "-c", "  "), "nothing"),
        ((), "nothing"),
    ],
)
def test_a_tool_is_a_program_without_what_it_was_given(command: tuple[str, ...], tool: str) -> None:
    assert tool_of_command(command) == tool


def test_a_tool_is_an_image_and_of_a_folder_its_name() -> None:
    assert tool_of_image("example.org/organisms/avida:1.2") == "example.org/organisms/avida:1.2"
    assert tool_of_image("/srv/organisms/avida") == "avida"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    job = RanJob(
        id=7, tool_id="a\ttool", tool_version="1", state="ok", created=datetime(2026, 1, 2, 3, 4, 5, 6, UTC), cores=1.5,
        memory_mib=100, runtime=2.5, cpu=None, peak_memory=None, is_out_of_memory=False,
    )  # fmt: skip
    archive, metadata = write_report(tmp_path, [job], generated=datetime(2026, 1, 3, tzinfo=UTC))
    said = read_metadata(metadata)
    (tmp_path / "tables").mkdir()
    found = read_report(archive, said, tmp_path / "tables")
    assert (found.kept, found.rejects, said.jobs) == ({"jobs": 1, "metric_num": 5}, (), {"ok": 1})
    (tmp_path / "again").mkdir()
    assert write_report(tmp_path / "again", [job], generated=datetime(2026, 1, 3, tzinfo=UTC))[1] == metadata


def test_jobs_of_a_workflow_are_archived_once_and_anew_when_it_was_run_again(platform: Platform) -> None:
    assert archive_own_jobs(platform.records, platform.objects) is None
    workflow = a_workflow(platform)
    first = ran(platform, workflow, 0, outcome=Outcome.OUT_OF_MEMORY, peak_memory=1024 * MIB)
    ran(platform, workflow, 1)
    ran(platform, workflow, 2, is_action=True)
    going = a_workflow(platform, ended="2999-01-01T00:00:00+00:00")
    platform.records.workflows.patch(going.id, Patch(unset=("ended",), set={"state": "running"}))
    instance = archived(platform)
    columns = "tool_id, tool_version, state, cores, memory_allocated, runtime, cpu, memory_peak, is_censored"
    assert sorted(rows(platform, f"SELECT {columns} FROM jobs")) == [
        ("python fit.py", COMMAND, "error", 2, 2.0**30, 10, 8, 2.0**30, True),
        ("python fit.py", COMMAND, "ok", 2, 2.0**30, 10, 8, 51.0 * MIB, False),
    ]
    generation = Marts(platform.records, platform.objects).in_use()
    assert archived(platform) == instance
    assert Marts(platform.records, platform.objects).in_use() == generation
    [report] = platform.records.job_log_reports.find({})
    raw = gzip.decompress(platform.objects.get(archive_key(report)))
    assert b"python fit.py" in raw and b"secret" not in raw

    platform.records.results.patch(first.id, Patch(set={"outcome": "succeeded", "peakMemory": 70 * MIB}))
    platform.records.workflows.patch(workflow.id, Patch(set={"ended": "2026-11-20T11:00:00.5+00:00"}))
    archived(platform)
    found = rows(platform, "SELECT count(*), max(memory_peak), bool_or(is_censored) FROM jobs")
    assert found == [(2, 70.0 * MIB, False)]


def test_attempts_of_a_submission_are_archived(platform: Platform) -> None:
    submission = a_submission("x")
    store_with_competitions(platform.records, submission, answered=3, failed=1)
    assert archive_own_jobs(platform.records, platform.objects) is None
    platform.records.submissions.patch(submission.id, Patch(set={"state": "completed", "finished": ENDED}))
    archived(platform)
    found = rows(platform, "SELECT tool_id, tool_version, state, count(*) FROM jobs GROUP BY ALL ORDER BY state")
    tool = (tool_of_image(submission.container_image), submission.image_digest)
    assert found == [(*tool, "error", 1), (*tool, "ok", 3)]


def test_reports_of_many_are_made_in_several_goes(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knockem_dagster.joblogs.own_jobs.MOST_AT_ONCE", 2)
    for minute in range(5):
        ran(platform, a_workflow(platform, ended=f"2026-11-20T10:0{minute}:00.5+00:00"), minute)
    for number in (2, 4, 5, 5):
        archived(platform)
        assert rows(platform, "SELECT count(*) FROM jobs") == [(number,)]
    [instance] = platform.records.job_log_instances.find({})
    assert instance.name == PLATFORM


def test_what_was_measured_of_enough_jobs_is_given_with_a_margin(platform: Platform) -> None:
    workflow = a_workflow(platform)
    for number in range(19):
        ran(platform, workflow, number)
    marts = Marts(platform.records, platform.objects)
    tool = ("python fit.py", COMMAND)
    assert measured(marts, archived(platform), [tool, ("other", COMMAND)]) == {}
    ran(platform, workflow, 19)
    platform.records.workflows.patch(workflow.id, Patch(set={"ended": "2026-11-20T11:00:00.5+00:00"}))
    found = measured(marts, archived(platform), [tool])[tool]
    assert (found.jobs, found.largest_peak, found.at_limit) == (20, 69 * MIB, 0)
    better = found.resources(ResourcesValue(cpus=4.0, memoryMiB=1024, seconds=5.0))
    assert better == ResourcesValue(cpus=1.0, memoryMiB=96, seconds=5.0)
    assert better.memory_mib >= MARGIN * 69 > better.memory_mib - 16
    ran(platform, workflow, 20, outcome=Outcome.OUT_OF_MEMORY, peak_memory=1024 * MIB)
    platform.records.workflows.patch(workflow.id, Patch(set={"ended": "2026-11-20T12:00:00.5+00:00"}))
    found = measured(marts, archived(platform), [tool])[tool]
    assert (found.at_limit, found.memory_mib) == (1, MARGIN_AT_LIMIT * 1024)
