"""A submission from Python."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from knockem_dagster.api import Submission
from knockem_dagster.assay_runs.competition_table import COMPETITION_COLUMNS
from knockem_dagster.assay_runs.tables import report_key, write_table
from knockem_dagster.errors import KnockemError, NotFound
from knockem_dagster.platform import Platform
from knockem_dagster.records.submissions import State
from knockem_dagster.records.tables import TABLES
from knockem_dagster.settings import Settings, load_settings
from tests.services.submissions import a_submission, store_with_competitions


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


@pytest.fixture
def submission_id(settings: Settings) -> str:
    """A completed submission with five competitions, of which three are answered, and its null distribution."""
    platform = Platform(settings)
    submission = a_submission(state=State.COMPLETED)
    store_with_competitions(platform.records, submission, answered=3, failed=2)
    null = pd.DataFrame({"replicate": [1, 0], "updates": 2.0, "alpha": 60, "beta": 40, "score": 0.1})
    write_table(platform.objects, submission.id, "null_distribution", null)
    platform.objects.put(report_key(submission.id), b"<html>")
    platform.close()
    return submission.id


def test_competitions_have_documented_units_and_a_fixed_order(settings: Settings, submission_id: str) -> None:
    with Submission.open(submission_id[:6], settings) as study:
        competitions = study.competitions
    assert list(competitions.columns) == [column.name for column in COMPETITION_COLUMNS]
    assert competitions["replicate"].tolist() == [0, 1, 2, 3, 4]
    assert competitions["score"].notna().tolist() == [True, True, True, False, False]
    assert competitions.attrs["units"]["score"] == "1/update"
    assert competitions.attrs["units"]["beta_dose"] == "sites"
    assert all(name in (Submission.competitions.__doc__ or "") for name in competitions.columns)


def test_tables_carry_the_declared_units(settings: Settings, submission_id: str) -> None:
    with Submission.open(submission_id, settings) as study:
        table = study.table("null_distribution")
        assert table["replicate"].tolist() == [0, 1]
        assert table.attrs["units"] == {column.name: column.unit for column in TABLES["null_distribution"].columns}
        assert study.state is State.COMPLETED
        assert Path(study.report_path).read_bytes() == b"<html>"


def test_what_is_not_there_is_said(settings: Settings, submission_id: str) -> None:
    with Submission.open(submission_id, settings) as study:
        with pytest.raises(NotFound, match="the tables are null_distribution, screen"):
            study.table("nonsense")
        with pytest.raises(NotFound, match="not asked for"):
            _ = study.estimates
    with pytest.raises(KnockemError, match="There is no submission"):
        Submission.open("ffffffff", settings)


def test_latest_is_the_newest_that_is_completed(settings: Settings, submission_id: str) -> None:
    platform = Platform(settings)
    platform.records.submissions.add(a_submission("later but failed", state=State.FAILED))
    platform.close()
    with Submission.latest(settings) as study:
        assert study.id == submission_id


def test_latest_without_any_says_how_to_get_one(settings: Settings) -> None:
    with pytest.raises(NotFound, match="knockem demo"):
        Submission.latest(settings)
