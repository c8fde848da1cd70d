"""Peaks that a limit cut off are completed as they were, in distribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from knockem_dagster.joblogs.sizing.censored import completed
from knockem_dagster.joblogs.sizing.history import History


def jobs(number: int, seed: int, *, slope: float) -> History:
    rng = default_rng(seed)
    sizes = rng.lognormal(20, 1, number)
    peaks = 1e9 * (sizes / 5e8) ** slope * rng.lognormal(0, 0.4, number)
    return History(sizes, peaks, np.ones(number), np.zeros(number, dtype=bool))


def cut(history: History, share: float) -> History:
    limit = float(np.quantile(history.peaks, share))
    return replace(history, peaks=np.minimum(history.peaks, limit), is_censored=history.peaks >= limit)


@pytest.mark.parametrize("slope", [0.0, 0.6])
@pytest.mark.parametrize("seed", range(3))
def test_quantiles_beyond_the_limit_are_found_again(seed: int, slope: float) -> None:
    truly = jobs(1000, seed, slope=slope)
    known = cut(truly, 0.85)
    found = completed(known)
    kept = ~known.is_censored
    assert (found.peaks[kept] == truly.peaks[kept]).all()
    assert (found.peaks[~kept] >= known.peaks[~kept]).all()
    for share in (0.9, 0.95, 0.99):
        assert np.quantile(found.peaks, share) == pytest.approx(np.quantile(truly.peaks, share), rel=0.2)
    assert found.peaks.mean() == pytest.approx(truly.peaks.mean(), rel=0.1)


def test_what_was_not_cut_off_is_left_and_unknown_sizes_are_no_fault() -> None:
    whole = jobs(50, 1, slope=0.5)
    assert completed(whole) is whole
    unknown = cut(replace(whole, sizes=np.where(np.arange(50) % 3 == 0, np.nan, whole.sizes)), 0.8)
    assert np.isfinite(completed(unknown).peaks).all()
    nowhere = cut(replace(whole, sizes=np.full(50, np.nan)), 0.8)
    assert np.isfinite(completed(nowhere).peaks).all()
    everything = replace(whole, is_censored=np.ones(50, dtype=bool))
    assert completed(everything) is everything


def test_equal_peaks_are_no_fault() -> None:
    same = History(np.full(30, 1e9), np.full(30, 2e9), np.ones(30), np.arange(30) >= 25)
    assert np.isfinite(completed(same).peaks).all()
