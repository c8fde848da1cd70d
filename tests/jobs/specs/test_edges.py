"""Workflows defined by nodes and edges: the same graph as lists in their jobs make, and the same refusals."""

from __future__ import annotations

from typing import Any

import pytest

from knockem_dagster.errors import InvalidInput
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.job_graph import JobGraph
from knockem_dagster.jobs.specs.reading import spec_of

NODES: dict[str, Any] = {
    "name": "w",
    "jobs": [
        {"name": "a", "command": "make", "env": {"X": "1"}, "failure_handler": "h"},
        {"name": "b", "command": "use", "cancel_on_blocking_job_failure": True},
        {"name": "c", "command": "end", "priority": 3},
    ],
    "files": [{"name": "x", "path": "x.txt"}],
    "user_data": [{"name": "u", "data": {"rate": 1}}],
    "resource_requirements": [{"name": "r", "num_cpus": 2, "memory": "1500k", "runtime": "PT90S"}],
    "failure_handlers": [{"name": "h", "rules": [{"exit_codes": [3]}]}],
    "slurm_schedulers": [{"name": "s", "account": "me"}],
}
EDGES = [
    ("produces", "jobs/a", "files/x"),
    ("needs", "jobs/b", "files/x"),
    ("stores", "jobs/a", "userData/u"),
    ("needs", "jobs/c", "userData/u"),
    ("blocks", "jobs/b", "jobs/c"),
    ("requires", "jobs/b", "resourceRequirements/r"),
    ("scheduled_by", "jobs/c", "schedulerConfigurations/s"),
]


def direct(*edges: tuple[str, str, str], **nodes: Any) -> JobGraph:
    told = [{"kind": kind, "from": origin, "to": target} for kind, origin, target in edges]
    return graph_of(spec_of({**NODES, **nodes, "edges": told}))


def test_edges_are_the_graph_of_the_file_that_says_the_same() -> None:
    a, b, c = NODES["jobs"]
    file = {
        **NODES,
        "jobs": [
            {**a, "output_files": ["x"], "output_user_data": ["u"]},
            {**b, "input_files": ["x"], "resource_requirements": "r"},
            {**c, "input_user_data": ["u"], "depends_on": ["b"], "scheduler": "s"},
        ],
    }
    found, expected = direct(*EDGES), graph_of(spec_of(file))
    assert found.jobs == expected.jobs
    assert (found.files, found.user_data) == (expected.files, expected.user_data)
    assert (found.requirements, found.schedulers) == (expected.requirements, expected.schedulers)
    assert {name: set(job.blockers) for name, job in found.jobs.items()} == {"a": set(), "b": {"a"}, "c": {"a", "b"}}


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        (("blocks", "jobs/a", "files/x"), "no edge of kind blocks goes so"),
        (("needs", "files/x", "jobs/a"), "no edge of kind needs goes so"),
        (("blocks", "jobs/nobody", "jobs/a"), "a.depends_on"),
        (("blocks", "jobs/a", "jobs/nobody"), "there is no such job"),
        (("blocks", "jobs/c", "jobs/b"), "circle"),
        (("produces", "jobs/b", "files/x"), "one job that makes it"),
        (("requires", "jobs/b", "resourceRequirements/other"), "has r already"),
        (("blocks", "a", "b"), "no edge of kind blocks goes so"),
    ],
)
def test_what_is_no_graph_is_refused(edge: tuple[str, str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        direct(*EDGES, edge)


def test_every_fault_of_the_edges_is_told() -> None:
    with pytest.raises(InvalidInput) as caught:
        direct(("blocks", "jobs/a", "files/x"), *EDGES, ("needs", "jobs/nobody", "files/x"))
    assert [fault.field for fault in caught.value.faults] == ["edges[0]", "edges[8]"]
    with pytest.raises(InvalidInput, match="the nearest is from"):
        graph_of(spec_of({**NODES, "edges": [{"kind": "blocks", "form": "jobs/a", "to": "jobs/b"}]}))


def test_edges_are_replaced_with_the_parameters_of_their_jobs_and_join_what_these_say() -> None:
    found = direct(
        ("produces", "jobs/make_{i}", "files/x_{i}"),
        ("needs", "jobs/gather", "files/x_{i}"),
        ("needs", "jobs/gather", "files/x_{i}"),
        jobs=[
            {"name": "make_{i}", "command": "make", "parameters": {"i": "1:3"}},
            {"name": "gather", "command": "use", "parameters": {"i": "1:2"}, "depends_on": ["make_3"]},
        ],
        files=[{"name": "x_{i}", "path": "x_{i}.txt", "parameters": {"i": "1:3"}}],
    )
    assert found.jobs["gather"].blockers == ("make_3", "make_1", "make_2")
