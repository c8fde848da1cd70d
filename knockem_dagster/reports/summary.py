"""All submissions side by side: one table, as Markdown for the UI and as a small page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from knockem_dagster.reports.page import render
from knockem_dagster.reports.previews import table_markdown
from knockem_dagster.reports.spoken import Estimate
from knockem_dagster.reports.wording import MISSING, moment

_WORDS = {"submission", "organism", "state", "finished"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionSummary:
    """One submission: its state, its size, and its estimates (numbers of sites) as far as there are any.

    Each is the one that the submission's own report quotes.
    """

    submission: str
    organism: str
    state: str
    sites: int
    competitions: int
    additive_sites: Estimate | None = None
    epistatic_sites: Estimate | None = None
    functional_sites: Estimate | None = None
    finished: datetime | None = None


def summary_table(summaries: Sequence[SubmissionSummary]) -> pd.DataFrame:
    """Return one row per submission in the order given; estimates, with their intervals, and times are text."""
    return pd.DataFrame(
        {
            "submission": [each.submission for each in summaries],
            "organism": [each.organism for each in summaries],
            "state": [each.state for each in summaries],
            "sites": pd.Series([each.sites for each in summaries], dtype="int64"),
            "competitions": pd.Series([each.competitions for each in summaries], dtype="int64"),
            "additive sites": [_brief(each.additive_sites) for each in summaries],
            "epistatic sites": [_brief(each.epistatic_sites) for each in summaries],
            "functional sites": [_brief(each.functional_sites) for each in summaries],
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
    numeric = {str(name) for name in table.columns if name not in _WORDS}
    return render("summary.html", columns=[str(name) for name in table.columns], numeric=numeric, rows=rows)


def _brief(estimate: Estimate | None) -> str:
    return MISSING if estimate is None else estimate.brief


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
