"""The table of all sites: its columns, its first rows as text, and all of it as the data that report.js shows.

Rows are in order of evidence. Without JavaScript a reader has the first of them; with it all, searched and sorted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import orjson
import pandas as pd

from knockem_dagster.records.tables import TABLES, Column
from knockem_dagster.reports.wording import MISSING, decimals

ROWS_SHOWN = 100
_EVIDENCE = ["probability", "effect"]
# Columns that number things: -1 says that there is none.
_NUMBERS_OF_THINGS = {"set"}
_DECIMALS = 2
_DIGITS_KEPT = 6


@dataclass(frozen=True, slots=True)
class SiteColumn:
    """A column as a reader meets it; `decimals` is None where it holds words.

    `descending` tells whether a first click puts the largest on top, `sorted` whether the table starts so.
    """

    name: str
    meaning: str
    decimals: int | None
    descending: bool
    sorted: bool

    @property
    def title(self) -> str:
        """The name as the header of a column."""
        return self.name.capitalize()


@dataclass(frozen=True, slots=True)
class SiteTable:
    """The columns, the first rows with evidence as text, and every row as JSON that may stand in a script element."""

    columns: tuple[SiteColumn, ...]
    rows: tuple[tuple[str, ...], ...]
    num_sites: int
    data: str


def site_table(sites: pd.DataFrame | None) -> SiteTable | None:
    """Return the table of all sites in order of evidence, or None where no site has any."""
    if sites is None:
        return None
    ranked = sites.sort_values(_EVIDENCE, ascending=False, kind="stable", na_position="last")
    with_evidence = int(ranked[_EVIDENCE].notna().any(axis=1).to_numpy(dtype=bool)[:ROWS_SHOWN].sum())
    if not with_evidence:
        return None
    columns = tuple(_column(declared) for declared in TABLES["sites"].columns)
    values = [_values(ranked, column) for column in columns]
    texts = [
        [_text(value, column) for value in of_column[:with_evidence]]
        for column, of_column in zip(columns, values, strict=True)
    ]
    return SiteTable(
        columns=columns,
        rows=tuple(zip(*texts, strict=True)),
        num_sites=len(ranked),
        data=_data(columns, values),
    )


def _column(declared: Column) -> SiteColumn:
    measured = declared.dtype.startswith("float")
    unit = "" if declared.unit in ("", declared.name) else f" ({declared.unit})"
    return SiteColumn(
        name=declared.name,
        meaning=declared.meaning + unit,
        decimals=_DECIMALS if measured else 0 if declared.dtype.startswith("int") else None,
        descending=measured,
        sorted=declared.name == _EVIDENCE[0],
    )


def _values(table: pd.DataFrame, column: SiteColumn) -> list[float | int | str | None]:
    """Return a column as JSON holds it: missing values as None, numbers with the digits that they can bear."""
    values = table[column.name].tolist()
    if column.decimals is None:
        return [None if pd.isna(value) else {True: "yes", False: "no"}.get(value, str(value)) for value in values]
    if column.decimals:
        return [float(f"{value:.{_DIGITS_KEPT}g}") if math.isfinite(value) else None for value in values]
    return [None if column.name in _NUMBERS_OF_THINGS and value < 0 else int(value) for value in values]


def _text(value: float | int | str | None, column: SiteColumn) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else decimals(value, column.decimals or 0)


def _data(columns: tuple[SiteColumn, ...], values: list[list[float | int | str | None]]) -> str:
    described = [
        {"name": column.name, "decimals": column.decimals, "descending": column.descending} for column in columns
    ]
    # A "<" could end the script element that holds the data.
    return orjson.dumps({"columns": described, "values": values}).decode().replace("<", "\\u003c")
