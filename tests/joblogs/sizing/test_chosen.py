"""What is recommended fits the jobs that follow, whatever their memory depends on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from knockem_dagster.joblogs.sizing import chosen as chosen_module
from knockem_dagster.joblogs.sizing.chosen import FEWEST, bound, chosen
from knockem_dagster.joblogs.sizing.history import Floats, History
from knockem_dagster.joblogs.sizing.published import percentile
from knockem_dagster.joblogs.sizing.rule import cost


def jobs(number: int, seed: int, *, slope: float) -> History:
    rng = default_rng(seed)
    sizes = rng.lognormal(20, 1, number)
    peaks = (1e9 + slope * sizes) * rng.lognormal(0, 0.2, number)
    return History(sizes, peaks, rng.lognormal(5, 0.5, number), np.zeros(number, dtype=bool))


def test_memory_that_depends_on_size_is_given_by_size() -> None:
    history = jobs(600, 1, slope=4)
    earlier, later = history.part(0, 400), history.part(400, 600)
    found = chosen(earlier)
    assert found.rule.depends_on_size
    ours, theirs = cost(found.rule, later), cost(percentile(earlier), later)
    assert ours.wasted_gb_hours < 0.5 * theirs.wasted_gb_hours and ours.failed_tries < 0.2 * ours.jobs
    assert found.cost.failed_tries / found.cost.jobs == pytest.approx(ours.failed_tries / ours.jobs, abs=0.1)


def test_memory_that_does_not_is_one_number() -> None:
    found = chosen(jobs(600, 2, slope=0))
    assert not found.rule.depends_on_size and found.shape == "constant"
    assert found.rule.growth >= 1.35


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.just(np.nan), st.floats(0, 1e12)), st.floats(1, 1e12), st.floats(0, 1e6), st.booleans()),
        min_size=FEWEST,
        max_size=60,
    )
)
def test_any_history_has_a_rule(given_jobs: list[tuple[float, float, float, bool]]) -> None:
    sizes, peaks, runtimes, is_censored = map(np.array, zip(*given_jobs, strict=True))
    history = History(sizes.astype(float), peaks.astype(float), runtimes.astype(float), is_censored.astype(bool))
    found = chosen(history)
    assert np.isfinite(found.rule.of(history.sizes)).all() and (found.rule.of(history.sizes) > 0).all()
    assert found.cost.jobs > 0


@pytest.mark.parametrize("runtime", [0.0, 60.0])
@pytest.mark.parametrize("spread", [2e-7, 1e-3, 0.3])
@pytest.mark.filterwarnings("error")
def test_sizes_that_hardly_differ_and_jobs_that_take_no_time_tell_nothing(runtime: float, spread: float) -> None:
    rng = default_rng(5)
    peaks = 1e9 * rng.lognormal(0, 0.5, 200)
    times = np.full(200, runtime) * rng.lognormal(0, 0.5, 200)
    found = chosen(History(1e9 * (1 + spread * rng.random(200)), peaks, times, np.zeros(200, dtype=bool)))
    assert not found.rule.depends_on_size and np.isfinite(found.cost.wasted_gb_hours)
    assert found.cost.failed_tries < 0.4 * found.cost.jobs  # the median would fail for half of them


def test_inputs_beyond_all_that_were_seen_are_not_given_without_bound() -> None:
    found = chosen(jobs(200, 1, slope=4))
    assert found.rule.depends_on_size
    [far] = found.rule.of(np.array([1e15]))
    assert far <= 10 * jobs(200, 1, slope=4).peaks.max()


def test_many_rules_at_once_give_what_each_does() -> None:
    sizes = np.array([np.nan, 0.0, 1.0, 1e6, 1e9, 1e12, 1e15])
    families = list(chosen_module._families(jobs(200, 1, slope=4)))
    assert [each.middle.depends_on_size for each in families] == [False, True, True, True]
    for family in families:
        np.testing.assert_allclose(family.given(sizes), [rule.of(sizes) for rule in family.rules()])


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_a_bound_is_enough_for_its_share(power: float) -> None:
    rng = default_rng(4)

    def drawn(number: int) -> tuple[Floats, Floats]:
        sizes = rng.lognormal(20, 1, number)
        return sizes, 60 * (sizes / 1e9) ** power * rng.lognormal(0, 0.3, number)

    rule = bound(*drawn(1000), 0.99)
    assert rule.depends_on_size == (power > 0)
    sizes, values = drawn(5000)
    assert (values <= rule.of(sizes)).mean() == pytest.approx(0.99, abs=0.01)
