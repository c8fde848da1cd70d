"""The examples of docs/workflows: each in three formats that stand for one graph, and together all keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from knockem_dagster.jobs.specs import job_graph
from knockem_dagster.jobs.specs.action_jobs import jobs_with_actions
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.job_graph import JobGraph
from knockem_dagster.jobs.specs.reading import read_workflow_file
from knockem_dagster.jobs.specs.workflow_spec import (
    ActionSpec,
    EdgeKind,
    EdgeSpec,
    Expandable,
    SpecPart,
    WorkflowSpec,
)

FOLDER = Path(__file__).parents[3] / "docs" / "workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FORMATS = ("yaml", "json", "json5")

JOBS = {
    "minimal": 1,
    "dependencies": 2,
    "files": 4,
    "user-data": 3,
    "edges": 3,
    "ranges": 12 + 5 + 4,
    "lists": 3 + 2,
    "product": 4,
    "zip": 2,
    "shared-parameters": 6 + 2 + 1,
    "variables": 3,
    "regexes": 3 + 3 + 2,
    "resources": 2,
    "failure-handlers": 4 + 1,
    "actions": 3 + 3,
    "worker-actions": 3,
    "schedulers": 2,
    "environment": 2,
    "described": 1,
    "pairs-of-files": 2,
    "actions-of-jobs": 3 + 2,
    "acquired-nodes": 1 + 8,
    "without-effect": 1,
}


def graph(name: str, form: str) -> JobGraph:
    path = FOLDER / f"{name}.{form}"
    return graph_of(read_workflow_file(path.read_bytes(), name=path.name))


def test_every_example_is_known_and_has_all_formats() -> None:
    assert set(NAMES) == JOBS.keys()
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.{form}" for name in NAMES for form in FORMATS}


@pytest.mark.parametrize("name", NAMES)
def test_the_formats_of_an_example_stand_for_one_graph(name: str) -> None:
    first, *others = (graph(name, form) for form in FORMATS)
    assert all(other == first for other in others)
    assert len(jobs_with_actions(first)) == JOBS[name]


def parts_of(part: object) -> Iterator[SpecPart]:
    """Yield a part of a file and all parts in it."""
    if isinstance(part, SpecPart):
        yield part
        for key in part.model_fields_set:
            yield from parts_of(getattr(part, key))
    elif isinstance(part, tuple):
        items: tuple[Any, ...] = part
        for item in items:
            yield from parts_of(item)


def shown_parts() -> list[SpecPart]:
    """Return all parts of all examples, as they are written."""
    specs = [WorkflowSpec.model_validate_json((FOLDER / f"{name}.json").read_bytes()) for name in NAMES]
    return [part for spec in specs for part in parts_of(spec)]


def test_together_they_show_every_key_of_every_part() -> None:
    shown = {(type(part), key) for part in shown_parts() for key in part.model_fields_set}
    parts = {*SpecPart.__subclasses__(), *Expandable.__subclasses__()} - {Expandable}
    # Files of node pools are made of such parts, too.
    keys = {(part, key) for part in parts if part.__module__ == SpecPart.__module__ for key in part.model_fields}
    assert keys - shown == set()


def test_together_they_show_every_kind_of_action_and_edge() -> None:
    parts = shown_parts()
    actions = [part for part in parts if isinstance(part, ActionSpec)]
    fields = ActionSpec.model_fields
    triggers = set(get_args(fields["trigger_type"].annotation)) - {each.trigger_type for each in actions}
    assert triggers == set()
    assert {each.action_type for each in actions} == set(get_args(fields["action_type"].annotation))
    assert {part.kind for part in parts if isinstance(part, EdgeSpec)} == set(get_args(EdgeKind))


def test_the_example_of_what_has_no_effect_shows_just_that() -> None:
    keys = {*job_graph._WITHOUT_EFFECT, *job_graph._OF_JOBS, *job_graph._OF_SCHEDULERS, *job_graph._OF_ACTIONS}
    actions = {"schedule_nodes on_workflow_start"}
    assert set(graph("without-effect", "yaml").without_effect(acquires_nodes=True)) == keys | actions | {"num_nodes"}
