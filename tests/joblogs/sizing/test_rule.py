"""Rules, and what it costs to follow them: counted by hand, one try at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.joblogs.sizing.history import History
from knockem_dagster.joblogs.sizing.rule import BYTE_SECONDS, Rule, cost

GB = 1e9


def history(*jobs: tuple[float, float, float]) -> History:
    """Return jobs of these sizes, peaks and runtimes."""
    sizes, peaks, runtimes = np.array(jobs, dtype=float).T
    return History(sizes, peaks, runtimes, np.zeros(len(jobs), dtype=bool))


def test_a_rule_by_hand() -> None:
    sizes = np.array([0.0, 4.0, 100.0, np.nan])
    assert Rule(3.0, least=5.0).of(sizes).tolist() == [5, 5, 5, 5]
    assert Rule(3.0, 2.0, least=12.0, otherwise=7.0).of(sizes).tolist() == [7, 12, 203, 7]
    assert Rule(0.0, 2.0, 0.5, most=15.0, otherwise=7.0).of(sizes).tolist() == [7, 4, 15, 7]


def test_a_cost_by_hand() -> None:
    enough = cost(Rule(4 * GB), history((1, 3 * GB, 3600)))
    assert (enough.wasted_gb_hours, enough.failed_tries, enough.failed_jobs) == (pytest.approx(1), 0, 0)
    # 2, 4 and 8 GB for half an hour each, of which 5 were needed in the end.
    twice = cost(Rule(2 * GB), history((1, 5 * GB, 1800)))
    assert (twice.wasted_gb_hours, twice.failed_tries, twice.failed_jobs) == (pytest.approx((2 + 4 + 3) / 2), 2, 1)
    grown = cost(Rule(2 * GB, growth=3.0), history((1, 5 * GB, 1800)))
    assert (grown.wasted_gb_hours, grown.failed_tries) == (pytest.approx((2 + 1) / 2), 1)


@given(
    st.lists(st.tuples(st.floats(0, 1e11), st.floats(1e6, 1e12), st.floats(0, 1e6)), min_size=1, max_size=20),
    st.floats(1e6, 1e12),
    st.floats(1.1, 5),
)
def test_a_cost_is_what_trying_one_after_another_costs(
    jobs: list[tuple[float, float, float]], base: float, growth: float
) -> None:
    found = cost(Rule(base, growth=growth), history(*jobs))
    wasted, failed = 0.0, 0
    for _, peak, seconds in jobs:
        tried = base
        while tried < peak:
            wasted += tried * seconds
            failed += 1
            tried = base * growth if tried == base else tried * 2
        wasted += (tried - peak) * seconds
    assert found.failed_tries == failed and found.jobs == len(jobs)
    assert found.wasted_gb_hours == pytest.approx(wasted / BYTE_SECONDS, rel=1e-6, abs=1e-9)
