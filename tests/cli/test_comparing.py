"""`compare` as a user types it, on stores that hold submissions with estimates."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from knockem_dagster.api import compare
from knockem_dagster.assay_runs.tables import write_table
from knockem_dagster.cli.main import app
from knockem_dagster.errors import KnockemError
from knockem_dagster.records.submissions import State
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports.comparison import COMPARISON
from knockem_dagster.settings import load_settings
from tests.services.command_line import environment_of
from tests.services.platforms import platform_of
from tests.services.submissions import a_submission, store_with_competitions

METHOD = "enumeration of sets, with a name that is longer than a line of a terminal has room for"
NAN = float("nan")


def run(*arguments: str | Path, home: Path, **more: str) -> Result:
    typed = ["compare", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(app, typed, env=environment_of(home, **more))


def stored(home: Path, name: str, estimates: list[tuple[object, ...]] | None, **changes: object) -> str:
    """Store a submission with estimates, (quantity, value, low, high), and return its id."""
    platform = platform_of(home)
    submission = a_submission(name, **{"state": State.COMPLETED, **changes})
    store_with_competitions(platform.records, submission, answered=1, failed=0)
    if estimates is not None:
        columns = [column.name for column in TABLES["estimates"].columns]
        rows = [(*row, "", NAN if row[2] is NAN else 0.95, METHOD, 5_040) for row in estimates]
        write_table(platform.objects, submission.id, "estimates", pd.DataFrame(rows, columns=columns))
    platform.close()
    return submission.id


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def control(home: Path) -> str:
    estimates: list[tuple[object, ...]] = [("functional sites", 6.25, 5, 9), ("additive sites", 3, NAN, NAN)]
    return stored(home, "control", estimates, container_env={"DRUG": "none"})


@pytest.fixture(scope="module")
def treated(home: Path) -> str:
    estimates: list[tuple[object, ...]] = [("functional sites", 1234, 1100, 1400)]
    return stored(home, "treated", estimates, container_env={"DRUG": "2 mM"}, container_image="lab/[red]organism:2.1")


def test_every_quantity_has_a_block_and_a_row_per_submission(home: Path, control: str, treated: str) -> None:
    shown = run(control[:6], treated, home=home)
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.stdout.splitlines()]
    start, between = lines.index(["functional", "sites", "(sites)"]), lines.index(["additive", "sites", "(sites)"])
    assert [control[:8], "6.25", "5", "to", "9", "95%", "5,040"] in lines[start:between]
    assert [treated[:8], "1,234", "1,100", "to", "1,400", "95%", "5,040"] in lines[start:between]
    assert [control[:8], "3", "none", "5,040"] in lines[between:]
    assert [treated[:8], "not", "estimated"] in lines[between:]
    assert "lab/[red]organism:2.1" in shown.stdout
    assert "DRUG 2 mM" in shown.stdout
    assert "--out DIR" in shown.stdout
    assert METHOD in shown.stdout


def test_the_tables_fit_into_80_columns(
    home: Path, control: str, treated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knockem_dagster.cli.terminal._PIPED_COLUMNS", 80)
    shown = run(control, treated, home=home)
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    assert "…" not in shown.stdout, "nothing is cut"


def test_out_has_the_table_twice_and_the_figure_twice(home: Path, control: str, treated: str, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    written = run(treated, control, "--out", folder, home=home)
    assert written.exit_code == 0, written.output
    assert f"4 files are in {folder}" in written.stdout
    names = {path.name for path in folder.iterdir()}
    assert names == {"comparison.csv", "comparison.parquet", "comparison.svg", "comparison.png"}
    parquet = pd.read_parquet(folder / "comparison.parquet")
    csv = pd.read_csv(folder / "comparison.csv", keep_default_na=False, na_values=[""])
    pd.testing.assert_frame_equal(parquet, csv, check_dtype=False)
    assert parquet["submission"].tolist() == [treated, control] * 2
    assert ElementTree.parse(folder / "comparison.svg").getroot().tag.endswith("svg")
    with Image.open(folder / "comparison.png") as picture:
        assert picture.format == "PNG"


def test_a_folder_that_holds_something_is_left_alone(home: Path, control: str, treated: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    refused = run(control, treated, "--out", tmp_path, home=home)
    assert refused.exit_code == 1
    assert "not an empty folder" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_cannot_be_compared_is_an_error_that_says_what_to_do(home: Path, control: str) -> None:
    going = stored(home, "going", None, state=State.RUNNING)
    for ids, told in (
        ([control], "two submissions at least"),
        ([control, control[:5]], f"Submission {control[:8]} was named more than once"),
        ([control, "ffffffff"], "There is no submission 'ffffffff'"),
        ([control, going], f"There are no estimates of {going[:8]} (running). `./knockem status ID`"),
    ):
        refused = run(*ids, home=home)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert told in refused.stderr
        assert "Traceback" not in refused.stderr
    assert run(home=home).exit_code == 2


def test_python_has_the_same_table_with_units(home: Path, control: str, treated: str) -> None:
    settings = load_settings(home=home)
    table = compare([control[:6], treated], settings)
    assert list(table.columns) == [column.name for column in COMPARISON.columns]
    assert all(name in (compare.__doc__ or "") for name in table.columns)
    assert table.attrs["units"]["n"] == "competitions"
    assert table[["submission", "outcome"]].to_numpy().tolist() == [
        [control, "estimated"],
        [treated, "estimated"],
        [control, "estimated"],
        [treated, "not estimated"],
    ]
    with pytest.raises(KnockemError, match="two submissions"):
        compare([control], settings)
