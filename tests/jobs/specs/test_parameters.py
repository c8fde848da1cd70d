"""Parameters: every documented notation, sizes known before any value is made, names filled in as written."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.jobs.specs.parameters import MOST_VALUES, NotAParameter, Parameter, combinations_of, values_of
from knockem_dagster.jobs.specs.templates import UnknownFormat, filled, filled_throughout, names_in, text_of


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1:5", ["1", "2", "3", "4", "5"]),
        ("{1:3}", ["1", "2", "3"]),
        ("0:100:25", ["0", "25", "50", "75", "100"]),
        ("5:1:-2", ["5", "3", "1"]),
        ("0.0:1.0:0.25", ["0", "0.25", "0.5", "0.75", "1"]),
        ("0:0.3:0.1", ["0", "0.1", "0.2", "0.3"]),
        ("[1,5, 10]", ["1", "5", "10"]),
        ("[0.1,0.50,1e-3]", ["0.1", "0.5", "0.001"]),
        ("['adam','sgd']", ["adam", "sgd"]),
        ('["a b",c]', ["a b", "c"]),
        ("7", ["7"]),
        ("train", ["train"]),
        ("nan", ["nan"]),
        ("[1_0,007,1e99999999]", ["1_0", "7", "1e99999999"]),
    ],
)
def test_notations_stand_for_values(text: str, values: list[str]) -> None:
    assert [text_of(value) for value in values_of(text)] == values


@pytest.mark.parametrize("text", ["1:2:3:4", "a:b", "1:5:0", "1:inf", ":", "1:5:x", "1:1e40:1e-40"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(NotAParameter, match="start:end"):
        values_of(text)


def test_a_list_is_its_items() -> None:
    items = ("a,b", "007", 7, Decimal("0.5"))
    assert values_of(items) == items


@pytest.mark.parametrize("parameter", ["3:1", "[]", ()])
def test_no_values_are_refused(parameter: Parameter) -> None:
    with pytest.raises(NotAParameter, match="at least one"):
        values_of(parameter)


@pytest.mark.parametrize("text", [f"1:{MOST_VALUES + 1}", "0:1:1e-9", "1:1000000000000"])
def test_too_many_values_are_refused_before_they_are_made(text: str) -> None:
    with pytest.raises(NotAParameter, match="at most 200,000"):
        values_of(text)


@given(st.integers(-1000, 1000), st.integers(0, 50), st.integers(1, 20))
def test_ranges_of_whole_numbers_hold_both_ends(start: int, steps: int, step: int) -> None:
    end = start + steps * step
    assert values_of(f"{start}:{end}:{step}") == list(range(start, end + 1, step))


def test_product_takes_all_with_all_and_zip_the_first_with_the_first() -> None:
    parameters = {"a": values_of("1:2"), "b": values_of("['x','y']")}
    assert [(each["a"], each["b"]) for each in combinations_of(parameters, "product")] == [
        (1, "x"),
        (1, "y"),
        (2, "x"),
        (2, "y"),
    ]
    assert [(each["a"], each["b"]) for each in combinations_of(parameters, "zip")] == [(1, "x"), (2, "y")]
    with pytest.raises(NotAParameter, match="a has 2, b has 3"):
        combinations_of({"a": values_of("1:2"), "b": values_of("1:3")}, "zip")
    with pytest.raises(NotAParameter, match="these are 1,000,000"):
        combinations_of({"a": values_of("1:1000"), "b": values_of("1:1000")}, "product")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("job_{i}", "job_7"),
        ("job_{i:03d}_{i}", "job_007_7"),
        ("{rate}_{rate:.4f}", "0.001_0.0010"),
        ("{i:.2f}", "7"),
        ("{rate:03d}", "0.001"),
        ("{name:03d}", "a.b"),
        ("{other} ${i} ${files.input.i} {} {i i}", "{other} ${i} ${files.input.i} {} {i i}"),
    ],
)
def test_names_in_braces_are_filled_in(template: str, text: str) -> None:
    values = {"i": 7, "rate": Decimal("0.001"), "name": "a.b"}
    assert filled(template, values) == text


def test_an_unknown_format_is_told() -> None:
    with pytest.raises(UnknownFormat, match="is no format"):
        filled("{i:x}", {"i": 1})


@given(st.text(max_size=20))
def test_values_in_patterns_stand_for_themselves(text: str) -> None:
    assert re.fullmatch(filled("^{name}$", {"name": text}, escape=True), text)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_numbers_are_written_without_exponent(number: Decimal) -> None:
    assert Decimal(text_of(number)) == number
    assert "E" not in text_of(number)


def test_names_are_found_and_filled_throughout() -> None:
    assert list(names_in("{a} ${b} {c:02d} {}")) == ["a", "c"]
    content = {"k_{a}": ["{a}", 1, None, {"x": "{a}!"}]}
    assert filled_throughout(content, {"a": "v"}) == {"k_{a}": ["v", 1, None, {"x": "v!"}]}
