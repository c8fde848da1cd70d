from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.reports.wording import counted, decimals, duration, last_part, listed, moment, number, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (41.0, "41"),
        (41.25, "41.2"),
        (554.3, "554"),
        (12_345.6, "12,346"),
        (0.33333, "0.333"),
        (-0.25, "−0.25"),
        (1.2e-5, "1.2×10⁻⁵"),
        (float("nan"), "–"),
        (float("inf"), "–"),
    ],
)
def test_numbers_are_rounded_to_what_they_can_bear(value: float, text: str) -> None:
    assert number(value) == text


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_share_never_rounds_something_to_nothing_or_less_to_all(part: int, whole: int) -> None:
    part = min(part, whole)
    assert (share(part, whole) == "0%") == (part == 0)
    assert (share(part, whole) == "100%") == (part == whole)


def test_share_of_nothing_is_missing() -> None:
    assert share(0, 0) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0 s"), (59.4, "59 s"), (90, "1.5 min"), (4_390, "1.2 h"), (2e5, "2.3 d")]
)
def test_duration_chooses_its_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_moment_is_told_in_utc() -> None:
    there = datetime(2025, 3, 4, 11, 15, tzinfo=timezone(timedelta(hours=2)))
    assert moment(there) == moment(datetime(2025, 3, 4, 9, 15, tzinfo=UTC)) == "2025-03-04 09:15 UTC"
    assert moment(None) == "–"


def test_counts_and_lists() -> None:
    assert (counted(1, "site"), counted(1_200, "site")) == ("1 site", "1,200 sites")
    assert listed(["3", "5", "8"], 2) == "3, 5 and 1 more"
    assert listed(["3", "5"], 2) == "3, 5"
    assert decimals(-0.001) == "0.00"


@given(st.text(st.characters(), max_size=300), st.integers(1, 100))
def test_output_is_cut_at_the_front_and_encodable(text: str, characters: int) -> None:
    last = last_part(text, characters=characters)
    assert len(last) <= characters + 2
    assert last.startswith("… ") or len(text) <= characters
    last.encode("utf-8")
    assert not set(last) & {chr(code) for code in range(32) if chr(code) not in "\n\t"}


def test_output_with_lone_surrogates_can_be_stored() -> None:
    assert last_part("\ud800 broken", characters=50).encode("utf-8").endswith(b" broken")
