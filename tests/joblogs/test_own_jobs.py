"""The platform's own jobs: archived in the format that others send, read the same, each try counted once."""

from __future__ import annotations

import gzip
import os
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    usual = {
        "outcome": Outcome.SUCCEEDED,
        "peak_memory": (50 + number) * MIB,
        "cpu_seconds": 8.0,
        "wall_seconds": 10.0,
        "began": "2026-11-20T09:00:00+00:00",
    }
    result = ResultRecord(
        id=job.id, workflow_id=workflow.id, job_id=job.id, final=True,
        **{**usual, **said},  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    platform.records.results.add(result)
    return result


def archived(platform: Platform, **asked: int) -> str:
    instance = archive_own_jobs(platform.records, platform.objects, **asked)
    assert instance is not None
    Marts(platform.records, platform.objects).refresh(instance)
    return instance


def rows(platform: Platform, query: str) -> list[tuple[object, ...]]:
    with Marts(platform.records, platform.objects).opened() as opened:
        return opened.sql(query).fetchall()


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("python fit.py --secret 1", "python fit.py"),
        ("SEED=1 OUT=x/y /usr/bin/python3 'my/fit.py' 2", "python3 fit.py"),
        ("python3.11 -uB fit.py 3 > out.txt 2>&1", "python3.11 fit.py"),
        ("python -m fit.sites 3", "python -m fit.sites"),
        ("/usr/bin/env SEED=1 python3 fit.py", "python3 fit.py"),
        ("java -jar lib/gatk.jar Caller", "java gatk.jar"),
        ("bash run.sh", "bash run.sh"),
        ("./fit 'a; b' \\\n --more", "fit"),
    ],
)
def test_a_tool_is_a_program_without_what_it_was_given(text: str, tool: str) -> None:
    assert tool_of_command(("bash", "-c", text)) == tool


UNPLAIN = """
PASSWORD='correct horse' ./fit 3
PASSWORD="correct horse" ./fit
TOKEN=$(cat key $X) ./fit
TOKEN=`cat key x` ./fit
A=${X:-correct horse staple} ./fit
A=correct\\ horse ./fit
A=$'it\\'s horse' ./fit
A=(correct horse) ./fit
A=horse
cd /data && python train.py
set -e; ./fit
export KEY=horse
source horse.sh
. horse.sh
env -u horse fit
env PASSWORD='a b' c
timeout 3 ./fit
mpirun -n 3 fit
srun fit
time ./fit
for i in 1 2; do ./fit; done
uv run fit.py
sudo fit
xargs fit
! fit
python -c 'print("horse")'
python -W horse fit.py
python
python < fit.py
python "$SCRIPT"
java -Xmx4g -jar gatk.jar
R -f a.R
java -cp horse Main
$PROGRAM 3
"correct horse" 3
fit | head
fit & fit
(fit)
{ fit; }
fit <(ls)
fit 'horse
# horse
> out fit
"""


@pytest.mark.parametrize("text", ["", "set -e\nfit", *UNPLAIN.strip().splitlines()])
def test_whatever_is_more_than_a_program_is_the_same_command_again_and_nothing_of_its_text(text: str) -> None:
    tool = tool_of_command(("bash", "-c", text))
    assert re.fullmatch(r"command [0-9a-f]{16}", tool), tool
    assert tool == tool_of_command(("bash", "-c", text)) != tool_of_command(("bash", "-c", f"{text} "))


def test_commands_without_a_shell_are_taken_as_they_are() -> None:
    assert tool_of_command(("/opt/bin/fit", "--all", "a; b")) == "fit"
    assert tool_of_command(("bash", "run.sh")) == "bash run.sh"
    assert len({tool_of_command(each) for each in ((), ("A=b", "fit"), ("bash", "-lc", "fit"), ("a b",))}) == 4


@given(
    text=st.text(alphabet="ab=;<>|&()$#!-./ '\"\\\t", max_size=12),
    value=st.text(alphabet="xyz '\"\\\\$`(){}/;|&<>\n", max_size=12),
)
def test_no_part_of_a_value_is_ever_in_a_name(text: str, value: str) -> None:
    tool = tool_of_command(("bash", "-c", f"SECRET={shlex.quote(value)} ./fit {text}"))
    assert tool == "fit" or re.fullmatch(r"command [0-9a-f]{16}", tool)


def test_a_tool_is_an_image_and_of_a_folder_its_name() -> None:
    assert tool_of_image("example.org/organisms/avida:1.2") == "example.org/organisms/avida:1.2"
    assert tool_of_image("/srv/organisms/avida") == "avida"


def test_what_is_written_is_read_again_and_the_same_bytes_whenever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = RanJob(
        id=7, tool_id="a\ttool", tool_version="1", state="ok", created=datetime(2026, 1, 2, 3, 4, 5, 6, UTC), cores=1.5,
        memory_mib=100, runtime=2.5, cpu=None, peak_memory=None, is_out_of_memory=False,
    )  # fmt: skip
    when = datetime(2026, 1, 3, tzinfo=UTC)
    archive, metadata = write_report(tmp_path, [job], generated=when, revision="abc")
    said = read_metadata(metadata)
    (tmp_path / "tables").mkdir()
    found = read_report(archive, said, tmp_path / "tables")
    assert (found.kept, found.rejects, said.jobs) == ({"jobs": 1, "metric_num": 5}, (), {"ok": 1})
    assert said.galaxy_version == "knockem abc"
    (tmp_path / "again").mkdir()
    monkeypatch.setattr("time.time", lambda: 4e9)
    before = os.umask(0o077)
    try:
        again = write_report(tmp_path / "again", [job], generated=when, revision="abc")
    finally:
        os.umask(before)
    assert (again[0].read_bytes(), again[1]) == (archive.read_bytes(), metadata)


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


def test_reports_of_many_are_made_in_several_goes(platform: Platform) -> None:
    for minute in range(5):
        ran(platform, a_workflow(platform, ended=f"2026-11-20T10:0{minute}:00.5+00:00"), minute)
    for number in (2, 4, 5, 5):
        archived(platform, most=2)
        assert rows(platform, "SELECT count(*) FROM jobs") == [(number,)]
    [instance] = platform.records.job_log_instances.find({})
    assert instance.name == PLATFORM


def test_nothing_is_archived_of_what_was_never_tried(platform: Platform) -> None:
    a_workflow(platform, ended="2026-11-20T09:00:00.5+00:00")
    ran(platform, a_workflow(platform, ended="2026-11-20T09:01:00.5+00:00"), 0, is_action=True)
    assert archive_own_jobs(platform.records, platform.objects) is None
    ran(platform, a_workflow(platform), 1)
    archived(platform, most=1)
    assert [each.state for each in platform.records.job_log_reports.find({})] == ["loaded"]


def test_a_try_counts_once_with_what_it_was_given_whatever_becomes_of_its_job(platform: Platform) -> None:
    """As a restart does it: the result moves aside, its job gets more, and then it is canceled before it begins."""
    workflow = a_workflow(platform)
    last = ran(platform, workflow, 0, outcome=Outcome.OUT_OF_MEMORY, given=ResourcesValue(cpus=1.0, memoryMiB=64))
    early = ran(platform, workflow, 1)  # recorded by a version that does not say what was given
    archived(platform)
    columns = "id, memory_allocated / 1048576, cores"
    first = sorted(rows(platform, f"SELECT {columns} FROM jobs"), key=str)
    assert sorted(row[1:] for row in first) == [(64, 1), (1024, 2)]
    aside = last.model_copy(update={"id": new_id(), "final": False})
    platform.records.results.add(aside)
    platform.records.documents.delete(platform.records.results.name, {"_id": last.id})
    more = {"resources": ResourcesValue(cpus=1.0, memoryMiB=96).model_dump(by_alias=True)}
    platform.records.jobs.patch(last.job_id, Patch(set=more))
    changes = {"state": "canceled", "ended": "2026-11-20T11:00:00.5+00:00"}
    platform.records.workflows.patch(workflow.id, Patch(set=changes))
    archived(platform)
    assert len(list(platform.records.job_log_reports.find({}))) == 2
    assert sorted(rows(platform, f"SELECT {columns} FROM jobs"), key=str) == first
    assert platform.records.results.get(early.id).given is None


def test_what_a_canceled_workflow_has_still_to_record_is_waited_for(platform: Platform) -> None:
    moment = datetime.now(UTC)
    canceled = a_workflow(platform, ended=(moment - timedelta(seconds=20)).isoformat())
    platform.records.workflows.patch(canceled.id, Patch(set={"state": "canceled"}))
    ran(platform, canceled, 0)
    ran(platform, a_workflow(platform, ended=moment.isoformat()), 1)
    archived(platform)
    assert rows(platform, "SELECT memory_peak FROM jobs") == [(51 * MIB,)]
    ran(platform, canceled, 2)
    platform.records.workflows.patch(canceled.id, Patch(set={"ended": (moment - timedelta(minutes=2)).isoformat()}))
    archived(platform)
    assert rows(platform, "SELECT count(*) FROM jobs") == [(3,)]


@pytest.mark.parametrize("ahead", [timedelta(minutes=40), timedelta(days=300)])
def test_a_machine_whose_clock_is_ahead_hides_nothing(platform: Platform, ahead: timedelta) -> None:
    moment = datetime.now(UTC)
    ran(platform, a_workflow(platform, ended=(moment + ahead).isoformat()), 0)
    ran(platform, a_workflow(platform, ended=(moment - timedelta(days=1)).isoformat()), 0)
    archived(platform)
    ran(platform, a_workflow(platform, ended=moment.isoformat()), 1)
    archived(platform)
    ran(platform, a_workflow(platform, ended=(moment - timedelta(minutes=50)).isoformat()), 2)
    archived(platform)
    assert rows(platform, "SELECT count(*) FROM jobs") == [(3,)]
    archived(platform)
    assert [each.state for each in platform.records.job_log_reports.find({})] == ["loaded"] * 3


def test_two_that_archive_at_once_write_the_same(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second, of another version, asked whether the report is there before the first had stored it."""
    workflow = a_workflow(platform)
    results = [ran(platform, workflow, number) for number in range(30)]
    for number in range(3):  # more tries at the first job
        again = {"id": new_id(), "datetime": f"2026-11-20T09:30:0{number}.5+00:00", "final": False}
        results.append(results[0].model_copy(update=again))
        platform.records.results.add(results[-1])
    submission = a_submission("x", state="completed", finished=ENDED)
    store_with_competitions(platform.records, submission, answered=3, failed=1)
    archived(platform)
    attempts = list(platform.records.attempt_results.find({"submissionId": submission.id}))
    for each in (*results, *attempts):  # other rows, in another order
        platform.records.documents.delete(each.collection.name, {"_id": each.id})
    platform.records.results.add_many(each.model_copy(update={"id": new_id()}) for each in reversed(results))
    platform.records.attempt_results.add_many(reversed(attempts))
    monkeypatch.setattr("knockem_dagster.joblogs.own_jobs.Ledger.has", lambda *_: False)
    monkeypatch.setattr("time.time", lambda: 4e9)
    monkeypatch.setattr("knockem_dagster.records.record.revision", lambda: "another")
    archived(platform)
    assert [each.state for each in platform.records.job_log_reports.find({})] == ["loaded", "loaded"]


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
    small = ResourcesValue(cpus=1.0, memoryMiB=32)
    ran(platform, workflow, 20, outcome=Outcome.OUT_OF_MEMORY, peak_memory=30 * MIB, given=small)
    platform.records.workflows.patch(workflow.id, Patch(set={"ended": "2026-11-20T12:00:00.5+00:00"}))
    found = measured(marts, archived(platform), [tool])[tool]
    assert (found.jobs, found.at_limit, found.memory_mib) == (20, 1, 96)
    ran(platform, workflow, 21, outcome=Outcome.OUT_OF_MEMORY, peak_memory=None)
    platform.records.workflows.patch(workflow.id, Patch(set={"ended": "2026-11-20T13:00:00.5+00:00"}))
    found = measured(marts, archived(platform), [tool])[tool]
    assert (found.jobs, found.at_limit, found.memory_mib) == (20, 2, MARGIN_AT_LIMIT * 1024)


def test_the_latest_jobs_count(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knockem_dagster.joblogs.measured.LATEST", 20)
    workflow = a_workflow(platform)
    ran(platform, workflow, 900, began="2026-11-19T09:00:00+00:00")
    for number in range(20):
        ran(platform, workflow, number)
    tool = ("python fit.py", COMMAND)
    marts = Marts(platform.records, platform.objects)
    assert measured(marts, archived(platform), [tool])[tool].largest_peak == 69 * MIB
