"""Competitions as a table, and a submission in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from knockem_dagster.assay_runs import competition_table
from knockem_dagster.assay_runs.competition_table import COMPETITION_COLUMNS, competition_pages
from knockem_dagster.assay_runs.export import export
from knockem_dagster.assay_runs.tables import report_key, write_table
from knockem_dagster.errors import KnockemError
from knockem_dagster.platform import Platform
from knockem_dagster.settings import load_settings
from tests.services.submissions import a_submission, store_with_competitions


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    opened = Platform(load_settings(home=tmp_path / "home"))
    yield opened
    opened.close()


def read_csv(path: Path) -> pd.DataFrame:
    """Read as the README of an export says."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def null_table(rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"replicate": range(rows), "updates": 2.0, "alpha": 60, "beta": 40, "score": [0.1, float("nan")] * (rows // 2)}
    )


def test_competitions_come_in_pages_with_doses_scores_and_outcome(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(competition_table, "PAGE", 4)
    submission = a_submission()
    store_with_competitions(platform.records, submission, answered=7, failed=3)
    pages = list(competition_pages(platform.records, submission))
    assert [len(page) for page in pages] == [4, 4, 2]
    found = pd.concat(pages).sort_values("replicate", ignore_index=True)
    assert list(found.columns) == [column.name for column in COMPETITION_COLUMNS]
    assert found["outcome"].tolist() == ["answered"] * 7 + ["unanswered"] * 3
    assert found["score"][:7].tolist() == pytest.approx([0.1] * 7)
    assert found["score"][7:].isna().all()
    assert set(found["alpha_dose"]) == {0}
    assert set(found["beta_dose"]) == {1}


def test_export_writes_the_same_values_as_parquet_and_csv(platform: Platform, tmp_path: Path) -> None:
    submission = a_submission()
    store_with_competitions(platform.records, submission, answered=3, failed=1)
    write_table(platform.objects, submission.id, "null_distribution", null_table(6))
    platform.objects.put(report_key(submission.id), b"<html>")
    folder = tmp_path / "deep" / "out"
    files = export(platform, submission, folder)
    assert {path.name for path in files} == {
        "null_distribution.parquet",
        "null_distribution.csv",
        "competitions.parquet",
        "competitions.csv",
        "columns.json",
        "submission.json",
        "genome",
        "README.md",
        "report.html",
    }
    for name in ("null_distribution", "competitions"):
        parquet, csv = pd.read_parquet(folder / f"{name}.parquet"), read_csv(folder / f"{name}.csv")
        pd.testing.assert_frame_equal(parquet, csv, check_dtype=False)
    columns = json.loads((folder / "columns.json").read_text())
    assert {column["name"]: column["unit"] for column in columns["null_distribution"]}["score"] == "1/update"
    assert json.loads((folder / "submission.json").read_text())["id"] == submission.id
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_export_never_writes_into_a_folder_that_holds_something(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(KnockemError, match="not an empty folder"):
        export(platform, a_submission(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_export_of_a_submission_without_results_has_an_empty_table(platform: Platform, tmp_path: Path) -> None:
    submission = a_submission()
    store_with_competitions(platform.records, submission, answered=0, failed=0)
    export(platform, submission, tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "competitions.csv").empty
    assert pd.read_parquet(tmp_path / "out" / "competitions.parquet").empty
