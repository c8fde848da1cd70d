"""The commands as a user types them, on one small study that really ran."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from knockem_dagster.cli.main import app
from knockem_dagster.cli.submitting import LONG_SECONDS
from knockem_dagster.stores.documents import Patch
from tests.services.command_line import environment_of, knockem, tiny_submission
from tests.services.platforms import platform_of

REPORT_A_DRAW = """echo '{"updatesElapsed": 1, "numAlpha": 5, "numBeta": 5}' > "$KNOCKEM_RESULT" """
ORGANISMS = Path(__file__).parents[2] / "deploy" / "organisms"


def run(*arguments: str | Path, home: Path, answer: str | None = None, **more: str) -> Result:
    """Run a command in this process: for those that do not need Dagster. `answer` is typed when it asks."""
    typed = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, typed, input=answer, env=environment_of(home, **more))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def submitted(home: Path) -> subprocess.CompletedProcess[str]:
    """The tiny study, submitted and carried through by the command itself."""
    return knockem("submit", tiny_submission(home / "study"), "--wait", "--json", home=home)


@pytest.fixture(scope="module")
def study(submitted: subprocess.CompletedProcess[str]) -> str:
    """The id of the completed study."""
    assert submitted.returncode == 0, submitted.stderr
    return json.loads(submitted.stdout)["id"]


def test_submit_waits_for_the_end_and_answers_json_alone(
    submitted: subprocess.CompletedProcess[str], study: str
) -> None:
    answer = json.loads(submitted.stdout)
    assert answer["state"] == "completed"
    assert len(answer["timing"]["seconds_each"]) == 3
    assert "20 sites; about" in submitted.stderr
    assert f"./knockem report {study[:8]}" in submitted.stderr
    assert "DEBUG" not in submitted.stderr


def test_list_shows_the_submission(home: Path, study: str) -> None:
    assert study[:8] in run("list", home=home).stdout
    (listed,) = json.loads(run("list", "--json", home=home).stdout)
    assert (listed["id"], listed["state"]) == (study, "completed")


def test_list_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    assert "./knockem demo" in run("list", home=tmp_path).stdout


def test_status_exits_0_when_completed_and_takes_a_beginning_of_the_id(home: Path, study: str) -> None:
    result = run("status", study[:4], "--json", home=home)
    assert result.exit_code == 0
    status = json.loads(result.stdout)
    assert status["state"] == "completed"
    assert status["done"] == status["total"] == sum(status["attempts"].values()) > 100
    assert status["assays_done"] == status["assays_total"]
    assert study in run("status", study, home=home).stdout


@pytest.mark.parametrize("unknown", ["ffffffff", "abc"])
def test_an_unknown_id_is_an_error_that_says_what_to_do(home: Path, study: str, unknown: str) -> None:
    result = run("status", unknown, home=home)
    assert result.exit_code == 1
    assert result.stderr.startswith("knockem: There is no submission")
    assert "./knockem list" in result.stderr
    assert "Traceback" not in result.stderr


def test_logs_show_command_and_outcome(home: Path, study: str) -> None:
    shown = run("logs", study, "--limit", "2", home=home).stdout
    assert shown.count("succeeded") == 2
    assert "knockem_serve" in shown
    assert "No attempt has failed" in run("logs", study, "--failed", home=home).stdout


def test_report_is_a_path_that_exists(home: Path, study: str) -> None:
    path = Path(run("report", study, home=home).stdout.strip())
    assert "<html" in path.read_text()


def test_export_has_every_table_and_every_competition(home: Path, study: str, tmp_path: Path) -> None:
    assert run("export", study, tmp_path / "out", home=home).exit_code == 0
    done = json.loads(run("status", study, "--json", home=home).stdout)["done"]
    assert len(pd.read_parquet(tmp_path / "out" / "competitions.parquet")) == done
    assert {path.stem for path in (tmp_path / "out").glob("*.csv")} >= {"null_distribution", "screen", "estimates"}
    assert (tmp_path / "out" / "report.html").is_file()


def texts_in(folder: Path) -> Iterator[str]:
    """Yield every value of every table of every SQLite file below a folder, as text."""
    for path in [*folder.rglob("*.db"), *folder.rglob("*.sqlite")]:
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in connection.execute(f'SELECT * FROM "{table}"'):
                    yield f"{path.name} {table} {row}"


def test_purge_tells_what_it_removes_and_the_id_is_nowhere_afterwards(home: Path, study: str, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    assert any(study in text for text in texts_in(copy))
    refused = run("purge", study, home=copy, answer="n\n")
    assert refused.exit_code == 1
    assert "Nothing was removed" in refused.stderr
    purged = knockem("purge", study, "--yes", home=copy)
    assert purged.returncode == 0, purged.stderr
    assert re.search(r"competitions: \d+", purged.stdout)
    assert f"submissions/{study}/report.html" in purged.stdout
    assert "Dagster run" in purged.stdout
    assert [text[:100] for text in texts_in(copy) if study in text] == []
    assert [path for path in copy.rglob("*") if path.is_file() and study in str(path)] == []


def test_the_same_file_is_refused_the_second_time(home: Path, study: str) -> None:
    result = run("submit", home / "study" / "study.json", home=home)
    assert result.exit_code == 1
    assert study in result.stderr


def test_six_faults_are_six_lines_and_nothing_is_stored(tmp_path: Path) -> None:
    path = tiny_submission(
        tmp_path / "study",
        maxActive=0,
        maxFail=0,
        userEmail="nobody",
        assayTypes=["nulldist", "screenCritcal"],
        containerImag="x",
        skeletons=1,
    )
    result = run("submit", path, home=tmp_path / "home")
    assert result.exit_code == 1
    faults = [line for line in result.stderr.splitlines() if re.match(r"  \S+: .* is not allowed; ", line)]
    assert len(faults) == 6
    assert "screenCritical" in result.stderr
    assert json.loads(run("list", "--json", home=tmp_path / "home").stdout) == []


def test_a_missing_file_is_an_error_without_traceback(tmp_path: Path) -> None:
    result = run("submit", tmp_path / "none.yaml", home=tmp_path)
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


def test_a_long_submission_asks_for_yes_and_stores_nothing(tmp_path: Path) -> None:
    slow = tmp_path / "organisms" / "slow"
    slow.mkdir(parents=True)
    for name, script in {
        "knockem_count_sites": "echo 100000",
        "knockem_apply_knockout": "cat",
        "knockem_compete_two": f"sleep 0.1; {REPORT_A_DRAW}",
    }.items():
        (slow / name).write_text(f"#!/bin/sh\n{script}\n")
        (slow / name).chmod(0o755)
    path = tiny_submission(tmp_path / "study", containerImage="slow")
    settings = {"home": tmp_path / "home", "KNOCKEM_ORGANISMS": str(tmp_path / "organisms"), "KNOCKEM_CPUS": "1"}
    result = run("submit", path, **settings)
    assert LONG_SECONDS == 3_600
    assert result.exit_code == 2
    assert f"./knockem submit {path} --yes" in result.stderr
    assert json.loads(run("list", "--json", **settings).stdout) == []


def test_submit_without_daemon_names_the_command_that_starts_one_and_cancel_and_resume_follow(tmp_path: Path) -> None:
    home = tmp_path / "home"
    submitted = run("submit", tiny_submission(tmp_path / "study"), home=home)
    assert submitted.exit_code == 0
    id = submitted.stdout.strip()
    assert "./knockem up" in submitted.stderr
    assert run("status", id, home=home).exit_code == 3
    assert run("cancel", id, home=home).exit_code == 0
    canceled = run("status", id, "--json", home=home)
    assert (canceled.exit_code, json.loads(canceled.stdout)["state"]) == (1, "canceled")
    assert run("cancel", id, home=home).exit_code == 1
    resumed = run("resume", id, "--json", home=home)
    assert json.loads(resumed.stdout)["state"] == "accepted"
    assert run("report", id, home=home).exit_code == 1


def test_cancel_and_purge_go_on_without_the_engine_and_say_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    id = run("submit", tiny_submission(tmp_path / "study"), home=home).stdout.strip()
    platform = platform_of(home)
    platform.records.submissions.patch(id, Patch(set={"containerRuntime": "docker"}))
    platform.close()
    away = f"unix://{tmp_path}/no.sock"
    for command, options in (("cancel", []), ("purge", ["--yes"])):
        ended = run(command, id, *options, home=home, DOCKER_HOST=away)
        assert ended.exit_code == 0, ended.output
        assert "Containers could not be looked for here: there is no container engine" in ended.stderr
    assert json.loads(run("list", "--json", home=home).stdout) == []


def test_an_engine_that_is_away_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = tiny_submission(tmp_path / "study", containerRuntime="docker")
    ended = run("submit", path, home=tmp_path / "home", DOCKER_HOST=f"unix://{tmp_path}/no.sock")
    assert ended.exit_code == 1
    assert ended.stderr.startswith("knockem: there is no container engine")
    assert "Traceback" not in ended.stderr


def test_a_submission_that_cannot_succeed_ends_with_1_and_says_why(tmp_path: Path) -> None:
    organism = tmp_path / "organisms" / "failing"
    organism.mkdir(parents=True)
    counter = tmp_path / "calls"
    for name, script in {
        "knockem_count_sites": "echo 5",
        "knockem_apply_knockout": "cat",
        "knockem_compete_two": f"""
            echo call >> {counter}
            [ $(wc -l < {counter}) -gt 3 ] && {{ echo 'the world is flat' >&2; exit 7; }}
            {REPORT_A_DRAW}
        """,
    }.items():
        (organism / name).write_text(f"#!/bin/sh\n{script}\n")
        (organism / name).chmod(0o755)
    path = tiny_submission(tmp_path / "study", containerImage="failing", maxFail=1, assayTypes=["nulldist"])
    settings = {"home": tmp_path / "home", "KNOCKEM_ORGANISMS": str(tmp_path / "organisms")}
    ended = knockem("submit", path, "--wait", **settings)
    assert ended.returncode == 1
    assert "is failed" in ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    logs = run("logs", ended.stdout.strip(), "--failed", **settings).stdout
    assert "the world is flat" in logs
    assert "exit code 7" in logs


def test_check_passes_what_keeps_the_contract_and_says_how_to_go_on(tmp_path: Path) -> None:
    result = run(
        "check", "explicit", ORGANISMS / "explicit" / "demo_genome.json", "--env", "EXPLICIT_MODE=exact", home=tmp_path
    )
    assert result.exit_code == 0
    assert result.stdout.count("pass") == 9
    assert "containerImage: explicit" in result.stdout
    assert "EXPLICIT_MODE: exact" in result.stdout


def test_check_of_a_folder_elsewhere_reports_what_fails_and_what_is_missing(tmp_path: Path) -> None:
    organism = tmp_path / "mine"
    organism.mkdir()
    for name, script in {
        "knockem_count_sites": "echo 3",
        "knockem_apply_knockout": "cat",
        "knockem_compete_two": "echo 'no such planet' >&2; exit 4",
    }.items():
        (organism / name).write_text(f"#!/bin/sh\n{script}\n")
        (organism / name).chmod(0o755)
    (tmp_path / "genome").write_text("AAA")
    result = run("check", organism, tmp_path / "genome", home=tmp_path / "home")
    assert result.exit_code == 1
    assert result.stdout.count("FAIL ") == 2
    assert "no such planet" in result.stdout
    assert result.stdout.count("missing (optional)") == 2
    (organism / "knockem_compete_two").write_text(f"#!/bin/sh\n{REPORT_A_DRAW}\n")
    repaired = run("check", organism, tmp_path / "genome", home=tmp_path / "home")
    assert repaired.exit_code == 0
    assert f"KNOCKEM_ORGANISMS='{ORGANISMS}:{tmp_path}'" in repaired.stdout


def test_check_refuses_names_of_the_contract_in_env(tmp_path: Path) -> None:
    (tmp_path / "genome").write_text("AAA")
    assert run("check", "explicit", tmp_path / "genome", "--env", "KNOCKEM_SEED=1", home=tmp_path).exit_code == 2


def test_bench_lists_benchmarks_and_refuses_unknown_ones(tmp_path: Path) -> None:
    assert "published" in run("bench", home=tmp_path).stdout
    assert run("bench", "nonsense", home=tmp_path).exit_code == 2


def test_bench_refuses_to_write_what_it_cannot_go_on_from(tmp_path: Path) -> None:
    result = run("bench", "published", "--write", str(tmp_path / "result.json"), home=tmp_path)
    assert result.exit_code == 2
    assert "leave out --write" in result.stderr
    assert not (tmp_path / "result.json").exists()


def test_test_passes_its_arguments_to_pytest(tmp_path: Path) -> None:
    ended = knockem("test", "--version", home=tmp_path)
    assert ended.returncode == 0
    assert "pytest" in ended.stdout + ended.stderr


def test_a_bad_setting_is_told_without_traceback(tmp_path: Path) -> None:
    result = run("list", home=tmp_path, KNOCKEM_CPUS="none")
    assert result.exit_code == 1
    assert "KNOCKEM_CPUS" in result.stderr
