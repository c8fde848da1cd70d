"""The page of methods holds exactly what the recorded run of `bench statistics` measured."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.results import Result
from benchmarks.statistics import groups
from docs.make_methods import CONDITIONS, PAGE, RESULT, SETTINGS, filled, prose_of, tables_of

ROOT = Path(__file__).parents[2]
HINT = "run `.venv/bin/python -m docs.make_methods`"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def result() -> Result:
    return Result.read(RESULT)


def test_tables_are_those_of_the_recorded_result(page: str, result: Result) -> None:
    assert page == filled(page, result), HINT


def test_all_rows_of_the_benchmark_are_recorded_and_have_a_table(page: str, result: Result) -> None:
    wanted = [group.name for group in groups(scale=0.001, seed=1)]
    assert list(result.groups) == wanted, "run `./knockem bench statistics --scale 1 --write docs/statistics.json`"
    assert sorted(tables_of(page)) == sorted([*wanted, SETTINGS])
    for name, rows in result.groups.items():
        assert rows
        shown = [row.name.partition(": ")[0] if name == CONDITIONS else row.name for row in rows]
        assert all(f"| {each} |" in page for each in shown)


def test_another_value_commit_or_day_makes_another_page(page: str, result: Result) -> None:
    name, rows = next(iter(result.groups.items()))
    changed = replace(rows[0], value=rows[0].value + 1)
    for other in (
        replace(result, groups={**result.groups, name: [changed, *rows[1:]]}),
        replace(result, groups={**result.groups, name: [*rows, replace(rows[0], name="a new row")]}),
        replace(result, commit="0000000"),
        replace(result, date="2001-01-01"),
        replace(result, command="./knockem bench statistics --scale 0.5 --seed 1"),
    ):
        assert filled(page, other) != page


def test_a_table_without_rows_and_rows_without_a_table_are_refused(page: str, result: Result) -> None:
    name = next(iter(result.groups))
    fewer = {each: rows for each, rows in result.groups.items() if each != name}
    with pytest.raises(ValueError, match=re.escape(f"no rows for the table {name!r}")):
        filled(page, replace(result, groups=fewer))
    with pytest.raises(ValueError, match="no table for the rows 'more'"):
        filled(page, replace(result, groups={**result.groups, "more": []}))


def test_links_within_the_page_and_out_of_it_lead_somewhere(page: str) -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", page)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        assert anchor in headings if not path else (PAGE.parent / path).exists(), link


def test_modules_that_the_text_names_exist(page: str) -> None:
    knockout = ROOT / "knockem_dagster" / "knockout"
    modules = {path.stem for path in knockout.rglob("*.py")} | {path.name for path in knockout.rglob("*")}
    named = [
        name
        for line in re.findall(r"^\*(?:Modules?|Package).*\*$", page, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", line)
    ]
    assert named
    assert [name for name in named if Path(name).name not in modules] == []


def test_numbers_that_look_measured_stand_in_tables_only(page: str) -> None:
    """Percentages and numbers of four digits are what prose would quote; levels, years and references may stand."""
    body, _, _ = prose_of(page).partition("\n## References")
    quoted = re.findall(r"\d+(?:\.\d+)?%|\b\d{1,3}(?:,\d{3})+\b", body)
    assert set(quoted) <= {"1%", "95%"}
