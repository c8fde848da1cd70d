"""Fill the tables of docs/methods.md: those of measured rows from docs/statistics.json, the settings from the code.

    ./knockem bench statistics --scale 1 --write docs/statistics.json
    .venv/bin/python -m docs.make_methods

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, where NAME is a group of rows of that result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from benchmarks.conditions import matrix
from benchmarks.results import Result
from benchmarks.targets import HEADINGS, NUMERIC, cells
from knockem_dagster.knockout.assays.boundary_search import SearchSettings
from knockem_dagster.knockout.assays.exact_weighing import ExactWeighingSettings
from knockem_dagster.knockout.assays.prefix_skeletons import PrefixSkeletonSettings
from knockem_dagster.knockout.assays.published.null_distribution import NullSettings
from knockem_dagster.knockout.assays.set_search import SetSearchSettings
from knockem_dagster.knockout.assays.weighing import WeighingSettings

DOCS = Path(__file__).parent
PAGE = DOCS / "methods.md"
RESULT = DOCS / "statistics.json"

CONDITIONS = "other conditions"
"""The table that has a row for each condition instead of one for each quantity."""
SETTINGS = "settings"
"""The table that is not measured: the defaults of all procedures."""
_PROCEDURES = {
    "null distribution": NullSettings,
    "weighing": WeighingSettings,
    "weighing without noise": ExactWeighingSettings,
    "skeletons": PrefixSkeletonSettings,
    "search of a skeleton": SearchSettings,
    "sets": SetSearchSettings,
}
_TABLE = re.compile(r"(<!-- table: (?P<name>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Fill the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, Result.read(RESULT)), encoding="utf-8")


def filled(page: str, result: Result) -> str:
    """Return the page with its tables made anew.

    Raises ValueError when a table has no rows in the result, or rows have no table: nothing measured is left out.
    """
    names = tables_of(page)
    faults = [
        f"the result has no rows for the table {name!r}" for name in names if name not in (SETTINGS, *result.groups)
    ]
    faults += [f"the page has no table for the rows {name!r}" for name in result.groups if name not in names]
    if faults:
        raise ValueError("; ".join(faults))
    return _TABLE.sub(lambda found: f"{found[1]}{_content(found['name'], result)}\n{found[3]}", page)


def tables_of(page: str) -> list[str]:
    """Return the names of the page's tables in their order."""
    return [found["name"] for found in _TABLE.finditer(page)]


def prose_of(page: str) -> str:
    """Return the page without what is between the markers of its tables."""
    return _TABLE.sub("", page)


def _content(name: str, result: Result) -> str:
    if name == SETTINGS:
        return _markdown(("procedure", "setting", "default"), _defaults(), numeric=("default",))
    versions = ", ".join(f"{library} {version}" for library, version in result.versions.items())
    caption = f"*`{result.command}`, commit {result.commit}, {result.date}; {versions}.*"
    rows = result.groups[name]
    if name == CONDITIONS:
        headings, shown = matrix(rows)
        return f"{_markdown(headings, shown, numeric=headings[1:])}\n\n{caption}"
    return f"{_markdown(HEADINGS, [cells(row) for row in rows], numeric=NUMERIC)}\n\n{caption}"


def _defaults() -> list[tuple[str, str, str]]:
    return [(name, *each) for name, settings in _PROCEDURES.items() for each in _values(settings())]


def _values(settings: Any) -> Iterator[tuple[str, str]]:
    """Yield names and values; of settings within settings only what differs from their own defaults."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not is_dataclass(value):
            yield field.name, f"{value:,}" if isinstance(value, int) else str(value)
            continue
        usual = dict(_values(type(value)()))
        yield from ((f"{field.name}.{name}", each) for name, each in _values(value) if each != usual[name])


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[str]) -> str:
    """Return a table without the columns that are empty in every row."""
    shown = [number for number in range(len(headings)) if any(row[number] for row in rows)]
    rule = ["---:" if headings[number] in numeric else "---" for number in shown]
    lines = [[headings[number] for number in shown], rule, *([row[number] for number in shown] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    main()
