"""Graphs as people take them in: jobs one by one while they are few, groups of like ones else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from knockem_dagster.jobs.graph_views import MOST_SINGLE, graph_view, states_of


def test_few_jobs_are_shown_one_by_one() -> None:
    view = graph_view([("1", "a"), ("2", "b_1"), ("3", "b_2")], {"1": [], "2": ["1"], "3": ["1", "2"]})
    assert [(node.name, node.level) for node in view.nodes] == [("a", 0), ("b_1", 1), ("b_2", 2)]
    assert view.edges == ((0, 1), (0, 2), (1, 2))


def test_many_jobs_are_grouped_by_what_they_are_called() -> None:
    number = 2 * MOST_SINGLE
    jobs = [(f"a{each}", f"a_{each:03d}") for each in range(number)] + [("end", "end"), ("b7", "b_7")]
    blockers = {id: [] for id, _ in jobs} | {"end": [f"a{each}" for each in range(number)], "b7": ["end"]}
    view = graph_view(jobs, blockers)
    assert [(node.name, node.level, len(node.jobs)) for node in view.nodes] == [
        ("a_#", 0, number),
        ("end", 1, 1),
        ("b_7", 2, 1),
    ]
    assert view.edges == ((0, 1), (1, 2))
    told = states_of(view, {f"a{each}": "completed" if each < 3 else "ready" for each in range(number)})
    assert told == [{"completed": 3, "ready": number - 3}, {}, {}]


def test_a_long_chain_is_one_node() -> None:
    jobs = [(f"j{each}", f"j_{each}") for each in range(500)] + [("end", "end")]
    blockers = {f"j{each}": [f"j{each - 1}"] if each else [] for each in range(500)} | {"end": ["j499"]}
    view = graph_view(jobs, blockers)
    assert [(node.name, node.level, len(node.jobs)) for node in view.nodes] == [("j_#", 0, 500), ("end", 1, 1)]
    assert view.edges == ((0, 1),)


@given(st.integers(1, 60), st.data())
def test_edges_go_from_lower_levels_to_higher_ones_and_no_job_is_lost(number: int, data: st.DataObject) -> None:
    blockers = {
        str(job): [str(each) for each in data.draw(st.sets(st.integers(0, job - 1), max_size=3))] if job else []
        for job in range(number)
    }
    view = graph_view([(job, f"j{job}") for job in blockers], blockers)
    assert sorted(id for node in view.nodes for id in node.jobs) == sorted(blockers)
    assert all(view.nodes[origin].level < view.nodes[target].level for origin, target in view.edges)
