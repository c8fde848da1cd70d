"""A workflow defined directly, by its nodes and edges, as the seed's first way has it; turned into the second.

An edge goes from one node to another, each named "collection/name": jobs/a blocks jobs/b, jobs/a needs files/x. What it
says is put into the job that it is about, so that one set of checks holds for both ways.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal

from pydantic import ConfigDict, Field

from knockem_dagster.errors import Fault
from knockem_dagster.jobs.specs.reading import refused, spec_of
from knockem_dagster.jobs.specs.workflow_spec import (
    Environment,
    FailureHandlerSpec,
    Name,
    ResourceRequirementsSpec,
    SlurmSchedulerSpec,
    SpecPart,
    StdioSpec,
    Text,
    WorkflowSpec,
)
from knockem_dagster.mapping_file import one_line

EdgeKind = Literal["blocks", "needs", "produces", "requires", "scheduled_by", "stores"]
_LISTS: dict[tuple[EdgeKind, str, str], str] = {
    ("needs", "jobs", "files"): "input_files",
    ("needs", "jobs", "userData"): "input_user_data",
    ("produces", "jobs", "files"): "output_files",
    ("stores", "jobs", "userData"): "output_user_data",
}
_CHOICES: dict[tuple[EdgeKind, str, str], str] = {
    ("requires", "jobs", "resourceRequirements"): "resource_requirements",
    ("scheduled_by", "jobs", "schedulerConfigurations"): "scheduler",
}
_BLOCKS: tuple[EdgeKind, str, str] = ("blocks", "jobs", "jobs")


class DirectJob(SpecPart):
    """A command; what it waits for, reads and makes, edges tell."""

    name: Name
    command: Text = Field(min_length=1)
    env: Environment | None = None
    priority: int = Field(default=0, ge=-(1 << 31), lt=1 << 31)
    failure_handler: str | None = None
    cancel_on_blocking_job_failure: bool = False
    stdio: StdioSpec | None = None


class DirectFile(SpecPart):
    """A file that jobs read or make."""

    name: Name
    path: Text = Field(min_length=1)


class DirectUserData(SpecPart):
    """JSON that jobs read or store."""

    name: Name
    data: Any = None


class DirectEdge(SpecPart):
    """From one node to another, both as "collection/name"."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)

    kind: EdgeKind
    origin: str = Field(alias="from", max_length=600)
    target: str = Field(alias="to", max_length=600)


class DirectWorkflow(SpecPart):
    """A whole workflow, by its nodes and edges."""

    name: Name
    description: str | None = None
    env: Environment | None = None
    jobs: tuple[DirectJob, ...]
    files: tuple[DirectFile, ...] = ()
    user_data: tuple[DirectUserData, ...] = ()
    resource_requirements: tuple[ResourceRequirementsSpec, ...] = ()
    scheduler_configurations: tuple[SlurmSchedulerSpec, ...] = ()
    failure_handlers: tuple[FailureHandlerSpec, ...] = ()
    edges: tuple[DirectEdge, ...] = ()


def spec_of_direct(given: DirectWorkflow) -> WorkflowSpec:
    """Return the workflow file that says the same. Raises InvalidInput with every fault of the edges."""
    said: dict[str, dict[str, Any]] = defaultdict(dict)
    faults: list[Fault] = []
    jobs = {job.name for job in given.jobs}
    for number, edge in enumerate(given.edges):
        origin, _, origin_name = edge.origin.partition("/")
        target, _, target_name = edge.target.partition("/")
        key = (edge.kind, origin, target)
        job, other = (target_name, origin_name) if key == _BLOCKS else (origin_name, target_name)
        field = "depends_on" if key == _BLOCKS else _LISTS.get(key) or _CHOICES.get(key)
        if field is None:
            allowed = f"no edge of kind {edge.kind} goes so"
            faults.append(Fault(f"edges[{number}]", one_line(f"{edge.origin} -> {edge.target}"), allowed))
        elif job not in jobs:
            faults.append(Fault(f"edges[{number}]", one_line(f"jobs/{job}"), "there is no such job"))
        elif key not in _CHOICES:
            said[job].setdefault(field, []).append(other)
        elif said[job].setdefault(field, other) != other:
            faults.append(Fault(f"edges[{number}]", one_line(edge.target), f"{job} has {said[job][field]} already"))
    if faults:
        raise refused(faults)
    content = given.model_dump(
        exclude_none=True, exclude={"jobs", "edges", "scheduler_configurations", "resource_requirements"}
    )
    requirements = [_requirement(each) for each in given.resource_requirements]
    return spec_of(
        {
            **content,
            "jobs": [{**job.model_dump(exclude_none=True), **said[job.name]} for job in given.jobs],
            "resource_requirements": requirements,
            "slurm_schedulers": [each.model_dump(exclude_none=True) for each in given.scheduler_configurations],
        }
    )


def _requirement(needs: ResourceRequirementsSpec) -> dict[str, Any]:
    """Return resource requirements as they are written: memory with its unit, run time as a duration."""
    return {**needs.model_dump(), "memory": f"{needs.memory}m", "runtime": f"PT{needs.runtime:f}S"}
