"""`extend` as a user types it: a study that ran goes on with what it has, and refusals tell what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from knockem_dagster.cli.main import app
from tests.services.command_line import environment_of, knockem, tiny_submission


def run(*arguments: str, home: Path) -> Result:
    """Run a command in this process: for those that do not need Dagster."""
    return CliRunner().invoke(app, list(arguments), env=environment_of(home))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def study(home: Path) -> str:
    """The id of a study that is completed."""
    file = tiny_submission(home / "study", assayTypes=["skeletonMarkRecapture", "weighing"])
    submitted = knockem("submit", file, "--wait", "--json", home=home)
    assert submitted.returncode == 0, submitted.stderr
    return json.loads(submitted.stdout)["id"]


def test_a_study_is_extended_in_dagster_and_shows_its_new_report(home: Path, study: str) -> None:
    before = json.loads(run("status", study, "--json", home=home).stdout)
    report = Path(run("report", study, home=home).stdout.strip())
    old = report.read_text()
    answer = knockem("extend", study[:8], "--skeletons", "5", "--wait", "--json", home=home)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["state"] == "completed"
    after = json.loads(run("status", study, "--json", home=home).stdout)
    assert (after["state"], after["assays_done"]) == ("completed", after["assays_total"])
    assert before["done"] < after["done"] == after["total"] == after["attempts"]["succeeded"]
    assert report.read_text() != old
    assert run("export", study, str(home / "out"), home=home).exit_code == 0
    assert pd.read_parquet(home / "out" / "skeletons.parquet")["skeleton"].nunique() == 5
    assert len(pd.read_parquet(home / "out" / "competitions.parquet")) == after["done"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "at least one of a finer resolution, a larger budget or more skeletons is"),
        (("--skeletons", "1"), "a larger whole number, up to 50, is"),
        (("--budget", "100"), "the study has no budget"),
        (("--resolution", "0.05"), "the organism is without noise"),
    ],
)
def test_refusals_name_the_option_and_what_is_allowed(
    home: Path, study: str, arguments: tuple[str, ...], told: str
) -> None:
    refused = run("extend", study, *arguments, home=home)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"knockem: Submission {study} cannot be extended so.")
    assert told in refused.stderr


def test_an_unknown_id_is_told(home: Path, study: str) -> None:
    refused = run("extend", "ffffffff", "--skeletons", "9", home=home)
    assert refused.exit_code == 1
    assert "There is no submission 'ffffffff'" in refused.stderr


def test_without_a_daemon_it_says_what_takes_the_study_up_and_cannot_be_extended_again_meanwhile(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    id = run("submit", str(tiny_submission(tmp_path)), home=home).stdout.strip()
    assert run("cancel", id, home=home).exit_code == 0
    accepted = run("extend", id[:6], "--skeletons", "4", home=home)
    assert accepted.stdout.strip() == id
    assert "`./knockem up` starts one, which takes it up" in accepted.stderr
    again = run("extend", id, "--skeletons", "9", home=home)
    assert again.exit_code == 1
    assert "is accepted;" in again.stderr
