"""Edges in a workflow file, the seed's first way to define a workflow: what one node is to another.

Both are named "collection/name": jobs/a blocks jobs/b, jobs/a needs files/x. What an edge says is put into the job that
it is about, before parameters are replaced, so that one set of checks holds for both ways.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from knockem_dagster.errors import Fault
from knockem_dagster.jobs.specs.workflow_spec import EdgeKind, WorkflowSpec
from knockem_dagster.mapping_file import one_line

_BLOCKS: tuple[EdgeKind, str, str] = ("blocks", "jobs", "jobs")
_LISTS: dict[tuple[EdgeKind, str, str], str] = {
    _BLOCKS: "depends_on",
    ("needs", "jobs", "files"): "input_files",
    ("needs", "jobs", "userData"): "input_user_data",
    ("produces", "jobs", "files"): "output_files",
    ("stores", "jobs", "userData"): "output_user_data",
}
_CHOICES: dict[tuple[EdgeKind, str, str], str] = {
    ("requires", "jobs", "resourceRequirements"): "resource_requirements",
    ("scheduled_by", "jobs", "schedulerConfigurations"): "scheduler",
}
"""By kind of edge and collections of its ends, the field of a job that says the same."""


def with_edges(spec: WorkflowSpec) -> tuple[WorkflowSpec, list[Fault]]:
    """Return a workflow whose jobs say what its edges do, and the faults of those that say nothing."""
    if not spec.edges:
        return spec, []
    jobs = {job.name: job for job in spec.jobs}
    lists: dict[tuple[str, str], list[str]] = defaultdict(list)
    choices: dict[tuple[str, str], str] = {}
    faults: list[Fault] = []
    for number, edge in enumerate(spec.edges):
        origin, _, origin_name = edge.origin.partition("/")
        target, _, target_name = edge.target.partition("/")
        key = (edge.kind, origin, target)
        name, other = (target_name, origin_name) if key == _BLOCKS else (origin_name, target_name)
        where = f"edges[{number}]"
        if key not in _LISTS and key not in _CHOICES:
            allowed = f"no edge of kind {edge.kind} goes so"
            faults.append(Fault(where, one_line(f"{edge.origin} -> {edge.target}"), allowed))
        elif name not in jobs:
            faults.append(Fault(where, one_line(f"jobs/{name}"), "there is no such job"))
        elif key in _LISTS:
            lists[name, _LISTS[key]].append(other)
        else:
            field = _CHOICES[key]
            chosen = choices.setdefault((name, field), getattr(jobs[name], field) or other)
            if chosen != other:
                faults.append(Fault(where, one_line(edge.target), one_line(f"{name} has {chosen} already")))
    said: dict[str, dict[str, Any]] = defaultdict(dict)
    for (name, field), others in lists.items():
        said[name][field] = tuple(dict.fromkeys([*(getattr(jobs[name], field) or ()), *others]))
    for (name, field), chosen in choices.items():
        said[name][field] = chosen
    changed = tuple(job.model_copy(update=said[job.name]) if job.name in said else job for job in spec.jobs)
    return spec.model_copy(update={"jobs": changed, "edges": None}), faults
