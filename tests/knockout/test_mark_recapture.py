"""The jackknife of Burnham and Overton: published tables, the definition, and no crash from 2 to 50 occasions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knockem_dagster.knockout.estimators.mark_recapture import estimate_population, jackknife_coefficients

COTTONTAILS = np.array([43, 16, 8, 6, 0, 2, 1, *[0] * 11])


@pytest.mark.parametrize(("order", "expected"), list(enumerate([76, 116.6, 141.4, 158.5, 170.3, 176.4])))
def test_the_cottontail_table_is_reproduced(order: int, expected: float) -> None:
    assert jackknife_coefficients(order, 18) @ COTTONTAILS == pytest.approx(expected, abs=0.05)


def test_the_cottontails_are_interpolated_between_orders_two_and_three() -> None:
    result = estimate_population(COTTONTAILS)
    assert result.selected.order == result.interpolated.order == 3
    found = result.interpolated
    assert (found.value, found.low, found.high) == pytest.approx((142.3, 112.5, 172.0), abs=0.05)


@pytest.mark.parametrize("occasions", [3, 5, 20])
def test_low_orders_have_the_closed_forms_of_the_paper(occasions: int) -> None:
    t = occasions
    first = jackknife_coefficients(1, t)
    second = jackknife_coefficients(2, t)
    assert first[:2] == pytest.approx([1 + (t - 1) / t, 1])
    assert second[:3] == pytest.approx([1 + (2 * t - 3) / t, 1 - (t - 2) ** 2 / (t * (t - 1)), 1])


def test_an_order_is_the_generalized_jackknife_over_all_subsets_of_occasions() -> None:
    histories = np.random.default_rng(3).random((40, 6)) < 0.25
    captures = np.bincount(histories.sum(axis=1), minlength=7)[1:]
    for order in range(1, 7):
        total = 0.0
        for left_out in range(order + 1):
            seen = [
                histories[:, list(subset)].any(axis=1).sum()
                for subset in itertools.combinations(range(6), 6 - left_out)
            ]
            total += (-1) ** left_out * math.comb(order, left_out) * (6 - left_out) ** order * float(np.mean(seen))
        assert jackknife_coefficients(order, 6) @ captures == pytest.approx(total / math.factorial(order))


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(2, 50))
def test_any_captures_have_estimates_and_intervals(data: st.DataObject, occasions: int) -> None:
    captures = data.draw(st.lists(st.integers(0, 400), min_size=occasions, max_size=occasions))
    for found in (result := estimate_population(captures)).selected, result.interpolated:
        assert math.isfinite(found.value)
        assert found.low <= found.value <= found.high
        assert 1 <= found.order <= occasions


@pytest.mark.parametrize("occasions", range(1, 51))
def test_extreme_captures_do_not_crash(occasions: int) -> None:
    nothing = estimate_population([0] * occasions).interpolated
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    for place in {0, occasions // 2, occasions - 1}:
        for number in (1, 2, 7, 400):
            captures = [0] * occasions
            captures[place] = number
            assert math.isfinite(estimate_population(captures).interpolated.value)
    always = [0] * occasions
    always[-1] = 30
    assert estimate_population(always).interpolated.value == pytest.approx(30)


@pytest.mark.parametrize("captures", [[], [-1, 3]])
def test_impossible_captures_are_refused(captures: list[int]) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        estimate_population(captures)


@pytest.mark.parametrize("order", [-1, 6])
def test_an_order_beyond_the_occasions_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match="orders 0 to 5"):
        jackknife_coefficients(order, 5)
