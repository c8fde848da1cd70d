"""No line has less loss: a linear program tells how little there can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.random import default_rng
from scipy.optimize import linprog

from knockem_dagster.joblogs.sizing.history import Floats
from knockem_dagster.joblogs.sizing.quantile_line import quantile_line

SHARES = (0.5, 0.75, 0.9, 0.99)


def loss(sizes: Floats, values: Floats, share: float, line: tuple[float, float]) -> float:
    above = values - line[0] - line[1] * sizes
    return float(np.sum(np.maximum(share * above, (share - 1) * above)))


def least(sizes: Floats, values: Floats, share: float) -> float:
    """Return the least loss of any line: the value of the linear program that is dual to it."""
    design = np.stack([np.ones(sizes.size), sizes / sizes.max()])
    scale = values.max()
    found = linprog(-values / scale, A_eq=design, b_eq=(1 - share) * design.sum(axis=1), bounds=(0, 1))
    return float(-found.fun * scale - (1 - share) * values.sum())


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("number", [5, 40, 401])
@pytest.mark.parametrize("seed", range(3))
def test_no_line_has_less_loss(seed: int, number: int, share: float) -> None:
    rng = default_rng(seed)
    sizes = rng.lognormal(13, 2, number)
    values = (3e8 + 2 * sizes) * rng.lognormal(0, 0.5, number)
    line = quantile_line(sizes, values, share)
    assert loss(sizes, values, share, line) == pytest.approx(least(sizes, values, share), rel=1e-7)
    assert (values <= line[0] + line[1] * sizes + 1).mean() == pytest.approx(share, abs=2 / number)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=2, max_size=40), st.sampled_from(SHARES))
def test_nor_where_many_points_are_the_same_or_on_one_line(points: list[tuple[int, int]], share: float) -> None:
    sizes, values = np.array(points, dtype=float).T
    assume(np.ptp(sizes) > 0)
    line = quantile_line(sizes, values, share)
    assert loss(sizes, values, share, line) == pytest.approx(least(sizes, values, share), rel=1e-7, abs=1e-7)
