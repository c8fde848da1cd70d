"""The benchmarks of job graphs, a small share of each: what they would refuse does not happen."""

from __future__ import annotations

import pytest

from benchmarks import graph, graph_faults

pytestmark = pytest.mark.slow


def test_workers_killed_at_random_leave_a_graph_in_order() -> None:
    measured = {each.name: each.value for each in graph_faults.run(0.1, 1)}
    assert measured["dependent jobs, each with one last result, in order"] == 500
    assert measured["workers killed meanwhile"] >= 1
    assert measured["kills of the HTTP API meanwhile"] >= 1


def test_what_waits_is_measured() -> None:
    measured = graph.run(0.02, 1)
    assert [each.n for each in measured] == [20, 20, 20, *[2000] * 6]
    assert all(each.value > 0 for each in measured)
