"""The benchmarks of job graphs, a small share of each: what they would refuse does not happen."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from benchmarks import graph, graph_faults
from knockem_dagster.errors import KnockemError

pytestmark = pytest.mark.slow


def test_workers_killed_at_random_leave_a_graph_in_order() -> None:
    measured = {each.name: each.value for each in graph_faults.run(0.1, 1)}
    assert measured["dependent jobs, each with one last result, in order"] == 500
    assert measured["workers killed meanwhile"] >= 1
    assert measured["kills of the HTTP API meanwhile"] >= 1
    assert measured["kills of Dagster's daemon meanwhile"] >= 1
    assert measured["starts in the record, each after the results it waits for"] > 250


def test_a_start_before_the_result_it_waits_for_is_refused() -> None:
    began = datetime.fromisoformat("2026-01-01T00:00:01+00:00")
    later = began + timedelta(microseconds=1)
    graph_faults.check_starts({"a": [], "b": ["a"]}, [("a", began), ("b", later)], {"a": began, "b": later})
    with pytest.raises(KnockemError, match="b was begun before a, for which it waits, was recorded"):
        graph_faults.check_starts({"a": [], "b": ["a"]}, [("a", began), ("b", began)], {"a": later, "b": later})


def test_what_waits_is_measured() -> None:
    measured = graph.run(0.02, 1)
    assert [each.n for each in measured] == [20, 20, 20, *[2000] * 6]
    assert all(each.value > 0 for each in measured)
