from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from knockem_dagster.reports.previews import table_markdown
from knockem_dagster.reports.spoken import Estimate
from knockem_dagster.reports.summary import SubmissionSummary, summary_markdown, summary_page, summary_table

NAN = math.nan
ESTIMATE = Estimate(
    quantity="functional sites", value=NAN, low=NAN, high=NAN, level=NAN, method="weighing; declined: it drifts", n=9
)
FINISHED = SubmissionSummary(
    submission="one",
    organism="explicit",
    state="completed",
    sites=1_000,
    competitions=17_250,
    additive_sites=replace(ESTIMATE, quantity="additive sites", value=41.4, low=38.0, high=45.0),
    epistatic_sites=replace(ESTIMATE, quantity="epistatic sites", value=33.0),
    functional_sites=ESTIMATE,
    finished=datetime(2025, 3, 4, 9, 41, tzinfo=UTC),
)
RUNNING = SubmissionSummary(submission="<i>two|", organism="additive", state="running", sites=50, competitions=12)


def test_markdown_shows_the_first_rows_and_counts_the_rest() -> None:
    lines = table_markdown(pd.DataFrame({"site": range(25), "effect": 0.5}), rows=10).splitlines()
    assert lines[0] == "| site | effect |"
    assert lines[2] == "| 0 | 0.5 |"
    assert len([line for line in lines if line.startswith("|")]) == 12
    assert lines[-1] == "… and 15 more rows"


def test_markdown_keeps_its_columns_whatever_the_cells_hold() -> None:
    text = table_markdown(pd.DataFrame({"tail": ["a|b\nc <script>", None], "score": [np.nan, 0.25]}))
    assert text.splitlines()[2:] == ["| a\\|b c \\<script\\> | – |", "| – | 0.25 |"]


def test_markdown_of_an_empty_table_is_its_header() -> None:
    assert table_markdown(pd.DataFrame({"site": []})).splitlines() == ["| site |", "| --- |"]


def test_summary_has_a_row_per_submission_and_dashes_for_what_is_missing() -> None:
    table = summary_table([FINISHED, RUNNING])
    assert list(table["competitions"]) == [17_250, 12]
    assert table["additive sites"].tolist() == ["41.4 (38 to 45)", "–"]
    assert table["epistatic sites"].tolist() == ["33", "–"]
    assert table["functional sites"].tolist() == ["–", "–"]
    last = summary_markdown([FINISHED, RUNNING]).splitlines()[-1]
    assert last.count("–") == 4


def test_summary_page_escapes_and_counts() -> None:
    page = summary_page([FINISHED, RUNNING])
    assert "<i>" not in page
    assert "&lt;i&gt;two|" in page
    assert "17,250" in page
    assert "2 submissions" in page


def test_summary_of_nothing_says_so() -> None:
    assert summary_table([]).empty
    assert "No submission yet" in summary_page([])
