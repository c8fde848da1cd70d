"""The benchmark of the assays at its smallest scale, and the verdicts its rows give."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from benchmarks.conditions import matrix, measure_conditions
from benchmarks.reference_organism import ReferenceGenome, ReferenceOrganism, wright_fisher
from benchmarks.statistics import groups
from benchmarks.targets import TargetRow, as_json, print_table
from knockem_dagster.knockout.competitions import Competition, Counts
from knockem_dagster.knockout.knockouts import KnockoutSet
from tests.knockout.worlds import seeded

QUICK = ("the usual", "no functional site", "skewed scores", "no noise, overlapping sets", "no noise, 2% exchanged")
"""Conditions whose genomes take a few seconds each."""


@pytest.fixture(scope="module")
def rows() -> dict[str, TargetRow]:
    small = [group for group in groups(scale=0.001, seed=3) if group.name != "other conditions"]
    rows = [row for group in small for row in group.measure()]
    return {row.name: row for row in [*rows, *measure_conditions(seeded(3), 2, QUICK)]}


@pytest.mark.slow
def test_no_row_misses_its_target(rows: dict[str, TargetRow]) -> None:
    assert [row.name for row in rows.values() if row.verdict == "missed"] == []
    for size in ("4,000", "10,000"):
        assert rows[f"cold skeleton, {size} sites: identical to greedy"].value == 1
        assert rows[f"cold skeleton, {size} sites: tests / log2 C(N, k)"].value < 1.03
    assert 1 < rows["later skeletons, 4,000 sites: tests / (k + 1)"].value < 2
    for name in QUICK:
        assert rows[f"{name}: functional, above .1, wrong"].value == 0
        assert rows[f"{name}: false sites"].value == 0
    assert rows["skewed scores: sets, wrong"].source == "2 of 2 declined"
    assert rows["the usual: sets, wrong"].source == ""
    headings, table = matrix([row for name, row in rows.items() if name.partition(": ")[0] in QUICK])
    assert [line[0] for line in table] == list(QUICK)
    assert dict(zip(headings, table[2], strict=True))["sets"] == "0 + 2"
    published = rows["neutral sites kept, 1,000 sites, r = .4"].published
    assert published is not None and published > 300


@pytest.mark.slow
def test_rows_are_printed_for_people_and_programs(rows: dict[str, TargetRow]) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_table(list(rows.values()), title="Targets", console=console)
    assert isinstance(console.file, io.StringIO)
    assert all(name in console.file.getvalue() for name in rows)
    assert [row["name"] for row in json.loads(as_json(list(rows.values())))] == list(rows)
    assert json.loads(as_json([TargetRow.of("once", [1.0])]))[0]["standard_error"] is None


@pytest.mark.parametrize(
    ("value", "error", "n", "verdict"),
    [(0.9, 0.01, 10, "reached"), (1.1, 0.01, 10, "missed"), (0.99, 0.01, 10, "undecided"), (0.9, 0.01, 9, "undecided")],
)
def test_a_row_decides_only_what_its_standard_error_allows(value: float, error: float, n: int, verdict: str) -> None:
    assert TargetRow("row", value, error, n, most=1.0, needed=10).verdict == verdict


def test_a_row_of_values_has_their_mean_and_standard_error() -> None:
    row = TargetRow.of("row", [1.0, 2.0, 3.0], least=1.0, most=3.0)
    assert (row.value, row.n, row.target) == (2.0, 3, "1 to 3")
    assert row.standard_error == pytest.approx(1 / math.sqrt(3))
    assert TargetRow.of("row", [1.0, 1.0]).verdict == ""


def test_one_competition_is_what_many_together_would_be() -> None:
    genome = ReferenceGenome(4, {0: 0.5})
    organism = ReferenceOrganism(genome, mode="wright-fisher", seed=5)
    for replicate in range(20):
        competition = Competition(KnockoutSet.none(4), KnockoutSet.of([0], 4), "test", replicate)
        rng = np.random.default_rng(organism.seed_of(competition))
        [survivors] = wright_fisher(np.array([0.5]), rng)
        assert organism.answer(competition) == Counts(100, int(survivors), 1000 - int(survivors))
