"""The published ways do what their papers say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from knockem_dagster.joblogs.sizing.history import History
from knockem_dagster.joblogs.sizing.published import percentile, tovar, witt
from knockem_dagster.joblogs.sizing.rule import cost


def jobs(number: int, seed: int) -> History:
    rng = default_rng(seed)
    sizes = rng.lognormal(20, 1, number)
    peaks = (3e8 + 2 * sizes) * rng.lognormal(0, 0.3, number)
    return History(sizes, peaks, rng.lognormal(5, 1, number), np.zeros(number, dtype=bool))


def test_the_percentile_is_enough_for_its_share() -> None:
    history = jobs(1000, 1)
    assert (history.peaks <= percentile(history, 0.95).base).mean() == pytest.approx(0.95, abs=0.001)


@pytest.mark.parametrize("seed", range(5))
def test_tovar_wastes_least_of_all_first_allocations(seed: int) -> None:
    history = jobs(30, seed)
    largest = history.peaks.max()

    def wasted(first: float) -> float:
        fits = history.peaks <= first
        given = np.where(fits, first - history.peaks, first + largest - history.peaks)
        return float(np.sum(given * history.runtimes))

    found = tovar(history)
    assert wasted(found.base) == pytest.approx(min(map(wasted, history.peaks)))
    assert found.base * found.growth == pytest.approx(largest) or found.base == largest


def test_witt_finds_the_line_and_does_without_sizes() -> None:
    history = jobs(500, 3)
    found = witt(history)
    assert found.depends_on_size and 2 < found.factor < 5
    assert cost(found, history).wasted_gb_hours < 0.5 * cost(percentile(history), history).wasted_gb_hours
    unknown = History(np.full(500, np.nan), history.peaks, history.runtimes, history.is_censored)
    assert witt(unknown) == percentile(history)
