"""All submissions side by side: one table, as Markdown for the UI and as a small page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from knockem_dagster.reports.page import render
from knockem_dagster.reports.previews import table_markdown
from knockem_dagster.reports.wording import MISSING, moment, number


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionSummary:
    """One submission: its state, its size, and its estimates (numbers of sites) as far as there are any."""

    submission: str
    organism: str
    state: str
    sites: int
    competitions: int
    additive_sites: float | None = None
    epistatic_sites: float | None = None
    functional_sites: float | None = None
    finished: datetime | None = None


def summary_table(summaries: Sequence[SubmissionSummary]) -> pd.DataFrame:
    """Return one row per submission in the order given; missing estimates are NaN, times are text in UTC."""
    missing = float("nan")
    return pd.DataFrame(
        {
            "submission": [each.submission for each in summaries],
            "organism": [each.organism for each in summaries],
            "state": [each.state for each in summaries],
            "sites": pd.Series([each.sites for each in summaries], dtype="int64"),
            "competitions": pd.Series([each.competitions for each in summaries], dtype="int64"),
            "additive sites": [missing if each.additive_sites is None else each.additive_sites for each in summaries],
            "epistatic sites": [
                missing if each.epistatic_sites is None else each.epistatic_sites for each in summaries
            ],
            "functional sites": [
                missing if each.functional_sites is None else each.functional_sites for each in summaries
            ],
            "finished": [moment(each.finished) for each in summaries],
        }
    )


def summary_markdown(summaries: Sequence[SubmissionSummary], *, rows: int = 50) -> str:
    """Return the summary as Markdown, at most `rows` submissions of it."""
    return table_markdown(summary_table(summaries), rows=rows)


def summary_page(summaries: Sequence[SubmissionSummary]) -> str:
    """Return the summary as a self-contained HTML page."""
    table = summary_table(summaries)
    rows = [{str(name): _shown(value) for name, value in record.items()} for record in table.to_dict("records")]
    numeric = {str(name) for name in table.select_dtypes("number").columns}
    return render("summary.html", columns=[str(name) for name in table.columns], numeric=numeric, rows=rows)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else MISSING
    return f"{value:,}" if isinstance(value, int) else str(value)
