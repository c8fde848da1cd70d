"""`joblogs`: a folder of reports is taken in once, and what is bad is told with what its sender must do."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from dagster import DagsterRunStatus
from dagster._core.storage.tags import PARTITION_NAME_TAG
from typer.testing import CliRunner, Result

from knockem_dagster import definitions
from knockem_dagster.cli.main import app
from knockem_dagster.definitions import build_definitions, dagster_instance
from knockem_dagster.joblogs import ledger as ledgers
from knockem_dagster.joblogs.folders import instance_id
from knockem_dagster.joblogs.instances import instance_by, local_instance
from knockem_dagster.joblogs.ledger import Ledger
from knockem_dagster.joblogs.marts import Marts
from knockem_dagster.joblogs.report import PARSER_VERSION, ReadReport
from knockem_dagster.records.joblogs import ReportRecord, ReportState
from knockem_dagster.settings import load_settings
from resources import dagster_storage
from resources.platform import PlatformResource, SubmissionRuns
from resources.run_processes import PROCESS_TAG, this_process
from tests.services.command_line import environment_of
from tests.services.job_play import record_in
from tests.services.joblogs import JOBS, REAL, report_of, table


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def run(*arguments: object, home: Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env=environment_of(home))


def told(*arguments: object, home: Path) -> list[dict[str, object]]:
    return json.loads(run("joblogs", *arguments, "--json", home=home).stdout)


def test_the_real_archives_are_taken_in_once(home: Path) -> None:
    folder = REAL[0].parents[2]
    first = run("joblogs", "upload", folder, home=home)
    assert first.exit_code == 0, first.stderr
    rows = {tuple(line.split()[2:8]) for line in first.stdout.splitlines()[1:]}
    assert rows == {
        ("0", "2017-08-04", "08:49:57", "loaded", "98", "1,027"),
        ("0", "2026-11-20", "22:11:02", "loaded", "1,970", "27,675"),
    }
    assert run("joblogs", "upload", folder, home=home).stdout == first.stdout
    instances = told("list", home=home)
    assert {each["id"] for each in instances} == {archive.parents[1].name for archive in REAL}
    assert sorted(each["jobs"] for each in instances) == [98, 1940], "30 are not over"
    assert all(each["reports"] == {"received": 0, "loaded": 1, "quarantined": 0, "dismissed": 0} for each in instances)
    shown = run("joblogs", "list", home=home).stdout
    assert "2017-08-04 08:49:57" in shown
    assert run("joblogs", "quarantine", home=home).stdout == "No report is quarantined.\n"
    assert run("joblogs", "list", home=home.parent / "empty").stdout.startswith("No instance has sent job logs yet.")


def test_a_bad_report_is_told_and_taken_in_once_it_is_good(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "our server"
    folder.mkdir()
    shutil.copyfile(REAL[0], folder / "june.tar.gz")
    refused = run("joblogs", "upload", folder, home=home)
    assert refused.exit_code == 1
    sentence = "There are no metadata with the archive: send NAME.json with NAME.tar.gz."
    assert f"(june of our server): {sentence}" in refused.stdout
    [there] = told("quarantine", home=home)
    assert (there["name"], there["quarantine"]) == ("june", sentence)
    assert sentence in run("joblogs", "quarantine", home=home).stdout
    kept = run("joblogs", "release", str(there["id"])[:8], home=home)
    assert (kept.exit_code, kept.stdout.splitlines()[0]) == (1, "Report june is quarantined.")

    shutil.copyfile(REAL[0].with_name("0.json"), folder / "june.json")
    taken = run("joblogs", "upload", folder, home=home)
    assert taken.exit_code == 0, taken.stdout
    assert told("quarantine", home=home) == []
    [instance] = told("list", home=home)
    assert instance["name"] == "our server"
    assert run("joblogs", "release", there["id"], home=home).stdout == "Report june is loaded.\n"


def test_what_is_dismissed_is_told_no_more(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    for name, content in {"a": b"no archive", "b": b"nor this"}.items():
        (folder / f"{name}.tar.gz").write_bytes(content)
    assert run("joblogs", "upload", folder, home=home).exit_code == 1
    shown = run("joblogs", "quarantine", home=home)
    assert len(shown.stdout.splitlines()) == 2 and "dismiss ID..." in shown.stderr
    ids = [str(each["id"]) for each in told("quarantine", home=home)]
    dismissed = run("joblogs", "dismiss", *(id[:8] for id in ids), home=home)
    assert [line.split()[-1] for line in dismissed.stdout.splitlines()] == ["dismissed.", "dismissed."]
    assert [each["state"] for each in told("dismiss", *ids, home=home)] == ["dismissed", "dismissed"]
    assert run("joblogs", "quarantine", home=home).stdout == "No report is quarantined.\n"
    again = run("joblogs", "upload", folder, home=home)
    assert again.exit_code == 0 and "send NAME.json" not in again.stdout and "dismissed" in again.stdout
    released = run("joblogs", "release", ids[0], home=home)
    assert released.exit_code == 1 and "send NAME.json" in released.stdout
    assert [each["id"] for each in told("quarantine", home=home)] == ids[:1]


def test_rows_that_are_left_out_are_told(home: Path, tmp_path: Path) -> None:
    metrics = table("metric_num", [*[(1, "core", "n", 5)] * 200, (1, "core", "n", "many")])
    report = report_of(tmp_path, {"jobs": JOBS, "metric_num": metrics})
    report.archive.with_name("1.5.json").write_text(report.metadata.model_dump_json(by_alias=True))
    taken = run("joblogs", "upload", tmp_path, "--instance", "mine", home=home)
    assert taken.exit_code == 0, taken.stderr
    assert taken.stdout.split()[-3:] == ["3", "203", "1"]
    first = "1.5: 1 row of metric_num left out, the first in line 202: value is 'many' and not a number from 0"
    assert taken.stderr.startswith(first)
    [instance] = told("list", home=home)
    assert instance["name"] == "mine"


def test_what_cannot_be_taken_in_holds_nothing_else_up(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    for name in ("z", "a good", ".hidden", "._z"):
        shutil.copyfile(REAL[0], folder / f"{name}.tar.gz")
        shutil.copyfile(REAL[0].with_name("0.json"), folder / f"{name}.json")
    (folder / "a.tar.gz").mkdir()
    (folder / "b.tar.gz").symlink_to("nowhere")
    taken = run("joblogs", "upload", folder, home=home)
    assert taken.exit_code == 1
    assert "a good.tar.gz: The report cannot be stored." in taken.stderr
    assert "letters, digits, dots, dashes and underscores" in taken.stderr
    [line] = taken.stdout.splitlines()[1:]
    assert line.split()[1:3] == ["server", "z"]
    refused = run("joblogs", "upload", folder, "--instance", "a\nb", home=home)
    assert "The instance cannot be registered." in refused.stderr


def blocked(home: Path, key: str) -> Path:
    """Let nothing be stored below a key: a file is where the folder should be, which stops root, too."""
    with record_in(home) as platform:
        path = platform.objects.path(key)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def folder_of(tmp_path: Path, *instances: str) -> Path:
    """Return a folder with a report of each of these instances."""
    folder = tmp_path / "reports"
    for instance in instances:
        (folder / instance).mkdir(parents=True)
        for end in ("tar.gz", "json"):
            shutil.copyfile(REAL[1].with_name(f"0.{end}"), folder / instance / f"1.{end}")
    return folder


def states(uploaded: Result) -> dict[str, str]:
    """Return what became of the reports, by instance."""
    return {line.split()[1]: line.split()[-4] for line in uploaded.stdout.splitlines()[1:]}


def test_a_store_that_refuses_one_report_takes_the_others(home: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a", "b", "c")
    raw = blocked(home, f"joblogs/raw/{instance_id('a')}")
    lake = blocked(home, f"joblogs/lake/{PARSER_VERSION}/jobs/{instance_id('b')}")
    taken = run("joblogs", "upload", folder, home=home)
    assert taken.exit_code == 1 and states(taken) == {"b": "received", "c": "loaded"}
    not_stored, not_read = taken.stderr.splitlines()
    assert not_stored.startswith(f"{folder}/a/1.tar.gz: cannot ") and raw.name in not_stored
    assert not_read.startswith(f"{folder}/b/1.tar.gz: cannot ") and lake.name in not_read
    assert jobs_counted(home) == 98
    raw.unlink()
    lake.unlink()
    again = run("joblogs", "upload", folder, home=home)
    assert again.exit_code == 0, again.stderr
    assert states(again) == {"a": "loaded", "b": "loaded", "c": "loaded"} and jobs_counted(home) == 3 * 98


@pytest.mark.parametrize("error", [OSError("full"), duckdb.OutOfMemoryException("full\n"), pa.ArrowMemoryError("full")])
def test_a_machine_that_is_full_is_told_in_a_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder, read, failing = folder_of(tmp_path, "a", "b"), ledgers.read_report, iter([error, None, error])

    def read_but_a(*given: Any) -> ReadReport:
        if (raised := next(failing, None)) is not None:
            raise raised
        return read(*given)

    monkeypatch.setattr(ledgers, "read_report", read_but_a)
    taken = run("joblogs", "upload", folder, home=home)
    assert (taken.exit_code, taken.stderr) == (1, f"{folder}/a/1.tar.gz: full\n")
    assert states(taken) == {"a": "received", "b": "loaded"} and jobs_counted(home) == 98
    with record_in(home) as platform:
        [unread] = platform.records.job_log_reports.find({"state": "received"})
    refused = run("joblogs", "release", unread.id, home=home)
    assert (refused.exit_code, refused.stderr) == (1, "Report 1: full\n")
    assert run("joblogs", "release", unread.id, home=home).stdout == "Report 1 is loaded.\n"
    assert jobs_counted(home) == 2 * 98


def test_marts_that_cannot_be_stored_hold_up_those_of_no_other_instance(home: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a", "b")
    blocked(home, f"joblogs/marts/{instance_id('a')}")
    taken = run("joblogs", "upload", folder, home=home)
    assert taken.exit_code == 1 and taken.stderr.startswith("The tables of a: cannot ")
    assert states(taken) == {"a": "loaded", "b": "loaded"} and jobs_counted(home) == 98


def test_no_terminal_takes_what_is_in_a_report_as_a_command(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "se\x1b]rver"
    folder.mkdir()
    jobs = [(id, "\x1b[31mcat", "\x9b1", "ok", "2026-01-01 00:00:00") for id in range(1, 21)]
    report = report_of(folder, {"jobs": table("jobs", jobs)})
    metadata = report.metadata.model_dump_json(by_alias=True)
    report.archive.with_name("1.5.json").write_text(metadata)
    (folder / "2.tar.gz").touch()
    (folder / "2.json").write_text(metadata.replace('"ok":20', '"\\u001b[31mok":"many"'))
    refused = run("joblogs", "upload", folder, home=home)
    shown = [
        run("joblogs", *arguments, home=home)
        for arguments in (("upload", folder, "--instance", "ours"), ("quarantine",), ("recommend", "ours"))
    ]
    told = "".join(each.stdout + each.stderr for each in (refused, *shown))
    assert r"se\x1b]rver/1.5.tar.gz: The instance cannot be registered." in told
    assert r"\x1b[31mok" in shown[1].stdout
    assert r"\x1b[31mcat" in shown[2].stdout and r"\x9b1" in shown[2].stdout
    assert "\x1b" not in told and "\x9b" not in told


def test_what_was_received_by_one_who_died_is_read(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    report = report_of(folder, {"jobs": JOBS})
    text = report.metadata.model_dump_json(by_alias=True)
    with record_in(home) as platform:
        whose = local_instance(platform.records, "server")
        Ledger(platform.records, platform.objects).receive(whose.id, "lost", report.archive, text.encode())
    shutil.copyfile(REAL[0], folder / "1.tar.gz")
    report.archive.unlink()
    taken = run("joblogs", "upload", folder, home=home)
    read = taken.stdout.splitlines()[2].split()
    assert read[1:] == ["server", "lost", "2026-11-20", "22:11:02", "loaded", "3", "3", "0"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("upload", "nowhere"), "There is no folder"),
        (("upload", "."), "There is no archive below"),
        (("release", "ab"), "There is no quarantined report 'ab'. The beginning of an id needs at least 4 characters."),
        (
            ("release", "ffffffff"),
            "There is no quarantined report 'ffffffff'. `./knockem joblogs quarantine` shows all",
        ),
    ],
)
def test_what_cannot_be_is_explained(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run("joblogs", *arguments, home=home)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"knockem: {said}")


def test_an_instance_has_one_token_which_is_told_once(home: Path) -> None:
    first = run("joblogs", "register", "our server", home=home)
    assert first.exit_code == 0 and first.stdout.startswith("knockem_")
    with record_in(home) as platform:
        [instance] = platform.records.job_log_instances.find({})
        assert instance.id in first.stderr and first.stdout.strip() not in str(instance.to_document())
        assert instance_by(platform.records, instance.id, first.stdout.strip()) == instance
    again = run("joblogs", "register", "our server", home=home)
    assert again.exit_code == 1 and f"joblogs revoke {instance.id}" in again.stderr
    [listed] = told("list", home=home)
    assert listed["mayUpload"] is True
    assert run("joblogs", "revoke", "our server", home=home).exit_code == 0
    with record_in(home) as platform:
        assert instance_by(platform.records, instance.id, first.stdout.strip()) is None
    second = run("joblogs", "register", instance.id, home=home)
    assert second.stdout.startswith("knockem_") and second.stdout != first.stdout
    [listed] = told("list", home=home)
    assert (listed["name"], listed["mayUpload"]) == ("our server", True)
    assert "no instance 'other'" in run("joblogs", "revoke", "other", home=home).stderr


def jobs_counted(home: Path) -> int:
    with record_in(home) as platform, Marts(platform.records, platform.objects).opened() as marts:
        return marts.sql("SELECT coalesce(sum(jobs), 0)::BIGINT FROM tools").fetchall()[0][0]


def run_in_dagster(home: Path, id: str) -> None:
    with dagster_instance(load_settings(home=home)) as dagster:
        dagster.add_dynamic_partitions("instance", [id])
        resource = PlatformResource(home=str(home))
        resources = {"platform": resource, "runs": SubmissionRuns(platform=resource)}
        job = build_definitions(resource_overrides=resources).resolve_job_def("job_logs")
        config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        assert job.execute_in_process(instance=dagster, partition_key=id, run_config=config).success


def test_what_is_deleted_is_found_nowhere_and_totals_fall_by_its_jobs(home: Path) -> None:
    run("joblogs", "upload", REAL[0].parents[2], home=home)
    assert jobs_counted(home) == 1940 + 98
    id = next(archive.parents[1].name for archive in REAL if archive.parents[1].name.startswith("2682"))
    run_in_dagster(home, id)
    assert jobs_counted(home) == 1940 + 98, "computed again from the archives, and counted once"
    refused = run("joblogs", "delete", id, "--confirm", "something else", home=home)
    assert refused.exit_code == 1 and "nothing was removed" in refused.stderr
    assert jobs_counted(home) == 1940 + 98
    deleted = run("joblogs", "delete", id[:8], "--confirm", id, home=home)
    assert deleted.exit_code == 0, deleted.stderr
    assert "1 report, 1,940 jobs" in deleted.stdout
    assert jobs_counted(home) == 98
    assert [each["jobs"] for each in told("list", home=home)] == [98]
    naming = [
        path for path in home.rglob("*") if id in path.name or (path.is_file() and id.encode() in path.read_bytes())
    ]
    assert naming == []
    assert "no instance" in run("joblogs", "delete", id, "--confirm", id, home=home).stderr
    run("joblogs", "upload", REAL[0].parents[2], home=home)
    assert jobs_counted(home) == 1940 + 98


def test_what_tools_should_be_given_is_told(home: Path, tmp_path: Path) -> None:
    folder = max(REAL, key=lambda archive: archive.stat().st_size).parents[2]
    run("joblogs", "upload", folder, home=home)
    large, small = sorted(told("list", home=home), key=lambda each: -int(str(each["jobs"])))
    file = tmp_path / "tools.yml"
    shown = run("joblogs", "recommend", large["name"], "--tpv", file, home=home)
    assert shown.exit_code == 0 and "fastqc" in shown.stdout and "too few jobs" in shown.stderr
    assert "fastqc/.*" in file.read_text()
    recommended = told("recommend", large["name"], "--tool", "Cut1", home=home)
    assert [(each["tool_id"], each["tool_version"], each["jobs"]) for each in recommended] == [
        ("Cut1", "", 327),
        ("Cut1", "1.0.2", 327),
    ]
    assert all(each["verdict"] in {"too few", ""} for each in told("recommend", small["name"], home=home))
    unknown = run("joblogs", "recommend", large["name"], "--tool", "Cut2", home=home)
    assert unknown.exit_code == 1 and "No job of Cut2 is known" in unknown.stderr


def test_what_dagster_cannot_forget_now_is_deleted_by_the_same_command_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagster_storage, "BUSY_MILLISECONDS", 100)
    run("joblogs", "upload", REAL[0].parents[2], home=home)
    id = REAL[0].parents[1].name
    with dagster_instance(load_settings(home=home)) as dagster:
        dagster.add_dynamic_partitions("instance", [id])
    [history] = home.rglob("runs.db")
    with closing(sqlite3.connect(history)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        refused = run("joblogs", "delete", id, "--confirm", id, home=home)
    assert refused.exit_code == 1 and "and repeat (database is locked)" in refused.stderr, refused.output
    [left] = [each for each in told("list", home=home) if each["id"] == id]
    assert left["jobs"] == 0
    assert run("joblogs", "delete", id, "--confirm", id, home=home).exit_code == 0
    assert [path for path in home.rglob("*") if path.is_file() and id.encode() in path.read_bytes()] == []


def test_an_instance_is_not_deleted_while_a_run_of_it_is_under_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "SECONDS_FOR_RUNS_TO_END", 0.0)
    run("joblogs", "upload", REAL[0].parents[2], home=home)
    id = REAL[0].parents[1].name
    with dagster_instance(load_settings(home=home)) as dagster:
        dagster.add_dynamic_partitions("instance", [id])
        under_way = dagster.create_run_for_job(
            build_definitions().resolve_job_def("job_logs"),
            status=DagsterRunStatus.STARTED,
            tags={PARTITION_NAME_TAG: id, PROCESS_TAG: this_process()},
        )
    refused = run("joblogs", "delete", id, "--confirm", id, home=home)
    assert refused.exit_code == 1 and "A run of this instance is under way" in refused.stderr, refused.output
    with dagster_instance(load_settings(home=home)) as dagster:
        dagster.report_run_failed(under_way)
    assert run("joblogs", "delete", id, "--confirm", id, home=home).exit_code == 0
    with dagster_instance(load_settings(home=home)) as dagster:
        assert not dagster.has_dynamic_partition("instance", id) and not dagster.get_runs()


def test_a_report_that_came_back_of_a_removed_instance_is_told_nowhere(home: Path) -> None:
    with record_in(home) as platform:
        stray = ReportRecord(
            id="stray", instance_id="gone", name="1", archive_digest="", digest="", state=ReportState.QUARANTINED
        )
        platform.records.job_log_reports.add(stray)
    assert run("joblogs", "quarantine", home=home).stdout == "No report is quarantined.\n"
    assert told("quarantine", home=home) == []
