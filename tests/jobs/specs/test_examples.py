"""The examples of docs/workflows: each in three formats that stand for one graph, and together all keys with effect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from knockem_dagster.jobs.specs.action_jobs import jobs_with_actions
from knockem_dagster.jobs.specs.graph_builder import graph_of
from knockem_dagster.jobs.specs.job_graph import JobGraph
from knockem_dagster.jobs.specs.reading import read_workflow_file
from knockem_dagster.jobs.specs.workflow_spec import JobSpec

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


def keys_of(part: object) -> Iterator[str]:
    """Yield every key that a file gives, wherever it stands."""
    if isinstance(part, BaseModel):
        for key in part.model_fields_set:
            yield key
            yield from keys_of(getattr(part, key))
    elif isinstance(part, tuple):
        items: tuple[Any, ...] = part
        for item in items:
            yield from keys_of(item)


def test_together_they_show_every_key_of_a_job() -> None:
    shown = {key for name in NAMES for key in keys_of(graph(name, "yaml").spec)}
    assert set(JobSpec.model_fields) - shown == {"supports_termination"}
