"""Estimates of several submissions in one table."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.errors import KnockemError
from knockem_dagster.knockout.quantities import unit_of
from knockem_dagster.records.tables import TABLES
from knockem_dagster.reports.comparison import (
    COMPARISON,
    MOST_PANELS,
    ComparedSubmission,
    comparison_table,
    distinctions,
    interval_of,
)

NAN = math.nan
ENUMERATION = "enumeration of sets"
PUBLISHED = "mark-recapture, interpolated jackknife (Burnham-Overton 1979)"
PAIRS = st.tuples(st.sampled_from(["functional sites", "additive sites", "something new"]), st.sampled_from("abc"))


def estimate(
    quantity: str, value: float, *ends: float, method: str = ENUMERATION, n: int = 100
) -> tuple[str, float, float, float, str, float, str, int]:
    low, high = ends or (NAN, NAN)
    return quantity, value, low, high, unit_of(quantity), 0.95 if ends else NAN, method, n


def compared(name: str, *estimates: tuple[object, ...], **changes: object) -> ComparedSubmission:
    columns = [column.name for column in TABLES["estimates"].columns]
    given: dict[str, object] = {
        "id": name * 8,
        "state": "completed",
        "organism": "explicit",
        "organism_digest": "sha256:1",
        "genome_digest": "0" * 64,
        "num_sites": 1_000,
        "settings": {"seed": "1"},
        "estimates": pd.DataFrame(estimates, columns=columns),
    }
    return ComparedSubmission(**{**given, **changes})  # type: ignore[arg-type]


def drawn(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(table[table["drawn"]][["quantity", "method"]].drop_duplicates().itertuples(index=False, name=None))


def test_a_method_that_declined_for_one_submission_is_the_same_method() -> None:
    declined = estimate("additive sites", NAN, method=f"{ENUMERATION}; declined: the null drifts")
    table = comparison_table([compared("a", estimate("additive sites", 52.0, 44, 61)), compared("b", declined)])
    assert set(table["method"]) == {ENUMERATION}
    assert table["outcome"].tolist() == ["estimated", "no value"]


def test_every_submission_has_a_row_and_what_one_lacks_is_said() -> None:
    table = comparison_table(
        [
            compared("a", estimate("additive sites", 52.0, 44, 61, n=5_040)),
            compared("b", estimate("functional sites", NAN), estimate("additive sites", 40.0)),
        ]
    )
    assert list(table.columns) == [column.name for column in COMPARISON.columns]
    rows = table[["quantity", "submission", "outcome", "n"]].itertuples(index=False, name=None)
    assert list(rows) == [
        ("functional sites", "a" * 8, "not estimated", 0),
        ("functional sites", "b" * 8, "no value", 100),
        ("additive sites", "a" * 8, "estimated", 5_040),
        ("additive sites", "b" * 8, "estimated", 100),
    ]
    assert table.loc[2, ["value", "low", "high", "level"]].tolist() == [52, 44, 61, 0.95]
    assert table.loc[[0, 1, 3], ["low", "high", "level"]].isna().all(axis=None)


@given(st.lists(st.lists(PAIRS, min_size=1, unique=True), min_size=2, max_size=5))
def test_nothing_is_lost_and_nothing_is_made_up(pairs: list[list[tuple[str, str]]]) -> None:
    names = "abcde"[: len(pairs)]
    given = [
        compared(name, *(estimate(quantity, index, method=method) for index, (quantity, method) in enumerate(those)))
        for name, those in zip(names, pairs, strict=True)
    ]
    table = comparison_table(given)
    every = {pair for those in pairs for pair in those}
    for (quantity, method), rows in table.groupby(["quantity", "method"], sort=False):
        assert rows["submission"].tolist() == [each.id for each in given]
        expected = [those.index((quantity, method)) if (quantity, method) in those else None for those in pairs]
        assert [None if math.isnan(value) else value for value in rows["value"]] == expected
        every.remove((str(quantity), str(method)))
    assert every == set()


def test_the_figure_shows_four_quantities_the_most_important_first() -> None:
    quantities = ["mean effect of additive sites", "sites detected alone", "epistatic sites", "functional sites"]
    quantities += ["a new one", "additive sites", "sites with effect > 0.1", "sites with effect > 0.25"]
    table = comparison_table([compared(name, *(estimate(each, 1) for each in quantities)) for name in "ab"])
    shown = ["functional sites", "additive sites", "sites with effect > 0.1", "epistatic sites"]
    assert [quantity for quantity, _ in drawn(table)] == shown
    assert len(shown) == MOST_PANELS
    assert table["quantity"].iloc[-1] == "a new one"


def test_the_figure_shows_the_limit_of_effect_that_most_submissions_have() -> None:
    few, many = estimate("sites with effect > 0.1", 5), estimate("sites with effect > 0.2", 4)
    assert drawn(comparison_table([compared("a", few, many), compared("b", many)])) == [(many[0], ENUMERATION)]


def test_the_published_method_is_drawn_only_where_another_has_fewer_values() -> None:
    old = estimate("functional sites", 90.0, 60, 120, method=PUBLISHED)
    new, none = estimate("functional sites", 92.0), estimate("functional sites", NAN)
    assert drawn(comparison_table([compared("a", old, new), compared("b", old, new)])) == [(old[0], ENUMERATION)]
    assert drawn(comparison_table([compared("a", old, new), compared("b", old, none)])) == [(old[0], PUBLISHED)]


def test_of_equal_methods_that_with_more_intervals_is_drawn() -> None:
    bounded, bare = estimate("additive sites", 5, 3, 9, method="z"), estimate("additive sites", 5, method="a")
    table = comparison_table([compared(name, bare, bounded) for name in "ab"])
    assert drawn(table) == [("additive sites", "z")]
    assert table["method"].drop_duplicates().tolist() == ["z", "a"]


def test_what_has_no_value_anywhere_is_not_drawn() -> None:
    assert drawn(comparison_table([compared(name, estimate("additive sites", NAN)) for name in "ab"])) == []


def test_distinctions_are_what_is_not_the_same_for_all() -> None:
    shared = {"seed": "1", "skeletons": "20"}
    base, dosed = compared("a", settings={**shared, "DRUG": "none"}), compared("b", settings={**shared, "DRUG": "2 mM"})
    assert distinctions([base, dosed]) == ["DRUG none", "DRUG 2 mM"]
    assert distinctions([base, compared("b", settings=shared)]) == ["DRUG none", "DRUG unset"]
    assert distinctions([base, base]) == ["explicit", "explicit"]
    evolved = compared("b", organism="registry.example.org/lab/evolved:2", organism_digest="sha256:2")
    assert distinctions([compared("a"), evolved]) == ["explicit", "evolved:2"]
    rebuilt = compared("b", organism_digest="sha256:" + "2" * 64)
    assert distinctions([compared("a"), rebuilt]) == ["version 1", "version 22222222"]
    homonyms = [compared(name, organism=f"{name}/explicit") for name in "ab"]
    assert distinctions(homonyms) == ["a/explicit", "b/explicit"]


def test_a_distinction_is_a_line_of_printable_signs() -> None:
    odd = compared("b", settings={"seed": "1", "TEXT": "\x1b[31m\n" + "long " * 100})
    (_, text) = distinctions([compared("a"), odd])
    assert text.isprintable()
    assert len(text) < 60


@pytest.mark.parametrize(
    ("quantity", "unit"),
    [
        ("functional sites", "sites"),
        ("sites with effect > 0.1", "sites"),
        ("mean effect of additive sites", "detection thresholds"),
        ("epistatic sets", "sets"),
        ("beauty", ""),
    ],
)
def test_units_follow_from_the_name(quantity: str, unit: str) -> None:
    assert unit_of(quantity) == unit


def test_an_interval_with_one_end_says_that_the_other_is_missing() -> None:
    assert (interval_of(3, 9.26), interval_of(3, NAN), interval_of(NAN, NAN)) == ("3 to 9.26", "3 to –", "")


def test_less_than_two_submissions_are_no_comparison() -> None:
    with pytest.raises(KnockemError, match="two submissions at least"):
        comparison_table([compared("a", estimate("additive sites", 1))])


def test_the_same_submission_twice_is_refused_by_name() -> None:
    a, b = (compared(name, estimate("additive sites", 1)) for name in "ab")
    with pytest.raises(KnockemError, match="Submission aaaaaaaa was named more than once"):
        comparison_table([a, b, a])


def test_all_submissions_without_estimates_are_named_with_what_to_do() -> None:
    full, going = compared("a", estimate("additive sites", 1)), compared("b", state="running")
    with pytest.raises(KnockemError, match=r"of bbbbbbbb \(running\), cccccccc \(completed\)\. `./knockem status ID`"):
        comparison_table([full, going, compared("c")])
