"""Markdown small enough for an event log: a figure as an inline picture, a table as its first rows."""

from __future__ import annotations

import base64
import math
import re

import pandas as pd
from matplotlib.figure import Figure

from knockem_dagster.reports.figure_files import to_png
from knockem_dagster.reports.wording import MISSING, number

# What one inline picture may take of an event row, its base64 included.
MOST_MARKDOWN_BYTES = 20_000


def figure_markdown(figure: Figure, *, description: str = "figure", max_bytes: int = MOST_MARKDOWN_BYTES) -> str:
    """Return the figure as Markdown with its picture inside, at most `max_bytes` long.

    Raises ValueError when the picture cannot be made that small.
    """
    before, after = f"![{_cell(description)}](data:image/png;base64,", ")"
    room = max_bytes - len(before.encode()) - len(after)
    picture = to_png(figure, max_bytes=room // 4 * 3)
    return before + base64.b64encode(picture).decode("ascii") + after


def table_markdown(table: pd.DataFrame, *, rows: int = 10) -> str:
    """Return the first rows of a table as Markdown, and how many there are more."""
    header = [_cell(str(name)) for name in table.columns]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for record in table.head(rows).itertuples(index=False):
        lines.append("| " + " | ".join(_value(value) for value in record) + " |")
    if len(table) > rows:
        lines.append(f"\n… and {len(table) - rows:,} more rows")
    return "\n".join(lines)


def _value(value: object) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, float):
        return number(value)
    return _cell(str(value))


def _cell(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", " ".join(text.split()))
